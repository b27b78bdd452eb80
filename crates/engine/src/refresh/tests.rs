//! The refresher with mocked storage and hosts, under paused time.

mod ground;

use std::sync::atomic::{AtomicUsize, Ordering};

use musterbeat_core::diff::{BranchState, DiffStatus};
use musterbeat_core::refresh::Answer;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::*;
use ground::{Ground, Host};

const A: &str = "https://a.example/r";
const B: &str = "https://b.example/r";

fn chat(number: u128) -> ChatId {
    ChatId::new(Uuid::from_u128(number))
}

fn owner(number: u128) -> OwnerId {
    OwnerId::new(Uuid::from_u128(number))
}

fn row(number: u128, whose: u128, origin: &str, branch: &str) -> StaleDiff {
    let (branch, origin) = (branch.to_owned(), origin.to_owned());
    StaleDiff {
        chat: chat(number),
        owner: owner(whose),
        reference: Reference { url: None, branch, origin },
        state: None,
        failures: 0,
        marked_ago: Duration::from_hours(1),
        limited: None,
        fence: 1,
        marks: 1,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of an answer")]
fn open() -> Answer {
    Ok(Some(DiffStatus { state: Some(BranchState::Open), ..DiffStatus::default() }))
}

fn away() -> StoreError {
    StoreError::Unavailable { operation: "test", source: "away".into() }
}

fn broken() -> StoreError {
    StoreError::Broken { operation: "test", source: "broken".into() }
}

/// Refreshes one batch of `rows`.
async fn refreshed(
    rows: Vec<StaleDiff>,
    host: Host,
    options: RefreshOptions,
) -> (Arc<Ground>, Arc<Host>) {
    let (ground, host) = (Arc::new(Ground::of([rows])), Arc::new(host));
    let refresher = ground.refresher(&host, options);
    refresher.refresh_batch(&Shutdown::default()).await;
    (ground, host)
}

#[tokio::test(start_paused = true)]
async fn answer_serves_all_chats_of_its_question_in_two_statements() {
    let rows = (1..=50).map(|number| row(number, 1, A, if number % 5 == 0 { "x" } else { "y" }));
    let host = Host::answering(|_| open());
    let (ground, host) = refreshed(rows.collect(), host, RefreshOptions::DEFAULT).await;
    assert_eq!(host.asked(), ["x", "y"]);
    assert_eq!(host.opened.lock().unwrap().len(), 1);
    let written = ground.written();
    assert_eq!(written.len(), 50);
    let fresh = |again: u64| (120..=132).contains(&again);
    assert!(
        written
            .iter()
            .all(|(_, told, problem, again)| { *told && problem.is_none() && fresh(*again) })
    );
    let statements = ground.acquired.load(Ordering::SeqCst) + ground.writes.load(Ordering::SeqCst);
    assert_eq!(statements, 2);
    assert_eq!(ground.told(Topic::Owner), 1, "an owner is told once");
}

#[tokio::test(start_paused = true)]
async fn three_rows_of_two_origins_open_two_hosts_with_the_right_of_their_owner() {
    let rows = vec![row(1, 1, A, "x"), row(2, 2, B, "x"), row(3, 1, A, "y")];
    let (_, host) = refreshed(rows, Host::answering(|_| open()), RefreshOptions::DEFAULT).await;
    let opened = host.opened.lock().unwrap().clone();
    assert_eq!(opened, [(owner(1), A.to_owned()), (owner(2), B.to_owned())]);
    assert_eq!(host.asked(), ["x", "x", "y"]);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_asked_is_not_asked_and_holds_up_nobody() {
    for error in [FetchError::NoHost, FetchError::NoToken] {
        let refuses = Some((A, error.clone()));
        let host = Host { refuses, ..Host::answering(|_| open()) };
        let rows = vec![row(1, 1, A, "x"), row(2, 1, B, "y")];
        let (ground, host) = refreshed(rows, host, RefreshOptions::DEFAULT).await;
        assert_eq!(host.asked(), ["y"]);
        let [(1, false, Some(problem), again), (2, true, None, _)] = &ground.written()[..] else {
            panic!("{:?}", ground.written());
        };
        assert_eq!(problem, &error.to_string());
        assert!((600..=660).contains(again), "{again}");
    }
}

#[tokio::test(start_paused = true)]
async fn branch_without_a_pull_request_is_no_failure_and_no_news() {
    let recent = StaleDiff { marked_ago: Duration::from_secs(119), ..row(1, 1, A, "x") };
    let old = StaleDiff { marked_ago: Duration::from_mins(2), ..row(2, 1, A, "x") };
    let host = Host::answering(|_| Ok(None));
    let (ground, _) = refreshed(vec![recent, old], host, RefreshOptions::DEFAULT).await;
    let [(1, false, None, soon), (2, false, None, late)] = ground.written()[..] else {
        panic!("{:?}", ground.written());
    };
    assert!((15..=16).contains(&soon) && (300..=330).contains(&late), "{soon} {late}");
    assert_eq!(ground.told(Topic::Owner), 0);
}

#[tokio::test(start_paused = true)]
async fn rate_limit_skips_the_rest_of_its_group_alone() {
    let wait = Duration::from_secs(1_000);
    let host = Host::answering(move |reference| match reference.origin.as_str() {
        A => Err(FetchError::RateLimited { wait: Some(wait) }),
        _ => open(),
    });
    let rows = vec![
        row(1, 1, A, "x"),
        row(2, 1, A, "y"),
        row(3, 1, A, "z"),
        row(4, 1, B, "b"),
        row(5, 2, A, "other"),
    ];
    let options = RefreshOptions { concurrency: 1, ..RefreshOptions::DEFAULT };
    let (ground, host) = refreshed(rows, host, options).await;
    assert_eq!(host.asked(), ["b", "other", "x"], "one of the group");
    for (number, told, problem, again) in ground.written() {
        assert_eq!((told, problem.is_none()), (number == 4, number == 4));
        assert!(number == 4 || (1_000..=1_210).contains(&again), "{again}");
    }
    let failures: Vec<_> = ground.written.lock().unwrap().iter().map(|row| row.failures).collect();
    assert_eq!(failures.iter().sum::<u32>(), 2, "who was skipped has not failed");
    let limits = ground.limits.lock().unwrap();
    let limited: Vec<_> = limits.iter().map(|limit| (limit.owner, limit.origin.as_str())).collect();
    assert_eq!(limited, [(owner(1), A), (owner(2), A)]);
    assert!(limits.iter().all(|limit| limit.wait >= wait));
}

#[tokio::test(start_paused = true)]
async fn questions_are_asked_several_at_a_time() {
    let rows = (1..=50).map(|number| row(number, 1, A, &format!("{number}"))).collect();
    let ground = Arc::new(Ground::of([rows]));
    let host = Arc::new(Host { gate: Semaphore::new(0), ..Host::answering(|_| open()) });
    let refresher = ground.refresher(&host, RefreshOptions::DEFAULT);
    let batch = tokio::spawn(async move { refresher.refresh_batch(&Shutdown::default()).await });
    while host.at_once.load(Ordering::SeqCst) < 10 {
        tokio::task::yield_now().await;
    }
    host.gate.add_permits(50);
    assert!(batch.await.unwrap(), "a full batch may not be the last");
    assert_eq!(host.at_once_max.load(Ordering::SeqCst), 10);
    assert_eq!(ground.written().len(), 50);
}

#[tokio::test(start_paused = true)]
async fn host_that_is_silent_or_panics_stops_no_other() {
    let rows = vec![row(1, 1, A, "panics"), row(2, 1, A, "told"), row(3, 1, A, "silent")];
    let host = Host::answering(|reference| match reference.branch.as_str() {
        "panics" => panic!("a fault of the test"),
        _ => open(),
    });
    // The third gets no permit.
    let host = Host { gate: Semaphore::new(2), ..host };
    let options = RefreshOptions { concurrency: 3, ..RefreshOptions::DEFAULT };
    let (ground, _) = refreshed(rows, host, options).await;
    let problems: Vec<_> = ground.written().into_iter().map(|(_, _, problem, _)| problem).collect();
    let panicked = "the host failed: the provider panicked: a fault of the test";
    let silent = "the host was not reached: no answer within 20s";
    let expected = [Some(panicked.to_owned()), None, Some(silent.to_owned())];
    assert_eq!(problems, expected);
}

#[tokio::test(start_paused = true)]
async fn questions_that_would_outlast_the_lease_are_left_to_others() {
    let rows = (1..=20).map(|number| row(number, 1, A, &format!("{number}"))).collect();
    let host = Host { gate: Semaphore::new(0), ..Host::answering(|_| open()) };
    let options = RefreshOptions { concurrency: 1, ..RefreshOptions::DEFAULT };
    let began = Instant::now();
    let (ground, host) = refreshed(rows, host, options).await;
    assert!(began.elapsed() + WRITE_TIME <= LEASE);
    assert_eq!(host.asked().len(), 12, "of 20 s each within 4 minutes");
    let unasked = ground
        .written()
        .into_iter()
        .filter(|(_, _, problem, again)| problem.is_none() && *again == 0);
    assert_eq!(unasked.count(), 8);
}

#[tokio::test(start_paused = true)]
async fn row_that_cannot_be_written_stops_no_other() {
    let rows = (1..=9).map(|number| row(number, 1, A, &format!("{number}"))).collect();
    let ground = Ground { poison: Some(chat(4)), ..Ground::of([rows]) };
    let ground = Arc::new(ground);
    let host = Arc::new(Host::answering(|_| open()));
    let refresher = ground.refresher(&host, RefreshOptions::DEFAULT);
    refresher.refresh_batch(&Shutdown::default()).await;
    let written: Vec<_> = ground.written().into_iter().map(|(number, ..)| number).collect();
    assert_eq!(written, [1, 2, 3, 5, 6, 7, 8, 9]);
}

#[tokio::test(start_paused = true)]
async fn what_was_found_outlives_an_outage_of_storage() {
    let ground = Ground { outages: AtomicUsize::new(9), ..Ground::of([vec![row(1, 1, A, "x")]]) };
    let ground = Arc::new(ground);
    let host = Arc::new(Host::answering(|_| open()));
    ground.refresher(&host, RefreshOptions::DEFAULT).refresh_batch(&Shutdown::default()).await;
    assert_eq!((ground.written().len(), host.asked().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn loop_goes_on_after_a_failure_and_comes_by_itself() {
    let ground = Arc::new(Ground::of([]));
    ground.batches.lock().unwrap().extend([Err(away()), Ok(vec![row(1, 1, A, "x")])]);
    let host = Arc::new(Host::answering(|_| open()));
    let shutdown = Shutdown::default();
    let began = Instant::now();
    let run = tokio::spawn(ground.refresher(&host, RefreshOptions::DEFAULT).run(shutdown.clone()));
    while ground.written().is_empty() {
        ground.acquired_one.notified().await;
        tokio::task::yield_now().await;
    }
    assert!(began.elapsed() <= 3 * TICK, "{:?}", began.elapsed());
    shutdown.request();
    run.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn mark_wakes_the_loop_at_once() {
    let ground = Arc::new(Ground::of([]));
    let host = Arc::new(Host::answering(|_| open()));
    let shutdown = Shutdown::default();
    let refresher = ground.refresher(&host, RefreshOptions::DEFAULT);
    let run = tokio::spawn(refresher.run(shutdown.clone()));
    ground.acquired_one.notified().await;
    let looked = Instant::now();
    ground.marked.notify_one();
    ground.acquired_one.notified().await;
    assert!(looked.elapsed() <= WAKE_SPREAD, "{:?}", looked.elapsed());
    shutdown.request();
    run.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn end_writes_what_was_told_and_leaves_the_rest_to_others() {
    let rows = vec![row(1, 1, A, "x"), row(2, 1, A, "y"), row(3, 1, A, "z")];
    let ground = Arc::new(Ground::of([rows]));
    let host = Arc::new(Host { gate: Semaphore::new(1), ..Host::answering(|_| open()) });
    let options = RefreshOptions { concurrency: 1, ..RefreshOptions::DEFAULT };
    let shutdown = Shutdown::default();
    let run = tokio::spawn(ground.refresher(&host, options).run(shutdown.clone()));
    ground.acquired_one.notified().await;
    while host.asked().len() < 2 {
        tokio::task::yield_now().await;
    }
    let asked_to_end = Instant::now();
    shutdown.request();
    run.await.unwrap();
    assert_eq!(asked_to_end.elapsed(), Duration::ZERO, "no silent host holds it up");
    let told: Vec<_> = ground.written().into_iter().map(|(chat, told, ..)| (chat, told)).collect();
    assert_eq!(told, [(1, true), (2, false), (3, false)]);
    assert_eq!(host.asked(), ["x", "y"]);
    assert!(ground.written()[1..].iter().all(|(.., again)| *again == 0), "stale at once");
}

#[tokio::test(start_paused = true)]
async fn marks_are_told_to_processes_and_owners() {
    let ground = Arc::new(Ground::of([]));
    let host = Arc::new(Host::answering(|_| open()));
    let refresher = ground.refresher(&host, RefreshOptions::DEFAULT);
    let nothing = Reference::default();
    let everything = Reach::Everything;
    let marked = refresher.mark(DiffTarget::Chat(chat(1)), everything, &nothing).await.unwrap();
    assert_eq!((marked, ground.told(Topic::Stale), ground.told(Topic::Owner)), (2, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn refresh_of_one_chat_returns_what_is_known_then() {
    for (answer, status) in [(open(), true), (Ok(None), false)] {
        let ground = Arc::new(Ground::of([vec![row(1, 1, A, "x")]]));
        let host = Arc::new(Host::answering(move |_| answer.clone()));
        let refresher = ground.refresher(&host, RefreshOptions::DEFAULT);
        let diff = refresher.refresh(chat(1), Reach::Everything).await.unwrap();
        assert_eq!(diff.status.is_some(), status);
        assert_eq!(ground.told(Topic::Owner), usize::from(status));
        let unknown = refresher.refresh(chat(1), Reach::Everything).await;
        assert!(matches!(unknown, Err(RefreshError::NotFound)));
    }
}

#[tokio::test(start_paused = true)]
async fn refresh_of_one_chat_says_why_nothing_was_told_and_tells_nobody() {
    let ground = Arc::new(Ground::of([vec![row(1, 1, A, "x")]]));
    let host = Arc::new(Host::answering(|_| Err(FetchError::NotFound)));
    let refresher = ground.refresher(&host, RefreshOptions::DEFAULT);
    let refused = refresher.refresh(chat(1), Reach::Everything).await;
    assert!(matches!(refused, Err(RefreshError::Fetch(FetchError::NotFound))));
    assert_eq!((ground.written().len(), ground.told(Topic::Owner)), (1, 0));

    let limited = StaleDiff { limited: Some(Duration::from_secs(77)), ..row(1, 1, A, "x") };
    let ground = Arc::new(Ground::of([vec![limited]]));
    let refresher = ground.refresher(&host, RefreshOptions::DEFAULT);
    let asked = host.asked().len();
    let refused = refresher.refresh(chat(1), Reach::Everything).await;
    let wait = Some(Duration::from_secs(77));
    assert!(
        matches!(refused, Err(RefreshError::Fetch(FetchError::RateLimited { wait: w })) if w == wait)
    );
    assert_eq!(host.asked().len(), asked, "nobody was asked");
}

#[tokio::test(start_paused = true)]
async fn refresh_of_one_chat_whose_answer_cannot_be_written_tells_nobody() {
    let ground = Ground { poison: Some(chat(1)), ..Ground::of([vec![row(1, 1, A, "x")]]) };
    let ground = Arc::new(ground);
    let host = Arc::new(Host::answering(|_| open()));
    let refresher = ground.refresher(&host, RefreshOptions::DEFAULT);
    let refused = refresher.refresh(chat(1), Reach::Everything).await;
    let refused = matches!(refused, Err(RefreshError::Store(StoreError::Broken { .. })));
    assert!(refused);
    assert_eq!(ground.told(Topic::Owner), 0);
}

#[tokio::test(start_paused = true)]
async fn end_is_not_held_up_by_storage_that_is_away() {
    let outages = AtomicUsize::new(usize::MAX);
    let rows = (1..=50).map(|number| row(number, 1, A, "x")).collect();
    let ground = Ground { outages, ..Ground::of([rows]) };
    let ground = Arc::new(ground);
    let host = Arc::new(Host::answering(|_| open()));
    let shutdown = Shutdown::default();
    let refresher = ground.refresher(&host, RefreshOptions::DEFAULT);
    let run = tokio::spawn(refresher.run(shutdown.clone()));
    while ground.writes.load(Ordering::SeqCst) < 2 {
        sleep(Duration::from_secs(1)).await;
    }
    let (asked_to_end, writes) = (Instant::now(), ground.writes.load(Ordering::SeqCst));
    shutdown.request();
    run.await.unwrap();
    assert_eq!(asked_to_end.elapsed(), Duration::ZERO);
    assert!(ground.writes.load(Ordering::SeqCst) <= writes + 1, "it is not written in parts");
}
