//! What a failure of the driver means to a caller of the ports.

use musterbeat_core::port::StoreError;
use tokio::time::error::Elapsed;

/// Classifies failures of one operation, for `map_err`.
pub(crate) fn failed(operation: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| {
        let unavailable = is_passing(&source);
        let source = Box::new(source);
        if unavailable {
            StoreError::Unavailable { operation, source }
        } else {
            StoreError::Broken { operation, source }
        }
    }
}

/// Tells that the database did not answer one operation in time, for `map_err`.
pub(crate) fn silent(operation: &'static str) -> impl Fn(Elapsed) -> StoreError {
    move |silence| StoreError::Unavailable { operation, source: Box::new(silence) }
}

/// Says whether the same call may succeed later.
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(database) => database.code().is_some_and(|code| passes(&code)),
        _ => false,
    }
}

/// Classes and codes of PostgreSQL's appendix A that tell of the moment, not of the statement.
fn passes(code: &str) -> bool {
    const CLASSES: [&str; 3] = ["08", "53", "57"];
    const CODES: [&str; 4] = ["40001", "40P01", "55P03", "25P03"];
    // 25006 is a write to a standby: after a failover the same name leads to the new primary.
    CLASSES.iter().any(|class| code.starts_with(class)) || CODES.contains(&code) || code == "25006"
}

/// Says whether a statement failed since a row names another that is not there.
pub(crate) fn is_dangling(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
}

/// Says whether a statement failed since a name that must be unique is taken.
pub(crate) fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}
