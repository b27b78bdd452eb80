//! What happens to a chat in each state, in `docs/chats.md`, from the data that decides it.

use std::fmt::Write as _;

use anyhow::Result;
use musterbeat_core::chat::table::{Happening, Outcome, State, outcome};

use super::Output;

/// Lists the outcomes of each happening, states of one outcome together.
pub(super) fn generate() -> Result<Output> {
    Output::section("docs/chats.md", "states", &table())
}

fn table() -> String {
    let mut text = "| event | in | comes to |\n|---|---|---|\n".to_owned();
    for happening in Happening::ALL {
        let mut groups: Vec<(String, Vec<State>)> = Vec::new();
        for state in State::ALL {
            let outcome = outcome(state, happening);
            if outcome == Outcome::Never {
                continue;
            }
            let outcome = outcome.to_string();
            match groups.iter_mut().find(|(known, _)| *known == outcome) {
                Some((_, states)) => states.push(state),
                None => groups.push((outcome, vec![state])),
            }
        }
        let mut name = happening.name();
        for (outcome, states) in groups {
            let states: Vec<String> = states.iter().map(State::to_string).collect();
            let _ = writeln!(text, "| {name} | {} | {outcome} |", states.join("; "));
            name = "";
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_one_outcome_stand_together() {
        let table = table();
        let rows: Vec<&str> = table.lines().filter(|row| row.contains(", fence + 1")).collect();
        assert_eq!(rows[0], "| Claim | pending; pending, queued | running, fence + 1 |");
        let stopped = "pending to be stopped; pending to be stopped, queued";
        assert_eq!(rows[1], format!("|  | {stopped} | interrupting to be stopped, fence + 1 |"));
    }
}
