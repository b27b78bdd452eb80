//! The data folder: what lies where, and whose it is.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;

use crate::error::StartError;
use crate::nofollow;
use crate::user::RunAs;

/// What lies where in a data folder.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// The data folder itself.
    pub(crate) root: PathBuf,
}

impl Layout {
    /// The name of the file with the password.
    pub(crate) const PASSWORD: &str = "password";

    /// The database, `PGDATA`.
    pub(crate) fn pgdata(&self) -> PathBuf {
        self.root.join("postgres")
    }

    /// The password of the database's only user.
    pub(crate) fn password(&self) -> PathBuf {
        self.root.join(Self::PASSWORD)
    }

    /// The folder of the Unix socket.
    pub(crate) fn sockets(&self) -> PathBuf {
        self.root.join("run")
    }

    /// What the server writes.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("postgres.log")
    }

    fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }
}

/// A data folder that this process holds.
///
/// INVARIANT: while it lives, no other process starts or ends a server in the folder.
#[derive(Debug)]
pub(crate) struct DataFolder {
    layout: Layout,
    run_as: RunAs,
    lock: File,
}

impl DataFolder {
    /// Creates the folder where it is missing, makes it private, and takes its lock.
    pub(crate) fn claim(data_dir: &Path) -> Result<Self, StartError> {
        create_passable(data_dir).map_err(StartError::io("create data folder", data_dir))?;
        // PostgreSQL records and reports real paths; comparing needs the same.
        let root = fs::canonicalize(data_dir).map_err(StartError::io("resolve", data_dir))?;
        let layout = Layout { root };
        refuse_foreign(&layout)?;
        refuse_links(&layout)?;
        let run_as = RunAs::choose(Some(&layout.pgdata())).ok_or(StartError::NoAccount)?;
        let lock = take_lock(&layout, &run_as)?;
        let folder = Self { layout, run_as, lock };
        folder.make_private()?;
        Ok(folder)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn run_as(&self) -> &RunAs {
        &self.run_as
    }

    /// Opens a file of the folder for its owner alone.
    pub(crate) fn open_private(
        &self,
        path: &Path,
        options: &mut OpenOptions,
    ) -> Result<File, StartError> {
        open_private(path, options, &self.run_as).map_err(StartError::io("open", path))
    }

    /// Gives the folder to the user that PostgreSQL runs as, and to nobody else.
    fn make_private(&self) -> Result<(), StartError> {
        let sockets = self.layout.sockets();
        match DirBuilder::new().mode(0o700).create(&sockets) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StartError::io("create", &sockets)(error));
            }
            _ => {}
        }
        for path in [&sockets, &self.layout.root] {
            self.own_folder(path).map_err(StartError::io("make private", path))?;
        }
        match self.run_as.barred_from(&self.layout.root) {
            Some(barrier) => Err(StartError::Unreachable {
                user: self.run_as.to_string(),
                data_dir: self.layout.root.clone(),
                barrier,
            }),
            None => Ok(()),
        }
    }

    /// Gives the folder at `path`, and nothing that a link there leads to.
    fn own_folder(&self, path: &Path) -> io::Result<()> {
        let opened = nofollow::open_folder(path)?;
        opened.set_permissions(Permissions::from_mode(0o700))?;
        self.run_as.own(&opened)
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        // Closing alone would not do: a program that another thread is just starting still shares
        // the open file, and with it the lock.
        let _ = self.lock.unlock();
    }
}

/// Creates `folder` and what is missing above it, with entry for all whatever the umask says.
pub(crate) fn create_passable(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_passable(parent)?;
    }
    match fs::create_dir(folder) {
        Ok(()) => fs::set_permissions(folder, Permissions::from_mode(0o755)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Refuses a folder with other content: making it private could break its owner's machine.
fn refuse_foreign(layout: &Layout) -> Result<(), StartError> {
    let is_empty =
        fs::read_dir(&layout.root).map_err(StartError::io("list", &layout.root))?.next().is_none();
    if is_empty || layout.lock().exists() {
        Ok(())
    } else {
        Err(StartError::Foreign { data_dir: layout.root.clone() })
    }
}

/// Refuses a folder where a link stands for something of ours, which root would follow elsewhere.
///
/// One that appears later meets the guards of [`nofollow`].
fn refuse_links(layout: &Layout) -> Result<(), StartError> {
    let ours = [layout.lock(), layout.password(), layout.pgdata(), layout.sockets(), layout.log()];
    match ours.into_iter().find(|path| path.is_symlink()) {
        Some(path) => Err(StartError::Linked { path }),
        None => Ok(()),
    }
}

/// Takes the lock for the life of the returned file and writes our number into it.
fn take_lock(layout: &Layout, run_as: &RunAs) -> Result<File, StartError> {
    let path = layout.lock();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut lock =
        open_private(&path, &mut options, run_as).map_err(StartError::io("open", &path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // Only the message suffers when the holder has not written its number yet.
            let _ = lock.read_to_string(&mut text);
            let pid = text.trim().parse().ok();
            return Err(StartError::InUse { data_dir: layout.root.clone(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(StartError::io("lock", &path)(source)),
    }
    lock.set_len(0)
        .and_then(|()| writeln!(lock, "{}", process::id()))
        .map_err(StartError::io("write", &path))?;
    Ok(lock)
}

/// Opens a file for its owner alone, who is the user that PostgreSQL runs as.
fn open_private(path: &Path, options: &mut OpenOptions, run_as: &RunAs) -> io::Result<File> {
    let file = nofollow::open_file(path, options.mode(0o600))?;
    run_as.own(&file)?;
    Ok(file)
}
