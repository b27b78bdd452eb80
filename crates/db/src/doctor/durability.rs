//! What a crash may cost.

use musterbeat_core::finding::Verdict;
use sqlx::Row;

use super::session::{Failure, Session};

pub(super) async fn fsync(session: &mut Session) -> Result<Verdict, Failure> {
    Ok(if setting(session, "fsync").await? == "off" {
        Verdict::error(
            "fsync is off: a crash of the database's machine may destroy the database.",
            "Set `fsync = on` and reload.",
        )
    } else {
        Verdict::ok("fsync is on.")
    })
}

pub(super) async fn full_page_writes(session: &mut Session) -> Result<Verdict, Failure> {
    Ok(if setting(session, "full_page_writes").await? == "off" {
        Verdict::warning(
            "full_page_writes is off: a crash in the middle of a page's write may destroy it.",
            "Set `full_page_writes = on` and reload, unless the file system never tears a page.",
        )
    } else {
        Verdict::ok("full_page_writes is on.")
    })
}

/// As our role gets it in our database; beats switch it off for themselves.
pub(super) async fn synchronous_commit(session: &mut Session) -> Result<Verdict, Failure> {
    Ok(match setting(session, "synchronous_commit").await?.as_str() {
        "off" => Verdict::warning(
            "synchronous_commit is off: writes that were acknowledged may be lost in a crash.",
            "Run `alter role … set synchronous_commit = on`, or the same for the database or \
             the server; beats already do without it.",
        ),
        word => Verdict::ok(format!("synchronous_commit is {word}.")),
    })
}

async fn setting(session: &mut Session, name: &str) -> Result<String, Failure> {
    let row = session.row(&format!("select current_setting('{name}') as value")).await?;
    Ok(row.try_get("value")?)
}
