//! What a chat at work does with those that descend from it.

use musterbeat_core::chat::{Chat, Event, NewChat, Origin, WhenBusy};
use musterbeat_core::id::{ChatId, OwnerId};
use musterbeat_core::message::{Content, Turn};
use musterbeat_core::page::Limit;
use musterbeat_core::port::{
    ApplyError, By, CHILDREN_MAX, FamilyFilter, Halt, Kin, KinError, NewChild, Reach, RunContext,
};
use musterbeat_core::run::StopCause;

use super::Chats;
use crate::retry::Retry;

/// A chat at work, as the parent of others.
pub(super) struct Parent<'a> {
    pub(super) chat: ChatId,
    pub(super) owner: OwnerId,
    pub(super) chats: &'a Chats,
    pub(super) run: &'a dyn RunContext,
}

impl Parent<'_> {
    /// Creates a child, which is not created twice however often this is sent.
    pub(super) async fn spawn(&self, child: NewChild) -> Result<(), KinError> {
        let NewChild { id, title, content } = child;
        let turn = Turn { content, model: None, created_by: None };
        let child = NewChat {
            parent: Some(self.chat),
            origin: Origin::Spawned,
            ..NewChat::new(id, self.owner, title, turn)
        };
        let child = &child;
        self.insist(|| async move {
            let created = self.chats.create(child.clone(), Reach::Of(self.owner)).await;
            created.map(drop).map_err(kin_error)
        })
        .await
    }

    /// Sends a turn, once: after an error nobody knows whether it was stored.
    pub(super) async fn send(
        &self,
        descendant: ChatId,
        content: Content,
        when_busy: WhenBusy,
    ) -> Result<bool, KinError> {
        self.check_lineage(descendant).await?;
        self.check_stop()?;
        let turn = Turn { content, model: None, created_by: None };
        self.apply(descendant, Event::Send { turn, when_busy }).await
    }

    /// Stops a descendant.
    ///
    /// The end of one turn is sent once: it may have happened, and the next turn begun.
    pub(super) async fn halt(&self, descendant: ChatId, halt: Halt) -> Result<(), KinError> {
        self.check_lineage(descendant).await?;
        self.check_stop()?;
        match halt {
            Halt::Turn => self.apply(descendant, Event::Interrupt).await.map(drop),
            Halt::Everything => {
                self.insist(|| self.apply(descendant, Event::ClearQueue)).await?;
                self.insist(|| self.apply(descendant, Event::Interrupt)).await.map(drop)
            }
        }
    }

    /// Returns the children, the oldest first.
    pub(super) async fn children(&self) -> Result<Vec<Chat>, KinError> {
        let filter = FamilyFilter {
            of: self.chat,
            reach: Reach::Of(self.owner),
            kin: Kin::Children,
            after: None,
            limit: Limit::new(Some(CHILDREN_MAX)).expect("a page holds as many"),
        };
        self.insist(|| async move {
            let children = self.chats.ports.reader.family(filter).await?;
            children.ok_or(KinError::NotFound)
        })
        .await
    }

    /// Applies an event to a descendant; says whether a turn waits in its queue.
    async fn apply(&self, descendant: ChatId, event: Event) -> Result<bool, KinError> {
        let applied = self.chats.apply(descendant, By::Ancestor, event).await;
        applied.map(|applied| applied.queued).map_err(kin_error)
    }

    async fn check_lineage(&self, descendant: ChatId) -> Result<(), KinError> {
        let lineage = self
            .insist(|| async move { Ok(self.chats.ports.store.ancestors(descendant).await?) })
            .await?;
        if lineage.descends_from(self.chat) {
            return Ok(());
        }
        Err(KinError::NotADescendant(descendant))
    }

    fn check_stop(&self) -> Result<(), KinError> {
        self.run.stop_cause().map_or(Ok(()), |cause| Err(KinError::Stopped(cause)))
    }

    /// Tries again until storage answers, or the run has to stop.
    async fn insist<T, F>(&self, attempt: impl Fn() -> F + Send + Sync) -> Result<T, KinError>
    where
        F: Future<Output = Result<T, KinError>> + Send,
    {
        let mut retry = Retry::new(self.run);
        loop {
            self.check_stop()?;
            match attempt().await {
                Err(KinError::Store(error)) => retry.wait(error).await?,
                answered => return answered,
            }
        }
    }
}

fn kin_error(error: ApplyError) -> KinError {
    match error {
        // A child is put where its parent is.
        ApplyError::NotFound | ApplyError::NoWorkspace => KinError::NotFound,
        ApplyError::Refused(refused) => KinError::Refused(refused),
        ApplyError::Store(error) => KinError::Store(error),
        // Only an owner's write is.
        ApplyError::Fenced => KinError::Stopped(StopCause::Lost),
    }
}
