//! Removes a folder with everything below it, and nothing else.
//!
//! Folders are opened one within the other and never by a path, so that nobody who changes the
//! tree meanwhile leads the removal out of it. The standard library removes like this, too, but
//! stops at folders that may not be written, which caches of modules are full of, and empties
//! what is mounted.

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use musterbeat_core::port::BuildContext;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::brake::Brake;
use super::error::WorkError;
use super::work::ENTRIES_BETWEEN_LINES;

/// How folders are opened: to be listed, and never through a link.
const OPEN_FLAGS: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Names of a folder that are read at once.
const NAMES_MAX: usize = 256;

/// Folders that are held open; what is deeper is moved up, as no tree is too deep to be removed.
const DEPTH_MAX: usize = 100;

/// Removes `path` and what is below it; one that is not there is removed already.
pub(super) fn remove(
    path: &Path,
    brake: &Brake,
    context: &dyn BuildContext,
) -> Result<(), WorkError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => {
            let mut removal = Removal { path, brake, context, levels: Vec::new(), entries: 0 };
            removal.run()
        }
        Ok(_) => super::label::forget(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(WorkError::file("remove", path)(error)),
    }
}

struct Removal<'a> {
    path: &'a Path,
    brake: &'a Brake,
    context: &'a dyn BuildContext,
    /// INVARIANT: each is in the one before it; at most [`DEPTH_MAX`].
    levels: Vec<Level>,
    entries: u64,
}

/// A folder in the midst of being removed.
struct Level {
    folder: Dir,
    name: CString,
    device: nix::libc::dev_t,
}

impl Removal<'_> {
    fn run(&mut self) -> Result<(), WorkError> {
        let above = self.path.parent().expect("the path of a workspace is below its root");
        let name = self.path.file_name().expect("the path of a workspace has a name");
        let above = Dir::open(above, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        let above = above.map_err(|errno| self.failed(errno, None))?;
        let name = CString::new(name.as_bytes()).expect("a name that was found has no NUL");
        let uppermost = open(&above, name).map_err(|errno| self.failed(errno, None))?;
        self.levels.push(uppermost);
        while let Some(level) = self.levels.last_mut() {
            let names = level.names().map_err(|errno| self.failed(errno, None))?;
            if names.is_empty() {
                let Some(emptied) = self.levels.pop() else { break };
                let above = self.levels.last().map_or(&above, |level| &level.folder);
                let removed = unlinkat(above, &*emptied.name, UnlinkatFlags::RemoveDir);
                removed.map_err(|errno| self.failed(errno, Some(&emptied.name)))?;
                self.count();
                continue;
            }
            self.remove_each(names)?;
        }
        Ok(())
    }

    /// Removes what `names` name in the last level until one of them is a folder, which is
    /// entered.
    fn remove_each(&mut self, names: Vec<CString>) -> Result<(), WorkError> {
        for name in names {
            self.brake.look()?;
            let level = self.levels.last().expect("names are those of a level");
            match unlinkat(&level.folder, &*name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => self.count(),
                // A folder: Linux says the one, POSIX the other.
                Err(Errno::EISDIR | Errno::EPERM) => return self.enter(&name),
                Err(errno) => return Err(self.failed(errno, Some(&name))),
            }
        }
        Ok(())
    }

    fn enter(&mut self, name: &CString) -> Result<(), WorkError> {
        let level = self.levels.last().expect("a folder is entered from a level");
        let below = match open(&level.folder, name.clone()) {
            Ok(below) => below,
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(self.failed(errno, Some(name))),
        };
        if below.device != level.device {
            return Err(self.failed(Errno::EXDEV, Some(name)));
        }
        if self.levels.len() < DEPTH_MAX {
            self.levels.push(below);
            return Ok(());
        }
        let uppermost = &self.levels[0].folder;
        // The count grows with each entry, but another of this name may be there by chance.
        let fresh = (self.entries..).map(|number| format!(".moved-up-{number}"));
        for fresh in fresh.take(NAMES_MAX) {
            match renameat(&level.folder, name.as_c_str(), uppermost, fresh.as_str()) {
                Ok(()) => {
                    self.count();
                    return Ok(());
                }
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                Err(errno) => return Err(self.failed(errno, Some(name))),
            }
        }
        Err(self.failed(Errno::EEXIST, Some(name)))
    }

    fn count(&mut self) {
        self.entries += 1;
        if self.entries.is_multiple_of(ENTRIES_BETWEEN_LINES) {
            self.context.log(&format!("removed {} files", self.entries));
        }
    }

    fn failed(&self, errno: Errno, name: Option<&CString>) -> WorkError {
        if errno == Errno::EXDEV {
            return WorkError::Mounted(self.place(name));
        }
        WorkError::file("remove", &self.place(name))(errno.into())
    }

    /// Returns the path of `name` in the last level.
    fn place(&self, name: Option<&CString>) -> PathBuf {
        let below = self.levels.iter().skip(1).map(|level| &level.name).chain(name);
        let mut path = self.path.to_owned();
        path.extend(below.map(|name| OsStr::from_bytes(name.as_bytes())));
        path
    }
}

