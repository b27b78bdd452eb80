//! Examines a database and says what is wrong with it, and what to do.
//!
//! Nothing is written. Each check is one or two statements of the simple protocol, in a read-only
//! transaction with a deadline, so that a check works through any pooler, and one that cannot be
//! made is a finding of its own and stops no other.

mod connections;
mod durability;
mod schema;
mod server;
mod session;
mod tables;
mod vacuum;

use std::time::Duration;

use musterbeat_core::finding::Finding;

use crate::pool::{ConnectError, session_options};
use session::Session;

/// What is still well, and how long the database may take to answer.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest wait for one connection or one answer.
    pub answer_time: Duration,
    /// Difference between the clocks of this machine and the database from which it is a warning.
    pub clock_skew_warning: Duration,
    /// The same from which it is an error.
    pub clock_skew_error: Duration,
    /// Age of a transaction from which vacuum suffers.
    pub transaction_age_max: Duration,
    /// Transactions begun since, from which vacuum suffers whatever their time.
    pub transaction_xids_max: u32,
    /// Connections that one replica opens.
    pub connections_per_replica: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answer_time: Duration::from_secs(5),
            clock_skew_warning: Duration::from_secs(1),
            clock_skew_error: Duration::from_secs(10),
            // No statement of ours takes longer than 30 s: older ones are somebody's mistake.
            transaction_age_max: Duration::from_mins(5),
            transaction_xids_max: 10_000_000,
            connections_per_replica: 14,
        }
    }
}

/// What was examined, and what was found.
#[derive(Clone, Debug)]
pub struct Examination {
    /// Host, port and name of the database.
    pub place: String,
    /// One finding a check, in a fixed order.
    pub findings: Vec<Finding>,
}

/// Examines the database at `url`.
///
/// # Errors
/// When no connection can be made, or the URL may not be used.
pub async fn examine(url: &str, limits: &Limits) -> Result<Examination, ConnectError> {
    let options = session_options(url)?
        .application_name("musterbeat doctor")
        // A pooler may refuse what it does not know.
        .extra_float_digits(None);
    let name = options.get_database().unwrap_or(options.get_username());
    let place = format!("{}:{}/{name}", options.get_host(), options.get_port());
    let mut session = Session::connect(options, limits.answer_time).await?;
    let findings = vec![
        session.check("server-version", server::version).await,
        session.check("standby", server::standby).await,
        session.check("encoding", server::encoding).await,
        session.check("clock-skew", async |session| server::clock(session, limits).await).await,
        session.check("fsync", durability::fsync).await,
        session.check("full-page-writes", durability::full_page_writes).await,
        session.check("synchronous-commit", durability::synchronous_commit).await,
        session.check("schema-version", schema::version).await,
        session.check("storage-parameters", tables::storage).await,
        session.check("autovacuum", vacuum::autovacuum).await,
        session.check("held-xmin", async |session| vacuum::held(session, limits).await).await,
        session.check("notifying-triggers", tables::triggers).await,
        session
            .check("connections", async |session| connections::needed(session, limits).await)
            .await,
        session.check("visibility", connections::visibility).await,
    ];
    Ok(Examination { place, findings })
}
