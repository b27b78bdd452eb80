//! Families: parents that have two children each work for them, on three replicas.
//!
//! Once with a model that answers at once, and nobody dies: what a turn costs. Then with children
//! that think for 15 to 30 s; one replica is killed while many of its parents wait, and is not
//! started again.

use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use musterbeat_testkit::TestDatabase;
use serde_json::json;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::super::Output;
use super::super::meter::{Counts, Meter};
use super::super::replica::{Replica, Site};
use super::super::report::Section;
use super::chart::{self, Moment, Timeline};
use super::check::violations;
use super::ledger::{Ledger, Standing};
use super::statements::{Cost, Doing, Statements};
use super::story::{Story, Tale, Thought, question};
use super::{float, start};

const REPLICAS: usize = 3;

/// How long children think in the round with a kill: so long that all families have begun before
/// half of them end.
const THOUGHT: Thought = Thought { least: Duration::from_secs(15), most: Duration::from_secs(30) };

/// Nothing here takes longer on a machine that can be measured on, for so many families.
const PATIENCE: Duration = Duration::from_mins(5);
const PATIENCE_FAMILIES: u64 = 1_000;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// Turns of a family, and calls of the model when none is made twice.
const TURNS: u64 = 3;
const CALLS: u64 = 5;

/// A round.
#[derive(Clone, Debug, Default)]
struct Round {
    families: u64,
    seconds: f64,
    tale: Tale,
    counts: Counts,
    statements: Statements,
    retries: f64,
    /// Runs that were claimed more than once.
    handed: u64,
    kill: Option<Kill>,
    timeline: Timeline,
    violations: Vec<String>,
}

/// What stood at the kill.
#[derive(Clone, Copy, Debug, Default)]
struct Kill {
    seconds: f64,
    /// When the lease was seen dead.
    marked: f64,
    /// Parents that waited, and that waited on the replica that was killed.
    waiting: f64,
    waiting_there: f64,
    /// Runs that it owned.
    owned: f64,
    unanswered: u64,
}

/// Measures both rounds.
pub(super) async fn run(database: &TestDatabase, site: &Site, families: u64) -> Result<Output> {
    let story = Story::start().await?;
    let mut replicas = Vec::new();
    for number in 1..=REPLICAS {
        replicas.push(start(site, &format!("agents-{number}"), story.url()).await?);
    }
    let mut stage = Stage {
        story,
        ledger: Ledger::new(database.connect().await?),
        meter: Meter::connect(database).await?,
        replicas,
    };
    // Plans, connections and caches warm up.
    stage.round(families.min(50), false).await?;
    let calm = stage.round(families, false).await?;
    let killed = stage.round(families, true).await?;
    killed.statements.say_unknown();
    output(&calm, &killed)
}

/// The replicas, and what watches them.
struct Stage {
    story: Story,
    ledger: Ledger,
    meter: Meter,
    replicas: Vec<Replica>,
}

impl Stage {
    /// Asks for so many families, and waits until all are at rest.
    async fn round(&mut self, families: u64, kills: bool) -> Result<Round> {
        let bar = progress(families, if kills { "one is killed" } else { "nobody dies" });
        self.story.think(if kills { THOUGHT } else { Thought::default() });
        let retries_before = self.retries(usize::from(kills)).await?;
        let tale_before = self.story.told();
        let meter_before = self.meter.start().await?;
        let statements_before = Statements::read(self.ledger.conn()).await?;
        let begun = Instant::now();

        // Not by the one that is killed: its callers would learn of it.
        let asker = self.replicas.last().context("there is a replica")?.asker();
        let parents = asker.ask_all(families, question).await?;
        let mut round = Round { families, ..Round::default() };
        self.watch(&parents, begun, kills, &bar, &mut round).await?;
        round.seconds = begun.elapsed().as_secs_f64();
        bar.finish_and_clear();

        let statements = Statements::read(self.ledger.conn()).await?;
        round.statements = statements.since(&statements_before);
        // The server may have removed the WAL of a long round: then it is left out.
        round.counts = self.meter.since(meter_before).await.unwrap_or_default();
        round.tale = self.story.told().since(tale_before);
        round.retries = self.retries(0).await? - retries_before;
        let members = self.ledger.members(&parents).await?;
        round.handed = members.iter().filter(|member| 1 < member.fence).count() as u64;
        round.violations.extend(violations(&parents, &members));
        if round.tale.others > 0 {
            let others = round.tale.others;
            round.violations.push(format!("the model was asked {others} times what it knows not"));
        }
        Ok(round)
    }

