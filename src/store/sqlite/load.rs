//! Reads jobs with everything a transition or an answer needs, a few statements for any number of jobs.

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, SqliteConnection};

use super::super::Result;
use super::super::columns::Columns;
use super::super::records::{Assembly, Loaded, attempt};
use super::error::explain;
use crate::domain::{Attempt, JobId, RunId, RunOutcome};

/// The jobs among `ids` that exist and are not deleted, in the order of `ids`.
pub(super) async fn load(conn: &mut SqliteConnection, ids: &[JobId]) -> Result<Vec<Loaded>> {
    let sql = "select j.*, (select sealed = x'' from job_secrets s where s.job_id = j.id) as wiped \
               from jobs j where deleted_at is null and id in ";
    let mut jobs = Assembly::of(&select(conn, sql, "", ids).await?)?;
    jobs.outputs(
        &select(conn, "select * from outputs where job_id in ", " order by job_id, idx", ids).await?,
    )?;
    jobs.tasks(&select(conn, "select * from tasks where job_id in ", " order by id", ids).await?)?;
    let tail = " order by epoch, id";
    jobs.publications(&select(conn, "select * from publications where job_id in ", tail, ids).await?)?;
    ids.iter().filter_map(|id| jobs.take(*id)).collect()
}

/// One job; `None` when there is none.
pub(super) async fn load_one(conn: &mut SqliteConnection, id: JobId) -> Result<Option<Loaded>> {
    Ok(load(conn, &[id]).await?.pop())
}

/// The runs of a job, oldest first.
pub(super) async fn attempts(conn: &mut SqliteConnection, job: JobId) -> Result<Vec<Attempt>> {
    let rows =
        select(conn, "select * from runs where job_id in ", " order by epoch, started_at", &[job]).await?;
    rows.iter().map(|row| attempt(&Columns { table: "runs", row })).collect()
}

/// How a run ended, if it is known and has.
pub(super) async fn past(conn: &mut SqliteConnection, job: JobId, run: RunId) -> Result<Option<RunOutcome>> {
    let outcome: Option<Option<i64>> =
        sqlx::query_scalar("select outcome from runs where id = ? and job_id = ?")
            .bind(run.uuid().as_bytes().as_slice())
            .bind(job.uuid().as_bytes().as_slice())
            .fetch_optional(conn)
            .await
            .map_err(explain("reading a run"))?;
    Ok(outcome.flatten().and_then(RunOutcome::from_number))
}

async fn select(
    conn: &mut SqliteConnection,
    head: &str,
    tail: &str,
    ids: &[JobId],
) -> Result<Vec<SqliteRow>> {
    let marks = vec!["?"; ids.len()].join(",");
    let mut query = sqlx::query(AssertSqlSafe(format!("{head}({marks}){tail}")));
    for id in ids {
        query = query.bind(id.uuid().as_bytes().to_vec());
    }
    query.fetch_all(conn).await.map_err(explain("reading jobs"))
}
