//! What the checked statements of `musterbeat-db` take and return, in `crates/db/.sqlx`.
//!
//! The macros describe their statements to a folder when they see a database, a folder and
//! `SQLX_OFFLINE=false`, so a compilation is all it takes: sqlx's own tool need not be installed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use musterbeat_testkit::{TestDatabase, TestServer};

use super::Output;
use crate::workspace;

const PACKAGE: &str = "musterbeat-db";
const FOLDER: &str = "crates/db/.sqlx";

/// Compiles the crate and its tests against a migrated database and collects what was described.
pub(super) async fn generate(server: &TestServer) -> Result<Output> {
    let described = tempfile::tempdir().context("failed to make a folder for the descriptions")?;
    let database = TestDatabase::create_on(server.url()).await?;
    compile(database.url(), described.path()).await?;
    Ok(Output { files: collect(described.path())?, owned: Some(FOLDER) })
}

/// Compiles in a target folder of its own, so that no other build takes these results for its own.
async fn compile(url: &str, described: &Path) -> Result<()> {
    let target = workspace::root().join("target/codegen");
    let mut clean = workspace::cargo(["clean", "--quiet", "--package", PACKAGE, "--target-dir"]);
    clean.arg(&target);
    // A crate that is up to date would not be compiled, and describe nothing.
    workspace::run(clean).await?;
    let mut check = workspace::cargo(["check", "--quiet", "--package", PACKAGE, "--all-targets"]);
    check
        .arg("--target-dir")
        .arg(&target)
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", described)
        .env("DATABASE_URL", url);
    workspace::run(check).await.with_context(|| {
        format!("{PACKAGE} does not compile against its own schema: mend the statement above")
    })
}

/// Returns the described statements as the files they become.
fn collect(described: &Path) -> Result<BTreeMap<String, String>> {
    let failed = || format!("failed to read the descriptions in {}", described.display());
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(described).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let text = std::fs::read_to_string(entry.path()).with_context(failed)?;
        files.insert(format!("{FOLDER}/{}", entry.file_name().to_string_lossy()), text);
    }
    Ok(files)
}
