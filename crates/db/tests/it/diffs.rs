//! The states of branches: what is kept, leased and written, and what is not lost.

use std::time::Duration;

use musterbeat_core::chat::Event;
use musterbeat_core::diff::{BranchState, ChatDiff, DiffStatus, Pull, Reference};
use musterbeat_core::id::{ChatId, OwnerId};
use musterbeat_core::port::{
    By, ChatReader, ChatStore, DiffStore, DiffTarget, FeedMark, Reach, Select,
};
use musterbeat_core::refresh::{BATCH_MAX, HostLimit, LEASE, Refreshed, StaleDiff};
use musterbeat_core::timestamp::Timestamp;
use musterbeat_db::chat_diff_statuses as diffs;
use uuid::Uuid;

use crate::setup::{Fixture, new_chat, owner};

const ORIGIN: &str = "https://git.example/a/b";
const URL: &str = "https://git.example/a/b/pull/7";
const EVERYTHING: Reach = Reach::Everything;

fn reference(url: &str, branch: &str, origin: &str) -> Reference {
    let some = |text: &str| Some(text.to_owned());
    Reference::new(some(url), some(branch), some(origin)).unwrap()
}

fn told(title: &str, state: BranchState) -> DiffStatus {
    let pull = Pull { url: URL.to_owned(), number: 7, title: title.to_owned(), ..Pull::default() };
    DiffStatus { pull: Some(pull), state: Some(state), additions: 10, ..DiffStatus::default() }
}

fn answer(leased: &StaleDiff, status: Option<DiffStatus>, again: Option<u64>) -> Refreshed {
    let StaleDiff { chat, fence, marks, .. } = *leased;
    let again = again.map(Duration::from_secs);
    Refreshed { chat, fence, marks, asked: true, status, problem: None, failures: 0, again }
}

impl Fixture {
    /// Creates a chat whose branch is stale.
    async fn stale(&self, number: u128, whose: OwnerId, branch: &str) -> ChatId {
        let chat = self.chat(number, whose).await;
        self.mark(chat, &reference("", branch, ORIGIN)).await;
        chat
    }

    async fn mark(&self, chat: ChatId, reference: &Reference) {
        let target = DiffTarget::Chat(chat);
        let marked = DiffStore::mark(&self.store, target, EVERYTHING, reference).await.unwrap();
        assert_eq!(marked.len(), 1);
    }

    async fn diff(&self, chat: ChatId) -> ChatDiff {
        self.store.read(&[chat], EVERYTHING).await.unwrap().remove(0)
    }

    async fn acquire(&self, batch: u32) -> Vec<StaleDiff> {
        let mut leased = self.store.acquire(Select::Stale(batch)).await.unwrap();
        leased.sort_by_key(|row| row.chat);
        leased
    }

    /// Leases as it will be done in a while.
    async fn acquire_in(&self, while_: Duration, batch: u32) -> Vec<StaleDiff> {
        let mut conn = self.pool.acquire().await.unwrap();
        let now: time::OffsetDateTime =
            sqlx::query_scalar("select now()").fetch_one(&mut *conn).await.unwrap();
        diffs::acquire_stale(&mut conn, batch, Some(Timestamp::new(now + while_))).await.unwrap()
    }

    async fn write(&self, refreshed: &[Refreshed]) -> Vec<ChatId> {
        let changed = DiffStore::write(&self.store, refreshed, &[]).await.unwrap();
        changed.into_iter().map(|(chat, _)| chat).collect()
    }
}

fn numbers(leased: &[StaleDiff]) -> Vec<u128> {
    leased.iter().map(|row| row.chat.uuid().as_u128()).collect()
}

#[tokio::test]
async fn what_a_mark_leaves_out_stays_as_it_was() {
    let fixture = Fixture::new().await;
    let chat = fixture.chat(1, owner(1)).await;
    fixture.mark(chat, &reference(URL, "one", ORIGIN)).await;
    fixture.mark(chat, &Reference::default()).await;
    assert_eq!(fixture.diff(chat).await.reference, reference(URL, "one", ORIGIN));
    fixture.mark(chat, &reference("", "one", "")).await;
    assert_eq!(fixture.diff(chat).await.reference, reference(URL, "one", ORIGIN));
    let stale = "select stale_at < now() from chat_diff_statuses";
    assert!(sqlx::query_scalar::<_, bool>(stale).fetch_one(&fixture.pool).await.unwrap());
}

