//! What followers find in a log.

use expect_test::{Expect, expect};

use super::*;

fn check(log: &Log, versions: impl IntoIterator<Item = i64>, expected: &Expect) {
    let lines: Vec<String> = versions
        .into_iter()
        .map(|version| match log.find(Version(version)) {
            Found::Nothing => format!("{version}: nothing"),
            Found::TooLate => format!("{version}: too late"),
            Found::Next(delta) => {
                let messages = delta.messages_after(Some(Version(version)));
                let messages: Vec<_> = messages.map(|frame| text(&frame)).collect();
                format!("{version}: up to {} {}", delta.reached, messages.join(" "))
            }
        })
        .collect();
    expected.assert_eq(&lines.join("\n"));
}

fn text(frame: &Bytes) -> String {
    String::from_utf8(frame.to_vec()).unwrap()
}

fn stand(status: RunStatus, queue: &'static str) -> Stand {
    let queue = Bytes::from_static(queue.as_bytes());
    Stand {
        told: Told { status: (status, false), error: 0, queue: frame::hash(&queue) },
        status: Bytes::from_static(b"status"),
        error: None,
        queue,
    }
}

/// A read that reached `reached`, with a message a version of `changed`.
fn delta(changed: &[i64], reached: i64, bytes: usize) -> Arc<Delta> {
    let messages = changed.iter().map(|version| {
        let frame = format!("m{version}{}", " ".repeat(bytes));
        (Version(*version), Bytes::from(frame))
    });
    Arc::new(Delta {
        messages: messages.collect(),
        reached: Version(reached),
        is_page: false,
        stand: stand(RunStatus::Running, "queue"),
    })
}

#[test]
fn each_finds_what_is_newer_than_what_it_has() {
    let mut log = Log::after(Version(3));
    check(
        &log,
        [2, 3, 4],
        &expect![[r#"
        2: too late
        3: nothing
        4: nothing"#]],
    );
    log.push(delta(&[4, 5], 6, 0));
    log.push(delta(&[7], 7, 0));
    check(
        &log,
        2..=8,
        &expect![[r#"
        2: too late
        3: up to 6 m4 m5
        4: up to 6 m5
        5: up to 6 
        6: up to 7 m7
        7: nothing
        8: nothing"#]],
    );
    assert_eq!(log.reached(), Version(7));
}

#[test]
fn log_that_was_cleared_goes_on_where_it_was() {
    let mut log = Log::after(Version(3));
    log.push(delta(&[4], 4, 0));
    log.clear();
    log.push(delta(&[5], 5, 0));
    check(
        &log,
        3..=5,
        &expect![[r#"
        3: too late
        4: up to 5 m5
        5: nothing"#]],
    );
}

#[test]
fn log_is_bounded_in_bytes_and_keeps_the_last_change_whatever_its_size() {
    let mut log = Log::after(Version(0));
    for version in 1..=100 {
        log.push(delta(&[version], version, 10_000));
        assert!(log.earlier_bytes <= EARLIER_BYTES_MAX);
    }
    // 25 of about 10 kB before the last one.
    assert!((20..=27).contains(&log.deltas.len()), "{}", log.deltas.len());
    log.push(delta(&[101], 101, 2 * EARLIER_BYTES_MAX));
    assert!(matches!(log.find(Version(100)), Found::Next(_)));
    log.push(delta(&[102], 102, 0));
    assert_eq!(log.deltas.len(), 1, "it is not kept once it is not the last");
    assert_eq!(log.earlier_bytes, 0);
}

#[test]
fn only_what_differs_from_what_was_told_is_told() {
    let now = stand(RunStatus::Running, "queue");
    let check = |before: Option<Stand>, expected: &[&str]| {
        let told: Vec<_> =
            now.differing(before.map(|before| before.told())).map(|frame| text(&frame)).collect();
        assert_eq!(told, expected);
    };
    check(None, &["queue", "status"]);
    check(Some(stand(RunStatus::Running, "queue")), &[]);
    check(Some(stand(RunStatus::Pending, "queue")), &["status"]);
    check(Some(stand(RunStatus::Running, "other")), &["queue"]);
}
