//! The table `model_configs`: how models are asked.

use musterbeat_core::message::Model;
use musterbeat_core::model_config::{Effort, ModelConfig};
use musterbeat_core::port::MODELS_MAX;
use sqlx::PgConnection;

use crate::chats::stored_model;

struct ConfigRow {
    name: String,
    provider: String,
    model: String,
    context_limit: Option<i32>,
    max_output_tokens: Option<i32>,
    temperature: Option<f64>,
    reasoning_effort: Option<String>,
    compact_at: Option<i16>,
    is_default: bool,
}

impl ConfigRow {
    /// Returns the configuration; `None` for a name that was written by other means and that no
    /// chat could bear.
    fn config(self) -> Option<ModelConfig> {
        Some(ModelConfig {
            name: stored_model(self.name)?,
            provider: self.provider,
            model: self.model,
            context_limit: self.context_limit.and_then(|tokens| u32::try_from(tokens).ok()),
            max_output_tokens: self.max_output_tokens.and_then(|tokens| u32::try_from(tokens).ok()),
            temperature: self.temperature,
            reasoning_effort: self.reasoning_effort.as_deref().and_then(effort),
            compact_at: self.compact_at.and_then(|percent| u8::try_from(percent).ok()),
            is_default: self.is_default,
        })
    }
}

fn effort(word: &str) -> Option<Effort> {
    Effort::ALL.into_iter().find(|effort| effort.as_str() == word)
}

/// Tokens are checked to fit.
fn tokens(tokens: u32) -> i32 {
    i32::try_from(tokens).unwrap_or(i32::MAX)
}

/// Returns the configuration of a name, or the default one without a name.
pub async fn find(
    conn: &mut PgConnection,
    name: Option<&Model>,
) -> sqlx::Result<Option<ModelConfig>> {
    let row = sqlx::query_as!(
        ConfigRow,
        r#"
            select name, provider, model, context_limit, max_output_tokens, temperature,
                   reasoning_effort, compact_at, is_default
            from model_configs
            where name = $1 or ($1::text is null and is_default)
        "#,
        name.map(Model::as_str),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.and_then(ConfigRow::config))
}

/// Returns all configurations by name, [`MODELS_MAX`] at most.
pub async fn list(conn: &mut PgConnection) -> sqlx::Result<Vec<ModelConfig>> {
    let rows = sqlx::query_as!(
        ConfigRow,
        r#"
            select name, provider, model, context_limit, max_output_tokens, temperature,
                   reasoning_effort, compact_at, is_default
            from model_configs
            order by name
            limit $1
        "#,
        i64::from(MODELS_MAX),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().filter_map(ConfigRow::config).collect())
}

/// Lets nobody else put or delete a configuration until the end of the transaction.
///
/// Two who put a default, or the last one that there is room for, would else not see each other.
pub async fn lock(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("lock table model_configs in share row exclusive mode").execute(conn).await?;
    Ok(())
}

/// Takes the default away from every configuration but that of `name`; see [`lock`].
pub async fn unset_default(conn: &mut PgConnection, name: &Model) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
            update model_configs
            set is_default = false, updated_at = now()
            where is_default and name <> $1
        "#,
        name.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds a configuration or replaces the one of its name; false when there is no room; see [`lock`].
pub async fn put(conn: &mut PgConnection, config: &ModelConfig) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        r#"
            insert into model_configs (
                name, provider, model, context_limit, max_output_tokens, temperature,
                reasoning_effort, compact_at, is_default
            )
            select $1, $2, $3, $4, $5, $6, $7, $8, $9
            where exists (select from model_configs where name = $1)
               or (select count(*) from model_configs) < $10
            on conflict (name) do update
            set provider = excluded.provider,
                model = excluded.model,
                context_limit = excluded.context_limit,
                max_output_tokens = excluded.max_output_tokens,
                temperature = excluded.temperature,
                reasoning_effort = excluded.reasoning_effort,
                compact_at = excluded.compact_at,
                is_default = excluded.is_default,
                updated_at = now()
        "#,
        config.name.as_str(),
        config.provider,
        config.model,
        config.context_limit.map(tokens),
        config.max_output_tokens.map(tokens),
        config.temperature,
        config.reasoning_effort.map(Effort::as_str),
        config.compact_at.map(i16::from),
        config.is_default,
        i64::from(MODELS_MAX),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes a configuration away; false when there is none.
pub async fn delete(conn: &mut PgConnection, name: &Model) -> sqlx::Result<bool> {
    let done = sqlx::query!("delete from model_configs where name = $1", name.as_str())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}
