//! What every store does, one function per behaviour, run against each implementation.
//!
//! To add a behaviour: a function here or below that takes a [`Desk`], and its name in [`behaviours`].

mod outbox;
mod people;
mod queue;
mod runs;
mod sessions;
mod submit;

use std::future::Future;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::*;
use crate::domain::fixtures::{result, spec};
use crate::domain::testing::{ManualClock, SeededIds};
use crate::domain::{Clock, Code, IdSource, ObjectPath, PublicationState, Source};

/// Behaviours against stores: a test for each behaviour in a module for each store.
macro_rules! behaviours {
    ([$($store:ident)*] $list:tt) => { $(behaviours!(@store $store $list);)* };
    (@store $store:ident { $($module:ident: $($name:ident)*;)* }) => {
        mod $store {
            use crate::store::conformance::{self, Desk};
            $($(
                #[tokio::test]
                async fn $name() {
                    conformance::$module::$name(Desk::open(conformance::places::$store).await).await;
                }
            )*)*
        }
    };
}

behaviours! { [sqlite_file sqlite_memory postgres] {
    submit: a_submitted_job_is_read_back_whole one_key_makes_one_job a_key_with_another_body_is_refused
        a_key_outlives_its_deleted_job a_full_queue_refuses_and_stores_nothing a_key_is_free_again_after_its_time
        secrets_come_back_with_the_claim_and_are_wiped;
    runs: the_whole_way_to_completed only_the_holder_writes a_stale_session_writes_nothing
        a_permit_before_the_cancel_wins a_cancel_before_the_permit_wins the_next_epoch_learns_of_open_publications
        failures_wait_and_then_end_the_job outputs_are_completed_one_by_one_and_survive_a_retry
        a_clock_that_goes_back_holds_nothing_up progress_only_rises media_is_kept;
    sessions: a_run_elsewhere_is_taken_over_as_it_is a_session_that_is_over_does_nothing_more
        takeover_goes_in_steps workers_are_remembered one_session_has_a_duty a_pulse_says_how_far_the_history_is
        a_worker_gets_only_what_it_can_do a_suspect_runs_alone_and_two_more_deaths_end_it;
    people: cancel_is_immediate_and_final delete_hides_at_once_and_sweeps_later other_tenants_see_nothing
        pages_are_newest_first_and_complete lists_are_filtered uploads_are_kept_while_used an_upload_is_given_up_unless_jobs_use_it old_jobs_expire
        results_go_with_expired_jobs_where_that_is_wanted results_stay_otherwise changes_are_hinted;
    outbox: every_state_is_told_with_its_commit only_what_is_wanted_is_told
        a_delivery_has_one_holder_and_is_crossed_off_once what_a_session_left_is_claimed_by_the_next
        a_try_that_failed_is_made_again_at_its_time busy_receivers_are_passed_over
        a_receiver_that_is_gone_is_told_nothing_more a_delivery_can_be_asked_for_again_for_a_day
        what_is_to_be_told_outlives_its_job;
    queue: priority_orders_within_a_tenant tenants_take_turns positions_are_counted stats_count_by_state
        a_claim_said_again_answers_the_same waiting_jobs_are_counted_by_tenant
        without_a_queue_only_free_slots_are_filled;
} }

/// The lock is the session.
mod sole {
    behaviours! { [sqlite_file sqlite_memory] {
        runs: a_new_session_requeues_what_was_held a_job_that_kills_its_process_ends;
        queue: an_old_session_claims_nothing;
    } }
}

/// Several controls at once.
mod shared {
    behaviours! { [postgres] {
        sessions: sessions_live_side_by_side a_duty_passes_on_when_its_session_is_over reports_are_told_elsewhere;
        people: each_folder_is_swept_by_its_own_control;
    } }
}

/// Where each store is opened.
mod places {
    use super::*;

    /// A store, and what goes when the test ends.
    pub(super) type Place = (DynStore, Arc<dyn Outbox>, Box<dyn std::any::Any + Send + Sync>);

    pub(super) async fn sqlite_file(options: Options) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(folder.path(), options).await.unwrap());
        (Arc::clone(&store) as DynStore, store, Box::new(folder))
    }

    pub(super) async fn sqlite_memory(options: Options) -> Place {
        let store = Arc::new(SqliteStore::ephemeral(options).await.unwrap());
        (Arc::clone(&store) as DynStore, store, Box::new(()))
    }

    pub(super) async fn postgres(options: Options) -> Place {
        let (store, database) = crate::store::postgres::tests::fresh(options).await;
        let store = Arc::new(store);
        (Arc::clone(&store) as DynStore, store, Box::new(database))
    }
}

/// Most jobs that may wait at a desk.
const MAX_PENDING: u64 = 60;

/// A test's place: a store, a clock and ids of its own, and an open session.
struct Desk {
    store: DynStore,
    outbox: Arc<dyn Outbox>,
    clock: ManualClock,
    ids: SeededIds,
    session: SessionId,
    /// Another store of the same kind, with nothing in it.
    another: Box<dyn Fn(Options) -> BoxFuture<'static, places::Place> + Send + Sync>,
    _place: Box<dyn std::any::Any + Send + Sync>,
}

