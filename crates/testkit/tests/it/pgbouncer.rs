//! A pooler that does what poolers in transaction mode do.

use musterbeat_testkit::{PgBouncer, TestDatabase, eventually};
use sqlx::{Connection, PgConnection, Row};

use crate::SOON;

#[tokio::test]
async fn a_session_serves_whoever_has_a_transaction() {
    if !PgBouncer::is_here().await.unwrap() {
        return;
    }
    let database = TestDatabase::create().await.unwrap();
    let pooler = PgBouncer::in_front_of(database.url()).await.unwrap();
    let mut first = PgConnection::connect(pooler.url()).await.unwrap();
    let mut second = PgConnection::connect(pooler.url()).await.unwrap();
    let own = pid(&mut first, "select pg_backend_pid()").await;
    assert_eq!(pid(&mut second, "begin; select pg_backend_pid()").await, own);
    assert_ne!(pid(&mut first, "select pg_backend_pid()").await, own, "that one is taken");
    assert_eq!(pid(&mut second, "select pg_backend_pid(); commit").await, own);
}

#[tokio::test]
async fn a_pooler_ends_with_its_guard() {
    if !PgBouncer::is_here().await.unwrap() {
        return;
    }
    let database = TestDatabase::create().await.unwrap();
    let pooler = PgBouncer::in_front_of(database.url()).await.unwrap();
    let url = pooler.url().to_owned();
    PgConnection::connect(&url).await.unwrap();
    drop(pooler);
    eventually(SOON, "nobody answers", async || PgConnection::connect(&url).await.is_err()).await;
}

async fn pid(conn: &mut PgConnection, sql: &'static str) -> i32 {
    sqlx::raw_sql(sql).fetch_one(conn).await.unwrap().get(0)
}
