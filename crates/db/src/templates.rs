//! The tables `templates` and `template_versions`.

use musterbeat_core::id::{TemplateId, TemplateVersionId};
use musterbeat_core::port::NewTemplate;
use musterbeat_core::template::{
    NewVersion, Template, TemplatePatch, TemplateRules, TemplateVersion,
};
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::row::{seconds, time};

/// Templates, versions or presets that one list returns, at most.
pub(crate) const LIST_MAX: i64 = 1_000;

/// A template's row.
struct TemplateRow {
    id: Uuid,
    name: String,
    active_version_id: Option<Uuid>,
    deprecated: bool,
    ttl_s: Option<i32>,
    max_ttl_s: Option<i32>,
    user_ttl_allowed: bool,
    activity_bump_s: i32,
    created_at: OffsetDateTime,
}

impl From<TemplateRow> for Template {
    fn from(row: TemplateRow) -> Self {
        Self {
            id: TemplateId::new(row.id),
            name: row.name,
            active_version: row.active_version_id.map(TemplateVersionId::new),
            rules: TemplateRules {
                deprecated: row.deprecated,
                ttl: row.ttl_s.map(time),
                max_ttl: row.max_ttl_s.map(time),
                user_ttl_allowed: row.user_ttl_allowed,
                activity_bump: time(row.activity_bump_s),
            },
            created_at: Timestamp::new(row.created_at),
        }
    }
}

/// What became of something that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is new.
    New,
    /// It was added before, and stays as it is.
    Before,
    /// Another one bears its name.
    NameTaken,
    /// What it belongs to is not there, or its id is that of something else.
    Nowhere,
}

/// Adds a template without a version, unless its id or its name is taken.
pub async fn insert(conn: &mut PgConnection, template: &NewTemplate) -> sqlx::Result<Added> {
    let rules = &template.rules;
    let done = sqlx::query!(
        r#"
            insert into templates
                (id, name, deprecated, ttl_s, max_ttl_s, user_ttl_allowed, activity_bump_s)
            values ($1, $2, $3, $4, $5, $6, $7)
            on conflict do nothing
        "#,
        template.id.uuid(),
        template.name,
        rules.deprecated,
        rules.ttl.map(seconds),
        rules.max_ttl.map(seconds),
        rules.user_ttl_allowed,
        seconds(rules.activity_bump),
    )
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() == 1 {
        return Ok(Added::New);
    }
    // A statement of its own: the former may have waited for whoever took the id or the name.
    let is_there = sqlx::query_scalar!(
        r#"select exists (select from templates where id = $1) as "is_there!""#,
        template.id.uuid(),
    )
    .fetch_one(conn)
    .await?;
    Ok(if is_there { Added::Before } else { Added::NameTaken })
}

/// Adds a version to a template that is not deleted, unless its id or its name is taken.
pub async fn insert_version(
    conn: &mut PgConnection,
    template: TemplateId,
    version: &NewVersion,
) -> sqlx::Result<Added> {
    let done = sqlx::query!(
        r#"
            insert into template_versions (id, template_id, name, source)
            select $2, id, $3, $4 from templates where id = $1 and not deleted
            on conflict do nothing
        "#,
        template.uuid(),
        version.id.uuid(),
        version.name,
        version.source,
    )
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() == 1 {
        return Ok(Added::New);
    }
    // A statement of its own: the former may have waited for whoever took the id or the name.
    let found = sqlx::query!(
        r#"
            select (select template_id from template_versions where id = $2),
                   exists (select from templates where id = $1 and not deleted) as "is_there!"
        "#,
        template.uuid(),
        version.id.uuid(),
    )
    .fetch_one(conn)
    .await?;
    Ok(match found.template_id {
        Some(of) if of == template.uuid() => Added::Before,
        None if found.is_there => Added::NameTaken,
        _ => Added::Nowhere,
    })
}

/// Changes a template; `None` when it is not there, or the version is not one of its own.
pub async fn update(
    conn: &mut PgConnection,
    template: TemplateId,
    patch: &TemplatePatch,
) -> sqlx::Result<Option<Template>> {
    let rules = patch.rules;
    let row = sqlx::query_as!(
        TemplateRow,
        r#"
            update templates
            set name = coalesce($2, name),
                active_version_id = coalesce($3, active_version_id),
                deprecated = coalesce($4, deprecated),
                ttl_s = case when $4::boolean is null then ttl_s else $5 end,
                max_ttl_s = case when $4::boolean is null then max_ttl_s else $6 end,
                user_ttl_allowed = coalesce($7, user_ttl_allowed),
                activity_bump_s = coalesce($8, activity_bump_s)
            where id = $1
              and not deleted
              and ($3::uuid is null
                   or exists (select from template_versions where id = $3 and template_id = $1))
            returning id, name, active_version_id, deprecated, ttl_s, max_ttl_s, user_ttl_allowed,
                      activity_bump_s, created_at
        "#,
        template.uuid(),
        patch.name,
        patch.active_version.map(TemplateVersionId::uuid),
        rules.map(|rules| rules.deprecated),
        rules.and_then(|rules| rules.ttl).map(seconds),
        rules.and_then(|rules| rules.max_ttl).map(seconds),
        rules.map(|rules| rules.user_ttl_allowed),
        rules.map(|rules| seconds(rules.activity_bump)),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Template::from))
}

/// Deletes a template: its name is free again. Returns false when it is not there.
pub async fn delete(conn: &mut PgConnection, template: TemplateId) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update templates set deleted = true where id = $1 and not deleted",
        template.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Returns a template that is not deleted, or all of them, by name.
pub async fn list(
    conn: &mut PgConnection,
    template: Option<TemplateId>,
) -> sqlx::Result<Vec<Template>> {
    let rows = sqlx::query_as!(
        TemplateRow,
        r#"
            select id, name, active_version_id, deprecated, ttl_s, max_ttl_s, user_ttl_allowed,
                   activity_bump_s, created_at
            from templates
            where not deleted and ($1::uuid is null or id = $1)
            order by lower(name)
            limit $2
        "#,
        template.map(TemplateId::uuid),
        LIST_MAX,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Template::from).collect())
}

/// Returns the versions of a template that is not deleted, the youngest first.
pub async fn versions(
    conn: &mut PgConnection,
    template: TemplateId,
) -> sqlx::Result<Vec<TemplateVersion>> {
    let rows = sqlx::query!(
        r#"
            select version.id, version.name, source, version.created_at,
                   version.id is not distinct from active_version_id as "is_active!"
            from template_versions as version
            join templates on templates.id = version.template_id and not deleted
            where version.template_id = $1
            order by version.created_at desc, version.id desc
            limit $2
        "#,
        template.uuid(),
        LIST_MAX,
    )
    .fetch_all(conn)
    .await?;
    let versions = rows.into_iter().map(|row| TemplateVersion {
        id: TemplateVersionId::new(row.id),
        template,
        name: row.name,
        source: row.source,
        is_active: row.is_active,
        created_at: Timestamp::new(row.created_at),
    });
    Ok(versions.collect())
}
