//! Short names for content.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// Bytes of the hash that go into a name: enough that nobody meets a collision.
const BYTES: usize = 8;

/// Returns a name that differs when one of `parts` does.
pub(crate) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finalize()[..BYTES].iter().fold(String::new(), |mut name, byte| {
        // Writing to a string does not fail.
        let _ = write!(name, "{byte:02x}");
        name
    })
}
