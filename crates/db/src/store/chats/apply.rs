//! What an event does to one chat: lock, facts, decision, writes, commit.

use musterbeat_core::chat::{Applied, Effects, Event, Facts, Named, Write, decide};
use musterbeat_core::id::{ChatId, MessageId, QueuedId, Version};
use musterbeat_core::message::{NewMessage, Role};
use musterbeat_core::port::{ApplyError, By, Reach};
use musterbeat_core::run::{Admission, RunKind, RunStatus};
use sqlx::{Connection, PgConnection};

use crate::chat_messages::Addition;
use crate::chats::{self, ChatFacts};
use crate::error::failed;
use crate::runs::{self, Locked, Rank, Transition};
use crate::{chat_messages, chat_queued_messages};

pub(super) const APPLY: &str = "change a chat";

pub(super) async fn apply(
    conn: &mut PgConnection,
    chat: ChatId,
    by: By,
    event: Event,
    queue_max: u32,
) -> Result<Applied, ApplyError> {
    let mut tx = conn.begin().await.map_err(failed(APPLY))?;
    let locked = match lock(&mut tx, chat, by).await? {
        Held::Mine(locked) => locked,
        Held::Repeated(locked) => return Ok(unchanged(chat, &locked)),
    };
    let (message, queued) = names(&event);
    let facts = chats::facts(&mut tx, &[chat], message, queued).await.map_err(failed(APPLY))?;
    let facts = facts.first().ok_or(ApplyError::NotFound)?;
    let Some(effects) = decide(&known(&locked, facts), event, queue_max)? else {
        return Ok(unchanged(chat, &locked));
    };
    let applied = carry_out(&mut tx, chat, &locked, effects, by).await.map_err(failed(APPLY))?;
    tx.commit().await.map_err(failed(APPLY))?;
    Ok(applied)
}

/// A chat's run under its lock.
pub(super) enum Held {
    /// Whoever changes it may.
    Mine(Locked),
    /// An owner's write that went ahead before.
    Repeated(Locked),
}

/// Locks a chat's run for whoever changes it.
pub(super) async fn lock(
    conn: &mut PgConnection,
    chat: ChatId,
    by: By,
) -> Result<Held, ApplyError> {
    let reach = match by {
        By::User(reach) => reach,
        By::Owner(_) | By::Ancestor => Reach::Everything,
    };
    let locked = runs::lock(conn, chat.into(), &RunKind::CHAT, reach)
        .await
        .map_err(failed(APPLY))?
        .ok_or(ApplyError::NotFound)?;
    let By::Owner(token) = by else { return Ok(Held::Mine(locked)) };
    match locked.ownership.admit(&token) {
        Admission::Write => Ok(Held::Mine(locked)),
        Admission::Repeated => Ok(Held::Repeated(locked)),
        Admission::Fenced => Err(ApplyError::Fenced),
    }
}

fn names(event: &Event) -> (Option<MessageId>, Option<QueuedId>) {
    match event {
        Event::Edit { message, .. } => (Some(*message), None),
        Event::Promote(queued) | Event::DeleteQueued(queued) => (None, Some(*queued)),
        _ => (None, None),
    }
}

/// Joins what was read of run and chat under the lock.
pub(super) fn known(locked: &Locked, facts: &ChatFacts) -> Facts {
    Facts {
        status: locked.status,
        stop: locked.stop,
        archived: facts.archived,
        is_child: facts.is_child,
        queued: facts.queued,
        open: facts.open.clone(),
        named: match facts.named_message {
            Some(role) => Some(Named::Message(role)),
            None => facts.named_queued.then_some(Named::Queued),
        },
    }
}

/// Says what is to be written of a decision to its run.
pub(super) fn transition(effects: &Effects, by: By) -> Transition {
    Transition {
        status: effects.status,
        stop: effects.stop,
        error: effects.error.clone(),
        fences: effects.fences,
        by_owner: matches!(by, By::Owner(_)),
        rank: if by == By::Ancestor { Rank::Head } else { Rank::Last },
    }
}

