//! The batcher with mocked storage, under paused time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use musterbeat_core::id::DefinitionsVersion;
use musterbeat_core::metadata::{Definitions, Readings};
use musterbeat_core::port::{MockMetadataStore, MockPublish, Reach};
use musterbeat_core::timestamp::Timestamp;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::*;

fn agent(number: u128) -> AgentId {
    AgentId::new(Uuid::from_u128(number))
}

fn samples<const N: usize>(of: [(&str, &str, i64); N]) -> BTreeMap<Key, Sample> {
    of.into_iter()
        .map(|(key, value, micros)| {
            let collected_at = Timestamp::from_micros(micros).unwrap();
            let (value, error) = (value.to_owned(), String::new());
            (Key::new(key).unwrap(), Sample { value, error, collected_at })
        })
        .collect()
}

fn keys(count: usize) -> BTreeMap<Key, Sample> {
    (0..count).flat_map(|number| samples([(&number.to_string(), "1", 1)])).collect()
}

/// Storage as a test wants it, and what it was given.
#[derive(Default)]
struct Ground {
    stored: Mutex<BTreeMap<(AgentId, Key), Sample>>,
    /// How many entries each statement had that was answered.
    statements: Mutex<Vec<usize>>,
    /// Each write waits for a permit, if there is one to wait for.
    gate: Option<Semaphore>,
    entered: AtomicUsize,
    /// Answers to give before good ones.
    failures: Mutex<VecDeque<StoreError>>,
    is_away: AtomicBool,
    /// Writes of this value are refused.
    poison: Option<&'static str>,
    told: Mutex<Vec<AgentId>>,
}

fn away() -> StoreError {
    StoreError::Unavailable { operation: "test", source: "away".into() }
}

impl Ground {
    fn start(self, options: MetadataOptions) -> Running {
        let ground = Arc::new(self);
        let batcher = MetadataBatcher::new(
            Arc::new(Store(Arc::clone(&ground))),
            Arc::new(ground.publish()),
            options,
        );
        let end = CancellationToken::new();
        let run = tokio::spawn(batcher.clone().run(end.clone()));
        Running { ground, batcher, end, run }
    }

    fn publish(self: &Arc<Self>) -> MockPublish {
        let mut publish = MockPublish::new();
        let ground = Arc::clone(self);
        publish.expect_publish_all().returning(move |topic, ids| {
            assert_eq!(topic, Topic::Agent);
            ground.told.lock().unwrap().extend(ids.iter().copied().map(AgentId::new));
        });
        publish
    }

    async fn write(&self, rows: &[KeyedSample]) -> Result<Vec<AgentId>, StoreError> {
        self.entered.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        if self.is_away.load(Ordering::SeqCst) {
            return Err(away());
        }
        if let Some(error) = self.failures.lock().unwrap().pop_front() {
            return Err(error);
        }
        if rows.iter().any(|(_, sample)| Some(sample.value.as_str()) == self.poison) {
            return Err(StoreError::Broken { operation: "test", source: "poison".into() });
        }
        self.statements.lock().unwrap().push(rows.len());
        self.stored.lock().unwrap().extend(rows.iter().cloned());
        let agents: BTreeSet<_> = rows.iter().map(|((agent, _), _)| *agent).collect();
        Ok(agents.into_iter().collect())
    }

    fn values(&self) -> Vec<(u128, String, String)> {
        let stored = self.stored.lock().unwrap();
        let of = |((agent, key), sample): (&(AgentId, Key), &Sample)| {
            (agent.uuid().as_u128(), key.as_str().to_owned(), sample.value.clone())
        };
        stored.iter().map(of).collect()
    }
}

/// The mock's methods cannot wait; this one does, and leaves the others to it.
struct Store(Arc<Ground>);

#[async_trait::async_trait]
impl MetadataStore for Store {
    async fn write(&self, samples: &[KeyedSample]) -> Result<Vec<AgentId>, StoreError> {
        self.0.write(samples).await
    }

    async fn define(
        &self,
        agent: AgentId,
        reach: Reach,
        definitions: &Definitions,
    ) -> Result<Option<DefinitionsVersion>, StoreError> {
        MockMetadataStore::new().define(agent, reach, definitions).await
    }

    async fn read(
        &self,
        agents: &[AgentId],
        reach: Reach,
    ) -> Result<BTreeMap<AgentId, Readings>, StoreError> {
        MockMetadataStore::new().read(agents, reach).await
    }
}

