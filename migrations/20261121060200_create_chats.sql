create table chats (
    id uuid primary key references runs (run_id),
    owner_id uuid not null,
    workspace_id uuid,
    parent_id uuid references chats (id) on delete set null,
    root_id uuid references chats (id) on delete set null,
    model text,
    title text not null,
    archived boolean not null default false,
    last_read_message_id bigint,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create index chats_of_owner on chats (owner_id, updated_at desc, id desc);
create index chats_of_parent on chats (parent_id);
create index chats_of_root on chats (root_id);

comment on table chats is 'Chats; where one stands is in its run.';
comment on column chats.id is 'The id of its run.';
comment on column chats.root_id is 'The first ancestor; null for a root.';
comment on column chats.model is 'The model of the next turn, unless that names another.';
comment on column chats.updated_at is 'Orders the list: moves on create, user message, finished turn, title and archive.';
