//! An agent with two tools of its own, in a whole server.
//!
//! Beside an endpoint that speaks the protocol of most, such as Ollama, or the repository's own stand-in
//! (`cargo run -p musterbeat-testkit --example model`):
//!
//! `cargo run --example two_tools -- http://127.0.0.1:11435/v1 demo`

use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use musterbeat_agent::agent::{Agent, AgentOptions};
use musterbeat_agent::model::Chosen;
use musterbeat_agent::providers::{Provider, ProviderConfig, ProviderKind};
use musterbeat_agent::tool::{
    Conduct, Repeat, Tool, ToolCall, ToolContext, ToolError, ToolSpec, Toolkit,
};
use musterbeat_core::message::Model;
use musterbeat_core::model_config::ModelConfig;
use musterbeat_engine::shutdown::Shutdown;
use musterbeat_server::serve::Server;
use musterbeat_server::settings::Settings;
use serde_json::json;

/// Tells the time; it may run as often as it likes.
struct Clock;

#[async_trait]
impl Tool for Clock {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "clock".to_owned(),
            description: "Tells the time, in UTC.".to_owned(),
            input: json!({ "type": "object", "properties": {} }),
        }
    }

    async fn call(&self, _call: ToolCall, _context: &ToolContext) -> Result<String, ToolError> {
        Ok(time::OffsetDateTime::now_utc().to_string())
    }
}

/// Orders something; a call that a crash cut short must never be made again.
struct Order;

#[async_trait]
impl Tool for Order {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "order".to_owned(),
            description: "Orders an article, and costs money.".to_owned(),
            input: json!({
                "type": "object",
                "properties": { "article": { "type": "string" } },
                "required": ["article"],
            }),
        }
    }

    fn conduct(&self) -> Conduct {
        Conduct { repeat: Repeat::Never, ..Conduct::default() }
    }

    async fn call(&self, call: ToolCall, _context: &ToolContext) -> Result<String, ToolError> {
        let article = call.input["article"].as_str();
        let article = article.ok_or_else(|| ToolError("name an article".to_owned()))?;
        Ok(format!("order {} for {article} is on its way", call.id))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let url = args.next().context("name an endpoint: http://…/v1")?;
    let name = args.next().context("name a model")?;
    let provider = Provider::new(ProviderConfig {
        name: "local".to_owned(),
        kind: ProviderKind::default(),
        base_url: Some(url),
        key: None,
    })?;
    let config = ModelConfig::new(Model::new(name.clone())?, "local", name);
    let chosen = Chosen { model: Arc::new(provider), config: Arc::new(config) };
    let tools: Vec<Arc<dyn Tool>> = vec![Arc::new(Clock), Arc::new(Order)];
    let toolkits: Vec<Arc<dyn Toolkit>> = vec![Arc::new(tools)];
    let agent = Agent::new(Arc::new(chosen), toolkits, AgentOptions::default());

    let shutdown = Shutdown::default();
    let settings = Settings { dev: true, ..Settings::default() };
    let server = Server::start_with_runner(settings, Arc::new(agent), shutdown.clone()).await?;
    println!("{}", server.announcement());
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            shutdown.request();
        }
    });
    server.ended().await
}
