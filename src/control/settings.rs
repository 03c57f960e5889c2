//! What an operator may turn, and the paces of the protocol.

use std::time::Duration;

use super::waker::Waking;

/// How a control is run.
#[derive(Debug, Clone)]
pub struct ControlSettings {
    /// The name of its session, for people (host name and process id).
    pub name: String,
    /// How long finished jobs stay; `None` keeps them for ever (`retention.hours`).
    pub retention: Option<Duration>,
    /// The paces of the protocol; only tests and simulations change them.
    pub pace: Pace,
    /// How workers that are down are brought up.
    pub waking: Waking,
}

impl Default for ControlSettings {
    /// A week of retention (DESIGN §11).
    fn default() -> Self {
        Self {
            name: "control".to_owned(),
            retention: Some(Duration::from_hours(168)),
            pace: Pace::default(),
            waking: Waking::default(),
        }
    }
}

/// How often and how long (PROTOCOL §1.7, §2). Safety never depends on these numbers, only how soon things happen.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Longest wait for the answer to one call to a worker.
    pub call: Duration,
    /// A run whose worker says nothing for so long is given to another.
    pub silence: Duration,
    /// Between two renewals of the session; a third of its life.
    pub session: Duration,
    /// Between two renewals of the runs on one worker.
    pub renewal: Duration,
    /// Between two looks at a worker's status.
    pub status: Duration,
    /// The fallback should a nudge of the dispatcher or of the alarm get lost.
    pub poll: Duration,
    /// How long the dispatcher waits for the other workers' answers once it could claim for one.
    pub settle: Duration,
    /// How long a granted slot is used; the worker holds it for 10 s.
    pub reservation: Duration,
    /// How long a worker that refused a start is left alone.
    pub rest: Duration,
    /// Between two writes of the high-water marks of progress.
    pub progress: Duration,
    /// How long a worker goes on without hearing from a control (`worker.orphan_grace`).
    pub orphan_grace: Duration,
    /// How long a permit to publish holds.
    pub permit: Duration,
    /// First and longest wait before a failed call or verb is said again.
    pub retry: (Duration, Duration),
    /// Between two rounds of the cleaners (retention, secrets, garbage).
    pub cleaning: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(5),
            silence: Duration::from_secs(30),
            session: Duration::from_secs(10),
            renewal: Duration::from_secs(10),
            status: Duration::from_secs(3),
            poll: Duration::from_secs(5),
            settle: Duration::from_millis(20),
            reservation: Duration::from_secs(8),
            rest: Duration::from_secs(1),
            progress: Duration::from_secs(1),
            orphan_grace: Duration::from_mins(10),
            permit: Duration::from_mins(1),
            retry: (Duration::from_millis(50), Duration::from_secs(5)),
            cleaning: Duration::from_mins(1),
        }
    }
}

/// Waits that double up to a cap. Not random: one control says a verb for each run, so there is no herd to part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    next: Duration,
    cap: Duration,
}

impl Backoff {
    pub(super) fn new(pace: &Pace) -> Self {
        Self { next: pace.retry.0, cap: pace.retry.1 }
    }

    /// The wait before the next try.
    pub(super) fn step(&mut self) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.cap);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_cap() {
        let pace = Pace { retry: (Duration::from_millis(50), Duration::from_millis(300)), ..Pace::default() };
        let mut backoff = Backoff::new(&pace);
        let waits: Vec<_> = (0..5).map(|_| backoff.step().as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 300, 300]);
    }
}
