//! Opening a run's stream: START until the worker is known to have it, ATTACH from then on.

use tokio::time::Instant;

use super::super::fleet::bounded;
use super::{Driver, End};
use crate::rpc::wire::{Action, RunRequest, Start, Transcode};
use crate::rpc::{CallError, EventStream};
use crate::store::RequeueReason;

/// Refusals in a row after which the worker's process is taken to be gone.
const CERTAIN_REFUSALS: u32 = 2;

/// Which way a stream is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dial {
    /// The first start.
    Start,
    /// A start whose outcome is unknown, said again: a known run is attached to.
    StartAgain,
    /// The worker has the run: take it up.
    Attach,
}

impl Driver {
    /// Opens the stream, trying again until the worker was silent for too long.
    pub(super) async fn dial(&mut self, mut dial: Dial) -> Result<EventStream, End> {
        let request = self.request(dial);
        loop {
            if dial != Dial::Start {
                self.pause().await?;
            }
            let left = (self.heard + self.shared.pace.silence).saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!("worker cannot be reached");
                return Err(End::GiveBack(RequeueReason::Lost));
            }
            let call = bounded(left.min(self.shared.pace.call), self.held.member.client.run(&request));
            let Some(answer) = self.held.stop.run_until_cancelled(call).await else {
                return Err(End::Forget);
            };
            let error = match answer {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            tracing::info!(%error, ?dial, "worker did not take the run");
            self.refusals = if matches!(error, CallError::Refused(_)) { self.refusals + 1 } else { 0 };
            if let Some(end) = self.refused(dial, &error).await {
                return Err(end);
            }
            if dial == Dial::Start {
                dial = Dial::StartAgain;
            }
        }
    }

    /// What a refusal means; `None` is worth another try. Only a first start is known not to have begun anything.
    async fn refused(&self, dial: Dial, error: &CallError) -> Option<End> {
        let uncharged = match dial {
            Dial::Start => RequeueReason::Released,
            Dial::StartAgain | Dial::Attach => RequeueReason::Lost,
        };
        match error {
            CallError::NotFound => {
                self.held.member.poke.notify_one();
                Some(End::GiveBack(if self.another_took_its_place().await {
                    RequeueReason::Died
                } else {
                    uncharged
                }))
            }
            // Its machine says that nobody listens where the worker did: the process is gone. Once could be chance.
            CallError::Refused(_) if self.held.is_accepted() && self.refusals >= CERTAIN_REFUSALS => {
                tracing::warn!("the worker's process is gone");
                self.held.member.poke.notify_one();
                Some(End::GiveBack(RequeueReason::Died))
            }
            CallError::Stale(_) => {
                self.rest();
                Some(End::GiveBack(uncharged))
            }
            // A message this worker does not understand. Charged as a loss, because losses are bounded: a job that no
            // worker understands ends some day.
            CallError::Protocol(_) | CallError::Incompatible { .. } => {
                self.rest();
                Some(End::GiveBack(RequeueReason::Lost))
            }
            CallError::Refused(_) | CallError::Unreachable(_) | CallError::Unauthorized(_)
                if dial == Dial::Attach =>
            {
                None
            }
            CallError::Refused(_) | CallError::Unreachable(_) | CallError::Unauthorized(_) => {
                let status = bounded(self.shared.pace.call, self.held.member.client.status()).await;
                let leaves = status
                    .is_ok_and(|status| status.draining && !status.jobs.contains(&self.claimed.key.job));
                leaves.then(|| {
                    self.held.member.poke.notify_one();
                    End::GiveBack(RequeueReason::Released)
                })
            }
        }
    }

    /// Whether the worker was started anew while it ran this.
    async fn another_took_its_place(&self) -> bool {
        let status = bounded(self.shared.pace.call, self.held.member.client.status()).await;
        self.held.is_accepted() && status.is_ok_and(|status| status.boot != self.claimed.boot)
    }

    fn rest(&self) {
        self.held.member.rest(Instant::now() + self.shared.pace.rest);
    }

    async fn pause(&mut self) -> Result<(), End> {
        let wait = tokio::time::sleep(self.backoff.step());
        self.held.stop.run_until_cancelled(wait).await.ok_or(End::Forget)
    }

    fn request(&self, dial: Dial) -> RunRequest {
        let claimed = &self.claimed;
        let action = match dial {
            Dial::Attach => Action::Attach,
            Dial::Start | Dial::StartAgain => Action::Start(Box::new(Start {
                reservation: self.reservation,
                tenant: claimed.tenant.clone(),
                ttl: self.shared.pace.orphan_grace,
                company: self.held.company,
                work: Transcode {
                    spec: claimed.spec.clone(),
                    secrets: claimed.secrets.clone(),
                    completed: claimed.completed.clone(),
                    open: claimed.open.clone(),
                    resolve_only: claimed.resolve_only,
                    earlier_failures: claimed.earlier_failures,
                },
            })),
        };
        RunRequest {
            task: claimed.key.task,
            job: claimed.key.job,
            run: claimed.key.run,
            epoch: claimed.epoch,
            boot: claimed.boot,
            session: claimed.key.session,
            action,
        }
    }
}
