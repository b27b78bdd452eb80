//! Where a repository is, as `git remote` names it.

use std::path::PathBuf;

use reqwest::Url;

/// A repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// On a host.
    Remote(Remote),
    /// In a folder of this machine.
    Folder(PathBuf),
}

/// A repository on a host. Who connects, and by which port and scheme, is forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    /// In lower case.
    pub(crate) host: String,
    pub(crate) owner: String,
    pub(crate) repo: String,
}

impl Origin {
    /// Reads what `git remote` names; `None` for what nobody here could tell of.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.starts_with('/') {
            return Some(Self::Folder(PathBuf::from(text)));
        }
        if !text.contains("://") {
            return short(text).map(Self::Remote);
        }
        let url = Url::parse(text).ok()?;
        match url.scheme() {
            "file" => url.to_file_path().ok().map(Self::Folder),
            "https" | "http" | "ssh" | "git" => {
                let (owner, repo) = name(url.path())?;
                Some(Self::Remote(Remote { host: host_of(&url)?, owner, repo }))
            }
            _ => None,
        }
    }
}

/// Returns the host of a URL in lower case, which `Url` does only for the schemes of the web.
pub(crate) fn host_of(url: &Url) -> Option<String> {
    url.host_str().filter(|host| !host.is_empty()).map(str::to_ascii_lowercase)
}

/// Says whether `text` may be an owner or a repository: nothing that changes a URL's meaning.
pub(crate) fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !matches!(text, "" | "." | "..") && text.bytes().all(allowed)
}

/// Reads `[user@]host:owner/repo`, the form of ssh.
fn short(text: &str) -> Option<Remote> {
    let (authority, path) = text.split_once(':')?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (owner, repo) = name(path)?;
    is_name(host).then(|| Remote { host: host.to_ascii_lowercase(), owner, repo })
}

/// Reads `owner/repo`, with slashes around it and `.git` behind it or not.
fn name(path: &str) -> Option<(String, String)> {
    let path = path.trim_matches('/');
    let (owner, repo) = path.strip_suffix(".git").unwrap_or(path).split_once('/')?;
    (is_name(owner) && is_name(repo)).then(|| (owner.to_owned(), repo.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_of_a_remote_names_the_same_repository() {
        for text in [
            "https://github.com/octo/hello",
            "https://github.com/octo/hello.git",
            "https://github.com/octo/hello/",
            "https://github.com/octo/hello.git/",
            "https://user:secret@github.com/octo/hello.git",
            "https://GitHub.com:443/octo/hello",
            "http://github.com/octo/hello.git",
            "git@github.com:octo/hello.git",
            "git@GITHUB.com:octo/hello",
            "github.com:/octo/hello.git",
            "ssh://git@github.com/octo/hello.git",
            "ssh://git@GitHub.com:22/octo/hello.git",
            "git://github.com/octo/hello.git",
        ] {
            assert_eq!(Origin::parse(text), Some(remote("github.com", "octo", "hello")), "{text}");
        }
    }

    #[test]
    fn a_folder_is_absolute() {
        for (text, folder) in [
            ("/srv/git/hello.git", "/srv/git/hello.git"),
            ("/srv/a:b/c", "/srv/a:b/c"),
            ("file:///srv/git/hello", "/srv/git/hello"),
            ("file:///srv/with%20blank", "/srv/with blank"),
            ("file://localhost/srv/git", "/srv/git"),
        ] {
            assert_eq!(Origin::parse(text), Some(Origin::Folder(folder.into())), "{text}");
        }
    }

    #[test]
    fn what_names_no_repository_is_nothing() {
        for text in [
            "",
            "hello",
            "../hello",
            "srv/git",
            "file://elsewhere/srv/git",
            "ftp://github.com/octo/hello",
            "https://github.com/octo",
            "https://github.com/group/octo/hello",
            "https://github.com/octo/..",
            "https://github.com/octo/..%2fhello",
            "https://github.com/octo/hello%3fpage",
            "git@github.com:octo/he llo",
            "git@github.com:octo",
            "git@:octo/hello",
            "https:///octo",
        ] {
            assert_eq!(Origin::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_remote_survives_each_form(
            host in "[a-z]{1,8}\\.[a-z]{2,4}",
            owner in "[A-Za-z0-9][A-Za-z0-9_-]{0,9}",
            // The last character keeps it from ending in `.git`.
            repo in "[A-Za-z0-9_-][A-Za-z0-9._-]{0,9}[A-Za-su-z0-9]",
            port in 1_u16..,
        ) {
            let expected = Some(remote(&host, &owner, &repo));
            for text in [
                format!("https://{host}:{port}/{owner}/{repo}.git"),
                format!("ssh://git@{host}:{port}/{owner}/{repo}"),
                format!("git@{host}:{owner}/{repo}.git"),
            ] {
                prop_assert_eq!(Origin::parse(&text), expected.clone(), "{}", text);
            }
        }

        #[test]
        fn whatever_is_parsed_holds_nothing_that_a_url_would_read(text in "\\PC{0,40}") {
            if let Some(Origin::Remote(Remote { owner, repo, .. })) = Origin::parse(&text) {
                prop_assert!(is_name(&owner) && is_name(&repo));
            }
        }
    }

    fn remote(host: &str, owner: &str, repo: &str) -> Origin {
        let [host, owner, repo] = [host, owner, repo].map(str::to_owned);
        Origin::Remote(Remote { host, owner, repo })
    }
}