#[tokio::test]
async fn another_branch_takes_with_it_what_was_told_of_the_one_before() {
    for (mark, expected) in [
        (reference("", "two", ""), reference("", "two", ORIGIN)),
        (reference("", "", "https://git.example/c"), reference("", "one", "https://git.example/c")),
        (reference("https://x/2", "", ""), reference("https://x/2", "one", ORIGIN)),
    ] {
        let fixture = Fixture::new().await;
        let chat = fixture.stale(1, owner(1), "one").await;
        let leased = fixture.acquire(1).await.remove(0);
        let open = Some(told("a", BranchState::Open));
        fixture.write(&[answer(&leased, open.clone(), Some(120))]).await;
        assert_eq!(fixture.diff(chat).await.reference, reference(URL, "one", ORIGIN));
        let late = fixture.store.acquire(Select::Chat(chat, EVERYTHING)).await.unwrap().remove(0);

        fixture.mark(chat, &mark).await;
        let diff = fixture.diff(chat).await;
        assert_eq!((diff.reference, diff.status, diff.refreshed_at), (expected, None, None));
        assert!(fixture.write(&[answer(&late, open, Some(120))]).await.is_empty());
        assert_eq!(fixture.diff(chat).await.status, None, "an answer about the one before is none");
    }
}

#[tokio::test]
async fn chats_are_read_within_reach_and_missing_ones_are_absent() {
    let fixture = Fixture::new().await;
    let mine = fixture.stale(1, owner(1), "one").await;
    let theirs = fixture.stale(2, owner(2), "one").await;
    let bare = fixture.chat(3, owner(1)).await;
    let read = async |reach| {
        let diffs = fixture.store.read(&[mine, theirs, bare], reach).await.unwrap();
        let mut chats: Vec<_> = diffs.into_iter().map(|diff| diff.chat).collect();
        chats.sort();
        chats
    };
    assert_eq!(read(EVERYTHING).await, [mine, theirs]);
    assert_eq!(read(Reach::Of(owner(1))).await, [mine]);
    let reach = Reach::Of(owner(1));
    let mark = async |chat| {
        let (target, nothing) = (DiffTarget::Chat(chat), Reference::default());
        fixture.store.mark(target, reach, &nothing).await.unwrap().len()
    };
    assert_eq!((mark(theirs).await, mark(mine).await), (0, 1), "theirs is not there");
    let leased = fixture.store.acquire(Select::Chat(theirs, reach)).await.unwrap();
    assert!(leased.is_empty());
}

