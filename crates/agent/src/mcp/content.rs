//! What a tool of an MCP server returned, as a text for a model.

use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};

/// Bytes of a text, at most; its rest is cut off.
const TEXT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Stands for what a newer protocol allows.
const UNKNOWN: &str = "[something that this version does not know]";

/// Returns what was returned: its texts, and a line for each part that is none.
///
/// What has a structure and no text is told as JSON.
pub(super) fn text(result: CallToolResult) -> String {
    let has_text = result.content.iter().any(has_text);
    let mut parts: Vec<String> = result.content.into_iter().map(part).collect();
    if let Some(structure) = result.structured_content
        && !has_text
    {
        parts.push(structure.to_string());
    }
    if parts.is_empty() {
        return "[nothing]".to_owned();
    }
    let mut text = parts.join("\n");
    if TEXT_BYTES_MAX < text.len() {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push_str("\n[the rest is cut off]");
    }
    text
}

fn has_text(part: &ContentBlock) -> bool {
    match part {
        ContentBlock::Text(_) => true,
        ContentBlock::Resource(embedded) => {
            matches!(embedded.resource, ResourceContents::TextResourceContents { .. })
        }
        _ => false,
    }
}

fn part(part: ContentBlock) -> String {
    match part {
        ContentBlock::Text(text) => text.text,
        ContentBlock::Image(image) => media("image", &image.mime_type, &image.data),
        ContentBlock::Audio(audio) => media("audio", &audio.mime_type, &audio.data),
        ContentBlock::Resource(embedded) => resource(embedded.resource),
        ContentBlock::ResourceLink(link) => format!("[link {}, named {}]", link.uri, link.name),
        _ => UNKNOWN.to_owned(),
    }
}

fn resource(resource: ResourceContents) -> String {
    match resource {
        ResourceContents::TextResourceContents { uri, text, .. } => {
            format!("[resource {uri}]\n{text}")
        }
        ResourceContents::BlobResourceContents { uri, mime_type, blob, .. } => {
            let kind = mime_type.as_deref().unwrap_or("application/octet-stream");
            media(&format!("resource {uri}"), kind, &blob)
        }
        _ => UNKNOWN.to_owned(),
    }
}

fn media(what: &str, kind: &str, base64: &str) -> String {
    format!("[{what} {kind}, {} bytes]", decoded_len(base64))
}

/// Returns how many bytes a Base64 text stands for.
fn decoded_len(base64: &str) -> usize {
    base64.trim_end_matches('=').len() * 3 / 4
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(result: Value, expected: &str) {
        assert_eq!(text(serde_json::from_value(result).unwrap()), expected);
    }

    #[test]
    fn parts_are_joined_and_others_described() {
        check(
            json!({"content": [
                {"type": "text", "text": "two"},
                {"type": "image", "data": "AAAAAA==", "mimeType": "image/png"},
                {"type": "audio", "data": "AAAA", "mimeType": "audio/wav"},
                {"type": "resource", "resource": {"uri": "file:///a", "text": "lines"}},
                {"type": "resource", "resource": {"uri": "file:///b", "blob": "AAA="}},
                {"type": "resource_link", "uri": "file:///c", "name": "c"},
            ], "structuredContent": {"unused": true}}),
            "two\n[image image/png, 4 bytes]\n[audio audio/wav, 3 bytes]\n[resource file:///a]\n\
             lines\n[resource file:///b application/octet-stream, 2 bytes]\n\
             [link file:///c, named c]",
        );
    }

    #[test]
    fn structure_stands_in_for_text() {
        check(json!({"content": [], "structuredContent": {"sum": 3}}), r#"{"sum":3}"#);
        let image = json!({"type": "image", "data": "AAAA", "mimeType": "image/png"});
        let result = json!({"content": [image], "structuredContent": [1]});
        check(result, "[image image/png, 3 bytes]\n[1]");
        check(json!({"content": []}), "[nothing]");
    }

    #[test]
    fn long_texts_are_cut() {
        let long = "ä".repeat(TEXT_BYTES_MAX);
        let result = json!({"content": [{"type": "text", "text": long}]});
        let text = text(serde_json::from_value(result).unwrap());
        assert!(text.ends_with("ä\n[the rest is cut off]"));
        assert!(text.len() < TEXT_BYTES_MAX + 64);
    }
}
