//! Each fault on real sockets.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use musterbeat_testkit::{BlackHole, FaultProxy, TestDatabase, eventually};
use sqlx::{Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::SOON;

/// Time in which a byte that may pass has long come; the tests of a black hole wait for it.
const SILENCE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn bytes_and_ends_pass_both_ways() {
    let mut pair = Pair::new().await;

    pair.client.shutdown().await.unwrap();
    assert_eq!(read(&mut pair.server).await.unwrap(), b"");
    pair.server.write_all(b"last words").await.unwrap();
    assert_eq!(read(&mut pair.client).await.unwrap(), b"last words");

    drop(pair.server);
    assert_eq!(read(&mut pair.client).await.unwrap(), b"");
    let proxy = pair.proxy;
    eventually(SOON, "no connection", async || proxy.connections() == 0).await;
}

#[tokio::test]
async fn much_passes_without_loss() {
    const BYTES: usize = 8 << 20;
    let Pair { mut client, mut server, proxy: _proxy, .. } = Pair::new().await;
    let sent: Vec<u8> = (0..=250).cycle().take(BYTES).collect();
    let mut received = vec![0; BYTES];
    let (wrote, got) = tokio::join!(client.write_all(&sent), server.read_exact(&mut received));
    wrote.unwrap();
    got.unwrap();
    assert!(sent == received);
}

#[tokio::test]
async fn delay_is_latency_and_not_throughput() {
    let mut pair = Pair::new().await;
    let latency = Duration::from_millis(100);
    pair.proxy.delay(latency);

    // A machine that is busy may need longer, but not each time.
    eventually(SOON, "they travel at the same time", async || {
        let begun = Instant::now();
        for word in 0..20u8 {
            pair.client.write_all(&[word; 100]).await.unwrap();
        }
        let mut received = [0; 2000];
        pair.server.read_exact(&mut received).await.unwrap();
        let took = begun.elapsed();
        assert!(latency <= took, "{took:?}");
        // One after the other they would take 20 times as long.
        took < latency * 10
    })
    .await;
}

#[tokio::test]
async fn a_cut_ends_in_good_order_and_spares_new_connections() {
    let mut pair = Pair::new().await;
    // Unread bytes must not make a reset of it.
    pair.proxy.black_hole(BlackHole::Both);
    pair.client.write_all(b"lost").await.unwrap();
    pair.server.write_all(b"lost").await.unwrap();
    pair.proxy.cut();
    pair.proxy.heal();

    assert_eq!(read(&mut pair.client).await.unwrap(), b"");
    assert_eq!(read(&mut pair.server).await.unwrap(), b"");
    eventually(SOON, "no connection", async || pair.proxy.connections() == 0).await;
    pair.again().await;
}

#[tokio::test]
async fn a_reset_is_an_error_on_both_sides_and_spares_new_connections() {
    let mut pair = Pair::new().await;
    pair.proxy.reset();
    assert_eq!(read(&mut pair.client).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(read(&mut pair.server).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    pair.again().await;
}

#[tokio::test]
async fn refusal_keeps_new_connections_out() {
    let mut pair = Pair::new().await;
    pair.proxy.refuse();
    let refused = async {
        let mut client = TcpStream::connect(pair.proxy.addr()).await?;
        read(&mut client).await
    };
    assert_eq!(refused.await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    pair.passes_both_ways().await;
    pair.proxy.heal();
    pair.again().await;
}

#[tokio::test]
async fn a_black_hole_gives_no_sign_and_delivers_when_healed() {
    let mut pair = Pair::new().await;
    pair.proxy.black_hole(BlackHole::Both);
    pair.client.write_all(b"question").await.unwrap();
    pair.server.write_all(b"news").await.unwrap();
    assert!(is_silent(&mut pair.server).await);
    assert!(is_silent(&mut pair.client).await);

    pair.proxy.heal();

    assert_eq!(read(&mut pair.server).await.unwrap(), b"question");
    assert_eq!(read(&mut pair.client).await.unwrap(), b"news");
}

#[tokio::test]
async fn a_black_hole_hides_the_end_of_a_peer() {
    let mut pair = Pair::new().await;
    pair.proxy.black_hole(BlackHole::Both);
    drop(pair.server);
    assert!(is_silent(&mut pair.client).await);
    assert_eq!(pair.proxy.connections(), 1);
}

#[tokio::test]
async fn a_black_hole_takes_new_connections_and_tells_no_server() {
    let pair = Pair::new().await;
    pair.proxy.black_hole(BlackHole::ToServer);
    let mut client = TcpStream::connect(pair.proxy.addr()).await.unwrap();
    client.write_all(b"question").await.unwrap();
    eventually(SOON, "the new connection", async || pair.proxy.connections() == 2).await;
    assert!(timeout(SILENCE, pair.listener.accept()).await.is_err());

    pair.proxy.heal();
    let (mut server, _) = pair.listener.accept().await.unwrap();
    assert_eq!(read(&mut server).await.unwrap(), b"question");
}

#[tokio::test]
async fn one_way_can_fail_alone() {
    let mut pair = Pair::new().await;
    pair.proxy.black_hole(BlackHole::ToClient);
    pair.client.write_all(b"write").await.unwrap();
    assert_eq!(read(&mut pair.server).await.unwrap(), b"write");
    pair.server.write_all(b"done").await.unwrap();
    assert!(is_silent(&mut pair.client).await);

    // The write was applied, its answer never comes.
    pair.proxy.reset();
    assert_eq!(read(&mut pair.client).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_server_that_is_away_resets_its_clients() {
    let Pair { proxy, listener, .. } = Pair::new().await;
    drop(listener);
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(read(&mut client).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn dropping_the_proxy_closes_everything() {
    let Pair { proxy, mut client, mut server, .. } = Pair::new().await;
    let addr = proxy.addr();
    drop(proxy);
    assert_eq!(read(&mut client).await.unwrap(), b"");
    assert_eq!(read(&mut server).await.unwrap(), b"");
    eventually(SOON, "a closed port", async || TcpStream::connect(addr).await.is_err()).await;
}

#[tokio::test]
async fn a_write_can_be_applied_while_its_answer_is_lost() {
    let database = TestDatabase::create().await.unwrap();
    let proxy = FaultProxy::in_front_of(database.url()).await.unwrap();
    let mut direct = database.connect().await.unwrap();
    let url = proxy.url(database.url()).unwrap();
    let mut fragile = PgConnection::connect(&url).await.unwrap();
    sqlx::query("create table marks (id int)").execute(&mut direct).await.unwrap();

    proxy.black_hole(BlackHole::ToClient);
    let writing = tokio::spawn(async move {
        // Without parameters it goes out in one message, which needs no answer between.
        sqlx::raw_sql("insert into marks values (1)").execute(&mut fragile).await
    });
    eventually(SOON, "the mark", async || {
        let marks = sqlx::query_scalar("select count(*) from marks").fetch_one(&mut direct);
        marks.await.is_ok_and(|count: i64| count == 1)
    })
    .await;
    proxy.cut();

    assert!(matches!(writing.await.unwrap(), Err(sqlx::Error::Io(_))));
}

/// A client and a server with a proxy between.
struct Pair {
    listener: TcpListener,
    proxy: FaultProxy,
    client: TcpStream,
    server: TcpStream,
}

impl Pair {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = FaultProxy::start(listener.local_addr().unwrap()).await.unwrap();
        Self::connect(listener, proxy).await
    }

    /// Connects, until the proxy has seen both sides.
    async fn connect(listener: TcpListener, proxy: FaultProxy) -> Self {
        let client = TcpStream::connect(proxy.addr()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let mut pair = Self { listener, proxy, client, server };
        pair.passes_both_ways().await;
        pair
    }

    /// Connects once more through the same proxy.
    async fn again(self) -> Self {
        Self::connect(self.listener, self.proxy).await
    }

    async fn passes_both_ways(&mut self) {
        self.client.write_all(b"question").await.unwrap();
        assert_eq!(read(&mut self.server).await.unwrap(), b"question");
        self.server.write_all(b"answer").await.unwrap();
        assert_eq!(read(&mut self.client).await.unwrap(), b"answer");
    }
}

/// Reads what is there next, in bounded time; nothing is the end.
async fn read(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 1024];
    let count = timeout(SOON, socket.read(&mut bytes)).await.expect("neither bytes nor an end")?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Whether the socket shows neither bytes nor an end nor an error.
async fn is_silent(socket: &mut TcpStream) -> bool {
    timeout(SILENCE, socket.read(&mut [0; 1])).await.is_err()
}
