//! A server in a container.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error as DockerError;
use testcontainers::bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use testcontainers::bollard::query_parameters::{
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};
use testcontainers::core::client::docker_client_instance;
use testcontainers::core::{IntoContainerPort, Mount, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tokio::runtime::{self, Runtime};
use tokio::time::timeout;
use uuid::Uuid;

use super::heir::Heir;
use super::keeper::{Found, Kept};
use super::owner::Owner;
use super::{ImageName, Running, say};
use crate::image;

/// Marks our containers and names their owner.
const LABEL: &str = "musterbeat.testkit.owner";

/// Removes all containers with the label `$1`, even one that was just being created.
const INHERIT: &str = r#"
    sleep 1
    docker ps -aq --filter "$1" | while read -r id; do docker rm -fv "$id"; done
"#;

/// What an engine that is there needs at most to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a container to write that it is ready, on a machine busy with builds.
const STARTUP_TIMEOUT: Duration = Duration::from_mins(2);

/// Time to remove a container before it is left to the next sweep.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(30);

/// A container of an owner that cannot be seen is left over at this age: nobody tests for so long,
/// and a server for work by hand lasts a working day.
const UNKNOWN_AGE_MAX: Duration = Duration::from_hours(24);

/// Docker gives 64 MB, too little for parallel plans of many tests.
const SHARED_MEMORY_BYTES: u64 = 256 << 20;

/// Where the data is, in memory: a new database took 240 ms on a disk and takes 25 ms here.
const MEMORY: &str = "/pgdata";

/// Nothing here survives a crash anyway, and every test brings its connections.
const ARGUMENTS: &[&str] = &[
    "postgres",
    "-c",
    "fsync=off",
    "-c",
    "synchronous_commit=off",
    "-c",
    "full_page_writes=off",
    "-c",
    "max_connections=500",
    // It lies in memory too.
    "-c",
    "max_wal_size=256MB",
];

/// Starts `image` in a container, if Docker is here, with `parameters` over those of tests.
pub(super) fn start(image: &ImageName, parameters: &[(String, String)]) -> Result<Found> {
    // With a thread of its own, connections to the engine go on between two calls.
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("no runtime for Docker: raise the limit of processes")?;
    let docker = match runtime.block_on(connect())? {
        Ok(docker) => docker,
        Err(absent) => return Ok(Found::Absent(absent)),
    };
    // Before there is a container, so that one whose start is interrupted goes too.
    let heir = Heir::appoint(INHERIT, &[&format!("label={LABEL}={}", Owner::current().label())]);
    let (container, url, origin) = runtime.block_on(async {
        sweep(&docker).await;
        let image = image::find(&docker, image).await?;
        run(&image, parameters).await
    })?;
    let contained = Contained { runtime, container, url, origin, _heir: heir };
    Ok(Found::Running(Kept::new(contained)))
}

#[derive(Debug)]
struct Contained {
    runtime: Runtime,
    container: ContainerAsync<GenericImage>,
    url: String,
    origin: String,
    _heir: Option<Heir>,
}

impl Running for Contained {
    fn url(&self) -> String {
        self.url.clone()
    }

    fn origin(&self) -> String {
        self.origin.clone()
    }

    fn stop(self: Box<Self>) -> Result<()> {
        let Self { runtime, container, .. } = *self;
        let id = container.id().to_owned();
        let failed = || format!("container {id} stays behind: remove it with docker rm -fv");
        runtime.block_on(async {
            let removed = timeout(REMOVE_TIMEOUT, container.rm()).await;
            removed.with_context(failed)?.with_context(failed)
        })
    }
}

/// Returns the engine, or why there is none; an engine that answers with an error is an error.
async fn connect() -> Result<Result<Docker, String>> {
    let docker = match docker_client_instance().await {
        Ok(docker) => docker,
        Err(error) => return Ok(Err(error.to_string())),
    };
    match timeout(PING_TIMEOUT, docker.ping()).await {
        Ok(Ok(_)) => Ok(Ok(docker)),
        Ok(Err(error @ DockerError::DockerResponseServerError { .. })) => Err(error).context(
            "Docker answers, but with an error: mend it, or set MUSTERBEAT_TEST_PROVIDER=embedded",
        ),
        Ok(Err(error)) => Ok(Err(format!("{:#}", anyhow::Error::from(error)))),
        Err(_) => Ok(Err(format!("no answer within {PING_TIMEOUT:?}"))),
    }
}

async fn run(
    image: &ImageName,
    parameters: &[(String, String)],
) -> Result<(ContainerAsync<GenericImage>, String, String)> {
    // The port is open to the network, so that a remote engine works: hence a password.
    let password = Uuid::now_v7().simple().to_string();
    let failed = || {
        format!(
            "{image} does not start: see `docker logs`, or set MUSTERBEAT_TEST_PROVIDER=embedded"
        )
    };
    let container = GenericImage::new(&image.name, &image.tag)
        .with_exposed_port(5432.tcp())
        .with_wait_for(WaitFor::message_on_stderr("database system is ready to accept connections"))
        .with_env_var("POSTGRES_PASSWORD", &password)
        .with_label(LABEL, Owner::current().label())
        .with_shm_size(SHARED_MEMORY_BYTES)
        .with_mount(Mount::tmpfs_mount(MEMORY))
        .with_env_var("PGDATA", format!("{MEMORY}/data"))
        .with_startup_timeout(STARTUP_TIMEOUT)
        .with_cmd(arguments(parameters))
        .start()
        .await
        .with_context(failed)?;
    let host = container.get_host().await.with_context(failed)?;
    let port = container.get_host_port_ipv4(5432.tcp()).await.with_context(failed)?;
    // The server has no TLS, and without this word a client takes one from its environment.
    let url = format!("postgres://postgres:{password}@{host}:{port}/postgres?sslmode=disable");
    let origin = format!("Docker, image {image}, at {host}:{port}");
    Ok((container, url, origin))
}

fn arguments(parameters: &[(String, String)]) -> Vec<String> {
    let further = parameters.iter().map(|(name, value)| format!("--{name}={value}"));
    ARGUMENTS.iter().map(|argument| (*argument).to_owned()).chain(further).collect()
}

/// Removes the containers of owners that have ended; says so if it cannot.
async fn sweep(docker: &Docker) {
    let ours = HashMap::from([("label", vec![LABEL])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&ours).build();
    let containers = match docker.list_containers(Some(options)).await {
        Ok(containers) => containers,
        Err(error) => return say(&format!("left-over containers cannot be listed: {error}")),
    };
    let now = SystemTime::now();
    let left_over = containers.into_iter().filter(|container| is_left_over(container, now));
    for id in left_over.filter_map(|container| container.id) {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match docker.remove_container(&id, Some(options)).await {
            Ok(()) => say(&format!("removed container {id}, left over from a test run")),
            // Another process may sweep at the same time.
            Err(DockerError::DockerResponseServerError { status_code: 404 | 409, .. }) => {}
            Err(error) => say(&format!("container {id} stays behind: {error}")),
        }
    }
}

fn is_left_over(container: &ContainerSummary, now: SystemTime) -> bool {
    let label = container.labels.as_ref().and_then(|labels| labels.get(LABEL));
    match label.and_then(|label| Owner::parse(label)) {
        Some(owner) if owner.is_known() => owner.has_ended(),
        // Of this machine before it was started again, or of an owner that cannot be seen from
        // here, as one that was killed in a container of its own.
        _ => {
            container.state != Some(ContainerSummaryStateEnum::RUNNING)
                || UNKNOWN_AGE_MAX < age(container, now)
        }
    }
}

/// Returns how long ago the engine created the container, by our clock.
fn age(container: &ContainerSummary, now: SystemTime) -> Duration {
    let created = container.created.and_then(|seconds| u64::try_from(seconds).ok());
    let created = created.map_or(now, |seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    // One from the future has no age: the engine's clock may be ahead.
    now.duration_since(created).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: ContainerSummaryStateEnum = ContainerSummaryStateEnum::RUNNING;
    const EXITED: ContainerSummaryStateEnum = ContainerSummaryStateEnum::EXITED;
    const HOUR: u64 = 60 * 60;

    #[test]
    fn a_container_is_judged_by_the_life_of_an_owner_that_can_be_seen() {
        let living = Owner::current().label();
        assert!(!check(&living, RUNNING, 100 * HOUR));
        assert!(!check(&living, EXITED, 0));
        let (here, _) = living.rsplit_once('/').unwrap();
        assert!(check(&format!("{here}/1"), RUNNING, 0));
    }

    #[test]
    fn a_container_of_an_owner_out_of_sight_goes_when_it_has_ended_or_is_old() {
        for label in ["elsewhere/7/1", "no owner"] {
            assert!(check(label, EXITED, 0), "{label}");
            assert!(!check(label, RUNNING, 8 * HOUR), "{label}");
            assert!(check(label, RUNNING, 25 * HOUR), "{label}");
        }
    }

    fn check(label: &str, state: ContainerSummaryStateEnum, age_seconds: u64) -> bool {
        let now = UNIX_EPOCH + Duration::from_secs(1_000 * HOUR);
        let container = ContainerSummary {
            labels: Some(HashMap::from([(LABEL.to_owned(), label.to_owned())])),
            state: Some(state),
            created: Some((1_000 * HOUR - age_seconds).cast_signed()),
            ..ContainerSummary::default()
        };
        is_left_over(&container, now)
    }
}
