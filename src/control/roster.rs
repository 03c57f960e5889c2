//! Writes down where workers are, so that whoever takes over what this control holds finds them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::Found;
use super::fleet::{Contact, Member};
use super::shared::Shared;
use crate::domain::BootId;
use crate::store::WorkerSeen;

/// Between two rounds in which all that answer are written down (PROTOCOL §3, `workers`).
const ROUND: Duration = Duration::from_secs(30);

/// What other controls saw is looked at for so long: they write it down twice as often.
const FRESH: Duration = Duration::from_secs(75);

/// The incarnations that are on record at their present place.
#[derive(Debug, Default)]
pub(super) struct Roster(HashSet<(BootId, String)>);

impl Roster {
    /// Writes down who is not yet. Afterwards those that are not on record may not be claimed for.
    pub(super) async fn note(&mut self, shared: &Shared, members: &[Arc<Member>]) {
        let seen: Vec<_> = members.iter().filter_map(|member| seen(shared, member)).collect();
        let new: Vec<_> =
            seen.into_iter().filter(|s| !self.0.contains(&(s.boot, s.address.clone()))).collect();
        if new.is_empty() {
            return;
        }
        let session = *shared.session.borrow();
        match shared.store.see_workers(session, &new).await {
            Ok(()) => self.0.extend(new.into_iter().map(|seen| (seen.boot, seen.address))),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "workers are not written down yet");
            }
        }
    }

    /// Whether a run there would be found again, or ends with this process anyway.
    pub(super) fn knows(&self, member: &Member, boot: BootId) -> bool {
        !outlives_us(member) || self.0.contains(&(boot, member.address.clone()))
    }

    /// Forgets incarnations that are gone.
    pub(super) fn keep(&mut self, members: &[Arc<Member>]) {
        let present: HashSet<_> =
            members.iter().filter_map(|member| Some((member.boot()?, member.address.clone()))).collect();
        self.0.retain(|known| present.contains(known));
    }
}

/// Workers in this process, and those it started, end with it.
fn outlives_us(member: &Member) -> bool {
    match member.found {
        Found::InProcess | Found::Started => false,
        Found::Listed | Found::Resolved | Found::Registered | Found::Recorded => true,
    }
}

fn seen(shared: &Shared, member: &Member) -> Option<WorkerSeen> {
    let seen = member.seen();
    let report = seen.report.filter(|_| seen.contact == Contact::Answers && outlives_us(member))?;
    Some(WorkerSeen {
        worker: report.worker,
        boot: report.boot,
        address: member.address.clone(),
        seen_at: shared.clock.now(),
    })
}

/// Says again who is there, and hears whom other controls know, until the control is done.
pub(super) async fn rounds(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(ROUND).await;
        let members = shared.fleet.members();
        let seen: Vec<_> = members.iter().filter_map(|member| seen(&shared, member)).collect();
        let session = *shared.session.borrow();
        if !seen.is_empty()
            && let Err(error) = shared.store.see_workers(session, &seen).await
        {
            tracing::debug!(error = &error as &dyn std::error::Error, "workers are not written down");
        }
        if !shared.store.sole() {
            hear_of_others(&shared).await;
        }
    }
}

/// A worker that registered with one control works for all.
async fn hear_of_others(shared: &Arc<Shared>) {
    let Ok(seen) = shared.store.workers_seen(shared.clock.now().minus(FRESH)).await else { return };
    for seen in seen {
        if shared.fleet.at(&seen.address).is_some() || shared.fleet.of(seen.boot).is_some() {
            continue;
        }
        if let Some(handle) = shared.discovery.recorded(&seen.address) {
            shared.join(handle);
        }
    }
}
