//! The project's own commands, as `cargo xtask COMMAND`.
//!
//! Each command lives in the module of its name; CI runs `cargo xtask ci` and nothing else.
//! This program links the crates of the product only with its feature `product`, and starts
//! itself again with it where a command needs them: see [`product`].

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

mod bench;
mod check;
mod ci;
mod codegen;
mod db;
mod fuzz;
mod postgres;
mod product;
mod test;
mod workspace;

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs everything that a change must pass: what CI runs.
    Ci(ci::Ci),
    /// Runs the tests of all crates on one PostgreSQL.
    Test(test::Test),
    /// Checks rules about the source that no compiler knows.
    #[command(subcommand)]
    Check(check::Check),
    /// Writes the generated files, or checks that they are up to date.
    Codegen(codegen::Codegen),
    /// Starts or finds a PostgreSQL for work by hand.
    #[command(subcommand)]
    Db(db::Db),
    /// Looks for payloads that the codecs read wrongly.
    Fuzz(fuzz::Fuzz),
    /// Measures ours against the naive form and the original's.
    Bench(bench::Bench),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        // Has something to clear away, elsewhere, when it is interrupted.
        Command::Bench(bench) if bench.holds() => bench.run().await,
        // Any other is dropped, and stops its server and children as it goes.
        command => tokio::select! {
            done = run(command) => done,
            interrupted = interrupted() => interrupted,
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without anyhow's backtrace: the messages say what to do.
            let chain: Vec<_> = error.chain().map(ToString::to_string).collect();
            eprintln!("error: {}", chain.join("\n  because: "));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Ci(ci) => ci.run().await,
        Command::Test(test) => test.run().await,
        Command::Check(check) => check.run(),
        Command::Codegen(codegen) => codegen.run().await,
        Command::Db(db) => db.run().await,
        Command::Fuzz(fuzz) => fuzz.run().await,
        Command::Bench(bench) => bench.run().await,
    }
}

/// Waits for Ctrl-C or a request to end.
async fn interrupted() -> Result<()> {
    let listen = |kind| signal(kind).context("failed to listen for signals");
    let (mut interrupt, mut terminate) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}
