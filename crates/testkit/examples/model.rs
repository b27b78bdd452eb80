//! A model that needs no weights: an endpoint for trying the server out.
//!
//! ```text
//! cargo run -p musterbeat-testkit --example model -- --listen 127.0.0.1:11435
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use musterbeat_testkit::{FakeModels, demo};

/// Where it listens when nobody says: beside the port that local models are found at.
const LISTEN: &str = "127.0.0.1:11435";

/// Pause before each word, so that an answer can be watched.
const PACE: Duration = Duration::from_millis(40);

#[tokio::main]
async fn main() -> Result<()> {
    let models = FakeModels::start_at(listen()?).await?;
    models.answer_by(|asked| demo(asked).paced(PACE));
    let url = models.base_url();
    println!("A model that says back what it is told answers at {url}.");
    println!("Start the server with it:");
    println!();
    println!("    MUSTERBEAT_RUNNER=agent MUSTERBEAT_MODEL_URL={url} MUSTERBEAT_MODEL=demo");
    println!();
    println!("Name a tool in a question, and it is called. \"Ask two agents\" spawns two.");
    println!("Ctrl-C ends it.");
    tokio::signal::ctrl_c().await.context("no signal can be waited for")
}

fn listen() -> Result<SocketAddr> {
    let mut args = std::env::args().skip(1);
    let addr = match (args.next().as_deref(), args.next(), args.next()) {
        (None, ..) => LISTEN.to_owned(),
        (Some("--listen"), Some(addr), None) => addr,
        _ => bail!("usage: model [--listen ADDRESS:PORT]"),
    };
    addr.parse().with_context(|| format!("{addr} is not an address and a port, as {LISTEN} is"))
}
