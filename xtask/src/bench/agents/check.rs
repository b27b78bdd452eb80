//! What must hold of families once all is at rest.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::ledger::Member;
use super::story::TOKEN;

/// Characters of a token after its beginning.
const TOKEN_DIGITS: usize = 32;

/// Returns what is wrong with the families of `parents`: each kind once, with how often it is so
/// and the first chat of which it is.
pub(super) fn violations(parents: &[Uuid], members: &[Member]) -> Vec<String> {
    let mut wrongs = Wrongs::default();
    let by_id: BTreeMap<Uuid, &Member> = members.iter().map(|member| (member.id, member)).collect();
    let mut children: BTreeMap<Uuid, Vec<&Member>> = BTreeMap::new();
    for member in members {
        stands(member, &mut wrongs);
        if let Some(parent) = member.parent {
            children.entry(parent).or_default().push(member);
        }
    }
    let mut tokens = BTreeSet::new();
    for id in parents {
        let Some(parent) = by_id.get(id) else {
            wrongs.add("a parent is gone", *id);
            continue;
        };
        if !is_parents(&parent.roles) {
            wrongs.add(format!("a parent's history is {}", parent.roles.join(" ")), *id);
        }
        let children = children.get(id).map_or(&[][..], Vec::as_slice);
        if children.len() != 2 {
            wrongs.add(format!("a parent has {} children", children.len()), *id);
        }
        for child in children {
            let [token] = &*tokens_of(&child.answer) else {
                wrongs.add("a child's report is none", child.id);
                continue;
            };
            if !tokens.insert(token.clone()) {
                wrongs.add("two children report the same", child.id);
            }
            if !parent.answer.contains(token) {
                wrongs.add("a parent's answer lacks the report of a child", *id);
            }
        }
        if tokens_of(&parent.answer).len() != 2 {
            wrongs.add("a parent's answer has not two reports", *id);
        }
    }
    wrongs.told()
}

/// Looks at a chat by itself.
fn stands(member: &Member, wrongs: &mut Wrongs) {
    if member.status != "waiting" {
        let error = member.error.as_deref().map_or(String::new(), |error| format!(": {error}"));
        wrongs.add(format!("a chat is {}{error}", member.status), member.id);
    }
    if member.parent.is_some() && member.roles != ["user", "assistant"] {
        wrongs.add(format!("a child's history is {}", member.roles.join(" ")), member.id);
    }
}

/// Says whether somebody was asked, made calls that were answered at least twice, and ended.
fn is_parents(roles: &[String]) -> bool {
    let [asked, steps @ .., ended] = roles else { return false };
    let (pairs, rest) = steps.as_chunks::<2>();
    asked == "user"
        && ended == "assistant"
        && rest.is_empty()
        && 2 <= pairs.len()
        && pairs.iter().all(|pair| pair == &["assistant", "tool"])
}

fn tokens_of(answer: &str) -> Vec<String> {
    let after = answer.split(TOKEN).skip(1);
    after.map(|rest| rest.chars().take(TOKEN_DIGITS).collect()).collect()
}

/// What is wrong, how often, and where first.
#[derive(Debug, Default)]
struct Wrongs(BTreeMap<String, (u64, Uuid)>);

impl Wrongs {
    fn add(&mut self, what: impl Into<String>, chat: Uuid) {
        self.0.entry(what.into()).or_insert((0, chat)).0 += 1;
    }

    fn told(self) -> Vec<String> {
        let tell = |(what, (count, first))| format!("{what}: {count} times, first chat {first}");
        self.0.into_iter().map(tell).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: Uuid = Uuid::from_u128(1);

    #[test]
    fn family_with_both_reports_is_right() {
        assert_eq!(violations(&[PARENT], &family()), Vec::<String>::new());
        let mut waited_again = family();
        waited_again[0].roles =
            roles("user assistant tool assistant tool assistant tool assistant");
        assert_eq!(violations(&[PARENT], &waited_again), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_is_wrong_is_told() {
        check(|family| family[0].status = "running".into(), &["a chat is running"]);
        check(
            |family| {
                family[2].status = "error".into();
                family[2].error = Some("gone".into());
            },
            &["a chat is error: gone"],
        );
        check(
            |family| family[0].roles = roles("user assistant tool assistant"),
            &["a parent's history is user assistant tool assistant"],
        );
        check(
            |family| family[1].roles = roles("user assistant assistant"),
            &["a child's history is user assistant assistant"],
        );
        check(
            |family| family[1].answer = format!("{TOKEN}{:032}", 9),
            &["a parent's answer lacks the report of a child"],
        );
        check(|family| family[1].answer = "I".into(), &["a child's report is none"]);
        check(
            |family| family[1].answer = family[2].answer.clone(),
            &["two children report the same"],
        );
        check(
            |family| family[0].answer = family[1].answer.clone(),
            &[
                "a parent's answer has not two reports",
                "a parent's answer lacks the report of a child",
            ],
        );
        check(
            |family| {
                let third = Member { id: Uuid::from_u128(4), ..child(4) };
                family.push(third);
            },
            &["a parent has 3 children", "a parent's answer lacks the report of a child"],
        );
        assert_eq!(violations(&[PARENT], &[]).len(), 1);
    }

    fn check(spoil: impl FnOnce(&mut Vec<Member>), expected: &[&str]) {
        let mut family = family();
        spoil(&mut family);
        let told = violations(&[PARENT], &family);
        let told: Vec<_> =
            told.iter().filter_map(|what| Some(what.split_once(": 1 times")?.0)).collect();
        assert_eq!(told, expected);
    }

    fn family() -> Vec<Member> {
        let answer = format!("{TOKEN}{:032} And: {TOKEN}{:032}", 2, 3);
        let parent = Member {
            id: PARENT,
            parent: None,
            roles: roles("user assistant tool assistant tool assistant"),
            answer,
            ..child(1)
        };
        vec![parent, child(2), child(3)]
    }

    fn child(number: u128) -> Member {
        Member {
            id: Uuid::from_u128(number),
            parent: Some(PARENT),
            status: "waiting".into(),
            error: None,
            fence: 1,
            roles: roles("user assistant"),
            answer: format!("{TOKEN}{number:032}"),
        }
    }

    fn roles(roles: &str) -> Vec<String> {
        roles.split(' ').map(str::to_owned).collect()
    }
}
