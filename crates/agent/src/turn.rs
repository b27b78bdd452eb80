//! One turn of a chat, step by step.

use std::sync::Arc;

use futures_util::FutureExt;
use musterbeat_core::call::answers;
use musterbeat_core::message::{
    Command, Content, Model as ModelName, NewMessage, PRODUCED_BYTES_MAX, Part, Role,
};
use musterbeat_core::port::{ChatContext, ChatTurn, StepError, TurnEnd};
use tokio::time::timeout;

use crate::agent::AgentOptions;
use crate::answer::Answer;
use crate::ask::{Manner, Unanswered, ask, encoded};
use crate::calls::{CallLimits, CallResult, OUTCOME_UNKNOWN, Running, Toolbox};
use crate::compaction::{Occasion, Summary, Unsummarised, summarise};
use crate::error::ErrorKind;
use crate::history::History;
use crate::metrics::{self, AtWork, Compaction, ToolOutcome, TurnOutcome, Work};
use crate::model::{Chosen, Request, Said};
use crate::tool::{Repeat, Tool, ToolCall, ToolContext, ToolSpec};

/// A turn at work.
pub(crate) struct Turn<'a> {
    chosen: Chosen,
    /// The model that the turn names; none leaves the chat without one.
    model: Option<ModelName>,
    toolbox: Toolbox,
    specs: Arc<[ToolSpec]>,
    history: History,
    options: &'a AgentOptions,
    context: ToolContext,
}

/// What a part of a turn leads to, or how the turn ends before it.
type Ended<T> = Result<T, TurnEnd>;

impl<'a> Turn<'a> {
    pub(crate) fn new(
        turn: ChatTurn,
        instructions: Option<Said>,
        chosen: Chosen,
        tools: Vec<Arc<dyn Tool>>,
        options: &'a AgentOptions,
        run: Arc<dyn ChatContext>,
    ) -> Self {
        let toolbox = Toolbox::new(tools);
        Self {
            chosen,
            specs: toolbox.specs(),
            toolbox,
            context: ToolContext { chat: turn.chat, owner: turn.owner, run },
            model: turn.model,
            history: History::new(instructions, turn.prompt),
            options,
        }
    }

    pub(crate) async fn run(mut self) -> TurnEnd {
        let ended = match self.work().await {
            Ok(answer) => TurnEnd::Answer(answer),
            Err(ended) => ended,
        };
        metrics::turn_ended(match &ended {
            TurnEnd::Answer(_) => TurnOutcome::Answered,
            TurnEnd::Failed(_) => TurnOutcome::Failed,
            TurnEnd::Stopped(_) => TurnOutcome::Stopped,
        });
        ended
    }

    /// Works until there is an answer without calls.
    async fn work(&mut self) -> Ended<Vec<NewMessage>> {
        self.take_up().await?;
        if self.history.is_answered() {
            // A former owner stored the last answer and came no further.
            return Ok(vec![]);
        }
        if self.history.command() == Some(Command::Compact) {
            return self.summary(Occasion::ByHand, Question::Answered).await;
        }
        for _ in 0..self.options.steps_max.get() {
            let answer = self.answer().await?;
            metrics::step_made();
            let usage = answer.end.usage;
            let calls = answer.calls.clone();
            let message = answer.into_message(self.model.clone()).map_err(TurnEnd::Failed)?;
            let occasion = Occasion::of(&self.chosen.config, usage);
            if calls.is_empty() {
                return self.finish(message, occasion).await;
            }
            let message = message.expect("a message with calls has parts");
            self.carry_out(message, calls).await?;
            if let Some(occasion) = occasion {
                self.compact(occasion, Question::Open).await?;
            }
        }
        let steps = self.options.steps_max;
        Err(TurnEnd::Failed(format!("the turn took {steps} steps, more are not allowed")))
    }

    /// Ends the turn with its last answer; a history that has grown long is summarised on the way.
    async fn finish(
        &mut self,
        message: Option<NewMessage>,
        occasion: Option<Occasion>,
    ) -> Ended<Vec<NewMessage>> {
        let message = Vec::from_iter(message);
        let Some(occasion) = occasion else { return Ok(message) };
        // First of all: the user reads the answer while the summary is made.
        self.store(message).await?;
        self.summary(occasion, Question::Answered).await
    }

