-- The state of the branch that a chat works on, as its host told it last.
create table chat_diff_statuses (
    chat_id uuid primary key references chats (id) on delete cascade,
    owner_id uuid not null,
    url text,
    git_branch text not null default '',
    git_remote_origin text not null default '',
    told jsonb,
    state text generated always as (told ->> 'state') stored,
    problem text,
    failures integer not null default 0,
    marks bigint not null default 1,
    fence bigint not null default 0,
    stale_at timestamptz,
    marked_at timestamptz not null default now(),
    refreshed_at timestamptz,
    changed_in bigint not null default (pg_current_xact_id()::text::bigint),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    -- Those with the same one are answered by the same question; hashed, since names are long.
    question text generated always as
        (md5(git_remote_origin || ' ' || coalesce(url, git_branch))) stored
)
with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

create index chat_diff_statuses_stale on chat_diff_statuses (stale_at)
    where git_branch <> '' and git_remote_origin <> '';
create index chat_diff_statuses_asked on chat_diff_statuses (question, owner_id);
create index chat_diff_statuses_changed on chat_diff_statuses (owner_id, changed_in);
-- Marks come by workspace, too.
create index chats_of_workspace on chats (workspace_id) where workspace_id is not null;

comment on table chat_diff_statuses is 'Branches of chats: where the work is, and what its host told of it.';
comment on column chat_diff_statuses.owner_id is 'Its chat''s owner, who never changes.';
comment on column chat_diff_statuses.url is 'The pull request, once there is one.';
comment on column chat_diff_statuses.told is 'What the host told last, whole; null before, and after the branch changed.';
comment on column chat_diff_statuses.state is 'open, closed or merged.';
comment on column chat_diff_statuses.problem is 'Why the last attempt brought no answer.';
comment on column chat_diff_statuses.failures is 'Attempts in a row without an answer.';
comment on column chat_diff_statuses.marks is 'Grows when it is marked stale: an answer that is older leaves it stale.';
comment on column chat_diff_statuses.fence is 'Grows when it is leased or the branch changes: a write under an older one is refused.';
comment on column chat_diff_statuses.stale_at is 'From when on it may be asked about; while it is leased, until when. Null: only a mark makes it stale.';
comment on column chat_diff_statuses.changed_in is 'The transaction that last changed what readers see.';

-- Hosts that want to be left alone.
create table git_host_limits (
    owner_id uuid not null,
    origin text not null,
    until timestamptz not null,
    primary key (owner_id, origin)
);

comment on table git_host_limits is 'Until when nobody asks a host about a repository with an owner''s right.';
