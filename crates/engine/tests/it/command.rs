//! The runner `command`, with scripts of the shell as programs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use musterbeat_core::message::{Content, Model, NewMessage};
use musterbeat_core::port::{ChatRunner, TurnEnd};
use musterbeat_core::run::StopCause;
use musterbeat_engine::command::{Command, CommandLimits};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::stage::{Stage, WAIT_MAX, exists, gone, limits, runs, shell, turn};

/// Prints its argument as a part.
const PART: &str =
    r#"part() { printf '{"type":"part","part":{"type":"text","text":"%s"}}\n' "$1"; }; "#;

/// Prints its argument as the message.
const MESSAGE: &str = r#"message() { printf '{"type":"message","content":"%s"}\n' "$1"; }; "#;

/// How long a turn may take to end after its time is over.
const END_MAX: Duration = Duration::from_secs(30);

fn answer(text: &str) -> TurnEnd {
    TurnEnd::Answer(vec![said(text)])
}

fn stopped(partial: &str) -> TurnEnd {
    TurnEnd::Stopped(vec![said(partial)])
}

fn said(text: &str) -> NewMessage {
    let model = Some(Model::new("small").unwrap());
    NewMessage::answer(Content::text(text).unwrap(), model)
}

fn failed(why: &str) -> TurnEnd {
    TurnEnd::Failed(why.to_owned())
}

fn script(script: &str, limits: CommandLimits) -> Command {
    shell(&format!("{PART}{MESSAGE}{script}"), limits)
}

async fn end_of(command: &Command, question: &str, stage: &Arc<Stage>) -> TurnEnd {
    let end = command.turn(turn(question), stage.clone());
    timeout(WAIT_MAX + END_MAX, end).await.expect("the turn did not end")
}

/// Runs a script's turn to its end.
async fn run(text: &str, limits: CommandLimits) -> TurnEnd {
    end_of(&script(text, limits), "?", &Stage::new()).await
}

fn start(text: &str, limits: CommandLimits, stage: &Arc<Stage>) -> JoinHandle<TurnEnd> {
    let (command, stage) = (script(text, limits), Arc::clone(stage));
    tokio::spawn(async move { command.turn(turn("?"), stage).await })
}

async fn joined(turn: JoinHandle<TurnEnd>) -> TurnEnd {
    timeout(WAIT_MAX, turn).await.expect("the turn did not end").unwrap()
}

#[tokio::test]
async fn parts_are_published_and_the_message_is_the_answer() {
    let stage = Stage::new();
    let command = script("part one; echo; part ' two'; message 'one two'", limits());
    assert_eq!(end_of(&command, "?", &stage).await, answer("one two"));
    assert_eq!(stage.texts(), ["one", " two"]);
}

