//! Keeps the control's session: the lease on everything it holds (PROTOCOL §1.6).

use std::sync::Arc;

use tokio::time::Instant;

use super::settings::Backoff;
use super::shared::Shared;
use crate::store::Fenced;

/// Renews until the control is done; a session that is over is never revived but replaced, with empty hands.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut next = Instant::now() + shared.pace.session;
    let mut backoff = Backoff::new(&shared.pace);
    loop {
        tokio::select! {
            biased;
            () = shared.done.cancelled() => return,
            () = tokio::time::sleep_until(next) => {}
        }
        next = match renew(&shared).await {
            Ok(()) => {
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
            tracing::error!(%session, "session is over; its runs are stopped and a new one begins");
            shared.runs.stop_all();
            let new = shared.store.open_session(&shared.name, shared.clock.now()).await?;
            shared.session.send_replace(new);
            shared.dispatch.notify_one();
            shared.alarm.notify_one();
        }
    }
    Ok(())
}
