//! How pools stand, as the metrics of whoever leads show it.

use std::collections::BTreeMap;
use std::time::Duration;

use musterbeat_core::port::GlobalSnapshot;
use musterbeat_core::prebuild::{Health, PoolName};

use crate::metrics::{
    PREBUILDS_DESIRED, PREBUILDS_ELIGIBLE, PREBUILDS_OLDEST_SECONDS, PREBUILDS_PAUSED,
    PREBUILDS_RUNNING, PREBUILDS_SNAPSHOT_SECONDS, PRESETS_HARD_LIMITED, PRESETS_VALIDATION_FAILED,
    RECONCILE_LEADS,
};

/// What was shown last, so that what is gone is shown as gone.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    shown: BTreeMap<PoolName, Shown>,
}

/// What is shown of all pools of one name; of a deleted template another may bear it again.
#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    desired: f64,
    running: f64,
    eligible: f64,
    hard_limited: f64,
    validation_failed: f64,
    oldest_seconds: f64,
}

impl Gauges {
    /// Shows a snapshot.
    pub(super) fn lead(&mut self, snapshot: &GlobalSnapshot) {
        metrics::gauge!(RECONCILE_LEADS.name).set(1.0);
        metrics::gauge!(PREBUILDS_PAUSED.name).set(f64::from(u8::from(snapshot.paused)));
        let since_1970 = u64::try_from(snapshot.taken_at.micros()).unwrap_or(0);
        let seconds = Duration::from_micros(since_1970).as_secs_f64();
        metrics::gauge!(PREBUILDS_SNAPSHOT_SECONDS.name).set(seconds);
        if snapshot.paused {
            // It has no pools; what was shown last still holds.
            return;
        }
        let mut shown: BTreeMap<PoolName, Shown> = BTreeMap::new();
        for pool in &snapshot.pools {
            let state = pool.preset.state(snapshot.taken_at);
            let of = shown.entry(pool.name.clone()).or_default();
            of.desired += f64::from(state.desired);
            of.running += f64::from(state.actual);
            of.eligible += f64::from(state.eligible);
            let is =
                |health| f64::from(u8::from(pool.preset.is_active && pool.preset.health == health));
            of.hard_limited += is(Health::HardLimited);
            of.validation_failed += is(Health::ValidationFailed);
            let oldest = pool.oldest.map_or(0.0, |age| age.as_secs_f64());
            of.oldest_seconds = of.oldest_seconds.max(oldest);
        }
        self.show(shown);
    }

    /// Shows nothing: another process does.
    pub(super) fn follow(&mut self) {
        metrics::gauge!(RECONCILE_LEADS.name).set(0.0);
        self.show(BTreeMap::new());
    }

    fn show(&mut self, shown: BTreeMap<PoolName, Shown>) {
        let gone = self.shown.keys().filter(|name| !shown.contains_key(name));
        for name in gone {
            set(name, &Shown::default());
        }
        for (name, shown) in &shown {
            set(name, shown);
        }
        self.shown = shown;
    }
}

fn set(name: &PoolName, shown: &Shown) {
    let labels = [("template_name", name.template.clone()), ("preset_name", name.preset.clone())];
    metrics::gauge!(PREBUILDS_DESIRED.name, &labels).set(shown.desired);
    metrics::gauge!(PREBUILDS_RUNNING.name, &labels).set(shown.running);
    metrics::gauge!(PREBUILDS_ELIGIBLE.name, &labels).set(shown.eligible);
    metrics::gauge!(PRESETS_HARD_LIMITED.name, &labels).set(shown.hard_limited);
    metrics::gauge!(PRESETS_VALIDATION_FAILED.name, &labels).set(shown.validation_failed);
    metrics::gauge!(PREBUILDS_OLDEST_SECONDS.name, &labels).set(shown.oldest_seconds);
}
