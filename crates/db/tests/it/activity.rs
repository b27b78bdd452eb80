//! What activity moves: last uses forward, deadlines as templates say.

use std::time::Duration;

use musterbeat_core::activity::Activity;
use musterbeat_core::chat::NewChat;
use musterbeat_core::id::{AgentId, ChatId, OwnerId, TokenId, WorkspaceId};
use musterbeat_core::port::{ActivityStore, AgentStore, ChatStore, NewAgent, Reach};
use musterbeat_core::timestamp::Timestamp;
use musterbeat_db::activity::touch;
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::setup::{Fixture, new_chat, owner};

const HOUR: i64 = 3_600;
const MINUTE: i64 = 60;

/// What the original's tests ran in.
const TIME_ZONES: [&str; 5] =
    ["Asia/Kolkata", "America/St_Johns", "Europe/Paris", "US/Arizona", "UTC"];

/// A workspace as a test wants it; times are seconds from now.
#[derive(Clone, Copy)]
struct Case {
    transition: &'static str,
    status: &'static str,
    deadline: Option<i64>,
    max_deadline: Option<i64>,
    next_start: Option<i64>,
    ttl: Option<i64>,
    template_ttl: Option<i64>,
    user_ttl_allowed: bool,
    bump: i64,
    is_prebuild: bool,
    deleted: bool,
}

/// A workspace that runs, whose deadline is half an hour past.
const CASE: Case = Case {
    transition: "start",
    status: "waiting",
    deadline: Some(-30 * MINUTE),
    max_deadline: None,
    next_start: None,
    ttl: Some(8 * HOUR),
    template_ttl: None,
    user_ttl_allowed: true,
    bump: HOUR,
    is_prebuild: false,
    deleted: false,
};

/// The cases of the original, each with how far from now the deadline then is; `None` where it
/// stays.
const ORIGINAL: [(&str, Case, Option<i64>); 12] = [
    ("not finished yet", Case { status: "running", deadline: Some(8 * HOUR), ..CASE }, None),
    ("manual shutdown", Case { deadline: None, ..CASE }, None),
    ("not time to bump yet", Case { deadline: Some(8 * HOUR), ..CASE }, None),
    ("bump less than deadline", Case { deadline: Some(8 * HOUR - 30 * MINUTE), ..CASE }, None),
    ("time to bump", CASE, Some(HOUR)),
    (
        "time to bump, next autostart",
        Case { next_start: Some(30 * MINUTE), ..CASE },
        Some(8 * HOUR + 30 * MINUTE),
    ),
    (
        "max deadline",
        Case { deadline: Some(22 * MINUTE), max_deadline: Some(30 * MINUTE), ..CASE },
        Some(30 * MINUTE),
    ),
    ("past deadline still bumps", Case { deadline: Some(-MINUTE), ..CASE }, Some(HOUR)),
    ("stopped workspace", Case { transition: "stop", deadline: Some(-MINUTE), ..CASE }, None),
    (
        "template disallows user autostop",
        Case {
            user_ttl_allowed: false,
            template_ttl: Some(10 * HOUR),
            next_start: Some(30 * MINUTE),
            ..CASE
        },
        Some(10 * HOUR + 30 * MINUTE),
    ),
    ("template custom activity bump", Case { bump: 5 * HOUR, ..CASE }, Some(5 * HOUR)),
    ("template custom activity bump zero", Case { bump: 0, ..CASE }, None),
];

