//! Every pair of state and event through the store, against the table of `core`.

use std::time::Duration;

use musterbeat_core::chat::Event;
use musterbeat_core::chat::table::{Happening, Outcome, State, outcome};
use musterbeat_core::id::{ChatId, MessageId, QueuedId};
use musterbeat_core::message::{Content, NewMessage};
use musterbeat_core::port::{ApplyError, By, ChatReader, ChatStore, LeaseStore, Reach, RunStore};
use musterbeat_core::run::{Run, RunStatus};
use sqlx::Row;

use crate::setup::{Fixture, owner, send, turn};

const ANYBODY: By = By::User(Reach::Everything);

/// A chat that was brought into a state, by events alone.
struct Stage<'a> {
    fixture: &'a Fixture,
    chat: ChatId,
    run: Option<Run>,
}

/// What the tables say of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    status: String,
    stop: bool,
    archived: bool,
    queued: i64,
    messages: i64,
    fence: i64,
    step: i64,
    version: i64,
    has_error: bool,
}

impl<'a> Stage<'a> {
    async fn set(fixture: &'a Fixture, id: u128, state: State) -> Self {
        let chat = fixture.chat(id, owner(1)).await;
        let mut stage = Self { fixture, chat, run: None };
        if state.queued {
            stage.user(send("queued")).await;
        }
        match state.status {
            RunStatus::Pending if !state.stop => {}
            RunStatus::Pending => {
                stage.claim().await;
                stage.user(Event::Interrupt).await;
                stage.release().await;
                stage.run = None;
            }
            RunStatus::Running => stage.claim().await,
            RunStatus::Interrupting => {
                stage.claim().await;
                stage.user(Event::Interrupt).await;
            }
            RunStatus::Waiting => {
                stage.claim().await;
                let finish = Event::FinishTurn { answer: vec![], draining: false };
                stage.owner(finish).await.unwrap();
                stage.run = None;
            }
            RunStatus::Error => {
                stage.claim().await;
                stage.owner(Event::FinishError { error: "broken".to_owned() }).await.unwrap();
                stage.run = None;
            }
        }
        if state.archived {
            stage.user(Event::Archive).await;
        }
        stage
    }

    async fn user(&self, event: Event) {
        self.fixture.store.apply(self.chat, ANYBODY, event).await.unwrap();
    }

    async fn owner(&self, event: Event) -> Result<(), ApplyError> {
        let token = self.run.as_ref().expect("it was claimed").token;
        self.fixture.store.apply(self.chat, By::Owner(token), event).await.map(drop)
    }

    async fn claim(&mut self) {
        let worker = self.fixture.worker(self.chat.uuid().as_u128()).await;
        let claimed = self.fixture.claim(worker, 10).await;
        self.run = claimed.into_iter().find(|run| run.id == self.chat.into());
    }

    async fn release(&self) {
        let run = self.run.as_ref().expect("it was claimed");
        let named = [(run.id, run.token.fence)];
        let released = self.fixture.store.release(run.token.worker, &named, Duration::ZERO).await;
        assert_eq!(released.unwrap().len(), 1);
    }

    async fn stored(&self) -> Stored {
        let row = sqlx::query(
            "select status::text, stop and status = 'pending' as stop, archived, fence, step, version,
                    error is not null as has_error,
                    (select count(*) from chat_queued_messages where chat_id = chats.id) as queued,
                    (select count(*) from chat_messages where chat_id = chats.id and not deleted) as messages
             from runs join chats on chats.id = run_id where run_id = $1",
        )
        .bind(self.chat.uuid())
        .fetch_one(&self.fixture.pool)
        .await
        .unwrap();
        Stored {
            status: row.get("status"),
            stop: row.get("stop"),
            archived: row.get("archived"),
            queued: row.get("queued"),
            messages: row.get("messages"),
            fence: row.get("fence"),
            step: row.get("step"),
            version: row.get("version"),
            has_error: row.get("has_error"),
        }
    }

    /// Has it happen; `Err` says how it was refused.
    async fn happen(&mut self, happening: Happening) -> Result<(), String> {
        let (message, queued) = self.named().await;
        let answer = vec![NewMessage::answer(Content::text("answer").unwrap(), None)];
        let Some(event) = happening.event(turn("asked"), message, queued, answer) else {
            return self.moved(happening).await;
        };
        let by_owner = matches!(
            event,
            Event::Step(_)
                | Event::FinishTurn { .. }
                | Event::FinishInterrupt { .. }
                | Event::FinishError { .. }
        );
        let applied = match (&self.run, by_owner) {
            (Some(run), true) => {
                self.fixture.store.apply(self.chat, By::Owner(run.token), event).await
            }
            // Nobody owns it: the state is asked all the same.
            _ => self.fixture.store.apply(self.chat, ANYBODY, event).await,
        };
        applied.map(drop).map_err(|error| error.to_string())
    }

