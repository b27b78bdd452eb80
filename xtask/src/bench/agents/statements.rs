//! What turns ask the database, by what it is for.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use sqlx::{PgConnection, Row};

use super::super::quiet;
use crate::postgres;

/// What stands in each statement of the benchmark itself, which does not count.
macro_rules! own {
    ($query:literal) => {
        concat!("select /* bench */ ", $query)
    };
}
pub(super) use own;

/// Whose doing a statement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doing {
    /// A turn's, or that of the chat's creation.
    Turn,
    /// One for all that happens at the same time: fewer, the more there is to do.
    Shared,
    /// What a replica sends that does nothing.
    Idle,
}

/// Statements told by words that only they have; of two that fit, the first counts.
const KINDS: [(&str, &str, Doing); 29] = [
    ("is_suspect", "claim", Doing::Shared),
    ("min(ready_at) -", "when the next run is ready, after a claim", Doing::Shared),
    ("pg_notify", "NOTIFY", Doing::Shared),
    ("from model_configs", "find a model", Doing::Shared),
    ("insert into runs", "insert a run", Doing::Turn),
    ("insert into chats", "insert a chat", Doing::Turn),
    ("with new as materialized", "append messages", Doing::Turn),
    ("recursive line as", "read the prompt", Doing::Turn),
    ("recursive chain as", "who descends from whom", Doing::Turn),
    ("jsonb_path_exists", "look how a child stands", Doing::Turn),
    ("set awaits = ", "mark a parent that waits", Doing::Turn),
    ("awaits = awaits and", "write a run", Doing::Turn),
    (", stop, worker_id, fence, step", "lock a run", Doing::Turn),
    ("jsonb_path_query", "read the facts of a chat", Doing::Turn),
    ("left join chats as root", "what a child takes from its parent", Doing::Turn),
    ("family_id = $", "count a family at work", Doing::Turn),
    ("order by created_at, chats.id", "list children", Doing::Turn),
    ("where chats.id = $1 and ($2", "read a chat", Doing::Turn),
    ("from tokens", "who calls", Doing::Turn),
    ("BEGIN", "begin", Doing::Turn),
    ("COMMIT", "commit", Doing::Turn),
    ("ROLLBACK", "roll back", Doing::Turn),
    ("LISTEN \"", "LISTEN and UNLISTEN, for those who wait", Doing::Shared),
    ("prebuild_settings", "look at pools", Doing::Idle),
    ("workspaces", "look at workspaces", Doing::Idle),
    ("from worker_leases", "look at leases", Doing::Idle),
    ("pg_catalog.pg_type", "what types there are, once a connection", Doing::Idle),
    ("pg_try_advisory_lock", "look who leads", Doing::Idle),
    ("update worker_leases", "change a lease", Doing::Idle),
];

/// What no kind knows.
const OTHER: &str = "other";

/// Says what a statement is for, and whose doing it is; what nobody knows is a turn's.
fn kind(text: &str) -> (&'static str, Doing) {
    let known = KINDS.iter().find(|(words, ..)| text.contains(words));
    match (known, quiet::kind(text)) {
        (Some((_, kind, doing)), _) => (kind, *doing),
        (None, OTHER) => (OTHER, Doing::Turn),
        (None, quiet) => (quiet, Doing::Idle),
    }
}

/// What statements cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) calls: u64,
    pub(super) rows: u64,
    /// Pages that were looked at, in memory or on disk.
    pub(super) pages: u64,
}

impl Cost {
    fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            rows: self.rows + other.rows,
            pages: self.pages + other.pages,
        }
    }

    fn minus(self, before: Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(before.calls),
            rows: self.rows.saturating_sub(before.rows),
            pages: self.pages.saturating_sub(before.pages),
        }
    }
}

/// What a database was asked, by text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Statements(BTreeMap<String, Cost>);

impl Statements {
    /// Reads the server's counts for the database of `conn`.
    pub(super) async fn read(conn: &mut PgConnection) -> Result<Self> {
        let query = own!(
            r"query, sum(calls)::bigint, sum(rows)::bigint,
                sum(shared_blks_hit + shared_blks_read)::bigint
            from pg_stat_statements
            where dbid = (select oid from pg_database where datname = current_database())
              and query not like '%/* bench */%'
              and query not like '%pg\_stat\_statements%'
            group by query"
        );
        let failed = "failed to read the server's counts of statements";
        let rows = sqlx::query(query).fetch_all(conn).await.context(failed)?;
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        let statement = |row: &sqlx::postgres::PgRow| {
            let cost = Cost {
                calls: count(row.try_get(1)?),
                rows: count(row.try_get(2)?),
                pages: count(row.try_get(3)?),
            };
            anyhow::Ok((row.try_get(0)?, cost))
        };
        rows.iter().map(statement).collect::<Result<_>>().map(Self)
    }

    /// Returns what was asked after `before` was read.
    pub(super) fn since(&self, before: &Self) -> Self {
        let cost = |text: &String| before.0.get(text).copied().unwrap_or_default();
        let since = self.0.iter().map(|(text, now)| (text.clone(), now.minus(cost(text))));
        Self(since.filter(|(_, cost)| 0 < cost.calls).collect())
    }

    /// Returns what all statements of one doing cost.
    pub(super) fn of(&self, doing: Doing) -> Cost {
        let meant = self.0.iter().filter(|(text, _)| kind(text).1 == doing);
        meant.fold(Cost::default(), |sum, (_, cost)| sum.plus(*cost))
    }

    /// Returns what each kind of statements cost, by whose doing they are.
    pub(super) fn kinds(&self) -> BTreeMap<(Doing, &'static str), Cost> {
        let mut kinds = BTreeMap::new();
        for (text, cost) in &self.0 {
            let (kind, doing) = kind(text);
            let sum: &mut Cost = kinds.entry((doing, kind)).or_default();
            *sum = sum.plus(*cost);
        }
        kinds
    }

    /// Shows the statements that no kind knows, to whoever extends the kinds.
    pub(super) fn say_unknown(&self) {
        for text in self.unknown() {
            postgres::say(&format!("a statement of no known kind:\n{text}"));
        }
    }

    fn unknown(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).filter(|text| kind(text).0 == OTHER).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Statements {
        /// Makes up so many statements of turns.
        pub(in super::super) fn of_turns(calls: u64) -> Self {
            Self([("COMMIT".to_owned(), Cost { calls, ..Cost::default() })].into())
        }
    }

    #[test]
    fn statements_are_counted_by_what_they_are_for() {
        let cost = |calls| Cost { calls, rows: 2 * calls, pages: 3 * calls };
        let statements = |claims, begins| {
            let texts = [("update runs is_suspect", claims), ("BEGIN", begins), ("select 7", 1)];
            Statements(texts.map(|(text, calls)| (text.to_owned(), cost(calls))).into())
        };
        let since = statements(5, 9).since(&statements(2, 9));
        assert_eq!(since.of(Doing::Shared), cost(3));
        assert_eq!(since.of(Doing::Turn), Cost::default());
        assert_eq!(since.kinds(), BTreeMap::from([((Doing::Shared, "claim"), cost(3))]));
        assert_eq!(statements(1, 1).unknown(), ["select 7"]);
        assert_eq!(statements(1, 1).of(Doing::Turn), cost(2));
    }
}