impl Level {
    /// Returns some names of what is in the folder; those that were removed are not seen again.
    fn names(&mut self) -> Result<Vec<CString>, Errno> {
        let names = self.folder.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned()));
        let is_within =
            |name: &Result<CString, Errno>| !matches!(name, Ok(name) if is_dots(name.as_bytes()));
        names.filter(is_within).take(NAMES_MAX).collect()
    }
}

fn is_dots(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

/// Opens a folder in another, and opens it to this process; `EXDEV` for what is mounted there.
fn open(above: &Dir, name: CString) -> Result<Level, Errno> {
    let folder = open_unmounted(above, &name).or_else(|errno| {
        if errno != Errno::EACCES {
            return Err(errno);
        }
        fchmodat(above, &*name, Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink)?;
        open_unmounted(above, &name)
    })?;
    let found = fstat(&folder)?;
    if !Mode::from_bits_truncate(found.st_mode).contains(Mode::S_IRWXU) {
        fchmod(&folder, Mode::S_IRWXU)?;
    }
    Ok(Level { folder, name, device: found.st_dev })
}

/// Opens a folder that is no link and no mount point, as far as the system tells.
#[cfg(target_os = "linux")]
fn open_unmounted(above: &Dir, name: &CStr) -> Result<Dir, Errno> {
    use nix::fcntl::{OpenHow, ResolveFlag, openat2};

    // A folder of the same filesystem may be mounted, too, and has the same device.
    let how = OpenHow::new().flags(OPEN_FLAGS).resolve(ResolveFlag::RESOLVE_NO_XDEV);
    match openat2(above, name, how) {
        // A kernel before 5.6, or a filter of calls that does not know this one.
        Err(Errno::ENOSYS | Errno::EPERM) => open_at(above, name),
        opened => Dir::from_fd(opened?),
    }
}

/// Opens a folder that is no link; what is mounted is known by its device.
#[cfg(not(target_os = "linux"))]
fn open_unmounted(above: &Dir, name: &CStr) -> Result<Dir, Errno> {
    open_at(above, name)
}

fn open_at(above: &Dir, name: &CStr) -> Result<Dir, Errno> {
    Dir::openat(above, name, OPEN_FLAGS, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::directory::tests::Pulls;

    #[test]
    fn everything_below_goes_and_nothing_else() {
        let around = tempfile::tempdir().unwrap();
        let (tree, outside) = (around.path().join("tree"), around.path().join("outside"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        fs::write(tree.join("a/file"), "").unwrap();
        symlink(&outside, tree.join("a/folder")).unwrap();
        symlink(outside.join("kept"), tree.join("a/b/file")).unwrap();
        nix::unistd::mkfifo(&tree.join("fifo"), Mode::S_IRWXU).unwrap();
        remove_it(&tree);
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
        remove_it(&tree);
    }

    #[test]
    fn a_link_or_a_file_goes_itself() {
        let around = tempfile::tempdir().unwrap();
        let (link, outside) = (around.path().join("link"), around.path().join("outside"));
        fs::create_dir_all(outside.join("kept")).unwrap();
        symlink(&outside, &link).unwrap();
        remove_it(&link);
        assert!(fs::symlink_metadata(&link).is_err());
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn folders_that_are_closed_are_opened() {
        let around = tempfile::tempdir().unwrap();
        let tree = around.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/file"), "").unwrap();
        for (path, mode) in [("a/b", 0o000), ("a", 0o555), ("", 0o500)] {
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(tree.join(path), permissions).unwrap();
        }
        remove_it(&tree);
        assert!(!tree.exists());
    }

    #[test]
    fn no_tree_is_too_deep_or_too_wide() {
        let around = tempfile::tempdir().unwrap();
        let tree = around.path().join("tree");
        // Names of one letter, as a path has a bound.
        let deep: PathBuf = std::iter::repeat_n("d", 3 * DEPTH_MAX).collect();
        fs::create_dir_all(tree.join(&deep)).unwrap();
        fs::write(tree.join(&deep).join("file"), "").unwrap();
        for number in 0..2 * NAMES_MAX {
            fs::create_dir(tree.join(number.to_string())).unwrap();
            fs::write(tree.join(format!("{number}.txt")), "").unwrap();
        }
        // What is moved up finds its name taken.
        fs::create_dir(tree.join(".moved-up-0")).unwrap();
        fs::write(tree.join(".moved-up-0/file"), "").unwrap();
        remove_it(&tree);
        assert!(!tree.exists());
    }

    #[test]
    fn a_stop_is_heeded_between_files() {
        let around = tempfile::tempdir().unwrap();
        let tree = around.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), "").unwrap();
        let brake = Brake::default();
        brake.pull();
        let stopped = remove(&tree, &brake, &Pulls::default());
        assert!(matches!(stopped, Err(WorkError::Stopped)), "{stopped:?}");
        assert!(tree.join("file").exists());
    }

    fn remove_it(path: &Path) {
        remove(path, &Brake::default(), &Pulls::default()).unwrap();
    }
}
