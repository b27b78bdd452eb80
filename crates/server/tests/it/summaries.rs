//! Histories that are summarised: by hand, and when they have grown long.

use std::num::NonZeroU32;

use musterbeat_testkit::{Answer, Asked, FakeModels, Gate, Tokens};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::client::{Client, Running};
use crate::models::{answered_by, soon, start, told};

/// How prompts begin after a summary.
const BEGINNING: &str = "Summary of the conversation so far:\n\nThe gist.";

async fn compact(client: &Client, chat: &str) -> Value {
    let response = client.post(&format!("/api/v1/chats/{chat}/compact"), &json!(null)).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    response.json().await.unwrap()
}

/// Returns what a model was asked with, each message with its role.
fn prompt(asked: &Asked) -> Vec<String> {
    let messages = asked.messages.iter();
    let line = |message: &Value| match &message["content"] {
        Value::String(text) => format!("{}: {text}", message["role"].as_str().unwrap()),
        content => format!("{}: {content}", message["role"].as_str().unwrap()),
    };
    messages.map(line).collect()
}

/// Says whether a model was asked for a summary, which it makes without tools.
fn is_summary(asked: &Asked) -> bool {
    let is_asked = asked.last_said("user").starts_with("Summarise this conversation");
    let may_call = asked.tool_choice.as_ref().is_none_or(|choice| choice != "none");
    assert!(!is_asked || asked.tools.is_empty() || !may_call, "{asked:?}");
    is_asked
}

#[tokio::test]
async fn next_prompt_begins_with_the_summary_that_was_asked_for() {
    let models = FakeModels::start().await.unwrap();
    for answer in ["Hello.", "The gist.", "Better."] {
        models.queue(Answer::text(answer));
    }
    let running = start(&models).await;
    let client = &running.client;
    let chat = client.create_chat("Hello?").await;
    client.chat_in(&chat, "waiting").await;
    assert_eq!(compact(client, &chat).await["queued"], false);
    client.chat_in(&chat, "waiting").await;
    assert!(is_summary(&soon(models.nth(2)).await.unwrap()));
    client.send(&chat, "And now?").await;
    client.chat_in(&chat, "waiting").await;
    let asked = prompt(&soon(models.nth(3)).await.unwrap());
    assert_eq!(asked, [format!("user: {BEGINNING}").as_str(), "user: And now?"]);

    let history = told(client, &chat).await;
    assert_eq!(history[..2], ["user: Hello?", "assistant: Hello."], "all of it stays");
    assert_eq!(history[history.len() - 2..], ["user: And now?", "assistant: Better."]);
    let shown = history.iter().any(|line| line.contains("chat_summarized"));
    assert!(shown && history.contains(&"tool: = The gist.".to_owned()), "{history:#?}");
    assert!(!history.iter().any(|line| line.contains("Summary of the")), "{history:#?}");
    running.stop().await;
}

#[tokio::test]
async fn wish_for_a_summary_waits_in_the_queue_of_a_busy_chat() {
    let (models, gate) = (FakeModels::start().await.unwrap(), Gate::new());
    models.queue(Answer::text("Hello.").hold_head(&gate));
    models.queue(Answer::text("The gist."));
    models.queue(Answer::text("Better."));
    let running = start(&models).await;
    let client = &running.client;
    let chat = client.create_chat("Hello?").await;
    soon(gate.holds(1)).await;
    assert_eq!(compact(client, &chat).await["queued"], true);
    client.send(&chat, "And now?").await;
    let queue = client.get_json(&format!("/api/v1/chats/{chat}/queue")).await;
    assert_eq!(queue["queue"].as_array().unwrap().len(), 2, "{queue}");
    gate.open();
    client.chat_in(&chat, "waiting").await;
    assert!(is_summary(&soon(models.nth(2)).await.unwrap()), "after the answer that was under way");
    assert_eq!(prompt(&soon(models.nth(3)).await.unwrap())[0], format!("user: {BEGINNING}"));
    assert_eq!(models.asked_total(), 3);
    running.stop().await;
}

#[tokio::test]
async fn history_that_fills_its_window_is_summarised_after_the_answer() {
    let models = FakeModels::start().await.unwrap();
    let tokens = |input| Tokens { input, output: 10, ..Tokens::default() };
    models.queue(Answer::text("Hello.").usage(tokens(699)));
    models.queue(Answer::text("Still here.").usage(tokens(700)));
    models.queue(Answer::text("The gist."));
    models.queue(Answer::text("Better."));
    let answered = answered_by(&models);
    let running = Running::start_with(|settings| {
        answered(settings);
        settings.model_context = NonZeroU32::new(1_000);
        settings.agent_instructions = Some("Be brief.".to_owned());
    })
    .await;
    let client = &running.client;
    let chat = client.create_chat("Hello?").await;
    for (question, asked) in [("Are you there?", 1), ("And now?", 3)] {
        client.chat_in(&chat, "waiting").await;
        assert_eq!(models.asked_total(), asked, "70 % of the window is what counts");
        client.send(&chat, question).await;
    }
    client.chat_in(&chat, "waiting").await;
    assert!(is_summary(&soon(models.nth(3)).await.unwrap()));
    let asked = prompt(&soon(models.nth(4)).await.unwrap());
    let beginning = format!("user: {BEGINNING}");
    assert_eq!(asked, ["system: Be brief.", &beginning, "user: And now?"]);
    running.stop().await;
}

#[tokio::test]
async fn summary_that_fails_is_shown_and_costs_nothing() {
    let models = FakeModels::start().await.unwrap();
    models.queue(Answer::text("Hello."));
    models.queue(Answer::fail(400, "I will not."));
    models.queue(Answer::text("Still here."));
    let running = start(&models).await;
    let client = &running.client;
    let chat = client.create_chat("Hello?").await;
    client.chat_in(&chat, "waiting").await;
    compact(client, &chat).await;
    client.chat_in(&chat, "waiting").await;
    client.send(&chat, "Are you there?").await;
    client.chat_in(&chat, "waiting").await;
    let asked = prompt(&soon(models.nth(3)).await.unwrap());
    let whole = ["user: Hello?", "assistant: Hello.", "user: Are you there?"];
    assert_eq!(asked, whole);
    let history = told(client, &chat).await;
    let shown = history.iter().find(|line| line.contains("I will not.")).expect("it is shown");
    assert!(shown.starts_with("tool: ! the history was not summarised"), "{shown}");
    running.stop().await;
}

#[tokio::test]
async fn runner_that_knows_no_summaries_answers_nothing_to_the_wish() {
    let running = Running::start().await;
    let client = &running.client;
    let chat = client.create_chat("Hello?").await;
    client.chat_in(&chat, "waiting").await;
    compact(client, &chat).await;
    client.chat_in(&chat, "waiting").await;
    client.send(&chat, "And now?").await;
    client.chat_in(&chat, "waiting").await;
    let history = told(client, &chat).await;
    assert_eq!(history[..2], ["user: Hello?", "assistant: Hello?"]);
    let answers = history.iter().filter(|line| line.starts_with("assistant: "));
    assert_eq!(answers.count(), 2, "{history:#?}");
    running.stop().await;
}
