use musterbeat_core::id::TokenId;
use musterbeat_core::port::StoreError;

use super::PgStore;
use crate::error::failed;
use crate::tokens::{self, Bearer, NewToken, TokenHash};

impl PgStore {
    /// Stores a token.
    pub async fn create_token(&self, token: &NewToken<'_>) -> Result<(), StoreError> {
        const CREATE: &str = "store a token";
        let mut conn = self.acquire(CREATE).await?;
        tokens::insert(&mut conn, token).await.map_err(failed(CREATE))
    }

    /// Returns who bears the token with this hash, `None` when nobody does.
    pub async fn find_token(&self, hash: &TokenHash) -> Result<Option<Bearer>, StoreError> {
        const FIND: &str = "look up a token";
        let mut conn = self.acquire(FIND).await?;
        tokens::find(&mut conn, hash).await.map_err(failed(FIND))
    }

    /// Says whether a token is in force.
    pub async fn token_in_force(&self, token: TokenId) -> Result<bool, StoreError> {
        const FIND: &str = "look up a token";
        let mut conn = self.acquire(FIND).await?;
        tokens::in_force(&mut conn, token).await.map_err(failed(FIND))
    }

    /// Says whether an admin's token is in force.
    pub async fn admin_token_exists(&self) -> Result<bool, StoreError> {
        const FIND: &str = "look for an admin's token";
        let mut conn = self.acquire(FIND).await?;
        tokens::admin_exists(&mut conn).await.map_err(failed(FIND))
    }

    /// Revokes a token; returns false when none with this id is in force.
    pub async fn revoke_token(&self, token: TokenId) -> Result<bool, StoreError> {
        const REVOKE: &str = "revoke a token";
        let mut conn = self.acquire(REVOKE).await?;
        tokens::revoke(&mut conn, token).await.map_err(failed(REVOKE))
    }
}
