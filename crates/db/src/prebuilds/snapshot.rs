//! How all presets stand, in one statement.

use std::time::Duration;

use musterbeat_core::id::PresetId;
use musterbeat_core::port::{GlobalSnapshot, Pool};
use musterbeat_core::prebuild::{
    Failures, Health, PoolName, PresetSnapshot, ScheduleInput, Schedules,
};
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::row::HealthColumn;

/// Which presets a snapshot shows.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// Only this one.
    pub preset: Option<PresetId>,
    /// Even while the supply is paused.
    pub while_paused: bool,
    /// Without failures longer ago than this; `None` for all.
    pub lookback: Option<Duration>,
}

/// A row of the answer: what is the same in all, and a pool, if there is any.
struct SnapshotRow {
    taken_at: OffsetDateTime,
    paused: bool,
    presets_total: i64,
    id: Option<Uuid>,
    template: Option<String>,
    name: Option<String>,
    is_active: Option<bool>,
    desired: Option<i32>,
    timezone: Option<String>,
    schedules: Option<Json<Vec<ScheduleInput>>>,
    health: Option<HealthColumn>,
    failures: Option<i32>,
    failed_at: Option<OffsetDateTime>,
    running: Option<i32>,
    expired: Option<i32>,
    starting: Option<i32>,
    pending: Option<i32>,
    deleting: Option<i32>,
    failed: Option<i32>,
    oldest: Option<f64>,
}

impl SnapshotRow {
    fn pool(self) -> Option<Pool> {
        let preset = PresetId::new(self.id?);
        let schedules = Schedules::stored(&self.timezone?, &self.schedules?.0);
        // What this release cannot read, another wrote: until it is edited, no schedule holds.
        let schedules = schedules.unwrap_or_else(|invalid| {
            tracing::error!(%preset, %invalid, "a preset's schedules cannot be read");
            Schedules::default()
        });
        let running = self.running?.cast_unsigned();
        Some(Pool {
            name: PoolName { template: self.template?, preset: self.name? },
            preset: PresetSnapshot {
                preset,
                is_active: self.is_active?,
                desired: self.desired?.cast_unsigned(),
                schedules,
                health: Health::from(self.health?),
                running,
                eligible: running,
                expired: self.expired?.cast_unsigned(),
                starting: self.starting?.cast_unsigned(),
                pending: self.pending?.cast_unsigned(),
                deleting: self.deleting?.cast_unsigned(),
                failed: self.failed?.cast_unsigned(),
                failures: Failures {
                    in_a_row: self.failures?.cast_unsigned(),
                    last_at: self.failed_at.map(Timestamp::new),
                },
            },
            oldest: self.oldest.map(|age| Duration::from_secs_f64(age.max(0.0))),
        })
    }
}

/// Returns how presets stand that want or have prebuilds; the rest can only be skipped.
///
/// Prebuilds at rest are counted by their own index; only of those whose builds are under way is
/// the run asked.
pub async fn snapshot(conn: &mut PgConnection, shown: Shown) -> sqlx::Result<GlobalSnapshot> {
    let rows = sqlx::query_file_as!(
        SnapshotRow,
        "src/prebuilds/snapshot.sql",
        shown.preset.map(PresetId::uuid),
        shown.while_paused,
        shown.lookback.map(|lookback| lookback.as_secs_f64()),
    )
    .fetch_all(conn)
    .await?;
    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let (taken_at, paused) = (Timestamp::new(first.taken_at), first.paused);
    let presets_total = first.presets_total.cast_unsigned();
    let pools = rows.into_iter().filter_map(SnapshotRow::pool).collect();
    Ok(GlobalSnapshot { taken_at, paused, presets_total, pools })
}
