//! Calls of the tools of MCP servers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rmcp::model::{CallToolResponse, JsonObject};
use rmcp::service::ServiceError;
use rmcp::transport::streamable_http_client::{HttpStatusError, StreamableHttpError};
use serde_json::Value;
use tokio::time::timeout;

use super::connection::{Connection, ENDED, explained};
use super::content;
use super::link::Link;
use super::offer::Offer;
use crate::tool::{Conduct, Tool, ToolCall, ToolContext, ToolError, ToolSpec};

/// Bytes of a refusal that a model reads, at most.
const REFUSAL_BYTES_MAX: usize = 4096;

/// The status of a server that has too much to do.
const TOO_MANY_REQUESTS: u16 = 429;

/// A tool of an MCP server.
pub(super) struct McpTool {
    pub(super) offer: Arc<Offer>,
    pub(super) link: Arc<Link>,
    /// The connection of the turn; without one the tool asks for the shared one at each call.
    pub(super) own: Option<Arc<Connection>>,
}

#[async_trait]
impl Tool for McpTool {
    fn spec(&self) -> ToolSpec {
        self.offer.spec.clone()
    }

    fn conduct(&self) -> Conduct {
        self.offer.conduct
    }

    async fn call(&self, call: ToolCall, context: &ToolContext) -> Result<String, ToolError> {
        if let Some(cause) = context.run.stop_cause() {
            return Err(ToolError(format!("not called: {}", cause.as_str())));
        }
        let outcome = self.answer(call.input).await;
        outcome.map_err(|error| ToolError(error.to_string()))
    }
}

/// A call failed; the text is for the model to read, and bears no secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("nothing was done: the input is not a JSON object; call again with one")]
    NoObject,
    #[error("nothing was done: the MCP server `{server}` is away: {error}")]
    Away { server: String, error: String },
    #[error(
        "nothing was done: the MCP server `{0}` ended, and its tools are gone until the next turn"
    )]
    Gone(String),
    #[error("nothing was done: the MCP server `{0}` has too much to do; wait before you try again")]
    Busy(String),
    #[error("nothing was done: the MCP server `{0}` ended the session; call again")]
    Expired(String),
    #[error("the outcome is unknown: the MCP server `{server}` was lost during the call: {error}")]
    Lost { server: String, error: String },
    #[error("the outcome is unknown: the MCP server `{server}` gave no clear answer: {error}")]
    Unclear { server: String, error: String },
    #[error("the outcome is unknown: the MCP server `{server}` gave no answer within {within:?}")]
    TimedOut { server: String, within: Duration },
    #[error("the MCP server `{server}` refused the call: {reason}")]
    Refused { server: String, reason: String },
    /// The tool itself says that it failed.
    #[error("{0}")]
    Tool(String),
}

impl McpTool {
    /// Makes a call within the server's time.
    async fn answer(&self, input: Value) -> Result<String, CallError> {
        let Value::Object(input) = input else { return Err(CallError::NoObject) };
        self.link.standing().count_call();
        let within = self.link.server().call_timeout;
        let outcome = match timeout(within, self.call_again(input)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CallError::TimedOut { server: self.server(), within }),
        };
        if outcome.as_ref().is_err_and(|error| !matches!(error, CallError::Tool(_))) {
            self.link.standing().count_failure();
        }
        outcome
    }

    /// Makes a call, and once more if the server ended the session and so did nothing.
    async fn call_again(&self, input: JsonObject) -> Result<String, CallError> {
        match self.call_once(input.clone()).await {
            Err(CallError::Expired(_)) if self.own.is_none() => self.call_once(input).await,
            outcome => outcome,
        }
    }

    async fn call_once(&self, input: JsonObject) -> Result<String, CallError> {
        let connection = self.connection().await?;
        let answer = connection.call(&self.offer.own_name, input).await;
        let result = match answer.map_err(|error| self.failure(&connection, error))? {
            CallToolResponse::Complete(result) => result,
            CallToolResponse::InputRequired(_) => {
                return Err(self.refused("it asks for something that nobody here can give"));
            }
            _ => {
                let error = "it wants to answer later".to_owned();
                return Err(CallError::Unclear { server: self.server(), error });
            }
        };
        let is_error = result.is_error == Some(true);
        let text = content::text(result);
        if is_error { Err(CallError::Tool(text)) } else { Ok(text) }
    }

    async fn connection(&self) -> Result<Arc<Connection>, CallError> {
        match &self.own {
            Some(own) if own.is_lost() => Err(CallError::Gone(self.server())),
            Some(own) => Ok(Arc::clone(own)),
            None => self.link.shared().await.ok_or_else(|| CallError::Away {
                server: self.server(),
                error: self.link.standing().error(),
            }),
        }
    }

    /// Says what an error means, and gives up a connection that can serve no more.
    fn failure(&self, connection: &Connection, error: ServiceError) -> CallError {
        let server = self.server();
        match error {
            ServiceError::McpError(error) => self.refused(&error.message),
            ServiceError::TransportSend(error) => match http_failure(&*error.error) {
                Some(HttpFailure::Expired) => {
                    connection.lose("it ended the session");
                    CallError::Expired(server)
                }
                Some(HttpFailure::Status(TOO_MANY_REQUESTS)) => CallError::Busy(server),
                // Something on the way failed, which says nothing of the session.
                Some(HttpFailure::Status(status)) => {
                    CallError::Unclear { server, error: format!("HTTP {status}") }
                }
                None => {
                    let error = explained(&*error.error);
                    connection.lose(&error);
                    CallError::Lost { server, error }
                }
            },
            ServiceError::TransportClosed => {
                connection.lose(ENDED);
                CallError::Lost { server, error: ENDED.to_owned() }
            }
            other => CallError::Unclear { server, error: explained(&other) },
        }
    }

    fn refused(&self, reason: &str) -> CallError {
        let mut reason = reason.to_owned();
        reason.truncate(reason.floor_char_boundary(REFUSAL_BYTES_MAX));
        CallError::Refused { server: self.server(), reason }
    }

    fn server(&self) -> String {
        self.link.server().name.clone()
    }
}

/// What HTTP says of a call.
enum HttpFailure {
    /// The session is forgotten, or the right to call has run out: nothing was done.
    Expired,
    Status(u16),
}

fn http_failure(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Option<HttpFailure> {
    match error.downcast_ref::<StreamableHttpError<reqwest::Error>>()? {
        StreamableHttpError::SessionExpired | StreamableHttpError::AuthRequired(_) => {
            Some(HttpFailure::Expired)
        }
        StreamableHttpError::HttpStatus(HttpStatusError { status, .. }) => {
            Some(HttpFailure::Status(*status))
        }
        _ => None,
    }
}
