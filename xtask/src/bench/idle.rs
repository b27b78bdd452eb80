//! `idle`: what a replica costs whose chats all wait.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use musterbeat_testkit::TestDatabase;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::replica::{Replica, Site};
use super::takeover::Options;
use super::wait::until;
use crate::postgres;

pub(super) const QUESTION: &str = "What does a replica cost whose chats all wait?";

/// How long is measured, at least.
const TIME_MIN: Duration = Duration::from_mins(1);
const BEATS_MIN: f64 = 20.0;

const PATIENCE: Duration = Duration::from_mins(3);

/// Bars for the replica's process with all chats, its PostgreSQL apart.
const MEMORY_MAX_MIB: f64 = 150.0;
const CPU_MAX_PERCENT: f64 = 2.0;

/// Linux tells the time of a process in hundredths of a second on every platform.
const TICKS_PER_SECOND: f64 = 100.0;

/// What was measured.
pub(super) struct Report {
    costs: Vec<Cost>,
}

/// What a process cost over some time.
#[derive(Clone, Copy, Debug)]
struct Cost {
    chats: u32,
    memory_mib: f64,
    cpu_percent: f64,
    seconds: f64,
    beats: f64,
}

/// Measures a replica without chats, and the same with all of them.
pub(super) async fn run(
    database: &TestDatabase,
    options: &Options,
    logs: PathBuf,
) -> Result<Report> {
    let site = Site::prepare(database.url(), logs).await?;
    let settings = [
        ("MUSTERBEAT_CAPACITY", options.chats.to_string()),
        // Nothing is ever said.
        ("MUSTERBEAT_ECHO_PACE", "1000h".to_owned()),
        ("MUSTERBEAT_RATE_PER_SECOND", "1000000".to_owned()),
        ("MUSTERBEAT_RATE_BURST", "1000000".to_owned()),
    ];
    let replica = site.start("idle", &settings).await?;
    postgres::say("measuring without chats");
    let without = measure(&replica, 0).await?;
    postgres::say(&format!("creating {} chats", options.chats));
    let count = u64::from(options.chats);
    replica.asker().ask_all(count, |chat| format!("wait with chat {chat}")).await?;
    until("a beat has called the whole roll", PATIENCE, async || {
        let roll = replica.metrics().await?.sum("musterbeat_roll_runs", "");
        Ok((f64::from(options.chats) <= roll).then_some(()))
    })
    .await?;
    postgres::say(&format!("measuring with {} chats", options.chats));
    let with = measure(&replica, options.chats).await?;
    Ok(Report { costs: vec![without, with] })
}

async fn measure(replica: &Replica, chats: u32) -> Result<Cost> {
    let beats_before = replica.metrics().await?.beats();
    let (start, cpu_before) = (Instant::now(), cpu_seconds(replica)?);
    tokio::time::sleep(TIME_MIN).await;
    let beats = until("enough beats are sent", PATIENCE, async || {
        let beats = replica.metrics().await?.beats() - beats_before;
        Ok((BEATS_MIN <= beats).then_some(beats))
    })
    .await?;
    let (cpu, seconds) = (cpu_seconds(replica)? - cpu_before, start.elapsed().as_secs_f64());
    let memory_mib = memory_mib(replica)?;
    Ok(Cost { chats, memory_mib, cpu_percent: cpu / seconds * 100.0, seconds, beats })
}

/// Returns the resident memory of a replica's process.
pub(super) fn memory_mib(replica: &Replica) -> Result<f64> {
    let status = process_file(replica, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.context("the system tells no resident memory")? / 1024.0)
}

fn cpu_seconds(replica: &Replica) -> Result<f64> {
    ticks(&process_file(replica, "stat")?)
        .map(|ticks| ticks / TICKS_PER_SECOND)
        .context("the system tells no time of a process")
}

/// Returns the time in the program and in the system; the name before may hold anything.
fn ticks(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<f64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

fn process_file(replica: &Replica, name: &str) -> Result<String> {
    let path = format!("/proc/{}/{name}", replica.process());
    std::fs::read_to_string(&path).with_context(|| format!("failed to read {path}: not Linux?"))
}

impl Report {
    /// Returns what is above its bar.
    pub(super) fn violations(&self) -> Vec<String> {
        let all = self.costs.iter().flat_map(|cost| {
            let Cost { chats, memory_mib, cpu_percent, .. } = *cost;
            let memory = (MEMORY_MAX_MIB <= memory_mib)
                .then(|| format!("{memory_mib:.0} MiB with {chats} chats"));
            let cpu = (CPU_MAX_PERCENT <= cpu_percent)
                .then(|| format!("{cpu_percent:.1} % of a core with {chats} chats"));
            memory.into_iter().chain(cpu)
        });
        all.collect()
    }

    /// Returns the report for a reader.
    pub(super) fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["chats", "resident memory", "of a core", "measured for", "beats"]);
        for Cost { chats, memory_mib, cpu_percent, seconds, beats } in &self.costs {
            table.add_row([
                chats.to_string(),
                format!("{memory_mib:.1} MiB"),
                format!("{cpu_percent:.2} %"),
                format!("{seconds:.0} s"),
                format!("{beats:.0}"),
            ]);
        }
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!(
            "the replica's process alone; under {MEMORY_MAX_MIB} MiB and {CPU_MAX_PERCENT} % \
             are asked for\n{table}"
        )
    }

    /// Returns what the line of JSON has beside the commit and the machine.
    pub(super) fn json(&self) -> Value {
        let cost = |cost: &Cost| {
            json!({
                "chats": cost.chats,
                "memory_mib": cost.memory_mib,
                "cpu_percent": cost.cpu_percent,
                "seconds": cost.seconds,
                "beats": cost.beats,
            })
        };
        let costs: Vec<_> = self.costs.iter().map(cost).collect();
        json!({ "costs": costs, "violations": self.violations() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_a_process_is_found_whatever_its_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 900 0 3 0 250 50 0 0 20 0 4 0 1 2 3\n";
        assert_eq!(ticks(stat), Some(300.0));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn costs_above_the_bars_are_told() {
        let cost = |memory_mib, cpu_percent| Report {
            costs: vec![Cost { chats: 5, memory_mib, cpu_percent, seconds: 60.0, beats: 20.0 }],
        };
        assert!(cost(149.0, 1.9).violations().is_empty());
        assert_eq!(
            cost(150.0, 2.5).violations(),
            ["150 MiB with 5 chats", "2.5 % of a core with 5 chats"]
        );
    }
}
