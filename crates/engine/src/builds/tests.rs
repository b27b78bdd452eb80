//! Builds in memory, under paused time.

mod ground;

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use musterbeat_core::id::PresetId;
use musterbeat_core::prebuild::PoolName;
use tokio::time::sleep;
use uuid::Uuid;

use super::*;
use ground::{End, Ground, away, broken, run};

#[expect(clippy::unnecessary_wraps, reason = "the shape of an end")]
fn done() -> End {
    Ok(Provisioned { replacements: vec!["disk".to_owned()] })
}

/// What storage says of a prebuild's build.
fn of_a_pool(needs_look: bool) -> Ended {
    let name = PoolName { template: "rust".to_owned(), preset: "small".to_owned() };
    let refilled = Some(Duration::from_secs(7));
    Ended { pool: Some((PresetId::new(Uuid::from_u128(5)), name)), needs_look, refilled }
}

#[tokio::test(start_paused = true)]
async fn end_is_written_as_the_provisioner_says() {
    let invalid = || Err(ProvisionError::Invalid("no such size".to_owned()));
    let failed = || Err(ProvisionError::Failed("no room".to_owned()));
    for end in [done(), failed(), invalid()] {
        let ground = Arc::new(Ground::default());
        assert_eq!(ground.carry_out_to(end.clone()).await, Outcome::Settled);
        assert_eq!(ground.ends(), [end]);
    }
}

#[tokio::test(start_paused = true)]
async fn panic_of_the_provisioner_is_a_failed_build() {
    let ground = Arc::new(Ground::default());
    let panics = |context: Arc<dyn BuildContext>| -> BoxFuture<'static, End> {
        Box::pin(async move {
            context.log("about to");
            panic!("a fault of the test")
        })
    };
    assert_eq!(ground.carry_out(run(), panics).await, Outcome::Settled);
    let error = "the provisioner panicked: a fault of the test".to_owned();
    assert_eq!(ground.ends(), [Err(ProvisionError::Failed(error))]);
    assert_eq!(ground.lines(), ["about to"]);
}

/// Carries a build out until it is asked to stop.
async fn stopped(cause: StopCause) -> (Arc<Ground>, Outcome) {
    let ground = Arc::new(Ground::default());
    let context = Arc::clone(&ground.context);
    let stop = async {
        sleep(Duration::from_secs(3)).await;
        context.stop(cause);
    };
    let until_stopped = move |context: Arc<dyn BuildContext>| -> BoxFuture<'static, End> {
        Box::pin(async move {
            assert_eq!(context.stopped().await, cause);
            context.log("stops");
            Err(ProvisionError::Stopped)
        })
    };
    let (outcome, ()) = tokio::join!(ground.carry_out(run(), until_stopped), stop);
    (ground, outcome)
}

#[tokio::test(start_paused = true)]
async fn build_that_a_user_stops_has_ended_and_any_other_is_given_back() {
    let (ground, outcome) = stopped(StopCause::Interrupted).await;
    assert_eq!((outcome, ground.ends()), (Outcome::Settled, vec![Err(ProvisionError::Stopped)]));
    for cause in [StopCause::Shutdown, StopCause::Lost, StopCause::Fenced] {
        let (ground, outcome) = stopped(cause).await;
        assert_eq!((outcome, ground.ends()), (Outcome::GivenBack, vec![]), "{cause:?}");
        assert!(!ground.context.ending.load(Ordering::SeqCst));
    }
}

#[tokio::test(start_paused = true)]
async fn build_that_ends_in_spite_of_a_shutdown_has_ended() {
    let ground = Arc::new(Ground::default());
    ground.context.stop(StopCause::Shutdown);
    assert_eq!(ground.carry_out_to(done()).await, Outcome::Settled);
    assert_eq!(ground.ends(), [done()]);
}

#[tokio::test(start_paused = true)]
async fn stop_that_nobody_asked_for_is_a_failure() {
    let ground = Arc::new(Ground::default());
    assert_eq!(ground.carry_out_to(Err(ProvisionError::Stopped)).await, Outcome::Settled);
    let error = "the provisioner stopped without being asked to".to_owned();
    assert_eq!(ground.ends(), [Err(ProvisionError::Failed(error))]);
}

