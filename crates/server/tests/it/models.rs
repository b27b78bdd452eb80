//! Chats that a model answers, over HTTP, with a provider that answers as a test says.

use musterbeat_server::settings::{RunnerChoice, Settings};
use musterbeat_testkit::{Answer, FakeModels, Gate, TestDatabase, Tokens};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::client::{Client, Events, PATIENCE, Running};
use crate::mcp::Desk;
use crate::ownership::lock;
use crate::replica::{Replica, musterbeat};

/// Has chats answered by `models`, under the name `demo`.
pub(crate) fn answered_by(models: &FakeModels) -> impl FnOnce(&mut Settings) + use<> {
    let url = models.base_url();
    move |settings| {
        settings.runner = RunnerChoice::Agent;
        settings.model_url = Some(url);
        settings.model = Some("demo".to_owned());
    }
}

/// Starts a server whose chats `models` answers.
pub(crate) async fn start(models: &FakeModels) -> Running {
    Running::start_with(answered_by(models)).await
}

/// Waits for what a test's other side does, but not for ever.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it did not come in time")
}

/// Creates a chat as `body` says and returns its id.
pub(crate) async fn create(client: &Client, body: &Value) -> String {
    let response = client.post("/api/v1/chats", body).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let chat: Value = response.json().await.unwrap();
    chat["id"].as_str().unwrap().to_owned()
}

/// Returns what is stored of a chat, each message with who said it and all its parts.
pub(crate) async fn told(client: &Client, chat: &str) -> Vec<String> {
    let page = client.get_json(&format!("/api/v1/chats/{chat}/messages")).await;
    let messages = page["messages"].as_array().unwrap().iter();
    let shown = messages.map(|message| {
        let parts: Vec<_> = message["content"].as_array().unwrap().iter().map(shown).collect();
        format!("{}: {}", message["role"].as_str().unwrap(), parts.join(" | "))
    });
    shown.collect()
}

/// Returns a part as a line; names of calls, which are drawn, are left out.
fn shown(part: &Value) -> String {
    let field = |name: &str| part[name].as_str().unwrap_or_default();
    match field("type") {
        "text" => field("text").to_owned(),
        "reasoning" => format!("({})", field("text")),
        "tool_call" => format!("{}{}", field("name"), part["input"]),
        "tool_result" if part["is_error"] == true => format!("! {}", field("output")),
        "tool_result" => format!("= {}", field("output")),
        _ => part.to_string(),
    }
}

/// Asks in a chat of its own, once its stream has begun; returns the chat and the stream.
async fn follow(client: &Client, question: &str, begins: &Gate) -> (String, Events) {
    let request = client.request(Method::POST, "/api/v1/chats");
    let request = request.header("accept", "text/event-stream");
    let response = request.json(&json!({ "content": question })).send().await.unwrap();
    let mut events = Events::of(response);
    let (_, snapshot) = events.next_named("snapshot").await;
    begins.open();
    (snapshot["chat"]["id"].as_str().unwrap().to_owned(), events)
}

/// Returns the parts up to the first for which `is_last` holds; texts that follow each other are
/// one.
async fn parts(events: &mut Events, is_last: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut parts: Vec<Value> = vec![];
    loop {
        let part = events.next_named("part").await.1["part"].take();
        let is_last = is_last(&part);
        match parts.last_mut() {
            Some(last) if last["type"] == part["type"] && part["text"].is_string() => {
                let whole = [&*last, &part].map(|part| part["text"].as_str().unwrap()).concat();
                last["text"] = whole.into();
            }
            _ => parts.push(part),
        }
        if is_last {
            return parts;
        }
    }
}

