//! What answers mean, and how questions are put together.

use std::collections::BTreeSet;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::diff::Pull;

const TIMES: RefreshTimes = RefreshTimes::DEFAULT;

fn row(number: u128) -> StaleDiff {
    StaleDiff {
        chat: ChatId::new(Uuid::from_u128(number)),
        owner: OwnerId::new(Uuid::from_u128(1)),
        reference: Reference {
            url: None,
            branch: "feature".to_owned(),
            origin: "https://git.example/a/b".to_owned(),
        },
        state: None,
        failures: 0,
        marked_ago: Duration::from_secs(10),
        limited: None,
        fence: 3,
        marks: 5,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of an answer")]
fn told(state: BranchState) -> Answer {
    let pull = Some(Pull::default());
    Ok(Some(DiffStatus { pull, state: Some(state), ..DiffStatus::default() }))
}

fn again(row: &StaleDiff, answer: &Answer) -> Option<u64> {
    TIMES.judge(row, answer, 0.0).again.map(|pause| pause.as_secs())
}

#[test]
fn open_is_fresh_for_two_minutes_and_closed_for_an_hour() {
    assert_eq!(again(&row(1), &told(BranchState::Open)), Some(120));
    assert_eq!(again(&row(1), &told(BranchState::Closed)), Some(3_600));
}

#[test]
fn merged_is_asked_once_more_and_then_no_longer() {
    let first = row(1);
    assert_eq!(again(&first, &told(BranchState::Merged)), Some(120));
    let second = StaleDiff { state: Some(BranchState::Merged), ..row(1) };
    assert_eq!(again(&second, &told(BranchState::Merged)), None);
    let branch = DiffStatus { state: Some(BranchState::Merged), ..DiffStatus::default() };
    assert_eq!(again(&second, &Ok(Some(branch))), Some(120), "a branch may grow again");
}

#[test]
fn pull_request_is_awaited_closely_until_two_minutes_after_the_mark() {
    for (marked_ago, pause) in [(0, 15), (119, 15), (120, 300), (9_999, 300)] {
        let row = StaleDiff { marked_ago: Duration::from_secs(marked_ago), ..row(1) };
        let judged = TIMES.judge(&row, &Ok(None), 0.0);
        assert_eq!(judged.again, Some(Duration::from_secs(pause)), "after {marked_ago} s");
        assert_eq!((judged.status, judged.problem, judged.failures), (None, None, 0));
    }
}

#[test]
fn each_cause_has_its_pause() {
    let wait = Some(Duration::from_secs(1_234));
    for (error, pause) in [
        (FetchError::NoHost, 600),
        (FetchError::NoToken, 600),
        (FetchError::Refused, 600),
        (FetchError::NotFound, 600),
        (FetchError::Invalid("no number".to_owned()), 600),
        (FetchError::RateLimited { wait }, 1_234),
        (FetchError::RateLimited { wait: None }, 60),
        (FetchError::Host("503".to_owned()), 120),
        (FetchError::Transport("refused".to_owned()), 120),
    ] {
        let answer = Err(error.clone());
        assert_eq!(again(&row(1), &answer), Some(pause), "{error:?}");
        let judged = TIMES.judge(&row(1), &answer, 0.0);
        assert_eq!(judged.problem, Some(error.to_string()));
        assert_eq!((judged.status, judged.failures), (None, 1));
        let limit = matches!(error, FetchError::RateLimited { .. });
        let expected = limit.then(|| Duration::from_secs(pause));
        assert_eq!(TIMES.limit(&answer, 0.0), expected, "{error:?}");
    }
}

#[test]
fn failing_host_is_asked_less_and_less() {
    let answer = Err(FetchError::Host("503".to_owned()));
    let pauses = (0..7).map(|failures| {
        let row = StaleDiff { failures, ..row(1) };
        TIMES.judge(&row, &answer, 1.0).again.unwrap().as_secs()
    });
    // The second is at most twice the first, with the tenth that all are lengthened by.
    assert_eq!(pauses.collect::<Vec<_>>(), [132, 264, 396, 660, 1_188, 2_244, 3_960]);
    assert_eq!(TIMES.judge(&row(1), &told(BranchState::Open), 0.0).failures, 0);
}

#[test]
fn what_was_not_asked_is_stale_at_once_and_has_not_failed() {
    let unasked = RefreshTimes::unasked(&StaleDiff { failures: 2, ..row(1) });
    assert_eq!((unasked.again, unasked.failures), (Some(Duration::ZERO), 2));
    assert_eq!((unasked.asked, unasked.status, unasked.problem), (false, None, None));
}

#[test]
fn three_rows_of_two_origins_are_two_groups() {
    let mut other = row(2);
    other.reference.origin = "https://git.example/a/c".to_owned();
    let groups = plan(vec![row(1), other, row(3)]);
    let origins: Vec<_> = groups.iter().map(|group| group.origin.as_str()).collect();
    assert_eq!(origins, ["https://git.example/a/b", "https://git.example/a/c"]);
    let chats: Vec<_> = groups[0].questions[0].rows.iter().map(|row| row.chat).collect();
    assert_eq!(chats, [row(1).chat, row(3).chat], "one question for both");
}

#[test]
fn chats_on_one_pull_request_are_one_question_whatever_branch_they_name() {
    let with_url = |number, branch: &str| {
        let mut row = row(number);
        row.reference.url = Some("https://git.example/a/b/pull/7".to_owned());
        branch.clone_into(&mut row.reference.branch);
        row
    };
    let groups = plan(vec![with_url(1, "one"), with_url(2, "two"), row(3)]);
    let rows: Vec<_> = groups[0].questions.iter().map(|question| question.rows.len()).collect();
    assert_eq!(rows, [2, 1]);
}

fn rows() -> impl Strategy<Value = Vec<StaleDiff>> {
    let reference = (prop::option::of("[ab]"), "[ab]", "[ab]")
        .prop_map(|(url, branch, origin)| Reference { url, branch, origin });
    let one = (reference, 0..3_u128);
    prop::collection::vec(one, 0..40).prop_map(|rows| {
        let numbered = rows.into_iter().zip(1..);
        let row = |((reference, owner), number)| StaleDiff {
            reference,
            owner: OwnerId::new(Uuid::from_u128(owner)),
            ..row(number)
        };
        numbered.map(row).collect()
    })
}

proptest! {
    #[test]
    fn each_row_is_in_one_question_that_asks_for_it(rows in rows()) {
        let groups = plan(rows.clone());
        let mut found = BTreeSet::new();
        let mut asked = BTreeSet::new();
        for group in &groups {
            prop_assert!(!group.questions.is_empty());
            for question in &group.questions {
                prop_assert!(!question.rows.is_empty());
                let reference = &question.reference;
                prop_assert!(asked.insert((group.owner, reference.clone())), "asked twice");
                for row in &question.rows {
                    prop_assert_eq!((row.owner, &row.reference.origin), (group.owner, &group.origin));
                    prop_assert_eq!(&row.reference.url, &reference.url);
                    if reference.url.is_none() {
                        prop_assert_eq!(&row.reference.branch, &reference.branch);
                    }
                    prop_assert!(found.insert(row.chat));
                }
            }
        }
        prop_assert_eq!(found.len(), rows.len());
    }

    #[test]
    fn pauses_are_lengthened_by_a_tenth_at_most(jitter: f64, failures in 0..100_u32) {
        let row = StaleDiff { failures, ..row(1) };
        for answer in [told(BranchState::Open), Ok(None), Err(FetchError::NoToken)] {
            let exact = TIMES.judge(&row, &answer, 0.0).again.unwrap();
            let pause = TIMES.judge(&row, &answer, jitter).again.unwrap();
            prop_assert!(exact <= pause && pause <= exact.mul_f64(1.1));
        }
        let failed = TIMES.judge(&row, &Err(FetchError::Host(String::new())), jitter).again.unwrap();
        prop_assert!(TIMES.fresh <= failed && failed <= TIMES.failing_max.mul_f64(1.1));
    }
}