#[tokio::test]
async fn workspace_marks_its_chats_on_the_branch_or_on_none() {
    let fixture = Fixture::new().await;
    let workspace = fixture.unbuilt_workspace(9, owner(1)).await;
    for number in 1..=4 {
        let mut chat = new_chat(number, owner(1));
        chat.workspace = (number < 4).then_some(workspace);
        fixture.store.create(chat, EVERYTHING).await.unwrap();
    }
    let chat = |number| ChatId::new(Uuid::from_u128(number));
    fixture.mark(chat(2), &reference("", "one", ORIGIN)).await;
    fixture.mark(chat(3), &reference("", "other", ORIGIN)).await;
    let mark = async |reach| {
        let target = DiffTarget::Workspace(workspace);
        let reference = reference("", "one", ORIGIN);
        let marked = DiffStore::mark(&fixture.store, target, reach, &reference).await.unwrap();
        let mut numbers: Vec<_> = marked.iter().map(|(chat, _)| chat.uuid().as_u128()).collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(mark(Reach::Of(owner(2))).await, [0; 0]);
    assert_eq!(mark(Reach::Of(owner(1))).await, [1, 2]);
    assert_eq!(fixture.diff(chat(3)).await.reference.branch, "other");
}

#[tokio::test]
async fn stalest_are_leased_up_to_a_number_for_five_minutes() {
    let fixture = Fixture::new().await;
    for (number, branch) in [(1, "a"), (2, "b"), (3, "c")] {
        fixture.stale(number, owner(number), branch).await;
    }
    let oldest = "update chat_diff_statuses set stale_at = now() - interval '1 hour'
        where git_branch = 'b'";
    sqlx::query(oldest).execute(&fixture.pool).await.unwrap();
    let first = fixture.acquire(1).await;
    assert_eq!(numbers(&first), [2]);
    assert_eq!((first[0].owner, first[0].limited), (owner(2), None));
    assert_eq!(numbers(&fixture.acquire(50).await), [1, 3]);
    assert!(fixture.acquire(50).await.is_empty(), "nobody else gets it");
    let early = LEASE.checked_sub(Duration::from_secs(10)).unwrap();
    assert!(fixture.acquire_in(early, 50).await.is_empty());
    let again = fixture.acquire_in(LEASE + Duration::from_secs(10), 50).await;
    assert_eq!(again.len(), 3, "what a dead worker had leased comes back");
}

#[tokio::test]
async fn what_cannot_be_asked_and_what_is_fresh_or_put_away_is_not_leased() {
    let fixture = Fixture::new().await;
    for (number, branch, origin) in [(1, "", ORIGIN), (2, "one", "")] {
        let chat = fixture.chat(number, owner(1)).await;
        fixture.mark(chat, &reference("", branch, origin)).await;
    }
    let away = fixture.stale(3, owner(1), "one").await;
    let (idle, run) = fixture.running_chat(4).await;
    fixture.finish(idle, &run, "done").await;
    fixture.mark(idle, &reference("", "two", ORIGIN)).await;
    let leased = fixture.acquire(50).await;
    assert_eq!(numbers(&leased), [3, 4]);
    let fresh = leased.iter().map(|row| answer(row, None, Some(120)));
    fixture.write(&fresh.collect::<Vec<_>>()).await;
    assert!(fixture.acquire(50).await.is_empty(), "fresh");
    fixture.store.apply(idle, By::User(EVERYTHING), Event::Archive).await.unwrap();
    let later = fixture.acquire_in(Duration::from_secs(130), 50).await;
    assert_eq!(numbers(&later), [3], "{away}");
}

#[tokio::test]
async fn others_that_the_same_question_answers_are_leased_with_it() {
    let fixture = Fixture::new().await;
    for number in 1..=20 {
        let branch = if number % 2 == 0 { "even" } else { "odd" };
        fixture.stale(number, owner(1), branch).await;
    }
    fixture.stale(21, owner(2), "odd").await;
    let leased = fixture.acquire(1).await;
    let odd: Vec<_> = (1..20).step_by(2).collect();
    assert_eq!(numbers(&leased), odd, "the owner's alone, since their right to ask is theirs");
    let rest = fixture.acquire(50).await;
    assert_eq!(rest.len(), 11);
    assert!(u32::try_from(rest.len()).unwrap() < BATCH_MAX);
}

#[tokio::test]
async fn locked_rows_are_passed_over() {
    let fixture = Fixture::new().await;
    let locked = fixture.stale(1, owner(1), "one").await;
    fixture.stale(2, owner(1), "one").await;
    fixture.stale(3, owner(1), "three").await;
    let mut holder = fixture.pool.begin().await.unwrap();
    sqlx::query("select from chat_diff_statuses where chat_id = $1 for update")
        .bind(locked.uuid())
        .execute(&mut *holder)
        .await
        .unwrap();
    assert_eq!(numbers(&fixture.acquire(50).await), [2, 3]);
    holder.rollback().await.unwrap();
    assert_eq!(numbers(&fixture.acquire(50).await), [1]);
}

#[tokio::test]
async fn two_who_lease_at_once_get_different_rows() {
    let fixture = Fixture::new().await;
    for number in 1..=60 {
        fixture.stale(number, owner(1), &format!("branch {}", number % 30)).await;
    }
    let taken = (0..4).map(|_| {
        let store = fixture.store.clone();
        tokio::spawn(async move {
            let mut taken = vec![];
            loop {
                let leased = store.acquire(Select::Stale(5)).await.unwrap();
                if leased.is_empty() {
                    return taken;
                }
                taken.extend(numbers(&leased));
            }
        })
    });
    let mut all = vec![];
    for taken in taken.collect::<Vec<_>>() {
        all.extend(taken.await.unwrap());
    }
    // One may have seen the last rows locked by another and gone.
    all.extend(numbers(&fixture.acquire(60).await));
    all.sort_unstable();
    assert_eq!(all, (1..=60).collect::<Vec<_>>());
}

#[tokio::test]
async fn answer_replaces_all_that_was_told_and_leaves_branch_and_origin() {
    let fixture = Fixture::new().await;
    let chat = fixture.stale(1, owner(1), "one").await;
    let leased = fixture.acquire(1).await.remove(0);
    let first = DiffStatus { behind: Some(3), ..told("a", BranchState::Open) };
    assert_eq!(fixture.write(&[answer(&leased, Some(first.clone()), Some(120))]).await, [chat]);
    let diff = fixture.diff(chat).await;
    assert_eq!((diff.status.as_ref(), diff.owner), (Some(&first), owner(1)));
    assert_eq!(diff.reference, reference(URL, "one", ORIGIN), "its pull request is known by now");
    let fresh = "select stale_at - refreshed_at = interval '120 s' from chat_diff_statuses";
    assert!(sqlx::query_scalar::<_, bool>(fresh).fetch_one(&fixture.pool).await.unwrap());

    let second = told("b", BranchState::Closed);
    let leased = fixture.store.acquire(Select::Chat(chat, EVERYTHING)).await.unwrap().remove(0);
    assert_eq!(leased.state, Some(BranchState::Open));
    fixture.write(&[answer(&leased, Some(second.clone()), Some(120))]).await;
    assert_eq!(fixture.diff(chat).await.status, Some(second.clone()), "also what is absent by now");

    let leased = fixture.store.acquire(Select::Chat(chat, EVERYTHING)).await.unwrap().remove(0);
    assert!(fixture.write(&[answer(&leased, Some(second), Some(9))]).await.is_empty(), "unchanged");
    let leased = fixture.store.acquire(Select::Chat(chat, EVERYTHING)).await.unwrap().remove(0);
    let problem = Some("a failure".to_owned());
    let failed = Refreshed { problem, failures: 1, ..answer(&leased, None, Some(9)) };
    assert_eq!(fixture.write(&[failed]).await, [chat]);
    let diff = fixture.diff(chat).await;
    assert_eq!(diff.problem.as_deref(), Some("a failure"));
    assert!(diff.status.is_some(), "a failure forgets nothing");

    let leased = fixture.store.acquire(Select::Chat(chat, EVERYTHING)).await.unwrap().remove(0);
    let unasked = Refreshed { asked: false, failures: 1, ..answer(&leased, None, Some(0)) };
    assert!(fixture.write(&[unasked]).await.is_empty());
    assert_eq!(fixture.diff(chat).await.problem.as_deref(), Some("a failure"));
    assert_eq!(fixture.acquire(1).await[0].failures, 1);
}

#[tokio::test]
async fn mark_during_a_refresh_is_not_lost() {
    let fixture = Fixture::new().await;
    let chat = fixture.stale(1, owner(1), "one").await;
    let leased = fixture.acquire(1).await.remove(0);
    fixture.mark(chat, &Reference::default()).await;
    let open = Some(told("a", BranchState::Open));
    assert_eq!(fixture.write(&[answer(&leased, open, Some(120))]).await, [chat]);
    assert!(fixture.diff(chat).await.status.is_some());
    assert_eq!(numbers(&fixture.acquire(1).await), [1], "it is stale all the same");
}

#[tokio::test]
async fn write_of_a_lease_that_another_has_by_now_does_nothing() {
    let fixture = Fixture::new().await;
    let chat = fixture.stale(1, owner(1), "one").await;
    let first = fixture.acquire(1).await.remove(0);
    let second = fixture.store.acquire(Select::Chat(chat, EVERYTHING)).await.unwrap().remove(0);
    let late = answer(&first, Some(told("late", BranchState::Open)), Some(0));
    assert!(fixture.write(&[late]).await.is_empty());
    assert!(fixture.acquire(1).await.is_empty(), "the second lease holds");
    let new = answer(&second, Some(told("new", BranchState::Open)), Some(120));
    assert_eq!(fixture.write(&[new]).await, [chat]);
}

#[tokio::test]
async fn what_is_final_is_asked_again_only_when_it_is_marked() {
    let fixture = Fixture::new().await;
    let chat = fixture.stale(1, owner(1), "one").await;
    let leased = fixture.acquire(1).await.remove(0);
    fixture.write(&[answer(&leased, Some(told("a", BranchState::Merged)), None)]).await;
    assert_eq!(fixture.diff(chat).await.stale_at, None);
    assert!(fixture.acquire_in(Duration::from_hours(9_999), 50).await.is_empty());
    fixture.mark(chat, &Reference::default()).await;
    assert_eq!(fixture.acquire(1).await.len(), 1);
}

#[tokio::test]
async fn host_is_left_alone_for_its_owner_and_origin_until_its_time() {
    let fixture = Fixture::new().await;
    let limited = fixture.stale(1, owner(1), "one").await;
    fixture.stale(2, owner(2), "one").await;
    let elsewhere = fixture.chat(3, owner(1)).await;
    fixture.mark(elsewhere, &reference("", "one", "https://other.example/a/b")).await;
    let wait = Duration::from_mins(10);
    let limit = HostLimit { owner: owner(1), origin: ORIGIN.to_owned(), wait };
    DiffStore::write(&fixture.store, &[], std::slice::from_ref(&limit)).await.unwrap();
    let shorter = HostLimit { wait: Duration::from_secs(1), ..limit };
    DiffStore::write(&fixture.store, &[], &[shorter]).await.unwrap();
    assert_eq!(numbers(&fixture.acquire(50).await), [2, 3], "the longer one holds");

    let forced = fixture.store.acquire(Select::Chat(limited, EVERYTHING)).await.unwrap().remove(0);
    let left = forced.limited.unwrap();
    assert!(Duration::from_mins(9) < left && left <= wait, "{left:?}");
    fixture.write(&[answer(&forced, None, Some(0))]).await;
    let early = fixture.acquire_in(Duration::from_secs(590), 50).await;
    assert_eq!(numbers(&early), [2, 3], "their leases are over, the limit is not");
    let mut later = fixture.acquire_in(Duration::from_secs(610), 50).await;
    later.sort_by_key(|row| row.chat);
    assert!(numbers(&later).contains(&1));
}

#[tokio::test]
async fn feed_tells_of_branches_when_something_changed() {
    let fixture = Fixture::new().await;
    let chat = fixture.stale(1, owner(1), "one").await;
    let whole = FeedMark(0);
    let feed = async || {
        let page = fixture.store.feed(owner(1), Some(whole), &[]).await.unwrap();
        page.diffs.into_iter().map(|diff| (diff.chat, diff.status)).collect::<Vec<_>>()
    };
    assert_eq!(feed().await, [(chat, None)]);
    let changes = "select changed_in from chat_diff_statuses";
    let changed_in =
        async || -> i64 { sqlx::query_scalar(changes).fetch_one(&fixture.pool).await.unwrap() };
    let began = changed_in().await;
    let open = told("a", BranchState::Open);
    let leased = fixture.acquire(1).await.remove(0);
    fixture.write(&[answer(&leased, Some(open.clone()), Some(0))]).await;
    let told_in = changed_in().await;
    assert!(began < told_in);
    assert_eq!(feed().await, [(chat, Some(open.clone()))]);
    fixture.mark(chat, &Reference::default()).await;
    let leased = fixture.acquire(1).await.remove(0);
    fixture.write(&[answer(&leased, Some(open), Some(0))]).await;
    assert_eq!(changed_in().await, told_in, "neither a mark nor the same answer is a change");
    let others = fixture.store.feed(owner(2), Some(whole), &[]).await.unwrap();
    assert!(others.diffs.is_empty());
}
