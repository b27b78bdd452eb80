//! `musterbeat template`: what workspaces are built from.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use musterbeat_provision::{DirectoryLimits, add_template};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{self, Api, ServerArgs, list, print_table, text};
use super::flags::{Flags, Place};

#[derive(Debug, Args)]
pub(super) struct TemplateArgs {
    #[command(subcommand)]
    command: TemplateCommand,
}

#[derive(Debug, Subcommand)]
enum TemplateCommand {
    /// Add a template, or a further version of one, which becomes active.
    Add(AddArgs),
    /// List the templates.
    List(ServerArgs),
    /// Delete a template: its prebuilds go, its workspaces stay.
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
struct AddArgs {
    /// What to call it.
    name: String,
    /// Folder to copy to the folder of templates of a server on this machine.
    #[arg(required_unless_present = "source", conflicts_with = "source")]
    folder: Option<PathBuf>,
    /// What it is made of, as the server's provisioner reads it, instead of a folder.
    #[arg(long)]
    source: Option<String>,
    /// What to call the version; by default v and the next number.
    #[arg(long)]
    version: Option<String>,
    /// A preset, and how many prebuilds of it are to stand ready; may be repeated.
    #[arg(long = "preset", value_name = "NAME=COUNT", value_parser = pair::<u32>)]
    presets: Vec<(String, u32)>,
    /// A parameter of a preset; may be repeated.
    #[arg(long = "parameter", value_name = "PRESET.NAME=VALUE", value_parser = pair::<String>)]
    parameters: Vec<(String, String)>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
struct DeleteArgs {
    /// What it is called.
    name: String,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: TemplateArgs, before: &Flags) -> anyhow::Result<()> {
    match args.command {
        TemplateCommand::Add(args) => add(args, before).await,
        TemplateCommand::List(server) => show(&server.api()?).await,
        TemplateCommand::Delete(args) => {
            let api = args.server.api()?;
            let id = client::template(&api, &args.name).await?;
            let path = format!("/templates/{}", id.as_str().unwrap_or_default());
            api.call(Method::DELETE, &path, None).await?;
            println!("{} is deleted", args.name);
            Ok(())
        }
    }
}

async fn add(args: AddArgs, before: &Flags) -> anyhow::Result<()> {
    let presets = args.presets()?;
    let api = args.server.api()?;
    let templates = api.get("/templates").await?;
    let found = list(&templates, "templates").find(|found| found["name"] == args.name.as_str());
    let versions = match found {
        Some(found) => {
            let versions = api.get(&format!("/templates/{}/versions", text(found, "id"))).await?;
            list(&versions, "versions").count()
        }
        None => 0,
    };
    let version = args.version.clone().unwrap_or_else(|| format!("v{}", versions + 1));
    let source = match (&args.source, &args.folder) {
        (Some(source), _) => source.clone(),
        (None, folder) => {
            let folder = folder.clone().unwrap_or_default();
            let source = format!("{}/{version}", args.name);
            let templates = before.settings(args.place)?.templates_folder();
            copied(&folder, &templates, &source).await?;
            source
        }
    };
    let new = json!({ "name": version, "source": source, "presets": presets });
    match found {
        Some(found) => {
            let path = format!("/templates/{}/versions", text(found, "id"));
            api.post(&path, &new).await?;
        }
        None => {
            api.post("/templates", &json!({ "name": args.name, "version": new })).await?;
        }
    }
    println!("{} {version} is active, made of {source}", args.name);
    Ok(())
}

impl AddArgs {
    /// Returns the presets as the API takes them.
    fn presets(&self) -> anyhow::Result<Vec<Value>> {
        let mut presets: Vec<Value> = self
            .presets
            .iter()
            .map(|(name, count)| {
                json!({ "name": name, "parameters": {}, "pool": { "desired_instances": count } })
            })
            .collect();
        for (name, value) in &self.parameters {
            let (preset, parameter) = name.split_once('.').with_context(|| {
                format!("--parameter {name} names no preset; write PRESET.NAME=VALUE")
            })?;
            let found = presets.iter_mut().find(|found| found["name"] == preset);
            let found = found.with_context(|| {
                format!("--parameter {name} is of no preset; add --preset {preset}=COUNT")
            })?;
            found["parameters"][parameter] = json!(value);
        }
        Ok(presets)
    }
}

/// Copies a folder to where the server on this machine finds it.
async fn copied(folder: &Path, templates: &Path, source: &str) -> anyhow::Result<()> {
    let (folder, templates, source) = (folder.to_owned(), templates.to_owned(), source.to_owned());
    let copy = move || add_template(&folder, &templates, &source, DirectoryLimits::default());
    tokio::task::spawn_blocking(copy).await?.context("the folder was not added")
}

async fn show(api: &Api) -> anyhow::Result<()> {
    let templates = api.get("/templates").await?;
    let presets = api.get("/presets").await?;
    let rows = list(&templates, "templates").map(|template| {
        let of = list(&presets, "presets").filter(|preset| preset["template_id"] == template["id"]);
        let names: Vec<&str> = of.map(|preset| text(preset, "name")).collect();
        [
            text(template, "name").to_owned(),
            names.join(", "),
            text(template, "created_at").to_owned(),
        ]
    });
    print_table(["TEMPLATE", "PRESETS", "CREATED"], &rows.collect::<Vec<_>>());
    Ok(())
}

/// Reads `NAME=VALUE`.
fn pair<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<(String, T), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, like small=3")?;
    let value = value.parse().map_err(|error| format!("{value:?} cannot be taken: {error}"))?;
    Ok((name.to_owned(), value))
}
