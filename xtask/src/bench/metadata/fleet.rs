//! Agents that report over HTTP, each in its own rhythm.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};
use uuid::Uuid;

use super::super::replica::client;
use super::{key, value};

/// Pause before what was refused for its rate is sent again.
const PAUSE: Duration = Duration::from_millis(250);

/// The golden ratio's fraction: its multiples fill an interval evenly, however many there are.
const SPREAD: f64 = 0.618_033_988_749_895;

/// How many agents report how much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) agents: u32,
    pub(super) keys: u32,
    /// Time from one report of an agent to the next.
    pub(super) interval: Duration,
}

/// A server, and who asks it.
#[derive(Clone)]
pub(super) struct Api {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

impl Api {
    /// Speaks to the server at `url`; without a token, to one in `dev`.
    pub(super) fn new(url: &str, token: Option<String>) -> Result<Self> {
        Ok(Self { http: client()?, url: format!("{}/api/v1", url.trim_end_matches('/')), token })
    }

    async fn create(&self, name: &str) -> Result<Agent> {
        let request = self.http.post(format!("{}/agents", self.url)).json(&json!({ "name": name }));
        let created: Value = self.send(request).await?.json().await.context("no JSON came")?;
        let text = |field: &str| created[field].as_str().map(str::to_owned);
        let id = text("id").and_then(|id| id.parse().ok());
        let agent = id.zip(text("token")).map(|(id, token)| Agent { id, token });
        agent.context("a created agent has no id or no token")
    }

    async fn define(&self, agent: Uuid, load: Load) -> Result<()> {
        let seconds = load.interval.as_secs().max(1);
        let definition = |number| json!({ "key": key(number), "interval_seconds": seconds });
        let definitions: Vec<_> = (0..load.keys as usize).map(definition).collect();
        let url = format!("{}/agents/{agent}/metadata/definitions", self.url);
        self.send(self.http.put(url).json(&json!({ "definitions": definitions }))).await?;
        Ok(())
    }

    async fn delete(&self, agent: Uuid) -> Result<()> {
        self.send(self.http.delete(format!("{}/agents/{agent}", self.url))).await?;
        Ok(())
    }

    /// Sends a request of the user until its rate is not too high.
    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        loop {
            let again = request.try_clone().context("a request cannot be sent twice")?;
            let answer = again.send().await.with_context(|| {
                format!("no answer from {}: does a server listen there?", self.url)
            })?;
            match answer.status() {
                StatusCode::TOO_MANY_REQUESTS => sleep(PAUSE).await,
                status if status.is_success() => return Ok(answer),
                status => bail!("{}: {status} {}", self.url, told(answer).await),
            }
        }
    }

    /// Returns what reports as `agent`.
    fn reporter(&self, number: usize, agent: &Agent, load: Load) -> Reporter {
        let (http, token) = (self.http.clone(), agent.token.clone());
        let url = format!("{}/agents/{}/metadata", self.url, agent.id);
        Reporter { http, url, token, number, keys: load.keys as usize }
    }
}

/// An agent that was created.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    pub(super) id: Uuid,
    token: String,
}

/// Agents of one server.
pub(super) struct Fleet {
    api: Api,
    pub(super) load: Load,
    pub(super) agents: Vec<Agent>,
}

impl Fleet {
    pub(super) fn new(api: Api, load: Load) -> Self {
        Self { api, load, agents: Vec::new() }
    }

