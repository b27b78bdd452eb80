//! An MCP server on its standard streams, for the tests of this crate.

mod server;

use rmcp::ServiceExt;
use rmcp::transport::stdio;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    eprintln!("an echo is ready");
    server::Echo::default().serve(stdio()).await?.waiting().await?;
    Ok(())
}