    /// Asks the model; a history that is too long for it is summarised once.
    async fn answer(&mut self) -> Ended<Answer> {
        match self.ask().await {
            Err(Unanswered::Failed(error)) if error.kind == ErrorKind::ContextLength => {
                self.compact(Occasion::TooLong, Question::Open).await?;
            }
            asked => return self.answered(asked),
        }
        let asked = self.ask().await;
        self.answered(asked)
    }

    async fn ask(&self) -> Result<Answer, Unanswered> {
        metrics::prompt_made(self.history.bytes());
        ask(&self.chosen, self.request(), self.manner(), &*self.context.run).await
    }

    fn answered(&self, asked: Result<Answer, Unanswered>) -> Ended<Answer> {
        asked.map_err(|unanswered| match unanswered {
            Unanswered::Failed(error) => TurnEnd::Failed(error.to_string()),
            // A call that was not yet whole was not made.
            Unanswered::Stopped(partial) => self.stopped(partial),
        })
    }

    fn stopped(&self, mut partial: Answer) -> TurnEnd {
        partial.calls.clear();
        // What cannot be stored is not kept.
        let partial = partial.into_message(self.model.clone()).ok().flatten();
        TurnEnd::Stopped(partial.into_iter().collect())
    }

    fn request(&self) -> Request {
        Request {
            config: Arc::clone(&self.chosen.config),
            messages: self.history.messages().to_vec(),
            tools: Arc::clone(&self.specs),
            may_call: true,
        }
    }

