use futures_util::future::try_join_all;
use musterbeat_testkit::{TestDatabase, eventually};
use sqlx::SqlSafeStr;
use sqlx::migrate::MigrationType;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

const JARS: &str = "create table jars (label text); insert into jars values ('figs'), ('figs')";
const INDEX: &str = "create index concurrently if not exists jars_labels on jars (label)";

const WAITING: &str = "
    select query from pg_stat_activity
    where datname = current_database() and wait_event = 'virtualxid'";
const CANCEL: &str = "
    select pg_cancel_backend(pid) from pg_stat_activity
    where datname = current_database() and wait_event = 'virtualxid'";

#[tokio::test]
async fn index_that_was_broken_off_is_built_anew() {
    let database = TestDatabase::empty().await.unwrap();
    let pool = database.pool().await.unwrap();
    migrate_by(&files(&[JARS]), &pool).await.unwrap();
    database.execute("create unique index concurrently others on jars (label)").await.unwrap_err();
    let mut writer = pool.begin().await.unwrap();
    sqlx::query("insert into jars values ('plums')").execute(&mut *writer).await.unwrap();

    let both = files(&[JARS, INDEX]);
    let (broken_off, ()) = tokio::join!(migrate_by(&both, &pool), async {
        wait_until_one_waits(&database).await;
        database.execute(CANCEL).await.unwrap();
    });
    broken_off.unwrap_err();
    assert_eq!(indexes(&database).await, ["jars_labels: invalid", "others: invalid"]);

    // Replicas that start together, the first of which waits for the same transaction.
    let (started, ()) =
        tokio::join!(try_join_all((0..4).map(|_| migrate_by(&both, &pool))), async {
            wait_until_one_waits(&database).await;
            writer.commit().await.unwrap();
        });
    started.unwrap();
    assert_eq!(indexes(&database).await, ["jars_labels: valid", "others: invalid"]);
}

#[tokio::test]
async fn index_that_was_built_and_not_recorded_is_kept() {
    let database = TestDatabase::empty().await.unwrap();
    let pool = database.pool().await.unwrap();
    migrate_by(&files(&[JARS]), &pool).await.unwrap();
    database.execute(INDEX).await.unwrap();
    let built = database.number("select 'jars_labels'::regclass::bigint").await.unwrap();
    migrate_by(&files(&[JARS, INDEX]), &pool).await.unwrap();
    let kept = database.number("select 'jars_labels'::regclass::bigint").await.unwrap();
    assert_eq!(kept, built);
}

#[tokio::test]
async fn index_that_is_built_concurrently_waits_longest_for_locks() {
    const NOTE: &str = "insert into waits select current_setting('lock_timeout') as timeout";
    let mut migrator = files(&["create table waits (timeout text)", NOTE, NOTE, NOTE]);
    migrator.migrations.to_mut()[2].no_tx = true;
    let database = TestDatabase::empty().await.unwrap();
    let pool = database.pool().await.unwrap();
    migrate_by(&migrator, &pool).await.unwrap();
    let waits = database.texts("select timeout from waits order by ctid").await.unwrap();
    assert_eq!(waits, [LOCK_TIMEOUT, LOCK_TIMEOUT_CONCURRENTLY, LOCK_TIMEOUT]);
}

/// Returns migrations of these files, of which `INDEX` has no transaction.
fn files(files: &[&'static str]) -> Migrator {
    let migrations = (1..).zip(files).map(|(version, file)| {
        let no_tx = *file == INDEX;
        Migration::new(version, "".into(), MigrationType::Simple, file.into_sql_str(), no_tx)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.set_ignore_missing(true).set_locking(false);
    migrator
}

async fn wait_until_one_waits(database: &TestDatabase) {
    eventually(PATIENCE, "a replica waits for the transaction of others", async || {
        database.texts(WAITING).await.unwrap().len() == 1
    })
    .await;
}

async fn indexes(database: &TestDatabase) -> Vec<String> {
    const INDEXES: &str = "
        select relname || case when indisvalid then ': valid' else ': invalid' end
        from pg_index join pg_class on pg_class.oid = indexrelid
        where indrelid = 'jars'::regclass order by relname";
    database.texts(INDEXES).await.unwrap()
}
