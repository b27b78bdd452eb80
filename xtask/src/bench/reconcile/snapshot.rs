//! What a look at all pools costs the server where many workspaces are, and nothing is to do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use musterbeat_testkit::TestDatabase;
use serde_json::json;
use sqlx::{PgConnection, Row};
use tokio::time::sleep;

use super::super::Output;
use super::super::calls;
use super::super::report::Section;
use super::super::stats::Summary;
use super::super::usage::Sessions;
use super::trips::Trips;
use super::watch::millis;
use super::way::{OURS, Way, Ways};
use super::{Load, stage};

/// Presets of active versions that have all they want: 10,000 prebuilds.
const LOAD: Load = Load { inactive: 0, active: 1_000, each: 10 };

/// Workspaces that people own.
const OWNED: u32 = 40_000;

const CYCLES: usize = 20;

/// What is asked for.
const TRIPS_MAX: f64 = 3.0;
const CLEAN_MAX_MS: f64 = 10.0;
const DIRTY_MAX_MS: f64 = 30.0;

/// How a session of the product's leader calls itself.
const LEADER: &str = "musterbeat prebuilds";

/// After so long a session is at rest, and the system has accounted for its time.
const CALM: Duration = Duration::from_millis(10);

/// What cycles cost.
#[derive(Clone, Debug, Default)]
struct Cost {
    /// Presets that were worked on, at most.
    presets: u64,
    cpu_ms: Vec<f64>,
    /// What the server says that its statements took.
    executed_ms: f64,
    statements: f64,
    cycle_ms: Vec<f64>,
}

/// The cost of one way.
struct Found {
    name: &'static str,
    trips: f64,
    clean: Cost,
    dirty: Cost,
}

/// Measures ours and the original's, after VACUUM and half dirty.
pub(super) async fn run(database: &TestDatabase) -> Result<Output> {
    let mut conn = database.connect().await?;
    calls::count(&mut conn).await?;
    stage::presets(&mut conn, LOAD).await?;
    stage::fleet(&mut conn, OWNED).await?;
    let trips = trips(database).await?;
    let ways = Ways::new(database, database.url(), LOAD).await?;
    let clean = costs(&mut conn, &ways.all).await?;
    stage::dirty(&mut conn).await?;
    let dirty = costs(&mut conn, &ways.all).await?;
    let names: Vec<_> = ways.all.iter().map(Way::name).collect();
    ways.end().await;
    let costs = names.into_iter().zip(trips).zip(clean.into_iter().zip(dirty));
    // Where there is nothing to do, no limit on it matters: two ways are left.
    let found = costs.map(|((name, trips), (clean, dirty))| Found { name, trips, clean, dirty });
    Ok(output(&found.take(2).collect::<Vec<_>>()))
}

/// Counts the round trips of a cycle of each way, after one that prepares the statements.
async fn trips(database: &TestDatabase) -> Result<Vec<f64>> {
    let trips = Trips::start(database.url()).await?;
    let ways = Ways::new(database, trips.url(), LOAD).await?;
    let mut found = Vec::new();
    for way in &ways.all {
        way.cycle().await?;
        sleep(CALM).await;
        let before = trips.count();
        way.cycle().await?;
        sleep(CALM).await;
        found.push(f64::from(u32::try_from(trips.count() - before)?));
    }
    ways.end().await;
    Ok(found)
}

/// Measures a few cycles of each way in turn, after one to warm up.
async fn costs(conn: &mut PgConnection, ways: &[Way]) -> Result<Vec<Cost>> {
    let mut costs = vec![Cost::default(); ways.len()];
    for way in ways {
        way.cycle().await?;
    }
    for _ in 0..CYCLES {
        for (way, cost) in ways.iter().zip(&mut costs) {
            let mut sessions = Sessions::named(conn, way.name()).await?;
            sessions.extend(Sessions::named(conn, LEADER).await?);
            sleep(CALM).await;
            let (executed, used) = (executed(conn).await?, sessions.used());
            let start = Instant::now();
            cost.presets = cost.presets.max(way.cycle().await?);
            cost.cycle_ms.push(millis(start.elapsed()));
            sleep(CALM).await;
            cost.cpu_ms.push(millis(sessions.used().saturating_sub(used)));
            let (calls, time) = self::executed(conn).await?;
            cost.statements = calls - executed.0;
            cost.executed_ms += time - executed.1;
        }
    }
    Ok(costs)
}

