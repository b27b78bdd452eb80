//! Our tables: how they are stored, and what hangs on them.

use std::collections::BTreeMap;

use musterbeat_core::finding::Verdict;
use sqlx::Row;

use super::session::{Failure, Session};

/// Each table of ours with the storage parameters that the migrations give it.
///
/// INVARIANT: equal to what all migrations together make; a test compares the two.
const TABLES: &[(&str, &[&str])] = &[
    (
        "agent_metadata",
        &[
            "autovacuum_vacuum_scale_factor=0.02",
            "autovacuum_vacuum_threshold=1000",
            "fillfactor=80",
        ],
    ),
    ("agent_metadata_definitions", &[]),
    ("agents", &[]),
    ("build_logs", &[]),
    ("builds", &[]),
    (
        "chat_diff_statuses",
        &[
            "autovacuum_vacuum_scale_factor=0.02",
            "autovacuum_vacuum_threshold=500",
            "fillfactor=70",
        ],
    ),
    ("chat_messages", &[]),
    ("chat_queued_messages", &[]),
    ("chats", &[]),
    ("git_host_limits", &[]),
    ("model_configs", &[]),
    ("prebuild_settings", &[]),
    (
        "prebuilds",
        &[
            "autovacuum_vacuum_scale_factor=0.02",
            "autovacuum_vacuum_threshold=500",
            "fillfactor=70",
        ],
    ),
    (
        "presets",
        &[
            "autovacuum_vacuum_scale_factor=0.02",
            "autovacuum_vacuum_threshold=500",
            "fillfactor=80",
        ],
    ),
    (
        "run_heartbeats",
        &[
            "autovacuum_vacuum_scale_factor=0.02",
            "autovacuum_vacuum_threshold=1000",
            "fillfactor=50",
        ],
    ),
    (
        "runs",
        &[
            "autovacuum_vacuum_scale_factor=0.02",
            "autovacuum_vacuum_threshold=500",
            "fillfactor=70",
        ],
    ),
    ("template_versions", &[]),
    ("templates", &[]),
    ("tokens", &[]),
    ("worker_leases", &["autovacuum_vacuum_threshold=1000", "fillfactor=50"]),
    (
        "workspaces",
        &[
            "autovacuum_vacuum_scale_factor=0.02",
            "autovacuum_vacuum_threshold=500",
            "fillfactor=80",
        ],
    ),
];

pub(super) async fn storage(session: &mut Session) -> Result<Verdict, Failure> {
    Ok(judge_storage(&options(session).await?))
}

fn judge_storage(options: &BTreeMap<String, Vec<String>>) -> Verdict {
    let mut lacking = Vec::new();
    for (table, wanted) in TABLES {
        // A table that is not there is for the check of the schema.
        let Some(set) = options.get(*table) else { continue };
        let lacks = wanted.iter().filter(|parameter| !set.iter().any(|set| set == *parameter));
        let lacks: Vec<&str> = lacks.copied().collect();
        if !lacks.is_empty() {
            lacking.push((*table, lacks.join(", ")));
        }
    }
    if lacking.is_empty() {
        return Verdict::ok("Our tables have their fill factors and vacuum settings.");
    }
    let found: Vec<_> =
        lacking.iter().map(|(table, lack)| format!("{table} lacks {lack}")).collect();
    let remedy: Vec<_> =
        lacking.iter().map(|(table, lack)| format!("alter table {table} set ({lack});")).collect();
    Verdict::warning(
        format!("Updates leave their pages and tables grow: {}.", found.join("; ")),
        format!("Run `{}`; full pages stay full until `vacuum full`.", remedy.join(" ")),
    )
}

pub(super) async fn triggers(session: &mut Session) -> Result<Verdict, Failure> {
    let rows = session
        .rows(&format!(
            r"select ours.name, tgname::text as trigger
              from unnest({}) as ours (name)
              join pg_trigger on tgrelid = to_regclass(ours.name)
              join pg_proc on pg_proc.oid = tgfoid
              where not tgisinternal and tgenabled <> 'D' and prosrc ~* '\m(pg_notify|notify)\M'
              order by ours.name, tgname",
            names()
        ))
        .await?;
    let mut found = Vec::new();
    for row in rows {
        let (table, trigger): (String, String) = (row.try_get("name")?, row.try_get("trigger")?);
        found.push(format!("{trigger} on {table}"));
    }
    if found.is_empty() {
        return Ok(Verdict::ok("No trigger on our tables sends NOTIFY."));
    }
    Ok(Verdict::warning(
        format!(
            "Triggers seem to send NOTIFY inside our transactions, whose commits then wait \
             for one another: {}.",
            found.join(", ")
        ),
        "Drop these triggers, and let whoever needs to know watch what musterbeat publishes \
         after the commit.",
    ))
}

/// Returns the storage parameters of those of our tables that are there.
pub(super) async fn options(
    session: &mut Session,
) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let rows = session
        .rows(&format!(
            "select ours.name, coalesce(array_to_string(reloptions, ','), '') as options
             from unnest({}) as ours (name)
             join pg_class on pg_class.oid = to_regclass(ours.name)",
            names()
        ))
        .await?;
    let mut options = BTreeMap::new();
    for row in rows {
        let text: String = row.try_get("options")?;
        options.insert(row.try_get("name")?, text.split(',').map(str::to_owned).collect());
    }
    Ok(options)
}

/// Returns the names of our tables as an array of SQL.
fn names() -> String {
    let names: Vec<_> = TABLES.iter().map(|(table, _)| *table).collect();
    format!("'{{{}}}'::text[]", names.join(","))
}

#[cfg(test)]
mod tests {
    use musterbeat_testkit::TestDatabase;

    use super::*;

    #[tokio::test]
    async fn tables_and_parameters_are_those_of_the_migrations() {
        const MADE: &str = "
            select relname::text, coalesce(array_to_string(array(
                select unnest(reloptions) order by 1), ','), '')
            from pg_class
            where relnamespace = 'public'::regnamespace
              and relkind = 'r'
              and relname <> '_sqlx_migrations'";
        let database = TestDatabase::create().await.unwrap();
        let mut conn = database.connect().await.unwrap();
        let made: Vec<(String, String)> = sqlx::query_as(MADE).fetch_all(&mut conn).await.unwrap();
        let made: BTreeMap<_, _> = made.into_iter().collect();
        let wanted = TABLES.iter().map(|(table, wanted)| ((*table).to_owned(), wanted.join(",")));
        assert_eq!(made, wanted.collect(), "`TABLES` lists what the migrations make");
    }
}
