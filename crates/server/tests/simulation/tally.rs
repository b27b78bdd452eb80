//! What was counted, and what was to be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;

use musterbeat_core::chat::table::{Happening, Outcome as Field, State, outcome};

use crate::api::{Act, Outcome, Request, held};
use crate::faults::{Counts, Fault};
use crate::followers::Follower;
use crate::judge::Verdict;

/// The length of the run for which the numbers below are meant; a shorter one needs fewer.
const SECONDS: u64 = 600;

const KILLS: u64 = 20;
const FREEZES: u64 = 20;
const RESTARTS: u64 = 5;
const EVENTS: u64 = 100;

/// From here on each fault is needed once at least.
const SECONDS_FOR_FAULTS: u64 = 60;

/// What was counted.
pub(crate) struct Tally {
    faults: BTreeMap<Fault, u64>,
    events: BTreeMap<Happening, u64>,
    /// Fields of the table that were entered.
    pairs: BTreeSet<(State, Happening)>,
    /// Accepted, refused and unknown requests.
    requests: BTreeMap<Act, [u64; 3]>,
    chats: usize,
    followers: usize,
    resumed: u64,
    dropped: u64,
    taken: usize,
}

impl Tally {
    pub(crate) fn of(
        log: &[Request],
        counts: &Counts,
        followers: &[Follower],
        chats: usize,
    ) -> Self {
        let mut requests: BTreeMap<Act, [u64; 3]> = BTreeMap::new();
        for request in log {
            let place = match request.outcome {
                Outcome::Accepted(_) => 0,
                Outcome::Refused(_) => 1,
                Outcome::Unknown => 2,
            };
            requests.entry(request.act).or_default()[place] += 1;
        }
        Self {
            faults: held(counts).clone(),
            events: BTreeMap::new(),
            pairs: BTreeSet::new(),
            requests,
            chats,
            followers: followers.len(),
            resumed: followers.iter().map(|follower| follower.resumed).sum(),
            dropped: followers.iter().map(|follower| follower.dropped).sum(),
            taken: followers.iter().map(|follower| follower.taken.len()).sum(),
        }
    }

    pub(crate) fn add(&mut self, verdict: &Verdict) {
        for (event, count) in &verdict.counts {
            *self.events.entry(*event).or_default() += count;
        }
        self.pairs.extend(&verdict.pairs);
    }

    pub(crate) fn table(&self, seconds: u64) -> String {
        let mut table = format!("simulation: {seconds} s, {} chats\n", self.chats);
        for (fault, count) in &self.faults {
            let _ = writeln!(table, "  fault    {:<22} {count:>6}", format!("{fault:?}"));
        }
        for event in Happening::ALL {
            let count = self.events.get(&event).copied().unwrap_or(0);
            let _ = writeln!(table, "  event    {:<22} {count:>6}", event.name());
        }
        let fields =
            State::ALL.iter().flat_map(|state| Happening::ALL.map(|event| (*state, event)));
        let changing =
            fields.filter(|(state, event)| matches!(outcome(*state, *event), Field::Changed(_)));
        let (changing, entered) = (changing.count(), self.pairs.len());
        let _ = writeln!(
            table,
            "  events in {entered} of the {changing} states where they change something"
        );
        for (act, [accepted, refused, unknown]) in &self.requests {
            let _ = writeln!(
                table,
                "  request  {:<22} {accepted:>6} accepted {refused:>6} refused {unknown:>6} unknown",
                format!("{act:?}")
            );
        }
        let Self { followers, resumed, taken, dropped, .. } = self;
        let _ = write!(
            table,
            "  streams  {followers} clients, {resumed} resumed, {taken} versions taken, \
             {dropped} dropped"
        );
        table
    }

    /// Returns what was counted too seldom, each with how often.
    pub(crate) fn short(&self, seconds: u64) -> Vec<String> {
        let faults = [(Fault::Kill, KILLS), (Fault::Freeze, FREEZES), (Fault::Restart, RESTARTS)];
        let once = u64::from(SECONDS_FOR_FAULTS <= seconds);
        let faults = faults.into_iter().map(|(fault, needed)| {
            let count = self.faults.get(&fault).copied().unwrap_or(0);
            (format!("{fault:?}"), count, scaled(needed, seconds).max(once))
        });
        let events = Happening::ALL.into_iter().filter(|event| *event != Happening::Poison);
        let events = events.map(|event| {
            let count = self.events.get(&event).copied().unwrap_or(0);
            (event.name().to_owned(), count, scaled(EVENTS, seconds))
        });
        let short = faults.chain(events).filter(|(_, count, needed)| count < needed);
        short.map(|(name, count, needed)| format!("{name}: {count} of {needed}")).collect()
    }
}

/// Scales what a whole run needs; a short one, where chance counts for more, needs a third of it.
fn scaled(needed: u64, seconds: u64) -> u64 {
    if SECONDS <= seconds { needed } else { needed * seconds / SECONDS / 3 }
}

/// Writes where it is seen when the test passes, too.
pub(crate) fn say(lines: &str) {
    let _ = std::io::stderr().write_all(format!("{lines}\n").as_bytes());
}