    /// Creates all agents, and says what each is to report.
    pub(super) async fn gather(&mut self) -> Result<()> {
        let bar = progress(u64::from(self.load.agents), "creating agents");
        for number in 0..self.load.agents {
            let agent = self.api.create(&format!("bench agent {number}")).await?;
            let id = agent.id;
            // Known before anything else can fail, so that it is deleted at the end.
            self.agents.push(agent);
            self.api.define(id, self.load).await?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Has all agents report, spread over the interval.
    pub(super) fn start(&self) -> Reports {
        let (tell, outcomes) = mpsc::unbounded_channel();
        let (end, ended) = watch::channel(());
        let (mut tasks, start, interval) = (JoinSet::new(), Instant::now(), self.load.interval);
        let mut place = 0.0_f64;
        for (number, agent) in self.agents.iter().enumerate() {
            let reporter = Arc::new(self.api.reporter(number, agent, self.load));
            let first = start + interval.mul_f64(place);
            place = (place + SPREAD).fract();
            tasks.spawn(keep_reporting(reporter, first, interval, tell.clone(), ended.clone()));
        }
        Reports { outcomes, end: Some(end), tasks }
    }

    /// Deletes all agents with what they reported.
    pub(super) async fn dismiss(&mut self) -> Result<()> {
        let bar = progress(self.agents.len() as u64, "deleting agents");
        while let Some(agent) = self.agents.last() {
            self.api.delete(agent.id).await?;
            self.agents.pop();
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }
}

/// Shows how far something long has come.
pub(super) fn progress(steps: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}")
        .expect("the template is a constant that parses");
    ProgressBar::new(steps).with_style(style).with_message(what)
}

/// Agents at work; they break off when this is dropped.
#[cfg_attr(not(feature = "product"), expect(dead_code, reason = "for who ends them in order"))]
pub(super) struct Reports {
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    end: Option<watch::Sender<()>>,
    tasks: JoinSet<()>,
}

impl Reports {
    /// Waits for what became of a report; `None` when all have ended.
    pub(super) async fn next(&mut self) -> Option<Outcome> {
        self.outcomes.recv().await
    }

    /// Has nobody begin another report; returns what became of those that nobody has taken yet.
    #[cfg(feature = "product")]
    pub(super) async fn end(mut self) -> Result<Vec<Outcome>> {
        self.end = None;
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("an agent's task broke off")?;
        }
        let mut left = Vec::new();
        while let Some(outcome) = self.next().await {
            left.push(outcome);
        }
        Ok(left)
    }
}

/// What became of a report.
#[cfg_attr(not(feature = "product"), expect(dead_code, reason = "for who looks at each agent"))]
pub(super) struct Outcome {
    /// The agent's place in its fleet.
    pub(super) agent: usize,
    /// Which of its reports it was, the first is 1.
    pub(super) round: u64,
    pub(super) sent: Instant,
    pub(super) answered: Instant,
    pub(super) answer: Result<Answer>,
}

/// What a server said to a report: how many keys it took, altered or did not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) accepted: u64,
    pub(super) changed: u64,
    pub(super) refused: u64,
}

async fn keep_reporting(
    reporter: Arc<Reporter>,
    first: Instant,
    interval: Duration,
    tell: mpsc::UnboundedSender<Outcome>,
    mut ended: watch::Receiver<()>,
) {
    let mut due = first;
    for round in 1.. {
        tokio::select! {
            () = sleep_until(due.into()) => {}
            _ = ended.changed() => return,
        }
        let sent = Instant::now();
        let answer = reporter.report(round).await;
        let (agent, answered) = (reporter.number, Instant::now());
        if tell.send(Outcome { agent, round, sent, answered, answer }).is_err() {
            return;
        }
        // One that is late does not hurry: an agent that was slow does not report twice.
        while due <= answered {
            due += interval;
        }
    }
}

/// One agent.
struct Reporter {
    http: reqwest::Client,
    url: String,
    token: String,
    number: usize,
    keys: usize,
}

impl Reporter {
    /// Reports all keys once, and takes the answer.
    async fn report(&self, round: u64) -> Result<Answer> {
        let entry =
            |number| json!({ "key": key(number), "value": value(self.number, number, round) });
        let entries: Vec<_> = (0..self.keys).map(entry).collect();
        let request = self.http.post(&self.url).bearer_auth(&self.token).json(&entries);
        let answer = request.send().await.context("a report has no answer")?;
        if answer.status() != StatusCode::ACCEPTED {
            bail!("a report was answered {} {}", answer.status(), told(answer).await);
        }
        let answer: Value = answer.json().await.context("a report's answer is no JSON")?;
        let length = |field: &str| answer[field].as_array().map_or(0, |keys| keys.len() as u64);
        let accepted =
            answer["accepted"].as_u64().context("an answer does not say what it took")?;
        Ok(Answer { accepted, changed: length("changed"), refused: length("refused") })
    }
}

/// Returns what an answer says went wrong.
async fn told(answer: Response) -> String {
    let problem: Value = answer.json().await.unwrap_or_default();
    problem["detail"].as_str().unwrap_or_default().to_owned()
}
