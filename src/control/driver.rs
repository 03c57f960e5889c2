//! The driver of one run: starts it, follows its stream and turns what the worker says into fenced verbs.
//!
//! It ends in one of few ways ([`End`]), and only then lets go of the run. A verb that is answered with `Lost` ends it
//! at once; a verb without an answer is said again, and nothing that follows from it happens before.

mod dial;
mod verbs;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

use self::dial::Dial;
use super::fleet::{Member, bounded};
use super::runs::Guard;
use super::settings::Backoff;
use super::shared::Shared;
use super::{carry, ending};
use crate::domain::{Code, Failure, OutputIndex, Progress, Publication, RunOutcome};
use crate::rpc::wire::{PermitGrant, Permitted, ReservationId, RunEvent};
use crate::rpc::{CallError, EventStream};
use crate::store::{Claimed, OutputDone, RequeueReason, RunKey};
use crate::telemetry::{metrics, task_span};

/// Tries to tell a worker that a run is over. If none arrives, the worker stops it when it is not renewed.
const PARTING_TRIES: u32 = 3;

/// What the client reads of a contradiction or a panic.
const DEFECT: &str = "a defect in flux ended this attempt";

/// How a driver ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The end of the run is on record: the worker may put it away.
    Recorded,
    /// The task goes back to the queue.
    GiveBack(RequeueReason),
    /// The run holds the task no more, or somebody stopped it: write nothing.
    Forget,
    /// The worker or the record contradicts itself: fail the run, so that it ends.
    Broken(&'static str),
}

/// What to do when a stream ends.
enum Next {
    Attach,
    End(End),
}

/// Drives a claimed run to its end. A panic is a defect, and ends the run like one.
pub(super) async fn drive(shared: Arc<Shared>, held: Guard, claimed: Claimed, reservation: ReservationId) {
    drive_from(Dial::Start, shared, held, claimed, reservation).await;
}

/// Drives a run that another session started.
pub(super) async fn take_up(shared: Arc<Shared>, held: Guard, claimed: Claimed) {
    // It is there already: nothing is started, so that nothing has to be granted.
    drive_from(Dial::Attach, shared, held, claimed, ReservationId(Uuid::nil())).await;
}

async fn drive_from(
    dial: Dial,
    shared: Arc<Shared>,
    held: Guard,
    claimed: Claimed,
    reservation: ReservationId,
) {
    let span = task_span(claimed.key.job, claimed.epoch, &claimed.worker);
    let key = claimed.key;
    // Of a run that is taken up, what was permitted may be visible already.
    let own = claimed.open.iter().filter(|open| open.run == key.run);
    let granted = own.map(|open| open.output).collect();
    let driver = Driver {
        backoff: Backoff::new(&shared.pace),
        shared: Arc::clone(&shared),
        held,
        claimed,
        reservation,
        heard: Instant::now(),
        beat: Duration::ZERO,
        granted,
        refusals: 0,
        lacks_source: false,
        floor: Progress::ZERO,
        ended: false,
    };
    let end = AssertUnwindSafe(driver.drive(dial).instrument(span)).catch_unwind().await;
    if end.is_err() {
        let failure = Failure::new(Code::Internal, DEFECT).with_detail("the driver of the run panicked");
        if let Err(error) = shared.store.fail(key, failure, Vec::new(), shared.clock.now()).await {
            tracing::error!(run = %key.run, error = &error as &dyn std::error::Error, "run stays held until a restart");
        }
    }
    if let Ok(End::Recorded) = end {
        ending::count(&shared, key.job).await;
    }
    shared.alarm.notify_one();
    shared.dispatch.notify_one();
}

struct Driver {
    shared: Arc<Shared>,
    held: Guard,
    claimed: Claimed,
    reservation: ReservationId,
    /// When the worker was last heard, or listened to again after a verb that took long.
    heard: Instant,
    /// The worker's clock as of its last heartbeat.
    beat: Duration,
    /// Outputs with a permit whose fate the worker has not told yet.
    granted: BTreeSet<OutputIndex>,
    /// Progress never goes below this.
    floor: Progress,
    /// Whether the worker has told the end.
    ended: bool,
    /// How often in a row nobody was there to connect to.
    refusals: u32,
    /// The worker asked for a source that this control does not have.
    lacks_source: bool,
    backoff: Backoff,
}

