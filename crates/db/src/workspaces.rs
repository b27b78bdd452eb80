//! The table `workspaces`.

use musterbeat_core::build::Transition;
use musterbeat_core::id::{BuildId, OwnerId, PresetId, TemplateId, TemplateVersionId, WorkspaceId};
use musterbeat_core::page::Limit;
use musterbeat_core::port::Reach;
use musterbeat_core::timestamp::Timestamp;
use musterbeat_core::workspace::{BuildState, Life, Order, Workspace};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::row::{StatusColumn, TransitionColumn, seconds, time};
use crate::runs::owner_of;

/// A workspace's row with its newest build's.
struct WorkspaceRow {
    id: Uuid,
    owner_id: Option<Uuid>,
    name: String,
    template_id: Uuid,
    version_id: Uuid,
    preset_id: Option<Uuid>,
    autostart_schedule: Option<String>,
    next_start_at: Option<OffsetDateTime>,
    ttl_s: Option<i32>,
    last_used_at: OffsetDateTime,
    deadline: Option<OffsetDateTime>,
    max_deadline: Option<OffsetDateTime>,
    created_at: OffsetDateTime,
    build_id: Uuid,
    transition: TransitionColumn,
    status: StatusColumn,
    error: Option<String>,
    replacements: Vec<String>,
    build_created_at: OffsetDateTime,
    ended_at: Option<OffsetDateTime>,
}

impl From<WorkspaceRow> for Workspace {
    fn from(row: WorkspaceRow) -> Self {
        let id = WorkspaceId::new(row.id);
        Self {
            id,
            owner: row.owner_id.map(OwnerId::new),
            name: row.name,
            template: TemplateId::new(row.template_id),
            version: TemplateVersionId::new(row.version_id),
            preset: row.preset_id.map(PresetId::new),
            build: BuildState {
                id: BuildId::new(row.build_id),
                workspace: id,
                transition: row.transition.into(),
                status: row.status.into(),
                error: row.error,
                replacements: row.replacements,
                created_at: Timestamp::new(row.build_created_at),
                ended_at: row.ended_at.map(Timestamp::new),
            },
            life: Life {
                autostart_schedule: row.autostart_schedule,
                next_start_at: row.next_start_at.map(Timestamp::new),
                ttl: row.ttl_s.map(time),
            },
            last_used_at: Timestamp::new(row.last_used_at),
            deadline: row.deadline.map(Timestamp::new),
            max_deadline: row.max_deadline.map(Timestamp::new),
            created_at: Timestamp::new(row.created_at),
        }
    }
}

/// Selects workspaces with their newest builds; the rest of the statement follows.
macro_rules! select_workspaces {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            WorkspaceRow,
            r#"
                select workspaces.id, workspaces.owner_id, workspaces.name, template_id,
                       template_version_id as version_id, preset_id, autostart_schedule,
                       next_start_at, ttl_s, last_used_at, deadline, max_deadline,
                       workspaces.created_at, build_id,
                       transition as "transition: TransitionColumn",
                       status as "status: StatusColumn", error, replacements,
                       builds.created_at as build_created_at, ended_at
                from workspaces
                join template_versions as version on version.id = template_version_id
                join builds on builds.id = build_id
                join runs on run_id = build_id
            "# + $rest
            $(, $argument)*
        )
    };
}

/// Returns a workspace of somebody that is not deleted; `None` when it is out of reach.
pub async fn get(
    conn: &mut PgConnection,
    workspace: WorkspaceId,
    reach: Reach,
) -> sqlx::Result<Option<Workspace>> {
    let row = select_workspaces!(
        r#"
            where workspaces.id = $1
              and not workspaces.deleted
              and ($2::uuid is null or workspaces.owner_id = $2)
        "#,
        workspace.uuid(),
        owner_of(reach),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Workspace::from))
}

/// Returns an owner's workspaces that are older than `after`, the youngest first.
pub async fn list(
    conn: &mut PgConnection,
    owner: OwnerId,
    after: Option<WorkspaceId>,
    limit: Limit,
) -> sqlx::Result<Vec<Workspace>> {
    let rows = select_workspaces!(
        r#"
            where workspaces.owner_id = $1
              and not workspaces.deleted
              and ($2::uuid is null or workspaces.id < $2)
            order by workspaces.id desc
            limit $3
        "#,
        owner.uuid(),
        after.map(WorkspaceId::uuid),
        i64::from(limit.rows()),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Workspace::from).collect())
}

