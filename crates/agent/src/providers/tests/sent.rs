//! What is sent to providers that speak chat completions.

use musterbeat_core::model_config::Effort;

use super::*;

#[tokio::test]
async fn history_with_calls_and_results() {
    let history = [
        said(Role::System, vec![word("Be brief.")]),
        user("Read a and b."),
        user("And c."),
        said(
            Role::Assistant,
            vec![
                thought("Unsigned.", None),
                thought("Of another.", Some("another\nx")),
                word("Sure. "),
                word(""),
                call("1", json!({"path": "a"})),
                call("2", json!("not an object")),
            ],
        ),
        said(Role::Tool, vec![result("2", "No such file.", true)]),
        said(Role::Tool, vec![result("1", "", false)]),
        said(Role::Assistant, vec![thought("Nothing but a thought.", None)]),
        said(Role::System, vec![word("Be briefer.")]),
        said(Role::Assistant, vec![word("  "), call("3", json!({}))]),
        said(Role::Tool, vec![result("3", "c is here", false), result("4", "d too", false)]),
        said(Role::User, vec![other()]),
        user("Done?"),
    ];
    check(request(&history), &expect![[r#"
        {"role":"system","content":"Be brief."}
        {"role":"user","content":"Read a and b."}
        {"role":"user","content":"And c."}
        {"role":"assistant","content":"Sure. ","tool_calls":[{"type":"function","id":"1","function":{"name":"read","arguments":"{\"path\":\"a\"}"}},{"type":"function","id":"2","function":{"name":"read","arguments":"{\"input\":\"not an object\"}"}}]}
        {"role":"tool","content":"Error: No such file.","tool_call_id":"2"}
        {"role":"tool","content":"","tool_call_id":"1"}
        {"role":"system","content":"Be briefer."}
        {"role":"assistant","content":"  ","tool_calls":[{"type":"function","id":"3","function":{"name":"read","arguments":"{}"}}]}
        {"role":"tool","content":"c is here","tool_call_id":"3"}
        {"role":"tool","content":"d too","tool_call_id":"4"}
        {"role":"user","content":"Done?"}
    "#]]).await;
}

#[tokio::test]
async fn options_and_tools() {
    let models = FakeModels::start().await.unwrap();
    models.answer_by(|_| Told::text("fine"));
    let mut request = request(&[user("Hi.")]);
    let asked = sent(&models, request.clone()).await;
    assert_eq!(asked.options["max_tokens"], 500);
    assert_eq!(asked.options["stream_options"], json!({"include_usage": true}));
    assert_eq!((asked.options.get("temperature"), &asked.tool_choice), (None, &None));
    assert_eq!(asked.options.get("reasoning_effort"), None);
    let function = &asked.tools[0]["function"];
    assert_eq!(
        (&function["name"], &function["description"]),
        (&json!("read"), &json!("Reads a file."))
    );
    assert_eq!(function["parameters"], request.tools[0].input);

    request.may_call = false;
    let config = Arc::make_mut(&mut request.config);
    config.temperature = Some(0.5);
    config.max_output_tokens = None;
    config.reasoning_effort = Some(Effort::Minimal);
    let asked = sent(&models, request.clone()).await;
    assert_eq!((asked.tools.len(), &asked.tool_choice), (1, &Some(json!("none"))));
    assert_eq!(asked.options["temperature"], 0.5);
    assert_eq!(asked.options.get("max_tokens"), None, "small models refuse more than they can");
    assert_eq!(asked.options["reasoning_effort"], "minimal");

    // Without a tool there is nothing to choose, and some refuse an empty list.
    request.tools = [].into();
    let asked = sent(&models, request).await;
    assert_eq!((asked.tools.len(), &asked.tool_choice), (0, &None));
}

#[tokio::test]
async fn names_of_models_are_sent_as_they_are() {
    let models = FakeModels::start().await.unwrap();
    models.answer_by(|_| Told::text("fine"));
    for name in ["qwen-max", "mistral-medium", "a::b", "gemini-pro", "org/model:free"] {
        let mut request = request(&[user("Hi.")]);
        name.clone_into(&mut Arc::make_mut(&mut request.config).model);
        let asked = sent(&models, request).await;
        assert_eq!((asked.model.as_str(), asked.options.get("reasoning_effort")), (name, None));
    }
}

#[tokio::test]
async fn thoughts_go_back_to_those_who_want_them() {
    let models = FakeModels::start().await.unwrap();
    models.answer_by(|_| Told::new().reasoning("Hm.").call("read", &json!({})));
    let deepseek = provider_of("deepseek", &models.base_url(), None);
    let deltas = collect(deepseek.ask(request(&[user("Hi.")]))).await;
    let Some(Ok(Delta::End(end))) = deltas.last() else { panic!("{deltas:?}") };
    let [(text, signature)] = end.signed.as_slice() else { panic!("{end:?}") };
    let history = [
        user("Hi."),
        said(Role::Assistant, vec![thought(text, Some(signature)), call("1", json!({}))]),
        said(Role::Tool, vec![result("1", "a", false)]),
    ];
    collect(deepseek.ask(request(&history))).await;
    // Another of the same name, which does not want them.
    collect(provider(&models).ask(request(&history))).await;
    let asked = models.asked();
    assert_eq!(asked[1].messages[1]["reasoning_content"], "Hm.");
    assert_eq!(asked[2].messages[1].get("reasoning_content"), None);
}

#[tokio::test]
async fn calls_have_names_that_mistral_takes() {
    let models = FakeModels::start().await.unwrap();
    models.answer_by(|_| Told::text("fine"));
    let history = [
        user("Hi."),
        said(Role::Assistant, vec![call("0198a-1", json!({})), call("0198a-2", json!({}))]),
        said(Role::Tool, vec![result("0198a-1", "a", false), result("0198a-2", "b", false)]),
    ];
    collect(provider_of("mistral", &models.base_url(), None).ask(request(&history))).await;
    let messages = &models.asked()[0].messages;
    let ids = [0, 1].map(|index| messages[1]["tool_calls"][index]["id"].as_str().unwrap());
    assert_eq!(ids, [2, 3].map(|index| messages[index]["tool_call_id"].as_str().unwrap()));
    assert_ne!(ids[0], ids[1]);
    assert!(
        ids.iter().all(|id| id.len() == 9 && id.chars().all(|char| char.is_ascii_alphanumeric()))
    );
}

/// Compares the messages that are sent.
async fn check(request: Request, expected: &Expect) {
    let models = FakeModels::start().await.unwrap();
    models.queue(Told::text("fine"));
    let asked = sent(&models, request).await;
    let shown: Vec<String> = asked.messages.iter().map(Value::to_string).collect();
    expected.assert_eq(&(shown.join("\n") + "\n"));
}

async fn sent(models: &FakeModels, request: Request) -> Arc<musterbeat_testkit::Asked> {
    let (deltas, shown) = answered(models, request).await;
    assert_eq!(deltas[0], Ok(Delta::Text("fine".to_owned())), "{shown}");
    models.asked().pop().unwrap()
}

fn other() -> Part {
    serde_json::from_value(json!({"type": "image", "url": "x"})).unwrap()
}
