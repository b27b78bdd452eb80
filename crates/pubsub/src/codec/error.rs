//! Why a payload cannot be read.

/// A payload that no encoder of this version writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is longer than PostgreSQL delivers.
    #[error("payload has {bytes} bytes, at most {} are delivered", super::PAYLOAD_BYTES_MAX)]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// A character is not of the alphabet.
    #[error("character at byte {at} is outside of the alphabet")]
    Character {
        /// Where it stands.
        at: usize,
    },
    /// The version of the format is another one.
    #[error("unknown version of the format")]
    Version,
    /// The kind of message is unknown.
    #[error("unknown kind of message")]
    Kind,
    /// It ends before the message does.
    #[error("payload ends before its message")]
    Short,
    /// It goes on after the message.
    #[error("payload goes on after its message")]
    Surplus,
    /// A number is larger than its place allows.
    #[error("number is out of range")]
    Range,
    /// It counts nothing, or more than its length can hold.
    #[error("count of {count} does not fit the payload")]
    Count {
        /// What it counts.
        count: usize,
    },
    /// A number is written in a longer way than needed.
    #[error("number is not written in the shortest way")]
    Redundant,
}