struct Running {
    ground: Arc<Ground>,
    batcher: MetadataBatcher,
    end: CancellationToken,
    run: JoinHandle<usize>,
}

impl Running {
    /// Ends it and returns how much was left.
    async fn end(self) -> (Arc<Ground>, usize) {
        self.end.cancel();
        (self.ground, self.run.await.unwrap())
    }

    /// Waits until so many statements were begun.
    async fn entered(&self, count: usize) {
        while self.ground.entered.load(Ordering::SeqCst) < count {
            // Paused time goes on only while nobody runs.
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn statements(&self) -> Vec<usize> {
        self.ground.statements.lock().unwrap().clone()
    }
}

const TIMES: MetadataOptions = MetadataOptions::DEFAULT;

#[tokio::test(start_paused = true)]
async fn nothing_is_written_when_nothing_is_reported() {
    let running = Ground::default().start(TIMES);
    sleep(Duration::from_mins(1)).await;
    let (ground, unsaved) = running.end().await;
    assert_eq!((ground.entered.load(Ordering::SeqCst), unsaved), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn reports_of_an_interval_are_one_statement_and_each_agent_is_told_once() {
    let running = Ground::default().start(TIMES);
    running.batcher.report(agent(1), keys(2));
    sleep(TIMES.flush_interval + Duration::from_secs(1)).await;
    running.batcher.report(agent(1), keys(3));
    running.batcher.report(agent(2), keys(2));
    sleep(TIMES.flush_interval * 2).await;
    assert_eq!(running.statements(), [2, 5]);
    assert_eq!(*running.ground.told.lock().unwrap(), [agent(1), agent(1), agent(2)]);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn full_batch_is_written_at_once() {
    let options = MetadataOptions { batch_max: 500, ..TIMES };
    let running = Ground::default().start(options);
    let began = Instant::now();
    for number in 0..500 {
        assert!(running.batcher.report(agent(number), keys(1)).is_empty());
    }
    running.entered(1).await;
    assert_eq!(running.statements(), [500]);
    assert!(began.elapsed() < Duration::from_secs(1));
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn newest_of_a_key_is_written_whatever_its_order() {
    let running = Ground::default().start(TIMES);
    running.batcher.report(agent(1), samples([("a", "old", 1), ("b", "1", 1)]));
    running.batcher.report(agent(1), samples([("a", "new", 3)]));
    running.batcher.report(agent(1), samples([("a", "between", 2)]));
    let (ground, _) = running.end().await;
    let value = |key: &str, value: &str| (1, key.to_owned(), value.to_owned());
    assert_eq!(ground.values(), [value("a", "new"), value("b", "1")]);
}

#[tokio::test(start_paused = true)]
async fn reports_that_overlap_merge_key_by_key_whoever_sends_them() {
    let running = Ground::default().start(TIMES);
    running.batcher.report(agent(1), samples([("a", "1", 1), ("b", "1", 1)]));
    running.batcher.report(agent(1), samples([("b", "2", 2), ("c", "2", 2)]));
    std::thread::scope(|scope| {
        for key in ["x", "y", "z"] {
            let batcher = &running.batcher;
            scope.spawn(move || batcher.report(agent(2), samples([(key, "3", 3)])));
        }
    });
    let (ground, _) = running.end().await;
    let values: Vec<_> = ground.values().into_iter().map(|(_, key, value)| key + &value).collect();
    assert_eq!(values, ["a1", "b2", "c2", "x3", "y3", "z3"]);
    assert_eq!(*ground.statements.lock().unwrap(), [6]);
}

#[tokio::test(start_paused = true)]
async fn reports_gather_while_a_write_hangs_and_only_new_keys_without_room_are_refused() {
    let options = MetadataOptions { batch_max: 2, pending_max: 12, ..TIMES };
    let ground = Ground { gate: Some(Semaphore::new(0)), ..Ground::default() };
    let running = ground.start(options);
    running.batcher.report(agent(1), keys(2));
    running.entered(1).await;
    for number in 2..12 {
        assert!(running.batcher.report(agent(number), keys(1)).is_empty());
    }
    let refused = running.batcher.report(agent(99), keys(1));
    assert_eq!(refused, [Key::new("0").unwrap()]);
    assert!(running.batcher.report(agent(1), keys(2)).is_empty(), "known keys need no room");
    running.ground.gate.as_ref().unwrap().add_permits(100);
    let (ground, unsaved) = running.end().await;
    assert_eq!((ground.values().len(), unsaved), (12, 0));
}

#[tokio::test(start_paused = true)]
async fn one_who_floods_displaces_nobody() {
    let options = MetadataOptions { pending_max: 256, ..TIMES };
    let running = Ground::default().start(options);
    for round in 0..300 {
        let flood = keys(128).into_iter().map(|(key, sample)| {
            let collected_at = Timestamp::from_micros(round).unwrap();
            (key, Sample { collected_at, ..sample })
        });
        assert!(running.batcher.report(agent(1), flood.collect()).is_empty());
    }
    assert!(running.batcher.report(agent(2), keys(128)).is_empty());
    let (ground, _) = running.end().await;
    assert_eq!(ground.values().len(), 256);
}

#[tokio::test(start_paused = true)]
async fn failed_write_goes_back_under_what_came_since() {
    let ground = Ground { gate: Some(Semaphore::new(0)), ..Ground::default() };
    ground.failures.lock().unwrap().extend([away(), away()]);
    let running = ground.start(TIMES);
    running.batcher.report(agent(1), samples([("a", "old", 1), ("b", "kept", 1)]));
    running.entered(1).await;
    running.batcher.report(agent(1), samples([("a", "new", 2)]));
    running.ground.gate.as_ref().unwrap().add_permits(100);
    while running.statements().is_empty() {
        sleep(Duration::from_secs(1)).await;
    }
    let value = |key: &str, value: &str| (1, key.to_owned(), value.to_owned());
    assert_eq!(running.ground.values(), [value("a", "new"), value("b", "kept")]);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn value_that_storage_refuses_is_dropped_alone() {
    let ground = Ground { poison: Some("poison"), ..Ground::default() };
    let running = ground.start(TIMES);
    for number in 0..600 {
        let value = if number == 333 { "poison" } else { "good" };
        running.batcher.report(agent(number), samples([("a", value, 1)]));
    }
    let (ground, unsaved) = running.end().await;
    assert_eq!((ground.values().len(), unsaved), (599, 0));
    assert!(ground.values().iter().all(|(number, ..)| *number != 333));
    assert!(ground.entered.load(Ordering::SeqCst) < 40, "halves, not one by one");
}

#[tokio::test(start_paused = true)]
async fn end_saves_all_that_was_taken_also_what_is_being_written() {
    let ground = Ground { gate: Some(Semaphore::new(0)), ..Ground::default() };
    let running = ground.start(TIMES);
    running.batcher.report(agent(1), samples([("a", "1", 1)]));
    running.entered(1).await;
    running.batcher.report(agent(2), samples([("a", "2", 1)]));
    running.end.cancel();
    running.ground.gate.as_ref().unwrap().add_permits(100);
    let batcher = running.batcher.clone();
    let (ground, unsaved) = running.end().await;
    assert_eq!((ground.values().len(), unsaved), (2, 0));
    assert_eq!(batcher.report(agent(3), keys(1)).len(), 1, "nothing is taken any more");
}

#[tokio::test(start_paused = true)]
async fn end_takes_its_time_and_says_what_was_left() {
    let running = Ground::default().start(TIMES);
    running.ground.is_away.store(true, Ordering::SeqCst);
    running.batcher.report(agent(1), keys(7));
    let began = Instant::now();
    let (_, unsaved) = running.end().await;
    assert_eq!(unsaved, 7);
    assert!(began.elapsed() <= TIMES.end_timeout + Duration::from_secs(1));

    let ground = Ground { gate: Some(Semaphore::new(0)), ..Ground::default() };
    let running = ground.start(TIMES);
    running.batcher.report(agent(1), keys(7));
    running.end.cancel();
    let (_, unsaved) = running.end().await;
    assert_eq!(unsaved, 7, "also when storage is silent");
}

#[tokio::test(start_paused = true)]
async fn large_flush_is_several_statements() {
    let running = Ground::default().start(TIMES);
    for number in 0..100 {
        running.batcher.report(agent(number), keys(120));
    }
    let (ground, _) = running.end().await;
    assert_eq!(*ground.statements.lock().unwrap(), [5_000, 5_000, 2_000]);
}
