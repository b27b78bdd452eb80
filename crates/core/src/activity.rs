//! Which workspaces somebody or something works in.

use std::collections::BTreeMap;

use crate::id::{ChatId, OwnerId, WorkspaceId};
use crate::timestamp::Timestamp;

/// What was seen at work since it was last written.
///
/// Of each it holds the latest time only, so it grows with what works and not with time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Workspaces whose agents reported, and whose those agents are: others' do not count.
    pub workspaces: BTreeMap<(WorkspaceId, OwnerId), Timestamp>,
    /// Chats that were answered; the workspaces that they are in count.
    pub chats: BTreeMap<ChatId, Timestamp>,
}

impl Activity {
    /// Says that an agent of `owner` reported of a workspace.
    pub fn saw_agent(&mut self, workspace: WorkspaceId, owner: OwnerId, at: Timestamp) {
        latest(&mut self.workspaces, (workspace, owner), at);
    }

    /// Says that a chat was at work.
    pub fn saw_chat(&mut self, chat: ChatId, at: Timestamp) {
        latest(&mut self.chats, chat, at);
    }

    /// Takes in what another has seen.
    pub fn merge(&mut self, other: Self) {
        for (seen, at) in other.workspaces {
            latest(&mut self.workspaces, seen, at);
        }
        for (seen, at) in other.chats {
            latest(&mut self.chats, seen, at);
        }
    }

    /// Returns how many workspaces and chats were seen.
    pub fn len(&self) -> usize {
        self.workspaces.len() + self.chats.len()
    }

    /// Says whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.workspaces.is_empty() && self.chats.is_empty()
    }
}

fn latest<T: Ord>(seen: &mut BTreeMap<T, Timestamp>, what: T, at: Timestamp) {
    seen.entry(what).and_modify(|before| *before = at.max(*before)).or_insert(at);
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn latest_time_stays_whatever_the_order() {
        let [early, late] = [1, 2].map(|micros| Timestamp::from_micros(micros).unwrap());
        let (id, mut seen) = (Uuid::from_u128(7), Activity::default());
        assert!(seen.is_empty());
        let mut other = Activity::default();
        other.saw_agent(WorkspaceId::new(id), OwnerId::new(id), late);
        other.saw_chat(ChatId::new(id), early);
        seen.saw_agent(WorkspaceId::new(id), OwnerId::new(id), early);
        seen.saw_chat(ChatId::new(id), late);
        seen.merge(other);
        assert_eq!(seen.len(), 2);
        assert!(seen.workspaces.into_values().chain(seen.chats.into_values()).all(|at| at == late));
    }
}
