//! The wire format: an answer as events, or as one object.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};

use super::UnderWay;
use super::answer::{Answer, Step, Tokens};
use super::asked::Asked;
use super::gate::Gate;

/// When every answer was made, by the fake's own clock.
const CREATED: u64 = 784_111_777;

/// Pieces that the arguments of a call are cut into.
const ARGUMENT_PIECES: usize = 3;

/// Answers the request of this number.
pub(super) async fn respond(
    number: usize,
    asked: &Asked,
    answer: Answer,
    under_way: UnderWay,
) -> Response {
    if let Some(gate) = &answer.head {
        gate.pass().await;
    }
    if answer.refusal.is_some() {
        return refuse(&answer);
    }
    if !asked.is_streamed() {
        return Json(whole(number, asked, answer).await).into_response();
    }
    let sent = Encoder::new(number, asked).encode(answer);
    let body = Body::from_stream(stream::unfold((sent, under_way), next));
    ([(CONTENT_TYPE, "text/event-stream; charset=utf-8")], body).into_response()
}

/// Answers with a refusal's status, headers and body.
pub(super) fn refuse(answer: &Answer) -> Response {
    let refusal = answer.refusal.as_ref().expect("only refusals are answered so");
    let mut response =
        Response::builder().status(refusal.status).header(CONTENT_TYPE, "application/json");
    for (name, value) in &refusal.headers {
        response = response.header(*name, value);
    }
    let response = response.body(Body::from(refusal.body.clone()));
    response.expect("a refusal has a status of HTTP and headers of ASCII")
}

/// Lists one model, for clients that look before they ask.
pub(super) async fn models() -> Json<Value> {
    let model = json!({"id": "demo", "object": "model", "created": CREATED, "owned_by": "nobody"});
    Json(json!({"object": "list", "data": [model]}))
}

/// What is sent next.
enum Sent {
    Events(String),
    Hold(Gate),
    Pause(Duration),
    Reset,
}

type Sending = (VecDeque<Sent>, UnderWay);

async fn next((mut rest, under_way): Sending) -> Option<(io::Result<String>, Sending)> {
    loop {
        match rest.pop_front()? {
            Sent::Events(events) => return Some((Ok(events), (rest, under_way))),
            Sent::Hold(gate) => gate.pass().await,
            Sent::Pause(time) => tokio::time::sleep(time).await,
            Sent::Reset => {
                // The server writes what it has while it waits, and drops it at an error.
                tokio::task::yield_now().await;
                rest.clear();
                return Some((Err(io::ErrorKind::ConnectionReset.into()), (rest, under_way)));
            }
        }
    }
}

/// Turns steps into events.
struct Encoder<'a> {
    number: usize,
    asked: &'a Asked,
    /// What all chunks begin with.
    head: String,
    sent: VecDeque<Sent>,
    has_begun: bool,
    calls: usize,
    said_bytes: usize,
}

impl<'a> Encoder<'a> {
    fn new(number: usize, asked: &'a Asked) -> Self {
        let model = Value::from(asked.model.as_str());
        let head = format!(
            r#"{{"id":"chatcmpl-{number}","object":"chat.completion.chunk","created":{CREATED},"model":{model},"#
        );
        let (sent, has_begun, calls, said_bytes) = (VecDeque::new(), false, 0, 0);
        Self { number, asked, head, sent, has_begun, calls, said_bytes }
    }

