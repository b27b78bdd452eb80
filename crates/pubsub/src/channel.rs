//! The channels of PostgreSQL: a few for each topic, and never one for each id.
//!
//! Up to PostgreSQL 18 a session compares every notification of its database with the list of
//! channels that it listens to: with 20,000 channels that takes 125 us each time.

use std::collections::{BTreeMap, BTreeSet};

use musterbeat_core::port::{Interest, Topic};
use uuid::Uuid;

/// Channel on which processes show each other that notices arrive.
pub(crate) const HEARTBEAT: &str = "musterbeat_heartbeat";

/// Channels that a topic may have, at most: codes leave room for so many.
const SHARDS_MAX: u8 = 16;

/// One of the channels of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Channel {
    pub(crate) topic: Topic,
    shard: u8,
}

impl Channel {
    /// Returns every channel of every topic.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Topic::ALL.into_iter().flat_map(Self::of_topic)
    }

    /// Returns every channel by its name.
    pub(crate) fn by_name() -> BTreeMap<String, Self> {
        Self::all().map(|channel| (channel.name(), channel)).collect()
    }

    /// Returns the channels of `topic`.
    pub(crate) fn of_topic(topic: Topic) -> impl Iterator<Item = Self> {
        (0..shards(topic)).map(move |shard| Self { topic, shard })
    }

    /// Returns the channel on which changes of `id` are told.
    pub(crate) fn of(topic: Topic, id: Uuid) -> Self {
        // The last bits of ids are random, whatever their version.
        let [.., last] = *id.as_bytes();
        Self { topic, shard: last % shards(topic) }
    }

    /// Returns the channels on which changes of `interest` are told.
    pub(crate) fn of_interest(topic: Topic, interest: &Interest) -> BTreeSet<Self> {
        match interest {
            Interest::All => Self::of_topic(topic).collect(),
            Interest::One(id) => BTreeSet::from([Self::of(topic, *id)]),
            Interest::Ids(ids) => ids.iter().map(|id| Self::of(topic, *id)).collect(),
        }
    }

    pub(crate) fn name(self) -> String {
        format!("musterbeat_{}_{}", self.topic.as_str(), self.shard)
    }

    /// Returns the number that heartbeats use for the channel.
    pub(crate) fn code(self) -> u8 {
        number(self.topic) * SHARDS_MAX + self.shard
    }

    /// Returns the channel with a number; a later release may know more.
    pub(crate) fn with_code(code: u8) -> Option<Self> {
        Self::all().find(|channel| channel.code() == code)
    }

    /// Says whether changes of `id` are told on this channel of its topic.
    pub(crate) fn carries(self, id: &Uuid) -> bool {
        Self::of(self.topic, *id) == self
    }
}

/// Returns how many channels a topic has.
///
/// Processes of all releases must agree: a topic with another number is another topic.
/// Followers of single ids gain from more channels, who watches all pays for each.
const fn shards(topic: Topic) -> u8 {
    match topic {
        Topic::Chat => 16,
        Topic::Owner => 4,
        Topic::Pending
        | Topic::Claimed
        | Topic::Stop
        | Topic::Token
        | Topic::Stale
        | Topic::Agent
        | Topic::Definitions
        | Topic::Pool => 1,
    }
}

/// Returns the number of a topic, which is for ever.
const fn number(topic: Topic) -> u8 {
    match topic {
        Topic::Pending => 0,
        Topic::Claimed => 1,
        Topic::Chat => 2,
        Topic::Token => 3,
        Topic::Stop => 4,
        Topic::Owner => 5,
        Topic::Stale => 6,
        Topic::Agent => 7,
        Topic::Definitions => 8,
        Topic::Pool => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longest name of a channel: `LISTEN` cuts off a longer one with a mere warning.
    const NAME_BYTES_MAX: usize = 63;

    #[test]
    fn channels_are_told_apart_by_name_and_by_code() {
        for channel in Channel::all() {
            assert_eq!(Channel::with_code(channel.code()), Some(channel));
            assert!(channel.name().len() <= NAME_BYTES_MAX);
        }
        let mut names: BTreeSet<_> = Channel::all().map(Channel::name).collect();
        names.insert(HEARTBEAT.to_owned());
        assert_eq!(names.len(), Channel::all().count() + 1);
    }

    #[test]
    fn each_id_has_one_channel_which_all_of_its_topic_contain() {
        for number in 0..100 {
            let id = Uuid::from_u128(number);
            let channel = Channel::of(Topic::Chat, id);
            assert!(channel.carries(&id));
            assert_eq!(
                Channel::all()
                    .filter(|channel| channel.topic == Topic::Chat && channel.carries(&id))
                    .count(),
                1
            );
            assert!(Channel::of_interest(Topic::Chat, &Interest::All).contains(&channel));
            let one = Interest::One(id);
            assert_eq!(Channel::of_interest(Topic::Chat, &one), BTreeSet::from([channel]));
        }
    }
}
