use std::time::Instant;

/// The monotonic clock of this process, for local deadlines.
///
/// Times that several replicas compare come from the database instead.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait Clock: Send + Sync {
    /// Returns the time; never earlier than an earlier answer.
    fn now(&self) -> Instant;
}
