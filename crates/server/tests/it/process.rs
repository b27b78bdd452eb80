//! The binary, with a PostgreSQL of its own: started, killed, started again.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use musterbeat_testkit::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::PATIENCE;
use crate::replica::{Replica, musterbeat};

/// Starts a server on a PostgreSQL of its own, with quick answers.
pub(crate) fn start(data_dir: &Path) -> Replica {
    Replica::start(on_its_own(data_dir).env("MUSTERBEAT_ECHO_PACE", "1ms"))
}

/// Returns the binary, to keep its own PostgreSQL in `data_dir`.
pub(crate) fn on_its_own(data_dir: &Path) -> Command {
    let mut command = musterbeat(data_dir.parent().unwrap());
    command.arg("--data-dir").arg(data_dir);
    command
}

#[tokio::test]
async fn killed_server_leaves_nothing_that_the_next_trips_over() {
    let folder = tempfile::Builder::new().prefix("musterbeat-process-").tempdir().unwrap();
    open_to_all(folder.path());
    let first = start(&folder.path().join("data"));
    let chat = first.client.create_chat("remember me").await;
    first.client.chat_in(&chat, "waiting").await;
    let token = first.kill().expect("the first start shows a token");

    let second = start(&folder.path().join("data"));
    assert_eq!(second.token, None, "the token is shown once");
    let client = second.client.with_token(&token);
    assert_eq!(client.history(&chat).await, ["user: remember me", "assistant: remember me"]);
    second.stop();
}

#[tokio::test]
async fn server_ends_when_its_own_database_was_killed() {
    let folder = tempfile::Builder::new().prefix("musterbeat-process-").tempdir().unwrap();
    open_to_all(folder.path());
    let data_dir = folder.path().join("data");
    let mut server = start(&data_dir);
    let pid_file = std::fs::read_to_string(data_dir.join("postgres/postmaster.pid")).unwrap();
    let postgres = Pid::from_raw(pid_file.lines().next().unwrap().parse().unwrap());
    kill(postgres, Signal::SIGQUIT).unwrap();

    eventually(PATIENCE, "the server has ended", async || server.has_ended()).await;
    assert!(!server.ended_well());
}

/// A download may take minutes; whoever changes their mind need not wait for it.
#[tokio::test]
async fn start_that_was_asked_to_end_ends() {
    let folder = tempfile::Builder::new().prefix("musterbeat-process-").tempdir().unwrap();
    // A `postgres` that never answers keeps the start busy.
    let bin_dir = folder.path().join("bin");
    std::fs::create_dir(&bin_dir).unwrap();
    for program in ["postgres", "initdb"] {
        let program = bin_dir.join(program);
        write_program(&program, "#!/bin/sh\ntouch \"$0.asked\"\nexec sleep 600\n");
    }
    open_to_all(folder.path());
    std::fs::set_permissions(&bin_dir, Permissions::from_mode(0o777)).unwrap();
    let mut server = on_its_own(&folder.path().join("data"))
        .arg("--postgres")
        .arg(&bin_dir)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let asked = bin_dir.join("initdb.asked");
    eventually(PATIENCE, "the program is asked", async || asked.exists()).await;
    kill(Pid::from_raw(i32::try_from(server.id()).unwrap()), Signal::SIGINT).unwrap();
    eventually(PATIENCE, "the server has ended", async || server.try_wait().unwrap().is_some())
        .await;
}

#[tokio::test]
async fn token_is_made_beside_a_running_server() {
    let folder = tempfile::Builder::new().prefix("musterbeat-process-").tempdir().unwrap();
    open_to_all(folder.path());
    let data_dir = folder.path().join("data");
    let server = start(&data_dir);
    let output = on_its_own(&data_dir).args(["token", "--kind", "user"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let token = String::from_utf8(output.stdout).unwrap();
    let user = server.client.with_token(token.trim());
    user.create_chat("made beside it").await;
    server.stop();
}

/// Writes a program by another process: one that another test forks meanwhile would inherit a file
/// that is open here, and nobody may run what is open for writing.
pub(crate) fn write_program(path: &Path, text: &str) {
    let mut writer = Command::new("sh");
    writer.args(["-c", r#"cat >"$0" && chmod 755 "$0""#]).arg(path).stdin(Stdio::piped());
    let mut writer = writer.spawn().unwrap();
    writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}

/// Lets the user that PostgreSQL runs as reach a folder that root made.
pub(crate) fn open_to_all(folder: &Path) {
    std::fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
}
