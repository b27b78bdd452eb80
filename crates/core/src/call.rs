//! Calls of tools within a history, and which of them nobody has answered.
//!
//! A call is a part of an assistant's message, its answer a part of a later one of a tool.
//! No user's message ever follows an open call: models refuse such a history. Whatever puts one
//! there, or lets a chat rest, first answers what is open with [`INTERRUPTED`].

use crate::chat::Refused;
use crate::message::{Content, Model, NewMessage, Part, Role, Usage, Visibility};

/// What the answer to a call says that a user's wish cut short.
pub const INTERRUPTED: &str = "interrupted";

/// A call that nobody has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenCall {
    /// Names the call within its chat.
    pub id: String,
    /// Which tool was called.
    pub name: String,
}

/// Returns the calls of a history that nobody has answered, in their order.
///
/// It may begin at the last message of the assistant: an earlier one has no open calls.
pub fn open_calls<'a>(history: impl IntoIterator<Item = &'a Content>) -> Vec<OpenCall> {
    let mut open = Vec::new();
    for content in history {
        for part in content.parts() {
            match part {
                Part::ToolCall { id, name, .. } => {
                    open.push(OpenCall { id: id.clone(), name: name.clone() });
                }
                Part::ToolResult { id, .. } => open.retain(|call| call.id != *id),
                _ => {}
            }
        }
    }
    open
}

/// Follows what `message`, appended by a run's owner, does to the calls that are `open`.
///
/// # Errors
/// Refuses an answer to a call that is not open, and an assistant's or system's message while one
/// is. A user's message is the caller's to precede by [`interrupted`].
pub(crate) fn follow(open: &mut Vec<OpenCall>, message: &NewMessage) -> Result<(), Refused> {
    if matches!(message.role, Role::Assistant | Role::System) && !open.is_empty() {
        return Err(Refused::CallOpen);
    }
    for part in message.content.parts() {
        match part {
            Part::ToolCall { id, name, .. } if message.role == Role::Assistant => {
                open.push(OpenCall { id: id.clone(), name: name.clone() });
            }
            Part::ToolResult { id, .. } => {
                let place = open.iter().position(|call| call.id == *id);
                open.remove(place.ok_or(Refused::NoSuchCall)?);
            }
            Part::ToolCall { .. } => return Err(Refused::NoSuchCall),
            _ => {}
        }
    }
    Ok(())
}

/// Returns the message that answers every call that is `open`, and closes them.
pub(crate) fn interrupted(open: &mut Vec<OpenCall>) -> Option<NewMessage> {
    if open.is_empty() {
        return None;
    }
    Some(answers(std::mem::take(open), INTERRUPTED))
}

/// Returns a tool's message that answers `calls`, each with the error `text`.
pub fn answers(calls: impl IntoIterator<Item = OpenCall>, text: &str) -> NewMessage {
    let parts = calls.into_iter().map(|call| Part::ToolResult {
        id: call.id,
        output: text.to_owned(),
        is_error: true,
    });
    NewMessage {
        role: Role::Tool,
        content: Content::stored(parts.collect()),
        visibility: Visibility::Both,
        compressed: false,
        model: None::<Model>,
        created_by: None,
        usage: Usage::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str) -> Part {
        Part::ToolCall { id: id.into(), name: "read".into(), input: serde_json::Value::Null }
    }

    fn result(id: &str) -> Part {
        Part::ToolResult { id: id.into(), output: "done".into(), is_error: false }
    }

    fn said(role: Role, parts: Vec<Part>) -> NewMessage {
        NewMessage { role, ..NewMessage::answer(Content::stored(parts), None) }
    }

    #[test]
    fn open_calls_are_those_without_a_result() {
        let history = [
            Content::stored(vec![call("a"), call("b"), call("c")]),
            Content::stored(vec![result("b")]),
        ];
        let open: Vec<String> = open_calls(&history).into_iter().map(|call| call.id).collect();
        assert_eq!(open, ["a", "c"]);
    }

    #[test]
    fn only_answers_may_follow_an_open_call() {
        let mut open = vec![];
        follow(&mut open, &said(Role::Assistant, vec![call("a"), call("b")])).unwrap();
        let early = said(Role::Assistant, vec![]);
        assert_eq!(follow(&mut open, &early), Err(Refused::CallOpen));
        let wrong = said(Role::Tool, vec![result("z")]);
        assert_eq!(follow(&mut open, &wrong), Err(Refused::NoSuchCall));
        follow(&mut open, &said(Role::Tool, vec![result("a")])).unwrap();
        follow(&mut open, &said(Role::Tool, vec![result("b")])).unwrap();
        assert_eq!(follow(&mut open, &early), Ok(()));
        let twice = said(Role::Tool, vec![result("b")]);
        assert_eq!(follow(&mut open, &twice), Err(Refused::NoSuchCall));
    }

    #[test]
    fn tool_that_a_provider_ran_is_answered_where_it_is_called() {
        let mut open = vec![];
        follow(&mut open, &said(Role::Assistant, vec![call("a"), result("a")])).unwrap();
        assert!(open.is_empty());
    }

    #[test]
    fn interrupt_answers_all_that_is_open_once() {
        let mut open = open_calls(&[Content::stored(vec![call("a"), call("b")])]);
        let answer = interrupted(&mut open).unwrap();
        assert_eq!(answer.role, Role::Tool);
        assert_eq!(answer.content.parts().len(), 2);
        assert_eq!(interrupted(&mut open), None);
    }
}
