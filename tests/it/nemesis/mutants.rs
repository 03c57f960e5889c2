//! Histories that must not pass: one for each way in which a rule can be broken.

use super::checker::check;
use super::history::{
    Clock, Event, Fate, History, Job, Output, Publication, Run, Status, StreamEvent, Told, Visible,
};

fn file(job: &str, sha256: &str) -> Visible {
    Visible { path: format!("{job}/out.mp4"), size: 7, sha256: sha256.to_owned() }
}

/// An attempt between two seconds.
fn run(n: i64, started: i64, ended: Option<i64>) -> Run {
    let micros = |seconds: i64| seconds * 1_000_000;
    Run {
        id: format!("r{n}"),
        task: "t".into(),
        epoch: n,
        started: micros(started),
        ended: ended.map(micros),
    }
}

fn encode(run: &str) -> (String, String) {
    (run.into(), ",out-0.mp4".into())
}

fn event(seq: i64, run: i64, status: Option<Status>) -> Event {
    Event { seq, run, status }
}

fn line(id: i64, name: &str) -> StreamEvent {
    StreamEvent { id: Some(id), name: name.to_owned() }
}

/// One job that was lost once, then completed; one that failed, was retried and failed again.
fn good() -> History {
    let publication =
        |n, run: &str, state| Publication { id: format!("p{n}"), output: 0, run: run.into(), state };
    let completed = Job {
        id: "a".into(),
        key: Some("k1".into()),
        status: Status::Completed,
        failure: None,
        run: 1,
        deleted: false,
        open_tasks: 0,
        outputs: vec![Output {
            index: 0,
            completed: true,
            publication: Some("p2".into()),
            files: vec![file("a", "right")],
        }],
        runs: vec![run(1, 10, Some(20)), run(2, 20, Some(30))],
        publications: vec![publication(1, "r1", Fate::Dead), publication(2, "r2", Fate::Committed)],
        events: vec![
            event(1, 1, Some(Status::Queued)),
            event(2, 1, Some(Status::Running)),
            event(3, 1, None),
            event(4, 1, Some(Status::Completed)),
        ],
    };
    let failed = Job {
        id: "b".into(),
        key: Some("k2".into()),
        status: Status::Failed,
        failure: Some("encoder_crashed".into()),
        run: 2,
        outputs: vec![Output { index: 0, completed: false, publication: None, files: Vec::new() }],
        runs: vec![run(3, 10, Some(20)), run(4, 40, Some(50))],
        publications: Vec::new(),
        events: vec![
            event(1, 1, Some(Status::Queued)),
            event(2, 1, Some(Status::Failed)),
            event(3, 2, Some(Status::Queued)),
            event(4, 2, Some(Status::Failed)),
        ],
        ..completed.clone()
    };
    let saw = |job: &str, status| Told::Saw { job: job.into(), status };
    History {
        told: vec![
            Told::Accepted { key: "k1".into(), job: "a".into() },
            Told::Accepted { key: "k1".into(), job: "a".into() },
            Told::Accepted { key: "k2".into(), job: "b".into() },
            saw("a", Status::Running),
            saw("b", Status::Failed),
            Told::Retrying { job: "b".into() },
            saw("b", Status::Running),
            saw("a", Status::Completed),
            saw("a", Status::Completed),
            saw("b", Status::Failed),
        ],
        streams: vec![
            ("a".into(), vec![line(2, "status"), line(3, "output"), line(4, "completed")]),
            ("b".into(), vec![line(2, "status"), line(3, "status"), line(4, "failed")]),
        ],
        jobs: vec![completed, failed],
        visible: vec![file("a", "right")],
        starts: vec![encode("r1"), encode("r2")],
        left: Vec::new(),
        clock: Clock::Even,
    }
}

/// Breaks a good history; the checker must say this.
fn caught(says: &str, breaking: impl FnOnce(&mut History)) {
    let mut history = good();
    breaking(&mut history);
    let breaches = check(&history);
    assert!(breaches.iter().any(|breach| breach.contains(says)), "{says:?} is not in {breaches:#?}");
}

