//! The fake provider of models, asked over plain sockets.

use std::sync::Arc;

use expect_test::{Expect, expect};
use musterbeat_testkit::{Answer, FakeModels, Gate, Tokens};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::SOON;

#[tokio::test]
async fn text_and_thoughts_come_word_by_word() {
    let tokens = Tokens { input: 9, output: 4, cached: 3, reasoning: 1 };
    let answer = Answer::new().reasoning("Hm, ").say("well then").usage(tokens);
    check(
        answer,
        expect![[r#"
            role assistant
            reasoning_content Hm, 
            content well 
            content then
            finish stop
            usage 9 + 4 = 13, 3 cached, 1 to think
            [DONE]
        "#]],
    )
    .await;
}

#[tokio::test]
async fn calls_come_in_pieces_that_take_turns() {
    let answer = Answer::text("Now:").call("read", &json!({"path": "/x"})).call_text("halt", "");
    check(
        answer.usage(Tokens::default()),
        expect![[r#"
            role assistant
            content Now:
            call 0 call_1_0 read: 
            call 1 call_1_1 halt: 
            call 0: {"pat
            call 0: h":"
            call 0: /x"}
            finish tool_calls
            usage 0 + 0 = 0, 0 cached, 0 to think
            [DONE]
        "#]],
    )
    .await;
    check(
        Answer::new().call_text("a", "12345").call_text("b", "äöü").finish("length"),
        expect![[r#"
            role assistant
            call 0 call_1_0 a: 
            call 1 call_1_1 b: 
            call 0: 12
            call 1: ä
            call 0: 34
            call 1: ö
            call 0: 5
            call 1: ü
            finish length
            usage 39 + 4 = 43, 0 cached, 0 to think
            [DONE]
        "#]],
    )
    .await;
}

#[tokio::test]
async fn faults_within_a_stream() {
    check(
        Answer::text("a").event("{garbage").error_event("Oh.").end_early(),
        expect![[r#"
            role assistant
            content a
            not JSON: {garbage
            error Oh.
        "#]],
    )
    .await;
    check(
        Answer::text("sent before").reset().say("never sent"),
        expect![[r#"
            role assistant
            content sent 
            content before
            (cut off)
        "#]],
    )
    .await;
}

#[tokio::test]
async fn refusals_have_the_shape_of_the_real_ones() {
    let models = FakeModels::start().await.unwrap();
    models.queue(Answer::fail(429, "Slow down.").retry_after("2"));
    models.queue(Answer::fail_with_code(400, "context_length_exceeded", "Too long."));
    let told = ask(&models, None).await;
    assert!(told.starts_with("HTTP/1.1 429 ") && told.contains("\r\nretry-after: 2\r\n"), "{told}");
    let error = json!({"message": "Slow down.", "type": "api_error", "param": null, "code": null});
    assert_eq!(body_of(&told)["error"], error);
    assert_eq!(body_of(&ask(&models, None).await)["error"]["code"], "context_length_exceeded");
    // Nothing is queued any more, and no rule was told.
    assert!(ask(&models, None).await.starts_with("HTTP/1.1 501 "));
    models.demand_key("right");
    assert!(ask(&models, Some("wrong")).await.starts_with("HTTP/1.1 401 "));
    models.answer_by(|asked| Answer::text(asked.key.clone().unwrap()));
    assert!(ask(&models, Some("right")).await.contains(r#""content":"right""#));
    assert_eq!(models.asked_total(), 5);
}

#[tokio::test]
async fn answers_are_held_until_they_are_let_go() {
    let models = Arc::new(FakeModels::start().await.unwrap());
    let (head, first, middle) = (Gate::new(), Gate::new(), Gate::new());
    models
        .queue(Answer::text("").hold(&first).say("one").hold(&middle).say("two").hold_head(&head));
    let asking = tokio::spawn({
        let models = Arc::clone(&models);
        async move { ask(&models, None).await }
    });
    for gate in [&head, &first, &middle] {
        timeout(SOON, gate.holds(1)).await.unwrap();
        assert!(!asking.is_finished());
        gate.open();
    }
    let told = timeout(SOON, asking).await.unwrap().unwrap();
    assert!(told.contains(r#""content":"two""#) && told.contains("[DONE]"), "{told}");
}

#[tokio::test]
async fn answer_whose_client_is_gone_is_no_longer_under_way() {
    let models = FakeModels::start().await.unwrap();
    let gate = Gate::new();
    models.answer_by({
        let gate = gate.clone();
        move |_| Answer::text("begun").hold(&gate)
    });
    let client = send(&models, &request(), None).await;
    timeout(SOON, gate.holds(1)).await.unwrap();
    timeout(SOON, models.under_way(1)).await.unwrap().unwrap();
    drop(client);
    timeout(SOON, models.under_way(0)).await.unwrap().unwrap();
}

#[tokio::test]
async fn requests_are_remembered_by_number() {
    let models = FakeModels::start().await.unwrap();
    models.answer_by(|asked| Answer::text(asked.last_said("user")));
    models.queue(Answer::text("queued first"));
    let (told, second) = tokio::join!(
        async {
            for key in ["a", "b"] {
                ask(&models, Some(key)).await;
            }
        },
        timeout(SOON, models.nth(2)),
    );
    let second = second.unwrap().unwrap();
    assert_eq!((told, second.key.as_deref(), second.model.as_str()), ((), Some("b"), "m"));
    assert_eq!(second.tool_names(), ["read"]);
    assert_eq!(models.nth(1).await.unwrap().key.as_deref(), Some("a"));
    assert!(models.nth(0).await.is_err());
    assert_eq!((models.asked().len(), models.queued()), (2, 0));
}

#[tokio::test]
async fn without_streaming_an_answer_is_one_object() {
    let models = FakeModels::start().await.unwrap();
    models.queue(Answer::text("both").call("read", &json!({})).usage(Tokens::default()));
    let mut request = request();
    request["stream"] = false.into();
    let mut answer = String::new();
    send(&models, &request, None).await.read_to_string(&mut answer).await.unwrap();
    let choice = &body_of(&answer)["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], "both");
    assert_eq!(choice["message"]["tool_calls"][0]["function"]["arguments"], "{}");
}

/// Queues an answer, asks, and compares the events.
async fn check(answer: Answer, expected: Expect) {
    let models = FakeModels::start().await.unwrap();
    models.queue(answer);
    let told = ask(&models, None).await;
    let mut shown: String =
        told.lines().filter_map(|line| line.strip_prefix("data: ")).map(show).collect();
    // The last chunk of a whole body is an empty one.
    if !told.ends_with("\r\n0\r\n\r\n") {
        shown.push_str("(cut off)\n");
    }
    expected.assert_eq(&shown);
}

fn show(data: &str) -> String {
    let Ok(event) = serde_json::from_str::<Value>(data) else {
        return if data == "[DONE]" { "[DONE]\n".into() } else { format!("not JSON: {data}\n") };
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    if let Some(error) = event.get("error") {
        return format!("error {}\n", text(&error["message"]));
    }
    if let Some(usage) = event.get("usage").filter(|usage| !usage.is_null()) {
        assert_eq!(event["choices"], json!([]));
        return format!(
            "usage {} + {} = {}, {} cached, {} to think\n",
            usage["prompt_tokens"],
            usage["completion_tokens"],
            usage["total_tokens"],
            usage["prompt_tokens_details"]["cached_tokens"],
            usage["completion_tokens_details"]["reasoning_tokens"],
        );
    }
    let choice = &event["choices"][0];
    if let Some(reason) = choice["finish_reason"].as_str() {
        return format!("finish {reason}\n");
    }
    let call = &choice["delta"]["tool_calls"][0];
    if let Some(arguments) = call["function"]["arguments"].as_str() {
        let named = call["id"].as_str().zip(call["function"]["name"].as_str());
        let named = named.map(|(id, name)| format!(" {id} {name}")).unwrap_or_default();
        return format!("call {}{named}: {arguments}\n", call["index"]);
    }
    let field = ["role", "content", "reasoning_content"];
    let (field, said) =
        field.iter().find_map(|field| Some((field, choice["delta"].get(field)?))).unwrap();
    format!("{field} {}\n", text(said))
}

fn request() -> Value {
    let tool = json!({"type": "function", "function": {"name": "read", "parameters": {}}});
    json!({
        "model": "m",
        "stream": true,
        "stream_options": {"include_usage": true},
        "messages": [],
        "tools": [tool],
    })
}

/// Asks and returns all that came, the head of the response included.
async fn ask(models: &FakeModels, key: Option<&str>) -> String {
    let mut told = Vec::new();
    // An error ends it as well: what came before it is what is looked at.
    let _ = send(models, &request(), key).await.read_to_end(&mut told).await;
    String::from_utf8(told).unwrap()
}

async fn send(models: &FakeModels, request: &Value, key: Option<&str>) -> TcpStream {
    let url = models.base_url();
    let addr = url.strip_prefix("http://").unwrap().strip_suffix("/v1").unwrap();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let body = request.to_string();
    let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n{key}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    stream
}

fn body_of(told: &str) -> Value {
    serde_json::from_str(told.split_once("\r\n\r\n").unwrap().1).unwrap()
}
