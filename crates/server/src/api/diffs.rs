//! The states of chats' branches.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use musterbeat_core::diff::Reference;
use musterbeat_core::id::{ChatId, WorkspaceId};
use musterbeat_core::invalid::Invalid;
use musterbeat_core::port::{DiffStore, DiffTarget};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::wire::{DiffStatus, DiffStatuses, MarkDiff, Marked};
use crate::app::App;
use crate::http::extract::{Body, ChatUser, PathOf, QueryOf};
use crate::http::problem::{
    AnyProblem, BodyProblem, HostProblem, ObjectProblem, Problem, StateProblem, ValueProblem,
};

/// Chats that one request may name.
const CHATS_MAX: usize = 200;

/// Reads what is known of a chat's branch; no host is asked.
#[utoipa::path(
    get,
    path = "/chats/{id}/diff-status",
    operation_id = "read_diff_status",
    tag = "diff status",
    params(("id" = Uuid, Path, description = "The chat")),
    responses(
        (status = 200, description = "The branch", body = DiffStatus),
        AnyProblem,
        ObjectProblem,
    ),
)]
pub(super) async fn read(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<Json<DiffStatus>, Problem> {
    let mut found = app.store.read(&[ChatId::new(id)], caller.reach()).await?;
    found.pop().map(|diff| Json(diff.into())).ok_or_else(Problem::not_found)
}

/// Which chats to read of.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadMany {
    /// Ids of chats with commas between them, at most 200.
    #[serde(default)]
    ids: String,
}

/// Reads what is known of several chats' branches; one of which nothing is known is left out.
#[utoipa::path(
    get,
    path = "/chats/diff-statuses",
    operation_id = "read_diff_statuses",
    tag = "diff status",
    params(ReadMany),
    responses(
        (status = 200, description = "The branches, in no order", body = DiffStatuses),
        ValueProblem,
        AnyProblem,
    ),
)]
pub(super) async fn read_many(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    QueryOf(query): QueryOf<ReadMany>,
) -> Result<Json<DiffStatuses>, Problem> {
    let found = app.store.read(&chats(&query.ids)?, caller.reach()).await?;
    let diff_statuses = found.into_iter().map(DiffStatus::from).collect();
    Ok(Json(DiffStatuses { diff_statuses }))
}

fn chats(ids: &str) -> Result<Vec<ChatId>, Invalid> {
    let ids = ids.split(',').map(str::trim).filter(|id| !id.is_empty());
    let chats: Result<Vec<ChatId>, Invalid> = ids
        .take(CHATS_MAX + 1)
        .map(|id| {
            let uuid = id.parse().map_err(|_| Invalid::new("ids", format!("{id:?} is no UUID")));
            uuid.map(ChatId::new)
        })
        .collect();
    let chats = chats?;
    if chats.len() > CHATS_MAX {
        return Err(Invalid::new("ids", format!("names more than {CHATS_MAX} chats")));
    }
    Ok(chats)
}

/// Says where a chat's work is, and that it changed; its host is asked soon.
///
/// What is left out stays as it was. Another branch or origin takes with it the pull request of
/// the one before and what was known of it.
#[utoipa::path(
    post,
    path = "/chats/{id}/diff-status",
    operation_id = "mark_chat_stale",
    tag = "diff status",
    params(("id" = Uuid, Path, description = "The chat")),
    request_body = MarkDiff,
    responses(
        (status = 202, description = "The host will be asked", body = Marked),
        AnyProblem,
        BodyProblem,
        ObjectProblem,
    ),
)]
pub(super) async fn mark_chat(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
    Body(body): Body<MarkDiff>,
) -> Result<(StatusCode, Json<Marked>), Problem> {
    let target = DiffTarget::Chat(ChatId::new(id));
    match app.refresher.mark(target, caller.reach(), &body.checked()?).await? {
        0 => Err(Problem::not_found()),
        chats => Ok((StatusCode::ACCEPTED, Json(Marked { chats }))),
    }
}

/// Says that a branch of a workspace changed; its host is asked soon.
///
/// Meant are the workspace's chats on that branch, and those of which no branch is known yet.
#[utoipa::path(
    post,
    path = "/workspaces/{id}/diff-status",
    operation_id = "mark_workspace_stale",
    tag = "diff status",
    params(("id" = Uuid, Path, description = "The workspace")),
    request_body = MarkDiff,
    responses(
        (status = 202, description = "The host will be asked about so many chats", body = Marked),
        AnyProblem,
        BodyProblem,
    ),
)]
pub(super) async fn mark_workspace(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
    Body(body): Body<MarkDiff>,
) -> Result<(StatusCode, Json<Marked>), Problem> {
    let reference = body.checked()?;
    named(&reference)?;
    let target = DiffTarget::Workspace(WorkspaceId::new(id));
    let chats = app.refresher.mark(target, caller.reach(), &reference).await?;
    Ok((StatusCode::ACCEPTED, Json(Marked { chats })))
}

/// Refuses a mark of a workspace that does not say which of its branches is meant.
fn named(reference: &Reference) -> Result<(), Invalid> {
    for (field, value) in [("branch", &reference.branch), ("origin", &reference.origin)] {
        if value.is_empty() {
            return Err(Invalid::new(field, "is empty, but a workspace may have several branches"));
        }
    }
    Ok(())
}

/// Asks the host of a chat's branch at once.
///
/// A host that wants to be left alone is not asked; `Retry-After` says for how long.
#[utoipa::path(
    post,
    path = "/chats/{id}/diff-status/refresh",
    operation_id = "refresh_diff_status",
    tag = "diff status",
    params(("id" = Uuid, Path, description = "The chat")),
    responses(
        (status = 200, description = "The branch as it is now", body = DiffStatus),
        AnyProblem,
        ObjectProblem,
        StateProblem,
        HostProblem,
    ),
)]
pub(super) async fn refresh(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<Json<DiffStatus>, Problem> {
    let diff = app.refresher.refresh(ChatId::new(id), caller.reach()).await?;
    Ok(Json(diff.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_up_to_their_limit() {
        let id = Uuid::from_u128(7);
        assert_eq!(chats("").unwrap(), []);
        assert_eq!(chats(&format!(" {id} ,,{id}")).unwrap(), [ChatId::new(id); 2]);
        let limit = vec![id.to_string(); CHATS_MAX];
        assert_eq!(chats(&limit.join(",")).unwrap().len(), CHATS_MAX);
        let over = vec![id.to_string(); CHATS_MAX + 1].join(",");
        assert_eq!(chats(&over).unwrap_err().to_string(), "ids: names more than 200 chats");
        assert_eq!(chats("x").unwrap_err().to_string(), "ids: \"x\" is no UUID");
    }
}
