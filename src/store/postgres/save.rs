//! Writes what any number of transitions changed, one statement per table, in the transaction that read the jobs.

use sqlx::PgConnection;
use uuid::Uuid;

use super::super::delta::{Delta, JobColumns, TaskWrite, document, log_tail};
use super::super::records::PERMIT_MICROS;
use super::super::row::{event_data, inconsistent, to_json};
use super::super::shared::Shared;
use super::super::{Garbage, Result};
use super::error::explain;
use super::outbox::tell;
use crate::domain::machine::SecretsFate;
use crate::domain::{JobId, JobRecord, PublicationId, PublicationState, TaskRecord, Timestamp};

/// Writes the differences and the effects. Unchanged rows are not touched.
pub(super) async fn save(conn: &mut PgConnection, shared: &Shared, deltas: &[Delta]) -> Result<()> {
    begin_runs(conn, deltas).await?;
    end_runs(conn, deltas).await?;
    write_jobs(conn, deltas).await?;
    fold_tasks(conn, deltas).await?;
    update_tasks(conn, deltas).await?;
    insert_tasks(conn, deltas).await?;
    write_outputs(conn, deltas).await?;
    write_publications(conn, deltas).await?;
    write_events(conn, deltas).await?;
    tell(conn, shared, deltas).await?;
    write_secrets(conn, deltas).await
}

/// One parameter of a statement over many rows.
pub(super) fn column<T, V>(rows: &[T], value: impl Fn(&T) -> V) -> Vec<V> {
    rows.iter().map(value).collect()
}

/// The rows that some of the jobs have, each with its job.
fn rows<'d, T: 'd, I: IntoIterator<Item = T>>(
    deltas: &'d [Delta],
    of: impl Fn(&'d Delta) -> I,
) -> Vec<(JobId, T)> {
    deltas.iter().flat_map(|delta| of(delta).into_iter().map(|row| (delta.job(), row))).collect()
}

async fn begin_runs(conn: &mut PgConnection, deltas: &[Delta]) -> Result<()> {
    let begun = rows(deltas, |delta| &delta.effects.begun);
    if begun.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into runs(id, task_id, job_id, epoch, worker_id, started_at) \
         select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::text[], $6::bigint[])",
    )
    .bind(column(&begun, |(_, run)| run.run.uuid()))
    .bind(column(&begun, |(_, run)| run.task.uuid()))
    .bind(column(&begun, |(job, _)| job.uuid()))
    .bind(column(&begun, |(_, run)| i64::from(run.epoch.0)))
    .bind(column(&begun, |(_, run)| run.worker.as_str().to_owned()))
    .bind(column(&begun, |(_, run)| run.started_at.micros()))
    .execute(conn)
    .await
    .map_err(explain("writing runs"))?;
    Ok(())
}

/// What was reported of a run is of no use after its end.
async fn end_runs(conn: &mut PgConnection, deltas: &[Delta]) -> Result<()> {
    let ended = rows(deltas, |delta| delta.effects.ended.iter().map(|end| (end, delta.now)));
    if ended.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "update runs r set ended_at = v.ended_at, outcome = v.outcome, code = v.code, log_tail = v.log_tail \
         from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::text[]) \
         v(id, ended_at, outcome, code, log_tail) where r.id = v.id and r.ended_at is null",
    )
    .bind(column(&ended, |(_, (end, _))| end.run.uuid()))
    .bind(column(&ended, |(_, (_, now))| now.micros()))
    .bind(column(&ended, |(_, (end, _))| end.outcome.number()))
    .bind(column(&ended, |(_, (end, _))| end.failure.as_ref().map(|f| f.code.as_str().to_owned())))
    // A tool may write anything; PostgreSQL's text may not hold this one character.
    .bind(column(&ended, |(_, (end, _))| log_tail(end).map(|log| log.replace('\0', "\u{fffd}"))))
    .execute(&mut *conn)
    .await
    .map_err(explain("writing runs"))?;
    sqlx::query("delete from task_progress where job_id = any($1)")
        .bind(column(&ended, |(job, _)| job.uuid()))
        .execute(conn)
        .await
        .map_err(explain("removing reports"))?;
    Ok(())
}

