-- A chat works in a workspace of its owner. Rows from before stay as they are: their ids were
-- never checked.
alter table chats add constraint chats_of_workspaces
    foreign key (workspace_id, owner_id) references workspaces (id, owner_id) not valid;
