//! A replica in a process of its own.

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::Client;

/// Returns the binary, which sees no setting of whoever runs the tests.
pub(crate) fn musterbeat(folder: &Path) -> Command {
    musterbeat_at(folder, "127.0.0.1:0")
}

/// Returns the binary, to listen on an address that is known before its start.
pub(crate) fn musterbeat_at(folder: &Path, listen: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_musterbeat"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("MUSTERBEAT_") && name != "MUSTERBEAT_POSTGRES" {
            command.env_remove(name);
        }
    }
    // A settings file of the working folder is nobody's here.
    command.current_dir(folder).env("MUSTERBEAT_LISTEN", listen);
    command
}

/// A server that listens; killed when dropped.
pub(crate) struct Replica {
    child: Child,
    /// Open to its end: a server that prints to nobody panics.
    stdout: Lines<BufReader<ChildStdout>>,
    pub(crate) client: Client,
    pub(crate) token: Option<String>,
}

impl Replica {
    /// Starts `command` and waits until it announces itself.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_logged(command, Stdio::null())
    }

    /// Starts `command`, which writes its log to `log`, and waits until it announces itself.
    pub(crate) fn start_logged(command: &mut Command, log: impl Into<Stdio>) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        // In place before anything can panic, so that the process never outlives its test.
        let nobody = Client::new(String::new(), None);
        let mut replica = Self { child, stdout, client: nobody, token: None };
        // A token is shown by a first start without `--dev` only; the API comes after it.
        let lines = replica.stdout.by_ref().map(Result::unwrap);
        let announced: Vec<String> = lines.take_while(|line| !line.contains("  API ")).collect();
        let after = |word: &str| {
            let told = announced.iter().find_map(|line| line.split_once(word));
            told.map(|(_, rest)| rest.trim().to_owned())
        };
        let url = after("musterbeat listens on").expect("the server announces itself");
        replica.token = after("  token ")
            .and_then(|token| token.split(' ').next().map(str::to_owned))
            .filter(|word| word.starts_with("mb_"));
        replica.client = Client::new(url, replica.token.clone());
        replica
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Says after its end whether it ended well.
    pub(crate) fn ended_well(&mut self) -> bool {
        self.child.wait().unwrap().success()
    }

    /// Ends the process without a word, as the kernel does when memory runs out.
    pub(crate) fn kill(mut self) -> Option<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.token.take()
    }

    pub(crate) fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert!(self.ended_well());
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
