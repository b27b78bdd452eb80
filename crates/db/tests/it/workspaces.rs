//! Who gets which prebuild, and how workspaces are made, built and live.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use musterbeat_core::build::Transition;
use musterbeat_core::chat::NewChat;
use musterbeat_core::id::OwnerId;
use musterbeat_core::page::Limit;
use musterbeat_core::port::{
    By, ChatReader, ChatStore, Deleted, DeletionOf, Reach, TemplateStore, WorkspaceError,
    WorkspaceStore,
};
use musterbeat_core::run::RunStatus;
use musterbeat_core::template::{PresetPatch, TemplateRules};
use musterbeat_core::workspace::{Life, Order};
use tokio::time::timeout;

use crate::setup::{Fixture, PATIENCE, new_chat, owner, send};
use crate::supply::{fails, order, preset, succeeds, template};

const HOUR: Duration = Duration::from_hours(1);

fn is_none_left<T>(claimed: &Result<T, WorkspaceError>) -> bool {
    matches!(claimed, Err(WorkspaceError::NoClaimable))
}

#[tokio::test]
async fn eight_claimers_get_a_hundred_prebuilds_and_the_next_none() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let ready = fixture.ready(preset, 100).await;
    let orders = Mutex::new(1..=100);
    let claimers = (0..8).map(async |_| {
        let mut mine = Vec::new();
        loop {
            let Some(number) = orders.lock().unwrap().next() else { return mine };
            mine.push(fixture.claimed(number, preset).await);
        }
    });
    let claimed = join_all(claimers).await.concat();
    let claimed: BTreeSet<_> = claimed.into_iter().collect();
    assert_eq!(claimed, ready.into_iter().collect());
    let owners = "select count(distinct owner_id) from workspaces where name like 'workspace %'";
    assert_eq!(fixture.number(owners).await, 100);
    assert!(is_none_left(&fixture.claim_prebuild(&order(101, preset)).await));
    assert_eq!(fixture.standing(preset).await, "");
}

/// The original's second claimer takes the prebuild that the first holds, and waits for it.
#[tokio::test]
async fn claim_waits_for_no_claim_that_is_under_way() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let ready = fixture.ready(preset, 3).await;
    fixture.hold_commits_of_workspace("workspace 1").await;
    let mut gate = fixture.pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(1)").execute(&mut *gate).await.unwrap();
    let store = fixture.store.clone();
    let first = tokio::spawn(async move { WorkspaceStore::claim(&store, &order(1, preset)).await });
    fixture.somebody_waits_for_a_lock().await;

    let others = async {
        let claimed = [fixture.claimed(2, preset).await, fixture.claimed(3, preset).await];
        (claimed, fixture.claim_prebuild(&order(4, preset)).await)
    };
    let (others, last) = timeout(PATIENCE, others).await.expect("they wait for the first");
    assert_eq!(others, ready[1..]);
    assert!(is_none_left(&last), "{last:?}");
    assert!(!first.is_finished());
    gate.rollback().await.unwrap();
    assert_eq!(first.await.unwrap().unwrap().workspace, ready[0]);
}

#[tokio::test]
async fn claim_passes_over_a_prebuild_that_somebody_holds_locked() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let ready = fixture.ready(preset, 2).await;
    let holder = fixture.hold_prebuild(ready[0]).await;
    let claim = timeout(PATIENCE, fixture.claimed(1, preset)).await;
    assert_eq!(claim.expect("it waits"), ready[1]);
    let none = timeout(PATIENCE, fixture.claim_prebuild(&order(2, preset))).await;
    assert!(is_none_left(&none.expect("it waits")));
    holder.rollback().await.unwrap();
    assert_eq!(fixture.claimed(2, preset).await, ready[0]);
}

#[tokio::test]
async fn oldest_prebuild_is_claimed_first() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let ready = fixture.ready(preset, 3).await;
    fixture.age(ready[2], 3 * HOUR).await;
    fixture.age(ready[0], 2 * HOUR).await;
    for (number, place) in [(1, 2), (2, 0), (3, 1)] {
        assert_eq!(fixture.claimed(number, preset).await, ready[place]);
    }
}

