//! Where a pull request is, as its URL tells.

use musterbeat_core::port::FetchError;
use reqwest::Url;

use crate::origin::{host_of, is_name};

/// A pull request of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) owner: String,
    pub(super) repo: String,
    pub(super) number: i64,
}

impl Place {
    /// Reads `https://HOST/OWNER/REPO/pull/NUMBER` with whatever page follows it.
    ///
    /// The repository may be another than the chat's: who works on a fork asks upstream to pull.
    pub(super) fn parse(text: &str, host: &str) -> Result<Self, FetchError> {
        let invalid =
            |reason: &str| FetchError::Invalid(format!("the pull request's URL {reason}"));
        let url = Url::parse(text).map_err(|_| invalid("does not parse"))?;
        if !matches!(url.scheme(), "https" | "http") || host_of(&url).as_deref() != Some(host) {
            return Err(invalid("is on another host than its repository"));
        }
        let mut segments = url.path().split('/').skip(1);
        let mut next = || segments.next().unwrap_or_default();
        let (owner, repo, kind, number) = (next(), next(), next(), next());
        let number = number.parse().ok().filter(|&number: &i64| 0 < number);
        match number {
            // Servers that offer the same API name the page in the plural.
            Some(number) if is_name(owner) && is_name(repo) && matches!(kind, "pull" | "pulls") => {
                Ok(Self { owner: owner.to_owned(), repo: repo.to_owned(), number })
            }
            _ => Err(invalid("has not the form https://HOST/OWNER/REPOSITORY/pull/NUMBER")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_request_is_found_on_each_of_its_pages() {
        for text in [
            "https://github.com/octo/hello/pull/7",
            "https://github.com/octo/hello/pull/7/",
            "https://github.com/octo/hello/pull/7/files",
            "https://GitHub.com/octo/hello/pull/7/commits/0a1b?w=1#diff",
            "https://user:secret@github.com/octo/hello/pull/7",
            "http://github.com/octo/hello/pulls/7",
        ] {
            let expected = Place { owner: "octo".into(), repo: "hello".into(), number: 7 };
            assert_eq!(Place::parse(text, "github.com"), Ok(expected), "{text}");
        }
    }

    #[test]
    fn any_other_url_is_refused_without_being_repeated() {
        for text in [
            "",
            "octo/hello/pull/7",
            "ssh://github.com/octo/hello/pull/7",
            "https://github.com.evil.example/octo/hello/pull/7",
            "https://github.com@evil.example/octo/hello/pull/7",
            "https://github.com/octo/hello",
            "https://github.com/octo/hello/issues/7",
            "https://github.com/octo/hello/pull/0",
            "https://github.com/octo/hello/pull/-7",
            "https://github.com/octo/hello/pull/seven",
            "https://github.com/octo/hello/pull/99999999999999999999",
            "https://github.com/octo/%2e%2e/pull/7",
            "https://user:secret@github.com/octo%2fhello/pull/7",
        ] {
            match Place::parse(text, "github.com") {
                Err(FetchError::Invalid(reason)) => assert!(!reason.contains("secret"), "{reason}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
