with preset as (
    select presets.id,
           coalesce(greatest(now() - make_interval(secs => presets.ttl_s), invalidated_at),
                    '-infinity') as since,
           not presets.deleted and not templates.deleted and not deprecated
           and active_version_id is not distinct from version.id as is_active
    from presets
    join template_versions as version on version.id = template_version_id
    join templates on templates.id = template_id
    where presets.id = $1
), judged as (
    select workspace_id, prebuilds.created_at, build_id, is_active,
           prebuilds.status = 'ready' as is_ready,
           prebuilds.created_at < since as is_expired,
           prebuilds.status = 'failed'
           and coalesce(retry_at <= now(), true)
           or prebuilds.status = 'starting' and runs.status = 'error'
           -- Whatever its workers die of, others are not to die of it without a pause.
           or prebuilds.status = 'deleting' and runs.status = 'error'
           and coalesce(started_at + interval '1 minute' * prebuilds.failures <= now(), true)
               as is_failed,
           runs.status = 'error' and prebuilds.status = 'starting' as is_dead_start
    from preset
    join prebuilds on preset_id = preset.id
    join runs on run_id = build_id
), chosen as (
    select workspace_id, created_at, build_id, is_dead_start
    from judged
    where case $2::text
        when 'outdated' then is_ready and not is_active
        when 'expired' then is_ready and is_expired and is_active
        when 'failed' then is_failed
        else is_ready and is_active and not is_expired
    end
    order by created_at, workspace_id
    limit case
        when $2 = 'extraneous' then least($3, greatest((
            select count(*) from judged where is_ready and not is_expired
        ) - $4, 0))
        else $3
    end
)
select prebuilds.workspace_id, is_dead_start as "is_dead_start!"
from chosen
join prebuilds on prebuilds.workspace_id = chosen.workspace_id
    -- Looked at again under the lock: another may have ordered the deletion since.
    and prebuilds.build_id = chosen.build_id
order by chosen.created_at, prebuilds.workspace_id
for update of prebuilds skip locked
