//! What somebody is answered who tries things out without a model.

use serde_json::{Map, Value};

use super::answer::Answer;
use super::asked::Asked;

/// What a user says to have two agents asked, if there is a tool that spawns them.
const ASK_TWO: &str = "ask two agents";

/// Answers by a few rules, as a model that understands nothing but shows everything.
///
/// It tells what tools said, waits for agents that it spawned, calls every tool that the user
/// names with made-up arguments, asks two agents when told to "ask two agents", and else says
/// back what it was told.
pub fn demo(asked: &Asked) -> Answer {
    let question = asked.last_said("user");
    let results = asked.results();
    if !results.is_empty() {
        return wait_for_agents(asked, &results).unwrap_or_else(|| tell(&results));
    }
    let calls = if may_call(asked) { wanted(asked, &question) } else { Vec::new() };
    if calls.is_empty() {
        return Answer::text(format!("You said: {question}"));
    }
    let answer = Answer::new().reasoning("The user wants a tool. ").say("Let me see. ");
    calls.iter().fold(answer, |answer, (name, input)| answer.call(name, input))
}

fn may_call(asked: &Asked) -> bool {
    asked.tool_choice.as_ref().is_none_or(|choice| choice != "none")
}

/// Returns the calls that the user's words ask for.
fn wanted<'a>(asked: &'a Asked, question: &str) -> Vec<(&'a str, Value)> {
    if question.to_lowercase().contains(ASK_TWO)
        && let Some(tool) = tool(asked, "spawn_agent")
    {
        let order = |number| format!("You are agent {number}. {question}").replace(ASK_TWO, "help");
        return (1..=2)
            .map(|number| ("spawn_agent", sample(tool, None, &Map::new(), &order(number))))
            .collect();
    }
    let named = asked.tool_names().into_iter().filter(|name| question.contains(name));
    let with_input = |name| Some((name, sample(tool(asked, name)?, None, &Map::new(), question)));
    named.filter_map(with_input).collect()
}

/// Waits for agents that were spawned in the step before; `None` when none were.
fn wait_for_agents(asked: &Asked, results: &[String]) -> Option<Answer> {
    let wait = tool(asked, "wait_agent").filter(|_| may_call(asked))?;
    let last = asked.messages.iter().rev().find(|message| message["role"] == "assistant")?;
    let are_spawns = |calls: &Vec<Value>| {
        calls.iter().all(|call| call["function"]["name"] == "spawn_agent") && !calls.is_empty()
    };
    last["tool_calls"].as_array().filter(|&calls| are_spawns(calls))?;
    let required: Vec<&str> =
        wait["required"].as_array()?.iter().filter_map(Value::as_str).collect();
    let mut answer = Answer::new();
    for result in results {
        // A spawn that failed tells nothing that could be waited for.
        let Ok(Value::Object(told)) = serde_json::from_str(result) else { return None };
        if !required.iter().all(|name| told.contains_key(*name)) {
            return None;
        }
        answer = answer.call("wait_agent", &sample(wait, None, &told, ""));
    }
    Some(answer)
}

fn tell(results: &[String]) -> Answer {
    let told: Vec<String> = results
        .iter()
        .enumerate()
        .map(|(index, result)| format!("Result {}: {result}", index + 1))
        .collect();
    Answer::text(told.join("\n"))
}

/// Returns the schema of a tool's input, if the tool is on offer.
fn tool<'a>(asked: &'a Asked, name: &str) -> Option<&'a Value> {
    let found = asked.tools.iter().find(|tool| tool["function"]["name"] == name);
    found.map(|tool| &tool["function"]["parameters"])
}

