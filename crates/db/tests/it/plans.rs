//! What statements read of large tables: indexes, and no more rows than they answer with.
//!
//! The server's own counters tell, under a plan for the very parameters and under the generic
//! plan that a session falls back to.

use musterbeat_core::id::{ChatId, MessageId, Version};
use musterbeat_core::message::{Content, NewMessage, Role};
use musterbeat_core::page::Limit;
use musterbeat_core::port::{ChatFilter, FamilyFilter, FeedMark, Kin, Reach};
use musterbeat_db::chat_messages::{self, Addition};
use musterbeat_db::{PgConnection, chat_queued_messages, chats};
use serde_json::Value;
use sqlx::Connection as _;
use uuid::Uuid;

use crate::setup::{Fixture, owner};

/// Messages of the long chat, a version each.
const MESSAGES: i64 = 10_000;

/// 10,000 chats of one owner and 20,000 of two hundred others, most of which wait: 30,000 rows in
/// `runs`, as many in `chats`, and 70,000 messages.
/// The first chat is the parent of 2,000 and the root of 4,000 more, and has 10,000 messages.
/// As a replica, the server checks no reference: that would take most of the time.
const FILL: &str = "
    set session_replication_role = replica;
    create function chat(number bigint) returns uuid language sql immutable as
        $$ select md5(number::text)::uuid $$;
    create function owner(number bigint) returns uuid language sql immutable as
        $$ select (lpad(to_hex(case when number <= 10000 then 1 else 2 + number % 200 end), 16, '0')
                  || repeat('0', 16))::uuid $$;
    insert into runs (run_id, kind, status, worker_id, owner_id, family_id, version)
    select chat(number), 'chat',
           case number % 1000 when 1 then 'running' when 2 then 'pending' else 'waiting' end::run_status,
           case when number % 1000 = 1 then gen_random_uuid() end, owner(number),
           case when number between 2 and 6001 then chat(1) end, 10000
    from generate_series(1::bigint, 30000) as number;
    insert into chats (id, owner_id, parent_id, root_id, title, created_at, updated_at)
    select chat(number), owner(number),
           case when number between 2 and 2001 then chat(1)
                when number between 2002 and 6001 then chat(number - 2000) end,
           case when number between 2 and 6001 then chat(1) end, 'chat ' || number,
           now() - (30000 - number) * interval '1 minute', now() - number * interval '1 minute'
    from generate_series(1::bigint, 30000) as number;
    insert into chat_messages (chat_id, version, role, content)
    select chat(chat), version, case version % 2 when 0 then 'user' else 'assistant' end::message_role,
           jsonb_build_array(jsonb_build_object('type', 'text', 'text', 'message ' || version))
    from (
        select chat, version
        from generate_series(1, 2) as version, generate_series(2::bigint, 30000) as chat
        union all
        select 1, version from generate_series(1, 10000) as version
    ) as said
    order by version, chat;
    insert into chat_queued_messages (chat_id, position, content)
    select chat(chat), 1, '[]' from generate_series(1::bigint, 30000, 10) as chat;
    vacuum analyze runs;
    vacuum analyze chats;
    vacuum analyze chat_messages;
    vacuum analyze chat_queued_messages;";

/// What a session has read.
#[derive(Debug)]
struct Read {
    /// Rows, through indexes.
    fetched: i64,
    /// How often it read a table from end to end.
    scans: i64,
}

#[tokio::test]
async fn changes_of_a_long_chat_touch_only_what_changed() {
    let large = Large::new().await;
    let mut conn = large.fixture.pool.acquire().await.unwrap();
    let since = Some(Version(MESSAGES - 7));
    let page = chat_messages::changed(&mut conn, large.chat, since).await.unwrap();
    assert_eq!(page.messages.len(), 7);

    // The very statement: it is read back from the session that prepared it.
    let (name, types): (String, i64) = sqlx::query_as(
        "select name, cardinality(parameter_types)::bigint from pg_prepared_statements
         where statement like '%bytes\\_before%' and statement not like '%pg\\_prepared%'",
    )
    .fetch_one(&mut *conn)
    .await
    .unwrap();
    assert_eq!(types, 4);
    for mode in MODES {
        let explained = format!(
            r#"explain (analyze, buffers, format json) execute "{name}"('{}', {}, 500, 1048576)"#,
            large.chat.uuid(),
            MESSAGES - 7,
        );
        let mut tx = conn.begin().await.unwrap();
        set(&mut tx, mode).await;
        let statement = sqlx::AssertSqlSafe(explained);
        let plan: Value = sqlx::query_scalar(statement).fetch_one(&mut *tx).await.unwrap();
        println!("{mode}: {plan:#}");
        let mut scans = Vec::new();
        collect_scans(&plan[0]["Plan"], &mut scans);
        let [scan] = scans[..] else { panic!("one scan is enough: {plan:#}") };
        assert_eq!(scan["Index Name"], "chat_messages_changed", "{plan:#}");
        assert_eq!(scan["Actual Rows"].as_f64(), Some(7.0), "{plan:#}");
        assert!(matches!(scan["Rows Removed by Filter"].as_f64(), None | Some(0.0)), "{plan:#}");
        let blocks = ["Shared Hit Blocks", "Shared Read Blocks"];
        let blocks: i64 = blocks.iter().filter_map(|kind| scan[kind].as_i64()).sum();
        assert!(blocks <= 10, "{blocks} blocks for 7 rows: {plan:#}");
    }
}

