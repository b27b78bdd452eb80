//! Commands that need the crates of the product, which the everyday build does not link.
//!
//! A new checked query compiles only once `codegen queries` has described it, so that command
//! must not need the crate that holds the query.

use std::ffi::OsStr;

use anyhow::Result;

use crate::workspace;

/// Whether this very program is linked with the product.
pub(crate) const LINKED: bool = cfg!(feature = "product");

/// Runs `cargo xtask ARGS` in a build of this program that is linked with the product.
pub(crate) async fn relaunch<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<()> {
    let mut command = workspace::cargo(["run", "--quiet", "--package", "xtask"]);
    command.args(["--features", "product", "--"]).args(args);
    workspace::run(command).await
}
