//! Random histories against a small model of who holds the task and what may become visible.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::preset::{Container, EncodeSpec};
use crate::domain::{
    BootId, Destination, Hold, JobOptions, JobRecord, JobSpec, ObjectPath, OutputRecord, OutputSpec,
    OutputStatus, Overwrite, Progress, RunNumber, Source, TaskKind, TaskRecord, TaskState, Tenant, WorkerId,
};

const NOW: Timestamp = Timestamp::from_micros(1_000_000_000_000);

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn spec(outputs: u16) -> JobSpec {
    let output = |n| OutputSpec {
        preset: None,
        encode: EncodeSpec {
            container: Container::Mp4,
            video: None,
            audio: None,
        },
        destination: Destination::Storage {
            path: ObjectPath::parse(format!("{n}.mp4")).unwrap(),
            overwrite: Overwrite::Replace,
            metadata: BTreeMap::new(),
        },
        warnings: Vec::new(),
    };
    JobSpec {
        source: Source::File {
            path: "in.mp4".into(),
        },
        outputs: (0..outputs).map(output).collect(),
        priority: 0,
        labels: BTreeMap::new(),
        metadata: serde_json::Map::new(),
        notification_url: None,
        options: JobOptions::default(),
    }
}

fn job(outputs: u16) -> Aggregate {
    let spec = spec(outputs);
    let record = |(n, spec): (usize, &OutputSpec)| OutputRecord {
        index: OutputIndex(u16::try_from(n).unwrap()),
        status: OutputStatus::Pending,
        spec: spec.clone(),
        result: None,
        failure: None,
        publication: None,
    };
    Aggregate {
        outputs: spec.outputs.iter().enumerate().map(record).collect(),
        job: JobRecord {
            id: JobId::from_uuid(id(1)),
            tenant: Tenant::local(),
            status: JobStatus::Queued,
            run: RunNumber(1),
            seq: 1,
            cancel_at: None,
            spec,
            media: None,
            progress: Progress::ZERO,
            failure: None,
            created_at: NOW,
            started_at: None,
            finished_at: None,
        },
        tasks: vec![TaskRecord {
            id: TaskId::from_uuid(id(2)),
            job_run: RunNumber(1),
            kind: TaskKind::Transcode,
            state: TaskState::Ready,
            rank: 0,
            not_before: None,
            epoch: Epoch(0),
            hold: None,
            charged: 0,
            losses: 0,
        }],
        publications: Vec::new(),
    }
}

fn result() -> OutputResult {
    OutputResult {
        url: "file:///x".into(),
        files: Vec::new(),
        duration_seconds: 1.0,
        frames: None,
        width: None,
        height: None,
        warnings: Vec::new(),
    }
}

#[derive(Debug, Clone)]
enum Op {
    Claim,
    Wake,
    Started,
    OutputStatus(u16, OutputStatus),
    Permit(u16),
    PermitAgain,
    Dead(usize),
    OutputDone(usize),
    Complete,
    Fail(Code2, Option<u16>),
    Requeue(RequeueReason),
    Recover,
    Cancel,
    Retry,
    Delete,
}

#[derive(Debug, Clone, Copy)]
enum Code2 {
    Retryable,
    Final,
}

impl Code2 {
    fn failure(self) -> Failure {
        match self {
            Self::Retryable => Failure::new(super::super::Code::EncodeFailed, "it failed"),
            Self::Final => Failure::new(super::super::Code::MediaCorrupt, "it is broken"),
        }
    }
}

/// Which run says it: mostly the newest, sometimes an older one, sometimes with a foreign session.
#[derive(Debug, Clone, Copy)]
enum Speaker {
    Newest,
    Older(usize),
    Foreign,
}

