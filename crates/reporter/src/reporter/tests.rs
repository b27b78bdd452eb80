use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::*;
use crate::duty::Assignment;
use crate::server::{Refusal, Remark};
use crate::source::Reading;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn values_are_reported_together_and_at_most_once_a_second() {
    let stage = Stage::start(&[("a", 1), ("b", 1), ("c", 1)]);
    sleep(100 * SECOND).await;
    stage.finish().await.unwrap();
    let reports = stage.server.reports();
    assert!((85..=102).contains(&reports.len()), "{}", reports.len());
    for pair in reports.windows(2) {
        assert!(pair[1].at - pair[0].at >= SECOND || pair[1].at >= stage.begun + 100 * SECOND);
    }
    let values: usize = reports.iter().map(|report| report.values.len()).sum();
    assert!(values >= 250, "{values}");
}

#[tokio::test(start_paused = true)]
async fn after_an_absence_the_newest_values_arrive_once() {
    let stage = Stage::start(&[("a", 1), ("b", 1), ("rare", 3_600)]);
    sleep(15 * SECOND).await;
    stage.server.script(|script| script.away = true);
    let before = stage.server.reports().len();
    sleep(30 * SECOND).await;
    let newest = stage.source.newest();
    stage.server.script(|script| script.away = false);
    let back = Instant::now();
    sleep(35 * SECOND).await;
    stage.finish().await.unwrap();
    let reports = stage.server.reports();
    let arrived: Vec<u64> =
        reports[before..].iter().filter_map(|report| report.values.get("a").copied()).collect();
    assert!(arrived[0] >= newest["a"], "{} is older than {}", arrived[0], newest["a"]);
    assert!(arrived.windows(2).all(|pair| pair[0] < pair[1]), "{arrived:?}");
    assert!(reports[before].at - back <= 30 * SECOND);
    let rare = reports.iter().filter(|report| report.values.contains_key("rare")).count();
    assert_eq!(rare, 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_wants_to_be_left_alone_is() {
    let stage = Stage::start(&[("a", 1)]);
    sleep(5 * SECOND).await;
    let wait = Some(20 * SECOND);
    stage
        .server
        .script(|script| script.errors.push_back(CallError::Away { reason: "full".into(), wait }));
    sleep(60 * SECOND).await;
    stage.finish().await.unwrap();
    let calls = stage.server.calls();
    let failed = calls.iter().position(|call| !call.answered).unwrap();
    let pause = calls[failed + 1].at - calls[failed].at;
    assert!((20 * SECOND..=20 * SECOND + SECOND / 2).contains(&pause), "{pause:?}");
}

#[tokio::test(start_paused = true)]
async fn a_redefinition_is_picked_up_by_its_version() {
    let stage = Stage::start(&[("a", 1), ("b", 1)]);
    sleep(20 * SECOND).await;
    assert_eq!(stage.server.looks(), 1);
    stage.server.script(|script| script.define(&[("b", 1), ("c", 1)]));
    sleep(3 * SECOND).await;
    let before = stage.server.reports().len();
    sleep(20 * SECOND).await;
    stage.finish().await.unwrap();
    assert_eq!(stage.server.looks(), 2);
    let mut keys = BTreeSet::new();
    stage.server.reports()[before..]
        .iter()
        .for_each(|report| keys.extend(report.values.keys().cloned()));
    assert_eq!(keys.into_iter().collect::<Vec<_>>(), ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn who_has_nothing_to_report_looks_whether_that_changed() {
    let stage = Stage::start(&[]);
    sleep(5 * SECOND).await;
    stage.server.script(|script| script.define(&[("a", 1)]));
    sleep(80 * SECOND).await;
    stage.finish().await.unwrap();
    assert!(!stage.server.reports().is_empty());
    assert_eq!(stage.server.looks(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_no_token_or_has_no_agent_ends_it() {
    for (error, has_token, words) in [
        (CallError::Unauthorized, true, "was revoked"),
        (CallError::Unauthorized, false, "wants the token"),
        (CallError::NotFound, true, "was deleted"),
    ] {
        for at_first in [true, false] {
            let server = FakeServer::new(&[("a", 1)]);
            if at_first {
                server.script(|script| script.errors.push_back(error.clone()));
            }
            let stage = Stage::start_with(server, |options| {
                options.token = has_token.then(|| "mba_of_an_agent".into());
            });
            sleep(5 * SECOND).await;
            if !at_first {
                stage.server.script(|script| script.errors.push_back(error.clone()));
            }
            let text = stage.ended().await.unwrap_err().to_string();
            assert!(text.contains(words) && text.contains(&AGENT.to_string()), "{text}");
            // It does not say farewell to who does not want to hear it, nor goes on reading.
            let reads = stage.source.reads();
            sleep(30 * SECOND).await;
            assert_eq!(stage.source.reads(), reads);
            assert!(!stage.server.calls().last().unwrap().answered);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_that_is_refused_is_dropped_and_the_next_one_goes_on() {
    let stage = Stage::start(&[("rare", 3_600), ("a", 3_600)]);
    stage.server.script(|script| script.refuse_reports = true);
    sleep(15 * SECOND).await;
    let attempts = stage.server.calls().len();
    assert!((2..=3).contains(&attempts), "{attempts}");
    stage.server.script(|script| {
        script.refuse_reports = false;
        script.define(&[("rare", 3_600), ("a", 3_600), ("new", 1)]);
    });
    sleep(100 * SECOND).await;
    stage.finish().await.unwrap();
    let reports = stage.server.reports();
    assert!(!reports.is_empty());
    assert!(reports.iter().all(|report| report.values.keys().eq(["new"])), "{reports:?}");
}

#[tokio::test(start_paused = true)]
async fn values_for_which_there_is_no_room_yet_come_again() {
    let stage = Stage::start(&[("a", 3_600), ("b", 3_600), ("fast", 1)]);
    stage.server.script(|script| {
        script.no_room = ["a".to_owned()].into();
        script.unwanted = ["b".to_owned()].into();
    });
    sleep(30 * SECOND).await;
    let count = |stage: &Stage, key: &str| {
        stage.server.reports().iter().filter(|report| report.values.contains_key(key)).count()
    };
    assert_eq!(count(&stage, "b"), 1);
    assert!(count(&stage, "a") >= 15, "{}", count(&stage, "a"));
    stage.server.script(|script| script.no_room.clear());
    sleep(3 * SECOND).await;
    let before = count(&stage, "a");
    sleep(30 * SECOND).await;
    assert_eq!(count(&stage, "a"), before);
    stage.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_without_any_room_is_asked_ever_more_seldom() {
    let stage = Stage::start(&[("a", 1), ("b", 1)]);
    stage.server.script(|script| script.no_room = ["a".to_owned(), "b".to_owned()].into());
    sleep(300 * SECOND).await;
    let reports = stage.server.reports().len();
    assert!((10..=60).contains(&reports), "{reports}");
    stage.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_end_sends_what_waits() {
    let stage = Stage::start(&[("a", 1), ("b", 1)]);
    sleep(10 * SECOND).await;
    stage.server.script(|script| script.away = true);
    sleep(60 * SECOND).await;
    stage.server.script(|script| script.away = false);
    // It may be in the midst of a long wait.
    let end = Instant::now();
    let newest = stage.source.newest();
    stage.finish().await.unwrap();
    assert!(Instant::now() - end <= END_TIME);
    assert_eq!(stage.server.reports().last().unwrap().values, newest);
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_a_report_that_is_under_way() {
    let stage = Stage::start(&[("a", 1)]);
    stage.server.script(|script| script.answer_time = SECOND * 3 / 4);
    // The report that begins last is still under way then.
    let mut reports = 0;
    while reports == stage.server.begun() || reports < 3 {
        reports = stage.server.begun();
        sleep(SECOND / 10).await;
    }
    let end = Instant::now();
    stage.finish().await.unwrap();
    assert!(Instant::now() - end <= END_TIME);
    let values: Vec<u64> = stage.server.reports().iter().map(|report| report.values["a"]).collect();
    assert!(values.windows(2).all(|pair| pair[0] < pair[1]), "{values:?}");
    assert_eq!(*values.last().unwrap(), stage.source.newest()["a"]);
}

#[tokio::test(start_paused = true)]
async fn the_end_does_not_wait_for_a_server_that_is_silent() {
    for key in ["a", "b"] {
        let stage = Stage::start(&[(key, 1)]);
        sleep(5 * SECOND).await;
        stage.server.script(|script| script.answer_time = 9 * SECOND);
        sleep(4 * SECOND).await;
        let end = Instant::now();
        stage.finish().await.unwrap();
        assert_eq!(Instant::now() - end, END_TIME);
    }
}

#[test]
fn a_report_interval_has_a_bound() {
    let mut options = ReporterOptions::new("http://127.0.0.1", AGENT);
    options.report_interval = Duration::MAX;
    let error = Reporter::new(options).err().unwrap().to_string();
    assert!(error.contains("at most 3600s"), "{error}");
}

const AGENT: AgentId = AgentId::new(Uuid::from_u128(7));

/// A reporter between a server and a source that tests control.
struct Stage {
    server: Arc<FakeServer>,
    source: Arc<FakeSource>,
    begun: Instant,
    end: CancellationToken,
    running: Mutex<Option<JoinHandle<Result<(), ReporterError>>>>,
}

impl Stage {
    fn start(definitions: &[(&str, u32)]) -> Self {
        Self::start_with(FakeServer::new(definitions), |_| {})
    }

    fn start_with(server: Arc<FakeServer>, change: impl FnOnce(&mut ReporterOptions)) -> Self {
        let mut options = ReporterOptions::new("http://127.0.0.1", AGENT);
        change(&mut options);
        let source = Arc::new(FakeSource::default());
        let ports = (Arc::clone(&server), Arc::clone(&source));
        let reporter = Reporter::with_ports(options, ports.0, ports.1, 7).unwrap();
        let end = CancellationToken::new();
        let running = Mutex::new(Some(tokio::spawn(reporter.run(end.clone()))));
        Self { server, source, begun: Instant::now(), end, running }
    }

    async fn finish(&self) -> Result<(), ReporterError> {
        self.end.cancel();
        self.ended().await
    }

    async fn ended(&self) -> Result<(), ReporterError> {
        let running = self.running.lock().unwrap().take().unwrap();
        running.await.unwrap()
    }
}

/// Finds a number for each key, larger than all before it.
#[derive(Default)]
struct FakeSource {
    reads: AtomicU64,
    newest: Mutex<BTreeMap<String, u64>>,
}

impl FakeSource {
    fn newest(&self) -> BTreeMap<String, u64> {
        self.newest.lock().unwrap().clone()
    }

    fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Source for FakeSource {
    async fn read(&self, duty: &Duty) -> Reading {
        let number = self.reads.fetch_add(1, Ordering::Relaxed);
        self.newest.lock().unwrap().insert(duty.key.to_string(), number);
        Reading::of(number.to_string())
    }
}

/// A server that does as it is told.
#[derive(Default)]
struct FakeServer(Mutex<Script>);

#[derive(Default)]
struct Script {
    duties: Vec<Duty>,
    version: i64,
    away: bool,
    refuse_reports: bool,
    answer_time: Duration,
    /// What the next calls are answered with.
    errors: VecDeque<CallError>,
    no_room: BTreeSet<String>,
    unwanted: BTreeSet<String>,
    calls: Vec<Call>,
    begun: usize,
    looks: usize,
    reports: Vec<Report>,
}

struct Call {
    at: Instant,
    answered: bool,
}

#[derive(Clone, Debug)]
struct Report {
    at: Instant,
    values: BTreeMap<String, u64>,
}

impl Script {
    fn define(&mut self, definitions: &[(&str, u32)]) {
        let duty = |(key, interval): &(&str, u32)| {
            Duty::new(Key::new(*key).unwrap(), String::new(), *interval, 1)
        };
        self.duties = definitions.iter().map(duty).collect();
        self.version += 1;
    }

    fn call(&mut self) -> Result<(), CallError> {
        let error = if self.away {
            Some(CallError::Away { reason: "away".to_owned(), wait: None })
        } else {
            self.errors.pop_front()
        };
        self.calls.push(Call { at: Instant::now(), answered: error.is_none() });
        error.map_or(Ok(()), Err)
    }
}

impl FakeServer {
    fn new(definitions: &[(&str, u32)]) -> Arc<Self> {
        let server = Self::default();
        server.script(|script| script.define(definitions));
        Arc::new(server)
    }

    fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn reports(&self) -> Vec<Report> {
        self.script(|script| script.reports.clone())
    }

    fn calls(&self) -> Vec<Call> {
        self.script(|script| std::mem::take(&mut script.calls))
    }

    fn begun(&self) -> usize {
        self.script(|script| script.begun)
    }

    fn looks(&self) -> usize {
        self.script(|script| script.looks)
    }
}

#[async_trait]
impl Server for FakeServer {
    async fn definitions(&self) -> Result<Assignment, CallError> {
        self.script(|script| {
            script.call()?;
            script.looks += 1;
            Ok(Assignment { version: script.version, duties: script.duties.clone() })
        })
    }

    async fn report(&self, entries: &[Entry]) -> Result<Receipt, CallError> {
        let at = Instant::now();
        let answer_time = self.script(|script| {
            script.begun += 1;
            script.answer_time
        });
        if !answer_time.is_zero() {
            sleep(answer_time).await;
        }
        self.script(|script| {
            script.call()?;
            if script.refuse_reports {
                return Err(CallError::Refused("400 Bad Request".to_owned()));
            }
            let value = |entry: &Entry| {
                (entry.key.to_string(), entry.reading.value.parse::<u64>().unwrap())
            };
            script.reports.push(Report { at, values: entries.iter().map(value).collect() });
            let refusal = |key: &String, retryable| Refusal {
                key: key.clone(),
                reason: "because".to_owned(),
                retryable,
            };
            let no_room = script.no_room.iter().map(|key| refusal(key, true));
            let unwanted = script.unwanted.iter().map(|key| refusal(key, false));
            Ok(Receipt {
                changed: vec![Remark { key: "a".to_owned(), reason: "because".to_owned() }],
                refused: no_room.chain(unwanted).collect(),
                definitions_version: script.version,
            })
        })
    }
}
