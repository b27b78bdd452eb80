//! Ways to tell many changes.

use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use musterbeat_core::port::{Interest, Publish as _, Topic, Watch as _};
use musterbeat_pubsub::codec::{Policy, original};
use musterbeat_pubsub::{PgTransport, PgTransportOptions};
use sqlx::PgConnection;
use uuid::Uuid;

use super::audience::NAIVE_CHANNEL;

/// Fingerprints only, whatever would fit exactly.
pub(super) const FINGERPRINTS: Policy = Policy { exact_payloads_max: 0, ..Policy::DEFAULT };

/// How long a transport may take to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A way to tell changes.
#[async_trait]
pub(super) trait Teller: Send {
    /// Brings up what must be there before; not measured.
    async fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    /// Tells that `ids` changed; returns when the server has taken all of it.
    async fn tell(&mut self, ids: &[Uuid]) -> Result<()>;

    /// Ends what would disturb others; not measured.
    async fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A notification and a commit for each id.
pub(super) struct Each(pub(super) PgConnection);

#[async_trait]
impl Teller for Each {
    async fn tell(&mut self, ids: &[Uuid]) -> Result<()> {
        for id in ids {
            let notify = sqlx::query("select pg_notify($1, $2)");
            let notify = notify.bind(NAIVE_CHANNEL).bind(id.to_string());
            notify.execute(&mut self.0).await.context("failed to notify")?;
        }
        Ok(())
    }
}

/// A notification for each id, all in one statement.
pub(super) struct AtOnce(pub(super) PgConnection);

#[async_trait]
impl Teller for AtOnce {
    async fn tell(&mut self, ids: &[Uuid]) -> Result<()> {
        let notify = sqlx::query("select pg_notify($1, id::text) from unnest($2::uuid[]) as id");
        let notify = notify.bind(NAIVE_CHANNEL).bind(ids);
        notify.execute(&mut self.0).await.context("failed to notify")?;
        Ok(())
    }
}

/// The original's payloads, a commit for each.
pub(super) struct Chunks(pub(super) PgConnection);

#[async_trait]
impl Teller for Chunks {
    async fn tell(&mut self, ids: &[Uuid]) -> Result<()> {
        for payload in original::encode(ids) {
            let notify = sqlx::query("select pg_notify($1, $2)");
            let notify = notify.bind(original::CHANNEL).bind(payload);
            notify.execute(&mut self.0).await.context("failed to notify")?;
        }
        Ok(())
    }
}

/// The product's packing and its statement: `publish_in` on a connection without a transaction.
pub(super) struct Packed {
    conn: PgConnection,
    /// INVARIANT: closed, so it neither listens nor publishes by itself.
    transport: PgTransport,
}

impl Packed {
    pub(super) async fn new(conn: PgConnection, url: &str, policy: Policy) -> Result<Self> {
        let options = PgTransportOptions { policy, ..PgTransportOptions::DEFAULT };
        let transport = PgTransport::start(url, &options)?;
        transport.close(CLOSE_TIMEOUT).await.context("a transport did not end")?;
        Ok(Self { conn, transport })
    }
}

#[async_trait]
impl Teller for Packed {
    async fn tell(&mut self, ids: &[Uuid]) -> Result<()> {
        let told = self.transport.publish_in(&mut self.conn, Topic::Chat, ids).await;
        told.context("failed to notify")
    }
}

/// The product's publisher: each id is marked, and the marks are flushed.
pub(super) struct Publisher {
    url: String,
    policy: Policy,
    transport: Option<PgTransport>,
}

impl Publisher {
    pub(super) fn new(url: &str, policy: Policy) -> Self {
        Self { url: url.to_owned(), policy, transport: None }
    }
}

#[async_trait]
impl Teller for Publisher {
    async fn begin(&mut self) -> Result<()> {
        self.transport = Some(connected(&self.url, self.policy).await?);
        Ok(())
    }

    async fn tell(&mut self, ids: &[Uuid]) -> Result<()> {
        let transport = self.transport.as_ref().context("there is no transport")?;
        for id in ids {
            transport.publish(Topic::Chat, *id);
        }
        transport.flush().await.context("failed to publish")
    }

    async fn end(&mut self) -> Result<()> {
        if let Some(transport) = self.transport.take() {
            transport.close(CLOSE_TIMEOUT).await.context("a transport did not end")?;
        }
        Ok(())
    }
}

/// Starts a transport, and waits until both of its connections are there.
///
/// Its session listens to other channels than those of chats, and says nothing by itself.
pub(in super::super) async fn connected(url: &str, policy: Policy) -> Result<PgTransport> {
    let silence = Duration::from_hours(1);
    let options = PgTransportOptions { policy, silence, ..PgTransportOptions::DEFAULT };
    let transport = PgTransport::start(url, &options)?;
    transport.watch(Topic::Token, Interest::All).await.context("a transport does not listen")?;
    transport.publish(Topic::Token, Uuid::nil());
    transport.flush().await.context("a transport does not publish")?;
    Ok(transport)
}
