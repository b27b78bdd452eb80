//! The table `build_logs`.

use musterbeat_core::id::{BuildId, Fence};
use musterbeat_core::workspace::{LogLine, LogPlace};
use sqlx::PgConnection;

/// Lines that one read returns, at most.
pub const PAGE_LINES: u32 = 500;

/// Adds lines, the first of which is the `first`th of this ownership; those that are there stay.
pub async fn append(
    conn: &mut PgConnection,
    build: BuildId,
    fence: Fence,
    first: u32,
    lines: &[String],
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
            insert into build_logs (build_id, fence, line, text)
            select $1, $2, ($3::bigint + place - 1)::integer, text
            from unnest($4::text[]) with ordinality as new (text, place)
            on conflict do nothing
        "#,
        build.uuid(),
        fence.0,
        i64::from(first),
        lines,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns the first lines of a build's log after a place.
pub async fn page(
    conn: &mut PgConnection,
    build: BuildId,
    after: Option<LogPlace>,
) -> sqlx::Result<Vec<LogLine>> {
    let after = after.unwrap_or(LogPlace { fence: -1, line: 0 });
    let rows = sqlx::query!(
        r#"
            select fence, line, text
            from build_logs
            where build_id = $1 and (fence, line) > ($2, $3)
            order by fence, line
            limit $4
        "#,
        build.uuid(),
        after.fence,
        after.line,
        i64::from(PAGE_LINES),
    )
    .fetch_all(conn)
    .await?;
    let lines = rows.into_iter().map(|row| LogLine {
        place: LogPlace { fence: row.fence, line: row.line },
        text: row.text,
    });
    Ok(lines.collect())
}
