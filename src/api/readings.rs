//! Readings of the record that many readers of one job ask for at the same moment, done once for all of them.
//!
//! A change of a job wakes each of its readers, and each wants the record as of now. Those who ask while a reading waits
//! for its turn share that reading; one that has begun answers nobody who asks later, so no answer is older than its
//! question. A thousand readers cost a handful of readings per change, and nothing is kept between changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::Semaphore;

use crate::domain::{Event, JobId};
use crate::store::{DynStore, Error, StoredJob};

/// Readings at the same time, one less than the store has connections for them: requests need one too.
const TURNS: usize = 3;
/// Events in a reading; a reader that is farther behind asks the store itself.
const RECENT: i64 = 32;
/// Abandoned questions (each a few words) that may lie about before they are looked for.
const FORGOTTEN: usize = 256;

/// A job with its latest events, in order.
pub(super) struct Reading {
    pub(super) stored: StoredJob,
    events: Vec<Event>,
}

impl Reading {
    /// The events after `after`, if this reading goes back so far.
    pub(super) fn events_after(&self, after: i64) -> Option<&[Event]> {
        let first = self.events.first().map_or(self.stored.aggregate.job.seq + 1, |event| event.seq);
        let start = self.events.partition_point(|event| event.seq <= after);
        (first <= after.saturating_add(1)).then(|| &self.events[start..])
    }
}

/// `None` = no such job.
type Answer = Result<Option<Arc<Reading>>, Arc<Error>>;
type Question = Shared<BoxFuture<'static, Answer>>;

/// The readings that wait for their turn.
#[derive(Clone)]
pub(super) struct Readings(Arc<Inner>);

struct Inner {
    turns: Semaphore,
    waiting: Mutex<HashMap<JobId, WeakShared<BoxFuture<'static, Answer>>>>,
}

impl Readings {
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner { turns: Semaphore::new(TURNS), waiting: Mutex::default() }))
    }

    /// The job as it is on record now or later, never as it was before.
    pub(super) async fn read(&self, store: &DynStore, job: JobId) -> Answer {
        let question = self.question(store, job);
        question.await
    }

    fn question(&self, store: &DynStore, job: JobId) -> Question {
        let mut waiting = self.0.waiting();
        if let Some(question) = waiting.get(&job).and_then(WeakShared::upgrade) {
            return question;
        }
        if waiting.len() >= FORGOTTEN {
            waiting.retain(|_, question| question.upgrade().is_some());
        }
        let question = Arc::clone(&self.0).answer(Arc::clone(store), job).boxed().shared();
        waiting.extend(question.downgrade().map(|weak| (job, weak)));
        question
    }
}

impl Inner {
    async fn answer(self: Arc<Self>, store: DynStore, job: JobId) -> Answer {
        // The semaphore is never closed; were it, a reading out of turn would do no harm.
        let _turn = self.turns.acquire().await;
        self.waiting().remove(&job);
        let Some(stored) = store.get(None, job).await? else { return Ok(None) };
        let after = stored.aggregate.job.seq.saturating_sub(RECENT).max(0);
        let events = store.events(job, after).await?;
        Ok(Some(Arc::new(Reading { stored, events })))
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<JobId, WeakShared<BoxFuture<'static, Answer>>>> {
        // Every statement leaves the map whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::api::testkit::{event, stored};
    use crate::domain::JobStatus;
    use crate::store::{Options, SqliteStore};

    #[tokio::test]
    async fn those_who_ask_together_share_a_reading_and_later_ones_do_not() {
        let store: DynStore = Arc::new(SqliteStore::ephemeral(Options::default()).await.unwrap());
        let (readings, job) = (Readings::new(), JobId::from_uuid(Uuid::from_u128(1)));
        let (first, second) = (readings.question(&store, job), readings.question(&store, job));
        assert!(first.ptr_eq(&second));
        assert!(first.await.is_ok_and(|reading| reading.is_none()));
        assert!(!readings.question(&store, job).ptr_eq(&second), "an old answer is nobody's answer");
    }

    #[tokio::test]
    async fn questions_that_nobody_waits_for_are_forgotten() {
        let store: DynStore = Arc::new(SqliteStore::ephemeral(Options::default()).await.unwrap());
        let readings = Readings::new();
        for n in 0..1000 {
            drop(readings.question(&store, JobId::from_uuid(Uuid::from_u128(n))));
        }
        assert!(readings.0.waiting().len() <= FORGOTTEN);
    }

    #[test]
    fn a_reading_says_how_far_back_it_goes() {
        let mut stored = stored(JobStatus::Running);
        stored.aggregate.job.seq = 7;
        let reading = Reading { stored, events: (5..=7).map(|seq| event(seq, JobStatus::Running)).collect() };
        let after =
            |seq| reading.events_after(seq).map(|events| events.iter().map(|e| e.seq).collect::<Vec<_>>());
        assert_eq!(after(7), Some(vec![]));
        assert_eq!(after(5), Some(vec![6, 7]));
        assert_eq!(after(4), Some(vec![5, 6, 7]));
        assert_eq!(after(3), None);
    }
}
