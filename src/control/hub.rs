//! Live following of jobs: one `watch` channel per job that is run or read.
//!
//! Drivers write reports straight into the channel, so that no queue lies between a worker and any number of readers;
//! the actor here only makes channels, counts committed changes into them and forgets those nobody holds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Live;
use crate::domain::{JobId, TaskReport};

/// Asks wait when the queue is full: the actor answers each in microseconds and never waits itself.
const QUEUE: usize = 256;
/// How often channels without any holder are looked for, while there are channels at all.
const SWEEP: Duration = Duration::from_secs(5);

type Channel = Arc<watch::Sender<Live>>;

enum Ask {
    Follow(JobId, oneshot::Sender<Channel>),
    Peek(JobId, oneshot::Sender<Option<TaskReport>>),
    List(oneshot::Sender<Vec<(JobId, Channel)>>),
}

/// The handle of the actor.
#[derive(Debug, Clone)]
pub(super) struct Hub(mpsc::Sender<Ask>);

/// The actor itself.
pub(super) struct HubActor {
    asks: mpsc::Receiver<Ask>,
    changes: Option<broadcast::Receiver<JobId>>,
    channels: HashMap<JobId, Channel>,
}

impl Hub {
    pub(super) fn new(changes: broadcast::Receiver<JobId>) -> (Self, HubActor) {
        let (sender, asks) = mpsc::channel(QUEUE);
        (Self(sender), HubActor { asks, changes: Some(changes), channels: HashMap::new() })
    }

    /// The job's channel, made if there is none. After the end of the control it is one that nobody writes to.
    pub(super) async fn channel(&self, job: JobId) -> Channel {
        let (answer, wait) = oneshot::channel();
        if self.0.send(Ask::Follow(job, answer)).await.is_ok()
            && let Ok(channel) = wait.await
        {
            return channel;
        }
        Arc::default()
    }

    /// The latest live report, if the job runs.
    pub(super) async fn peek(&self, job: JobId) -> Option<TaskReport> {
        let (answer, wait) = oneshot::channel();
        self.0.send(Ask::Peek(job, answer)).await.ok()?;
        wait.await.ok().flatten()
    }

    /// The channels that somebody reads.
    pub(super) async fn channels(&self) -> Vec<(JobId, Channel)> {
        let (answer, wait) = oneshot::channel();
        if self.0.send(Ask::List(answer)).await.is_err() {
            return Vec::new();
        }
        wait.await.unwrap_or_default()
    }
}

impl HubActor {
    pub(super) async fn run(mut self, done: CancellationToken) {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = done.cancelled() => return,
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.answer(ask),
                    None => return,
                },
                change = next_change(&mut self.changes) => self.note(change),
                _ = sweep.tick(), if !self.channels.is_empty() => self.sweep(),
            }
        }
    }

    fn answer(&mut self, ask: Ask) {
        // An asker that has gone away needs no answer.
        match ask {
            Ask::Follow(job, answer) => drop(answer.send(Arc::clone(self.channels.entry(job).or_default()))),
            Ask::List(answer) => {
                let read = self.channels.iter().filter(|(_, channel)| channel.receiver_count() > 0);
                drop(answer.send(read.map(|(job, channel)| (*job, Arc::clone(channel))).collect()));
            }
            Ask::Peek(job, answer) => {
                drop(
                    answer.send(self.channels.get(&job).and_then(|channel| channel.borrow().report.clone())),
                );
            }
        }
    }

    fn note(&mut self, change: Change) {
        match change {
            Change::Of(job) => {
                if let Some(channel) = self.channels.get(&job) {
                    channel.send_modify(|live| live.revision += 1);
                }
            }
            Change::Many => {
                for channel in self.channels.values() {
                    channel.send_modify(|live| live.revision += 1);
                }
            }
        }
    }

    fn sweep(&mut self) {
        self.channels.retain(|_, channel| Arc::strong_count(channel) > 1 || channel.receiver_count() > 0);
    }
}

#[derive(Clone, Copy)]
enum Change {
    Of(JobId),
    /// The hints came faster than we read them: any job may have changed.
    Many,
}

async fn next_change(changes: &mut Option<broadcast::Receiver<JobId>>) -> Change {
    if let Some(receiver) = changes {
        match receiver.recv().await {
            Ok(job) => return Change::Of(job),
            Err(broadcast::error::RecvError::Lagged(_)) => return Change::Many,
            Err(broadcast::error::RecvError::Closed) => *changes = None,
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn job(n: u128) -> JobId {
        JobId::from_uuid(Uuid::from_u128(n))
    }

    #[tokio::test]
    async fn a_change_reaches_every_reader_of_its_job_only() {
        let (changes, receiver) = broadcast::channel(8);
        let (hub, actor) = Hub::new(receiver);
        let tasks = tokio_util::task::TaskTracker::new();
        tasks.spawn(actor.run(CancellationToken::new()));
        let mut mine = hub.channel(job(1)).await.subscribe();
        let other = hub.channel(job(2)).await.subscribe();
        changes.send(job(1)).unwrap();
        mine.changed().await.unwrap();
        assert_eq!((mine.borrow().revision, other.borrow().revision), (1, 0));
    }

    #[tokio::test]
    async fn a_thousand_readers_share_one_channel() {
        let (_changes, receiver) = broadcast::channel(2);
        let (hub, actor) = Hub::new(receiver);
        let tasks = tokio_util::task::TaskTracker::new();
        tasks.spawn(actor.run(CancellationToken::new()));
        let driver = hub.channel(job(1)).await;
        let mut readers = Vec::new();
        for _ in 0..1000 {
            readers.push(hub.channel(job(1)).await.subscribe());
        }
        for revision in 1..=50 {
            driver.send_modify(|live| live.revision = revision);
        }
        assert!(
            readers.iter().all(|reader| reader.borrow().revision == 50),
            "late readers see the latest only"
        );
    }

    #[tokio::test]
    async fn a_lag_of_the_hints_wakes_every_reader() {
        let (changes, receiver) = broadcast::channel(2);
        let (hub, actor) = Hub::new(receiver);
        for n in 10..20 {
            changes.send(job(n)).unwrap();
        }
        let (asked, tasks) = (hub.clone(), tokio_util::task::TaskTracker::new());
        let mut actor = actor;
        let (answer, wait) = oneshot::channel();
        actor.answer(Ask::Follow(job(1), answer));
        let mut reader = wait.await.unwrap().subscribe();
        tasks.spawn(actor.run(CancellationToken::new()));
        reader.changed().await.unwrap();
        assert!(reader.borrow().revision > 0);
        drop(asked);
    }

    #[tokio::test]
    async fn channels_without_holders_are_forgotten() {
        let (_changes, receiver) = broadcast::channel(2);
        let (_hub, mut actor) = Hub::new(receiver);
        let follow = |actor: &mut HubActor, n| {
            let (answer, mut wait) = oneshot::channel();
            actor.answer(Ask::Follow(job(n), answer));
            wait.try_recv().unwrap()
        };
        let (driver, reader) = (follow(&mut actor, 1), follow(&mut actor, 2).subscribe());
        drop(follow(&mut actor, 3));
        actor.sweep();
        assert_eq!(actor.channels.len(), 2);
        drop((driver, reader));
        actor.sweep();
        assert!(actor.channels.is_empty());
    }
}
