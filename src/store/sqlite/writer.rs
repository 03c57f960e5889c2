//! The one writer: takes all that waits, commits it as one group, answers each (STACK §4, PROTOCOL §1.15).
//!
//! No timer and no added latency: while one group is being committed the next one gathers in the lanes. Verbs of
//! running jobs go before claims, claims before submissions, so that a flood of new jobs delays no encode. Transitions of
//! different jobs in one group are read, carried out and written together.
//! A group in which one command fails is rolled back and replayed one command at a time; every verb is idempotent, so
//! the same replay serves a commit whose outcome is unknown.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use tokio::sync::{mpsc, oneshot};

use super::super::delta::Step;
use super::super::shared::Shared;
use super::super::steps::{self, stopped};
use super::super::{Error, Result, Submitted};
use super::error::explain;
use super::submit::{self, Prepared, Replay};
use super::verbs::carry_out;
use crate::domain::JobId;
use crate::domain::machine::{Illegal, Machine};

/// Commands in one commit, at most: bounds the latency of what comes next.
const GROUP: usize = 512;
/// Commands that wait in each lane. Running jobs' verbs and claims wait for room; a submission that finds its lane full
/// is refused, because its client can come back.
const LANE: usize = 1024;

/// One transaction in progress.
pub(super) struct Txn<'c> {
    pub(super) conn: &'c mut SqliteConnection,
    pub(super) shared: &'c Shared,
    /// Jobs whose readers should look again, once committed.
    pub(super) changed: Vec<JobId>,
    /// Change of the number of waiting tasks.
    pub(super) waiting: i64,
    /// Whether there is something to deliver.
    pub(super) posted: bool,
}

/// One business verb.
pub(super) trait Verb: Send + Sync + 'static {
    /// Its answer.
    type Answer: Send + 'static;
    /// Carries it out. Called again from the start when its group was rolled back.
    fn run(&self, txn: &mut Txn<'_>) -> impl Future<Output = Result<Self::Answer>> + Send;
}

/// Which lane a verb takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Verbs about jobs that run.
    Running,
    /// Claims and housekeeping.
    Claim,
}

/// The sending side of the writer; the writer ends when all clones are gone.
#[derive(Clone)]
pub(super) struct Lanes {
    running: mpsc::Sender<Command>,
    claim: mpsc::Sender<Command>,
    submit: mpsc::Sender<Submission>,
}

/// The writer's side.
pub(super) struct Inbox {
    running: mpsc::Receiver<Command>,
    claim: mpsc::Receiver<Command>,
    submit: mpsc::Receiver<Submission>,
}

struct Submission {
    job: Box<Prepared>,
    reply: oneshot::Sender<Result<Submitted>>,
}

/// What waits in a lane.
enum Command {
    /// A transition of one job.
    Step(Box<dyn steps::Command>),
    /// Anything else.
    Other(Box<dyn Other>),
}

impl Command {
    fn reply(self, outcome: Result<()>) {
        match self {
            Self::Step(step) => step.reply(outcome),
            Self::Other(other) => other.reply(outcome),
        }
    }
}

#[async_trait]
trait Other: Send {
    async fn run(&mut self, txn: &mut Txn<'_>) -> Result<()>;
    fn reply(self: Box<Self>, outcome: Result<()>);
}

struct Pending<V: Verb> {
    verb: V,
    answer: Option<V::Answer>,
    reply: oneshot::Sender<Result<V::Answer>>,
}

#[async_trait]
impl<V: Verb> Other for Pending<V> {
    async fn run(&mut self, txn: &mut Txn<'_>) -> Result<()> {
        self.answer = Some(self.verb.run(txn).await?);
        Ok(())
    }

