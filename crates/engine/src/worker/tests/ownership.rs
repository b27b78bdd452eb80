//! The races of ownership, each with the loops at work.

use musterbeat_core::lease::Moment;
use musterbeat_core::port::Clock;

use super::*;
use crate::context::{Context, Stop};

const SECOND: Duration = Duration::from_secs(1);

/// A worker whose runs never end by themselves.
fn endless(answers: impl IntoIterator<Item = Result<u128, StoreError>>) -> Bench {
    Bench { time: Duration::from_hours(1), ..Bench::new(answers) }
}

fn no_waits() -> Arc<RunWaits> {
    RunWaits::new(&waits::KindWaits::new(RunKind::new("paced").unwrap(), &Arc::default()))
}

fn count(lines: &[String], word: &str) -> usize {
    lines.iter().filter(|line| line.contains(word)).count()
}

/// The beat read the roll before the claim; its answer comes after it.
#[tokio::test(start_paused = true)]
async fn run_claimed_while_a_beat_is_on_its_way_is_not_lost() {
    let bench = endless([Ok(0)]);
    bench.storage.beat_lags.lock().unwrap().push_back((Duration::ZERO, SECOND));
    let (answers, bell) = (Arc::clone(&bench.answers), Arc::clone(&bench.bell));
    let storage = Arc::clone(&bench.storage);
    tokio::spawn(async move {
        storage.beaten.notified().await;
        answers.lock().unwrap().push_back(Ok(3));
        bell.notify_one();
    });
    let lines = bench.run_for(SECOND * 8).await;
    assert_eq!(count(&lines, "claimed 3"), 1);
    assert_eq!(count(&lines, "stopped: lost"), 0, "{lines:?}");
}

/// The final write is on its way, and the roll has the run no more.
#[tokio::test(start_paused = true)]
async fn run_that_finishes_while_a_beat_is_on_its_way_is_not_lost() {
    let bench = endless([]);
    let tenure = Arc::new(tenure(&bench));
    let run = run(7, tenure.worker(), &RunKind::CHAT);
    let stop = Arc::new(Stop::new(&run));
    tenure.enter(run.id, run.token.fence, &stop);
    let parts = PartStreams::default().open(run.id, run.token.fence);
    let context =
        Context::new(&run, stop, Arc::clone(&tenure), parts, no_waits(), bench.shutdown.clone());

    let beat = tenure.beat_sent();
    context.ending();
    assert_eq!(tenure.call_roll(beat, vec![]).lost, 0);
    // A queued turn keeps the run: from the next beat on it takes part again.
    let beat = tenure.beat_sent();
    context.begin(Step(1));
    assert_eq!(tenure.call_roll(beat, vec![]).lost, 0);
    let beat = tenure.beat_sent();
    assert_eq!(tenure.call_roll(beat, vec![]).lost, 1);
    assert_eq!(context.stop_cause(), Some(StopCause::Lost));
}

/// Between the two ownerships of this worker somebody else had the run.
#[tokio::test(start_paused = true)]
async fn run_stolen_and_won_back_begins_after_its_former_task_has_ended() {
    let mut bench = endless([Ok(1)]);
    bench.manner = Manner::Slow;
    let (answers, bell) = (Arc::clone(&bench.answers), Arc::clone(&bench.bell));
    let storage = Arc::clone(&bench.storage);
    tokio::spawn(async move {
        storage.claimed.notified().await;
        sleep(SECOND / 10).await;
        storage.stolen(0);
        *storage.claim_from.lock().unwrap() = Some(0);
        answers.lock().unwrap().push_back(Ok(1));
        bell.notify_one();
    });
    let lines = bench.run_for(SECOND * 4).await;
    let of_the_run: Vec<_> = lines.iter().filter(|line| line.starts_with("0 ")).collect();
    assert_eq!(
        of_the_run,
        ["0 began", "0 stopped: lost", "0 left", "0 began", "0 stopped: shutdown", "0 left"]
    );
}

/// A worker that had the run under a later fence meets a database that lost commits.
#[tokio::test(start_paused = true)]
async fn fence_that_goes_back_makes_the_worker_fence_itself() {
    let bench = endless([Ok(1)]);
    let (answers, bell) = (Arc::clone(&bench.answers), Arc::clone(&bench.bell));
    let storage = Arc::clone(&bench.storage);
    tokio::spawn(async move {
        storage.claimed.notified().await;
        sleep(SECOND / 10).await;
        storage.forget_fences();
        *storage.claim_from.lock().unwrap() = Some(0);
        answers.lock().unwrap().push_back(Ok(1));
        bell.notify_one();
    });
    let lines = bench.run_for(SECOND * 4).await;
    assert_eq!(count(&lines, "0 stopped: fenced"), 1, "{lines:?}");
    assert_eq!(count(&lines, "registered"), 1, "anew");
}

