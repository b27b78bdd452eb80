//! What the tables say about chats and their families.

use anyhow::{Context, Result};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::statements::own;

/// How the runs of families stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Parents and children that have nothing to do, and did not fail.
    pub(super) parents_at_rest: u64,
    pub(super) children_at_rest: u64,
    /// Chats that wait for a worker or are with one.
    pub(super) busy: u64,
    pub(super) failed: u64,
}

/// A chat of a family, at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: Uuid,
    pub(super) parent: Option<Uuid>,
    pub(super) status: String,
    pub(super) error: Option<String>,
    pub(super) fence: i64,
    /// Who said something, in its order.
    pub(super) roles: Vec<String>,
    /// The last answer, as JSON.
    pub(super) answer: String,
}

/// Asks on a connection of its own.
pub(super) struct Ledger(PgConnection);

impl Ledger {
    pub(super) fn new(conn: PgConnection) -> Self {
        Self(conn)
    }

    pub(super) fn conn(&mut self) -> &mut PgConnection {
        &mut self.0
    }

    /// Returns how the families of `parents` stand.
    pub(super) async fn standing(&mut self, parents: &[Uuid]) -> Result<Standing> {
        let query = own!(
            "count(*) filter (where parent_id is null and status = 'waiting'),
                count(*) filter (where parent_id is not null and status = 'waiting'),
                count(*) filter (where status in ('pending', 'running', 'interrupting')),
                count(*) filter (where status = 'error')
            from chats
            join runs on run_id = id
            where id = any ($1) or parent_id = any ($1)"
        );
        let row = sqlx::query(query).bind(parents).fetch_one(&mut self.0).await;
        let row = row.context("failed to look how the chats stand")?;
        Ok(Standing {
            parents_at_rest: count(row.try_get(0)?),
            children_at_rest: count(row.try_get(1)?),
            busy: count(row.try_get(2)?),
            failed: count(row.try_get(3)?),
        })
    }

    /// Returns all chats of the families of `parents`.
    pub(super) async fn members(&mut self, parents: &[Uuid]) -> Result<Vec<Member>> {
        let query = own!(
            "id, parent_id, status::text, error, fence,
                array(
                    select role::text from chat_messages
                    where chat_id = chats.id and not deleted order by id
                ),
                coalesce((
                    select content::text from chat_messages
                    where chat_id = chats.id and role = 'assistant' and not deleted
                    order by id desc limit 1
                ), '')
            from chats
            join runs on run_id = id
            where id = any ($1) or parent_id = any ($1)
            order by id"
        );
        let rows = sqlx::query(query).bind(parents).fetch_all(&mut self.0).await;
        let rows = rows.context("failed to read the families")?;
        let member = |row: &sqlx::postgres::PgRow| {
            Ok(Member {
                id: row.try_get(0)?,
                parent: row.try_get(1)?,
                status: row.try_get(2)?,
                error: row.try_get(3)?,
                fence: row.try_get(4)?,
                roles: row.try_get(5)?,
                answer: row.try_get(6)?,
            })
        };
        rows.iter().map(member).collect()
    }

    /// Says whether the lease of the replica called `name` is dead or gone.
    pub(super) async fn is_dead(&mut self, name: &str) -> Result<bool> {
        let query = own!("not exists (select from worker_leases where name = $1 and not dead)");
        let dead = sqlx::query_scalar(query).bind(name).fetch_one(&mut self.0).await;
        dead.context("failed to look at a lease")
    }

    /// Returns how many messages a chat has once it is at rest with the last of them an answer,
    /// and how long its turn took by the database's clock.
    pub(super) async fn answered(&mut self, chat: Uuid) -> Result<Option<(u64, f64)>> {
        let query = own!(
            "count(*), extract(epoch from max(created_at) - min(started_at))::float8
            from runs
            join chat_messages on chat_id = run_id and not deleted
            where run_id = $1 and status = 'waiting'"
        );
        let row = sqlx::query(query).bind(chat).fetch_one(&mut self.0).await;
        let row = row.context("failed to look at a chat")?;
        let seconds: Option<f64> = row.try_get(1)?;
        Ok(seconds.map(|seconds| (count(row.try_get(0).unwrap_or(0)), seconds)))
    }

    /// Repeats what was said in a chat until it has `length` messages.
    pub(super) async fn lengthen(&mut self, chat: Uuid, length: i64) -> Result<()> {
        let query = "
            insert /* bench */ into chat_messages (chat_id, version, role, content, visibility)
            select chat_id, version, role, content, visibility
            from generate_series(2, $2 / 2) as copy
            cross join (select * from chat_messages where chat_id = $1) as said
            order by copy, said.id";
        let lengthened = sqlx::query(query).bind(chat).bind(length).execute(&mut self.0).await;
        lengthened.context("failed to make a history longer")?;
        Ok(())
    }
}

fn count(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
