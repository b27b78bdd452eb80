//! `messages`: the messages of a step in one statement, against a statement each and `COPY`.
//!
//! All arms write to the product's own tables. Each message names a model, which ours and the
//! original bring to the chat as well; the other arms leave the chat alone.

use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use musterbeat_core::id::{ChatId, Version};
use musterbeat_core::message::{Content, Model, NewMessage};
use musterbeat_testkit::TestDatabase;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection, Row};
use uuid::Uuid;

use super::Ground;
use super::arm::{Arm, Contest, Subject};
use super::meter::{self, Counts, Meter};
use crate::postgres;
use ways::Way;

mod ways;

/// Messages of a round, rounded up to whole steps.
const MESSAGES: u64 = 2_000;
const CHATS: u128 = 20;

/// Text whose content takes about 420 bytes as JSON.
const TEXT_BYTES: usize = 390;

/// The chats of a round.
/// Vacuum would work in some rounds and not in others.
const TABLES: &str = "
    alter table chats set (autovacuum_enabled = off);
    alter table chat_messages set (autovacuum_enabled = off);
    alter table runs set (autovacuum_enabled = off);";

/// The arms, the baseline first.
const WAYS: [(&str, Way); 5] = [
    ("single: a statement and a commit each", Way::Each(ways::ONE)),
    ("the original: message and chat, a commit each", Way::Each(ways::ONE_AND_CHAT)),
    ("single, a transaction a step", Way::Together),
    ("ours: append, unnest", Way::Append),
    ("COPY", Way::Copy),
];

/// What one owner says at once.
struct Step {
    chat: ChatId,
    version: Version,
    messages: Vec<NewMessage>,
}

/// Builds the tables and one connection an arm; `ground.runs` is how many messages a step has.
pub(super) async fn prepare(ground: &Ground<'_>) -> Result<Contest> {
    let database = ground.database;
    let mut conn = database.connect().await?;
    fill(&mut conn).await?;
    let each = ground.runs;
    let steps: Arc<[Step]> =
        (0..MESSAGES.div_ceil(each)).map(|number| step(number, each)).collect::<Result<_>>()?;
    let mut arms: Vec<Box<dyn Arm>> = Vec::new();
    for (name, way) in WAYS {
        arms.push(Box::new(Messages::new(database, name, way, Arc::clone(&steps)).await?));
    }
    let count = MESSAGES.next_multiple_of(each);
    let subject = Subject { unit: "message", count, size: Some((each, "a step")) };
    Ok(Contest { subject, arms, meter: Meter::connect(database).await? })
}

fn step(number: u64, each: u64) -> Result<Step> {
    let message = |place: u64| {
        let mut text = format!("message {place} of step {number} says ");
        text.extend(std::iter::repeat_n('x', TEXT_BYTES - text.len()));
        let model = Model::new("a-model".to_owned())?;
        Ok(NewMessage::answer(Content::text(text)?, Some(model)))
    };
    Ok(Step {
        chat: ChatId::new(Uuid::from_u128(u128::from(number) % CHATS)),
        version: Version(i64::try_from(number)? + 2),
        messages: (0..each).map(message).collect::<Result<_>>()?,
    })
}

async fn fill(conn: &mut PgConnection) -> Result<()> {
    let failed = "failed to make the chats";
    sqlx::raw_sql(TABLES).execute(&mut *conn).await.context(failed)?;
    let runs = "
        insert into runs (run_id, kind, status, owner_id, version)
        select run_id, 'chat', 'waiting', run_id, 1 from unnest($1::uuid[]) as run_id";
    sqlx::query(runs).bind(chats()).execute(conn).await.context(failed)?;
    Ok(())
}

/// Connects through a local socket, where the server has one.
///
/// The driver sends the data of a `COPY` and its end apart. Over TCP without `TCP_NODELAY`, which
/// it does not set, the second waits for the server's delayed acknowledgement: 40 ms a `COPY`.
async fn connect(database: &TestDatabase) -> Result<PgConnection> {
    let mut conn = database.connect().await?;
    let query = "select split_part(current_setting('unix_socket_directories'), ',', 1)";
    let folder: String = sqlx::query_scalar(query)
        .fetch_one(&mut conn)
        .await
        .context("failed to ask the server for its sockets")?;
    // Quotes protect what separates the folders of this list.
    let folder = folder.trim_matches('"');
    if !Path::new(folder).is_absolute() {
        postgres::say("the server has no local socket: each COPY will wait 40 ms for TCP");
        return Ok(conn);
    }
    let options = PgConnectOptions::from_str(database.url())?.socket(folder);
    PgConnection::connect_with(&options).await.context("failed to connect to the server's socket")
}

fn chats() -> Vec<Uuid> {
    (0..CHATS).map(Uuid::from_u128).collect()
}

struct Messages {
    name: &'static str,
    way: Way,
    conn: PgConnection,
    steps: Arc<[Step]>,
}

impl Messages {
    async fn new(
        database: &TestDatabase,
        name: &'static str,
        way: Way,
        steps: Arc<[Step]>,
    ) -> Result<Self> {
        Ok(Self { name, way, conn: connect(database).await?, steps })
    }
}

#[async_trait]
impl Arm for Messages {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn prepare(&mut self) -> Result<()> {
        let failed = "failed to make the chats anew";
        sqlx::query("truncate chats, chat_messages, chat_queued_messages restart identity")
            .execute(&mut self.conn)
            .await
            .context(failed)?;
        let chats_anew = "
            insert into chats (id, owner_id, title)
            select id, id, 'What it is about' from unnest($1::uuid[]) as id";
        sqlx::query(chats_anew).bind(chats()).execute(&mut self.conn).await.context(failed)?;
        sqlx::query("vacuum analyze chats").execute(&mut self.conn).await.context(failed)?;
        Ok(())
    }

    async fn run(&mut self) -> Result<Counts> {
        let mut statements = 0;
        for step in &*self.steps {
            statements += self.way.store(&mut self.conn, step).await?;
        }
        Ok(Counts(vec![("statements", statements)]))
    }

    async fn settle(&mut self) -> Result<()> {
        meter::settle(&mut self.conn).await
    }

    async fn digest(&mut self) -> Result<String> {
        let query = "
            select
                count(*),
                md5(string_agg(
                    concat_ws(',', id, chat_id, version, role, content, visibility, model), ';'
                    order by id
                ))
            from chat_messages";
        let failed = "failed to read the messages";
        let row = sqlx::query(query).fetch_one(&mut self.conn).await.context(failed)?;
        let count: i64 = row.try_get(0).context(failed)?;
        let expected: usize = self.steps.iter().map(|step| step.messages.len()).sum();
        ensure!(usize::try_from(count) == Ok(expected), "stored {count} messages of {expected}");
        row.try_get(1).context(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_have_the_size_that_is_told() {
        let step = step(1_999, 256).unwrap();
        for message in [&step.messages[0], &step.messages[255]] {
            let bytes = serde_json::to_vec(&message.content).unwrap().len();
            assert!((410..=430).contains(&bytes), "{bytes}");
        }
    }
}
