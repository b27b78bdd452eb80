//! A network that breaks on demand.

mod control;
mod link;
mod queue;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use control::Controls;

/// Which way bytes stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlackHole {
    /// Nothing arrives anywhere.
    Both,
    /// The server hears nothing; what it already sends still arrives.
    ToServer,
    /// The client hears nothing: an applied write whose answer is lost.
    ToClient,
}

/// A TCP proxy in front of one server, with faults to switch on and off.
///
/// Each control acts on the connections that are open and on those that come.
/// Dropping the proxy closes everything.
#[derive(Debug)]
pub struct FaultProxy {
    addr: SocketAddr,
    upstream: Arc<Mutex<SocketAddr>>,
    controls: watch::Sender<Controls>,
    open: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

impl FaultProxy {
    /// Starts a proxy on a free loopback port in front of `upstream`.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("the fault proxy found no free port on loopback: close some sockets")?;
        let addr = listener.local_addr().context("the fault proxy has no address")?;
        let (controls, seen) = watch::channel(Controls::default());
        let open = Arc::new(AtomicUsize::new(0));
        let upstream = Arc::new(Mutex::new(upstream));
        let accept = accept(listener, Arc::clone(&upstream), seen, Arc::clone(&open));
        let accepting = tokio::spawn(accept).abort_handle();
        Ok(Self { addr, upstream, controls, open, accepting })
    }

    /// Starts a proxy in front of the server that `database_url` names.
    pub async fn in_front_of(database_url: &str) -> Result<Self> {
        let options = parse(database_url)?;
        let name = (options.get_host(), options.get_port());
        let failed = || format!("{} has no address: check the URL of the database", name.0);
        let upstream = lookup_host(name).await.with_context(failed)?.next();
        Self::start(upstream.with_context(failed)?).await
    }

    /// Returns where the proxy listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns `database_url` with the proxy in the place of its server.
    pub fn url(&self, database_url: &str) -> Result<String> {
        let options = parse(database_url)?;
        let through = options.host(&self.addr.ip().to_string()).port(self.addr.port());
        Ok(through.to_url_lossy().to_string())
    }

    /// Leads new connections to another server; open ones stay.
    pub fn lead_to(&self, upstream: SocketAddr) {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
    }

    /// Lets each byte arrive `latency` later, in each direction.
    ///
    /// It is latency and not a limit of throughput: bytes travel at the same time.
    pub fn delay(&self, latency: Duration) {
        self.controls.send_modify(|controls| controls.delay = latency);
    }

    /// Closes all open connections in good order; new ones pass.
    ///
    /// Bytes that were held or delayed are lost.
    pub fn cut(&self) {
        self.controls.send_modify(|controls| controls.cuts += 1);
    }

    /// Resets all open connections; new ones pass.
    pub fn reset(&self) {
        self.controls.send_modify(|controls| controls.resets += 1);
    }

    /// Resets new connections at once; open ones stay.
    pub fn refuse(&self) {
        self.controls.send_modify(|controls| controls.refuses = true);
    }

    /// Stops bytes without a sign: no data, no end, no error, and new connections are accepted.
    ///
    /// Bytes wait, as they do in TCP while a network is down: [`FaultProxy::heal`] delivers them,
    /// [`FaultProxy::cut`] or [`FaultProxy::reset`] loses them.
    /// A client's keepalive sees nothing, since the proxy's own socket still acknowledges.
    pub fn black_hole(&self, way: BlackHole) {
        self.controls.send_modify(|controls| controls.black_hole = Some(way));
    }

    /// Ends delay, refusal and black hole; what waited is delivered.
    pub fn heal(&self) {
        self.controls.send_modify(Controls::heal);
    }

    /// Returns how many connections are open, half-dead ones included.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One open connection in the count.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn parse(database_url: &str) -> Result<PgConnectOptions> {
    PgConnectOptions::from_str(database_url)
        .context("the URL of the database does not parse: it begins with postgres://")
}

/// Accepts until the task is aborted, which ends the connections too: it owns them.
async fn accept(
    listener: TcpListener,
    upstream: Arc<Mutex<SocketAddr>>,
    controls: watch::Receiver<Controls>,
    open: Arc<AtomicUsize>,
) {
    let mut links = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = links.join_next() => continue,
        };
        match accepted.and_then(|(client, _)| admit(client, &controls)) {
            Ok(Some(client)) => {
                let born = *controls.borrow();
                let counted = Counted::new(&open);
                let upstream = *upstream.lock().unwrap_or_else(PoisonError::into_inner);
                links.spawn(link::run(client, upstream, born, controls.clone(), counted));
            }
            Ok(None) => {}
            // Out of file descriptors, most likely: accepting at once again would spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Returns the connection if new ones pass.
fn admit(client: TcpStream, controls: &watch::Receiver<Controls>) -> io::Result<Option<TcpStream>> {
    if controls.borrow().refuses {
        client.set_zero_linger()?;
        return Ok(None);
    }
    client.set_nodelay(true)?;
    Ok(Some(client))
}
