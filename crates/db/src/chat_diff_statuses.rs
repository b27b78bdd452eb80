//! The tables `chat_diff_statuses` and `git_host_limits`.

use std::time::Duration;

use musterbeat_core::diff::{BranchState, ChatDiff, DiffStatus, Reference};
use musterbeat_core::id::{ChatId, OwnerId};
use musterbeat_core::port::{DiffTarget, Reach};
use musterbeat_core::refresh::{BATCH_MAX, HostLimit, LEASE, Refreshed, StaleDiff};
use musterbeat_core::timestamp::Timestamp;
use serde::Serialize;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::runs::owner_of;

struct DiffRow {
    chat_id: Uuid,
    owner_id: Uuid,
    url: Option<String>,
    git_branch: String,
    git_remote_origin: String,
    told: Option<Json<DiffStatus>>,
    problem: Option<String>,
    refreshed_at: Option<OffsetDateTime>,
    stale_at: Option<OffsetDateTime>,
}

/// Selects what readers are shown of branches; the rest of the statement follows.
macro_rules! select_diffs {
    ($rest:literal, $($argument:expr),+ $(,)?) => {
        sqlx::query_as!(
            DiffRow,
            r#"
                select chat_id, owner_id, url, git_branch, git_remote_origin,
                       told as "told: Json<DiffStatus>", problem, refreshed_at, stale_at
                from chat_diff_statuses
            "# + $rest,
            $($argument),+
        )
    };
}

impl From<DiffRow> for ChatDiff {
    fn from(row: DiffRow) -> Self {
        Self {
            chat: ChatId::new(row.chat_id),
            owner: OwnerId::new(row.owner_id),
            reference: Reference {
                url: row.url,
                branch: row.git_branch,
                origin: row.git_remote_origin,
            },
            status: row.told.map(|told| told.0),
            problem: row.problem,
            refreshed_at: row.refreshed_at.map(Timestamp::new),
            stale_at: row.stale_at.map(Timestamp::new),
        }
    }
}

/// Returns what is stored of chats within reach, in no order.
pub async fn read(
    conn: &mut PgConnection,
    chats: &[ChatId],
    reach: Reach,
) -> sqlx::Result<Vec<ChatDiff>> {
    let chats: Vec<Uuid> = chats.iter().map(|chat| chat.uuid()).collect();
    let query = select_diffs!(
        "where chat_id = any ($1) and ($2::uuid is null or owner_id = $2)",
        &chats,
        owner_of(reach),
    );
    Ok(query.fetch_all(conn).await?.into_iter().map(ChatDiff::from).collect())
}

/// Returns what changed of an owner's branches in a transaction from `mark` on, the latest first.
///
/// Call it in the snapshot in which the next mark is taken.
pub async fn changed(
    conn: &mut PgConnection,
    owner: OwnerId,
    mark: i64,
    limit: u32,
) -> sqlx::Result<Vec<ChatDiff>> {
    let query = select_diffs!(
        r#"
            where owner_id = $1
              and changed_in >= $2
              and changed_in < pg_snapshot_xmax(pg_current_snapshot())::text::bigint
            order by changed_in desc, chat_id
            limit $3
        "#,
        owner.uuid(),
        mark,
        i64::from(limit),
    );
    Ok(query.fetch_all(conn).await?.into_iter().map(ChatDiff::from).collect())
}

