-- PROTOCOL.md §3 in SQLite's spelling. Times are microseconds since the Unix epoch, ids are 16 bytes.
-- Differences: an output's spec is only in its job's spec (one truth, half the bytes of a submission), "solo" is a bit of
-- a task's class (claims look for it by index), a worker's row says no more than where it is, and tables whose key is
-- all they are looked up by have no rowid (one tree instead of two). `task_progress` serves controls that share a
-- record; this one has a single control, which has the reports in memory.
-- `meta` is made by the migration runner, because it holds the schema's number.
create table sessions(id blob primary key, name text not null, addr text, started_at bigint not null, expires_at bigint not null);
create table workers(id text not null, boot blob not null, addr text not null, session_id blob, seen_at bigint not null,
  primary key(id, boot)) without rowid;
create table jobs(id blob primary key, tenant text not null, status smallint not null default 0,
  run int not null default 1, seq bigint not null default 1, cancel_at bigint, priority smallint not null default 0,
  spec text not null, media text, plan text, progress_hw int not null default 0, failure text,
  idem_key text, idem_fp blob, idem_until bigint, created_at bigint not null, started_at bigint, finished_at bigint,
  deleted_at bigint, expires_at bigint,
  check((status >= 2) = (finished_at is not null)), check((idem_key is null) = (idem_until is null)),
  check(progress_hw between 0 and 1000), check(status <> 2 or cancel_at is null or cancel_at <= finished_at));
create index jobs_list on jobs(tenant, id) where deleted_at is null;
create index jobs_status on jobs(tenant, status, id) where deleted_at is null;
create unique index jobs_idem on jobs(tenant, idem_key) where idem_key is not null;
create index jobs_idem_exp on jobs(idem_until) where idem_key is not null;
create index jobs_exp on jobs(expires_at) where expires_at is not null;
create index jobs_finished on jobs(finished_at) where finished_at is not null;
create index jobs_deleted on jobs(deleted_at) where deleted_at is not null;
create table job_labels(tenant text not null, k text not null, v text not null, job_id blob not null,
  primary key(tenant, k, v, job_id)) without rowid;
-- An empty `sealed` is a wiped one: the row stays, so that `retry` can say why it refuses.
create table job_secrets(job_id blob primary key, key_id text not null, sealed blob not null, wipe_at bigint) without rowid;
create index secrets_wipe on job_secrets(wipe_at) where wipe_at is not null;
create table outputs(job_id blob not null, idx smallint not null, status smallint not null default 0,
  result text, failure text, publication blob, primary key(job_id, idx),
  check((status = 4) = (publication is not null))) without rowid;
create table gates(job_id blob not null, gate smallint not null, remaining int not null, primary key(job_id, gate), check(remaining >= 0));
create table tasks(id blob primary key, job_id blob not null, job_run int not null, kind smallint not null,
  state smallint not null,
  gate_in smallint, gate_out smallint, twin_of blob, tenant text not null, class smallint not null, rank bigint not null, not_before bigint,
  epoch int not null default 0, run_id blob, session_id blob, worker_id text, worker_boot blob,
  charged smallint not null default 0, losses smallint not null default 0, crashes smallint not null default 0,
  disk_need bigint not null default 0, cost bigint not null default 0, work text not null, result text,
  check((state in (3,4)) = (run_id is not null and session_id is not null and worker_boot is not null)),
  check((state = 1) = (not_before is not null))) without rowid;
create index tasks_ready on tasks(class, tenant, rank, id) where state = 2;
create index tasks_delayed on tasks(not_before) where state = 1;
create index tasks_session on tasks(session_id, id) where state in (3,4);
create index tasks_job on tasks(job_id, state);
create table runs(id blob primary key, task_id blob not null, job_id blob not null, epoch int not null, worker_id text, started_at bigint not null,
  ended_at bigint, outcome smallint, code text, charged smallint, log_tail text, unique(task_id, epoch), check((ended_at is null) = (outcome is null)));
create index runs_job on runs(job_id, started_at);
create table publications(id blob primary key, job_id blob not null, idx smallint not null, run_id blob not null, epoch int not null,
  handle text not null, manifest text not null, state smallint not null default 0, permit_until bigint, unique(job_id, idx, epoch));
create table job_events(job_id blob not null, seq bigint not null, kind smallint not null, data text not null, at bigint not null,
  primary key(job_id, seq)) without rowid;
create table deliveries(id blob primary key, job_id blob not null, seq bigint not null, body text not null, sealed_url blob not null,
  state smallint not null default 0, tries smallint not null default 0, next_at bigint, session_id blob, last text, check((state = 0) = (next_at is not null)));
create index deliveries_due on deliveries(next_at) where state = 0;
create index deliveries_job on deliveries(job_id);
-- `key` is the client's file name, `etag` the SHA-256 of the whole; state 0 open, 1 whole.
create table uploads(id blob primary key, tenant text not null, key text not null, size bigint not null, etag text, state smallint not null default 0,
  refs int not null default 0, expires_at bigint);
create index uploads_exp on uploads(expires_at) where expires_at is not null;
create table garbage(id blob primary key, job_id blob, what text not null, not_before bigint not null, tries smallint not null default 0);
create index garbage_due on garbage(not_before);
