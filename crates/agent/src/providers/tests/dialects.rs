//! The other dialects, against a server that says the same to everybody.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

#[tokio::test]
async fn anthropic_is_sent_what_it_wants() {
    let history = [
        said(Role::System, vec![word("Be brief.")]),
        user("Read a and b."),
        said(
            Role::Assistant,
            vec![
                thought("Mine.", Some("local\nsigned")),
                thought("", Some("local\n{\"type\":\"redacted_thinking\",\"data\":\"xyz\"}")),
                thought("Unsigned.", None),
                word("Sure."),
                word(" "),
                call("1", json!({"path": "a"})),
                call("2", json!("not an object")),
            ],
        ),
        said(Role::Tool, vec![result("1", "a is here", false)]),
        said(Role::Tool, vec![result("2", "No such file.", true)]),
        user("Go on."),
    ];
    let mut request = request(&history);
    request.may_call = false;
    let (head, body) = asked("anthropic", Some("sk-1"), request).await;
    assert!(head.starts_with("POST /v1/messages HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nx-api-key: sk-1\r\n"), "{head}");
    assert!(head.contains("\r\nanthropic-version: "), "{head}");
    check(
        &body,
        &expect![[r#"
        model: "tiny-1"
        stream: true
        system: "Be brief."
        tools: {"name":"read","input_schema":{"type":"object","properties":{"path":{"type":"string"}}},"description":"Reads a file."}
        tool_choice: {"type":"none"}
        messages: {"role":"user","content":"Read a and b."}
        messages: {"role":"assistant","content":[{"type":"thinking","thinking":"Mine.","signature":"signed"},{"type":"redacted_thinking","data":"xyz"},{"type":"text","text":"Sure."},{"type":"tool_use","id":"1","name":"read","input":{"path":"a"}},{"type":"tool_use","id":"2","name":"read","input":{"input":"not an object"}}]}
        messages: {"role":"user","content":[{"type":"tool_result","content":"a is here","tool_use_id":"1"},{"type":"tool_result","tool_use_id":"2","content":"No such file.","is_error":true}]}
        messages: {"role":"user","content":"Go on."}
        max_tokens: 500
    "#]],
    );
}

#[tokio::test]
async fn anthropic_gets_its_thoughts_back() {
    let events = r#"event: message_start
data: {"type":"message_start","message":{"usage":{"input_tokens":10,"cache_read_input_tokens":90,"cache_creation_input_tokens":5,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm."}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"c2ln"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"xyz"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: ping
data: {"type":"ping"}

event: content_block_start
data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_1","name":"read","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"path\":\"a\"}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":2}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":15}}

event: message_stop
data: {"type":"message_stop"}

"#;
    let deltas = told("anthropic", events).await;
    let [Ok(Delta::Reasoning(text)), Ok(Delta::Call(made)), Ok(Delta::End(end))] = &deltas[..]
    else {
        panic!("{deltas:?}")
    };
    assert_eq!((text.as_str(), &made.input), ("Hm.", &json!({"path": "a"})));
    expect![[r#"
        end, 10 + 15 = 120 tokens, 90 cached, 5 put into the cache, of 8000
        signed "Hm." "local\nc2ln"
        signed "" "local\n{\"type\":\"redacted_thinking\",\"data\":\"xyz\"}""#]]
    .assert_eq(&show_end(end));
    let parts = end.signed.iter().map(|(text, signature)| thought(text, Some(signature)));
    let parts = parts.chain([call("1", made.input.clone())]).collect();
    let history = [user("Hi."), said(Role::Assistant, parts), {
        said(Role::Tool, vec![result("1", "b", false)])
    }];
    let (_, body) = asked("anthropic", Some("sk-1"), request(&history)).await;
    let blocks = body["messages"][1]["content"].as_array().unwrap();
    let blocks: Vec<String> = blocks.iter().map(Value::to_string).collect();
    expect![[r#"
        {"type":"thinking","thinking":"Hm.","signature":"c2ln"}
        {"type":"redacted_thinking","data":"xyz"}
        {"type":"tool_use","id":"1","name":"read","input":{"path":"a"}}"#]]
    .assert_eq(&blocks.join("\n"));
}

#[tokio::test]
async fn gemini_is_sent_what_it_wants_and_may_not_just_stop() {
    let history = [
        user("Read a."),
        said(
            Role::Assistant,
            vec![thought("Hm.", Some("local\nc2ln")), call("1", json!({"path": "a"}))],
        ),
        said(Role::Tool, vec![result("1", "a is here", false)]),
    ];
    let (head, body) = asked("gemini", Some("sk-1"), request(&history)).await;
    assert!(head.starts_with("POST /v1/models/tiny-1:streamGenerateContent?alt=sse "), "{head}");
    assert!(head.contains("\r\nx-goog-api-key: sk-1\r\n"), "{head}");
    check(
        &body,
        &expect![[r#"
        tools: {"functionDeclarations":[{"name":"read","description":"Reads a file.","parametersJsonSchema":{"type":"object","properties":{"path":{"type":"string"}}}}]}
        contents: {"role":"user","parts":[{"text":"Read a."}]}
        contents: {"role":"model","parts":[{"functionCall":{"id":"1","name":"read","args":{"path":"a"}},"thoughtSignature":"c2ln"}]}
        contents: {"role":"user","parts":[{"functionResponse":{"name":"read","response":{"name":"read","content":"a is here"},"id":"1"}}]}
        generationConfig: {"maxOutputTokens":500}
    "#]],
    );

    let event = |finish: &str| {
        format!(
            r#"data: {{"candidates":[{{"content":{{"parts":[{{"text":"Hm.","thought":true}},{{"functionCall":{{"name":"read","args":{{}}}},"thoughtSignature":"c2ln"}}]}}{finish}}}],"usageMetadata":{{"promptTokenCount":7,"candidatesTokenCount":2,"thoughtsTokenCount":3,"totalTokenCount":12}}}}"#
        ) + "\n\n"
    };
    let whole = told("gemini", &event(r#","finishReason":"STOP""#)).await;
    let [Ok(Delta::Reasoning(_)), Ok(Delta::Call(_)), Ok(Delta::End(end))] = &whole[..] else {
        panic!("{whole:?}")
    };
    expect![[r#"
        end, 7 + 5 = 12 tokens, 3 to think, of 8000
        signed "Hm." "local\nc2ln""#]]
    .assert_eq(&show_end(end));
    let broken = told("gemini", &event("")).await;
    let error = broken.last().unwrap().as_ref().unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::Transport, "the answer was cut off")
    );
}

#[tokio::test]
async fn responses_and_ollama_may_not_just_stop() {
    for (kind, text) in [
        ("openai_responses", "data: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n"),
        ("ollama", "{\"message\":{\"content\":\"a\"}}\n"),
    ] {
        let deltas = told(kind, text).await;
        assert_eq!(deltas[0], Ok(Delta::Text("a".to_owned())), "{kind}: {deltas:?}");
        let error = deltas[1].as_ref().unwrap_err();
        assert_eq!(error.message, "the answer was cut off", "{kind}");
    }
}

#[tokio::test]
async fn failure_that_responses_tell_of_is_told() {
    let failed = json!({"type": "response.failed", "response": {
        "id": "r", "model": "m", "status": "failed", "output": [],
        "error": {"code": "server_error", "message": "The model is overloaded."},
    }});
    let deltas = told("openai_responses", &format!("data: {failed}\n\n")).await;
    let error = deltas[0].as_ref().unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), {
        (ErrorKind::Overloaded, "The model is overloaded.")
    });
}

#[tokio::test]
async fn ollama_takes_one_result_a_message_and_needs_no_key() {
    let history = [
        user("Read a and b."),
        said(Role::Assistant, vec![call("1", json!({"path": "a"})), call("2", json!({}))]),
        said(Role::Tool, vec![result("1", "a is here", false), result("2", "what?", true)]),
    ];
    let (head, body) = asked("ollama", None, request(&history)).await;
    assert!(head.starts_with("POST /v1/api/chat HTTP/1.1\r\n"), "{head}");
    assert!(!head.contains("authorization"), "{head}");
    let results = body["messages"].as_array().unwrap()[2..].iter();
    let results: Vec<&str> = results.filter_map(|told| told["content"].as_str()).collect();
    assert_eq!(results, ["a is here", "Error: what?"]);
    let (head, _) = asked("ollama", Some("sk-1"), request(&history)).await;
    assert!(head.contains("\r\nauthorization: Bearer sk-1\r\n"), "{head}");
}

#[tokio::test]
async fn without_a_key_no_secret_is_sent() {
    for kind in ["openai", "openai_responses", "groq", "mistral"] {
        let (head, _) = asked(kind, None, request(&[user("Hi.")])).await;
        assert!(!head.contains("authorization"), "{head}");
    }
    let (head, _) = asked("anthropic", None, request(&[user("Hi.")])).await;
    assert!(head.contains("\r\nx-api-key: \r\n"), "{head}");
    let base = "https://a.example/v1";
    assert_eq!(provider_of("openai", base, None).provider(), "local");
}

/// Asks, and returns the head and the body of the request.
async fn asked(kind: &str, key: Option<&str>, request: Request) -> (String, Value) {
    let (head, body, _) = serve(kind, key, request, "400 Bad Request", "").await;
    (head, body)
}

/// Returns what becomes of this answer.
async fn told(kind: &str, events: &str) -> Vec<Result<Delta, ModelError>> {
    serve(kind, Some("sk-1"), request(&[user("Hi.")]), "200 OK", events).await.2
}

/// Answers one request.
async fn serve(
    kind: &str,
    key: Option<&str>,
    request: Request,
    status: &str,
    answer: &str,
) -> (String, Value, Vec<Result<Delta, ModelError>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        let (head, body) = loop {
            assert_ne!(stream.read_buf(&mut heard).await.unwrap(), 0, "the request has an end");
            let text = std::str::from_utf8(&heard).unwrap();
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && let Ok(body) = serde_json::from_str::<Value>(body)
            {
                break (format!("{head}\r\n"), body);
            }
        };
        let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n{answer}");
        stream.write_all(answer.as_bytes()).await.unwrap();
        (head, body)
    };
    let asking = collect(provider_of(kind, &url, key).ask(request));
    let ((head, body), deltas) =
        timeout(SOON, futures_util::future::join(serving, asking)).await.unwrap();
    (head, body, deltas)
}

/// Compares a body field by field, lists entry by entry.
fn check(body: &Value, expected: &Expect) {
    let mut shown = String::new();
    for (name, field) in body.as_object().unwrap() {
        let entries = field.as_array().map_or(std::slice::from_ref(field), Vec::as_slice);
        for entry in entries {
            writeln!(shown, "{name}: {entry}").unwrap();
        }
    }
    expected.assert_eq(&shown);
}