    /// Looks until all families are at rest, and kills a replica on the way.
    async fn watch(
        &mut self,
        parents: &[Uuid],
        begun: Instant,
        kills: bool,
        bar: &ProgressBar,
        round: &mut Round,
    ) -> Result<()> {
        let count = parents.len() as u64;
        let patience = PATIENCE * u32::try_from(count.div_ceil(PATIENCE_FAMILIES))?;
        let mut dead: Option<String> = None;
        loop {
            let standing = self.ledger.standing(parents).await?;
            let (waiting, there) = self.waiting().await?;
            let seconds = begun.elapsed().as_secs_f64();
            let at_rest = standing.parents_at_rest;
            round.timeline.moments.push(Moment { seconds, at_rest: float(at_rest), waiting });
            bar.set_position(at_rest);
            bar.set_message(format!("{waiting} parents wait"));
            if standing.busy == 0 {
                break;
            }
            if patience < begun.elapsed() {
                let stuck = format!("not all families came to rest in {patience:?}: {standing:?}");
                round.violations.push(stuck);
                break;
            }
            if kills && round.kill.is_none() && is_time(count, standing, waiting, there) {
                let (kill, name) = self.kill(count - at_rest, begun).await?;
                round.kill = Some(kill);
                dead = Some(name);
            }
            if let (Some(kill), Some(name)) = (&mut round.kill, &dead)
                && self.ledger.is_dead(name).await?
            {
                kill.marked = begun.elapsed().as_secs_f64();
                dead = None;
            }
            sleep(LOOK).await;
        }
        if kills && round.kill.is_none() {
            round.violations.push("nobody was killed: parents did not wait for long enough".into());
        }
        Ok(())
    }

    async fn kill(&mut self, unanswered: u64, begun: Instant) -> Result<(Kill, String)> {
        let victim = &mut self.replicas[0];
        let samples = victim.metrics().await?;
        let (waiting, waiting_there) = self.waiting().await?;
        let owned = samples.sum("musterbeat_runs_owned", "kind=\"chat\"");
        let mut victim = self.replicas.remove(0);
        victim.kill()?;
        let seconds = begun.elapsed().as_secs_f64();
        let kill = Kill { seconds, marked: 0.0, waiting, waiting_there, owned, unanswered };
        Ok((kill, victim.name().to_owned()))
    }

    /// Returns how many parents wait, and how many of them on the first replica.
    async fn waiting(&self) -> Result<(f64, f64)> {
        let (mut all, mut first) = (0.0, None);
        for replica in &self.replicas {
            let here = replica.metrics().await?.sum("musterbeat_runs_waiting", "kind=\"chat\"");
            first.get_or_insert(here);
            all += here;
        }
        Ok((all, first.unwrap_or(0.0)))
    }

    /// Returns how often all replicas but the first few asked a model again.
    async fn retries(&self, skipped: usize) -> Result<f64> {
        let mut retries = 0.0;
        for replica in self.replicas.iter().skip(skipped) {
            retries += replica.metrics().await?.sum("musterbeat_model_retries_total", "");
        }
        Ok(retries)
    }
}

/// Says whether a quarter has answered, half has not, and many of them wait on the victim.
fn is_time(families: u64, standing: Standing, waiting: f64, there: f64) -> bool {
    let at_rest = standing.parents_at_rest;
    let many = float(families) / 20.0;
    families <= 4 * at_rest && at_rest <= families / 2 && many <= there && 2.0 * many <= waiting
}

fn progress(families: u64, round: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{bar:30} {pos}/{len} families at rest {elapsed} {prefix}: {msg}",
    )
    .expect("the template is a constant that parses");
    let bar = ProgressBar::new(families).with_style(style).with_prefix(round);
    bar.enable_steady_tick(LOOK);
    bar
}

impl Round {
    fn turns(&self) -> f64 {
        float(self.families * TURNS)
    }

