//! Errors as the API gives them: `application/problem+json` (RFC 9457).

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use musterbeat_core::chat::Refused;
use musterbeat_core::invalid::Invalid;
use musterbeat_core::port::{ApplyError, FetchError, StoreError, TemplateError, WorkspaceError};
use musterbeat_engine::refresh::RefreshError;
use serde::Serialize;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{
    Content, Header, HeaderBuilder, Ref, RefOr, Response as ResponseDoc, ResponseBuilder,
};
use utoipa::{IntoResponses, ToSchema};

const MEDIA_TYPE: &str = "application/problem+json";

/// Seconds after which it is worth trying again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Why a request was not done (RFC 9457).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Names the sort of problem, as a URN.
    #[serde(rename = "type")]
    kind: String,
    /// What sort of problem it is, in words.
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What happened this time, and what to do.
    detail: String,
    /// Which field of the request is to blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<String>,
    /// After which time it is worth trying again, where that is known.
    #[serde(skip)]
    again: Option<Duration>,
}

/// The sorts of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Malformed,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotNow,
    QueueFull,
    NoClaimablePrebuild,
    NameTaken,
    TooLarge,
    MediaType,
    Invalid,
    TooManyRequests,
    Internal,
    HostFailed,
    Unavailable,
}

impl Kind {
    const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Malformed => (StatusCode::BAD_REQUEST, "malformed", "The request is malformed"),
            Self::Unauthorized => {
                (StatusCode::UNAUTHORIZED, "unauthorized", "A valid token is needed")
            }
            Self::Forbidden => {
                (StatusCode::FORBIDDEN, "forbidden", "The token does not allow this")
            }
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "There is no such thing"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed")
            }
            Self::NotNow => (StatusCode::CONFLICT, "not-now", "The state does not allow this"),
            Self::QueueFull => (StatusCode::CONFLICT, "queue-full", "The chat's queue is full"),
            Self::NoClaimablePrebuild => {
                (StatusCode::CONFLICT, "no-claimable-prebuild", "No prebuild is ready")
            }
            Self::NameTaken => (StatusCode::CONFLICT, "name-taken", "The name is taken"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large"),
            Self::MediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "The body is not JSON")
            }
            Self::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "A value is not valid"),
            Self::TooManyRequests => {
                (StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests")
            }
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "The server failed"),
            Self::HostFailed => (StatusCode::BAD_GATEWAY, "host-failed", "A git host failed"),
            Self::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available for now")
            }
        }
    }
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (status, name, title) = kind.parts();
        Self {
            kind: format!("urn:musterbeat:{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            field: None,
            again: None,
        }
    }

    pub(crate) fn token_unknown() -> Self {
        Self::new(Kind::Unauthorized, "the token is not known or was revoked")
    }

    pub(crate) fn not_found() -> Self {
        Self::new(Kind::NotFound, "there is nothing here, or it is not yours")
    }
}

/// Answers a deletion: it is gone, or was not there.
pub(crate) fn deleted(was_there: bool) -> Result<StatusCode, Problem> {
    if was_there { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found()) }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let again = self.again.map_or(RETRY_AFTER, |again| {
            // A second more than too early.
            HeaderValue::from(again.as_secs().saturating_add(1))
        });
        let mut response = (status, axum::Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, again);
            }
            _ => {}
        }
        response
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        let field = Some(invalid.field.clone());
        Self { field, ..Self::new(Kind::Invalid, invalid.to_string()) }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Unavailable { .. } => Kind::Unavailable,
            StoreError::Broken { .. } => Kind::Internal,
        };
        // The cause may name hosts and statements: it is for the log, not for the caller.
        tracing::error!(error = &error as &dyn Error, "a request failed on storage");
        Self::new(kind, error.to_string())
    }
}

