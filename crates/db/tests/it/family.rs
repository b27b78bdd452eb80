//! Parents, children, and what happens to a whole family.

use musterbeat_core::chat::{Event, NewChat, Refused, STOPPED_BY_ARCHIVING};
use musterbeat_core::id::{ChatId, WorkspaceId};
use musterbeat_core::lineage::DEPTH_MAX;
use musterbeat_core::message::{Model, Role};
use musterbeat_core::page::{Cursor, Limit};
use musterbeat_core::port::{
    ApplyError, By, ChatReader, ChatStore, FamilyFilter, Kin, Reach, Room, RunStore,
};
use musterbeat_core::run::RunStatus;
use uuid::Uuid;

use crate::setup::{Fixture, call, finish, new_chat, owner, send};

const ANYBODY: By = By::User(Reach::Everything);

fn child(id: u128, parent: ChatId) -> NewChat {
    NewChat { parent: Some(parent), ..new_chat(id, owner(1)) }
}

async fn create(fixture: &Fixture, chat: NewChat) -> ChatId {
    fixture.store.create(chat, Reach::Of(owner(1))).await.unwrap().chat
}

#[tokio::test]
async fn child_takes_from_its_parent_what_it_does_not_bring() {
    let fixture = Fixture::new().await;
    let mut parent = new_chat(1, owner(1));
    parent.workspace = Some(fixture.unbuilt_workspace(7, owner(1)).await);
    parent.turn.model = Some(Model::new("big").unwrap());
    let parent = create(&fixture, parent).await;
    let first = create(&fixture, child(2, parent)).await;
    let second = create(&fixture, child(3, first)).await;
    let read = fixture.store.get(second, Reach::Of(owner(1))).await.unwrap().unwrap();
    assert_eq!((read.parent, read.root), (Some(first), Some(parent)));
    assert_eq!(read.workspace, Some(WorkspaceId::new(Uuid::from_u128(7))));
    assert_eq!(read.model, Some(Model::new("big").unwrap()));
    // An admin's child of somebody's chat is theirs.
    let by_admin = NewChat { parent: Some(parent), ..new_chat(4, owner(2)) };
    fixture.store.create(by_admin.clone(), Reach::Everything).await.unwrap();
    assert!(fixture.store.get(by_admin.id, Reach::Of(owner(1))).await.unwrap().is_some());
}

#[tokio::test]
async fn child_of_anothers_chat_is_refused() {
    let fixture = Fixture::new().await;
    let parent = fixture.chat(1, owner(1)).await;
    let theirs = NewChat { parent: Some(parent), ..new_chat(2, owner(2)) };
    let refused = fixture.store.create(theirs, Reach::Of(owner(2))).await;
    assert!(matches!(refused, Err(ApplyError::NotFound)));
}

#[tokio::test]
async fn creating_a_child_twice_creates_once_even_when_its_parent_is_archived_since() {
    let fixture = Fixture::new().await;
    let parent = fixture.chat(1, owner(1)).await;
    create(&fixture, child(2, parent)).await;
    fixture.store.apply(parent, ANYBODY, Event::Archive).await.unwrap();
    create(&fixture, child(2, parent)).await;
    let refused = fixture.store.create(child(3, parent), Reach::Of(owner(1))).await;
    assert!(matches!(refused, Err(ApplyError::Refused(Refused::ParentArchived))));
}

#[tokio::test]
async fn family_is_listed_oldest_first_page_by_page() {
    let fixture = Fixture::new().await;
    let root = fixture.chat(1, owner(1)).await;
    for id in 2..9 {
        create(&fixture, child(id, root)).await;
    }
    let grandchild = create(&fixture, child(20, ChatId::new(Uuid::from_u128(2)))).await;
    let list = async |kin, of| {
        let limit = Limit::new(Some(3)).unwrap();
        let reach = Reach::Of(owner(1));
        let mut filter = FamilyFilter { of, reach, kin, after: None, limit };
        let mut ids = vec![];
        loop {
            let page = fixture.store.family(filter).await.unwrap().unwrap();
            let Some(last) = page.last() else { return ids };
            filter.after = Some(Cursor { at: last.created_at, chat: last.id });
            ids.extend(page.iter().map(|chat| chat.id.uuid().as_u128()));
        }
    };
    assert_eq!(list(Kin::Children, root).await, (2..9).collect::<Vec<u128>>());
    let all: Vec<u128> = (2..9).chain([20]).collect();
    assert_eq!(list(Kin::Descendants, root).await, all);
    assert_eq!(list(Kin::Children, grandchild).await, Vec::<u128>::new());
    let limit = Limit::new(None).unwrap();
    let reach = Reach::Of(owner(2));
    let theirs = FamilyFilter { of: root, reach, kin: Kin::Children, after: None, limit };
    assert_eq!(fixture.store.family(theirs).await.unwrap(), None, "it is not theirs");
}

