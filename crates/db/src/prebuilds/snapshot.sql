with resting as materialized (
    select preset_id,
           count(*) filter (where status = 'ready' and since <= created_at) as running,
           count(*) filter (where status = 'ready' and created_at < since) as expired,
           count(*) filter (where status = 'failed' and coalesce(retry_at <= now(), true)) as failed,
           min(created_at) filter (where status = 'ready' and since <= created_at) as oldest
    from (
        -- What is older than this is expired.
        select id, coalesce(greatest(now() - make_interval(secs => ttl_s), invalidated_at),
                            '-infinity') as since
        from presets
        where $1::uuid is null or id = $1
    ) as aged
    join prebuilds on preset_id = id
    where status in ('ready', 'failed')
    group by preset_id
), moving as materialized (
    select preset_id,
           count(*) filter (where prebuilds.status = 'starting'
                              and runs.status <> 'error') as starting,
           count(*) filter (where prebuilds.status = 'starting'
                              and runs.status = 'pending' and fence = 0) as pending,
           count(*) filter (where prebuilds.status = 'deleting'
                              and runs.status <> 'error') as deleting,
           count(*) filter (where runs.status = 'error') as dead
    from prebuilds
    join runs on run_id = build_id
    where prebuilds.status in ('starting', 'deleting')
      and ($1::uuid is null or preset_id = $1)
    group by preset_id
), pools as (
    select presets.id, templates.name as template, presets.name,
           not presets.deleted and not templates.deleted and not deprecated
           and active_version_id is not distinct from version.id as is_active,
           desired_instances as desired, timezone, schedules, health,
           case when failed_at < now() - make_interval(secs => $3)
                then 0 else failures end as failures,
           case when failed_at < now() - make_interval(secs => $3)
                then null else failed_at end as failed_at,
           coalesce(running, 0)::integer as running,
           coalesce(expired, 0)::integer as expired,
           coalesce(starting, 0)::integer as starting,
           coalesce(pending, 0)::integer as pending,
           coalesce(deleting, 0)::integer as deleting,
           (coalesce(failed, 0) + coalesce(dead, 0))::integer as failed,
           extract(epoch from now() - oldest)::float8 as oldest
    from presets
    join template_versions as version on version.id = template_version_id
    join templates on templates.id = template_id
    left join resting on resting.preset_id = presets.id
    left join moving on moving.preset_id = presets.id
    where ($1::uuid is null or presets.id = $1)
      and (resting.preset_id is not null
           or moving.preset_id is not null
           or (desired_instances > 0 or schedules <> '[]')
              and not presets.deleted and not templates.deleted and not deprecated
              and active_version_id = version.id)
)
select now() as "taken_at!", settings.paused as "paused!",
       (select count(*) from presets where not deleted) as "presets_total!",
       id as "id?", template as "template?", name as "name?",
       is_active as "is_active?", desired as "desired?", timezone as "timezone?",
       schedules as "schedules?: Json<Vec<ScheduleInput>>",
       health as "health?: HealthColumn", failures as "failures?",
       failed_at as "failed_at?", running as "running?", expired as "expired?",
       starting as "starting?", pending as "pending?", deleting as "deleting?",
       failed as "failed?", oldest as "oldest?"
-- Of one row, whatever the statistics say: of thousands the plan would be another.
from (select (select paused from prebuild_settings) as paused) as settings
left join pools on $2 or not settings.paused
order by lower(template), name, id
