//! Everything in every order.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;

/// Everything in every order, with calls of tools left open at any point, from a new chat on.
///
/// A requeue may come at any moment, and a user's event may come twice, as when an answer was lost.
#[test]
fn no_order_of_events_breaks_a_rule_or_ends_in_a_place_without_a_way_out() {
    const QUEUE: u32 = 2;
    let new = state(RunStatus::Pending).facts(0);
    let (mut seen, mut next) = (BTreeMap::new(), VecDeque::from([new.clone()]));
    seen.insert(key(&new), BTreeSet::new());
    let mut pairs = BTreeSet::new();
    while let Some(facts) = next.pop_front() {
        for happening in Happening::ALL {
            for answer in answers(&facts) {
                let Some(effects) = happens(&facts, happening, answer, QUEUE) else { continue };
                hold(&facts, &effects);
                pairs.insert((State::shown(&facts), happening));
                let after = after(&facts, &effects);
                seen.get_mut(&key(&facts)).unwrap().insert(key(&after));
                if let Entry::Vacant(new) = seen.entry(key(&after)) {
                    new.insert(BTreeSet::new());
                    next.push_back(after);
                }
            }
        }
    }
    let states: BTreeSet<State> = seen.keys().map(|(state, ..)| *state).collect();
    assert_eq!(states, State::ALL.into_iter().collect(), "every state is reached, and no other");
    for state in State::ALL {
        for happening in Happening::ALL {
            let changes = matches!(outcome(state, happening), Outcome::Changed(_));
            assert!(!changes || pairs.contains(&(state, happening)), "{state}: {happening:?}");
        }
    }
    let (mut home, mut added) = (BTreeSet::from([key(&state(RunStatus::Waiting).facts(0))]), true);
    while added {
        let ways = seen.iter().filter(|(_, to)| to.iter().any(|to| home.contains(to)));
        let ways: Vec<Key> = ways.map(|(from, _)| *from).collect();
        let before = home.len();
        home.extend(ways);
        added = before < home.len();
    }
    assert_eq!(home.len(), seen.len(), "from everywhere a chat may come to rest");
}

type Key = (State, u32, usize);

fn key(facts: &Facts) -> Key {
    (State::shown(facts), facts.queued, facts.open.len())
}

/// What an owner may write: words, a call, two of which one is answered, or the answer to what is
/// open.
fn answers(facts: &Facts) -> Vec<Vec<NewMessage>> {
    let call = said(Role::Assistant, vec![called("a")]);
    let calls = said(Role::Assistant, vec![called("a"), called("b")]);
    let one = crate::call::answers([open("b")], "done");
    let words = NewMessage::answer(text("words"), None);
    let mut answers = vec![vec![], vec![words], vec![call], vec![calls, one]];
    if !facts.open.is_empty() {
        answers.push(vec![crate::call::answers(facts.open.clone(), "done")]);
    }
    answers
}

fn happens(
    facts: &Facts,
    happening: Happening,
    answer: Vec<NewMessage>,
    queue: u32,
) -> Option<Effects> {
    let facts = naming(facts.clone(), happening);
    match event(happening, answer) {
        Some(event) => decide(&facts, event, queue).ok().flatten(),
        None => moved(&facts, happening),
    }
}

/// What must hold after every change.
fn hold(before: &Facts, effects: &Effects) {
    let mut open = before.open.clone();
    for write in &effects.writes {
        match write {
            Write::Append(messages) => {
                for message in messages {
                    assert!(message.role != Role::User || open.is_empty(), "{before:?} {effects}");
                    follow(&mut open, message).unwrap();
                }
            }
            Write::PromoteHead | Write::Promote(_) => assert!(open.is_empty(), "{before:?}"),
            Write::Truncate(_) => open.clear(),
            _ => {}
        }
    }
    let after = after(before, effects);
    let rests = matches!(after.status, RunStatus::Waiting | RunStatus::Error);
    assert!(after.status != RunStatus::Waiting || after.queued == 0, "{before:?} {effects}");
    assert!(!after.archived || rests, "{before:?} {effects}");
    // A reap writes no history: what it leaves open the next user's message closes.
    let decided = before.status != RunStatus::Error && effects.error.as_deref() == Some("failed");
    assert!(after.status != RunStatus::Waiting || open.is_empty(), "{before:?} {effects}");
    assert!(!decided || open.is_empty(), "{before:?} {effects}");
    let failed = after.status == RunStatus::Error;
    assert!(effects.error.is_none() || failed, "{before:?} {effects}");
    assert!(!failed || effects.error.is_some() || before.status == RunStatus::Error);
    assert!(
        !after.stop || matches!(after.status, RunStatus::Pending | RunStatus::Interrupting),
        "{before:?} {effects}"
    );
}
