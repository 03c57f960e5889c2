//! Workers that something starts when they are connected to (Fly's proxy, Cloud Run): calling one is waking it.
//!
//! So a worker of this kind is asked after by its minder only while it runs something, or it would never sleep. What is
//! not known to sleep is woken by the call that asks it for slots; this waker sees to those that took longer than that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Crew, Need, Waker, Woken};
use crate::control::Found;
use crate::control::fleet::{Contact, Member, bounded};
use crate::control::settings::Backoff;
use crate::control::shared::Shared;
use async_trait::async_trait;

pub(super) struct Connect {
    patience: Duration,
    calling: Arc<Calling>,
}

/// Who is being called.
#[derive(Default)]
struct Calling(Mutex<Vec<Arc<Member>>>);

impl Connect {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, calling: Arc::default() }
    }
}

impl Calling {
    /// Whether it was not called already.
    fn begin(&self, member: &Arc<Member>) -> bool {
        let mut calling = self.members();
        let new = calling.iter().all(|known| !Arc::ptr_eq(known, member));
        if new {
            calling.push(Arc::clone(member));
        }
        new
    }

    fn end(&self, member: &Arc<Member>) {
        self.members().retain(|known| !Arc::ptr_eq(known, member));
    }

    fn members(&self) -> MutexGuard<'_, Vec<Arc<Member>>> {
        // Every change is one push or one sweep.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Waker for Connect {
    fn name(&self) -> &'static str {
        "connect"
    }

    fn crew(&self) -> Option<Crew> {
        let coming = u32::try_from(self.calling.members().len()).unwrap_or(u32::MAX);
        Some(Crew { coming, up: None })
    }

    async fn wake(&self, shared: &Arc<Shared>, need: Need) -> Woken {
        let mut begun = 0;
        for member in shared.fleet.members().iter().filter(|member| sleeps(member)) {
            if begun == need.workers {
                break;
            }
            if self.calling.begin(member) {
                begun += 1;
                let (calling, patience) = (Arc::clone(&self.calling), self.patience);
                shared.spawn("wake", call(Arc::clone(shared), Arc::clone(member), calling, patience));
            }
        }
        Woken { begun, trouble: None }
    }
}

fn sleeps(member: &Member) -> bool {
    member.found != Found::InProcess && member.seen().contact != Contact::Answers
}

async fn call(shared: Arc<Shared>, member: Arc<Member>, calling: Arc<Calling>, patience: Duration) {
    let rises = tokio::time::timeout(patience, rises(&shared, &member, patience)).await;
    calling.end(&member);
    if rises.is_ok() {
        shared.wakes.look();
    } else {
        tracing::warn!(address = %member.address, "worker did not come up in time");
        shared.wakes.fell();
    }
}

/// Resolves once it has answered its minder too.
async fn rises(shared: &Shared, member: &Member, patience: Duration) {
    let mut backoff = Backoff::new(&shared.pace);
    // Longer than a usual call: what starts the worker may hold the call until it is up.
    while bounded(patience, member.client.status()).await.is_err() {
        tokio::time::sleep(backoff.step()).await;
    }
    member.poke.notify_one();
    member.answers().await;
}
