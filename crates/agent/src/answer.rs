//! What a model answers in one step, gathered from its pieces.

use musterbeat_core::message::{Content, Model as ModelName, NewMessage, Part};
use rand::RngExt;
use rand::distr::Alphanumeric;

use crate::model::{Delta, End};
use crate::tool::ToolCall;

/// Length of a call's name.
///
/// Nine letters and digits are what the strictest of providers takes; there are 10^16 of them.
const CALL_ID_LEN: usize = 9;

/// The pieces of an answer that have come.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    reasoning: String,
    text: String,
    /// The calls that it wishes, in its order.
    pub(crate) calls: Vec<ToolCall>,
    /// How it ended.
    pub(crate) end: End,
}

impl Answer {
    /// Adds a piece and returns what followers are to see of it.
    ///
    /// A call gets a name of its own: those of providers may repeat within a chat, or be none.
    pub(crate) fn add(&mut self, delta: Delta) -> Option<Part> {
        match delta {
            Delta::Text(text) => {
                self.text.push_str(&text);
                Some(Part::Text { text })
            }
            Delta::Reasoning(text) => {
                self.reasoning.push_str(&text);
                Some(Part::Reasoning { text, signature: None })
            }
            Delta::Call(call) => {
                let call = ToolCall { id: call_id(), name: call.name, input: call.input };
                self.calls.push(call.clone());
                Some(part_of(call))
            }
            Delta::Writing => None,
            Delta::End(end) => {
                self.end = end;
                None
            }
        }
    }

    /// Returns the text so far.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Returns the message that stores it; `None` when there is nothing to store.
    ///
    /// # Errors
    /// Says which limit of a message it breaks.
    pub(crate) fn into_message(
        self,
        model: Option<ModelName>,
    ) -> Result<Option<NewMessage>, String> {
        let mut parts = thoughts(self.reasoning, self.end.signed);
        if !self.text.is_empty() {
            parts.push(Part::Text { text: self.text });
        }
        parts.extend(self.calls.into_iter().map(part_of));
        if parts.is_empty() {
            return Ok(None);
        }
        let content = Content::produced_parts(parts)
            .map_err(|invalid| format!("the model's answer cannot be stored: {invalid}"))?;
        Ok(Some(NewMessage { usage: self.end.usage, ..NewMessage::answer(content, model) }))
    }
}

/// Returns what was thought: as the provider wants it back, where it does.
fn thoughts(reasoning: String, signed: Vec<(String, String)>) -> Vec<Part> {
    if !signed.is_empty() {
        let signed = signed.into_iter();
        let part = |(text, signature)| Part::Reasoning { text, signature: Some(signature) };
        return signed.map(part).collect();
    }
    if reasoning.is_empty() {
        return vec![];
    }
    vec![Part::Reasoning { text: reasoning, signature: None }]
}

fn part_of(call: ToolCall) -> Part {
    Part::ToolCall { id: call.id, name: call.name, input: call.input }
}

/// Makes a name for a call that no other call of its chat has.
pub(crate) fn call_id() -> String {
    let letters = rand::rng().sample_iter(Alphanumeric).take(CALL_ID_LEN);
    letters.map(char::from).collect()
}