    /// Returns its numbers, each with its name; none where it has no kill.
    fn numbers(&self) -> Vec<(&'static str, f64)> {
        let Cost { calls: of_turns, .. } = self.statements.of(Doing::Turn);
        let Cost { calls: shared, .. } = self.statements.of(Doing::Shared);
        let Cost { calls: idle, .. } = self.statements.of(Doing::Idle);
        let counted = |name| {
            let count = self.counts.0.iter().find(|(other, _)| *other == name);
            count.map_or(f64::NAN, |(_, count)| float(*count))
        };
        let of_kill = |of: fn(&Kill) -> f64| self.kill.as_ref().map_or(f64::NAN, of);
        let families = float(self.families);
        vec![
            ("turns", self.turns()),
            ("calls of the model", float(self.tale.calls())),
            ("calls of the model made again", float(self.tale.calls()) - families * float(CALLS)),
            ("waits that timed out", float(self.tale.again)),
            ("retries after an error of the model", self.retries),
            ("statements of turns, a turn", float(of_turns) / self.turns()),
            ("statements shared by turns, a turn", float(shared) / self.turns()),
            ("statements of idle replicas, a second", float(idle) / self.seconds),
            ("commits a turn", counted("commits") / self.turns()),
            ("WAL bytes a turn", counted("WAL bytes") / self.turns()),
            ("parents that waited at the kill", of_kill(|kill| kill.waiting)),
            ("of these on the killed replica", of_kill(|kill| kill.waiting_there)),
            ("chats that it owned", of_kill(|kill| kill.owned)),
            ("parents unanswered at the kill", of_kill(|kill| float(kill.unanswered))),
            ("chats that changed hands", float(self.handed)),
            ("seconds from the kill until it was marked dead", of_kill(|k| k.marked - k.seconds)),
            ("seconds until all were at rest", self.seconds),
            ("families a second", families / self.seconds),
        ]
    }

    /// Returns how many statements of each kind there were a turn.
    fn kinds(&self, doing: Doing, kind: &'static str) -> f64 {
        let cost = self.statements.kinds().get(&(doing, kind)).copied().unwrap_or_default();
        float(cost.calls) / self.turns()
    }
}

fn output(calm: &Round, killed: &Round) -> Result<Output> {
    let columns = || ["nobody dies", "one is killed"].map(str::to_owned).to_vec();
    let numbers = calm.numbers().into_iter().zip(killed.numbers());
    let numbers = Section {
        title: format!("{} families, {REPLICAS} replicas", calm.families),
        columns: columns(),
        rows: numbers.map(|((name, one), (_, other))| (name, vec![one, other])).collect(),
    };
    let mut kinds: Vec<_> = calm.statements.kinds().into_keys().collect();
    kinds.extend(killed.statements.kinds().into_keys());
    kinds.sort_unstable();
    kinds.dedup();
    let kinds = kinds.into_iter().filter(|(doing, _)| *doing != Doing::Idle);
    let rows =
        kinds.map(|(doing, kind)| (kind, vec![calm.kinds(doing, kind), killed.kinds(doing, kind)]));
    let rows = rows.collect();
    let kinds = Section { title: "statements a turn".to_owned(), columns: columns(), rows };
    let named = [("nobody dies", calm), ("one is killed", killed)];
    let violations: Vec<String> = named
        .iter()
        .flat_map(|(name, round)| {
            round.violations.iter().map(move |what| format!("{name}: {what}"))
        })
        .collect();
    let json = json!({
        "part": "families",
        "families": calm.families,
        "sections": [numbers.json(), kinds.json()],
        "violations": violations,
    });
    let timeline = killed.kill.map(|kill| Timeline {
        killed: kill.seconds,
        marked: kill.marked,
        ..killed.timeline.clone()
    });
    let svg = timeline.map(|timeline| chart::svg(&timeline, killed.families)).transpose()?;
    let svg = svg.map(|svg| ("agents-families".to_owned(), svg));
    Ok(Output { text: format!("{}{}", numbers.text(), kinds.text()), json, svg, violations })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_is_killed_while_many_wait_and_half_have_no_answer() {
        let standing = |parents_at_rest| Standing { parents_at_rest, ..Standing::default() };
        assert!(is_time(1_000, standing(250), 100.0, 50.0));
        assert!(is_time(1_000, standing(500), 100.0, 50.0));
        assert!(!is_time(1_000, standing(249), 100.0, 50.0));
        assert!(!is_time(1_000, standing(501), 100.0, 50.0));
        assert!(!is_time(1_000, standing(300), 99.0, 50.0));
        assert!(!is_time(1_000, standing(300), 100.0, 49.0));
    }

    #[test]
    fn what_is_wrong_in_either_round_is_a_violation() {
        let round = |violations: &[&str]| Round {
            families: 10,
            seconds: 2.0,
            violations: violations.iter().map(ToString::to_string).collect(),
            ..Round::default()
        };
        let found = output(&round(&[]), &round(&["a parent is gone"])).unwrap();
        assert_eq!(found.violations, ["one is killed: a parent is gone"]);
        let found = output(&round(&["x"]), &round(&[])).unwrap();
        assert_eq!(found.violations, ["nobody dies: x"]);
        assert!(found.text.contains("families a second"), "{}", found.text);
        assert!(found.svg.is_none());
    }
}