async fn write_jobs(conn: &mut PgConnection, deltas: &[Delta]) -> Result<()> {
    let mut jobs: Vec<(&JobRecord, JobColumns)> = Vec::with_capacity(deltas.len());
    for delta in deltas {
        jobs.extend(delta.columns()?.map(|columns| (&delta.after.job, columns)));
    }
    if jobs.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "update jobs j set status = v.status, run = v.run, seq = v.seq, cancel_at = v.cancel_at, media = v.media, \
         plan = v.plan, progress_hw = v.progress_hw, failure = v.failure, started_at = v.started_at, \
         finished_at = v.finished_at, deleted_at = coalesce(v.deleted_at, j.deleted_at) \
         from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], \
         $8::bigint[], $9::text[], $10::bigint[], $11::bigint[], $12::bigint[]) \
         v(id, status, run, seq, cancel_at, media, plan, progress_hw, failure, started_at, finished_at, deleted_at) \
         where j.id = v.id",
    )
    .bind(column(&jobs, |(job, _)| job.id.uuid()))
    .bind(column(&jobs, |(job, _)| job.status.number()))
    .bind(column(&jobs, |(job, _)| i64::from(job.run.0)))
    .bind(column(&jobs, |(job, _)| job.seq))
    .bind(column(&jobs, |(job, _)| job.cancel_at.map(Timestamp::micros)))
    .bind(column(&jobs, |(_, columns)| columns.media.clone()))
    .bind(column(&jobs, |(_, columns)| columns.plan.clone()))
    .bind(column(&jobs, |(job, _)| i64::from(job.progress.permille())))
    .bind(column(&jobs, |(_, columns)| columns.failure.clone()))
    .bind(column(&jobs, |(job, _)| job.started_at.map(Timestamp::micros)))
    .bind(column(&jobs, |(job, _)| job.finished_at.map(Timestamp::micros)))
    .bind(column(&jobs, |(_, columns)| columns.deleted_at.map(Timestamp::micros)))
    .execute(conn)
    .await
    .map_err(explain("writing jobs"))?;
    Ok(())
}

async fn fold_tasks(conn: &mut PgConnection, deltas: &[Delta]) -> Result<()> {
    let ended: Vec<Uuid> = deltas.iter().filter(|d| d.folds()).map(|d| d.job().uuid()).collect();
    if !ended.is_empty() {
        sqlx::query("delete from tasks where job_id = any($1)")
            .bind(ended)
            .execute(conn)
            .await
            .map_err(explain("folding tasks"))?;
    }
    Ok(())
}

/// F1 once more in SQL: each row is still as it was read.
async fn update_tasks(conn: &mut PgConnection, deltas: &[Delta]) -> Result<()> {
    let updates = rows(deltas, |delta| {
        delta.tasks().filter_map(|write| match write {
            TaskWrite::Update { was, is } => Some((was, is)),
            TaskWrite::Insert(_) => None,
        })
    });
    if updates.is_empty() {
        return Ok(());
    }
    let hold = |task: &TaskRecord| task.hold.clone();
    let done = sqlx::query(
        "update tasks t set state = v.state, rank = v.rank, not_before = v.not_before, epoch = v.epoch, \
         run_id = v.run_id, session_id = v.session_id, worker_id = v.worker_id, worker_boot = v.worker_boot, \
         charged = v.charged, losses = v.losses, crashes = v.crashes, class = v.class \
         from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::uuid[], $7::uuid[], \
         $8::text[], $9::uuid[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], \
         $15::bigint[], $16::uuid[]) v(id, state, rank, not_before, epoch, run_id, session_id, worker_id, \
         worker_boot, charged, losses, crashes, class, was_state, was_epoch, was_run) \
         where t.id = v.id and t.state = v.was_state and t.epoch = v.was_epoch \
         and t.run_id is not distinct from v.was_run",
    )
    .bind(column(&updates, |(_, (_, is))| is.id.uuid()))
    .bind(column(&updates, |(_, (_, is))| is.state.number()))
    .bind(column(&updates, |(_, (_, is))| is.rank))
    .bind(column(&updates, |(_, (_, is))| is.not_before.map(Timestamp::micros)))
    .bind(column(&updates, |(_, (_, is))| i64::from(is.epoch.0)))
    .bind(column(&updates, |(_, (_, is))| hold(is).map(|hold| hold.run.uuid())))
    .bind(column(&updates, |(_, (_, is))| hold(is).map(|hold| hold.session.uuid())))
    .bind(column(&updates, |(_, (_, is))| hold(is).map(|hold| hold.worker.as_str().to_owned())))
    .bind(column(&updates, |(_, (_, is))| hold(is).map(|hold| hold.boot.uuid())))
    .bind(column(&updates, |(_, (_, is))| i64::from(is.charged)))
    .bind(column(&updates, |(_, (_, is))| i64::from(is.losses)))
    .bind(column(&updates, |(_, (_, is))| i64::from(is.crashes)))
    .bind(column(&updates, |(_, (_, is))| is.class.number()))
    .bind(column(&updates, |(_, (was, _))| was.state.number()))
    .bind(column(&updates, |(_, (was, _))| i64::from(was.epoch.0)))
    .bind(column(&updates, |(_, (was, _))| hold(was).map(|hold| hold.run.uuid())))
    .execute(conn)
    .await
    .map_err(explain("writing tasks"))?;
    if usize::try_from(done.rows_affected()) == Ok(updates.len()) {
        Ok(())
    } else {
        Err(inconsistent("tasks", "a row changed under its transaction"))
    }
}

