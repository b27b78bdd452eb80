//! Finds or fetches PostgreSQL binaries and runs a private server.
//!
//! A program that needs a database can bring its own: installed binaries are found, missing ones
//! are fetched, and the server lives and dies with the program, even if that is killed.
//! As root the server runs as user `postgres` or `nobody`, for PostgreSQL refuses root.
//!
//! ```no_run
//! use musterbeat_embedded::{Durability, Options, Server, Source};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = Options {
//!     source: Source::Auto,
//!     data_dir: musterbeat_embedded::default_data_dir(),
//!     cache_dir: musterbeat_embedded::default_cache_dir(),
//!     durability: Durability::Full,
//!     settings: vec![("max_connections".into(), "200".into())],
//! };
//! let server = Server::start(&options, &|line| eprintln!("{line}"))?;
//! println!("PostgreSQL {} at {}", server.binaries().version, server.url("postgres"));
//! server.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! Everything here blocks; call it from a blocking thread in an asynchronous program.
//! It runs on Linux and other Unix systems. Only Linux can end the server when its program is
//! killed; elsewhere, the next [`Server::start`] in the same data folder ends it.
//!
//! A data folder holds `lock`, `password`, `postgres/` (the database), `run/` (its socket) and
//! `postgres.log`. One process at a time holds it; others reach its server through [`running`].

mod source;
mod version;

mod fetch;
mod find;
mod places;
mod probe;

mod cluster;
mod folder;
mod launch;
mod nofollow;
mod options;
mod password;
mod pidfile;
mod postmaster;
mod server;
mod shutdown;
mod takeover;

mod command;
mod error;
mod user;
mod wait;

pub use command::{CommandError, Tail};
pub use error::{FindError, RunningError, StartError, StopError};
pub use find::find;
pub use options::{Durability, Options};
pub use server::{RunningServer, Server, default_cache_dir, default_data_dir, running};
pub use source::{Binaries, Origin, ParseSourceError, Source};
pub use version::Version;
