//! Creating a chat, and what is done to a whole family: both begin with the root's run.

use std::collections::BTreeMap;

use musterbeat_core::chat::{
    Applied, Effects, Event, NewChat, Origin, QUEUE_MAX, Refused, SubagentPolicy, Write, decide,
    decide_member,
};
use musterbeat_core::id::{ChatId, RunId, Step, Version};
use musterbeat_core::lineage::{DEPTH_MAX, Lineage};
use musterbeat_core::message::NewMessage;
use musterbeat_core::port::{ApplyError, By, Reach};
use musterbeat_core::run::{RunKind, RunStatus};
use sqlx::{Connection, PgConnection};

use super::apply::{APPLY, Held, known, lock, stops, transition, unchanged};
use crate::chat_messages::{self, Addition};
use crate::chats::{self, Parent};
use crate::error::{failed, is_dangling};
use crate::runs::{self, Descent, Locked, Rank};

pub(super) const CREATE: &str = "create a chat";

/// The version of a chat that was created and nothing else.
const FIRST_VERSION: Version = Version(1);

pub(super) async fn create(
    conn: &mut PgConnection,
    chat: &NewChat,
    reach: Reach,
    policy: &SubagentPolicy,
) -> Result<Applied, ApplyError> {
    let mut tx = conn.begin().await.map_err(failed(CREATE))?;
    let mut parent = None;
    if let Some(of) = chat.parent {
        // Whatever became of its parent since: a chat that is there was created.
        if let Some(locked) = held(&mut tx, chat.id, reach).await? {
            return Ok(unchanged(chat.id, &locked));
        }
        if chat.limits.is_any() {
            return Err(Refused::LimitsOfChild.into());
        }
        let held = held_parent(&mut tx, of, reach).await?;
        if chat.origin == Origin::Spawned {
            admit(&mut tx, &held, policy).await?;
        }
        parent = Some(held);
    }
    if insert(&mut tx, chat, parent.as_ref()).await.map_err(unplaced(CREATE))? {
        tx.commit().await.map_err(failed(CREATE))?;
        return Ok(first_applied(chat, parent.as_ref()));
    }
    let locked = held(&mut tx, chat.id, reach).await?.ok_or(ApplyError::NotFound)?;
    Ok(unchanged(chat.id, &locked))
}

/// Tells what a statement failed of that puts a chat in a workspace.
pub(super) fn unplaced(operation: &'static str) -> impl Fn(sqlx::Error) -> ApplyError {
    move |error| {
        if is_dangling(&error) { ApplyError::NoWorkspace } else { failed(operation)(error).into() }
    }
}

async fn held(
    conn: &mut PgConnection,
    chat: ChatId,
    reach: Reach,
) -> Result<Option<Locked>, ApplyError> {
    let locked = runs::lock(conn, chat.into(), &RunKind::CHAT, reach).await;
    Ok(locked.map_err(failed(CREATE))?)
}

/// Refuses a spawned child that the limits of its family do not allow.
///
/// The root's run is locked, so nobody else adds to the family until the end of the transaction.
async fn admit(
    conn: &mut PgConnection,
    held: &HeldParent,
    policy: &SubagentPolicy,
) -> Result<(), ApplyError> {
    let bounds = policy.of(held.parent.limits);
    let count = runs::at_work(conn, held.parent.root.into(), bounds.at_work_max);
    let at_work = count.await.map_err(failed(CREATE))?;
    Ok(bounds.admit(held.lineage.ancestors.len(), at_work)?)
}

/// A parent whose root's run is locked.
struct HeldParent {
    parent: Parent,
    lineage: Lineage,
}

/// Returns what a child takes from its parent, with the root's run locked.
///
/// Archiving locks that run first, so a child comes before it, and is archived, or is refused.
async fn held_parent(
    conn: &mut PgConnection,
    parent: ChatId,
    reach: Reach,
) -> Result<HeldParent, ApplyError> {
    let found = chats::parent(conn, parent, reach).await.map_err(failed(CREATE))?;
    let root = found.ok_or(ApplyError::NotFound)?.root;
    held(conn, root, reach).await?;
    let found = chats::parent(conn, parent, reach).await.map_err(failed(CREATE))?;
    let found = found.ok_or(ApplyError::NotFound)?;
    if found.archived {
        return Err(Refused::ParentArchived.into());
    }
    let lineage = chats::ancestors(conn, parent).await.map_err(failed(CREATE))?;
    if !lineage.has_room() {
        return Err(Refused::TooDeep { depth_max: DEPTH_MAX }.into());
    }
    Ok(HeldParent { parent: found, lineage })
}

