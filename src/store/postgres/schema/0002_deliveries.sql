-- `event` and `host` are told to people and bound concurrency without opening the address; an empty `sealed_url` is a
-- wiped one. `session_id` is the claim, `since` the beginning of the present round of tries. The states are numbered in
-- domain::DeliveryState.
create table deliveries(id uuid primary key, job_id uuid not null, seq bigint not null, event text not null, host text not null,
  body text not null, key_id text not null, sealed_url bytea not null, state smallint not null default 0,
  tries int not null default 0, created_at bigint not null, since bigint not null, next_at bigint, wipe_at bigint,
  session_id uuid, last text, check((state = 0) = (next_at is not null)), check((state = 0) or (session_id is null)))
  with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01);
create index deliveries_due on deliveries(next_at) where state = 0;
create index deliveries_claimed on deliveries(session_id) where session_id is not null;
create index deliveries_job on deliveries(job_id, id);
create index deliveries_wipe on deliveries(wipe_at) where wipe_at is not null;
-- In which data folder it lies (domain::Folder); 0 = every control reaches it.
alter table garbage add column folder int not null default 0;
