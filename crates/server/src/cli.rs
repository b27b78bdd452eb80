//! The command line.

mod agent;
mod client;
mod flags;
mod template;
mod workspace;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use musterbeat_core::id::OwnerId;
use musterbeat_db::tokens::TokenKind;
use musterbeat_engine::shutdown::Shutdown;
use secrecy::ExposeSecret;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use uuid::Uuid;

use self::agent::AgentArgs;
use self::flags::Flags;
use self::template::TemplateArgs;
use self::workspace::{BuildArgs, ClaimArgs, PoolArgs, WorkspaceArgs};
use crate::database::Database;
use crate::doctor;
use crate::identity;
use crate::serve::{CLOSE_TIMEOUT, Server};
use crate::settings::Settings;

/// Keeps fleets of long-running work alive, observed and supplied on one PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "musterbeat", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve; the default.
    Serve(Flags),
    /// Bring the schema of the database up to date.
    Migrate(Flags),
    /// Examine the database, and say what is wrong and what to do; nothing is changed.
    ///
    /// Exits with 0 when all is well but for warnings, 1 after any error, 2 without a database.
    Doctor(DoctorArgs),
    /// Make a token and print it.
    Token(TokenArgs),
    /// Report metadata of this machine to a server; settings are not read.
    Agent(AgentArgs),
    /// Add, list and delete what workspaces are built from.
    Template(TemplateArgs),
    /// Show how the pools of prebuilds stand, and change what is wanted.
    Pool(PoolArgs),
    /// Claim a prebuild: a workspace that is ready at once.
    Claim(ClaimArgs),
    /// List, make, start, stop and delete your workspaces.
    Workspace(WorkspaceArgs),
    /// Follow a build to its end, with what it says.
    Build(BuildArgs),
}

#[derive(Debug, Args)]
struct DoctorArgs {
    /// Print one JSON document instead.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Args)]
struct TokenArgs {
    /// What its bearer may do.
    #[arg(long, value_enum, default_value_t = TokenKindArg::Admin)]
    kind: TokenKindArg,
    /// For whom its bearer acts; by default somebody new.
    #[arg(long, value_name = "UUID")]
    owner: Option<Uuid>,
    /// What to call it.
    #[arg(long, default_value = "command line")]
    name: String,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TokenKindArg {
    Admin,
    User,
}

/// Runs the command line; errors go to standard error, with their causes.
pub fn main() -> ExitCode {
    let cli = parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let failure = match cli.command {
        Some(Command::Doctor(_)) => ExitCode::from(doctor::EXIT_UNEXAMINED),
        _ => ExitCode::FAILURE,
    };
    start(cli).unwrap_or_else(|error| {
        eprintln!("musterbeat: {error:#}");
        failure
    })
}

/// Reads the command line.
fn parse(line: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Cli, clap::Error> {
    let given = Cli::command().try_get_matches_from(line)?;
    flags::check_place(&given)?;
    Cli::from_arg_matches(&given)
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    init_log()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let done = runtime.block_on(run(cli));
    // A start that was broken off may still wait for a download: the process ends without it.
    runtime.shutdown_background();
    done
}

/// What is logged unless `MUSTERBEAT_LOG` says: of MCP, each connection's life is no rare event.
const LOG: &str = "info,rmcp=warn";

/// Logs to standard error; `MUSTERBEAT_LOG` filters, as `info` or `musterbeat_engine=debug`.
fn init_log() -> anyhow::Result<()> {
    let wish = std::env::var("MUSTERBEAT_LOG").unwrap_or_else(|_| LOG.to_owned());
    let filter = EnvFilter::try_new(&wish)
        .with_context(|| format!("MUSTERBEAT_LOG is {wish:?}, which is no filter of the log"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let before = cli.flags;
    match cli.command.unwrap_or(Command::Serve(Flags::default())) {
        Command::Serve(flags) => serve(before.settings(flags)?).await?,
        Command::Migrate(flags) => migrate(&before.settings(flags)?).await?,
        Command::Doctor(args) => return examine(before.settings(args.flags), args.json).await,
        Command::Token(args) => token(&before, args).await?,
        Command::Agent(args) => agent::run(args).await?,
        Command::Template(args) => template::run(args, &before).await?,
        Command::Pool(args) => workspace::pool(args).await?,
        Command::Claim(args) => workspace::claim(args).await?,
        Command::Workspace(args) => workspace::workspace(args).await?,
        Command::Build(args) => workspace::build(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let shutdown = Shutdown::default();
    let signals = tokio::spawn(listen_for_signals(shutdown.clone())?);
    let server = tokio::select! {
        server = Server::start(settings, shutdown.clone()) => server?,
        () = shutdown.requested() => anyhow::bail!("stopped before it was up"),
    };
    println!("{}", server.announcement());
    let ended = server.ended().await;
    signals.abort();
    ended
}

/// Returns a task that asks for the end on SIGINT and SIGTERM, each time one comes.
fn listen_for_signals(shutdown: Shutdown) -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if shutdown.is_requested() {
                eprintln!("musterbeat: stopping at once");
            } else {
                eprintln!("musterbeat: finishing what runs; a second signal stops it at once");
            }
            shutdown.request();
        }
    })
}

/// Opening a database migrates it.
async fn migrate(settings: &Settings) -> anyhow::Result<()> {
    Database::visit(settings).await?.close(CLOSE_TIMEOUT).await?;
    println!("the schema is up to date");
    Ok(())
}

async fn examine(settings: anyhow::Result<Settings>, json: bool) -> anyhow::Result<ExitCode> {
    let examined = async { doctor::examine(&settings?).await }.await;
    if json {
        match &examined {
            Ok(report) => print!("{}", report.json()),
            Err(error) => println!("{:#}", serde_json::json!({ "error": format!("{error:#}") })),
        }
        return Ok(ExitCode::from(examined?.exit_code()));
    }
    let report = examined?;
    print!("{}", report.text());
    Ok(ExitCode::from(report.exit_code()))
}

async fn token(before: &Flags, args: TokenArgs) -> anyhow::Result<()> {
    let database = Database::visit(&before.settings(args.flags)?).await?;
    let kind = match args.kind {
        TokenKindArg::Admin => TokenKind::Admin,
        TokenKindArg::User => TokenKind::User,
    };
    let owner = args.owner.map(OwnerId::new);
    let minted = identity::mint(&database.store, kind, owner, &args.name).await;
    database.close(CLOSE_TIMEOUT).await?;
    let minted = minted?;
    println!("{}", minted.text.expose_secret());
    eprintln!("id {}, acts for {}; shown once, keep it", minted.id, minted.owner);
    Ok(())
}

#[cfg(test)]
mod tests;
