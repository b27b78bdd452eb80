//! The tracker with mocked storage, under paused time.

use std::collections::BTreeSet;
use std::thread;

use musterbeat_core::port::{MockActivityStore, StoreError};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::*;

const TIMES: ActivityOptions = ActivityOptions::DEFAULT;

const OWNER: OwnerId = OwnerId::new(Uuid::from_u128(7));

fn workspace(number: u128) -> WorkspaceId {
    WorkspaceId::new(Uuid::from_u128(number))
}

fn chat(number: u128) -> ChatId {
    ChatId::new(Uuid::from_u128(number))
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

fn small(pending_max: usize) -> ActivityOptions {
    ActivityOptions { pending_max: NonZeroUsize::new(pending_max).unwrap(), ..TIMES }
}

/// Storage as a test wants it, and what it was given.
#[derive(Default)]
struct Ground {
    /// Each call that was answered well.
    writes: Mutex<Vec<Activity>>,
    /// How many calls were begun.
    begun: Mutex<usize>,
    /// How many calls are to fail before others succeed.
    failures: Mutex<usize>,
    /// Each call waits for a permit, if there is one to wait for.
    gate: Option<Semaphore>,
}

impl Ground {
    fn gated() -> Self {
        Self { gate: Some(Semaphore::new(0)), ..Self::default() }
    }

    fn failing(failures: usize) -> Self {
        Self { failures: Mutex::new(failures), ..Self::default() }
    }

    fn start(self, options: ActivityOptions) -> Running {
        let ground = Arc::new(self);
        let store = Store { mock: ground.mock(), ground: Arc::clone(&ground) };
        let tracker = ActivityTracker::new(Arc::new(store), options);
        let end = CancellationToken::new();
        let run = tokio::spawn(tracker.clone().run(end.clone()));
        Running { ground, tracker, end, run, began: Instant::now() }
    }

    fn mock(self: &Arc<Self>) -> MockActivityStore {
        let mut store = MockActivityStore::new();
        let ground = Arc::clone(self);
        store.expect_touch().returning(move |activity| {
            assert!(!activity.is_empty());
            let mut failures = ground.failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return Err(StoreError::Unavailable { operation: "test", source: "away".into() });
            }
            ground.writes.lock().unwrap().push(activity.clone());
            Ok(activity.len() as u64)
        });
        store
    }

    fn writes(&self) -> Vec<Activity> {
        self.writes.lock().unwrap().clone()
    }

    fn begun(&self) -> usize {
        *self.begun.lock().unwrap()
    }

    fn open(&self) {
        self.gate.as_ref().unwrap().add_permits(100);
    }
}

/// The mock cannot wait; this one does before it asks it.
struct Store {
    mock: MockActivityStore,
    ground: Arc<Ground>,
}

#[async_trait::async_trait]
impl ActivityStore for Store {
    async fn touch(&self, activity: &Activity) -> Result<u64, StoreError> {
        *self.ground.begun.lock().unwrap() += 1;
        if let Some(gate) = &self.ground.gate {
            gate.acquire().await.unwrap().forget();
        }
        self.mock.touch(activity).await
    }
}

struct Running {
    ground: Arc<Ground>,
    tracker: ActivityTracker,
    end: CancellationToken,
    run: JoinHandle<()>,
    began: Instant,
}

impl Running {
    fn report(&self, numbers: impl IntoIterator<Item = u128>) {
        for number in numbers {
            self.tracker.agent_reported(workspace(number), OWNER, at(1));
        }
    }

    /// Waits until so much time has passed since the start, and half a second for what it brings.
    async fn passed(&self, time: Duration) {
        sleep_until(self.began + time + Duration::from_millis(500)).await;
    }

    async fn minutes(&self, minutes: u64) {
        self.passed(Duration::from_mins(minutes)).await;
    }

    /// Returns of how many workspaces and chats each write was.
    fn lens(&self) -> Vec<(usize, usize)> {
        let writes = self.ground.writes();
        writes.iter().map(|write| (write.workspaces.len(), write.chats.len())).collect()
    }

