//! What a GitHub does wrong, and what becomes of it.

use std::time::Duration;

use musterbeat_core::port::FetchError;
use musterbeat_git::{Hosts, Options};
use musterbeat_testkit::{FakeGitHub, FakePull, Fault, Whom};

use crate::{ask, github};

const ORIGIN: &str = "https://github.com/octo/hello";
const URL: &str = "https://github.com/octo/hello/pull/7";

#[tokio::test]
async fn each_status_becomes_its_error_and_the_next_answer_is_good() {
    let (fake, hosts) = setup(Options::DEFAULT).await;
    let refusal = "the host does not take the question: 422 Unprocessable Entity";
    for (status, expected) in [
        (401, FetchError::Refused),
        (403, FetchError::Refused),
        (404, FetchError::NotFound),
        (410, FetchError::NotFound),
        (422, FetchError::Invalid(refusal.into())),
        (500, FetchError::Host("500 Internal Server Error".into())),
        (503, FetchError::Host("503 Service Unavailable".into())),
    ] {
        fake.fail(Whom::Everybody, Fault::Status(status, "sorry".into()));
        assert_eq!(ask(&hosts, ORIGIN, Some(URL), "").await, Err(expected));
        fake.heal();
        assert!(ask(&hosts, ORIGIN, Some(URL), "").await.is_ok());
    }
}

#[tokio::test]
async fn a_pull_request_that_is_not_there_is_not_found() {
    let (_fake, hosts) = setup(Options::DEFAULT).await;
    let url = "https://github.com/octo/hello/pull/8";
    assert_eq!(ask(&hosts, ORIGIN, Some(url), "").await, Err(FetchError::NotFound));
}

#[tokio::test]
async fn a_rate_limit_is_waited_for_by_the_hosts_own_clock() {
    let (fake, hosts) = setup(Options::DEFAULT).await;
    fake.fail(Whom::Token("secret".into()), Fault::RateLimit { seconds: 1_234 });
    let wait = Some(Duration::from_secs(1_234));
    let told = ask(&hosts, ORIGIN, Some(URL), "").await;
    assert_eq!(told, Err(FetchError::RateLimited { wait }));
}

#[tokio::test]
async fn questions_that_come_too_fast_wait_as_long_as_they_are_told() {
    let (fake, hosts) = setup(Options::DEFAULT).await;
    fake.fail(Whom::Path("/repos/octo".into()), Fault::TooFast { seconds: 17 });
    let wait = Some(Duration::from_secs(17));
    let told = ask(&hosts, ORIGIN, Some(URL), "").await;
    assert_eq!(told, Err(FetchError::RateLimited { wait }));
}

#[tokio::test]
async fn an_answer_without_sense_is_the_hosts_fault() {
    let (fake, hosts) = setup(Options::DEFAULT).await;
    let long = format!(r#"{{"number": "{}"}}"#, "x".repeat(10_000));
    for body in ["", "<html>", "{}", "[]", &long] {
        fake.fail(Whom::Everybody, Fault::Status(200, body.into()));
        match ask(&hosts, ORIGIN, Some(URL), "").await {
            Err(FetchError::Host(reason)) => assert!(reason.len() < 300, "{reason}"),
            other => panic!("{body}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_not_read_to_its_end() {
    let (fake, hosts) = setup(Options::DEFAULT).await;
    fake.fail(Whom::Everybody, Fault::Blanks(usize::MAX));
    let reason = "its answer has more than 1048576 bytes";
    let told = ask(&hosts, ORIGIN, Some(URL), "").await;
    assert_eq!(told, Err(FetchError::Host(reason.into())));
}

#[tokio::test]
async fn a_host_that_is_silent_is_given_up() {
    let limit = Duration::from_millis(100);
    let (fake, hosts) = setup(Options { call_time_max: limit, ..Options::DEFAULT }).await;
    fake.fail(Whom::Everybody, Fault::Silence);
    let told = ask(&hosts, ORIGIN, Some(URL), "").await;
    assert_eq!(told, Err(FetchError::Transport("no answer within 100ms".into())));
    fake.hanging(0).await.unwrap();
}

#[tokio::test]
async fn a_question_that_is_given_up_ends_its_call() {
    let (fake, hosts) = setup(Options::DEFAULT).await;
    fake.fail(Whom::Everybody, Fault::Silence);
    let question = tokio::spawn(async move { ask(&hosts, ORIGIN, Some(URL), "").await });
    fake.hanging(1).await.unwrap();
    question.abort();
    fake.hanging(0).await.unwrap();
}

#[tokio::test]
async fn a_late_answer_is_a_good_one() {
    let (fake, hosts) = setup(Options::DEFAULT).await;
    fake.fail(Whom::Everybody, Fault::Silence);
    let question = tokio::spawn(async move { ask(&hosts, ORIGIN, Some(URL), "").await });
    fake.hanging(1).await.unwrap();
    fake.heal();
    assert!(question.await.unwrap().unwrap().is_some());
}

#[tokio::test]
async fn a_host_that_is_not_there_is_not_reached() {
    let (fake, hosts) = setup(Options::DEFAULT).await;
    let api = fake.api_url();
    drop(fake);
    match ask(&hosts, ORIGIN, Some(URL), "").await {
        Err(FetchError::Transport(reason)) => {
            assert!(!reason.contains(&api) && !reason.contains("secret"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_renamed_repository_is_followed_on_its_host_only() {
    let (fake, hosts) = setup(Options::DEFAULT).await;
    fake.set_pull("octo", "new", 7, FakePull::of("feature"));
    let pull = "/repos/octo/hello/pulls/7";
    let to = "/repos/octo/new/pulls/7".to_owned();
    fake.fail(Whom::Path(pull.into()), Fault::Redirect(to.clone()));
    assert!(ask(&hosts, ORIGIN, Some(URL), "").await.unwrap().is_some());
    assert!(ask(&hosts, ORIGIN, Some(URL), "").await.unwrap().is_some());
    let calls: Vec<_> =
        fake.take_calls().into_iter().map(|call| (call.path, call.status)).collect();
    let moved = (pull.to_owned(), 301);
    assert_eq!(calls, [moved.clone(), (to.clone(), 200), moved, (to, 304)]);

    fake.fail(Whom::Path(pull.into()), Fault::Redirect(pull.into()));
    let told = ask(&hosts, ORIGIN, Some(URL), "").await;
    assert_eq!(told, Err(FetchError::Host("the host redirects too often".into())));
    assert_eq!(fake.take_calls().len(), 4);

    let other = FakeGitHub::start().await.unwrap();
    fake.fail(Whom::Path(pull.into()), Fault::Redirect(other.api_url()));
    let told = ask(&hosts, ORIGIN, Some(URL), "").await;
    let reason = "301 Moved Permanently, which leads to another host";
    assert_eq!(told, Err(FetchError::Host(reason.into())));
    assert_eq!(other.calls(), []);
}

#[tokio::test]
async fn a_cache_without_room_asks_for_everything_each_time() {
    let (fake, hosts) = setup(Options { cache_bytes_max: 0, ..Options::DEFAULT }).await;
    for _ in 0..2 {
        assert!(ask(&hosts, ORIGIN, Some(URL), "").await.unwrap().is_some());
    }
    assert!(fake.calls().iter().all(|call| call.status == 200));
}

async fn setup(options: Options) -> (FakeGitHub, Hosts) {
    let fake = FakeGitHub::start().await.unwrap();
    fake.set_pull("octo", "hello", 7, FakePull::of("feature"));
    let config = github("github.com", &fake.api_url(), "secret");
    (fake, Hosts::with_options(vec![config], &options).unwrap())
}
