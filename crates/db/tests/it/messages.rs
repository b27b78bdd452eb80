//! What was said: order, paging, and the part that a model sees.

use musterbeat_core::id::{ChatId, Version};
use musterbeat_core::message::{Content, Message, NewMessage, Role};
use musterbeat_core::page::{MESSAGES_MAX, PAGE_BYTES_MAX};
use musterbeat_core::port::{ChatReader, ChatStore, Reach};
use musterbeat_db::chat_messages::{self, Addition};

use crate::setup::{Fixture, owner};

#[tokio::test]
async fn ids_ascend_in_the_order_of_one_write() {
    let fixture = Fixture::new().await;
    let chat = fixture.chat(1, owner(1)).await;
    let texts: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    append(&fixture, chat, 2, &texts).await;
    let read = all(&fixture, chat).await;
    assert!(read.is_sorted_by_key(|message| message.id));
    let said: Vec<String> = read[1..].iter().map(|message| message.content.to_text()).collect();
    assert_eq!(said, texts);
}

#[tokio::test]
async fn page_of_changes_tears_no_version_apart() {
    let fixture = Fixture::new().await;
    let chat = fixture.chat(1, owner(1)).await;
    let many: Vec<String> = (0..MESSAGES_MAX - 10).map(|number| number.to_string()).collect();
    append(&fixture, chat, 2, &many).await;
    append(&fixture, chat, 3, &many).await;
    append(&fixture, chat, 4, &["last".to_owned()]).await;
    set_version(&fixture, chat, 4).await;

    let first = changes(&fixture, chat, None).await;
    assert_eq!(first.messages.len(), 1 + 490 + 490, "version 3 crosses the bound and is whole");
    assert_eq!(first.reached, Version(3));
    let second = changes(&fixture, chat, Some(first.reached)).await;
    assert_eq!(texts(&second.messages), ["last"]);
    assert_eq!(second.reached, Version(4));
}

#[tokio::test]
async fn page_of_changes_is_bounded_in_bytes() {
    let fixture = Fixture::new().await;
    let chat = fixture.chat(1, owner(1)).await;
    let quarter = "x".repeat(PAGE_BYTES_MAX as usize / 4);
    for version in 2..=9 {
        append(&fixture, chat, version, std::slice::from_ref(&quarter)).await;
    }
    append(&fixture, chat, 10, &vec![quarter; 6]).await;
    set_version(&fixture, chat, 10).await;

    let mut since = None;
    let mut pages = Vec::new();
    while since != Some(Version(10)) {
        let page = changes(&fixture, chat, since).await;
        pages.push((page.messages.len(), page.reached.0));
        since = Some(page.reached);
    }
    // The first message counts as well, and so does the JSON around each.
    assert_eq!(
        pages,
        [(5, 5), (4, 9), (6, 10)],
        "the last version is larger than a page, and whole"
    );
}

#[tokio::test]
async fn prompt_begins_at_the_newest_summary() {
    let fixture = Fixture::new().await;
    let chat = fixture.chat(1, owner(1)).await;
    for (text, role, visibility, compressed, deleted) in [
        ("be kind", "system", "both", false, false),
        ("only for eyes", "assistant", "user", false, false),
        ("old", "user", "both", false, false),
        ("summary 1", "user", "model", true, false),
        ("older terms", "system", "both", true, false),
        ("middle", "user", "both", false, false),
        ("summary 2", "user", "model", true, false),
        ("shown summary", "assistant", "user", true, false),
        ("new", "user", "both", false, false),
        ("taken back", "user", "both", false, true),
        ("hint", "user", "model", false, false),
    ] {
        insert(&fixture, chat, text, role, visibility, compressed, deleted).await;
    }
    let prompt = fixture.store.prompt(chat).await.unwrap().messages;
    assert_eq!(texts(&prompt), ["be kind", "summary 2", "new", "hint"]);
}

#[tokio::test]
async fn prompt_without_a_summary_is_the_whole_history() {
    let fixture = Fixture::new().await;
    let chat = fixture.chat(1, owner(1)).await;
    insert(&fixture, chat, "compressed", "user", "both", true, false).await;
    insert(&fixture, chat, "second", "assistant", "both", false, false).await;
    assert_eq!(texts(&fixture.store.prompt(chat).await.unwrap().messages), ["first", "second"]);
}

#[tokio::test]
async fn users_see_what_is_meant_for_them() {
    let fixture = Fixture::new().await;
    let chat = fixture.chat(1, owner(1)).await;
    insert(&fixture, chat, "for the model", "user", "model", false, false).await;
    insert(&fixture, chat, "for the user", "assistant", "user", false, false).await;
    insert(&fixture, chat, "taken back", "user", "both", false, true).await;
    assert_eq!(texts(&all(&fixture, chat).await), ["first", "for the user"]);
    let since = changes(&fixture, chat, Some(Version(0))).await;
    let deleted: Vec<bool> = since.messages.iter().map(|message| message.deleted).collect();
    assert_eq!(deleted, [false, false, true], "whoever saw it learns that it is gone");
}

async fn append(fixture: &Fixture, chat: ChatId, version: i64, texts: &[String]) {
    let messages: Vec<NewMessage> = texts
        .iter()
        .map(|text| NewMessage {
            role: Role::User,
            ..NewMessage::answer(Content::text(text).unwrap(), None)
        })
        .collect();
    let version = Version(version);
    let additions: Vec<Addition<'_>> =
        messages.iter().map(|message| Addition { chat, version, message }).collect();
    let mut conn = fixture.pool.acquire().await.unwrap();
    chat_messages::append(&mut conn, &additions, &[chat], None).await.unwrap();
}

async fn set_version(fixture: &Fixture, chat: ChatId, version: i64) {
    sqlx::query("update runs set version = $2 where run_id = $1")
        .bind(chat.uuid())
        .bind(version)
        .execute(&fixture.pool)
        .await
        .unwrap();
}

async fn insert(
    fixture: &Fixture,
    chat: ChatId,
    text: &str,
    role: &str,
    visibility: &str,
    compressed: bool,
    deleted: bool,
) {
    sqlx::query(
        "insert into chat_messages (chat_id, version, role, content, visibility, compressed, deleted)
         values ($1, 1, $2::message_role, jsonb_build_array(jsonb_build_object('type', 'text', 'text', $3)),
                 $4::message_visibility, $5, $6)",
    )
    .bind(chat.uuid())
    .bind(role)
    .bind(text)
    .bind(visibility)
    .bind(compressed)
    .bind(deleted)
    .execute(&fixture.pool)
    .await
    .unwrap();
}

async fn changes(
    fixture: &Fixture,
    chat: ChatId,
    since: Option<Version>,
) -> musterbeat_core::chat::Changes {
    fixture.store.changes(chat, Reach::Everything, since).await.unwrap().unwrap()
}

async fn all(fixture: &Fixture, chat: ChatId) -> Vec<Message> {
    changes(fixture, chat, None).await.messages
}

fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| message.content.to_text()).collect()
}
