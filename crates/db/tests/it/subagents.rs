//! What chats spawn: its limits, its place among what is pending, and how its parent meets it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use futures_util::future::join_all;
use musterbeat_core::chat::{
    Applied, ChatPatch, Event, NewChat, Origin, Refused, SubagentBounds, SubagentLimits,
    SubagentPolicy, WhenBusy,
};
use musterbeat_core::id::{ChatId, RunId, WorkspaceId};
use musterbeat_core::message::Model;
use musterbeat_core::port::{ApplyError, By, ChatReader, ChatStore, Reach, Room, RunStore};
use musterbeat_core::run::{RunKind, RunStatus};
use musterbeat_db::PgStore;
use musterbeat_db::runs::Caps;
use musterbeat_testkit::eventually;
use uuid::Uuid;

use crate::setup::{Fixture, PATIENCE, new_chat, owner, send, turn};

const ANYBODY: By = By::User(Reach::Everything);

fn spawned(id: u128, parent: ChatId) -> NewChat {
    NewChat { origin: Origin::Spawned, ..asked(id, parent) }
}

fn asked(id: u128, parent: ChatId) -> NewChat {
    NewChat { parent: Some(parent), ..new_chat(id, owner(1)) }
}

fn chat(id: u128) -> ChatId {
    ChatId::new(Uuid::from_u128(id))
}

async fn create(store: &PgStore, chat: NewChat) -> Result<Applied, ApplyError> {
    store.create(chat, Reach::Of(owner(1))).await
}

async fn created(store: &PgStore, chat: NewChat) -> ChatId {
    create(store, chat).await.unwrap().chat
}

async fn refusal(store: &PgStore, chat: NewChat) -> Refused {
    match create(store, chat).await {
        Err(ApplyError::Refused(refused)) => refused,
        other => panic!("it is to be refused: {other:?}"),
    }
}

fn limits(depth_max: Option<u32>, at_work_max: Option<u32>) -> SubagentLimits {
    SubagentLimits { depth_max, at_work_max }
}

/// Makes a root that allows its family so much.
async fn root(store: &PgStore, id: u128, limits: SubagentLimits) -> ChatId {
    created(store, NewChat { limits, ..new_chat(id, owner(1)) }).await
}

#[tokio::test]
async fn spawned_chat_takes_owner_workspace_and_model_of_its_parent() {
    let fixture = Fixture::new().await;
    let mut parent = new_chat(1, owner(1));
    parent.workspace = Some(fixture.unbuilt_workspace(7, owner(1)).await);
    parent.turn.model = Some(Model::new("big").unwrap());
    let parent = created(&fixture.store, parent).await;
    let child = created(&fixture.store, spawned(2, parent)).await;
    let child = fixture.store.get(child, Reach::Of(owner(1))).await.unwrap().unwrap();
    assert_eq!((child.parent, child.root), (Some(parent), Some(parent)));
    assert_eq!(child.workspace, Some(WorkspaceId::new(Uuid::from_u128(7))));
    assert_eq!(child.model, Some(Model::new("big").unwrap()));
    assert_eq!(child.status, RunStatus::Pending);
}

#[tokio::test]
async fn only_roots_spawn_unless_their_owners_allow_more_within_the_operators_bound() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let top = root(store, 1, SubagentLimits::default()).await;
    let child = created(store, spawned(2, top)).await;
    let refused = refusal(store, spawned(3, child)).await;
    assert_eq!(refused, Refused::SubagentTooDeep { depth_max: 1 });
    assert!(refused.to_string().contains("raised"), "it says what to do");
    created(store, asked(4, child)).await;

    let deeper = ChatPatch { subagent_depth_max: Some(Some(3)), ..ChatPatch::default() };
    let shown = store.update(top, Reach::Of(owner(1)), deeper).await.unwrap().unwrap();
    assert_eq!(shown.limits, limits(Some(3), None));
    let grandchild = created(store, spawned(5, child)).await;
    let last = created(store, spawned(6, grandchild)).await;
    assert_eq!(refusal(store, spawned(7, last)).await, Refused::SubagentTooDeep { depth_max: 3 });
    let bounds = SubagentBounds { depth_max: 2, at_work_max: 1_000 };
    let policy = SubagentPolicy { bound: bounds, ..SubagentPolicy::DEFAULT };
    let bounded = store.clone().with_subagents(policy);
    assert_eq!(
        refusal(&bounded, spawned(8, grandchild)).await,
        Refused::SubagentTooDeep { depth_max: 2 }
    );
    let default = ChatPatch { subagent_depth_max: Some(None), ..ChatPatch::default() };
    let shown = store.update(top, Reach::Everything, default).await.unwrap().unwrap();
    assert_eq!(shown.limits, SubagentLimits::default());
    assert_eq!(refusal(store, spawned(9, child)).await, Refused::SubagentTooDeep { depth_max: 1 });
}

