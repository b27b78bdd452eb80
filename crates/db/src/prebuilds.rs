//! The tables `prebuilds` and `prebuild_settings`.
//!
//! The row of a prebuild is what a claim and a deletion meet at: whoever has it first takes it, and
//! nobody waits for it.

mod snapshot;

use std::time::Duration;

use musterbeat_core::id::{BuildId, OwnerId, PresetId, TemplateVersionId, WorkspaceId};
use musterbeat_core::port::{Deleted, DeletionOf, Prebuild};
use musterbeat_core::prebuild::PoolName;
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::row::PrebuildColumn;

pub use snapshot::{Shown, snapshot};

/// Prebuilds that one list returns, at most.
const LIST_MAX: i64 = 1_000;

/// Returns how many prebuilds of a preset are there or coming; the preset is locked.
///
/// What is expired, or whose build's workers kept dying, does not count.
pub(crate) async fn supply(conn: &mut PgConnection, preset: PresetId) -> sqlx::Result<u32> {
    let count = sqlx::query_scalar!(
        r#"
            select count(*) as "count!"
            from prebuilds
            join presets on presets.id = preset_id
            join runs on run_id = build_id
            where preset_id = $1
              and (prebuilds.status = 'starting' and runs.status <> 'error'
                   or prebuilds.status = 'ready'
                   and coalesce(greatest(now() - make_interval(secs => presets.ttl_s),
                                         invalidated_at), '-infinity') <= prebuilds.created_at)
        "#,
        preset.uuid(),
    )
    .fetch_one(conn)
    .await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Orders builds of prebuilds, with a pending run each, in one statement; the rest of it follows.
///
/// Their runs are one owner's, so that they take turns with those of people.
macro_rules! order_builds {
    ($builds:expr, $transition:literal, $rest:literal $(, $argument:expr)* $(,)?) => {{
        let (builds, workspaces): (Vec<Uuid>, Vec<Uuid>) =
            $builds.iter().map(|(build, workspace)| (build.uuid(), workspace.uuid())).unzip();
        sqlx::query!(
            r#"
                with new as (
                    select * from unnest($1::uuid[], $2::uuid[]) with ordinality
                        as new (build, workspace, place)
                ), last as (
                    select greatest(
                        (select max(own.round) + 1 from runs as own
                         where own.kind = 'build' and own.owner_id = $3 and own.status = 'pending'),
                        (select min(head.round) from runs as head
                         where head.kind = 'build' and head.status = 'pending'),
                        0
                    ) as round
                ), new_runs as (
                    insert into runs (run_id, kind, status, owner_id, version, round)
                    select build, 'build', 'pending', $3, 1, round + place - 1 from new, last
                ), new_builds as (
                    insert into builds (id, workspace_id, transition)
                    select build, workspace, "# + $transition + " from new
                )" + $rest,
            &builds,
            &workspaces,
            OwnerId::POOL.uuid(),
            $($argument),*
        )
    }};
}

/// Orders prebuilds: a workspace and a build each.
pub(crate) async fn insert(
    conn: &mut PgConnection,
    preset: PresetId,
    version: TemplateVersionId,
    builds: &[(BuildId, WorkspaceId)],
) -> sqlx::Result<()> {
    let order = order_builds!(
        builds,
        "'start'",
        r#", new_workspaces as (
                insert into workspaces (id, template_version_id, preset_id, name, build_id)
                select workspace, $5, $4, 'prebuild-' || right(workspace::text, 12), build from new
            )
            insert into prebuilds (workspace_id, preset_id, status, build_id)
            select workspace, $4, 'starting', build from new
        "#,
        preset.uuid(),
        version.uuid(),
    );
    order.execute(conn).await?;
    Ok(())
}

