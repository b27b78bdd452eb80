//! Replicas of the server: its release build, each in a process of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::Message;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::wait::until;
use crate::{postgres, workspace};

/// The binary that is measured, and the package that builds it.
const BINARY: &str = "musterbeat";
const PACKAGE: &str = "musterbeat-server";

/// Begins the line that says where a server listens.
const ANNOUNCED: &str = "musterbeat listens on ";

/// A start connects to the database, and should not take long even on a busy machine.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// How long a replica may take to answer a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Callers at once: enough to share the flush of a commit, few enough not to queue for one.
const CALLERS: usize = 16;

/// Lines of a replica's log that an error shows.
const LOG_LINES: usize = 8;

/// Where replicas are started: what runs, on which database, and where its output goes.
pub(super) struct Site {
    binary: PathBuf,
    database_url: String,
    logs: PathBuf,
    http: reqwest::Client,
}

impl Site {
    /// Builds the binary, and makes the folder `logs` for what replicas say.
    pub(super) async fn prepare(database_url: &str, logs: PathBuf) -> Result<Self> {
        postgres::say("building the server as it is released");
        let binary = build().await?;
        std::fs::create_dir_all(&logs)
            .with_context(|| format!("failed to make {}: choose another --out", logs.display()))?;
        Ok(Self { binary, database_url: database_url.to_owned(), logs, http: client()? })
    }

    /// Starts a replica with `settings`, each the name and value of a variable, and waits
    /// until it listens. It asks for no tokens.
    pub(super) async fn start(&self, name: &str, settings: &[(&str, String)]) -> Result<Replica> {
        self.launch(name, &["--dev"], settings).await
    }

    /// Starts a replica as it is set unless told otherwise; returns an admin's token, too.
    ///
    /// It must be the first one of its database that asks for tokens: only that one shows one.
    pub(super) async fn start_guarded(&self, name: &str) -> Result<(Replica, String)> {
        let replica = self.launch(name, &[], &[]).await?;
        let token = until("an admin's token is shown", START_TIMEOUT, async || {
            let said = read(&replica.log)?;
            let line = said.lines().find_map(|line| line.trim().strip_prefix("token "));
            Ok(line.and_then(|rest| rest.split_whitespace().next()).map(str::to_owned))
        })
        .await?;
        Ok((replica, token))
    }

    async fn launch(
        &self,
        name: &str,
        flags: &[&str],
        settings: &[(&str, String)],
    ) -> Result<Replica> {
        let log = self.logs.join(format!("{name}.log"));
        let unwritten = || format!("failed to write {}: choose another --out", log.display());
        let output = File::create(&log).with_context(unwritten)?;
        let errors = output.try_clone().with_context(unwritten)?;
        let mut command = Command::new(&self.binary);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("MUSTERBEAT_") {
                command.env_remove(variable);
            }
        }
        // A settings file of the working folder is nobody's here.
        command.current_dir(&self.logs).args(["--listen", "127.0.0.1:0"]).args(flags);
        command.env("MUSTERBEAT_DATABASE_URL", &self.database_url).env("HOSTNAME", name);
        command.envs(settings.iter().map(|(variable, value)| (variable, value)));
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        let child = child.with_context(|| format!("failed to start {}", self.binary.display()))?;
        let http = self.http.clone();
        // In place before anything can fail, so that the process never outlives the benchmark.
        let mut replica = Replica { name: name.to_owned(), child, url: String::new(), log, http };
        replica.url =
            until(&format!("{name} listens"), START_TIMEOUT, async || replica.announced())
                .await
                .with_context(|| replica.last_words())?;
        Ok(replica)
    }
}

/// Makes a client that speaks to replicas in the clear.
pub(super) fn client() -> Result<reqwest::Client> {
    // The crate that downloads PostgreSQL asks for rustls without a provider, and features unite.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build();
    http.context("failed to make a client for HTTP")
}

/// Builds the server without debug assertions, and returns its path.
async fn build() -> Result<PathBuf> {
    let args = ["build", "--release", "--package", PACKAGE, "--bin", BINARY];
    let mut command = workspace::cargo(args);
    command.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let shown = workspace::shown(&command);
    let output = tokio::process::Command::from(command).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("failed to start `{shown}`"))?;
    ensure!(output.status.success(), "`{shown}` failed: see its output above");
    for message in Message::parse_stream(&*output.stdout) {
        if let Message::CompilerArtifact(artifact) = message.context("cargo said no JSON")?
            && let Some(binary) = artifact.executable
        {
            return Ok(binary.into_std_path_buf());
        }
    }
    bail!("`{shown}` named no program")
}

