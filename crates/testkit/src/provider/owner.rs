//! Who started a server, so that others can tell whether it is left over.

use std::fs;
use std::process;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// A process, so named that a later one with the same id is not taken for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The boot and the process namespace that the id counts in.
    scope: String,
    pid: i32,
    /// When the process started, in ticks since boot.
    started: String,
}

impl Owner {
    pub(super) fn current() -> Self {
        let pid = Pid::from_raw(process::id().cast_signed());
        Self { scope: scope(), pid: pid.as_raw(), started: started(pid).unwrap_or_default() }
    }

    /// Returns the words that [`Owner::parse`] reads.
    pub(super) fn label(&self) -> String {
        format!("{}/{}/{}", self.scope, self.pid, self.started)
    }

    pub(super) fn parse(label: &str) -> Option<Self> {
        let mut words = label.splitn(3, '/').map(str::to_owned);
        let (scope, pid, started) = (words.next()?, words.next()?, words.next()?);
        Some(Self { scope, pid: pid.parse().ok()?, started })
    }

    /// Whether this process can tell if the owner lives: it is of the same boot and namespace.
    pub(super) fn is_known(&self) -> bool {
        self.scope == scope()
    }

    /// Whether the owner, known here, has ended.
    pub(super) fn has_ended(&self) -> bool {
        let pid = Pid::from_raw(self.pid);
        match kill(pid, None) {
            Err(Errno::ESRCH) => true,
            _ => started(pid).unwrap_or_default() != self.started,
        }
    }
}

/// Returns what distinguishes this machine's boot and process namespace, where the system tells.
fn scope() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let namespace: String =
        namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    format!("{}.{namespace}", boot.trim())
}

/// Returns the start of a process, where the system tells.
fn started(pid: Pid) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program may hold blanks and brackets; the fields after it do not.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_known_and_alive() {
        let owner = Owner::parse(&Owner::current().label()).unwrap();
        assert_eq!(owner, Owner::current());
        assert!(owner.is_known() && !owner.has_ended());
    }

    #[test]
    fn a_process_with_a_recycled_id_is_not_the_owner() {
        let owner = Owner { started: "1".to_owned(), ..Owner::current() };
        assert!(owner.has_ended());
    }

    #[test]
    fn a_process_of_another_boot_is_unknown() {
        let owner = Owner { scope: "elsewhere".to_owned(), ..Owner::current() };
        assert!(!owner.is_known());
    }
}
