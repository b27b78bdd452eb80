//! What a database was asked, by the text of its statements.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};
use sqlx::{PgConnection, Row};

/// How often each statement was sent, by its text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Calls(BTreeMap<String, i64>);

/// Says what a statement is for, by words that only it has; constants are numbered parameters.
pub(super) type Kind = fn(&str) -> &'static str;

/// Has the server count its statements.
pub(super) async fn count(conn: &mut PgConnection) -> Result<()> {
    sqlx::query("create extension if not exists pg_stat_statements")
        .execute(conn)
        .await
        .context("the server cannot count statements: install PostgreSQL's contributed modules")?;
    Ok(())
}

impl Calls {
    /// Reads the counts of the database of `conn`, but for this very statement.
    pub(super) async fn read(conn: &mut PgConnection) -> Result<Self> {
        let query = r"
            select query, sum(calls)::bigint
            from pg_stat_statements
            where dbid = (select oid from pg_database where datname = current_database())
              and query not like '%pg\_stat\_statements%'
            group by query";
        let failed = "failed to read the server's counts of statements";
        let rows = sqlx::query(query).fetch_all(conn).await.context(failed)?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Returns what was sent after `before` was read.
    pub(super) fn since(mut self, before: &Self) -> Self {
        for (text, calls) in &mut self.0 {
            *calls -= before.0.get(text).copied().unwrap_or(0);
        }
        self.0.retain(|_, calls| 0 < *calls);
        self
    }

    /// Returns how many statements were sent whose text is meant.
    pub(super) fn sum(&self, is_meant: impl Fn(&str) -> bool) -> i64 {
        self.0.iter().filter(|(text, _)| is_meant(text)).map(|(_, calls)| calls).sum()
    }

    /// Returns each statement with its count, the most frequent first.
    fn sorted(&self) -> Vec<(&str, i64)> {
        let mut all: Vec<_> = self.0.iter().map(|(text, calls)| (&**text, *calls)).collect();
        all.sort_by_key(|(_, calls)| -calls);
        all
    }

    /// Returns each statement, what it is for, and how often it was sent within `seconds`.
    pub(super) fn table(&self, seconds: f64, kind: Kind) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["what it is", "a second", "in all", "statement"]);
        for (text, calls) in self.sorted() {
            let rate = format!("{:.3}", per_second(calls, seconds));
            table.add_row([kind(text).to_owned(), rate, calls.to_string(), short(text)]);
        }
        for column in table.column_iter_mut().skip(1).take(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// Returns the same for a program.
    pub(super) fn json(&self, seconds: f64, kind: Kind) -> Value {
        let statement = |(text, calls): (&str, i64)| {
            let rate = per_second(calls, seconds);
            json!({ "kind": kind(text), "calls": calls, "per_second": rate, "text": short(text) })
        };
        self.sorted().into_iter().map(statement).collect()
    }
}

impl<const N: usize> From<[(&str, i64); N]> for Calls {
    fn from(calls: [(&str, i64); N]) -> Self {
        Self(calls.map(|(text, calls)| (text.to_owned(), calls)).into())
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of minutes are far below 2^52")]
pub(super) fn per_second(calls: i64, seconds: f64) -> f64 {
    calls as f64 / seconds
}

/// Returns the beginning of a statement, on one line.
fn short(text: &str) -> String {
    const CHARACTERS: usize = 60;
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_before_does_not_count() {
        let before = Calls::from([("a", 2), ("b", 5)]);
        let after = Calls::from([("a", 7), ("b", 5), ("c", 1)]);
        assert_eq!(after.since(&before), Calls::from([("a", 5), ("c", 1)]));
    }

    #[test]
    fn most_frequent_statement_comes_first() {
        let calls = Calls::from([("a", 2), ("set x to\n  y", 600)]);
        let text = calls.table(60.0, |_| "other").to_string();
        let place = |word: &str| text.find(word).unwrap_or_else(|| panic!("no {word} in\n{text}"));
        assert!(place("set x to y") < place("0.033"));
        assert!(place("10.000") < place("set x to y"));
    }
}
