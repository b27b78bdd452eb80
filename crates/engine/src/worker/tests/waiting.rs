//! Runs that wait for others, which need their room.

use std::collections::BTreeSet;

use musterbeat_core::chat::{Applied, Event, Report, Title};
use musterbeat_core::id::{ChatId, Version};
use musterbeat_core::lineage::Lineage;
use musterbeat_core::message::{Content, NewMessage};
use musterbeat_core::port::{
    By, ChatContext, ChatRunner, ChatTurn, MockChatReader, MockChatStore, NewChild, Prompt, TurnEnd,
};
use musterbeat_core::run::RunStatus;

use super::*;
use crate::chat::{ChatPorts, ChatRuns, Chats};

/// Chats, of which those below a hundred are roots and the others their children.
struct Family {
    diary: Diary,
    storage: Arc<Storage>,
    bell: Arc<Notify>,
    pending: Mutex<VecDeque<u128>>,
    rested: Mutex<BTreeSet<ChatId>>,
}

impl Family {
    fn new(bench: &Bench, roots: u128) -> Arc<Self> {
        Arc::new(Self {
            diary: bench.diary.clone(),
            storage: Arc::clone(&bench.storage),
            bell: Arc::clone(&bench.bell),
            pending: Mutex::new((1..=roots).collect()),
            rested: Mutex::default(),
        })
    }

    /// Has a worker with room for `capacity` work on them for `time`.
    async fn work(
        self: &Arc<Self>,
        bench: &Bench,
        capacity: usize,
        runner: impl ChatRunner + 'static,
        time: Duration,
    ) -> Vec<String> {
        let ports = Ports { runs: Arc::new(self.runs()), ..bench.ports() };
        let chats = Chats::new(ChatPorts {
            store: Arc::new(self.chats()),
            reader: Arc::new(MockChatReader::new()),
            publish: Arc::clone(&ports.publish),
            watch: Arc::clone(&ports.watch),
        });
        let runner = Arc::new(ChatRuns::new(chats, Arc::new(runner)));
        let serving = vec![Serving { runner, capacity }];
        let options = WorkerOptions {
            // What is looked for is looked for without it.
            poll_interval: Duration::from_hours(10),
            ..WorkerOptions::named("test")
        };
        let parts = PartStreams::default();
        let worker = Worker::new(ports, serving, parts, options, bench.shutdown.clone());
        let worker = tokio::spawn(worker.run());
        sleep(time).await;
        bench.shutdown.request();
        bench.shutdown.request();
        worker.await.unwrap();
        let lines = self.diary.lines().into_iter();
        lines.filter(|line| line.starts_with(|first: char| first.is_ascii_digit())).collect()
    }

    fn note(&self, chat: ChatId, what: &str) {
        let (chat, now) = (chat.uuid().as_u128(), self.diary.elapsed() / 1_000);
        self.diary.note(format!("{chat} {what} at {now} s"));
    }

    fn runs(self: &Arc<Self>) -> MockRunStore {
        let mut runs = MockRunStore::new();
        let this = Arc::clone(self);
        runs.expect_claim().returning(move |worker, kind, room| {
            let mut pending = this.pending.lock().unwrap();
            let suits = |id: &u128| room.depth_min <= u32::from(100 <= *id);
            let claimed: Vec<_> =
                pending.iter().copied().filter(suits).take(room.runs as usize).collect();
            pending.retain(|id| !claimed.contains(id));
            let claimed = claimed.into_iter().map(|id| {
                this.note(ChatId::new(Uuid::from_u128(id)), "claimed");
                Run { token: this.storage.claimed(id, worker), ..run(id, worker, kind) }
            });
            Ok(claimed.collect())
        });
        runs.expect_next_ready().returning(|_| Ok(None));
        runs.expect_release()
            .returning(|_, runs, _| Ok(runs.iter().map(|(run, _)| *run).collect()));
        runs
    }

    fn chats(self: &Arc<Self>) -> MockChatStore {
        let mut chats = MockChatStore::new();
        chats.expect_prompt().returning(|chat| {
            let depth = usize::from(parent_of(chat).is_some());
            Ok(Prompt { messages: vec![], depth, may_spawn: depth == 0 })
        });
        chats.expect_ancestors().returning(|chat| {
            Ok(Lineage { chat, ancestors: parent_of(chat).into_iter().collect() })
        });
        let this = Arc::clone(self);
        chats.expect_create().returning(move |chat, _| {
            this.pending.lock().unwrap().push_back(chat.id.uuid().as_u128());
            this.bell.notify_one();
            Ok(applied(chat.id, RunStatus::Pending))
        });
        let this = Arc::clone(self);
        chats.expect_report().returning(move |chat, _, waiter| {
            let owner = parent_of(chat).unwrap();
            assert_eq!(waiter.map(|waiter| waiter.run), Some(owner.into()));
            let rested = this.rested.lock().unwrap().contains(&chat);
            let status = if rested { RunStatus::Waiting } else { RunStatus::Running };
            Ok(Some(Report { chat, status, error: None, version: Version(1), text: None }))
        });
        let this = Arc::clone(self);
        chats.expect_apply().returning(move |chat, by, event| {
            assert!(matches!((by, event), (By::Owner(_), Event::FinishTurn { .. })));
            this.note(chat, "ended");
            this.rested.lock().unwrap().insert(chat);
            this.storage.table().remove(&chat.into());
            Ok(applied(chat, RunStatus::Waiting))
        });
        chats
    }
}