/// Takes the oldest prebuild of an active preset that can be claimed; nobody else has it then.
pub(crate) async fn take_ready(
    conn: &mut PgConnection,
    preset: PresetId,
) -> sqlx::Result<Option<(WorkspaceId, PoolName)>> {
    let taken = sqlx::query!(
        r#"
            with taken as materialized (
                select workspace_id, templates.name as template, presets.name as preset
                from prebuilds
                join presets on presets.id = preset_id and not presets.deleted
                join template_versions as version on version.id = template_version_id
                join templates on templates.id = template_id
                where preset_id = $1
                  and prebuilds.status = 'ready'
                  and coalesce(greatest(now() - make_interval(secs => presets.ttl_s),
                                        invalidated_at), '-infinity') <= prebuilds.created_at
                  and not templates.deleted
                  and not deprecated
                  and active_version_id = version.id
                order by prebuilds.created_at, workspace_id
                limit 1
                for update of prebuilds skip locked
            )
            delete from prebuilds using taken
            where prebuilds.workspace_id = taken.workspace_id
            returning prebuilds.workspace_id, template, preset
        "#,
        preset.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(taken.map(|taken| {
        let name = PoolName { template: taken.template, preset: taken.preset };
        (WorkspaceId::new(taken.workspace_id), name)
    }))
}

/// A prebuild that is about to be deleted.
pub(crate) struct Condemned {
    pub(crate) workspace: WorkspaceId,
    /// Whether the workers of its start kept dying, which nobody has counted.
    pub(crate) is_dead_start: bool,
}

/// Locks prebuilds that are to be deleted, the oldest first, and passes over locked ones.
pub(crate) async fn condemn(
    conn: &mut PgConnection,
    preset: PresetId,
    which: DeletionOf,
    limit: u32,
) -> sqlx::Result<Vec<Condemned>> {
    let (which, wanted) = match which {
        DeletionOf::Outdated => ("outdated", 0),
        DeletionOf::Expired => ("expired", 0),
        DeletionOf::Failed => ("failed", 0),
        DeletionOf::Extraneous { wanted } => ("extraneous", i64::from(wanted)),
    };
    let rows = sqlx::query_file!(
        "src/prebuilds/condemn.sql",
        preset.uuid(),
        which,
        i64::from(limit),
        wanted,
    )
    .fetch_all(conn)
    .await?;
    let condemned = rows.into_iter().map(|row| Condemned {
        workspace: WorkspaceId::new(row.workspace_id),
        is_dead_start: row.is_dead_start,
    });
    Ok(condemned.collect())
}

/// Orders the deletion of prebuilds that [`condemn`] has locked.
pub(crate) async fn order_deletion(
    conn: &mut PgConnection,
    builds: &[(BuildId, WorkspaceId)],
) -> sqlx::Result<()> {
    let order = order_builds!(
        builds,
        "'delete'",
        r#", built as (
                update workspaces set build_id = build, updated_at = now()
                from new where id = workspace
            )
            update prebuilds
            set status = 'deleting',
                build_id = build,
                retry_at = null,
                failures = least(failures + case when status = 'deleting' then 1 else 0 end, 60)
            from new
            where workspace_id = workspace
        "#,
    );
    order.execute(conn).await?;
    Ok(())
}

