//! Secrets as they are read: what is wrong with one is said without it.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use secrecy::SecretString;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

/// Bytes of a file with a key, at most: a larger one is none.
const KEY_BYTES_MAX: u64 = 64 * 1024;

/// A file that holds a key, which is read once: what was checked is what is used.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "PathBuf")]
pub struct KeyFile {
    path: PathBuf,
    /// Shared by clones: whoever reads it first reads it for all.
    key: Arc<OnceLock<SecretString>>,
}

impl From<PathBuf> for KeyFile {
    fn from(path: PathBuf) -> Self {
        Self { path, key: Arc::default() }
    }
}

impl KeyFile {
    /// Returns the key; line breaks around it are no part of it.
    ///
    /// # Errors
    /// Names the file that cannot be read, or holds no key; the next call reads it again.
    pub fn key(&self) -> anyhow::Result<SecretString> {
        if let Some(key) = self.key.get() {
            return Ok(key.clone());
        }
        let path = &self.path;
        let about = || format!("failed to read the key in {}", path.display());
        let bytes = std::fs::metadata(path).with_context(about)?.len();
        anyhow::ensure!(
            bytes <= KEY_BYTES_MAX,
            "{} has {bytes} bytes, no key is so long",
            path.display()
        );
        let text = std::fs::read_to_string(path).with_context(about)?;
        anyhow::ensure!(!text.trim().is_empty(), "{} holds no key", path.display());
        Ok(self.key.get_or_init(|| text.trim().into()).clone())
    }
}

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