#[tokio::test]
async fn archiving_stops_the_whole_family_and_leaves_its_queues() {
    let fixture = Fixture::new().await;
    let root = fixture.chat(1, owner(1)).await;
    let [busy, idle, failed] = [2, 3, 4].map(|id| child(id, root));
    let [busy, idle, failed] = [
        create(&fixture, busy).await,
        create(&fixture, idle).await,
        create(&fixture, failed).await,
    ];
    let runs = fixture.claim(fixture.worker(1).await, 10).await;
    let token =
        |chat: ChatId| By::Owner(runs.iter().find(|run| run.id == chat.into()).unwrap().token);
    fixture.store.apply(idle, token(idle), finish("done")).await.unwrap();
    let error = Event::FinishError { error: "no model".to_owned() };
    fixture.store.apply(failed, token(failed), error).await.unwrap();
    fixture.store.apply(busy, ANYBODY, send("next")).await.unwrap();
    fixture.store.apply(busy, token(busy), Event::Step(vec![call("a")])).await.unwrap();

    let archived = fixture.store.apply(root, ANYBODY, Event::Archive).await.unwrap();
    assert_eq!(archived.status, RunStatus::Waiting);
    assert!(archived.stops, "whoever works on them is told");
    assert_eq!(archived.family, [busy, idle, failed]);
    let state = async |chat| {
        let changes = fixture.store.changes(chat, Reach::Everything, None).await.unwrap().unwrap();
        assert!(changes.chat.archived);
        (changes.chat.status, changes.chat.error, changes.queue.len(), changes.messages)
    };
    assert_eq!(state(root).await.0, RunStatus::Waiting);
    let (status, error, queued, messages) = state(busy).await;
    assert_eq!((status, queued), (RunStatus::Error, 1));
    assert_eq!(error.as_deref(), Some(STOPPED_BY_ARCHIVING));
    assert_eq!(messages.last().unwrap().role, Role::Tool, "its open call is answered");
    assert_eq!(state(idle).await.0, RunStatus::Waiting);
    let (status, error, ..) = state(failed).await;
    assert_eq!((status, error.as_deref()), (RunStatus::Error, Some("no model")));

    let late = fixture.store.apply(busy, token(busy), finish("late")).await;
    assert!(matches!(late, Err(ApplyError::Fenced)), "{late:?}");
    assert!(fixture.claim(fixture.worker(2).await, 10).await.is_empty(), "nothing is pending");
    let again = fixture.store.apply(root, ANYBODY, Event::Archive).await.unwrap();
    assert_eq!((again.version, again.family.len()), (archived.version, 0), "twice is once");

    fixture.store.apply(root, ANYBODY, Event::Unarchive).await.unwrap();
    assert!(
        fixture.claim(fixture.worker(3).await, 10).await.is_empty(),
        "nothing starts by itself"
    );
    let sent = fixture.store.apply(busy, ANYBODY, send("again")).await.unwrap();
    assert_eq!(sent.status, RunStatus::Pending);
    let changes = fixture.store.changes(busy, Reach::Everything, None).await.unwrap().unwrap();
    assert_eq!(changes.messages.last().unwrap().content.to_text(), "next", "the head starts");
}

#[tokio::test]
async fn child_alone_is_neither_archived_nor_unarchived() {
    let fixture = Fixture::new().await;
    let root = fixture.chat(1, owner(1)).await;
    let chat = create(&fixture, child(2, root)).await;
    for event in [Event::Archive, Event::Unarchive] {
        let refused = fixture.store.apply(chat, ANYBODY, event).await;
        assert!(matches!(refused, Err(ApplyError::Refused(Refused::IsChild))), "{refused:?}");
    }
}

