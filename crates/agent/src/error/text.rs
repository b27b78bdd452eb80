//! What providers say when something went wrong, as a table.
//!
//! Texts are compared word by word: letters of either case, whatever stands between words, so that
//! `rate_limit`, `Rate limit` and `RateLimit` are the same two words. A number is a word as a
//! whole: 429 is neither in 14290 nor in 1,429.

use super::ErrorKind;

/// Bytes of a text that are looked at; providers say first what they mean.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// What a text is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    /// The history is too long.
    Window,
    /// A limit that passes, in words that may sound like money.
    Quota,
    /// There is no money.
    Money,
    /// The key is refused, in a provider's own word for it.
    Key,
    /// The request or the model is wrong.
    Request,
    /// Whoever asks may not.
    Access,
    /// Too much in too short a time.
    Rate,
    /// The provider has too much to do, or failed.
    Busy,
    /// It took too long.
    Slow,
    /// The connection failed.
    Line,
    /// The address is wrong, or whoever is there cannot be trusted.
    Address,
    /// We ended it ourselves.
    Ours,
}

impl Topic {
    /// What a provider may speak of, in the order of precedence.
    pub(super) const ALL: &[Self] = &[
        Self::Window,
        Self::Quota,
        Self::Money,
        Self::Key,
        Self::Request,
        Self::Access,
        Self::Rate,
        Self::Busy,
        Self::Slow,
        Self::Line,
    ];

    const fn kind(self) -> ErrorKind {
        match self {
            Self::Window => ErrorKind::ContextLength,
            Self::Money | Self::Key | Self::Access => ErrorKind::Auth,
            Self::Request | Self::Address => ErrorKind::Configuration,
            Self::Quota | Self::Rate => ErrorKind::RateLimit,
            Self::Busy => ErrorKind::Overloaded,
            Self::Slow => ErrorKind::Timeout,
            Self::Line => ErrorKind::Transport,
            Self::Ours => ErrorKind::Other,
        }
    }

    /// Returns the phrases that speak of it.
    ///
    /// `*` ends a word of which only the beginning counts, and ` .. ` is any number of words.
    pub(super) const fn phrases(self) -> &'static [&'static str] {
        match self {
            Self::Window => WINDOW,
            Self::Quota => &[
                "per minute",
                "please retry in",
                "please try again in",
                "resource exhausted",
                "resource has been exhausted",
            ],
            Self::Money => MONEY,
            Self::Key => &[
                "api key is invalid",
                "api key not found",
                "api key not valid",
                "authentication error",
                "incorrect api key",
                "invalid api key",
                "invalid x api key",
                "requires an api key",
            ],
            Self::Request => REQUEST,
            Self::Access => &[
                "access denied",
                "api key",
                "forbidden",
                "no auth credentials",
                "permission denied",
                "permission error",
                "unauthenticated",
                "unauthorized",
            ],
            Self::Rate => &[
                "quota exceeded",
                "rate limit*",
                "ratelimit*",
                "throttl*",
                "tokens per min",
                "too many requests",
            ],
            Self::Busy => BUSY,
            Self::Slow => &["deadline exceeded", "time out", "timed out", "timeout*"],
            Self::Line => LINE,
            Self::Address => &[
                "builder error",
                "certificate",
                "empty host",
                "invalid url",
                "relative url without a base",
                "unknown issuer",
            ],
            Self::Ours => &["canceled", "cancelled", "deadline exceeded", "deadline has elapsed"],
        }
    }
}

