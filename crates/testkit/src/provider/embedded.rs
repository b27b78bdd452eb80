//! PostgreSQL's own programs, on a data folder that is thrown away.

use std::env;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use musterbeat_embedded::{Durability, Options, Server, Source, default_cache_dir};
use nix::sys::statvfs::statvfs;
use nix::unistd::Uid;
use uuid::Uuid;

use super::heir::Heir;
use super::keeper::{Found, Kept};
use super::{Running, say};

/// Room for a server, its log of changes and the databases of a crowd of tests.
const MEMORY_BYTES_MIN: u64 = 2 << 30;

/// Waits ten seconds at most for the server `$1`, which ends by itself, and removes its folder.
const INHERIT: &str = r#"
    tries=100
    while [ $tries -gt 0 ] && kill -0 "$1"; do tries=$((tries - 1)); sleep 0.1; done
    rm -rf "$2" && rm -f "$2.lock"
"#;

/// Starts a server from `source`, with `parameters` over its own.
pub(super) fn start(source: Source, parameters: Vec<(String, String)>) -> Result<Found> {
    let folder = Scratch::new(&scratch_root())
        .context("no folder for the data of the test server: let TMPDIR name a folder with room")?;
    let options = Options {
        source,
        data_dir: folder.path.join("data"),
        cache_dir: default_cache_dir(),
        durability: Durability::None,
        // The log of changes may lie in memory.
        settings: [("max_connections", "500"), ("max_wal_size", "256MB")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .chain(parameters)
            .collect(),
    };
    let server = Server::start(&options, &say)
        .context("no embedded PostgreSQL: MUSTERBEAT_POSTGRES says where its programs are")?;
    let heir = Heir::appoint(INHERIT, &[&server.pid().to_string(), &folder.path.to_string_lossy()]);
    Ok(Found::Running(Kept::new(Embedded { server, folder, heir })))
}

#[derive(Debug)]
struct Embedded {
    server: Server,
    folder: Scratch,
    heir: Option<Heir>,
}

impl Running for Embedded {
    fn url(&self) -> String {
        self.server.url("postgres")
    }

    fn origin(&self) -> String {
        format!("programs in {}", self.server.binaries().bin_dir.display())
    }

    fn stop(self: Box<Self>) -> Result<()> {
        let Self { server, folder, heir } = *self;
        let stopped = server.stop().context("the embedded PostgreSQL did not stop");
        drop(heir);
        drop(folder);
        stopped
    }
}

/// A folder that is removed with its owner, or by the next one if its owner was killed.
#[derive(Debug)]
struct Scratch {
    path: PathBuf,
    /// INVARIANT: locked while the folder is in use; the system unlocks when the process ends.
    _lock: File,
}

impl Scratch {
    /// Makes a folder under `root`, where it first removes those of processes that are gone.
    fn new(root: &Path) -> io::Result<Self> {
        // Open for passage, since root's PostgreSQL runs as somebody else.
        DirBuilder::new().recursive(true).mode(0o711).create(root)?;
        refuse_foreign(root)?;
        // Nobody sweeps between the birth of a lock file and its locking.
        let sweeping = File::create(root.join("sweep"))?;
        sweeping.lock()?;
        sweep(root)?;
        let name = format!("{}-{}", std::process::id(), Uuid::now_v7().simple());
        let path = root.join(&name);
        let lock = File::create(lock_of(&path))?;
        lock.lock()?;
        fs::create_dir(&path)?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            say(&format!("{} stays behind: {error}", self.path.display()));
        }
    }
}

/// Returns where this user's folders are; short, since a socket's path has a limit.
///
/// In memory if there is room and nobody set `TMPDIR`: a new database is several times faster.
fn scratch_root() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let in_memory = env::var_os("TMPDIR").is_none() && room(memory) >= MEMORY_BYTES_MIN;
    let above = if in_memory { memory.to_owned() } else { env::temp_dir() };
    above.join(format!("musterbeat-testkit-{}", Uid::effective()))
}

/// Refuses a folder where somebody else may put files: anybody could have made it first.
fn refuse_foreign(root: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(root)?;
    let is_ours = found.is_dir() && found.uid() == Uid::effective().as_raw();
    if is_ours && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{} is no folder of this user alone: remove it, or let TMPDIR name another place",
        root.display()
    )))
}

/// Returns how many bytes a file system has left, none if there is no such place.
fn room(place: &Path) -> u64 {
    statvfs(place).map_or(0, |found| found.blocks_available() * found.fragment_size())
}

fn lock_of(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

/// Removes the folders whose lock is free.
fn sweep(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            // Its owner has just gone, and does not wait for a sweep to end.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // A server that is still on its way out may write once more: the next sweep succeeds.
        if let Err(error) = remove(&path.with_extension("")) {
            say(&format!("{} stays behind: {error}", path.display()));
        }
    }
    Ok(())
}

/// Removes a folder, and after it its lock.
fn remove(path: &Path) -> io::Result<()> {
    // An heir may remove the same.
    let unless_gone = |removed: io::Result<()>| match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    unless_gone(fs::remove_dir_all(path))?;
    unless_gone(fs::remove_file(lock_of(path)))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn a_lock_that_vanishes_during_a_sweep_is_no_obstacle() {
        let root = unused_root();
        fs::create_dir(&root).unwrap();
        // Listed, and not there when it is opened.
        symlink(root.join("gone"), root.join("1-gone.lock")).unwrap();
        sweep(&root).unwrap();
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_folder_where_others_may_put_files_is_refused() {
        let root = unused_root();
        drop(Scratch::new(&root).unwrap());
        let allow = |mode| fs::set_permissions(&root, Permissions::from_mode(mode)).unwrap();
        for mode in [0o777, 0o770, 0o702] {
            allow(mode);
            let error = Scratch::new(&root).unwrap_err();
            assert!(error.to_string().contains("let TMPDIR name another place"), "{error}");
        }
        allow(0o755);
        drop(Scratch::new(&root).unwrap());
        let link = unused_root();
        symlink(&root, &link).unwrap();
        Scratch::new(&link).unwrap_err();
        if Uid::effective().is_root() {
            chown(&root, Some(1), None).unwrap();
            Scratch::new(&root).unwrap_err();
        }
        fs::remove_file(&link).unwrap();
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn folders_of_the_dead_go_and_those_of_the_living_stay() {
        let root = unused_root();
        let living = Scratch::new(&root).unwrap();
        let dead = root.join("1-dead");
        fs::create_dir_all(dead.join("data")).unwrap();
        File::create(lock_of(&dead)).unwrap();

        let next = Scratch::new(&root).unwrap();

        assert!(living.path.exists() && next.path.exists());
        assert!(!dead.exists() && !lock_of(&dead).exists());
        let (kept, gone) = (living.path.clone(), next.path.clone());
        drop(next);
        assert!(kept.exists() && !gone.exists());
        drop(living);
        fs::remove_dir_all(&root).unwrap();
    }

    fn unused_root() -> PathBuf {
        env::temp_dir().join(format!("testkit-sweep-{}", Uuid::now_v7().simple()))
    }
}
