//! The state of the branch that a chat works on, as its host tells it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{ChatId, OwnerId};
use crate::invalid::Invalid;
use crate::timestamp::Timestamp;

/// Bytes of a pull request's URL or of an origin, at most.
pub const URL_BYTES_MAX: usize = 2_048;

/// Bytes of a branch's name, at most.
pub const BRANCH_BYTES_MAX: usize = 1_024;

/// Bytes of any text that a host tells, at most; what is longer is cut.
pub const TEXT_BYTES_MAX: usize = 1_024;

/// Where a chat's work is: a branch of a repository, and its pull request once there is one.
///
/// Without a branch and an origin there is nothing to ask about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The pull request.
    pub url: Option<String>,
    /// The branch.
    pub branch: String,
    /// The repository, as `git remote` names it.
    pub origin: String,
}

impl Reference {
    /// Takes what a caller says; what is empty or absent leaves the stored value as it is.
    ///
    /// # Errors
    /// Names the field that is too long or bears a control character.
    pub fn new(
        url: Option<String>,
        branch: Option<String>,
        origin: Option<String>,
    ) -> Result<Self, Invalid> {
        let url = checked("url", url, URL_BYTES_MAX)?;
        let branch = checked("branch", branch, BRANCH_BYTES_MAX)?;
        let origin = checked("origin", origin, URL_BYTES_MAX)?;
        Ok(Self { url, branch: branch.unwrap_or_default(), origin: origin.unwrap_or_default() })
    }
}

/// Returns a value without the blanks around it, `None` when nothing is left.
fn checked(
    field: &str,
    value: Option<String>,
    bytes_max: usize,
) -> Result<Option<String>, Invalid> {
    let Some(value) = value else { return Ok(None) };
    let value = value.trim();
    if value.len() > bytes_max {
        let reason = format!("has {} bytes, at most {bytes_max} are allowed", value.len());
        return Err(Invalid::new(field, reason));
    }
    if value.contains(char::is_control) {
        return Err(Invalid::new(field, "contains a control character"));
    }
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

/// Where a branch's work has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BranchState {
    /// It goes on.
    Open,
    /// It was given up, which may be taken back.
    Closed,
    /// Its base has all of it.
    Merged,
}

impl BranchState {
    /// Returns the word that the database and callers use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Merged => "merged",
        }
    }
}

impl fmt::Display for BranchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a host tells of a branch, whole: a later one replaces all of it.
///
/// Serialized as it is stored; what a former release did not store is what its default says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct DiffStatus {
    /// The pull request; a host without pull requests has none.
    pub pull: Option<Pull>,
    /// Where it has come to.
    pub state: Option<BranchState>,
    /// Lines added to the base.
    pub additions: u32,
    /// Lines taken from the base.
    pub deletions: u32,
    /// Files that differ from the base.
    pub changed_files: u32,
    /// Commits that the base lacks.
    pub commits: u32,
    /// Commits of the base that the branch lacks, where the host tells.
    pub behind: Option<u32>,
    /// The branch that it is to be merged into.
    pub base_branch: Option<String>,
    /// The branch itself.
    pub head_branch: Option<String>,
}

/// A pull request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Pull {
    /// Where a person reads it.
    pub url: String,
    /// Its number within the repository.
    pub number: i64,
    /// Its title.
    pub title: String,
    /// Whether it is a draft.
    pub draft: bool,
    /// Who opened it.
    pub author_login: Option<String>,
    /// Their picture.
    pub author_avatar_url: Option<String>,
    /// What reviewers said, where that is asked for.
    pub review: Option<Review>,
}

/// What the reviewers of a pull request said, the last word of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Review {
    /// Whether somebody approves and nobody asks for changes.
    pub approved: bool,
    /// Whether somebody asks for changes.
    pub changes_requested: bool,
    /// How many reviewed it.
    pub reviewers: u32,
}

impl DiffStatus {
    /// Cuts texts at [`TEXT_BYTES_MAX`] and removes NUL, which PostgreSQL stores in no text.
    ///
    /// A host is not trusted to keep to limits: one row of its must not fail a batch.
    #[must_use]
    pub fn cleaned(mut self) -> Self {
        let texts = [&mut self.base_branch, &mut self.head_branch].into_iter().flatten();
        texts.for_each(clean);
        if let Some(pull) = &mut self.pull {
            [&mut pull.url, &mut pull.title].into_iter().for_each(clean);
            let texts = [&mut pull.author_login, &mut pull.author_avatar_url];
            texts.into_iter().flatten().for_each(clean);
        }
        self
    }

    /// Says whether it is the end: a merged pull request never changes, a merged branch may grow.
    pub fn is_final(&self) -> bool {
        self.pull.is_some() && self.state == Some(BranchState::Merged)
    }
}

fn clean(text: &mut String) {
    text.retain(|character| character != '\0');
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
}

/// A chat's branch as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatDiff {
    /// Whose branch.
    pub chat: ChatId,
    /// Whose chat.
    pub owner: OwnerId,
    /// Where the work is.
    pub reference: Reference,
    /// What the host told last; `None` before it told anything.
    pub status: Option<DiffStatus>,
    /// Why the last attempt to ask brought nothing, `None` when it did.
    pub problem: Option<String>,
    /// When the host told it.
    pub refreshed_at: Option<Timestamp>,
    /// When it is to be asked again; `None` when only a mark makes it stale.
    pub stale_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_is_trimmed_and_what_is_empty_is_absent() {
        let reference = Reference::new(Some(" ".into()), Some(" main\n".into()), None).unwrap();
        let expected = Reference { url: None, branch: "main".into(), origin: String::new() };
        assert_eq!(reference, expected);
    }

    #[test]
    fn reference_that_breaks_a_limit_is_refused_by_the_name_of_its_field() {
        let long = |bytes| Some("x".repeat(bytes));
        let refused =
            |url, branch, origin| Reference::new(url, branch, origin).unwrap_err().to_string();
        let limit = "url: has 2049 bytes, at most 2048 are allowed";
        assert_eq!(refused(long(2_049), None, None), limit);
        let limit = "branch: has 1025 bytes, at most 1024 are allowed";
        assert_eq!(refused(None, long(1_025), None), limit);
        let control = "origin: contains a control character";
        assert_eq!(refused(None, None, Some("a\0b".into())), control);
    }

    #[test]
    fn what_a_host_tells_is_cut_between_characters() {
        let pull = Pull { title: format!("a\0{}", "é".repeat(TEXT_BYTES_MAX)), ..Pull::default() };
        let status = DiffStatus { pull: Some(pull), ..DiffStatus::default() }.cleaned();
        let title = status.pull.unwrap().title;
        assert_eq!(title.len(), TEXT_BYTES_MAX - 1);
        assert!(title.starts_with("aé"));
    }

    #[test]
    fn only_a_merged_pull_request_is_final() {
        for (pull, state, is_final) in [
            (Some(Pull::default()), BranchState::Merged, true),
            (Some(Pull::default()), BranchState::Closed, false),
            (Some(Pull::default()), BranchState::Open, false),
            (None, BranchState::Merged, false),
        ] {
            let status = DiffStatus { pull, state: Some(state), ..DiffStatus::default() };
            assert_eq!(status.is_final(), is_final, "{status:?}");
        }
    }
}
