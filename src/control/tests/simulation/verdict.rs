//! What the checker of attacks on real processes says of a simulated world.

#[expect(unreachable_pub, reason = "shared with the integration tests, where nothing can reach into it")]
#[path = "../../../../tests/it/nemesis/checker.rs"]
mod checker;
#[expect(unreachable_pub, reason = "shared with the integration tests, where nothing can reach into it")]
#[path = "../../../../tests/it/nemesis/history.rs"]
mod history;

use uuid::Uuid;

pub(super) use self::history::{Status, Told};

use self::history::{Clock, Event, Fate, History, Job, Output, Publication, Run, Visible};
use super::super::Bench;
use crate::domain::Code;
use crate::domain::{
    EventKind, JobId, JobStatus, OutputIndex, OutputStatus, PublicationId, PublicationState,
};

/// The name of a job.
pub(super) fn name(job: JobId) -> String {
    hex(job.uuid())
}

fn hex(id: Uuid) -> String {
    id.simple().to_string()
}

pub(super) fn status(of: JobStatus) -> Status {
    match of {
        JobStatus::Queued => Status::Queued,
        JobStatus::Running => Status::Running,
        JobStatus::Completed => Status::Completed,
        JobStatus::Failed => Status::Failed,
        JobStatus::Cancelled => Status::Cancelled,
    }
}

/// Every breach, in words.
pub(super) fn of(bench: &Bench, told: Vec<Told>) -> Vec<String> {
    checker::check(&history(bench, told))
}

/// All that happened, in words, to be compared.
pub(super) fn account(bench: &Bench, told: Vec<Told>) -> String {
    format!("{:?}", history(bench, told))
}

fn history(bench: &Bench, told: Vec<Told>) -> History {
    let file = |job: JobId, output: OutputIndex, publication: PublicationId| Visible {
        path: format!("{}/{}", name(job), output.0),
        size: 0,
        sha256: hex(publication.uuid()),
    };
    let visible = bench.destination.all_visible();
    let mut left = Vec::new();
    for worker in &bench.workers {
        if worker.kept() > 0 || worker.promised() > 0 {
            left.push(format!("{} keeps {} runs and {} slots", worker.id, worker.kept(), worker.promised()));
        }
    }
    let held = bench.control.0.runs.all().len();
    if held > 0 {
        left.push(format!("the control holds {held} runs"));
    }
    History {
        told,
        jobs: bench.store.all().into_iter().map(|stored| job(bench, stored, file)).collect(),
        streams: Vec::new(),
        visible: visible.into_iter().map(|(job, output, id)| file(job, output, id)).collect(),
        clock: if bench.clock.jumped() { Clock::Jumped } else { Clock::Even },
        starts: (bench.workers.iter().flat_map(|worker| worker.begun()))
            .map(|run| (hex(run.uuid()), String::new()))
            .collect(),
        left,
    }
}

fn job(bench: &Bench, id: JobId, file: impl Fn(JobId, OutputIndex, PublicationId) -> Visible) -> Job {
    let stored = bench.store.job(id);
    let (job, deleted) = (&stored.aggregate.job, bench.store.is_deleted(id));
    // What the workers of these worlds fail with beside what real ones are made to.
    let theirs = [Code::MediaCorrupt, Code::DestinationUnreachable];
    let reason = job.failure.as_ref().filter(|failure| !theirs.contains(&failure.code));
    let output = |output: &crate::domain::OutputRecord| Output {
        index: i64::from(output.index.0),
        completed: output.status == OutputStatus::Completed,
        publication: output.publication.map(|id| hex(id.uuid())),
        files: output
            .publication
            .map(|publication| file(id, output.index, publication))
            .into_iter()
            .collect(),
    };
    let run = |attempt: &crate::domain::Attempt| Run {
        id: hex(attempt.run.uuid()),
        task: hex(attempt.task.uuid()),
        epoch: i64::from(attempt.epoch.0),
        started: attempt.started_at.micros(),
        ended: attempt.ended_at.map(crate::domain::Timestamp::micros),
    };
    let publication = |publication: &crate::domain::Publication| Publication {
        id: hex(publication.id.uuid()),
        output: i64::from(publication.output.0),
        run: hex(publication.run.uuid()),
        state: match publication.state {
            PublicationState::Open => Fate::Open,
            PublicationState::Committed => Fate::Committed,
            PublicationState::Dead => Fate::Dead,
        },
    };
    let event = |event: &crate::domain::Event| Event {
        seq: event.seq,
        run: i64::from(event.run.0),
        status: (event.kind == EventKind::Status).then(|| status(event.status)),
    };
    Job {
        id: name(id),
        key: None,
        status: status(job.status),
        failure: reason.map(|failure| failure.code.to_string()),
        run: i64::from(job.run.0),
        deleted,
        open_tasks: i64::try_from(stored.aggregate.tasks.iter().filter(|task| !task.state.is_over()).count())
            .unwrap(),
        outputs: stored.aggregate.outputs.iter().map(output).collect(),
        runs: stored.attempts.iter().map(run).collect(),
        publications: stored.aggregate.publications.iter().map(publication).collect(),
        events: bench.store.events_of(id).iter().map(event).collect(),
    }
}
