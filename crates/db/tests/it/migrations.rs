//! The schema: built by many at once, kept by code of another release.

use musterbeat_db::migrate;
use sqlx::Row;

use crate::setup::Fixture;

#[tokio::test]
async fn replicas_that_start_together_migrate_once() {
    let fixture = Fixture::new().await;
    sqlx::raw_sql("drop schema public cascade; create schema public")
        .execute(&fixture.pool)
        .await
        .unwrap();
    let starts = (0..4).map(|_| migrate(&fixture.pool));
    for started in futures_util::future::join_all(starts).await {
        started.unwrap();
    }
    let applied =
        sqlx::query("select count(*) from _sqlx_migrations").fetch_one(&fixture.pool).await;
    let count = i64::try_from(musterbeat_db::MIGRATOR.iter().count()).unwrap();
    assert_eq!(applied.unwrap().get::<i64, _>(0), count);
}

#[tokio::test]
async fn release_before_starts_on_the_schema_of_the_next() {
    let fixture = Fixture::new().await;
    migrate(&fixture.pool).await.unwrap();
    sqlx::query(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (99991231235959, 'of the next release', true, ''::bytea, 0)",
    )
    .execute(&fixture.pool)
    .await
    .unwrap();
    migrate(&fixture.pool).await.unwrap();
}
