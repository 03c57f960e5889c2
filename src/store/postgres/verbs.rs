//! Verbs that are no transitions of one job: waking, progress, uploads.

use std::collections::BTreeMap;

use super::super::row::{inconsistent, to_json};
use super::super::{Reported, Result, UploadRecord};
use super::db::{Db, Txn, Verb};
use super::error::explain;
use super::save::column;
use crate::domain::machine::BACKOFF_CAP;
use crate::domain::{TaskState, Timestamp, UploadId};

/// Touches tasks only, like a claim: a job does not change by becoming ready.
pub(super) struct WakeDelayed {
    pub(super) now: Timestamp,
}

impl Verb for WakeDelayed {
    type Answer = (u64, Option<Timestamp>);

    async fn run(&self, txn: &mut Txn, _: &Db) -> Result<Self::Answer> {
        sqlx::query(
            "with far as materialized (select id from tasks where state = 1 and not_before > $2 \
             order by not_before limit 500 for update skip locked) \
             update tasks t set not_before = $1 from far where t.id = far.id",
        )
        .bind(self.now.micros())
        .bind(self.now.plus(BACKOFF_CAP).micros())
        .execute(&mut **txn)
        .await
        .map_err(explain("waking delayed tasks"))?;
        let woken = sqlx::query(
            "with due as materialized (select id from tasks where state = 1 and not_before <= $2 \
             order by not_before limit 500 for update skip locked) \
             update tasks t set state = $1, not_before = null from due where t.id = due.id",
        )
        .bind(TaskState::Ready.number())
        .bind(self.now.micros())
        .execute(&mut **txn)
        .await
        .map_err(explain("waking delayed tasks"))?;
        let next: Option<i64> = sqlx::query_scalar("select min(not_before) from tasks where state = 1")
            .fetch_one(&mut **txn)
            .await
            .map_err(explain("waking delayed tasks"))?;
        Ok((woken.rows_affected(), next.map(Timestamp::from_micros)))
    }
}

pub(super) struct RaiseProgress {
    pub(super) reports: Vec<Reported>,
}

impl Verb for RaiseProgress {
    type Answer = ();

    async fn run(&self, txn: &mut Txn, _: &Db) -> Result<()> {
        // Each row once and in one order, so that two controls cannot wait for each other.
        let latest: BTreeMap<_, _> = self.reports.iter().map(|r| ((r.job, r.task), &r.report)).collect();
        let mut marks = BTreeMap::new();
        for ((job, _), report) in &latest {
            let mark = marks.entry(*job).or_insert(0);
            *mark = i64::from(report.progress.permille()).max(*mark);
        }
        let rows: Vec<_> = latest.into_iter().collect();
        let reports = rows.iter().map(|(_, r)| to_json("task_progress", r)).collect::<Result<Vec<_>>>()?;
        sqlx::query(
            "insert into task_progress(job_id, task_id, v, at) \
             select v.job_id, v.task_id, v.v, flux_now() from unnest($1::uuid[], $2::uuid[], $3::text[]) \
             v(job_id, task_id, v) on conflict(job_id, task_id) do update set v = excluded.v, at = excluded.at",
        )
        .bind(column(&rows, |((job, _), _)| job.uuid()))
        .bind(column(&rows, |((_, task), _)| task.uuid()))
        .bind(reports)
        .execute(&mut **txn)
        .await
        .map_err(explain("writing progress"))?;
        // A job that is locked is being written about; its mark comes with the next report.
        let marks: Vec<_> = marks.into_iter().collect();
        sqlx::query(
            "with higher as materialized (select j.id, v.mark from unnest($1::uuid[], $2::bigint[]) v(id, mark) \
             join jobs j on j.id = v.id where j.status = 1 and j.progress_hw < v.mark order by j.id \
             for update of j skip locked) \
             update jobs j set progress_hw = higher.mark from higher where j.id = higher.id",
        )
        .bind(column(&marks, |(job, _)| job.uuid()))
        .bind(column(&marks, |(_, mark)| *mark))
        .execute(&mut **txn)
        .await
        .map_err(explain("writing progress"))?;
        Ok(())
    }
}

pub(super) struct CreateUpload(pub(super) UploadRecord);

impl Verb for CreateUpload {
    type Answer = ();

    async fn run(&self, txn: &mut Txn, _: &Db) -> Result<()> {
        let Self(upload) = self;
        let size =
            i64::try_from(upload.size).map_err(|_| inconsistent("uploads", "the size is beyond 8 EiB"))?;
        sqlx::query(
            "insert into uploads(id, tenant, key, size, etag, state, expires_at) \
             values ($1, $2, $3, $4, $5, $6, $7) on conflict(id) do nothing",
        )
        .bind(upload.id.uuid())
        .bind(upload.tenant.as_str())
        .bind(&upload.name)
        .bind(size)
        .bind(&upload.etag)
        .bind(i16::from(upload.etag.is_some()))
        .bind(upload.expires_at.micros())
        .execute(&mut **txn)
        .await
        .map_err(explain("recording an upload"))?;
        Ok(())
    }
}

pub(super) struct UploadDone {
    pub(super) id: UploadId,
    pub(super) etag: String,
}

impl Verb for UploadDone {
    type Answer = ();

    async fn run(&self, txn: &mut Txn, _: &Db) -> Result<()> {
        let done =
            sqlx::query("update uploads set state = 1, etag = $1 where id = $2 and (state = 0 or etag = $1)")
                .bind(&self.etag)
                .bind(self.id.uuid())
                .execute(&mut **txn)
                .await
                .map_err(explain("recording an upload"))?;
        let open = done.rows_affected() == 1;
        if open { Ok(()) } else { Err(inconsistent("uploads", "no such upload is open")) }
    }
}

pub(super) struct AbandonUpload {
    pub(super) id: UploadId,
    pub(super) now: Timestamp,
}

impl Verb for AbandonUpload {
    type Answer = bool;

    async fn run(&self, txn: &mut Txn, _: &Db) -> Result<bool> {
        let done = sqlx::query("update uploads set expires_at = $1 where id = $2 and refs = 0")
            .bind(self.now.micros())
            .bind(self.id.uuid())
            .execute(&mut **txn)
            .await
            .map_err(explain("giving up an upload"))?;
        Ok(done.rows_affected() == 1)
    }
}
