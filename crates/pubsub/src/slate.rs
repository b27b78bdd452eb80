//! What one watcher has not taken yet.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use musterbeat_core::port::{Notice, Resync, ResyncCause};
use tokio::sync::Notify;
use uuid::Uuid;

/// Changes that wait to be taken: a set of ids, or a resync that covers them all.
#[derive(Debug)]
pub(crate) struct Marks {
    pending: Option<Notice>,
    ids_max: usize,
}

impl Marks {
    /// Holds nothing, and at most `ids_max` ids.
    pub(crate) const fn new(ids_max: usize) -> Self {
        Self { pending: None, ids_max }
    }

    /// Adds `ids`, which are distinct; above the bound they become a resync.
    pub(crate) fn add(&mut self, ids: &[Uuid]) {
        if ids.is_empty() {
            return;
        }
        let Notice::Changed(marked) =
            self.pending.get_or_insert_with(|| Notice::Changed(BTreeSet::new()))
        else {
            return;
        };
        // A burst above the bound is not copied first: it overflows whatever is marked.
        if ids.len() <= self.ids_max {
            marked.extend(ids);
        }
        if self.ids_max < ids.len().max(marked.len()) {
            self.pending = Some(Notice::Resync(Resync::of(ResyncCause::Overflow)));
        }
    }

    /// Replaces what is marked by a resync; the first of several causes stays.
    pub(crate) fn resync(&mut self, resync: Resync) {
        let resync = match self.pending {
            Some(Notice::Resync(earlier)) => earlier.and(resync),
            Some(Notice::Changed(_)) | None => resync,
        };
        self.pending = Some(Notice::Resync(resync));
    }

    /// Returns what is marked and leaves nothing.
    pub(crate) const fn take(&mut self) -> Option<Notice> {
        self.pending.take()
    }
}

/// The marks of one watcher, and the bell that wakes it.
#[derive(Debug)]
pub(crate) struct Slate {
    /// INVARIANT: whoever makes clean marks dirty also rings, so dirty marks never wait in silence.
    marks: Mutex<Marks>,
    bell: Notify,
}

impl Slate {
    /// Starts clean, with room for `ids_max` ids.
    pub(crate) const fn new(ids_max: usize) -> Self {
        Self { marks: Mutex::new(Marks::new(ids_max)), bell: Notify::const_new() }
    }

    /// Adds `ids`; true tells the caller to [`ring`](Self::ring).
    pub(crate) fn add(&self, ids: &[Uuid]) -> bool {
        self.dirty(|marks| marks.add(ids))
    }

    /// Replaces what is marked by a resync; true tells the caller to [`ring`](Self::ring).
    pub(crate) fn resync(&self, resync: Resync) -> bool {
        self.dirty(|marks| marks.resync(resync))
    }

    /// Wakes the watcher, or its next wait.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Waits for marks and takes them; dropping the future takes none.
    pub(crate) async fn take(&self) -> Notice {
        loop {
            let notice = self.marks().take();
            if let Some(notice) = notice {
                return notice;
            }
            // A ring since the look above is kept as a permit and ends this wait at once.
            self.bell.notified().await;
        }
    }

    /// Changes the marks and returns whether that made clean ones dirty.
    fn dirty(&self, change: impl FnOnce(&mut Marks)) -> bool {
        let mut marks = self.marks();
        let clean = marks.pending.is_none();
        change(&mut marks);
        clean && marks.pending.is_some()
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        // No step of a change panics halfway, so marks are whole even if their lock is poisoned.
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_up_to_the_bound_are_named() {
        let mut marks = Marks::new(2);
        marks.add(&ids([1]));
        marks.add(&ids([1, 2]));
        assert_eq!(marks.take(), Some(Notice::Changed(ids([1, 2]).into_iter().collect())));
        assert_eq!(marks.take(), None);
    }

    #[test]
    fn marks_above_the_bound_become_a_resync_once() {
        for bursts in [vec![vec![1, 2], vec![3]], vec![vec![1, 2, 3]], vec![vec![1, 2, 3], vec![4]]]
        {
            let mut marks = Marks::new(2);
            for burst in bursts {
                marks.add(&ids(burst));
            }
            assert_eq!(marks.take(), Some(Notice::Resync(Resync::of(ResyncCause::Overflow))));
            assert_eq!(marks.take(), None);
        }
    }

    #[test]
    fn first_cause_of_a_resync_stays_and_covers_later_ids() {
        let mut marks = Marks::new(2);
        marks.add(&ids([1]));
        marks.resync(Resync::of(ResyncCause::Gap));
        marks.resync(Resync::of(ResyncCause::Overflow));
        marks.add(&ids([1, 2, 3]));
        assert_eq!(marks.take(), Some(Notice::Resync(Resync::of(ResyncCause::Gap))));
    }

    #[test]
    fn only_the_first_mark_asks_for_a_ring() {
        let slate = Slate::new(2);
        assert!(!slate.add(&[]));
        assert!(slate.add(&ids([1])));
        assert!(!slate.add(&ids([2])));
        assert!(!slate.resync(Resync::of(ResyncCause::Gap)));
    }

    fn ids(numbers: impl IntoIterator<Item = u128>) -> Vec<Uuid> {
        numbers.into_iter().map(Uuid::from_u128).collect()
    }
}
