//! Looks after one worker: asks for its status, renews the runs it has from us, doubts those it does not know.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Found;
use super::fleet::{Contact, Member, Trouble, bounded};
use super::shared::Shared;
use super::storage;
use crate::rpc::CallError;
use crate::rpc::wire::Renewal;

/// Between two looks at a worker that tries its encoders: it takes work as soon as it is known what it can do.
const PROVING: Duration = Duration::from_millis(200);

/// A worker that has not proved anything by then has no tools to do so: it is looked at as often as any other.
const LONGEST_PROOF: Duration = Duration::from_secs(30);

/// Until somebody pokes.
const FOREVER: Duration = Duration::from_hours(24 * 365);

/// Runs until the control is done. Only this task waits for this worker's answers to these two calls.
pub(super) async fn mind(shared: Arc<Shared>, member: Arc<Member>) {
    let pace = shared.pace;
    let mut status_at = Instant::now();
    let mut renewal_at = status_at + pace.renewal;
    let mut proven_by = status_at + LONGEST_PROOF;
    let mut offered = None;
    loop {
        tokio::select! {
            biased;
            () = shared.done.cancelled() => return,
            () = member.gone.cancelled() => return shared.store.offer(shared.fleet.slots()),
            () = tokio::time::sleep_until(status_at) => {}
            () = member.poke.notified() => {}
        }
        let look = look(&shared, &member).await;
        // To count the fleet's slots looks at everyone: only when those of this worker changed.
        let slots = Some(member.slots());
        if offered != slots {
            offered = slots;
            shared.store.offer(shared.fleet.slots());
        }
        if look == Look::Ours && Instant::now() >= renewal_at {
            renewal_at = Instant::now() + pace.renewal;
            renew(&shared, &member).await;
        }
        if !member.is_proving() {
            proven_by = Instant::now() + LONGEST_PROOF;
        }
        let pause = if member.is_proving() && proven_by > Instant::now() {
            PROVING
        } else if rests(&shared, &member) {
            FOREVER
        } else {
            pace.status
        };
        status_at = Instant::now() + pause;
    }
}

/// Whether to ask might wake what sleeps: then whoever needs it asks. It may have left a moment after it answered, so
/// that it answered last time says nothing.
fn rests(shared: &Shared, member: &Arc<Member>) -> bool {
    shared.wakes.lets_sleep() && member.found != Found::InProcess && shared.runs.given_to(member).is_empty()
}

/// How the last look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// It is a worker of ours, or may be again.
    Ours,
    /// Another member speaks for it, or it must not be used: what runs there is not ours to renew.
    NotOurs,
}

async fn look(shared: &Shared, member: &Arc<Member>) -> Look {
    let report = match bounded(shared.pace.call, member.client.status()).await {
        Ok(report) => report,
        Err(error) => {
            let answered = member.seen().contact == Contact::Answers;
            trouble(member, of(&error));
            if answered {
                shared.wakes.look();
            }
            return Look::Ours;
        }
    };
    let boot = report.boot;
    // What another incarnation at this address was given is gone with it.
    if member.boot() != Some(boot) {
        for held in shared.runs.given_to(member).iter().filter(|held| held.boot != boot) {
            held.doubt.notify_one();
        }
    }
    // Renewed under two addresses, each list would tell the worker to stop what the other one holds.
    if let Err(twin) = shared.fleet.speak_for(boot, member) {
        trouble(member, Trouble::Refused(format!("it is the worker at {} by another address", twin.address)));
        return Look::NotOurs;
    }
    if let Err(why) = storage::shared(shared, member, boot).await {
        trouble(member, Trouble::Refused(why));
        return Look::Ours;
    }
    if member.answered(report, shared.clock.now()) {
        tracing::info!(address = %member.address, "worker answers");
        shared.dispatch.notify_one();
        shared.wakes.look();
    }
    Look::Ours
}

fn of(error: &CallError) -> Trouble {
    match error {
        CallError::Unauthorized(_) | CallError::Incompatible { .. } | CallError::Protocol(_) => {
            Trouble::Refused(error.to_string())
        }
        CallError::Refused(_) | CallError::Unreachable(_) | CallError::NotFound | CallError::Stale(_) => {
            Trouble::Silent(error.to_string())
        }
    }
}

/// Notes why a worker gets no work; says so when it begins and when it changes its kind.
fn trouble(member: &Arc<Member>, trouble: Trouble) {
    let before = member.seen().trouble;
    match (&before, &trouble) {
        (Some(Trouble::Silent(_)), Trouble::Silent(_)) | (Some(Trouble::Refused(_)), Trouble::Refused(_)) => {
        }
        (_, Trouble::Silent(why)) => tracing::warn!(address = %member.address, why, "worker does not answer"),
        (_, Trouble::Refused(why)) => tracing::error!(address = %member.address, why, "worker gets no work"),
    }
    member.troubled(trouble);
}

/// Extends our runs there. A run that was accepted before and is missing in the answer is looked for by its driver.
///
/// A worker that runs something while we hold nothing there is renewed too: the empty list tells it to stop what an
/// earlier session left behind.
async fn renew(shared: &Shared, member: &Arc<Member>) {
    let Some(boot) = member.boot() else { return };
    let held = shared.runs.on(boot);
    let runs: Vec<_> = held.iter().map(|held| held.key.run).collect();
    let accepted: Vec<_> = held.into_iter().filter(|held| held.is_accepted()).collect();
    // A run that waits for a permit takes no slot and is to be stopped all the same.
    let busy = member.seen().report.is_some_and(|report| report.busy > 0 || !report.jobs.is_empty());
    if runs.is_empty() && !busy {
        return;
    }
    let session = *shared.session.borrow();
    let echo = match member.echo() {
        Some(echo) => echo,
        // Nothing to count a ttl from yet: an echo of 0 would read as "heard from at the worker's start".
        None if !runs.is_empty() => return,
        None => Duration::ZERO,
    };
    let renewal = Renewal { session, runs, ttl: shared.pace.orphan_grace, echo };
    let Ok(renewed) = bounded(shared.pace.call, member.client.renew(&renewal)).await else {
        return;
    };
    for held in accepted {
        let known = renewed.boot == held.boot && renewed.runs.contains(&held.key.run);
        if !known && shared.runs.holds(held.key.run) {
            held.doubt.notify_one();
        }
    }
}