/// Makes chats stale and keeps what `reference` says of them; returns them with their owners.
///
/// A change of branch, origin or pull request ends a lease, since what is asked is out of date.
pub async fn mark(
    conn: &mut PgConnection,
    target: DiffTarget,
    reach: Reach,
    reference: &Reference,
    now: Option<Timestamp>,
) -> sqlx::Result<Vec<(ChatId, OwnerId)>> {
    let (chat, workspace) = ids(target);
    let marked = sqlx::query_as!(
        OwnedRow,
        r#"
            insert into chat_diff_statuses as d
                (chat_id, owner_id, url, git_branch, git_remote_origin, stale_at, marked_at)
            select id, owner_id, $4, $5, $6,
                   coalesce($7::timestamptz, now()) - interval '1 second',
                   coalesce($7, now())
            from chats
            where (id = $1 or workspace_id = $2)
              and ($3::uuid is null or owner_id = $3)
              and ($1 is not null or not exists (
                  select from chat_diff_statuses there
                  where there.chat_id = chats.id
                    and there.git_branch <> ''
                    and (there.git_branch, there.git_remote_origin) is distinct from ($5, $6)
              ))
            -- Rows of several chats are locked in one order by all who do.
            order by id
            on conflict (chat_id) do update
            set (url, git_branch, git_remote_origin, told, problem, failures, refreshed_at, fence,
                 changed_in) = (
                    select case when other.is_branch then excluded.url
                                else coalesce(excluded.url, d.url) end,
                           coalesce(nullif(excluded.git_branch, ''), d.git_branch),
                           coalesce(nullif(excluded.git_remote_origin, ''), d.git_remote_origin),
                           case when other.is_any then null else d.told end,
                           case when other.is_any then null else d.problem end,
                           case when other.is_any then 0 else d.failures end,
                           case when other.is_any then null else d.refreshed_at end,
                           d.fence + other.is_any::integer,
                           case when other.is_any then excluded.changed_in else d.changed_in end
                    from (
                        select is_branch,
                               is_branch or coalesce(excluded.url <> d.url, excluded.url is not null)
                                   as is_any
                        from (
                            select (excluded.git_branch not in ('', d.git_branch)
                                 or excluded.git_remote_origin not in ('', d.git_remote_origin))
                                    as is_branch
                        ) as branch
                    ) as other
                ),
                marks = d.marks + 1,
                stale_at = excluded.stale_at,
                marked_at = excluded.marked_at,
                updated_at = excluded.marked_at
            returning chat_id, owner_id
        "#,
        chat,
        workspace,
        owner_of(reach),
        reference.url,
        reference.branch,
        reference.origin,
        now.map(Timestamp::time),
    );
    Ok(owned(marked.fetch_all(conn).await?))
}

/// Returns the chat or the workspace that is meant.
const fn ids(target: DiffTarget) -> (Option<Uuid>, Option<Uuid>) {
    match target {
        DiffTarget::Chat(chat) => (Some(chat.uuid()), None),
        DiffTarget::Workspace(workspace) => (None, Some(workspace.uuid())),
    }
}

/// A chat with its owner, who is to be told.
struct OwnedRow {
    chat_id: Uuid,
    owner_id: Uuid,
}

fn owned(rows: Vec<OwnedRow>) -> Vec<(ChatId, OwnerId)> {
    let owned = |row: OwnedRow| (ChatId::new(row.chat_id), OwnerId::new(row.owner_id));
    rows.into_iter().map(owned).collect()
}

struct StaleRow {
    chat_id: Uuid,
    owner_id: Uuid,
    url: Option<String>,
    git_branch: String,
    git_remote_origin: String,
    state: Option<String>,
    failures: i32,
    marked_seconds: f64,
    limited_seconds: Option<f64>,
    fence: i64,
    marks: i64,
}

impl From<StaleRow> for StaleDiff {
    fn from(row: StaleRow) -> Self {
        let states = [BranchState::Open, BranchState::Closed, BranchState::Merged];
        Self {
            chat: ChatId::new(row.chat_id),
            owner: OwnerId::new(row.owner_id),
            reference: Reference {
                url: row.url,
                branch: row.git_branch,
                origin: row.git_remote_origin,
            },
            state: row.state.and_then(|word| states.into_iter().find(|it| it.as_str() == word)),
            failures: row.failures.cast_unsigned(),
            marked_ago: seconds(row.marked_seconds),
            limited: row.limited_seconds.map(seconds),
            fence: row.fence,
            marks: row.marks,
        }
    }
}

