//! How commands call a server.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// The variable with the token; a flag would show it to everybody on the machine.
const TOKEN_VARIABLE: &str = "MUSTERBEAT_TOKEN";

/// Longest time of one call.
const CALL_TIME_MAX: Duration = Duration::from_secs(30);

/// The token is taken from `MUSTERBEAT_TOKEN`; a server in dev needs none.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// Where the server is.
    #[arg(
        long,
        global = true,
        env = "MUSTERBEAT_SERVER_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:7878"
    )]
    server: String,
}

/// Calls the API of a server.
pub(super) struct Api {
    client: Client,
    server: Url,
    token: Option<SecretString>,
}

impl ServerArgs {
    pub(super) fn api(&self) -> anyhow::Result<Api> {
        let server = Url::parse(&self.server).ok().filter(Url::has_host);
        let server = server.with_context(|| {
            format!("{:?} is no URL of a server; write one like http://127.0.0.1:7878", self.server)
        })?;
        // Other crates may have asked for rustls without a provider, and features unite.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let host = server.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let is_near = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        let builder = || {
            let builder = Client::builder().redirect(Policy::none()).timeout(CALL_TIME_MAX);
            // What runs on this machine is not behind a proxy.
            if is_near { builder.no_proxy() } else { builder }
        };
        // A system without certificates still calls by `http`.
        let client = builder().build().or_else(|_| builder().tls_certs_only([]).build())?;
        let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        Ok(Api { client, server, token: token.map(SecretString::from) })
    }
}

impl Api {
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, None).await
    }

    /// Reads what follows `after` in a list.
    pub(super) async fn get_after(&self, path: &str, after: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, &format!("{path}?after={after}"), None).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Calls `path` below `/api/v1`; returns the answer, null when it has no content.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let url = self.server.join(&format!("/api/v1{path}")).context("the path is no URL")?;
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret());
        }
        let response = request.send().await.with_context(|| {
            format!(
                "no server answers at {}; start one, or name another with --server",
                self.server
            )
        })?;
        let status = response.status();
        let text = response.text().await.context("the answer broke off")?;
        if status.is_success() {
            if text.is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_str(&text).context("the answer is not musterbeat's");
        }
        let problem: Value = serde_json::from_str(&text).unwrap_or_default();
        match problem["detail"].as_str() {
            Some(detail) => bail!("{detail}"),
            None => bail!("{status} by something that is not musterbeat: is its URL right?"),
        }
    }
}

/// Finds a preset by `TEMPLATE/PRESET`; returns its id.
pub(super) async fn preset(api: &Api, name: &str) -> anyhow::Result<String> {
    let (template, preset) =
        name.split_once('/').with_context(|| format!("{name:?} is not TEMPLATE/PRESET"))?;
    let template = self::template(api, template).await?;
    let presets = api.get("/presets").await?;
    let found = list(&presets, "presets")
        .find(|found| found["template_id"] == template && found["name"] == preset);
    let found = found
        .with_context(|| format!("the active version of the template has no preset {preset:?}"))?;
    Ok(text(found, "id").to_owned())
}

/// Finds a template by its name; returns its id.
pub(super) async fn template(api: &Api, name: &str) -> anyhow::Result<Value> {
    let templates = api.get("/templates").await?;
    let found = list(&templates, "templates").find(|found| found["name"] == name);
    let found = found.with_context(|| {
        format!("there is no template {name:?}; `musterbeat template list` shows them")
    })?;
    Ok(found["id"].clone())
}

/// Returns the elements of a list of an answer.
pub(super) fn list<'a>(answer: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    answer[name].as_array().into_iter().flatten()
}

/// Returns a text of an answer, empty when it is not there.
pub(super) fn text<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer[name].as_str().unwrap_or_default()
}

/// Prints rows in columns as wide as their widest cells, below `head`.
pub(super) fn print_table<const N: usize>(head: [&str; N], rows: &[[String; N]]) {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let padded: Vec<String> = padded.collect();
        println!("{}", padded.join("  ").trim_end());
    };
    line(head);
    for row in rows {
        line(row.each_ref().map(String::as_str));
    }
}