#[tokio::test(start_paused = true)]
async fn build_that_was_stopped_before_anybody_began_it_is_not_begun() {
    let ground = Arc::new(Ground::default());
    let stop = Run { stop: true, ..run() };
    let outcome = ground.carry_out(stop, |_| Box::pin(std::future::ready(done()))).await;
    assert_eq!((outcome, ground.provisioned()), (Outcome::Settled, 0));
    assert_eq!(ground.ends(), [Err(ProvisionError::Stopped)]);
}

#[tokio::test(start_paused = true)]
async fn work_is_asked_for_until_storage_answers() {
    let ground = Arc::new(Ground::default());
    ground.works.lock().unwrap().extend([Err(away()), Err(away())]);
    assert_eq!(ground.carry_out_to(done()).await, Outcome::Settled);
    assert_eq!((ground.provisioned(), ground.ends().len()), (1, 1));

    let ground = Arc::new(Ground::default());
    ground.works.lock().unwrap().push_back(Ok(None));
    let outcome = ground.carry_out_to(done()).await;
    assert_eq!(outcome, Outcome::Failed("there is no such build".to_owned()));

    let ground = Arc::new(Ground::default());
    ground.works.lock().unwrap().push_back(Err(broken()));
    assert_eq!(ground.carry_out_to(done()).await, Outcome::GivenBack);
    assert_eq!((ground.provisioned(), ground.ends().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn end_is_sent_again_until_storage_answers() {
    let ground = Arc::new(Ground::default());
    let answers = [Err(away().into()), Err(away().into()), Ok(of_a_pool(false))];
    ground.answers.lock().unwrap().extend(answers);
    assert_eq!(ground.carry_out_to(done()).await, Outcome::Settled);
    assert_eq!(ground.ends(), [done(), done(), done()]);
    assert_eq!((ground.provisioned(), ground.told.lock().unwrap().len()), (1, 0));

    let ground = Arc::new(Ground::default());
    ground.answers.lock().unwrap().push_back(Err(broken().into()));
    assert_eq!(ground.carry_out_to(done()).await, Outcome::Failed("failed to test".to_owned()));
    assert_eq!(ground.ends().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn end_that_is_somebody_elses_to_write_is_not_written() {
    let ground = Arc::new(Ground::default());
    ground.answers.lock().unwrap().push_back(Err(WriteError::Fenced));
    assert_eq!(ground.carry_out_to(done()).await, Outcome::Settled);
    assert_eq!((ground.ends().len(), ground.told.lock().unwrap().len()), (1, 0));

    for cause in [StopCause::Lost, StopCause::Fenced] {
        let ground = Arc::new(Ground::default());
        ground.context.stop(cause);
        assert_eq!(ground.carry_out_to(done()).await, Outcome::Settled);
        assert_eq!(ground.ends(), [], "{cause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn worker_that_loses_its_lease_while_storage_is_away_sends_nothing_more() {
    let ground = Arc::new(Ground::default());
    ground.answers.lock().unwrap().extend((0..1_000).map(|_| Err(away().into())));
    let lapse = async {
        sleep(Duration::from_secs(10)).await;
        ground.context.stop(StopCause::Fenced);
        ground.ends().len()
    };
    let (outcome, sent) = tokio::join!(ground.carry_out_to(done()), lapse);
    assert_eq!((outcome, ground.ends().len()), (Outcome::GivenBack, sent));
    assert!(1 < sent, "it tried");
}

#[tokio::test(start_paused = true)]
async fn pool_that_needs_it_is_looked_at_soon() {
    let ground = Arc::new(Ground::default());
    ground.answers.lock().unwrap().push_back(Ok(of_a_pool(true)));
    let failed = Err(ProvisionError::Failed("no room".to_owned()));
    assert_eq!(ground.carry_out_to(failed).await, Outcome::Settled);
    assert_eq!(*ground.told.lock().unwrap(), [Uuid::from_u128(5)]);
}

/// Carries a build out that says `lines` lines, one each `pause`, as `line` gives them.
async fn says(
    ground: &Arc<Ground>,
    lines: u32,
    pause: Duration,
    line: fn(u32) -> String,
) -> Outcome {
    let say = move |context: Arc<dyn BuildContext>| -> BoxFuture<'static, End> {
        Box::pin(async move {
            for number in 0..lines {
                context.log(&line(number));
                sleep(pause).await;
            }
            done()
        })
    };
    ground.carry_out(run(), say).await
}

fn numbers(count: u32) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn lines_are_written_in_batches_while_the_build_goes_on() {
    let ground = Arc::new(Ground::default());
    let began = Instant::now();
    says(&ground, 1_000, Duration::from_millis(10), |number| number.to_string()).await;
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    assert_eq!(ground.lines(), numbers(1_000));
    let writes = ground.kept.lock().unwrap().len();
    assert!((19..=21).contains(&writes), "{writes} writes in 10 s");
}

#[tokio::test(start_paused = true)]
async fn lines_are_kept_though_storage_is_away_for_a_while() {
    let ground = Arc::new(Ground::default());
    ground.outages.store(7, Ordering::SeqCst);
    // The last writes that fail come after the build's end.
    says(&ground, 20, Duration::from_millis(100), |number| number.to_string()).await;
    assert_eq!(ground.outages.load(Ordering::SeqCst), 0);
    assert_eq!(ground.lines(), numbers(20));
    assert_eq!(ground.ends().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn end_waits_for_its_last_lines_no_longer_than_a_few_seconds() {
    let ground = Arc::new(Ground::default());
    ground.outages.store(usize::MAX, Ordering::SeqCst);
    let began = Instant::now();
    let outcome = says(&ground, 3, Duration::ZERO, |number| number.to_string()).await;
    assert_eq!((outcome, ground.ends()), (Outcome::Settled, vec![done()]));
    let took = began.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(6)).contains(&took), "{took:?}");

    let ground = Arc::new(Ground::default());
    ground.refuses.store(true, Ordering::SeqCst);
    let began = Instant::now();
    says(&ground, 3, Duration::ZERO, |number| number.to_string()).await;
    assert!(began.elapsed() < Duration::from_secs(1), "what is refused is refused again");
    assert_eq!(ground.ends(), [done()]);
}

#[tokio::test(start_paused = true)]
async fn log_is_bounded_in_lines() {
    let ground = Arc::new(Ground::default());
    says(&ground, LINES_MAX + 500, Duration::ZERO, |number| number.to_string()).await;
    let lines = ground.lines();
    assert_eq!(lines[..LINES_MAX as usize], numbers(LINES_MAX));
    assert_eq!(lines[LINES_MAX as usize..], ["the log is full; further lines are discarded"]);
    assert!(ground.kept.lock().unwrap().iter().all(|(_, batch)| batch.len() <= 1_000));
}

#[tokio::test(start_paused = true)]
async fn log_is_bounded_in_bytes_and_each_line_is() {
    let ground = Arc::new(Ground::default());
    says(&ground, 2_000, Duration::ZERO, |_| "é".repeat(LINE_BYTES_MAX)).await;
    let lines = ground.lines();
    let (last, lines) = lines.split_last().unwrap();
    assert_eq!(last, "the log is full; further lines are discarded");
    assert!(lines.iter().all(|line| *line == "é".repeat(LINE_BYTES_MAX / 2)), "cut");
    let bytes: usize = lines.iter().map(String::len).sum();
    assert!(bytes <= LOG_BYTES_MAX && LOG_BYTES_MAX - 2 * LINE_BYTES_MAX - 1_000 * 24 < bytes);

    let ground = Arc::new(Ground::default());
    says(&ground, 2, Duration::ZERO, |number| format!("x{}", "é".repeat(3_000 * number as usize)))
        .await;
    let lines = ground.lines();
    assert_eq!((lines[0].as_str(), lines[1].len()), ("x", LINE_BYTES_MAX - 1), "between letters");
}

#[tokio::test(start_paused = true)]
async fn lines_have_no_nul() {
    let ground = Arc::new(Ground::default());
    says(&ground, 1, Duration::ZERO, |_| "a\0b\0".to_owned()).await;
    assert_eq!(ground.lines(), ["ab"]);
}
