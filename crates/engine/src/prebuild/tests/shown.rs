//! What metrics show of pools.

use std::collections::BTreeMap;
use std::sync::Mutex as StdMutex;

use metrics::{
    Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

use super::*;

/// Gauges as they stand, by name and labels.
#[derive(Clone, Default)]
struct Shown(Arc<StdMutex<BTreeMap<String, f64>>>);

impl Shown {
    /// Returns what is shown of a metric, such as `rust/1: 2`.
    fn of(&self, name: &str) -> Vec<String> {
        let shown = self.0.lock().unwrap();
        let of = |(key, value): (&String, &f64)| {
            Some(format!("{}: {value}", key.strip_prefix(name)?.strip_prefix(' ')?))
        };
        shown.iter().filter_map(of).collect()
    }
}

struct One(Shown, String);

impl GaugeFn for One {
    fn increment(&self, _: f64) {
        unreachable!("they are set")
    }
    fn decrement(&self, _: f64) {
        unreachable!("they are set")
    }
    fn set(&self, value: f64) {
        self.0.0.lock().unwrap().insert(self.1.clone(), value);
    }
}

impl Recorder for Shown {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let labels: Vec<_> = key.labels().map(metrics::Label::value).collect();
        let name = format!("{} {}", key.name(), labels.join("/"));
        Gauge::from_arc(Arc::new(One(self.clone(), name)))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test(start_paused = true)]
async fn pool_that_is_gone_is_shown_as_gone() {
    let shown = Shown::default();
    let _recording = metrics::set_default_local_recorder(&shown);
    let full = changed(wanting(1, 2), |pool| (pool.running, pool.eligible) = (2, 2));
    let limited = changed(wanting(2, 3), |pool| pool.health = Health::HardLimited);
    let ground = Arc::new(Ground::of([full, limited]));
    let reconciler = ground.reconciler(1, OPTIONS);
    reconciler.reconcile_all().await.unwrap();
    assert_eq!(shown.of("musterbeat_prebuilds_desired"), ["rust/1: 2", "rust/2: 3"]);
    assert_eq!(shown.of("musterbeat_prebuilds_eligible"), ["rust/1: 2", "rust/2: 0"]);
    assert_eq!(shown.of("musterbeat_presets_hard_limited"), ["rust/1: 0", "rust/2: 1"]);
    assert_eq!(shown.of("musterbeat_reconcile_leads"), [": 1"]);

    ground.pools.lock().unwrap().retain(|_, pool| pool.name.preset == "1");
    reconciler.reconcile_all().await.unwrap();
    assert_eq!(shown.of("musterbeat_prebuilds_desired"), ["rust/1: 2", "rust/2: 0"]);
    assert_eq!(shown.of("musterbeat_presets_hard_limited"), ["rust/1: 0", "rust/2: 0"]);

    ground.paused.store(true, Ordering::SeqCst);
    reconciler.reconcile_all().await.unwrap();
    assert_eq!(shown.of("musterbeat_prebuilds_desired"), ["rust/1: 2", "rust/2: 0"]);
    assert_eq!(shown.of("musterbeat_prebuilds_paused"), [": 1"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_leads_no_longer_shows_nothing() {
    let shown = Shown::default();
    let _recording = metrics::set_default_local_recorder(&shown);
    let ground = Arc::new(Ground::of([wanting(1, 2)]));
    let former = ground.reconciler(1, OPTIONS);
    former.reconcile_all().await.unwrap();
    assert_eq!(shown.of("musterbeat_prebuilds_desired"), ["rust/1: 2"]);
    former.0.ports.lead.resign().await;
    let _next = ground.reconciler(2, OPTIONS).0.ports.lead.snapshot(LOOKBACK).await.unwrap();
    former.reconcile_all().await.unwrap();
    assert_eq!(shown.of("musterbeat_prebuilds_desired"), ["rust/1: 0"]);
    assert_eq!(shown.of("musterbeat_reconcile_leads"), [": 0"]);
}
