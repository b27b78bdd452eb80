//! What the fake GitHub tells while nothing fails.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::FakePull;

/// Answers a question about pull requests; only those who have a token are told anything.
pub(super) fn answer(
    pulls: &BTreeMap<(String, String, i64), FakePull>,
    uri: &Uri,
    token: Option<&str>,
    tag: Option<&str>,
) -> Response {
    let Some(token) = token else {
        return respond(StatusCode::UNAUTHORIZED, None, &json!({"message": "Bad credentials"}));
    };
    let path: Vec<&str> = uri.path().split('/').skip(1).collect();
    let found = match *path.as_slice() {
        ["repos", owner, repo, "pulls"] => Some(list(pulls, owner, repo, uri)),
        ["repos", owner, repo, "pulls", number] => {
            find(pulls, owner, repo, number).map(|(number, told)| pull(owner, repo, number, told))
        }
        ["repos", owner, repo, "pulls", number, "reviews"] => {
            find(pulls, owner, repo, number).map(|(_, told)| reviews(told))
        }
        _ => None,
    };
    let Some(body) = found else {
        return respond(StatusCode::NOT_FOUND, None, &json!({"message": "Not Found"}));
    };
    let now = tag_of(&body, token);
    if tag == Some(now.as_str()) {
        return respond(StatusCode::NOT_MODIFIED, Some(&now), &Value::Null);
    }
    respond(StatusCode::OK, Some(&now), &body)
}

fn find<'a>(
    pulls: &'a BTreeMap<(String, String, i64), FakePull>,
    owner: &str,
    repo: &str,
    number: &str,
) -> Option<(i64, &'a FakePull)> {
    let number = number.parse().ok()?;
    Some((number, pulls.get(&(owner.to_owned(), repo.to_owned(), number))?))
}

/// Lists the pull requests of one branch, the newest first.
fn list(
    pulls: &BTreeMap<(String, String, i64), FakePull>,
    owner: &str,
    repo: &str,
    uri: &Uri,
) -> Value {
    let query: BTreeMap<String, String> =
        axum::extract::Query::try_from_uri(uri).map(|query| query.0).unwrap_or_default();
    let value = |name: &str| query.get(name).map(String::as_str);
    let rows = pulls.iter().rev().filter(|((its_owner, its_repo, _), pull)| {
        let of_branch = value("head") == Some(&format!("{owner}:{}", pull.head));
        its_owner == owner && its_repo == repo && of_branch && value("state") == Some("all")
    });
    let most = value("per_page").and_then(|most| most.parse().ok()).unwrap_or(30);
    let mut rows = rows.take(most).map(|(&(.., number), told)| pull(owner, repo, number, told));
    let listed = rows.by_ref().map(|mut row| {
        // A list has no figures.
        for figure in ["additions", "deletions", "changed_files", "commits", "merged"] {
            row.as_object_mut().map(|row| row.remove(figure));
        }
        row
    });
    listed.collect()
}

fn pull(owner: &str, repo: &str, number: i64, pull: &FakePull) -> Value {
    let [additions, deletions, changed_files, commits] = pull.figures;
    json!({
        "id": number,
        "number": number,
        "url": format!("https://api.example/repos/{owner}/{repo}/pulls/{number}"),
        "html_url": format!("https://github.example/{owner}/{repo}/pull/{number}"),
        "state": if pull.merged { "closed" } else { pull.state.as_str() },
        "merged": pull.merged,
        "merged_at": pull.merged.then_some("2026-01-01T00:00:00Z"),
        "title": pull.title,
        "draft": pull.draft,
        "user": {
            "login": pull.author,
            "avatar_url": format!("https://avatars.example/{}", pull.author),
        },
        "additions": additions,
        "deletions": deletions,
        "changed_files": changed_files,
        "commits": commits,
        "base": {"ref": pull.base},
        "head": {"ref": pull.head},
        // Every review changes its pull request.
        "updated_at": pull.reviews.len(),
    })
}

fn reviews(pull: &FakePull) -> Value {
    let review =
        |(login, state): &(String, String)| json!({"user": {"login": login}, "state": state});
    pull.reviews.iter().map(review).collect()
}

/// Returns a tag as GitHub's are: weak, and another one for each token.
fn tag_of(body: &Value, token: &str) -> String {
    let digest = Sha256::digest(format!("{token}\n{body}"));
    digest.iter().take(16).fold("W/\"".to_owned(), |mut tag, byte| {
        let _ = write!(tag, "{byte:02x}");
        tag
    }) + "\""
}

fn respond(status: StatusCode, tag: Option<&str>, body: &Value) -> Response {
    let mut response = Response::builder().status(status);
    if let Some(tag) = tag {
        response = response.header(ETAG, tag);
    }
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let response = response.header(CONTENT_TYPE, "application/json; charset=utf-8").body(body);
    response.expect("a tag is ASCII")
}
