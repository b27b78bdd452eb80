//! `takeover`: replicas are killed, and what they ran goes on elsewhere.
//!
//! Two replicas play ping-pong. One owns all chats of a round; the other is started, and beats;
//! the first is killed; when the second has answered everything it is the next to be killed.
//! A third replica, the bystander, is full from the beginning and must keep all that it has.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use musterbeat_testkit::TestDatabase;
use tokio::time::Instant;
use uuid::Uuid;

use super::busy::Busy;
use super::replica::{Replica, Samples, Site};
use super::wait::until;
use crate::postgres;

mod report;
mod table;

pub(super) use report::Report;
use table::{Chats, Spread, Standing, Table};

pub(super) const QUESTION: &str =
    "After a replica was killed, how long until all its chats run elsewhere?";

/// How a server is set whose settings are left alone; said here since the bar depends on it.
const LEASE_TTL: Duration = Duration::from_secs(12);

/// All chats run elsewhere this long after the lease of the dead could have ended, at most.
const BEYOND_LEASE: Duration = Duration::from_secs(3);

/// A turn lasts 36 to 28 s, longer than a round needs until its kill; while something else
/// keeps the cores busy, twice as long.
const PACE: Duration = Duration::from_secs(2);
const WORDS_MAX: u64 = 18;
const WORDS_MIN: u64 = 14;

/// Chats that the bystander holds, and how long it takes for a word of theirs.
const BYSTANDER_CHATS: u32 = 100;
const BYSTANDER_PACE: Duration = Duration::from_hours(1_000);

/// Beats that a replica has sent before it is relied on.
const BEATS_BEFORE: f64 = 2.0;

/// Nothing here takes longer on a machine that can be measured on.
const PATIENCE: Duration = Duration::from_mins(3);

/// Counters that stay at zero while live workers keep what they own.
const TROUBLES: [&str; 4] = [
    "musterbeat_runs_lost_total",
    "musterbeat_leases_lapsed_total",
    "musterbeat_run_writes_given_up_total",
    "musterbeat_runs_given_up_total",
];

/// How replicas are killed.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Chats that run on the replica that is killed (`takeover`), or that are idle (`idle`).
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) chats: u32,

    /// Last rounds of `takeover` in which all cores are busy with something else.
    #[arg(long, default_value_t = 5)]
    busy: u32,
}

/// What was measured of one kill; times count from it.
#[derive(Clone, Debug, Default)]
struct Kill {
    busy: bool,
    /// Time from the last beat of the killed to its end.
    beat_age: Duration,
    /// When its lease was seen dead.
    marked: Duration,
    /// When its last run was seen taken back.
    taken_back: Duration,
    /// When its runs were first and last claimed elsewhere.
    first: Duration,
    last: Duration,
    /// When all of them were seen elsewhere.
    seen: Duration,
    /// How long it took to create the chats, and to answer them once they ran elsewhere.
    create: Duration,
    answer: Duration,
}

