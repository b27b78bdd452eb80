//! Plans carried out in a world that is as simple as can be, until nothing is to do.

use super::*;

/// A prebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prebuild {
    Pending,
    Running { age: u64 },
    Failed,
}

/// All there is of one preset.
#[derive(Clone, Debug)]
struct World {
    is_active: bool,
    desired: u32,
    /// Age at which a prebuild expires, in seconds.
    expires_at: Option<u64>,
    prebuilds: Vec<Prebuild>,
    /// Which of the next builds fail.
    fails: Vec<bool>,
    failures: Failures,
    health: Health,
    now: Timestamp,
}

impl World {
    fn is_expired(&self, prebuild: Prebuild) -> bool {
        let Prebuild::Running { age } = prebuild else { return false };
        self.expires_at.is_some_and(|limit| age >= limit)
    }

    fn count(&self, is_meant: impl Fn(Prebuild) -> bool) -> u32 {
        let found = self.prebuilds.iter().filter(|prebuild| is_meant(**prebuild)).count();
        u32::try_from(found).unwrap()
    }

    fn snapshot(&self) -> PresetSnapshot {
        let pending = self.count(|prebuild| prebuild == Prebuild::Pending);
        let expired = self.count(|prebuild| self.is_expired(prebuild));
        let running = self.count(|prebuild| matches!(prebuild, Prebuild::Running { .. })) - expired;
        PresetSnapshot {
            is_active: self.is_active,
            desired: self.desired,
            running,
            eligible: running,
            expired,
            starting: pending,
            pending,
            failed: self.count(|prebuild| prebuild == Prebuild::Failed),
            health: self.health,
            failures: self.failures,
            ..preset()
        }
    }

    /// Removes up to `count` that are meant, the oldest first.
    fn remove(&mut self, count: u32, is_meant: impl Fn(&Self, Prebuild) -> bool) {
        for _ in 0..count {
            let age = |prebuild: Prebuild| match prebuild {
                Prebuild::Pending | Prebuild::Failed => 0,
                Prebuild::Running { age } => age,
            };
            let meant =
                (0..self.prebuilds.len()).filter(|place| is_meant(self, self.prebuilds[*place]));
            let oldest = meant.max_by_key(|place| age(self.prebuilds[*place]));
            let Some(oldest) = oldest else { return };
            self.prebuilds.remove(oldest);
        }
    }

    fn carry_out(&mut self, plan: &Plan) {
        for action in &plan.actions {
            match *action {
                Action::CancelPending(count) => {
                    self.remove(count, |_, prebuild| prebuild == Prebuild::Pending);
                }
                Action::DeleteOutdated(count) => {
                    self.remove(count, |_, prebuild| matches!(prebuild, Prebuild::Running { .. }));
                }
                Action::DeleteFailed(count) => {
                    self.remove(count, |_, prebuild| prebuild == Prebuild::Failed);
                }
                Action::DeleteExpired(count) => {
                    self.remove(count, World::is_expired);
                }
                Action::DeleteExtraneous(count) => self.remove(count, |world, prebuild| {
                    matches!(prebuild, Prebuild::Running { .. }) && !world.is_expired(prebuild)
                }),
                Action::Create(count) => {
                    self.prebuilds.extend((0..count).map(|_| Prebuild::Pending));
                }
            }
        }
        if plan.marks_hard_limited {
            self.health = Health::HardLimited;
        }
    }

    /// Ends the builds that are under way, well or not, and lets a minute pass.
    fn build(&mut self) {
        for place in (0..self.prebuilds.len()).rev() {
            if self.prebuilds[place] != Prebuild::Pending {
                continue;
            }
            if self.fails.pop().unwrap_or(false) {
                self.prebuilds[place] = Prebuild::Failed;
                self.failures =
                    Failures { in_a_row: self.failures.in_a_row + 1, last_at: Some(self.now) };
            } else {
                self.prebuilds[place] = Prebuild::Running { age: 0 };
                self.failures = Failures::default();
            }
        }
        self.now = self.now.after(Duration::from_mins(1)).unwrap();
    }
}

fn any_world() -> impl Strategy<Value = World> {
    let prebuild = prop_oneof![
        Just(Prebuild::Pending),
        Just(Prebuild::Failed),
        (0_u64..200).prop_map(|age| Prebuild::Running { age }),
    ];
    (
        any::<bool>(),
        0_u32..6,
        prop::option::of(1_u64..150),
        prop::collection::vec(prebuild, 0..8),
        prop::collection::vec(any::<bool>(), 0..8),
        0_u32..4,
    )
        .prop_map(|(is_active, desired, expires_at, prebuilds, fails, in_a_row)| World {
            is_active,
            desired,
            expires_at,
            prebuilds,
            fails,
            failures: match in_a_row {
                0 => Failures::default(),
                _ => failures(in_a_row, Duration::from_secs(30)),
            },
            health: Health::Healthy,
            now: now(),
        })
}

proptest! {
    /// The original leaves expired prebuilds of inactive versions for ever; here nothing is left.
    #[test]
    fn plans_end_with_what_is_wanted_and_nothing_to_clean(
        world in any_world(),
        may_give_up in any::<bool>(),
    ) {
        let mut world = world;
        let limits = Limits {
            failure_hard_limit: may_give_up.then_some(NonZeroU32::new(3).unwrap()),
            ..Limits::DEFAULT
        };
        for round in 0.. {
            prop_assert!(round < 100, "there is no end: {:?}", world);
            let snapshot = world.snapshot();
            let plan = snapshot.plan(world.now, &limits);
            if snapshot.can_skip() {
                prop_assert!(plan.is_empty());
            }
            if plan.is_empty() && plan.backoff_until.is_none() && snapshot.pending == 0 {
                break;
            }
            world.carry_out(&plan);
            world.build();
        }
        let left = world.snapshot();
        prop_assert_eq!((left.expired, left.pending, left.failed), (0, 0, 0), "{:?}", &world);
        if world.is_active {
            let lacks = left.running < world.desired;
            prop_assert!(left.running <= world.desired, "{:?}", &world);
            prop_assert!(!lacks || world.health == Health::HardLimited, "{:?}", &world);
        } else {
            prop_assert_eq!(&world.prebuilds, &[], "{:?}", &world);
        }
    }
}
