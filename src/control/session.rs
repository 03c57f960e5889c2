//! Keeps the control's session: the lease on everything it holds (PROTOCOL §1.6).
//!
//! A control that does not know what it holds gives its session up: `takeover` then finds everything again.

use std::sync::Arc;

use tokio::time::Instant;

use super::Found;
use super::settings::Backoff;
use super::shared::Shared;
use crate::store::Fenced;

/// Renews until the control is done; a session that is over is never revived but replaced, with empty hands.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut next = Instant::now() + shared.pace.session;
    let mut backoff = Backoff::new(&shared.pace);
    let mut doubted = false;
    loop {
        tokio::select! {
            biased;
            () = shared.done.cancelled() => return,
            () = tokio::time::sleep_until(next) => {}
            () = shared.resign.notified() => doubted = true,
        }
        let kept = if doubted { begin_again(&shared).await } else { renew(&shared).await };
        next = match kept {
            Ok(()) => {
                doubted = false;
                backoff = Backoff::new(&shared.pace);
                Instant::now() + shared.pace.session
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "session not renewed, trying again");
                Instant::now() + backoff.step()
            }
        };
    }
}

async fn renew(shared: &Shared) -> crate::store::Result<()> {
    let session = *shared.session.borrow();
    // Grants count from the last heartbeat heard *before* the statement was sent (PROTOCOL §1.7).
    let beats: Vec<_> =
        shared.fleet.members().iter().map(|member| (Arc::clone(member), member.last_beat())).collect();
    match shared.store.renew_session(session, shared.clock.now()).await? {
        Fenced::Done(()) => {
            for (member, beat) in beats {
                member.confirm(beat);
            }
        }
        Fenced::Lost => {
            tracing::error!(%session, "session is over and a new one begins; what it held is taken up again");
            begin_again(shared).await?;
        }
    }
    Ok(())
}

/// Ends the session, if it is not over yet, and opens the next one with empty hands.
async fn begin_again(shared: &Shared) -> crate::store::Result<()> {
    let session = *shared.session.borrow();
    // Of a record of our own, what this process ran goes back to the queue (`JobStore::open_session`).
    let sole = shared.store.sole();
    shared.runs.let_go(|held| !(sole && held.member.found == Found::InProcess));
    shared.store.close_session(session).await?;
    let new = shared.store.open_session(&shared.name, shared.clock.now()).await?;
    shared.session.send_replace(new);
    shared.dispatch.notify_one();
    shared.alarm.notify_one();
    Ok(())
}
