//! Those who watch a few of the agents, and note what they are told.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::super::super::replica::Replica;
use super::super::fleet::{Fleet, Outcome};
use super::super::listener::{Listener, address};
use super::super::mark;

/// Agents that are watched, whose reports come at as many places of the interval.
const WATCHED: usize = 10;

/// A watcher is told at most once a second; after so long it was told the last.
const CALM: Duration = Duration::from_secs(2);

/// What a watcher was told: of which agent, up to which of its reports, and when.
pub(super) struct Told {
    agent: usize,
    round: u64,
    at: Instant,
}

/// Those who watch.
pub(super) struct Audience {
    told: mpsc::UnboundedReceiver<Result<Told>>,
    listeners: JoinSet<()>,
}

impl Audience {
    /// Has one follow each of a few agents.
    pub(super) async fn gather(replica: &Replica, fleet: &Fleet, token: &str) -> Result<Self> {
        let address = address(replica)?;
        let (tell, told) = mpsc::unbounded_channel();
        let mut listeners = JoinSet::new();
        for (number, agent) in fleet.agents.iter().enumerate().take(WATCHED) {
            let mut listener = Listener::open(address, agent.id, Some(token)).await?;
            let tell = tell.clone();
            listeners.spawn(async move {
                loop {
                    let told = match listener.next().await {
                        Ok(Some(text)) => round(&text).map(|round| Ok((round, Instant::now()))),
                        Ok(None) => return,
                        Err(error) => Some(Err(error)),
                    };
                    let told =
                        told.map(|told| told.map(|(round, at)| Told { agent: number, round, at }));
                    if told.is_some_and(|told| tell.send(told).is_err()) {
                        return;
                    }
                }
            });
        }
        Ok(Self { told, listeners })
    }

    /// Returns what they were told, in its order, once the last second's has come.
    pub(super) async fn end(mut self) -> Result<Vec<Told>> {
        sleep(CALM).await;
        self.listeners.abort_all();
        let mut all = Vec::new();
        while let Ok(told) = self.told.try_recv() {
            all.push(told?);
        }
        Ok(all)
    }
}

/// Returns the oldest report of which an event tells a value; `None` when it tells none.
fn round(event: &str) -> Option<u64> {
    let words = mark(0);
    let (before, _) = words.split_once(|letter: char| letter.is_ascii_digit())?;
    let numbers = event.split(before).skip(1);
    numbers.filter_map(|rest| rest.split(' ').next()?.parse().ok()).min()
}

/// Returns the milliseconds from each answer until its agent's watcher knew, and how many
/// watchers never did.
pub(super) fn lateness(outcomes: &[Outcome], told: &[Told]) -> (Vec<f64>, usize) {
    let watched = |outcome: &&Outcome| outcome.agent < WATCHED && outcome.answer.is_ok();
    let (mut late_millis, mut untold) = (Vec::new(), 0);
    for outcome in outcomes.iter().filter(watched) {
        let knows = |told: &&Told| told.agent == outcome.agent && outcome.round <= told.round;
        match told.iter().find(knows) {
            Some(told) => {
                let late = told.at.saturating_duration_since(outcome.answered);
                late_millis.push(late.as_secs_f64() * 1_000.0);
            }
            None => untold += 1,
        }
    }
    (late_millis, untold)
}

#[cfg(test)]
mod tests {
    use super::super::super::fleet::Answer;
    use super::super::super::value;
    use super::*;

    #[test]
    fn event_tells_of_its_oldest_value() {
        let event = |rounds: [u64; 2]| {
            let [one, other] = rounds.map(|round| value(7, 3, round));
            format!(r#"{{"metadata":[{{"value":"{one}"}},{{"value":"{other}"}}]}}"#)
        };
        assert_eq!(round(&event([12, 11])), Some(11));
        assert_eq!(round(r#"{"metadata":[{"value":null}]}"#), None);
    }

    #[test]
    fn later_report_covers_those_before_it() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let told =
            [Told { agent: 1, round: 9, at: at(1) }, Told { agent: 0, round: 2, at: at(50) }];
        let outcomes = [outcome(1, at(10)), outcome(2, at(40)), outcome(3, at(60))];
        let (late, untold) = lateness(&outcomes, &told);
        assert_eq!(late.iter().map(|late| late.round()).collect::<Vec<_>>(), [40.0, 10.0]);
        assert_eq!(untold, 1);
    }

    fn outcome(round: u64, answered: Instant) -> Outcome {
        Outcome { agent: 0, round, sent: answered, answered, answer: Ok(Answer::default()) }
    }
}
