//! No change is missed in silence, whatever the network does.
//!
//! Each change has an id of its own, so that no later one can stand in for it. It must be named to
//! each watcher of it, or be covered by a resync that came after it was published.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use musterbeat_core::port::{Interest, Notice, Publish, Topic, Watch, Watcher};
use musterbeat_pubsub::{PgTransport, PgTransportOptions};
use musterbeat_testkit::{BlackHole, FaultProxy, TestDatabase};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

/// How long it goes on; a longer time can be asked for.
const SECONDS: u64 = 15;
const SECONDS_VARIABLE: &str = "MUSTERBEAT_TEST_TORTURE_SECONDS";

const SEED: u64 = 4;

/// Watchers at a time, each of its own changes; one after another in each place.
const PLACES: u64 = 30;

/// Changes that one watcher waits for, published about 300 a second by all together.
const CHANGES: usize = 10;
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Bound of the time from the last fault until everything is known.
const SETTLE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Tally {
    published: AtomicU64,
    named: AtomicU64,
    covered: AtomicU64,
    faults: AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_change_is_named_or_covered_while_the_network_breaks() {
    let database = TestDatabase::create().await.unwrap();
    let proxies = [
        Arc::new(FaultProxy::in_front_of(database.url()).await.unwrap()),
        Arc::new(FaultProxy::in_front_of(database.url()).await.unwrap()),
    ];
    let [publisher, watch] = proxies.each_ref().map(|proxy| {
        let options = PgTransportOptions {
            silence: Duration::from_millis(600),
            probe_timeout: Duration::from_millis(400),
            ..PgTransportOptions::default()
        };
        PgTransport::start(&proxy.url(database.url()).unwrap(), &options).unwrap()
    });
    let tally = Arc::new(Tally::default());
    let end = Instant::now() + Duration::from_secs(seconds());

    let mut watching = JoinSet::new();
    for place in 0..PLACES {
        let (publisher, watch) = (publisher.clone(), watch.clone());
        let (tally, mut rng) = (Arc::clone(&tally), StdRng::seed_from_u64(SEED + place));
        watching.spawn(async move {
            while Instant::now() < end {
                come_and_go(&publisher, &watch, &tally, &mut rng, end).await;
            }
        });
    }
    let mut breaking = JoinSet::new();
    for (number, proxy) in (0..).zip(&proxies) {
        let rng = StdRng::seed_from_u64(SEED + 1_000 + number);
        let conn = database.connect().await.unwrap();
        breaking.spawn(torment(Arc::clone(proxy), conn, Arc::clone(&tally), rng, end));
    }
    while let Some(ended) = breaking.join_next().await {
        ended.unwrap();
    }
    while let Some(ended) = watching.join_next().await {
        ended.unwrap();
    }
    eprintln!("{tally:?}");
    for count in [&tally.published, &tally.named, &tally.covered, &tally.faults] {
        assert!(count.load(Ordering::SeqCst) > 0, "{tally:?} proves nothing");
    }
}

fn seconds() -> u64 {
    let asked = std::env::var(SECONDS_VARIABLE).ok();
    asked.map_or(SECONDS, |asked| asked.parse().expect("a whole number of seconds"))
}

/// Watches some ids, has them changed, and waits until it knows of each change.
async fn come_and_go(
    publisher: &PgTransport,
    watch: &PgTransport,
    tally: &Tally,
    rng: &mut StdRng,
    end: Instant,
) {
    let changes: Vec<_> = (0..CHANGES).map(|_| Uuid::from_u128(rng.random())).collect();
    let interest = if rng.random_bool(0.2) {
        Interest::All
    } else {
        Interest::Ids(changes.iter().copied().collect())
    };
    let topic = if rng.random_bool(0.5) { Topic::Chat } else { Topic::Token };
    let mut watcher = watch.watch(topic, interest).await.unwrap();

    let mut unknown = BTreeMap::new();
    for change in changes {
        unknown.insert(change, Instant::now());
        publisher.publish(topic, change);
        tally.published.fetch_add(1, Ordering::SeqCst);
        let until = Instant::now() + PAUSE_MAX.mul_f64(rng.random());
        let _ = tokio::time::timeout_at(until, learn_all(&mut *watcher, &mut unknown, tally)).await;
        tokio::time::sleep_until(until).await;
    }
    // Some leave before they know; whoever stays must learn of everything.
    if Instant::now() < end && rng.random_bool(0.2) {
        return;
    }
    let patience = end.saturating_duration_since(Instant::now()) + SETTLE;
    let learnt = timeout(patience, learn_all(&mut *watcher, &mut unknown, tally)).await;
    assert!(learnt.is_ok(), "{} changes were missed in silence: {unknown:?}", unknown.len());
}

async fn learn_all(
    watcher: &mut dyn Watcher,
    unknown: &mut BTreeMap<Uuid, Instant>,
    tally: &Tally,
) {
    while !unknown.is_empty() {
        let before = unknown.len();
        let count = match watcher.recv().await {
            Notice::Changed(ids) => {
                unknown.retain(|id, _| !ids.contains(id));
                &tally.named
            }
            // Whoever reads everything now sees what was committed before.
            Notice::Resync(_) => {
                unknown.clear();
                &tally.covered
            }
        };
        count.fetch_add((before - unknown.len()) as u64, Ordering::SeqCst);
    }
}

/// Breaks the network each 0.2 to 1.2 s, in one way or another.
async fn torment(
    proxy: Arc<FaultProxy>,
    mut conn: sqlx::PgConnection,
    tally: Arc<Tally>,
    mut rng: StdRng,
    end: Instant,
) {
    while Instant::now() < end {
        let pause = Duration::from_millis(rng.random_range(200..1_200));
        sleep(pause).await;
        match rng.random_range(0..6) {
            0 => kill(&mut conn).await,
            1 => proxy.reset(),
            2 => proxy.cut(),
            3 => stall(&proxy, BlackHole::Both, &mut rng).await,
            4 => stall(&proxy, BlackHole::ToClient, &mut rng).await,
            _ => {
                proxy.black_hole(BlackHole::ToServer);
                sleep(Duration::from_millis(rng.random_range(10..300))).await;
                // What waited is lost with its connection.
                proxy.reset();
                proxy.heal();
            }
        }
        tally.faults.fetch_add(1, Ordering::SeqCst);
    }
    proxy.heal();
}

async fn stall(proxy: &FaultProxy, way: BlackHole, rng: &mut StdRng) {
    proxy.black_hole(way);
    // Sometimes shorter and sometimes longer than it takes to notice.
    sleep(Duration::from_millis(rng.random_range(50..1_500))).await;
    proxy.heal();
}

async fn kill(conn: &mut sqlx::PgConnection) {
    let query = "
        select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()
          and application_name like 'musterbeat%'";
    sqlx::query(query).execute(conn).await.unwrap();
}
