use musterbeat_core::id::TokenId;
use musterbeat_core::port::StoreError;
use tokio::time::timeout;

use super::PgStore;
use crate::tokens::{self, Bearer, NewToken, TokenHash};

impl PgStore {
    /// Stores a token.
    pub async fn create_token(&self, token: &NewToken<'_>) -> Result<(), StoreError> {
        const CREATE: &str = "store a token";
        let mut call = self.call(CREATE).await?;
        let answer = timeout(self.answer_time, tokens::insert(&mut call.conn, token)).await;
        call.ended(answer)
    }

    /// Returns who bears the token with this hash, `None` when nobody does.
    pub async fn find_token(&self, hash: &TokenHash) -> Result<Option<Bearer>, StoreError> {
        const FIND: &str = "look up a token";
        let mut call = self.call(FIND).await?;
        let answer = timeout(self.answer_time, tokens::find(&mut call.conn, hash)).await;
        call.ended(answer)
    }

    /// Returns who bear the tokens with these hashes; one that nobody bears is left out.
    pub async fn find_tokens(
        &self,
        hashes: &[TokenHash],
    ) -> Result<Vec<(TokenHash, Bearer)>, StoreError> {
        const FIND: &str = "look up tokens";
        let mut call = self.call(FIND).await?;
        let answer = timeout(self.answer_time, tokens::find_many(&mut call.conn, hashes)).await;
        call.ended(answer)
    }

    /// Returns which of these tokens are in force.
    pub async fn tokens_in_force(&self, of: &[TokenId]) -> Result<Vec<TokenId>, StoreError> {
        const FIND: &str = "look up tokens";
        let mut call = self.call(FIND).await?;
        let answer = timeout(self.answer_time, tokens::in_force(&mut call.conn, of)).await;
        call.ended(answer)
    }

    /// Says whether an admin's token is in force.
    pub async fn admin_token_exists(&self) -> Result<bool, StoreError> {
        const FIND: &str = "look for an admin's token";
        let mut call = self.call(FIND).await?;
        let answer = timeout(self.answer_time, tokens::admin_exists(&mut call.conn)).await;
        call.ended(answer)
    }

    /// Revokes a token; returns false when none with this id is in force.
    pub async fn revoke_token(&self, token: TokenId) -> Result<bool, StoreError> {
        const REVOKE: &str = "revoke a token";
        let mut call = self.call(REVOKE).await?;
        let answer = timeout(self.answer_time, tokens::revoke(&mut call.conn, token)).await;
        call.ended(answer)
    }
}
