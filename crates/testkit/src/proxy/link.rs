//! One connection through the proxy.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;

use super::Counted;
use super::control::{Controls, Direction};
use super::queue::{Progress, Queue};

/// Bytes taken in one read.
const READ_BYTES_MAX: usize = 16 << 10;

/// How long a cut connection reads on, so that unread bytes do not turn its end into a reset.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// How a connection ends.
enum End {
    Finished,
    Cut,
    Reset,
}

/// Carries bytes between `client` and `upstream` until one of them or a fault ends it.
///
/// `born` is what the proxy was told when it accepted: later cuts and resets end the connection.
pub(super) async fn run(
    mut client: TcpStream,
    upstream: SocketAddr,
    born: Controls,
    controls: watch::Receiver<Controls>,
    counted: Counted,
) {
    let mut server = None;
    let end = tokio::select! {
        biased;
        end = told_to_end(born, controls.clone()) => end,
        relayed = dial_and_relay(&mut client, &mut server, upstream, controls) => {
            relayed.map_or(End::Reset, |()| End::Finished)
        }
    };
    drop(counted);
    let sockets = std::iter::once(client).chain(server);
    match end {
        End::Finished => {}
        End::Reset => sockets.for_each(reset),
        End::Cut => {
            futures_util::future::join_all(sockets.map(close)).await;
        }
    }
}

/// Waits for a cut or a reset that `born` does not know.
async fn told_to_end(born: Controls, mut controls: watch::Receiver<Controls>) -> End {
    let moved = |now: &Controls| now.resets != born.resets || now.cuts != born.cuts;
    match controls.wait_for(moved).await {
        Ok(now) if now.resets == born.resets => End::Cut,
        Ok(_) => End::Reset,
        // The proxy was dropped.
        Err(_) => End::Finished,
    }
}

async fn dial_and_relay(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    upstream: SocketAddr,
    mut controls: watch::Receiver<Controls>,
) -> io::Result<()> {
    // A server that nothing reaches does not learn of new connections either.
    let reachable = |now: &Controls| !now.holds(Direction::ToServer);
    if controls.wait_for(reachable).await.is_err() {
        return Ok(());
    }
    let dialled = TcpStream::connect(upstream).await?;
    dialled.set_nodelay(true)?;
    let server = server.insert(dialled);
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::try_join!(
        carry(from_client, to_server, Direction::ToServer, controls.clone()),
        carry(from_server, to_client, Direction::ToClient, controls),
    )?;
    Ok(())
}

/// Carries bytes one way until the end of the stream has been passed on.
async fn carry(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    mut controls: watch::Receiver<Controls>,
) -> io::Result<()> {
    enum Step {
        Read(usize),
        Wrote(Progress),
    }
    let mut queue = Queue::default();
    let mut buffer = vec![0; READ_BYTES_MAX];
    loop {
        let now = *controls.borrow_and_update();
        let flows = !now.holds(direction);
        let step = tokio::select! {
            changed = controls.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return Ok(()),
            },
            read = from.read(&mut buffer), if flows && queue.wants_more() => Step::Read(read?),
            wrote = queue.write_first(&mut to, now.delay), if flows && !queue.is_empty() => {
                Step::Wrote(wrote?)
            }
        };
        match step {
            Step::Read(count) => queue.push(&buffer[..count]),
            Step::Wrote(Progress::Bytes(count)) => queue.advance(count),
            Step::Wrote(Progress::End) => return to.shutdown().await,
        }
    }
}

fn reset(socket: TcpStream) {
    // A socket that is gone already needs no reset.
    let _ = socket.set_zero_linger();
    drop(socket);
}

async fn close(mut socket: TcpStream) {
    let reading_on = async {
        let mut sink = vec![0; READ_BYTES_MAX];
        socket.shutdown().await?;
        while socket.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    // Whatever the peer does now, the socket is dropped next.
    let _ = timeout(LINGER_MAX, reading_on).await;
}
