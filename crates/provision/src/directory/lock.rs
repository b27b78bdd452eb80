//! One process at a time works on a workspace.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;

use super::error::{CheckError, WorkError};
use super::places::Places;

/// The right to work on a workspace; it ends when this is dropped, or with the process.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes the lock; `None` while another has it.
    pub(super) fn attempt(places: &Places) -> Result<Option<Self>, WorkError> {
        let path = places.lock();
        let root_error = |source| CheckError::Root { root: places.root().to_owned(), source };
        let mut options = File::options();
        let file = options.create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(root_error)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => {
                return Err(CheckError::Locks { root: places.root().to_owned(), source }.into());
            }
        }
        // Who had it may have removed the file, and others lock the next of that name.
        let locked = file.metadata().map_err(root_error)?;
        let is_in_place = fs::metadata(&path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (locked.dev(), locked.ino()));
        Ok(is_in_place.then_some(Self(file)))
    }

    /// Gives the lock back, and removes its file if the workspace is not there.
    pub(super) fn release(self, places: &Places) {
        if fs::symlink_metadata(places.workspace()).is_err() {
            // One that stays is empty, and harms nobody.
            let _ = fs::remove_file(places.lock());
        }
        drop(self.0);
    }
}

#[cfg(test)]
mod tests {
    use musterbeat_core::id::WorkspaceId;

    use super::*;

    #[test]
    fn one_at_a_time_has_it_though_its_file_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let places = Places::new(root.path(), WorkspaceId::new(uuid::Uuid::nil()));
        let lock = Lock::attempt(&places).unwrap().unwrap();
        assert!(Lock::attempt(&places).unwrap().is_none());
        lock.release(&places);
        assert!(!places.lock().exists());

        let lock = Lock::attempt(&places).unwrap().unwrap();
        fs::create_dir(places.workspace()).unwrap();
        lock.release(&places);
        assert!(places.lock().exists());
        assert!(Lock::attempt(&places).unwrap().is_some());
    }
}
