//! Starts a server and waits until it is ready.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::cluster::confine;
use crate::command::{Tail, ending};
use crate::error::StartError;
use crate::folder::DataFolder;
use crate::nofollow;
use crate::options::{Durability, Options};
use crate::pidfile::PidFile;
use crate::postmaster::Postmaster;
use crate::source::Binaries;
use crate::wait;

/// Long enough to replay what a crash left.
const READY_LIMIT: Duration = Duration::from_mins(2);

/// How long a start is tried again when something passing is in its way.
const RETRY_LIMIT: Duration = Duration::from_secs(15);

/// A log that has grown beyond this is put aside at a start, and the one put aside before it lost.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The room for a path in a socket's address is 104 bytes with its end mark on macOS, 108 on Linux.
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// What the log says when a start failed for a reason that passes: the port was taken after it was
/// chosen, or the last processes of a server that was killed are still about to go.
const PASSING: [&str; 2] = ["could not bind", "pre-existing shared memory block"];

/// A server that is ready, and its port.
pub(crate) struct Launched {
    pub(crate) postmaster: Postmaster,
    pub(crate) port: u16,
}

/// Starts a server, again with another port where something passing is in its way.
pub(crate) fn launch(
    folder: &DataFolder,
    binaries: &Binaries,
    options: &Options,
) -> Result<Launched, StartError> {
    let mut last = None;
    let launched = wait::until(RETRY_LIMIT, || match try_launch(folder, binaries, options) {
        Err(error @ StartError::Ended { .. }) if is_passing(&error) => {
            last = Some(error);
            None
        }
        other => Some(other),
    });
    match (launched, last) {
        (Some(launched), _) => launched,
        (None, Some(error)) => Err(error),
        (None, None) => unreachable!("no answer without a passing error"),
    }
}

fn is_passing(error: &StartError) -> bool {
    let StartError::Ended { tail, .. } = error else { return false };
    PASSING.iter().any(|text| tail.mentions(text))
}

fn try_launch(
    folder: &DataFolder,
    binaries: &Binaries,
    options: &Options,
) -> Result<Launched, StartError> {
    let log = folder.layout().log();
    let port =
        free_port().map_err(StartError::io("find a free port for", &folder.layout().root))?;
    set_aside_large(&log).map_err(StartError::io("put aside", &log))?;
    let mut appending = OpenOptions::new();
    let output = folder.open_private(&log, appending.append(true).create(true))?;
    let log_start = output.metadata().map_err(StartError::io("measure", &log))?.len();
    let errors = output.try_clone().map_err(StartError::io("open", &log))?;
    let mut command = command(folder, binaries, options, port);
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    let program = binaries.program("postgres");
    let mut postmaster = Postmaster::spawn(command).map_err(StartError::io("run", &program))?;
    await_ready(folder, &mut postmaster, log_start)?;
    Ok(Launched { postmaster, port })
}

/// Asks the system for a port that nobody uses.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn command(folder: &DataFolder, binaries: &Binaries, options: &Options, port: u16) -> Command {
    let mut command = Command::new(binaries.program("postgres"));
    command.arg("-D").arg(folder.layout().pgdata());
    let durability: &[&str] = match options.durability {
        Durability::Full => &[],
        Durability::None => &["fsync=off", "synchronous_commit=off", "full_page_writes=off"],
    };
    for setting in durability {
        command.args(["-c", setting]);
    }
    for (name, value) in &options.settings {
        command.args(["-c", &format!("{name}={value}")]);
    }
    // Last, since the last one holds: the server stays private whatever the caller sets.
    command.args(["-c", "listen_addresses=127.0.0.1"]).args(["-c", &format!("port={port}")]).args(
        ["-c", &format!("unix_socket_directories={}", socket_folders(&folder.layout().sockets()))],
    );
    confine(&mut command, folder);
    // Ctrl-C in a terminal is for us: we stop the server when we are done with it.
    command.process_group(0);
    command
}

/// Returns the value of `unix_socket_directories`, empty where no socket fits.
fn socket_folders(folder: &Path) -> String {
    match folder.join(".s.PGSQL.65535").to_str() {
        Some(longest) if longest.len() <= SOCKET_PATH_BYTES_MAX => {
            // The value is a list, in which quotes protect commas and spaces.
            format!("\"{}\"", folder.display().to_string().replace('"', "\"\""))
        }
        _ => String::new(),
    }
}

fn await_ready(
    folder: &DataFolder,
    postmaster: &mut Postmaster,
    log_start: u64,
) -> Result<(), StartError> {
    let log = folder.layout().log();
    let pgdata = folder.layout().pgdata();
    let settled = wait::until(READY_LIMIT, || {
        if let Some(status) = postmaster.ended() {
            return Some(Err(ending(status)));
        }
        // A file that cannot be read is one that is just being written.
        let file = PidFile::read(&pgdata).ok().flatten()?;
        (file.ready && file.pid.as_raw().cast_unsigned() == postmaster.id()).then_some(Ok(()))
    });
    let tail = || log_since(&log, log_start);
    match settled {
        Some(Ok(())) => Ok(()),
        Some(Err(ending)) => Err(StartError::Ended { ending, tail: tail(), log }),
        None => Err(StartError::NotReady { seconds: READY_LIMIT.as_secs(), tail: tail(), log }),
    }
}

/// Returns the end of what was logged since the log had `start` bytes.
fn log_since(log: &Path, start: u64) -> Tail {
    let mut bytes = Vec::new();
    let read = nofollow::open_file(log, OpenOptions::new().read(true)).and_then(|mut file| {
        file.seek(SeekFrom::Start(start))?;
        file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)
    });
    // Without its log the error still says how the server ended.
    read.map(|_| Tail::of(&String::from_utf8_lossy(&bytes))).unwrap_or_default()
}

fn set_aside_large(log: &Path) -> io::Result<()> {
    match fs::symlink_metadata(log) {
        Ok(found) if LOG_BYTES_MAX < found.len() => fs::rename(log, log.with_extension("log.old")),
        _ => Ok(()),
    }
}
