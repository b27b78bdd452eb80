//! The ready server: settings, HTTP and SSE, tokens, metrics, and the wiring of the crates.
//!
//! It decides nothing of the domain and holds no SQL. Whoever wants another binary takes the
//! crates below and wires them as [`serve`] does; the binary `musterbeat` is [`cli::main`].

pub mod cli;
pub mod metrics;
pub mod serve;
pub mod settings;

mod agent_tokens;
mod announce;
mod api;
mod app;
mod cluster;
mod database;
mod doctor;
mod http;
mod identity;
mod readiness;
mod revocation;

pub use api::openapi_json;