const WINDOW: &[&str] = &[
    "context length exceeded",
    "context size has been exceeded",
    "context window exceeded",
    "context window exceeds limit",
    "exceed* context limit",
    "exceed* context size",
    "exceed* context window",
    "exceed* model token limit",
    "exceed* the available context size",
    "exceed* the context length",
    "exceed* the context window",
    "exceed* the model .. context length",
    "greater than the context length",
    "input is too long",
    "input token count .. exceeds",
    "inputs must have less than",
    "longer than the model .. context length",
    "max new tokens must be",
    "maximum context length",
    "maximum prompt length",
    "must be less than max seq len",
    "overflows .. context length of only",
    "prompt is too long",
    "prompt token count .. exceeds",
    "reduce the length of the input",
    "reduce the length of the messages",
    "request too large",
    "request exceeds the maximum size",
    "token limit exceeded",
    "too large for model with",
    "too many input tokens",
    "too many tokens .. prompt",
];

const MONEY: &[&str] = &[
    "account is not active",
    "arrearage",
    "billing",
    "credit balance is too low",
    "exceeded current quota error",
    "exceeded your current quota",
    "insufficient balance",
    "insufficient credit*",
    "insufficient funds",
    "insufficient quota",
    "out of credits",
    "payment required",
    "requires more credits",
    "spending limit",
];

const REQUEST: &[&str] = &[
    "bad request",
    "content filter",
    "content management policy",
    "content policy",
    "does not exist",
    "does not support",
    "failed precondition",
    "invalid argument",
    "invalid model",
    "invalid request",
    "is not supported",
    "method not allowed",
    "model .. not found",
    "no such model",
    "not found error",
    "not supported error",
    "unknown model",
    "unprocessable entity",
    "unsupported country",
    "unsupported model",
    "unsupported parameter",
    "unsupported value",
    "validation error",
    "validation exception",
];

const BUSY: &[&str] = &[
    "bad gateway",
    "capacity",
    "had an error while processing",
    "internal error",
    "internal server error",
    "internal server exception",
    "overload*",
    "retry your request",
    "server error",
    "server is busy",
    "server is currently busy",
    "server is loading",
    "loading model",
    "slow down",
    "temporarily unavailable",
    "try again later",
    "type api error",
    "unavailable",
];

const LINE: &[&str] = &[
    "broken pipe",
    "channel closed",
    "connection aborted",
    "connection closed",
    "connection error",
    "connection refused",
    "connection reset",
    "connection was closed",
    "connection was reset",
    "cut off",
    "disconnected",
    "dns error",
    "econnrefused",
    "econnreset",
    "enhance your calm",
    "eof while parsing",
    "epipe",
    "error decoding response body",
    "error reading a body",
    "error sending request",
    "failed to lookup address",
    "go away",
    "goaway",
    "http2 error",
    "incomplete message",
    "network error",
    "premature*",
    "refused stream",
    "rst stream",
    "stream ended",
    "stream error",
    "stream reset",
    "stream was reset",
    "truncated",
    "unexpected end of file",
    "unexpected end of input",
    "unexpected end of json",
    "unexpected end of stream",
    "unexpected eof",
    "unexpectedly closed",
];

/// A text as its words, in small letters.
#[derive(Debug)]
pub(super) struct Words(Vec<String>);

impl Words {
    /// Takes the words of what is looked at.
    pub(super) fn of(text: &str) -> Self {
        let mut words = vec![String::new()];
        let mut chars = text[..text.floor_char_boundary(TEXT_BYTES_MAX)].chars().peekable();
        let mut before = ' ';
        while let Some(char) = chars.next() {
            // In a number: 1,429 and 4.29 are one word.
            let joins = matches!(char, '.' | ',')
                && before.is_ascii_digit()
                && chars.peek().is_some_and(char::is_ascii_digit);
            let begins = !before.is_alphanumeric() || before.is_lowercase() && char.is_uppercase();
            if begins && !joins && words.last().is_some_and(|word| !word.is_empty()) {
                words.push(String::new());
            }
            if (char.is_alphanumeric() || joins)
                && let Some(word) = words.last_mut()
            {
                word.extend(char.to_lowercase());
            }
            // A line break in JSON that was not read as such.
            if char == '\\' {
                chars.next_if(|next| matches!(next, 'n' | 'r' | 't'));
            }
            before = if joins { '0' } else { char };
        }
        words.retain(|word| !word.is_empty());
        Self(words)
    }

