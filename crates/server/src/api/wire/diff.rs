//! What is said and shown of chats' branches.

use musterbeat_core::diff::{self, Reference};
use musterbeat_core::invalid::Invalid;
use musterbeat_core::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// Where a chat's work is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "branch": "feature", "origin": "https://github.com/owner/repository" })))]
pub(crate) struct MarkDiff {
    /// The pull request, if it is known; by default it is looked for by its branch.
    #[serde(default)]
    #[schema(max_length = 2048)]
    url: Option<String>,
    /// The branch.
    #[serde(default)]
    #[schema(max_length = 1024)]
    branch: Option<String>,
    /// The repository, as `git remote get-url origin` names it.
    #[serde(default)]
    #[schema(max_length = 2048)]
    origin: Option<String>,
}

impl MarkDiff {
    pub(crate) fn checked(self) -> Result<Reference, Invalid> {
        Reference::new(self.url, self.branch, self.origin)
    }
}

/// What a mark led to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Marked {
    /// Chats whose branch is stale now.
    pub(crate) chats: usize,
}

/// Several chats' branches.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DiffStatuses {
    pub(crate) diff_statuses: Vec<DiffStatus>,
}

/// The branch that a chat works on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DiffStatus {
    chat_id: Uuid,
    branch: String,
    origin: String,
    /// The pull request, once one is known.
    #[schema(required)]
    url: Option<String>,
    /// What its host told last; null until it told anything.
    #[schema(required)]
    status: Option<Told>,
    /// Why the last attempt to ask brought nothing.
    #[schema(required)]
    problem: Option<String>,
    /// When the host told it.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    refreshed_at: Option<OffsetDateTime>,
    /// When it is asked again; null once nothing changes unless somebody says so.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    stale_at: Option<OffsetDateTime>,
}

/// Where a branch's work has come to.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum BranchState {
    /// It goes on.
    Open,
    /// It was given up.
    Closed,
    /// Its base has all of it.
    Merged,
}

/// What a host told of a branch.
#[derive(Debug, Serialize, ToSchema)]
struct Told {
    #[schema(required)]
    state: Option<BranchState>,
    /// Lines added to the base.
    additions: u32,
    /// Lines taken from the base.
    deletions: u32,
    changed_files: u32,
    /// Commits that the base lacks.
    commits: u32,
    /// Commits of the base that the branch lacks, where the host tells.
    #[schema(required)]
    behind: Option<u32>,
    #[schema(required)]
    base_branch: Option<String>,
    #[schema(required)]
    head_branch: Option<String>,
    /// Null where the branch has no pull request.
    #[schema(required)]
    pull_request: Option<PullRequest>,
}

/// A pull request.
#[derive(Debug, Serialize, ToSchema)]
struct PullRequest {
    number: i64,
    title: String,
    draft: bool,
    #[schema(required)]
    author_login: Option<String>,
    #[schema(required)]
    author_avatar_url: Option<String>,
    /// What its reviewers said; null where that is not asked for.
    #[schema(required)]
    review: Option<Review>,
}

/// What the reviewers of a pull request said, the last word of each.
#[derive(Debug, Serialize, ToSchema)]
struct Review {
    approved: bool,
    changes_requested: bool,
    reviewers: u32,
}

impl From<diff::ChatDiff> for DiffStatus {
    fn from(diff: diff::ChatDiff) -> Self {
        let Reference { url, branch, origin } = diff.reference;
        Self {
            chat_id: diff.chat.uuid(),
            branch,
            origin,
            url,
            status: diff.status.map(Told::from),
            problem: diff.problem,
            refreshed_at: diff.refreshed_at.map(Timestamp::time),
            stale_at: diff.stale_at.map(Timestamp::time),
        }
    }
}

impl From<diff::DiffStatus> for Told {
    fn from(status: diff::DiffStatus) -> Self {
        Self {
            state: status.state.map(BranchState::from),
            additions: status.additions,
            deletions: status.deletions,
            changed_files: status.changed_files,
            commits: status.commits,
            behind: status.behind,
            base_branch: status.base_branch,
            head_branch: status.head_branch,
            pull_request: status.pull.map(PullRequest::from),
        }
    }
}

impl From<diff::BranchState> for BranchState {
    fn from(state: diff::BranchState) -> Self {
        match state {
            diff::BranchState::Open => Self::Open,
            diff::BranchState::Closed => Self::Closed,
            diff::BranchState::Merged => Self::Merged,
        }
    }
}

impl From<diff::Pull> for PullRequest {
    fn from(pull: diff::Pull) -> Self {
        Self {
            number: pull.number,
            title: pull.title,
            draft: pull.draft,
            author_login: pull.author_login,
            author_avatar_url: pull.author_avatar_url,
            review: pull.review.map(|review| Review {
                approved: review.approved,
                changes_requested: review.changes_requested,
                reviewers: review.reviewers,
            }),
        }
    }
}
