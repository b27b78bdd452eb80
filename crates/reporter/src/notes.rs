//! What the log was told, so that it is told once.

use std::collections::BTreeMap;

/// The last remark on each key.
///
/// INVARIANT: only keys of reports are in it, and [`Self::settle`] takes those that are gone.
#[derive(Debug, Default)]
pub(crate) struct Notes(BTreeMap<String, String>);

impl Notes {
    /// Keeps a remark; false if the last one was the same.
    pub(crate) fn is_news(&mut self, key: &str, remark: &str) -> bool {
        if self.0.get(key).is_some_and(|last| last == remark) {
            return false;
        }
        self.0.insert(key.to_owned(), remark.to_owned());
        true
    }

    /// Forgets what was remarked on a key: nothing is wrong with it any more, or it is gone.
    pub(crate) fn settle(&mut self, key: &str) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remark_is_news_until_it_changes() {
        let mut notes = Notes::default();
        assert!(notes.is_news("load", "is not defined"));
        assert!(!notes.is_news("load", "is not defined"));
        assert!(notes.is_news("disk", "is not defined"));
        assert!(notes.is_news("load", "is too long"));
        assert!(notes.is_news("load", "is not defined"));
        notes.settle("load");
        assert!(notes.is_news("load", "is not defined"));
    }
}
