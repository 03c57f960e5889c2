-- PROTOCOL.md §3 in PostgreSQL's spelling. Times are microseconds since the Unix epoch.
-- Differences, as in SQLite's schema: an output's spec is only in its job's spec, "solo" is a bit of a task's class, a
-- worker's row says no more than where it is, a delivery's and a gate's tables come with what uses them.
-- Besides: reports of progress go with their job, so that is how they are found, and `duties` says which session does
-- what only one control may do. Names that are compared here and in the program are compared by their bytes.
-- `meta` is made by the migration runner, because it holds the schema's number.
create function flux_now() returns bigint language sql volatile
  as $$ select (extract(epoch from clock_timestamp()) * 1000000)::bigint $$;
create table sessions(id uuid primary key, name text not null, addr text, started_at bigint not null, expires_at bigint not null);
create table duties(name text primary key, session_id uuid not null);
create table workers(id text not null, boot uuid not null, addr text not null, session_id uuid, seen_at bigint not null,
  primary key(id, boot));
create table jobs(id uuid primary key, tenant text collate "C" not null, status smallint not null default 0,
  run int not null default 1, seq bigint not null default 1, cancel_at bigint, priority smallint not null default 0,
  spec text not null, media text, plan text, progress_hw int not null default 0, failure text,
  idem_key text, idem_fp bytea, idem_until bigint, created_at bigint not null, started_at bigint, finished_at bigint,
  deleted_at bigint, expires_at bigint,
  check((status >= 2) = (finished_at is not null)), check((idem_key is null) = (idem_until is null)),
  check(progress_hw between 0 and 1000), check(status <> 2 or cancel_at is null or cancel_at <= finished_at))
  with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01);
create index jobs_list on jobs(tenant, id) where deleted_at is null;
create index jobs_status on jobs(tenant, status, id) where deleted_at is null;
create unique index jobs_idem on jobs(tenant, idem_key) where idem_key is not null;
create index jobs_idem_exp on jobs(idem_until) where idem_key is not null;
create index jobs_finished on jobs(finished_at) where finished_at is not null;
create index jobs_deleted on jobs(deleted_at) where deleted_at is not null;
create table job_labels(tenant text collate "C" not null, k text not null, v text not null, job_id uuid not null,
  primary key(tenant, k, v, job_id));
-- An empty `sealed` is a wiped one: the row stays, so that `retry` can say why it refuses.
create table job_secrets(job_id uuid primary key, key_id text not null, sealed bytea not null, wipe_at bigint);
create index secrets_wipe on job_secrets(wipe_at) where wipe_at is not null;
create table outputs(job_id uuid not null, idx smallint not null, status smallint not null default 0,
  result text, failure text, publication uuid, primary key(job_id, idx),
  check((status = 4) = (publication is not null)))
  with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01);
create table tasks(id uuid primary key, job_id uuid not null, job_run int not null, kind smallint not null,
  state smallint not null,
  tenant text collate "C" not null, class integer not null, rank bigint not null, not_before bigint,
  epoch int not null default 0, run_id uuid, session_id uuid, worker_id text, worker_boot uuid,
  charged smallint not null default 0, losses smallint not null default 0, crashes smallint not null default 0,
  check((state in (3,4)) = (run_id is not null and session_id is not null and worker_boot is not null)),
  check((state = 1) = (not_before is not null)))
  with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01);
create index tasks_ready on tasks(class, tenant, rank, id) where state = 2;
create index tasks_delayed on tasks(not_before) where state = 1;
create index tasks_session on tasks(session_id, id) where state in (3,4);
create index tasks_job on tasks(job_id);
create table runs(id uuid primary key, task_id uuid not null, job_id uuid not null, epoch int not null, worker_id text,
  started_at bigint not null, ended_at bigint, outcome smallint, code text, log_tail text, unique(task_id, epoch),
  check((ended_at is null) = (outcome is null))) with (fillfactor = 80);
create index runs_job on runs(job_id);
create table publications(id uuid primary key, job_id uuid not null, idx smallint not null, run_id uuid not null, epoch int not null,
  handle text not null, manifest text not null, state smallint not null default 0, permit_until bigint, unique(job_id, idx, epoch))
  with (fillfactor = 80);
create unlogged table task_progress(job_id uuid not null, task_id uuid not null, v text not null, at bigint not null,
  primary key(job_id, task_id)) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01);
create table job_events(job_id uuid not null, seq bigint not null, kind smallint not null, data text not null, at bigint not null,
  primary key(job_id, seq));
-- `key` is the client's file name, `etag` the SHA-256 of the whole; state 0 open, 1 whole.
create table uploads(id uuid primary key, tenant text not null, key text not null, size bigint not null, etag text,
  state smallint not null default 0, refs int not null default 0, expires_at bigint);
create index uploads_exp on uploads(expires_at) where expires_at is not null;
create table garbage(id uuid primary key, job_id uuid, what text not null, not_before bigint not null, tries smallint not null default 0);
create index garbage_due on garbage(not_before);
