//! What is to be done so that a preset has the prebuilds that it wants.
//!
//! A snapshot counts, and does not name: which prebuilds are the oldest or expired is looked up
//! by whoever carries an action out, under a lock of its own, when it may have changed already.

mod schedule;

use std::num::NonZeroU32;
use std::time::Duration;

pub use self::schedule::{
    CRON_BYTES_MAX, DESIRED_MAX, SCHEDULES_MAX, Schedule, ScheduleInput, Schedules,
};

use crate::id::PresetId;
use crate::timestamp::Timestamp;

/// One preset and its prebuilds, as they stood at one moment.
#[derive(Clone, Debug)]
pub struct PresetSnapshot {
    /// Names it.
    pub preset: PresetId,
    /// Whether it is of the active version of a template that may be used.
    pub is_active: bool,
    /// How many prebuilds it wants when no schedule says otherwise.
    pub desired: u32,
    /// When it wants others.
    pub schedules: Schedules,
    /// Whether builds of it make sense.
    pub health: Health,
    /// Prebuilds that run and are not expired.
    pub running: u32,
    /// Of those, the ones that can be claimed.
    pub eligible: u32,
    /// Prebuilds that run and are too old, or older than the last invalidation.
    pub expired: u32,
    /// Prebuilds that are being made, or wait for it.
    pub starting: u32,
    /// Of those, the ones that nobody works on yet.
    pub pending: u32,
    /// Prebuilds that are being deleted.
    pub deleting: u32,
    /// Prebuilds that could not be started or deleted, and may be deleted now.
    pub failed: u32,
    /// Its last builds, as far as they failed.
    pub failures: Failures,
}

/// What people call a preset, and metrics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolName {
    /// What its template is called.
    pub template: String,
    /// What it is called.
    pub preset: String,
}

/// Whether builds of a preset make sense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// They do.
    #[default]
    Healthy,
    /// So many failed in a row that nobody tries any more.
    HardLimited,
    /// What it asks for is not valid.
    ValidationFailed,
}

/// How many of the last builds failed in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// How many.
    pub in_a_row: u32,
    /// When the last of them ended; `None` without any.
    pub last_at: Option<Timestamp>,
}

/// How failures are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pause after a failure; after `n` in a row, `n` times as long.
    pub backoff_interval: Duration,
    /// Failures in a row after which nothing is created any more; `None` for no end.
    pub failure_hard_limit: Option<NonZeroU32>,
}

impl Limits {
    /// A minute for each failure, and an end after three.
    pub const DEFAULT: Self =
        Self { backoff_interval: Duration::from_mins(1), failure_hard_limit: NonZeroU32::new(3) };
}

/// How a preset's prebuilds stand to what it wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Prebuilds that run, expired or not.
    pub actual: u32,
    /// Prebuilds that it wants now; none when it is not active.
    pub desired: u32,
    /// Of `actual`, those that are expired.
    pub expired: u32,
    /// Of `actual`, those that can be claimed; none when it is not active.
    pub eligible: u32,
    /// Of `actual`, those that are not expired and more than it wants.
    pub extraneous: u32,
    /// Prebuilds that it lacks, but for those that are being made.
    pub missing: u32,
}

/// Something to do about a preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Take back builds that nobody works on yet, with their workspaces.
    CancelPending(u32),
    /// Delete prebuilds of a preset that is not active.
    DeleteOutdated(u32),
    /// Delete those that are expired.
    DeleteExpired(u32),
    /// Delete those that could not be started, or not be deleted.
    DeleteFailed(u32),
    /// Delete the oldest of those that are not expired.
    DeleteExtraneous(u32),
    /// Make new ones.
    Create(u32),
}

/// What is to be done about a preset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order; none when all is as it should be.
    pub actions: Vec<Action>,
    /// Until when nothing is created, after failures.
    pub backoff_until: Option<Timestamp>,
    /// Whether it is to be marked as hard limited, which it was not before.
    pub marks_hard_limited: bool,
}

impl PresetSnapshot {
    /// Says whether nothing can be to do, whatever the time: no task need be spent on it.
    pub const fn can_skip(&self) -> bool {
        !self.is_active
            && self.running == 0
            && self.expired == 0
            && self.pending == 0
            && self.failed == 0
            && self.failures.in_a_row == 0
    }

    /// Returns how its prebuilds stand to what it wants at `now`.
    pub fn state(&self, now: Timestamp) -> State {
        let actual = self.running.saturating_add(self.expired);
        if !self.is_active {
            return State { actual, expired: self.expired, ..State::default() };
        }
        let desired = self.schedules.desired(now).unwrap_or(self.desired);
        let coming = self.running.saturating_add(self.starting);
        State {
            actual,
            desired,
            expired: self.expired,
            eligible: self.eligible,
            extraneous: self.running.saturating_sub(desired),
            missing: desired.saturating_sub(coming),
        }
    }

    /// Decides what is to be done at `now`.
    ///
    /// Failures hold back what is created, and nothing else.
    pub fn plan(&self, now: Timestamp, limits: &Limits) -> Plan {
        let state = self.state(now);
        let is_limited = self.is_hard_limited(limits);
        let backoff_until = self.backoff_until(limits).filter(|until| now < *until);
        let deletions = if self.is_active {
            [Action::DeleteExpired(state.expired), Action::DeleteExtraneous(state.extraneous)]
        } else {
            [Action::CancelPending(self.pending), Action::DeleteOutdated(state.actual)]
        };
        let may_create = self.health == Health::Healthy && !is_limited && backoff_until.is_none();
        let created = Action::Create(if may_create { state.missing } else { 0 });
        let actions =
            [Action::DeleteFailed(self.failed)].into_iter().chain(deletions).chain([created]);
        Plan {
            actions: actions.filter(|action| action.count() > 0).collect(),
            backoff_until,
            marks_hard_limited: is_limited && self.health == Health::Healthy,
        }
    }

    fn is_hard_limited(&self, limits: &Limits) -> bool {
        limits.failure_hard_limit.is_some_and(|limit| self.failures.in_a_row >= limit.get())
    }

    fn backoff_until(&self, limits: &Limits) -> Option<Timestamp> {
        let pause = limits.backoff_interval.saturating_mul(self.failures.in_a_row);
        self.failures.last_at.filter(|_| !pause.is_zero())?.after(pause)
    }
}

impl Action {
    /// Returns how many prebuilds it is about.
    pub const fn count(self) -> u32 {
        match self {
            Self::CancelPending(count)
            | Self::DeleteOutdated(count)
            | Self::DeleteExpired(count)
            | Self::DeleteFailed(count)
            | Self::DeleteExtraneous(count)
            | Self::Create(count) => count,
        }
    }
}

impl Plan {
    /// Says whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && !self.marks_hard_limited
    }
}

/// Returns how many presets are worked on at once: half the connections of a pool, so that
/// others find the other half, and one at least.
pub const fn concurrency(pool_max: u32) -> NonZeroU32 {
    match NonZeroU32::new(pool_max / 2) {
        Some(half) => half,
        None => NonZeroU32::MIN,
    }
}

#[cfg(test)]
mod tests;
