//! A private PostgreSQL server.

use std::path::{Path, PathBuf};
use std::{fs, io};

use directories::ProjectDirs;
use nix::unistd::geteuid;

use crate::error::{RunningError, StartError, StopError};
use crate::find::find_for;
use crate::folder::{DataFolder, Layout};
use crate::launch::{Launched, launch};
use crate::options::Options;
use crate::password::Password;
use crate::pidfile::PidFile;
use crate::postmaster::Postmaster;
use crate::probe::Needs;
use crate::source::Binaries;
use crate::{cluster, takeover};

/// A private PostgreSQL server, which ends when this is dropped or when the process is killed.
#[derive(Debug)]
pub struct Server {
    // Fields are dropped in this order: the server ends before its folder is let go.
    postmaster: Postmaster,
    folder: DataFolder,
    binaries: Binaries,
    password: Password,
    port: u16,
}

impl Server {
    /// Starts a server on a free port of this machine and waits until it is ready.
    ///
    /// Creates the database the first time. Ends a server that an earlier owner of the data folder
    /// left behind. `report` gets one line for each step that takes long.
    ///
    /// # Errors
    /// When another live process holds the data folder, when there are no usable binaries, or when
    /// PostgreSQL does not start; each error tells the remedy or carries the end of the log.
    pub fn start(options: &Options, report: &dyn Fn(&str)) -> Result<Self, StartError> {
        let data_dir = absolute(&options.data_dir)?;
        let folder = DataFolder::claim(&data_dir)?;
        let major = cluster::major(&folder)?;
        let needs = Needs { run_as: folder.run_as().clone(), major };
        let binaries = find_for(&options.source, &absolute(&options.cache_dir)?, &needs, report)?;
        cluster::check_major(&folder, major, &binaries)?;
        takeover::evict_leftover(&folder)?;
        let password = cluster::prepare(&folder, &binaries, options.durability, report)?;
        let Launched { postmaster, port } = launch(&folder, &binaries, options)?;
        Ok(Self { postmaster, folder, binaries, password, port })
    }

    /// Returns the URL of `database`, password included.
    pub fn url(&self, database: &str) -> String {
        self.password.url(self.port, database)
    }

    /// Returns the binaries that run.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Returns the data folder, with symbolic links resolved.
    pub fn data_dir(&self) -> &Path {
        &self.folder.layout().root
    }

    /// Returns the port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process of the server, PostgreSQL's postmaster.
    pub fn pid(&self) -> u32 {
        self.postmaster.id()
    }

    /// Says whether the server has ended by itself, as when somebody killed it.
    ///
    /// PostgreSQL outlives the crash of one of its sessions; this is the end of all of it.
    pub fn has_ended(&mut self) -> bool {
        self.postmaster.ended().is_some()
    }

    /// Ends the server: connections are cut, what was committed is on disk.
    ///
    /// A server that takes too long is told to end at once, and recovers at its next start.
    ///
    /// # Errors
    /// When the server does not end even then.
    pub fn stop(mut self) -> Result<(), StopError> {
        self.postmaster.stop()
    }
}

/// A server that another process runs.
#[derive(Clone, Debug)]
pub struct RunningServer {
    password: Password,
    port: u16,
}

impl RunningServer {
    /// Returns the URL of `database`, password included.
    pub fn url(&self, database: &str) -> String {
        self.password.url(self.port, database)
    }

    /// Returns the port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Returns the server that runs in `data_dir` and is ready, `None` when there is none.
///
/// # Errors
/// When the folder may not be read: it is for its owner and root alone.
pub fn running(data_dir: &Path) -> Result<Option<RunningServer>, RunningError> {
    let root = match fs::canonicalize(data_dir) {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(RunningError::reading(data_dir)(error)),
    };
    let layout = Layout { root };
    let pgdata = layout.pgdata();
    let Some(PidFile { pid, port: Some(port), ready: true }) =
        PidFile::read(&pgdata).map_err(RunningError::reading(&pgdata.join(PidFile::NAME)))?
    else {
        return Ok(None);
    };
    if !takeover::is_server_of(pid, &pgdata) {
        return Ok(None);
    }
    let password = Password::read(&layout).map_err(RunningError::reading(&layout.password()))?;
    Ok(password.map(|password| RunningServer { password, port }))
}

/// Returns where data belongs: below `/var/lib` for root, in the user's own data folder otherwise.
pub fn default_data_dir() -> PathBuf {
    own_folders().map_or_else(
        || PathBuf::from("/var/lib/musterbeat"),
        |own| own.data_local_dir().to_path_buf(),
    )
}

/// Returns where fetched binaries belong: below `/var/cache` for root, in the user's own cache
/// folder otherwise.
pub fn default_cache_dir() -> PathBuf {
    own_folders()
        .map_or_else(|| PathBuf::from("/var/cache/musterbeat"), |own| own.cache_dir().to_path_buf())
}

/// Returns the folders of an ordinary user; root's home would bar PostgreSQL's user.
fn own_folders() -> Option<ProjectDirs> {
    if geteuid().is_root() { None } else { ProjectDirs::from("", "", "musterbeat") }
}

/// Makes a path independent of the current folder, since PostgreSQL runs in another.
fn absolute(path: &Path) -> Result<PathBuf, StartError> {
    std::path::absolute(path).map_err(StartError::io("resolve", path))
}
