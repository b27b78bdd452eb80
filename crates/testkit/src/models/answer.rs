//! What a test wants a request to be answered.

use std::time::Duration;

use serde_json::{Value, json};

use super::gate::Gate;

/// An answer, made step by step in the order in which it is to come.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub(super) steps: Vec<Step>,
    pub(super) tokens: Option<Tokens>,
    pub(super) finish_reason: Option<&'static str>,
    /// Holds it before anything is sent, its status included.
    pub(super) head: Option<Gate>,
    pub(super) refusal: Option<Refusal>,
}

/// What comes next.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Text(String),
    Reasoning(String),
    /// Those that follow each other are sent together, in pieces that take turns.
    Call {
        name: String,
        arguments: String,
    },
    /// An event with this text, which need not be JSON.
    Event(String),
    Hold(Gate),
    Pause(Duration),
    /// The connection is dropped.
    Reset,
    /// The answer ends as if it were whole, without a reason and without the last event.
    End,
}

/// A status other than 200.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

/// What an answer cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Read, those from the cache included.
    pub input: u32,
    /// Written, those to think included.
    pub output: u32,
    /// Read from the cache.
    pub cached: u32,
    /// Written to think.
    pub reasoning: u32,
}

impl Answer {
    /// Makes one that says nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes one that says `text`, word by word.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new().say(text)
    }

    /// Makes a refusal with this status and a body as the real API's, with `message` in it.
    ///
    /// # Panics
    /// If `status` is no status of HTTP, when it is answered.
    pub fn fail(status: u16, message: &str) -> Self {
        let refusal = Refusal { status, headers: Vec::new(), body: error(message, None) };
        Self { refusal: Some(refusal), ..Self::new() }
    }

    /// Makes a refusal with this status, code and message, such as `context_length_exceeded`.
    ///
    /// # Panics
    /// As [`Answer::fail`].
    pub fn fail_with_code(status: u16, code: &str, message: &str) -> Self {
        Self::fail(status, "").body(error(message, Some(code)))
    }

    /// Replaces a refusal's body.
    #[must_use]
    pub fn body(mut self, body: impl Into<String>) -> Self {
        if let Some(refusal) = &mut self.refusal {
            refusal.body = body.into();
        }
        self
    }

    /// Has a refusal say when to come again, in seconds or as a date.
    #[must_use]
    pub fn retry_after(self, when: &str) -> Self {
        self.header("retry-after", when)
    }

    /// Adds a header to a refusal.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Some(refusal) = &mut self.refusal {
            refusal.headers.push((name, value.to_owned()));
        }
        self
    }

    /// Says `text`, word by word.
    #[must_use]
    pub fn say(self, text: impl Into<String>) -> Self {
        self.step(Step::Text(text.into()))
    }

    /// Thinks `text`, word by word.
    #[must_use]
    pub fn reasoning(self, text: impl Into<String>) -> Self {
        self.step(Step::Reasoning(text.into()))
    }

    /// Calls a tool. The pieces of calls that follow each other take turns.
    #[must_use]
    pub fn call(self, name: &str, input: &Value) -> Self {
        self.call_text(name, &input.to_string())
    }

    /// Calls a tool with arguments that need not be JSON.
    #[must_use]
    pub fn call_text(self, name: &str, arguments: &str) -> Self {
        self.step(Step::Call { name: name.to_owned(), arguments: arguments.to_owned() })
    }

    /// Waits in the middle until the gate is opened; as the first step, nothing of the body comes
    /// before.
    #[must_use]
    pub fn hold(self, gate: &Gate) -> Self {
        self.step(Step::Hold(gate.clone()))
    }

    /// Waits before everything until the gate is opened, the status included.
    #[must_use]
    pub fn hold_head(mut self, gate: &Gate) -> Self {
        self.head = Some(gate.clone());
        self
    }

    /// Waits in the middle for a time: for people to watch, since tests do not wait so.
    #[must_use]
    pub fn pause(self, time: Duration) -> Self {
        self.step(Step::Pause(time))
    }

    /// Pauses before every word that it says so far: for people to watch.
    #[must_use]
    pub fn paced(mut self, time: Duration) -> Self {
        let steps = std::mem::take(&mut self.steps);
        steps.into_iter().fold(self, |answer, step| match step {
            Step::Text(text) => {
                text.split_inclusive(' ').fold(answer, |answer, word| answer.pause(time).say(word))
            }
            step => answer.step(step),
        })
    }

    /// Sends an event with this text, which need not be JSON.
    #[must_use]
    pub fn event(self, data: impl Into<String>) -> Self {
        self.step(Step::Event(data.into()))
    }

    /// Sends an error as an event of the stream; it does not end the stream.
    #[must_use]
    pub fn error_event(self, message: &str) -> Self {
        self.event(error(message, None))
    }

    /// Drops the connection; what was said before has been sent.
    #[must_use]
    pub fn reset(self) -> Self {
        self.step(Step::Reset)
    }

    /// Ends the body, as if it were whole, without a reason and without the last event.
    #[must_use]
    pub fn end_early(self) -> Self {
        self.step(Step::End)
    }

    /// Ends for this reason instead of `stop` or `tool_calls`; `length` is a cut.
    #[must_use]
    pub fn finish(mut self, reason: &'static str) -> Self {
        self.finish_reason = Some(reason);
        self
    }

    /// Costs so much, instead of what is guessed by the bytes.
    #[must_use]
    pub fn usage(mut self, tokens: Tokens) -> Self {
        self.tokens = Some(tokens);
        self
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}

/// Returns the body of an error.
fn error(message: &str, code: Option<&str>) -> String {
    let kind = if code.is_some() { "invalid_request_error" } else { "api_error" };
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}}).to_string()
}
