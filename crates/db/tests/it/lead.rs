//! Who supplies the pools, and what a look at all of them takes.

use std::cell::Cell;
use std::sync::Once;
use std::time::Duration;

use musterbeat_core::port::PrebuildLead;
use musterbeat_db::PgPrebuildLead;
use musterbeat_testkit::eventually;
use tracing::span;

use crate::setup::{Fixture, PATIENCE};

const HOUR: Duration = Duration::from_hours(1);

fn lead(fixture: &Fixture) -> PgPrebuildLead {
    PgPrebuildLead::new(fixture.url(), HOUR).unwrap()
}

async fn leads(lead: &PgPrebuildLead) -> bool {
    lead.snapshot(HOUR).await.unwrap().is_some()
}

#[tokio::test]
async fn one_leads_until_it_resigns() {
    let fixture = Fixture::new().await;
    let (one, other) = (lead(&fixture), lead(&fixture));
    assert!(leads(&one).await && leads(&one).await);
    assert!(!leads(&other).await && !leads(&other).await);
    one.resign().await;
    one.resign().await;
    eventually(PATIENCE, "the other leads", async || leads(&other).await).await;
    assert!(!leads(&one).await);
    other.resign().await;
    eventually(PATIENCE, "it leads again", async || leads(&one).await).await;
}

#[tokio::test]
async fn leader_whose_connection_ends_leads_no_longer() {
    let fixture = Fixture::new().await;
    let (one, other) = (lead(&fixture), lead(&fixture));
    assert!(leads(&one).await && !leads(&other).await);
    let end = "select count(pg_terminate_backend(pid)) from pg_locks
        where locktype = 'advisory' and granted
          and database = (select oid from pg_database where datname = current_database())";
    assert_eq!(fixture.number(end).await, 1);
    eventually(PATIENCE, "the other leads", async || leads(&other).await).await;
    assert!(one.snapshot(HOUR).await.is_err(), "it learns that it does not");
    assert!(!leads(&one).await, "it follows from then on");
    other.resign().await;
    eventually(PATIENCE, "it leads again", async || leads(&one).await).await;
}

/// A call that is given up may be anywhere: its connection is not used again, and gives the lead
/// back.
#[tokio::test]
async fn look_that_is_given_up_gives_the_lead_up() {
    let fixture = Fixture::new().await;
    let (one, other) = (lead(&fixture), lead(&fixture));
    assert!(leads(&one).await);
    let mut holder = fixture.pool.begin().await.unwrap();
    sqlx::query("lock table presets in access exclusive mode").execute(&mut *holder).await.unwrap();
    tokio::select! {
        _ = one.snapshot(HOUR) => panic!("the table is locked"),
        () = fixture.somebody_waits_for_a_lock() => {}
    }
    holder.rollback().await.unwrap();
    eventually(PATIENCE, "the other leads", async || leads(&other).await).await;
    assert!(!leads(&one).await);
}

thread_local! {
    static SENT: Cell<u32> = const { Cell::new(0) };
}

/// Counts the statements that each thread sends.
struct Statements;

impl Statements {
    /// Counts for the whole process: what one thread listens to, others would have it forget.
    fn count() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            tracing::subscriber::set_global_default(Self).unwrap();
            tracing::callsite::rebuild_interest_cache();
        });
        SENT.set(0);
    }
}