#[tokio::test]
async fn claimed_prebuild_is_its_owners_workspace() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let ready = fixture.ready(preset, 1).await;
    assert!(fixture.look_at(ready[0]).await.unwrap().owner.is_none());
    let life = Life {
        autostart_schedule: Some("0 9 * * 1-5".to_owned()),
        next_start_at: None,
        ttl: Some(2 * HOUR),
    };
    let order = Order { life: life.clone(), ..order(1, preset) };
    let claimed = fixture.claim_prebuild(&order).await.unwrap();
    let name = claimed.pool.unwrap();
    assert_eq!((name.template.as_str(), name.preset.as_str()), ("template 1", "preset 1"));

    let found = fixture.look_at(claimed.workspace).await.unwrap();
    assert_eq!((found.owner, found.name.as_str()), (Some(owner(1)), "workspace 1"));
    assert_eq!((found.life, found.preset), (life, Some(preset)));
    assert_eq!((found.build.id, found.build.transition), (order.build, Transition::Claim));
    let list = async |of| {
        let limit = Limit::new(None).unwrap();
        let listed = WorkspaceStore::list(&fixture.store, owner(of), None, limit).await.unwrap();
        listed.into_iter().map(|found| found.id).collect::<Vec<_>>()
    };
    assert_eq!(list(1).await, [claimed.workspace]);
    assert_eq!(list(2).await, []);
    let out_of_reach =
        WorkspaceStore::get(&fixture.store, claimed.workspace, Reach::Of(owner(2))).await;
    assert!(out_of_reach.unwrap().is_none());
}

#[tokio::test]
async fn claim_that_is_repeated_returns_the_same_workspace() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let ready = fixture.ready(preset, 9).await;
    let first = fixture.claimed(1, preset).await;
    let again = fixture.claim_prebuild(&order(1, preset)).await.unwrap();
    assert_eq!((again.workspace, again.pool), (first, None));
    fixture.build_all(&succeeds()).await;
    assert_eq!(fixture.claimed(1, preset).await, first, "after its build, too");

    let at_once = (0..8).map(|_| fixture.claimed(2, preset));
    let claimed: BTreeSet<_> = join_all(at_once).await.into_iter().collect();
    assert_eq!(claimed.into_iter().collect::<Vec<_>>(), [ready[1]]);
    assert_eq!(fixture.prebuilds(preset).await.len(), 7);
    let theirs = Order { owner: owner(3), ..order(1, preset) };
    let theirs = fixture.claim_prebuild(&theirs).await;
    assert!(matches!(theirs, Err(WorkspaceError::NotFound)), "{theirs:?}");
}

#[tokio::test]
async fn prebuild_that_is_not_ready_or_not_wanted_is_not_claimed() {
    let fixture = Fixture::new().await;
    let mut number = 0;
    let mut none = async |what: &str, change: &str| {
        number += 1;
        let preset = fixture.template(number, 0).await;
        fixture.ready(preset, 2).await;
        fixture.claimed(100 + number, preset).await;
        fixture.sql(&change.replace("$preset", &format!("'{preset}'"))).await;
        let claimed = fixture.claim_prebuild(&order(number, preset)).await;
        assert!(is_none_left(&claimed), "{what}: {claimed:?}");
    };
    for status in ["starting", "deleting", "failed"] {
        none(status, &format!("update prebuilds set status = '{status}'")).await;
    }
    none(
        "too old",
        "update presets set ttl_s = 3600 where id = $preset;
         update prebuilds set created_at = now() - interval '1 hour' where preset_id = $preset",
    )
    .await;
    none("other version", "update templates set active_version_id = null").await;
    let invalidated = fixture.template(99, 0).await;
    fixture.ready(invalidated, 2).await;
    fixture.claimed(199, invalidated).await;
    let patch = PresetPatch { pool: None, invalidate: true };
    fixture.store.update_preset(invalidated, &patch).await.unwrap();
    assert!(is_none_left(&fixture.claim_prebuild(&order(99, invalidated)).await));
}

#[tokio::test]
async fn prebuild_of_an_inactive_preset_is_not_claimed_and_no_workspace_made_of_it() {
    let fixture = Fixture::new().await;
    for number in 1..=3 {
        let preset = fixture.template(number, 0).await;
        fixture.ready(preset, 1).await;
    }
    fixture.move_on(1, 10).await;
    TemplateStore::delete(&fixture.store, template(2)).await.unwrap();
    fixture.rule(3, TemplateRules { deprecated: true, ..TemplateRules::default() }).await;
    for number in 1..=3 {
        let order = order(number, preset(number));
        let claimed = fixture.claim_prebuild(&order).await;
        assert!(is_none_left(&claimed), "{number}: {claimed:?}");
        let made = WorkspaceStore::create(&fixture.store, &order).await;
        assert!(matches!(made, Err(WorkspaceError::NotActive)), "{number}: {made:?}");
    }
    let deleted = fixture.template(4, 0).await;
    fixture.ready(deleted, 1).await;
    fixture.store.delete_preset(deleted).await.unwrap();
    for unknown in [deleted, preset(99)] {
        let order = order(4, unknown);
        let claimed = fixture.claim_prebuild(&order).await;
        assert!(matches!(claimed, Err(WorkspaceError::NotFound)), "{claimed:?}");
        let made = WorkspaceStore::create(&fixture.store, &order).await;
        assert!(matches!(made, Err(WorkspaceError::NotFound)), "{made:?}");
    }
    let of_people = format!("select count(*) from runs where owner_id <> '{}'", OwnerId::POOL);
    assert_eq!(fixture.number(&of_people).await, 0, "what is refused leaves nothing");
}

