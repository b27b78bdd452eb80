//! Content as callers send it and as they are shown it.

use std::fmt;

use musterbeat_core::message::{self, Part};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Type,
};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Something to say, no NUL in it.
const SAYS_SOMETHING: &str = r"^[^\x00]*[^\s\x00][^\x00]*$";

/// A piece of content, as a caller sends it.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum PartInput {
    /// Plain text.
    Text { text: String },
}

impl PartialSchema for PartInput {
    fn schema() -> RefOr<Schema> {
        let kind = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["text"]));
        let text = said().description(Some("At most 262,144 bytes; not empty; no NUL."));
        ObjectBuilder::new()
            .description(Some("A piece of content: plain text."))
            .property("type", kind)
            .required("type")
            .property("text", text)
            .required("text")
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .into()
    }
}

impl ToSchema for PartInput {}

/// Describes a text that says something; its limit is in bytes, which a schema cannot count.
fn said() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(SAYS_SOMETHING))
}

/// A piece of content, as it is stored.
#[derive(ToSchema)]
#[schema(as = Part)]
#[expect(dead_code, reason = "describes `Part`, which knows nothing of OpenAPI")]
pub(super) struct PartShown {
    /// `text`, `reasoning`, `tool_call`, `tool_result` or `command`; others are of a newer release,
    /// with fields of their own.
    #[schema(rename = "type")]
    kind: String,
    /// What a part of the type `text` says, or what the assistant thought in one of the type
    /// `reasoning`.
    #[schema(nullable = false)]
    text: Option<String>,
    /// What the provider of a model wants back with a thought, for nobody else to read.
    #[schema(nullable = false)]
    signature: Option<String>,
    /// Names a call of a tool, in the call and in its result.
    #[schema(nullable = false)]
    id: Option<String>,
    /// Which tool is called.
    #[schema(nullable = false)]
    name: Option<String>,
    /// With what it is called.
    #[schema(nullable = false)]
    input: Option<serde_json::Value>,
    /// What the tool said.
    #[schema(nullable = false)]
    output: Option<String>,
    /// Whether the tool failed, or did not run to its end.
    #[schema(nullable = false)]
    is_error: Option<bool>,
    /// What a user asked of the runner itself: `compact` for a summary of the history.
    #[schema(nullable = false)]
    command: Option<String>,
}

/// Content as a caller sends it: a text, or an array of parts.
#[derive(Clone, Debug)]
pub(super) struct ContentInput(pub(super) Vec<Part>);

impl PartialSchema for ContentInput {
    fn schema() -> RefOr<Schema> {
        let text = said().description(Some("One text part; at most 262,144 bytes."));
        let parts = ArrayBuilder::new()
            .items(Ref::from_schema_name(PartInput::name()))
            .min_items(Some(1))
            .max_items(Some(message::PARTS_MAX))
            .description(Some("Parts; together at most 524,288 bytes of text."));
        OneOfBuilder::new().item(text).item(parts).into()
    }
}

impl ToSchema for ContentInput {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((PartInput::name().into_owned(), PartInput::schema()));
    }
}

impl<'de> Deserialize<'de> for ContentInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = ContentInput;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or an array of parts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ContentInput, E> {
        Ok(ContentInput(vec![Part::Text { text: text.to_owned() }]))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, parts: A) -> Result<ContentInput, A::Error> {
        let parts = Vec::<PartInput>::deserialize(SeqAccessDeserializer::new(parts))?;
        let parts = parts.into_iter().map(|PartInput::Text { text }| Part::Text { text });
        Ok(ContentInput(parts.collect()))
    }

    /// A single part is easily meant; the message then says what to write.
    fn visit_map<A: de::MapAccess<'de>>(self, part: A) -> Result<ContentInput, A::Error> {
        PartInput::deserialize(MapAccessDeserializer::new(part))?;
        Err(de::Error::custom("a part stands in an array: write [{…}]"))
    }
}
