-- What workspaces are built from: a template has versions, one of which is active; a version has
-- presets, each of which may want prebuilds.
create table templates (
    id uuid primary key,
    name text not null,
    active_version_id uuid,
    deprecated boolean not null default false,
    deleted boolean not null default false,
    ttl_s integer,
    max_ttl_s integer,
    user_ttl_allowed boolean not null default true,
    activity_bump_s integer not null default 3600,
    created_at timestamptz not null default now()
);

create unique index templates_names on templates (lower(name)) where not deleted;

comment on table templates is 'What workspaces are built from.';
comment on column templates.deprecated is 'No workspaces are made of it any more; those that are there go on.';
comment on column templates.ttl_s is 'How long a started workspace may run, unless it says otherwise; null for ever.';
comment on column templates.max_ttl_s is 'How far activity may extend that; null for ever.';
comment on column templates.user_ttl_allowed is 'Whether a workspace may say otherwise.';
comment on column templates.activity_bump_s is 'How far activity moves a deadline; 0 for not at all.';

create table template_versions (
    id uuid primary key,
    template_id uuid not null references templates (id),
    name text not null,
    source text not null,
    created_at timestamptz not null default now(),
    unique (template_id, name)
);

alter table templates add constraint templates_active_version
    foreign key (active_version_id) references template_versions (id);

comment on table template_versions is 'Versions of templates; none is changed or taken away.';
comment on column template_versions.source is 'What it is made of, as its provisioner reads it.';

create type preset_health as enum ('healthy', 'hard_limited', 'validation_failed');

create table presets (
    id uuid primary key,
    template_version_id uuid not null references template_versions (id),
    name text not null,
    parameters jsonb not null default '{}',
    desired_instances integer not null default 0,
    ttl_s integer,
    timezone text not null default 'UTC',
    schedules jsonb not null default '[]',
    health preset_health not null default 'healthy',
    failures integer not null default 0,
    failed_at timestamptz,
    invalidated_at timestamptz,
    short_since timestamptz,
    deleted boolean not null default false,
    created_at timestamptz not null default now()
)
with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

create unique index presets_names on presets (template_version_id, name) where not deleted;

comment on table presets is 'Parameters with which workspaces of a version are built, and how many are to stand ready.';
comment on column presets.ttl_s is 'After how long a prebuild is replaced; null for never.';
comment on column presets.schedules is 'When it wants others: [{"cron", "desired_instances"}].';
comment on column presets.health is 'Whether prebuilds of it are made at all.';
comment on column presets.failures is 'How many builds of its prebuilds failed in a row.';
comment on column presets.invalidated_at is 'Prebuilds from before are replaced.';
comment on column presets.short_since is 'Since when prebuilds are missing that were claimed; null when none is.';
