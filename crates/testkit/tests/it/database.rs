//! A database of its own for each test.

use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use musterbeat_testkit::{Provider, Settings, TestDatabase, TestServer, eventually};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::task::JoinSet;

use crate::SOON;

#[tokio::test]
async fn two_databases_share_no_table() {
    let (one, two) = (create().await, create().await);
    let (mut in_one, mut in_two) = (one.connect().await.unwrap(), two.connect().await.unwrap());

    for (conn, number) in [(&mut in_one, 1), (&mut in_two, 2)] {
        conn.execute("create table only_here (number int)").await.unwrap();
        sqlx::query("insert into only_here values ($1)").bind(number).execute(conn).await.unwrap();
    }

    let numbers = "select array_agg(number) from only_here";
    let numbers_in_one: Vec<i32> =
        sqlx::query_scalar(numbers).fetch_one(&mut in_one).await.unwrap();
    assert_eq!(numbers_in_one, [1]);
}

#[tokio::test]
async fn a_database_has_all_migrations_and_an_empty_one_none() {
    let (migrated, empty) = (create().await, TestDatabase::empty().await.unwrap());
    let applied = "select coalesce(to_regclass('_sqlx_migrations')::text, 'none')";
    for (database, expected) in [(&migrated, "_sqlx_migrations"), (&empty, "none")] {
        let pool = database.pool().await.unwrap();
        let found: String = sqlx::query_scalar(applied).fetch_one(&pool).await.unwrap();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn the_end_of_a_test_drops_its_database_under_open_connections() {
    let database = create().await;
    let name = database.name().to_owned();
    let _open = database.pool().await.unwrap();
    drop(database);
    assert!(!exists(&name).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tests_at_once_get_a_database_each() {
    let mut tests = JoinSet::new();
    for _ in 0..16 {
        tests.spawn(create());
    }
    let databases = tests.join_all().await;
    for database in &databases {
        let mut conn = database.connect().await.unwrap();
        let name: String =
            sqlx::query_scalar("select current_database()").fetch_one(&mut conn).await.unwrap();
        assert_eq!(name, database.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_race_build_one_template_and_remove_what_was_left() {
    let server = own_server().await;
    let mut conn = PgConnection::connect(server.url()).await.unwrap();
    conn.execute("create database mb_partial_0").await.unwrap();

    let mut racers = JoinSet::new();
    for _ in 0..8 {
        let url = server.url().to_owned();
        racers.spawn(async move { TestDatabase::create_on(&url).await });
    }
    for raced in racers.join_all().await {
        raced.unwrap();
    }

    let left: Vec<String> = sqlx::query_scalar(
        r"select regexp_replace(datname, '_[0-9a-f]+$', '') from pg_database
          where datname ~ '^mb_'",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    assert_eq!(left, ["mb_template"]);
    conn.close().await.unwrap();
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_killed_tests_left_goes_with_a_new_template_unless_it_is_young_or_in_use() {
    let server = own_server().await;
    let mut conn = PgConnection::connect(server.url()).await.unwrap();
    let young = format!("mb_test_{}_1_0_young", unix_seconds());
    for name in ["mb_test_1_1_0_old", "mb_test_1_1_0_used", &young, "mb_test_of_a_human"] {
        conn.execute(AssertSqlSafe(format!("create database {name}"))).await.unwrap();
    }
    let used = PgConnectOptions::from_str(server.url()).unwrap().database("mb_test_1_1_0_used");
    let user = PgConnection::connect_with(&used).await.unwrap();

    drop(TestDatabase::create_on(server.url()).await.unwrap());

    let left: Vec<String> = sqlx::query_scalar(
        r#"select datname::text from pg_database
           where datname ~ '^mb_test_' order by datname collate "C""#,
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    assert_eq!(left, [&young, "mb_test_1_1_0_used", "mb_test_of_a_human"]);
    user.close().await.unwrap();
    conn.close().await.unwrap();
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_url_may_name_a_database_or_none() {
    let url = TestServer::shared().await.unwrap().url();
    let (before, query) = url.split_once('?').unwrap();
    let (bare, _) = before.rsplit_once('/').unwrap();
    for server in [url, &format!("{bare}?{query}")] {
        let database = TestDatabase::create_on(server).await.unwrap();
        database.connect().await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_was_stopped_answers_no_more() {
    let server = own_server().await;
    let url = server.url().to_owned();
    server.stop().await.unwrap();
    eventually(SOON, "a server that is gone", async || PgConnection::connect(&url).await.is_err())
        .await;
}

/// Starts a server that nobody shares, even if one is given to all tests.
async fn own_server() -> TestServer {
    let mut settings = Settings::from_env().unwrap();
    settings.url = None;
    settings.provider = settings.provider.filter(|provider| *provider != Provider::Url);
    TestServer::start_with(settings).await.unwrap()
}

async fn create() -> TestDatabase {
    TestDatabase::create().await.unwrap()
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

async fn exists(name: &str) -> bool {
    let mut conn = PgConnection::connect(TestServer::shared().await.unwrap().url()).await.unwrap();
    sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(name)
        .fetch_one(&mut conn)
        .await
        .unwrap()
}