#[test]
fn a_good_history_passes() {
    assert_eq!(check(&good()), Vec::<String>::new());
    // What a delete took out of the record is not missed.
    let mut history = good();
    history.told.insert(3, Told::Deleting { job: "a".into() });
    history.told.truncate(4);
    history.told.push(Told::Gone { job: "a".into() });
    history.jobs.remove(0);
    history.streams.remove(0);
    assert_eq!(check(&history), Vec::<String>::new());
}

#[test]
fn lost_and_doubled_jobs_are_caught() {
    caught("acknowledged and is lost", |h| drop(h.jobs.remove(0)));
    caught("has 2 jobs", |h| h.told.push(Told::Accepted { key: "k1".into(), job: "b".into() }));
    caught("has 2 jobs", |h| h.jobs[1].key = Some("k1".into()));
    caught("nobody deleted it", |h| h.told.push(Told::Gone { job: "b".into() }));
    caught("came back", |h| {
        h.told.insert(0, Told::Deleting { job: "a".into() });
        h.told.insert(1, Told::Gone { job: "a".into() });
    });
}

#[test]
fn ends_that_are_no_ends_are_caught() {
    let saw = |job: &str, status| Told::Saw { job: job.into(), status };
    caught("was Completed and became Running", |h| h.told.push(saw("a", Status::Running)));
    caught("was Completed and became Cancelled", |h| h.told.push(saw("a", Status::Cancelled)));
    caught("was Failed and became Running", |h| h.told.push(saw("b", Status::Running)));
    caught("is Completed on record", |h| h.told.push(saw("a", Status::Cancelled)));
    caught("never ended", |h| h.jobs[0].status = Status::Running);
    caught("nobody gave it a reason", |h| h.jobs[1].failure = Some("source_not_found".into()));
    caught("tasks that did not", |h| h.jobs[0].open_tasks = 1);
    caught("ended 2 times", |h| h.jobs[0].events.push(event(5, 1, Some(Status::Completed))));
    caught("ended 0 times", |h| h.jobs[0].events.truncate(3));
    caught("after its end", |h| h.jobs[1].events[2].run = 1);
    caught("events do not grow", |h| h.jobs[0].events[3].seq = 3);
    caught("stream do not grow", |h| h.streams[0].1[2].id = Some(3));
    caught("stream ends 2 times", |h| h.streams[0].1.push(line(5, "completed")));
    caught("stream ends 0 times", |h| drop(h.streams[0].1.pop()));
    caught("and with Some", |h| h.streams[0].1.push(line(5, "status")));
}

#[test]
fn two_owners_of_a_task_are_caught() {
    caught("overlap", |h| h.jobs[0].runs[0].ended = Some(21_000_000));
    caught("overlap", |h| h.jobs[0].runs[0].ended = None);
    caught("never ended", |h| h.jobs[0].runs[1].ended = None);
    caught("two attempts have epoch 1", |h| h.jobs[0].runs[1].epoch = 1);
    caught("one run id", |h| h.jobs[0].runs[1].id = "r1".into());
    caught("encoded twice", |h| h.starts.push(encode("r2")));
    caught("not on record", |h| h.starts.push(encode("r9")));
}

#[test]
fn wrong_and_stray_outputs_are_caught() {
    caught("not what the record says", |h| h.visible[0].sha256 = "of another attempt".into());
    caught("not what the record says", |h| h.visible[0].size = 6);
    caught("not visible", |h| h.visible.clear());
    caught("knows nothing of it", |h| h.visible.push(file("b", "x")));
    caught("knows nothing of it", |h| h.visible.push(file("nobody", "x")));
    caught("is open", |h| h.jobs[0].publications[0].state = Fate::Open);
    caught("committed are", |h| h.jobs[0].publications[0].state = Fate::Committed);
    caught("committed are", |h| h.jobs[0].publications[1].state = Fate::Dead);
    caught("committed are", |h| h.jobs[0].outputs[0].publication = Some("p1".into()));
    caught("belongs to no attempt", |h| h.jobs[0].publications[0].run = "r7".into());
    caught("not of one mind", |h| h.jobs[0].status = Status::Cancelled);
    caught("left behind", |h| h.left.push("ffmpeg 4711".into()));
}