/// Makes up a value of this schema; of an object, what is required.
///
/// A property that is `known` by its name is taken from there, and other texts are `text`.
fn sample(schema: &Value, name: Option<&str>, known: &Map<String, Value>, text: &str) -> Value {
    if let Some(value) = name.and_then(|name| known.get(name)) {
        return value.clone();
    }
    for given in [&schema["const"], &schema["default"], &schema["enum"][0], &schema["examples"][0]]
    {
        if !given.is_null() {
            return given.clone();
        }
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.first().unwrap_or(&Value::Null),
        kind => kind,
    };
    match kind.as_str() {
        Some("string") => text.into(),
        Some("integer" | "number") if schema["minimum"].is_number() => schema["minimum"].clone(),
        Some("integer" | "number") => 1.into(),
        Some("boolean") => true.into(),
        Some("array") => vec![sample(&schema["items"], None, known, text)].into(),
        Some("null") => Value::Null,
        _ => {
            let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
            let required = required.iter().filter_map(Value::as_str);
            let value = |name: &str| sample(&schema["properties"][name], Some(name), known, text);
            required.map(|name| (name.to_owned(), value(name))).collect::<Map<_, _>>().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::super::answer::Step;
    use super::*;

    #[test]
    fn without_a_tool_in_the_question_it_is_said_back() {
        check(&[user("what is there?")], &expect!["You said: what is there?"]);
        check(&[user("hi"), json!({"role": "assistant", "content": "hello"}), user("ask two")], {
            &expect!["You said: ask two"]
        });
    }

    #[test]
    fn tool_that_the_user_names_is_called_with_what_its_schema_requires() {
        check(
            &[user("use get_weather now")],
            &expect![[
                r#"(The user wants a tool. )Let me see. get_weather {"days":2,"unit":"C","where":{"city":"use get_weather now"}}"#
            ]],
        );
    }

    #[test]
    fn two_agents_are_spawned_and_waited_for_and_their_words_told() {
        let mut said = vec![user("please ask two agents about it")];
        check(
            &said,
            &expect![[
                r#"(The user wants a tool. )Let me see. spawn_agent {"prompt":"You are agent 1. please help about it"}spawn_agent {"prompt":"You are agent 2. please help about it"}"#
            ]],
        );
        let call = |name: &str| json!({"id": "1", "type": "function", "function": {"name": name}});
        let calls = [call("spawn_agent"), call("spawn_agent")];
        said.push(json!({"role": "assistant", "content": "", "tool_calls": calls}));
        said.push(result(r#"{"chat_id": "a", "title": "x"}"#));
        said.push(result(r#"{"chat_id": "b"}"#));
        check(&said, &expect![[r#"wait_agent {"chat_id":"a"}wait_agent {"chat_id":"b"}"#]]);
        said.push(json!({"role": "assistant", "content": "", "tool_calls": [call("wait_agent")]}));
        said.push(result("done"));
        check(&said, &expect!["Result 1: done"]);
    }

    #[test]
    fn spawn_that_failed_is_told() {
        let call = json!({"id": "1", "type": "function", "function": {"name": "spawn_agent"}});
        let said = [
            user("ask two agents"),
            json!({"role": "assistant", "content": "", "tool_calls": [call]}),
            result("Error: too many agents"),
        ];
        check(&said, &expect!["Result 1: Error: too many agents"]);
    }

    #[test]
    fn nothing_is_called_that_may_not_be() {
        let mut asked = asked(&[user("use get_weather")]);
        asked.tool_choice = Some(json!("none"));
        expect!["You said: use get_weather"].assert_eq(&shown(demo(&asked)));
    }

    fn user(text: &str) -> Value {
        json!({"role": "user", "content": text})
    }

    fn result(text: &str) -> Value {
        json!({"role": "tool", "tool_call_id": "1", "content": text})
    }

    fn asked(messages: &[Value]) -> Asked {
        let tool = |name: &str, schema: Value| {
            let function = json!({"name": name, "parameters": schema});
            json!({"type": "function", "function": function})
        };
        let weather = json!({
            "type": "object",
            "required": ["days", "unit", "where"],
            "properties": {
                "days": {"type": "integer", "minimum": 2},
                "unit": {"enum": ["C", "F"]},
                "where": {
                    "type": "object",
                    "required": ["city"],
                    "properties": {"city": {"type": ["string", "null"]}, "street": {}},
                },
                "more": {"type": "boolean"},
            },
        });
        let spawn = json!({
            "type": "object",
            "required": ["prompt"],
            "properties": {"prompt": {"type": "string"}, "title": {"type": "string"}},
        });
        let wait = json!({
            "type": "object",
            "required": ["chat_id"],
            "properties": {"chat_id": {"type": "string"}},
        });
        let tools =
            [tool("get_weather", weather), tool("spawn_agent", spawn), tool("wait_agent", wait)];
        let body = json!({"model": "demo", "messages": messages, "tools": tools});
        Asked::read(body.to_string().as_bytes(), None).unwrap()
    }

    fn check(messages: &[Value], expected: &Expect) {
        expected.assert_eq(&shown(demo(&asked(messages))));
    }

    fn shown(answer: Answer) -> String {
        let show = |step| match step {
            Step::Text(text) => text,
            Step::Reasoning(text) => format!("({text})"),
            Step::Call { name, arguments } => format!("{name} {arguments}"),
            step => format!("{step:?}"),
        };
        answer.steps.into_iter().map(show).collect()
    }
}
