//! What a worker owns: a run, of any kind.
//!
//! A chat is one kind of run; nothing here knows chats.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{Fence, OwnerId, RunId, Step, Version, WorkerId};
use crate::invalid::Invalid;

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Nothing to do until somebody asks.
    Waiting,
    /// Ready for a worker to claim it.
    Pending,
    /// Owned by a worker that works on it.
    Running,
    /// Owned by a worker that was asked to stop it.
    Interrupting,
    /// Ended by an error; a user decides how it goes on.
    Error,
}

impl RunStatus {
    /// Every status, in the order of a run's life.
    pub const ALL: [Self; 5] =
        [Self::Waiting, Self::Pending, Self::Running, Self::Interrupting, Self::Error];

    /// Says whether a worker owns a run of this status.
    pub const fn is_owned(self) -> bool {
        matches!(self, Self::Running | Self::Interrupting)
    }

    /// Says whether there is nothing to do until somebody asks.
    pub const fn is_at_rest(self) -> bool {
        matches!(self, Self::Waiting | Self::Error)
    }

    /// Returns the word that storage and the wire use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Interrupting => "interrupting",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What sort of work a run is; each kind has its own [`Runner`](crate::port::Runner).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunKind(Cow<'static, str>);

impl RunKind {
    /// The kind of chats.
    pub const CHAT: Self = Self(Cow::Borrowed("chat"));

    /// The kind of builds of workspaces.
    pub const BUILD: Self = Self(Cow::Borrowed("build"));

    /// Longest name of a kind, in bytes.
    pub const BYTES_MAX: usize = 64;

    /// Takes a name of lower-case letters, digits, `-` and `_`.
    ///
    /// # Errors
    /// Says what is wrong with the name.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Result<Self, Invalid> {
        let name = name.into();
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        if name.is_empty() || name.len() > Self::BYTES_MAX || !name.bytes().all(allowed) {
            let reason = format!("is not 1 to {} of a-z, 0-9, - and _: {name:?}", Self::BYTES_MAX);
            return Err(Invalid::new("kind", reason));
        }
        Ok(Self(name))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names an owner of a run and the write that it is about to make.
///
/// A write under an old `fence` is refused, so a worker that lost a run changes nothing.
/// Only the owner's writes increase `step`: a write that names a step already taken was
/// applied before, and its answer was lost; it may be sent again without harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Who writes.
    pub worker: WorkerId,
    /// Under which ownership.
    pub fence: Fence,
    /// Which write of that ownership.
    pub step: Step,
}

impl Token {
    /// Returns the token of the owner's next write.
    #[must_use]
    pub const fn next(self) -> Self {
        Self { step: self.step.next(), ..self }
    }
}

/// Who owns a run, as storage knows it, read under the lock of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// The owner; `None` exactly when the run's status is not an owned one.
    pub worker: Option<WorkerId>,
    /// How often the run changed hands.
    pub fence: Fence,
    /// How often its owners wrote.
    pub step: Step,
}

/// What storage does with an owner's write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It goes ahead.
    Write,
    /// It went ahead before and its answer was lost: nothing changes.
    Repeated,
    /// The writer does not own the run: nothing changes.
    Fenced,
}

impl Ownership {
    /// Says what to do with the write that `token` names.
    ///
    /// A fence is given out once, so a step one ahead under the writer's fence can only be
    /// the writer's own, even when that very write gave the run up.
    pub fn admit(&self, token: &Token) -> Admission {
        if self.fence != token.fence {
            return Admission::Fenced;
        }
        if self.step == token.step.next() {
            return Admission::Repeated;
        }
        if self.worker == Some(token.worker) && self.step == token.step {
            return Admission::Write;
        }
        Admission::Fenced
    }
}

/// A run that a worker claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which run.
    pub id: RunId,
    /// What sort of work it is.
    pub kind: RunKind,
    /// For whom it works.
    pub owner: OwnerId,
    /// Names this ownership in every write.
    pub token: Token,
    /// Whether it was claimed only to finish an interrupt that its former owner could not.
    pub stop: bool,
    /// How often its workers died since an owner last wrote; from
    /// [`SUSPECT_ATTEMPTS`] on it may be the cause, and it is claimed alone.
    pub attempts: u32,
}