#[tokio::test]
async fn tool_is_called_and_its_result_told_in_one_stream() {
    let models = FakeModels::start().await.unwrap();
    let [begins, calls, goes_on, ends] = [(); 4].map(|()| Gate::new());
    let look = Answer::new().reasoning("Who works for me?").say("Let me see.").hold(&calls);
    let tokens = Tokens { input: 120, output: 30, cached: 20, reasoning: 5 };
    let look = look.call("list_agents", &json!({})).usage(tokens).hold_head(&begins);
    models.queue(look);
    models.queue(Answer::new().hold_head(&goes_on).say("Nobody ").hold(&ends).say("does."));
    let database = TestDatabase::create().await.unwrap();
    let running = Running::start_beside(database.url(), answered_by(&models)).await;
    let client = &running.client;

    let (chat, mut events) = follow(client, "Who works for you?", &begins).await;
    let mut looked = parts(&mut events, |part| part["text"] == "see.").await;
    // The step cannot be stored, which would end its parts before they are read.
    let pool = database.pool().await.unwrap();
    let mut locked = pool.begin().await.unwrap();
    lock(&mut locked, &chat).await;
    calls.open();
    looked.extend(parts(&mut events, |part| part["type"] == "tool_result").await);
    locked.rollback().await.unwrap();
    let lines: Vec<_> = looked.iter().map(shown).collect();
    let step = ["(Who works for me?)", "Let me see.", "list_agents{}", r#"= {"agents":[]}"#];
    assert_eq!(lines, step);
    assert_eq!(looked[2]["id"], looked[3]["id"], "the result is of this call");
    goes_on.open();
    let begun = parts(&mut events, |part| part["text"] == "Nobody ").await;
    assert_eq!(begun.len(), 1, "it comes before the answer is whole: {begun:?}");
    ends.open();
    events.rest().await;

    let history = [
        "user: Who works for you?",
        "assistant: (Who works for me?) | Let me see. | list_agents{}",
        r#"tool: = {"agents":[]}"#,
        "assistant: Nobody does.",
    ];
    assert_eq!(told(client, &chat).await, history);
    let asked = soon(models.nth(2)).await.unwrap();
    assert_eq!(asked.results(), [r#"{"agents":[]}"#]);
    let page = client.get_json(&format!("/api/v1/chats/{chat}/messages")).await;
    let usage = &page["messages"][1]["usage"];
    let counted = ["input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens"];
    assert_eq!(counted.map(|tokens| usage[tokens].as_i64()), [100, 30, 20, 5].map(Some));
    assert_eq!(page["messages"][2]["usage"], json!({}), "a tool takes none");
    running.stop().await;
}

#[tokio::test]
async fn follower_sees_why_the_model_is_asked_again() {
    let models = FakeModels::start().await.unwrap();
    let [begins, ends] = [(); 2].map(|()| Gate::new());
    models.queue(Answer::fail(429, "Slow down.").retry_after("0").hold_head(&begins));
    models.queue(Answer::new().say("half ").reset());
    models.queue(Answer::new().say("whole ").hold(&ends).say("answer"));
    let running = start(&models).await;
    let client = &running.client;

    let (chat, mut events) = follow(client, "Well?", &begins).await;
    let seen = parts(&mut events, |part| part["text"] == "whole ").await;
    let kinds: Vec<_> = seen.iter().map(|part| part["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["retry", "text", "retry", "text"]);
    let fields = ["attempt", "kind", "provider", "status_code"];
    let of = |retry: &Value| fields.map(|field| retry[field].clone());
    assert_eq!(of(&seen[0]), [json!(1), json!("rate_limit"), json!("default"), json!(429)]);
    assert!(seen[0]["error"].as_str().unwrap().contains("Slow down."), "{}", seen[0]);
    assert_eq!(of(&seen[2]), [json!(2), json!("transport"), json!("default"), Value::Null]);
    ends.open();
    events.rest().await;
    assert_eq!(told(client, &chat).await, ["user: Well?", "assistant: whole answer"]);
    running.stop().await;
}

#[tokio::test]
async fn failure_that_lasts_is_the_chats_error_and_the_next_turn_is_asked_anew() {
    let models = FakeModels::start().await.unwrap();
    models.queue(Answer::fail(400, "There is no model demo here."));
    models.queue(Answer::text("Better now."));
    let running = start(&models).await;
    let client = &running.client;
    let chat = client.create_chat("Well?").await;
    let stored = client.chat_in(&chat, "error").await;
    let error = stored["error"].as_str().unwrap();
    assert!(error.contains("There is no model demo here."), "{error}");
    assert_eq!(models.asked_total(), 1, "asking again would not help");
    client.send(&chat, "And now?").await;
    client.chat_in(&chat, "waiting").await;
    let history = ["user: Well?", "user: And now?", "assistant: Better now."];
    assert_eq!(told(client, &chat).await, history);
    running.stop().await;
}

#[tokio::test]
async fn interrupted_answer_is_kept_as_far_as_it_came() {
    let models = FakeModels::start().await.unwrap();
    let [begins, never] = [(); 2].map(|()| Gate::new());
    models.queue(Answer::new().hold_head(&begins).say("Half ").hold(&never).say("an answer."));
    models.queue(Answer::text("The other half."));
    let running = start(&models).await;
    let client = &running.client;
    let (chat, mut events) = follow(client, "Well?", &begins).await;
    parts(&mut events, |part| part["text"] == "Half ").await;
    client.post(&format!("/api/v1/chats/{chat}/interrupt"), &json!(null)).await;
    client.chat_in(&chat, "waiting").await;
    soon(models.under_way(0)).await.unwrap();
    client.send(&chat, "Go on.").await;
    client.chat_in(&chat, "waiting").await;
    let history = ["user: Well?", "assistant: Half ", "user: Go on.", "assistant: The other half."];
    assert_eq!(told(client, &chat).await, history);
    running.stop().await;
}

/// At the most talkative level: whoever looks for a fault turns it on.
#[tokio::test]
async fn keys_are_shown_to_whom_they_are_for_and_nobody_else() {
    const KEY: &str = "sk-of-nobody-else-0123456789";
    const TOOLS_KEY: &str = "sk-of-tools-0123456789";
    let models = FakeModels::start().await.unwrap();
    models.demand_key(KEY);
    models.queue(Answer::text("Hello."));
    models.queue(Answer::fail(401, &format!("The key {KEY} is not paid for.")));
    let (folder, desk) = (tempfile::tempdir().unwrap(), Desk::start().await);
    let tools = format!(
        "[[mcp]]\nname = \"desk\"\nurl = \"{}?key={TOOLS_KEY}\"\nallow = [\"*\"]\n\
         headers = {{ authorization = \"Bearer {TOOLS_KEY}\" }}\n",
        desk.url(),
    );
    std::fs::write(folder.path().join("musterbeat.toml"), tools).unwrap();
    let database = TestDatabase::create().await.unwrap();
    let [key_file, log] = ["key", "log"].map(|name| folder.path().join(name));
    std::fs::write(&key_file, format!("{KEY}\n")).unwrap();
    let mut command = musterbeat(folder.path());
    command.args(["--dev", "--runner", "agent", "--database-url", database.url()]);
    command.env("MUSTERBEAT_MODEL_URL", models.base_url()).env("MUSTERBEAT_MODEL", "demo");
    command.env("MUSTERBEAT_MODEL_KEY_FILE", &key_file).env("MUSTERBEAT_LOG", "trace");
    let server = Replica::start_logged(&mut command, std::fs::File::create(&log).unwrap());
    let client = &server.client;

    let chat = client.create_chat("Hello?").await;
    client.chat_in(&chat, "waiting").await;
    assert_eq!(
        soon(models.nth(1)).await.unwrap().key.as_deref(),
        Some(KEY),
        "the line break is cut"
    );
    client.send(&chat, "Are you still there?").await;
    let stored = client.chat_in(&chat, "error").await;
    let error = stored["error"].as_str().unwrap();
    assert!(error.contains("The key [key] is not paid for."), "{error}");
    let metrics = client.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains(r#"musterbeat_model_calls_total{provider="default""#), "{metrics}");
    let models = client.get("/api/v1/models").await.text().await.unwrap();
    let tools = client.get("/api/v1/mcp").await.text().await.unwrap();
    assert!(tools.contains("connected"), "{tools}");
    assert_eq!(desk.right(), format!("Bearer {TOOLS_KEY}"));
    server.stop();
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("TRACE"), "the log says everything");
    for shown in [stored.to_string(), metrics, models, tools, log] {
        let leak = shown.lines().find(|line| line.contains(KEY) || line.contains(TOOLS_KEY));
        assert_eq!(leak, None, "a key is shown");
    }
}
