-- Time stamps a run, for readers who want them; liveness is the worker's lease.
create table run_heartbeats (
    run_id uuid primary key references runs (run_id) on delete cascade,
    heartbeat_at timestamptz not null
)
-- A stamp rewrites its row in place, as a beat does.
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

comment on table run_heartbeats is 'When each run was last stamped by its worker, where that is asked for.';
comment on column run_heartbeats.heartbeat_at is 'On the database''s clock; in no index, or stamps would leave the page.';
