//! A replica in a process of its own, which is this test's binary, started again.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::call::{answers, open_calls};
use musterbeat_core::message::{Content, Message, NewMessage, Part, Role};
use musterbeat_core::port::{ChatContext, ChatRunner, ChatTurn, TurnEnd};
use musterbeat_engine::shutdown::Shutdown;
use musterbeat_server::serve::Server;
use musterbeat_server::settings::Settings;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::script::{Progress, Question, UNKNOWN};

/// Names the database of a replica; whoever lists the tests has set none.
const DATABASE: &str = "MUSTERBEAT_TEST_SIMULATION_DATABASE";

/// Longest pause before a word of an answer.
const WORD_TIME_MAX: Duration = Duration::from_millis(100);

/// Longest run of the tool.
const TOOL_TIME_MAX: Duration = Duration::from_millis(250);

/// How long a lease lasts: what is frozen for longer loses its runs.
pub(crate) const LEASE: Duration = Duration::from_secs(4);

#[test]
#[ignore = "a process of the simulation, which starts it"]
fn replica() {
    let Ok(url) = std::env::var(DATABASE) else { return };
    // It never outlives the test, however that ends.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ended = runtime.block_on(serve(url));
    runtime.shutdown_background();
    std::process::exit(i32::from(ended.is_err()));
}

async fn serve(url: String) -> anyhow::Result<()> {
    let shutdown = Shutdown::default();
    let mut terminate = signal(SignalKind::terminate())?;
    let server =
        Server::start_with_runner(settings(url), Arc::new(Scripted), shutdown.clone()).await?;
    println!("listens on http://{}", server.address());
    tokio::spawn(async move {
        while terminate.recv().await.is_some() {
            shutdown.request();
        }
    });
    server.ended().await
}

fn settings(url: String) -> Settings {
    let many = const { std::num::NonZeroU32::new(1_000_000).unwrap() };
    let address = free_address();
    Settings {
        listen: address,
        // Followers elsewhere get the parts by a relay.
        advertise_url: Some(format!("http://{address}")),
        cluster_secret: Some("a secret of the simulation".into()),
        database_url: Some(url.into()),
        dev: true,
        beat_interval: Duration::from_secs(1),
        lease_ttl: LEASE,
        fence_margin: Duration::from_secs(1),
        // Most turns end in a drain; some outlast it and are handed over.
        drain_timeout: Duration::from_millis(1_200),
        notify_silence: Duration::from_secs(2),
        notify_probe_timeout: Duration::from_secs(1),
        connections_per_address: many,
        rate_per_second: many,
        rate_burst: many,
        ..Settings::default()
    }
}

/// Returns an address to listen on, which must be known before it is advertised.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A server that listens; killed when dropped.
pub(crate) struct Replica {
    child: Child,
    /// Open for as long as the replica is to live.
    _stdin: ChildStdin,
    /// Open, too: a server that prints to nobody panics.
    _stdout: BufReader<ChildStdout>,
    pub(crate) url: String,
}

impl Replica {
    /// Starts a replica on a database; `None` when it ended before it was up.
    pub(crate) fn start(database: &str) -> Option<Self> {
        let log = std::env::var("MUSTERBEAT_TEST_SIMULATION_LOG").is_ok();
        let stderr = if log { Stdio::inherit() } else { Stdio::null() };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["replica::replica", "--exact", "--ignored", "--nocapture"])
            .env(DATABASE, database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while stdout.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            if let Some((_, url)) = line.split_once("listens on ") {
                let url = url.trim().to_owned();
                return Some(Self { child, _stdin: stdin, _stdout: stdout, url });
            }
            line.clear();
        }
        let _ = child.wait();
        None
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers as the question says, and goes on where another replica stopped.
struct Scripted;

#[async_trait]
impl ChatRunner for Scripted {
    async fn turn(&self, turn: ChatTurn, context: Arc<dyn ChatContext>) -> TurnEnd {
        let Some(asked) = turn.prompt.iter().rposition(|message| message.role == Role::User) else {
            return TurnEnd::Failed("nothing was asked".to_owned());
        };
        let text = turn.prompt[asked].content.to_text();
        let Some(question) = Question::parse(&text) else {
            return TurnEnd::Failed(format!("{text:?} is no question"));
        };
        let said = &turn.prompt[asked + 1..];
        let progress = question.progress(said.iter().map(|said| (said.role, &said.content)));
        let resolved = match progress {
            Some(Progress::Nothing) if question.calls => look(question, &*context).await,
            Some(Progress::Called) => close(said, &*context).await,
            Some(Progress::Nothing | Progress::Resolved) => Ok(()),
            Some(Progress::Partial | Progress::Whole) | None => {
                Err(TurnEnd::Failed(format!("to answer {text:?} after {said:?}")))
            }
        };
        match resolved {
            Ok(()) => speak(question, &*context).await,
            Err(end) => end,
        }
    }
}

/// Calls the tool, and stores what it says.
async fn look(question: Question, context: &dyn ChatContext) -> Result<(), TurnEnd> {
    step(Role::Assistant, question.call(), context).await?;
    if pause(TOOL_TIME_MAX, context).await {
        // What was said while a call is open is kept, after an answer to the call.
        let partial = question.number.is_multiple_of(2).then(|| question.first(1));
        return Err(TurnEnd::Stopped(partial.as_deref().map(spoken).into_iter().collect()));
    }
    step(Role::Tool, question.result(), context).await
}

/// Answers for a tool whose caller has gone.
async fn close(said: &[Message], context: &dyn ChatContext) -> Result<(), TurnEnd> {
    let open = open_calls(said.iter().map(|said| &said.content));
    written(context.step(vec![answers(open, UNKNOWN)]).await)
}

async fn step(role: Role, part: Part, context: &dyn ChatContext) -> Result<(), TurnEnd> {
    let content = Content::produced_parts(vec![part]).unwrap();
    let message = NewMessage { role, ..NewMessage::answer(content, None) };
    written(context.step(vec![message]).await)
}

fn written(step: Result<(), musterbeat_core::port::StepError>) -> Result<(), TurnEnd> {
    use musterbeat_core::port::StepError;
    step.map_err(|error| match error {
        StepError::Fenced | StepError::Store(_) => TurnEnd::Stopped(vec![]),
        error => TurnEnd::Failed(format!("a step was not taken: {error}")),
    })
}

async fn speak(question: Question, context: &dyn ChatContext) -> TurnEnd {
    for place in 0..question.words {
        if question.fails && place == question.words / 2 {
            return TurnEnd::Failed(question.error());
        }
        if pause(WORD_TIME_MAX, context).await {
            let said = (place > 0).then(|| spoken(&question.first(place)));
            return TurnEnd::Stopped(said.into_iter().collect());
        }
        let part = Part::Text { text: question.word(place) };
        context.part(serde_json::to_vec(&part).unwrap());
    }
    TurnEnd::Answer(vec![spoken(&question.first(question.words))])
}

fn spoken(words: &str) -> NewMessage {
    NewMessage::answer(Content::produced(words), None)
}

/// Waits some time; says whether it was cut short.
async fn pause(max: Duration, context: &dyn ChatContext) -> bool {
    tokio::select! {
        biased;
        _ = context.stopped() => true,
        () = tokio::time::sleep(max.mul_f64(rand::random())) => false,
    }
}