#[tokio::test]
async fn statements_of_a_chat_read_few_rows_of_large_tables() {
    let large = Large::new().await;
    let (chat, few) = (large.chat, 60);
    let text = Content::text("more").unwrap();
    let messages: Vec<_> = (0..50).map(|_| NewMessage::answer(text.clone(), None)).collect();
    let version = Version(MESSAGES + 1);
    let additions: Vec<_> =
        messages.iter().map(|message| Addition { chat, version, message }).collect();

    large
        .check("append", few, async |conn| {
            chat_messages::append(conn, &additions, &[chat], None).await.unwrap();
        })
        .await;
    large
        .check("facts", few, async |conn| {
            let facts = chats::facts(conn, &[chat], Some(MessageId(1)), None).await.unwrap();
            assert_eq!(facts.len(), 1);
        })
        .await;
    large
        .check("facts of a family", 100, async |conn| {
            let facts = chats::facts(conn, &large.some_children, None, None).await.unwrap();
            assert_eq!(facts.len(), 20);
        })
        .await;
    large
        .check("report", few, async |conn| {
            let report = chats::report(conn, chat, Reach::Everything).await.unwrap().unwrap();
            assert_eq!(report.text.as_deref(), Some("message 9999"));
        })
        .await;
    large
        .check("last_of_role", few, async |conn| {
            chat_messages::last_of_role(conn, chat, Role::User).await.unwrap().unwrap();
        })
        .await;
    large
        .check("delete", few, async |conn| {
            let last = sqlx::query_scalar("select max(id) from chat_messages where chat_id = $1");
            let last: i64 = last.bind(chat.uuid()).fetch_one(&mut *conn).await.unwrap();
            let first = Some(MessageId(last));
            assert_eq!(chat_messages::delete(conn, chat, version, first).await.unwrap(), 1);
        })
        .await;
    large
        .check("queue", few, async |conn| {
            assert_eq!(chat_queued_messages::list(conn, chat).await.unwrap().len(), 1);
        })
        .await;
    large
        .check("place", few, async |conn| {
            chats::place(conn, chat).await.unwrap().unwrap();
        })
        .await;
    large
        .check("at work", 20, async |conn| {
            // A running and a pending one in each thousand of six.
            let at_work = musterbeat_db::runs::at_work(conn, large.chat.into(), 100).await.unwrap();
            assert_eq!(at_work, 12);
        })
        .await;
}

#[tokio::test]
async fn prompt_reads_each_message_once_and_its_family_once() {
    let large = Large::new().await;
    large
        .check("prompt", 20, async |conn| {
            let leaf = sqlx::query_scalar("select chat(6001)");
            let leaf: Uuid = leaf.fetch_one(&mut *conn).await.unwrap();
            let prompt = chat_messages::prompt(conn, ChatId::new(leaf)).await;
            let (messages, standing) = prompt.unwrap();
            assert_eq!((messages.len(), standing.depth), (2, 3));
        })
        .await;
    large
        .check("prompt of a long history", MESSAGES + 20, async |conn| {
            let (messages, _) = chat_messages::prompt(conn, large.chat).await.unwrap();
            assert_eq!(messages.len(), 10_000);
        })
        .await;
}

