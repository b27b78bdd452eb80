//! What a stream costs while nothing happens, counted by the allocator, and how it lives through
//! storage that is away.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use allocation_counter::measure;
use futures_util::FutureExt;
use musterbeat_core::chat::{Changes, Chat, SubagentLimits};
use musterbeat_core::id::{OwnerId, TokenId};
use musterbeat_core::port::{MockChatReader, Publish, Reach, StoreError, Topic, Watch};
use musterbeat_core::run::RunStatus;
use musterbeat_core::timestamp::Timestamp;
use musterbeat_db::tokens::TokenKind;
use musterbeat_db::{PgPool, PgStore};
use musterbeat_engine::parts::{PartLimits, PartStreams};
use musterbeat_pubsub::{PgTransport, PgTransportOptions};
use tokio::runtime::Builder;
use tokio::task::yield_now;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::cluster::Cluster;
use crate::revocation::Revocations;
use crate::settings::Settings;

/// Where nothing listens: following needs no database beyond the reads, which are mocked.
const NOWHERE: &str = "postgres://nobody@127.0.0.1:1/none";

/// Bytes of our own that a stream may hold while nothing happens.
const IDLE_BYTES_MAX: i64 = 2048;

const STREAMS: u16 = 1_000;

#[test]
fn idle_stream_of_a_chat_and_token_of_its_own_holds_little() {
    let bytes = idle_bytes(|number| (number, number));
    assert!(bytes <= IDLE_BYTES_MAX, "{bytes} bytes");
}

#[test]
fn idle_stream_of_a_chat_that_many_follow_holds_less() {
    let bytes = idle_bytes(|_| (1, 1));
    assert!(bytes <= IDLE_BYTES_MAX / 2, "{bytes} bytes");
}

