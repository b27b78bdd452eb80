//! When a connection that says nothing is asked, and when it is given up.
//!
//! Any notice shows that the path is whole, whoever sent it. So one heartbeat a period serves
//! every process of a cluster: the first that finds it too silent sends it.

use std::time::Duration;

use tokio::time::Instant;

/// How long silence may last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PulseTimes {
    /// Silence after which the connection is asked for a sign.
    pub(crate) silence: Duration,
    /// Time in which the sign must come.
    pub(crate) answer: Duration,
}

/// The pulse of one connection.
#[derive(Debug)]
pub(crate) struct Pulse {
    times: PulseTimes,
    deadline: Instant,
    asked: bool,
}

/// What to do at the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Ask for a sign of life.
    Ask,
    /// None came: give the connection up.
    GiveUp,
}

impl Pulse {
    /// Begins with a question that is put at `now`.
    pub(crate) fn new(times: PulseTimes, now: Instant) -> Self {
        Self { times, deadline: now + times.answer, asked: true }
    }

    /// Returns when [`due`](Self::due) should be called.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// A notice arrived; `jitter`, even between 0 and 1, spreads who asks first.
    pub(crate) fn heard(&mut self, now: Instant, jitter: f64) {
        self.asked = false;
        self.deadline = now + self.times.silence.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
    }

    /// The deadline has come.
    pub(crate) fn due(&mut self, now: Instant) -> Beat {
        let beat = if self.asked { Beat::GiveUp } else { Beat::Ask };
        self.asked = true;
        self.deadline = now + self.times.answer;
        beat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: PulseTimes =
        PulseTimes { silence: Duration::from_secs(10), answer: Duration::from_secs(5) };

    #[test]
    fn cut_is_noticed_within_silence_and_answer() {
        let start = Instant::now();
        for jitter in [0.0, 0.3, 1.0, 7.0] {
            let mut pulse = Pulse::new(TIMES, start);
            pulse.heard(start, jitter);
            let asked = pulse.deadline();
            assert_eq!(pulse.due(asked), Beat::Ask);
            let given_up = pulse.deadline();
            assert_eq!(pulse.due(given_up), Beat::GiveUp);
            assert!(given_up - start <= TIMES.silence + TIMES.answer);
            assert!(TIMES.silence / 2 <= asked - start);
        }
    }

    #[test]
    fn notice_answers_the_question() {
        let start = Instant::now();
        let mut pulse = Pulse::new(TIMES, start);
        pulse.heard(start, 1.0);
        assert_eq!(pulse.due(pulse.deadline()), Beat::Ask);
        pulse.heard(pulse.deadline(), 1.0);
        assert_eq!(pulse.due(pulse.deadline()), Beat::Ask);
    }

    #[test]
    fn new_connection_must_show_a_sign_at_once() {
        let start = Instant::now();
        let mut pulse = Pulse::new(TIMES, start);
        assert_eq!(pulse.deadline() - start, TIMES.answer);
        assert_eq!(pulse.due(pulse.deadline()), Beat::GiveUp);
    }
}
