create type prebuild_status as enum ('starting', 'ready', 'deleting', 'failed');

-- Narrow, since it is counted as a whole, again and again.
create table prebuilds (
    workspace_id uuid primary key references workspaces (id),
    preset_id uuid not null references presets (id),
    status prebuild_status not null,
    build_id uuid not null references builds (id),
    failures smallint not null default 0,
    created_at timestamptz not null default now(),
    retry_at timestamptz
)
with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

-- Counts them by preset, and finds the oldest.
create index prebuilds_of_preset on prebuilds (preset_id, status, created_at)
    include (workspace_id, retry_at);
-- Those whose builds are under way: how they stand is asked of their runs.
create index prebuilds_moving on prebuilds (preset_id) include (build_id, status)
    where status in ('starting', 'deleting');

comment on table prebuilds is 'Prebuilds, from the order to build one to its claim or the end of its deletion.';
comment on column prebuilds.failures is 'How often it could not be deleted.';
comment on column prebuilds.retry_at is 'Of a failed one: when it may be deleted.';

create table prebuild_settings (
    only_row boolean primary key default true check (only_row),
    paused boolean not null default false
);

insert into prebuild_settings default values;

comment on table prebuild_settings is 'One row: what operators set for all prebuilds.';
comment on column prebuild_settings.paused is 'Nothing is created or deleted while it is set.';
