//! What becomes of reports, whatever agents send.

use proptest::prelude::*;

use super::*;

fn time(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

fn reported(key: &str, value: &str, error: &str) -> Reported {
    Reported { key: key.to_owned(), value: value.to_owned(), error: error.to_owned() }
}

fn only(value: &str, error: &str) -> (String, String, Vec<String>) {
    let checked = check(vec![reported("k", value, error)], |_| true, time(1));
    let sample = checked.accepted.into_values().next().unwrap();
    let altered = checked.altered.into_iter().map(|(_, change)| change).collect();
    (sample.value, sample.error, altered)
}

#[test]
fn good_report_is_taken_as_it_is_but_for_blanks_around() {
    let report = vec![reported("load", " 0.5\n", ""), reported("disk", "", "\tno disk ")];
    let checked = check(report, |_| true, time(7));
    let found: Vec<_> = checked
        .accepted
        .iter()
        .map(|(key, sample)| (key.as_str(), &*sample.value, &*sample.error, sample.collected_at))
        .collect();
    let expected = [("disk", "", "no disk", time(7)), ("load", "0.5", "", time(7))];
    assert_eq!(found, expected);
    assert_eq!((checked.altered, checked.refused), (vec![], vec![]));
}

#[test]
fn value_is_cut_between_characters_and_its_error_says_so() {
    let told = "value of 4096 bytes exceeded 2048 bytes".to_owned();
    let (value, error, altered) = only(&"é".repeat(2_048), "");
    assert_eq!((value.len(), &error, &altered), (2_048, &told, &vec![told.clone()]));
    let (value, error, _) = only(&format!("a{}", "é".repeat(2_048)), "bad");
    assert_eq!(value.len(), 2_047);
    assert_eq!(error, "value of 4097 bytes exceeded 2048 bytes; bad");
    assert_eq!(only(&"x".repeat(2_048), "").2, Vec::<String>::new(), "as much as is allowed");
}

#[test]
fn error_is_cut_and_says_so() {
    let (value, error, altered) = only("1", &"e".repeat(3_000));
    assert_eq!((value.as_str(), error.len()), ("1", 2_048));
    assert!(error.starts_with("error of 3000 bytes exceeded 2048 bytes; eee"), "{error}");
    assert_eq!(altered, ["error of 3000 bytes exceeded 2048 bytes"]);
}

#[test]
fn nul_is_removed_and_told() {
    let (value, error, altered) = only("a\0b", "\0");
    assert_eq!((value.as_str(), error.as_str()), ("ab", ""));
    let told = |what| format!("NUL characters were removed from the {what}");
    assert_eq!(altered, [format!("{}; {}", told("value"), told("error"))]);
}

#[test]
fn what_is_wrong_with_one_key_costs_no_other() {
    let long = "k".repeat(200);
    let report = vec![
        reported("unknown", "1", ""),
        reported("", "1", ""),
        reported("nu\0l", "1", ""),
        reported(&long, "1", ""),
        reported("good", "1", ""),
    ];
    let checked = check(report, |key| key.as_str() != "unknown", time(1));
    assert_eq!(checked.accepted.keys().map(Key::as_str).collect::<Vec<_>>(), ["good"]);
    let reasons: Vec<_> = checked.refused.iter().map(|(_, reason)| reason.as_str()).collect();
    let expected = [
        "is not defined for this agent",
        "is empty",
        "contains a NUL character",
        "has 200 bytes, at most 127 are allowed",
    ];
    assert_eq!(reasons, expected);
    assert_eq!(checked.refused[3].0.len(), NAME_BYTES_MAX, "no more of it comes back");
}

#[test]
fn keys_beyond_their_bytes_are_refused_and_those_before_are_kept() {
    let keys = (0..100).map(|number| format!("{number:0100}"));
    let report = keys.map(|key| reported(&key, "1", "")).collect();
    let checked = check(report, |_| true, time(1));
    assert_eq!((checked.accepted.len(), checked.refused.len()), (61, 39));
    assert_eq!(checked.refused[0].1, "the report's keys have more than 6144 bytes");
}

#[test]
fn newer_sample_wins_and_of_two_of_one_time_the_later() {
    let sample = |value: &str, at| Sample {
        value: value.to_owned(),
        error: String::new(),
        collected_at: time(at),
    };
    let merged = |mut first: Sample, second| {
        first.merge(second);
        first.value
    };
    assert_eq!(merged(sample("a", 1), sample("b", 2)), "b");
    assert_eq!(merged(sample("a", 2), sample("b", 1)), "a");
    assert_eq!(merged(sample("a", 1), sample("b", 1)), "b");
}

#[test]
fn definitions_are_checked_each_by_its_place() {
    let good = |key: &str| Definition {
        key: Key::new(key).unwrap(),
        display_name: "Load".to_owned(),
        script: "uptime".to_owned(),
        interval_seconds: 10,
        timeout_seconds: 1,
        display_order: 0,
    };
    let refused = |definitions| Definitions::new(definitions).unwrap_err().to_string();
    assert_eq!(Definitions::new(vec![good("a"), good("b")]).unwrap().as_slice().len(), 2);
    assert_eq!(refused(vec![good("a"), good("a")]), "definitions[1].key: is there twice");
    let slow = Definition { interval_seconds: 0, ..good("a") };
    let told = "definitions[0].interval_seconds: is 0, 1 to 86400 are allowed";
    assert_eq!(refused(vec![slow]), told);
    let nameless = Definition { display_name: " ".to_owned(), ..good("b") };
    assert_eq!(refused(vec![good("a"), nameless]), "definitions[1].display_name: is empty");
    let many = (0..129).map(|number| good(&number.to_string())).collect();
    assert_eq!(refused(many), "definitions: has 129 keys, at most 128 are allowed");
}

/// A few characters, up to some hundred times.
fn long() -> impl Strategy<Value = String> {
    ("[a\0é \n]{0,6}", 0..600_usize).prop_map(|(text, times)| text.repeat(times))
}

proptest! {
    /// Nothing that an agent sends breaks a bound or is lost without a word.
    #[test]
    fn every_key_is_accepted_or_refused(
        report in prop::collection::vec((long(), long(), long()), 0..60)
    ) {
        let sent: Vec<_> =
            report.into_iter().map(|(key, value, error)| reported(&key, &value, &error)).collect();
        let checked = check(sent.clone(), |key| key.as_str().len() % 3 > 0, time(1));
        for sample in checked.accepted.values() {
            prop_assert!(sample.value.len() <= VALUE_BYTES_MAX);
            prop_assert!(sample.error.len() <= VALUE_BYTES_MAX);
            prop_assert!(!sample.value.contains('\0') && !sample.error.contains('\0'));
        }
        let refused: BTreeSet<_> = checked.refused.iter().map(|(key, _)| key.as_str()).collect();
        for Reported { key, .. } in &sent {
            let accepted = checked.accepted.keys().any(|kept| kept.as_str() == key);
            prop_assert!(accepted || refused.contains(&*shown(key.clone())), "{:?}", key);
        }
    }
}
