//! A recorder of metrics that adds up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    Unit,
};

/// The value of each metric by its name.
#[derive(Default)]
pub(super) struct Tally(Mutex<BTreeMap<String, Arc<Sum>>>);

impl Tally {
    /// Returns all values in the order of names, without the prefix.
    pub(super) fn text(&self) -> String {
        let sums = self.0.lock().unwrap();
        let lines = sums.iter().map(|(name, sum)| {
            format!("{} {}", name.trim_start_matches("musterbeat_"), sum.0.lock().unwrap())
        });
        lines.collect::<Vec<_>>().join(", ")
    }

    fn sum(&self, key: &Key) -> Arc<Sum> {
        Arc::clone(self.0.lock().unwrap().entry(key.name().to_owned()).or_default())
    }
}

impl Recorder for Tally {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.sum(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.sum(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[derive(Default)]
struct Sum(Mutex<f64>);

impl Sum {
    fn add(&self, value: f64) {
        *self.0.lock().unwrap() += value;
    }
}

impl CounterFn for Sum {
    fn increment(&self, value: u64) {
        self.add(f64::from(u32::try_from(value).unwrap()));
    }

    fn absolute(&self, _: u64) {}
}

impl GaugeFn for Sum {
    fn increment(&self, value: f64) {
        self.add(value);
    }

    fn decrement(&self, value: f64) {
        self.add(-value);
    }

    fn set(&self, _: f64) {}
}
