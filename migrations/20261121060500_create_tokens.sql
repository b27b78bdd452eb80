create type token_kind as enum ('admin', 'user', 'agent');

create table tokens (
    id uuid primary key,
    kind token_kind not null,
    owner_id uuid not null,
    name text not null,
    hash bytea not null unique,
    created_at timestamptz not null default now(),
    revoked_at timestamptz,
    constraint tokens_hash_is_sha256 check (octet_length(hash) = 32)
);

comment on table tokens is 'Who may call the API.';
comment on column tokens.owner_id is 'Whom the caller acts for; of an agent''s token, the agent.';
comment on column tokens.hash is 'SHA-256 of the token, which is random and shown once.';