/// Says whether an owner has to stop, or lost the run.
pub(super) fn stops(locked: &Locked, effects: &Effects) -> bool {
    let interrupts =
        locked.status == RunStatus::Running && effects.status == RunStatus::Interrupting;
    locked.status.is_owned() && (interrupts || effects.fences)
}

/// Writes what was decided; the run's row is locked and `effects` were decided on what it said.
async fn carry_out(
    conn: &mut PgConnection,
    chat: ChatId,
    locked: &Locked,
    effects: Effects,
    by: By,
) -> sqlx::Result<Applied> {
    let transition = transition(&effects, by);
    let version = runs::write(conn, chat.into(), &transition, None).await?;
    let mut written =
        Written { chat, version, moves_up: effects.moves_up, queued: false, message: None };
    let (status, stops) = (effects.status, stops(locked, &effects));
    for write in effects.writes {
        written.write(conn, write).await?;
    }
    if written.moves_up {
        chats::touch(conn, chat, None).await?;
    }
    let step =
        if transition.by_owner { locked.ownership.step.next() } else { locked.ownership.step };
    Ok(Applied {
        chat,
        owner: locked.owner,
        version,
        status,
        step,
        queued: written.queued,
        message: written.message,
        stops,
        family: vec![],
    })
}

/// What has been written so far.
struct Written {
    chat: ChatId,
    version: Version,
    /// Whether the chat is still to move up: a statement that appends does it on the way.
    moves_up: bool,
    queued: bool,
    message: Option<MessageId>,
}

impl Written {
    async fn write(&mut self, conn: &mut PgConnection, write: Write) -> sqlx::Result<()> {
        let chat = self.chat;
        match write {
            Write::Truncate(first) => {
                chat_messages::delete(conn, chat, self.version, Some(first)).await?;
            }
            Write::Append(messages) => self.append(conn, &messages).await?,
            Write::Enqueue(turn) => {
                chat_queued_messages::append(conn, chat, &turn, None).await?;
                self.queued = true;
            }
            Write::PromoteHead => {
                let head = chat_queued_messages::pop_head(conn, chat).await?;
                let head = head.ok_or(sqlx::Error::RowNotFound)?;
                self.append(conn, &[head.into_message()]).await?;
            }
            Write::Promote(queued) => {
                let turn = chat_queued_messages::remove(conn, chat, queued).await?;
                let turn = turn.ok_or(sqlx::Error::RowNotFound)?;
                self.append(conn, &[turn.into_message()]).await?;
            }
            Write::MoveToHead(queued) => {
                chat_queued_messages::move_to_head(conn, chat, queued).await?;
            }
            Write::Unqueue(queued) => {
                chat_queued_messages::remove(conn, chat, queued).await?;
            }
            Write::ClearQueue => {
                chat_queued_messages::clear(conn, chat).await?;
            }
        }
        Ok(())
    }

    async fn append(
        &mut self,
        conn: &mut PgConnection,
        messages: &[NewMessage],
    ) -> sqlx::Result<()> {
        let (chat, version) = (self.chat, self.version);
        let additions: Vec<Addition<'_>> =
            messages.iter().map(|message| Addition { chat, version, message }).collect();
        let moved: &[ChatId] = if self.moves_up { &[chat] } else { &[] };
        let ids = chat_messages::append(conn, &additions, moved, None).await?;
        self.moves_up = false;
        let of_user = messages.iter().rposition(|message| message.role == Role::User);
        self.message = of_user.map(|place| ids[place]).or(self.message);
        Ok(())
    }
}

/// Returns what an event that changed nothing found.
pub(super) fn unchanged(chat: ChatId, locked: &Locked) -> Applied {
    Applied {
        chat,
        owner: locked.owner,
        version: locked.version,
        status: locked.status,
        step: locked.ownership.step,
        queued: false,
        message: None,
        stops: false,
        family: vec![],
    }
}
