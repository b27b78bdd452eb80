//! What becomes of answers that fail.

use std::sync::Mutex;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::*;

const KEY: &str = "sk-0123456789abcdef";

#[tokio::test]
async fn refusals_are_told_apart() {
    let waits = |seconds| Some(Duration::from_secs(seconds));
    let too_long = "This model's maximum context length is 8000 tokens.";
    for (told, kind, status, message, wait) in [
        (Told::fail(401, "No such key."), ErrorKind::Auth, 401, "No such key.", None),
        (
            Told::fail(429, "Slow down.").retry_after("2"),
            ErrorKind::RateLimit,
            429,
            "Slow down.",
            { waits(2) },
        ),
        (Told::fail(500, "Oh."), ErrorKind::Overloaded, 500, "Oh.", None),
        (Told::fail(503, "Busy.").retry_after("7"), ErrorKind::Overloaded, 503, "Busy.", waits(7)),
        (Told::fail(400, "What?"), ErrorKind::Configuration, 400, "What?", None),
        (
            Told::fail_with_code(400, "context_length_exceeded", too_long),
            ErrorKind::ContextLength,
            400,
            too_long,
            None,
        ),
        (Told::fail(404, "").body("no page"), ErrorKind::Configuration, 404, "no page", None),
        (
            Told::fail(307, "").header("location", "https://elsewhere.example/v1"),
            ErrorKind::Configuration,
            307,
            "it redirects to https://elsewhere.example/v1: set its URL to where it is",
            None,
        ),
    ] {
        let models = FakeModels::start().await.unwrap();
        models.queue(told);
        let (deltas, shown) = answered(&models, request(&[user("Hi.")])).await;
        let expected = ModelError {
            kind,
            provider: "local".to_owned(),
            message: message.to_owned(),
            status: Some(status),
            retry_after: wait,
        };
        assert_eq!(deltas, [Err(expected)], "{shown}");
        // Neither a redirect nor a refusal is answered by a second call.
        assert_eq!(models.asked_total(), 1);
    }
}

#[tokio::test]
async fn answers_that_break_are_failures_of_transport() {
    for told in [
        Told::text("cut").reset(),
        Told::text("cut").end_early(),
        Told::text("cut").event("{garbage"),
        Told::text("cut").call("read", &json!({})).reset(),
    ] {
        let models = FakeModels::start().await.unwrap();
        models.queue(told);
        let (deltas, shown) = answered(&models, request(&[user("Hi.")])).await;
        assert_eq!(deltas.len(), 2, "{shown}");
        assert_eq!(deltas[0], Ok(Delta::Text("cut".to_owned())));
        let error = deltas[1].as_ref().unwrap_err();
        assert_eq!((error.kind, error.status), (ErrorKind::Transport, None), "{error}");
    }
}

#[tokio::test]
async fn answer_without_its_last_event_was_cut_off() {
    check(
        Told::text("a").end_early(),
        &expect![[r#"
            text "a"
            error Transport: local: the answer was cut off
        "#]],
    )
    .await;
}

#[tokio::test]
async fn error_within_a_stream_ends_it() {
    check(
        Told::text("a").error_event("The server is overloaded.").say("b"),
        &expect![[r#"
            text "a"
            error Overloaded: local: The server is overloaded.
        "#]],
    )
    .await;
}

#[tokio::test]
async fn nobody_there_is_a_failure_of_transport() {
    let models = FakeModels::start().await.unwrap();
    let nobody = provider_of("openai", "http://127.0.0.1:1/v1", None);
    let mut deltas = collect(nobody.ask(request(&[user("Hi.")]))).await;
    let error = deltas.pop().unwrap().unwrap_err();
    assert_eq!((error.kind, error.status, deltas.len()), (ErrorKind::Transport, None, 0));
    assert!(error.message.starts_with("no connection: "), "{error}");
    drop(models);
}

#[tokio::test]
async fn long_bodies_are_cut_on_a_character() {
    let models = FakeModels::start().await.unwrap();
    models.queue(Told::fail(500, "").body("ä".repeat(100_000)));
    let (deltas, _) = answered(&models, request(&[user("Hi.")])).await;
    let message = &deltas[0].as_ref().unwrap_err().message;
    assert!(message.chars().all(|char| char == 'ä') && message.len() <= 2_000, "{message}");
}

#[tokio::test]
async fn key_is_sent_and_told_nowhere_else() {
    let heard = Heard::default();
    let listening = tracing::subscriber::set_default(heard.clone());
    let models = FakeModels::start().await.unwrap();
    models.demand_key(KEY);
    let provider = provider_of("openai", &models.base_url(), Some(KEY));
    models.queue(Told::text("fine"));
    assert_eq!(collect(provider.ask(request(&[user("Hi.")]))).await.len(), 2);
    assert_eq!(models.asked()[0].key.as_deref(), Some(KEY));

    let quoted = format!("The key {KEY} may not: {KEY}");
    models.queue(Told::fail(403, &quoted));
    models.queue(Told::fail(500, "").body(&quoted));
    // In JSON it may be hidden by escapes.
    let escaped = r#"{"error": {"message": "The key \u0073k-0123456789abcdef may not."}}"#;
    models.queue(Told::fail(400, "").body(escaped));
    models.queue(Told::text("a").error_event(&quoted));
    models.queue(Told::fail(302, "").header("location", "/?key=sk-0123456789abcdef"));
    models.queue(Told::text("a").event(format!("{{\"{KEY}")));
    for _ in 0..6 {
        let mut deltas = collect(provider.ask(request(&[user("Hi.")]))).await;
        let error = deltas.pop().unwrap().unwrap_err();
        assert!(!format!("{error:?} {error}").contains(KEY), "{error:?}");
    }
    drop(listening);
    assert!(!format!("{provider:?}").contains(KEY));
    let heard = heard.0.lock().unwrap();
    assert!(!heard.contains(KEY), "{heard}");
}

/// Everything that was logged, at any level.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<String>>);

impl Subscriber for Heard {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Heard {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        writeln!(self.0.lock().unwrap(), "{field}: {value:?}").unwrap();
    }
}
