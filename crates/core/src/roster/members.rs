//! A sorted map of runs that is read from end to end with each beat.
//!
//! The nodes of a tree lie anywhere in memory: reading 100,000 entries in order took over a
//! millisecond. Here they lie in pieces, one entry behind the other, which takes a third of it,
//! and a change moves one piece at most.

use std::hash::{Hash, Hasher};

use super::Member;
use crate::id::RunId;

/// Entries of a piece, at most; few in tests, so that small rosters have several pieces.
const PIECE_MAX: usize = if cfg!(test) { 4 } else { 512 };

/// Runs in their order, each with what is known of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    /// INVARIANT: sorted within and across pieces, and no piece is empty.
    pieces: Vec<Vec<(RunId, Member)>>,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(RunId, Member)> {
        self.pieces.iter().flatten()
    }

    pub(super) fn get_mut(&mut self, run: RunId) -> Option<&mut Member> {
        let (piece, place) = self.find(run).ok()?;
        Some(&mut self.pieces[piece][place].1)
    }

    /// Adds a run, or replaces what is known of it.
    pub(super) fn insert(&mut self, run: RunId, member: Member) {
        match self.find(run) {
            Ok((piece, place)) => self.pieces[piece][place].1 = member,
            Err(_) if self.pieces.is_empty() => self.pieces.push(vec![(run, member)]),
            Err((piece, place)) => {
                let entries = &mut self.pieces[piece];
                entries.insert(place, (run, member));
                if PIECE_MAX < entries.len() {
                    let rest = entries.split_off(entries.len() / 2);
                    self.pieces.insert(piece + 1, rest);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, run: RunId) {
        if let Ok((piece, place)) = self.find(run) {
            self.pieces[piece].remove(place);
            if self.pieces[piece].is_empty() {
                self.pieces.remove(piece);
            }
        }
    }

    /// Returns piece and place of a run, or where it belongs.
    fn find(&self, run: RunId) -> Result<(usize, usize), (usize, usize)> {
        let later = self.pieces.partition_point(|entries| entries[0].0 <= run);
        // What comes before the first piece belongs to it too.
        let piece = later.saturating_sub(1);
        let Some(entries) = self.pieces.get(piece) else { return Err((0, 0)) };
        let place = entries.binary_search_by_key(&run, |(run, _)| *run);
        place.map(|place| (piece, place)).map_err(|place| (piece, place))
    }
}

/// Equal by what is in them: how they are cut tells only of their past.
impl PartialEq for Members {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Members {}

impl Hash for Members {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for entry in self.iter() {
            entry.hash(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::id::Fence;

    proptest! {
        #[test]
        fn it_is_a_sorted_map(changes in prop::collection::vec((0..40_u128, 0..3_i64), 0..200)) {
            let (mut members, mut model) = (Members::default(), BTreeMap::new());
            for (run, fence) in changes {
                let run = RunId::new(Uuid::from_u128(run));
                let member = Member { fence: Fence(fence), beats_before: 0, ending: false };
                if fence == 0 {
                    members.remove(run);
                    model.remove(&run);
                } else {
                    members.insert(run, member);
                    model.insert(run, member);
                }
                let entries: Vec<_> = model.iter().map(|(run, member)| (*run, *member)).collect();
                prop_assert_eq!(members.iter().copied().collect::<Vec<_>>(), entries);
                prop_assert_eq!(members.len(), model.len());
                prop_assert_eq!(members.is_empty(), model.is_empty());
                prop_assert_eq!(members.get_mut(run).copied(), model.get(&run).copied());
            }
        }
    }

    #[test]
    fn the_cut_does_not_tell_two_apart() {
        let run = |number| RunId::new(Uuid::from_u128(number));
        let member = Member { fence: Fence(1), beats_before: 0, ending: false };
        let (mut up, mut down) = (Members::default(), Members::default());
        for number in 0..20 {
            up.insert(run(number), member);
            down.insert(run(19 - number), member);
        }
        assert_ne!(up.pieces, down.pieces);
        assert_eq!(up, down);
        up.remove(run(3));
        assert_ne!(up, down);
    }
}
