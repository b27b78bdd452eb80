//! `cargo xtask fuzz`: looks for payloads that the codecs read wrongly.
//!
//! The fuzzer is libFuzzer, guided by the coverage that every compiler can add, so neither a
//! nightly toolchain nor a further command is needed: a C++ compiler builds libFuzzer itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::workspace;

/// Where the fuzzer's package lies.
const MANIFEST: &str = "crates/pubsub/fuzz/Cargo.toml";

/// Counts every branch, and shows comparisons to the fuzzer, which then tries their other side.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1";

/// Looks for payloads that the codecs read wrongly.
#[derive(Debug, Args)]
pub(crate) struct Fuzz {
    /// How long to look.
    #[arg(long, default_value_t = 1)]
    minutes: u32,

    /// Try this input only, which an earlier run has written.
    #[arg(long)]
    input: Option<PathBuf>,
}

impl Fuzz {
    /// Builds the fuzzer and runs it; inputs that led somewhere new are kept for the next run.
    pub(crate) async fn run(&self) -> Result<()> {
        let target = target().join("fuzz");
        let corpus = target.join("corpus");
        std::fs::create_dir_all(&corpus)
            .with_context(|| format!("failed to make {}: may it be written?", corpus.display()))?;
        let mut command = fuzzer(&target)?;
        if let Some(input) = &self.input {
            command.arg(std::path::absolute(input).context("failed to find the input")?);
        } else {
            command
                .arg(&corpus)
                .arg(format!("-artifact_prefix={}/", target.display()))
                .arg(format!("-max_total_time={}", u64::from(self.minutes) * 60))
                .args(["-max_len=16384", "-timeout=5", "-rss_limit_mb=1024"])
                .args(["-print_final_stats=1", "-use_value_profile=1"]);
        }
        workspace::run(command).await
    }
}

/// Returns the command that builds the fuzzer and starts it, without arguments for it.
fn fuzzer(target: &Path) -> Result<Command> {
    let triple = host()?;
    // With a target named, build scripts and macros are built without coverage, as they must.
    let mut command = workspace::cargo(["run", "--release", "--manifest-path", MANIFEST]);
    command.args(["--target", &triple, "--target-dir"]).arg(target).arg("--");
    command.env("RUSTFLAGS", COVERAGE);
    Ok(command)
}

/// Returns the name of the machine's target.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let host = workspace::output(Command::new(rustc).args(["--print", "host-tuple"]))?;
    Ok(host.trim().to_owned())
}

/// Returns the folder of what is built.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace::root().join("target"), Into::into)
}
