//! A chat runner that needs no model and no key: it says back what was asked.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::message::{Content, Message, Model, NewMessage, Part, Role};
use musterbeat_core::port::{ChatContext, ChatRunner, ChatTurn, TurnEnd};

/// Answers with the words of the question, one by one.
#[derive(Clone, Copy, Debug)]
pub struct Echo {
    /// Time that each word takes, to look like a model at work; zero is allowed.
    pub pace: Duration,
}

#[async_trait]
impl ChatRunner for Echo {
    async fn turn(&self, turn: ChatTurn, context: Arc<dyn ChatContext>) -> TurnEnd {
        let question = question(&turn.prompt);
        let mut said = String::new();
        for word in question.split_inclusive(char::is_whitespace) {
            tokio::select! {
                biased;
                _ = context.stopped() => {
                    let partial = (!said.is_empty()).then(|| spoken(&said, turn.model));
                    return TurnEnd::Stopped(partial.into_iter().collect());
                }
                () = tokio::time::sleep(self.pace) => {}
            }
            said.push_str(word);
            context.part(encoded(word));
        }
        // A wish that is for another runner has no words.
        let answer = (!said.is_empty()).then(|| spoken(&said, turn.model));
        TurnEnd::Answer(answer.into_iter().collect())
    }
}

fn spoken(said: &str, model: Option<Model>) -> NewMessage {
    NewMessage::answer(Content::produced(said), model)
}

fn question(prompt: &[Message]) -> String {
    let asked = prompt.iter().rfind(|message| message.role == Role::User);
    asked.map(|message| message.content.to_text()).unwrap_or_default()
}

fn encoded(word: &str) -> Vec<u8> {
    let part = Part::Text { text: word.to_owned() };
    serde_json::to_vec(&part).expect("a text part has no keys that JSON lacks")
}
