//! The loop, with mocked storage, under paused time.

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use musterbeat_core::id::{Fence, OwnerId, RunId, Step};
use musterbeat_core::port::{
    MockLeaseStore, MockPublish, MockRunStore, MockWatch, RunContext, StoreError, WriteError,
};
use musterbeat_core::run::{Outcome, Run, RunEnd, RunKind, Token};
use tokio::sync::Notify;
use uuid::Uuid;

use super::*;

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
            Manner::Deaf => {
                sleep(self.time).await;
                return Outcome::Done;
            }
            Manner::Fickle => return Outcome::Stopped,
            Manner::Panicking => panic!("as planned"),
        }
        tokio::select! {
            cause = context.stopped() => {
                self.diary.note(format!("{} stopped: {}", number(run.id), cause.as_str()));
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
        Ports {
            leases: Arc::new(self.leases()),
            runs: Arc::new(self.runs()),
            publish: Arc::new(self.publish()),
            watch: Arc::new(self.watch()),
        }
    }

    fn worker(&self) -> Worker {
        let options = WorkerOptions {
            lease: Lease {
                worker: WorkerId::new(Uuid::from_u128(1)),
                name: "test".to_owned(),
                advertise_url: None,
                release: "0".to_owned(),
                capacity: 10,
            },
            claim_batch: 4,
            poll_interval: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(30),
        };
        let parts = PartStreams::new(<_>::default());
        Worker::new(self.ports(), self.serving(), parts, options, self.shutdown.clone())
    }

    fn leases(&self) -> MockLeaseStore {
        let mut leases = MockLeaseStore::new();
        leases.expect_register().returning(|_| Ok(()));
        let diary = self.diary.clone();
        leases.expect_resign().times(..=1).returning(move |_| {
            diary.note("resigned");
            Ok(vec![run_id(99)])
        });
        leases
    }

    fn runs(&self) -> MockRunStore {
        let mut runs = MockRunStore::new();
        let (answers, diary) = (Arc::clone(&self.answers), self.diary.clone());
        let next = Mutex::new(0_u128);
        runs.expect_claim().returning(move |worker, kind, limit| {
            let answer = answers.lock().unwrap().pop_front().unwrap_or(Ok(0))?;
            let count = answer.min(limit.into());
            diary.note(format!("claimed {count} of {limit} at {} ms", diary.elapsed()));
            let mut next = next.lock().unwrap();
            let claimed = (*next..*next + count).map(|id| run(id, worker, kind)).collect();
            *next += count;
            Ok(claimed)
        });
        runs.expect_next_ready().returning(|_| Ok(None));
        let (diary, failures) = (self.diary.clone(), Arc::clone(&self.finish_failures));
        runs.expect_finish().returning(move |run, end| {
            let mut failures = failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return Err(WriteError::Store(unavailable()));
            }
            if let RunEnd::Failed(error) = end {
                diary.note(format!("{} failed: {error}", number(run.id)));
            }
            Ok(())
        });
        let diary = self.diary.clone();
        runs.expect_release().returning(move |_, runs, pause| {
            if pause > Duration::ZERO {
                assert!((1.0..=2.0).contains(&pause.as_secs_f64()), "{pause:?}");
                diary.note("given back with a pause");
            }
            Ok(runs.iter().map(|(run, _)| *run).collect())
        });
        runs
    }

    fn publish(&self) -> MockPublish {
        let mut publish = MockPublish::new();
        let diary = self.diary.clone();
        publish.expect_publish().returning(move |topic, id| {
            diary.note(format!("{} {} published", topic.as_str(), id.as_u128()));
        });
        publish
    }

    fn watch(&self) -> MockWatch {
        let mut watch = MockWatch::new();
        let bell = Arc::clone(&self.bell);
        watch.expect_watch().returning(move |_, _| Ok(Box::new(Bell(Arc::clone(&bell)))));
        watch
    }

    /// Runs the worker for `time`, then asks for its end, and returns the diary.
    async fn run_for(&self, time: Duration) -> Vec<String> {
        let worker = tokio::spawn(self.worker().run());
        sleep(time).await;
        self.shutdown.request();
        worker.await.unwrap();
        self.diary.lines()
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
        ["0 stopped: shutdown", "pending 0 published", "resigned", "pending 99 published"]
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
    let parts = PartStreams::new(<_>::default());
    let mut pool = Pool::new(bench.serving(), parts, bench.ports(), bench.shutdown.clone());
    let worker = WorkerId::new(Uuid::from_u128(1));
    let mut run = run(7, worker, &pool.kind(0));
    pool.start(0, vec![run.clone()]);
    sleep(bench.time * 2).await;
    run.token.fence = Fence(2);
    pool.start(0, vec![run]);

    pool.finished().await;
    pool.stop_all(StopCause::Shutdown);
    pool.all_finished().await;
    assert_eq!(bench.diary.lines()[0], "7 stopped: shutdown");
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
    assert_eq!(lines[1], "0 stopped: shutdown");
    assert_eq!(bench.diary.elapsed(), 2_000);
}

fn run(id: u128, worker: WorkerId, kind: &RunKind) -> Run {
    Run {
        id: run_id(id),
        kind: kind.clone(),
        owner: OwnerId::new(Uuid::nil()),
        token: Token { worker, fence: Fence(1), step: Step(0) },
        stop: false,
    }
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
