//! What the original reads: seven queries, each a list of its own.

use std::time::Duration;

use musterbeat_core::id::PresetId;
use musterbeat_core::prebuild::{Failures, Health, PresetSnapshot, ScheduleInput, Schedules};
use musterbeat_core::timestamp::Timestamp;
use musterbeat_engine::prebuild::LOOKBACK;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::HARD_LIMIT;

const PRESETS: &str = "
    select presets.id, version.id, templates.name, presets.name, desired_instances,
           presets.ttl_s, invalidated_at,
           not presets.deleted and not templates.deleted and not deprecated
           and active_version_id is not distinct from version.id
    from presets
    join template_versions as version on version.id = template_version_id
    join templates on templates.id = template_id
    where desired_instances > 0 and not templates.deleted";

const SCHEDULES: &str = "select id, timezone, schedules from presets where schedules <> '[]'";

const RUNNING: &str = "
    select workspaces.id, workspaces.name, version.template_id, version.id, prebuilds.preset_id,
           prebuilds.created_at
    from prebuilds
    join workspaces on workspaces.id = workspace_id
    join template_versions as version on version.id = template_version_id
    join builds on builds.id = workspaces.build_id
    join runs on run_id = builds.id
    where transition = 'start' and prebuilds.status = 'ready' and runs.status = 'waiting'";

const MOVING: &str = "
    select version.template_id, version.id, prebuilds.preset_id, transition = 'start', count(*)
    from prebuilds
    join workspaces on workspaces.id = workspace_id
    join template_versions as version on version.id = template_version_id
    join builds on builds.id = workspaces.build_id
    join runs on run_id = builds.id
    where runs.status in ('pending', 'running', 'interrupting')
    group by 1, 2, 3, 4";

const PENDING: &str = "
    select prebuilds.preset_id, count(*)
    from prebuilds
    join workspaces on workspaces.id = workspace_id
    join template_versions as version on version.id = template_version_id
    join templates on templates.id = template_id
    join builds on builds.id = workspaces.build_id
    join runs on run_id = builds.id
    where transition = 'start' and runs.status = 'pending' and fence = 0
      and active_version_id is distinct from version.id
    group by 1";

const BACKOFFS: &str = "
    select id, failures, failed_at from presets
    where failures > 0 and now() - make_interval(secs => $1) <= failed_at";

const LIMITED: &str = "select id from presets where $1 <= failures";

/// How all presets stand.
pub(super) struct Lists {
    pub(super) presets: Vec<Preset>,
    schedules: Vec<(Uuid, String, Vec<ScheduleInput>)>,
    running: Vec<Running>,
    moving: Vec<Moving>,
    pending: Vec<(Uuid, i64)>,
    backoffs: Vec<(Uuid, i32, OffsetDateTime)>,
    limited: Vec<Uuid>,
}

pub(super) struct Preset {
    pub(super) id: Uuid,
    pub(super) version: Uuid,
    desired: i32,
    ttl_s: Option<i32>,
    invalidated_at: Option<OffsetDateTime>,
    is_active: bool,
}

struct Running {
    preset: Uuid,
    created_at: OffsetDateTime,
}

struct Moving {
    preset: Uuid,
    starts: bool,
    count: i64,
}

impl Lists {
    /// Asks one query after the other.
    pub(super) async fn read(conn: &mut PgConnection) -> sqlx::Result<Self> {
        let presets = sqlx::query(PRESETS).try_map(|row: PgRow| {
            Ok(Preset {
                id: row.try_get(0)?,
                version: row.try_get(1)?,
                desired: row.try_get(4)?,
                ttl_s: row.try_get(5)?,
                invalidated_at: row.try_get(6)?,
                is_active: row.try_get(7)?,
            })
        });
        let presets = presets.fetch_all(&mut *conn).await?;
        let schedules: Vec<(_, _, Json<_>)> =
            sqlx::query_as(SCHEDULES).fetch_all(&mut *conn).await?;
        let running = sqlx::query(RUNNING).try_map(|row: PgRow| {
            Ok(Running { preset: row.try_get(4)?, created_at: row.try_get(5)? })
        });
        let running = running.fetch_all(&mut *conn).await?;
        let moving = sqlx::query(MOVING).try_map(|row: PgRow| {
            Ok(Moving { preset: row.try_get(2)?, starts: row.try_get(3)?, count: row.try_get(4)? })
        });
        let moving = moving.fetch_all(&mut *conn).await?;
        let pending = sqlx::query_as(PENDING).fetch_all(&mut *conn).await?;
        let backoffs = sqlx::query_as(BACKOFFS).bind(LOOKBACK.as_secs_f64());
        let backoffs = backoffs.fetch_all(&mut *conn).await?;
        let limit = HARD_LIMIT.map_or(i32::MAX, |limit| limit.get().cast_signed());
        let limited = sqlx::query_scalar(LIMITED).bind(limit).fetch_all(&mut *conn).await?;
        let schedules = schedules.into_iter().map(|(id, zone, of)| (id, zone, of.0)).collect();
        Ok(Self { presets, schedules, running, moving, pending, backoffs, limited })
    }

    /// Filters one preset out of every list, from end to end.
    pub(super) fn of(&self, preset: &Preset, now: Timestamp) -> PresetSnapshot {
        let id = preset.id;
        let schedules = self.schedules.iter().find(|(of, _, _)| *of == id);
        let schedules = schedules.and_then(|(_, zone, of)| Schedules::stored(zone, of).ok());
        let running: Vec<_> = self.running.iter().filter(|one| one.preset == id).collect();
        let expired = running.iter().filter(|one| preset.expires(one, now)).count();
        let moving: Vec<_> = self.moving.iter().filter(|one| one.preset == id).collect();
        let moving = |starts| {
            moving.iter().filter(|one| one.starts == starts).map(|one| one.count).sum::<i64>()
        };
        let pending = self.pending.iter().find(|(of, _)| *of == id).map_or(0, |(_, of)| *of);
        let backoff = self.backoffs.iter().find(|(of, _, _)| *of == id);
        let is_limited = self.limited.contains(&id);
        let alive = counted(running.len() - expired);
        PresetSnapshot {
            preset: PresetId::new(id),
            is_active: preset.is_active,
            desired: preset.desired.cast_unsigned(),
            schedules: schedules.unwrap_or_default(),
            health: if is_limited { Health::HardLimited } else { Health::Healthy },
            running: alive,
            eligible: alive,
            expired: counted(expired),
            starting: counted(moving(true)),
            pending: counted(pending),
            deleting: counted(moving(false)),
            failed: 0,
            failures: backoff.map_or_else(Failures::default, |(_, count, at)| Failures {
                in_a_row: count.cast_unsigned(),
                last_at: Some(Timestamp::new(*at)),
            }),
        }
    }
}

impl Preset {
    fn expires(&self, prebuild: &Running, now: Timestamp) -> bool {
        let ttl = self.ttl_s.map(|ttl| Duration::from_secs(u64::from(ttl.cast_unsigned())));
        ttl.is_some_and(|ttl| prebuild.created_at + ttl <= now.time())
            || self.invalidated_at.is_some_and(|since| prebuild.created_at < since)
    }
}

fn counted(count: impl TryInto<u32>) -> u32 {
    count.try_into().unwrap_or(u32::MAX)
}
