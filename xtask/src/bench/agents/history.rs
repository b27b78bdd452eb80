//! Turns by the length of the history before them, and by the number of their steps.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use musterbeat_testkit::TestDatabase;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::replica::{Replica, Site, client};
use super::super::report::Section;
use super::super::stats::Summary;
use super::super::wait::until;
use super::super::{Output, calls};
use super::ledger::Ledger;
use super::statements::{Cost, Doing, Statements};
use super::story::{Story, errand};
use super::{float, start};
use crate::postgres;

/// Messages before the turn that is measured; even, since a question and its answer are repeated.
const LENGTHS: [u64; 4] = [2, 20, 200, 2_000];

/// Steps of turns, each with a call of a tool, after a short history.
const STEPS: [u64; 3] = [1, 10, 100];

/// Turns that are measured of each.
const ROUNDS: usize = 7;

/// A turn here takes milliseconds a step.
const PATIENCE: Duration = Duration::from_mins(1);

/// What begins each chat: its size is that of a usual question.
const FIRST: &str = "What is to be said of the muster, which is called each beat, so that all know who \
    is there and who is not? Tell it in a few sentences as a sergeant would, with the reason for \
    the roll, what becomes of those who do not answer, and why nobody needs to write a line for \
    each who does; and keep it short, since the drummer waits.";

/// A chat with so many messages, and what turns of so many steps cost in it.
struct Case {
    length: u64,
    steps: u64,
    turns: Vec<Turn>,
}

/// What a turn cost.
#[derive(Clone, Debug, PartialEq)]
struct Turn {
    statements: Statements,
    seconds: f64,
}

/// Measures turns after histories of all lengths, and with all numbers of steps.
pub(super) async fn run(database: &TestDatabase, site: &Site) -> Result<Output> {
    let story = Story::start().await?;
    let replica = start(site, "history", story.url()).await?;
    let mut stage =
        Stage { ledger: Ledger::new(database.connect().await?), http: client()?, replica };
    calls::count(stage.ledger.conn()).await?;
    let by_length = LENGTHS.map(|length| (length, 1));
    let by_steps = STEPS.map(|steps| (LENGTHS[0], steps));
    let lengths = stage.measure(&by_length).await?;
    let steps = stage.measure(&by_steps).await?;
    Ok(output(&lengths, &steps))
}

struct Stage {
    ledger: Ledger,
    http: reqwest::Client,
    replica: Replica,
}

impl Stage {
    /// Measures cases alternately, after a turn each that warms up.
    ///
    /// Each turn has a chat of its own, since it would make the history longer for the next.
    async fn measure(&mut self, cases: &[(u64, u64)]) -> Result<Vec<Case>> {
        let case = |&(length, steps): &(u64, u64)| Case { length, steps, turns: Vec::new() };
        let mut cases: Vec<Case> = cases.iter().map(case).collect();
        for round in 0..=ROUNDS {
            postgres::say(&format!("round {round} of {ROUNDS}"));
            for case in &mut cases {
                let turn = self.turn(case.length, case.steps).await?;
                if 0 < round {
                    case.turns.push(turn);
                }
            }
        }
        Ok(cases)
    }

    async fn turn(&mut self, length: u64, steps: u64) -> Result<Turn> {
        let chat = self.replica.asker().ask(FIRST).await?;
        self.answered(chat, 2).await?;
        self.ledger.lengthen(chat, i64::try_from(length)?).await?;
        let before = Statements::read(self.ledger.conn()).await?;
        self.send(chat, &errand(steps)).await?;
        // A question, an answer and a result a step, and the last answer.
        let seconds = self.answered(chat, length + 2 + 2 * steps).await?;
        let statements = Statements::read(self.ledger.conn()).await?.since(&before);
        Ok(Turn { statements, seconds })
    }

    async fn send(&self, chat: Uuid, text: &str) -> Result<()> {
        let url = format!("{}/api/v1/chats/{chat}/messages", self.replica.url());
        let sent = self.http.post(url).json(&json!({ "content": text })).send().await;
        sent.and_then(reqwest::Response::error_for_status).context("failed to send a turn")?;
        Ok(())
    }

    /// Waits for the end of a turn; returns how long it took.
    async fn answered(&mut self, chat: Uuid, messages: u64) -> Result<f64> {
        let ledger = &mut self.ledger;
        let (count, seconds) =
            until("a turn ends", PATIENCE, async || ledger.answered(chat).await).await?;
        ensure!(
            count == messages,
            "a chat has {count} messages, not {messages}: did its turn fail?"
        );
        Ok(seconds)
    }
}

impl Case {
    fn median(&self, of: impl Fn(&Turn) -> f64) -> f64 {
        Summary::of(&self.turns.iter().map(of).collect::<Vec<_>>()).median
    }

    /// Returns the lowest number of statements of a turn: what a replica does by the clock, such as
    /// to look after others' leases, falls into some turns.
    fn statements(&self) -> u64 {
        let calls = self.turns.iter().map(|turn| of_turn(turn).calls);
        calls.min().unwrap_or(0)
    }

