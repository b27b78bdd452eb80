//! What an owner's feed reads.

use musterbeat_core::chat::Chat;
use musterbeat_core::id::{ChatId, OwnerId};
use musterbeat_core::port::{FeedMark, FeedPage};
use sqlx::PgConnection;
use uuid::Uuid;

use super::select_chats;
use crate::chat_diff_statuses;
use crate::row::StatusColumn;

/// Returns the chats of an owner that changed since `mark`, those that have something to do, and
/// those of `seen`; without a mark the last updated ones instead.
///
/// A mark is the oldest transaction that was under way when it was taken: whatever it changed is
/// found from then on, in whichever order transactions end. Marks of the future, as a restored
/// dump has them, are passed over. Call it in one snapshot.
pub async fn feed(
    conn: &mut PgConnection,
    owner: OwnerId,
    mark: Option<FeedMark>,
    seen: &[ChatId],
) -> sqlx::Result<FeedPage> {
    let next = sqlx::query_scalar!(
        r#"select pg_snapshot_xmin(pg_current_snapshot())::text::bigint as "mark!""#
    )
    .fetch_one(&mut *conn)
    .await?;
    let seen: Vec<Uuid> = seen.iter().map(|chat| chat.uuid()).collect();
    let query = select_chats!(
        r#"
            where chats.owner_id = $1
              and chats.id = any (array(
                  select id
                  from chats
                  where owner_id = $1
                    and changed_in >= $2
                    and changed_in < pg_snapshot_xmax(pg_current_snapshot())::text::bigint
                  union all
                  select run_id from runs
                  where kind = 'chat' and owner_id = $1 and status = 'pending'
                  union all
                  select run_id from runs
                  where kind = 'chat' and owner_id = $1 and status in ('running', 'interrupting')
                  union all
                  select unnest($3::uuid[])
              ))
            order by updated_at desc, chats.id desc
            limit $4
        "#,
        owner.uuid(),
        mark.map_or(next, |mark| mark.0),
        &seen,
        i64::from(FeedPage::CHATS_MAX),
    );
    let chats = query.fetch_all(&mut *conn).await?.into_iter().map(Chat::from).collect();
    let diffs = match mark {
        Some(mark) => chat_diff_statuses::changed(conn, owner, mark.0, FeedPage::DIFFS_MAX).await?,
        None => vec![],
    };
    Ok(FeedPage { mark: FeedMark(next), chats, diffs })
}
