//! Extractors whose refusals are problems.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum_extra::TypedHeader;
use axum_extra::headers::Authorization;
use axum_extra::headers::authorization::Bearer;
use musterbeat_db::tokens::TokenKind;
use secrecy::SecretString;
use serde::de::DeserializeOwned;

use super::problem::{Kind, Problem};
use crate::agent_tokens::AgentTokens;
use crate::app::App;
use crate::identity::{self, Caller, DEV_OWNER};

/// A JSON body.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(body_problem(&rejection)),
        }
    }
}

fn body_problem(rejection: &JsonRejection) -> Problem {
    let kind = match rejection {
        JsonRejection::JsonDataError(_) => Kind::Invalid,
        JsonRejection::MissingJsonContentType(_) => Kind::MediaType,
        other if other.status() == StatusCode::PAYLOAD_TOO_LARGE => Kind::TooLarge,
        _ => Kind::Malformed,
    };
    Problem::new(kind, rejection.body_text())
}

/// A part of the path.
pub(crate) struct PathOf<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let extracted = Path::from_request_parts(parts, state).await;
        extracted.map(|Path(value)| Self(value)).map_err(|rejection: PathRejection| {
            Problem::new(Kind::Malformed, rejection.body_text())
        })
    }
}

/// The query's parameters.
pub(crate) struct QueryOf<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let extracted = Query::from_request_parts(parts, state).await;
        extracted.map(|Query(value)| Self(value)).map_err(|rejection: QueryRejection| {
            Problem::new(Kind::Malformed, rejection.body_text())
        })
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        if app.dev {
            return Ok(Self { token: None, kind: TokenKind::Admin, owner: DEV_OWNER });
        }
        let header = TypedHeader::<Authorization<Bearer>>::from_request_parts(parts, app).await;
        let Ok(TypedHeader(Authorization(bearer))) = header else {
            let detail = "send the header `Authorization: Bearer TOKEN`";
            return Err(Problem::new(Kind::Unauthorized, detail));
        };
        let caller = if AgentTokens::is_one(bearer.token()) {
            app.agent_tokens.bearer(bearer.token()).await?
        } else {
            identity::bearer(&app.store, &SecretString::from(bearer.token())).await?
        };
        caller.ok_or_else(Problem::token_unknown)
    }
}

/// One who acts for a person: anybody but an agent.
pub(crate) struct ChatUser(pub(crate) Caller);

impl FromRequestParts<App> for ChatUser {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, app).await?;
        match caller.kind {
            TokenKind::Admin | TokenKind::User => Ok(Self(caller)),
            TokenKind::Agent => {
                Err(Problem::new(Kind::Forbidden, "an agent's token is for its own metadata only"))
            }
        }
    }
}

/// One who may do everything.
pub(crate) struct Admin;

impl FromRequestParts<App> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, app).await?;
        match caller.kind {
            TokenKind::Admin => Ok(Self),
            TokenKind::User | TokenKind::Agent => {
                Err(Problem::new(Kind::Forbidden, "this is for admins; use an admin's token"))
            }
        }
    }
}
