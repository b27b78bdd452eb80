//! The follower's side of a relay: dials the owner's replica, and repeats its parts here.

use std::time::Duration;

use anyhow::{Context, ensure};
use axum::http::{StatusCode, header};
use musterbeat_core::backoff::Backoff;
use musterbeat_core::chat::Place;
use musterbeat_core::id::{Fence, RunId};
use musterbeat_engine::parts::{PartMirror, PartStreams, TapEvent};
use secrecy::ExposeSecret;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::wire::{self, Decoder, Told};
use super::{Cluster, REPLICA, serve};
use crate::metrics::{RELAY_DIALS, RELAYS};

/// Time for a connection, and again for the head of its response.
pub(super) const DIAL_TIME_MAX: Duration = Duration::from_secs(5);

/// Silence after which a connection is given up: three times what the other side promises.
const SILENCE_MAX: Duration = serve::ALIVE_INTERVAL.saturating_mul(3);

/// How a failed dial is tried again, for as long as the owner stays.
const DIAL_BACKOFF: Backoff =
    Backoff { delay_first: Duration::from_millis(100), delay_max: Duration::from_secs(5) };

/// Brings the parts of one run under one owner; dropping it ends that.
pub(crate) struct Relay {
    _end: DropGuard,
}

/// What is dialled.
struct Call {
    cluster: Cluster,
    url: String,
    fence: Fence,
}

/// How a connection ended that brought something.
enum Ended {
    /// The owner writes no more; there will be nothing else under its fence.
    ByOwner,
    /// It broke.
    Broken,
}

impl Relay {
    pub(super) fn start(cluster: Cluster, run: RunId, place: &Place, parts: PartStreams) -> Self {
        let fence = place.fence;
        let base = place.advertise_url.as_deref().unwrap_or_default().trim_end_matches('/');
        let url = format!("{base}/cluster/v1/runs/{run}/parts?fence={fence}");
        let end = CancellationToken::new();
        let ended = end.clone();
        tokio::spawn(async move {
            let call = Call { cluster, url, fence };
            ended.run_until_cancelled(call.keep(run, &parts)).await;
        });
        Self { _end: end.drop_guard() }
    }
}

impl Call {
    /// Repeats parts until the owner ends, dialling again whenever the connection breaks.
    async fn keep(&self, run: RunId, parts: &PartStreams) {
        // Kept while it is dialled again: what readers have they do not get once more.
        let Some(mirror) = parts.mirror(run, self.fence) else { return };
        let mut failures = 0;
        loop {
            match self.bring(&mirror).await {
                Ok(Ended::ByOwner) => return,
                Ok(Ended::Broken) => failures = 1,
                Err(error) => {
                    failures += 1;
                    tracing::debug!(
                        run.id = %run,
                        url = self.url,
                        error = &*error as &dyn std::error::Error,
                        "a relay is not there yet"
                    );
                }
            }
            sleep(DIAL_BACKOFF.delay(failures, rand::random())).await;
        }
    }

    async fn bring(&self, mirror: &PartMirror) -> anyhow::Result<Ended> {
        let mut response = match self.dial().await {
            Ok(response) => response,
            Err(error) => {
                dialled("failed");
                return Err(error);
            }
        };
        if response.status() != StatusCode::OK {
            dialled(if response.status() == StatusCode::NOT_FOUND {
                "not_there"
            } else {
                "refused"
            });
            anyhow::bail!("the other replica answers {}", response.status());
        }
        dialled("connected");
        let _open = Open::new();
        let mut decoder = Decoder::default();
        loop {
            while let Some(told) = decoder.next()? {
                match told {
                    Told::Tap(TapEvent::End) => return Ok(Ended::ByOwner),
                    Told::Tap(event) => self.repeat(mirror, event)?,
                    Told::Alive => {}
                }
            }
            match timeout(SILENCE_MAX, response.chunk()).await {
                Ok(Ok(Some(bytes))) => decoder.feed(&bytes),
                _ => return Ok(Ended::Broken),
            }
        }
    }

    async fn dial(&self) -> anyhow::Result<reqwest::Response> {
        let access = self.cluster.0.access.as_ref().context("there is no `cluster_secret`")?;
        let request = access.http.get(&self.url);
        let request = request.bearer_auth(access.secret.expose_secret());
        let request = request
            .header(REPLICA, self.cluster.replica())
            .header(header::ACCEPT, wire::MEDIA_TYPE);
        Ok(timeout(DIAL_TIME_MAX * 2, request.send()).await.context("no answer in time")??)
    }

    fn repeat(&self, mirror: &PartMirror, event: TapEvent) -> anyhow::Result<()> {
        let fence = match &event {
            TapEvent::Begin { fence, .. } => *fence,
            TapEvent::Part { id, .. } | TapEvent::Resync { next: id } => id.fence,
            TapEvent::End => self.fence,
        };
        ensure!(fence == self.fence, "parts of fence {fence} instead of {}", self.fence);
        match event {
            TapEvent::Begin { fence, step } => mirror.begin(fence, step),
            TapEvent::Part { id, bytes } => mirror.put(id, bytes),
            TapEvent::Resync { next } => mirror.skip_to(next),
            TapEvent::End => {}
        }
        Ok(())
    }
}

fn dialled(outcome: &'static str) {
    metrics::counter!(RELAY_DIALS.name, "outcome" => outcome).increment(1);
}

/// Counts a connection that is open.
struct Open;

impl Open {
    fn new() -> Self {
        metrics::gauge!(RELAYS.name).increment(1);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!(RELAYS.name).decrement(1);
    }
}
