//! Tokens: found by hash, revoked for good.

use musterbeat_core::id::TokenId;
use musterbeat_db::tokens::{NewToken, TokenKind};
use uuid::Uuid;

use crate::setup::{Fixture, owner};

#[tokio::test]
async fn revoked_token_is_nobodys() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let id = TokenId::new(Uuid::from_u128(1));
    assert!(!store.admin_token_exists().await.unwrap());
    let token =
        NewToken { id, kind: TokenKind::Admin, owner: owner(1), name: "test", hash: [7; 32] };
    store.create_token(&token).await.unwrap();

    let bearer = store.find_token(&[7; 32]).await.unwrap().unwrap();
    assert_eq!((bearer.kind, bearer.owner), (TokenKind::Admin, owner(1)));
    assert_eq!(store.find_token(&[8; 32]).await.unwrap(), None);
    assert!(store.admin_token_exists().await.unwrap());

    assert!(store.revoke_token(id).await.unwrap());
    assert!(!store.revoke_token(id).await.unwrap(), "once");
    assert_eq!(store.find_token(&[7; 32]).await.unwrap(), None);
    assert!(!store.admin_token_exists().await.unwrap());
}
