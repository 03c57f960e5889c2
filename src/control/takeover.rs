//! Takes up what controls before this one, or beside it, left behind: their sessions are over, their runs may go on.
//!
//! A task that is taken over keeps its run and its epoch. Where its worker is known the run is taken up as it is, and
//! the encode does not begin again; where nobody wrote the worker down it was part of the process that is gone.

use std::sync::Arc;
use std::time::Duration;

use super::driver;
use super::fleet::Member;
use super::runs::NewRun;
use super::settings::Backoff;
use super::shared::Shared;
use crate::domain::{Company, SessionId};
use crate::store::{RequeueReason, RunKey, Taken};

/// Tasks taken over in one transaction.
const BATCH: u32 = 100;

/// Between two looks for sessions that ran out. They do so within 30 s (PROTOCOL §1.6).
const LOOK: Duration = Duration::from_secs(3);

/// Runs until the control is done. Of a record that only one control uses, only the sessions before ours can be over.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut session = shared.session.subscribe();
    loop {
        let current = *session.borrow_and_update();
        take_all(&shared, current).await;
        if shared.store.sole() {
            if session.changed().await.is_err() {
                return;
            }
        } else {
            // Whether it is over or a new one has begun, the next look is due.
            let _ = tokio::time::timeout(LOOK, session.changed()).await;
        }
    }
}

/// Takes over in steps until there is nothing more. If it is not known what came of a step, this control holds tasks
/// that it does not know of; it gives up its session, and finds them with the next one.
async fn take_all(shared: &Arc<Shared>, session: SessionId) {
    loop {
        match shared.store.takeover(session, BATCH, shared.clock.now()).await {
            Ok(taken) if taken.is_empty() => return,
            Ok(taken) => {
                tracing::info!(tasks = taken.len(), "taking up what another session left");
                for taken in taken {
                    take_up(shared, taken).await;
                }
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot tell what was taken over; beginning a new session"
                );
                shared.resign.notify_one();
                return;
            }
        }
    }
}

async fn take_up(shared: &Arc<Shared>, taken: Taken) {
    let Some(member) = whereabouts(shared, &taken) else {
        return give_back(shared, taken.claimed.key, RequeueReason::Lost);
    };
    let claimed = taken.claimed;
    tracing::info!(job.id = %claimed.key.job, run.id = %claimed.key.run, address = member.address, "taking up a run");
    let live = shared.hub.channel(claimed.key.job).await;
    if !shared.is_in_force(claimed.key.session) {
        return;
    }
    let company = if claimed.class.is_solo() { Company::Alone } else { Company::Shared };
    let guard = shared.runs.hold(NewRun {
        key: claimed.key,
        member,
        boot: claimed.boot,
        since: taken.since,
        company,
        live,
    });
    guard.accept();
    shared.spawn("driver", driver::take_up(Arc::clone(shared), guard, claimed));
}

/// Puts a task back into the queue that no driver holds.
pub(super) fn give_back(shared: &Arc<Shared>, key: RunKey, reason: RequeueReason) {
    let control = Arc::clone(shared);
    shared.spawn("give back", async move {
        let mut backoff = Backoff::new(&control.pace);
        while let Err(error) = control.store.requeue(key, reason, control.clock.now()).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a task is not given back yet");
            tokio::time::sleep(backoff.step()).await;
        }
        control.dispatch.notify_one();
    });
}

/// The worker of a run: the one that answers for its incarnation, else whoever is where it was last reached.
fn whereabouts(shared: &Arc<Shared>, taken: &Taken) -> Option<Arc<Member>> {
    if let Some(member) = shared.fleet.of(taken.claimed.boot) {
        return Some(member);
    }
    let address = taken.address.as_deref()?;
    if let Some(member) = shared.fleet.at(address) {
        return Some(member);
    }
    shared.join(shared.discovery.recorded(address)?);
    shared.fleet.at(address)
}
