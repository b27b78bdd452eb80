//! What a measurement was made of and on.

use std::process::Command;

use serde_json::{Value, json};

use crate::workspace;

/// The machine that measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) cores: usize,
    pub(super) memory_mib: Option<u64>,
    pub(super) cpu: Option<String>,
    /// PostgreSQL's version and the settings that matter.
    pub(super) server: String,
}

impl Machine {
    /// Asks the system; what it does not tell is left out.
    pub(super) fn read(server: String) -> Self {
        let memory_kib = value("/proc/meminfo", "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: memory_kib.map(|kib| kib / 1024),
            cpu: value("/proc/cpuinfo", "model name"),
            server,
        }
    }

    pub(super) fn json(&self) -> Value {
        let Self { cores, memory_mib, cpu, server } = self;
        json!({ "cores": cores, "memory_mib": memory_mib, "cpu": cpu, "server": server })
    }

    pub(super) fn text(&self) -> String {
        let memory = self.memory_mib.map(|mib| format!("{mib} MiB"));
        let parts = [Some(format!("{} cores", self.cores)), self.cpu.clone(), memory];
        let known: Vec<_> = parts.into_iter().flatten().chain([self.server.clone()]).collect();
        known.join(", ")
    }
}

/// Returns the commit that was measured, marked when files differ from it.
pub(super) fn commit() -> String {
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(workspace::root()).args(args);
        workspace::output(&mut command)
    };
    let commit = git(&["rev-parse", "--verify", "HEAD"]);
    let commit = commit.map_or("unknown".to_owned(), |hash| hash.trim().to_owned());
    let clean = git(&["status", "--porcelain"]).is_ok_and(|changes| changes.is_empty());
    if clean { commit } else { format!("{commit}-dirty") }
}

/// Returns the first value of `key` in a file of lines `key : value`.
fn value(path: &str, key: &str) -> Option<String> {
    find(&std::fs::read_to_string(path).ok()?, key)
}

fn find(text: &str, key: &str) -> Option<String> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = pairs.find(|(name, _)| name.trim() == key)?;
    Some(value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_of_a_key_is_found() {
        let text = "model\t\t: 1\nmodel name\t: Fast one\nmodel name\t: Second one\n";
        assert_eq!(find(text, "model name").as_deref(), Some("Fast one"));
        assert_eq!(find(text, "bogomips"), None);
    }
}
