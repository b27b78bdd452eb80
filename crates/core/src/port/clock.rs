use crate::lease::Moment;

/// The clock of this process, for local deadlines.
///
/// It counts time in which the machine was suspended, where there is one that does.
/// Times that several replicas compare come from the database instead.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait Clock: Send + Sync {
    /// Returns the time; never earlier than an earlier answer.
    fn now(&self) -> Moment;
}