impl tracing::Subscriber for Statements {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        SENT.set(SENT.get() + 1);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn look_at_five_thousand_inactive_presets_is_one_statement_and_shows_none() {
    let fixture = Fixture::new().await;
    fixture.template(1, 1).await;
    fixture
        .sql(
            "insert into presets (id, template_version_id, name, desired_instances)
             select gen_random_uuid(), active_version_id, 'preset x' || number, 3
             from templates, generate_series(1, 5000) as number;
             update templates set deprecated = true",
        )
        .await;
    let lead = lead(&fixture);
    assert!(leads(&lead).await);
    Statements::count();
    let snapshot = lead.snapshot(HOUR).await.unwrap().unwrap();
    assert_eq!(SENT.get(), 1);
    assert_eq!((snapshot.presets_total, snapshot.pools.len()), (5_001, 0));
}

/// 1,000 presets with 10 ready prebuilds each, among 50,000 workspaces.
/// As a replica, the server checks no reference: that would take most of the time.
const FILL: &str = "
    set session_replication_role = replica;
    create function made(what bigint, number bigint) returns uuid language sql immutable as
        $$ select md5(what || ' ' || number)::uuid $$;
    insert into templates (id, name, active_version_id)
    select made(1, number), 'template ' || number, made(2, number)
    from generate_series(1::bigint, 200) as number;
    insert into template_versions (id, template_id, name, source)
    select made(2, number), made(1, number), 'one', 'rust'
    from generate_series(1::bigint, 200) as number;
    insert into presets (id, template_version_id, name, desired_instances, ttl_s)
    select made(3, number), made(2, 1 + number % 200), 'preset ' || number, 10, 86400
    from generate_series(1::bigint, 1000) as number;
    insert into workspaces (id, owner_id, template_version_id, preset_id, name, build_id)
    select made(4, number), case when number % 5 > 0 then made(5, number % 1000) end,
           made(2, 1 + number % 200), made(3, 1 + number / 5 % 1000), 'workspace ' || number,
           made(6, number)
    from generate_series(1::bigint, 50000) as number;
    insert into runs (run_id, kind, status, owner_id)
    select made(6, number), 'build', 'waiting', made(5, number % 1000)
    from generate_series(1::bigint, 50000) as number;
    insert into builds (id, workspace_id, transition, ended_at)
    select made(6, number), made(4, number), 'start', now()
    from generate_series(1::bigint, 50000) as number;
    insert into prebuilds (workspace_id, preset_id, status, build_id, created_at)
    select made(4, number), made(3, 1 + number / 5 % 1000), 'ready', made(6, number),
           now() - number % 1000 * interval '1 minute'
    from generate_series(5::bigint, 50000, 5) as number
    order by md5(number::text);
    vacuum analyze;";

/// Measures the server's times of 20 looks.
async fn times(fixture: &Fixture, lead: &PgPrebuildLead) -> String {
    let spent = "select coalesce(sum(total_exec_time), 0)::float8 from pg_stat_statements as calls
        join pg_database on oid = dbid and datname = current_database()
        where query like '%prebuild_settings as settings%' and query not like '%calls%'";
    let spent =
        async || sqlx::query_scalar::<_, f64>(spent).fetch_one(&fixture.pool).await.unwrap();
    let mut times = Vec::new();
    for _ in 0..20 {
        let before = spent().await;
        let snapshot = lead.snapshot(HOUR).await.unwrap().unwrap();
        assert_eq!(snapshot.pools.len(), 1_000);
        assert!(snapshot.pools.iter().all(|pool| pool.preset.running == 10));
        times.push(spent().await - before);
    }
    times.sort_by(f64::total_cmp);
    format!("{:.1} ms, the shortest of 20 {:.1} ms", times[10], times[0])
}

#[tokio::test]
#[ignore = "measures: run it alone, on a server with pg_stat_statements"]
async fn snapshot_cost() {
    let fixture = Fixture::new().await;
    fixture.sql("create extension if not exists pg_stat_statements").await;
    for statement in FILL.split_inclusive(";\n").collect::<String>().split(";\n    vacuum") {
        let vacuum = if statement.starts_with(" analyze") { "vacuum" } else { "" };
        fixture.sql(&format!("{vacuum}{statement}")).await;
    }
    let lead = lead(&fixture);
    println!("after vacuum: median {}", times(&fixture, &lead).await);
    // Rows as they are after a wave of builds that no vacuum followed yet.
    fixture
        .sql(
            "alter table prebuilds set (autovacuum_enabled = off);
             update prebuilds set status = 'deleting' where get_byte(uuid_send(workspace_id), 0) < 128;
             update prebuilds set status = 'ready' where status = 'deleting'",
        )
        .await;
    println!("half of the rows updated: median {}", times(&fixture, &lead).await);
}
