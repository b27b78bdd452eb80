//! The table `presets`.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use musterbeat_core::id::{PresetId, TemplateId, TemplateVersionId};
use musterbeat_core::prebuild::{Health, PoolName, ScheduleInput};
use musterbeat_core::template::{NewPreset, PoolWish, Preset, PresetPatch};
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::row::{HealthColumn, seconds, time};
use crate::templates::LIST_MAX;

/// A preset's row with what its version and template say.
struct PresetRow {
    id: Uuid,
    version_id: Uuid,
    template_id: Uuid,
    name: String,
    parameters: Json<BTreeMap<String, String>>,
    desired_instances: i32,
    ttl_s: Option<i32>,
    timezone: String,
    schedules: Json<Vec<ScheduleInput>>,
    health: HealthColumn,
    is_active: bool,
    created_at: OffsetDateTime,
}

impl From<PresetRow> for Preset {
    fn from(row: PresetRow) -> Self {
        Self {
            id: PresetId::new(row.id),
            version: TemplateVersionId::new(row.version_id),
            template: TemplateId::new(row.template_id),
            name: row.name,
            parameters: row.parameters.0,
            pool: PoolWish {
                desired: row.desired_instances.cast_unsigned(),
                ttl: row.ttl_s.map(time),
                timezone: row.timezone,
                schedules: row.schedules.0,
            },
            health: Health::from(row.health),
            is_active: row.is_active,
            created_at: Timestamp::new(row.created_at),
        }
    }
}

/// Adds presets to a version of a template that is not deleted; those whose ids are taken stay.
///
/// Returns whether the version is there.
pub async fn insert(
    conn: &mut PgConnection,
    version: TemplateVersionId,
    presets: &[NewPreset],
) -> sqlx::Result<bool> {
    fn column<T>(presets: &[NewPreset], of: impl Fn(&NewPreset) -> T) -> Vec<T> {
        presets.iter().map(of).collect()
    }
    let is_there = sqlx::query_scalar!(
        r#"
            with version as (
                select version.id
                from template_versions as version
                join templates on templates.id = version.template_id and not deleted
                where version.id = $1
            ), added as (
                insert into presets (id, template_version_id, name, parameters, desired_instances,
                                     ttl_s, timezone, schedules)
                select new.id, version.id, new.name, new.parameters, new.desired, new.ttl,
                       new.timezone, new.schedules
                from version, unnest($2::uuid[], $3::text[], $4::jsonb[], $5::integer[],
                                     $6::integer[], $7::text[], $8::jsonb[])
                    as new (id, name, parameters, desired, ttl, timezone, schedules)
                on conflict (id) do nothing
            )
            select exists (select from version) as "is_there!"
        "#,
        version.uuid(),
        &column(presets, |preset| preset.id.uuid()),
        &column(presets, |preset| preset.name.clone()),
        &column(presets, |preset| serde_json::json!(preset.parameters)),
        &column(presets, |preset| preset.pool.desired.cast_signed()),
        &column(presets, |preset| preset.pool.ttl.map(seconds)) as &[Option<i32>],
        &column(presets, |preset| preset.pool.timezone.clone()),
        &column(presets, |preset| serde_json::json!(preset.pool.schedules)),
    )
    .fetch_one(conn)
    .await?;
    Ok(is_there)
}

/// Changes a preset, which is healthy then; returns false when it is not there.
pub async fn update(
    conn: &mut PgConnection,
    preset: PresetId,
    patch: &PresetPatch,
) -> sqlx::Result<bool> {
    let pool = patch.pool.as_ref();
    let done = sqlx::query!(
        r#"
            update presets
            set desired_instances = coalesce($2, desired_instances),
                ttl_s = case when $2::integer is null then ttl_s else $3 end,
                timezone = coalesce($4, timezone),
                schedules = coalesce($5, schedules),
                invalidated_at = case when $6 then now() else invalidated_at end,
                health = 'healthy',
                failures = 0,
                failed_at = null
            where id = $1 and not deleted
        "#,
        preset.uuid(),
        pool.map(|pool| pool.desired.cast_signed()),
        pool.and_then(|pool| pool.ttl).map(seconds),
        pool.map(|pool| pool.timezone.as_str()),
        pool.map(|pool| serde_json::json!(pool.schedules)),
        patch.invalidate,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes a preset; returns false when it is not there.
pub async fn delete(conn: &mut PgConnection, preset: PresetId) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update presets set deleted = true where id = $1 and not deleted",
        preset.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Returns a preset that is not deleted.
pub async fn get(conn: &mut PgConnection, preset: PresetId) -> sqlx::Result<Option<Preset>> {
    let row = sqlx::query_as!(
        PresetRow,
        r#"
            select presets.id, template_version_id as version_id, template_id, presets.name,
                   parameters as "parameters: Json<BTreeMap<String, String>>", desired_instances,
                   presets.ttl_s, timezone, schedules as "schedules: Json<Vec<ScheduleInput>>",
                   health as "health: HealthColumn", presets.created_at,
                   not templates.deleted and not deprecated
                   and active_version_id is not distinct from version.id as "is_active!"
            from presets
            join template_versions as version on version.id = template_version_id
            join templates on templates.id = template_id
            where presets.id = $1 and not presets.deleted
        "#,
        preset.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Preset::from))
}

/// Returns the presets of active versions of templates that are not deleted, by name.
pub async fn list(
    conn: &mut PgConnection,
    template: Option<TemplateId>,
) -> sqlx::Result<Vec<Preset>> {
    let rows = sqlx::query_as!(
        PresetRow,
        r#"
            select presets.id, template_version_id as version_id, template_id, presets.name,
                   parameters as "parameters: Json<BTreeMap<String, String>>", desired_instances,
                   presets.ttl_s, timezone, schedules as "schedules: Json<Vec<ScheduleInput>>",
                   health as "health: HealthColumn", presets.created_at,
                   not deprecated as "is_active!"
            from templates
            join template_versions as version on version.id = active_version_id
            join presets on template_version_id = version.id and not presets.deleted
            where not templates.deleted and ($1::uuid is null or templates.id = $1)
            order by lower(templates.name), presets.name
            limit $2
        "#,
        template.map(TemplateId::uuid),
        LIST_MAX,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Preset::from).collect())
}

