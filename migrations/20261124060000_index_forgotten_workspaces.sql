-- no-transaction
-- What was somebody's and was deleted is forgotten after a while, too.
create index concurrently if not exists workspaces_of_owners_forgotten
    on workspaces (updated_at) where deleted and owner_id is not null;
