//! Calls for slots that are on their way, each bounded.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use crate::control::fleet::{Member, bounded};
use crate::domain::SessionId;
use crate::rpc::CallError;
use crate::rpc::wire::Reserved;

/// What a worker said.
pub(super) struct Answer {
    pub(super) member: Arc<Member>,
    /// For how many slots it was asked.
    pub(super) wanted: u32,
    pub(super) result: Result<Reserved, CallError>,
}

/// Who was asked and has not answered yet.
#[derive(Default)]
pub(super) struct Asking {
    pub(super) calls: FuturesUnordered<BoxFuture<'static, Answer>>,
    asked: HashMap<usize, Wait>,
    awaited: usize,
}

/// Whether the present pass waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Awaited,
    Late,
}

impl Asking {
    pub(super) fn ask(&mut self, member: &Arc<Member>, wanted: u32, session: SessionId, limit: Duration) {
        if self.asked.insert(member.number(), Wait::Awaited).is_none() {
            self.awaited += 1;
        }
        let member = Arc::clone(member);
        self.calls.push(Box::pin(async move {
            let result = bounded(limit, member.client.reserve(wanted, session)).await;
            Answer { member, wanted, result }
        }));
    }

    pub(super) fn is_asked(&self, member: &Arc<Member>) -> bool {
        self.asked.contains_key(&member.number())
    }

    pub(super) fn answered(&mut self, member: &Arc<Member>) {
        if self.asked.remove(&member.number()) == Some(Wait::Awaited) {
            self.awaited -= 1;
        }
    }

    /// Whether the present pass waits for anybody.
    pub(super) const fn awaits(&self) -> bool {
        self.awaited > 0
    }

    /// Waits for nobody any more.
    pub(super) fn settle(&mut self) {
        if self.awaited > 0 {
            self.asked.values_mut().for_each(|wait| *wait = Wait::Late);
            self.awaited = 0;
        }
    }
}