#[tokio::test(start_paused = true)]
async fn beat_that_fails_interrupts_nobody() {
    let bench = endless([Ok(2)]);
    let storage = Arc::clone(&bench.storage);
    tokio::spawn(async move {
        storage.beaten.notified().await;
        storage.away.store(true, Ordering::Relaxed);
        sleep(SECOND * 7).await;
        storage.away.store(false, Ordering::Relaxed);
    });
    let lines = bench.run_for(SECOND * 20).await;
    assert_eq!(count(&lines, "stopped"), 2, "{lines:?}");
    assert_eq!(count(&lines, "stopped: shutdown"), 2);
    assert_eq!(count(&lines, "registered"), 0, "it keeps its lease");
}

/// Belief is counted from the sending of the last beat that succeeded, not from its answer.
#[tokio::test(start_paused = true)]
async fn beats_that_keep_failing_fence_the_worker_before_its_lease_ends() {
    let bench = endless([Ok(2)]);
    let storage = Arc::clone(&bench.storage);
    bench.storage.beat_lags.lock().unwrap().push_back((Duration::ZERO, SECOND * 2));
    let (diary, watched) = (bench.diary.clone(), Arc::clone(&storage));
    tokio::spawn(async move {
        watched.beaten.notified().await;
        diary.note(format!("beaten at {} ms", diary.elapsed()));
        watched.away.store(true, Ordering::Relaxed);
    });
    let worker = tokio::spawn(bench.worker().run());
    sleep(SECOND * 30).await;
    storage.away.store(false, Ordering::Relaxed);
    sleep(SECOND * 5).await;
    bench.shutdown.request();
    worker.await.unwrap();

    let lines = bench.diary.lines();
    let at = |word: &str| -> u64 {
        let line = lines.iter().find(|line| line.contains(word)).unwrap();
        line.split_whitespace().rev().nth(1).unwrap().parse().unwrap()
    };
    let fenced = at("0 stopped: fenced") - at("beaten at");
    assert_eq!(fenced, 9_000, "three seconds before others may take it");
    assert_eq!(count(&lines, "stopped: fenced"), 2);
    let place = |word: &str| lines.iter().rposition(|line| line.contains(word)).unwrap();
    assert!(place("registered") < place("resigned"), "the former lease is resigned: {lines:?}");
    assert_eq!(count(&lines, "resigned"), 2, "and the later one");
}

/// A process that was frozen is told by no timer: it finds out by asking.
#[tokio::test(start_paused = true)]
async fn frozen_process_learns_by_asking_that_its_lease_has_passed() {
    struct Jumping(Arc<Mutex<Duration>>);
    impl Clock for Jumping {
        fn now(&self) -> Moment {
            Moment::new(*self.0.lock().unwrap())
        }
    }
    let bench = endless([]);
    let time = Arc::new(Mutex::new(SECOND * 100));
    let clock = Arc::new(Jumping(Arc::clone(&time)));
    let worker = WorkerId::new(Uuid::from_u128(1));
    let tenure = Arc::new(Tenure::new(worker, clock.now(), LeaseTimes::DEFAULT, clock));
    let run = run(7, worker, &RunKind::CHAT);
    let parts = PartStreams::default().open(run.id, run.token.fence);
    let stop = Arc::new(Stop::new(&run));
    let context =
        Context::new(&run, stop, Arc::clone(&tenure), parts, no_waits(), bench.shutdown.clone());
    assert_eq!(context.stop_cause(), None);
    *time.lock().unwrap() += SECOND * 9;
    assert_eq!(context.stop_cause(), Some(StopCause::Fenced));
}

/// The claim is committed and its answer on its way, while beats see its runs.
#[tokio::test(start_paused = true)]
async fn runs_of_a_claim_in_flight_are_no_orphans() {
    let bench = endless([Ok(3)]);
    bench.storage.claim_lags.lock().unwrap().push_back((Duration::ZERO, SECOND * 4));
    let lines = bench.run_for(SECOND * 12).await;
    assert_eq!(count(&lines, "stopped: shutdown"), 3, "{lines:?}");
    assert_eq!(count(&lines, "pending 0 published"), 1, "released at the end only");
}

/// The claim's deadline passes; what it took comes back by the roll.
#[tokio::test(start_paused = true)]
async fn claim_whose_answer_is_lost_leaves_its_runs_to_others() {
    let bench = endless([Ok(3)]);
    bench.storage.claim_lags.lock().unwrap().push_back((Duration::ZERO, SECOND * 30));
    let lines = bench.run_for(SECOND * 12).await;
    assert_eq!(count(&lines, "stopped"), 0, "nobody worked on them: {lines:?}");
    for run in 0..3 {
        assert_eq!(count(&lines, &format!("pending {run} published")), 1);
    }
}

