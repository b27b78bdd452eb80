//! Examines whether notifications come through, and what they cost.
//!
//! Nothing is written, but for one notification on a channel that nobody else knows.
//! Each question has a connection of its own and a deadline, so that a check that cannot be made
//! is a finding of its own and stops no other.

mod listeners;
mod question;
pub(crate) mod queue;
mod round_trip;

use std::str::FromStr;
use std::time::Duration;

use musterbeat_core::finding::{Finding, Verdict};
use sqlx::postgres::PgConnectOptions;

use question::Failure;

/// What is still well, and how long the database may take to answer.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest wait for one connection or one answer.
    pub answer_time: Duration,
    /// Longest way of a notification, from one session to another.
    pub round_trip_max: Duration,
    /// Part of the queue in use, from 0 to 1, from which it is a warning.
    pub queue_usage_warning: f64,
    /// The same from which it is an error.
    pub queue_usage_error: f64,
    /// Longest pause inside a transaction, in which a session takes no notification.
    pub idle_in_transaction_max: Duration,
    /// Time between two looks; a session that sends to a deaf client both times is stuck.
    pub stuck_time: Duration,
    /// Sessions that listen, at most: up to PostgreSQL 18 each NOTIFY wakes all of them.
    pub listeners_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answer_time: Duration::from_secs(5),
            round_trip_max: Duration::from_secs(2),
            // At half PostgreSQL itself begins to warn; when the queue is full, commits fail.
            queue_usage_warning: 0.1,
            queue_usage_error: 0.5,
            idle_in_transaction_max: Duration::from_mins(1),
            stuck_time: Duration::from_millis(500),
            // About 300 notifications a second were measured with so many.
            listeners_max: 100,
        }
    }
}

/// Examines the database at `url` and returns one finding a check, in a fixed order.
pub async fn examine(url: &str, limits: &Limits) -> Vec<Finding> {
    let options = PgConnectOptions::from_str(url).map(|options| {
        // A pooler may refuse settings that it does not know.
        options.application_name(question::APPLICATION_NAME).extra_float_digits(None)
    });
    let options = match options {
        Ok(options) => options,
        Err(error) => return vec![finding("notify", Err(Failure::Database(error)))],
    };
    vec![
        finding("notify", round_trip::examine(&options, limits).await),
        finding("notify-queue", queue::usage(&options, limits).await),
        finding("pinned-queue", queue::pinned(&options, limits).await),
        finding("listeners", listeners::examine(&options, limits).await),
    ]
}

fn finding(check: &'static str, made: Result<Verdict, Failure>) -> Finding {
    let unmade = |failure: Failure| {
        let found = format!("This could not be examined: {failure}.");
        Verdict::warning(found, failure.remedy())
    };
    Finding { check, verdict: made.unwrap_or_else(unmade) }
}
