//! The table `tokens`: who may call the API.
//!
//! Only the SHA-256 of a token is stored. A token is random and long, so no salt is needed.

use musterbeat_core::id::{OwnerId, TokenId};
use sqlx::PgConnection;
use uuid::Uuid;

/// What the bearer of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "token_kind", rename_all = "snake_case")]
pub enum TokenKind {
    /// Everything, on everybody's behalf.
    Admin,
    /// What belongs to its owner.
    User,
    /// Reports of one agent.
    Agent,
}

/// The SHA-256 of a token.
pub type TokenHash = [u8; 32];

/// A token to store.
#[derive(Clone, Debug)]
pub struct NewToken<'a> {
    /// Names it, for revoking.
    pub id: TokenId,
    /// What its bearer may do.
    pub kind: TokenKind,
    /// For whom its bearer acts.
    pub owner: OwnerId,
    /// What an operator calls it.
    pub name: &'a str,
    /// Its hash.
    pub hash: TokenHash,
}

/// Who bears a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// Which token they bear.
    pub token: TokenId,
    /// What they may do.
    pub kind: TokenKind,
    /// For whom they act; of an agent's token, the agent.
    pub owner: OwnerId,
}

/// Adds a token.
pub async fn insert(conn: &mut PgConnection, token: &NewToken<'_>) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into tokens (id, kind, owner_id, name, hash) values ($1, $2, $3, $4, $5)",
        token.id.uuid(),
        token.kind as TokenKind,
        token.owner.uuid(),
        token.name,
        &token.hash,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns who bears the token with this hash, `None` when nobody does or it was revoked.
pub async fn find(conn: &mut PgConnection, hash: &TokenHash) -> sqlx::Result<Option<Bearer>> {
    let row = sqlx::query!(
        r#"
            select id, kind as "kind: TokenKind", owner_id
            from tokens
            where hash = $1 and revoked_at is null
        "#,
        hash,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Bearer {
        token: TokenId::new(row.id),
        kind: row.kind,
        owner: OwnerId::new(row.owner_id),
    }))
}

/// Returns who bear the tokens with these hashes; one that nobody bears is left out.
pub async fn find_many(
    conn: &mut PgConnection,
    hashes: &[TokenHash],
) -> sqlx::Result<Vec<(TokenHash, Bearer)>> {
    let hashes: Vec<Vec<u8>> = hashes.iter().map(|hash| hash.to_vec()).collect();
    let rows = sqlx::query!(
        r#"
            select hash, id, kind as "kind: TokenKind", owner_id
            from tokens
            where hash = any ($1) and revoked_at is null
        "#,
        &hashes,
    )
    .fetch_all(conn)
    .await?;
    let found = rows.into_iter().filter_map(|row| {
        let bearer = Bearer {
            token: TokenId::new(row.id),
            kind: row.kind,
            owner: OwnerId::new(row.owner_id),
        };
        // All hashes have this length: the table checks it.
        Some((row.hash.try_into().ok()?, bearer))
    });
    Ok(found.collect())
}

/// Returns which of these tokens are in force.
pub async fn in_force(conn: &mut PgConnection, of: &[TokenId]) -> sqlx::Result<Vec<TokenId>> {
    let of: Vec<Uuid> = of.iter().map(|token| token.uuid()).collect();
    let ids = sqlx::query_scalar!(
        "select id from tokens where id = any($1) and revoked_at is null",
        &of,
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(TokenId::new).collect())
}

/// Says whether an admin's token is in force.
pub async fn admin_exists(conn: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from tokens where kind = 'admin' and revoked_at is null) as "exists!""#,
    )
    .fetch_one(conn)
    .await
}

/// Revokes a token; returns false when there is none in force with that id.
pub async fn revoke(conn: &mut PgConnection, token: TokenId) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update tokens set revoked_at = now() where id = $1 and revoked_at is null",
        token.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