#[tokio::test]
async fn claim_of_a_name_that_is_taken_leaves_the_prebuild() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let ready = fixture.ready(preset, 2).await;
    fixture.claimed(1, preset).await;
    let same =
        Order { build: order(2, preset).build, name: "WORKSPACE 1".to_owned(), ..order(1, preset) };
    let taken = fixture.claim_prebuild(&same).await;
    assert!(matches!(taken, Err(WorkspaceError::NameTaken)), "{taken:?}");
    let taken = WorkspaceStore::create(&fixture.store, &same).await;
    assert!(matches!(taken, Err(WorkspaceError::NameTaken)), "{taken:?}");
    let theirs = Order { owner: owner(2), ..same };
    assert_eq!(fixture.claim_prebuild(&theirs).await.unwrap().workspace, ready[1]);
}

/// The original deletes without a second look: a claim in between is lost.
#[tokio::test]
async fn of_a_claim_and_a_deletion_at_once_exactly_one_gets_the_prebuild() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let which = DeletionOf::Extraneous { wanted: 0 };
    for round in 1..=40 {
        let ready = fixture.ready(preset, 1).await;
        let order = order(round, preset);
        let (claim, delete) = (fixture.claim_prebuild(&order), fixture.condemn(preset, which));
        let (claimed, deleted) = if round % 2 == 0 {
            tokio::join!(claim, delete)
        } else {
            let (deleted, claimed) = tokio::join!(delete, claim);
            (claimed, deleted)
        };
        assert_eq!(claimed.is_ok(), deleted == 0, "{claimed:?} and {deleted} deleted");
        fixture.build_all(&succeeds()).await;
        let found = fixture.look_at(ready[0]).await;
        assert_eq!(found.is_some(), claimed.is_ok());
        assert_eq!(found.and_then(|found| found.owner).is_some(), claimed.is_ok());
        assert_eq!(fixture.standing(preset).await, "");
    }
}

#[tokio::test]
async fn deletion_passes_over_a_prebuild_that_is_being_claimed() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let ready = fixture.ready(preset, 2).await;
    fixture.hold_commits_of_workspace("workspace 1").await;
    let mut gate = fixture.pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(1)").execute(&mut *gate).await.unwrap();
    let store = fixture.store.clone();
    let claim = tokio::spawn(async move { WorkspaceStore::claim(&store, &order(1, preset)).await });
    fixture.somebody_waits_for_a_lock().await;
    let which = DeletionOf::Extraneous { wanted: 0 };
    let deleted = timeout(PATIENCE, fixture.condemn(preset, which)).await;
    assert_eq!(deleted.expect("it waits for the claim"), 1);
    gate.rollback().await.unwrap();
    assert_eq!(claim.await.unwrap().unwrap().workspace, ready[0]);
    fixture.build_all(&succeeds()).await;
    assert!(fixture.look_at(ready[0]).await.is_some());
    assert!(fixture.look_at(ready[1]).await.is_none());
}

#[tokio::test]
async fn workspace_is_made_once_and_built_by_one_build_at_a_time() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let made = WorkspaceStore::create(&fixture.store, &order(1, preset)).await.unwrap();
    let again = WorkspaceStore::create(&fixture.store, &order(1, preset)).await.unwrap();
    assert_eq!(made, again);
    let busy = fixture.rebuild(made, 2, Transition::Stop).await;
    assert!(matches!(busy, Err(WorkspaceError::Busy)), "{busy:?}");
    fixture.build_all(&fails()).await;
    assert_eq!(fixture.look_at(made).await.unwrap().build.status, RunStatus::Error);

    fixture.rebuild(made, 2, Transition::Start).await.unwrap();
    fixture.rebuild(made, 2, Transition::Start).await.unwrap();
    fixture.build_all(&succeeds()).await;
    fixture.rebuild(made, 3, Transition::Delete).await.unwrap();
    fixture.rebuild(made, 2, Transition::Start).await.unwrap();
    let builds = WorkspaceStore::builds(&fixture.store, made, Reach::Of(owner(1))).await.unwrap();
    let builds: Vec<_> =
        builds.unwrap().iter().map(|build| (build.transition, build.status)).collect();
    let expected = [
        (Transition::Delete, RunStatus::Pending),
        (Transition::Start, RunStatus::Waiting),
        (Transition::Start, RunStatus::Error),
    ];
    assert_eq!(builds, expected);
    let others = WorkspaceStore::builds(&fixture.store, made, Reach::Of(owner(2))).await.unwrap();
    assert!(others.is_none());

    fixture.build_all(&succeeds()).await;
    assert!(fixture.look_at(made).await.is_none());
    let gone = fixture.rebuild(made, 4, Transition::Start).await;
    assert!(matches!(gone, Err(WorkspaceError::NotFound)), "{gone:?}");
    let same_name = Order { name: "workspace 1".to_owned(), ..order(5, preset) };
    let same_name = Order { owner: owner(1), ..same_name };
    WorkspaceStore::create(&fixture.store, &same_name).await.unwrap();
}

