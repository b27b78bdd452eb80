-- A run is what a worker owns; it bears the id of the thing that runs, whatever its kind.
create type run_status as enum ('waiting', 'pending', 'running', 'interrupting', 'error');

create table runs (
    run_id uuid primary key,
    kind text not null,
    status run_status not null,
    worker_id uuid,
    fence bigint not null default 0,
    step bigint not null default 0,
    stop boolean not null default false,
    attempts integer not null default 0,
    version bigint not null default 0,
    owner_id uuid not null,
    round bigint not null default 0,
    ready_at timestamptz not null default now(),
    started_at timestamptz,
    error text,
    constraint runs_owned_when_active
        check ((status in ('running', 'interrupting')) = (worker_id is not null)),
    constraint runs_error_when_failed check ((status = 'error') = (error is not null))
)
with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

-- On worker_id alone: a beat reads the roll through it.
create index runs_owned on runs (worker_id) where status in ('running', 'interrupting');
create index runs_pending on runs (kind, round, ready_at) where status = 'pending';
-- Finds the last round of an owner.
create index runs_pending_of_owner on runs (kind, owner_id, round) where status = 'pending';

comment on table runs is 'The narrow, hot state of everything that runs.';
comment on column runs.worker_id is 'Who owns it; no foreign key, since a lease may vanish before its runs are found.';
comment on column runs.fence is 'Grows when the run changes hands; a writer with an old one is refused.';
comment on column runs.step is 'Counts the owner''s writes, so that a repeated one is recognised.';
comment on column runs.stop is 'An interrupt that the next owner has to finish.';
comment on column runs.attempts is 'Requeues by a reaper since the owner''s last write.';
comment on column runs.version is 'Grows with each change that readers can see: their cursor.';
comment on column runs.round is 'Fairness: pending runs are claimed round by round, one of an owner in each.';
comment on column runs.ready_at is 'Not claimed before, on the database''s clock.';
comment on column runs.error is 'Why the run stands in error.';
