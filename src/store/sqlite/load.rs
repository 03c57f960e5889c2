//! Reads jobs with everything a transition or an answer needs, a few statements for any number of jobs.

use std::collections::HashMap;

use sqlx::SqliteConnection;

use super::super::Result;
use super::super::columns::Columns;
use super::super::records::{Assembly, Loaded, attempt};
use super::bulk::Bulk;
use super::save::blob;
use crate::domain::{Attempt, JobId, RunId, RunOutcome};

const READING: &str = "reading jobs";

static JOBS: Bulk = Bulk::new(
    "select j.*, (select sealed = x'' from job_secrets s where s.job_id = j.id) as wiped \
     from jobs j where deleted_at is null and id in (",
    "?",
    ")",
);
static OUTPUTS: Bulk = Bulk::new("select * from outputs where job_id in (", "?", ") order by job_id, idx");
static TASKS: Bulk = Bulk::new("select * from tasks where job_id in (", "?", ") order by id");
static PUBLICATIONS: Bulk =
    Bulk::new("select * from publications where job_id in (", "?", ") order by epoch, id");
static RUNS: Bulk = Bulk::new("select * from runs where job_id in (", "?", ") order by epoch, started_at");
static PASTS: Bulk =
    Bulk::new("select id, job_id, outcome from runs where outcome is not null and id in (", "?", ")");
/// All of them, with the name of the table that they read.
pub(super) static STATEMENTS: [(&str, &Bulk); 6] = [
    ("j", &JOBS),
    ("outputs", &OUTPUTS),
    ("tasks", &TASKS),
    ("publications", &PUBLICATIONS),
    ("runs", &RUNS),
    ("runs", &PASTS),
];

/// The jobs among `ids` that exist and are not deleted.
pub(super) async fn assemble(conn: &mut SqliteConnection, ids: &[JobId]) -> Result<Assembly> {
    let mut jobs = Assembly::of(&JOBS.fetch(conn, READING, ids, |q, id| q.bind(blob(id.uuid()))).await?)?;
    jobs.outputs(&OUTPUTS.fetch(conn, READING, ids, |q, id| q.bind(blob(id.uuid()))).await?)?;
    jobs.tasks(&TASKS.fetch(conn, READING, ids, |q, id| q.bind(blob(id.uuid()))).await?)?;
    jobs.publications(&PUBLICATIONS.fetch(conn, READING, ids, |q, id| q.bind(blob(id.uuid()))).await?)?;
    Ok(jobs)
}

/// The same, in the order of `ids`; one that cannot be read is an error.
pub(super) async fn load(conn: &mut SqliteConnection, ids: &[JobId]) -> Result<Vec<Loaded>> {
    let mut jobs = assemble(conn, ids).await?;
    ids.iter().filter_map(|id| jobs.take(*id)).collect()
}

/// One job; `None` when there is none.
pub(super) async fn load_one(conn: &mut SqliteConnection, id: JobId) -> Result<Option<Loaded>> {
    Ok(load(conn, &[id]).await?.pop())
}

/// The runs of a job, oldest first.
pub(super) async fn attempts(conn: &mut SqliteConnection, job: JobId) -> Result<Vec<Attempt>> {
    let rows = RUNS.fetch(conn, "reading runs", &[job], |q, id| q.bind(blob(id.uuid()))).await?;
    rows.iter().map(|row| attempt(&Columns { table: "runs", row })).collect()
}

/// How these runs ended, those that have.
pub(super) async fn pasts(
    conn: &mut SqliteConnection,
    runs: &[RunId],
) -> Result<HashMap<(JobId, RunId), RunOutcome>> {
    let rows = PASTS.fetch(conn, "reading runs", runs, |q, id| q.bind(blob(id.uuid()))).await?;
    let past = |row| {
        let columns = Columns { table: "runs", row };
        let of = (JobId::from_uuid(columns.id("job_id")?), RunId::from_uuid(columns.id("id")?));
        Ok((of, columns.state("outcome", RunOutcome::from_number)?))
    };
    rows.iter().map(past).collect()
}
