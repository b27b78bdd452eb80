//! What happened in a database, row by row, whoever did it.

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, PgConnection, query, query_as};

use crate::TestDatabase;

/// The log, and what writes it: in the transaction that it tells of, so both are there or neither.
const KEEP: [&str; 2] = [
    "create table journal (
        place bigserial primary key,
        transaction bigint not null default pg_current_xact_id()::text::bigint,
        at timestamptz not null default clock_timestamp(),
        relation text not null,
        change text not null,
        row_after text not null
    )",
    "create function journal_row() returns trigger language plpgsql as $$
    begin
        insert into journal (relation, change, row_after) values (
            tg_table_name,
            tg_op,
            case tg_op when 'DELETE' then to_jsonb(old) else to_jsonb(new) end::text
        );
        return null;
    end
    $$",
];

/// A log of every row that changes in some tables of a test's database.
///
/// It shows each state in between, where the tables only show the last one.
#[derive(Debug)]
pub struct Journal(());

/// One row that changed.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Entry {
    /// Which transaction changed it.
    pub transaction: i64,
    /// When, on the database's clock, in microseconds since 1970.
    pub at_micros: i64,
    /// Which table it is of.
    pub relation: String,
    /// `INSERT`, `UPDATE` or `DELETE`.
    pub change: String,
    /// The row as it is afterwards, or as it was when it is gone, as JSON.
    pub row: String,
}

impl Journal {
    /// Begins to log the rows of `tables`.
    pub async fn keep(database: &TestDatabase, tables: &[&str]) -> Result<Self> {
        let mut conn = database.connect().await?;
        for statement in KEEP {
            execute(&mut conn, statement.to_owned()).await?;
        }
        for table in tables {
            let trigger = format!(
                "create trigger journal after insert or update or delete on {table}
                 for each row execute function journal_row()"
            );
            execute(&mut conn, trigger).await?;
        }
        Ok(Self(()))
    }

    /// Returns what was logged; the changes of one row are in their order.
    pub async fn read(&self, database: &TestDatabase) -> Result<Vec<Entry>> {
        let mut conn = database.connect().await?;
        query_as(
            "select transaction, (extract(epoch from at) * 1000000)::bigint as at_micros,
                    relation, change, row_after as row
             from journal
             order by place",
        )
        .fetch_all(&mut conn)
        .await
        .context("failed to read the journal: is the server up?")
    }
}

async fn execute(conn: &mut PgConnection, statement: String) -> Result<()> {
    let failed = || format!("`{statement}` failed: is the schema of the database another?");
    query(AssertSqlSafe(statement.clone())).execute(conn).await.with_context(failed)?;
    Ok(())
}