/// A child that is created while its family is archived is archived with it, or refused.
#[tokio::test]
async fn no_child_slips_out_of_an_archived_family() {
    let fixture = Fixture::new().await;
    for round in 0..30_u128 {
        let root = fixture.chat(round * 10 + 1, owner(1)).await;
        let (archived, created) = tokio::join!(
            fixture.store.apply(root, ANYBODY, Event::Archive),
            fixture.store.create(child(round * 10 + 2, root), Reach::Of(owner(1))),
        );
        archived.unwrap();
        match created {
            Ok(applied) => {
                let read = fixture.store.get(applied.chat, Reach::Everything).await.unwrap();
                assert!(read.unwrap().archived);
            }
            Err(error) => {
                assert!(matches!(error, ApplyError::Refused(Refused::ParentArchived)), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn ancestors_are_read_in_one_statement_at_any_depth() {
    let fixture = Fixture::new().await;
    let mut chain = vec![fixture.chat(1, owner(1)).await];
    for id in 2..=51 {
        chain.push(create(&fixture, child(id, *chain.last().unwrap())).await);
    }
    let leaf = *chain.last().unwrap();
    let lineage = fixture.store.ancestors(leaf).await.unwrap();
    assert_eq!(lineage.ancestors.len(), 50);
    assert!(chain[..50].iter().all(|ancestor| lineage.descends_from(*ancestor)));
    assert!(!fixture.store.ancestors(chain[0]).await.unwrap().descends_from(leaf));
}

#[tokio::test]
async fn cycle_and_missing_chat_hold_no_walk_up() {
    let fixture = Fixture::new().await;
    let one = fixture.chat(1, owner(1)).await;
    let two = create(&fixture, child(2, one)).await;
    let three = create(&fixture, child(3, two)).await;
    sqlx::query("update chats set parent_id = $2 where id = $1")
        .bind(one.uuid())
        .bind(three.uuid())
        .execute(&fixture.pool)
        .await
        .unwrap();
    let lineage = fixture.store.ancestors(one).await.unwrap();
    assert_eq!(lineage.ancestors, [three, two]);
    assert!(!lineage.descends_from(one), "nobody descends from themselves");
    let nowhere = ChatId::new(Uuid::from_u128(99));
    assert!(fixture.store.ancestors(nowhere).await.unwrap().ancestors.is_empty());
}

#[tokio::test]
async fn chain_of_children_has_an_end() {
    let fixture = Fixture::new().await;
    let mut parent = fixture.chat(1, owner(1)).await;
    for id in 2..=DEPTH_MAX as u128 + 1 {
        parent = create(&fixture, child(id, parent)).await;
    }
    let refused = fixture.store.create(child(999, parent), Reach::Of(owner(1))).await;
    let refused = refused.unwrap_err().to_string();
    assert_eq!(refused, "the parent has 100 ancestors, more are not allowed");
}

/// One owner with ten thousand pending chats does not hold up the first of ten others.
#[tokio::test]
async fn ten_owners_are_served_before_the_rest_of_one() {
    let fixture = Fixture::new().await;
    sqlx::raw_sql(
        "insert into runs (run_id, kind, status, owner_id, version, round)
         select gen_random_uuid(), 'chat', 'pending', '00000000-0000-0000-0000-0000000000ff', 1, n
         from generate_series(0, 9999) as n;
         analyze runs;",
    )
    .execute(&fixture.pool)
    .await
    .unwrap();
    for id in 1..=10 {
        fixture.chat(id, owner(id)).await;
    }
    let worker = fixture.worker(1).await;
    let mut served = vec![];
    for _ in 0..2 {
        let claimed =
            fixture.store.claim(worker, &musterbeat_core::run::RunKind::CHAT, Room::of(10)).await;
        served.extend(claimed.unwrap().into_iter().map(|run| run.id.uuid().as_u128()));
    }
    assert!((1..=10).all(|id| served.contains(&id)), "{served:?}");
}