fn op() -> impl Strategy<Value = Op> {
    use OutputStatus::{Completed, Encoding, Uploading, Verifying};
    prop_oneof![
        6 => Just(Op::Claim),
        3 => Just(Op::Wake),
        3 => Just(Op::Started),
        3 => (0..3u16, prop_oneof![Just(Encoding), Just(Verifying), Just(Uploading), Just(Completed)])
            .prop_map(|(o, s)| Op::OutputStatus(o, s)),
        6 => (0..3u16).prop_map(Op::Permit),
        1 => Just(Op::PermitAgain),
        2 => any::<usize>().prop_map(Op::Dead),
        5 => any::<usize>().prop_map(Op::OutputDone),
        3 => Just(Op::Complete),
        3 => (prop_oneof![Just(Code2::Retryable), Just(Code2::Final)], proptest::option::of(0..3u16))
            .prop_map(|(c, o)| Op::Fail(c, o)),
        2 => prop_oneof![Just(RequeueReason::Lost), Just(RequeueReason::Released)].prop_map(Op::Requeue),
        1 => Just(Op::Recover),
        1 => Just(Op::Cancel),
        2 => Just(Op::Retry),
        1 => Just(Op::Delete),
    ]
}

fn speaker() -> impl Strategy<Value = Speaker> {
    prop_oneof![8 => Just(Speaker::Newest), 3 => any::<usize>().prop_map(Speaker::Older), 1 => Just(Speaker::Foreign)]
}

/// The model: which run holds the task by the answers given, and every number that may only grow.
struct World {
    job: Aggregate,
    runs: Vec<(RunKey, Option<RunOutcome>)>,
    next: u128,
    random: u64,
    highest_epoch: u32,
    seq: i64,
    deleted: bool,
}

impl World {
    fn new(outputs: u16) -> Self {
        Self {
            job: job(outputs),
            runs: vec![],
            next: 1000,
            random: 1,
            highest_epoch: 0,
            seq: 1,
            deleted: false,
        }
    }

    fn fresh(&mut self) -> Uuid {
        self.next += 1;
        id(self.next)
    }

    /// Runs one transition and checks everything that must hold between before and after.
    fn step<T>(&mut self, speaker: Option<RunKey>, verb: impl FnOnce(&mut Machine) -> T) -> T {
        let before = self.job.clone();
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let past = speaker.and_then(|key| {
            self.runs
                .iter()
                .find(|(k, _)| k.run == key.run)
                .and_then(|(_, past)| *past)
        });
        let context = Context {
            policy: Policy {
                max_attempts: 3,
                max_losses: 2,
            },
            now: NOW,
            random: self.random,
            past,
            oldest_permit: None,
            secrets: SecretsState::Usable,
        };
        let mut machine = Machine::new(self.job.clone(), context);
        let answer = verb(&mut machine);
        let (job, effects) = machine.into_parts();
        self.job = job;
        for event in &effects.events {
            self.seq += 1;
            assert_eq!(event.seq, self.seq, "the history has no gap");
        }
        assert_eq!(self.job.job.seq, self.seq);
        for end in &effects.ended {
            let run = self
                .runs
                .iter_mut()
                .find(|(key, _)| key.run == end.run)
                .expect("only known runs end");
            assert_eq!(run.1.replace(end.outcome), None, "a run ends once");
        }
        self.deleted |= effects.deleted;
        // F1: a run that did not hold the task changed nothing.
        if let Some(key) = speaker {
            let hold = before.tasks[0].hold.as_ref();
            if !hold.is_some_and(|h| h.run == key.run && h.session == key.session) {
                assert_eq!(before, self.job, "a run without the task changed the record");
            }
        }
        self.check(&before);
        answer
    }

