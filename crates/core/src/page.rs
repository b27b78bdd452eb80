//! Paging through lists that change while somebody reads them.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::id::{ChatId, Version};
use crate::invalid::Invalid;
use crate::message::Message;
use crate::timestamp::Timestamp;

/// Chats of one page when the caller names no number.
pub const LIMIT_DEFAULT: u32 = 50;

/// Chats of one page, at most.
pub const LIMIT_MAX: u32 = 200;

/// Messages of one page of changes; more only to keep one version whole.
pub const MESSAGES_MAX: u32 = 500;

/// Bytes of content after which a page of changes ends: room for two of the largest contents.
pub const PAGE_BYTES_MAX: u32 = 1024 * 1024;

/// How many rows a page holds, from 1 to [`LIMIT_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(u32);

impl Limit {
    /// Takes a number of rows; none means [`LIMIT_DEFAULT`].
    ///
    /// # Errors
    /// Refuses 0 and more than [`LIMIT_MAX`].
    pub fn new(rows: Option<u32>) -> Result<Self, Invalid> {
        match rows {
            None => Ok(Self::default()),
            Some(rows @ 1..=LIMIT_MAX) => Ok(Self(rows)),
            Some(rows) => {
                Err(Invalid::new("limit", format!("is {rows}, 1 to {LIMIT_MAX} are allowed")))
            }
        }
    }

    /// Returns the last of a page's rows, where the next page begins; `None` when this one is not
    /// full, so that none follows.
    pub fn end_of<T>(self, rows: &[T]) -> Option<&T> {
        rows.last().filter(|_| rows.len() >= self.0 as usize)
    }

    /// Returns the number of rows.
    pub const fn rows(self) -> u32 {
        self.0
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(LIMIT_DEFAULT)
    }
}

/// Where a page of chats ended: the pair that the list is sorted by.
///
/// It carries the pair and not the id alone, so a chat that moved since does not move the page.
/// On the wire it is `<microseconds>-<uuid>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The time by which the list is sorted, of the last chat of the page.
    pub at: Timestamp,
    /// That chat.
    pub chat: ChatId,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.at.micros(), self.chat.uuid().simple())
    }
}

impl FromStr for Cursor {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parse = || {
            let (micros, chat) = text.split_once('-')?;
            Some(Self {
                at: Timestamp::from_micros(micros.parse().ok()?)?,
                chat: ChatId::new(Uuid::try_parse(chat).ok()?),
            })
        };
        parse().ok_or_else(|| Invalid::new("after", "is not a cursor of an earlier page"))
    }
}

/// Messages that changed after a version, oldest change first.
///
/// A page never tears a version apart, so a reader resumes after its last.
#[derive(Clone, Debug)]
pub struct MessagePage {
    /// The messages.
    pub messages: Vec<Message>,
    /// Whether a bound was reached, so that there may be more.
    pub full: bool,
}

impl MessagePage {
    /// Returns the version up to which the reader has everything; the chat is at `current`.
    pub fn reached(&self, current: Version) -> Version {
        match self.messages.last() {
            Some(last) if self.full => last.version,
            _ => current,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn limit_has_bounds() {
        assert_eq!(Limit::new(None).unwrap().rows(), 50);
        assert_eq!(
            Limit::new(Some(0)).unwrap_err().to_string(),
            "limit: is 0, 1 to 200 are allowed"
        );
        assert!(Limit::new(Some(201)).is_err());
    }

    proptest! {
        #[test]
        fn cursor_survives_the_wire(micros in 0_i64..4_000_000_000_000_000, id: u128) {
            let at = Timestamp::from_micros(micros).unwrap();
            let cursor = Cursor { at, chat: ChatId::new(Uuid::from_u128(id)) };
            prop_assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        }

        #[test]
        fn no_text_breaks_the_cursor(text: String) {
            let _ = text.parse::<Cursor>();
        }
    }
}
