//! Signatures of thoughts, marked with the provider that gave them.
//!
//! A chat may go from one provider to another, which refuses what it did not sign.

/// Marks a signature as given by `provider`.
pub(super) fn seal(provider: &str, signature: &str) -> String {
    format!("{provider}\n{signature}")
}

/// Returns the signature if `provider` gave it.
pub(super) fn open<'a>(provider: &str, sealed: &'a str) -> Option<&'a str> {
    sealed.strip_prefix(provider)?.strip_prefix('\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_gave_a_signature_gets_it_back() {
        let sealed = seal("a", "line\nline");
        assert_eq!(open("a", &sealed), Some("line\nline"));
        assert_eq!(open("b", &sealed), None);
        assert_eq!(open("", &sealed), None);
        assert_eq!(open("a", "unmarked"), None);
        assert_eq!(open("a", &seal("ab", "")), None);
    }
}
