//! Random histories against a small model of who holds the task and what may become visible.

mod cases;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::fixtures::{queued, result};
use crate::domain::{BootId, Hold, OutputStatus, RunNumber, TaskState, WorkerId};

const NOW: Timestamp = Timestamp::from_micros(1_000_000_000_000);

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn job(outputs: u16) -> Aggregate {
    queued(outputs, NOW)
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
    Fail(Kind, Option<u16>),
    Requeue(RequeueReason),
    Recover,
    Cancel,
    Retry,
    Delete,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Retryable,
    Final,
}

impl Kind {
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
        3 => (prop_oneof![Just(Kind::Retryable), Just(Kind::Final)], proptest::option::of(0..3u16))
            .prop_map(|(c, o)| Op::Fail(c, o)),
        2 => prop_oneof![Just(RequeueReason::Lost), Just(RequeueReason::Died), Just(RequeueReason::Released)].prop_map(Op::Requeue),
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
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let past = speaker
            .and_then(|key| self.runs.iter().find(|(k, _)| k.run == key.run).and_then(|(_, past)| *past));
        let context = Context {
            policy: Policy { max_attempts: 3, max_losses: 2, max_crashes: 2 },
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
            let run = self.runs.iter_mut().find(|(key, _)| key.run == end.run).expect("only known runs end");
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
        assert!(job.job.run > was.run || job.job.progress >= was.progress, "progress went back");
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
            assert_eq!(output.status == OutputStatus::Completed, output.publication.is_some());
            assert_eq!(output.result.is_some(), output.publication.is_some());
            let rival = |p: &&Publication| p.output == output.index && p.state == PublicationState::Open;
            assert!(
                output.publication.is_none() || !job.publications.iter().any(|p| rival(&p)),
                "a rival is open"
            );
        }
        for old in before.outputs.iter().filter(|o| o.status == OutputStatus::Completed) {
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
        let live: Vec<_> = self.runs.iter().filter(|(_, past)| past.is_none()).map(|(k, _)| k.run).collect();
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
            Speaker::Foreign => RunKey { session: SessionId::from_uuid(id(99)), ..newest },
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
        let key = RunKey { job: self.job.job.id, task, run: hold.run, session: hold.session };
        self.runs.push((key, None));
        self.highest_epoch += 1;
        let epoch = self.step(None, |m| m.claim(task, hold)).unwrap();
        assert_eq!(epoch.0, self.highest_epoch, "each claim is the next epoch, over retries too");
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
            Op::Recover => return self.step(None, |m| m.recover(|_| true)),
            Op::Cancel => {
                let before = self.job.clone();
                let answer = self.step(None, Machine::cancel);
                let open = before.publications.iter().any(|p| p.state == PublicationState::Open);
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

    fn say(&mut self, op: &Op, key: RunKey) {
        let held =
            self.job.tasks[0].hold.as_ref().is_some_and(|h| h.run == key.run && h.session == key.session);
        let some = |job: &Aggregate, n: usize| {
            let all = &job.publications;
            (!all.is_empty()).then(|| all[n % all.len()].clone())
        };
        match op {
            Op::Started => assert_eq!(self.step(Some(key), |m| m.started(&key)) == Fenced::Done(()), held),
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
                let own = self.job.publications.iter().rev().find(|p| p.run == key.run).cloned();
                if let Some(own) = own.filter(|own| held && own.state == PublicationState::Open) {
                    let answer = self.step(Some(key), |m| m.permit(&key, &own));
                    assert!(matches!(answer, Ok(Fenced::Done(_))), "a permit is repeated as it was");
                }
            }
            Op::Dead(n) => {
                if let Some(publication) = some(&self.job, *n) {
                    let _ = self.step(Some(key), |m| m.publications_dead(&key, &[publication.id]));
                }
            }
            Op::OutputDone(n) => {
                if let Some(p) = some(&self.job, *n) {
                    let done = OutputDone { output: p.output, publication: p.id, result: result() };
                    let _ = self.step(Some(key), |m| m.output_done(&key, &done));
                }
            }
            Op::Complete => {
                let first = self.step(Some(key), |m| m.complete(&key));
                if first == Fenced::Done(()) && self.past(key) == Some(RunOutcome::Done) {
                    assert_eq!(self.step(Some(key), |m| m.complete(&key)), first, "complete is repeatable");
                }
            }
            Op::Fail(code, output) => {
                let failure = code.failure();
                let outputs: Vec<_> = output.iter().map(|o| (OutputIndex(*o), failure.clone())).collect();
                let first = self.step(Some(key), |m| m.fail(&key, &failure, &outputs));
                let again = self.step(Some(key), |m| m.fail(&key, &failure, &outputs));
                assert!(!held || first == Fenced::Done(()) && again == first, "fail is repeatable");
            }
            Op::Requeue(reason) => {
                let first = self.step(Some(key), |m| m.requeue(&key, *reason));
                let again = self.step(Some(key), |m| m.requeue(&key, *reason));
                assert!(!held || first == Fenced::Done(()) && again == first, "requeue is repeatable");
            }
            Op::Claim | Op::Wake | Op::Recover | Op::Cancel | Op::Retry | Op::Delete => {}
        }
    }

    fn past(&self, key: RunKey) -> Option<RunOutcome> {
        self.runs.iter().find(|(k, _)| k.run == key.run).and_then(|(_, past)| *past)
    }

    /// I7: from any state a worker that does its work ends the job in a bounded number of runs.
    fn heal(&mut self) {
        for _ in 0..4 {
            if self.job.job.status.is_terminal() {
                return;
            }
            self.step(None, |m| m.recover(|_| true));
            self.apply(&Op::Wake, Speaker::Newest);
            if self.job.job.status.is_terminal() {
                return;
            }
            self.claim();
            let key = self.runs.last().unwrap().0;
            self.step(Some(key), |m| m.started(&key));
            let open: Vec<_> =
                self.job.publications.iter().filter(|p| p.state == PublicationState::Open).cloned().collect();
            for p in open {
                self.step(Some(key), |m| m.publications_dead(&key, &[p.id])).unwrap();
            }
            for output in 0..self.job.outputs.len() {
                if self.job.outputs[output].status == OutputStatus::Completed || is_ending(&self.job) {
                    continue;
                }
                let p = self.publication(key, self.job.outputs[output].index);
                let permit = self.step(Some(key), |m| m.permit(&key, &p)).unwrap();
                assert_eq!(permit, Fenced::Done(Permit { lower: vec![] }));
                let done = OutputDone { output: p.output, publication: p.id, result: result() };
                assert_eq!(self.step(Some(key), |m| m.output_done(&key, &done)), Ok(Fenced::Done(())));
            }
            self.step(Some(key), |m| m.complete(&key));
        }
        assert!(self.job.job.status.is_terminal(), "the job does not end: {:?}", self.job);
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