async fn insert_tasks(conn: &mut PgConnection, deltas: &[Delta]) -> Result<()> {
    let inserts = rows(deltas, |delta| {
        let tenant = &delta.after.job.tenant;
        delta.tasks().filter_map(move |write| match write {
            TaskWrite::Insert(task) => Some((tenant, task)),
            TaskWrite::Update { .. } => None,
        })
    });
    if inserts.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into tasks(id, job_id, job_run, kind, state, tenant, class, rank, epoch, charged, losses) \
         select * from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], \
         $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])",
    )
    .bind(column(&inserts, |(_, (_, task))| task.id.uuid()))
    .bind(column(&inserts, |(job, _)| job.uuid()))
    .bind(column(&inserts, |(_, (_, task))| i64::from(task.job_run.0)))
    .bind(column(&inserts, |(_, (_, task))| task.kind.number()))
    .bind(column(&inserts, |(_, (_, task))| task.state.number()))
    .bind(column(&inserts, |(_, (tenant, _))| tenant.as_str().to_owned()))
    .bind(column(&inserts, |(_, (_, task))| task.class.number()))
    .bind(column(&inserts, |(_, (_, task))| task.rank))
    .bind(column(&inserts, |(_, (_, task))| i64::from(task.epoch.0)))
    .bind(column(&inserts, |(_, (_, task))| i64::from(task.charged)))
    .bind(column(&inserts, |(_, (_, task))| i64::from(task.losses)))
    .execute(conn)
    .await
    .map_err(explain("writing tasks"))?;
    Ok(())
}

async fn write_outputs(conn: &mut PgConnection, deltas: &[Delta]) -> Result<()> {
    let outputs = rows(deltas, Delta::outputs);
    if outputs.is_empty() {
        return Ok(());
    }
    let (mut results, mut failures) = (Vec::new(), Vec::new());
    for (_, output) in &outputs {
        results.push(document("outputs", output.result.as_ref())?);
        failures.push(document("outputs", output.failure.as_ref())?);
    }
    sqlx::query(
        "update outputs o set status = v.status, result = v.result, failure = v.failure, publication = v.publication \
         from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::uuid[]) \
         v(job_id, idx, status, result, failure, publication) where o.job_id = v.job_id and o.idx = v.idx::smallint",
    )
    .bind(column(&outputs, |(job, _)| job.uuid()))
    .bind(column(&outputs, |(_, output)| i64::from(output.index.0)))
    .bind(column(&outputs, |(_, output)| output.status.number()))
    .bind(results)
    .bind(failures)
    .bind(column(&outputs, |(_, output)| output.publication.map(PublicationId::uuid)))
    .execute(conn)
    .await
    .map_err(explain("writing outputs"))?;
    Ok(())
}