/// Whoever waited for another's order must look at that one's build.
#[tokio::test]
async fn workspace_for_which_two_order_builds_at_once_is_busy_for_the_second() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let made = WorkspaceStore::create(&fixture.store, &order(1, preset)).await.unwrap();
    fixture.build_all(&succeeds()).await;
    fixture.hold_commits_of_workspace("workspace 1").await;
    let mut gate = fixture.pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(1)").execute(&mut *gate).await.unwrap();
    let stop = |number| {
        let store = fixture.store.clone();
        let build = order(number, preset).build;
        tokio::spawn(async move {
            WorkspaceStore::build(&store, made, Reach::Everything, build, Transition::Stop).await
        })
    };
    let first = stop(2);
    fixture.somebody_waits_for_a_lock().await;
    let (second, same) = (stop(3), stop(2));
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    musterbeat_testkit::eventually(PATIENCE, "all wait", async || {
        fixture.number(waiting).await == 3
    })
    .await;
    gate.rollback().await.unwrap();
    first.await.unwrap().unwrap();
    let second = second.await.unwrap();
    assert!(matches!(second, Err(WorkspaceError::Busy)), "{second:?}");
    same.await.unwrap().unwrap();
}

#[tokio::test]
async fn prebuild_is_nobodys_to_build() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let ready = fixture.ready(preset, 1).await;
    let refused = fixture.rebuild(ready[0], 1, Transition::Stop).await;
    assert!(matches!(refused, Err(WorkspaceError::NotFound)), "{refused:?}");
}

#[tokio::test]
async fn what_was_somebodys_is_forgotten_long_after_its_deletion_and_its_chats_stay() {
    const TABLES: [&str; 5] = ["workspaces", "builds", "build_logs", "runs", "chats"];
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    fixture.ready(preset, 2).await;
    let workspaces = [fixture.claimed(1, preset).await, fixture.claimed(2, preset).await];
    fixture.build_all(&succeeds()).await;
    let chats = (1..).zip(workspaces).map(async |(number, workspace)| {
        let chat = NewChat { workspace: Some(workspace), ..new_chat(number, owner(number)) };
        ChatStore::create(&fixture.store, chat, Reach::Everything).await.unwrap().chat
    });
    let chats = join_all(chats).await;
    fixture.rebuild(workspaces[1], 3, Transition::Delete).await.unwrap();
    fixture.build_all(&succeeds()).await;
    fixture.sql("insert into build_logs select id, 1, 1, 'hello' from builds").await;
    fixture.sql("update workspaces set updated_at = updated_at - interval '91 days'").await;

    let forget = async |days, limit| fixture.forget(Deleted::Workspaces, days, limit).await;
    assert_eq!(fixture.forget(Deleted::Prebuilds, 7, 10).await, 0);
    assert_eq!(forget(92, 10).await, 0);
    assert_eq!(fixture.rows(TABLES).await, [2, 5, 5, 7, 2]);
    assert_eq!(forget(90, 2).await, 2);
    assert_eq!(fixture.rows(TABLES).await, [2, 3, 3, 5, 2], "as much as one statement may");
    assert_eq!(forget(90, 2).await, 1);
    assert_eq!(forget(90, 2).await, 0);
    assert_eq!(fixture.rows(TABLES).await, [1, 2, 2, 4, 2]);
    for (chat, workspace) in chats.into_iter().zip([Some(workspaces[0]), None]) {
        let stored = ChatReader::get(&fixture.store, chat, Reach::Everything).await;
        let stored = stored.unwrap().unwrap();
        assert_eq!(stored.workspace, workspace);
        fixture.store.apply(chat, By::User(Reach::Everything), send("And now?")).await.unwrap();
    }
}
