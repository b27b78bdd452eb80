-- How models are asked.
create table model_configs (
    name text primary key,
    provider text not null,
    model text not null,
    context_limit integer,
    max_output_tokens integer,
    temperature double precision,
    reasoning_effort text
        constraint model_configs_reasoning_effort
        check (reasoning_effort in ('minimal', 'low', 'medium', 'high')),
    compact_at smallint,
    is_default boolean not null default false,
    updated_at timestamptz not null default now()
);

-- At most one.
create unique index model_configs_default on model_configs (is_default) where is_default;

comment on table model_configs is 'How models are asked: what chats name, and what providers are told.';
comment on column model_configs.name is 'What chats call it.';
comment on column model_configs.provider is 'Whom to ask: a provider of the settings.';
comment on column model_configs.model is 'What the provider calls it.';
comment on column model_configs.compact_at is 'Percentage of the context limit from which a history is summarised.';
comment on column model_configs.is_default is 'Whether chats that name no model get this one.';