#[tokio::test]
async fn last_line_needs_no_line_break() {
    let end = run(r#"printf '{"type":"message","content":"done"}'"#, limits()).await;
    assert_eq!(end, answer("done"));
}

#[tokio::test]
async fn example_of_the_documentation_works() {
    let stage = Stage::new();
    let command = shell(include_str!("../../src/command/example.sh"), limits());
    let TurnEnd::Answer(answer) = end_of(&command, "Who keeps the roll?", &stage).await else {
        panic!("the example gave no answer");
    };
    let text = answer[0].content.to_text();
    assert_eq!(stage.texts().concat(), text);
    let bytes: usize = text.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
    assert!(bytes > "Who keeps the roll?".len(), "{text}");
}

#[tokio::test]
async fn prompt_arrives_as_one_json_document() {
    // Escaped once more, the document is the text of the message.
    let command = script(r#"message "$(sed -e 's/\\/\\\\/g' -e 's/"/\\"/g')""#, limits());
    let end = end_of(&command, "say \"hi\"\nand é", &Stage::new()).await;
    let TurnEnd::Answer(answer) = end else { panic!("{end:?}") };
    let prompt: serde_json::Value = serde_json::from_str(&answer[0].content.to_text()).unwrap();
    let expected = serde_json::json!({
        "chat_id": "00000000-0000-0000-0000-000000000001",
        "owner_id": "00000000-0000-0000-0000-000000000002",
        "model": "small",
        "messages": [{
            "id": 7,
            "role": "user",
            "content": [{ "type": "text", "text": "say \"hi\"\nand é" }],
            "model": null,
            "created_at": "1970-01-01T00:00:00Z",
        }],
    });
    assert_eq!(prompt, expected);
}

#[tokio::test]
async fn program_that_reads_no_prompt_still_answers() {
    let large = "x".repeat(400_000);
    for text in ["message done", "exec <&-; part closed; message done", "sleep 0.1; message done"] {
        let end = end_of(&script(text, limits()), &large, &Stage::new()).await;
        assert_eq!(end, answer("done"), "{text}");
    }
}

#[tokio::test]
async fn large_prompt_is_read_while_the_answer_is_written() {
    let large = "x".repeat(400_000);
    let text = r#"
        i=0; while [ $i -lt 3000 ]; do part "a piece of some length, so that the pipe fills"; i=$((i+1)); done
        [ $(wc -c) -gt 400000 ] && message done
    "#;
    let stage = Stage::new();
    assert_eq!(end_of(&script(text, limits()), &large, &stage).await, answer("done"));
    assert_eq!(stage.texts().len(), 3000);
}

#[tokio::test]
async fn stop_ends_the_group_and_keeps_what_was_said() {
    for cause in [StopCause::Interrupted, StopCause::Lost, StopCause::Fenced, StopCause::Shutdown] {
        let stage = Stage::new();
        // Longer than the test waits: only SIGTERM can end it in time.
        let limits = CommandLimits { stop_grace: 2 * WAIT_MAX, ..limits() };
        let turn = start("part $$; sleep 1000 & part $!; wait", limits, &stage);
        let pids = stage.texts_of(2).await;
        assert!(pids.iter().all(|pid| runs(pid)));
        stage.stop(cause);
        assert_eq!(joined(turn).await, stopped(&pids.concat()));
        assert!(!exists(&pids[0]), "the leader is a zombie");
        gone(&pids[1]).await;
    }
}

#[tokio::test]
async fn turn_that_is_stopped_before_it_begins_starts_nothing() {
    let stage = Stage::new();
    stage.stop(StopCause::Interrupted);
    // A start would fail.
    let program = PathBuf::from("/nowhere/answer");
    let command = Command { program, args: vec![], limits: limits() };
    assert_eq!(end_of(&command, "?", &stage).await, TurnEnd::Stopped(vec![]));
}

#[tokio::test]
async fn stop_without_a_part_has_no_partial_answer() {
    let stage = Stage::new();
    let folder = std::env::temp_dir().join(format!("musterbeat-{}", uuid::Uuid::now_v7()));
    let begun = folder.with_extension("begun");
    let turn = start(&format!("echo > {}; sleep 1000", begun.display()), limits(), &stage);
    let come = async {
        while !begun.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(WAIT_MAX, come).await.expect("the script did not begin");
    std::fs::remove_file(&begun).unwrap();
    stage.stop(StopCause::Interrupted);
    assert_eq!(joined(turn).await, TurnEnd::Stopped(vec![]));
}

#[tokio::test]
async fn program_that_ignores_the_signal_is_killed_after_the_grace() {
    let stage = Stage::new();
    let grace = Duration::from_millis(300);
    let text = "trap '' TERM; part $$; sleep 1000 & part $!; wait; part late; wait";
    let turn = start(text, CommandLimits { stop_grace: grace, ..limits() }, &stage);
    let pids = stage.texts_of(2).await;
    let began = Instant::now();
    stage.stop(StopCause::Shutdown);
    assert_eq!(joined(turn).await, stopped(&pids.concat()));
    assert!(began.elapsed() >= grace, "{:?}", began.elapsed());
    assert!(!exists(&pids[0]), "the leader is a zombie");
    gone(&pids[1]).await;
}

#[tokio::test]
async fn grace_is_for_cleaning_up_and_what_is_said_then_is_discarded() {
    let stage = Stage::new();
    // More than a pipe holds: whoever cleans up is not held up by what nobody reads.
    let text = "trap 'yes | head -c 200000; echo > $file; exit' TERM; part said; while :; do sleep 0.02; done";
    let file = std::env::temp_dir().join(format!("musterbeat-{}", uuid::Uuid::now_v7()));
    let text = format!("file={}; {text}", file.display());
    let turn = start(&text, CommandLimits { stop_grace: WAIT_MAX, ..limits() }, &stage);
    stage.texts_of(1).await;
    stage.stop(StopCause::Interrupted);
    assert_eq!(joined(turn).await, stopped("said"));
    std::fs::remove_file(&file).expect("the program was cut off while it cleaned up");
    assert_eq!(stage.texts(), ["said"]);
}

#[tokio::test]
async fn turn_that_takes_too_long_fails() {
    let stage = Stage::new();
    let limits = CommandLimits { time_max: Duration::from_millis(300), ..limits() };
    let end = end_of(&script("part $$; sleep 1000", limits), "?", &stage).await;
    assert_eq!(end, failed("/bin/sh: it took longer than 300ms and was stopped"));
    // A slow machine may not have come to it.
    for pid in stage.texts() {
        assert!(!exists(&pid), "the leader is a zombie");
    }
}

#[tokio::test]
async fn endless_output_is_refused_at_its_limit() {
    let limits = CommandLimits { answer_bytes_max: 100_000, ..limits() };
    let stage = Stage::new();
    let text = r#"exec yes '{"type":"part","part":{"type":"text","text":"more"}}'"#;
    let end = end_of(&script(text, limits), "?", &stage).await;
    assert_eq!(end, failed("/bin/sh: line 1887 takes its output over 100000 bytes"));
    assert_eq!(stage.texts().len(), 1886);
    let end = end_of(&script("exec yes ''", limits), "?", &stage).await;
    assert_eq!(end, failed("/bin/sh: line 100001 takes its output over 100000 bytes"));
}

#[tokio::test]
async fn endless_output_does_not_keep_a_turn_from_its_stop() {
    let stage = Stage::new();
    let limits = CommandLimits { answer_bytes_max: usize::MAX, ..limits() };
    let turn = start("part one; exec yes ''", limits, &stage);
    stage.texts_of(1).await;
    stage.stop(StopCause::Interrupted);
    assert_eq!(joined(turn).await, stopped("one"));
}

#[tokio::test]
async fn overlong_line_is_refused_at_its_limit() {
    let limits = CommandLimits { line_bytes_max: 1000, ..limits() };
    let end = run("part one; cat /dev/zero", limits).await;
    assert_eq!(end, failed("/bin/sh: line 2 of its output has more than 1000 bytes"));
}

#[tokio::test]
async fn output_that_is_not_understood_names_its_line() {
    let check = async |text: &str, expected: &str| {
        assert_eq!(run(text, limits()).await, failed(expected), "{text}");
    };
    check(
        "part one; echo; echo hello; sleep 1000",
        "/bin/sh: line 3 of its output is not understood: expected value at column 1",
    )
    .await;
    check(
        r#"echo '{"type":"tool"}'; sleep 1000"#,
        "/bin/sh: line 1 of its output is not understood: \
         unknown variant `tool`, expected `part` or `message` at column 14",
    )
    .await;
    check(r"printf '\377\n'; sleep 1000", "/bin/sh: line 1 of its output is not UTF-8").await;
    check(
        r#"part '\u0000'; sleep 1000"#,
        "/bin/sh: line 1 of its output has text with a NUL character, which cannot be stored",
    )
    .await;
    check(
        "message one; part two; sleep 1000",
        "/bin/sh: line 2 of its output comes after the final message",
    )
    .await;
    check(
        "message one; message two",
        "/bin/sh: line 2 of its output comes after the final message",
    )
    .await;
}

#[tokio::test]
async fn answer_without_a_message_fails() {
    let expected = failed("/bin/sh: it ended without a line of type `message`");
    for text in ["true", "part one", "exec >&-"] {
        assert_eq!(run(text, limits()).await, expected, "{text}");
    }
}

#[tokio::test]
async fn program_that_fails_is_quoted() {
    let check = async |text: &str, expected: &str| {
        assert_eq!(run(text, limits()).await, failed(expected), "{text}");
    };
    check(
        "message done; echo first >&2; echo 'no such model' >&2; echo >&2; exit 3",
        "/bin/sh: it failed with exit status 3: no such model",
    )
    .await;
    check("exit 4", "/bin/sh: it failed with exit status 4 and wrote no error").await;
    // The line that it was about is no flaw of its own.
    check(
        r#"printf '{"type":"mess'; kill -9 $$"#,
        "/bin/sh: it failed with signal 9 and wrote no error",
    )
    .await;
    let limits = CommandLimits { stderr_line_bytes_max: 5, stderr_lines_max: 1, ..limits() };
    let end = run("yes | head -c 300000 >&2; printf 'the end' >&2; exit 1", limits).await;
    assert_eq!(end, failed("/bin/sh: it failed with exit status 1: the e…"));
}

#[tokio::test]
async fn what_a_program_leaves_behind_is_killed_and_holds_nothing_up() {
    let stage = Stage::new();
    // The grandchild holds all three streams open; were it waited for, the turn would not end.
    let limits = CommandLimits { stop_grace: 2 * WAIT_MAX, ..limits() };
    let command = script("sleep 1000 & part $!; message done", limits);
    assert_eq!(end_of(&command, "?", &stage).await, answer("done"));
    gone(&stage.texts()[0]).await;
}

#[tokio::test]
async fn open_output_outside_the_group_holds_a_turn_up_for_the_grace_only() {
    let stage = Stage::new();
    // The substitution ends once the grandchild has a session of its own and holds the output.
    let text = r#"
        exec 4>&1
        : $(setsid sh -c 'echo $0 | sed s/PID/$$/ >&4; exec sleep 1000 >&4' \
            '{"type":"part","part":{"type":"text","text":"PID"}}' &)
        message done
    "#;
    let limits = CommandLimits { stop_grace: Duration::from_millis(300), ..limits() };
    assert_eq!(end_of(&script(text, limits), "?", &stage).await, answer("done"));
    let escaped = stage.texts().remove(0);
    assert!(runs(&escaped), "the test needs a process that gets away");
    let escaped = nix::unistd::Pid::from_raw(escaped.parse().unwrap());
    nix::sys::signal::kill(escaped, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn dropped_turn_kills_the_group() {
    let stage = Stage::new();
    let turn = start("trap '' TERM; part $$; sleep 1000 & part $!; wait; wait", limits(), &stage);
    let pids = stage.texts_of(2).await;
    turn.abort();
    assert!(turn.await.unwrap_err().is_cancelled());
    for pid in pids {
        gone(&pid).await;
    }
}

#[tokio::test]
async fn program_that_cannot_be_started_fails_with_the_remedy() {
    let check = async |program: PathBuf, expected: &str| {
        let command = Command { program, args: vec![], limits: limits() };
        assert_eq!(end_of(&command, "?", &Stage::new()).await, failed(expected));
    };
    check(
        PathBuf::from("/nowhere/answer"),
        "/nowhere/answer: it or the interpreter that its first line names is not there; \
         name a program by its path, or one that `PATH` leads to",
    )
    .await;
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    check(
        PathBuf::from(manifest),
        &format!("{manifest}: it may not be executed; make it executable with `chmod +x`"),
    )
    .await;
}

#[tokio::test]
async fn secrets_of_the_server_are_not_inherited() {
    const NAME: &str = "command::secrets_of_the_server_are_not_inherited";
    if std::env::var_os("MUSTERBEAT_CLUSTER_SECRET").is_some() {
        let text = "message \"[$MUSTERBEAT_CLUSTER_SECRET$DATABASE_URL] $KEY_OF_THE_PROGRAM\"";
        assert_eq!(run(text, limits()).await, answer("[] kept"));
        return;
    }
    // The environment of a process with threads cannot be changed: this test runs in another.
    let mut again = tokio::process::Command::new(std::env::current_exe().unwrap());
    again.args([NAME, "--exact"]).kill_on_drop(true);
    again.env("MUSTERBEAT_CLUSTER_SECRET", "secret").env("DATABASE_URL", "secret");
    again.env("KEY_OF_THE_PROGRAM", "kept");
    let output = timeout(WAIT_MAX, again.output()).await.expect("the test did not end").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