    /// Ends it, and returns what was written.
    async fn end(self) -> Vec<Activity> {
        self.end.cancel();
        self.run.await.unwrap();
        self.ground.writes()
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_seen_is_no_call() {
    let running = Ground::default().start(TIMES);
    running.minutes(10).await;
    assert_eq!(running.ground.begun(), 0);
    assert_eq!(running.end().await, []);
}

#[tokio::test(start_paused = true)]
async fn what_one_minute_saw_is_one_call_with_the_latest_times() {
    let running = Ground::default().start(TIMES);
    for micros in [2, 5, 3] {
        running.tracker.agent_reported(workspace(1), OWNER, at(micros));
    }
    sleep_until(running.began + Duration::from_secs(59)).await;
    assert_eq!(running.ground.begun(), 0);
    running.minutes(1).await;
    let mut expected = Activity::default();
    expected.saw_agent(workspace(1), OWNER, at(5));
    assert_eq!(running.ground.writes(), [expected]);

    running.report(1..=500);
    for number in 1..=300 {
        drop(running.tracker.chat_works(chat(number)));
    }
    running.minutes(5).await;
    assert_eq!(running.lens(), [(1, 0), (500, 300)]);
    assert_eq!(running.end().await.len(), 2, "the end has nothing to add");
}

#[tokio::test(start_paused = true)]
async fn chat_counts_each_minute_while_it_works_and_once_when_it_has_ended() {
    let running = Ground::default().start(TIMES);
    let began = now();
    let work = running.tracker.chat_works(chat(1));
    running.minutes(3).await;
    assert_eq!(running.lens(), [(0, 1); 3]);
    drop(work);
    running.minutes(9).await;
    let writes = running.end().await;
    assert_eq!(writes.len(), 4);
    let times: Vec<_> = writes.iter().map(|write| write.chats[&chat(1)]).collect();
    assert!(began <= times[0] && times.is_sorted() && times[3] <= now());
}

#[tokio::test(start_paused = true)]
async fn chat_with_two_guards_works_until_the_last_is_dropped() {
    let running = Ground::default().start(TIMES);
    let (one, other) = (running.tracker.chat_works(chat(1)), running.tracker.chat_works(chat(1)));
    drop(one);
    running.minutes(2).await;
    assert_eq!(running.lens(), [(0, 1); 2]);
    drop(other);
    running.minutes(5).await;
    assert_eq!(running.end().await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn failed_write_keeps_all_and_goes_with_what_came_since() {
    let running = Ground::failing(2).start(TIMES);
    running.tracker.agent_reported(workspace(1), OWNER, at(5));
    running.tracker.agent_reported(workspace(2), OWNER, at(5));
    drop(running.tracker.chat_works(chat(1)));
    let _works = running.tracker.chat_works(chat(2));
    running.minutes(1).await;
    running.tracker.agent_reported(workspace(1), OWNER, at(4));
    running.tracker.agent_reported(workspace(3), OWNER, at(6));
    running.minutes(2).await;
    assert_eq!((running.ground.begun(), running.lens()), (2, vec![]), "one attempt a minute");
    running.minutes(3).await;
    let mut written = running.end().await.remove(0);
    assert_eq!(written.chats.len(), 2);
    written.chats.clear();
    let mut expected = Activity::default();
    for (number, micros) in [(1, 5), (2, 5), (3, 6)] {
        expected.saw_agent(workspace(number), OWNER, at(micros));
    }
    assert_eq!(written, expected);
}

#[tokio::test(start_paused = true)]
async fn chat_that_ends_while_a_write_fails_counts_once_more() {
    let running = Ground { failures: Mutex::new(1), ..Ground::gated() }.start(TIMES);
    let (ends, works) = (running.tracker.chat_works(chat(1)), running.tracker.chat_works(chat(2)));
    running.minutes(1).await;
    drop(ends);
    running.ground.open();
    running.minutes(3).await;
    drop(works);
    assert_eq!(running.lens(), [(0, 2), (0, 1)]);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn full_set_is_written_before_its_time() {
    let running = Ground::default().start(small(100));
    running.report(1..=99);
    running.passed(Duration::ZERO).await;
    assert_eq!(running.lens(), []);
    running.report(100..=100);
    running.passed(Duration::from_secs(1)).await;
    assert_eq!(running.lens(), [(100, 0)]);
    running.report(1..=1);
    running.passed(Duration::from_mins(1) + Duration::from_secs(1)).await;
    assert_eq!(running.end().await.len(), 2, "a minute after the last one");
}

#[tokio::test(start_paused = true)]
async fn set_is_bounded_and_storage_that_is_away_is_asked_once_a_minute() {
    let running = Ground::failing(5).start(small(10));
    let works: Vec<_> = (1..=30).map(|number| running.tracker.chat_works(chat(number))).collect();
    for number in 1..=1_000 {
        running.report([number]);
        tokio::task::yield_now().await;
    }
    running.tracker.agent_reported(workspace(3), OWNER, at(9));
    running.minutes(4).await;
    assert_eq!(running.ground.begun(), 5, "at once, and then each minute");
    assert_eq!(running.tracker.0.seen().len(), 10, "chats at work do not count");
    running.minutes(5).await;
    assert_eq!(running.lens(), [(10, 30)]);
    let written = &running.ground.writes()[0];
    assert_eq!(written.workspaces[&(workspace(3), OWNER)], at(9), "what is there needs no room");
    drop(works);
    running.passed(Duration::from_mins(5) + Duration::from_secs(1)).await;
    assert_eq!(running.end().await[1].len(), 10, "those that end need room like others");
}

#[tokio::test(start_paused = true)]
async fn what_is_being_written_takes_room_and_nobody_waits_for_it() {
    let running = Ground::gated().start(small(10));
    running.report(1..=6);
    running.minutes(1).await;
    assert_eq!(running.ground.begun(), 1);
    running.report(11..=99);
    assert_eq!(running.tracker.0.seen().len(), 10);
    running.ground.open();
    running.minutes(2).await;
    assert_eq!(running.lens(), [(6, 0), (4, 0)]);
    running.report(11..=19);
    assert_eq!(running.end().await[2].len(), 9, "there is room again");
}

#[tokio::test(start_paused = true)]
async fn marks_of_many_threads_are_all_written() {
    const THREADS: u128 = 4;
    const MARKS: u128 = 5_000;
    let running = Ground::default().start(TIMES);
    let marking = (0..THREADS).map(|part| {
        let tracker = running.tracker.clone();
        thread::spawn(move || {
            for number in 0..MARKS {
                // Half of the numbers are those of the next thread, too.
                let number = part * MARKS / 2 + number;
                tracker.agent_reported(workspace(number), OWNER, at(1));
                drop(tracker.chat_works(chat(number)));
            }
        })
    });
    let marking: Vec<_> = marking.collect();
    while !marking.iter().all(thread::JoinHandle::is_finished) {
        // Paused time passes at once.
        sleep(TIMES.interval).await;
    }
    for thread in marking {
        thread.join().unwrap();
    }
    assert!(running.tracker.0.seen().at_work.is_empty());
    let tracker = running.tracker.clone();
    let (mut workspaces, mut chats) = (BTreeSet::new(), BTreeSet::new());
    for write in running.end().await {
        workspaces.extend(write.workspaces.into_keys());
        chats.extend(write.chats.into_keys());
    }
    let expected = usize::try_from(MARKS / 2 * (THREADS + 1)).unwrap();
    assert_eq!((workspaces.len(), chats.len()), (expected, expected));
    assert_eq!(tracker.0.seen().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn end_writes_once_more_and_a_second_end_nothing() {
    let running = Ground::default().start(TIMES);
    running.report([1]);
    let works = running.tracker.chat_works(chat(1));
    running.end.cancel();
    running.end.cancel();
    let (end, tracker) = (running.end.clone(), running.tracker.clone());
    assert_eq!(running.lens(), []);
    let ground = Arc::clone(&running.ground);
    assert_eq!(running.end().await.len(), 1);
    drop(works);
    tracker.0.seen().pending = Activity::default();
    tracker.run(end).await;
    assert_eq!(ground.begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn end_takes_its_time_and_no_more() {
    // At rest, and while a write hangs.
    for minutes in [0, 1] {
        let running = Ground::gated().start(TIMES);
        running.report([1]);
        running.minutes(minutes).await;
        let (cancelled, tracker) = (Instant::now(), running.tracker.clone());
        assert_eq!(running.end().await, []);
        assert_eq!(cancelled.elapsed(), TIMES.end_timeout, "after {minutes} minutes");
        let seen = tracker.0.seen();
        assert_eq!((seen.pending.len(), seen.in_flight), (1, 0), "it went back");
    }
    let running = Ground::failing(1).start(TIMES);
    running.report([1]);
    let cancelled = Instant::now();
    assert_eq!(running.end().await, []);
    assert_eq!(cancelled.elapsed(), Duration::ZERO, "one attempt");
}
