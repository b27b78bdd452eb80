//! Headers that an MCP server wants to see.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use musterbeat_core::invalid::Invalid;
use reqwest::header::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncReadExt;

/// Headers that belong to the protocol.
const RESERVED: [&str; 5] =
    ["accept", "content-type", "last-event-id", "mcp-protocol-version", "mcp-session-id"];

/// Bytes of a file with headers, at most.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Headers by their names; the values are marked as secret.
pub(super) type Headers = HashMap<HeaderName, HeaderValue>;

/// Takes headers as an operator wrote them.
///
/// # Errors
/// Names the header that is none, and not what it says.
pub(super) fn parse(headers: &BTreeMap<String, SecretString>) -> Result<Headers, Invalid> {
    headers.iter().map(|(name, value)| header(name, value.expose_secret())).collect()
}

/// Reads a file with a line `Name: value` for each header.
///
/// Blank lines, and those that begin with `#`, are ignored.
///
/// # Errors
/// Names the line that is no header, and not what it says.
pub(super) async fn read(path: &Path) -> Result<Headers, HeadersError> {
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await.map_err(HeadersError::Read)?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).await;
    if read.map_err(HeadersError::Read)? as u64 > FILE_BYTES_MAX {
        return Err(HeadersError::TooLong);
    }
    of_lines(&text)
}

/// The headers of a file were not taken. No text in it bears a secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeadersError {
    #[error("`headers_file` cannot be read")]
    Read(#[source] io::Error),
    #[error("`headers_file` has more than {FILE_BYTES_MAX} bytes")]
    TooLong,
    #[error("line {0} of `headers_file` is not `Name: value`")]
    NoHeader(usize),
    #[error("line {0} of `headers_file` cannot be sent")]
    Refused(usize, #[source] Invalid),
}

fn of_lines(text: &str) -> Result<Headers, HeadersError> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let told = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    told.map(|(number, line)| {
        let (name, value) = line.split_once(':').ok_or(HeadersError::NoHeader(number))?;
        header(name.trim(), value.trim()).map_err(|invalid| HeadersError::Refused(number, invalid))
    })
    .collect()
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Invalid> {
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
        return Err(Invalid::new("headers", "has a name that no header may have"));
    };
    let field = format!("headers.{name}");
    if RESERVED.contains(&name.as_str()) {
        return Err(Invalid::new(field, "is set by the protocol: leave it out"));
    }
    let Ok(mut value) = HeaderValue::from_str(value) else {
        return Err(Invalid::new(field, "has a value that no header may carry"));
    };
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_headers() {
        let headers =
            of_lines("# a comment\n\nAuthorization: Bearer a:b\r\nx-team:  9 \n").unwrap();
        assert_eq!(headers.len(), 2);
        assert_eq!(headers[&HeaderName::from_static("authorization")], "Bearer a:b");
        assert_eq!(headers[&HeaderName::from_static("x-team")], "9");
        assert!(!format!("{headers:?}").contains("Bearer"), "values are not shown");
    }

    #[test]
    fn refusals_name_the_line_and_no_secret() {
        let refusal = |text: &str| of_lines(text).unwrap_err().to_string();
        assert_eq!(refusal("a: b\ns3cret"), "line 2 of `headers_file` is not `Name: value`");
        assert_eq!(refusal("s3cret key: b"), "line 1 of `headers_file` cannot be sent");
    }
}
