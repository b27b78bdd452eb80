//! What keeps workspaces alive: the columns `last_used_at` and `deadline` of `workspaces`.

use musterbeat_core::activity::Activity;
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// Moves the last use of workspaces forward, and deadlines as templates say; returns how many
/// workspaces of those owners it found.
///
/// No time of the future is stored: it would keep out what comes later. A deadline moves once a
/// twentieth of what activity gives has passed since it moved last. A workspace that runs till
/// after its next start is given its whole time from then, as if it were started. All is counted
/// in seconds: a day is not as long in every time zone.
///
/// Rows are locked in the order of their ids, whoever writes: writers of overlapping sets wait for
/// each other and never for ever. A row that stays as it is is not written.
pub async fn touch(
    conn: &mut PgConnection,
    activity: &Activity,
    now: Option<Timestamp>,
) -> sqlx::Result<u64> {
    let marks = Marks::of(activity);
    let found = sqlx::query_scalar!(
        r#"
            with clock as materialized (
                select coalesce($6::timestamptz, now()) as now
            ), marks (workspace_id, owner_id, at) as (
                select * from unnest($1::uuid[], $2::uuid[], $3::timestamptz[])
                union all
                select chats.workspace_id, chats.owner_id, answered.at
                from unnest($4::uuid[], $5::timestamptz[]) as answered (id, at)
                join chats using (id)
            ), seen as (
                select workspace_id, owner_id, max(at) as at from marks group by 1, 2
            ), found as materialized (
                select w.id, clock.now, least(seen.at, clock.now) as at,
                       case
                           when '0' < given.time and w.deadline - 0.95 * given.time < clock.now
                           then greatest(w.deadline, least(clock.now + given.time, w.max_deadline))
                           else w.deadline
                       end as deadline
                from clock cross join seen
                join workspaces w on w.id = seen.workspace_id and w.owner_id = seen.owner_id
                join template_versions v on v.id = w.template_version_id
                join templates t on t.id = v.template_id
                left join runs r on r.run_id = w.build_id and r.status in ('waiting', 'error')
                left join builds b on b.id = r.run_id and b.transition in ('start', 'claim')
                cross join lateral (
                    select extract(epoch from w.next_start_at - clock.now)::float8 as to_start,
                           coalesce(case when t.user_ttl_allowed then w.ttl_s end, t.ttl_s) as ttl
                ) start
                cross join lateral (
                    select interval '1 second' * case
                        when b.id is null or t.activity_bump_s = 0 then null
                        when 0 < start.to_start and start.to_start < t.activity_bump_s
                        then coalesce(start.to_start + start.ttl, t.activity_bump_s)
                        else t.activity_bump_s
                    end as time
                ) given
                where not w.deleted
                order by w.id
                for no key update of w
            ), moved as (
                update workspaces w
                set (last_used_at, deadline, updated_at) = (
                    greatest(w.last_used_at, found.at), found.deadline,
                    case when w.deadline <> found.deadline then found.now else w.updated_at end
                )
                from found
                where w.id = found.id
                  and (w.last_used_at < found.at or w.deadline <> found.deadline)
            )
            select count(*) as "found!" from found
        "#,
        &marks.workspaces,
        &marks.owners,
        &marks.reported_at,
        &marks.chats,
        &marks.answered_at,
        now.map(Timestamp::time),
    )
    .fetch_one(conn)
    .await?;
    Ok(found.cast_unsigned())
}

/// What was seen, as arrays.
struct Marks {
    workspaces: Vec<Uuid>,
    owners: Vec<Uuid>,
    reported_at: Vec<OffsetDateTime>,
    chats: Vec<Uuid>,
    answered_at: Vec<OffsetDateTime>,
}

impl Marks {
    fn of(activity: &Activity) -> Self {
        let Activity { workspaces, chats } = activity;
        Self {
            workspaces: workspaces.keys().map(|(workspace, _)| workspace.uuid()).collect(),
            owners: workspaces.keys().map(|(_, owner)| owner.uuid()).collect(),
            reported_at: workspaces.values().map(|at| at.time()).collect(),
            chats: chats.keys().map(|chat| chat.uuid()).collect(),
            answered_at: chats.values().map(|at| at.time()).collect(),
        }
    }
}
