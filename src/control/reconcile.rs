//! Cleaners: idempotent rounds over the record, on an interval and on a nudge (STYLE: one code path for the happy
//! case and for recovery). To add one: a type with a `tick`, and its line in `Control::start`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::settings::Backoff;
use super::shared::Shared;
use crate::domain::{Folder, Timestamp, Waste};
use crate::store::{DynStore, Result};

/// Removes the bytes that the record no longer needs; given by the room that knows storage.
#[async_trait]
pub trait Sweeper: Send + Sync + 'static {
    /// Removes something; whether it is gone. It is asked again until it is.
    async fn sweep(&self, what: &Waste) -> bool;
}

/// One kind of upkeep.
pub(super) trait Reconciler: Send + Sync + 'static {
    /// Its name in the log.
    const NAME: &'static str;
    /// One idempotent round; says what it did and when the next one is due, if that is known.
    fn tick(&self, now: Timestamp) -> impl Future<Output = Result<Round>> + Send;
}

/// What a round did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Round {
    /// Things changed.
    pub(super) done: u64,
    /// When the next round has work for sure.
    pub(super) due: Option<Timestamp>,
}

impl Round {
    fn of(done: u64) -> Self {
        Self { done, due: None }
    }
}

/// Removes deleted jobs, finished ones after their retention, and then what they leave behind.
pub(super) struct Leavings {
    pub(super) store: DynStore,
    /// How long finished jobs stay; `None` = for ever.
    pub(super) keep: Option<Duration>,
    pub(super) sweeper: Arc<dyn Sweeper>,
    /// What lies in other folders is for their controls to remove.
    pub(super) folder: Folder,
}

impl Reconciler for Leavings {
    const NAME: &'static str = "leavings";
    async fn tick(&self, now: Timestamp) -> Result<Round> {
        let before = self.keep.map_or(Timestamp::from_micros(i64::MIN), |keep| now.minus(keep));
        let removed = self.store.expire(before, now).await?;
        let mut gone = Vec::new();
        for garbage in self.store.garbage(self.folder, now).await? {
            if self.sweeper.sweep(&garbage.what).await {
                gone.push(garbage.id);
            }
        }
        if !gone.is_empty() {
            self.store.swept(&gone).await?;
        }
        Ok(Round::of(removed + u64::try_from(gone.len()).unwrap_or(u64::MAX)))
    }
}

/// Wipes sealed secrets that nobody may need any more.
pub(super) struct Secrets(pub(super) DynStore);

impl Reconciler for Secrets {
    const NAME: &'static str = "secrets";
    async fn tick(&self, now: Timestamp) -> Result<Round> {
        Ok(Round::of(self.0.wipe_secrets(now).await?))
    }
}

/// Makes delayed tasks ready when their time has come.
pub(super) struct Alarm(pub(super) Arc<Shared>);

impl Reconciler for Alarm {
    const NAME: &'static str = "alarm";
    async fn tick(&self, now: Timestamp) -> Result<Round> {
        let (done, due) = self.0.store.wake_delayed(now).await?;
        if done > 0 {
            self.0.dispatch.notify_one();
        }
        Ok(Round { done, due })
    }
}

/// Runs the alarm: as soon as something is due, when nudged, and at the polling pace at the latest.
pub(super) async fn alarm(shared: Arc<Shared>) {
    let alarm = Alarm(Arc::clone(&shared));
    let mut backoff = Backoff::new(&shared.pace);
    loop {
        let now = shared.clock.now();
        let wait = match alarm.tick(now).await {
            Ok(round) => {
                backoff = Backoff::new(&shared.pace);
                round.due.map_or(shared.pace.poll, |due| due.since(now).min(shared.pace.poll))
            }
            Err(error) => {
                report::<Alarm>(&error);
                backoff.step()
            }
        };
        tokio::select! {
            biased;
            () = shared.alarm.notified() => {}
            // Timers have a resolution of 1 ms: one more, so that the time has come when we look.
            () = tokio::time::sleep(wait + Duration::from_millis(1)) => {}
        }
    }
}

/// Runs a cleaner round after round.
pub(super) async fn clean<R: Reconciler>(shared: Arc<Shared>, cleaner: R) {
    let mut next = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = shared.lifecycle.soft().cancelled() => return,
            () = tokio::time::sleep_until(next) => {}
        }
        match cleaner.tick(shared.clock.now()).await {
            Ok(Round { done: 0, .. }) => {}
            Ok(Round { done, .. }) => tracing::info!(cleaner = R::NAME, done, "cleaned up"),
            Err(error) => report::<R>(&error),
        }
        next = Instant::now() + shared.pace.cleaning;
    }
}

fn report<R: Reconciler>(error: &crate::store::Error) {
    tracing::warn!(cleaner = R::NAME, error = error as &dyn std::error::Error, "round failed, trying again");
}
