-- A workspace without an owner is a prebuild.
create table workspaces (
    id uuid primary key,
    owner_id uuid,
    template_version_id uuid not null references template_versions (id),
    preset_id uuid references presets (id),
    name text not null,
    build_id uuid not null,
    autostart_schedule text,
    next_start_at timestamptz,
    ttl_s integer,
    last_used_at timestamptz not null default now(),
    deadline timestamptz,
    max_deadline timestamptz,
    deleted boolean not null default false,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (id, owner_id)
)
-- Activity rewrites rows in place.
with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

create unique index workspaces_names on workspaces (owner_id, lower(name)) where not deleted;
-- A page of an owner's workspaces, the youngest first: ids are UUID v7.
create index workspaces_of_owner on workspaces (owner_id, id desc) where not deleted;

-- Prebuilds that were deleted and never anybody's are forgotten after a while.
create index workspaces_forgotten on workspaces (updated_at) where deleted and owner_id is null;

comment on table workspaces is 'What is built of templates; without an owner it is a prebuild.';
comment on column workspaces.build_id is 'Its newest build; no foreign key, since each is made with the other.';
comment on column workspaces.ttl_s is 'How long it may run once started; null as its template says.';
comment on column workspaces.last_used_at is 'Moved forward by activity, in no index.';
comment on column workspaces.deadline is 'Until when it is to run, moved by activity up to max_deadline; null while it is stopped or for ever.';

create type build_transition as enum ('start', 'claim', 'stop', 'delete');

create table builds (
    id uuid primary key references runs (run_id),
    workspace_id uuid not null references workspaces (id),
    transition build_transition not null,
    replacements text[] not null default '{}',
    created_at timestamptz not null default now(),
    ended_at timestamptz
);

create index builds_of_workspace on builds (workspace_id, id desc);

comment on table builds is 'What took workspaces from one state to another; where one stands is in its run.';
comment on column builds.id is 'The id of its run.';
comment on column builds.replacements is 'What a claim had to build anew, or would have to.';
comment on column builds.ended_at is 'When its worker wrote its end; null when it had no worker any more.';

create table build_logs (
    build_id uuid not null references builds (id) on delete cascade,
    fence bigint not null,
    line integer not null,
    text text not null,
    primary key (build_id, fence, line)
);

comment on table build_logs is 'What builds said, line by line.';
comment on column build_logs.fence is 'Under which ownership of the run: a build may be begun again.';
