//! The verbs that the writer carries out, but for submissions, claims and sweeping.

use sqlx::AssertSqlSafe;

use super::super::row::inconsistent;
use super::super::steps::Command;
use super::super::{Reported, Result, UploadRecord};
use super::error::explain;
use super::load::{assemble, pasts};
use super::save::{blob, save};
use super::writer::{Txn, Verb};
use crate::domain::machine::BACKOFF_CAP;
use crate::domain::{TaskState, Timestamp, UploadId};

/// Carries out transitions, of different jobs.
pub(super) async fn carry_out(txn: &mut Txn<'_>, steps: &mut [&mut Box<dyn Command>]) -> Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    let jobs: Vec<_> = steps.iter().map(|step| step.job()).collect();
    let runs: Vec<_> = steps.iter().filter_map(|step| step.run()).collect();
    let mut found = assemble(txn.conn, &jobs).await?;
    let ended = pasts(txn.conn, &runs).await?;
    let mut deltas = Vec::with_capacity(steps.len());
    for step in steps {
        let past = step.run().and_then(|run| ended.get(&(step.job(), run)).copied());
        deltas.extend(step.carry_out(found.take(step.job()), past, txn.shared));
    }
    save(txn, &deltas).await
}

/// Touches tasks only, like a claim: a job does not change by becoming ready.
pub(super) struct WakeDelayed {
    pub(super) now: Timestamp,
}

impl Verb for WakeDelayed {
    type Answer = (u64, Option<Timestamp>);

    async fn run(&self, txn: &mut Txn<'_>) -> Result<Self::Answer> {
        sqlx::query("update tasks set not_before = ?1 where state = 1 and not_before > ?2")
            .bind(self.now.micros())
            .bind(self.now.plus(BACKOFF_CAP).micros())
            .execute(&mut *txn.conn)
            .await
            .map_err(explain("waking delayed tasks"))?;
        let woken = sqlx::query(
            "update tasks set state = ?, not_before = null where id in \
             (select id from tasks where state = 1 and not_before <= ? order by not_before limit 500)",
        )
        .bind(TaskState::Ready.number())
        .bind(self.now.micros())
        .execute(&mut *txn.conn)
        .await
        .map_err(explain("waking delayed tasks"))?;
        let next: Option<i64> = sqlx::query_scalar("select min(not_before) from tasks where state = 1")
            .fetch_one(&mut *txn.conn)
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

    async fn run(&self, txn: &mut Txn<'_>) -> Result<()> {
        for reports in self.reports.chunks(256) {
            let values = vec!["(?,?)"; reports.len()].join(",");
            let sql = format!(
                "with v(id, p) as (values {values}) update jobs set progress_hw = max(progress_hw, v.p) \
                 from v where jobs.id = v.id and jobs.status = 1"
            );
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for reported in reports {
                let mark = i64::from(reported.report.progress.permille());
                query = query.bind(blob(reported.job.uuid())).bind(mark);
            }
            query.execute(&mut *txn.conn).await.map_err(explain("writing progress"))?;
        }
        Ok(())
    }
}

pub(super) struct CreateUpload(pub(super) UploadRecord);

impl Verb for CreateUpload {
    type Answer = ();

    async fn run(&self, txn: &mut Txn<'_>) -> Result<()> {
        let Self(upload) = self;
        let size =
            i64::try_from(upload.size).map_err(|_| inconsistent("uploads", "the size is beyond 8 EiB"))?;
        sqlx::query(
            "insert into uploads(id, tenant, key, size, etag, state, expires_at) values (?, ?, ?, ?, ?, ?, ?) \
             on conflict(id) do nothing",
        )
        .bind(blob(upload.id.uuid()))
        .bind(upload.tenant.as_str().to_owned())
        .bind(upload.name.clone())
        .bind(size)
        .bind(upload.etag.clone())
        .bind(i64::from(upload.etag.is_some()))
        .bind(upload.expires_at.micros())
        .execute(&mut *txn.conn)
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

    async fn run(&self, txn: &mut Txn<'_>) -> Result<()> {
        let done =
            sqlx::query("update uploads set state = 1, etag = ? where id = ? and (state = 0 or etag = ?)")
                .bind(self.etag.clone())
                .bind(blob(self.id.uuid()))
                .bind(self.etag.clone())
                .execute(&mut *txn.conn)
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

    async fn run(&self, txn: &mut Txn<'_>) -> Result<bool> {
        let done = sqlx::query("update uploads set expires_at = ? where id = ? and refs = 0")
            .bind(self.now.micros())
            .bind(blob(self.id.uuid()))
            .execute(&mut *txn.conn)
            .await
            .map_err(explain("giving up an upload"))?;
        Ok(done.rows_affected() == 1)
    }
}
