//! `cargo xtask test`: the tests of all crates on one PostgreSQL.

use std::ffi::OsString;

use anyhow::Result;
use clap::Args;
use musterbeat_testkit::{Provider, TestServer};

use crate::{postgres, workspace};

/// Runs the tests of all crates on one PostgreSQL.
#[derive(Debug, Default, Args)]
pub(crate) struct Test {
    /// Where the server comes from: url, docker or embedded [default: the first that works].
    #[arg(long)]
    provider: Option<Provider>,

    /// Test only this crate; may be repeated.
    #[arg(long, short)]
    package: Vec<String>,

    /// Further words for `cargo test`, for instance the name of a test.
    #[arg(last = true)]
    args: Vec<OsString>,
}

impl Test {
    /// Tests on a server of its own, which ends with the tests.
    pub(crate) async fn run(&self) -> Result<()> {
        let server = postgres::start(self.provider).await?;
        let done = self.run_on(&server).await;
        done.and(server.stop().await)
    }

    /// Tests on `server`; each test makes a database of its own there.
    pub(crate) async fn run_on(&self, server: &TestServer) -> Result<()> {
        let mut command = workspace::cargo(["test"]);
        if self.package.is_empty() {
            command.args(["--workspace", "--features", "xtask/product"]);
        }
        for package in &self.package {
            command.args(["--package", package]);
        }
        // The server is the one that was asked for: nothing else may be tried.
        command
            .args(&self.args)
            .env("TEST_DATABASE_URL", server.url())
            .env("MUSTERBEAT_TEST_PROVIDER", "url");
        workspace::run(command).await
    }
}
