//! What is known of the machine without a script.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use sysinfo::{
    CpuRefreshKind, MINIMUM_CPU_UPDATE_INTERVAL, MemoryRefreshKind, RefreshKind, System,
};
use tokio::time::{Instant, sleep_until};

/// A value that needs no script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Cpu,
    Disk,
    Load,
    Memory,
    Uptime,
}

impl Known {
    const ALL: [(&str, Self); 5] = [
        ("cpu", Self::Cpu),
        ("disk", Self::Disk),
        ("load", Self::Load),
        ("memory", Self::Memory),
        ("uptime", Self::Uptime),
    ];

    /// Returns what a key names.
    pub(crate) fn by_key(key: &str) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| *name == key).map(|(_, known)| *known)
    }

    /// Returns all keys that name something, as a list in a sentence.
    pub(crate) fn names() -> String {
        Self::ALL.map(|(name, _)| name).join(", ")
    }
}

/// Reads the machine.
pub(crate) struct Machine {
    /// `None` on a machine that does not tell of itself.
    system: Mutex<Option<System>>,
    /// From when on the use of the processors was measured for long enough.
    measured: Instant,
    disk: PathBuf,
    /// Held while the disk is asked. A dead mount answers never, and blocks one thread so, not one
    /// each time.
    disk_asked: Arc<tokio::sync::Mutex<()>>,
}

/// Why something is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    #[error("the filesystem of {} could not be read", path.display())]
    Disk {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the filesystem was not read")]
    Task(#[source] tokio::task::JoinError),
    #[error("this machine did not tell it")]
    Failed(#[from] sysinfo::Error),
    #[error("this machine does not tell it")]
    Untold,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("disk", &self.disk).finish_non_exhaustive()
    }
}

impl Machine {
    /// Begins to measure the use of the processors; `disk` is a path on the filesystem to tell of.
    pub(crate) fn new(disk: PathBuf) -> Self {
        let usage = CpuRefreshKind::nothing().with_usage();
        let system = System::new_with_specifics(RefreshKind::nothing().with_cpu(usage));
        Self {
            system: Mutex::new(system.ok()),
            measured: Instant::now() + MINIMUM_CPU_UPDATE_INTERVAL,
            disk,
            disk_asked: Arc::default(),
        }
    }

    pub(crate) async fn read(&self, known: Known) -> Result<String, MachineError> {
        match known {
            Known::Cpu => self.cpu().await,
            Known::Disk => self.disk().await,
            Known::Load => Ok(format!("{:.2}", System::load_average()?.one)),
            Known::Memory => self.memory(),
            Known::Uptime => Ok(age(Duration::from_secs(System::uptime()?))),
        }
    }

    /// Returns the use of all processors since the last call, or since the beginning.
    async fn cpu(&self) -> Result<String, MachineError> {
        sleep_until(self.measured).await;
        let mut system = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        let system = system.as_mut().ok_or(MachineError::Untold)?;
        system.refresh_cpu_usage();
        Ok(format!("{:.1}%", system.global_cpu_usage()))
    }

    fn memory(&self) -> Result<String, MachineError> {
        let mut system = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        let system = system.as_mut().ok_or(MachineError::Untold)?;
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let (used, total) = (system.used_memory().into(), system.total_memory().into());
        if total == 0 { Err(MachineError::Untold) } else { Ok(share(used, total, total)) }
    }

    async fn disk(&self) -> Result<String, MachineError> {
        let asked = Arc::clone(&self.disk_asked).lock_owned().await;
        let path = self.disk.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let _asked = asked;
            let stat = statvfs(&path)
                .map_err(|errno| MachineError::Disk { path, source: errno.into() })?;
            let bytes = |blocks: u128| blocks * u128::from(stat.fragment_size());
            let total = bytes(stat.blocks().into());
            let used = total - bytes(stat.blocks_free().into()).min(total);
            // As `df` counts: what only root may fill is not there for others.
            Ok(share(used, total, used + bytes(stat.blocks_available().into())))
        });
        reading.await.map_err(MachineError::Task)?
    }
}

/// Writes `3.1/16.0 GiB (19%)`, the percentage being that of `whole`.
fn share(used: u128, total: u128, whole: u128) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let place = (0..UNITS.len() - 1).find(|place| total >> (10 * place) < 1_024 * 1_024);
    let place = place.unwrap_or(UNITS.len() - 1);
    let unit = 1_024_u128 << (10 * place);
    let tenths = |bytes: u128| {
        let tenths = (bytes * 10 + unit / 2) / unit;
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    let percent = (used * 100 + whole / 2).checked_div(whole).unwrap_or(0);
    format!("{}/{} {} ({percent}%)", tenths(used), tenths(total), UNITS[place])
}

/// Writes `3d 4h 5m`, without leading zeros; below a minute `42s`.
fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, ..) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h {}m", hours % 24, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_written_in_the_unit_of_the_whole() {
        for (used, total, whole, expected) in [
            (3_328_599_654, 17_179_869_184, 17_179_869_184, "3.1/16.0 GiB (19%)"),
            (0, 1_023, 1_023, "0.0/1.0 KiB (0%)"),
            (524_288, 1_048_576, 1_048_576, "0.5/1.0 MiB (50%)"),
            (95 << 40, 100 << 40, 95 << 40, "95.0/100.0 TiB (100%)"),
            (1 << 70, 1 << 70, 1 << 70, "1024.0/1024.0 EiB (100%)"),
            (0, 0, 0, "0.0/0.0 KiB (0%)"),
        ] {
            assert_eq!(share(used, total, whole), expected);
        }
    }

    #[test]
    fn ages_are_written_from_their_largest_unit() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3_600, "1h 0m"),
            (86_399, "23h 59m"),
            (273_912, "3d 4h 5m"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), expected);
        }
    }

    #[tokio::test]
    async fn this_machine_is_known() {
        let machine = Machine::new(".".into());
        let read = async |key| machine.read(Known::by_key(key).unwrap()).await.unwrap();
        let load = read("load").await;
        assert!(load.parse::<f64>().unwrap() >= 0.0, "{load}");
        let cpu = read("cpu").await;
        let percent: f64 = cpu.strip_suffix('%').unwrap().parse().unwrap();
        assert!((0.0..=100.0).contains(&percent), "{cpu}");
        for key in ["memory", "disk"] {
            let share = read(key).await;
            let (used, rest) = share.split_once('/').unwrap();
            let (total, rest) = rest.split_once(' ').unwrap();
            let (used, total): (f64, f64) = (used.parse().unwrap(), total.parse().unwrap());
            assert!(0.0 < total && used <= total && rest.ends_with("%)"), "{key}: {share}");
        }
        assert!(!read("uptime").await.is_empty());
    }

    #[tokio::test]
    async fn a_path_that_is_not_there_is_named() {
        let error = Machine::new("/not/there".into()).read(Known::Disk).await.unwrap_err();
        assert_eq!(error.to_string(), "the filesystem of /not/there could not be read");
    }
}
