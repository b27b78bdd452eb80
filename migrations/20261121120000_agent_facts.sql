-- Agents learn with each answer whether what they are to report was replaced.
alter table agents add column definitions_version bigint not null default 0;

comment on column agents.definitions_version is 'Counts how often its definitions were replaced.';

-- A page of an owner's agents, the youngest first: ids are UUID v7.
drop index agents_of_owner;
create index agents_of_owner on agents (owner_id, id desc);

-- An agent that is taken away takes its tokens with it.
create index tokens_of_agents on tokens (owner_id) where kind = 'agent' and revoked_at is null;

-- Keys are compared by their bytes: it is the order in which all writers lock, and the cheapest.
alter table agent_metadata_definitions alter column key type text collate "C";
alter table agent_metadata alter column key type text collate "C";

-- Values go with their definitions, and none comes without one. The crash that empties this table
-- leaves the other.
delete from agent_metadata m where not exists (
    select from agent_metadata_definitions d where d.agent_id = m.agent_id and d.key = m.key
);
alter table agent_metadata add constraint agent_metadata_are_defined
    foreign key (agent_id, key) references agent_metadata_definitions (agent_id, key)
    on delete cascade;
