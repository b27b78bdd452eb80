//! What the tests share: folders, servers, and looks at processes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use musterbeat_embedded::{Durability, Options, Server, Source, StartError, default_cache_dir};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, chown, geteuid};
use tempfile::TempDir;

/// No state that a test waits for takes this long, even on a machine that is very busy.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where the held-out process of [`Holder`] finds its data folder.
const HOLD_VARIABLE: &str = "MUSTERBEAT_TEST_HOLD";

/// A data folder, removed at the end.
pub(crate) struct Place {
    root: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        // Open to all: as root the server belongs to another user.
        let open = fs::Permissions::from_mode(0o755);
        Self { root: tempfile::Builder::new().prefix("mb-").permissions(open).tempdir().unwrap() }
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.root().join("data")
    }

    pub(crate) fn pgdata(&self) -> PathBuf {
        self.data_dir().join("postgres")
    }

    pub(crate) fn options(&self) -> Options {
        options(self.data_dir())
    }

    pub(crate) fn start(&self) -> Server {
        Server::start(&self.options(), &|_| {}).unwrap()
    }

    pub(crate) fn start_error(&self) -> StartError {
        Server::start(&self.options(), &|_| {}).unwrap_err()
    }
}

pub(crate) fn options(data_dir: PathBuf) -> Options {
    let source = env::var("MUSTERBEAT_POSTGRES").unwrap_or_default();
    Options {
        source: if source.is_empty() { Source::Auto } else { source.parse().unwrap() },
        // Its programs are run, so nobody else may be able to put any there.
        cache_dir: default_cache_dir(),
        data_dir,
        durability: Durability::None,
        settings: vec![],
    }
}

/// Asks `server` for one value.
pub(crate) fn sql(server: &Server, statement: &str) -> String {
    sql_at(&server.url("postgres"), &server.binaries().bin_dir, statement)
}

pub(crate) fn sql_at(url: &str, bin_dir: &Path, statement: &str) -> String {
    let psql = bin_dir.join("psql");
    let answer = Command::new(psql).args(["-XAtq", url, "-c", statement]).output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    String::from_utf8(answer.stdout).unwrap().trim().to_owned()
}

/// Waits for a state; `what` names it when it never comes.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Tells whether a process runs; one that only waits for its parent to notice does not.
pub(crate) fn runs(pid: u32) -> bool {
    let state = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    let state = String::from_utf8(state.stdout).unwrap();
    !state.trim().is_empty() && !state.starts_with('Z')
}

pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// Makes `command` run as the user that owns `folder`, as PostgreSQL insists.
pub(crate) fn as_owner_of(folder: &Path, command: &mut Command) {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::CommandExt;
    if is_root() {
        let found = fs::metadata(folder).unwrap();
        command.uid(found.uid()).gid(found.gid());
    }
}

/// Gives `path` to the user that root's servers run as.
pub(crate) fn give_away(path: &Path) {
    if is_root() {
        let user = ["postgres", "nobody"].map(|name| User::from_name(name).unwrap());
        let user = user.into_iter().flatten().next().unwrap();
        chown(path, Some(user.uid), Some(user.gid)).unwrap();
    }
}

/// Another process that starts a server and holds it until it is killed.
pub(crate) struct Holder(Child);

impl Holder {
    pub(crate) fn spawn(place: &Place) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "helper::hold", "--ignored", "--nocapture"]);
        command.env(HOLD_VARIABLE, place.data_dir());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Ends the process as the kernel does when memory runs out: nothing of it runs any more.
    pub(crate) fn kill(mut self) {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL).unwrap();
        self.0.wait().unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "no test: the process that `Holder` spawns"]
fn hold() {
    let Some(data_dir) = env::var_os(HOLD_VARIABLE) else { return };
    // From a thread that ends at once, as those of a pool do: the server must not end with it.
    let start = move || Server::start(&options(data_dir.into()), &|_| {}).unwrap();
    let _server = thread::spawn(start).join().unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Returns the source that the suite runs with.
pub(crate) fn source() -> Source {
    options(PathBuf::new()).source
}