    fn statements_most(&self) -> u64 {
        let calls = self.turns.iter().map(|turn| of_turn(turn).calls);
        calls.max().unwrap_or(0)
    }
}

fn of_turn(turn: &Turn) -> Cost {
    turn.statements.of(Doing::Turn)
}

fn rows(cases: &[Case]) -> Vec<(&'static str, Vec<f64>)> {
    let medians = |of: fn(&Turn) -> f64| cases.iter().map(|case| case.median(of)).collect();
    let first = cases.first().map_or(1.0, |case| case.median(|turn| turn.seconds));
    vec![
        ("statements, fewest", cases.iter().map(|case| float(case.statements())).collect()),
        ("statements, most", cases.iter().map(|case| float(case.statements_most())).collect()),
        ("statements to find work, and NOTIFY", {
            medians(|turn| float(turn.statements.of(Doing::Shared).calls))
        }),
        ("rows", medians(|turn| float(of_turn(turn).rows))),
        ("pages looked at", medians(|turn| float(of_turn(turn).pages))),
        ("ms of the turn", medians(|turn| turn.seconds * 1_000.0)),
        ("time, the first = 1", {
            cases.iter().map(|case| case.median(|turn| turn.seconds) / first).collect()
        }),
    ]
}

fn section(title: &str, cases: &[Case], column: impl Fn(&Case) -> String) -> Section {
    let columns = cases.iter().map(column).collect();
    Section { title: title.to_owned(), columns, rows: rows(cases) }
}

/// Returns how often each kind of statement comes in a turn with one step and the longest history.
fn kinds(cases: &[Case]) -> Section {
    let sent = cases.last().and_then(|case| case.turns.last()).map(|turn| turn.statements.kinds());
    let sent = sent.unwrap_or_default().into_iter();
    let of_turn = sent.filter(|((doing, _), _)| *doing == Doing::Turn);
    let row = |((_, kind), cost): ((Doing, &'static str), Cost)| {
        (kind, [cost.calls, cost.rows, cost.pages].map(float).to_vec())
    };
    Section {
        title: "one turn after the longest history".to_owned(),
        columns: ["statements", "rows", "pages"].map(str::to_owned).to_vec(),
        rows: of_turn.map(row).collect(),
    }
}

/// Returns what must not be: statements that depend on the history, or on more than the steps.
fn violations(lengths: &[Case], steps: &[Case]) -> Vec<String> {
    let mut all = Vec::new();
    let expected = lengths.first().map_or(0, Case::statements);
    for case in lengths.iter().filter(|case| case.statements() != expected) {
        let (length, statements) = (case.length, case.statements());
        all.push(format!(
            "a turn after {length} messages takes {statements} statements, not {expected}"
        ));
    }
    let per_step = |[one, other]: &[Case; 2]| {
        let (fewer, more) = (one.statements(), other.statements());
        float(more.saturating_sub(fewer)) / float(other.steps - one.steps)
    };
    let per_step: Vec<f64> = steps.array_windows().map(per_step).collect();
    if let [first, rest @ ..] = &*per_step
        && rest.iter().any(|later| first < later)
    {
        all.push(format!("later steps take more statements than earlier ones: {per_step:?}"));
    }
    all
}

fn output(lengths: &[Case], steps: &[Case]) -> Output {
    let violations = violations(lengths, steps);
    if let Some(turn) = lengths.last().and_then(|case| case.turns.last()) {
        turn.statements.say_unknown();
    }
    let sections = [
        section("a turn by the messages before it", lengths, |case| case.length.to_string()),
        section("a turn by its steps", steps, |case| case.steps.to_string()),
        kinds(lengths),
    ];
    let text: String = sections.iter().map(Section::text).collect();
    let json = json!({
        "part": "history",
        "rounds": ROUNDS,
        "sections": sections.iter().map(Section::json).collect::<Vec<Value>>(),
        "violations": violations,
    });
    Output { text, json, svg: None, violations }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_grow_with_the_history_or_the_steps_are_a_violation() {
        let case = |length, steps, calls: &[u64]| {
            let turn =
                |calls: &u64| Turn { statements: Statements::of_turns(*calls), seconds: 0.1 };
            Case { length, steps, turns: calls.iter().map(turn).collect() }
        };
        let steps = || [case(2, 1, &[21]), case(2, 10, &[93, 95]), case(2, 100, &[813])];
        let lengths = |long: &[u64]| [case(2, 1, &[21, 24]), case(2_000, 1, long)];
        assert_eq!(violations(&lengths(&[22, 21]), &steps()), Vec::<String>::new());
        assert_eq!(
            violations(&lengths(&[22, 23]), &steps()),
            ["a turn after 2000 messages takes 22 statements, not 21"]
        );
        let [one, ten, _] = steps();
        let more = [one, ten, case(2, 100, &[814])];
        assert_eq!(violations(&lengths(&[21]), &more).len(), 1);
    }
}
