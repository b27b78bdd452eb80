//! The loop, with mocked storage, under paused time.

mod fleet;
mod lookout;
mod ownership;
mod storage;
mod waiting;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use musterbeat_core::id::{Fence, OwnerId, RunId, Step};
use musterbeat_core::port::{
    BeatAnswer, MockBeatStore, MockLeaseStore, MockPublish, MockRunStore, MockWatch, Notice,
    Requeued, RunContext, StoreError, Watcher, WriteError,
};
use musterbeat_core::roster::RollEntry;
use musterbeat_core::run::{Outcome, Run, RunEnd, RunKind, Token};
use tokio::sync::Notify;
use uuid::Uuid;

use super::*;
use crate::clock::RuntimeClock;
use storage::{Lagging, Storage, queue};

/// What happened, in order, with the time since the start in milliseconds.
#[derive(Clone)]
struct Diary {
    began: Instant,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Diary {
    fn new() -> Self {
        Self { began: Instant::now(), lines: Arc::default() }
    }

    fn note(&self, what: impl std::fmt::Display) {
        self.lines.lock().unwrap().push(format!("{what}"));
    }

    fn elapsed(&self) -> u128 {
        self.began.elapsed().as_millis()
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

/// How a runner goes about its runs.
#[derive(Clone, Copy)]
enum Manner {
    /// It stops when it is told to.
    Obedient,
    /// It goes on whatever it is told.
    Deaf,
    /// It returns a run that nobody asked back.
    Fickle,
    /// It stops when it is told to, and takes a second to leave.
    Slow,
    Panicking,
}

/// A runner that takes a given time for each run.
struct Paced {
    time: Duration,
    manner: Manner,
    diary: Diary,
}

#[async_trait]
impl Runner for Paced {
    fn kind(&self) -> RunKind {
        RunKind::new("paced").unwrap()
    }

    async fn run(&self, run: Run, context: Arc<dyn RunContext>) -> Outcome {
        match self.manner {
            Manner::Obedient => {}
            Manner::Slow => {
                self.diary.note(format!("{} began", number(run.id)));
                let cause = context.stopped().await;
                self.diary.note(format!("{} stopped: {}", number(run.id), cause.as_str()));
                sleep(Duration::from_secs(1)).await;
                self.diary.note(format!("{} left", number(run.id)));
                return Outcome::Stopped;
            }
            Manner::Deaf => {
                sleep(self.time).await;
                return Outcome::Done;
            }
            Manner::Fickle => return Outcome::Stopped,
            Manner::Panicking => panic!("as planned"),
        }
        tokio::select! {
            cause = context.stopped() => {
                let (run, now) = (number(run.id), self.diary.elapsed());
                self.diary.note(format!("{run} stopped: {} at {now} ms", cause.as_str()));
                Outcome::Stopped
            }
            () = sleep(self.time) => Outcome::Done,
        }
    }
}

struct Bell(Arc<Notify>);

#[async_trait]
impl Watcher for Bell {
    async fn recv(&mut self) -> Notice {
        self.0.notified().await;
        Notice::Changed([Uuid::nil()].into())
    }
}

/// A worker of one kind, over storage that plays back what each claim answers.
struct Bench {
    diary: Diary,
    bell: Arc<Notify>,
    shutdown: Shutdown,
    answers: Arc<Mutex<VecDeque<Result<u128, StoreError>>>>,
    finish_failures: Arc<Mutex<u32>>,
    storage: Arc<Storage>,
    capacity: usize,
    time: Duration,
    manner: Manner,
}

impl Bench {
    /// Each answer is how many runs a claim returns at most; later claims return none.
    fn new(answers: impl IntoIterator<Item = Result<u128, StoreError>>) -> Self {
        Self {
            diary: Diary::new(),
            bell: Arc::default(),
            shutdown: Shutdown::default(),
            answers: Arc::new(Mutex::new(answers.into_iter().collect())),
            finish_failures: Arc::default(),
            storage: Arc::default(),
            capacity: 10,
            time: Duration::from_millis(100),
            manner: Manner::Obedient,
        }
    }

    fn serving(&self) -> Vec<Serving> {
        let paced = Paced { time: self.time, manner: self.manner, diary: self.diary.clone() };
        vec![Serving { runner: Arc::new(paced), capacity: self.capacity }]
    }

    fn ports(&self) -> Ports {
        let storage = &self.storage;
        Ports {
            leases: Arc::new(self.leases()),
            beats: Arc::new(Lagging {
                inner: Arc::new(self.beats()),
                storage: Arc::clone(storage),
            }),
            runs: Arc::new(Lagging { inner: Arc::new(self.runs()), storage: Arc::clone(storage) }),
            queue: Arc::new(queue()),
            publish: Arc::new(self.publish()),
            watch: Arc::new(self.watch()),
            clock: Arc::new(RuntimeClock::new()),
        }
    }

    fn worker(&self) -> Worker {
        let lease = Lease {
            worker: WorkerId::new(Uuid::from_u128(1)),
            name: "test".to_owned(),
            advertise_url: None,
            release: "0".to_owned(),
            capacity: 10,
        };
        let options = WorkerOptions { claim_batch: 4, ..WorkerOptions::new(lease) };
        let parts = PartStreams::default();
        Worker::new(self.ports(), self.serving(), parts, options, self.shutdown.clone())
    }

    fn leases(&self) -> MockLeaseStore {
        let mut leases = MockLeaseStore::new();
        let (diary, storage) = (self.diary.clone(), Arc::clone(&self.storage));
        leases.expect_register().returning(move |_| {
            storage.there()?;
            diary.note("registered");
            Ok(())
        });
        let (diary, storage) = (self.diary.clone(), Arc::clone(&self.storage));
        leases.expect_resign().returning(move |_| {
            storage.there()?;
            storage.table().clear();
            diary.note("resigned");
            Ok(vec![run_id(99)])
        });
        let diary = self.diary.clone();
        let mut left = 2;
        leases.expect_requeue().returning(move |_| {
            diary.note("requeued a batch");
            left -= i32::from(left > 0);
            let kind = RunKind::new("paced").unwrap();
            let owner = OwnerId::new(Uuid::nil());
            let requeued = Requeued { run: run_id(77), kind, owner, pending: true };
            Ok((0..left).map(|_| requeued.clone()).collect())
        });
        let diary = self.diary.clone();
        leases.expect_forget().returning(move || {
            diary.note("forgot the dead");
            Ok(1)
        });
        leases.expect_adopt().returning(|| Ok(0));
        leases
    }

    fn beats(&self) -> MockBeatStore {
        let mut beats = MockBeatStore::new();
        let storage = Arc::clone(&self.storage);
        beats.expect_beat().returning(move |_| {
            storage.there()?;
            let entry = |(run, (fence, stop)): (&RunId, &(Fence, bool))| RollEntry {
                run: *run,
                fence: *fence,
                stop: *stop,
            };
            let roll = storage.table().iter().map(entry).collect();
            let alive = !storage.marked.load(Ordering::Relaxed);
            Ok(BeatAnswer { alive, roll, leases: storage.others() })
        });
        let storage = Arc::clone(&self.storage);
        beats.expect_look().returning(move |_| {
            storage.there()?;
            Ok(storage.others())
        });
        let (diary, storage) = (self.diary.clone(), Arc::clone(&self.storage));
        beats.expect_mark().returning(move |overdue, _| {
            diary.note(format!("marked {} at {} ms", overdue.len(), diary.elapsed()));
            storage.others.lock().unwrap().clear();
            Ok(overdue.iter().map(|overdue| overdue.worker).collect())
        });
        beats
    }

    fn runs(&self) -> MockRunStore {
        let mut runs = MockRunStore::new();
        let (answers, diary) = (Arc::clone(&self.answers), self.diary.clone());
        let (storage, next) = (Arc::clone(&self.storage), Mutex::new(0_u128));
        runs.expect_claim().returning(move |worker, kind, room| {
            let answer = answers.lock().unwrap().pop_front().unwrap_or(Ok(0))?;
            storage.there()?;
            let count = answer.min(room.runs.into());
            diary.note(format!("claimed {count} of {} at {} ms", room.runs, diary.elapsed()));
            let mut next = next.lock().unwrap();
            let first = storage.claim_from.lock().unwrap().take().unwrap_or(*next);
            let claimed: Vec<_> = (first..first + count)
                .map(|id| Run { token: storage.claimed(id, worker), ..run(id, worker, kind) })
                .collect();
            *next = first + count;
            Ok(claimed)
        });
        runs.expect_next_ready().returning(|_| Ok(None));
        let (diary, failures) = (self.diary.clone(), Arc::clone(&self.finish_failures));
        let storage = Arc::clone(&self.storage);
        runs.expect_finish().returning(move |run, end| {
            let mut failures = failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return Err(WriteError::Store(unavailable()));
            }
            storage.there()?;
            if let RunEnd::Failed(error) = end {
                diary.note(format!("{} failed: {error}", number(run.id)));
            }
            storage.table().remove(&run.id);
            Ok(())
        });
        let (diary, storage) = (self.diary.clone(), Arc::clone(&self.storage));
        runs.expect_release().returning(move |_, runs, pause| {
            storage.there()?;
            if pause > Duration::ZERO {
                assert!((1.0..=2.0).contains(&pause.as_secs_f64()), "{pause:?}");
                diary.note("given back with a pause");
            }
            let mut table = storage.table();
            let of_mine = runs.iter().filter(|(run, _)| table.remove(run).is_some());
            Ok(of_mine.map(|(run, _)| *run).collect())
        });
        runs
    }

    fn publish(&self) -> MockPublish {
        let mut publish = MockPublish::new();
        let diary = self.diary.clone();
        publish.expect_publish().returning(move |topic, id| {
            if topic != Topic::Claimed {
                diary.note(format!("{} {} published", topic.as_str(), id.as_u128()));
            }
        });
        publish
    }

    fn watch(&self) -> MockWatch {
        let mut watch = MockWatch::new();
        let bell = Arc::clone(&self.bell);
        watch.expect_watch().returning(move |topic, _| {
            let rung = topic == Topic::Pending;
            Ok(Box::new(Bell(if rung { Arc::clone(&bell) } else { Arc::default() })))
        });
        watch.expect_is_confirmed().return_const(false);
        watch
    }

    /// Runs the worker for `time`, then asks for its end, and returns the diary from its first
    /// claim on.
    async fn run_for(&self, time: Duration) -> Vec<String> {
        let worker = tokio::spawn(self.worker().run());
        sleep(time).await;
        self.shutdown.request();
        worker.await.unwrap();
        let lines = self.diary.lines();
        assert_eq!(lines[0], "registered");
        lines[1..].to_vec()
    }
}

#[tokio::test(start_paused = true)]
async fn claims_until_the_answer_is_short_and_then_polls() {
    let lines = Bench::new([Ok(4), Ok(4), Ok(1)]).run_for(Duration::from_millis(1_500)).await;
    assert_eq!(
        lines,
        [
            "claimed 4 of 4 at 0 ms",
            "claimed 4 of 4 at 0 ms",
            "claimed 1 of 2 at 0 ms",
            "claimed 0 of 4 at 1000 ms",
            "resigned",
            "pending 99 published",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn full_worker_claims_again_as_soon_as_a_run_ends() {
    let mut bench = Bench::new([Ok(2), Ok(2), Ok(0)]);
    bench.capacity = 2;
    let lines = bench.run_for(Duration::from_millis(500)).await;
    assert_eq!(lines[..2], ["claimed 2 of 2 at 0 ms", "claimed 2 of 2 at 100 ms"]);
}

#[tokio::test(start_paused = true)]
async fn notice_leads_to_a_claim_before_the_poll() {
    let bench = Bench::new([Ok(0), Ok(1)]);
    let bell = Arc::clone(&bench.bell);
    tokio::spawn(async move {
        sleep(Duration::from_millis(300)).await;
        bell.notify_one();
    });
    let lines = bench.run_for(Duration::from_millis(500)).await;
    assert_eq!(lines[..2], ["claimed 0 of 4 at 0 ms", "claimed 1 of 4 at 300 ms"]);
}

#[tokio::test(start_paused = true)]
async fn failed_claim_is_tried_again() {
    let bench = Bench::new([Err(unavailable()), Err(unavailable()), Ok(1)]);
    let lines = bench.run_for(Duration::from_millis(900)).await;
    assert!(lines[0].starts_with("claimed 1 of 4"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn panic_of_a_runner_ends_its_run_only() {
    let mut bench = Bench::new([Ok(1), Ok(0), Ok(1)]);
    bench.manner = Manner::Panicking;
    let lines = bench.run_for(Duration::from_millis(1_500)).await;
    assert_eq!(
        lines[..4],
        [
            "claimed 1 of 4 at 0 ms",
            "0 failed: the runner panicked: as planned",
            "claimed 0 of 4 at 1000 ms",
            "resigned",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn end_of_a_run_is_written_again_until_it_is_answered() {
    let mut bench = Bench::new([Ok(1)]);
    bench.manner = Manner::Panicking;
    *bench.finish_failures.lock().unwrap() = 3;
    let lines = bench.run_for(Duration::from_secs(5)).await;
    assert_eq!(lines.iter().filter(|line| line.starts_with("0 failed")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn drain_lets_runs_finish_within_their_time() {
    let mut bench = Bench::new([Ok(1)]);
    bench.time = Duration::from_secs(20);
    let lines = bench.run_for(Duration::from_millis(10)).await;
    assert_eq!(lines, ["claimed 1 of 4 at 0 ms", "resigned", "pending 99 published"]);
    assert_eq!(bench.diary.elapsed(), 20_000);
}

#[tokio::test(start_paused = true)]
async fn drain_hands_over_what_takes_too_long() {
    let mut bench = Bench::new([Ok(1)]);
    bench.time = Duration::from_hours(1);
    let lines = bench.run_for(Duration::from_millis(10)).await;
    assert_eq!(
        lines[1..],
        [
            "0 stopped: shutdown at 30010 ms",
            "pending 0 published",
            "resigned",
            "pending 99 published"
        ]
    );
    assert_eq!(bench.diary.elapsed(), 30_010);
}

/// One deaf runner must not cost the worker its resignation.
#[tokio::test(start_paused = true)]
async fn run_that_does_not_stop_is_ended_and_the_worker_resigns() {
    let mut bench = Bench::new([Ok(1)]);
    bench.time = Duration::from_hours(1);
    bench.manner = Manner::Deaf;
    let lines = bench.run_for(Duration::from_millis(10)).await;
    assert_eq!(lines[1..], ["resigned", "pending 99 published"]);
    assert_eq!(bench.diary.elapsed(), 40_010);
}

#[tokio::test(start_paused = true)]
async fn run_given_back_unasked_is_not_claimed_again_at_once() {
    let mut bench = Bench::new([Ok(1)]);
    bench.manner = Manner::Fickle;
    let lines = bench.run_for(Duration::from_millis(10)).await;
    assert_eq!(lines[1], "given back with a pause");
}

/// The end of the former run is noticed only after the run was claimed again.
#[tokio::test(start_paused = true)]
async fn run_won_back_before_its_end_was_noticed_is_still_told_to_stop() {
    let bench = Bench::new([]);
    let parts = PartStreams::default();
    let mut pool = Pool::new(bench.serving(), parts, bench.ports(), bench.shutdown.clone());
    let tenure = Arc::new(tenure(&bench));
    let mut run = run(7, tenure.worker(), &pool.kind(0));
    assert!(pool.start(0, vec![run.clone()], &tenure).is_ok());
    sleep(bench.time * 2).await;
    run.token.fence = Fence(2);
    assert!(pool.start(0, vec![run], &tenure).is_ok());

    pool.freed().await;
    tenure.stop_all(StopCause::Shutdown);
    pool.all_finished().await;
    assert_eq!(bench.diary.lines()[0], "7 stopped: shutdown at 200 ms");
}

#[tokio::test(start_paused = true)]
async fn second_signal_stops_runs_at_once() {
    let mut bench = Bench::new([Ok(1)]);
    bench.time = Duration::from_hours(1);
    let shutdown = bench.shutdown.clone();
    tokio::spawn(async move {
        sleep(Duration::from_secs(2)).await;
        shutdown.request();
    });
    let lines = bench.run_for(Duration::from_millis(10)).await;
    assert_eq!(lines[1], "0 stopped: shutdown at 2000 ms");
    assert_eq!(bench.diary.elapsed(), 2_000);
}

fn run(id: u128, worker: WorkerId, kind: &RunKind) -> Run {
    Run {
        id: run_id(id),
        kind: kind.clone(),
        owner: OwnerId::new(Uuid::nil()),
        token: Token { worker, fence: Fence(1), step: Step(0) },
        stop: false,
        attempts: 0,
    }
}

fn tenure(bench: &Bench) -> Tenure {
    let clock = bench.ports().clock;
    let worker = WorkerId::new(Uuid::from_u128(1));
    Tenure::new(worker, clock.now(), LeaseTimes::DEFAULT, clock)
}

fn run_id(id: u128) -> RunId {
    RunId::new(Uuid::from_u128(id))
}

fn number(run: RunId) -> u128 {
    run.uuid().as_u128()
}

fn unavailable() -> StoreError {
    StoreError::Unavailable { operation: "play", source: "the database is away".into() }
}
