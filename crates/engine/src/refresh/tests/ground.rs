//! A host that answers as a test says, and storage that hands out batches.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use musterbeat_core::port::{
    GitProvider, MockDiffStore, MockPublish, MockWatch, Notice, WatchError,
};
use musterbeat_core::refresh::Answer;
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

use super::super::*;
use super::{away, broken, owner};

pub(super) type AnswerFor = Box<dyn Fn(&Reference) -> Answer + Send + Sync>;

/// A host that answers as a test says, and what happened to it.
pub(super) struct Host {
    pub(super) answer: AnswerFor,
    /// Whom it refuses before any question.
    pub(super) refuses: Option<(&'static str, FetchError)>,
    pub(super) opened: Mutex<Vec<(OwnerId, String)>>,
    pub(super) asked: Mutex<Vec<String>>,
    pub(super) at_once: AtomicUsize,
    pub(super) at_once_max: AtomicUsize,
    /// Answers that may be given.
    pub(super) gate: Semaphore,
}

impl Host {
    pub(super) fn answering(answer: impl Fn(&Reference) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            answer: Box::new(answer),
            refuses: None,
            opened: Mutex::default(),
            asked: Mutex::default(),
            at_once: AtomicUsize::new(0),
            at_once_max: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        }
    }

    pub(super) fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort_unstable();
        asked
    }
}

/// The host as its repositories know it.
pub(super) struct Hosts(Arc<Host>);

#[async_trait]
impl GitHosts for Hosts {
    async fn open(&self, owner: OwnerId, origin: &str) -> Result<Arc<dyn GitProvider>, FetchError> {
        self.0.opened.lock().unwrap().push((owner, origin.to_owned()));
        match &self.0.refuses {
            Some((refused, error)) if *refused == origin => Err(error.clone()),
            _ => Ok(Arc::new(Hosts(Arc::clone(&self.0)))),
        }
    }
}

#[async_trait]
impl GitProvider for Hosts {
    async fn fetch(&self, reference: &Reference) -> Answer {
        let host = &self.0;
        host.asked.lock().unwrap().push(reference.branch.clone());
        let at_once = host.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        host.at_once_max.fetch_max(at_once, Ordering::SeqCst);
        host.gate.acquire().await.unwrap().forget();
        host.at_once.fetch_sub(1, Ordering::SeqCst);
        (host.answer)(reference)
    }
}

/// Storage that hands out batches, and what was written and told.
#[derive(Default)]
pub(super) struct Ground {
    pub(super) batches: Mutex<VecDeque<Result<Vec<StaleDiff>, StoreError>>>,
    pub(super) acquired: AtomicUsize,
    pub(super) written: Mutex<Vec<Refreshed>>,
    pub(super) limits: Mutex<Vec<HostLimit>>,
    pub(super) writes: AtomicUsize,
    pub(super) told: Mutex<Vec<(Topic, Uuid)>>,
    /// Writes of this chat are refused.
    pub(super) poison: Option<ChatId>,
    /// Writes that find storage away.
    pub(super) outages: AtomicUsize,
    pub(super) marked: Notify,
    pub(super) acquired_one: Notify,
}

impl Ground {
    pub(super) fn of(batches: impl IntoIterator<Item = Vec<StaleDiff>>) -> Self {
        let batches = batches.into_iter().map(Ok).collect();
        Self { batches: Mutex::new(batches), ..Self::default() }
    }

    pub(super) fn refresher(
        self: &Arc<Self>,
        host: &Arc<Host>,
        options: RefreshOptions,
    ) -> Refresher {
        let ports = RefreshPorts {
            diffs: Arc::new(self.diffs()),
            hosts: Arc::new(Hosts(Arc::clone(host))),
            publish: Arc::new(self.publish()),
            watch: Arc::new(self.watch()),
        };
        Refresher::new(ports, options)
    }

    fn diffs(self: &Arc<Self>) -> MockDiffStore {
        let mut diffs = MockDiffStore::new();
        let ground = Arc::clone(self);
        diffs.expect_acquire().returning(move |_| {
            ground.acquired.fetch_add(1, Ordering::SeqCst);
            ground.acquired_one.notify_one();
            ground.batches.lock().unwrap().pop_front().unwrap_or(Ok(vec![]))
        });
        let ground = Arc::clone(self);
        diffs.expect_write().returning(move |rows, limits| ground.write(rows, limits));
        let ground = Arc::clone(self);
        diffs.expect_read().returning(move |chats, _| {
            let written = ground.written.lock().unwrap();
            let of = |row: &&Refreshed| chats.contains(&row.chat);
            Ok(written.iter().filter(of).map(known).collect())
        });
        diffs.expect_mark().returning(|target, _, _| {
            let DiffTarget::Chat(chat) = target else { return Err(broken()) };
            Ok(vec![(chat, owner(1)), (chat, owner(1))])
        });
        diffs
    }

    fn write(
        &self,
        rows: &[Refreshed],
        limits: &[HostLimit],
    ) -> Result<Vec<(ChatId, OwnerId)>, StoreError> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        let outage = |left: usize| left.checked_sub(1);
        if self.outages.fetch_update(Ordering::SeqCst, Ordering::SeqCst, outage).is_ok() {
            return Err(away());
        }
        if rows.iter().any(|row| Some(row.chat) == self.poison) {
            return Err(broken());
        }
        self.written.lock().unwrap().extend_from_slice(rows);
        self.limits.lock().unwrap().extend_from_slice(limits);
        let told = rows.iter().filter(|row| row.status.is_some());
        Ok(told.map(|row| (row.chat, owner(1))).collect())
    }

    fn publish(self: &Arc<Self>) -> MockPublish {
        let mut publish = MockPublish::new();
        let ground = Arc::clone(self);
        publish
            .expect_publish()
            .returning(move |topic, id| ground.told.lock().unwrap().push((topic, id)));
        publish
    }

    fn watch(self: &Arc<Self>) -> MockWatch {
        struct Marks(Arc<Ground>);
        #[async_trait]
        impl Watcher for Marks {
            async fn recv(&mut self) -> Notice {
                self.0.marked.notified().await;
                Notice::Changed(BTreeSet::new())
            }
        }
        let mut watch = MockWatch::new();
        let ground = Arc::clone(self);
        watch.expect_watch().returning(move |topic, _| {
            assert_eq!(topic, Topic::Stale);
            Ok::<_, WatchError>(Box::new(Marks(Arc::clone(&ground))))
        });
        watch
    }

    /// Returns what was written by chat: whether it was told, why not, and when again.
    pub(super) fn written(&self) -> Vec<(u128, bool, Option<String>, u64)> {
        let written = self.written.lock().unwrap();
        let mut written: Vec<_> = written
            .iter()
            .map(|row| {
                let again = row.again.unwrap().as_secs();
                (row.chat.uuid().as_u128(), row.status.is_some(), row.problem.clone(), again)
            })
            .collect();
        written.sort();
        written
    }

    pub(super) fn told(&self, topic: Topic) -> usize {
        self.told.lock().unwrap().iter().filter(|(told, _)| *told == topic).count()
    }
}

fn known(row: &Refreshed) -> ChatDiff {
    ChatDiff {
        chat: row.chat,
        owner: owner(1),
        reference: Reference::default(),
        status: row.status.clone(),
        problem: row.problem.clone(),
        refreshed_at: None,
        stale_at: None,
    }
}
