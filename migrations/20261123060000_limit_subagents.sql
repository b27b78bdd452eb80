-- What chats spawn: how much of it is allowed, and what those need who wait for it.
alter table chats
    add column subagent_depth_max smallint,
    add column subagents_max integer;

alter table chats add constraint chats_limits_of_roots
    check (parent_id is null or (subagent_depth_max is null and subagents_max is null)) not valid;

alter table runs
    add column family_id uuid,
    add column depth smallint not null default 0,
    add column awaits boolean not null default false;

comment on column chats.subagent_depth_max is
    'Of a root: how many ancestors a spawned chat may have; null for the deployment''s default.';
comment on column chats.subagents_max is
    'Of a root: how many of its descendants may be at work when one is spawned; null as above.';
comment on column runs.family_id is
    'The run that all of a family descend from; null for that run itself, and for rows from before.';
comment on column runs.depth is
    'How many ancestors it has, which may wait for it; 0 for rows from before.';
comment on column runs.awaits is
    'Whether its owner does nothing but wait for another run; caps do not count it. Any write of the owner ends it.';