    fn manner(&self) -> Manner<'a> {
        Manner { retry: &self.options.retry, guard: self.options.guard, aloud: true }
    }

    /// Answers the calls that a former owner of the run left open.
    async fn take_up(&mut self) -> Ended<()> {
        let open = self.history.open_calls();
        if open.is_empty() {
            return Ok(());
        }
        let (lost, open): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|call| self.toolbox.conduct(call).repeat == Repeat::Never);
        let unknown = lost.iter().map(|call| {
            metrics::tool_called(ToolOutcome::OutcomeUnknown);
            let unknown = CallResult::failed(ToolOutcome::OutcomeUnknown, OUTCOME_UNKNOWN);
            let part = unknown.into_part(&call.id);
            self.context.run.part(encoded(&part));
            part
        });
        let unknown: Vec<Part> = unknown.collect();
        if !unknown.is_empty() {
            self.store(reports(unknown)).await?;
        }
        let mut step = Step { unstored: None, calls: open };
        self.run_calls(&mut step).await
    }

    /// Makes a step's calls and stores it.
    async fn carry_out(&mut self, message: NewMessage, calls: Vec<ToolCall>) -> Ended<()> {
        let recorded = calls.iter().any(|call| self.toolbox.conduct(call).repeat != Repeat::Anew);
        let mut step = Step { unstored: Some(message), calls };
        if recorded && self.toolbox.conflict(&step.calls).is_none() {
            self.store(step.unstored.take().into_iter().collect()).await?;
        }
        self.run_calls(&mut step).await
    }

    /// Makes calls at once, publishes each result as it comes, and stores them.
    ///
    /// One write for all, except that what must not be made twice is stored as soon as it is done.
    async fn run_calls(&mut self, step: &mut Step) -> Ended<()> {
        let calls = &step.calls;
        let mut results: Vec<Option<CallResult>> = vec![None; calls.len()];
        if self.context.run.stop_cause().is_some() {
            return Err(TurnEnd::Stopped(step.messages(&mut results)));
        }
        let mut running = Running::begin(&self.toolbox, calls, &self.context, self.call_limits());
        let mut left = calls.len();
        let _at_work = AtWork::at(Work::Tools);
        while left > 0 {
            let next = tokio::select! {
                biased;
                _ = self.context.run.stopped() => {
                    // What finished is kept, also what has not been looked at.
                    while let Some(Some((place, result))) = running.next().now_or_never() {
                        metrics::tool_called(result.outcome);
                        results[place] = Some(result);
                        left -= 1;
                    }
                    (0..left).for_each(|_| metrics::tool_called(ToolOutcome::Interrupted));
                    return Err(TurnEnd::Stopped(step.messages(&mut results)));
                }
                next = running.next() => next,
            };
            let Some((place, result)) = next else { break };
            metrics::tool_called(result.outcome);
            left -= 1;
            let call = &step.calls[place];
            self.context.run.part(encoded(&result.clone().into_part(&call.id)));
            let once = self.toolbox.conduct(call).repeat == Repeat::Never;
            results[place] = Some(result);
            if once && left > 0 && step.unstored.is_none() {
                let done = step.messages(&mut results);
                self.store(done).await?;
            }
        }
        let messages = step.messages(&mut results);
        self.store(messages).await
    }

    fn call_limits(&self) -> CallLimits {
        CallLimits {
            at_once: self.options.calls_at_once.get(),
            timeout: self.options.call_timeout,
            output_bytes_max: self.options.output_bytes_max.min(PRODUCED_BYTES_MAX / 4),
        }
    }

    /// Stores messages, and has the model see them from now on.
    async fn store(&mut self, messages: Vec<NewMessage>) -> Ended<()> {
        if messages.is_empty() {
            return Ok(());
        }
        let stored = self.context.run.step(messages.clone()).await;
        stored.map_err(|error| match error {
            StepError::Fenced => TurnEnd::Stopped(vec![]),
            error => TurnEnd::Failed(format!("a step was not stored: {error}")),
        })?;
        self.history.append(&messages);
        Ok(())
    }

    /// Puts a summary in the place of the history; a failure leaves all as it is.
    async fn compact(&mut self, occasion: Occasion, question: Question) -> Ended<()> {
        let rows = self.summary(occasion, question).await?;
        let Some(told) = rows.first().map(|row| row.content.clone()) else { return Ok(()) };
        self.store(rows).await?;
        self.history.summarised(told);
        Ok(())
    }

    /// Returns the rows of a summary; none when there is nothing to summarise, or it fails.
    ///
    /// Who wished for it is told of a failure by rows that no model sees.
    async fn summary(&mut self, occasion: Occasion, question: Question) -> Ended<Vec<NewMessage>> {
        if !self.history.has_talk() {
            return Ok(vec![]);
        }
        let summary = Summary::begin(occasion, &self.chosen.config);
        self.context.run.part(encoded(&summary.call()));
        let text = match self.summarised().await {
            Ok(text) => text,
            Err(Unsummarised::Stopped) => return Err(TurnEnd::Stopped(vec![])),
            Err(error) => {
                self.unsummarised(&summary, &error);
                let by_hand = occasion == Occasion::ByHand;
                return Ok(if by_hand { summary.failed_rows(&error) } else { vec![] });
            }
        };
        metrics::compacted(Compaction::Success);
        self.context.run.part(encoded(&summary.result(&text)));
        let open = match question {
            Question::Open => self.history.question(),
            Question::Answered => None,
        };
        Ok(summary.rows(&text, open.as_deref(), self.model.as_ref()))
    }

    async fn summarised(&self) -> Result<String, Unsummarised> {
        let request = Request { may_call: false, ..self.request() };
        let manner = Manner { aloud: false, ..self.manner() };
        let run = &*self.context.run;
        let made = summarise(&self.chosen, request, &self.history, manner, run);
        let time = self.options.summary_timeout;
        timeout(time, made).await.unwrap_or(Err(Unsummarised::TimedOut(time)))
    }

    /// Tells that there is no summary.
    fn unsummarised(&self, summary: &Summary, error: &Unsummarised) {
        tracing::warn!(chat.id = %self.context.chat, %error, "a history was not summarised");
        metrics::compacted(match error {
            Unsummarised::TimedOut(_) => Compaction::Timeout,
            _ => Compaction::Error,
        });
        self.context.run.part(encoded(&summary.failed(error)));
    }
}

/// Whether what the user asked last has been answered.
#[derive(Clone, Copy)]
enum Question {
    Open,
    Answered,
}

/// A step whose calls are made.
struct Step {
    /// The message that makes the calls, until it is stored.
    unstored: Option<NewMessage>,
    calls: Vec<ToolCall>,
}

impl Step {
    /// Takes what is to be stored: the message, if it is not, and the results that have come.
    fn messages(&mut self, results: &mut [Option<CallResult>]) -> Vec<NewMessage> {
        let calls = self.calls.iter().zip(results);
        let done = calls.filter_map(|(call, result)| Some(result.take()?.into_part(&call.id)));
        let done: Vec<Part> = done.collect();
        self.unstored.take().into_iter().chain(reports(done)).collect()
    }
}

/// Returns messages of tools that store results: one, unless it would be too large.
fn reports(mut results: Vec<Part>) -> Vec<NewMessage> {
    if results.is_empty() {
        return vec![];
    }
    let Ok(content) = Content::produced_parts(results.clone()) else {
        let later = results.split_off(results.len() / 2);
        return reports(results).into_iter().chain(reports(later)).collect();
    };
    let message = answers([], "");
    vec![NewMessage { role: Role::Tool, content, ..message }]
}
