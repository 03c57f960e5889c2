//! What a run has to tell, kept until it is acknowledged.
//!
//! The run writes and never waits; every reader (the first stream, and any that attaches later) gets the whole
//! sequence of facts in order and the latest heartbeat. Verbs of the store are idempotent, so hearing a fact twice
//! is harmless; missing one would not be.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::domain::{Phase, Progress, TaskReport};
use crate::rpc::wire::RunEvent;

/// A run says something at least this often (DESIGN §7).
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Events that may wait for one slow reader; more are kept in the log anyway.
const READER_BUFFER: usize = 16;

/// The run's side. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct RunLog {
    state: watch::Sender<State>,
    started: Instant,
}

#[derive(Debug, Clone)]
struct State {
    /// Facts in order; shared with readers, so a copy is one pointer each.
    facts: Vec<Arc<RunEvent>>,
    report: TaskReport,
}

impl RunLog {
    /// An empty log. `started` is when the worker began: heartbeats carry the time since then.
    pub(super) fn new(started: Instant) -> Self {
        let report = TaskReport {
            phase: Phase::Fetching,
            progress: Progress::ZERO,
            fps: None,
            speed: None,
            eta_seconds: None,
        };
        Self {
            state: watch::Sender::new(State { facts: vec![Arc::new(RunEvent::Accepted)], report }),
            started,
        }
    }

    /// Adds a fact. Nothing is added after the last one.
    pub(super) fn tell(&self, fact: RunEvent) {
        self.state.send_if_modified(|state| {
            if state.over() {
                return false;
            }
            state.facts.push(Arc::new(fact));
            true
        });
    }

    /// Replaces the live report; progress never goes back.
    pub(super) fn report(&self, mut report: TaskReport) {
        self.state.send_modify(|state| {
            report.progress = report.progress.raise(state.report.progress);
            state.report = report;
        });
    }

    /// Whether the last fact was told.
    pub(super) fn over(&self) -> bool {
        self.state.borrow().over()
    }

    /// A new reader: its channel, and the future that feeds it until the run is over or the reader is gone.
    pub(super) fn read(&self) -> (mpsc::Receiver<RunEvent>, impl Future<Output = ()> + Send + use<>) {
        let (sender, receiver) = mpsc::channel(READER_BUFFER);
        (receiver, feed(self.state.subscribe(), sender, self.started))
    }
}

impl State {
    fn over(&self) -> bool {
        self.facts.last().is_some_and(|fact| fact.is_last())
    }
}

async fn feed(mut state: watch::Receiver<State>, sender: mpsc::Sender<RunEvent>, started: Instant) {
    let mut told = 0;
    let mut beat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (news, report, over) = {
            let current = state.borrow_and_update();
            (current.facts[told..].to_vec(), current.report.clone(), current.over())
        };
        told += news.len();
        for fact in news {
            if sender.send((*fact).clone()).await.is_err() {
                return;
            }
        }
        if over {
            return;
        }
        let heartbeat = RunEvent::Heartbeat { monotonic: started.elapsed(), report };
        if sender.send(heartbeat).await.is_err() {
            return;
        }
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            _ = beat.tick() => {}
            () = sender.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::OutputIndex;
    use crate::domain::OutputStatus;

    fn report(permille: u16) -> TaskReport {
        TaskReport {
            phase: Phase::Encoding,
            progress: Progress::from_permille(permille),
            fps: None,
            speed: None,
            eta_seconds: None,
        }
    }

    fn facts(events: &[RunEvent]) -> Vec<&RunEvent> {
        events.iter().filter(|e| !matches!(e, RunEvent::Heartbeat { .. })).collect()
    }

    async fn drain(mut receiver: mpsc::Receiver<RunEvent>) -> Vec<RunEvent> {
        let mut all = Vec::new();
        while let Some(event) = receiver.recv().await {
            all.push(event);
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn early_and_late_readers_hear_the_same_facts() {
        let log = RunLog::new(Instant::now());
        let (early, feed_early) = log.read();
        let early = tokio::join!(
            async {
                log.report(report(300));
                log.report(report(200));
                log.tell(RunEvent::OutputMoved(OutputIndex(0), OutputStatus::Encoding));
                log.tell(RunEvent::Finished);
                log.tell(RunEvent::Released("too late".into()));
            },
            feed_early,
            drain(early)
        )
        .2;
        let (late, feed_late) = log.read();
        let late = tokio::join!(feed_late, drain(late)).1;
        let expected = [
            RunEvent::Accepted,
            RunEvent::OutputMoved(OutputIndex(0), OutputStatus::Encoding),
            RunEvent::Finished,
        ];
        assert_eq!(facts(&early), expected.iter().collect::<Vec<_>>());
        assert_eq!(facts(&late), expected.iter().collect::<Vec<_>>());
        assert_eq!(log.state.borrow().report.progress, Progress::from_permille(300));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_run_still_beats_and_a_reader_that_stopped_reading_blocks_nobody() {
        let log = RunLog::new(Instant::now());
        let (stuck, feed_stuck) = log.read();
        let (mut alive, feed_alive) = log.read();
        let heard = async {
            let mut beats = 0;
            while let Some(event) = alive.recv().await {
                if let RunEvent::Heartbeat { monotonic, .. } = event {
                    beats += 1;
                    if monotonic >= Duration::from_secs(20) {
                        break;
                    }
                }
            }
            drop(alive);
            log.tell(RunEvent::Finished);
            drop(stuck);
            beats
        };
        let (beats, ..) = tokio::join!(heard, feed_stuck, feed_alive);
        assert!(beats >= 4, "{beats}");
    }
}