#[tokio::test]
async fn lists_read_about_as_many_rows_as_they_show() {
    let large = Large::new().await;
    let (chat, limit) = (large.chat, Limit::new(None).unwrap());
    // A chat and its run for each of 50 rows.
    let page = 150;
    let filter = ChatFilter { owner: owner(1), archived: Some(false), after: None, limit };
    large
        .check("list", page, async |conn| {
            assert_eq!(chats::list(conn, &filter).await.unwrap().len(), 50);
        })
        .await;
    for kin in [Kin::Children, Kin::Descendants] {
        let reach = Reach::Of(owner(1));
        let filter = FamilyFilter { of: chat, reach, kin, after: None, limit };
        large
            .check(&format!("family: {kin:?}"), page, async |conn| {
                assert_eq!(chats::family(conn, &filter).await.unwrap().len(), 50);
            })
            .await;
    }
    large
        .check("feed", page, async |conn| {
            let mark = Some(large.mark);
            let feed = chats::feed(conn, owner(1), mark, &[chat]).await.unwrap();
            // Ten run, ten are pending, and this one is among the former.
            assert_eq!(feed.chats.len(), 20);
        })
        .await;
    large
        .check("ancestors", page, async |conn| {
            let leaf = sqlx::query_scalar("select chat(6001)");
            let leaf: Uuid = leaf.fetch_one(&mut *conn).await.unwrap();
            let lineage = chats::ancestors(conn, ChatId::new(leaf)).await.unwrap();
            assert_eq!(lineage.ancestors.len(), 3);
        })
        .await;
}

/// Plans for the parameters at hand, and the one that serves all.
const MODES: [&str; 2] = ["force_custom_plan", "force_generic_plan"];

/// A database with many rows in all tables of chats.
struct Large {
    fixture: Fixture,
    /// The one with many messages and a large family.
    chat: ChatId,
    some_children: Vec<ChatId>,
    /// Everything there was had ended by then.
    mark: FeedMark,
}

impl Large {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        let mut conn = fixture.pool.acquire().await.unwrap().detach();
        for statement in FILL.split_inclusive(";\n") {
            sqlx::raw_sql(statement).execute(&mut conn).await.unwrap();
        }
        let query = "select chat(1), pg_snapshot_xmin(pg_current_snapshot())::text::bigint";
        let (chat, mark) = sqlx::query_as(query).fetch_one(&fixture.pool).await.unwrap();
        let query = "select chat(number) from generate_series(2::bigint, 21) as number";
        let children: Vec<Uuid> = sqlx::query_scalar(query).fetch_all(&fixture.pool).await.unwrap();
        let some_children = children.into_iter().map(ChatId::new).collect();
        Self { fixture, chat: ChatId::new(chat), some_children, mark: FeedMark(mark) }
    }

    /// Does the work under each kind of plan, and compares what it read with `fetched_max`.
    async fn check(&self, what: &str, fetched_max: i64, work: impl AsyncFn(&mut PgConnection)) {
        for mode in MODES {
            let mut tx = self.fixture.pool.begin().await.unwrap();
            set(&mut tx, mode).await;
            let before = Read::of(&mut tx).await;
            work(&mut tx).await;
            let read = Read::of(&mut tx).await.since(&before);
            tx.rollback().await.unwrap();
            println!("{what}, {mode}: {read:?}");
            assert_eq!(read.scans, 0, "{what}, {mode}: {read:?}");
            assert!(read.fetched <= fetched_max, "{what}, {mode}: {read:?}");
        }
    }
}

impl Read {
    /// Reads the counters that the session has not yet handed on.
    async fn of(conn: &mut PgConnection) -> Self {
        const COUNTS: &str = "
            select coalesce(sum(idx_tup_fetch), 0)::bigint, coalesce(sum(seq_scan), 0)::bigint
            from pg_stat_xact_user_tables
            where relname in ('chats', 'runs', 'chat_messages', 'chat_queued_messages')";
        let (fetched, scans) = sqlx::query_as(COUNTS).fetch_one(conn).await.unwrap();
        Self { fetched, scans }
    }

    fn since(&self, before: &Self) -> Self {
        Self { fetched: self.fetched - before.fetched, scans: self.scans - before.scans }
    }
}

/// Makes the rest of the transaction plan in one way.
async fn set(conn: &mut PgConnection, mode: &'static str) {
    sqlx::query("select set_config('plan_cache_mode', $1, true)")
        .bind(mode)
        .execute(conn)
        .await
        .unwrap();
}

/// Finds the parts of a plan that read a table.
fn collect_scans<'a>(plan: &'a Value, scans: &mut Vec<&'a Value>) {
    if plan.get("Relation Name").is_some() || plan.get("Index Name").is_some() {
        scans.push(plan);
    }
    for below in plan["Plans"].as_array().into_iter().flatten() {
        collect_scans(below, scans);
    }
}
