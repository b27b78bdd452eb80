use std::collections::BTreeSet;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

#[test]
fn roll_call_names_who_is_held_lost_orphaned_and_to_be_interrupted() {
    let mut roster = roster("1:4 2:7 3:1");
    let beat = roster.beat_sent();
    let expected = "held 2 3, lost 1:4, orphaned 9:2, interrupted 2:7";
    assert_eq!(muster(&roster, beat, "2:7! 3:1 9:2"), expected);
}

#[test]
fn lists_are_sorted_although_the_roll_is_not() {
    let mut roster = roster("4:1 1:1 2:1 3:1");
    let beat = roster.beat_sent();
    let expected = "held 2 4, lost 1:1 3:1, orphaned 8:1 9:1, interrupted 2:1 4:1";
    assert_eq!(muster(&roster, beat, "9:1 4:1! 8:1 2:1!"), expected);
}

#[test]
fn run_claimed_while_a_beat_is_on_its_way_is_not_lost() {
    let mut roster = Roster::default();
    let before = roster.beat_sent();
    roster.claim_sent();
    assert_eq!(roster.enter(run(1), Fence(1)), Entered::New);
    roster.claim_settled();
    assert_eq!(muster(&roster, before, ""), "", "the roll cannot know it");
    let after = roster.beat_sent();
    assert_eq!(muster(&roster, after, ""), "lost 1:1");
}

#[test]
fn run_that_finishes_while_a_beat_is_on_its_way_is_neither_lost_nor_an_orphan() {
    let mut roster = roster("1:1");
    let beat = roster.beat_sent();
    roster.end(run(1), Fence(1));
    assert_eq!(muster(&roster, beat, ""), "", "its write came before the roll was read");
    assert_eq!(muster(&roster, beat, "1:1!"), "", "its write came after");
    roster.strike(run(1), Fence(1));
    assert!(roster.is_empty());
    assert_eq!(muster(&roster, beat, "1:1"), "orphaned 1:1", "a release under its fence misses");
}

#[test]
fn run_that_goes_on_after_a_write_takes_part_from_the_next_beat() {
    let mut roster = roster("1:1");
    let early = roster.beat_sent();
    roster.end(run(1), Fence(1));
    let during = roster.beat_sent();
    roster.go_on(run(1), Fence(1));
    assert_eq!(muster(&roster, early, ""), "");
    assert_eq!(muster(&roster, during, ""), "");
    let after = roster.beat_sent();
    assert_eq!(muster(&roster, after, ""), "lost 1:1");
    assert_eq!(muster(&roster, after, "1:1"), "held 1");
}

#[test]
fn run_that_was_stolen_and_won_back_replaces_its_entry() {
    let mut roster = roster("1:1");
    assert_eq!(roster.enter(run(1), Fence(3)), Entered::Replaces(Fence(1)));
    let beat = roster.beat_sent();
    roster.end(run(1), Fence(1));
    assert_eq!(muster(&roster, beat, "1:3"), "held 1", "the end was of the former ownership");
    roster.end(run(1), Fence(3));
    roster.go_on(run(1), Fence(1));
    assert_eq!(muster(&roster, beat, ""), "", "so was the going on");
    roster.strike(run(1), Fence(1));
    assert_eq!(holdings(&roster), [(run(1), Fence(3))], "so was the striking off");
}

#[test]
fn run_whose_claim_lost_its_answer_is_an_orphan_once_no_claim_is_in_flight() {
    let mut roster = Roster::default();
    let before = roster.beat_sent();
    roster.claim_sent();
    let during = roster.beat_sent();
    assert_eq!(muster(&roster, before, "1:1"), "", "sent before the claim, answered during it");
    assert_eq!(muster(&roster, during, "1:1"), "", "the answer may still come");
    roster.claim_settled();
    assert_eq!(muster(&roster, before, "1:1"), "", "sent before the claim, answered after it");
    assert_eq!(muster(&roster, during, "1:1"), "", "sent during the claim");
    let after = roster.beat_sent();
    assert_eq!(muster(&roster, after, "1:1"), "orphaned 1:1");
    roster.claim_sent();
    assert_eq!(muster(&roster, after, "1:1"), "", "another claim was sent");
    roster.claim_settled();
    assert_eq!(muster(&roster, after, "1:1"), "", "and was in flight in between");
}

#[test]
fn one_settled_claim_of_two_is_not_quiet() {
    let mut roster = Roster::default();
    roster.claim_sent();
    roster.claim_sent();
    roster.claim_settled();
    let during = roster.beat_sent();
    assert_eq!(muster(&roster, during, "1:1"), "");
    roster.claim_settled();
    let after = roster.beat_sent();
    assert_eq!(muster(&roster, after, "1:1"), "orphaned 1:1");
}