impl Desk {
    async fn open<F>(open: fn(Options) -> F) -> Self
    where
        F: Future<Output = places::Place> + Send + 'static,
    {
        let options = Options {
            ids: Arc::new(SeededIds::new(1)),
            max_pending: Some(MAX_PENDING),
            letters: Some(Arc::new(outbox::Plain)),
            ..Options::default()
        };
        let (store, outbox, place) = open(options).await;
        let clock = ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000));
        let session = store.open_session("desk", clock.now()).await.unwrap();
        let another = Box::new(move |options| open(options).boxed());
        Self { store, outbox, clock, ids: SeededIds::new(2), session, another, _place: place }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn job(&self) -> NewJob {
        let now = self.clock.advance(std::time::Duration::from_millis(1));
        NewJob {
            id: JobId::from_uuid(self.ids.sortable(now)),
            task: self.task(),
            tenant: Tenant::local(),
            spec: spec(1),
            secrets: JobSecrets::default(),
            idempotency: None,
            now,
        }
    }

    fn task(&self) -> TaskId {
        TaskId::from_uuid(self.ids.sortable(self.now()))
    }

    fn keyed(&self, key: &str, body: &str) -> NewJob {
        let until = self.now().plus(std::time::Duration::from_hours(24));
        let fingerprint = self.store.fingerprint(body.as_bytes());
        NewJob { idempotency: Some(Idempotency { key: key.into(), fingerprint, until }), ..self.job() }
    }

    async fn submit(&self, job: NewJob) -> JobId {
        let id = job.id;
        assert_eq!(self.store.submit(job).await.unwrap(), Submitted::Created);
        id
    }

    async fn submit_outputs(&self, outputs: u16) -> JobId {
        self.submit(NewJob { spec: spec(outputs), ..self.job() }).await
    }

    fn grant(&self, slots: usize) -> Grant {
        Grant {
            worker: "w-1".parse().unwrap(),
            boot: BootId::from_uuid(self.ids.random()),
            can: Abilities::ALL,
            company: Company::Shared,
            runs: (0..slots).map(|_| RunId::from_uuid(self.ids.random())).collect(),
        }
    }

    async fn claim(&self, slots: usize) -> Vec<Claimed> {
        self.store.claim(self.session, &[self.grant(slots)], self.now()).await.unwrap()
    }

    async fn claim_one(&self) -> Claimed {
        let mut claimed = self.claim(1).await;
        assert_eq!(claimed.len(), 1, "a task is ready");
        claimed.remove(0)
    }

    /// Claims the one ready task and starts it.
    async fn start(&self) -> Claimed {
        let claimed = self.claim_one().await;
        assert_eq!(self.store.started(claimed.key, self.now()).await.unwrap(), Fenced::Done(()));
        claimed
    }

    fn publication(&self, claimed: &Claimed, output: u16) -> Publication {
        Publication {
            id: PublicationId::from_uuid(self.ids.random()),
            output: OutputIndex(output),
            run: claimed.key.run,
            epoch: claimed.epoch,
            handle: r#"{"part":"x"}"#.into(),
            manifest: "{}".into(),
            state: PublicationState::Open,
        }
    }

    async fn permit(&self, claimed: &Claimed, output: u16) -> (Publication, Fenced<Permit>) {
        let publication = self.publication(claimed, output);
        let answer = self.store.permit(claimed.key, publication.clone(), self.now()).await.unwrap();
        (publication, answer)
    }

    async fn done(&self, key: RunKey, publication: &Publication) -> Fenced<()> {
        let done = OutputDone { output: publication.output, publication: publication.id, result: result() };
        self.store.output_done(key, done, self.now()).await.unwrap()
    }

    async fn publish(&self, claimed: &Claimed, output: u16) -> Publication {
        let (publication, permit) = self.permit(claimed, output).await;
        assert!(matches!(permit, Fenced::Done(_)), "{permit:?}");
        assert_eq!(self.done(claimed.key, &publication).await, Fenced::Done(()));
        publication
    }

    /// From the queue to completed.
    async fn finish(&self) -> Claimed {
        let claimed = self.start().await;
        for output in 0..claimed.spec.outputs.len() {
            self.publish(&claimed, u16::try_from(output).unwrap()).await;
        }
        assert_eq!(self.store.complete(claimed.key, self.now()).await.unwrap(), Fenced::Done(()));
        claimed
    }

    async fn get(&self, id: JobId) -> StoredJob {
        self.store.get(None, id).await.unwrap().expect("the job exists")
    }

    async fn status(&self, id: JobId) -> JobStatus {
        self.get(id).await.aggregate.job.status
    }

    /// The history's numbers are 1, 2, 3 … and its last status is the job's.
    async fn check_history(&self, id: JobId) {
        let events = self.store.events(id, 0).await.unwrap();
        let numbers: Vec<_> = events.iter().map(|e| e.seq).collect();
        assert_eq!(numbers, (1..=i64::try_from(events.len()).unwrap()).collect::<Vec<_>>());
        let job = self.get(id).await.aggregate.job;
        assert_eq!(events.last().map(|e| (e.seq, e.status, e.run)), Some((job.seq, job.status, job.run)));
    }
}

fn broken() -> Failure {
    Failure::new(Code::MediaCorrupt, "the source is not media")
}

fn crashed() -> Failure {
    Failure::new(Code::EncoderCrashed, "the encoder crashed").with_log(["line".to_owned()])
}
