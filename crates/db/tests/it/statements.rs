//! What the original's statements meant, each through ours.

use musterbeat_core::call::{INTERRUPTED, open_calls};
use musterbeat_core::chat::{Event, WhenBusy};
use musterbeat_core::id::{ChatId, MessageId, QueuedId, Version};
use musterbeat_core::message::{
    Content, Message, Model, NewMessage, Part, Role, Usage, Visibility,
};
use musterbeat_core::port::{ApplyError, By, ChatReader, ChatStore, Reach, RunStore};
use musterbeat_core::run::{Run, RunStatus};
use musterbeat_db::{chat_messages, chat_queued_messages};

use crate::setup::{Fixture, call, finish, new_chat, owner, result, send, turn};

const ANYBODY: By = By::User(Reach::Everything);

async fn history(fixture: &Fixture, chat: ChatId) -> Vec<Message> {
    fixture.store.changes(chat, Reach::Everything, None).await.unwrap().unwrap().messages
}

fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| message.content.to_text()).collect()
}

async fn step(fixture: &Fixture, chat: ChatId, run: &mut Run, messages: Vec<NewMessage>) {
    let by = By::Owner(run.token);
    run.token.step = fixture.store.apply(chat, by, Event::Step(messages)).await.unwrap().step;
}

async fn queue(fixture: &Fixture, chat: ChatId) -> Vec<(QueuedId, String)> {
    let queue = fixture.store.queue(chat, Reach::Everything).await.unwrap().unwrap();
    queue.into_iter().map(|queued| (queued.id, queued.content.to_text())).collect()
}

#[tokio::test]
async fn edit_begins_anew_with_a_new_id_and_an_empty_queue() {
    let fixture = Fixture::new().await;
    let (chat, mut run) = fixture.running_chat(1).await;
    step(&fixture, chat, &mut run, vec![call("a")]).await;
    fixture.store.apply(chat, ANYBODY, send("queued")).await.unwrap();
    let first = history(&fixture, chat).await[0].id;
    let since = fixture.store.get(chat, Reach::Everything).await.unwrap().unwrap().version;

    let edit = Event::Edit { message: first, turn: turn("edited") };
    let edited = fixture.store.apply(chat, ANYBODY, edit).await.unwrap();
    assert!(edited.stops, "its owner lost it");
    let messages = history(&fixture, chat).await;
    assert_eq!(texts(&messages), ["edited"]);
    assert_eq!(edited.message, Some(messages[0].id));
    assert!(first < messages[0].id);
    assert_eq!(queue(&fixture, chat).await, []);
    let late = fixture.store.apply(chat, By::Owner(run.token), finish("late")).await;
    assert!(matches!(late, Err(ApplyError::Fenced)));
    // Whoever had the former history learns what went.
    let changes = fixture.store.changes(chat, Reach::Everything, Some(since)).await.unwrap();
    let deleted: Vec<bool> =
        changes.unwrap().messages.iter().map(|message| message.deleted).collect();
    assert_eq!(deleted, [true, true, false]);
}

#[tokio::test]
async fn message_that_is_not_there_or_not_a_users_is_not_edited() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    fixture.finish(chat, &run, "answer").await;
    let other = fixture.chat(2, owner(1)).await;
    let [answer, theirs] =
        [history(&fixture, chat).await[1].id, history(&fixture, other).await[0].id];
    for (message, expected) in [
        (MessageId(999), "the chat has no such message"),
        (theirs, "the chat has no such message"),
        (answer, "only a user's message can be edited"),
    ] {
        let edit = Event::Edit { message, turn: turn("edited") };
        let refused = fixture.store.apply(chat, ANYBODY, edit).await.unwrap_err();
        assert_eq!(refused.to_string(), expected);
    }
    assert_eq!(texts(&history(&fixture, chat).await), ["first", "answer"]);
}

#[tokio::test]
async fn interrupted_answer_has_a_lower_id_than_the_turn_that_follows() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    let event = Event::Send { turn: turn("instead"), when_busy: WhenBusy::Interrupt };
    let sent = fixture.store.apply(chat, ANYBODY, event).await.unwrap();
    assert!(sent.queued && sent.stops);
    assert_eq!(sent.status, RunStatus::Interrupting);
    let partial = vec![NewMessage::answer(Content::produced("half"), None)];
    let event = Event::FinishInterrupt { partial };
    let ended = fixture.store.apply(chat, By::Owner(run.token), event).await.unwrap();
    assert_eq!(ended.status, RunStatus::Pending);
    let messages = history(&fixture, chat).await;
    assert_eq!(texts(&messages), ["first", "half", "instead"]);
    assert!(messages.is_sorted_by_key(|message| message.id));
}