async fn write_publications(conn: &mut PgConnection, deltas: &[Delta]) -> Result<()> {
    let all = rows(deltas, |delta| delta.publications().map(|publication| (publication, delta.now)));
    if all.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into publications(id, job_id, idx, run_id, epoch, handle, manifest, state, permit_until) \
         select * from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::uuid[], $5::bigint[], $6::text[], \
         $7::text[], $8::bigint[], $9::bigint[]) on conflict(id) do update set state = excluded.state",
    )
    .bind(column(&all, |(_, (publication, _))| publication.id.uuid()))
    .bind(column(&all, |(job, _)| job.uuid()))
    .bind(column(&all, |(_, (publication, _))| i64::from(publication.output.0)))
    .bind(column(&all, |(_, (publication, _))| publication.run.uuid()))
    .bind(column(&all, |(_, (publication, _))| i64::from(publication.epoch.0)))
    .bind(column(&all, |(_, (publication, _))| publication.handle.clone()))
    .bind(column(&all, |(_, (publication, _))| publication.manifest.clone()))
    .bind(column(&all, |(_, (publication, _))| publication.state.number()))
    .bind(column(&all, |(_, (publication, now))| {
        let open = publication.state == PublicationState::Open;
        open.then(|| now.micros().saturating_add(PERMIT_MICROS))
    }))
    .execute(conn)
    .await
    .map_err(explain("writing publications"))?;
    Ok(())
}

async fn write_events(conn: &mut PgConnection, deltas: &[Delta]) -> Result<()> {
    let events = rows(deltas, |delta| &delta.effects.events);
    if events.is_empty() {
        return Ok(());
    }
    let data = events.iter().map(|(_, event)| event_data(event)).collect::<Result<Vec<_>>>()?;
    sqlx::query(
        "insert into job_events(job_id, seq, kind, data, at) \
         select * from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[])",
    )
    .bind(column(&events, |(job, _)| job.uuid()))
    .bind(column(&events, |(_, event)| event.seq))
    .bind(column(&events, |(_, event)| event.kind.number()))
    .bind(data)
    .bind(column(&events, |(_, event)| event.at.micros()))
    .execute(conn)
    .await
    .map_err(explain("writing events"))?;
    Ok(())
}

async fn write_secrets(conn: &mut PgConnection, deltas: &[Delta]) -> Result<()> {
    let (mut gone, mut due) = (Vec::new(), Vec::new());
    for delta in deltas {
        let job = delta.job().uuid();
        match delta.effects.secrets {
            SecretsFate::Unchanged => {}
            SecretsFate::Keep => due.push((job, None)),
            SecretsFate::WipeAt(at) => due.push((job, Some(at.micros()))),
            SecretsFate::WipeNow => gone.push(job),
        }
    }
    if !gone.is_empty() {
        sqlx::query("update job_secrets set sealed = '', wipe_at = null where job_id = any($1)")
            .bind(gone)
            .execute(&mut *conn)
            .await
            .map_err(explain("wiping secrets"))?;
    }
    if !due.is_empty() {
        sqlx::query(
            "update job_secrets s set wipe_at = v.wipe_at from unnest($1::uuid[], $2::bigint[]) v(job_id, wipe_at) \
             where s.job_id = v.job_id and s.sealed <> ''",
        )
        .bind(column(&due, |(job, _)| *job))
        .bind(column(&due, |(_, at)| *at))
        .execute(conn)
        .await
        .map_err(explain("writing secrets"))?;
    }
    Ok(())
}

/// Leaves something for the sweeper.
pub(super) async fn write_garbage(
    conn: &mut PgConnection,
    garbage: &[Garbage],
    due: Timestamp,
) -> Result<()> {
    let what = garbage.iter().map(|g| to_json("garbage", &g.what)).collect::<Result<Vec<_>>>()?;
    sqlx::query(
        "insert into garbage(id, what, not_before, folder) \
         select id, what, $3, folder from unnest($1::uuid[], $2::text[], $4::bigint[]) v(id, what, folder)",
    )
    .bind(column(garbage, |g| g.id))
    .bind(what)
    .bind(due.micros())
    .bind(column(garbage, |g| g.what.folder().number()))
    .execute(conn)
    .await
    .map_err(explain("writing garbage"))?;
    Ok(())
}
