//! The binary, with a PostgreSQL of its own: started, killed, started again.

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use musterbeat_testkit::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::{Client, PATIENCE};

/// A server in a process of its own; killed when dropped.
struct Process {
    child: Child,
    client: Client,
    token: Option<String>,
}

impl Process {
    fn start(data_dir: &Path) -> Self {
        let child = musterbeat(data_dir)
            .args(["--listen", "127.0.0.1:0"])
            .env("MUSTERBEAT_ECHO_PACE", "1ms")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // In place before anything can panic, so that the process never outlives its test.
        let mut process = Self { child, client: Client::new(String::new(), None), token: None };
        let stdout = process.child.stdout.take().unwrap();
        let mut lines = BufReader::new(stdout).lines().map(Result::unwrap);
        let mut announced = |word: &str| {
            let line = lines.find(|line| line.contains(word)).expect("the server announces itself");
            line.split_once(word).unwrap().1.trim().to_owned()
        };
        let url = announced("musterbeat listens on");
        let token = announced("  token ");
        process.token =
            token.split(' ').next().filter(|word| word.starts_with("mb_")).map(str::to_owned);
        process.client = Client::new(url, process.token.clone());
        process
    }

    /// Ends the process without a word, as the kernel does when memory runs out.
    fn kill(mut self) -> Option<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.token.take()
    }

    fn stop(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn killed_server_leaves_nothing_that_the_next_trips_over() {
    let folder = tempfile::Builder::new().prefix("musterbeat-process-").tempdir().unwrap();
    open_to_all(folder.path());
    let first = Process::start(&folder.path().join("data"));
    let chat = first.client.create_chat("remember me").await;
    first.client.chat_in(&chat, "waiting").await;
    let token = first.kill().expect("the first start shows a token");

    let second = Process::start(&folder.path().join("data"));
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
    let mut server = Process::start(&data_dir);
    let pid_file = std::fs::read_to_string(data_dir.join("postgres/postmaster.pid")).unwrap();
    let postgres = Pid::from_raw(pid_file.lines().next().unwrap().parse().unwrap());
    kill(postgres, Signal::SIGQUIT).unwrap();

    eventually(PATIENCE, "the server has ended", async || {
        server.child.try_wait().unwrap().is_some()
    })
    .await;
    assert!(!server.child.wait().unwrap().success());
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
        std::fs::write(&program, "#!/bin/sh\ntouch \"$0.asked\"\nexec sleep 600\n").unwrap();
        std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    }
    open_to_all(folder.path());
    std::fs::set_permissions(&bin_dir, Permissions::from_mode(0o777)).unwrap();
    let mut server = musterbeat(&folder.path().join("data"))
        .args(["--listen", "127.0.0.1:0", "--postgres"])
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
    let server = Process::start(&data_dir);
    let output = musterbeat(&data_dir).args(["token", "--kind", "user"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let token = String::from_utf8(output.stdout).unwrap();
    let user = server.client.with_token(token.trim());
    user.create_chat("made beside it").await;
    server.stop();
}

/// Returns the binary, which sees no setting of whoever runs the tests.
fn musterbeat(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_musterbeat"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("MUSTERBEAT_") && name != "MUSTERBEAT_POSTGRES" {
            command.env_remove(name);
        }
    }
    // A settings file of the working folder is nobody's here.
    command.current_dir(data_dir.parent().unwrap()).arg("--data-dir").arg(data_dir);
    command
}

/// Lets the user that PostgreSQL runs as reach a folder that root made.
fn open_to_all(folder: &Path) {
    std::fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
}