impl Run {
    /// Says whether the run may be what its workers died of.
    pub const fn is_suspect(&self) -> bool {
        self.attempts >= SUSPECT_ATTEMPTS
    }
}

/// Deaths of its workers from which on a run is suspected, backed off and claimed alone.
pub const SUSPECT_ATTEMPTS: u32 = 2;

/// Deaths of its workers after which a run goes to error, unless somebody sets another bound.
pub const ATTEMPTS_MAX: u32 = 5;

/// A run to take in; it is pending at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRun {
    /// Names it; made by the caller, so it may be taken in twice.
    pub id: RunId,
    /// What sort of work it is.
    pub kind: RunKind,
    /// For whom it works; pending runs of one owner do not hold up those of another.
    pub owner: OwnerId,
}

/// A run as those see it who asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunState {
    /// Which run.
    pub id: RunId,
    /// What sort of work it is.
    pub kind: RunKind,
    /// For whom it works.
    pub owner: OwnerId,
    /// Where it stands.
    pub status: RunStatus,
    /// Whether an interrupt is still to be finished.
    pub stop: bool,
    /// Why it stands in `Error`.
    pub error: Option<String>,
    /// Who owns it.
    pub worker: Option<WorkerId>,
    /// Counts its changes.
    pub version: Version,
}

/// Why a run should stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopCause {
    /// A user asked for it; what was done so far is kept.
    Interrupted,
    /// Somebody else owns the run; nothing may be written any more.
    Lost,
    /// This worker may no longer believe that it owns anything.
    Fenced,
    /// The process ends; another worker goes on with the run.
    Shutdown,
}

impl StopCause {
    /// Says whether a run that stops for this cause may still write its end.
    pub const fn allows_writes(self) -> bool {
        matches!(self, Self::Interrupted | Self::Shutdown)
    }

    /// Returns the word that logs and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted",
            Self::Lost => "lost",
            Self::Fenced => "fenced",
            Self::Shutdown => "shutdown",
        }
    }
}

/// How a [`Runner`](crate::port::Runner) ended its work on a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The runner wrote the end itself, under its token.
    Settled,
    /// The work is done; the run waits for the next request.
    Done,
    /// The work failed; the text says why.
    Failed(String),
    /// The runner stopped before the end, as it was asked to.
    ///
    /// What its user stopped has ended; what anybody else stopped goes on elsewhere.
    Stopped,
    /// Another worker is to go on with the run, whoever stopped it.
    GivenBack,
}

/// What the engine writes for a run that its runner did not settle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// To [`RunStatus::Waiting`].
    Done,
    /// To [`RunStatus::Error`], with the reason.
    Failed(String),
}

/// Bytes of an error's text, at most.
pub const ERROR_BYTES_MAX: usize = 4_096;

/// Returns `error` as it can be stored: without NUL, and cut to [`ERROR_BYTES_MAX`].
pub fn storable_error(error: &str) -> String {
    let mut error = error.replace('\0', "\u{fffd}");
    error.truncate(error.floor_char_boundary(ERROR_BYTES_MAX));
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_is_admitted_once_and_only_of_the_owner() {
        let [mine, other] = [1, 2].map(|id| WorkerId::new(uuid::Uuid::from_u128(id)));
        let token = Token { worker: mine, fence: Fence(7), step: Step(3) };
        let check = |worker, fence, step, expected| {
            let stored = Ownership { worker, fence: Fence(fence), step: Step(step) };
            assert_eq!(stored.admit(&token), expected, "{stored:?}");
        };
        check(Some(mine), 7, 3, Admission::Write);
        check(Some(mine), 7, 4, Admission::Repeated);
        check(None, 7, 4, Admission::Repeated);
        check(None, 7, 3, Admission::Fenced);
        check(Some(other), 8, 3, Admission::Fenced);
        check(Some(mine), 8, 3, Admission::Fenced);
        check(Some(mine), 8, 4, Admission::Fenced);
        check(Some(mine), 7, 2, Admission::Fenced);
        check(Some(mine), 7, 5, Admission::Fenced);
    }

    #[test]
    fn kind_is_a_short_plain_word() {
        assert!(RunKind::new("nightly-report_2").is_ok());
        for bad in ["", "Chat", "a b", "ü", &"x".repeat(65)] {
            assert!(RunKind::new(bad.to_owned()).is_err(), "{bad:?} passed");
        }
    }
}