/// Kills replicas `kills` times; what must not happen is in the report.
pub(super) async fn run(
    database: &TestDatabase,
    kills: u32,
    options: &Options,
    logs: PathBuf,
) -> Result<Report> {
    let mut report = Report { chats: options.chats, kills: Vec::new(), violations: Vec::new() };
    let bar = progress(kills);
    let site = Site::prepare(database.url(), logs).await?;
    let mut stage = Stage::set(site, database, options.chats, &bar).await?;
    for number in 1..=kills {
        let busy = kills.saturating_sub(options.busy) < number;
        bar.set_prefix(format!("kill {number} of {kills}"));
        let mut violations = Vec::new();
        let killed = stage.kill(number, busy, &mut violations).await;
        let ended = killed.is_err();
        match killed {
            Ok(kill) => {
                let seen = kill.seen.as_secs_f64();
                let told = format!("kill {number}: all ran elsewhere after {seen:.1} s");
                bar.suspend(|| postgres::say(&told));
                report.kills.push(kill);
            }
            Err(error) => violations.push(format!("{error:#}")),
        }
        report.violations.extend(violations.iter().map(|what| format!("kill {number}: {what}")));
        if ended {
            break;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(report)
}

fn progress(steps: u32) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {prefix}: {msg}")
        .expect("the template is a constant that parses");
    let bar = ProgressBar::new(u64::from(steps)).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// A replica with its worker.
struct Player {
    replica: Replica,
    worker: Uuid,
}

/// The replicas and what watches them.
struct Stage<'a> {
    bar: &'a ProgressBar,
    chats: u32,
    site: Site,
    table: Table,
    bystander: Player,
    /// What the bystander runs.
    endless: Chats,
    /// Who is killed next.
    victim: Player,
}

impl<'a> Stage<'a> {
    async fn set(
        site: Site,
        database: &TestDatabase,
        chats: u32,
        bar: &'a ProgressBar,
    ) -> Result<Self> {
        bar.set_prefix("before");
        bar.set_message("the bystander takes its chats");
        let mut table = Table::new(database.connect().await?);
        let settings = settings(BYSTANDER_CHATS, BYSTANDER_PACE);
        let bystander = start(&site, &mut table, "bystander", &settings).await?;
        let asker = bystander.replica.asker();
        let ids = asker.ask_all(u64::from(BYSTANDER_CHATS), |_| "stay here".to_owned()).await?;
        let endless = Chats { ids };
        all_owned(&mut table, &bystander, &endless).await?;
        let victim = start(&site, &mut table, "replica-0", &playing(chats)).await?;
        Ok(Self { bar, chats, site, table, bystander, endless, victim })
    }

    /// Kills the victim under all its chats; its successor is the next victim.
    async fn kill(
        &mut self,
        number: u32,
        busy: bool,
        violations: &mut Vec<String>,
    ) -> Result<Kill> {
        let _busy = busy.then(Busy::start);
        let mut kill = Kill { busy, ..Kill::default() };
        let chats = self.ask(number, &mut kill).await?;
        let successor = self.succeed(number).await?;
        self.check_before(&chats, violations).await?;

        self.bar.set_message("killed; waiting for the lease to end");
        let (killed, beat_age) = self.table.last_beat(self.victim.worker).await?;
        self.victim.replica.kill()?;
        kill.beat_age = beat_age;
        let victim = std::mem::replace(&mut self.victim, successor);
        let table = &mut self.table;
        kill.marked = until("the dead lease is marked", PATIENCE, async || {
            table.dead(victim.worker, killed).await
        })
        .await?;
        self.bar.set_message("marked dead; waiting for the chats to run elsewhere");
        let elsewhere = until("all chats run elsewhere", PATIENCE, async || {
            let standing = table.standing(&chats, victim.worker, killed).await?;
            if standing.left == 0 && kill.taken_back.is_zero() {
                kill.taken_back = standing.at;
            }
            let all = standing.elsewhere == chats.ids.len() as u64;
            Ok(all.then_some(standing))
        })
        .await?;
        let Standing { first, last, at, .. } = elsewhere;
        kill.first = first.context("no run was claimed elsewhere")?;
        kill.last = last.context("no run was claimed elsewhere")?;
        kill.seen = at;
        self.finish(&chats, &mut kill).await?;
        self.check_after(&chats, violations).await?;
        Ok(kill)
    }

    /// Creates the chats of a round, and waits until the victim runs them all.
    async fn ask(&mut self, number: u32, kill: &mut Kill) -> Result<Chats> {
        let count = u64::from(self.chats);
        self.bar.set_message(format!("creating {count} chats"));
        let start = Instant::now();
        let words_factor = if kill.busy { 2 } else { 1 };
        let question = move |chat| question(number, chat, count, words_factor);
        let ids = self.victim.replica.asker().ask_all(count, question).await?;
        let chats = Chats { ids };
        all_owned(&mut self.table, &self.victim, &chats).await?;
        kill.create = start.elapsed();
        Ok(chats)
    }

    /// Starts the next replica, and waits until it beats.
    async fn succeed(&mut self, number: u32) -> Result<Player> {
        let name = format!("replica-{number}");
        self.bar.set_message(format!("{name} starts"));
        let player = start(&self.site, &mut self.table, &name, &playing(self.chats)).await?;
        until(&format!("{name} beats"), PATIENCE, async || {
            let beats = player.replica.metrics().await?.beats();
            Ok((BEATS_BEFORE <= beats).then_some(()))
        })
        .await?;
        Ok(player)
    }

    /// Waits until nothing is left to do.
    async fn finish(&mut self, chats: &Chats, kill: &mut Kill) -> Result<()> {
        let (table, worker) = (&mut self.table, self.victim.worker);
        let (bar, start) = (self.bar, Instant::now());
        until("every chat has its answer", PATIENCE, async || {
            let Spread { waiting, all, busy, .. } = table.spread(chats, worker, 3).await?;
            bar.set_message(format!("all run elsewhere; {waiting} of {all} answered"));
            Ok((busy == 0).then_some(()))
        })
        .await?;
        kill.answer = start.elapsed();
        Ok(())
    }

    /// The victim must own everything under its first claim, and have no trouble.
    async fn check_before(&mut self, chats: &Chats, violations: &mut Vec<String>) -> Result<()> {
        let spread = self.table.spread(chats, self.victim.worker, 1).await?;
        ensure!(
            spread.owned == chats.ids.len() as u64,
            "not every chat ran when its replica should be killed ({spread:?}): \
             the machine is too slow for turns of this length",
        );
        let samples = self.victim.replica.metrics().await?;
        violations.extend(troubles(self.victim.replica.name(), &samples));
        Ok(())
    }

    /// Nothing is lost or doubled, and who lived kept what it had.
    async fn check_after(&mut self, chats: &Chats, violations: &mut Vec<String>) -> Result<()> {
        let count = chats.ids.len() as u64;
        // One claim, taken back once, and one more claim.
        let spread = self.table.spread(chats, self.victim.worker, 3).await?;
        if spread != (Spread { all: count, waiting: count, ..Spread::default() }) {
            violations.push(format!("{count} chats changed hands otherwise than once: {spread:?}"));
        }
        let answered = self.table.answered(chats).await?;
        if answered != count {
            violations.push(format!("{answered} of {count} chats have one question and answer"));
        }
        let held = self.table.spread(&self.endless, self.bystander.worker, 1).await?;
        if held.owned != u64::from(BYSTANDER_CHATS) {
            violations.push(format!("the bystander lost runs: {held:?}"));
        }
        for player in [&self.bystander, &self.victim] {
            let samples = player.replica.metrics().await?;
            violations.extend(troubles(player.replica.name(), &samples));
        }
        Ok(())
    }
}

/// Starts a replica and returns it with its worker.
async fn start(
    site: &Site,
    table: &mut Table,
    name: &str,
    settings: &[(&str, String)],
) -> Result<Player> {
    let replica = site.start(name, settings).await?;
    let registered = format!("{name} registers");
    let worker = until(&registered, PATIENCE, async || table.worker(name).await).await?;
    Ok(Player { replica, worker })
}

async fn all_owned(table: &mut Table, player: &Player, chats: &Chats) -> Result<()> {
    let what = format!("{} runs all its chats", player.replica.name());
    until(&what, PATIENCE, async || {
        let spread = table.spread(chats, player.worker, 1).await?;
        Ok((spread.owned == chats.ids.len() as u64).then_some(()))
    })
    .await
}

/// Returns the settings of a replica that takes all chats of another, with some room.
fn playing(chats: u32) -> Vec<(&'static str, String)> {
    settings(chats + chats / 5 + 1, PACE)
}

fn settings(capacity: u32, pace: Duration) -> Vec<(&'static str, String)> {
    vec![
        ("MUSTERBEAT_CAPACITY", capacity.to_string()),
        ("MUSTERBEAT_ECHO_PACE", format!("{}s", pace.as_secs())),
        ("MUSTERBEAT_LEASE_TTL", format!("{}s", LEASE_TTL.as_secs())),
        // The chats of a round come from one caller at once.
        ("MUSTERBEAT_RATE_PER_SECOND", "1000000".to_owned()),
        ("MUSTERBEAT_RATE_BURST", "1000000".to_owned()),
    ]
}

/// Asks for an answer whose turn is the shorter, the later it is asked.
///
/// So the first turn still lasts when the last has begun, and answers do not end all at once.
fn question(round: u32, chat: u64, chats: u64, words_factor: u64) -> String {
    let words = words_factor * (WORDS_MAX - (WORDS_MAX - WORDS_MIN) * chat / chats);
    let mut text = format!("round-{round}-chat-{chat}");
    for word in 1..words {
        let _ = write!(text, " word-{word}");
    }
    text
}

/// Says what a live worker should not have met.
fn troubles(name: &str, samples: &Samples) -> Vec<String> {
    let counted = TROUBLES.map(|metric| (metric, samples.sum(metric, "")));
    let troubles = counted.into_iter().filter(|(_, count)| *count > 0.0);
    troubles.map(|(metric, count)| format!("{name} shows {metric} {count}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_turns_are_shorter() {
        let words = |chat| question(7, chat, 100, 1).split(' ').count() as u64;
        assert_eq!(
            (words(0), words(50), words(99)),
            (WORDS_MAX, WORDS_MAX.midpoint(WORDS_MIN), WORDS_MIN + 1)
        );
        assert!(question(7, 3, 100, 2).starts_with("round-7-chat-3 word-1 word-2"));
    }
}
