//! Scenarios in `tests/scenarios/prebuild`, each a file: what there is, a line, what is planned.
//!
//! To add one, write a file up to the line `---` and run the test with `UPDATE_EXPECT=1`.

use std::fmt::Write as _;
use std::path::Path;

use expect_test::expect_file;

use super::*;

#[test]
fn scenarios_are_planned_as_their_files_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/prebuild");
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|end| end == "txt")).collect();
    assert!(files.len() >= 12, "{} scenarios", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let given = text.split("---\n").next().unwrap();
        let (snapshot, limits) = read(given, &file);
        let planned = shown(&snapshot.plan(now(), &limits));
        expect_file![&file].assert_eq(&format!("{given}---\n{planned}"));
    }
}

fn read(given: &str, file: &Path) -> (PresetSnapshot, Limits) {
    let (mut snapshot, mut limits) = (preset(), Limits::DEFAULT);
    let mut schedules = Vec::new();
    let mut zone = "UTC".to_owned();
    let lines = given.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        let number =
            || value.parse::<u32>().unwrap_or_else(|_| panic!("{}: {line}", file.display()));
        match name {
            "inactive" => snapshot.is_active = false,
            "hard-limited" => snapshot.health = Health::HardLimited,
            "validation-failed" => snapshot.health = Health::ValidationFailed,
            "desired" => snapshot.desired = number(),
            "running" => snapshot.running = number(),
            "eligible" => snapshot.eligible = number(),
            "expired" => snapshot.expired = number(),
            "starting" => snapshot.starting = number(),
            "pending" => snapshot.pending = number(),
            "deleting" => snapshot.deleting = number(),
            "failed" => snapshot.failed = number(),
            "failures" => snapshot.failures.in_a_row = number(),
            "failures-seconds-ago" => {
                snapshot.failures.last_at = Some(ago(Duration::from_secs(number().into())));
            }
            "hard-limit" => limits.failure_hard_limit = NonZeroU32::new(number()),
            "zone" => value.clone_into(&mut zone),
            "schedule" => {
                let (desired, cron) = value.split_once(' ').unwrap();
                let (cron, desired) = (cron.to_owned(), desired.parse().unwrap());
                schedules.push(ScheduleInput { cron, desired });
            }
            _ => panic!("{}: nobody knows {line:?}", file.display()),
        }
    }
    snapshot.schedules = Schedules::new(&zone, &schedules).unwrap();
    (snapshot, limits)
}

fn shown(plan: &Plan) -> String {
    let mut text = String::new();
    for action in &plan.actions {
        let what = match action {
            Action::CancelPending(_) => "cancel pending",
            Action::DeleteOutdated(_) => "delete outdated",
            Action::DeleteFailed(_) => "delete failed",
            Action::DeleteExpired(_) => "delete expired",
            Action::DeleteExtraneous(_) => "delete extraneous",
            Action::Create(_) => "create",
        };
        let _ = writeln!(text, "{what} {}", action.count());
    }
    if let Some(until) = plan.backoff_until {
        let seconds = (until.micros() - now().micros()) / 1_000_000;
        let _ = writeln!(text, "create nothing for {seconds} s");
    }
    if plan.marks_hard_limited {
        text.push_str("mark as hard limited\n");
    }
    if text.is_empty() {
        text.push_str("nothing\n");
    }
    text
}
