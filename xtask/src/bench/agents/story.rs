//! The model: a stand-in that plays parents and children by rules.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use musterbeat_testkit::{Answer, Asked, FakeModels};
use serde_json::{Value, json};
use uuid::Uuid;

/// What a parent has children for.
const CHILDREN: [&str; 2] = ["the first half", "the second half"];

/// What precedes the token of a report.
pub(super) const TOKEN: &str = "token-";

/// A question that begins a family.
pub(super) fn question(family: u64) -> String {
    format!("Family {family:06}: have two agents work, then tell what they report.")
}

/// A question for a turn that calls so many tools, one after the other.
pub(super) fn errand(steps: u64) -> String {
    format!("Look {steps} times how your agents stand.")
}

/// A provider of models that tells the story.
pub(super) struct Story {
    models: FakeModels,
    told: Arc<Told>,
}

/// What it has answered so far.
#[derive(Debug, Default)]
struct Told {
    spawns: AtomicU64,
    waits: AtomicU64,
    again: AtomicU64,
    reports: AtomicU64,
    endings: AtomicU64,
    others: AtomicU64,
}

/// What it had answered at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tale {
    /// Parents that were to spawn, and that were to wait.
    pub(super) spawns: u64,
    pub(super) waits: u64,
    /// Parents that were to wait again, since a wait had timed out.
    pub(super) again: u64,
    /// Reports of children, and last answers of parents.
    pub(super) reports: u64,
    pub(super) endings: u64,
    /// Requests that belong to no story.
    pub(super) others: u64,
}

impl Tale {
    /// Returns what was answered since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            spawns: self.spawns - before.spawns,
            waits: self.waits - before.waits,
            again: self.again - before.again,
            reports: self.reports - before.reports,
            endings: self.endings - before.endings,
            others: self.others - before.others,
        }
    }

    /// Returns how often the model was asked.
    pub(super) fn calls(self) -> u64 {
        let Self { spawns, waits, again, reports, endings, others } = self;
        spawns + waits + again + reports + endings + others
    }
}

/// How long children think before they report: from the one to the other, by their tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Thought {
    pub(super) least: Duration,
    pub(super) most: Duration,
}

impl Thought {
    fn of(self, token: Uuid) -> Duration {
        let [.., last] = token.into_bytes();
        self.least + self.most.saturating_sub(self.least).mul_f64(f64::from(last) / 255.0)
    }
}

impl Story {
    pub(super) async fn start() -> Result<Self> {
        let story = Self { models: FakeModels::start().await?, told: Arc::default() };
        story.think(Thought::default());
        Ok(story)
    }

    pub(super) fn url(&self) -> String {
        self.models.base_url()
    }

    /// Has children think so long from now on.
    pub(super) fn think(&self, thought: Thought) {
        let told = Arc::clone(&self.told);
        self.models.answer_by(move |asked| answer(asked, thought, &told));
    }

    pub(super) fn told(&self) -> Tale {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Told { spawns, waits, again, reports, endings, others } = &*self.told;
        Tale {
            spawns: count(spawns),
            waits: count(waits),
            again: count(again),
            reports: count(reports),
            endings: count(endings),
            others: count(others),
        }
    }
}

fn answer(asked: &Asked, thought: Thought, told: &Told) -> Answer {
    let question = asked.last_said("user");
    let (counter, answer) = if question.starts_with("Family") {
        parent(asked, &question, told)
    } else if question.starts_with("You are") {
        (&told.reports, child(&question, thought))
    } else if let Some(steps) = steps(&question) {
        (&told.others, run_errand(asked, steps))
    } else {
        (&told.others, Answer::text(format!("You said: {question}")))
    };
    counter.fetch_add(1, Ordering::Relaxed);
    answer
}