    fn check(&self, before: &Aggregate) {
        let (job, was) = (&self.job, &before.job);
        // I1: terminal is final per run; run numbers only grow.
        if was.status.is_terminal() && job.job.run == was.run {
            assert_eq!(before, job, "a terminal job changed within its run");
        }
        assert!(job.job.run >= was.run);
        assert!(
            job.job.run > was.run || job.job.progress >= was.progress,
            "progress went back"
        );
        // I2, F4.
        let open = job.publications.iter().any(|p| p.state == PublicationState::Open);
        if matches!(job.job.status, JobStatus::Failed | JobStatus::Cancelled) {
            assert!(!open, "{:?} with an open publication", job.job.status);
        }
        // I3, both ways.
        for output in &job.outputs {
            let committed: Vec<_> = job
                .publications
                .iter()
                .filter(|p| p.output == output.index && p.state == PublicationState::Committed)
                .map(|p| p.id)
                .collect();
            assert_eq!(committed, output.publication.into_iter().collect::<Vec<_>>());
            assert_eq!(
                output.status == OutputStatus::Completed,
                output.publication.is_some()
            );
            assert_eq!(output.result.is_some(), output.publication.is_some());
            let rival = |p: &&Publication| p.output == output.index && p.state == PublicationState::Open;
            assert!(
                output.publication.is_none() || !job.publications.iter().any(|p| rival(&p)),
                "a rival is open"
            );
        }
        for old in before
            .outputs
            .iter()
            .filter(|o| o.status == OutputStatus::Completed)
        {
            assert!(job.outputs.contains(old), "a completed output changed");
        }
        let all = job.outputs.iter().all(|o| o.status == OutputStatus::Completed);
        assert!(job.job.status != JobStatus::Completed || all);
        assert!(!job.job.status.is_terminal() || job.outputs.iter().all(|o| o.status.is_terminal()));
        assert_eq!(job.job.status.is_terminal(), job.job.finished_at.is_some());
        // I4 and the schema's checks.
        let task = &job.tasks[0];
        assert_eq!(task.hold.is_some(), task.state.is_held());
        assert_eq!(task.not_before.is_some(), task.state == TaskState::Delayed);
        assert_eq!(task.state.is_over(), job.job.status.is_terminal());
        assert!(task.epoch.0 <= self.highest_epoch);
        let live: Vec<_> = self
            .runs
            .iter()
            .filter(|(_, past)| past.is_none())
            .map(|(k, _)| k.run)
            .collect();
        assert_eq!(
            live,
            task.hold.iter().map(|h| h.run).collect::<Vec<_>>(),
            "one run lives while one holds"
        );
    }

    fn speak(&self, speaker: Speaker) -> Option<RunKey> {
        let newest = self.runs.last()?.0;
        Some(match speaker {
            Speaker::Newest => newest,
            Speaker::Older(n) => self.runs[n % self.runs.len()].0,
            Speaker::Foreign => RunKey {
                session: SessionId::from_uuid(id(99)),
                ..newest
            },
        })
    }

    fn claim(&mut self) {
        let task = self.job.tasks[0].id;
        let hold = Hold {
            run: RunId::from_uuid(self.fresh()),
            session: SessionId::from_uuid(id(3)),
            worker: "w".parse::<WorkerId>().unwrap(),
            boot: BootId::from_uuid(id(4)),
        };
        if self.job.tasks[0].state != TaskState::Ready {
            self.step(None, |m| m.claim(task, hold).expect_err("only ready tasks"));
            return;
        }
        let key = RunKey {
            job: self.job.job.id,
            task,
            run: hold.run,
            session: hold.session,
        };
        self.runs.push((key, None));
        self.highest_epoch += 1;
        let epoch = self.step(None, |m| m.claim(task, hold)).unwrap();
        assert_eq!(
            epoch.0, self.highest_epoch,
            "each claim is the next epoch, over retries too"
        );
    }

    fn publication(&mut self, key: RunKey, output: OutputIndex) -> Publication {
        Publication {
            id: PublicationId::from_uuid(self.fresh()),
            output,
            run: key.run,
            epoch: self.job.tasks[0].epoch,
            handle: "{}".into(),
            manifest: "{}".into(),
            state: PublicationState::Open,
        }
    }