/// What else the rules say.
const EDGES: [(&str, Case, Option<i64>); 17] = [
    ("waits for a worker", Case { status: "pending", ..CASE }, None),
    ("build failed", Case { status: "error", ..CASE }, Some(HOUR)),
    ("claimed", Case { transition: "claim", ..CASE }, Some(HOUR)),
    ("being deleted", Case { transition: "delete", ..CASE }, None),
    ("a twentieth used", Case { deadline: Some(57 * MINUTE), ..CASE }, None),
    ("more than that", Case { deadline: Some(57 * MINUTE - 1), ..CASE }, Some(HOUR)),
    (
        "a twentieth of the longer interval",
        Case { deadline: Some(8 * HOUR), next_start: Some(30 * MINUTE), ..CASE },
        Some(8 * HOUR + 30 * MINUTE),
    ),
    ("next start is past", Case { next_start: Some(-MINUTE), ..CASE }, Some(HOUR)),
    ("next start is now", Case { next_start: Some(0), ..CASE }, Some(HOUR)),
    ("next start is later", Case { next_start: Some(HOUR), ..CASE }, Some(HOUR)),
    (
        "time of the template",
        Case { ttl: None, template_ttl: Some(2 * HOUR), next_start: Some(60), ..CASE },
        Some(2 * HOUR + 60),
    ),
    ("no time at all", Case { ttl: None, next_start: Some(60), ..CASE }, Some(HOUR)),
    (
        "no time that counts",
        Case { user_ttl_allowed: false, next_start: Some(60), ..CASE },
        Some(HOUR),
    ),
    (
        "days",
        Case { bump: 48 * HOUR, next_start: Some(30 * HOUR), ttl: Some(50 * HOUR), ..CASE },
        Some(80 * HOUR),
    ),
    (
        "beyond the last deadline",
        Case { deadline: Some(20 * MINUTE), max_deadline: Some(10 * MINUTE), ..CASE },
        None,
    ),
    ("prebuild", Case { is_prebuild: true, ..CASE }, None),
    ("deleted", Case { deleted: true, ..CASE }, None),
];

/// How a workspace stands.
#[derive(Debug, PartialEq, Eq, sqlx::FromRow)]
struct Stand {
    last_used_at: OffsetDateTime,
    deadline: Option<OffsetDateTime>,
    max_deadline: Option<OffsetDateTime>,
    updated_at: OffsetDateTime,
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

fn later(now: Timestamp, seconds: i64) -> Timestamp {
    at(now.micros() + seconds * 1_000_000)
}

fn workspace(number: u128) -> WorkspaceId {
    WorkspaceId::new(Uuid::from_u128(number))
}

/// Says that agents of one owner reported of workspaces.
fn agents_of(who: OwnerId, numbers: impl IntoIterator<Item = u128>, at: Timestamp) -> Activity {
    let mut activity = Activity::default();
    for number in numbers {
        activity.saw_agent(workspace(number), who, at);
    }
    activity
}

fn answered(chats: impl IntoIterator<Item = u128>, at: Timestamp) -> Activity {
    let mut activity = Activity::default();
    for chat in chats {
        activity.saw_chat(ChatId::new(Uuid::from_u128(chat)), at);
    }
    activity
}

impl Fixture {
    /// Adds a workspace of owner 1 that was last used and changed two hours before `now`, with a
    /// template, a build and a run of its own.
    async fn workspace(&self, number: u128, case: &Case, now: Timestamp) {
        self.workspaces(number, 1, case, now).await;
    }

