//! A runner that says back what was asked, word by word, as far as its test lets it.

use std::sync::Arc;

use async_trait::async_trait;
use musterbeat_core::message::{Content, NewMessage, Role};
use musterbeat_core::port::{ChatContext, ChatRunner, ChatTurn, TurnEnd};
use serde_json::json;
use tokio::sync::watch;

/// Lets recitals go on; a turn that has said as much as it may waits.
pub(crate) struct Recital(watch::Sender<usize>);

impl Recital {
    /// Lets each turn say its first `words`.
    pub(crate) fn of(words: usize) -> Self {
        Self(watch::Sender::new(words))
    }

    /// Lets each turn say this many words of its own.
    pub(crate) fn go_on_to(&self, words: usize) {
        self.0.send_replace(words);
    }

    /// Lets each turn say all.
    pub(crate) fn finish(&self) {
        self.go_on_to(usize::MAX);
    }

    /// Returns a runner whose turns it holds.
    pub(crate) fn runner(&self) -> Arc<dyn ChatRunner> {
        Arc::new(Reciter(self.0.clone()))
    }
}

struct Reciter(watch::Sender<usize>);

#[async_trait]
impl ChatRunner for Reciter {
    async fn turn(&self, turn: ChatTurn, context: Arc<dyn ChatContext>) -> TurnEnd {
        let asked = turn.prompt.iter().rfind(|message| message.role == Role::User);
        let question = asked.unwrap().content.to_text();
        let (mut words, mut said) = (self.0.subscribe(), String::new());
        for (place, word) in question.split_inclusive(char::is_whitespace).enumerate() {
            tokio::select! {
                biased;
                _ = context.stopped() => return TurnEnd::Stopped(spoken(&said)),
                _ = words.wait_for(|words| place < *words) => {}
            }
            said.push_str(word);
            context.part(json!({ "type": "text", "text": word }).to_string().into_bytes());
        }
        TurnEnd::Answer(spoken(&said))
    }
}

fn spoken(said: &str) -> Vec<NewMessage> {
    let message = (!said.is_empty()).then(|| NewMessage::answer(Content::produced(said), None));
    message.into_iter().collect()
}