/// As a step is cut short in the midst of its tools.
#[tokio::test]
async fn interrupted_turn_keeps_its_calls_and_the_results_that_were_there() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    let event = Event::Send { turn: turn("instead"), when_busy: WhenBusy::Interrupt };
    fixture.store.apply(chat, ANYBODY, event).await.unwrap();
    let called = ["a", "b"].map(|id| call(id).content.parts()[0].clone());
    let calls = NewMessage::answer(Content::produced_parts(called.to_vec()).unwrap(), None);
    let event = Event::FinishInterrupt { partial: vec![calls, result("a")] };
    let ended = fixture.store.apply(chat, By::Owner(run.token), event).await.unwrap();
    assert_eq!(ended.status, RunStatus::Pending);
    let prompt = fixture.store.prompt(chat).await.unwrap().messages;
    let roles: Vec<Role> = prompt.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool, Role::Tool, Role::User]);
    assert_eq!(open_calls(prompt.iter().map(|message| &message.content)), []);
    let [Part::ToolResult { id, output, is_error: true }] = prompt[3].content.parts() else {
        panic!("the other call is answered: {:?}", prompt[3])
    };
    assert_eq!((id.as_str(), output.as_str()), ("b", INTERRUPTED));
}

#[tokio::test]
async fn queue_is_promoted_moved_and_taken_back_by_id() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    for text in ["a", "b", "c", "d"] {
        fixture.store.apply(chat, ANYBODY, send(text)).await.unwrap();
    }
    let ids: Vec<QueuedId> = queue(&fixture, chat).await.into_iter().map(|(id, _)| id).collect();
    let promoted = fixture.store.apply(chat, ANYBODY, Event::Promote(ids[2])).await.unwrap();
    assert_eq!(promoted.status, RunStatus::Interrupting, "it is asked for now");
    fixture.store.apply(chat, ANYBODY, Event::DeleteQueued(ids[0])).await.unwrap();
    let said: Vec<String> = queue(&fixture, chat).await.into_iter().map(|(_, text)| text).collect();
    assert_eq!(said, ["c", "b", "d"]);
    let gone = fixture.store.apply(chat, ANYBODY, Event::DeleteQueued(ids[0])).await;
    assert!(gone.unwrap_err().to_string().contains("no such turn"));
    fixture.finish(chat, &run, "one").await;
    assert_eq!(texts(&history(&fixture, chat).await), ["first", "one", "c"]);
    fixture.store.apply(chat, ANYBODY, Event::ClearQueue).await.unwrap();
    assert_eq!(queue(&fixture, chat).await, []);
}

#[tokio::test]
async fn promoted_turn_of_a_failed_chat_starts_at_once() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    for text in ["a", "b"] {
        fixture.store.apply(chat, ANYBODY, send(text)).await.unwrap();
    }
    let error = Event::FinishError { error: "no model".to_owned() };
    fixture.store.apply(chat, By::Owner(run.token), error).await.unwrap();
    let second = queue(&fixture, chat).await[1].0;
    let promoted = fixture.store.apply(chat, ANYBODY, Event::Promote(second)).await.unwrap();
    assert_eq!(promoted.status, RunStatus::Pending);
    assert_eq!(texts(&history(&fixture, chat).await), ["first", "b"]);
    assert_eq!(queue(&fixture, chat).await.len(), 1);
}