/// A preset of which prebuilds can be built.
pub(crate) struct Buildable {
    /// Its version.
    pub(crate) version: TemplateVersionId,
}

/// Locks a preset whose prebuilds are to be ordered; `None` when none should be.
pub(crate) async fn lock_buildable(
    conn: &mut PgConnection,
    preset: PresetId,
) -> sqlx::Result<Option<Buildable>> {
    let version = sqlx::query_scalar!(
        r#"
            select template_version_id
            from presets
            join template_versions as version on version.id = template_version_id
            join templates on templates.id = template_id
            where presets.id = $1
              and not presets.deleted
              and not templates.deleted
              and not deprecated
              and active_version_id = version.id
              and health = 'healthy'
            for no key update of presets
        "#,
        preset.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(version.map(|version| Buildable { version: TemplateVersionId::new(version) }))
}

/// Locks a preset whose prebuild's build ends; returns what it is called.
pub(crate) async fn lock(conn: &mut PgConnection, preset: PresetId) -> sqlx::Result<PoolName> {
    let row = sqlx::query!(
        r#"
            select presets.name as preset, templates.name as template
            from presets
            join template_versions as version on version.id = template_version_id
            join templates on templates.id = template_id
            where presets.id = $1
            for no key update of presets
        "#,
        preset.uuid(),
    )
    .fetch_one(conn)
    .await?;
    Ok(PoolName { template: row.template, preset: row.preset })
}

/// Counts a failure, or more; of a build that is not valid the preset is marked.
pub(crate) async fn count_failures(
    conn: &mut PgConnection,
    preset: PresetId,
    failures: u32,
    invalid: bool,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
            update presets
            set failures = failures + $2,
                failed_at = now(),
                health = case when $3 then 'validation_failed' else health end
            where id = $1
        "#,
        preset.uuid(),
        failures.cast_signed(),
        invalid,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What a build that succeeded means to its pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Supplied {
    /// Whether no other prebuild is being built.
    pub(crate) is_full: bool,
    /// For how long some were missing then that had been claimed.
    pub(crate) refilled: Option<Duration>,
}

/// Forgets failures after a build that succeeded; the preset is locked.
pub(crate) async fn count_success(
    conn: &mut PgConnection,
    preset: PresetId,
) -> sqlx::Result<Supplied> {
    let row = sqlx::query!(
        r#"
            with before as (
                select short_since, failures,
                       not exists (select from prebuilds
                                   where preset_id = $1 and status = 'starting') as is_full
                from presets where id = $1
            ), written as (
                update presets
                set failures = 0,
                    failed_at = null,
                    short_since = case when is_full then null else presets.short_since end
                from before
                where id = $1 and (before.failures > 0 or is_full and before.short_since is not null)
            )
            select is_full as "is_full!", extract(epoch from now() - short_since)::float8 as missing
            from before
        "#,
        preset.uuid(),
    )
    .fetch_one(conn)
    .await?;
    let missing = row.missing.filter(|_| row.is_full);
    let refilled = missing.map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
    Ok(Supplied { is_full: row.is_full, refilled })
}

/// Notes since when prebuilds of a preset are missing that were claimed, unless somebody else is
/// about to.
pub(crate) async fn note_claim(conn: &mut PgConnection, preset: PresetId) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
            update presets set short_since = now()
            where id = any (array(
                select id from presets where id = $1 and short_since is null
                for no key update skip locked
            ))
        "#,
        preset.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Marks a healthy preset as hard limited if so many of its last builds failed in a row.
pub(crate) async fn mark_hard_limited(
    conn: &mut PgConnection,
    preset: PresetId,
    failures: NonZeroU32,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        r#"
            update presets set health = 'hard_limited'
            where id = $1 and health = 'healthy' and failures >= $2
        "#,
        preset.uuid(),
        failures.get().cast_signed(),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