impl From<ApplyError> for Problem {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::NotFound => Self::not_found(),
            ApplyError::Refused(refused @ Refused::QueueFull { .. }) => {
                Self::new(Kind::QueueFull, refused.to_string())
            }
            ApplyError::Refused(refused @ (Refused::NoSuchMessage | Refused::NoSuchQueued)) => {
                Self::new(Kind::NotFound, refused.to_string())
            }
            ApplyError::Refused(refused) => Self::new(Kind::NotNow, refused.to_string()),
            ApplyError::NoWorkspace => {
                Invalid::new("workspace_id", "is no workspace of the chat's owner").into()
            }
            ApplyError::Fenced => Self::new(Kind::NotNow, error.to_string()),
            ApplyError::Store(error) => error.into(),
        }
    }
}

impl From<TemplateError> for Problem {
    fn from(error: TemplateError) -> Self {
        match error {
            TemplateError::NotFound => Self::not_found(),
            TemplateError::NameTaken => Self::new(Kind::NameTaken, error.to_string()),
            TemplateError::ForeignVersion => {
                Invalid::new("active_version_id", "is not a version of this template").into()
            }
            TemplateError::Store(error) => error.into(),
        }
    }
}

impl From<WorkspaceError> for Problem {
    fn from(error: WorkspaceError) -> Self {
        let kind = match error {
            WorkspaceError::NotFound => return Self::not_found(),
            WorkspaceError::Store(error) => return error.into(),
            WorkspaceError::NoClaimable => Kind::NoClaimablePrebuild,
            WorkspaceError::NameTaken => Kind::NameTaken,
            WorkspaceError::NotActive | WorkspaceError::Busy => Kind::NotNow,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<RefreshError> for Problem {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::NotFound => Self::not_found(),
            RefreshError::Store(error) => error.into(),
            RefreshError::GivenUp => Self::new(Kind::Unavailable, error.to_string()),
            RefreshError::Fetch(error) => error.into(),
        }
    }
}

impl From<FetchError> for Problem {
    fn from(error: FetchError) -> Self {
        let kind = match &error {
            FetchError::NoHost | FetchError::NoToken | FetchError::Invalid(_) => Kind::NotNow,
            FetchError::RateLimited { .. } => Kind::TooManyRequests,
            FetchError::Refused
            | FetchError::NotFound
            | FetchError::Host(_)
            | FetchError::Transport(_) => Kind::HostFailed,
        };
        let again = match error {
            FetchError::RateLimited { wait } => wait,
            _ => None,
        };
        Self { again, ..Self::new(kind, error.to_string()) }
    }
}

/// Problems that any route may answer with.
pub(crate) struct AnyProblem;

/// Problems of a route that names one object.
pub(crate) struct ObjectProblem;

/// Problems of a route that takes a body.
pub(crate) struct BodyProblem;

/// Problems of a route that takes values beside its path.
pub(crate) struct ValueProblem;

/// Problems of a route that asks a git host.
pub(crate) struct HostProblem;

/// Problems of a route that changes an object's state.
pub(crate) struct StateProblem;

macro_rules! documented {
    ($set:ident: $($kind:ident),+) => {
        impl IntoResponses for $set {
            fn responses() -> BTreeMap<String, RefOr<ResponseDoc>> {
                [$(Kind::$kind),+].into_iter().map(documented).collect()
            }
        }
    };
}

documented!(AnyProblem: Malformed, Unauthorized, Forbidden, TooManyRequests, Internal, Unavailable);
documented!(ObjectProblem: NotFound);
documented!(BodyProblem: TooLarge, MediaType, Invalid);
documented!(ValueProblem: Invalid);
documented!(StateProblem: NotNow);
documented!(HostProblem: HostFailed);

fn documented(kind: Kind) -> (String, RefOr<ResponseDoc>) {
    let (status, _, title) = kind.parts();
    let content = Content::new(Some(Ref::from_schema_name("Problem")));
    let mut response = ResponseBuilder::new().description(title).content(MEDIA_TYPE, content);
    match status {
        StatusCode::UNAUTHORIZED => {
            let scheme = described(Type::String, "How to authenticate: `Bearer`");
            response = response.header("WWW-Authenticate", scheme);
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let seconds = described(Type::Integer, "Seconds after which to try again");
            response = response.header("Retry-After", seconds);
        }
        _ => {}
    }
    (status.as_str().to_owned(), RefOr::T(response.build()))
}

fn described(value: Type, description: &str) -> Header {
    let schema = ObjectBuilder::new().schema_type(value);
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}