impl Driver {
    async fn drive(mut self, dial: Dial) -> End {
        let end = match self.follow(dial).await {
            End::GiveBack(reason) => self.give_back(reason).await,
            End::Broken(what) => self.give_up(what).await,
            end @ (End::Recorded | End::Forget) => end,
        };
        tracing::debug!(?end, "run is over here");
        let Self { shared, held, claimed, ended, .. } = self;
        let parting =
            Parting { member: Arc::clone(&held.member), key: claimed.key, ended, limit: shared.pace.call };
        if let End::GiveBack(reason) = end {
            metrics::task_finished(match reason {
                RequeueReason::Lost | RequeueReason::Died => RunOutcome::Lost,
                RequeueReason::Released => RunOutcome::Released,
            });
            // The task is free again already; its next run must not wait for a worker that may be gone.
            drop(held);
            shared.dispatch.notify_one();
            parting.say().await;
        } else if held.is_left() {
            // It goes on, for whoever holds it now.
            drop(held);
        } else {
            parting.say().await;
            drop(held);
        }
        end
    }

    async fn follow(&mut self, mut dial: Dial) -> End {
        if (self.claimed.epoch.0 > 1 || dial == Dial::Attach)
            && let Ok(Some(job)) = self.shared.store.get(None, self.claimed.key.job).await
        {
            self.floor = job.aggregate.job.progress;
        }
        loop {
            let stream = match self.dial(dial).await {
                Ok(stream) => stream,
                Err(end) => return end,
            };
            match self.listen(stream).await {
                Next::End(end) => return end,
                Next::Attach if self.held.is_accepted() => dial = Dial::Attach,
                // Nothing was heard yet: the start may have got lost, and saying it twice begins one run (F2).
                Next::Attach => dial = Dial::StartAgain,
            }
        }
    }

    async fn listen(&mut self, mut stream: EventStream) -> Next {
        let mut woken = self.claimed.resolve_only;
        loop {
            let idle = !self.claimed.resolve_only && self.granted.is_empty();
            if idle && self.held.cancelling.is_cancelled() {
                // Nothing of this run can become visible; what earlier runs left open is resolved by a fresh claim.
                return Next::End(End::GiveBack(RequeueReason::Released));
            }
            let silence = self.heard + self.shared.pace.silence;
            let event = tokio::select! {
                biased;
                () = self.held.stop.cancelled() => return Next::End(End::Forget),
                event = stream.next() => event,
                () = self.held.doubt.notified() => return Next::Attach,
                () = self.held.cancelling.cancelled(), if !woken => {
                    woken = true;
                    continue;
                }
                () = tokio::time::sleep_until(silence) => {
                    tracing::warn!("worker fell silent");
                    return Next::End(End::GiveBack(RequeueReason::Lost));
                }
            };
            match event {
                Some(Ok(event)) => {
                    self.ended = event.is_last();
                    self.backoff = Backoff::new(&self.shared.pace);
                    self.refusals = 0;
                    let outcome = self.hear(event).await;
                    // While a verb was said nobody listened: that was not the worker's silence.
                    self.heard = Instant::now();
                    if let Err(end) = outcome {
                        return Next::End(end);
                    }
                }
                Some(Err(error)) => {
                    tracing::info!(%error, "stream broke");
                    return Next::Attach;
                }
                None => return Next::Attach,
            }
        }
    }

    async fn hear(&mut self, event: RunEvent) -> Result<(), End> {
        let (key, now) = (self.claimed.key, || self.shared.clock.now());
        match event {
            RunEvent::Accepted => {
                self.held.accept();
                self.say(|store| store.started(key, now())).await
            }
            RunEvent::Heartbeat { monotonic, mut report } => {
                // Facts are told before heartbeats: it still has no source, and the control that has it is another.
                if self.lacks_source {
                    return Err(End::GiveBack(RequeueReason::Released));
                }
                self.beat = monotonic;
                self.held.member.beat(monotonic);
                // Runs are renewed by whoever answers for the worker.
                if let Some(speaker) = self.shared.fleet.of(self.held.boot) {
                    speaker.beat(monotonic);
                }
                self.floor = self.floor.raise(report.progress);
                report.progress = self.floor;
                self.held.live.send_modify(|live| live.report = Some(report));
                Ok(())
            }
            RunEvent::Media(media) => {
                self.lacks_source = false;
                self.say(|store| store.media(key, &media, now())).await
            }
            RunEvent::OutputMoved(output, status) => {
                self.say(|store| store.output_status(key, output, status, now())).await
            }
            RunEvent::Ready(publication) => self.permit(publication).await,
            RunEvent::OutputDone { output, publication, result } => {
                let done = OutputDone { output, publication, result: *result };
                self.say(|store| store.output_done(key, done.clone(), now())).await?;
                self.granted.remove(&output);
                Ok(())
            }
            RunEvent::Resolved(dead) => self.say(|store| store.publications_dead(key, &dead, now())).await,
            RunEvent::Finished => {
                self.say(|store| store.complete(key, now())).await?;
                metrics::task_finished(RunOutcome::Done);
                Err(End::Recorded)
            }
            RunEvent::Failed(failed) => {
                let failed = *failed;
                let mut failure = failed.failure;
                if failure.log.is_empty() {
                    failure = failure.with_log(failed.log_tail.lines().map(ToOwned::to_owned));
                }
                tracing::info!(code = %failure.code, detail = %failure.detail, "run failed");
                self.keep_mark().await;
                self.say(|store| store.fail(key, failure.clone(), failed.outputs.clone(), now())).await?;
                metrics::task_finished(RunOutcome::Failed);
                metrics::failure(failure.code);
                Err(End::Recorded)
            }
            RunEvent::NeedSource => {
                let source = &self.claimed.spec.source;
                if carry::is_here(&self.shared, source).await {
                    carry::start(&self.shared, self.held.share(), source.clone());
                } else {
                    self.lacks_source = true;
                }
                Ok(())
            }
            RunEvent::Released(reason) => {
                tracing::info!(reason, "worker gave the run back");
                self.held.member.poke.notify_one();
                self.say(|store| store.requeue(key, RequeueReason::Released, now())).await?;
                metrics::task_finished(RunOutcome::Released);
                Err(End::Recorded)
            }
        }
    }