/// Returns how many statements this database has executed, and for how many milliseconds; but for
/// those that look on.
async fn executed(conn: &mut PgConnection) -> Result<(f64, f64)> {
    let query = r"
        select coalesce(sum(calls), 0)::float8, coalesce(sum(total_exec_time), 0)::float8
        from pg_stat_statements
        where dbid = (select oid from pg_database where datname = current_database())
          and query not like '%pg\_stat\_%'";
    let failed = "failed to ask the server for the time of its statements";
    let row = sqlx::query(query).fetch_one(conn).await.context(failed)?;
    Ok((row.try_get(0).context(failed)?, row.try_get(1).context(failed)?))
}

impl Cost {
    fn cpu(&self) -> Summary {
        Summary::of(&self.cpu_ms)
    }

    fn executed(&self) -> f64 {
        let cycles = u32::try_from(self.cpu_ms.len().max(1)).unwrap_or(u32::MAX);
        self.executed_ms / f64::from(cycles)
    }
}

fn output(found: &[Found]) -> Output {
    let nothing = f64::NAN;
    let row = |value: &dyn Fn(&Found) -> f64, most: f64| {
        found.iter().map(value).chain([most]).collect::<Vec<_>>()
    };
    let tasks = |found: &Found| f64::from(u32::try_from(found.clean.presets).unwrap_or(u32::MAX));
    let cycle = |cost: &Cost| Summary::of(&cost.cycle_ms).median;
    let rows = vec![
        ("round trips, tests of the pool among them", row(&|found| found.trips, TRIPS_MAX)),
        ("statements", row(&|found| found.clean.statements, nothing)),
        ("presets worked on", row(&tasks, nothing)),
        ("server CPU ms after VACUUM", row(&|found| found.clean.cpu().median, CLEAN_MAX_MS)),
        ("the same, lowest", row(&|found| found.clean.cpu().low, nothing)),
        ("the same, highest", row(&|found| found.clean.cpu().high, nothing)),
        ("ms of statements, as the server counts", row(&|found| found.clean.executed(), nothing)),
        ("ms until a cycle is done", row(&|found| cycle(&found.clean), nothing)),
        ("server CPU ms half dirty", row(&|found| found.dirty.cpu().median, DIRTY_MAX_MS)),
        ("the same half dirty, lowest", row(&|found| found.dirty.cpu().low, nothing)),
        ("the same half dirty, highest", row(&|found| found.dirty.cpu().high, nothing)),
        ("ms of statements half dirty", row(&|found| found.dirty.executed(), nothing)),
        ("ms until a cycle is done, half dirty", row(&|found| cycle(&found.dirty), nothing)),
    ];
    let names = found.iter().map(|found| found.name.to_owned());
    let section = Section {
        title: format!(
            "{} presets with {} prebuilds among {} workspaces, nothing to do, {CYCLES} cycles",
            LOAD.presets(),
            LOAD.wanted(),
            LOAD.wanted() + OWNED,
        ),
        columns: names.chain(["ours, at most".to_owned()]).collect(),
        rows,
    };
    let violations = found.iter().find(|found| found.name == OURS).map_or_else(Vec::new, missed);
    let json =
        json!({ "part": "snapshot", "sections": [section.json()], "violations": violations });
    Output { text: section.text(), json, svg: None, violations }
}

/// Returns in what ours is not as it is asked for.
fn missed(ours: &Found) -> Vec<String> {
    let bars = [
        ("round trips", ours.trips, TRIPS_MAX),
        ("ms of server CPU after VACUUM", ours.clean.cpu().median, CLEAN_MAX_MS),
        ("ms of server CPU half dirty", ours.dirty.cpu().median, DIRTY_MAX_MS),
    ];
    let over = bars.into_iter().filter(|(_, value, most)| most < value);
    over.map(|(what, value, most)| format!("a look takes {value:.1} {what}, over {most}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_its_bar_is_told() {
        let cost = |cpu| Cost { cpu_ms: vec![cpu], cycle_ms: vec![cpu], ..Cost::default() };
        let ours = |trips, clean, dirty| Found {
            name: OURS,
            trips,
            clean: cost(clean),
            dirty: cost(dirty),
        };
        assert!(missed(&ours(1.0, 10.0, 30.0)).is_empty());
        assert_eq!(
            missed(&ours(4.0, 9.0, 31.0)),
            [
                "a look takes 4.0 round trips, over 3",
                "a look takes 31.0 ms of server CPU half dirty, over 30"
            ]
        );
    }
}
