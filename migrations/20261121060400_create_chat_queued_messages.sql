create table chat_queued_messages (
    id bigint generated always as identity primary key,
    chat_id uuid not null references chats (id) on delete cascade,
    position bigint not null,
    content jsonb not null,
    model text,
    created_by uuid,
    created_at timestamptz not null default now(),
    constraint chat_queued_messages_in_order unique (chat_id, position)
);

comment on table chat_queued_messages is 'Turns that wait while their chat is busy.';
comment on column chat_queued_messages.position is 'The lowest is the head; changed only under the lock of the chat''s run.';
comment on column chat_queued_messages.model is 'The model chosen when the turn was queued.';