#[tokio::test]
async fn so_many_of_a_family_are_at_work_and_no_more_are_spawned() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let top = root(store, 1, limits(Some(2), Some(3))).await;
    let other = root(store, 9, limits(None, Some(0))).await;
    let first = created(store, spawned(2, top)).await;
    created(store, spawned(3, first)).await;
    // A user's counts, and is not refused.
    created(store, asked(4, top)).await;
    let refused = refusal(store, spawned(5, top)).await;
    assert_eq!(refused, Refused::TooManySubagents { at_work_max: 3 });
    let text = refused.to_string();
    assert!(text.starts_with("3 subagents of this family may be at work at once"), "{text}");
    created(store, asked(5, top)).await;
    create(store, spawned(2, top)).await.expect("it is there already");
    assert_eq!(
        refusal(store, spawned(10, other)).await,
        Refused::TooManySubagents { at_work_max: 0 }
    );

    // Running ones count as pending ones do, interrupting ones, too; those at rest do not.
    let (worker, mut runs) = (fixture.worker(1).await, vec![]);
    // What was refused is rolled back after its answer, and a claim passes over what is locked.
    eventually(PATIENCE, "all six are claimed", async || {
        runs.extend(fixture.claim(worker, 100).await);
        runs.len() == 6
    })
    .await;
    store.apply(chat(3), ANYBODY, Event::Interrupt).await.unwrap();
    assert_eq!(refusal(store, spawned(6, top)).await, Refused::TooManySubagents { at_work_max: 3 });
    for ended in [chat(4), chat(5)] {
        let run = runs.iter().find(|run| run.id == ended.into()).unwrap();
        fixture.finish(ended, run, "done").await;
    }
    created(store, spawned(6, top)).await;
    assert_eq!(refusal(store, spawned(7, top)).await, Refused::TooManySubagents { at_work_max: 3 });
    let more = ChatPatch { subagents_max: Some(Some(4)), ..ChatPatch::default() };
    store.update(top, Reach::Of(owner(1)), more).await.unwrap().unwrap();
    created(store, spawned(7, top)).await;
}

/// Each counts what is at work, and none sees what the others are about to add.
#[tokio::test]
async fn chats_that_spawn_at_once_never_spawn_too_many() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let top = root(store, 1, limits(None, Some(3))).await;
    let spawns = join_all((10..20).map(|id| create(store, spawned(id, top)))).await;
    assert_eq!(spawns.iter().filter(|spawn| spawn.is_ok()).count(), 3);
}

#[tokio::test]
async fn limits_are_a_roots() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let top = root(store, 1, limits(Some(0), Some(5))).await;
    let shown = store.get(top, Reach::Everything).await.unwrap().unwrap();
    assert_eq!(shown.limits, limits(Some(0), Some(5)));
    assert_eq!(refusal(store, spawned(2, top)).await, Refused::SubagentTooDeep { depth_max: 0 });
    let child = NewChat { limits: limits(Some(1), None), ..asked(2, top) };
    assert_eq!(refusal(store, child).await, Refused::LimitsOfChild);
    let child = created(store, asked(2, top)).await;
    for patch in [
        ChatPatch { subagents_max: Some(Some(1)), ..ChatPatch::default() },
        ChatPatch { subagent_depth_max: Some(None), ..ChatPatch::default() },
    ] {
        let refused = store.update(child, Reach::Of(owner(1)), patch.clone()).await.unwrap_err();
        assert!(matches!(refused, ApplyError::Refused(Refused::LimitsOfChild)), "{refused:?}");
        assert_eq!(store.update(child, Reach::Of(owner(2)), patch).await.unwrap(), None);
    }
    // What is not named stays, and the rest of a patch is as ever.
    let patch = ChatPatch { subagents_max: Some(Some(6)), ..ChatPatch::default() };
    let shown = store.update(top, Reach::Everything, patch).await.unwrap().unwrap();
    assert_eq!(shown.limits, limits(Some(0), Some(6)));
}

