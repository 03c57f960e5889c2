//! What one key may submit, and how many jobs of one tenant may wait: answered 429.
//!
//! Both are kept in memory and cost a submission no statement: the rate is a number per key, the queue of a tenant is
//! counted at most once a second and what is accepted in between is added (PROTOCOL §1.16). So the second is soft by
//! what several controls accept within that second.

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::problem::{Kind, Problem};
use crate::domain::{Tenant, Timestamp};
use crate::store::{self, DynStore};

const MINUTE: Duration = Duration::from_mins(1);

/// How old a count may be.
const FRESH: Duration = Duration::from_secs(1);

/// When a tenant whose queue is full should ask again: jobs leave it at the pace of encoders.
const LATER: Duration = Duration::from_secs(5);

/// A rate of submissions: as many at once as a minute allows, then at that pace.
#[derive(Debug)]
pub(super) struct Rate {
    per_minute: NonZeroU32,
    /// When everything that was let through would be paid for at that pace.
    paid_at: Mutex<Timestamp>,
}

impl Rate {
    pub(super) fn new(per_minute: NonZeroU32) -> Self {
        Self { per_minute, paid_at: Mutex::new(Timestamp::from_micros(i64::MIN)) }
    }

    /// Lets one submission through, or says how long to wait.
    pub(super) fn admit(&self, now: Timestamp) -> Result<(), Problem> {
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let price = MINUTE / self.per_minute.get();
        // Nobody owes more than a minute, unless the clock was set back.
        let owed = Some(paid_at.since(now)).filter(|owed| *owed <= MINUTE).unwrap_or_default();
        let total = owed + price;
        if total > MINUTE {
            let detail = format!("the key may submit {} jobs a minute", self.per_minute);
            let wait = total.saturating_sub(MINUTE).as_secs_f64().ceil();
            return Err(Problem::new(Kind::RateLimited, detail).retry_after(Duration::from_secs_f64(wait)));
        }
        *paid_at = now.plus(total);
        Ok(())
    }
}

/// The queues of tenants, as far as they submitted.
#[derive(Debug, Default)]
pub(super) struct Queues(Mutex<HashMap<Tenant, Count>>);

#[derive(Debug, Clone, Copy)]
struct Count {
    at: Timestamp,
    waiting: u64,
}

impl Queues {
    /// Counts one more job of a tenant, or says that it has as many as it may.
    pub(super) async fn admit(
        &self,
        store: &DynStore,
        tenant: &Tenant,
        most: NonZeroU64,
        now: Timestamp,
    ) -> Result<(), Problem> {
        if self.begin_count(tenant, now) {
            let waiting = store.waiting(tenant, most.get()).await;
            self.counted(tenant, waiting)?;
        }
        let mut counts = self.counts();
        let Some(count) = counts.get_mut(tenant).filter(|count| count.waiting >= most.get()) else {
            counts.entry(tenant.clone()).and_modify(|count| count.waiting += 1);
            return Ok(());
        };
        let detail = format!("{} jobs of this tenant wait already", count.waiting);
        Err(Problem::new(Kind::TenantQueueFull, detail).retry_after(LATER))
    }

    /// Whether the caller has to count. Others go on with the old count meanwhile, so that one asks for all.
    fn begin_count(&self, tenant: &Tenant, now: Timestamp) -> bool {
        let mut counts = self.counts();
        let count =
            counts.entry(tenant.clone()).or_insert(Count { at: Timestamp::from_micros(0), waiting: 0 });
        let fresh = count.at <= now && now.since(count.at) < FRESH;
        if !fresh {
            count.at = now;
        }
        !fresh
    }

    fn counted(&self, tenant: &Tenant, waiting: store::Result<u64>) -> Result<(), Problem> {
        let mut counts = self.counts();
        match waiting {
            Ok(waiting) => {
                counts.entry(tenant.clone()).and_modify(|count| count.waiting = waiting);
                Ok(())
            }
            Err(error) => {
                counts.remove(tenant);
                Err(error.into())
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Tenant, Count>> {
        // Every statement leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_micros(1_700_000_000_000_000).plus(Duration::from_secs_f64(seconds))
    }

    fn rate(per_minute: u32) -> Rate {
        Rate::new(NonZeroU32::new(per_minute).unwrap())
    }

    #[test]
    fn a_minutes_worth_at_once_then_one_at_a_time() {
        let rate = rate(6);
        let let_through =
            |seconds: f64, tries: u32| (0..tries).filter(|_| rate.admit(at(seconds)).is_ok()).count();
        assert_eq!(let_through(0.0, 10), 6);
        assert_eq!(let_through(9.9, 3), 0);
        assert_eq!(let_through(10.0, 3), 1);
        assert_eq!(let_through(40.0, 9), 3);
        assert_eq!(let_through(1000.0, 9), 6, "what was not used in ten minutes is not saved up");
    }

    #[test]
    fn a_clock_that_goes_back_locks_nobody_out() {
        let rate = rate(1);
        assert!(rate.admit(at(7200.0)).is_ok());
        assert!(rate.admit(at(7201.0)).is_err());
        assert!(rate.admit(at(0.0)).is_ok());
        assert!(rate.admit(at(1.0)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_minute_sees_more_than_two_minutes_worth(
            per_minute in 1_u32..200, gaps in proptest::collection::vec(0_u64..3_000_000, 1..400),
        ) {
            let rate = rate(per_minute);
            let mut now = 0_u64;
            let mut passed = Vec::new();
            for gap in gaps {
                now += gap;
                if rate.admit(Timestamp::from_micros(i64::try_from(now).unwrap())).is_ok() {
                    passed.push(now);
                }
            }
            for (n, from) in passed.iter().enumerate() {
                let within = passed[n..].iter().filter(|t| **t - from < 60_000_000).count();
                proptest::prop_assert!(within <= 2 * usize::try_from(per_minute).unwrap());
            }
        }
    }
}