    fn reply(self: Box<Self>, outcome: Result<()>) {
        let Self { answer, reply, .. } = *self;
        // A caller that went away needs no answer: what it asked for is committed and idempotent.
        let _ = reply.send(outcome.and_then(|()| answer.ok_or_else(stopped)));
    }
}

/// The lanes of a new writer.
pub(super) fn lanes() -> (Lanes, Inbox) {
    let (running, running_inbox) = mpsc::channel(LANE);
    let (claim, claim_inbox) = mpsc::channel(LANE);
    let (submit, submit_inbox) = mpsc::channel(LANE);
    (
        Lanes { running, claim, submit },
        Inbox { running: running_inbox, claim: claim_inbox, submit: submit_inbox },
    )
}

impl Lanes {
    /// Says a verb and waits for its commit.
    pub(super) async fn say<V: Verb>(&self, lane: Lane, verb: V) -> Result<V::Answer> {
        let (reply, answer) = oneshot::channel();
        let lane = match lane {
            Lane::Running => &self.running,
            Lane::Claim => &self.claim,
        };
        let pending = Box::new(Pending { verb, answer: None, reply });
        lane.send(Command::Other(pending)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Says a transition of one job and waits for its commit; `None` = no such job.
    pub(super) async fn step<T, F>(&self, step: Step<F>) -> Result<Option<T>>
    where
        T: Send + 'static,
        F: Fn(&mut Machine) -> std::result::Result<T, Illegal> + Send + Sync + 'static,
    {
        let (step, answer) = steps::wait(step);
        self.running.send(Command::Step(step)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Submits a job and waits for its commit; refused at once when too many wait.
    pub(super) async fn submit(&self, job: Prepared) -> Result<Submitted> {
        let (reply, answer) = oneshot::channel();
        self.submit.try_send(Submission { job: Box::new(job), reply }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Error::Unavailable {
                doing: "accepting a job",
                source: "too many submissions wait already".into(),
            },
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        answer.await.map_err(|_| stopped())?
    }
}

/// Serves the lanes until every [`Lanes`] is gone.
pub(super) async fn serve(
    mut conn: SqliteConnection,
    mut inbox: Inbox,
    shared: Arc<Shared>,
) -> SqliteConnection {
    let mut group = Group::default();
    loop {
        tokio::select! {
            biased;
            Some(command) = inbox.running.recv() => group.commands.push(command),
            Some(command) = inbox.claim.recv() => group.commands.push(command),
            Some(submission) = inbox.submit.recv() => group.submissions.push(submission),
            else => return conn,
        }
        group.gather(&mut inbox);
        group.commit(&mut conn, &shared).await;
    }
}

#[derive(Default)]
struct Group {
    commands: Vec<Command>,
    submissions: Vec<Submission>,
}

impl Group {
    fn gather(&mut self, inbox: &mut Inbox) {
        for lane in [&mut inbox.running, &mut inbox.claim] {
            while self.len() < GROUP {
                let Ok(command) = lane.try_recv() else { break };
                self.commands.push(command);
            }
        }
        while self.len() < GROUP {
            let Ok(submission) = inbox.submit.try_recv() else {
                break;
            };
            self.submissions.push(submission);
        }
    }

    fn len(&self) -> usize {
        self.commands.len() + self.submissions.len()
    }

    async fn commit(&mut self, conn: &mut SqliteConnection, shared: &Shared) {
        let mut commands = std::mem::take(&mut self.commands);
        let submissions = std::mem::take(&mut self.submissions);
        let (jobs, replies): (Vec<_>, Vec<_>) = submissions.into_iter().map(|s| (s.job, s.reply)).unzip();
        let alone = commands.len() + jobs.len() == 1;
        match transact(conn, shared, &mut commands, &jobs, Replay::No).await {
            Ok(answers) => {
                for command in commands {
                    command.reply(Ok(()));
                }
                for (reply, answer) in replies.into_iter().zip(answers) {
                    let _ = reply.send(Ok(answer));
                }
            }
            Err(error) if alone && jobs.is_empty() => {
                if let Some(command) = commands.pop() {
                    command.reply(Err(error));
                }
            }
            Err(_) => {
                for command in commands {
                    let mut one = [command];
                    let outcome = transact(conn, shared, &mut one, &[], Replay::No).await.map(|_| ());
                    let [command] = one;
                    command.reply(outcome);
                }
                for (job, reply) in jobs.into_iter().zip(replies) {
                    let outcome =
                        transact(conn, shared, &mut [], std::slice::from_ref(&job), Replay::Yes).await;
                    let _ = reply.send(outcome.and_then(|mut answers| answers.pop().ok_or_else(stopped)));
                }
            }
        }
    }
}

async fn transact(
    conn: &mut SqliteConnection,
    shared: &Shared,
    commands: &mut [Command],
    jobs: &[Box<Prepared>],
    replay: Replay,
) -> Result<Vec<Submitted>> {
    sqlx::query("begin immediate").execute(&mut *conn).await.map_err(explain("beginning a commit"))?;
    let mut txn = Txn { conn: &mut *conn, shared, changed: Vec::new(), waiting: 0, posted: false };
    let outcome = run(&mut txn, commands, jobs, replay).await;
    let Txn { changed, waiting, posted, .. } = txn;
    let outcome = match outcome {
        Ok(answers) => {
            sqlx::query("commit").execute(&mut *conn).await.map(|_| answers).map_err(explain("committing"))
        }
        Err(error) => Err(error),
    };
    match outcome {
        Ok(answers) => {
            shared.waiting.fetch_add(waiting, Ordering::Relaxed);
            if posted {
                shared.posted.notify_one();
            }
            for job in changed {
                // Nobody may be listening.
                let _ = shared.changes.send(job);
            }
            Ok(answers)
        }
        Err(error) => {
            // SQLite may have rolled back by itself (a full disk); then there is nothing to roll back.
            let _ = sqlx::query("rollback").execute(&mut *conn).await;
            Err(error)
        }
    }
}

async fn run(
    txn: &mut Txn<'_>,
    commands: &mut [Command],
    jobs: &[Box<Prepared>],
    replay: Replay,
) -> Result<Vec<Submitted>> {
    let mut steps = Vec::new();
    for command in commands {
        match command {
            Command::Step(step) => {
                if steps.iter().any(|other: &&mut Box<dyn steps::Command>| other.job() == step.job()) {
                    carry_out(txn, &mut steps).await?;
                    steps.clear();
                }
                steps.push(step);
            }
            Command::Other(other) => {
                carry_out(txn, &mut steps).await?;
                steps.clear();
                other.run(txn).await?;
            }
        }
    }
    carry_out(txn, &mut steps).await?;
    submit::accept(txn, jobs, replay).await
}
