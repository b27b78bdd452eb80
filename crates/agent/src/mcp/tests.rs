//! Tools of a real MCP server, once as a program and once over HTTP.

mod ground;
mod http;
mod programs;
#[path = "../../examples/mcp_echo/server.rs"]
mod server;
