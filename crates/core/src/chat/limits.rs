use super::refused::Refused;
use crate::invalid::Invalid;

/// Ancestors that anybody may allow a spawned chat, at most.
pub const SUBAGENT_DEPTH_MAX: u32 = 10;

/// Subagents that anybody may allow a family to have at work at once, at most.
pub const SUBAGENTS_MAX: u32 = 1_000;

/// What an owner allows a family; `None` leaves it to the deployment.
///
/// It stands at the family's root, and governs what any of its chats spawns. A chat that is at
/// work stays so when less is allowed afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubagentLimits {
    /// How many ancestors a spawned chat may have: with 1 only the root spawns, with 0 nobody.
    pub depth_max: Option<u32>,
    /// How many descendants of the root may be at work, or wait for a worker, when one is spawned.
    pub at_work_max: Option<u32>,
}

impl SubagentLimits {
    /// Says whether anything is set.
    pub const fn is_any(&self) -> bool {
        self.depth_max.is_some() || self.at_work_max.is_some()
    }

    /// Says whether each limit is within what may be set.
    ///
    /// # Errors
    /// Refuses a depth over [`SUBAGENT_DEPTH_MAX`] and a number over [`SUBAGENTS_MAX`].
    pub fn check(&self) -> Result<(), Invalid> {
        for (field, limit, max) in [
            ("subagent_depth_max", self.depth_max, SUBAGENT_DEPTH_MAX),
            ("subagents_max", self.at_work_max, SUBAGENTS_MAX),
        ] {
            if let Some(limit) = limit.filter(|limit| *limit > max) {
                return Err(Invalid::new(field, format!("is {limit}, 0 to {max} are allowed")));
            }
        }
        Ok(())
    }
}

/// What holds for a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubagentBounds {
    /// How many ancestors a spawned chat may have.
    pub depth_max: u32,
    /// How many descendants of a root may be at work when one is spawned.
    pub at_work_max: u32,
}

impl SubagentBounds {
    /// Says whether a chat with so many ancestors may spawn others.
    pub fn may_spawn(&self, depth: usize) -> bool {
        depth < self.depth_max as usize
    }

    /// Says whether a chat with `depth` ancestors may spawn one more, while `at_work` descendants
    /// of its root are at work.
    ///
    /// # Errors
    /// Names the bound that is met.
    pub fn admit(&self, depth: usize, at_work: u64) -> Result<(), Refused> {
        if !self.may_spawn(depth) {
            return Err(Refused::SubagentTooDeep { depth_max: self.depth_max });
        }
        if at_work >= u64::from(self.at_work_max) {
            return Err(Refused::TooManySubagents { at_work_max: self.at_work_max });
        }
        Ok(())
    }
}

/// What an operator sets for all families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubagentPolicy {
    /// What holds where an owner sets nothing.
    pub default: SubagentBounds,
    /// What holds at most, whatever an owner sets.
    pub bound: SubagentBounds,
}

impl SubagentPolicy {
    /// Only roots spawn, and a hundred subagents of a family work at once; owners may allow all
    /// that can be allowed.
    pub const DEFAULT: Self = Self {
        default: SubagentBounds { depth_max: 1, at_work_max: 100 },
        bound: SubagentBounds { depth_max: SUBAGENT_DEPTH_MAX, at_work_max: SUBAGENTS_MAX },
    };

    /// Returns what holds for a family of which `limits` are set.
    pub fn of(&self, limits: SubagentLimits) -> SubagentBounds {
        let within = |set: Option<u32>, default: u32, bound: u32| set.unwrap_or(default).min(bound);
        let Self { default, bound } = self;
        SubagentBounds {
            depth_max: within(limits.depth_max, default.depth_max, bound.depth_max),
            at_work_max: within(limits.at_work_max, default.at_work_max, bound.at_work_max),
        }
    }
}

impl Default for SubagentPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(depth_max: Option<u32>, at_work_max: Option<u32>) -> SubagentLimits {
        SubagentLimits { depth_max, at_work_max }
    }

    #[test]
    fn limit_out_of_range_is_named_with_its_bound() {
        let check = |depth_max, at_work_max, expected: &str| {
            let refused = limits(depth_max, at_work_max).check().unwrap_err().to_string();
            assert_eq!(refused, expected);
        };
        check(Some(11), None, "subagent_depth_max: is 11, 0 to 10 are allowed");
        check(Some(10), Some(1_001), "subagents_max: is 1001, 0 to 1000 are allowed");
        for fine in [limits(None, None), limits(Some(0), Some(0)), limits(Some(10), Some(1_000))] {
            assert_eq!(fine.check(), Ok(()));
        }
    }

    #[test]
    fn owner_moves_limits_as_far_as_the_operator_allows() {
        let policy = SubagentPolicy {
            default: SubagentBounds { depth_max: 1, at_work_max: 20 },
            bound: SubagentBounds { depth_max: 3, at_work_max: 10 },
        };
        let check = |depth_max, at_work_max, expected: (u32, u32)| {
            let bounds = policy.of(limits(depth_max, at_work_max));
            assert_eq!((bounds.depth_max, bounds.at_work_max), expected);
        };
        check(None, None, (1, 10));
        check(Some(0), Some(0), (0, 0));
        check(Some(3), Some(9), (3, 9));
        check(Some(4), Some(1_000), (3, 10));
    }

    #[test]
    fn only_roots_spawn_by_default_and_a_hundred_work_at_once() {
        let bounds = SubagentPolicy::DEFAULT.of(SubagentLimits::default());
        assert_eq!(bounds.admit(0, 99), Ok(()));
        assert_eq!(bounds.admit(0, 100), Err(Refused::TooManySubagents { at_work_max: 100 }));
        assert_eq!(bounds.admit(1, 0), Err(Refused::SubagentTooDeep { depth_max: 1 }));
    }
}
