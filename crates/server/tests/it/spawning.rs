//! Chats that have children work for them, and the limits of that.

use musterbeat_testkit::{Answer, Asked, FakeModels, demo};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::client::{Client, Running};
use crate::models::{answered_by, create, start, told};

/// What has the demo's model spawn two agents.
pub(crate) const ASK_TWO: &str = "Please ask two agents.";

/// What the two report.
pub(crate) const REPORTS: [&str; 2] =
    ["You said: You are agent 1. Please help.", "You said: You are agent 2. Please help."];

fn offers(asked: &Asked) -> bool {
    asked.tool_names().contains(&"spawn_agent")
}

async fn patch(client: &Client, chat: &str, body: &Value) -> (StatusCode, Value) {
    let request = client.request(Method::PATCH, &format!("/api/v1/chats/{chat}"));
    let response = request.json(body).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

#[tokio::test]
async fn two_children_work_and_both_reports_are_in_the_answer() {
    let models = FakeModels::start().await.unwrap();
    models.answer_by(demo);
    let running = start(&models).await;
    let client = &running.client;
    let workspace = client.create_workspace("shared").await;
    let body = json!({ "content": ASK_TWO, "workspace_id": workspace, "model": "demo" });
    let chat = create(client, &body).await;
    client.chat_in(&chat, "waiting").await;
    let history = told(client, &chat).await;
    let answer = history.last().unwrap();
    assert!(REPORTS.iter().all(|report| answer.contains(report)), "{history:#?}");

    let page = client.get_json(&format!("/api/v1/chats/{chat}/children")).await;
    let children = page["chats"].as_array().unwrap();
    assert_eq!(children.len(), 2);
    let root = client.get_json(&format!("/api/v1/chats/{chat}")).await;
    for child in children {
        let inherited = ["workspace_id", "model", "owner_id"];
        assert_eq!(inherited.map(|field| &child[field]), inherited.map(|field| &root[field]));
        assert_eq!((&child["parent_id"], &child["root_id"]), (&root["id"], &root["id"]));
        assert_eq!(child["status"], "waiting");
    }
    let of_children: Vec<_> = models.asked().into_iter().filter(|asked| !offers(asked)).collect();
    assert_eq!(of_children.len(), 2, "only roots spawn unless somebody says so");
    assert_eq!(models.asked_total(), 5, "spawn, two children, wait, answer");
    running.stop().await;
}

#[tokio::test]
async fn depth_of_a_family_is_set_at_its_root() {
    let models = FakeModels::start().await.unwrap();
    models.answer_by(|asked| Answer::text(if offers(asked) { "may" } else { "may not" }));
    let running = start(&models).await;
    let client = &running.client;
    let chat = create(client, &json!({ "content": "May you?", "subagent_depth_max": 0 })).await;
    client.chat_in(&chat, "waiting").await;
    let (status, patched) = patch(client, &chat, &json!({ "subagent_depth_max": 1 })).await;
    assert_eq!((status, &patched["subagent_depth_max"]), (StatusCode::OK, &json!(1)));
    client.send(&chat, "And now?").await;
    client.chat_in(&chat, "waiting").await;
    let history = ["user: May you?", "assistant: may not", "user: And now?", "assistant: may"];
    assert_eq!(told(client, &chat).await, history);
    let (_, cleared) = patch(client, &chat, &json!({ "subagent_depth_max": null })).await;
    assert_eq!(cleared["subagent_depth_max"], Value::Null);

    let child = create(client, &json!({ "content": "x", "parent_id": chat })).await;
    let own = json!({ "subagents_max": 5 });
    let (status, problem) = patch(client, &child, &own).await;
    let told = "the chat has a parent; set limits of subagents at the root of its family";
    assert_eq!((status, &problem["detail"]), (StatusCode::CONFLICT, &json!(told)));
    let body = json!({ "content": "x", "parent_id": chat, "subagents_max": 5 });
    let refused = client.post("/api/v1/chats", &body).await;
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    running.stop().await;
}

#[tokio::test]
async fn limits_over_their_bounds_are_refused_by_field_and_bound() {
    let running = Running::start().await;
    let client = &running.client;
    let chat = client.create_chat("x").await;
    for (field, bound) in [("subagent_depth_max", 10), ("subagents_max", 1_000)] {
        let over = json!({ "content": "x", field: bound + 1 });
        let created = client.post("/api/v1/chats", &over).await;
        assert_eq!(created.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let created: Value = created.json().await.unwrap();
        let (status, patched) = patch(client, &chat, &json!({ field: bound + 1 })).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        let detail = format!("{field}: is {}, 0 to {bound} are allowed", bound + 1);
        for problem in [created, patched] {
            assert_eq!((&problem["field"], &problem["detail"]), (&json!(field), &json!(detail)));
        }
        let (status, _) = patch(client, &chat, &json!({ field: bound })).await;
        assert_eq!(status, StatusCode::OK);
    }
    running.stop().await;
}

/// A root and its children may spawn; grandchildren may not.
#[tokio::test]
async fn grandchild_reports_to_a_child_that_reports_to_the_root() {
    let models = FakeModels::start().await.unwrap();
    models.answer_by(|asked| {
        let question = asked.last_said("user");
        let results = asked.results();
        let last = asked.messages.iter().rev().find(|message| message["role"] == "assistant");
        let called = last.map_or(&Value::Null, |last| &last["tool_calls"][0]["function"]["name"]);
        let result = results.first().map(|result| {
            serde_json::from_str::<Value>(result).unwrap_or_else(|_| json!({ "report": result }))
        });
        match (result, question.strip_prefix("down ")) {
            (Some(result), _) if called == "spawn_agent" => {
                Answer::new().call("wait_agent", &json!({ "chat_id": result["chat_id"] }))
            }
            (Some(result), _) => Answer::text(format!("up {}", result["report"].as_str().unwrap())),
            (None, Some(rest)) if offers(asked) => {
                Answer::new().call("spawn_agent", &json!({ "prompt": rest }))
            }
            _ => Answer::text(format!("reached {question}")),
        }
    });
    let running = start(&models).await;
    let client = &running.client;
    let body = json!({ "content": "down down down there", "subagent_depth_max": 2 });
    let chat = create(client, &body).await;
    client.chat_in(&chat, "waiting").await;
    let answer = told(client, &chat).await.pop().unwrap();
    assert_eq!(answer, "assistant: up up reached down there", "the third may not spawn");
    let family = client.get_json(&format!("/api/v1/chats/{chat}/children?of=descendants")).await;
    assert_eq!(family["chats"].as_array().unwrap().len(), 2);
    running.stop().await;
}

/// An operator's limits hold whatever an owner sets.
#[tokio::test]
async fn child_over_the_operators_number_is_an_error_for_the_model_to_read() {
    let models = FakeModels::start().await.unwrap();
    models.answer_by(demo);
    let answered = answered_by(&models);
    let running = Running::start_with(|settings| {
        answered(settings);
        settings.subagents_limit = 0;
    })
    .await;
    let client = &running.client;
    let chat = create(client, &json!({ "content": ASK_TWO, "subagents_max": 9 })).await;
    client.chat_in(&chat, "waiting").await;
    let history = told(client, &chat).await;
    assert!(history[2].contains("! 0 subagents of this family may be at work"), "{history:#?}");
    let page = client.get_json(&format!("/api/v1/chats/{chat}/children")).await;
    assert_eq!(page["chats"], json!([]));
    running.stop().await;
}
