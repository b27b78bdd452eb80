//! Agents with storage in memory, under paused time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::activity::Activity;
use musterbeat_core::id::{TokenId, WorkspaceId};
use musterbeat_core::metadata::{Definition, Key, Reading, Sample};
use musterbeat_core::port::{
    ActivityStore, Interest, KeyedSample, MockPublish, PublishError, Resync, ResyncCause,
    WatchError, Watcher,
};
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::*;
use crate::activity::ActivityOptions;
use crate::metadata::MetadataOptions;

fn agent(number: u128) -> AgentId {
    AgentId::new(Uuid::from_u128(number))
}

const OWNER: OwnerId = OwnerId::new(Uuid::from_u128(7));
const STRANGER: OwnerId = OwnerId::new(Uuid::from_u128(8));
/// Of which all agents report.
const WORKSPACE: WorkspaceId = WorkspaceId::new(Uuid::from_u128(9));

fn time(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

/// Storage and notices, and what they were asked.
struct Ground {
    state: Mutex<State>,
    notices: broadcast::Sender<(Topic, Notice)>,
}

#[derive(Default)]
struct State {
    agents: BTreeMap<AgentId, Readings>,
    facts_asked: usize,
    /// Agents that each read named.
    reads: Vec<usize>,
    /// What was told of activity.
    touched: Activity,
    is_away: bool,
}

impl Ground {
    fn new(agents: u128) -> Arc<Self> {
        let ground = Arc::new(Self { state: Mutex::default(), notices: broadcast::channel(99).0 });
        for number in 1..=agents {
            ground.state().agents.insert(agent(number), Readings::default());
            ground.define(number, &["a"]);
        }
        ground
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes definitions as another process does, and tells nobody.
    fn define(&self, number: u128, keys: &[&str]) {
        let readings = keys.iter().map(|key| Reading {
            definition: Definition {
                key: Key::new(*key).unwrap(),
                display_name: (*key).to_owned(),
                script: String::new(),
                interval_seconds: 1,
                timeout_seconds: 1,
                display_order: 0,
            },
            last: None,
        });
        let mut state = self.state();
        let of_agent = state.agents.get_mut(&agent(number)).unwrap();
        of_agent.version.0 += 1;
        of_agent.readings = readings.collect();
    }

    /// Stores a value as another process does, and tells nobody.
    fn set(&self, number: u128, value: &str) {
        let sample =
            Sample { value: value.to_owned(), error: String::new(), collected_at: time(1) };
        let mut state = self.state();
        state.agents.get_mut(&agent(number)).unwrap().readings[0].last = Some(sample);
    }

    fn tell(&self, topic: Topic, numbers: impl IntoIterator<Item = u128>) {
        let ids = numbers.into_iter().map(Uuid::from_u128).collect();
        // Nobody may watch.
        let _ = self.notices.send((topic, Notice::Changed(ids)));
    }

    fn resync(&self, topic: Topic) {
        let _ = self.notices.send((topic, Notice::Resync(Resync::of(ResyncCause::Reconnect))));
    }

    /// Returns where somebody worked, as it is written at the end.
    async fn touched(&self, agents: Agents) -> Activity {
        let ended = CancellationToken::new();
        ended.cancel();
        agents.ports.activity.run(ended).await;
        std::mem::take(&mut self.state().touched)
    }

    fn agents(self: &Arc<Self>) -> (Agents, MetadataBatcher) {
        self.agents_with(MetadataOptions::DEFAULT)
    }

    fn agents_with(self: &Arc<Self>, options: MetadataOptions) -> (Agents, MetadataBatcher) {
        let mut nobody = MockPublish::new();
        nobody.expect_publish_all().returning(|_, _| ());
        let batcher = MetadataBatcher::new(self.clone(), Arc::new(nobody), options);
        let ports = AgentPorts {
            agents: self.clone(),
            metadata: self.clone(),
            publish: self.clone(),
            watch: self.clone(),
            batcher: batcher.clone(),
            activity: ActivityTracker::new(self.clone(), ActivityOptions::DEFAULT),
        };
        (Agents::new(ports, encode), batcher)
    }
}

/// Shows an agent as the values of its keys.
fn encode(readings: &Readings) -> Bytes {
    let values = readings.readings.iter().map(|reading| match &reading.last {
        Some(sample) => sample.value.clone(),
        None => "-".to_owned(),
    });
    Bytes::from(values.collect::<Vec<_>>().join(","))
}

#[async_trait]
impl AgentStore for Ground {
    async fn create(&self, new: &NewAgent) -> Result<(), StoreError> {
        self.state().agents.entry(new.id).or_default();
        Ok(())
    }

    async fn delete(&self, agent: AgentId, _: Reach) -> Result<Option<Vec<TokenId>>, StoreError> {
        let gone = self.state().agents.remove(&agent);
        Ok(gone.map(|_| vec![TokenId::new(agent.uuid())]))
    }

    async fn list(
        &self,
        _: OwnerId,
        _: Option<AgentId>,
        _: Limit,
    ) -> Result<Vec<Agent>, StoreError> {
        Ok(vec![])
    }

    async fn facts(&self, of: &[AgentId]) -> Result<BTreeMap<AgentId, AgentFacts>, StoreError> {
        let mut state = self.state();
        state.facts_asked += 1;
        let found = of.iter().filter_map(|agent| {
            let found = state.agents.get(agent)?;
            let keys: BTreeSet<Key> =
                found.readings.iter().map(|reading| reading.definition.key.clone()).collect();
            let facts = AgentFacts {
                owner: OWNER,
                workspace: Some(WORKSPACE),
                version: found.version,
                keys: keys.into(),
            };
            Some((*agent, facts))
        });
        Ok(found.collect())
    }
}

#[async_trait]
impl MetadataStore for Ground {
    async fn define(
        &self,
        agent: AgentId,
        _: Reach,
        definitions: &Definitions,
    ) -> Result<Option<DefinitionsVersion>, StoreError> {
        let keys: Vec<&str> =
            definitions.as_slice().iter().map(|definition| definition.key.as_str()).collect();
        Self::define(self, agent.uuid().as_u128(), &keys);
        Ok(Some(self.state().agents[&agent].version))
    }

    async fn write(&self, samples: &[KeyedSample]) -> Result<Vec<AgentId>, StoreError> {
        Ok(samples.iter().map(|((agent, _), _)| *agent).collect())
    }

    async fn read(
        &self,
        of: &[AgentId],
        _: Reach,
    ) -> Result<BTreeMap<AgentId, Readings>, StoreError> {
        let mut state = self.state();
        state.reads.push(of.len());
        if state.is_away {
            return Err(StoreError::Unavailable { operation: "read", source: "away".into() });
        }
        Ok(of.iter().filter_map(|of| Some((*of, state.agents.get(of)?.clone()))).collect())
    }
}

#[async_trait]
impl ActivityStore for Ground {
    async fn touch(&self, activity: &Activity) -> Result<u64, StoreError> {
        self.state().touched.merge(activity.clone());
        Ok(1)
    }
}

#[async_trait]
impl Publish for Ground {
    fn publish(&self, topic: Topic, id: Uuid) {
        self.tell(topic, [id.as_u128()]);
    }

    fn publish_all(&self, topic: Topic, ids: &[Uuid]) {
        self.tell(topic, ids.iter().map(Uuid::as_u128));
    }

    async fn flush(&self) -> Result<(), PublishError> {
        Ok(())
    }
}

struct Ear(Topic, broadcast::Receiver<(Topic, Notice)>);

#[async_trait]
impl Watcher for Ear {
    async fn recv(&mut self) -> Notice {
        loop {
            let (topic, notice) = self.1.recv().await.unwrap();
            if topic == self.0 {
                return notice;
            }
        }
    }
}

#[async_trait]
impl Watch for Ground {
    async fn watch(&self, topic: Topic, _: Interest) -> Result<Box<dyn Watcher>, WatchError> {
        Ok(Box::new(Ear(topic, self.notices.subscribe())))
    }

    fn is_confirmed(&self) -> bool {
        true
    }
}

fn reported(key: &str) -> Vec<Reported> {
    vec![Reported { key: key.to_owned(), value: "1".to_owned(), error: String::new() }]
}

/// Reports a key; returns how many were accepted, and the version that the answer told.
async fn report(agents: &Agents, number: u128, key: &str) -> (usize, i64) {
    let report = agents.report(agent(number), Reach::Everything, reported(key), time(1)).await;
    let receipt = report.unwrap().unwrap();
    (receipt.accepted, receipt.version.0)
}

/// Runs what follows changes, once it has begun to.
async fn running(agents: &Agents) -> tokio_util::sync::DropGuard {
    let end = CancellationToken::new();
    tokio::spawn(agents.clone().run(end.clone()));
    settle().await;
    end.drop_guard()
}

/// Lets all tasks go as far as they can within a read's pause.
async fn settle() {
    sleep(Duration::from_millis(150)).await;
}

#[tokio::test(start_paused = true)]
async fn reports_ask_once_until_the_definitions_change() {
    let ground = Ground::new(2);
    let (agents, _) = ground.agents();
    let _running = running(&agents).await;
    for _ in 0..50 {
        assert_eq!(report(&agents, 1, "a").await, (1, 1));
    }
    assert_eq!(ground.state().facts_asked, 1);

    ground.define(1, &["b"]);
    assert_eq!(report(&agents, 1, "b").await, (0, 1), "another process defined, told is nothing");
    ground.tell(Topic::Definitions, [1]);
    settle().await;
    assert_eq!(report(&agents, 1, "b").await, (1, 2));

    ground.define(1, &["c"]);
    ground.resync(Topic::Definitions);
    settle().await;
    assert_eq!(report(&agents, 1, "c").await, (1, 3), "what cannot be named is asked again");
    assert_eq!(ground.state().facts_asked, 3);
}

#[tokio::test(start_paused = true)]
async fn who_defines_sees_it_at_once_and_who_is_deleted_is_gone() {
    let ground = Ground::new(1);
    let (agents, _) = ground.agents();
    assert_eq!(report(&agents, 1, "a").await, (1, 1));
    let defined = agents.define(agent(1), Reach::Everything, &Definitions::default()).await;
    assert_eq!(defined.unwrap(), Some(DefinitionsVersion(2)));
    assert_eq!(report(&agents, 1, "a").await, (0, 2), "although nobody follows notices");
    let mut notices = ground.notices.subscribe();
    assert!(agents.delete(agent(1), Reach::Everything).await.unwrap());
    let gone = agents.report(agent(1), Reach::Everything, reported("a"), time(1)).await.unwrap();
    assert_eq!(gone, None);
    let mut topics = BTreeSet::new();
    while let Ok((topic, _)) = notices.try_recv() {
        topics.insert(topic);
    }
    assert_eq!(topics, [Topic::Token, Topic::Agent, Topic::Definitions].into());
}

#[tokio::test(start_paused = true)]
async fn reports_within_reach_count_as_work_in_their_workspace() {
    let ground = Ground::new(2);
    let (agents, _) = ground.agents();
    let stranger = Reach::Of(STRANGER);
    assert_eq!(agents.report(agent(1), stranger, reported("a"), time(9)).await.unwrap(), None);
    assert_eq!(ground.touched(agents.clone()).await, Activity::default());
    for (number, micros) in [(1, 3), (2, 5), (1, 4)] {
        let report = agents.report(agent(number), Reach::Everything, reported("a"), time(micros));
        assert!(report.await.unwrap().is_some());
    }
    let mut expected = Activity::default();
    expected.saw_agent(WORKSPACE, OWNER, time(5));
    assert_eq!(ground.touched(agents).await, expected);
}

#[tokio::test(start_paused = true)]
async fn agents_of_others_are_not_there() {
    let ground = Ground::new(1);
    let (agents, _) = ground.agents();
    let of = |owner| agents.report(agent(1), Reach::Of(owner), reported("a"), time(1));
    assert!(of(OWNER).await.unwrap().is_some());
    assert_eq!(of(STRANGER).await.unwrap(), None);
    assert!(agents.watch(agent(1), Reach::Of(STRANGER)).await.unwrap().is_none());
    assert!(agents.watch(agent(9), Reach::Everything).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn key_without_room_is_refused_by_name_and_may_come_again() {
    let ground = Ground::new(1);
    ground.define(1, &["a", "b"]);
    let options = MetadataOptions { pending_max: 1, ..MetadataOptions::DEFAULT };
    let (agents, _batcher) = ground.agents_with(options);
    let sent = |key: &str, value: &str| Reported {
        key: key.to_owned(),
        value: value.to_owned(),
        error: String::new(),
    };
    let report = vec![sent("a", "1\0"), sent("b", "2\0"), sent("c", "3")];
    let receipt = agents.report(agent(1), Reach::Everything, report, time(1)).await;
    let receipt = receipt.unwrap().unwrap();
    assert_eq!(receipt.accepted, 1);
    let refused: Vec<_> =
        receipt.refused.iter().map(|refusal| (&*refusal.key, refusal.retryable)).collect();
    assert_eq!(refused, [("c", false), ("b", true)]);
    let altered: Vec<_> = receipt.altered.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(altered, ["a"], "what is not stored was not altered");
}

async fn watch(agents: &Agents, number: u128) -> MetadataWatcher {
    agents.watch(agent(number), Reach::Everything).await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_statement_reads_all_that_a_notice_names_and_is_watched() {
    let ground = Ground::new(2_000);
    let (agents, _) = ground.agents();
    let _running = running(&agents).await;
    let mut watchers = Vec::new();
    for number in 1..=2_000 {
        let mut watcher = watch(&agents, number).await;
        assert_eq!(watcher.next().await.unwrap(), "-");
        watchers.push(watcher);
    }
    sleep(UPDATE_PAUSE).await;
    ground.state().reads.clear();
    for number in 1..=500 {
        ground.set(number, "new");
    }
    ground.tell(Topic::Agent, (1..=500).chain(5_000..5_500));
    for watcher in &mut watchers[..500] {
        assert_eq!(watcher.next().await.unwrap(), "new");
    }
    assert_eq!(ground.state().reads, [500], "one statement, of those who are watched");
    ground.state().reads.clear();
    ground.resync(Topic::Agent);
    settle().await;
    settle().await;
    assert_eq!(ground.state().reads, [1_000, 1_000], "all that are watched");
}

#[tokio::test(start_paused = true)]
async fn watcher_gets_one_update_a_second_and_always_the_newest() {
    let ground = Ground::new(1);
    let (agents, _) = ground.agents();
    let _running = running(&agents).await;
    let mut watcher = watch(&agents, 1).await;
    assert_eq!(watcher.next().await.unwrap(), "-");
    let first_at = Instant::now();
    for value in 1..=7 {
        ground.set(1, &value.to_string());
        ground.tell(Topic::Agent, [1]);
        sleep(Duration::from_millis(120)).await;
    }
    assert_eq!(watcher.next().await.unwrap(), "7", "the ones between were replaced");
    assert_eq!(first_at.elapsed(), UPDATE_PAUSE);
    ground.tell(Topic::Agent, [1]);
    let nothing_new = tokio::time::timeout(Duration::from_mins(1), watcher.next()).await;
    nothing_new.expect_err("what did not change is not told again");
    ground.set(1, "8");
    ground.tell(Topic::Agent, [1]);
    let changed_at = Instant::now();
    assert_eq!(watcher.next().await.unwrap(), "8", "a wait that was given up lost nothing");
    assert!(changed_at.elapsed() < Duration::from_millis(300), "who rests is told soon");
}

#[tokio::test(start_paused = true)]
async fn lost_notices_and_an_absent_database_only_delay_the_newest() {
    let ground = Ground::new(1);
    let (agents, _) = ground.agents();
    let _running = running(&agents).await;
    let mut watcher = watch(&agents, 1).await;
    watcher.next().await.unwrap();
    ground.set(1, "told to nobody");
    ground.state().is_away = true;
    ground.resync(Topic::Agent);
    sleep(Duration::from_secs(30)).await;
    ground.state().is_away = false;
    assert_eq!(watcher.next().await.unwrap(), "told to nobody");
}

#[tokio::test(start_paused = true)]
async fn watch_ends_with_its_agent_and_costs_nothing_after_its_watcher() {
    let ground = Ground::new(2);
    let (agents, _) = ground.agents();
    let _running = running(&agents).await;
    let (mut one, other) = (watch(&agents, 1).await, watch(&agents, 2).await);
    one.next().await.unwrap();
    agents.delete(agent(1), Reach::Everything).await.unwrap();
    assert_eq!(one.next().await, None);
    drop(other);
    settle().await;
    ground.state().reads.clear();
    ground.tell(Topic::Agent, [2]);
    settle().await;
    assert_eq!(ground.state().reads, Vec::<usize>::new());
}

#[tokio::test(start_paused = true)]
async fn who_comes_to_a_watched_agent_is_told_what_is_known() {
    let ground = Ground::new(1);
    let (agents, _) = ground.agents();
    let _running = running(&agents).await;
    let mut first = watch(&agents, 1).await;
    ground.set(1, "x");
    ground.tell(Topic::Agent, [1]);
    settle().await;
    ground.state().reads.clear();
    let mut second = watch(&agents, 1).await;
    assert_eq!(second.next().await.unwrap(), "x");
    assert_eq!(first.next().await.unwrap(), "x", "what came before its first look is that look");
    assert_eq!(ground.state().reads, Vec::<usize>::new());
}
