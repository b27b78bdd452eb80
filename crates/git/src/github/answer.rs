//! What is read of the API's answers, and what it means.
//!
//! These are also what the cache keeps: written again as JSON, without all that nobody reads.

use std::collections::BTreeMap;

use musterbeat_core::diff::{BranchState, DiffStatus, Pull, Review};
use serde::{Deserialize, Serialize};

/// A pull request as it stands in a list, which lacks the figures.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Listed {
    pub(super) number: i64,
    head: Side,
}

impl Listed {
    /// Says whether it is about `branch`: a server that does not filter tells of any.
    pub(super) fn is_of(&self, branch: &str) -> bool {
        self.head.name == branch
    }
}

/// A pull request.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct PullAnswer {
    number: i64,
    html_url: String,
    title: String,
    state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    draft: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    merged: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    merged_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<User>,
    additions: u32,
    deletions: u32,
    changed_files: u32,
    // Some servers that offer the API do not count them.
    #[serde(default)]
    commits: u32,
    base: Side,
    head: Side,
}

/// One of the two branches.
#[derive(Debug, Deserialize, Serialize)]
struct Side {
    #[serde(rename = "ref")]
    name: String,
}

/// A person; absent where the account is gone.
#[derive(Debug, Deserialize, Serialize)]
struct User {
    login: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    avatar_url: Option<String>,
}

/// Something that a reviewer said.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct ReviewAnswer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<User>,
    state: String,
}

impl PullAnswer {
    pub(super) fn is_open(&self) -> bool {
        self.state() == BranchState::Open
    }

    fn state(&self) -> BranchState {
        if self.merged == Some(true) || self.merged_at.is_some() {
            BranchState::Merged
        } else if self.state == "open" {
            BranchState::Open
        } else {
            BranchState::Closed
        }
    }

    /// Returns all that the host told, with what reviewers said where that was asked for.
    pub(super) fn into_status(self, reviews: Option<&[ReviewAnswer]>) -> DiffStatus {
        let state = self.state();
        let author_login = self.user.as_ref().map(|user| user.login.clone());
        let review = reviews.map(|reviews| last_words(reviews, author_login.as_deref()));
        let pull = Pull {
            url: self.html_url,
            number: self.number,
            title: self.title,
            draft: self.draft == Some(true),
            author_login,
            author_avatar_url: self.user.and_then(|user| user.avatar_url),
            review,
        };
        DiffStatus {
            pull: Some(pull),
            state: Some(state),
            additions: self.additions,
            deletions: self.deletions,
            changed_files: self.changed_files,
            commits: self.commits,
            behind: None,
            base_branch: Some(self.base.name),
            head_branch: Some(self.head.name),
        }
    }
}

/// Judges by the last word of each reviewer; a comment is none, and takes none back.
fn last_words(reviews: &[ReviewAnswer], author: Option<&str>) -> Review {
    let mut words: BTreeMap<Option<&str>, Option<&str>> = BTreeMap::new();
    for review in reviews {
        let reviewer = review.user.as_ref().map(|user| user.login.as_str());
        // What authors reply is listed among the reviews, and what is pending was not said yet.
        if review.state == "PENDING" || (reviewer.is_some() && reviewer == author) {
            continue;
        }
        let word = words.entry(reviewer).or_default();
        if matches!(review.state.as_str(), "APPROVED" | "CHANGES_REQUESTED" | "DISMISSED") {
            *word = Some(&review.state);
        }
    }
    let anybody = |wanted| words.values().any(|&word| word == Some(wanted));
    let changes_requested = anybody("CHANGES_REQUESTED");
    Review {
        approved: anybody("APPROVED") && !changes_requested,
        changes_requested,
        reviewers: u32::try_from(words.len()).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_word_of_each_reviewer_counts() {
        // Words are a reviewer and what they said; the outcome is approved, changes, reviewers.
        for (said, approved, changes_requested, reviewers) in [
            (&[][..], false, false, 0),
            (&["ann COMMENTED"], false, false, 1),
            (&["ann PENDING"], false, false, 0),
            (&["author COMMENTED"], false, false, 0),
            (&["ann APPROVED"], true, false, 1),
            (&["ann APPROVED", "ann COMMENTED"], true, false, 1),
            (&["ann APPROVED", "ann DISMISSED"], false, false, 1),
            (&["ann CHANGES_REQUESTED", "ann APPROVED"], true, false, 1),
            (&["ann APPROVED", "ann CHANGES_REQUESTED"], false, true, 1),
            (&["ann APPROVED", "bob CHANGES_REQUESTED"], false, true, 2),
            (&["ann APPROVED", "bob COMMENTED", "cy APPROVED"], true, false, 3),
        ] {
            let reviews: Vec<ReviewAnswer> = said.iter().map(|said| review(said)).collect();
            let expected = Review { approved, changes_requested, reviewers };
            assert_eq!(last_words(&reviews, Some("author")), expected, "{said:?}");
        }
    }

    #[test]
    fn a_pull_request_is_merged_by_either_sign() {
        for (state, merged, merged_at, expected) in [
            ("open", Some(false), None, BranchState::Open),
            ("closed", Some(false), None, BranchState::Closed),
            ("closed", Some(true), None, BranchState::Merged),
            ("closed", None, Some("2026-01-01T00:00:00Z"), BranchState::Merged),
        ] {
            let answer: PullAnswer = serde_json::from_value(json!({
                "number": 7, "html_url": "", "title": "", "state": state, "user": null,
                "merged": merged, "merged_at": merged_at, "draft": null,
                "additions": 1, "deletions": 2, "changed_files": 3,
                "base": {"ref": "main"}, "head": {"ref": "feature"},
            }))
            .unwrap();
            assert_eq!(answer.into_status(None).state, Some(expected));
        }
    }

    fn review(said: &str) -> ReviewAnswer {
        let (login, state) = said.split_once(' ').unwrap();
        serde_json::from_value(json!({"user": {"login": login}, "state": state})).unwrap()
    }
}
