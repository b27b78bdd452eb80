//! Which schedule holds when. 2024-01-01 was a Monday.

use super::*;

fn at(text: &str) -> Timestamp {
    let format = &time::format_description::well_known::Rfc3339;
    Timestamp::new(time::OffsetDateTime::parse(text, format).unwrap())
}

fn schedules(zone: &str, given: &[(&str, u32)]) -> Schedules {
    Schedules::new(zone, &inputs(given)).unwrap()
}

fn inputs(given: &[(&str, u32)]) -> Vec<ScheduleInput> {
    let input = |(cron, desired): &(&str, u32)| ScheduleInput {
        cron: (*cron).to_owned(),
        desired: *desired,
    };
    given.iter().map(input).collect()
}

fn check(schedules: &Schedules, times: &[(&str, Option<u32>)]) {
    for (time, desired) in times {
        assert_eq!(schedules.desired(at(time)), *desired, "{time}");
    }
}

#[test]
fn range_of_hours_holds_to_the_end_of_its_last() {
    let working = schedules("UTC", &[("* 9-18 * * 1-5", 3)]);
    check(
        &working,
        &[
            ("2024-01-01T08:59:59Z", None),
            ("2024-01-01T09:00:00Z", Some(3)),
            ("2024-01-01T12:30:00Z", Some(3)),
            ("2024-01-01T18:59:59Z", Some(3)),
            ("2024-01-01T19:00:00Z", None),
            ("2024-01-06T12:00:00Z", None),
            ("2024-01-07T12:00:00Z", None),
            ("2024-01-08T12:00:00Z", Some(3)),
        ],
    );
    check(&Schedules::default(), &[("2024-01-01T12:00:00Z", None)]);
}

#[test]
fn one_of_several_schedules_holds() {
    let shifts = schedules(
        "UTC",
        &[("* 6-9 * * 1-5", 2), ("* 10-15 * * 1-5", 4), ("* 16-20 * * 1-5", 2), ("* * * * 0,6", 0)],
    );
    check(
        &shifts,
        &[
            ("2024-01-02T05:59:59Z", None),
            ("2024-01-02T06:00:00Z", Some(2)),
            ("2024-01-02T10:00:00Z", Some(4)),
            ("2024-01-02T15:59:59Z", Some(4)),
            ("2024-01-02T16:00:00Z", Some(2)),
            ("2024-01-02T21:00:00Z", None),
            ("2024-01-06T03:00:00Z", Some(0)),
        ],
    );
}

#[test]
fn hours_are_those_of_the_time_zone() {
    for (zone, first, last) in [
        ("Europe/Lisbon", "2024-07-01T08:00:00Z", "2024-07-01T17:59:59Z"),
        ("Europe/Lisbon", "2024-01-01T09:00:00Z", "2024-01-01T18:59:59Z"),
        ("America/New_York", "2024-01-01T14:00:00Z", "2024-01-01T23:59:59Z"),
        ("Asia/Kolkata", "2024-01-01T03:30:00Z", "2024-01-01T13:29:59Z"),
        ("Pacific/Auckland", "2023-12-31T20:00:00Z", "2024-01-01T05:59:59Z"),
    ] {
        let working = schedules(zone, &[("* 9-18 * * 1-5", 1)]);
        let just = |time: &str, seconds: i64| {
            Timestamp::from_micros(at(time).micros() + seconds * 1_000_000).unwrap()
        };
        assert_eq!(working.desired(just(first, -1)), None, "{zone} before {first}");
        assert_eq!(working.desired(at(first)), Some(1), "{zone} {first}");
        assert_eq!(working.desired(at(last)), Some(1), "{zone} {last}");
        assert_eq!(working.desired(just(last, 1)), None, "{zone} after {last}");
    }
}

#[test]
fn hour_that_a_zone_repeats_holds_twice_and_one_it_skips_never() {
    let early = schedules("Europe/Berlin", &[("* 2 * * *", 1)]);
    check(
        &early,
        &[
            // On 2024-03-31 the clock goes from 02:00 to 03:00.
            ("2024-03-31T00:59:59Z", None),
            ("2024-03-31T01:00:00Z", None),
            // On 2024-10-27 it goes from 03:00 back to 02:00.
            ("2024-10-27T00:30:00Z", Some(1)),
            ("2024-10-27T01:30:00Z", Some(1)),
            ("2024-10-27T02:00:00Z", None),
        ],
    );
}

#[test]
fn what_is_no_schedule_is_refused_by_place() {
    let refused = |zone: &str, given: &[(&str, u32)]| {
        Schedules::new(zone, &inputs(given)).unwrap_err().to_string()
    };
    let fine = ("* 9-18 * * 1-5", 1);
    assert_eq!(
        refused("Lisbon", &[fine]),
        "timezone: is \"Lisbon\", which is no zone of the IANA's list"
    );
    let told = "schedules[1].cron: does not begin with `*`: a schedule holds for whole hours";
    assert_eq!(refused("UTC", &[fine, ("0 9 * * 6", 1)]), told);
    for cron in ["* 9-25 * * *", "* 9", "* 9 * * * *", "* x * * *", "*"] {
        let told = refused("UTC", &[(cron, 1)]);
        assert!(told.starts_with("schedules[0].cron: is no expression"), "{cron}: {told}");
    }
    assert_eq!(refused("UTC", &[("", 1)]), "schedules[0].cron: is empty");
    let told = "schedules[0].desired_instances: is 1001, at most 1000 are allowed";
    assert_eq!(refused("UTC", &[("* * * * *", 1_001)]), told);
    assert_eq!(
        refused("UTC", &vec![fine; 21]),
        "schedules: has 21 entries, at most 20 are allowed"
    );
}

#[test]
fn schedules_that_overlap_are_refused_and_mean_nothing_if_stored_all_the_same() {
    let overlaps =
        |one: &str, other: &str| Schedules::new("UTC", &inputs(&[(one, 1), (other, 2)])).is_err();
    assert!(overlaps("* 9-18 * * 1-5", "* 18-20 * * 5"));
    assert!(overlaps("* 9-18 * * 1-5", "* 9 * * *"));
    assert!(overlaps("* * 29 2 *", "* * * * 1"), "a Monday, some leap year");
    assert!(overlaps("* 5 1 * *", "* 5 * * 0"));
    assert!(!overlaps("* 9-18 * * 1-5", "* 9-18 * * 0,6"));
    assert!(!overlaps("* 9-18 * * 1-5", "* 0-8,19-23 * * 1-5"));
    assert!(!overlaps("* * * 1-6 *", "* * * 7-12 *"));
    let both = inputs(&[("* 9 * * *", 1), ("* 9 * * *", 2)]);
    let stored = Schedules::stored("UTC", &both).unwrap();
    check(&stored, &[("2024-01-01T09:30:00Z", None)]);
}