/// The answer comes after others were given its runs: it is never used.
#[tokio::test(start_paused = true)]
async fn late_claim_answer_after_its_runs_were_released_starts_nothing() {
    let bench = endless([Ok(1)]);
    // It reaches the table only after its worker has given it up.
    let lag = (CLAIM_TIMEOUT + Duration::from_millis(1), SECOND);
    bench.storage.claim_lags.lock().unwrap().push_back(lag);
    let lines = bench.run_for(SECOND * 12).await;
    assert_eq!(count(&lines, "claimed 1"), 1, "it took the run all the same");
    assert_eq!(count(&lines, "stopped"), 0, "{lines:?}");
    assert_eq!(count(&lines, "pending 0 published"), 1);
}

#[tokio::test(start_paused = true)]
async fn interrupt_whose_notice_is_lost_comes_with_the_next_beat() {
    let bench = endless([Ok(2)]);
    let storage = Arc::clone(&bench.storage);
    tokio::spawn(async move {
        storage.beaten.notified().await;
        storage.interrupt(1);
    });
    let lines = bench.run_for(SECOND * 8).await;
    assert_eq!(count(&lines, "1 stopped: interrupted"), 1, "{lines:?}");
    assert_eq!(count(&lines, "0 stopped: shutdown"), 1);
    assert_eq!(count(&lines, "pending 1 published"), 0, "its user has ended it");
}

#[tokio::test(start_paused = true)]
async fn lease_that_was_marked_stops_everything_and_the_worker_registers_anew() {
    let bench = endless([Ok(2)]);
    let storage = Arc::clone(&bench.storage);
    tokio::spawn(async move {
        storage.beaten.notified().await;
        storage.marked.store(true, Ordering::Relaxed);
        storage.beaten.notified().await;
        storage.marked.store(false, Ordering::Relaxed);
    });
    let lines = bench.run_for(SECOND * 20).await;
    assert_eq!(count(&lines, "stopped: fenced"), 2, "{lines:?}");
    assert_eq!(count(&lines, "registered"), 1, "anew");
    assert_eq!(count(&lines, "resigned"), 2);
}

#[tokio::test(start_paused = true)]
async fn drain_lets_the_claim_in_flight_settle_and_its_runs_finish() {
    let mut bench = Bench::new([Ok(2)]);
    bench.time = SECOND * 5;
    bench.storage.claim_lags.lock().unwrap().push_back((SECOND, SECOND));
    let lines = bench.run_for(SECOND / 2).await;
    assert_eq!(lines[0], "claimed 2 of 4 at 1000 ms");
    assert_eq!(count(&lines, "stopped"), 0, "{lines:?}");
    assert_eq!(bench.diary.elapsed(), 7_000);
    assert_eq!(lines.last().unwrap(), "pending 99 published", "it resigned last");
}

/// Beats go on until the last run has ended: a drain may take longer than a lease.
#[tokio::test(start_paused = true)]
async fn drain_longer_than_a_lease_keeps_the_lease() {
    let mut bench = Bench::new([Ok(2)]);
    bench.time = SECOND * 29;
    let lines = bench.run_for(SECOND / 2).await;
    assert_eq!(count(&lines, "stopped"), 0, "{lines:?}");
    assert_eq!(bench.diary.elapsed(), 29_000);
}

/// It is marked only after this worker has seen the same beat for as long as others believe.
#[tokio::test(start_paused = true)]
async fn lease_of_a_dead_worker_is_marked_and_its_runs_are_taken_back() {
    let bench = Bench::new([]);
    bench.storage.lease_of_another(5);
    let lines = bench.run_for(SECOND * 16).await;
    let marked = lines.iter().position(|line| line.starts_with("marked 1 at")).unwrap();
    let at: u64 = lines[marked].split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!((9_000..=12_500).contains(&at), "seen from the first beat on: {at}");
    let after: Vec<_> =
        lines[marked + 1..].iter().filter(|line| !line.starts_with("claimed")).collect();
    assert_eq!(
        after[..4],
        ["requeued a batch", "pending 77 published", "requeued a batch", "forgot the dead"]
    );
}

/// A database that crashes may forget beats: what was seen before does not count.
#[tokio::test(start_paused = true)]
async fn broken_connection_makes_the_reaper_watch_anew() {
    let bench = Bench::new([]);
    bench.storage.lease_of_another(5);
    let storage = Arc::clone(&bench.storage);
    tokio::spawn(async move {
        sleep(SECOND * 7).await;
        storage.away.store(true, Ordering::Relaxed);
        sleep(SECOND * 2).await;
        storage.away.store(false, Ordering::Relaxed);
    });
    let lines = bench.run_for(SECOND * 16).await;
    assert_eq!(count(&lines, "marked"), 0, "{lines:?}");
}
