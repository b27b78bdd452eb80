//! PostgreSQL's own programs, on a data folder that is thrown away.

use std::env;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use musterbeat_embedded::{Durability, Options, Server, Source, default_cache_dir};
use nix::sys::statvfs::statvfs;
use nix::unistd::Uid;
use uuid::Uuid;

use super::heir::Heir;
use super::{Running, say};

/// Room for a server, its log of changes and the databases of a crowd of tests.
const MEMORY_BYTES_MIN: u64 = 2 << 30;

/// Waits ten seconds at most for the server `$1`, which ends by itself, and removes its folder.
const INHERIT: &str = r#"
    tries=100
    while [ $tries -gt 0 ] && kill -0 "$1"; do tries=$((tries - 1)); sleep 0.1; done
    rm -rf "$2" && rm -f "$2.lock"
"#;

/// Starts a server from `source`.
pub(super) fn start(source: Source) -> Result<Box<dyn Running>> {
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
            .to_vec(),
    };
    let server = Server::start(&options, &say)
        .context("no embedded PostgreSQL: MUSTERBEAT_POSTGRES says where its programs are")?;
    let heir = Heir::appoint(INHERIT, &[&server.pid().to_string(), &folder.path.to_string_lossy()]);
    Ok(Box::new(Embedded { server, folder, heir }))
}

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
struct Scratch {
    path: PathBuf,
    /// INVARIANT: locked while the folder is in use; the system unlocks when the process ends.
    _lock: File,
}

impl Scratch {
    /// Makes a folder under `root`, where it first removes those of processes that are gone.
    fn new(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
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
        match File::open(&path)?.try_lock() {
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
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::remove_file(lock_of(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_dead_go_and_those_of_the_living_stay() {
        let root = env::temp_dir().join(format!("testkit-sweep-{}", Uuid::now_v7().simple()));
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
}
