//! Make and revoke tokens.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use musterbeat_core::id::{OwnerId, TokenId};
use musterbeat_core::invalid::Invalid;
use musterbeat_core::port::Topic;
use musterbeat_db::tokens::TokenKind;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::http::extract::{Admin, Body, PathOf};
use crate::http::problem::{AnyProblem, BodyProblem, ObjectProblem, Problem};
use crate::identity;

/// Characters of a token's name, at most.
const NAME_CHARS_MAX: usize = 100;

/// A token to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "kind": "user", "name": "a laptop" })))]
pub(super) struct CreateToken {
    #[schema(inline)]
    kind: Kind,
    /// For whom its bearer acts; by default somebody new.
    #[serde(default)]
    owner_id: Option<Uuid>,
    /// What to call it.
    #[schema(pattern = r"^[^\x00]*$", max_length = 100)]
    name: String,
}

/// What the bearer of a token may do.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// Everything, on everybody's behalf.
    Admin,
    /// What belongs to its owner.
    User,
}

/// A token that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CreatedToken {
    /// Names it, for revoking.
    id: Uuid,
    /// For whom its bearer acts.
    owner_id: Uuid,
    /// The token itself; it is shown once, and only its hash is stored.
    token: String,
}

/// Makes a token.
#[utoipa::path(
    post,
    path = "/tokens",
    operation_id = "create_token",
    tag = "tokens",
    request_body = CreateToken,
    responses(
        (status = 201, description = "The token", body = CreatedToken),
        AnyProblem,
        BodyProblem,
    ),
)]
pub(super) async fn create(
    State(app): State<App>,
    _admin: Admin,
    Body(body): Body<CreateToken>,
) -> Result<(StatusCode, Json<CreatedToken>), Problem> {
    if body.name.chars().count() > NAME_CHARS_MAX || body.name.contains('\0') {
        let reason = format!("is not at most {NAME_CHARS_MAX} characters without NUL");
        return Err(Invalid::new("name", reason).into());
    }
    let kind = match body.kind {
        Kind::Admin => TokenKind::Admin,
        Kind::User => TokenKind::User,
    };
    let owner = body.owner_id.map(OwnerId::new);
    let minted = identity::mint(&app.store, kind, owner, &body.name).await?;
    let created = CreatedToken {
        id: minted.id.uuid(),
        owner_id: minted.owner.uuid(),
        token: minted.text.expose_secret().to_owned(),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// Revokes a token; its bearer is refused from then on, and its open streams end.
#[utoipa::path(
    delete,
    path = "/tokens/{id}",
    operation_id = "revoke_token",
    tag = "tokens",
    params(("id" = Uuid, Path, description = "The token's id")),
    responses((status = 204, description = "It is revoked"), AnyProblem, ObjectProblem),
)]
pub(super) async fn revoke(
    State(app): State<App>,
    _admin: Admin,
    PathOf(id): PathOf<Uuid>,
) -> Result<StatusCode, Problem> {
    if app.store.revoke_token(TokenId::new(id)).await? {
        app.agent_tokens.forget(TokenId::new(id));
        app.publish.publish(Topic::Token, id);
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found())
    }
}
