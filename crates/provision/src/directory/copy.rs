//! Copies a folder with everything in it.

use std::fs::{self, DirBuilder, File, FileTimes, FileType, Metadata, Permissions, ReadDir};
use std::io::{self, Read};
use std::os::unix::fs::{
    DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink,
};
use std::path::{Path, PathBuf};

use musterbeat_core::port::BuildContext;
use nix::fcntl::OFlag;

use super::DirectoryLimits;
use super::brake::Brake;
use super::error::{TemplateError, WorkError};
use super::label;
use super::work::ENTRIES_BETWEEN_LINES;

/// Folders within folders, at most: each is held open while those in it are copied.
const DEPTH_MAX: usize = 200;

/// Bytes that are copied between two looks at the brake.
const PIECE_BYTES: u64 = 64 * 1024 * 1024;

/// The permissions that are kept.
const KEPT_MODE: u32 = 0o777;

/// One copy of a template.
pub(super) struct Copy<'a> {
    template: &'a Path,
    limits: DirectoryLimits,
    brake: &'a Brake,
    context: &'a dyn BuildContext,
    files: u64,
    bytes: u64,
}

/// A folder in the midst of being copied.
struct Level {
    entries: ReadDir,
    from: PathBuf,
    to: PathBuf,
    found: Metadata,
}

impl<'a> Copy<'a> {
    pub(super) fn new(
        template: &'a Path,
        limits: DirectoryLimits,
        brake: &'a Brake,
        context: &'a dyn BuildContext,
    ) -> Self {
        Self { template, limits, brake, context, files: 0, bytes: 0 }
    }

    /// Copies the template to `to`, which is not there yet.
    pub(super) fn run(&mut self, to: &Path) -> Result<(), WorkError> {
        let mut levels = vec![Level::enter(self.template.to_owned(), to.to_owned())?];
        loop {
            let depth = levels.len();
            let Some(level) = levels.last_mut() else {
                return Ok(());
            };
            let Some(entry) = level.entries.next() else {
                level.leave(depth == 1)?;
                levels.pop();
                continue;
            };
            self.brake.look()?;
            let entry = entry.map_err(WorkError::file("read", &level.from))?;
            let (from, to) = (entry.path(), level.to.join(entry.file_name()));
            if depth == 1 && entry.file_name() == label::NAME {
                continue;
            }
            self.count()?;
            let kind = entry.file_type().map_err(WorkError::file("read", &from))?;
            if kind.is_dir() {
                if depth == DEPTH_MAX {
                    let path = self.relative(&from);
                    return Err(TemplateError::TooDeep { path, depth_max: DEPTH_MAX }.into());
                }
                levels.push(Level::enter(from, to)?);
            } else if kind.is_symlink() {
                let target = fs::read_link(&from).map_err(WorkError::file("read", &from))?;
                symlink(target, &to).map_err(WorkError::file("write", &to))?;
            } else {
                self.file(kind, &from, &to)?;
            }
        }
    }

    /// Logs how far the copy came.
    pub(super) fn tell(&self) {
        self.context.log(&format!("copied {} files, {} bytes", self.files, self.bytes));
    }

    fn count(&mut self) -> Result<(), TemplateError> {
        if self.files == self.limits.files_max {
            return Err(TemplateError::TooMany(self.limits.files_max));
        }
        self.files += 1;
        if self.files.is_multiple_of(ENTRIES_BETWEEN_LINES) {
            self.tell();
        }
        Ok(())
    }

    fn file(&mut self, kind: FileType, from: &Path, to: &Path) -> Result<(), WorkError> {
        // Opening a device may do something.
        self.refuse_special(kind, from)?;
        // What took the place of the file since leads nowhere, and does not hold this up.
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let source = File::options().read(true).custom_flags(flags).open(from);
        let source = source.map_err(WorkError::file("read", from))?;
        let found = source.metadata().map_err(WorkError::file("read", from))?;
        self.refuse_special(found.file_type(), from)?;
        self.add(found.len())?;
        let target = File::options().write(true).create_new(true).mode(0o600).open(to);
        let target = target.map_err(WorkError::file("write", to))?;
        if reflink_copy::reflink_file(&source, &target).is_err() {
            self.bytes -= found.len();
            self.bytes(&source, &target, to)?;
        }
        resemble(&target, &found, 0).map_err(WorkError::file("write", to))
    }

