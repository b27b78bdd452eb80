//! `lineage`: whether a chat descends from another, deep in a large family.

use anyhow::{Context, Result};
use async_trait::async_trait;
use musterbeat_core::id::ChatId;
use musterbeat_db::chats;
use musterbeat_testkit::TestDatabase;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Ground;
use super::arm::{Arm, Contest, Subject};
use super::meter::{self, Counts, Meter};

const DEPTH: i64 = 50;

/// Chats of each level: 10,000 in all descend from the root.
const WIDTH: i64 = 200;

/// Questions of a round; every other one is about a chat of another family.
const QUESTIONS: u64 = 20;

/// Two families: one of [`DEPTH`] levels of [`WIDTH`] chats below its root, where each chat of a
/// level has a child in the next, and one where each level is a single chat.
const FILL: &str = "
    create table bench_chats as
    select family, level, place, gen_random_uuid() as id
    from generate_series(1, 2) as family, generate_series(0, $1::bigint) as level,
         generate_series(1, case when level = 0 or family = 2 then 1 else $2::bigint end) as place";

const RUNS: &str = "
    insert into runs (run_id, kind, status, owner_id, version)
    select id, 'chat', 'waiting', md5('owner')::uuid, 1 from bench_chats";

const CHATS: &str = "
    insert into chats (id, owner_id, parent_id, root_id, title)
    select chat.id, md5('owner')::uuid, parent.id, root.id, 'a chat'
    from bench_chats as chat
    left join bench_chats as parent
      on parent.family = chat.family
     and parent.level = chat.level - 1
     and parent.place = case when chat.level = 1 then 1 else chat.place end
    left join bench_chats as root
      on chat.level > 0 and root.family = chat.family and root.level = 0
    order by chat.level, chat.id";

/// How the arms look, the baseline first.
const WAYS: [(&str, Way); 3] = [
    ("down, breadth first: a statement a level", Way::Down),
    ("the original: up, a statement a parent", Way::Up),
    ("ours: one statement", Way::AtOnce),
];

#[derive(Clone, Copy, Debug)]
enum Way {
    Down,
    Up,
    AtOnce,
}

/// Builds both families.
pub(super) async fn prepare(ground: &Ground<'_>) -> Result<Contest> {
    let database = ground.database;
    let mut conn = database.connect().await?;
    let failed = "failed to make the families";
    // Parameters have no place in the definition of a table.
    let fill = FILL.replace("$1", &DEPTH.to_string()).replace("$2", &WIDTH.to_string());
    for statement in [&*fill, RUNS, CHATS, "vacuum analyze runs", "vacuum analyze chats"] {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::raw_sql(statement).execute(&mut conn).await.context(failed)?;
    }
    let root = "select id from bench_chats where family = 1 and level = 0";
    let root: Uuid = sqlx::query_scalar(root).fetch_one(&mut conn).await.context(failed)?;
    let leaves = "select id from bench_chats where family = $1 and level = $2 order by place";
    let mut of = async |family: i32| -> Result<Vec<Uuid>> {
        let leaves = sqlx::query_scalar(leaves).bind(family).bind(DEPTH);
        leaves.fetch_all(&mut conn).await.context(failed)
    };
    let (own, other) = (of(1).await?, of(2).await?);
    let questions: Vec<Uuid> = own
        .iter()
        .zip(other.iter().cycle())
        .flat_map(|(a, b)| [*a, *b])
        .take(usize::try_from(QUESTIONS)?)
        .collect();
    let mut arms: Vec<Box<dyn Arm>> = Vec::new();
    for (name, way) in WAYS {
        arms.push(Box::new(Asking::new(database, name, way, root, questions.clone()).await?));
    }
    let subject = Subject { unit: "question", count: QUESTIONS, size: None };
    Ok(Contest { subject, arms, meter: Meter::connect(database).await? })
}

/// Asks of each of some chats whether it descends from `root`.
struct Asking {
    name: &'static str,
    way: Way,
    conn: PgConnection,
    root: Uuid,
    questions: Vec<Uuid>,
    answers: Vec<bool>,
}

impl Asking {
    async fn new(
        database: &TestDatabase,
        name: &'static str,
        way: Way,
        root: Uuid,
        questions: Vec<Uuid>,
    ) -> Result<Self> {
        let conn = database.connect().await?;
        Ok(Self { name, way, conn, root, questions, answers: Vec::new() })
    }
}

#[async_trait]
impl Arm for Asking {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn prepare(&mut self) -> Result<()> {
        self.answers.clear();
        Ok(())
    }

    async fn run(&mut self) -> Result<Counts> {
        let mut statements = 0;
        for chat in &self.questions {
            let (answer, asked) = match self.way {
                Way::Down => down(&mut self.conn, self.root, *chat).await?,
                Way::Up => up(&mut self.conn, self.root, *chat).await?,
                Way::AtOnce => at_once(&mut self.conn, self.root, *chat).await?,
            };
            self.answers.push(answer);
            statements += asked;
        }
        Ok(Counts(vec![("statements", statements)]))
    }

    async fn settle(&mut self) -> Result<()> {
        meter::settle(&mut self.conn).await
    }

    async fn digest(&mut self) -> Result<String> {
        Ok(format!("{:?}", self.answers))
    }
}

/// Looks for the chat level by level; returns the answer and how many statements it took.
async fn down(conn: &mut PgConnection, root: Uuid, chat: Uuid) -> Result<(bool, u64)> {
    let (mut level, mut statements) = (vec![root], 0);
    while !level.is_empty() {
        let children = sqlx::query_scalar("select id from chats where parent_id = any ($1)");
        level = children.bind(level).fetch_all(&mut *conn).await.context("failed to go down")?;
        statements += 1;
        if level.contains(&chat) {
            return Ok((true, statements));
        }
    }
    Ok((false, statements))
}

/// Goes from parent to parent.
async fn up(conn: &mut PgConnection, root: Uuid, chat: Uuid) -> Result<(bool, u64)> {
    let (mut at, mut statements) = (chat, 0);
    loop {
        let parent = sqlx::query_scalar("select parent_id from chats where id = $1").bind(at);
        let parent: Option<Uuid> = parent.fetch_one(&mut *conn).await.context("failed to go up")?;
        statements += 1;
        match parent {
            Some(parent) if parent == root => return Ok((true, statements)),
            Some(parent) => at = parent,
            None => return Ok((false, statements)),
        }
    }
}

async fn at_once(conn: &mut PgConnection, root: Uuid, chat: Uuid) -> Result<(bool, u64)> {
    let lineage = chats::ancestors(conn, ChatId::new(chat)).await.context("failed to ask")?;
    Ok((lineage.descends_from(ChatId::new(root)), 1))
}
