//! Saying verbs to the store until they are answered.

use std::future::Future;

use super::super::settings::Backoff;
use super::{DEFECT, Driver, End};
use crate::domain::{Code, Failure};
use crate::store::{DynStore, Error, Fenced, RequeueReason, Result};

impl Driver {
    /// Says a fenced verb until it is answered or the run is stopped. All verbs are idempotent by run, so that an
    /// unknown outcome is answered by asking again.
    pub(super) async fn say<'a, T, F>(
        &'a self,
        verb: impl Fn(&'a DynStore) -> F,
    ) -> std::result::Result<T, End>
    where
        F: Future<Output = Result<Fenced<T>>>,
    {
        let mut backoff = Backoff::new(&self.shared.pace);
        loop {
            let Some(answer) = self.held.stop.run_until_cancelled(verb(&self.shared.store)).await else {
                return Err(End::Forget);
            };
            match answer {
                Ok(Fenced::Done(value)) => return Ok(value),
                Ok(Fenced::Lost) => {
                    tracing::info!("run holds its task no more");
                    return Err(End::Forget);
                }
                Err(error) if !worth_repeating(&error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the record refuses the run's verb"
                    );
                    return Err(End::Broken("the record and the worker contradict each other"));
                }
                Err(error) => tell(&error),
            }
            let wait = tokio::time::sleep(backoff.step());
            if self.held.stop.run_until_cancelled(wait).await.is_none() {
                return Err(End::Forget);
            }
        }
    }

    /// Puts the task back into the queue.
    pub(super) async fn give_back(&self, reason: RequeueReason) -> End {
        let key = self.claimed.key;
        match self.say(|store| store.requeue(key, reason, self.shared.clock.now())).await {
            Ok(()) => End::GiveBack(reason),
            Err(end) => end,
        }
    }

    /// Fails a run that contradicts the record. It is charged, so that a defect ends the job instead of circling.
    pub(super) async fn give_up(&self, what: &'static str) -> End {
        let key = self.claimed.key;
        let failure = Failure::new(Code::Internal, DEFECT).with_detail(what);
        match self.say(|store| store.fail(key, failure.clone(), Vec::new(), self.shared.clock.now())).await {
            // The worker still runs it and must stop.
            Ok(()) => End::Forget,
            Err(end) => end,
        }
    }
}

/// Whether the store may answer the same verb another time. A full disk can be emptied; a contradiction stays one.
fn worth_repeating(error: &Error) -> bool {
    match error {
        Error::Unavailable { .. } | Error::NoSpace { .. } => true,
        Error::Inconsistent { .. }
        | Error::Locked { .. }
        | Error::NewerSchema { .. }
        | Error::WrongKey { .. }
        | Error::Open { .. } => false,
    }
}

fn tell(error: &Error) {
    let chain = error as &dyn std::error::Error;
    if matches!(error, Error::NoSpace { .. }) {
        tracing::error!(error = chain, "the record's disk is full: runs wait until there is room");
    } else {
        tracing::warn!(error = chain, "the store did not answer, saying the verb again");
    }
}