    /// Adds several, numbered from `first` on.
    async fn workspaces(&self, first: u128, count: u32, case: &Case, now: Timestamp) {
        const INSERT: &str = "
            with ids as materialized (
                select lpad(to_hex($1 + number), 32, '0')::uuid as id
                from generate_series(0, $2 - 1) as number
            ), new_templates as (
                insert into templates (id, name, ttl_s, user_ttl_allowed, activity_bump_s)
                select id, id::text, $3, $4, $5 from ids
            ), new_versions as (
                insert into template_versions (id, template_id, name, source)
                select id, id, '1', 'source' from ids
            ), new_workspaces as (
                insert into workspaces
                    (id, owner_id, template_version_id, name, build_id, next_start_at, ttl_s,
                     last_used_at, deadline, max_deadline, deleted, updated_at)
                select id, $6, id, id::text, id, $7, $8, $9, $10, $11, $12, $9 from ids
            ), new_runs as (
                insert into runs (run_id, kind, status, owner_id, worker_id, error)
                select id, 'build', $13::run_status, id,
                       case when $13 = 'running' then id end, case when $13 = 'error' then 'no' end
                from ids
            )
            insert into builds (id, workspace_id, transition)
            select id, id, $14::build_transition from ids";
        let offset = |seconds: Option<i64>| seconds.map(|seconds| later(now, seconds).time());
        let seconds = |seconds: Option<i64>| seconds.map(|seconds| i32::try_from(seconds).unwrap());
        sqlx::query(INSERT)
            .bind(i64::try_from(first).unwrap())
            .bind(i64::from(count))
            .bind(seconds(case.template_ttl))
            .bind(case.user_ttl_allowed)
            .bind(seconds(Some(case.bump)))
            .bind((!case.is_prebuild).then(|| owner(1).uuid()))
            .bind(offset(case.next_start))
            .bind(seconds(case.ttl))
            .bind(offset(Some(-2 * HOUR)))
            .bind(offset(case.deadline))
            .bind(offset(case.max_deadline))
            .bind(case.deleted)
            .bind(case.status)
            .bind(case.transition)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    async fn stand(&self, number: u128) -> Stand {
        let select = "select last_used_at, deadline, max_deadline, updated_at
            from workspaces where id = $1";
        let id = workspace(number).uuid();
        sqlx::query_as(select).bind(id).fetch_one(&self.pool).await.unwrap()
    }

    /// Adds a chat of owner 1.
    async fn chat_in(&self, number: u128, of: Option<WorkspaceId>) {
        let chat = NewChat { workspace: of, ..new_chat(number, owner(1)) };
        ChatStore::create(&self.store, chat, Reach::Of(owner(1))).await.unwrap();
    }

    async fn session(&self) -> PgConnection {
        PgConnection::connect(self.url()).await.unwrap()
    }

    async fn database_time(&self) -> Timestamp {
        let now = "select clock_timestamp()";
        Timestamp::new(sqlx::query_scalar(now).fetch_one(&self.pool).await.unwrap())
    }
}

#[tokio::test]
async fn deadlines_move_as_the_original_moves_them_in_each_time_zone() {
    let fixture = Fixture::new().await;
    let mut number = 0;
    // Hours before clocks are changed in America and in Europe.
    for now in ["2026-03-08T00:30:00Z", "2026-03-28T23:30:00Z"] {
        let format = &time::format_description::well_known::Rfc3339;
        let now = Timestamp::new(OffsetDateTime::parse(now, format).unwrap());
        for zone in TIME_ZONES {
            let mut conn = fixture.session().await;
            let set = "select set_config('timezone', $1, false)";
            sqlx::query(set).bind(zone).execute(&mut conn).await.unwrap();
            for (name, case, expected) in ORIGINAL.iter().chain(&EDGES) {
                number += 1;
                fixture.workspace(number, case, now).await;
                let before = fixture.stand(number).await;
                let activity = agents_of(owner(1), [number], now);
                let found = touch(&mut conn, &activity, Some(now)).await.unwrap();
                let is_theirs = !case.is_prebuild && !case.deleted;
                assert_eq!(found, u64::from(is_theirs), "{name} in {zone}");
                let moved = expected.map(|seconds| later(now, seconds).time());
                let expected = Stand {
                    last_used_at: if is_theirs { now.time() } else { before.last_used_at },
                    deadline: moved.or(before.deadline),
                    updated_at: if moved.is_some() { now.time() } else { before.updated_at },
                    max_deadline: before.max_deadline,
                };
                assert_eq!(fixture.stand(number).await, expected, "{name} in {zone}");
            }
        }
    }
}

#[tokio::test]
async fn last_use_moves_forward_only_and_what_stays_is_not_written() {
    let fixture = Fixture::new().await;
    let now = at(1_800_000_000_000_000);
    fixture.workspace(1, &CASE, now).await;
    let mut conn = fixture.session().await;
    let version = async || -> String {
        let row = "select ctid::text || xmin::text from workspaces";
        sqlx::query_scalar(row).fetch_one(&fixture.pool).await.unwrap()
    };
    let used = async || Timestamp::new(fixture.stand(1).await.last_used_at);

    let first = agents_of(owner(1), [1], later(now, -10));
    assert_eq!(touch(&mut conn, &first, Some(now)).await.unwrap(), 1);
    assert_eq!(used().await, later(now, -10));
    let (stand, written) = (fixture.stand(1).await, version().await);
    for seconds in [-10, -20, -5 * HOUR] {
        let former = agents_of(owner(1), [1], later(now, seconds));
        assert_eq!(touch(&mut conn, &former, Some(now)).await.unwrap(), 1, "it was found");
    }
    assert_eq!((fixture.stand(1).await, version().await), (stand, written));
    let minute = later(now, MINUTE);
    touch(&mut conn, &agents_of(owner(1), [1], minute), Some(minute)).await.unwrap();
    let moved = fixture.stand(1).await;
    assert_eq!(Timestamp::new(moved.last_used_at), minute);
    assert_eq!(Timestamp::new(moved.updated_at), now, "its deadline has moved only lately");
}

/// A replica whose clock is ahead must not shut out the others.
#[tokio::test]
async fn time_that_has_not_come_is_taken_down_to_the_databases() {
    let fixture = Fixture::new().await;
    let began = fixture.database_time().await;
    fixture.workspace(1, &CASE, began).await;
    fixture.store.touch(&agents_of(owner(1), [1], later(began, HOUR))).await.unwrap();
    let used = Timestamp::new(fixture.stand(1).await.last_used_at);
    assert!(began <= used && used <= fixture.database_time().await);
}

#[tokio::test]
async fn agents_of_others_and_what_is_not_there_do_not_count() {
    let fixture = Fixture::new().await;
    let now = at(1_800_000_000_000_000);
    fixture.workspace(1, &CASE, now).await;
    let before = fixture.stand(1).await;
    let mut conn = fixture.session().await;
    let mut activity = agents_of(owner(2), [1], now);
    activity.merge(agents_of(owner(1), [99], now));
    activity.merge(answered([99], now));
    assert_eq!(touch(&mut conn, &activity, Some(now)).await.unwrap(), 0);
    assert_eq!(touch(&mut conn, &Activity::default(), Some(now)).await.unwrap(), 0);
    assert_eq!(fixture.stand(1).await, before);
    activity.merge(agents_of(owner(1), [1], later(now, -60)));
    assert_eq!(touch(&mut conn, &activity, Some(now)).await.unwrap(), 1);
    let used = fixture.stand(1).await.last_used_at;
    assert_eq!(
        Timestamp::new(used),
        later(now, -60),
        "that of its owner counts, not the later one"
    );
}

#[tokio::test]
async fn chats_count_for_the_workspaces_that_they_are_in() {
    let fixture = Fixture::new().await;
    let now = at(1_800_000_000_000_000);
    for number in 1..=2 {
        fixture.workspace(number, &CASE, now).await;
    }
    fixture.chat_in(11, Some(workspace(1))).await;
    fixture.chat_in(12, Some(workspace(1))).await;
    fixture.chat_in(13, None).await;
    let unused = fixture.stand(2).await;
    let mut conn = fixture.session().await;
    let mut activity = answered([11, 13], later(now, -30));
    activity.merge(answered([12], later(now, -20)));
    activity.merge(agents_of(owner(1), [1], later(now, -40)));
    assert_eq!(touch(&mut conn, &activity, Some(now)).await.unwrap(), 1, "one workspace");
    let used = fixture.stand(1).await;
    assert_eq!(Timestamp::new(used.last_used_at), later(now, -20), "the latest of all");
    assert_eq!(used.deadline, Some(later(now, HOUR).time()));
    assert_eq!(fixture.stand(2).await, unused);
}

#[tokio::test]
async fn facts_of_an_agent_name_its_workspace() {
    let fixture = Fixture::new().await;
    let agent = |number, workspace| NewAgent {
        id: AgentId::new(Uuid::from_u128(number)),
        owner: owner(1),
        workspace,
        name: "agent".to_owned(),
        token: TokenId::new(Uuid::from_u128(number)),
        token_hash: [u8::try_from(number).unwrap(); 32],
    };
    let agents = [agent(1, Some(workspace(5))), agent(2, None)];
    for agent in &agents {
        AgentStore::create(&fixture.store, agent).await.unwrap();
    }
    let facts = fixture.store.facts(&agents.clone().map(|agent| agent.id)).await.unwrap();
    for agent in agents {
        assert_eq!(facts[&agent.id].workspace, agent.workspace);
    }
}

#[tokio::test]
async fn what_two_replicas_saw_is_written_and_the_later_one_stands() {
    let fixture = Fixture::new().await;
    let now = at(1_800_000_000_000_000);
    fixture.workspaces(1, 10, &Case { deadline: None, ..CASE }, now).await;
    let unused = fixture.stand(10).await;
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    let (early, late) = (later(now, -20), later(now, -10));
    // 3 to 5 are seen by both; the one that saw them later writes first.
    let seen_late = agents_of(owner(1), 1..=5, late);
    let seen_early = agents_of(owner(1), 3..=7, early);
    assert_eq!(touch(&mut one, &seen_late, Some(now)).await.unwrap(), 5);
    assert_eq!(touch(&mut other, &seen_early, Some(now)).await.unwrap(), 5);
    for number in 1..=7 {
        let expected = if number <= 5 { late } else { early };
        assert_eq!(Timestamp::new(fixture.stand(number).await.last_used_at), expected, "{number}");
    }
    let minute = later(now, MINUTE);
    touch(&mut other, &agents_of(owner(1), 3..=7, minute), Some(minute)).await.unwrap();
    for number in 3..=7 {
        assert_eq!(Timestamp::new(fixture.stand(number).await.last_used_at), minute, "{number}");
    }
    assert_eq!(fixture.stand(10).await, unused);
}

#[tokio::test]
async fn ten_thousand_marks_are_one_statement() {
    const WORKSPACES: u32 = 5_000;
    /// Adds a chat to each workspace, under the same number.
    const CHATS: &str = "
        with new_runs as (
            insert into runs (run_id, kind, status, owner_id)
            select overlay(id::text placing 'c' from 1 for 1)::uuid, 'chat', 'waiting', owner_id
            from workspaces
            returning run_id, owner_id
        )
        insert into chats (id, owner_id, workspace_id, title)
        select run_id, owner_id, overlay(run_id::text placing '0' from 1 for 1)::uuid, 'chat'
        from new_runs";
    let fixture = Fixture::new().await;
    let now = fixture.database_time().await;
    fixture.workspaces(1, WORKSPACES, &CASE, now).await;
    sqlx::query(CHATS).execute(&fixture.pool).await.unwrap();
    let numbers = || 1..=u128::from(WORKSPACES);
    let mut activity = agents_of(owner(1), numbers(), now);
    activity.merge(answered(numbers().map(|number| number | 0xc << 124), now));
    assert_eq!(activity.len(), 10_000);

    assert_eq!(fixture.store.touch(&activity).await.unwrap(), u64::from(WORKSPACES));
    // Rows that one statement wrote bear the same transaction and the same command of it.
    let written = "
        select count(distinct xmin::text || ' ' || cmin::text),
               count(*) filter (where last_used_at = $1 and $1 < deadline)
        from workspaces";
    let written: (i64, i64) =
        sqlx::query_as(written).bind(now.time()).fetch_one(&fixture.pool).await.unwrap();
    assert_eq!(written, (1, i64::from(WORKSPACES)));
}

/// One writes what agents reported, the other the same by chats, whose ids go the other way.
#[tokio::test]
async fn writers_of_overlapping_sets_in_opposite_orders_do_not_deadlock() {
    const WORKSPACES: u128 = 200;
    const ROUNDS: i64 = 50;
    let fixture = Fixture::new().await;
    let now = fixture.database_time().await;
    let began = later(now, -2 * HOUR);
    fixture.workspaces(1, 250, &Case { deadline: None, ..CASE }, now).await;
    for number in 51..=WORKSPACES + 50 {
        fixture.chat_in(2_000 - number, Some(workspace(number))).await;
    }
    let writer = |by_chats: bool| {
        let store = fixture.store.clone();
        tokio::spawn(async move {
            for round in 1..=ROUNDS {
                let at = later(began, 2 * round + i64::from(by_chats));
                let activity = if by_chats {
                    answered(2_000 - WORKSPACES - 50..2_000 - 50, at)
                } else {
                    agents_of(owner(1), 1..=WORKSPACES, at)
                };
                assert_eq!(store.touch(&activity).await.unwrap(), 200);
            }
        })
    };
    let both = futures_util::future::join_all([writer(false), writer(true)]);
    let ended = tokio::time::timeout(Duration::from_mins(1), both).await.unwrap();
    for writer in ended {
        writer.unwrap();
    }
    for (number, by_chats) in [(1, 0), (50, 0), (51, 1), (200, 1), (250, 1)] {
        let expected = later(began, 2 * ROUNDS + by_chats);
        let used = Timestamp::new(fixture.stand(number).await.last_used_at);
        assert_eq!(used, expected, "{number}");
    }
}
