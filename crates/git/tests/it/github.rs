//! What a GitHub tells, and how often it is asked.

use musterbeat_core::diff::{BranchState, DiffStatus, Pull, Review};
use musterbeat_core::port::FetchError;
use musterbeat_git::{HostConfig, Hosts, ProviderConfig};
use musterbeat_testkit::{FakeGitHub, FakePull, Fault, Whom};

use crate::{ask, github};

const ORIGIN: &str = "git@github.com:octo/hello.git";
const URL: &str = "https://github.com/octo/hello/pull/7";
const PULL: &str = "/repos/octo/hello/pulls/7";
const REVIEWS: &str = "/repos/octo/hello/pulls/7/reviews?per_page=100";

#[tokio::test]
async fn a_pull_request_is_told_by_one_call() {
    let (fake, hosts) = setup().await;
    let told = ask(&hosts, ORIGIN, Some(&format!("{URL}/files")), "").await.unwrap().unwrap();
    let pull = Pull {
        url: "https://github.example/octo/hello/pull/7".into(),
        number: 7,
        title: "Work on feature".into(),
        draft: false,
        author_login: Some("octocat".into()),
        author_avatar_url: Some("https://avatars.example/octocat".into()),
        review: None,
    };
    let expected = DiffStatus {
        pull: Some(pull),
        state: Some(BranchState::Open),
        additions: 10,
        deletions: 3,
        changed_files: 2,
        commits: 1,
        behind: None,
        base_branch: Some("main".into()),
        head_branch: Some("feature".into()),
    };
    assert_eq!(told, expected);
    let calls = fake.take_calls();
    assert_eq!(calls.len(), 1);
    assert_eq!((calls[0].path.as_str(), calls[0].status), (PULL, 200));
    assert_eq!(calls[0].user_agent, concat!("musterbeat/", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn a_branch_takes_two_calls_until_its_pull_request_is_known() {
    let (fake, hosts) = setup().await;
    let by_branch = ask(&hosts, ORIGIN, None, "feature").await.unwrap().unwrap();
    let list = "/repos/octo/hello/pulls?head=octo%3Afeature&state=all&sort=created&\
                direction=desc&per_page=1";
    assert_eq!(taken(&fake), [(list.into(), 200), (PULL.into(), 200)]);
    let by_url = ask(&hosts, ORIGIN, Some(URL), "").await.unwrap().unwrap();
    assert_eq!(by_url, by_branch);
    assert_eq!(taken(&fake), [(PULL.into(), 304)]);
}

#[tokio::test]
async fn the_newest_pull_request_of_a_branch_counts() {
    let (fake, hosts) = setup().await;
    fake.set_pull("octo", "hello", 9, FakePull::of("feature"));
    fake.set_pull("octo", "hello", 10, FakePull::of("feature/more & more"));
    let number = async |branch| {
        ask(&hosts, ORIGIN, None, branch).await.unwrap().map(|told| told.pull.unwrap().number)
    };
    assert_eq!(number("feature").await, Some(9));
    assert_eq!(number("feature/more & more").await, Some(10));
}

#[tokio::test]
async fn twenty_questions_without_change_are_all_answered_with_304() {
    let (fake, hosts) = setup().await;
    let first = ask(&hosts, ORIGIN, Some(URL), "").await.unwrap();
    fake.take_calls();
    for _ in 0..20 {
        assert_eq!(ask(&hosts, ORIGIN, Some(URL), "").await.unwrap(), first);
    }
    assert_eq!(taken(&fake), vec![(PULL.to_owned(), 304); 20]);
}

#[tokio::test]
async fn a_changed_pull_request_is_told_anew() {
    let (fake, hosts) = setup().await;
    let state = async || ask(&hosts, ORIGIN, Some(URL), "").await.unwrap().unwrap().state;
    assert_eq!(state().await, Some(BranchState::Open));
    fake.change_pull("octo", "hello", 7, |pull| pull.state = "closed".into());
    assert_eq!(state().await, Some(BranchState::Closed));
    fake.change_pull("octo", "hello", 7, |pull| pull.merged = true);
    assert_eq!(state().await, Some(BranchState::Merged));
    assert!(fake.calls().iter().all(|call| call.status == 200));
}

#[tokio::test]
async fn a_branch_without_pull_request_is_told_as_none() {
    let (fake, hosts) = setup().await;
    assert_eq!(ask(&hosts, ORIGIN, None, "other").await, Ok(None));
    assert_eq!(ask(&hosts, ORIGIN, None, "other").await, Ok(None));
    let statuses: Vec<u16> = fake.calls().iter().map(|call| call.status).collect();
    assert_eq!(statuses, [200, 304]);
}

#[tokio::test]
async fn a_server_that_does_not_filter_tells_nothing_of_other_branches() {
    let (fake, hosts) = setup().await;
    let list = r#"[{"number": 7, "head": {"ref": "feature"}}]"#;
    fake.fail(Whom::Everybody, Fault::Status(200, list.into()));
    assert_eq!(ask(&hosts, ORIGIN, None, "other").await, Ok(None));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_without_a_call() {
    let (fake, hosts) = setup().await;
    for url in [Some("https://elsewhere.example/octo/hello/pull/7"), Some("nonsense"), None] {
        let told = ask(&hosts, ORIGIN, url, "").await;
        assert!(matches!(told, Err(FetchError::Invalid(_))), "{url:?}: {told:?}");
    }
    assert_eq!(taken(&fake), []);
}

#[tokio::test]
async fn reviews_are_asked_for_when_something_changed() {
    let (fake, hosts) = setup_with_reviews().await;
    let review = async || {
        let told = ask(&hosts, ORIGIN, Some(URL), "").await.unwrap().unwrap();
        told.pull.unwrap().review
    };
    let says = |who: &str, state: &str| {
        let said = (who.to_owned(), state.to_owned());
        fake.change_pull("octo", "hello", 7, |pull| pull.reviews.push(said));
    };
    assert_eq!(review().await, Some(Review::default()));
    assert_eq!(taken(&fake), [(PULL.into(), 200), (REVIEWS.into(), 200)]);

    says("ann", "APPROVED");
    let approved = Review { approved: true, changes_requested: false, reviewers: 1 };
    assert_eq!(review().await, Some(approved));
    assert_eq!(taken(&fake), [(PULL.into(), 200), (REVIEWS.into(), 200)]);
    assert_eq!(review().await, Some(approved));
    assert_eq!(taken(&fake), [(PULL.into(), 304)]);

    fake.change_pull("octo", "hello", 7, |pull| pull.title = "Better work".into());
    assert_eq!(review().await, Some(approved));
    assert_eq!(taken(&fake), [(PULL.into(), 200), (REVIEWS.into(), 304)]);

    says("bob", "CHANGES_REQUESTED");
    fake.change_pull("octo", "hello", 7, |pull| pull.merged = true);
    assert_eq!(review().await, Some(approved), "nobody asks about what has ended");
    assert_eq!(taken(&fake), [(PULL.into(), 200)]);
}

#[tokio::test]
async fn reviews_that_were_not_told_are_asked_for_again() {
    let (fake, hosts) = setup_with_reviews().await;
    ask(&hosts, ORIGIN, Some(URL), "").await.unwrap();
    let said = ("ann".to_owned(), "APPROVED".to_owned());
    fake.change_pull("octo", "hello", 7, |pull| pull.reviews.push(said));
    fake.fail(Whom::Path(REVIEWS.into()), Fault::Status(502, String::new()));
    let failed = ask(&hosts, ORIGIN, Some(URL), "").await;
    assert_eq!(failed, Err(FetchError::Host("502 Bad Gateway".into())));
    fake.heal();
    let told = ask(&hosts, ORIGIN, Some(URL), "").await.unwrap().unwrap();
    assert!(told.pull.unwrap().review.unwrap().approved);
}

async fn setup() -> (FakeGitHub, Hosts) {
    let fake = FakeGitHub::start().await.unwrap();
    fake.set_pull("octo", "hello", 7, FakePull::of("feature"));
    let hosts = Hosts::new(vec![github("github.com", &fake.api_url(), "secret")]).unwrap();
    (fake, hosts)
}

async fn setup_with_reviews() -> (FakeGitHub, Hosts) {
    let (fake, _) = setup().await;
    let (api, token) = (Some(fake.api_url()), Some("secret".to_owned().into()));
    let provider = ProviderConfig::GitHub { api, token, reviews: true };
    let hosts = Hosts::new(vec![HostConfig { origin: "github.com".into(), provider }]).unwrap();
    (fake, hosts)
}

fn taken(fake: &FakeGitHub) -> Vec<(String, u16)> {
    fake.take_calls().into_iter().map(|call| (call.path, call.status)).collect()
}
