//! What users ask, and what may be answered: each text says by itself what its answer is.

use musterbeat_core::message::{Content, Part, Role};

/// The only tool.
pub(crate) const TOOL: &str = "look";

/// What the tool says.
pub(crate) const DONE: &str = "done";

/// What a replica says of a call whose caller has gone.
pub(crate) const UNKNOWN: &str = "outcome unknown";

/// A question, which is like no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) number: u64,
    /// Whether its answer begins with the call of a tool.
    pub(crate) calls: bool,
    /// Whether its turn fails, after half of its words.
    pub(crate) fails: bool,
    /// How many words its answer has.
    pub(crate) words: u32,
}

/// How much of an answer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Nothing,
    /// A call of the tool is open.
    Called,
    /// The tool has answered, or was interrupted.
    Resolved,
    Partial,
    Whole,
}

impl Question {
    pub(crate) fn text(self) -> String {
        let Self { number, calls, fails, words } = self;
        format!("q{number} calls={calls} fails={fails} words={words}")
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(' ');
        let number = fields.next()?.strip_prefix('q')?.parse().ok()?;
        let calls = fields.next()?.strip_prefix("calls=")?.parse().ok()?;
        let fails = fields.next()?.strip_prefix("fails=")?.parse().ok()?;
        let words = fields.next()?.strip_prefix("words=")?.parse().ok()?;
        Some(Self { number, calls, fails, words })
    }

    pub(crate) fn word(self, place: u32) -> String {
        format!("a{}.{place} ", self.number)
    }

    /// Returns the first words of its answer.
    pub(crate) fn first(self, words: u32) -> String {
        (0..words).map(|place| self.word(place)).collect()
    }

    pub(crate) fn error(self) -> String {
        format!("q{} failed", self.number)
    }

    pub(crate) fn call(self) -> Part {
        let input = serde_json::json!({ "at": self.number });
        Part::ToolCall { id: self.call_id(), name: TOOL.to_owned(), input }
    }

    pub(crate) fn result(self) -> Part {
        Part::ToolResult { id: self.call_id(), output: DONE.to_owned(), is_error: false }
    }

    fn call_id(self) -> String {
        format!("c{}", self.number)
    }

    /// Says how far an answer has come; `None` when it is none that was ever allowed.
    pub(crate) fn progress<'a>(
        self,
        said: impl IntoIterator<Item = (Role, &'a Content)>,
    ) -> Option<Progress> {
        let mut progress = Progress::Nothing;
        let mut cut = false;
        for (role, content) in said {
            let [part] = content.parts() else { return None };
            progress = match (progress, role, part) {
                (Progress::Nothing, Role::Assistant, call) if self.calls => {
                    (*call == self.call()).then_some(Progress::Called)?
                }
                (Progress::Called, Role::Tool, Part::ToolResult { id, output, is_error }) => {
                    cut = output == musterbeat_core::call::INTERRUPTED;
                    let told = (output == DONE) != *is_error;
                    let known = cut || [DONE, UNKNOWN].contains(&output.as_str());
                    (*id == self.call_id() && told && known).then_some(Progress::Resolved)?
                }
                (Progress::Nothing | Progress::Resolved, Role::Assistant, Part::Text { text }) => {
                    self.spoken(text, cut)?
                }
                _ => return None,
            };
        }
        Some(progress)
    }

    fn spoken(self, text: &str, cut: bool) -> Option<Progress> {
        let words = (1..=self.words).find(|words| self.first(*words) == text)?;
        let whole = words == self.words && !self.fails && !cut;
        Some(if whole { Progress::Whole } else { Progress::Partial })
    }
}

#[test]
fn answer_is_whole_partial_or_wrong() {
    let question = Question { number: 7, calls: true, fails: false, words: 2 };
    assert_eq!(Question::parse(&question.text()), Some(question));
    let content = |part: Part| Content::produced_parts(vec![part]).unwrap();
    let text = |text: &str| content(Part::Text { text: text.to_owned() });
    let (call, result) = (content(question.call()), content(question.result()));
    let (whole, part) = (text("a7.0 a7.1 "), text("a7.0 "));
    let check = |said: &[(Role, &Content)], progress: Option<Progress>| {
        assert_eq!(question.progress(said.iter().copied()), progress);
    };
    let called = (Role::Assistant, &call);
    let told = (Role::Tool, &result);
    check(&[], Some(Progress::Nothing));
    check(&[called], Some(Progress::Called));
    check(&[called, told], Some(Progress::Resolved));
    check(&[called, told, (Role::Assistant, &part)], Some(Progress::Partial));
    check(&[called, told, (Role::Assistant, &whole)], Some(Progress::Whole));
    check(&[(Role::Assistant, &whole)], None);
    check(&[called, (Role::Assistant, &whole)], None);
    check(&[called, told, told], None);
    check(&[called, told, (Role::Assistant, &whole), (Role::Assistant, &whole)], None);
}
