use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use super::*;
use crate::source::Reading;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn each_key_is_read_at_its_own_interval() {
    let (mut collectors, source, backlog) = stage(|_| Duration::ZERO);
    collectors.redefine(vec![duty("fast", 1), duty("slow", 100)]).await;
    sleep(1_000 * SECOND).await;
    let (fast, slow) = (source.begun("fast"), source.begun("slow"));
    assert!((980..=1_020).contains(&fast), "{fast}");
    assert!((9..=12).contains(&slow), "{slow}");
    assert_eq!(backlog.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_slow_key_is_never_read_twice_at_once_and_delays_no_other() {
    let (mut collectors, source, _) =
        stage(|key| if key == "slow" { 5 * SECOND / 2 } else { Duration::ZERO });
    collectors.redefine(vec![duty("slow", 1), duty("fast", 1)]).await;
    sleep(300 * SECOND).await;
    let fast = source.begun("fast");
    assert!((290..=310).contains(&fast), "{fast}");
    // A moment that passes while it is read is skipped: about each third second is left.
    let slow = source.begun("slow");
    assert!((90..=115).contains(&slow), "{slow}");
    assert_eq!(
        source.0.lock().unwrap().at_once_max,
        [("fast".into(), 1), ("slow".into(), 1)].into()
    );
}

#[tokio::test(start_paused = true)]
async fn a_duty_that_did_not_change_keeps_its_times_and_others_end() {
    let (mut collectors, source, backlog) = stage(|key| SECOND * u32::from(key == "gone"));
    collectors.redefine(vec![duty("kept", 600), duty("gone", 1), duty("other", 1)]).await;
    sleep(30 * SECOND).await;
    assert_eq!((source.begun("kept"), backlog.len()), (1, 3));
    let gone = collectors.redefine(vec![duty("kept", 600), duty("other", 600)]).await;
    assert_eq!(gone.iter().map(Key::as_str).collect::<Vec<_>>(), ["gone", "other"]);
    // What waited of them is forgotten, and what was being read never comes.
    assert_eq!(backlog.len(), 1);
    let before = source.begun("gone");
    sleep(30 * SECOND).await;
    assert_eq!((source.begun("kept"), source.begun("gone")), (1, before));
    assert_eq!(backlog.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_changes_while_it_is_read_is_not_read_twice_at_once() {
    let (mut collectors, source, _) = stage(|_| 30 * SECOND);
    for interval in 1..20 {
        collectors.redefine(vec![duty("key", interval)]).await;
        sleep(15 * SECOND).await;
    }
    assert!(source.begun("key") >= 19);
    assert_eq!(source.0.lock().unwrap().at_once_max["key"], 1);
}

#[tokio::test(start_paused = true)]
async fn the_end_ends_what_is_being_read() {
    let (mut collectors, source, backlog) = stage(|_| 30 * SECOND);
    collectors.redefine(vec![duty("a", 1), duty("b", 1)]).await;
    sleep(SECOND).await;
    assert_eq!(source.at_once("a"), 1);
    collectors.end().await;
    assert_eq!((source.at_once("a"), source.at_once("b")), (0, 0));
    assert_eq!(backlog.len(), 0);
}

/// Counts who reads.
#[derive(Default)]
struct Counting(Mutex<Counts>, Option<fn(&str) -> Duration>);

#[derive(Default)]
struct Counts {
    begun: BTreeMap<String, usize>,
    at_once: BTreeMap<String, usize>,
    at_once_max: BTreeMap<String, usize>,
}

impl Counting {
    fn begun(&self, key: &str) -> usize {
        self.0.lock().unwrap().begun[key]
    }

    fn at_once(&self, key: &str) -> usize {
        self.0.lock().unwrap().at_once[key]
    }
}

#[async_trait]
impl Source for Counting {
    async fn read(&self, duty: &Duty) -> Reading {
        let key = duty.key.to_string();
        let _leaving = Leaving::enter(self, key.clone());
        let pause = self.1.map_or(Duration::ZERO, |pause| pause(&key));
        sleep(pause).await;
        Reading::of("value")
    }
}

struct Leaving<'a>(&'a Counting, String);

impl<'a> Leaving<'a> {
    fn enter(counting: &'a Counting, key: String) -> Self {
        let mut counts = counting.0.lock().unwrap();
        *counts.begun.entry(key.clone()).or_default() += 1;
        let at_once = counts.at_once.entry(key.clone()).or_default();
        *at_once += 1;
        let at_once = *at_once;
        let max = counts.at_once_max.entry(key.clone()).or_default();
        *max = at_once.max(*max);
        drop(counts);
        Self(counting, key)
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap().at_once.get_mut(&self.1).unwrap() -= 1;
    }
}

fn stage(pause: fn(&str) -> Duration) -> (Collectors, Arc<Counting>, Arc<Backlog>) {
    let source = Arc::new(Counting(Mutex::default(), Some(pause)));
    let backlog = Arc::new(Backlog::default());
    let rng = StdRng::seed_from_u64(7);
    let collectors =
        Collectors::new(Arc::clone(&source) as Arc<dyn Source>, Arc::clone(&backlog), rng);
    (collectors, source, backlog)
}

fn duty(key: &str, interval_seconds: u32) -> Duty {
    Duty::new(Key::new(key).unwrap(), String::new(), interval_seconds, 60)
}