#[tokio::test]
async fn prompt_tells_where_its_chat_stands() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let top = root(store, 1, SubagentLimits::default()).await;
    let child = created(store, asked(2, top)).await;
    let mut leaf = child;
    for id in 3..8 {
        leaf = created(store, asked(id, leaf)).await;
    }
    let standing = async |store: &PgStore, chat| {
        let prompt = store.prompt(chat).await.unwrap();
        assert_eq!(prompt.messages.len(), 1);
        (prompt.depth, prompt.may_spawn)
    };
    assert_eq!(standing(store, top).await, (0, true));
    assert_eq!(standing(store, child).await, (1, false));
    assert_eq!(standing(store, leaf).await, (6, false));
    let patch = ChatPatch { subagent_depth_max: Some(Some(7)), ..ChatPatch::default() };
    store.update(top, Reach::Everything, patch).await.unwrap();
    assert_eq!(standing(store, leaf).await, (6, true));
    let nothing = SubagentBounds { depth_max: 0, at_work_max: 100 };
    let policy = SubagentPolicy { bound: nothing, ..SubagentPolicy::DEFAULT };
    let forbidding = store.clone().with_subagents(policy);
    assert_eq!(standing(&forbidding, top).await, (0, false));
}

/// No chain of parents has one, and none is walked for ever.
#[tokio::test]
async fn cycle_of_parents_ends_the_walk_of_a_prompt() {
    let fixture = Fixture::new().await;
    let top = root(&fixture.store, 1, SubagentLimits::default()).await;
    let child = created(&fixture.store, asked(2, top)).await;
    let tie = sqlx::query("update chats set parent_id = $2 where id = $1");
    tie.bind(top.uuid()).bind(child.uuid()).execute(&fixture.pool).await.unwrap();
    let prompt = fixture.store.prompt(child).await.unwrap();
    assert!(prompt.depth > 100 && !prompt.may_spawn);
}

/// Its first owner died after the child was stored, and its second wants it, too.
#[tokio::test]
async fn spawn_that_is_repeated_after_a_takeover_makes_one_child() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let top = root(store, 1, limits(None, Some(1))).await;
    let run = fixture.claim(fixture.worker(1).await, 1).await.remove(0);
    created(store, spawned(2, top)).await;
    let child = fixture.claim(fixture.worker(1).await, 1).await.remove(0);
    store.release(run.token.worker, &[(run.id, run.token.fence)], <_>::default()).await.unwrap();
    let again = fixture.claim(fixture.worker(2).await, 1).await.remove(0);
    assert_eq!(again.id, run.id);

    let repeated = create(store, spawned(2, top)).await.unwrap();
    assert_eq!(repeated.status, RunStatus::Running, "it works since, and is left alone");
    fixture.finish(chat(2), &child, "report").await;
    create(store, spawned(2, top)).await.unwrap();
    let report = store.report(chat(2), Reach::Everything, None).await.unwrap().unwrap();
    assert!(report.is_at_rest());
    assert_eq!(report.text.as_deref(), Some("report"));
    let count = sqlx::query_scalar::<_, i64>("select count(*) from chats where parent_id = $1");
    assert_eq!(count.bind(top.uuid()).fetch_one(&fixture.pool).await.unwrap(), 1);
}

#[tokio::test]
async fn nothing_is_spawned_in_an_archived_family() {
    let fixture = Fixture::new().await;
    let top = root(&fixture.store, 1, SubagentLimits::default()).await;
    created(&fixture.store, spawned(2, top)).await;
    fixture.store.apply(top, ANYBODY, Event::Archive).await.unwrap();
    assert_eq!(refusal(&fixture.store, spawned(3, top)).await, Refused::ParentArchived);
    let sent = fixture.store.apply(chat(2), By::Ancestor, send("more")).await;
    assert!(matches!(sent, Err(ApplyError::Refused(Refused::Archived))), "{sent:?}");
}

