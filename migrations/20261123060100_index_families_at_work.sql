-- Hardly a row has a family yet, so both are built in the time that the table takes to read.

-- Counts a family's runs at work, however many of it rest.
create index runs_at_work_of_family on runs (family_id)
    where family_id is not null and status in ('pending', 'running', 'interrupting');

-- Finds runs that others wait for, however many others are pending.
create index runs_pending_deep on runs (kind, round, ready_at) where status = 'pending' and 0 < depth;