#[tokio::test]
async fn two_who_pop_never_get_the_same_turn() {
    let fixture = Fixture::new().await;
    let (chat, _run) = fixture.running_chat(1).await;
    for number in 0..10 {
        fixture.store.apply(chat, ANYBODY, send(&number.to_string())).await.unwrap();
    }
    let pop = async || {
        let mut conn = fixture.pool.acquire().await.unwrap();
        let mut popped = vec![];
        while let Some(turn) = chat_queued_messages::pop_head(&mut conn, chat).await.unwrap() {
            popped.push(turn.content.to_text());
        }
        popped
    };
    let (one, other) = tokio::join!(pop(), pop());
    let mut all = [one, other].concat();
    all.sort();
    // One that waited for a row that the other took finds none, and may leave some to nobody.
    all.extend(pop().await);
    all.sort();
    assert_eq!(all, (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn each_queued_turn_keeps_its_model() {
    let fixture = Fixture::new().await;
    let (chat, mut run) = fixture.running_chat(1).await;
    for model in ["small", "large"] {
        let mut turn = turn(model);
        turn.model = Some(Model::new(model).unwrap());
        let event = Event::Send { turn, when_busy: WhenBusy::Queue };
        fixture.store.apply(chat, ANYBODY, event).await.unwrap();
    }
    for expected in [Some("small"), Some("large"), None] {
        let before = run.token.step;
        run.token.step = fixture.finish(chat, &run, "answer").await.step;
        assert!(before < run.token.step);
        if let Some(expected) = expected {
            let last = history(&fixture, chat).await.pop().unwrap();
            assert_eq!(last.model, Some(Model::new(expected).unwrap()));
            let chat = fixture.store.get(chat, Reach::Everything).await.unwrap().unwrap();
            assert_eq!(chat.model, Some(Model::new(expected).unwrap()));
        }
    }
}

#[tokio::test]
async fn step_is_one_write_that_keeps_order_usage_and_visibility() {
    let fixture = Fixture::new().await;
    let (chat, mut run) = fixture.running_chat(1).await;
    let usage = Usage { input_tokens: Some(7), context_limit: Some(100), ..Usage::default() };
    let hidden = NewMessage { visibility: Visibility::Model, usage, ..call("a") };
    step(&fixture, chat, &mut run, vec![hidden, result("a")]).await;
    let prompt = fixture.store.prompt(chat).await.unwrap().messages;
    assert!(prompt.is_sorted_by_key(|message| message.id));
    assert_eq!(prompt[1].usage, usage);
    assert_eq!(prompt[2].role, Role::Tool);
    assert_eq!(history(&fixture, chat).await.len(), 2, "users see what is meant for them");
    // Sent again, as when its answer was lost.
    let mut again = run.clone();
    again.token.step = musterbeat_core::id::Step(0);
    step(&fixture, chat, &mut again, vec![result("a")]).await;
    assert_eq!(again.token.step, run.token.step);
    assert_eq!(fixture.store.prompt(chat).await.unwrap().messages.len(), 3);
}

/// The owner of an open call died; its user asks before anybody went on.
#[tokio::test]
async fn no_users_message_follows_an_open_call_even_after_a_death() {
    let fixture = Fixture::new().await;
    let (chat, mut run) = fixture.running_chat(1).await;
    step(&fixture, chat, &mut run, vec![call("a")]).await;
    let named = [(run.id, run.token.fence)];
    let store = &fixture.store;
    store.release(run.token.worker, &named, std::time::Duration::ZERO).await.unwrap();
    store.apply(chat, ANYBODY, send("next")).await.unwrap();
    store.apply(chat, ANYBODY, Event::Interrupt).await.unwrap();
    let messages = history(&fixture, chat).await;
    let roles: Vec<Role> = messages.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool, Role::User]);
    assert_eq!(musterbeat_core::call::open_calls(messages.iter().map(|m| &m.content)), []);
}

#[tokio::test]
async fn messages_are_read_rewritten_and_deleted_one_by_one_or_all() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    fixture.finish(chat, &run, "answer").await;
    let mut conn = fixture.pool.acquire().await.unwrap();
    let conn = &mut *conn;
    assert_eq!(chat_messages::get(conn, MessageId(999)).await.unwrap(), None);
    let last = chat_messages::last_of_role(conn, chat, Role::Assistant).await.unwrap().unwrap();
    assert_eq!(last.content.to_text(), "answer");
    assert_eq!(chat_messages::last_of_role(conn, chat, Role::Tool).await.unwrap(), None);

    let (content, model) = (Content::text("better").unwrap(), Model::new("big").unwrap());
    let rewrite = chat_messages::rewrite(conn, last.id, Version(8), &content, Some(&model)).await;
    assert_eq!(rewrite.unwrap(), Some(()));
    chat_messages::rewrite(conn, last.id, Version(9), &content, None).await.unwrap();
    let read = chat_messages::get(conn, last.id).await.unwrap().unwrap();
    assert_eq!(
        (read.content, read.model, read.version),
        (content.clone(), Some(model), Version(9))
    );

    assert_eq!(chat_messages::delete(conn, chat, Version(10), Some(last.id)).await.unwrap(), 1);
    assert_eq!(chat_messages::last_of_role(conn, chat, Role::Assistant).await.unwrap(), None);
    let gone = chat_messages::rewrite(conn, last.id, Version(11), &content, None).await.unwrap();
    assert_eq!(gone, None, "what was deleted stays as it was");
    assert_eq!(chat_messages::delete(conn, chat, Version(12), None).await.unwrap(), 1);
    assert_eq!(chat_messages::delete(conn, chat, Version(13), None).await.unwrap(), 0);
    assert!(history(&fixture, chat).await.is_empty());
}