/// Adds somebody's workspace of an active preset, in whose build it was asked for; returns whether
/// the preset is active.
pub(crate) async fn insert(
    conn: &mut PgConnection,
    workspace: WorkspaceId,
    order: &Order,
) -> sqlx::Result<bool> {
    let life = &order.life;
    let done = sqlx::query!(
        r#"
            insert into workspaces (id, owner_id, template_version_id, preset_id, name, build_id,
                                    autostart_schedule, next_start_at, ttl_s)
            select $1, $2, version.id, presets.id, $4, $5, $6, $7, $8
            from presets
            join template_versions as version on version.id = template_version_id
            join templates on templates.id = template_id
            where presets.id = $3
              and not presets.deleted
              and not templates.deleted
              and not deprecated
              and active_version_id = version.id
        "#,
        workspace.uuid(),
        order.owner.uuid(),
        order.preset.uuid(),
        order.name,
        order.build.uuid(),
        life.autostart_schedule,
        life.next_start_at.map(Timestamp::time),
        life.ttl.map(seconds),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Gives a prebuild, which nobody else can claim any more, to somebody.
pub(crate) async fn give(
    conn: &mut PgConnection,
    workspace: WorkspaceId,
    order: &Order,
) -> sqlx::Result<()> {
    let life = &order.life;
    sqlx::query!(
        r#"
            update workspaces
            set owner_id = $2,
                name = $3,
                build_id = $4,
                autostart_schedule = $5,
                next_start_at = $6,
                ttl_s = $7,
                last_used_at = now(),
                updated_at = now()
            where id = $1
        "#,
        workspace.uuid(),
        order.owner.uuid(),
        order.name,
        order.build.uuid(),
        life.autostart_schedule,
        life.next_start_at.map(Timestamp::time),
        life.ttl.map(seconds),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Locks somebody's workspace; returns whose it is, and its newest build.
///
/// `None` when it is not there, out of reach or a prebuild. How that build stands is read by the
/// next statement: this one may have waited for whoever ordered it.
pub(crate) async fn lock(
    conn: &mut PgConnection,
    workspace: WorkspaceId,
    reach: Reach,
) -> sqlx::Result<Option<(OwnerId, BuildId)>> {
    let row = sqlx::query!(
        r#"
            select owner_id as "owner_id!", build_id
            from workspaces
            where id = $1
              and not deleted
              and owner_id is not null
              and ($2::uuid is null or owner_id = $2)
            for no key update
        "#,
        workspace.uuid(),
        owner_of(reach),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (OwnerId::new(row.owner_id), BuildId::new(row.build_id))))
}

/// Says which build of a workspace, whose row is locked, is the newest.
pub(crate) async fn set_build(
    conn: &mut PgConnection,
    workspace: WorkspaceId,
    build: BuildId,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update workspaces set build_id = $2, updated_at = now() where id = $1",
        workspace.uuid(),
        build.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes what a build that succeeded means to its workspace.
///
/// One that was started or claimed has its time from now on, unless it is a prebuild; a stopped one
/// has no deadline, and a deleted one's name is free again.
pub(crate) async fn built(
    conn: &mut PgConnection,
    workspace: WorkspaceId,
    transition: Transition,
) -> sqlx::Result<()> {
    let runs = matches!(transition, Transition::Start | Transition::Claim);
    sqlx::query!(
        r#"
            update workspaces
            set deleted = workspaces.deleted or $2,
                deadline = case when $3 and owner_id is not null then least(
                    now() + make_interval(secs => coalesce(
                        case when user_ttl_allowed then workspaces.ttl_s end, templates.ttl_s)),
                    now() + make_interval(secs => max_ttl_s)
                ) end,
                max_deadline = case when $3 and owner_id is not null
                    then now() + make_interval(secs => max_ttl_s) end,
                updated_at = now()
            from template_versions as version
            join templates on templates.id = template_id
            where workspaces.id = $1 and version.id = template_version_id
        "#,
        workspace.uuid(),
        transition == Transition::Delete,
        runs,
    )
    .execute(conn)
    .await?;
    Ok(())
}
