//! A PostgreSQL that is killed and started again.

use musterbeat_testkit::OwnPostgres;
use sqlx::{Connection, Executor, PgConnection};

#[tokio::test]
async fn what_was_acknowledged_outlives_a_kill() {
    let mut postgres = OwnPostgres::start().await.unwrap();
    let mut conn = PgConnection::connect(postgres.url()).await.unwrap();
    conn.execute("create table kept (number int)").await.unwrap();
    for number in 1..=3 {
        sqlx::query("insert into kept values ($1)").bind(number).execute(&mut conn).await.unwrap();
        postgres.kill().await.unwrap();
        postgres.start_again().await.unwrap();
        conn = PgConnection::connect(postgres.url()).await.unwrap();
        let kept: i64 =
            sqlx::query_scalar("select count(*) from kept").fetch_one(&mut conn).await.unwrap();
        assert_eq!(kept, number);
    }
}
