//! Tokens, and who bears one.

use std::fmt::Write as _;

use musterbeat_core::id::{AgentId, OwnerId, TokenId};
use musterbeat_core::port::{Reach, StoreError};
use musterbeat_db::PgStore;
use musterbeat_db::tokens::{Bearer, NewToken, TokenHash, TokenKind};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Begins every token, so that one that leaked is recognised by scanners.
const PREFIX: &str = "mb_";

/// Begins the tokens of agents, which are looked up in a way of their own.
pub(crate) const AGENT_PREFIX: &str = "mba_";

/// Random bytes of a token: nobody guesses 256 bits, so its hash needs no salt.
const RANDOM_BYTES: usize = 32;

/// Whom a server in `dev` serves.
pub(crate) const DEV_OWNER: OwnerId = OwnerId::new(Uuid::from_u128(0xdeb));

/// Who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// What they showed; none is asked for in `dev`.
    pub(crate) token: Option<TokenId>,
    pub(crate) kind: TokenKind,
    pub(crate) owner: OwnerId,
}

impl Caller {
    /// Returns what the caller reaches.
    pub(crate) fn reach(self) -> Reach {
        match self.kind {
            TokenKind::Admin => Reach::Everything,
            TokenKind::User | TokenKind::Agent => Reach::Of(self.owner),
        }
    }

    /// Returns what the caller reaches of `agent`: an agent itself, and nobody else; `None` of
    /// what is not there for it.
    pub(crate) fn reach_of(self, agent: AgentId) -> Option<Reach> {
        match self.kind {
            TokenKind::Agent if self.owner.uuid() == agent.uuid() => Some(Reach::Everything),
            TokenKind::Agent => None,
            TokenKind::Admin | TokenKind::User => Some(self.reach()),
        }
    }
}

/// A token that was made and stored; its text is known only here.
pub(crate) struct Minted {
    pub(crate) id: TokenId,
    pub(crate) owner: OwnerId,
    pub(crate) text: SecretString,
}

/// Makes a token and stores its hash.
pub(crate) async fn mint(
    store: &PgStore,
    kind: TokenKind,
    owner: Option<OwnerId>,
    name: &str,
) -> Result<Minted, StoreError> {
    let (id, text) = (TokenId::new(Uuid::now_v7()), random_text(PREFIX));
    let owner = owner.unwrap_or_else(|| OwnerId::new(Uuid::now_v7()));
    store.create_token(&NewToken { id, kind, owner, name, hash: hash(&text) }).await?;
    Ok(Minted { id, owner, text: text.into() })
}

/// The text of an agent's token, which is known only here, and its hash.
pub(crate) fn agent_token() -> (SecretString, TokenHash) {
    let text = random_text(AGENT_PREFIX);
    let hash = hash(&text);
    (text.into(), hash)
}

/// Returns who bears `token`, `None` when nobody does.
pub(crate) async fn bearer(
    store: &PgStore,
    token: &SecretString,
) -> Result<Option<Caller>, StoreError> {
    let found = store.find_token(&hash(token.expose_secret())).await?;
    Ok(found.map(Caller::from))
}

impl From<Bearer> for Caller {
    fn from(Bearer { token, kind, owner }: Bearer) -> Self {
        Self { token: Some(token), kind, owner }
    }
}

fn random_text(prefix: &str) -> String {
    let random: [u8; RANDOM_BYTES] = rand::random();
    let mut text = prefix.to_owned();
    for byte in random {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

pub(crate) fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_differ() {
        let [one, other] = [random_text(PREFIX), random_text(PREFIX)];
        assert_ne!(one, other);
        assert_eq!(one.len(), PREFIX.len() + 2 * RANDOM_BYTES);
        assert_ne!(hash(&one), hash(&other));
    }
}
