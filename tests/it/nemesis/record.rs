//! Reads the record behind the controls' backs, when they have ended.

use std::path::Path;

use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, SqliteConnection};

use super::history::{Event, Fate, Job, Output, Publication, Run, Status, Visible};
use crate::support::sha256;

/// Every job of a data folder.
pub async fn of_folder(data: &Path) -> Vec<Job> {
    let options = SqliteConnectOptions::new().filename(data.join("flux.db"));
    jobs(Database::File(options.connect().await.unwrap())).await
}

/// Every job of a database.
pub async fn of_server(url: &str) -> Vec<Job> {
    jobs(Database::Server(PgConnection::connect(url).await.unwrap())).await
}

enum Database {
    File(SqliteConnection),
    Server(PgConnection),
}

impl Database {
    /// These columns of a table's rows as JSON, those named `…id` or `publication` as hex.
    async fn rows(&mut self, table: &str, columns: &[&str]) -> Vec<Value> {
        let is_id = |column: &str| column == "publication" || column.ends_with("id");
        let spelled = |column: &&str| match (&*self, is_id(column)) {
            (_, false) => (*column).to_owned(),
            (Self::File(_), true) => format!("lower(hex({column}))"),
            (Self::Server(_), true) => format!("replace({column}::text, '-', '')"),
        };
        let columns = columns.iter().map(spelled).collect::<Vec<_>>().join(", ");
        let texts: Vec<String> = match self {
            Self::File(file) => {
                let sql = AssertSqlSafe(format!("select json_array({columns}) from {table}"));
                sqlx::query(sql).fetch_all(file).await.unwrap().iter().map(|row| row.get(0)).collect()
            }
            Self::Server(server) => {
                let sql = AssertSqlSafe(format!("select json_build_array({columns})::text from {table}"));
                sqlx::query(sql).fetch_all(server).await.unwrap().iter().map(|row| row.get(0)).collect()
            }
        };
        texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
    }
}

async fn jobs(mut database: Database) -> Vec<Job> {
    let job = |row: Value| Job {
        id: text(&row[0]),
        key: row[1].as_str().map(str::to_owned),
        status: status(number(&row[2])),
        failure: document(&row[5])["code"].as_str().map(str::to_owned),
        run: number(&row[3]),
        deleted: !row[4].is_null(),
        open_tasks: 0,
        outputs: Vec::new(),
        runs: Vec::new(),
        publications: Vec::new(),
        events: Vec::new(),
    };
    let columns = ["id", "idem_key", "status", "run", "deleted_at", "failure"];
    let mut jobs: Vec<Job> = database.rows("jobs", &columns).await.into_iter().map(job).collect();
    let mut of = |row: &Value, put: &mut dyn FnMut(&mut Job)| {
        jobs.iter_mut().filter(|job| row[0] == *job.id).for_each(put);
    };
    for row in database.rows("tasks", &["job_id", "state"]).await {
        // Blocked, delayed, ready, running, committing.
        of(&row, &mut |job| job.open_tasks += i64::from(number(&row[1]) < 5));
    }
    for row in database.rows("outputs", &["job_id", "idx", "status", "publication", "result"]).await {
        of(&row, &mut |job| job.outputs.push(output(&row)));
    }
    for row in database.rows("runs", &["job_id", "id", "task_id", "epoch", "started_at", "ended_at"]).await {
        of(&row, &mut |job| job.runs.push(attempt(&row)));
    }
    for row in database.rows("publications", &["job_id", "id", "idx", "run_id", "state"]).await {
        of(&row, &mut |job| job.publications.push(publication(&row)));
    }
    for row in database.rows("job_events", &["job_id", "seq", "kind", "data"]).await {
        of(&row, &mut |job| job.events.push(event(&row)));
    }
    for job in &mut jobs {
        job.events.sort_by_key(|event| event.seq);
    }
    jobs
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap()
}

fn document(value: &Value) -> Value {
    value.as_str().map(|text| serde_json::from_str(text).unwrap()).unwrap_or_default()
}

fn output(row: &Value) -> Output {
    let file = |file: &Value| Visible {
        path: text(&file["path"]),
        size: file["size"].as_u64().unwrap(),
        sha256: text(&file["sha256"]),
    };
    Output {
        index: number(&row[1]),
        completed: number(&row[2]) == 4,
        publication: row[3].as_str().filter(|id| !id.is_empty()).map(str::to_owned),
        files: document(&row[4])["files"].as_array().into_iter().flatten().map(file).collect(),
    }
}

fn attempt(row: &Value) -> Run {
    Run {
        id: text(&row[1]),
        task: text(&row[2]),
        epoch: number(&row[3]),
        started: number(&row[4]),
        ended: row[5].as_i64(),
    }
}

fn publication(row: &Value) -> Publication {
    let state = match number(&row[4]) {
        0 => Fate::Open,
        1 => Fate::Committed,
        _ => Fate::Dead,
    };
    Publication { id: text(&row[1]), output: number(&row[2]), run: text(&row[3]), state }
}

fn event(row: &Value) -> Event {
    let (of_job, data) = (number(&row[2]) == 0, document(&row[3]));
    Event {
        seq: number(&row[1]),
        run: number(&data["run"]),
        status: data["status"].as_str().filter(|_| of_job).and_then(Status::named),
    }
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