fn parent_of(chat: ChatId) -> Option<ChatId> {
    let id = chat.uuid().as_u128();
    (100 <= id).then(|| ChatId::new(Uuid::from_u128(id / 100)))
}

fn child_of(chat: ChatId) -> ChatId {
    ChatId::new(Uuid::from_u128(chat.uuid().as_u128() * 100))
}

fn applied(chat: ChatId, status: RunStatus) -> Applied {
    Applied {
        chat,
        owner: OwnerId::new(Uuid::nil()),
        version: Version(1),
        status,
        step: Step(1),
        queued: false,
        message: None,
        stops: false,
        family: vec![],
    }
}

/// A root spawns a child, waits for it, and goes on for a while; a child takes its time.
struct Parents {
    family: Arc<Family>,
    child_time: Duration,
    time_after: Duration,
}

#[async_trait]
impl ChatRunner for Parents {
    async fn turn(&self, turn: ChatTurn, context: Arc<dyn ChatContext>) -> TurnEnd {
        if !turn.may_spawn {
            sleep(self.child_time).await;
            return TurnEnd::Answer(vec![]);
        }
        let (id, title) = (child_of(turn.chat), Title::new("child").unwrap());
        context.spawn(NewChild { id, title, content: Content::text("do").unwrap() }).await.unwrap();
        match context.await_chat(id, Some(Duration::from_hours(1))).await {
            Ok(report) => assert!(report.is_at_rest()),
            Err(_) => return TurnEnd::Stopped(vec![]),
        }
        self.family.note(turn.chat, "goes on");
        sleep(self.time_after).await;
        TurnEnd::Answer(vec![NewMessage::answer(Content::produced("done"), None)])
    }
}

#[tokio::test(start_paused = true)]
async fn parent_that_waits_leaves_its_room_to_its_child() {
    let bench = Bench::new([]);
    let family = Family::new(&bench, 1);
    let child_time = Duration::from_secs(10);
    let runner = Parents { family: Arc::clone(&family), child_time, time_after: Duration::ZERO };
    let lines = family.work(&bench, 1, runner, Duration::from_mins(1)).await;
    let went_on: Vec<_> = lines.iter().filter(|line| line.starts_with("1 goes on")).collect();
    assert_eq!(lines[..3], ["1 claimed at 0 s", "100 claimed at 0 s", "100 ended at 10 s"]);
    // No notice tells of the end: the parent looks after 5 s at most, then after 10, then 20.
    assert!(
        ("1 goes on at 10 s"..="1 goes on at 35 s").contains(&went_on[0].as_str()),
        "{lines:?}"
    );
    assert!(lines[4].starts_with("1 ended"), "{lines:?}");
}

/// Who goes on is at work beside those that were claimed meanwhile, and nobody more is claimed.
#[tokio::test(start_paused = true)]
async fn parents_that_go_on_take_the_room_of_new_runs() {
    let bench = Bench::new([]);
    let family = Family::new(&bench, 3);
    let (child_time, time_after) = (Duration::ZERO, Duration::from_secs(100));
    let runner = Parents { family: Arc::clone(&family), child_time, time_after };
    let (late, bell) = (Arc::clone(&family), Arc::clone(&bench.bell));
    tokio::spawn(async move {
        sleep(Duration::from_secs(30)).await;
        late.pending.lock().unwrap().push_back(50);
        bell.notify_one();
    });
    let lines = family.work(&bench, 1, runner, Duration::from_secs(90)).await;
    // Roots come first here, so all of them wait before the first child is claimed.
    let first = ["1 claimed at 0 s", "2 claimed at 0 s", "3 claimed at 0 s", "100 claimed at 0 s"];
    assert_eq!(lines[..4], first, "three wait, and there is a fourth place");
    let went_on = lines.iter().filter(|line| line.contains("goes on")).count();
    assert_eq!(went_on, 3, "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("50 ")), "{lines:?}");
}

/// However many wait first, the last places are for those that they wait for.
#[tokio::test(start_paused = true)]
async fn parents_never_take_all_places() {
    for capacity in [1, 2, 7] {
        let bench = Bench::new([]);
        let family = Family::new(&bench, 90);
        let (child_time, time_after) = (Duration::from_secs(1), Duration::ZERO);
        let runner = Parents { family: Arc::clone(&family), child_time, time_after };
        let lines = family.work(&bench, capacity, runner, Duration::from_mins(30)).await;
        // Roots come first here, so places fill with those that wait.
        let first = lines.iter().take_while(|line| line.ends_with("claimed at 0 s"));
        let roots = first.take_while(|line| !line.contains("00 ")).count();
        assert_eq!(roots, 3 * capacity, "{lines:?}");
        let went_on = lines.iter().filter(|line| line.contains("goes on")).count();
        assert_eq!(went_on, 90, "{lines:?}");
    }
}

/// What waits is bounded, too.
#[tokio::test(start_paused = true)]
async fn worker_owns_no_more_than_its_places() {
    let bench = Bench::new([]);
    let family = Family::new(&bench, 90);
    let child_time = Duration::from_hours(10);
    let runner = Parents { family: Arc::clone(&family), child_time, time_after: Duration::ZERO };
    let lines = family.work(&bench, 2, runner, Duration::from_mins(1)).await;
    let claimed = lines.iter().filter(|line| line.contains("claimed"));
    let [roots, children]: [Vec<_>; 2] =
        claimed.partition::<Vec<_>, _>(|line| !line.contains("00 ")).into();
    assert_eq!((roots.len(), children.len()), (6, 2), "{lines:?}");
}
