//! `messages`: one statement for many messages, against a commit each.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use musterbeat_testkit::TestDatabase;
use serde_json::{Value, json};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::arm::{Arm, Contest, Subject};
use super::meter::{self, Counts, Meter};

pub(super) const QUESTION: &str = "What does storing many messages in one statement save?";

const MESSAGES: u64 = 2_000;
const CHATS: u128 = 20;

/// Text whose content takes about 420 bytes as JSON.
const TEXT_BYTES: usize = 390;

/// Tables of the shape of `chats` and `chat_messages`, with their indexes.
/// Vacuum would work in some rounds and not in others.
const TABLES: &str = "
    create table bench_chats (
        id uuid primary key,
        model text not null default '',
        updated_at timestamptz not null default now()
    ) with (autovacuum_enabled = off);
    create table bench_messages (
        id bigint generated always as identity primary key,
        chat_id uuid not null,
        version bigint not null default 1,
        role text not null,
        content jsonb not null,
        visibility text not null default 'both',
        compressed boolean not null default false,
        deleted boolean not null default false,
        model text,
        created_by uuid,
        input_tokens bigint,
        output_tokens bigint,
        total_tokens bigint,
        reasoning_tokens bigint,
        cache_creation_tokens bigint,
        cache_read_tokens bigint,
        context_limit bigint,
        created_at timestamptz not null default now()
    ) with (autovacuum_enabled = off);
    create index on bench_messages (chat_id, id);
    create index on bench_messages (chat_id, version);
    create index on bench_messages (chat_id, role, id desc);
    create index on bench_messages (chat_id, id desc)
        where compressed and not deleted and visibility = 'model';
";

const ONE: &str = "
    insert into bench_messages (chat_id, role, content, model)
    values ($1, 'assistant', $2, $3)
";

/// Stores the message and moves the chat's model and time with it.
const ONE_AND_CHAT: &str = "
    with moved as (
        update bench_chats set model = $3, updated_at = now() where id = $1
    )
    insert into bench_messages (chat_id, role, content, model)
    values ($1, 'assistant', $2, $3)
";

const MANY: &str = "
    insert into bench_messages (chat_id, role, content, model)
    select chat_id, 'assistant', content, $3
    from unnest($1::uuid[], $2::jsonb[]) with ordinality as one (chat_id, content, place)
    order by place
";

const MODEL: &str = "a-model";

/// The arms, the baseline first.
const WAYS: [(&str, Way); 3] = [
    ("a commit a row", Way::Each(ONE)),
    ("the original: row and chat, a commit a row", Way::Each(ONE_AND_CHAT)),
    ("unnest, one statement", Way::AtOnce(MANY)),
];

/// How the rows are stored.
#[derive(Clone, Copy, Debug)]
enum Way {
    Each(&'static str),
    AtOnce(&'static str),
}

/// The rows of a round: chats and contents.
type Rows = Arc<(Vec<Uuid>, Vec<Value>)>;

/// Builds the tables and one connection an arm.
pub(super) async fn prepare(database: &TestDatabase) -> Result<Contest> {
    let mut conn = database.connect().await?;
    sqlx::raw_sql(TABLES).execute(&mut conn).await.context("failed to make the tables")?;
    let rows = rows();
    let mut arms: Vec<Box<dyn Arm>> = Vec::new();
    for (name, way) in WAYS {
        let conn = database.connect().await?;
        arms.push(Box::new(Messages { name, way, conn, rows: Arc::clone(&rows) }));
    }
    let subject = Subject { unit: "message", count: MESSAGES };
    Ok(Contest { subject, arms, meter: Meter::connect(database).await? })
}

fn rows() -> Rows {
    let content = |number: u64| {
        let mut text = format!("message {number} says ");
        text.extend(std::iter::repeat_n('x', TEXT_BYTES - text.len()));
        json!([{ "type": "text", "text": text }])
    };
    let chat = |number: u64| Uuid::from_u128(u128::from(number) % CHATS);
    Arc::new(((0..MESSAGES).map(chat).collect(), (0..MESSAGES).map(content).collect()))
}

struct Messages {
    name: &'static str,
    way: Way,
    conn: PgConnection,
    rows: Rows,
}

#[async_trait]
impl Arm for Messages {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn prepare(&mut self) -> Result<()> {
        let chats: Vec<_> = (0..CHATS).map(Uuid::from_u128).collect();
        sqlx::query("truncate bench_messages, bench_chats restart identity")
            .execute(&mut self.conn)
            .await
            .context("failed to empty the tables")?;
        sqlx::query("insert into bench_chats (id) select * from unnest($1::uuid[])")
            .bind(chats)
            .execute(&mut self.conn)
            .await
            .context("failed to make the chats")?;
        Ok(())
    }

    async fn run(&mut self) -> Result<Counts> {
        let (chats, contents) = &*self.rows;
        let failed = "failed to store messages";
        let mut statements = 0;
        match self.way {
            Way::Each(statement) => {
                for (chat, content) in chats.iter().zip(contents) {
                    let one = sqlx::query(statement).bind(chat).bind(content).bind(MODEL);
                    one.execute(&mut self.conn).await.context(failed)?;
                    statements += 1;
                }
            }
            Way::AtOnce(statement) => {
                let all = sqlx::query(statement).bind(chats).bind(contents).bind(MODEL);
                all.execute(&mut self.conn).await.context(failed)?;
                statements += 1;
            }
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
                md5(string_agg(concat_ws(',', id, chat_id, role, content, model), ';' order by id))
            from bench_messages";
        let failed = "failed to read the messages";
        let row = sqlx::query(query).fetch_one(&mut self.conn).await.context(failed)?;
        let count: i64 = row.try_get(0).context(failed)?;
        ensure!(u64::try_from(count) == Ok(MESSAGES), "stored {count} messages of {MESSAGES}");
        row.try_get(1).context(failed)
    }
}
