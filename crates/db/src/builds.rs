//! The table `builds`; where one stands is in its run.

use std::collections::BTreeMap;

use musterbeat_core::build::{Build, Transition};
use musterbeat_core::id::{BuildId, OwnerId, WorkspaceId};
use musterbeat_core::port::Reach;
use musterbeat_core::timestamp::Timestamp;
use musterbeat_core::workspace::BuildState;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::row::{StatusColumn, TransitionColumn};
use crate::runs::owner_of;

/// Builds that one list returns, at most.
const LIST_MAX: i64 = 200;

/// A build's row with its run's.
struct BuildRow {
    id: Uuid,
    workspace_id: Uuid,
    transition: TransitionColumn,
    status: StatusColumn,
    error: Option<String>,
    replacements: Vec<String>,
    created_at: OffsetDateTime,
    ended_at: Option<OffsetDateTime>,
}

impl From<BuildRow> for BuildState {
    fn from(row: BuildRow) -> Self {
        Self {
            id: BuildId::new(row.id),
            workspace: WorkspaceId::new(row.workspace_id),
            transition: row.transition.into(),
            status: row.status.into(),
            error: row.error,
            replacements: row.replacements,
            created_at: Timestamp::new(row.created_at),
            ended_at: row.ended_at.map(Timestamp::new),
        }
    }
}

/// Adds a build whose run was added before, in the same transaction.
pub(crate) async fn insert(
    conn: &mut PgConnection,
    build: BuildId,
    workspace: WorkspaceId,
    transition: Transition,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into builds (id, workspace_id, transition) values ($1, $2, $3)",
        build.uuid(),
        workspace.uuid(),
        TransitionColumn::from(transition) as TransitionColumn,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns what a build is to do.
pub async fn work(conn: &mut PgConnection, build: BuildId) -> sqlx::Result<Option<Build>> {
    let row = sqlx::query!(
        r#"
            select transition as "transition: TransitionColumn", workspaces.id as workspace_id,
                   workspaces.name, owner_id, source,
                   parameters as "parameters?: Json<BTreeMap<String, String>>"
            from builds
            join workspaces on workspaces.id = workspace_id
            join template_versions as version on version.id = template_version_id
            left join presets on presets.id = preset_id
            where builds.id = $1
        "#,
        build.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Build {
        id: build,
        workspace: WorkspaceId::new(row.workspace_id),
        transition: row.transition.into(),
        name: row.name,
        owner: row.owner_id.map(OwnerId::new),
        source: row.source,
        parameters: row.parameters.map(|parameters| parameters.0).unwrap_or_default(),
    }))
}

/// Returns a workspace's builds, or one build, the youngest first; those within `reach`, which is
/// their workspace's.
pub async fn list(
    conn: &mut PgConnection,
    workspace: Option<WorkspaceId>,
    build: Option<BuildId>,
    reach: Reach,
) -> sqlx::Result<Vec<BuildState>> {
    let rows = sqlx::query_as!(
        BuildRow,
        r#"
            select builds.id, workspace_id, transition as "transition: TransitionColumn",
                   status as "status: StatusColumn", error, replacements, builds.created_at,
                   ended_at
            from builds
            join runs on run_id = builds.id
            join workspaces on workspaces.id = workspace_id
            where (builds.workspace_id = $1 or builds.id = $2)
              and ($3::uuid is null or workspaces.owner_id = $3)
            order by builds.id desc
            limit $4
        "#,
        workspace.map(WorkspaceId::uuid),
        build.map(BuildId::uuid),
        owner_of(reach),
        LIST_MAX,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(BuildState::from).collect())
}

/// Returns the workspace of a build, and where the build takes it.
pub(crate) async fn subject(
    conn: &mut PgConnection,
    build: BuildId,
) -> sqlx::Result<Option<(WorkspaceId, Transition)>> {
    let row = sqlx::query!(
        r#"
            select workspace_id, transition as "transition: TransitionColumn"
            from builds where id = $1
        "#,
        build.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (WorkspaceId::new(row.workspace_id), row.transition.into())))
}

/// Says whether a build waits for a worker, or has one.
pub(crate) async fn is_under_way(conn: &mut PgConnection, build: BuildId) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"
            select status in ('pending', 'running', 'interrupting') as "is_under_way!"
            from runs where run_id = $1
        "#,
        build.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// Writes a build's end.
///
/// Whoever carries builds out may name things as they like; text cannot hold a NUL.
pub(crate) async fn end(
    conn: &mut PgConnection,
    build: BuildId,
    replacements: &[String],
) -> sqlx::Result<()> {
    let replacements: Vec<_> =
        replacements.iter().map(|name| name.replace('\0', "\u{fffd}")).collect();
    sqlx::query!(
        "update builds set replacements = $2, ended_at = now() where id = $1",
        build.uuid(),
        &replacements,
    )
    .execute(conn)
    .await?;
    Ok(())
}
