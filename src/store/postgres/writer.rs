//! Transitions in groups: whatever waits is read, carried out and written with some ten statements (STACK §4).
//!
//! No timer and no added latency: while one group is being committed the next one gathers. Jobs are spread over a few
//! lanes by their id, each a transaction at a time, so that this process and the database work at once and no two of
//! them touch the same job. In a group each job appears once; a verb that the state machine refuses fails alone, since
//! nothing was written for it. A group that the database refuses is said again one by one: every verb is idempotent.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::super::Result;
use super::super::delta::Step;
use super::super::steps::{self, Command, stopped};
use super::db::Db;
use super::error::{self, Remedy, is_outage, remedy};
use super::load::{Lock, load, pasts};
use super::save::save;
use crate::domain::JobId;
use crate::domain::machine::{Illegal, Machine};

/// Transactions at once.
const LANES: usize = 3;
/// Verbs in one commit, at most: bounds the latency of what comes next.
const GROUP: usize = 256;
/// Verbs that wait in each lane; more wait for room.
const LANE: usize = 1024;

/// The sending side; the lanes end when all clones are gone.
#[derive(Clone)]
pub(super) struct Lanes(Vec<mpsc::Sender<Box<dyn Command>>>);

impl Lanes {
    /// Starts the lanes on `tasks`.
    pub(super) fn start(db: &Arc<Db>, tasks: &tokio_util::task::TaskTracker) -> Self {
        let lane = |_| {
            let (lane, inbox) = mpsc::channel(LANE);
            tasks.spawn(serve(inbox, Arc::clone(db)));
            lane
        };
        Self((0..LANES).map(lane).collect())
    }

    /// Says a verb and waits for its commit; `None` = no such job.
    pub(super) async fn say<T, F>(&self, step: Step<F>) -> Result<Option<T>>
    where
        T: Send + 'static,
        F: Fn(&mut Machine) -> std::result::Result<T, Illegal> + Send + Sync + 'static,
    {
        // The low half of an id is random.
        let spread = usize::try_from(step.job.uuid().as_u64_pair().1 % LANES as u64).unwrap_or(0);
        let lane = self.0.get(spread).ok_or_else(stopped)?;
        let (step, answer) = steps::wait(step);
        lane.send(step).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

async fn serve(mut inbox: mpsc::Receiver<Box<dyn Command>>, db: Arc<Db>) {
    let mut waiting: VecDeque<Box<dyn Command>> = VecDeque::new();
    loop {
        if waiting.is_empty() {
            let Some(command) = inbox.recv().await else { return };
            waiting.push_back(command);
        }
        while waiting.len() < GROUP {
            let Ok(command) = inbox.try_recv() else { break };
            waiting.push_back(command);
        }
        let group = once_each(&mut waiting);
        commit(&db, group).await;
    }
}

/// The first command of each job, in order; the others go on waiting.
fn once_each(waiting: &mut VecDeque<Box<dyn Command>>) -> Vec<Box<dyn Command>> {
    let mut jobs = HashSet::with_capacity(waiting.len());
    let (group, rest) = waiting.drain(..).partition(|command| jobs.insert(command.job()));
    let rest: Vec<_> = rest;
    waiting.extend(rest);
    group
}

async fn commit(db: &Db, mut group: Vec<Box<dyn Command>>) {
    let mut outcome = transact(db, &mut group).await;
    if outcome.as_ref().is_err_and(|error| remedy(error) != Remedy::GiveUp) {
        outcome = transact(db, &mut group).await;
    }
    match outcome {
        Ok(()) => group.into_iter().for_each(|command| command.reply(Ok(()))),
        Err(error) if group.len() == 1 => group.into_iter().for_each(|command| {
            command.reply(Err(error::shared(&error)));
        }),
        Err(error) if is_outage(&error) => {
            for command in group {
                command.reply(Err(error::shared(&error)));
            }
        }
        Err(_) => {
            for command in group {
                let mut one = [command];
                let outcome = transact(db, &mut one).await;
                let [command] = one;
                command.reply(outcome);
            }
        }
    }
}

async fn transact(db: &Db, group: &mut [Box<dyn Command>]) -> Result<()> {
    let jobs: Vec<JobId> = group.iter().map(|command| command.job()).collect();
    let runs: Vec<_> = group.iter().filter_map(|command| Some((command.job(), command.run()?))).collect();
    let mut txn = db.begin().await?;
    let mut found = load(&mut txn, &jobs, Lock::ForUpdate).await?;
    let ended: HashMap<_, _> = if runs.is_empty() { HashMap::new() } else { pasts(&mut txn, &runs).await? };
    let mut deltas = Vec::with_capacity(group.len());
    for command in group {
        let past = command.run().and_then(|run| ended.get(&(command.job(), run)).copied());
        deltas.extend(command.carry_out(found.take(command.job()), past, &db.shared));
    }
    save(&mut txn, &db.shared, &deltas).await?;
    db.commit(txn).await?;
    db.tell(&deltas);
    Ok(())
}