/// A clock that went back makes an age of less than nothing.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// Leases up to `batch` stale branches, the stalest first, with others that the same questions
/// answer.
///
/// Only their own rows are locked; what somebody holds locked is passed over.
pub async fn acquire_stale(
    conn: &mut PgConnection,
    batch: u32,
    now: Option<Timestamp>,
) -> sqlx::Result<Vec<StaleDiff>> {
    let query = sqlx::query_as!(
        StaleRow,
        r#"
            with clock as materialized (
                select coalesce($3::timestamptz, now()) as now
            ), seeds as materialized (
                select d.question, d.owner_id
                from chat_diff_statuses d
                where d.git_branch <> ''
                  and d.git_remote_origin <> ''
                  and d.stale_at <= (select now from clock)
                  and not exists (select from chats where id = d.chat_id and archived)
                  and not exists (
                      select from git_host_limits l
                      where l.owner_id = d.owner_id
                        and l.origin = d.git_remote_origin
                        and l.until > (select now from clock)
                  )
                order by d.stale_at
                limit $1
                for no key update of d skip locked
            ), questions as materialized (
                select distinct question, owner_id from seeds
            ), picked as materialized (
                select d.chat_id
                from questions
                join chat_diff_statuses d using (question, owner_id)
                where d.git_branch <> ''
                  and d.git_remote_origin <> ''
                  and d.stale_at <= (select now from clock)
                  and not exists (select from chats where id = d.chat_id and archived)
                order by d.stale_at
                limit $2
                for no key update of d skip locked
            )
            update chat_diff_statuses d
            set stale_at = (select now from clock) + $4 * interval '1 second',
                fence = fence + 1
            where chat_id = any (array(select chat_id from picked))
            returning chat_id, owner_id, url, git_branch, git_remote_origin, state, failures,
                      extract(epoch from (select now from clock) - marked_at)::double precision
                          as "marked_seconds!",
                      null::double precision as limited_seconds,
                      fence, marks
        "#,
        i64::from(batch),
        i64::from(BATCH_MAX),
        now.map(Timestamp::time),
        LEASE.as_secs_f64(),
    );
    Ok(query.fetch_all(conn).await?.into_iter().map(StaleDiff::from).collect())
}

/// Leases a chat's branch, stale or not, from whoever has it.
pub async fn acquire_one(
    conn: &mut PgConnection,
    chat: ChatId,
    reach: Reach,
    now: Option<Timestamp>,
) -> sqlx::Result<Option<StaleDiff>> {
    let query = sqlx::query_as!(
        StaleRow,
        r#"
            update chat_diff_statuses d
            set stale_at = coalesce($3::timestamptz, now()) + $4 * interval '1 second',
                fence = fence + 1
            where chat_id = $1
              and ($2::uuid is null or owner_id = $2)
              and git_branch <> ''
              and git_remote_origin <> ''
            returning chat_id, owner_id, url, git_branch, git_remote_origin, state, failures,
                      extract(epoch from coalesce($3, now()) - marked_at)::double precision
                          as "marked_seconds!",
                      (
                          select extract(epoch from l.until - coalesce($3, now()))
                          from git_host_limits l
                          where l.owner_id = d.owner_id
                            and l.origin = d.git_remote_origin
                            and l.until > coalesce($3, now())
                      )::double precision as limited_seconds,
                      fence, marks
        "#,
        chat.uuid(),
        owner_of(reach),
        now.map(Timestamp::time),
        LEASE.as_secs_f64(),
    );
    Ok(query.fetch_optional(conn).await?.map(StaleDiff::from))
}

#[derive(Serialize)]
struct RefreshedRow<'a> {
    chat_id: Uuid,
    fence: i64,
    marks: i64,
    asked: bool,
    url: Option<&'a str>,
    told: Option<&'a DiffStatus>,
    problem: Option<&'a str>,
    failures: u32,
    again: Option<f64>,
}

#[derive(Serialize)]
struct LimitRow<'a> {
    owner_id: Uuid,
    origin: &'a str,
    wait: f64,
}