#[tokio::test]
async fn report_is_the_last_that_was_said_in_words() {
    let fixture = Fixture::new().await;
    let (chat, mut run) = fixture.running_chat(1).await;
    let report =
        async || fixture.store.report(chat, Reach::Of(owner(1)), None).await.unwrap().unwrap();
    let begun = report().await;
    assert_eq!((begun.is_at_rest(), begun.text), (false, None));
    let hidden = NewMessage {
        visibility: Visibility::Model,
        ..NewMessage::answer(Content::text("hidden").unwrap(), None)
    };
    let said = NewMessage::answer(Content::text("said").unwrap(), None);
    step(&fixture, chat, &mut run, vec![said, hidden, call("a"), result("a")]).await;
    let error = Event::FinishError { error: "no model".to_owned() };
    fixture.store.apply(chat, By::Owner(run.token), error).await.unwrap();
    let ended = report().await;
    assert!(ended.is_at_rest());
    assert_eq!((ended.text.as_deref(), ended.error.as_deref()), (Some("said"), Some("no model")));
    assert_eq!(fixture.store.report(chat, Reach::Of(owner(2)), None).await.unwrap(), None);
}

#[tokio::test]
async fn chat_at_rest_that_said_nothing_in_words_has_no_report() {
    let fixture = Fixture::new().await;
    let (failed, run) = fixture.running_chat(1).await;
    let error = Event::FinishError { error: "no model".to_owned() };
    fixture.store.apply(failed, By::Owner(run.token), error).await.unwrap();
    let (done, run) = fixture.running_chat(2).await;
    let end = Event::FinishTurn { answer: vec![call("a"), result("a")], draining: false };
    fixture.store.apply(done, By::Owner(run.token), end).await.unwrap();
    for (chat, status, error) in
        [(failed, RunStatus::Error, Some("no model")), (done, RunStatus::Waiting, None)]
    {
        let report = fixture.store.report(chat, Reach::Everything, None).await.unwrap().unwrap();
        assert_eq!((report.status, report.error.as_deref(), report.text), (status, error, None));
    }
}

#[tokio::test]
async fn preamble_comes_before_the_first_turn() {
    let fixture = Fixture::new().await;
    let mut chat = new_chat(1, owner(1));
    chat.preamble = vec![NewMessage {
        role: Role::System,
        visibility: Visibility::Model,
        ..NewMessage::answer(Content::text("be kind").unwrap(), None)
    }];
    let chat = fixture.store.create(chat, Reach::Of(owner(1))).await.unwrap().chat;
    let prompt = fixture.store.prompt(chat).await.unwrap().messages;
    assert_eq!(texts(&prompt), ["be kind", "first"]);
    assert_eq!(texts(&history(&fixture, chat).await), ["first"]);
}

/// Many users change one chat at once: ids ascend in the order of versions, nothing is torn.
#[tokio::test]
async fn changes_of_one_chat_come_one_after_the_other() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    fixture.finish(chat, &run, "answer").await;
    let edits = (0..12).map(|number| {
        let store = fixture.store.clone();
        async move {
            let changes = store.changes(chat, Reach::Everything, None).await.unwrap().unwrap();
            let edit =
                Event::Edit { message: changes.messages[0].id, turn: turn(&number.to_string()) };
            let edited = store.apply(chat, ANYBODY, edit).await;
            let sent = store.apply(chat, ANYBODY, send("and")).await;
            (edited.is_ok(), sent.is_ok())
        }
    });
    let done = futures_util::future::join_all(edits).await;
    assert!(done.iter().any(|(edited, _)| *edited));
    assert!(done.iter().all(|(_, sent)| *sent), "the queue had room after each edit");
    let messages = history(&fixture, chat).await;
    assert_eq!(messages.len(), 1, "the last edit took all before it");
    assert!(messages.is_sorted_by_key(|message| (message.version, message.id)));
}