async fn insert(
    conn: &mut PgConnection,
    chat: &NewChat,
    held: Option<&HeldParent>,
) -> sqlx::Result<bool> {
    let parent = held.map(|held| &held.parent);
    let owner = parent.map_or(chat.owner, |parent| parent.owner);
    let ancestors = held.map_or(0, |held| held.lineage.ancestors.len() + 1);
    let descent = Descent {
        family: parent.map(|parent| parent.root.into()),
        depth: u32::try_from(ancestors).unwrap_or(u32::MAX),
        rank: if chat.origin == Origin::Spawned { Rank::Head } else { Rank::Last },
    };
    let (run, kind) = (RunId::from(chat.id), RunKind::CHAT);
    if !runs::insert_within(conn, run, &kind, owner, descent, None).await? {
        return Ok(false);
    }
    chats::insert(conn, chat, parent, None).await?;
    let first = chat.turn.clone().into_message();
    let additions: Vec<Addition<'_>> = chat
        .preamble
        .iter()
        .chain([&first])
        .map(|message| Addition { chat: chat.id, version: FIRST_VERSION, message })
        .collect();
    chat_messages::append(conn, &additions, &[], None).await?;
    Ok(true)
}

fn first_applied(chat: &NewChat, held: Option<&HeldParent>) -> Applied {
    Applied {
        chat: chat.id,
        owner: held.map_or(chat.owner, |held| held.parent.owner),
        version: FIRST_VERSION,
        status: RunStatus::Pending,
        step: Step(0),
        queued: false,
        message: None,
        stops: false,
        family: vec![],
    }
}

/// Archives or unarchives a root and all that descend from it.
///
/// The root's run is locked first and the family listed by a later statement, which sees every
/// child that came before; then all of them are locked in the order of their ids.
pub(super) async fn archive(
    conn: &mut PgConnection,
    root: ChatId,
    by: By,
    event: Event,
) -> Result<Applied, ApplyError> {
    let mut tx = conn.begin().await.map_err(failed(APPLY))?;
    let locked = match lock(&mut tx, root, by).await? {
        Held::Mine(locked) => locked,
        Held::Repeated(locked) => return Ok(unchanged(root, &locked)),
    };
    let members = chats::members(&mut tx, root).await.map_err(failed(APPLY))?;
    let runs: Vec<RunId> = members.iter().copied().map(RunId::from).collect();
    let held = runs::lock_all(&mut tx, &runs, &RunKind::CHAT).await.map_err(failed(APPLY))?;
    let held: BTreeMap<RunId, Locked> = held.into_iter().collect();
    let mut decided = Vec::new();
    for facts in chats::facts(&mut tx, &members, None, None).await.map_err(failed(APPLY))? {
        let Some(locked) = held.get(&facts.chat.into()) else { continue };
        let decide = if facts.chat == root { decide } else { decide_member };
        if let Some(effects) = decide(&known(locked, &facts), event.clone(), QUEUE_MAX)? {
            decided.push(Member { chat: facts.chat, locked, effects });
        }
    }
    if decided.is_empty() {
        return Ok(unchanged(root, &locked));
    }
    carry_out(&mut tx, &decided, by, event == Event::Archive).await.map_err(failed(APPLY))?;
    tx.commit().await.map_err(failed(APPLY))?;
    Ok(applied(root, &locked, &decided))
}

/// One of a family, with what was decided for it.
struct Member<'a> {
    chat: ChatId,
    locked: &'a Locked,
    effects: Effects,
}

/// Writes what was decided for a family, each table in one statement.
async fn carry_out(
    conn: &mut PgConnection,
    members: &[Member<'_>],
    by: By,
    archived: bool,
) -> sqlx::Result<()> {
    let transitions: Vec<_> = members
        .iter()
        .map(|member| (member.chat.into(), transition(&member.effects, by)))
        .collect();
    runs::write_all(conn, &transitions).await?;
    let chats: Vec<ChatId> = members.iter().map(|member| member.chat).collect();
    chats::set_archived(conn, &chats, archived, None).await?;
    let additions: Vec<Addition<'_>> = members
        .iter()
        .flat_map(|member| {
            let version = Version(member.locked.version.0 + 1);
            let appended = member.effects.writes.iter().flat_map(appended);
            appended.map(move |message| Addition { chat: member.chat, version, message })
        })
        .collect();
    if !additions.is_empty() {
        chat_messages::append(conn, &additions, &[], None).await?;
    }
    Ok(())
}

/// Returns the messages of a write; archiving only answers what is open.
fn appended(write: &Write) -> &[NewMessage] {
    match write {
        Write::Append(messages) => messages,
        _ => &[],
    }
}

fn applied(root: ChatId, locked: &Locked, members: &[Member<'_>]) -> Applied {
    let others = members.iter().map(|member| member.chat).filter(|chat| *chat != root);
    let mut applied = Applied { family: others.collect(), ..unchanged(root, locked) };
    applied.stops = members.iter().any(|member| stops(member.locked, &member.effects));
    if let Some(own) = members.iter().find(|member| member.chat == root) {
        applied.status = own.effects.status;
        applied.version = Version(locked.version.0 + 1);
    }
    applied
}
