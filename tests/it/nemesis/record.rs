//! Reads the record of a control that has ended, without its help.

use std::path::Path;

use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions as _, Row as _, SqliteConnection};

use super::history::{Event, Fate, Job, Output, Publication, Run, Status, Visible};
use crate::support::sha256;

/// Every job of a data folder.
pub async fn jobs(data: &Path) -> Vec<Job> {
    let options = SqliteConnectOptions::new().filename(data.join("flux.db"));
    let mut database = options.connect().await.unwrap();
    let rows = all(
        &mut database,
        "select lower(hex(id)), idem_key, status, run, deleted_at is not null, \
         (select count(*) from tasks where job_id = jobs.id and state < 5) from jobs order by id",
    )
    .await;
    let mut jobs = Vec::new();
    for row in rows {
        let id: String = row.get(0);
        jobs.push(Job {
            key: row.get(1),
            status: status(row.get(2)),
            run: row.get(3),
            deleted: row.get(4),
            open_tasks: row.get(5),
            outputs: outputs(&mut database, &id).await,
            runs: runs(&mut database, &id).await,
            publications: publications(&mut database, &id).await,
            events: events(&mut database, &id).await,
            id,
        });
    }
    jobs
}

/// What is visible at a destination, and what lies beside it: parts and test files have hidden names.
pub fn files(root: &Path) -> (Vec<Visible>, Vec<String>) {
    let hidden = |file: &Visible| file.path.split('/').any(|name| name.starts_with('.'));
    let (strays, results): (Vec<_>, Vec<_>) = all_files(root).into_iter().partition(hidden);
    (results, strays.into_iter().map(|file| file.path).collect())
}

/// Every file below a folder, by its path there.
fn all_files(root: &Path) -> Vec<Visible> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                found.push(Visible {
                    path: path.strip_prefix(root).unwrap().display().to_string(),
                    size: bytes.len().try_into().unwrap(),
                    sha256: sha256(&bytes),
                });
            }
        }
    }
    found
}

async fn all(database: &mut SqliteConnection, sql: &'static str) -> Vec<SqliteRow> {
    sqlx::query(sql).fetch_all(database).await.unwrap()
}

async fn of(database: &mut SqliteConnection, sql: &'static str, job: &str) -> Vec<SqliteRow> {
    sqlx::query(sql).bind(job.to_uppercase()).fetch_all(database).await.unwrap()
}

async fn outputs(database: &mut SqliteConnection, job: &str) -> Vec<Output> {
    let sql = "select idx, status = 4, lower(hex(publication)), result from outputs \
               where hex(job_id) = ? order by idx";
    let output = |row: &SqliteRow| {
        let result: Option<String> = row.get(3);
        let result: Value = result.map(|text| serde_json::from_str(&text).unwrap()).unwrap_or_default();
        let file = |file: &Value| Visible {
            path: file["path"].as_str().unwrap().to_owned(),
            size: file["size"].as_u64().unwrap(),
            sha256: file["sha256"].as_str().unwrap().to_owned(),
        };
        let publication: Option<String> = row.get(2);
        Output {
            index: row.get(0),
            completed: row.get(1),
            publication: publication.filter(|id| !id.is_empty()),
            files: result["files"].as_array().into_iter().flatten().map(file).collect(),
        }
    };
    of(database, sql, job).await.iter().map(output).collect()
}

async fn runs(database: &mut SqliteConnection, job: &str) -> Vec<Run> {
    let sql = "select lower(hex(id)), lower(hex(task_id)), epoch, started_at, ended_at from runs \
               where hex(job_id) = ? order by epoch";
    let run = |row: &SqliteRow| Run {
        id: row.get(0),
        task: row.get(1),
        epoch: row.get(2),
        started: row.get(3),
        ended: row.get(4),
    };
    of(database, sql, job).await.iter().map(run).collect()
}

async fn publications(database: &mut SqliteConnection, job: &str) -> Vec<Publication> {
    let sql = "select lower(hex(id)), idx, lower(hex(run_id)), state from publications where hex(job_id) = ?";
    let publication = |row: &SqliteRow| Publication {
        id: row.get(0),
        output: row.get(1),
        run: row.get(2),
        state: match row.get::<i64, _>(3) {
            0 => Fate::Open,
            1 => Fate::Committed,
            _ => Fate::Dead,
        },
    };
    of(database, sql, job).await.iter().map(publication).collect()
}

async fn events(database: &mut SqliteConnection, job: &str) -> Vec<Event> {
    let sql = "select seq, kind, data from job_events where hex(job_id) = ? order by seq";
    let event = |row: &SqliteRow| {
        let data: Value = serde_json::from_str(row.get(2)).unwrap();
        let of_job = row.get::<i64, _>(1) == 0;
        Event {
            seq: row.get(0),
            run: data["run"].as_i64().unwrap(),
            status: data["status"].as_str().filter(|_| of_job).and_then(Status::named),
        }
    };
    of(database, sql, job).await.iter().map(event).collect()
}

fn status(number: i64) -> Status {
    match number {
        0 => Status::Queued,
        1 => Status::Running,
        2 => Status::Completed,
        3 => Status::Failed,
        _ => Status::Cancelled,
    }
}
