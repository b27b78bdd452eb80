//! Templates, presets and prebuilds to work on.

use anyhow::{Context, Result, ensure};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::Load;

/// Presets of one version.
const PRESETS_OF_VERSION: i64 = 10;

/// What a cycle writes to.
const TABLES: [&str; 4] = ["prebuilds", "builds", "workspaces", "runs"];

/// Makes the presets. Vacuum would work in some rounds and not in others, so it is off.
///
/// Each template has two versions, of which the second is active; presets that are not active
/// belong to the first one, and want prebuilds as well.
pub(super) async fn presets(conn: &mut PgConnection, load: Load) -> Result<()> {
    let failed = "failed to make the presets";
    for table in TABLES.iter().chain(&["presets"]) {
        let off = format!("alter table {table} set (autovacuum_enabled = off)");
        sqlx::raw_sql(AssertSqlSafe(off)).execute(&mut *conn).await.context(failed)?;
    }
    for (group, count, version) in [("old", load.inactive, 1), ("new", load.active, 2)] {
        let presets = "
            with numbers as (
                select number, $1 || ' ' || number / $3 as template, number % $3 = 0 as is_first
                from generate_series(0, $2 - 1) as number
            ), made as (
                insert into templates (id, name)
                select md5(template)::uuid, template from numbers where is_first
            ), versions as (
                insert into template_versions (id, template_id, name, source)
                select md5(template || version)::uuid, md5(template)::uuid, version, 'source'
                from numbers cross join unnest('{1,2}'::text[]) as version
                where is_first
            )
            insert into presets (id, template_version_id, name, desired_instances)
            select gen_random_uuid(), md5(template || $4)::uuid, 'preset ' || number, $5
            from numbers";
        sqlx::query(presets)
            .bind(group)
            .bind(i64::from(count))
            .bind(PRESETS_OF_VERSION)
            .bind(version.to_string())
            .bind(i32::try_from(load.each)?)
            .execute(&mut *conn)
            .await
            .context(failed)?;
    }
    let activate = "update templates set active_version_id = md5(name || '2')::uuid";
    sqlx::query(activate).execute(&mut *conn).await.context(failed)?;
    let vacuum = "vacuum analyze templates, template_versions, presets";
    sqlx::raw_sql(vacuum).execute(&mut *conn).await.context(failed)?;
    Ok(())
}

/// Takes everything away that cycles have ordered.
pub(super) async fn clear(conn: &mut PgConnection) -> Result<()> {
    let truncate = format!("truncate {} cascade", TABLES.join(", "));
    let cleared = sqlx::raw_sql(AssertSqlSafe(truncate)).execute(conn).await;
    cleared.context("failed to take prebuilds away")?;
    Ok(())
}

/// Says what was ordered for each preset, whole orders only; it must be what the load wants.
pub(super) async fn ordered(conn: &mut PgConnection, load: Load) -> Result<String> {
    let query = "
        select coalesce(sum(count), 0)::bigint,
               coalesce(md5(string_agg(preset_id || ' ' || count, ',' order by preset_id)), '')
        from (
            select prebuilds.preset_id, count(*)
            from prebuilds
            join workspaces on workspaces.id = workspace_id
                and workspaces.build_id = prebuilds.build_id
                and workspaces.preset_id = prebuilds.preset_id
                and owner_id is null
            join builds on builds.id = prebuilds.build_id
                and builds.workspace_id = prebuilds.workspace_id
                and transition = 'start'
            join runs on run_id = builds.id and kind = 'build' and runs.status = 'pending'
            where prebuilds.status = 'starting'
            group by prebuilds.preset_id
        ) as ordered";
    let failed = "failed to read what was ordered";
    let row = sqlx::query(query).fetch_one(&mut *conn).await.context(failed)?;
    let (count, digest): (i64, String) =
        (row.try_get(0).context(failed)?, row.try_get(1).context(failed)?);
    let all: i64 = sqlx::query_scalar("select count(*) from prebuilds")
        .fetch_one(conn)
        .await
        .context(failed)?;
    let wanted = i64::from(load.wanted());
    ensure!((count, all) == (wanted, wanted), "{all} were ordered, {count} whole, not {wanted}");
    Ok(format!("{count} {digest}"))
}

/// Makes every prebuild that is wanted, ready, and as many workspaces with owners as told.
pub(super) async fn fleet(conn: &mut PgConnection, owned: u32) -> Result<()> {
    let failed = "failed to make the workspaces";
    let create = "
        create table bench_fleet as
        select gen_random_uuid() as workspace, gen_random_uuid() as build, preset, version, owner
        from (
            select id as preset, template_version_id as version, null::uuid as owner
            from presets cross join generate_series(1, desired_instances)
            union all
            select null, (array(select id from template_versions))[1 + number % 100],
                   md5((number % 1000)::text)::uuid
            from generate_series(1, $OWNED) as number
        ) as wanted
        order by random()";
    let create = create.replace("$OWNED", &owned.to_string());
    sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *conn).await.context(failed)?;
    for fill in [
        "insert into runs (run_id, kind, status, fence, version, owner_id)
         select build, 'build', 'waiting', 1, 3, coalesce(owner, preset) from bench_fleet",
        "insert into workspaces
             (id, owner_id, template_version_id, preset_id, name, build_id)
         select workspace, owner, version, preset, 'workspace ' || workspace, build
         from bench_fleet",
        "insert into builds (id, workspace_id, transition, ended_at)
         select build, workspace, 'start', now() from bench_fleet",
        "insert into prebuilds (workspace_id, preset_id, status, build_id)
         select workspace, preset, 'ready', build from bench_fleet where owner is null",
        // What autovacuum would look at: not a table of one row.
        "vacuum analyze prebuilds, builds, workspaces, runs",
    ] {
        sqlx::raw_sql(fill).execute(&mut *conn).await.context(failed)?;
    }
    Ok(())
}

/// Writes every second prebuild anew, on all pages, and lets nothing clear up after it.
pub(super) async fn dirty(conn: &mut PgConnection) -> Result<()> {
    // An indexed column, as a change of status is: the row gets new entries in the indexes.
    let dirty = "
        with numbered as (
            select workspace_id, row_number() over (order by ctid) as number from prebuilds
        )
        update prebuilds
        set created_at = created_at + interval '1 microsecond'
        from numbered
        where numbered.workspace_id = prebuilds.workspace_id and number % 2 = 0";
    sqlx::raw_sql(dirty).execute(conn).await.context("failed to write prebuilds anew")?;
    Ok(())
}