#[test]
fn late_claim_of_a_run_in_the_roster_is_an_orphan_under_its_own_fence() {
    let mut roster = roster("1:1");
    let beat = roster.beat_sent();
    let expected = "lost 1:1, orphaned 1:3";
    assert_eq!(muster(&roster, beat, "1:3"), expected, "committed past its deadline");
    roster.end(run(1), Fence(1));
    assert_eq!(muster(&roster, beat, "1:3"), "orphaned 1:3", "its end is on its way");
    roster.claim_sent();
    assert_eq!(roster.enter(run(1), Fence(3)), Entered::Replaces(Fence(1)));
    roster.claim_settled();
    assert_eq!(muster(&roster, beat, "1:3"), "", "entered after the beat was sent");
}

#[test]
fn database_that_lost_commits_gives_out_a_fence_twice() {
    let mut roster = roster("1:3");
    for fence in [2, 3] {
        assert_eq!(roster.enter(run(1), Fence(fence)), Entered::WentBack);
        assert_eq!(holdings(&roster), [(run(1), Fence(3))]);
    }
    let beat = roster.beat_sent();
    assert_eq!(muster(&roster, beat, "1:2!"), "lost 1:3", "not an orphan while a task is on it");
    roster.strike(run(1), Fence(3));
    assert_eq!(muster(&roster, beat, "1:2!"), "orphaned 1:2");
}

#[test]
fn interrupt_whose_notice_was_lost_comes_with_each_roll() {
    let mut roster = roster("1:1 2:1");
    for _ in 0..2 {
        let beat = roster.beat_sent();
        assert_eq!(muster(&roster, beat, "1:1! 2:1"), "held 1 2, interrupted 1:1");
    }
    let beat = roster.beat_sent();
    assert_eq!(muster(&roster, beat, "1:2! 2:1"), "held 2, lost 1:1, orphaned 1:2");
}

proptest! {
    #[test]
    fn muster_agrees_with_the_definitions(calls in prop::collection::vec(call(), 1..60)) {
        let mut roster = Roster::default();
        let mut beats = Vec::new();
        let mut model = Model::default();
        for call in calls {
            model.now += 1;
            match call {
                Call::Enter(holding) => {
                    prop_assert_eq!(roster.enter(holding.0, holding.1), model.enter(holding));
                }
                Call::End((run, fence)) => {
                    roster.end(run, fence);
                    model.change((run, fence), |entry| entry.ending = true);
                }
                Call::GoOn((run, fence)) => {
                    roster.go_on(run, fence);
                    let since = model.now;
                    model.change((run, fence), |entry| (entry.ending, entry.since) = (false, since));
                }
                Call::Strike((run, fence)) => {
                    roster.strike(run, fence);
                    model.entries.retain(|entry| entry.holding != (run, fence));
                }
                Call::ClaimSent => {
                    roster.claim_sent();
                    model.claims.push((model.now, None));
                }
                Call::ClaimSettled => {
                    roster.claim_settled();
                    model.settle();
                }
                Call::BeatSent => beats.push((roster.beat_sent(), model.now)),
                Call::Muster(which, roll) => {
                    let Some((beat, sent)) = beats.get(which.index(beats.len().max(1))) else {
                        continue;
                    };
                    prop_assert_eq!(roster.muster(*beat, roll.clone()), model.muster(*sent, &roll));
                }
            }
            let expected: BTreeSet<_> = model.entries.iter().map(|entry| entry.holding).collect();
            prop_assert_eq!(roster.runs().collect::<BTreeSet<_>>(), expected);
            prop_assert_eq!(roster.len(), model.entries.len());
        }
    }
}

/// A roster in words: it counts nothing and keeps when everything happened.
#[derive(Default)]
struct Model {
    now: u32,
    entries: Vec<ModelEntry>,
    /// When each claim was sent and settled.
    claims: Vec<(u32, Option<u32>)>,
}

struct ModelEntry {
    holding: Holding,
    /// When it was entered, or went on after a write.
    since: u32,
    ending: bool,
}

impl Model {
    fn enter(&mut self, holding: Holding) -> Entered {
        let former = self.entries.iter().map(|entry| entry.holding);
        let former = former.clone().find(|(run, _)| *run == holding.0);
        if former.is_some_and(|(_, fence)| fence >= holding.1) {
            return Entered::WentBack;
        }
        self.entries.retain(|entry| entry.holding.0 != holding.0);
        self.entries.push(ModelEntry { holding, since: self.now, ending: false });
        former.map_or(Entered::New, |(_, fence)| Entered::Replaces(fence))
    }

    fn change(&mut self, holding: Holding, change: impl FnOnce(&mut ModelEntry)) {
        self.entries.iter_mut().find(|entry| entry.holding == holding).map(change);
    }

