//! What a program has said of its answer.

use std::io;

use musterbeat_core::message::{CONTENT_BYTES_MAX, Content, Part};
use musterbeat_core::port::RunContext;
use tokio::io::AsyncRead;

use super::CommandLimits;
use super::lines::{Line, LineEnd, Lines};
use super::wire::{self, Flaw, Said};

/// Why no answer came of a program's output.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutputError {
    #[error("line {line} of its output {flaw}")]
    Line { line: u64, flaw: Flaw },
    #[error("line {line} takes its output over {bytes_max} bytes")]
    TooMuch { line: u64, bytes_max: usize },
    #[error("it ended without a line of type `message`")]
    NoMessage,
    #[error("its output could not be read")]
    Read(#[source] io::Error),
}

/// The answer as far as it came.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    /// Lines read so far.
    lines: u64,
    /// Text of the pieces that were published.
    pieces: String,
    message: Option<Content>,
    /// The last line if the output ended within it; a program that dies leaves such lines.
    torn: Option<Vec<u8>>,
}

impl Transcript {
    /// Publishes what `output` brings until it ends.
    pub(super) async fn listen(
        &mut self,
        output: impl AsyncRead + Unpin,
        limits: &CommandLimits,
        context: &dyn RunContext,
    ) -> Result<(), OutputError> {
        let mut lines = Lines::new(output, limits.line_bytes_max);
        let mut bytes_left = limits.answer_bytes_max;
        while let Some(Line { bytes, end, bytes_read }) =
            lines.next().await.map_err(OutputError::Read)?
        {
            self.lines += 1;
            let over =
                OutputError::TooMuch { line: self.lines, bytes_max: limits.answer_bytes_max };
            bytes_left = bytes_left.checked_sub(bytes_read).ok_or(over)?;
            match end {
                LineEnd::Break => self.take(bytes, context)?,
                LineEnd::Cut => {
                    let flaw = Flaw::TooLong { bytes_max: limits.line_bytes_max };
                    return Err(OutputError::Line { line: self.lines, flaw });
                }
                LineEnd::Stream => self.torn = Some(bytes.to_vec()),
            }
        }
        Ok(())
    }

    /// Returns the answer of a program that ended well.
    pub(super) fn finish(mut self, context: &dyn RunContext) -> Result<Content, OutputError> {
        if let Some(torn) = self.torn.take() {
            self.take(&torn, context)?;
        }
        self.message.ok_or(OutputError::NoMessage)
    }

    /// Returns what followers saw of the answer; `None` when that is nothing.
    pub(super) fn partial(&self) -> Option<Content> {
        (!self.pieces.is_empty()).then(|| Content::produced(&self.pieces))
    }

    fn take(&mut self, line: &[u8], context: &dyn RunContext) -> Result<(), OutputError> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let flawed = |flaw| OutputError::Line { line: self.lines, flaw };
        if self.message.is_some() {
            return Err(flawed(Flaw::AfterMessage));
        }
        match wire::said(line).map_err(flawed)? {
            Said::Piece(text) => {
                // What goes beyond could not be stored.
                if self.pieces.len() < CONTENT_BYTES_MAX {
                    self.pieces.push_str(&text);
                }
                context.part(encoded(text));
            }
            Said::Message(content) => self.message = Some(content),
        }
        Ok(())
    }
}

fn encoded(text: String) -> Vec<u8> {
    serde_json::to_vec(&Part::Text { text }).expect("a text part has no keys that JSON lacks")
}