    fn apply(&mut self, op: &Op, who: Speaker) {
        match op {
            Op::Claim => return self.claim(),
            Op::Wake => {
                let task = &mut self.job.tasks[0];
                if task.state == TaskState::Delayed {
                    (task.state, task.not_before) = (TaskState::Ready, None);
                }
                return;
            }
            Op::Recover => return self.step(None, Machine::recover),
            Op::Cancel => {
                let before = self.job.clone();
                let answer = self.step(None, Machine::cancel);
                let open = before
                    .publications
                    .iter()
                    .any(|p| p.state == PublicationState::Open);
                match answer {
                    Cancelled::Now(_) => assert!(!open && self.job.job.status == JobStatus::Cancelled),
                    Cancelled::Requested => assert!(self.job.job.cancel_at.is_some()),
                    Cancelled::Already(status) => assert_eq!(status, self.job.job.status),
                    Cancelled::NotFound => panic!("it exists"),
                }
                return;
            }
            Op::Retry => {
                let task = TaskId::from_uuid(self.fresh());
                let status = self.job.job.status;
                let answer = self.step(None, |m| m.retry(task));
                assert_eq!(answer == Retried::Queued, status == JobStatus::Failed);
                return;
            }
            Op::Delete => {
                self.step(None, Machine::delete);
                return;
            }
            Op::Started
            | Op::OutputStatus(..)
            | Op::Permit(_)
            | Op::PermitAgain
            | Op::Dead(_)
            | Op::OutputDone(_)
            | Op::Complete
            | Op::Fail(..)
            | Op::Requeue(_) => {}
        }
        if let Some(key) = self.speak(who) {
            self.say(op, key);
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm per verb, each a few lines")]
    fn say(&mut self, op: &Op, key: RunKey) {
        let held = self.job.tasks[0]
            .hold
            .as_ref()
            .is_some_and(|h| h.run == key.run && h.session == key.session);
        let some = |job: &Aggregate, n: usize| {
            let all = &job.publications;
            (!all.is_empty()).then(|| all[n % all.len()].clone())
        };
        match op {
            Op::Started => assert_eq!(
                self.step(Some(key), |m| m.started(&key)) == Fenced::Done(()),
                held
            ),
            Op::OutputStatus(output, status) => {
                let output = OutputIndex(*output);
                let answer = self.step(Some(key), |m| m.output_status(&key, output, *status));
                assert!(held || answer == Ok(Fenced::Lost));
            }
            Op::Permit(output) => {
                let publication = self.publication(key, OutputIndex(*output));
                let goes_on = !is_ending(&self.job);
                let lower = self.job.publications.clone();
                match self.step(Some(key), |m| m.permit(&key, &publication)) {
                    Ok(Fenced::Done(permit)) => {
                        assert!(held && goes_on, "a permit for a job that ends");
                        let open = |p: &&Publication| {
                            p.output == publication.output && p.state == PublicationState::Open
                        };
                        assert_eq!(
                            permit.lower.len(),
                            lower.iter().filter(open).count(),
                            "every lower one is listed"
                        );
                    }
                    Ok(Fenced::Lost) | Err(_) => {}
                }
            }
            Op::PermitAgain => {
                let own = self
                    .job
                    .publications
                    .iter()
                    .rev()
                    .find(|p| p.run == key.run)
                    .cloned();
                if let Some(own) = own.filter(|own| held && own.state == PublicationState::Open) {
                    let answer = self.step(Some(key), |m| m.permit(&key, &own));
                    assert!(
                        matches!(answer, Ok(Fenced::Done(_))),
                        "a permit is repeated as it was"
                    );
                }
            }
            Op::Dead(n) => {
                if let Some(publication) = some(&self.job, *n) {
                    let _ = self.step(Some(key), |m| m.publications_dead(&key, &[publication.id]));
                }
            }
            Op::OutputDone(n) => {
                if let Some(p) = some(&self.job, *n) {
                    let done = OutputDone {
                        output: p.output,
                        publication: p.id,
                        result: result(),
                    };
                    let _ = self.step(Some(key), |m| m.output_done(&key, &done));
                }
            }
            Op::Complete => {
                let first = self.step(Some(key), |m| m.complete(&key));
                if first == Fenced::Done(()) && self.past(key) == Some(RunOutcome::Done) {
                    assert_eq!(
                        self.step(Some(key), |m| m.complete(&key)),
                        first,
                        "complete is repeatable"
                    );
                }
            }
            Op::Fail(code, output) => {
                let failure = code.failure();
                let outputs: Vec<_> = output
                    .iter()
                    .map(|o| (OutputIndex(*o), failure.clone()))
                    .collect();
                let first = self.step(Some(key), |m| m.fail(&key, &failure, &outputs));
                let again = self.step(Some(key), |m| m.fail(&key, &failure, &outputs));
                assert!(
                    !held || first == Fenced::Done(()) && again == first,
                    "fail is repeatable"
                );
            }
            Op::Requeue(reason) => {
                let first = self.step(Some(key), |m| m.requeue(&key, *reason));
                let again = self.step(Some(key), |m| m.requeue(&key, *reason));
                assert!(
                    !held || first == Fenced::Done(()) && again == first,
                    "requeue is repeatable"
                );
            }
            Op::Claim | Op::Wake | Op::Recover | Op::Cancel | Op::Retry | Op::Delete => {}
        }
    }

    fn past(&self, key: RunKey) -> Option<RunOutcome> {
        self.runs
            .iter()
            .find(|(k, _)| k.run == key.run)
            .and_then(|(_, past)| *past)
    }

    /// I7: from any state a worker that does its work ends the job in a bounded number of runs.
    fn heal(&mut self) {
        for _ in 0..4 {
            if self.job.job.status.is_terminal() {
                return;
            }
            self.step(None, Machine::recover);
            self.apply(&Op::Wake, Speaker::Newest);
            if self.job.job.status.is_terminal() {
                return;
            }
            self.claim();
            let key = self.runs.last().unwrap().0;
            self.step(Some(key), |m| m.started(&key));
            let open: Vec<_> = self
                .job
                .publications
                .iter()
                .filter(|p| p.state == PublicationState::Open)
                .cloned()
                .collect();
            for p in open {
                self.step(Some(key), |m| m.publications_dead(&key, &[p.id]))
                    .unwrap();
            }
            for output in 0..self.job.outputs.len() {
                if self.job.outputs[output].status == OutputStatus::Completed || is_ending(&self.job) {
                    continue;
                }
                let p = self.publication(key, self.job.outputs[output].index);
                let permit = self.step(Some(key), |m| m.permit(&key, &p)).unwrap();
                assert_eq!(permit, Fenced::Done(Permit { lower: vec![] }));
                let done = OutputDone {
                    output: p.output,
                    publication: p.id,
                    result: result(),
                };
                assert_eq!(
                    self.step(Some(key), |m| m.output_done(&key, &done)),
                    Ok(Fenced::Done(()))
                );
            }
            self.step(Some(key), |m| m.complete(&key));
        }
        assert!(
            self.job.job.status.is_terminal(),
            "the job does not end: {:?}",
            self.job
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_histories_keep_every_invariant(
        outputs in 1..4u16,
        ops in proptest::collection::vec((op(), speaker()), 1..60),
    ) {
        let mut world = World::new(outputs);
        for (op, who) in &ops {
            world.apply(op, *who);
        }
        if !world.deleted {
            world.heal();
        }
    }
}

/// A job whose task is held by the first run.
fn running(outputs: u16) -> (World, RunKey) {
    let mut world = World::new(outputs);
    world.claim();
    let key = world.runs[0].0;
    world.step(Some(key), |m| m.started(&key));
    (world, key)
}

fn permitted(world: &mut World, key: RunKey, output: u16) -> Publication {
    let publication = world.publication(key, OutputIndex(output));
    assert!(matches!(
        world.step(Some(key), |m| m.permit(&key, &publication)),
        Ok(Fenced::Done(_))
    ));
    publication
}

fn done(publication: &Publication) -> OutputDone {
    OutputDone {
        output: publication.output,
        publication: publication.id,
        result: result(),
    }
}

#[test]
fn a_retryable_failure_waits_in_the_queue_and_the_third_is_final() {
    let (mut world, mut key) = running(1);
    let failure = Code2::Retryable.failure();
    for _ in 0..2 {
        world.step(Some(key), |m| m.fail(&key, &failure, &[]));
        assert_eq!(world.job.job.status, JobStatus::Queued);
        assert_eq!(world.job.job.failure, Some(failure.clone()));
        let task = &world.job.tasks[0];
        assert!(task.not_before.unwrap() <= NOW.plus(backoff_ceiling(task.charged)));
        world.apply(&Op::Wake, Speaker::Newest);
        world.claim();
        key = world.runs.last().unwrap().0;
    }
    world.step(Some(key), |m| m.fail(&key, &failure, &[]));
    assert_eq!(world.job.job.status, JobStatus::Failed);
    assert_eq!(world.job.outputs[0].failure, Some(failure));
}

#[test]
fn losses_cost_no_attempts_up_to_their_bound() {
    let (mut world, mut key) = running(1);
    for lost in 1..=3 {
        assert_eq!(
            world.step(Some(key), |m| m.requeue(&key, RequeueReason::Lost)),
            Fenced::Done(())
        );
        assert_eq!(world.job.tasks[0].charged, 0);
        assert_eq!(world.job.job.status == JobStatus::Failed, lost == 3);
        if lost < 3 {
            world.claim();
            key = world.runs.last().unwrap().0;
        }
    }
    assert_eq!(
        world.job.job.failure.as_ref().unwrap().code,
        super::super::Code::WorkerLost
    );
}

#[test]
fn a_permit_before_the_cancel_makes_the_cancel_wait() {
    let (mut world, key) = running(1);
    let publication = permitted(&mut world, key, 0);
    assert_eq!(world.step(None, Machine::cancel), Cancelled::Requested);
    assert_eq!(world.step(None, Machine::cancel), Cancelled::Requested);
    assert_eq!(
        world.step(Some(key), |m| m.output_done(&key, &done(&publication))),
        Ok(Fenced::Done(()))
    );
    assert_eq!(world.job.job.status, JobStatus::Completed);
    assert_eq!(
        world.step(Some(key), |m| m.complete(&key)),
        Fenced::Done(()),
        "it was completed by the last output"
    );
}

#[test]
fn a_committed_publication_leaves_no_open_rival() {
    for adopted in [true, false] {
        let (mut world, key) = running(1);
        let first = permitted(&mut world, key, 0);
        world.step(Some(key), |m| m.requeue(&key, RequeueReason::Lost));
        world.claim();
        let key = world.runs.last().unwrap().0;
        let second = world.publication(key, OutputIndex(0));
        let permit = world.step(Some(key), |m| m.permit(&key, &second));
        assert_eq!(
            permit,
            Ok(Fenced::Done(Permit {
                lower: vec![first.clone()]
            }))
        );
        let visible = if adopted { first } else { second };
        world
            .step(Some(key), |m| m.output_done(&key, &done(&visible)))
            .unwrap();
        world.step(Some(key), |m| m.complete(&key));
        assert_eq!(world.job.job.status, JobStatus::Completed);
    }
}

#[test]
fn a_cancel_before_the_permit_refuses_the_permit() {
    let (mut world, key) = running(1);
    assert_eq!(world.step(None, Machine::cancel), Cancelled::Now(vec![key.run]));
    let publication = world.publication(key, OutputIndex(0));
    assert_eq!(
        world.step(Some(key), |m| m.permit(&key, &publication)),
        Ok(Fenced::Lost)
    );
}

#[test]
fn a_cancelled_job_with_a_lost_publisher_ends_through_a_resolving_run() {
    for adopted in [true, false] {
        let (mut world, key) = running(2);
        let publication = permitted(&mut world, key, 0);
        world.step(None, Machine::cancel);
        world.step(Some(key), |m| m.requeue(&key, RequeueReason::Lost));
        assert!(!world.job.job.status.is_terminal());
        world.claim();
        let key = world.runs.last().unwrap().0;
        if adopted {
            world
                .step(Some(key), |m| m.output_done(&key, &done(&publication)))
                .unwrap();
        } else {
            world
                .step(Some(key), |m| m.publications_dead(&key, &[publication.id]))
                .unwrap();
        }
        assert_eq!(world.job.job.status, JobStatus::Cancelled);
        let first = world.job.outputs[0].status;
        assert_eq!(
            first,
            if adopted {
                OutputStatus::Completed
            } else {
                OutputStatus::Cancelled
            }
        );
    }
}

#[test]
fn a_final_failure_waits_for_its_publication_and_adoption_of_all_completes() {
    let (mut world, key) = running(1);
    let publication = permitted(&mut world, key, 0);
    world.step(Some(key), |m| m.fail(&key, &Code2::Final.failure(), &[]));
    assert_eq!(world.job.job.status, JobStatus::Running);
    assert_eq!(
        world.job.tasks[0].state,
        TaskState::Ready,
        "a resolving run is due at once"
    );
    world.claim();
    let key = world.runs.last().unwrap().0;
    world
        .step(Some(key), |m| m.output_done(&key, &done(&publication)))
        .unwrap();
    assert_eq!(world.job.job.status, JobStatus::Completed);
}

#[test]
fn a_silent_destination_ends_the_job_after_a_day_and_says_so() {
    let (mut world, key) = running(1);
    permitted(&mut world, key, 0);
    world.step(None, Machine::cancel);
    let unreachable = Failure::new(super::super::Code::DestinationUnreachable, "no answer");
    let at = |hours| Context {
        policy: Policy::default(),
        now: NOW.plus(Duration::from_hours(hours)),
        random: 1,
        past: None,
        oldest_permit: Some(NOW),
        secrets: SecretsState::Usable,
    };
    let failed = |hours| {
        let mut machine = Machine::new(world.job.clone(), at(hours));
        machine.fail(&key, &unreachable, &[]);
        machine.into_parts().0
    };
    assert_eq!(failed(23).tasks[0].state, TaskState::Delayed);
    let late = failed(24);
    assert_eq!(late.job.status, JobStatus::Cancelled);
    assert!(
        late.outputs[0]
            .failure
            .as_ref()
            .unwrap()
            .message
            .contains("publication_unknown")
    );
}

#[test]
fn a_retry_keeps_what_is_done_and_goes_on_counting() {
    let (mut world, key) = running(2);
    let publication = permitted(&mut world, key, 0);
    world
        .step(Some(key), |m| m.output_done(&key, &done(&publication)))
        .unwrap();
    world.step(Some(key), |m| m.fail(&key, &Code2::Final.failure(), &[]));
    assert_eq!(world.job.job.status, JobStatus::Failed);
    world.apply(&Op::Retry, Speaker::Newest);
    assert_eq!(world.job.job.run, RunNumber(2));
    assert_eq!(world.job.outputs[0].status, OutputStatus::Completed);
    assert_eq!(world.job.outputs[1].status, OutputStatus::Pending);
    assert_eq!(world.job.tasks[0].epoch, Epoch(1));
}

#[test]
fn retry_needs_its_secrets_and_is_repeatable() {
    let (mut world, key) = running(1);
    world.step(Some(key), |m| m.fail(&key, &Code2::Final.failure(), &[]));
    let task = TaskId::from_uuid(id(77));
    let context = |secrets| Context {
        policy: Policy::default(),
        now: NOW,
        random: 0,
        past: None,
        oldest_permit: None,
        secrets,
    };
    assert_eq!(
        Machine::new(world.job.clone(), context(SecretsState::Wiped)).retry(task),
        Retried::SecretsGone
    );
    let mut machine = Machine::new(world.job, context(SecretsState::Usable));
    assert_eq!(machine.retry(task), Retried::Queued);
    assert_eq!(machine.retry(task), Retried::Queued);
    assert_eq!(machine.aggregate().job.run, RunNumber(2));
}

#[test]
fn ending_without_every_output_is_a_failure_and_not_a_success() {
    let (mut world, key) = running(2);
    world.step(Some(key), |m| m.complete(&key));
    assert_eq!(
        world.job.job.failure.as_ref().unwrap().code,
        super::super::Code::Internal
    );
    assert_eq!(world.job.job.status, JobStatus::Queued);
}