/// Spawns, waits until all have reported, and tells what they said.
fn parent<'a>(asked: &Asked, question: &str, told: &'a Told) -> (&'a AtomicU64, Answer) {
    let name: String = question.chars().take_while(|c| *c != ':').collect();
    let results: Vec<String> = asked.messages.iter().filter_map(result).collect();
    if results.is_empty() {
        let spawn = |answer: Answer, half: &&str| {
            let prompt = format!("You are to do {half} of {name}.");
            answer.call("spawn_agent", &json!({ "prompt": prompt }))
        };
        return (&told.spawns, CHILDREN.iter().fold(Answer::new(), spawn));
    }
    let results: Option<Vec<Value>> =
        results.iter().map(|result| serde_json::from_str(result).ok()).collect();
    let Some(results) = results else {
        return (&told.others, Answer::text(format!("{name}: a tool failed.")));
    };
    let reported = |spawned: &Value| {
        let of = results.iter().find(|it| it["chat_id"] == *spawned && it.get("report").is_some());
        of.map(|told| told["report"].as_str().unwrap_or("nothing").to_owned())
    };
    let spawned: Vec<&Value> =
        results.iter().filter(|it| it.get("title").is_some()).map(|it| &it["chat_id"]).collect();
    let missing: Vec<_> = spawned.iter().filter(|chat| reported(chat).is_none()).collect();
    if missing.is_empty() {
        let reports: Vec<String> = spawned.iter().filter_map(|chat| reported(chat)).collect();
        return (&told.endings, Answer::text(format!("{name}: {}", reports.join(" And: "))));
    }
    let counter = if spawned.len() == results.len() { &told.waits } else { &told.again };
    let wait =
        |answer: Answer, chat: &&&Value| answer.call("wait_agent", &json!({ "chat_id": chat }));
    (counter, missing.iter().fold(Answer::new(), wait))
}

/// Thinks, and reports what nobody else can know: each time it is asked something new.
fn child(question: &str, thought: Thought) -> Answer {
    let token = Uuid::now_v7();
    let task = question.trim_start_matches("You are to do ");
    let report = format!("Of {task} I report {TOKEN}{}", token.simple());
    Answer::new().pause(thought.of(token)).say(report)
}

/// Returns how many steps an errand has.
fn steps(question: &str) -> Option<usize> {
    question.strip_prefix("Look ")?.split(' ').next()?.parse().ok()
}

/// Calls a tool that costs next to nothing, until it was called often enough.
fn run_errand(asked: &Asked, steps: usize) -> Answer {
    let since = asked.messages.iter().rev().take_while(|message| message["role"] != "user");
    if since.filter(|message| message["role"] == "tool").count() < steps {
        return Answer::new().call("list_agents", &json!({}));
    }
    Answer::text("I have looked.")
}

/// Returns what a tool said in a message, if it is one of a tool.
fn result(message: &Value) -> Option<String> {
    if message["role"] != "tool" {
        return None;
    }
    Some(match &message["content"] {
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        text => text.as_str().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_spawns_then_waits_then_waits_again_then_tells() {
        let told = Told::default();
        let mut said = vec![json!({ "role": "user", "content": question(7) })];
        let mut say = |results: &[Value]| {
            said.extend(
                results
                    .iter()
                    .map(|result| json!({ "role": "tool", "content": result.to_string() })),
            );
            let asked = Asked {
                model: "story".into(),
                messages: said.clone(),
                tools: vec![],
                tool_choice: None,
                key: None,
                options: serde_json::Map::default(),
                bytes: 0,
            };
            format!("{:?}", answer(&asked, Thought::default(), &told))
        };
        let spawns = say(&[]);
        for half in CHILDREN {
            assert!(
                spawns.contains(&format!("You are to do {half} of Family 000007.")),
                "{spawns}"
            );
        }
        let waits = say(&[
            json!({ "chat_id": "a", "title": "x", "status": "pending" }),
            json!({ "chat_id": "b", "title": "y", "status": "pending" }),
        ]);
        assert_eq!(waits.matches("wait_agent").count(), 2, "{waits}");
        let again = say(&[
            json!({ "chat_id": "a", "status": "waiting", "report": "token-1" }),
            json!({ "chat_id": "b", "status": "running", "timed_out": true }),
        ]);
        assert_eq!(again.matches("wait_agent").count(), 1, "{again}");
        let end = say(&[json!({ "chat_id": "b", "status": "waiting", "report": "token-2" })]);
        assert!(end.contains("token-1 And: token-2"), "{end}");
        let counted = [&told.spawns, &told.waits, &told.again, &told.endings, &told.others];
        assert_eq!(counted.map(|count| count.load(Ordering::Relaxed)), [1, 1, 1, 1, 0]);
    }

    #[test]
    fn errand_names_its_steps() {
        assert_eq!(steps(&errand(12)), Some(12));
        assert_eq!(steps("Look here"), None);
        assert_eq!(steps(&question(1)), None);
    }

    #[test]
    fn thoughts_lie_between_their_bounds() {
        let seconds = Duration::from_secs;
        let thought = Thought { least: seconds(2), most: seconds(6) };
        assert_eq!(thought.of(Uuid::nil()), seconds(2));
        assert_eq!(thought.of(Uuid::max()), seconds(6));
    }
}
