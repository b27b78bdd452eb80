//! Providers, against fakes on loopback.

mod dialects;
mod failures;
mod sent;

use std::fmt::Write as _;
use std::time::Duration;

use expect_test::{Expect, expect};
use futures_util::FutureExt;
use futures_util::future::ready;
use musterbeat_core::message::{Content, Model as ModelName, PRODUCED_BYTES_MAX, Part, Role};
use musterbeat_core::model_config::ModelConfig;
use musterbeat_testkit::{Answer as Told, FakeModels, Gate, Tokens};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::*;
use crate::error::ErrorKind;
use crate::model::Said;
use crate::tool::ToolSpec;

/// Long enough for a busy machine; nothing waits for it to pass.
const SOON: Duration = Duration::from_mins(1);

#[tokio::test]
async fn text_and_thoughts_come_as_they_are_said() {
    let told = Told::new().reasoning("Let me see. ").say("Five of").say(" ").say("them.");
    let tokens = Tokens { input: 120, output: 30, cached: 100, reasoning: 20 };
    check(
        told.usage(tokens),
        &expect![[r#"
            thought "Let "
            thought "me "
            thought "see. "
            text "Five "
            text "of"
            text " "
            text "them."
            end, 20 + 30 = 150 tokens, 100 cached, 20 to think, of 8000
        "#]],
    )
    .await;
}

#[tokio::test]
async fn calls_come_whole_and_in_order_at_the_end() {
    let told = Told::text("Now.")
        .call("read", &json!({"path": "/a", "lines": [1, 2]}))
        .call("search", &json!({"words": "ä ö ü"}))
        .usage(Tokens::default());
    check(
        told,
        &expect![[r#"
            text "Now."
            call read {"path":"/a","lines":[1,2]}
            call search {"words":"ä ö ü"}
            end, 0 + 0 = 0 tokens, of 8000
        "#]],
    )
    .await;
}

#[tokio::test]
async fn input_that_is_no_json_is_a_text_and_none_an_empty_object() {
    let told = Told::new().call_text("a", "{\"path\": ").call_text("b", "").call_text("c", "7");
    check(
        told.usage(Tokens::default()),
        &expect![[r#"
            call a "{\"path\": "
            call b {}
            call c 7
            end, 0 + 0 = 0 tokens, of 8000
        "#]],
    )
    .await;
    // It was cut before its input came: an empty object would be another call.
    let told = Told::new().call_text("a", "").call_text("b", "").finish("length");
    check(
        told.usage(Tokens::default()),
        &expect![[r#"
            call a {}
            call b ""
            end, 0 + 0 = 0 tokens, of 8000, cut
        "#]],
    )
    .await;
}

#[tokio::test]
async fn calls_that_are_counted_from_one_are_not_made_twice() {
    let event = |call: Value| {
        json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}).to_string()
    };
    let told = Told::new()
        .event(event(json!({"index": 1, "id": "x", "function": {"name": "a", "arguments": ""}})))
        .event(event(json!({"index": 1, "function": {"arguments": "{\"b\": 1}"}})))
        .usage(Tokens::default());
    check(
        told,
        &expect![[r#"
            call a {"b":1}
            end, 0 + 0 = 0 tokens, of 8000
        "#]],
    )
    .await;
}

#[tokio::test]
async fn answer_that_says_nothing_is_one() {
    let told = Told::new().usage(Tokens::default());
    check(told, &expect!["end, 0 + 0 = 0 tokens, of 8000\n"]).await;
}

#[tokio::test]
async fn withheld_answer_is_an_error() {
    let models = FakeModels::start().await.unwrap();
    models.queue(Told::new().finish("content_filter"));
    models.queue(Told::text("Some words").finish("content_filter"));
    let (deltas, _) = answered(&models, request(&[user("How many?")])).await;
    let [Err(error)] = deltas.as_slice() else { panic!("{deltas:?}") };
    // Asking again would give the same.
    assert!(matches!(error.kind, ErrorKind::Configuration | ErrorKind::Other), "{error:?}");
    assert_eq!(error.message, "its filter withheld the answer: content_filter");
    // What was said before it was stopped is kept.
    let (deltas, _) = answered(&models, request(&[user("How many?")])).await;
    assert!(deltas.iter().all(Result::is_ok) && deltas.len() == 3, "{deltas:?}");
}

#[tokio::test]
async fn answer_beyond_the_limit_is_an_error() {
    let models = FakeModels::start().await.unwrap();
    // Pieces as providers send them, though not quite so long.
    let piece = "x".repeat(64 * 1024 - 1);
    let pieces = PRODUCED_BYTES_MAX / piece.len() + 1;
    let (text, input) = ((piece.clone() + " ").repeat(pieces), json!({ "text": piece }));
    models.queue(Told::text(text.clone()));
    models.queue(Told::new().reasoning(text));
    models.queue((0..pieces).fold(Told::new(), |told, _| told.call("write", &input)));
    for _ in 0..3 {
        let (mut deltas, _) = answered(&models, request(&[user("Write.")])).await;
        let error = deltas.pop().unwrap().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Other);
        assert!(error.message.starts_with("the answer has more than 4194304 bytes"), "{error}");
    }
}

#[tokio::test]
async fn nothing_is_asked_before_it_is_polled_and_dropping_ends_the_call() {
    let models = FakeModels::start().await.unwrap();
    let (first, middle) = (Gate::new(), Gate::new());
    models.queue(Told::new().hold(&first).say("one ").hold(&middle).say("two"));
    let mut stream = provider(&models).ask(request(&[user("Wait.")]));
    assert_eq!(models.asked_total(), 0);
    for (gate, text) in [(&first, "one "), (&middle, "two")] {
        // Silence is no error here: whoever asks sets limits.
        let next = stream.next();
        tokio::pin!(next);
        tokio::select! {
            delta = &mut next => panic!("{delta:?} came through a closed gate"),
            () = gate.holds(1) => {}
        }
        if text == "two" {
            assert!(next.as_mut().now_or_never().is_none());
            break;
        }
        gate.open();
        let delta = timeout(SOON, next).await.unwrap();
        assert_eq!(delta, Some(Ok(Delta::Text(text.to_owned()))));
    }
    timeout(SOON, models.under_way(1)).await.unwrap().unwrap();
    drop(stream);
    timeout(SOON, models.under_way(0)).await.unwrap().unwrap();
}

#[tokio::test]
async fn clones_and_steps_share_connections() {
    let models = FakeModels::start().await.unwrap();
    models.answer_by(|asked| Told::text(asked.model.clone()));
    let provider = provider(&models);
    let asks = (0..20).map(|_| collect(provider.clone().ask(request(&[user("Hi.")]))));
    for deltas in futures_util::future::join_all(asks).await {
        assert_eq!(deltas[0], Ok(Delta::Text("tiny-1".to_owned())));
    }
    assert_eq!(models.asked_total(), 20);
}

/// Has a fake tell this, and compares what comes of it.
async fn check(told: Told, expected: &Expect) {
    let models = FakeModels::start().await.unwrap();
    models.queue(told);
    let (_, shown) = answered(&models, request(&[user("How many?")])).await;
    expected.assert_eq(&shown);
}

/// Asks a fake, and returns what came, also as a text.
async fn answered(
    models: &FakeModels,
    request: Request,
) -> (Vec<Result<Delta, ModelError>>, String) {
    let deltas = collect(provider(models).ask(request)).await;
    let shown = deltas.iter().fold(String::new(), |mut shown, delta| {
        match delta {
            Ok(Delta::Text(text)) => writeln!(shown, "text {text:?}"),
            Ok(Delta::Reasoning(text)) => writeln!(shown, "thought {text:?}"),
            Ok(Delta::Writing) => unreachable!("signs of life are left out"),
            Ok(Delta::Call(call)) => writeln!(shown, "call {} {}", call.name, call.input),
            Ok(Delta::End(end)) => writeln!(shown, "{}", show_end(end)),
            Err(error) => writeln!(shown, "error {:?}: {error}", error.kind),
        }
        .unwrap();
        shown
    });
    (deltas, shown)
}

fn show_end(end: &crate::model::End) -> String {
    let usage = &end.usage;
    let mut shown = format!(
        "end, {} + {} = {} tokens",
        usage.input_tokens.unwrap_or(-1),
        usage.output_tokens.unwrap_or(-1),
        usage.total_tokens.unwrap_or(-1),
    );
    for (count, what) in [
        (usage.cache_read_tokens, "cached"),
        (usage.cache_creation_tokens, "put into the cache"),
        (usage.reasoning_tokens, "to think"),
    ] {
        if let Some(count) = count {
            write!(shown, ", {count} {what}").unwrap();
        }
    }
    write!(shown, ", of {}", usage.context_limit.unwrap_or(-1)).unwrap();
    if end.is_cut {
        shown.push_str(", cut");
    }
    for (text, signature) in &end.signed {
        write!(shown, "\nsigned {text:?} {signature:?}").unwrap();
    }
    shown
}

/// Takes all that comes; the stream must end by itself.
async fn collect(
    stream: BoxStream<'static, Result<Delta, ModelError>>,
) -> Vec<Result<Delta, ModelError>> {
    // How often a call shows that it is being written depends on how its bytes come.
    let told = stream.filter(|delta| ready(*delta != Ok(Delta::Writing)));
    timeout(SOON, told.collect()).await.unwrap()
}

fn provider(models: &FakeModels) -> Provider {
    provider_of("openai", &models.base_url(), None)
}

/// Makes a provider that is called `local`.
fn provider_of(kind: &str, base_url: &str, key: Option<&str>) -> Provider {
    let settings = json!({"name": "local", "kind": kind, "base_url": base_url, "key": key});
    Provider::new(serde_json::from_value(settings).unwrap()).unwrap()
}

fn request(messages: &[Said]) -> Request {
    let name = ModelName::new("tiny").unwrap();
    let config = ModelConfig {
        context_limit: Some(8_000),
        max_output_tokens: Some(500),
        ..ModelConfig::new(name, "local", "tiny-1")
    };
    let tool = ToolSpec {
        name: "read".to_owned(),
        description: "Reads a file.".to_owned(),
        input: json!({"type": "object", "properties": {"path": {"type": "string"}}}),
    };
    Request {
        config: Arc::new(config),
        messages: messages.iter().cloned().map(Arc::new).collect(),
        tools: vec![tool].into(),
        may_call: true,
    }
}

fn said(role: Role, parts: Vec<Part>) -> Said {
    Said { role, content: Content::produced_parts(parts).unwrap() }
}

fn user(text: &str) -> Said {
    said(Role::User, vec![word(text)])
}

fn word(text: &str) -> Part {
    Part::Text { text: text.to_owned() }
}

fn call(id: &str, input: Value) -> Part {
    Part::ToolCall { id: id.to_owned(), name: "read".to_owned(), input }
}

fn result(id: &str, output: &str, is_error: bool) -> Part {
    Part::ToolResult { id: id.to_owned(), output: output.to_owned(), is_error }
}

fn thought(text: &str, signature: Option<&str>) -> Part {
    Part::Reasoning { text: text.to_owned(), signature: signature.map(str::to_owned) }
}
