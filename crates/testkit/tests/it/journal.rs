//! Every row that changes is logged, in the transaction that changes it.

use expect_test::expect;
use musterbeat_testkit::{Journal, TestDatabase};
use sqlx::{Connection, Executor};

#[tokio::test]
async fn journal_shows_rows_that_are_gone_and_none_that_was_rolled_back() {
    let database = TestDatabase::empty().await.unwrap();
    let mut conn = database.connect().await.unwrap();
    conn.execute("create table things (name text)").await.unwrap();
    let journal = Journal::keep(&database, &["things"]).await.unwrap();

    let mut tx = conn.begin().await.unwrap();
    tx.execute("insert into things values ('a')").await.unwrap();
    tx.execute("update things set name = 'b'").await.unwrap();
    tx.commit().await.unwrap();
    let mut undone = conn.begin().await.unwrap();
    undone.execute("update things set name = 'never'").await.unwrap();
    undone.rollback().await.unwrap();
    conn.execute("delete from things").await.unwrap();

    let entries = journal.read(&database).await.unwrap();
    let shown: Vec<String> =
        entries.iter().map(|entry| format!("{} {}", entry.change, entry.row)).collect();
    expect![[r#"
        INSERT {"name": "a"}
        UPDATE {"name": "b"}
        DELETE {"name": "b"}"#]]
    .assert_eq(&shown.join("\n"));
    assert_eq!(entries[0].transaction, entries[1].transaction);
    assert!(entries[1].transaction < entries[2].transaction);
    assert!(entries[0].at_micros < entries[2].at_micros);
}