/// A server in a process of its own; killed when dropped.
pub(super) struct Replica {
    name: String,
    child: Child,
    url: String,
    log: PathBuf,
    http: reqwest::Client,
}

impl Replica {
    /// Returns what its lease is called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process without a word, as the kernel does when memory runs out.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("failed to kill {}", self.name))?;
        self.child.wait().with_context(|| format!("failed to wait for {}", self.name))?;
        Ok(())
    }

    /// Returns where it listens.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Returns what asks this replica to create chats.
    pub(super) fn asker(&self) -> Asker {
        Asker::new(self.http.clone(), &self.url)
    }

    /// Reads the replica's metrics.
    pub(super) async fn metrics(&self) -> Result<Samples> {
        let failed = || format!("failed to read the metrics of {}", self.name);
        let answer = self.http.get(format!("{}/metrics", self.url)).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status).with_context(failed)?;
        Ok(Samples(answer.text().await.with_context(failed)?))
    }

    /// Returns the URL once the replica has announced it.
    fn announced(&mut self) -> Result<Option<String>> {
        if let Some(status) = self.child.try_wait().context("failed to ask for a child")? {
            bail!("{} ended before it listened ({status})", self.name);
        }
        let said = read(&self.log)?;
        Ok(said.lines().find_map(|line| line.strip_prefix(ANNOUNCED)).map(str::to_owned))
    }

    fn last_words(&self) -> String {
        let said = read(&self.log).unwrap_or_default();
        let lines: Vec<_> = said.lines().rev().take(LOG_LINES).collect();
        let lines: Vec<_> = lines.into_iter().rev().collect();
        format!("{} says in {}:\n{}", self.name, self.log.display(), lines.join("\n"))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.kill();
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))
}

/// Creates chats over HTTP.
#[derive(Clone)]
pub(super) struct Asker {
    http: reqwest::Client,
    url: String,
}

impl Asker {
    /// Asks the server at `url`.
    pub(super) fn new(http: reqwest::Client, url: &str) -> Self {
        Self { http, url: format!("{url}/api/v1/chats") }
    }

    /// Creates a chat that begins with `question`; returns its id once the server has answered.
    pub(super) async fn ask(&self, question: &str) -> Result<Uuid> {
        let failed = "failed to create a chat";
        let sent = self.http.post(&self.url).json(&json!({ "content": question })).send().await;
        let answer = sent.and_then(reqwest::Response::error_for_status).context(failed)?;
        let chat: Value = answer.json().await.context(failed)?;
        let id = chat["id"].as_str().context("a created chat has no id")?;
        id.parse().context("the id of a chat is none")
    }

    /// Creates `count` chats, a few at a time; returns their ids, sorted.
    pub(super) async fn ask_all(
        &self,
        count: u64,
        question: impl Fn(u64) -> String + Send + Sync + 'static,
    ) -> Result<Vec<Uuid>> {
        let (question, next) = (Arc::new(question), Arc::new(AtomicU64::new(0)));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (asker, question, next) = (self.clone(), Arc::clone(&question), Arc::clone(&next));
            callers.spawn(async move {
                let mut chats = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return anyhow::Ok(chats);
                    }
                    chats.push(asker.ask(&question(number)).await?);
                }
            });
        }
        let mut chats = Vec::new();
        while let Some(asked) = callers.join_next().await {
            chats.extend(asked.context("a caller panicked")??);
        }
        chats.sort_unstable();
        Ok(chats)
    }
}

/// Metrics as a replica shows them.
#[derive(Debug)]
pub(super) struct Samples(String);

impl Samples {
    /// Returns the sum of all samples of `name` whose labels contain `label`; none is zero.
    pub(super) fn sum(&self, name: &str, label: &str) -> f64 {
        let of_name = self.0.lines().filter_map(|line| line.strip_prefix(name));
        let samples = of_name.filter(|rest| rest.starts_with([' ', '{']) && rest.contains(label));
        samples.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Returns how many beats were answered.
    pub(super) fn beats(&self) -> f64 {
        self.sum("musterbeat_beats_total", "answered")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_over_their_labels() {
        let samples = Samples(
            "# HELP runs Runs.\nruns{kind=\"a\",end=\"x y\"} 2\nruns{kind=\"b\"} 3\nruns_lost 7\n"
                .to_owned(),
        );
        let check = |name: &str, label: &str, sum: f64| {
            assert!((samples.sum(name, label) - sum).abs() < f64::EPSILON, "{name} {label}");
        };
        check("runs", "", 5.0);
        check("runs", "kind=\"b\"", 3.0);
        check("runs_lost", "", 7.0);
        check("runs_gone", "", 0.0);
    }
}