    fn settle(&mut self) {
        let now = self.now;
        let open = self.claims.iter_mut().find(|(_, settled)| settled.is_none());
        if let Some((_, settled)) = open {
            *settled = Some(now);
        }
    }

    fn muster(&self, beat_sent: u32, roll: &[RollEntry]) -> Muster {
        let in_flight_since =
            |(_, settled): &(u32, Option<u32>)| settled.is_none_or(|at| at > beat_sent);
        let quiet = !self.claims.iter().any(in_flight_since);
        let took_part =
            self.entries.iter().filter(|entry| entry.since < beat_sent && !entry.ending);
        let took_part: BTreeSet<Holding> = took_part.map(|entry| entry.holding).collect();
        let in_roll: BTreeSet<Holding> = roll.iter().map(|line| (line.run, line.fence)).collect();
        let to_stop = roll.iter().filter(|line| line.stop).map(|line| (line.run, line.fence));
        let to_stop: BTreeSet<Holding> = to_stop.collect();
        // Somebody works on a line if the roster has its run under the same fence or a later one.
        let worked_on = |line: &&Holding| {
            self.entries.iter().any(|entry| entry.holding.0 == line.0 && entry.holding.1 >= line.1)
        };
        Muster {
            held: took_part.intersection(&in_roll).map(|(run, _)| *run).collect(),
            lost: took_part.difference(&in_roll).copied().collect(),
            orphaned: in_roll.iter().filter(|line| quiet && !worked_on(line)).copied().collect(),
            interrupted: took_part.intersection(&to_stop).copied().collect(),
        }
    }
}

#[derive(Clone, Debug)]
enum Call {
    Enter(Holding),
    End(Holding),
    GoOn(Holding),
    Strike(Holding),
    ClaimSent,
    ClaimSettled,
    BeatSent,
    /// With any beat that was sent, since answers come out of order.
    Muster(prop::sample::Index, Vec<RollEntry>),
}

fn call() -> impl Strategy<Value = Call> {
    let holding = || (0..4_u128, 0..4_i64).prop_map(|(number, fence)| (run(number), Fence(fence)));
    let lines = prop::collection::btree_map(0..4_u128, (0..4_i64, any::<bool>()), 0..4);
    let roll = lines.prop_map(|lines| {
        let line =
            |(number, (fence, stop))| RollEntry { run: run(number), fence: Fence(fence), stop };
        lines.into_iter().map(line).collect::<Vec<_>>()
    });
    prop_oneof![
        3 => holding().prop_map(Call::Enter),
        1 => holding().prop_map(Call::End),
        1 => holding().prop_map(Call::GoOn),
        1 => holding().prop_map(Call::Strike),
        1 => Just(Call::ClaimSent),
        1 => Just(Call::ClaimSettled),
        2 => Just(Call::BeatSent),
        4 => (any::<prop::sample::Index>(), roll.prop_shuffle())
            .prop_map(|(which, roll)| Call::Muster(which, roll)),
    ]
}

fn run(number: u128) -> RunId {
    RunId::new(Uuid::from_u128(number))
}

/// Reads `run:fence` words, `!` for an interrupt.
fn roll(text: &str) -> Vec<RollEntry> {
    let line = |word: &str| {
        let (number, rest) = word.split_once(':').unwrap();
        let fence = Fence(rest.trim_end_matches('!').parse().unwrap());
        RollEntry { run: run(number.parse().unwrap()), fence, stop: rest.ends_with('!') }
    };
    text.split_whitespace().map(line).collect()
}

fn roster(text: &str) -> Roster {
    let mut roster = Roster::default();
    for line in roll(text) {
        assert_eq!(roster.enter(line.run, line.fence), Entered::New);
    }
    roster
}

fn holdings(roster: &Roster) -> Vec<Holding> {
    roster.runs().collect()
}

/// Musters and returns the lists that are not empty, in words.
fn muster(roster: &Roster, beat: Beat, text: &str) -> String {
    let Muster { held, lost, orphaned, interrupted } = roster.muster(beat, roll(text));
    let number = |run: &RunId| run.uuid().as_u128().to_string();
    let word = |(run, fence): &Holding| format!("{}:{fence}", number(run));
    let lists = [
        ("held", held.iter().map(number).collect::<Vec<_>>()),
        ("lost", lost.iter().map(word).collect()),
        ("orphaned", orphaned.iter().map(word).collect()),
        ("interrupted", interrupted.iter().map(word).collect()),
    ];
    let full = lists.iter().filter(|(_, words)| !words.is_empty());
    full.map(|(name, words)| format!("{name} {}", words.join(" "))).collect::<Vec<_>>().join(", ")
}