    async fn moved(&mut self, happening: Happening) -> Result<(), String> {
        match (happening, &self.run) {
            (Happening::Claim, _) => {
                let worker = self.fixture.worker(9_999).await;
                self.fixture.claim(worker, 10).await;
            }
            (Happening::Release, Some(run)) if run.token.fence.0 > 0 => {
                let named = [(run.id, run.token.fence)];
                let store = &self.fixture.store;
                store.release(run.token.worker, &named, Duration::ZERO).await.unwrap();
            }
            (Happening::Poison, Some(run)) => {
                sqlx::query("update worker_leases set dead = true where worker_id = $1")
                    .bind(run.token.worker.uuid())
                    .execute(&self.fixture.pool)
                    .await
                    .unwrap();
                self.fixture.store.requeue(1).await.unwrap();
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the first message and the head of the queue.
    async fn named(&self) -> (MessageId, QueuedId) {
        let changes = self.fixture.store.changes(self.chat, Reach::Everything, None).await;
        let changes = changes.unwrap().unwrap();
        let queued = changes.queue.first().map_or(QueuedId(0), |queued| queued.id);
        (changes.messages[0].id, queued)
    }

    async fn end(self) {
        sqlx::query(
            "update runs set status = 'waiting', worker_id = null, error = null where run_id = $1",
        )
        .bind(self.chat.uuid())
        .execute(&self.fixture.pool)
        .await
        .unwrap();
    }
}

async fn walk(state: State) {
    let fixture = Fixture::new().await;
    for (id, happening) in (1..).zip(Happening::ALL) {
        let mut stage = Stage::set(&fixture, id, state).await;
        let before = stage.stored().await;
        let expected = outcome(state, happening);
        let happened = stage.happen(happening).await;
        let after = stage.stored().await;
        let pair = format!("{state}: {}", happening.name());
        assert_eq!(before.status, state.status.as_str(), "{pair}");
        match expected {
            Outcome::Never | Outcome::Unchanged => {
                assert_eq!(happened, Ok(()), "{pair}");
                assert_eq!(after, before, "{pair}");
            }
            Outcome::Refused(refused) => {
                // An owner's event on a chat that it owns no more is refused before its state is.
                let fenced = "the chat's run is owned by somebody else".to_owned();
                let refused = [Err(refused.to_string()), Err(fenced)];
                assert!(refused.contains(&happened), "{pair}: {happened:?}");
                assert_eq!(after, before, "{pair}");
            }
            Outcome::Changed(effects) => {
                assert_eq!(happened, Ok(()), "{pair}");
                let facts = musterbeat_core::chat::table::after(&state.facts(1), &effects);
                assert_eq!(after.status, effects.status.as_str(), "{pair}");
                let stop = facts.stop && facts.status == RunStatus::Pending;
                assert_eq!((after.stop, after.archived), (stop, facts.archived), "{pair}");
                assert_eq!(after.queued, i64::from(facts.queued), "{pair}");
                assert_eq!(after.fence - before.fence, i64::from(effects.fences), "{pair}");
                assert_eq!(after.version - before.version, 1, "{pair}: one version a change");
                assert_eq!(after.has_error, effects.status == RunStatus::Error, "{pair}");
                assert_eq!(after.messages - before.messages, appended(&effects), "{pair}");
            }
        }
        stage.end().await;
    }
}

/// Returns how many messages more there are; what is edited here is the first.
fn appended(effects: &musterbeat_core::chat::Effects) -> i64 {
    use musterbeat_core::chat::Write;
    let writes = effects.writes.iter().map(|write| match write {
        Write::Append(messages) => i64::try_from(messages.len()).unwrap(),
        Write::PromoteHead | Write::Promote(_) => 1,
        Write::Truncate(_) => -1,
        _ => 0,
    });
    writes.sum()
}

macro_rules! states {
    ($($name:ident: $index:literal),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                walk(State::ALL[$index]).await;
            }
        )+

        #[test]
        fn every_state_is_walked() {
            assert_eq!([$($index),+].len(), State::ALL.len());
        }
    };
}

states! {
    waiting: 0,
    pending: 1,
    pending_queued: 2,
    pending_to_be_stopped: 3,
    pending_to_be_stopped_queued: 4,
    running: 5,
    running_queued: 6,
    interrupting: 7,
    interrupting_queued: 8,
    error: 9,
    error_queued: 10,
    waiting_archived: 11,
    error_archived: 12,
    error_queued_archived: 13,
}
