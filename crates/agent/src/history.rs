//! The history of a chat, as its model is to see it.

use std::sync::Arc;

use musterbeat_core::call::open_calls;
use musterbeat_core::message::{Command, Content, Message, NewMessage, Part, Role, Visibility};

use crate::model::Said;
use crate::tool::ToolCall;

/// What was said so far in a chat, and what its turn adds.
#[derive(Clone, Debug)]
pub(crate) struct History {
    messages: Vec<Arc<Said>>,
}

impl History {
    /// Takes a turn's prompt, preceded by `instructions`.
    pub(crate) fn new(instructions: Option<Said>, prompt: Vec<Message>) -> Self {
        let prompt = prompt.into_iter();
        let said = prompt.map(|message| Said { role: message.role, content: message.content });
        Self { messages: instructions.into_iter().chain(said).map(Arc::new).collect() }
    }

    /// Returns all of it, oldest first.
    pub(crate) fn messages(&self) -> &[Arc<Said>] {
        &self.messages
    }

    /// Returns how many bytes its texts have, those of calls and results too.
    pub(crate) fn bytes(&self) -> usize {
        let parts = self.messages.iter().flat_map(|said| said.content.parts());
        let bytes = |part: &Part| match part {
            Part::Text { text } | Part::Reasoning { text, .. } => text.len(),
            Part::ToolResult { output, .. } => output.len(),
            Part::ToolCall { input, .. } => input.to_string().len(),
            Part::Command { .. } | Part::Other(_) => 0,
        };
        parts.map(bytes).sum()
    }

    /// Adds what a step stored, where the model is to see it.
    pub(crate) fn append(&mut self, messages: &[NewMessage]) {
        let seen = messages.iter().filter(|message| message.visibility != Visibility::User);
        let said =
            seen.map(|message| Said { role: message.role, content: message.content.clone() });
        self.messages.extend(said.map(Arc::new));
    }

    /// Puts `summary` in the place of everything but what the system said.
    pub(crate) fn summarised(&mut self, summary: Content) {
        self.messages.retain(|said| said.role == Role::System);
        self.messages.push(Arc::new(Said { role: Role::User, content: summary }));
    }

    /// Returns the calls that nobody has answered: a former owner of the run left them.
    pub(crate) fn open_calls(&self) -> Vec<ToolCall> {
        let last = self.messages.iter().rposition(|said| said.role == Role::Assistant);
        let tail = &self.messages[last.unwrap_or(self.messages.len())..];
        let open = open_calls(tail.iter().map(|said| &said.content));
        let parts = tail.iter().flat_map(|said| said.content.parts());
        let calls = parts.filter_map(|part| match part {
            Part::ToolCall { id, name, input } => {
                Some(ToolCall { id: id.clone(), name: name.clone(), input: input.clone() })
            }
            _ => None,
        });
        calls.filter(|call| open.iter().any(|open| open.id == call.id)).collect()
    }

    /// Says whether the last that was said is an answer.
    pub(crate) fn is_answered(&self) -> bool {
        self.messages.last().is_some_and(|said| said.role == Role::Assistant)
    }

    /// Returns what the last message asks of the runner itself.
    pub(crate) fn command(&self) -> Option<Command> {
        let last = self.messages.last().filter(|said| said.role == Role::User)?;
        last.content.parts().iter().find_map(|part| match part {
            Part::Command { command } => Some(*command),
            _ => None,
        })
    }

    /// Returns the last that the user said in words.
    pub(crate) fn question(&self) -> Option<String> {
        let asked = self.messages.iter().rev().filter(|said| said.role == Role::User);
        asked.map(|said| said.content.to_text()).find(|text| !text.trim().is_empty())
    }

    /// Says whether there is anything that the system did not say.
    pub(crate) fn has_talk(&self) -> bool {
        self.messages.iter().any(|said| {
            said.role != Role::System
                && said.content.parts().iter().any(|part| !matches!(part, Part::Command { .. }))
        })
    }

    /// Returns its later half, without results whose calls are in the earlier one.
    pub(crate) fn later_half(&self) -> Self {
        let (system, talk): (Vec<_>, Vec<_>) =
            self.messages.iter().cloned().partition(|said| said.role == Role::System);
        let later =
            talk[talk.len().div_ceil(2)..].iter().skip_while(|said| said.role == Role::Tool);
        Self { messages: system.into_iter().chain(later.cloned()).collect() }
    }
}
