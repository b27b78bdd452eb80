//! What arrived of each publisher, so that what is missing shows.

use std::collections::BTreeMap;

use crate::channel::Channel;
use crate::codec::Known;

/// Publishers and channels remembered, at most: far more than processes are at work at once.
const ENTRIES_MAX: usize = 8_192;

/// The last sequence of each publisher on each channel.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    last: BTreeMap<(u64, Channel), u64>,
}

/// What a sequence says of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the next, or the first that is known.
    Next,
    /// It arrived before: its publisher sent it again, unsure of the answer.
    Repeated,
    /// Others before it did not arrive.
    Broken,
}

impl Ledger {
    /// Enters a payload of the publisher `epoch`.
    pub(crate) fn received(&mut self, epoch: u64, channel: Channel, sequence: u64) -> Verdict {
        let verdict = match self.last.get(&(epoch, channel)) {
            Some(last) if sequence <= *last => return Verdict::Repeated,
            Some(last) if last + 1 < sequence => Verdict::Broken,
            Some(_) | None => Verdict::Next,
        };
        self.enter(epoch, channel, sequence);
        verdict
    }

    /// Enters what somebody else has seen; says whether something did not arrive here.
    ///
    /// So the loss of a publisher's last payload shows, too, though no other follows it.
    pub(crate) fn heard(&mut self, epoch: u64, channel: Channel, sequence: u64) -> bool {
        let behind = match self.last.get(&(epoch, channel)) {
            Some(last) if sequence <= *last => return false,
            known => known.is_some(),
        };
        self.enter(epoch, channel, sequence);
        behind
    }

    /// Forgets a channel that was not listened to for a while.
    pub(crate) fn forget(&mut self, channel: Channel) {
        self.last.retain(|(_, entered), _| *entered != channel);
    }

    /// Returns what to tell others.
    pub(crate) fn known(&self) -> impl Iterator<Item = Known> {
        self.last.iter().map(|((epoch, channel), sequence)| Known {
            epoch: *epoch,
            channel: channel.code(),
            sequence: *sequence,
        })
    }

    fn enter(&mut self, epoch: u64, channel: Channel, sequence: u64) {
        // Each start of a process is a publisher of its own: the dead are not told from the quiet.
        // Whoever is entered anew is believed once.
        if self.last.len() >= ENTRIES_MAX {
            self.last.clear();
        }
        self.last.insert((epoch, channel), sequence);
    }
}

#[cfg(test)]
mod tests {
    use musterbeat_core::port::Topic;

    use super::Verdict::{Broken, Next, Repeated};
    use super::*;

    fn channel(topic: Topic) -> Channel {
        Channel::of_topic(topic).next().unwrap()
    }

    #[test]
    fn hole_in_the_sequence_is_told_once() {
        let mut ledger = Ledger::default();
        let verdicts = [5, 6, 6, 5, 8, 9, 7]
            .map(|sequence| ledger.received(1, channel(Topic::Chat), sequence));
        assert_eq!(verdicts, [Next, Next, Repeated, Repeated, Broken, Next, Repeated]);
    }

    #[test]
    fn publishers_and_channels_are_apart() {
        let mut ledger = Ledger::default();
        for (epoch, topic, sequence) in
            [(1, Topic::Chat, 1), (2, Topic::Chat, 9), (1, Topic::Token, 5), (1, Topic::Chat, 2)]
        {
            assert_eq!(ledger.received(epoch, channel(topic), sequence), Verdict::Next);
        }
    }

    #[test]
    fn last_payload_that_was_lost_is_known_from_hearsay() {
        let mut ledger = Ledger::default();
        assert!(!ledger.heard(1, channel(Topic::Chat), 4), "whoever comes late missed nothing");
        ledger.received(1, channel(Topic::Chat), 5);
        assert!(!ledger.heard(1, channel(Topic::Chat), 5));
        assert!(ledger.heard(1, channel(Topic::Chat), 6));
        assert!(!ledger.heard(1, channel(Topic::Chat), 6), "told once");
    }

    #[test]
    fn forgotten_channel_begins_anew() {
        let mut ledger = Ledger::default();
        ledger.received(1, channel(Topic::Chat), 1);
        ledger.forget(channel(Topic::Chat));
        assert_eq!(ledger.received(1, channel(Topic::Chat), 7), Verdict::Next);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut ledger = Ledger::default();
        for epoch in 0..ENTRIES_MAX as u64 + 10 {
            ledger.received(epoch, channel(Topic::Chat), 1);
        }
        assert!(ledger.known().count() <= ENTRIES_MAX);
    }
}
