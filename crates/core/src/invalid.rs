//! What is wrong with an input: the field and the limit that it broke.

/// A value that a caller sent and that cannot be taken.
///
/// The field is a path as the caller wrote it, such as `content[2].text`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// Which field.
    pub field: String,
    /// What was expected of it, with the limit in numbers.
    pub reason: String,
}

impl Invalid {
    /// Says that `field` broke a rule.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }

    /// Says that the field stands below `path`.
    #[must_use]
    pub fn within(self, path: &str) -> Self {
        Self { field: format!("{path}.{}", self.field), ..self }
    }
}

/// Checks that `text` is neither empty nor longer than `bytes_max`, and bears no NUL.
///
/// PostgreSQL stores no NUL in text or jsonb, so one would fail the whole statement.
pub fn check_text(field: &str, text: &str, bytes_max: usize) -> Result<(), Invalid> {
    if text.trim().is_empty() {
        return Err(Invalid::new(field, "is empty"));
    }
    if text.len() > bytes_max {
        let reason = format!("has {} bytes, at most {bytes_max} are allowed", text.len());
        return Err(Invalid::new(field, reason));
    }
    if text.contains('\0') {
        return Err(Invalid::new(field, "contains a NUL character"));
    }
    Ok(())
}
