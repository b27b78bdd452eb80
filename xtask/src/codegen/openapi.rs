//! The description of the HTTP interface, `docs/openapi.json`.

use super::Output;

/// Returns what the server answers at `/openapi.json`.
pub(super) fn generate() -> Output {
    let text = musterbeat_server::openapi_json();
    Output::file("docs/openapi.json", format!("{}\n", text.trim_end()))
}