/// Writes what was found under leases that still hold, and which hosts want to be left alone;
/// returns what readers see changed.
///
/// Who marked in between is seen by the count of marks: what they made stale stays so.
pub async fn write(
    conn: &mut PgConnection,
    refreshed: &[Refreshed],
    limits: &[HostLimit],
    now: Option<Timestamp>,
) -> sqlx::Result<Vec<(ChatId, OwnerId)>> {
    let rows: Vec<RefreshedRow<'_>> = refreshed.iter().map(RefreshedRow::from).collect();
    let limits: Vec<LimitRow<'_>> = limits.iter().map(LimitRow::from).collect();
    let changed = sqlx::query_as!(
        OwnedRow,
        r#"
            with clock as materialized (
                select coalesce($3::timestamptz, now()) as now
            ), found as materialized (
                select * from jsonb_to_recordset($1::jsonb) as found
                    (chat_id uuid, fence bigint, marks bigint, asked boolean, url text, told jsonb, problem text,
                     failures integer, again double precision)
            ), limited as materialized (
                select owner_id, origin, now + wait * interval '1 second' as until
                from clock, jsonb_to_recordset($2::jsonb) as limited
                    (owner_id uuid, origin text, wait double precision)
            ), kept as (
                insert into git_host_limits as l (owner_id, origin, until)
                select owner_id, origin, until from limited order by owner_id, origin
                on conflict (owner_id, origin) do update set until = greatest(l.until, excluded.until)
            ), forgotten as (
                delete from git_host_limits l
                where until < (select now from clock)
                  and (owner_id, origin) not in (select owner_id, origin from limited)
            ), locked as materialized (
                select chat_id
                from chat_diff_statuses
                where chat_id in (select chat_id from found)
                order by chat_id
                for no key update
            ), written as (
                update chat_diff_statuses d
                set url = coalesce(found.url, d.url),
                    told = coalesce(found.told, d.told),
                    problem = case when found.asked then found.problem else d.problem end,
                    failures = found.failures,
                    refreshed_at =
                        case when found.told is null then d.refreshed_at else clock.now end,
                    updated_at = clock.now,
                    stale_at =
                        case when found.marks = d.marks
                             then clock.now + found.again * interval '1 second'
                             else d.stale_at end,
                    changed_in =
                        case when (d.url, d.told, d.problem) is distinct from
                                  (coalesce(found.url, d.url), coalesce(found.told, d.told),
                                   case when found.asked then found.problem else d.problem end)
                             then pg_current_xact_id()::text::bigint
                             else d.changed_in end
                from found, clock
                where d.chat_id = found.chat_id
                  and d.fence = found.fence
                  and d.chat_id = any (array(select chat_id from locked))
                returning d.chat_id, d.owner_id,
                          d.changed_in = pg_current_xact_id()::text::bigint as is_changed
            )
            select chat_id, owner_id from written where is_changed
        "#,
        Json(&rows) as _,
        Json(&limits) as _,
        now.map(Timestamp::time),
    );
    Ok(owned(changed.fetch_all(conn).await?))
}

impl<'a> From<&'a Refreshed> for RefreshedRow<'a> {
    fn from(refreshed: &'a Refreshed) -> Self {
        let told = refreshed.status.as_ref();
        Self {
            chat_id: refreshed.chat.uuid(),
            fence: refreshed.fence,
            marks: refreshed.marks,
            asked: refreshed.asked,
            url: told.and_then(|told| told.pull.as_ref()).map(|pull| pull.url.as_str()),
            told,
            problem: refreshed.problem.as_deref(),
            failures: refreshed.failures,
            again: refreshed.again.map(|again| again.as_secs_f64()),
        }
    }
}

impl<'a> From<&'a HostLimit> for LimitRow<'a> {
    fn from(limit: &'a HostLimit) -> Self {
        let HostLimit { owner, origin, wait } = limit;
        Self { owner_id: owner.uuid(), origin, wait: wait.as_secs_f64() }
    }
}
