//! The verbs that the writer carries out, but for submissions, claims and sweeping.

use sqlx::AssertSqlSafe;

use super::super::delta::{self, Rules, Step};
use super::super::records::Loaded;
use super::super::row::inconsistent;
use super::super::{Reported, Result, UploadRecord};
use super::error::explain;
use super::load::{load_one, past};
use super::save::{blob, save};
use super::writer::{Txn, Verb};
use crate::domain::machine::{Illegal, Machine};
use crate::domain::{RunOutcome, TaskState, Timestamp, UploadId};

impl<T, F> Verb for Step<F>
where
    T: Send + 'static,
    F: Fn(&mut Machine) -> std::result::Result<T, Illegal> + Send + Sync + 'static,
{
    type Answer = Option<T>;

    async fn run(&self, txn: &mut Txn<'_>) -> Result<Option<T>> {
        let Some(loaded) = load_one(txn.conn, self.job).await? else {
            return Ok(None);
        };
        if !self.concerns(&loaded.aggregate) {
            return Ok(None);
        }
        let past = match self.run {
            Some(run) => past(txn.conn, self.job, run).await?,
            None => None,
        };
        transition(txn, loaded, past, self.now, &self.apply).await.map(Some)
    }
}

/// Applies a transition and writes what it did.
pub(super) async fn transition<T>(
    txn: &mut Txn<'_>,
    loaded: Loaded,
    past: Option<RunOutcome>,
    now: Timestamp,
    apply: impl Fn(&mut Machine) -> std::result::Result<T, Illegal>,
) -> Result<T> {
    let random = txn.shared.ids.random().as_u64_pair().1;
    let rules = Rules { policy: txn.shared.policy, now, random, past };
    let (answer, delta) = delta::transition(loaded, rules, apply)?;
    save(txn, &delta).await?;
    Ok(answer)
}

/// Touches tasks only, like a claim: a job does not change by becoming ready.
pub(super) struct WakeDelayed {
    pub(super) now: Timestamp,
}

impl Verb for WakeDelayed {
    type Answer = (u64, Option<Timestamp>);

    async fn run(&self, txn: &mut Txn<'_>) -> Result<Self::Answer> {
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
        .bind(upload.sha256.clone())
        .bind(i64::from(upload.sha256.is_some()))
        .bind(upload.expires_at.micros())
        .execute(&mut *txn.conn)
        .await
        .map_err(explain("recording an upload"))?;
        Ok(())
    }
}

pub(super) struct UploadDone {
    pub(super) id: UploadId,
    pub(super) sha256: String,
}

impl Verb for UploadDone {
    type Answer = ();

    async fn run(&self, txn: &mut Txn<'_>) -> Result<()> {
        let done =
            sqlx::query("update uploads set state = 1, etag = ? where id = ? and (state = 0 or etag = ?)")
                .bind(self.sha256.clone())
                .bind(blob(self.id.uuid()))
                .bind(self.sha256.clone())
                .execute(&mut *txn.conn)
                .await
                .map_err(explain("recording an upload"))?;
        let open = done.rows_affected() == 1;
        if open { Ok(()) } else { Err(inconsistent("uploads", "no such upload is open")) }
    }
}