#[tokio::test(start_paused = true)]
async fn quiet_stream_is_pinged_each_15_s() {
    let rig = Rig::start();
    let run = tokio::spawn(rig.followed.clone().run());
    let mut stream = rig.idle(7, 7).await;
    let mut last = Instant::now();
    for _ in 0..4 {
        assert_eq!(stream.next().await.unwrap(), frame::PING);
        let pause = last.elapsed();
        assert!(pause <= Duration::from_secs(16), "{pause:?}");
        last = Instant::now();
    }
    rig.end.cancel();
    assert_eq!(stream.next().await, None, "the end of the server is that of its streams");
    run.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn change_comes_when_storage_answers_again() {
    let rig = Rig::start();
    let mut stream = rig.idle(7, 7).await;
    let chat = ChatId::new(Uuid::from_u128(7));
    rig.reads.lock().unwrap().extend([away(), away(), away(), Ok(changes(chat, 2))]);
    rig.notices.publish(Topic::Chat, chat.uuid());
    let told = stream.next().await.unwrap();
    assert!(told.starts_with(b"event: status"), "{told:?}");
    assert!(rig.reads.lock().unwrap().is_empty(), "the keeper asked until there was an answer");
}

#[tokio::test(start_paused = true)]
async fn follower_that_reads_by_itself_stays_while_storage_is_away() {
    let rig = Rig::start();
    tokio::spawn(rig.followed.clone().run());
    let mut stream = rig.idle(7, 7).await;
    let chat = ChatId::new(Uuid::from_u128(7));
    let restored = || Changes { reset: true, ..changes(chat, 1) };
    // The keeper finds the history replaced: each follower reads it anew.
    rig.reads.lock().unwrap().extend([Ok(restored()), away(), away(), Ok(restored())]);
    rig.notices.publish(Topic::Chat, chat.uuid());
    for expected in [&frame::PING, &frame::PING, &frame::HISTORY_RESET] {
        assert_eq!(stream.next().await.as_ref(), Some(expected));
    }
    rig.reads.lock().unwrap().extend([Ok(restored()), away()]);
    rig.notices.publish(Topic::Chat, chat.uuid());
    while stream.next().await.unwrap() != frame::PING {}
    rig.end.cancel();
    while stream.next().await.is_some() {}
}

/// Opens streams of the chat and the token that `of` names, lets each come to rest, and returns
/// how many bytes one of them holds.
fn idle_bytes(of: impl Fn(u128) -> (u128, u128)) -> i64 {
    // Allocations are counted by thread, so everything runs on this one.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let rig = runtime.block_on(async { Rig::start() });
    // What is made once, by the first of all, is not theirs.
    let first = runtime.block_on(rig.idle(0, 0));
    let mut streams = Vec::with_capacity(STREAMS.into());
    let counted = measure(|| {
        for number in 1..=STREAMS {
            let (chat, token) = of(u128::from(number));
            streams.push(runtime.block_on(rig.idle(chat, token)));
        }
    });
    drop((first, streams));
    counted.bytes_current / i64::from(STREAMS)
}

/// What storage answers to reads, in order; then that nothing has changed.
type Reads = Arc<Mutex<VecDeque<Result<Changes, StoreError>>>>;

struct Rig {
    reads: Reads,
    notices: PgTransport,
    end: CancellationToken,
    followed: Followed,
    revocations: Revocations,
}

impl Rig {
    fn start() -> Self {
        let mut chats = MockChatReader::new();
        let reads = Reads::default();
        let left = Arc::clone(&reads);
        chats.expect_changes().returning(move |id, _, _| {
            left.lock().unwrap().pop_front().unwrap_or_else(|| Ok(changes(id, 1))).map(Some)
        });
        let probe_timeout = Duration::from_millis(10);
        let options = PgTransportOptions { probe_timeout, ..PgTransportOptions::DEFAULT };
        let notices = PgTransport::start(NOWHERE, &options).unwrap();
        let watch: Arc<dyn Watch> = Arc::new(notices.clone());
        let end = CancellationToken::new();
        let store = PgStore::new(PgPool::connect_lazy(NOWHERE).unwrap());
        let ports = FollowPorts {
            chats: Arc::new(chats),
            watch: Arc::clone(&watch),
            parts: PartStreams::new(PartLimits::default(), part_frame),
            cluster: Cluster::of(&Settings::default()).unwrap(),
            end: end.clone(),
        };
        Self {
            reads,
            notices,
            end,
            followed: Followed::new(ports),
            revocations: Revocations::new(store, watch),
        }
    }

    /// Follows a chat until nothing is left to tell.
    async fn idle(&self, chat: u128, token: u128) -> impl Stream<Item = Bytes> + Unpin + use<> {
        let owner = OwnerId::new(Uuid::from_u128(1));
        let token = Some(TokenId::new(Uuid::from_u128(token)));
        let caller = Caller { token, kind: TokenKind::User, owner };
        let chat = ChatId::new(Uuid::from_u128(chat));
        let token = self.revocations.attach(caller);
        let reach = Reach::Of(owner);
        let feed = Feed::open(&self.followed, chat, reach, token, None, Until::Closed).await;
        let mut stream = Box::pin(frames(feed.ok().unwrap()));
        while stream.next().now_or_never().flatten().is_some() {}
        // The keeper comes to rest, too.
        yield_now().await;
        assert!(stream.next().now_or_never().is_none(), "it rests");
        stream
    }
}

fn away() -> Result<Changes, StoreError> {
    Err(StoreError::Unavailable { operation: "test", source: "away".into() })
}

fn changes(id: ChatId, version: i64) -> Changes {
    let time = Timestamp::from_micros(0).unwrap();
    let chat = Chat {
        id,
        owner: OwnerId::new(Uuid::from_u128(1)),
        parent: None,
        root: None,
        workspace: None,
        title: "idle".to_owned(),
        model: None,
        archived: false,
        last_read: None,
        limits: SubagentLimits::default(),
        status: if version == 1 { RunStatus::Waiting } else { RunStatus::Running },
        error: None,
        version: Version(version),
        created_at: time,
        updated_at: time,
    };
    let (messages, queue) = (vec![], vec![]);
    Changes { chat, messages, queue, reset: false, reached: Version(version), place: None }
}
