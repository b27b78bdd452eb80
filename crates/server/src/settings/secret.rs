//! Secrets as they are read: what is wrong with one is said without it.

use std::fmt;

use secrecy::SecretString;
use serde::Deserializer;
use serde::de::{self, Visitor};

/// Reads a secret that may be left out.
///
/// # Errors
/// Refuses what is no text, such as digits without quotes in a file.
pub(super) fn some_secret<'de, D>(deserializer: D) -> Result<Option<SecretString>, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(SecretVisitor).map(Some)
}

struct SecretVisitor;

/// Says what to do without the value, which other visitors would show.
fn no_text<T, E: de::Error>() -> Result<T, E> {
    Err(E::custom("is a number or a truth, not a text: put it in quotes"))
}

impl Visitor<'_> for SecretVisitor {
    type Value = SecretString;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretString, E> {
        Ok(text.into())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<SecretString, E> {
        no_text()
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<SecretString, E> {
        no_text()
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<SecretString, E> {
        no_text()
    }

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<SecretString, E> {
        no_text()
    }

    fn visit_u128<E: de::Error>(self, _: u128) -> Result<SecretString, E> {
        no_text()
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<SecretString, E> {
        no_text()
    }
}
