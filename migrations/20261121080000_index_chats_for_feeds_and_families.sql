-- What an owner's feed and a family's list are read by.
alter table chats
    add column changed_in bigint not null default (pg_current_xact_id()::text::bigint);

create index chats_changed_of_owner on chats (owner_id, changed_in);
create index runs_active_of_owner on runs (kind, owner_id) where status in ('running', 'interrupting');

-- Families are listed oldest first.
drop index chats_of_parent;
drop index chats_of_root;
create index chats_of_parent on chats (parent_id, created_at, id);
create index chats_of_root on chats (root_id, created_at, id);

comment on column chats.changed_in is
    'The transaction that last changed the row: a feed goes on from those that had ended when it last looked.';
