//! Rows to types and back, without SQL: what a column means is said once.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Error, Result};
use crate::domain::{
    Epoch, Event, EventKind, JobStatus, OutputIndex, OutputStatus, RunNumber, TaskClass, TaskId, TaskKind,
    TaskRecord, TaskState,
};

/// An [`Error::Inconsistent`].
pub(super) fn inconsistent(table: &'static str, what: impl Into<String>) -> Error {
    Error::Inconsistent { table, what: what.into() }
}

/// A document column.
pub(super) fn from_json<T: DeserializeOwned>(table: &'static str, column: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| inconsistent(table, format!("{column}: {e}")))
}

/// A document for a column.
pub(super) fn to_json<T: Serialize>(table: &'static str, value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| inconsistent(table, format!("cannot be written: {e}")))
}

/// A number column of a narrower type.
pub(super) fn narrow<T: TryFrom<i64>>(table: &'static str, column: &str, number: i64) -> Result<T> {
    T::try_from(number).map_err(|_| inconsistent(table, format!("{column} is {number}")))
}

/// What an event row holds beside `(job, seq, kind, at)`.
#[derive(Serialize, Deserialize)]
struct EventData {
    status: JobStatus,
    run: RunNumber,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<OutputIndex>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_status: Option<OutputStatus>,
    message: String,
}

/// The `data` column of an event.
pub(super) fn event_data(event: &Event) -> Result<String> {
    let Event { status, run, output, output_status, message, seq: _, kind: _, at: _ } = event.clone();
    to_json("job_events", &EventData { status, run, output, output_status, message })
}

/// An event from its row.
pub(super) fn event(seq: i64, kind: i64, data: &str, at: i64) -> Result<Event> {
    let EventData { status, run, output, output_status, message } = from_json("job_events", "data", data)?;
    let kind =
        EventKind::from_number(kind).ok_or_else(|| inconsistent("job_events", format!("kind {kind}")))?;
    Ok(Event {
        seq,
        kind,
        at: crate::domain::Timestamp::from_micros(at),
        status,
        run,
        output,
        output_status,
        message,
    })
}

/// A task of an ended job, folded into `jobs.plan` (PROTOCOL §1.30).
#[derive(Serialize, Deserialize)]
struct FoldedTask {
    id: TaskId,
    job_run: RunNumber,
    kind: TaskKind,
    state: TaskState,
    class: TaskClass,
    rank: i64,
    epoch: Epoch,
    charged: u32,
    losses: u32,
    crashes: u32,
}

#[derive(Serialize, Deserialize)]
struct Plan {
    tasks: Vec<FoldedTask>,
}

/// The tasks of an ended job as the `plan` column; nobody holds or delays them any more.
pub(super) fn fold_tasks(tasks: &[TaskRecord]) -> Result<String> {
    let fold = |task: &TaskRecord| FoldedTask {
        id: task.id,
        job_run: task.job_run,
        kind: task.kind,
        state: task.state,
        class: task.class,
        rank: task.rank,
        epoch: task.epoch,
        charged: task.charged,
        losses: task.losses,
        crashes: task.crashes,
    };
    to_json("jobs", &Plan { tasks: tasks.iter().map(fold).collect() })
}

/// The tasks in a `plan` column.
pub(super) fn unfold_tasks(plan: &str) -> Result<Vec<TaskRecord>> {
    let Plan { tasks } = from_json("jobs", "plan", plan)?;
    let unfold = |task: FoldedTask| TaskRecord {
        id: task.id,
        job_run: task.job_run,
        kind: task.kind,
        state: task.state,
        class: task.class,
        rank: task.rank,
        not_before: None,
        epoch: task.epoch,
        hold: None,
        charged: task.charged,
        losses: task.losses,
        crashes: task.crashes,
    };
    Ok(tasks.into_iter().map(unfold).collect())
}