    /// Returns the status of an error that the text names as such.
    pub(super) fn status(&self) -> Option<u16> {
        let words = &self.0;
        let is_named = |at: usize| match (at.checked_sub(2), at.checked_sub(1)) {
            (_, None) => true,
            (Some(second), _) if words[second] == "http" => true,
            (_, Some(last)) => matches!(&*words[last], "code" | "error" | "http" | "status"),
        };
        let statuses = words.iter().enumerate().filter_map(|(at, word)| {
            let status = word.parse().ok().filter(|status| (400..600).contains(status))?;
            (word.len() == 3 && is_named(at)).then_some(status)
        });
        statuses.into_iter().next()
    }

    /// Returns the kind of the first of these topics that the text is about.
    pub(super) fn kind(&self, topics: &[Topic]) -> Option<ErrorKind> {
        let is_about = |topic: &&Topic| topic.phrases().iter().any(|phrase| self.have(phrase));
        topics.iter().find(is_about).map(|topic| topic.kind())
    }

    fn have(&self, phrase: &str) -> bool {
        let mut rest = &*self.0;
        phrase.split(" .. ").all(|run| {
            let found = after(rest, run);
            rest = found.unwrap_or_default();
            found.is_some()
        })
    }
}

/// Returns the words after the first ones that are those of `run`.
fn after<'a>(words: &'a [String], run: &str) -> Option<&'a [String]> {
    let run: Vec<&str> = run.split(' ').collect();
    let is_same = |(word, pattern): (&String, &&str)| match pattern.strip_suffix('*') {
        Some(beginning) => word.starts_with(beginning),
        None => word == pattern,
    };
    let at = words.windows(run.len()).position(|words| words.iter().zip(&run).all(is_same))?;
    Some(&words[at + run.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart_by_case_and_by_what_stands_between() {
        check("rate_limit Rate-Limit RateLimit", "rate limit rate limit rate limit");
        check("the model\u{2019}s  `max_tokens`:\n<= 4,096.", "the model s max tokens 4,096");
        check(r#"{\"error\":\"no\nplease 1.2 it\"}"#, "error no please 1.2 it");
        check("HTTP/1.1 503; 14290 Über ÄRGER", "http 1.1 503 14290 über ärger");
        check(" .,-", "");
    }

    #[test]
    fn a_status_is_one_where_it_is_called_so() {
        let status = |text| Words::of(text).status();
        assert_eq!(status(r#"{"error":{"code":429,"message":"no"}}"#), Some(429));
        assert_eq!(status("HTTP/1.1 503"), Some(503));
        assert_eq!(status("503 from upstream"), Some(503));
        assert_eq!(status("statusCode=502"), Some(502));
        for text in ["14290", "code 429000", "status 1,429", "code 4.29", "code 299", "of 503"] {
            assert_eq!(status(text), None, "{text}");
        }
    }

    #[test]
    fn phrases_are_met_by_whole_words_and_in_order() {
        let have = |text, phrase| Words::of(text).have(phrase);
        assert!(have("ThrottlingException", "throttl*"));
        assert!(have("input token count (9) exceeds", "input token count .. exceeds"));
        assert!(!have("it exceeds the input token count", "input token count .. exceeds"));
        assert!(!have("unavailability", "unavailable"));
        assert!(!have("", "unavailable"));
    }

    #[test]
    fn every_phrase_can_be_met() {
        for topic in Topic::ALL.iter().chain(&[Topic::Address, Topic::Ours]) {
            for phrase in topic.phrases() {
                let text = phrase.replace('*', "ing").replace(" .. ", " 7 ");
                assert!(Words::of(&text).have(phrase), "{phrase}");
            }
        }
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(Words::of(text).0.join(" "), expected);
    }
}
