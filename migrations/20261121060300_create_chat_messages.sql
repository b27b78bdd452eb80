create type message_role as enum ('system', 'user', 'assistant', 'tool');
create type message_visibility as enum ('user', 'model', 'both');

create table chat_messages (
    id bigint generated always as identity primary key,
    chat_id uuid not null references chats (id) on delete cascade,
    version bigint not null,
    role message_role not null,
    content jsonb not null,
    content_bytes bigint not null generated always as (octet_length(content::text)) stored,
    visibility message_visibility not null default 'both',
    compressed boolean not null default false,
    deleted boolean not null default false,
    model text,
    created_by uuid,
    input_tokens bigint,
    output_tokens bigint,
    total_tokens bigint,
    reasoning_tokens bigint,
    cache_creation_tokens bigint,
    cache_read_tokens bigint,
    context_limit bigint,
    created_at timestamptz not null default now()
);

create index chat_messages_in_order on chat_messages (chat_id, id);
create index chat_messages_changed on chat_messages (chat_id, version);
create index chat_messages_by_role on chat_messages (chat_id, role, id desc);
-- Finds the newest summary, where the prompt begins.
create index chat_messages_summary on chat_messages (chat_id, id desc)
    where compressed and not deleted and visibility = 'model';

comment on table chat_messages is 'What was said; ids ascend in the order of a chat''s history.';
comment on column chat_messages.version is 'The chat''s version when this row last changed.';
comment on column chat_messages.content is 'An array of parts, such as {"type": "text", "text": "…"}.';
comment on column chat_messages.content_bytes is 'Lets a page be bounded in bytes without reading what it leaves out.';
comment on column chat_messages.compressed is 'Stands for older messages, as a summary does.';
comment on column chat_messages.deleted is 'Taken out of the history; kept so that readers learn of it.';
