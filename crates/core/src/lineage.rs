//! Which chat descends from which.
//!
//! A chat may wait for and write to its descendants only, so each such wish is checked. Storage
//! reads the chain of parents in one statement; this decides on it.

use crate::id::ChatId;

/// Ancestors of a chat, at most: a chain this long is a runaway.
pub const DEPTH_MAX: usize = 100;

/// The parents of a chat, the nearest first.
///
/// It ends at the root, or where storage met a chat a second time or none at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The chat.
    pub chat: ChatId,
    /// Its parent, its parent's parent, and so on.
    pub ancestors: Vec<ChatId>,
}

impl Lineage {
    /// Says whether the chat descends from `ancestor`; no chat descends from itself.
    pub fn descends_from(&self, ancestor: ChatId) -> bool {
        self.chat != ancestor && self.ancestors.contains(&ancestor)
    }

    /// Says whether the chat may have a child.
    pub fn has_room(&self) -> bool {
        self.ancestors.len() < DEPTH_MAX
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn chat(id: u128) -> ChatId {
        ChatId::new(Uuid::from_u128(id))
    }

    fn lineage(id: u128, ancestors: &[u128]) -> Lineage {
        Lineage { chat: chat(id), ancestors: ancestors.iter().copied().map(chat).collect() }
    }

    #[test]
    fn descendants_are_children_and_their_children() {
        assert!(lineage(2, &[1]).descends_from(chat(1)), "a child");
        assert!(lineage(3, &[2, 1]).descends_from(chat(1)), "a grandchild");
        assert!(!lineage(1, &[]).descends_from(chat(2)), "a root");
        assert!(!lineage(1, &[2]).descends_from(chat(1)), "a parent");
        assert!(!lineage(1, &[]).descends_from(chat(1)), "itself");
        assert!(!lineage(5, &[4]).descends_from(chat(1)), "a broken chain");
        assert!(!lineage(2, &[3, 2]).descends_from(chat(2)), "a cycle");
    }

    #[test]
    fn chain_has_an_end() {
        let long: Vec<u128> = (1..=DEPTH_MAX as u128).collect();
        assert!(!lineage(0, &long).has_room());
        assert!(lineage(0, &long[1..]).has_room());
    }

    proptest! {
        /// Against a walk up a table of parents, which may hold cycles.
        #[test]
        fn walk_agrees(parents in prop::collection::vec(0..12_usize, 12), from in 0..12_usize, to in 0..12_usize) {
            let (mut ancestors, mut seen, mut at) = (vec![], vec![from], from);
            while !seen.contains(&parents[at]) {
                at = parents[at];
                seen.push(at);
                ancestors.push(at as u128);
            }
            let expected = from != to && seen.contains(&to);
            prop_assert_eq!(lineage(from as u128, &ancestors).descends_from(chat(to as u128)), expected);
        }
    }
}