#[tokio::test]
async fn busy_child_is_interrupted_by_its_parents_turn() {
    let fixture = Fixture::new().await;
    let top = root(&fixture.store, 1, SubagentLimits::default()).await;
    let child = created(&fixture.store, spawned(2, top)).await;
    let runs = fixture.claim(fixture.worker(1).await, 10).await;
    let event = Event::Send { turn: turn("instead"), when_busy: WhenBusy::Interrupt };
    let sent = fixture.store.apply(child, By::Ancestor, event).await.unwrap();
    assert_eq!((sent.status, sent.queued, sent.stops), (RunStatus::Interrupting, true, true));
    let run = runs.iter().find(|run| run.id == child.into()).unwrap();
    let end = Event::FinishInterrupt { partial: vec![] };
    let ended = fixture.store.apply(child, By::Owner(run.token), end).await.unwrap();
    assert_eq!(ended.status, RunStatus::Pending);
    let prompt = fixture.store.prompt(child).await.unwrap().messages;
    assert_eq!(prompt.last().unwrap().content.to_text(), "instead");
}

/// Their parents wait: an owner's further chats, which would wait as well, come after them.
#[tokio::test]
async fn what_chats_at_work_ask_for_comes_before_the_rest_of_their_owners_backlog() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    for id in 1..=5 {
        fixture.chat(id, owner(1)).await;
    }
    let worker = fixture.worker(1).await;
    let runs = Mutex::new(BTreeMap::new());
    let claim = async |count: usize| {
        let mut order = vec![];
        for _ in 0..count {
            let run = store.claim(worker, &RunKind::CHAT, Room::of(1)).await.unwrap().remove(0);
            order.push(run.id.uuid().as_u128());
            runs.lock().unwrap().insert(run.id, run);
        }
        order
    };
    assert_eq!(claim(1).await, [1]);
    fixture.chat(30, owner(2)).await;
    created(store, asked(20, chat(1))).await;
    created(store, spawned(10, chat(1))).await;
    created(store, spawned(11, chat(1))).await;
    // The second chat had its turn, and the other owner's first came before they were spawned.
    assert_eq!(claim(5).await, [2, 30, 10, 11, 3]);

    fixture.chat(40, owner(1)).await;
    // A child at rest that is asked again by one at work goes there, too.
    let ten = runs.lock().unwrap().remove(&RunId::from(chat(10))).unwrap();
    fixture.finish(chat(10), &ten, "done").await;
    store.apply(chat(10), By::Ancestor, send("more")).await.unwrap();
    assert_eq!(claim(5).await, [4, 10, 5, 20, 40], "a user's child waits like the rest");
}

/// A worker whose places are taken by those that wait asks for these.
#[tokio::test]
async fn only_descendants_are_claimed_by_who_has_room_for_no_others() {
    let fixture = Fixture::new().await;
    let one = std::num::NonZeroU32::new(100);
    let capped = fixture.store.clone().with_chat_caps(Caps { owner: one, deployment: one });
    for (store, first) in [(&fixture.store, 0), (&capped, 100)] {
        let top = root(store, first + 1, limits(Some(3), None)).await;
        let child = created(store, spawned(first + 2, top)).await;
        let grandchild = created(store, asked(first + 3, child)).await;
        created(store, new_chat(first + 4, owner(2))).await;
        let worker = fixture.worker(first + 1).await;
        let claim = async |depth_min| {
            let room = Room { runs: 10, depth_min };
            let runs = store.claim(worker, &RunKind::CHAT, room).await.unwrap();
            runs.into_iter().map(|run| run.id).collect::<Vec<_>>()
        };
        assert_eq!(claim(3).await, []);
        assert_eq!(claim(2).await, [grandchild.into()]);
        assert_eq!(claim(1).await, [child.into()]);
        assert_eq!(claim(1).await, []);
        assert_eq!(claim(0).await.len(), 2);
    }
}

#[tokio::test]
async fn descendant_that_is_suspected_is_claimed_alone() {
    let fixture = Fixture::new().await;
    let top = root(&fixture.store, 1, SubagentLimits::default()).await;
    for id in 2..5 {
        created(&fixture.store, spawned(id, top)).await;
    }
    let suspect = "update runs set attempts = 3 where run_id = $1";
    sqlx::query(suspect).bind(chat(2).uuid()).execute(&fixture.pool).await.unwrap();
    let worker = fixture.worker(1).await;
    let room = Room { runs: 10, depth_min: 1 };
    for expected in [1, 2] {
        let claimed = fixture.store.claim(worker, &RunKind::CHAT, room).await.unwrap();
        assert_eq!(claimed.len(), expected);
    }
}
