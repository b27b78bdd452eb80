//! Guards of an answer: it begins in time, it does not fall silent, and it has an end.

use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::time::timeout;

use crate::error::{ErrorKind, ModelError};
use crate::model::Delta;

/// How long an answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardTimes {
    /// For its first piece; a minute, in which models at home can be loaded.
    pub first: Duration,
    /// For each further one; ten minutes, since some providers say nothing while they think.
    pub silence: Duration,
}

impl GuardTimes {
    /// A minute, and ten.
    pub const DEFAULT: Self =
        Self { first: Duration::from_mins(1), silence: Duration::from_mins(10) };
}

impl Default for GuardTimes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Returns the answer with its guards, all of whose errors are worth another try.
///
/// Its last item is [`Delta::End`] or the only error: of the answer itself, of one that begins too
/// late or falls silent, or of one that ends without an end. By then `answer` has been dropped,
/// and with it the call. Times are counted while somebody waits for the next piece, so that slow
/// readers are not taken for silence; a piece that is there when the time is over is taken.
pub fn guarded(
    answer: BoxStream<'static, Result<Delta, ModelError>>,
    times: GuardTimes,
    provider: String,
) -> BoxStream<'static, Result<Delta, ModelError>> {
    let guard = Guard { answer: Some(answer), has_begun: false, times, provider };
    stream::unfold(guard, Guard::next).fuse().boxed()
}

struct Guard {
    /// `None` once it has ended.
    answer: Option<BoxStream<'static, Result<Delta, ModelError>>>,
    has_begun: bool,
    times: GuardTimes,
    provider: String,
}

impl Guard {
    async fn next(mut self) -> Option<(Result<Delta, ModelError>, Self)> {
        let mut answer = self.answer.take()?;
        let limit = if self.has_begun { self.times.silence } else { self.times.first };
        let piece = match timeout(limit, answer.next()).await {
            Ok(Some(piece)) => piece,
            Ok(None) => Err(self.error(ErrorKind::Transport, "the answer was cut off".to_owned())),
            Err(_) if self.has_begun => {
                let message = format!("the answer fell silent for {limit:?}");
                Err(self.error(ErrorKind::Silence, message))
            }
            Err(_) => {
                let message = format!("no answer began within {limit:?}");
                Err(self.error(ErrorKind::StartupTimeout, message))
            }
        };
        if !matches!(piece, Ok(Delta::End(_)) | Err(_)) {
            self.has_begun = true;
            self.answer = Some(answer);
        }
        Some((piece, self))
    }

    fn error(&self, kind: ErrorKind, message: String) -> ModelError {
        let provider = self.provider.clone();
        ModelError { kind, provider, message, status: None, retry_after: None }
    }
}

#[cfg(test)]
mod tests;
