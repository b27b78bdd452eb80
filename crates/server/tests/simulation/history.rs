//! What the journal of the database says of each chat: one change after the other.

use std::collections::BTreeMap;

use musterbeat_core::message::{Content, Role};
use musterbeat_core::run::RunStatus;
use musterbeat_testkit::Entry;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// The tables whose rows make up a chat.
pub(crate) const TABLES: [&str; 4] = ["runs", "chats", "chat_messages", "chat_queued_messages"];

/// A run's row.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RunRow {
    run_id: Uuid,
    pub(crate) status: RunStatus,
    pub(crate) worker_id: Option<Uuid>,
    pub(crate) fence: i64,
    pub(crate) step: i64,
    pub(crate) stop: bool,
    pub(crate) version: i64,
    pub(crate) error: Option<String>,
}

/// A chat's row.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ChatRow {
    id: Uuid,
    pub(crate) root_id: Option<Uuid>,
    pub(crate) archived: bool,
    pub(crate) title: String,
}

/// A message's row.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct MessageRow {
    chat_id: Uuid,
    pub(crate) id: i64,
    pub(crate) version: i64,
    pub(crate) role: Role,
    pub(crate) content: Content,
    deleted: bool,
}

/// A queued turn's row.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct QueuedRow {
    chat_id: Uuid,
    pub(crate) id: i64,
    pub(crate) content: Content,
}

/// What one transaction did to one chat.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    pub(crate) transaction: i64,
    /// When it wrote first and last, before it was committed.
    pub(crate) at: i64,
    /// Its run afterwards.
    pub(crate) run: Option<RunRow>,
    /// Its chat afterwards, if that row changed.
    pub(crate) chat: Option<ChatRow>,
    pub(crate) added: Vec<MessageRow>,
    pub(crate) deleted: Vec<MessageRow>,
    pub(crate) enqueued: Vec<QueuedRow>,
    pub(crate) moved: Vec<QueuedRow>,
    pub(crate) unqueued: Vec<QueuedRow>,
}

/// Gathers what was logged by chat and transaction, in order.
///
/// The changes of a chat follow each other: each of them locks its run's row.
pub(crate) fn changes(journal: &[Entry]) -> BTreeMap<Uuid, Vec<Change>> {
    let mut chats: BTreeMap<Uuid, Vec<Change>> = BTreeMap::new();
    for entry in journal {
        let chat = match entry.relation.as_str() {
            "runs" => row::<RunRow>(entry).run_id,
            "chats" => row::<ChatRow>(entry).id,
            "chat_messages" => row::<MessageRow>(entry).chat_id,
            _ => row::<QueuedRow>(entry).chat_id,
        };
        let changes = chats.entry(chat).or_default();
        // A title changes without the lock, amid another transaction perhaps.
        let place = changes.iter().rposition(|change| change.transaction == entry.transaction);
        let place = place.unwrap_or_else(|| {
            let new = Change { transaction: entry.transaction, ..Change::default() };
            changes.push(new);
            changes.len() - 1
        });
        changes[place].add(entry);
    }
    chats
}

impl Change {
    fn add(&mut self, entry: &Entry) {
        if self.at == 0 {
            self.at = entry.at_micros;
        }
        match (entry.relation.as_str(), entry.change.as_str()) {
            ("runs", _) => self.run = Some(row(entry)),
            ("chats", _) => self.chat = Some(row(entry)),
            ("chat_messages", "INSERT") => self.added.push(row(entry)),
            ("chat_messages", _) => {
                let message: MessageRow = row(entry);
                assert!(message.deleted, "a message changed: {entry:?}");
                self.deleted.push(message);
            }
            (_, "INSERT") => self.enqueued.push(row(entry)),
            (_, "UPDATE") => self.moved.push(row(entry)),
            _ => self.unqueued.push(row(entry)),
        }
    }
}

fn row<T: DeserializeOwned>(entry: &Entry) -> T {
    serde_json::from_str(&entry.row).unwrap_or_else(|error| panic!("{error}: {entry:?}"))
}