/// Locks builds of prebuilds that nobody has begun, of a preset that is not active.
pub(crate) async fn lock_pending(
    conn: &mut PgConnection,
    preset: PresetId,
    limit: u32,
) -> sqlx::Result<Vec<BuildId>> {
    let builds = sqlx::query_scalar!(
        r#"
            select run_id
            from prebuilds
            join runs on run_id = build_id
            join presets on presets.id = preset_id
            join template_versions as version on version.id = template_version_id
            join templates on templates.id = template_id
            where preset_id = $1
              and prebuilds.status = 'starting'
              and runs.status = 'pending'
              and fence = 0
              and (presets.deleted or templates.deleted or deprecated
                   or active_version_id is distinct from version.id)
            order by run_id
            limit $2
            for no key update of runs skip locked
        "#,
        preset.uuid(),
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?;
    Ok(builds.into_iter().map(BuildId::new).collect())
}

/// Takes prebuilds back whose builds [`lock_pending`] has locked: there is nothing to delete.
pub(crate) async fn cancel(conn: &mut PgConnection, builds: &[BuildId]) -> sqlx::Result<u64> {
    let builds: Vec<Uuid> = builds.iter().map(|build| build.uuid()).collect();
    let done = sqlx::query!(
        r#"
            with stopped as (
                update runs
                set status = 'error',
                    error = 'it was taken back before it began, since its preset is not active',
                    fence = fence + 1,
                    version = version + 1
                where run_id = any ($1)
            ), ended as (
                update builds set ended_at = now() where id = any ($1)
            ), gone as (
                update workspaces set deleted = true, updated_at = now() where build_id = any ($1)
            )
            delete from prebuilds where build_id = any ($1)
        "#,
        &builds,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Returns the prebuilds of a preset, the oldest first.
pub async fn list(conn: &mut PgConnection, preset: PresetId) -> sqlx::Result<Vec<Prebuild>> {
    let rows = sqlx::query!(
        r#"
            select workspace_id, name, status as "status: PrebuildColumn", prebuilds.build_id,
                   prebuilds.created_at
            from prebuilds
            join workspaces on id = workspace_id
            where prebuilds.preset_id = $1
            order by prebuilds.created_at, workspace_id
            limit $2
        "#,
        preset.uuid(),
        LIST_MAX,
    )
    .fetch_all(conn)
    .await?;
    let prebuilds = rows.into_iter().map(|row| Prebuild {
        workspace: WorkspaceId::new(row.workspace_id),
        name: row.name,
        status: row.status.into(),
        build: BuildId::new(row.build_id),
        created_at: Timestamp::new(row.created_at),
    });
    Ok(prebuilds.collect())
}

/// Forgets builds of deleted workspaces; whose they were is part of the text, as of their indexes.
macro_rules! forget {
    ($whose:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_scalar!(
            r#"
                with old as materialized (
                    select id from workspaces
                    where deleted
                      and "# + $whose + "
                      and updated_at < now() - make_interval(secs => $1)
                    order by updated_at
                    limit $2
                    for update skip locked
                ), doomed as materialized (
                    select builds.id, workspace_id
                    from old join builds on workspace_id = old.id
                    limit $2
                ), their_builds as (
                    delete from builds using doomed where builds.id = doomed.id
                ), their_runs as (
                    delete from runs using doomed where run_id = doomed.id
                ), gone as materialized (
                    select id from old
                    where not exists (
                        select from builds
                        where workspace_id = old.id and builds.id not in (select id from doomed)
                    )
                ), their_chats as (
                    update chats set workspace_id = null, changed_in = default
                    from gone where workspace_id = gone.id
                ), their_workspaces as (
                    delete from workspaces using gone where workspaces.id = gone.id
                )
                select count(*) as \"forgotten!\" from doomed
            "
            $(, $argument)*
        )
    };
}

/// Forgets builds of workspaces that were deleted, and those workspaces of which none is left;
/// returns how many builds.
///
/// A workspace may have any number of builds, so these are what is counted. Their runs have ended
/// long ago, so nobody else locks them.
pub(crate) async fn forget(
    conn: &mut PgConnection,
    which: Deleted,
    history: Duration,
    limit: u32,
) -> sqlx::Result<u64> {
    let (history, limit) = (history.as_secs_f64(), i64::from(limit));
    let forgotten = match which {
        Deleted::Prebuilds => forget!("owner_id is null", history, limit).fetch_one(conn).await,
        Deleted::Workspaces => {
            forget!("owner_id is not null", history, limit).fetch_one(conn).await
        }
    };
    Ok(forgotten?.cast_unsigned())
}

/// Pauses the supply of all pools, or goes on with it.
pub async fn pause(conn: &mut PgConnection, paused: bool) -> sqlx::Result<()> {
    sqlx::query!("update prebuild_settings set paused = $1 where paused <> $1", paused)
        .execute(conn)
        .await?;
    Ok(())
}

/// Returns the preset of a prebuild.
pub(crate) async fn preset_of(
    conn: &mut PgConnection,
    workspace: WorkspaceId,
) -> sqlx::Result<Option<PresetId>> {
    let preset = sqlx::query_scalar!(
        "select preset_id from prebuilds where workspace_id = $1",
        workspace.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(preset.map(PresetId::new))
}

/// Says that a prebuild can be claimed.
pub(crate) async fn set_ready(conn: &mut PgConnection, workspace: WorkspaceId) -> sqlx::Result<()> {
    sqlx::query!("update prebuilds set status = 'ready' where workspace_id = $1", workspace.uuid())
        .execute(conn)
        .await?;
    Ok(())
}

/// Says that a prebuild could not be started, so that it may be deleted at once; or that it could
/// not be deleted, which waits a minute longer each time, an hour at most.
pub(crate) async fn set_failed(
    conn: &mut PgConnection,
    workspace: WorkspaceId,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
            update prebuilds
            set status = 'failed',
                failures = least(failures + case when status = 'deleting' then 1 else 0 end, 60),
                retry_at = now() + interval '1 minute'
                    * least(failures + case when status = 'deleting' then 1 else 0 end, 60)
            where workspace_id = $1
        "#,
        workspace.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets a prebuild that is deleted.
pub(crate) async fn remove(conn: &mut PgConnection, workspace: WorkspaceId) -> sqlx::Result<()> {
    sqlx::query!("delete from prebuilds where workspace_id = $1", workspace.uuid())
        .execute(conn)
        .await?;
    Ok(())
}
