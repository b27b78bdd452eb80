//! The original's table: one wide row a chat, with its work and its heartbeat as columns.

use anyhow::{Context, Result};
use sqlx::PgConnection;

/// Columns and indexes of the original, on pages filled to the brim.
/// Its index of pending chats is on `status` alone, so that each claim sorts the whole backlog:
/// this one is kinder. Vacuum would work in some rounds and not in others.
const TABLE: &str = "
    create type bench_chat_status as enum
        ('waiting', 'pending', 'running', 'paused', 'completed', 'error');
    create table bench_chats (
        id uuid primary key,
        owner_id uuid not null,
        workspace_id uuid,
        build_id uuid,
        agent_id uuid,
        title text not null default 'New Chat',
        status bench_chat_status not null default 'waiting',
        worker_id uuid,
        started_at timestamptz,
        heartbeat_at timestamptz,
        created_at timestamptz not null default now(),
        updated_at timestamptz not null default now(),
        parent_chat_id uuid,
        root_chat_id uuid,
        last_model_config_id uuid not null,
        archived boolean not null default false,
        last_error text,
        mode text,
        mcp_server_ids uuid[] not null default '{}',
        labels jsonb not null default '{}',
        pin_order integer not null default 0,
        last_read_message_id bigint,
        last_injected_context jsonb
    ) with (autovacuum_enabled = off);
    create index on bench_chats (updated_at) where status = 'pending';
    create index on bench_chats (owner_id, updated_at desc, id desc);
    create index on bench_chats (workspace_id);
    create index on bench_chats (parent_chat_id);
    create index on bench_chats (root_chat_id);
    create index on bench_chats (last_model_config_id);
    create index on bench_chats using gin (labels);
";

/// Makes the table.
pub(super) async fn create(conn: &mut PgConnection) -> Result<()> {
    sqlx::raw_sql(TABLE).execute(conn).await.context("failed to make the original's table")?;
    Ok(())
}

/// Makes a chat of every row of `bench_runs (run_id, worker_id, owner_id, ready_at)`: running if
/// it has a worker, else of status `idle`.
pub(super) async fn fill(conn: &mut PgConnection, idle: &str) -> Result<()> {
    let failed = "failed to fill the original's table";
    sqlx::query("truncate bench_chats").execute(&mut *conn).await.context(failed)?;
    let fill = "
        insert into bench_chats (
            id, owner_id, workspace_id, status, worker_id, started_at, heartbeat_at,
            updated_at, last_model_config_id, title
        )
        select run_id, owner_id, gen_random_uuid(),
               case when worker_id is null then $1 else 'running' end::bench_chat_status,
               worker_id,
               case when worker_id is not null then now() end,
               case when worker_id is not null then now() end,
               ready_at, owner_id, 'What chat ' || number || ' is about'
        from bench_runs
        order by number";
    sqlx::query(fill).bind(idle).execute(&mut *conn).await.context(failed)?;
    vacuum(conn).await
}

/// Clears what earlier rounds left, as autovacuum would.
pub(super) async fn vacuum(conn: &mut PgConnection) -> Result<()> {
    let vacuum = sqlx::query("vacuum analyze bench_chats").execute(conn).await;
    vacuum.context("failed to vacuum the original's table")?;
    Ok(())
}
