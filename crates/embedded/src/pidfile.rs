//! PostgreSQL's own account of who runs in a database folder.

use std::io;
use std::path::Path;

use nix::unistd::Pid;

use crate::nofollow;

/// What `postmaster.pid` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PidFile {
    /// The server that wrote it, which may be long gone.
    pub(crate) pid: Pid,
    /// Where it listens; missing while it starts.
    pub(crate) port: Option<u16>,
    /// Whether it accepts connections.
    pub(crate) ready: bool,
}

impl PidFile {
    /// The name of the file inside a database folder.
    pub(crate) const NAME: &str = "postmaster.pid";

    /// Reads the file of `pgdata`; `None` when there is none or it names no process.
    pub(crate) fn read(pgdata: &Path) -> io::Result<Option<Self>> {
        Ok(nofollow::read_in(pgdata, Self::NAME)?.and_then(|text| Self::parse(&text)))
    }

    /// Lines: process, folder, start time, port, socket folder, address, memory key, status.
    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        // A negative number marks a server without postmaster; 0 and below are no single process.
        let pid: i32 = lines.first()?.parse().ok().filter(|pid| 1 < *pid)?;
        Some(Self {
            pid: Pid::from_raw(pid),
            port: lines.get(3).and_then(|line| line.parse().ok()),
            ready: lines.get(7) == Some(&"ready"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_at_every_stage_of_a_start() {
        let starting = "77\n/data\n1700000000\n5433\n";
        assert_eq!(PidFile::parse(starting), file(Some(5433), false));
        let ready = format!("{starting}/run\n127.0.0.1\n  1 2\nready   \n");
        assert_eq!(PidFile::parse(&ready), file(Some(5433), true));
        assert_eq!(PidFile::parse("77\n"), file(None, false));
    }

    #[test]
    fn no_file_names_every_process_or_a_group() {
        for text in ["", "0\n", "-1\n", "1\n", "-77\n", "what\n"] {
            assert_eq!(PidFile::parse(text), None, "{text:?}");
        }
    }

    #[allow(clippy::unnecessary_wraps, reason = "compared with what `parse` returns")]
    fn file(port: Option<u16>, ready: bool) -> Option<PidFile> {
        Some(PidFile { pid: Pid::from_raw(77), port, ready })
    }
}