    /// Writes how far the run came, so that the end a reader hears is not behind what it heard before.
    async fn keep_mark(&self) {
        if let Some(reported) = self.held.reported() {
            // A figure for people: a store in trouble says so with the verb that follows.
            let _ = self.shared.store.progress(&[reported]).await;
        }
    }

    /// Permits a publication: on record first, then to the worker (PROTOCOL §2 step 6).
    async fn permit(&mut self, publication: Publication) -> Result<(), End> {
        let (key, echo) = (self.claimed.key, self.beat);
        let mut grant = PermitGrant {
            run: key.run,
            output: publication.output,
            publication: publication.id,
            granted: None,
        };
        let answer = self.say(|store| store.permit(key, publication.clone(), self.shared.clock.now())).await;
        let permit = match answer {
            Ok(permit) => permit,
            Err(End::Forget) => {
                // Best effort: the parting call stops the run whether this arrives or not.
                let _ = bounded(self.shared.pace.call, self.held.member.client.permit(&grant)).await;
                return Err(End::Forget);
            }
            Err(end) => return Err(end),
        };
        self.granted.insert(publication.output);
        grant.granted = Some(Permitted { lower: permit.lower, ttl: self.shared.pace.permit, echo });
        self.tell(&grant).await
    }

    /// Hands over a grant. The worker asks again for one that came too late; one that it does not know shows when the
    /// stream is taken up again.
    async fn tell(&mut self, grant: &PermitGrant) -> Result<(), End> {
        let since = Instant::now();
        let mut backoff = Backoff::new(&self.shared.pace);
        loop {
            let call = bounded(self.shared.pace.call, self.held.member.client.permit(grant));
            match self.held.stop.run_until_cancelled(call).await {
                None => return Err(End::Forget),
                Some(Ok(()) | Err(CallError::Stale(_))) => return Ok(()),
                Some(Err(CallError::NotFound)) => {
                    self.held.doubt.notify_one();
                    return Ok(());
                }
                Some(Err(error @ (CallError::Protocol(_) | CallError::Incompatible { .. }))) => {
                    tracing::error!(%error, "worker does not take the permit");
                    return Err(End::Broken("the worker did not take its permit"));
                }
                Some(Err(CallError::Refused(_) | CallError::Unreachable(_) | CallError::Unauthorized(_)))
                    if since.elapsed() < self.shared.pace.silence =>
                {
                    let wait = tokio::time::sleep(backoff.step());
                    if self.held.stop.run_until_cancelled(wait).await.is_none() {
                        return Err(End::Forget);
                    }
                }
                Some(Err(_)) => return Err(End::GiveBack(RequeueReason::Lost)),
            }
        }
    }
}

/// The last word to a worker about a run.
struct Parting {
    member: Arc<Member>,
    key: RunKey,
    /// The worker told the end itself: it may put the run away. Otherwise it must stop it.
    ended: bool,
    limit: Duration,
}

impl Parting {
    async fn say(self) {
        let client = &self.member.client;
        for _ in 0..PARTING_TRIES {
            let told = if self.ended {
                bounded(self.limit, client.ack(self.key.run)).await
            } else {
                bounded(self.limit, client.cancel(self.key.run, self.key.session)).await.map(drop)
            };
            if !matches!(told, Err(CallError::Unreachable(_))) {
                return;
            }
        }
    }
}
