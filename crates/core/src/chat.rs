//! A chat's state and what each event does to it.
//!
//! [`decide`] is the whole state machine. Storage locks the run's row, reads the [`Facts`],
//! carries out the [`Effects`] and commits. Beside it only what moves runs of every kind moves a
//! chat's status: a claim, a release, a requeue, and the end of a run whose runner failed; the
//! [`table`] has them, too.
//!
//! Two states never exist: waiting with something queued, and archived with work going on.

mod limits;
mod machine;
mod record;
mod refused;
pub mod table;

pub use limits::{
    SUBAGENT_DEPTH_MAX, SUBAGENTS_MAX, SubagentBounds, SubagentLimits, SubagentPolicy,
};
pub use machine::{
    Effects, Event, Facts, Named, QUEUE_MAX, STOPPED_BY_ARCHIVING, WhenBusy, Write, decide,
    decide_member,
};
pub use record::{
    ANSWER_MESSAGES_MAX, Applied, Changes, Chat, ChatPatch, NewChat, Origin, Place, Report,
    TITLE_BYTES_MAX, Title,
};
pub use refused::Refused;

#[cfg(test)]
mod tests;
