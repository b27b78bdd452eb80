//! Commands that need the crates of the product, which the everyday build does not link.
//!
//! A new checked query compiles only once `codegen queries` has described it, so that command
//! must not need the crate that holds the query.

use std::ffi::OsStr;

use anyhow::Result;

use crate::{postgres, workspace};

/// Whether this very program is linked with the product.
pub(crate) const LINKED: bool = cfg!(feature = "product");

/// Whether this very program is linked with the product, and optimised: fit to measure it.
pub(crate) const MEASURABLE: bool = LINKED && !cfg!(debug_assertions);

/// Runs `cargo xtask ARGS` in a build of this program that is linked with the product.
pub(crate) async fn relaunch<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<()> {
    relaunch_as(&[], args).await
}

/// Runs `cargo xtask ARGS` in an optimised build of this program, linked with the product.
pub(crate) async fn relaunch_optimised<S: AsRef<OsStr>>(
    args: impl IntoIterator<Item = S>,
) -> Result<()> {
    postgres::say("building the product, optimised: minutes the first time");
    relaunch_as(&["--release"], args).await
}

async fn relaunch_as<S: AsRef<OsStr>>(
    profile: &[&str],
    args: impl IntoIterator<Item = S>,
) -> Result<()> {
    let mut command = workspace::cargo(["run", "--quiet", "--package", "xtask"]);
    command.args(profile).args(["--features", "product", "--"]).args(args);
    workspace::run(command).await
}
