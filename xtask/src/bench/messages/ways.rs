//! How the messages of a step are stored.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use musterbeat_core::message::{Model, NewMessage};
use musterbeat_db::chat_messages::{Addition, append};
use sqlx::types::Json;
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::Step;

/// Stores a message.
pub(super) const ONE: &str = "
    insert into chat_messages
        (chat_id, version, role, content, visibility, compressed, model, created_at)
    values ($1, $2, 'assistant', $3, 'both', false, $4, now())
    returning id";

/// Stores a message, and moves the chat's model and time with it.
pub(super) const ONE_AND_CHAT: &str = "
    with moved as (
        update chats set model = $4, updated_at = now() where id = $1
    )
    insert into chat_messages
        (chat_id, version, role, content, visibility, compressed, model, created_at)
    values ($1, $2, 'assistant', $3, 'both', false, $4, now())
    returning id";

/// Stores rows that follow; it has no way to tell their ids.
const COPY: &str = "
    copy chat_messages (chat_id, version, role, content, visibility, compressed, model)
    from stdin";

/// One way.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// A statement a message, each committed by itself.
    Each(&'static str),
    /// A statement a message between `begin` and `commit`.
    Together,
    /// The product's statement.
    Append,
    /// Text for `COPY`.
    Copy,
}

impl Way {
    /// Stores a step; returns how many statements that took.
    pub(super) async fn store(self, conn: &mut PgConnection, step: &Step) -> Result<u64> {
        let failed = "failed to store messages";
        let count = step.messages.len() as u64;
        match self {
            Self::Each(statement) => {
                each(conn, statement, step).await?;
                Ok(count)
            }
            Self::Together => {
                let mut tx = conn.begin().await.context(failed)?;
                each(&mut tx, ONE, step).await?;
                tx.commit().await.context(failed)?;
                Ok(count + 2)
            }
            Self::Append => {
                let (chat, version) = (step.chat, step.version);
                let addition = |message| Addition { chat, version, message };
                let additions: Vec<_> = step.messages.iter().map(addition).collect();
                let ids = append(conn, &additions, &[], None).await.context(failed)?;
                ensure!(ids.len() == additions.len(), "{} ids for {count}", ids.len());
                Ok(1)
            }
            Self::Copy => {
                let mut copy = conn.copy_in_raw(COPY).await.context(failed)?;
                copy.send(text(step)?.into_bytes()).await.context(failed)?;
                let rows = copy.finish().await.context(failed)?;
                ensure!(rows == count, "copied {rows} messages of {count}");
                Ok(1)
            }
        }
    }
}

async fn each(conn: &mut PgConnection, statement: &'static str, step: &Step) -> Result<()> {
    for NewMessage { content, model, .. } in &step.messages {
        let one = sqlx::query(statement)
            .bind(step.chat.uuid())
            .bind(step.version.0)
            .bind(Json(content))
            .bind(model.as_ref().map(Model::as_str));
        conn.fetch_one(one).await.context("failed to store a message")?;
    }
    Ok(())
}

/// Returns the rows of a step as `COPY` reads them.
fn text(step: &Step) -> Result<String> {
    let (chat, version, mut text) = (step.chat.uuid(), step.version.0, String::new());
    for NewMessage { content, model, .. } in &step.messages {
        // JSON has neither raw tabs nor raw line breaks.
        let content = serde_json::to_string(content)?.replace('\\', r"\\");
        let model = model.as_ref().map_or(r"\N", Model::as_str);
        writeln!(text, "{chat}\t{version}\tassistant\t{content}\tboth\tf\t{model}")?;
    }
    Ok(text)
}
