//! What befalls replicas, their network and their database.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use musterbeat_testkit::{BlackHole, FaultProxy, crash};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, held};
use crate::replica::{LEASE, Replica};
use crate::users::Town;

/// How long a replica may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long a crowd asks before a replica drains: its chats have a next turn by then.
const CROWD_TIME: Duration = Duration::from_millis(600);

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// SIGKILL, and a new replica in its place.
    Kill,
    /// SIGSTOP for longer than its lease lasts, then SIGCONT.
    Freeze,
    /// SIGTERM, and a new replica in its place.
    Drain,
    /// Connections to the database are closed or reset.
    Cut,
    /// Nothing reaches the database, or nothing comes from it, or neither.
    Stall,
    /// No new connection to the database.
    Refuse,
    /// The database crashes and recovers.
    Restart,
}

impl Fault {
    /// What can befall one replica.
    const OF_A_REPLICA: [Self; 6] =
        [Self::Kill, Self::Freeze, Self::Drain, Self::Cut, Self::Stall, Self::Refuse];
}

/// How often each fault was made.
pub(crate) type Counts = Arc<Mutex<BTreeMap<Fault, u64>>>;

/// A place for a replica, with a network of its own to the database.
pub(crate) struct Place {
    number: usize,
    api: Api,
    proxy: FaultProxy,
    url: String,
    replica: Option<Replica>,
}

impl Place {
    /// Starts a replica on `database`.
    pub(crate) async fn open(number: usize, database: &str, api: &Api) -> Self {
        let proxy = FaultProxy::in_front_of(database).await.unwrap();
        let url = proxy.url(database).unwrap();
        let mut place = Self { number, api: api.clone(), proxy, url, replica: None };
        place.occupy().await;
        place
    }

    /// Starts a replica; again, when the database is away.
    async fn occupy(&mut self) {
        for _ in 0..100 {
            let url = self.url.clone();
            let started = spawn_blocking(move || Replica::start(&url)).await.unwrap();
            if let Some(replica) = started {
                self.api.moved(self.number, &replica.url);
                self.replica = Some(replica);
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
        panic!("no replica starts");
    }

    /// Suffers until the end, and is whole then.
    pub(crate) async fn suffer(
        mut self,
        town: Arc<Town>,
        mut rng: StdRng,
        counts: Counts,
        end: CancellationToken,
    ) -> Self {
        loop {
            let pause = Duration::from_millis(rng.random_range(1_500..7_000));
            tokio::select! {
                () = end.cancelled() => break,
                () = sleep(pause) => {}
            }
            let fault = least(&mut rng, &counts, &Fault::OF_A_REPLICA);
            let crowd = (fault == Fault::Drain).then(|| {
                let crowd = town.clone().crowd(StdRng::seed_from_u64(rng.random()));
                tokio::spawn(crowd)
            });
            self.bear(&mut rng, fault).await;
            if let Some(crowd) = crowd {
                crowd.await.unwrap();
            }
            count(&counts, fault);
        }
        self.proxy.heal();
        if self.replica.as_mut().is_none_or(Replica::has_ended) {
            self.occupy().await;
        }
        self
    }

    async fn bear(&mut self, rng: &mut StdRng, fault: Fault) {
        match fault {
            Fault::Kill => {
                self.replica = None;
                self.occupy().await;
            }
            Fault::Freeze => {
                let replica = self.replica.as_ref().unwrap();
                replica.signal(Signal::SIGSTOP);
                sleep(LEASE.mul_f64(rng.random_range(1.15..1.7))).await;
                replica.signal(Signal::SIGCONT);
            }
            Fault::Drain => self.drain().await,
            Fault::Cut if rng.random_bool(0.5) => self.proxy.cut(),
            Fault::Cut => self.proxy.reset(),
            Fault::Stall => {
                let ways = [BlackHole::Both, BlackHole::ToServer, BlackHole::ToClient];
                self.proxy.black_hole(ways[rng.random_range(0..ways.len())]);
                sleep(Duration::from_millis(rng.random_range(100..4_500))).await;
                // What waited is lost, or arrives.
                if rng.random_bool(0.5) {
                    self.proxy.reset();
                }
                self.proxy.heal();
            }
            Fault::Refuse => {
                self.proxy.refuse();
                self.proxy.reset();
                sleep(Duration::from_millis(rng.random_range(100..3_000))).await;
                self.proxy.heal();
            }
            Fault::Restart => unreachable!("the database is not one replica's"),
        }
    }

    /// Ends a replica in good order, while a crowd asks.
    async fn drain(&mut self) {
        sleep(CROWD_TIME).await;
        let mut leaving = self.replica.take().unwrap();
        leaving.signal(Signal::SIGTERM);
        let deadline = Instant::now() + PATIENCE;
        while !leaving.has_ended() {
            assert!(Instant::now() < deadline, "a replica that was asked to end does not");
            sleep(Duration::from_millis(20)).await;
        }
        self.occupy().await;
    }
}

/// Crashes the database again and again, `pause` apart on average.
pub(crate) async fn crash_often(
    database: String,
    pause: Duration,
    mut rng: StdRng,
    counts: Counts,
    end: CancellationToken,
) {
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = sleep(pause.mul_f64(rng.random_range(0.5..1.5))) => {}
        }
        // It may still recover from the last one.
        if crash(&database).await.is_ok() {
            count(&counts, Fault::Restart);
        }
    }
}

/// Chooses one of those that were made least.
fn least(rng: &mut StdRng, counts: &Counts, among: &[Fault]) -> Fault {
    let counts = held(counts);
    let often = |fault: &Fault| {
        let count = counts.get(fault).copied().unwrap_or(0);
        // Few of a replica's turns end while it drains.
        if *fault == Fault::Drain { count / 3 } else { count }
    };
    let fewest = among.iter().map(often).min().unwrap_or(0);
    let seldom: Vec<Fault> =
        among.iter().copied().filter(|fault| often(fault) <= fewest + 2).collect();
    seldom[rng.random_range(0..seldom.len())]
}

fn count(counts: &Counts, fault: Fault) {
    *held(counts).entry(fault).or_default() += 1;
}