    fn encode(mut self, answer: Answer) -> VecDeque<Sent> {
        let mut steps = answer.steps.into_iter().peekable();
        while let Some(step) = steps.next() {
            match step {
                Step::Text(text) => self.words("content", &text),
                Step::Reasoning(text) => self.words("reasoning_content", &text),
                Step::Call { name, arguments } => {
                    let mut calls = vec![(name, arguments)];
                    while let Some(Step::Call { name, arguments }) =
                        steps.next_if(|step| matches!(step, Step::Call { .. }))
                    {
                        calls.push((name, arguments));
                    }
                    self.calls(&calls);
                }
                Step::Event(data) => self.event(&data),
                Step::Hold(gate) => self.sent.push_back(Sent::Hold(gate)),
                Step::Pause(time) => self.sent.push_back(Sent::Pause(time)),
                Step::End => return self.sent,
                Step::Reset => {
                    self.sent.push_back(Sent::Reset);
                    return self.sent;
                }
            }
        }
        let reason = answer.finish_reason.unwrap_or(reason(self.calls));
        self.chunk(&json!({}), Some(reason));
        if self.asked.wants_usage() {
            let usage = usage(answer.tokens.unwrap_or_else(|| guess(self.asked, self.said_bytes)));
            self.event(&format!(r#"{}"choices":[],"usage":{usage}}}"#, self.head));
        }
        self.event("[DONE]");
        self.sent
    }

    fn words(&mut self, field: &str, text: &str) {
        self.said_bytes += text.len();
        for word in text.split_inclusive(' ') {
            self.delta(&json!({ field: word }));
        }
    }

    /// Sends each call's name, then the pieces of all arguments in turns.
    fn calls(&mut self, calls: &[(String, String)]) {
        let first = self.calls;
        self.calls += calls.len();
        for (index, (name, arguments)) in (first..).zip(calls) {
            self.said_bytes += name.len() + arguments.len();
            let function = json!({"name": name, "arguments": ""});
            let id = self.call_id(index);
            let call = json!({"index": index, "id": id, "type": "function", "function": function});
            self.delta(&json!({"tool_calls": [call]}));
        }
        let pieces: Vec<Vec<&str>> =
            calls.iter().map(|(_, arguments)| cut(arguments, ARGUMENT_PIECES)).collect();
        for turn in 0..ARGUMENT_PIECES {
            for (index, pieces) in (first..).zip(&pieces) {
                if let Some(piece) = pieces.get(turn) {
                    let call = json!({"index": index, "function": {"arguments": piece}});
                    self.delta(&json!({"tool_calls": [call]}));
                }
            }
        }
    }

    fn call_id(&self, index: usize) -> String {
        call_id(self.number, index)
    }

    /// Sends a piece; the first is preceded by one that says who speaks.
    fn delta(&mut self, delta: &Value) {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.chunk(&json!({"role": "assistant", "content": ""}), None);
        }
        self.chunk(delta, None);
    }

    fn chunk(&mut self, delta: &Value, reason: Option<&str>) {
        let reason = reason.map_or_else(|| "null".to_owned(), |reason| format!("\"{reason}\""));
        let usage = if self.asked.wants_usage() { r#","usage":null"# } else { "" };
        self.event(&format!(
            r#"{}"choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{reason}}}]{usage}}}"#,
            self.head
        ));
    }

    fn event(&mut self, data: &str) {
        // One write for all that comes at once.
        if !matches!(self.sent.back(), Some(Sent::Events(_))) {
            self.sent.push_back(Sent::Events(String::new()));
        }
        if let Some(Sent::Events(events)) = self.sent.back_mut() {
            events.extend(["data: ", data, "\n\n"]);
        }
    }
}

/// Returns an answer as one object, once everything that holds it lets it go.
async fn whole(number: usize, asked: &Asked, answer: Answer) -> Value {
    let (mut text, mut thought, mut calls) = (String::new(), String::new(), Vec::new());
    for step in answer.steps {
        match step {
            Step::Text(said) => text.push_str(&said),
            Step::Reasoning(said) => thought.push_str(&said),
            Step::Call { name, arguments } => {
                let function = json!({"name": name, "arguments": arguments});
                let id = call_id(number, calls.len());
                calls.push(json!({"id": id, "type": "function", "function": function}));
            }
            Step::Hold(gate) => gate.pass().await,
            Step::Pause(time) => tokio::time::sleep(time).await,
            // These are about streams.
            Step::Event(_) | Step::Reset | Step::End => {}
        }
    }
    let tokens = answer.tokens.unwrap_or_else(|| guess(asked, text.len() + thought.len()));
    let reason = answer.finish_reason.unwrap_or(reason(calls.len()));
    let mut message = json!({"role": "assistant", "content": text});
    if !thought.is_empty() {
        message["reasoning_content"] = thought.into();
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    json!({
        "id": format!("chatcmpl-{number}"),
        "object": "chat.completion",
        "created": CREATED,
        "model": asked.model,
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": reason}],
        "usage": usage(tokens),
    })
}

fn call_id(number: usize, index: usize) -> String {
    format!("call_{number}_{index}")
}

/// Returns why an answer ends that has so many calls.
fn reason(calls: usize) -> &'static str {
    if calls == 0 { "stop" } else { "tool_calls" }
}

fn usage(tokens: Tokens) -> Value {
    json!({
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning, "audio_tokens": 0},
    })
}

/// Takes four bytes for a token.
fn guess(asked: &Asked, said_bytes: usize) -> Tokens {
    let tokens = |bytes: usize| u32::try_from(bytes.div_ceil(4)).unwrap_or(u32::MAX / 2);
    Tokens { input: tokens(asked.bytes), output: tokens(said_bytes), ..Tokens::default() }
}

/// Cuts a text into so many pieces, or fewer, none of them empty.
fn cut(text: &str, pieces: usize) -> Vec<&str> {
    let mut rest = text;
    let mut cut = Vec::with_capacity(pieces);
    for left in (1..=pieces).rev() {
        let (piece, after) = rest.split_at(rest.ceil_char_boundary(rest.len().div_ceil(left)));
        if !piece.is_empty() {
            cut.push(piece);
        }
        rest = after;
    }
    cut
}
