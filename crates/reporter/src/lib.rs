//! Reports metadata of the machine it runs on to a musterbeat server.
//!
//! A [`Reporter`] asks the server what its agent is to report, finds each value at its interval,
//! and sends what it found. It is a whole program but for the command line: `musterbeat agent` is
//! this, and so may be a part of a program of your own.
//!
//! ```no_run
//! use musterbeat_core::id::AgentId;
//! use musterbeat_reporter::{Reporter, ReporterError, ReporterOptions};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example(agent: AgentId, token: String) -> Result<(), ReporterError> {
//! let mut options = ReporterOptions::new("https://muster.example.org", agent);
//! options.token = Some(token.into());
//! let end = CancellationToken::new();
//! Reporter::new(options)?.run(end).await
//! # }
//! ```
//!
//! # How values are found
//! A definition without a script is known by its key: `load`, `memory`, `disk`, `uptime`, `cpu`.
//! One with a script is run by `sh -c`, in a process group of its own, if the operator of the
//! machine [allows it](ReporterOptions::allow_scripts); a command that the operator gave for the
//! key is run instead of either.
//!
//! Each key has a schedule of its own, with jitter. A key is never read twice at once.
//!
//! # When the server is away
//! Values go on being found. The newest of each key waits, so that what waits is bounded by what
//! is defined; it is sent once the server is back. Attempts wait longer after each failure, with
//! full jitter, for ever.

mod options;
mod reporter;

mod duty;
mod pace;

mod backlog;
mod collect;
mod schedule;

mod machine;
mod script;
mod source;

mod http;
mod notes;
mod server;

mod explain;

pub use options::{REPORT_INTERVAL_MAX, ReporterError, ReporterOptions};
pub use reporter::Reporter;
