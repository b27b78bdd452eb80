//! `musterbeat pool`, `claim`, `workspace` and `build`: what is built of templates.

use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use humantime_serde::re::humantime;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::client::{self, Api, ServerArgs, list, print_table, text};

/// Time between two looks at something that is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub(super) struct PoolArgs {
    #[command(subcommand)]
    command: Option<PoolCommand>,
    /// Wait until every pool is full, at most for so long.
    #[arg(long, global = true, value_name = "TIME", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum PoolCommand {
    /// Set how many prebuilds of a preset are to stand ready.
    Set {
        /// TEMPLATE/PRESET
        preset: String,
        /// How many.
        count: u32,
    },
    /// Have the prebuilds of a preset replaced.
    Replace {
        /// TEMPLATE/PRESET
        preset: String,
    },
    /// Create and delete no prebuilds for now.
    Pause,
    /// Go on with it.
    Resume,
}

#[derive(Debug, Args)]
pub(super) struct ClaimArgs {
    /// TEMPLATE/PRESET
    preset: String,
    /// What to call the workspace.
    name: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(super) struct WorkspaceArgs {
    #[command(subcommand)]
    command: WorkspaceCommand,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum WorkspaceCommand {
    /// List your workspaces.
    List,
    /// Make a workspace; a prebuild is claimed if one is ready.
    Create {
        /// TEMPLATE/PRESET
        preset: String,
        /// What to call it.
        name: String,
    },
    /// Start a workspace.
    Start {
        /// What it is called.
        name: String,
    },
    /// Stop a workspace; what it holds stays.
    Stop {
        /// What it is called.
        name: String,
    },
    /// Delete a workspace with all it holds.
    Delete {
        /// What it is called.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct BuildArgs {
    /// The build's id, as other commands print it.
    id: String,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn pool(args: PoolArgs) -> anyhow::Result<()> {
    let api = args.server.api()?;
    match args.command {
        None => {}
        Some(PoolCommand::Set { preset, count }) => {
            let path = format!("/presets/{}", client::preset(&api, &preset).await?);
            let mut pool = api.get(&path).await?["pool"].take();
            pool["desired_instances"] = json!(count);
            api.call(Method::PATCH, &path, Some(&json!({ "pool": pool }))).await?;
        }
        Some(PoolCommand::Replace { preset }) => {
            let path = format!("/presets/{}", client::preset(&api, &preset).await?);
            api.call(Method::PATCH, &path, Some(&json!({ "invalidate": true }))).await?;
        }
        Some(PoolCommand::Pause) => pause(&api, true).await?,
        Some(PoolCommand::Resume) => pause(&api, false).await?,
    }
    let deadline = args.wait.map(|wait| Instant::now() + wait);
    let mut pools = api.get("/pools").await?;
    while let Some(deadline) = deadline
        && !is_full(&pools)
    {
        if deadline < Instant::now() {
            print_pools(&pools);
            bail!("the pools are not full in time; `musterbeat build ID` shows what a build said");
        }
        sleep(LOOK_INTERVAL).await;
        pools = api.get("/pools").await?;
    }
    print_pools(&pools);
    Ok(())
}

async fn pause(api: &Api, paused: bool) -> anyhow::Result<()> {
    api.call(Method::PUT, "/pools/paused", Some(&json!({ "paused": paused }))).await?;
    Ok(())
}

fn is_full(pools: &Value) -> bool {
    list(pools, "pools").all(|pool| pool["ready"] == pool["desired"])
}

fn print_pools(pools: &Value) {
    let rows = list(pools, "pools").map(|pool| {
        let name = format!("{}/{}", text(pool, "template_name"), text(pool, "preset_name"));
        let count = |name: &str| pool[name].to_string();
        [
            name,
            count("desired"),
            count("ready"),
            count("starting"),
            count("deleting"),
            count("failed"),
            text(pool, "health").to_owned(),
        ]
    });
    let head = ["POOL", "DESIRED", "READY", "STARTING", "DELETING", "FAILED", "HEALTH"];
    print_table(head, &rows.collect::<Vec<_>>());
    if pools["paused"] == true {
        println!("\nthe supply is paused; `musterbeat pool resume` goes on with it");
    }
}

pub(super) async fn claim(args: ClaimArgs) -> anyhow::Result<()> {
    let api = args.server.api()?;
    let preset = client::preset(&api, &args.preset).await?;
    let path = format!("/presets/{preset}/claim");
    let given = api.post(&path, &json!({ "name": args.name })).await?;
    println!("{} is yours: workspace {}", args.name, text(&given, "workspace_id"));
    finished(&api, text(&given, "build_id")).await
}

pub(super) async fn workspace(args: WorkspaceArgs) -> anyhow::Result<()> {
    let api = args.server.api()?;
    let ordered = match args.command {
        WorkspaceCommand::List => return show(&api).await,
        WorkspaceCommand::Create { preset, name } => {
            let preset = client::preset(&api, &preset).await?;
            let order = json!({ "preset_id": preset, "name": name });
            let given = api.post("/workspaces", &order).await?;
            println!("{name} is yours: workspace {}", text(&given, "workspace_id"));
            given
        }
        WorkspaceCommand::Start { name } => order(&api, Method::POST, &name, "/start").await?,
        WorkspaceCommand::Stop { name } => order(&api, Method::POST, &name, "/stop").await?,
        WorkspaceCommand::Delete { name } => order(&api, Method::DELETE, &name, "").await?,
    };
    finished(&api, text(&ordered, "build_id")).await
}

async fn order(api: &Api, method: Method, name: &str, rest: &str) -> anyhow::Result<Value> {
    for workspace in workspaces(api).await? {
        if text(&workspace, "name") == name {
            let path = format!("/workspaces/{}{rest}", text(&workspace, "id"));
            return api.call(method, &path, None).await;
        }
    }
    bail!("you have no workspace {name:?}; `musterbeat workspace list` shows them")
}

/// Returns all workspaces of the caller, the youngest first.
async fn workspaces(api: &Api) -> anyhow::Result<Vec<Value>> {
    let mut all = Vec::new();
    let mut page = api.get("/workspaces").await?;
    loop {
        all.extend(list(&page, "workspaces").cloned());
        let Some(next) = page["next"].as_str() else { return Ok(all) };
        page = api.get_after("/workspaces", next).await?;
    }
}

async fn show(api: &Api) -> anyhow::Result<()> {
    let rows = workspaces(api).await?.into_iter().map(|workspace| {
        let build = &workspace["build"];
        [
            text(&workspace, "name").to_owned(),
            text(&workspace, "id").to_owned(),
            format!("{} {}", text(build, "transition"), text(build, "status")),
            text(&workspace, "last_used_at").to_owned(),
            workspace["deadline"].as_str().unwrap_or("-").to_owned(),
        ]
    });
    print_table(["NAME", "WORKSPACE", "BUILD", "LAST USED", "DEADLINE"], &rows.collect::<Vec<_>>());
    Ok(())
}

pub(super) async fn build(args: BuildArgs) -> anyhow::Result<()> {
    finished(&args.server.api()?, &args.id).await
}

/// Follows a build to its end; fails if it did.
async fn finished(api: &Api, id: &str) -> anyhow::Result<()> {
    let path = format!("/builds/{id}");
    let mut after: Option<String> = None;
    loop {
        // Before the log: what it said by its end is there then.
        let build = api.get(&path).await?;
        let log = format!("{path}/log");
        loop {
            let page = match &after {
                Some(after) => api.get_after(&log, after).await?,
                None => api.get(&log).await?,
            };
            let lines: Vec<&str> = list(&page, "lines").filter_map(Value::as_str).collect();
            for line in &lines {
                println!("  {line}");
            }
            after = page["next"].as_str().map(str::to_owned);
            if lines.is_empty() {
                break;
            }
        }
        match text(&build, "status") {
            "succeeded" => {
                println!("build {id} succeeded");
                return Ok(());
            }
            "failed" => bail!("build {id} failed: {}", text(&build, "error")),
            _ => sleep(LOOK_INTERVAL).await,
        }
    }
}
