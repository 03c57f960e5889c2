//! Reads jobs with everything a transition or an answer needs: four statements for any number of jobs.

use std::collections::HashMap;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection};

use super::super::Result;
use super::super::columns::Columns;
use super::super::records::{Assembly, attempt};
use super::error::explain;
use crate::domain::{Attempt, JobId, RunId, RunOutcome};

/// Whether what is read may change before the transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    /// It may: a snapshot is enough, or the tasks are locked already.
    None,
    /// It may not. Locks are taken in the order of PROTOCOL §1.12: jobs by id, then tasks by id.
    ForUpdate,
}

/// The jobs among `ids` that exist and are not deleted.
pub(super) async fn load(conn: &mut PgConnection, ids: &[JobId], lock: Lock) -> Result<Assembly> {
    let (of_jobs, of_tasks) = match lock {
        Lock::None => ("", ""),
        Lock::ForUpdate => (" for update of j", " for update"),
    };
    let ids = uuids(ids);
    let jobs = format!(
        "select j.*, (select s.sealed = ''::bytea from job_secrets s where s.job_id = j.id)::int as wiped \
         from jobs j where deleted_at is null and id = any($1) order by id{of_jobs}"
    );
    let mut assembly = Assembly::of(&select(conn, jobs, &ids).await?)?;
    let tasks = format!("select * from tasks where job_id = any($1) order by id{of_tasks}");
    assembly.tasks(&select(conn, tasks, &ids).await?)?;
    let outputs = "select * from outputs where job_id = any($1) order by job_id, idx";
    assembly.outputs(&select(conn, outputs.to_owned(), &ids).await?)?;
    let publications = "select * from publications where job_id = any($1) order by epoch, id";
    assembly.publications(&select(conn, publications.to_owned(), &ids).await?)?;
    Ok(assembly)
}

/// The runs of a job, oldest first.
pub(super) async fn attempts(conn: &mut PgConnection, job: JobId) -> Result<Vec<Attempt>> {
    let runs = "select * from runs where job_id = any($1) order by epoch, started_at";
    let rows = select(conn, runs.to_owned(), &[job.uuid()]).await?;
    rows.iter().map(|row| attempt(&Columns { table: "runs", row })).collect()
}

/// How these runs ended, those that have.
pub(super) async fn pasts(
    conn: &mut PgConnection,
    runs: &[(JobId, RunId)],
) -> Result<HashMap<(JobId, RunId), RunOutcome>> {
    let ids: Vec<_> = runs.iter().map(|(_, run)| run.uuid()).collect();
    let ended = "select id, job_id, outcome from runs where id = any($1) and outcome is not null";
    let rows = select(conn, ended.to_owned(), &ids).await?;
    let past = |row| {
        let columns = Columns { table: "runs", row };
        let of = (JobId::from_uuid(columns.id("job_id")?), RunId::from_uuid(columns.id("id")?));
        Ok((of, columns.state("outcome", RunOutcome::from_number)?))
    };
    rows.iter().map(past).collect()
}

async fn select(conn: &mut PgConnection, sql: String, ids: &[uuid::Uuid]) -> Result<Vec<PgRow>> {
    sqlx::query(AssertSqlSafe(sql)).bind(ids).fetch_all(conn).await.map_err(explain("reading jobs"))
}

pub(super) fn uuids(ids: &[JobId]) -> Vec<uuid::Uuid> {
    ids.iter().map(|id| id.uuid()).collect()
}
