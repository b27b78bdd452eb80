-- Who reports of a machine or a workspace.
create table agents (
    id uuid primary key,
    owner_id uuid not null,
    workspace_id uuid,
    name text not null,
    created_at timestamptz not null default now()
);

create index agents_of_owner on agents (owner_id);

comment on table agents is 'Who reports of a machine or a workspace, with a token of its own.';

create table agent_metadata_definitions (
    agent_id uuid not null references agents (id) on delete cascade,
    key text not null,
    display_name text not null,
    script text not null,
    interval_s integer not null,
    timeout_s integer not null,
    display_order integer not null,
    primary key (agent_id, key)
);

comment on table agent_metadata_definitions is 'What each agent is to report, and how often.';

-- Values come again with the next report, so they need not outlive a crash of the database.
create unlogged table agent_metadata (
    agent_id uuid not null,
    key text not null,
    value text not null,
    error text not null,
    collected_at timestamptz not null,
    primary key (agent_id, key)
)
with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

comment on table agent_metadata is 'The newest value of each key; empty after a crash until agents report again.';
comment on column agent_metadata.collected_at is 'When it came, by the clock of the server that took it; an older one never replaces a newer.';
