-- A lease says that a worker is alive: one row a worker, whatever it owns.
create table worker_leases (
    worker_id uuid primary key,
    name text not null,
    advertise_url text,
    release text not null default '',
    capacity integer not null default 0,
    started_at timestamptz not null default now(),
    heartbeat_at timestamptz not null default clock_timestamp(),
    dead boolean not null default false
)
-- A beat rewrites its row in place: half of each page is kept free, and vacuum has nothing to do.
with (fillfactor = 50, autovacuum_vacuum_threshold = 1000);

comment on table worker_leases is 'Who works: one lease a start of a worker process.';
comment on column worker_leases.worker_id is 'Fresh at each start of a process, never reused.';
comment on column worker_leases.heartbeat_at is 'Last beat on the database''s clock; in no index, or beats would leave the page.';
comment on column worker_leases.dead is 'Set once by a reaper or by the worker itself; the lease claims nothing from then on.';
comment on column worker_leases.advertise_url is 'Where other replicas reach the worker.';
