//! A build in memory, a provisioner that does as a test says, and what came of it.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use musterbeat_core::build::Transition;
use musterbeat_core::id::{Fence, OwnerId, Step, WorkerId, WorkspaceId};
use musterbeat_core::port::{MockPublish, Reach};
use musterbeat_core::run::Token;
use musterbeat_core::workspace::{BuildState, LogLine, LogPlace};
use tokio::sync::Notify;
use uuid::Uuid;

use super::super::*;

pub(super) type End = Result<Provisioned, ProvisionError>;

pub(super) fn away() -> StoreError {
    StoreError::Unavailable { operation: "test", source: "away".into() }
}

pub(super) fn broken() -> StoreError {
    StoreError::Broken { operation: "test", source: "broken".into() }
}

pub(super) fn run() -> Run {
    let worker = WorkerId::new(Uuid::from_u128(9));
    Run {
        id: RunId::new(Uuid::from_u128(1)),
        kind: RunKind::BUILD,
        owner: OwnerId::POOL,
        token: Token { worker, fence: Fence(3), step: Step(0) },
        stop: false,
        attempts: 0,
    }
}

fn build() -> Build {
    Build {
        id: BuildId::new(Uuid::from_u128(1)),
        workspace: WorkspaceId::new(Uuid::from_u128(2)),
        transition: Transition::Start,
        name: "prebuild".to_owned(),
        owner: None,
        source: "rust".to_owned(),
        parameters: [].into(),
    }
}

/// Why a run should stop, and what its runner told of it.
#[derive(Default)]
pub(super) struct Context {
    cause: Mutex<Option<StopCause>>,
    changed: Notify,
    pub(super) ending: AtomicBool,
}

impl Context {
    pub(super) fn stop(&self, cause: StopCause) {
        *self.cause.lock().unwrap() = Some(cause);
        self.changed.notify_waiters();
    }
}

#[async_trait]
impl RunContext for Context {
    async fn stopped(&self) -> StopCause {
        loop {
            let changed = self.changed.notified();
            if let Some(cause) = self.stop_cause() {
                return cause;
            }
            changed.await;
        }
    }

    fn stop_cause(&self) -> Option<StopCause> {
        *self.cause.lock().unwrap()
    }

    fn is_draining(&self) -> bool {
        false
    }

    fn ending(&self) {
        self.ending.store(true, Ordering::SeqCst);
    }

    fn begin(&self, _: Step) {}

    fn part(&self, _: Vec<u8>) {}
}

/// Storage of one build.
#[derive(Default)]
pub(super) struct Ground {
    pub(super) context: Arc<Context>,
    /// What storage answers first when asked for the work; then that it is a start.
    pub(super) works: Mutex<VecDeque<Result<Option<Build>, StoreError>>>,
    /// What storage answers first to an end; then that it is written.
    pub(super) answers: Mutex<VecDeque<Result<Ended, WriteError>>>,
    /// Writes of lines that find storage away.
    pub(super) outages: AtomicUsize,
    /// Whether storage refuses lines.
    pub(super) refuses: AtomicBool,
    /// Ends that were sent.
    pub(super) ends: Mutex<Vec<End>>,
    /// Writes of lines that were kept: the place of the first, and the lines.
    pub(super) kept: Mutex<Vec<(u32, Vec<String>)>>,
    pub(super) told: Mutex<Vec<Uuid>>,
    provisioned: AtomicUsize,
}

impl Ground {
    /// Carries the build out as `provision` does.
    pub(super) async fn carry_out<P>(self: &Arc<Self>, run: Run, provision: P) -> Outcome
    where
        P: Fn(Arc<dyn BuildContext>) -> BoxFuture<'static, End> + Send + Sync + 'static,
    {
        let mut publish = MockPublish::new();
        let ground = Arc::clone(self);
        publish.expect_publish().returning(move |topic, id| {
            assert_eq!(topic, Topic::Pool);
            ground.told.lock().unwrap().push(id);
        });
        let provisioner = Arc::new(Provision(provision, Arc::clone(self)));
        let runs =
            BuildRuns::new(Arc::new(Store(Arc::clone(self))), provisioner, Arc::new(publish));
        assert_eq!(runs.kind(), RunKind::BUILD);
        runs.run(run, Arc::clone(&self.context) as _).await
    }

    /// Carries the build out to an end that comes at once.
    pub(super) async fn carry_out_to(self: &Arc<Self>, end: End) -> Outcome {
        self.carry_out(run(), move |_| Box::pin(std::future::ready(end.clone()))).await
    }

    pub(super) fn provisioned(&self) -> usize {
        self.provisioned.load(Ordering::SeqCst)
    }

    pub(super) fn ends(&self) -> Vec<End> {
        self.ends.lock().unwrap().clone()
    }

    /// Returns the lines that were kept, each in its place.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (first, batch) in &*self.kept.lock().unwrap() {
            assert_eq!(*first as usize, lines.len(), "no line is left out or sent twice");
            lines.extend(batch.iter().cloned());
        }
        lines
    }
}

struct Provision<P>(P, Arc<Ground>);

#[async_trait]
impl<P> Provisioner for Provision<P>
where
    P: Fn(Arc<dyn BuildContext>) -> BoxFuture<'static, End> + Send + Sync,
{
    async fn provision(&self, found: &Build, context: Arc<dyn BuildContext>) -> End {
        assert_eq!(*found, build());
        self.1.provisioned.fetch_add(1, Ordering::SeqCst);
        (self.0)(context).await
    }
}

struct Store(Arc<Ground>);

#[async_trait]
impl BuildStore for Store {
    async fn work(&self, id: BuildId) -> Result<Option<Build>, StoreError> {
        assert_eq!(id, build().id);
        self.0.works.lock().unwrap().pop_front().unwrap_or(Ok(Some(build())))
    }

    async fn end(&self, run: &Run, end: &End) -> Result<Ended, WriteError> {
        assert!(self.0.context.ending.load(Ordering::SeqCst), "the roll call is told before");
        assert_eq!(run.token.step, Step(0), "each attempt is the same write");
        self.0.ends.lock().unwrap().push(end.clone());
        self.0.answers.lock().unwrap().pop_front().unwrap_or(Ok(Ended::default()))
    }

    async fn log(
        &self,
        id: BuildId,
        token: Token,
        first: u32,
        lines: &[String],
    ) -> Result<(), StoreError> {
        assert_eq!((id, token), (build().id, run().token));
        let outage = |left: usize| left.checked_sub(1);
        if self.0.outages.fetch_update(Ordering::SeqCst, Ordering::SeqCst, outage).is_ok() {
            return Err(away());
        }
        if self.0.refuses.load(Ordering::SeqCst) {
            return Err(broken());
        }
        self.0.kept.lock().unwrap().push((first, lines.to_vec()));
        Ok(())
    }

    async fn state(&self, _: BuildId, _: Reach) -> Result<Option<BuildState>, StoreError> {
        unreachable!("it is for people")
    }

    async fn lines(
        &self,
        _: BuildId,
        _: Reach,
        _: Option<LogPlace>,
    ) -> Result<Option<Vec<LogLine>>, StoreError> {
        unreachable!("it is for people")
    }
}