    /// Copies what a filesystem does not share.
    fn bytes(&mut self, source: &File, target: &File, to: &Path) -> Result<(), WorkError> {
        loop {
            self.brake.look()?;
            let mut target = target;
            let copied = io::copy(&mut source.take(PIECE_BYTES), &mut target)
                .map_err(WorkError::file("write", to))?;
            if copied == 0 {
                return Ok(());
            }
            // A file that grows is not copied for ever.
            self.add(copied)?;
        }
    }

    fn add(&mut self, bytes: u64) -> Result<(), TemplateError> {
        self.bytes = self.bytes.saturating_add(bytes);
        let bytes_max = self.limits.bytes_max;
        if self.bytes > bytes_max { Err(TemplateError::TooLarge(bytes_max)) } else { Ok(()) }
    }

    fn refuse_special(&self, kind: FileType, path: &Path) -> Result<(), TemplateError> {
        if kind.is_file() {
            return Ok(());
        }
        let kind = if kind.is_fifo() {
            "a FIFO"
        } else if kind.is_socket() {
            "a socket"
        } else {
            "a device"
        };
        Err(TemplateError::Special { path: self.relative(path), kind })
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.template).unwrap_or(path).to_owned()
    }
}

impl Level {
    /// Makes the folder `to`, to be filled with what is in `from`.
    fn enter(from: PathBuf, to: PathBuf) -> Result<Self, WorkError> {
        let found = fs::symlink_metadata(&from).map_err(WorkError::file("read", &from))?;
        let entries = fs::read_dir(&from).map_err(WorkError::file("read", &from))?;
        // Closed to others, and open to this process though the template's should not be.
        DirBuilder::new().mode(0o700).create(&to).map_err(WorkError::file("create", &to))?;
        Ok(Self { entries, from, to, found })
    }

    /// Makes the filled folder resemble the template's; the uppermost stays open to this process,
    /// which writes a label there.
    fn leave(&self, is_uppermost: bool) -> Result<(), WorkError> {
        let failed = || WorkError::file("write", &self.to);
        let folder = File::open(&self.to).map_err(failed())?;
        let mode_added = if is_uppermost { 0o700 } else { 0 };
        resemble(&folder, &self.found, mode_added).map_err(failed())
    }
}

/// Gives what was copied the permissions, with some more, and the time of what was `found`.
fn resemble(copied: &File, found: &Metadata, mode_added: u32) -> io::Result<()> {
    let mode = found.mode() & KEPT_MODE | mode_added;
    copied.set_permissions(Permissions::from_mode(mode))?;
    copied.set_times(FileTimes::new().set_modified(found.modified()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::tests::Pulls;

    #[test]
    fn a_stop_is_heeded_between_files_and_a_line_comes_now_and_then() {
        let around = tempfile::tempdir().unwrap();
        let (from, to) = (around.path().join("from"), around.path().join("to"));
        fs::create_dir(&from).unwrap();
        for number in 0..ENTRIES_BETWEEN_LINES + 5 {
            symlink("nowhere", from.join(number.to_string())).unwrap();
        }
        let context = Pulls::default();
        let brake = context.0.clone();
        let mut copy = Copy::new(&from, DirectoryLimits::default(), &brake, &context);
        let stopped = copy.run(&to);
        assert!(matches!(stopped, Err(WorkError::Stopped)), "{stopped:?}");
        let copied = fs::read_dir(&to).unwrap().count();
        assert_eq!(u64::try_from(copied).unwrap(), ENTRIES_BETWEEN_LINES);
    }

    #[test]
    fn what_is_too_deep_is_refused() {
        let around = tempfile::tempdir().unwrap();
        let (from, to) = (around.path().join("from"), around.path().join("to"));
        let deep: PathBuf = std::iter::repeat_n("d", DEPTH_MAX).collect();
        fs::create_dir_all(from.join(&deep)).unwrap();
        let context = Pulls::default();
        let brake = Brake::default();
        let mut copy = Copy::new(&from, DirectoryLimits::default(), &brake, &context);
        let error = copy.run(&to).unwrap_err();
        let expected =
            format!("the template has {}, which is more than 200 folders deep", deep.display());
        assert_eq!(error.to_string(), expected);
    }
}
