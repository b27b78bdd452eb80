//! What is planned, by tables, by scenarios in files, and against a naive world.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

mod scenarios;
mod schedules;
mod world;

fn now() -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000).unwrap()
}

fn ago(duration: Duration) -> Timestamp {
    let micros = i64::try_from(duration.as_micros()).unwrap();
    Timestamp::from_micros(now().micros() - micros).unwrap()
}

/// A preset of an active version that wants nothing and has nothing.
fn preset() -> PresetSnapshot {
    PresetSnapshot {
        preset: PresetId::new(Uuid::nil()),
        is_active: true,
        desired: 0,
        schedules: Schedules::default(),
        health: Health::Healthy,
        running: 0,
        eligible: 0,
        expired: 0,
        starting: 0,
        pending: 0,
        deleting: 0,
        failed: 0,
        failures: Failures::default(),
    }
}

fn failures(in_a_row: u32, last: Duration) -> Failures {
    Failures { in_a_row, last_at: Some(ago(last)) }
}

/// The table of the original's test of the same name.
#[test]
fn can_skip() {
    let check = |what: &str, snapshot: PresetSnapshot, skips: bool, is_idle: bool| {
        let limits = Limits { backoff_interval: Duration::from_mins(5), ..Limits::DEFAULT };
        let plan = snapshot.plan(now(), &limits);
        let found = (snapshot.can_skip(), plan.is_empty() && plan.backoff_until.is_none());
        assert_eq!(found, (skips, is_idle), "{what}");
    };
    let inactive = || PresetSnapshot { is_active: false, desired: 2, ..preset() };
    let active = || PresetSnapshot { desired: 2, ..preset() };
    let backoff = failures(3, Duration::from_mins(1));
    let limited = Health::HardLimited;
    check("inactive, nothing to clean up", inactive(), true, true);
    check("inactive, running", PresetSnapshot { running: 2, ..inactive() }, false, false);
    check("inactive, pending", PresetSnapshot { pending: 3, ..inactive() }, false, false);
    check("inactive, backoff", PresetSnapshot { failures: backoff, ..inactive() }, false, false);
    check("inactive, hard limited", PresetSnapshot { health: limited, ..inactive() }, true, true);
    let complete = PresetSnapshot { running: 2, eligible: 2, ..active() };
    check("active, complete", complete, false, true);
    check("active, nothing there", active(), false, false);
    check("active, backoff", PresetSnapshot { failures: backoff, ..active() }, false, false);
    // The original creates there what its executor then leaves out.
    check("active, hard limited", PresetSnapshot { health: limited, ..active() }, false, true);
}

#[test]
fn half_of_the_pool_is_worked_with() {
    let found = [100, 30, 10, 5, 4, 3, 2, 1, 0].map(|pool_max| concurrency(pool_max).get());
    assert_eq!(found, [50, 15, 5, 2, 2, 1, 1, 1, 1]);
}

#[test]
fn backoff_grows_with_failures_and_ends() {
    let snapshot = PresetSnapshot {
        desired: 1,
        expired: 1,
        failures: failures(2, Duration::from_secs(90)),
        ..preset()
    };
    let limits = Limits::DEFAULT;
    let plan = snapshot.plan(now(), &limits);
    assert_eq!(plan.actions, [Action::DeleteExpired(1)], "only what is created waits");
    let until = now().after(Duration::from_secs(30)).unwrap();
    assert_eq!(plan.backoff_until, Some(until));
    let then = snapshot.plan(until, &limits);
    assert_eq!(then.actions, [Action::DeleteExpired(1), Action::Create(1)]);
    assert_eq!(then.backoff_until, None);
    let none = Limits { backoff_interval: Duration::ZERO, ..limits };
    assert_eq!(snapshot.plan(now(), &none).backoff_until, None);
}

#[test]
fn hard_limit_is_marked_once_and_stops_creation_only() {
    let failed = |in_a_row, health| PresetSnapshot {
        desired: 2,
        expired: 1,
        running: 1,
        health,
        failures: failures(in_a_row, Duration::from_hours(1)),
        ..preset()
    };
    let planned = |in_a_row, health| {
        let plan = failed(in_a_row, health).plan(now(), &Limits::DEFAULT);
        (plan.actions, plan.marks_hard_limited)
    };
    let (delete, create) = (Action::DeleteExpired(1), Action::Create(1));
    assert_eq!(planned(2, Health::Healthy), (vec![delete, create], false));
    assert_eq!(planned(3, Health::Healthy), (vec![delete], true));
    assert_eq!(planned(3, Health::HardLimited), (vec![delete], false));
    assert_eq!(planned(0, Health::ValidationFailed), (vec![delete], false));
    let endless = Limits { failure_hard_limit: None, ..Limits::DEFAULT };
    let plan = failed(50, Health::Healthy).plan(now(), &endless);
    assert_eq!((plan.actions, plan.marks_hard_limited), (vec![delete, create], false));
}

#[test]
fn state_counts_what_the_original_counts() {
    let snapshot =
        PresetSnapshot { desired: 2, running: 3, eligible: 1, expired: 2, starting: 1, ..preset() };
    let expected =
        State { actual: 5, desired: 2, expired: 2, eligible: 1, extraneous: 1, missing: 0 };
    assert_eq!(snapshot.state(now()), expected);
    let inactive = PresetSnapshot { is_active: false, ..snapshot };
    let expected = State { actual: 5, expired: 2, ..State::default() };
    assert_eq!(inactive.state(now()), expected);
}

proptest! {
    /// Whatever is skipped had nothing to do, at any time.
    #[test]
    fn skip_implies_no_action(snapshot in any_snapshot(), later in 0_u64..10_000_000) {
        let then = now().after(Duration::from_secs(later)).unwrap();
        let plan = snapshot.plan(then, &Limits::DEFAULT);
        if snapshot.can_skip() {
            prop_assert!(plan.is_empty() && plan.backoff_until.is_none(), "{:?}", plan);
        }
    }
}

fn any_snapshot() -> impl Strategy<Value = PresetSnapshot> {
    let counts = prop::array::uniform7(0_u32..3);
    (any::<bool>(), 0_u32..4, counts, 0_u32..5, 0_u64..1_000, 0..3_u8).prop_map(
        |(is_active, desired, counts, in_a_row, last, health)| {
            let [running, expired, starting, pending, deleting, failed, eligible] = counts;
            PresetSnapshot {
                is_active,
                desired,
                running,
                eligible: eligible.min(running),
                expired,
                starting: starting + pending,
                pending,
                deleting,
                failed,
                health: [Health::Healthy, Health::HardLimited, Health::ValidationFailed]
                    [usize::from(health)],
                failures: match in_a_row {
                    0 => Failures::default(),
                    _ => failures(in_a_row, Duration::from_secs(last)),
                },
                ..preset()
            }
        },
    )
}
