//! The registry of workers, and what each was last seen to be.
//!
//! The list is replaced as a whole when a worker joins; each [`Member`] is written by its own minder alone. Static
//! lists, DNS and self-registration all come in through [`Fleet::join`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::runs::Runs;
use super::{Found, RunningTask, WorkerHandle, WorkerState, WorkerView};
use crate::domain::{Abilities, BootId, Timestamp, WorkerId};
use crate::rpc::wire::{PROTOCOL, WorkerReport};
use crate::rpc::{CallError, WorkerClient};

/// No heartbeat of this incarnation was heard.
const NONE: u64 = u64::MAX;

/// A worker as this control knows it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) client: WorkerClient,
    pub(super) address: String,
    pub(super) found: Found,
    /// It left the fleet.
    pub(super) gone: CancellationToken,
    /// Look at it again now.
    pub(super) poke: Notify,
    seen: watch::Sender<Seen>,
    /// The worker's monotonic clock as of its last heartbeat, milliseconds.
    heartbeat: AtomicU64,
    /// The heartbeat that was the last one before the session was last confirmed.
    confirmed: AtomicU64,
}

/// A worker that takes work.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub(super) boot: BootId,
    pub(super) slots: u32,
}

/// An incarnation that can be claimed for.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) worker: WorkerId,
    pub(super) can: Abilities,
}

/// What a worker was last seen to be.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Its last own account; `None` until it first answers.
    pub(super) report: Option<WorkerReport>,
    /// Whether it answers.
    pub(super) contact: Contact,
    /// When it last answered (or joined).
    pub(super) at: Timestamp,
    /// It refused work: left alone until then.
    pub(super) rests_until: Option<Instant>,
    /// Why it gets no work.
    pub(super) trouble: Option<Trouble>,
    /// When it last registered.
    pub(super) registered: Option<Instant>,
    /// The incarnation that was seen to share our storage.
    pub(super) shares_storage: Option<BootId>,
}

/// Why a worker gets no work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It does not answer.
    Silent(String),
    /// It answers, and must not be used.
    Refused(String),
}

/// Whether a worker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contact {
    /// It has not been asked yet.
    Unknown,
    /// It answered last time.
    Answers,
    /// It did not answer last time.
    Silent,
}

impl Member {
    pub(super) fn new(handle: WorkerHandle, now: Timestamp) -> Self {
        let seen = Seen {
            report: None,
            contact: Contact::Unknown,
            at: now,
            rests_until: None,
            trouble: None,
            registered: None,
            shares_storage: None,
        };
        Self {
            client: handle.client,
            address: handle.address,
            found: handle.found,
            gone: CancellationToken::new(),
            poke: Notify::new(),
            seen: watch::Sender::new(seen),
            heartbeat: AtomicU64::new(NONE),
            confirmed: AtomicU64::new(NONE),
        }
    }

    /// Tells it from all others, as long as anybody knows it.
    pub(super) fn number(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    /// Until when it is left alone.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.seen.borrow().rests_until
    }

    /// What it was last seen to be.
    pub(super) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// The incarnation that answered last.
    pub(super) fn boot(&self) -> Option<BootId> {
        self.seen.borrow().report.as_ref().map(|report| report.boot)
    }

    /// Resolves when it answers.
    pub(super) async fn answers(&self) {
        // The sender is ours: it does not go away while we wait.
        let _ = self.seen.subscribe().wait_for(|seen| seen.contact == Contact::Answers).await;
    }

    /// Its process has ended.
    pub(super) fn left(&self) {
        self.troubled(Trouble::Silent("it has left".to_owned()));
    }

    /// Its name, while it answers.
    pub(super) fn name(&self) -> Option<WorkerId> {
        let seen = self.seen.borrow();
        let report = seen.report.as_ref().filter(|_| seen.contact == Contact::Answers)?;
        Some(report.worker.clone())
    }

    /// Its slots, free or not, if it takes work.
    pub(super) fn slots(&self) -> u32 {
        let seen = self.seen.borrow();
        let taking = seen.report.as_ref().filter(|r| !r.draining && seen.contact == Contact::Answers);
        taking.map_or(0, |report| report.slots)
    }

    /// How much it takes, if it takes work now. A pass asks this of everyone: nothing is cloned.
    pub(super) fn ready(&self, now: Instant) -> Option<Ready> {
        let seen = self.seen.borrow();
        let rests = seen.rests_until.is_some_and(|until| until > now);
        let takes = seen.contact == Contact::Answers && !rests;
        let report = seen.report.as_ref().filter(|report| takes && !report.draining)?;
        self.has_proved(report).then_some(Ready { boot: report.boot, slots: report.slots })
    }

    /// What this incarnation offers, if it is the one that answered last.
    pub(super) fn known(&self, boot: BootId) -> Option<Known> {
        let seen = self.seen.borrow();
        let report = seen.report.as_ref().filter(|report| report.boot == boot)?;
        Some(Known { worker: report.worker.clone(), can: self.abilities(report)? })
    }

    /// Whether it has tried what it can do, as far as that is waited for.
    fn has_proved(&self, report: &WorkerReport) -> bool {
        let unproved_is_fine = self.found == Found::InProcess && report.encoders.is_empty();
        unproved_is_fine || !report.ffmpeg_version.is_empty()
    }

    /// What it can do, as far as it has proved that; `None` until it has tried.
    fn abilities(&self, report: &WorkerReport) -> Option<Abilities> {
        self.has_proved(report).then(|| match self.found {
            // Nobody else can stand in for it, so that it is not waited for.
            Found::InProcess if report.encoders.is_empty() => Abilities::ALL,
            _ => Abilities::of(report.encoders.iter().map(String::as_str)),
        })
    }

    /// Whether it answers and has yet to prove what it can do.
    pub(super) fn is_proving(&self) -> bool {
        let seen = self.seen.borrow();
        let proving = |report: &WorkerReport| !self.has_proved(report) && !report.draining;
        seen.contact == Contact::Answers && seen.report.as_ref().is_some_and(proving)
    }

    /// It answered; returns whether the dispatcher should know.
    pub(super) fn answered(&self, report: WorkerReport, now: Timestamp) -> bool {
        let mut news = false;
        self.seen.send_modify(|seen| {
            let old = seen.report.replace(report);
            let (old, new) = (old.as_ref(), seen.report.as_ref());
            let shape = |r: &WorkerReport| (r.boot, r.slots, r.draining, r.encoders.len());
            news = seen.contact != Contact::Answers || old.map(shape) != new.map(shape);
            if old.map(|r| r.boot) != new.map(|r| r.boot) {
                self.heartbeat.store(NONE, Ordering::Relaxed);
                self.confirmed.store(NONE, Ordering::Relaxed);
            }
            seen.contact = Contact::Answers;
            seen.trouble = None;
            seen.at = now;
        });
        news
    }

    /// It did not answer, or must not be used.
    pub(super) fn troubled(&self, trouble: Trouble) {
        self.seen.send_modify(|seen| {
            seen.contact = Contact::Silent;
            seen.trouble = Some(trouble);
        });
    }

    /// This incarnation has read what we left in the storage.
    pub(super) fn shares_storage(&self, boot: BootId) {
        self.seen.send_modify(|seen| seen.shares_storage = Some(boot));
    }

    /// It made itself known.
    pub(super) fn registered(&self, now: Instant) {
        self.seen.send_modify(|seen| seen.registered = Some(now));
    }

    /// It refused a start: leave it alone for a while, so that refusing and claiming do not chase each other.
    pub(super) fn rest(&self, until: Instant) {
        self.seen.send_modify(|seen| seen.rests_until = Some(until));
        self.poke.notify_one();
    }

    /// A heartbeat with the worker's monotonic clock.
    pub(super) fn beat(&self, monotonic: Duration) {
        self.heartbeat.store(millis(monotonic), Ordering::Relaxed);
    }

    /// The last heartbeat, to be confirmed by a statement that is sent after this call.
    pub(super) fn last_beat(&self) -> u64 {
        self.heartbeat.load(Ordering::Relaxed)
    }

    /// The session was confirmed by a statement sent after that heartbeat.
    pub(super) fn confirm(&self, heartbeat: u64) {
        self.confirmed.store(heartbeat, Ordering::Relaxed);
    }

    /// What a renewal echoes (PROTOCOL §1.7); `None` until a heartbeat was confirmed.
    pub(super) fn echo(&self) -> Option<Duration> {
        let confirmed = self.confirmed.load(Ordering::Relaxed);
        (confirmed != NONE).then(|| Duration::from_millis(confirmed))
    }

    fn view(self: &Arc<Self>, runs: &Runs) -> Option<WorkerView> {
        let seen = self.seen();
        let state = match (seen.contact, &seen.report) {
            _ if matches!(seen.trouble, Some(Trouble::Refused(_))) => WorkerState::Refused,
            (Contact::Unknown | Contact::Silent, _) | (Contact::Answers, None) => WorkerState::Unreachable,
            (Contact::Answers, Some(report)) if report.draining => WorkerState::Draining,
            (Contact::Answers, Some(_)) => WorkerState::Ready,
        };
        let report = seen.report.or_else(|| unknown(&self.address))?;
        let mut running: Vec<_> = (runs.on(report.boot).into_iter())
            .map(|held| RunningTask {
                job: held.key.job,
                task: held.key.task,
                since: held.since,
                report: held.live.borrow().report.clone(),
            })
            .collect();
        running.sort_by_key(|task| (task.since, task.task));
        Some(WorkerView {
            id: report.worker,
            boot: report.boot,
            address: self.address.clone(),
            version: report.version,
            state,
            reason: seen.trouble.map(|(Trouble::Silent(why) | Trouble::Refused(why))| why),
            found: self.found,
            slots: report.slots,
            running,
            encoders: report.encoders,
            ffmpeg_version: report.ffmpeg_version,
            sandbox: report.sandbox,
            disk_free: report.disk_free,
            last_seen: seen.at,
        })
    }
}

/// The list of workers. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Fleet(Arc<watch::Sender<Arc<[Arc<Member>]>>>, Arc<Mutex<HashMap<BootId, Arc<Member>>>>);

impl Fleet {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Arc::from([]))), Arc::default())
    }

    /// Adds a worker, if none of its address is there; whether it did. Its minder is the caller's to start.
    pub(super) fn join(&self, member: &Arc<Member>) -> bool {
        self.0.send_if_modified(|list| {
            let new = list.iter().all(|known| known.address != member.address);
            if new {
                *list = list.iter().chain([member]).cloned().collect();
            }
            new
        })
    }

    /// Takes a worker out.
    pub(super) fn leave(&self, member: &Arc<Member>) {
        let others =
            |list: &[Arc<Member>]| list.iter().filter(|known| !Arc::ptr_eq(known, member)).cloned().collect();
        self.0.send_modify(|list| *list = others(list));
        self.incarnations().retain(|_, known| !Arc::ptr_eq(known, member));
    }

    /// The worker of an address.
    pub(super) fn at(&self, address: &str) -> Option<Arc<Member>> {
        self.members().iter().find(|member| member.address == address).cloned()
    }

    /// The worker that answers for an incarnation.
    pub(super) fn of(&self, boot: BootId) -> Option<Arc<Member>> {
        self.incarnations().get(&boot).cloned()
    }

    /// Notes who speaks for an incarnation; `Err` with the member that does already, by another address.
    pub(super) fn speak_for(&self, boot: BootId, member: &Arc<Member>) -> Result<(), Arc<Member>> {
        let mut speakers = self.incarnations();
        if speakers.get(&boot).is_some_and(|known| Arc::ptr_eq(known, member)) {
            return Ok(());
        }
        let other = speakers.get(&boot).filter(|known| !Arc::ptr_eq(known, member));
        if let Some(other) = other.filter(|other| other.seen().contact != Contact::Silent) {
            return Err(Arc::clone(other));
        }
        speakers.retain(|_, known| !Arc::ptr_eq(known, member));
        speakers.insert(boot, Arc::clone(member));
        Ok(())
    }

    /// A panic elsewhere cannot leave the map half-changed: every change is one insert or one sweep.
    fn incarnations(&self) -> MutexGuard<'_, HashMap<BootId, Arc<Member>>> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everyone, in the order they joined.
    pub(super) fn members(&self) -> Arc<[Arc<Member>]> {
        Arc::clone(&self.0.borrow())
    }

    /// Slots of all workers that take work, free or not.
    pub(super) fn slots(&self) -> u64 {
        self.members().iter().map(|member| u64::from(member.slots())).sum()
    }

    /// Everyone, as shown to people.
    pub(super) fn views(&self, runs: &Runs) -> Vec<WorkerView> {
        self.members().iter().filter_map(|member| member.view(runs)).collect()
    }
}

/// Bounds a call: a worker that never answers costs its own caller this much and nobody else anything.
pub(super) async fn bounded<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer,
        Err(_) => Err(CallError::Unreachable(format!("no answer within {limit:?}"))),
    }
}

/// Stands for a worker that has never answered: named by its address, as far as a name may hold it.
fn unknown(address: &str) -> Option<WorkerReport> {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }
    };
    let name: String = address.chars().take(64).map(plain).collect();
    Some(WorkerReport {
        worker: name.parse().ok()?,
        boot: BootId::from_uuid(Uuid::nil()),
        version: String::new(),
        slots: 0,
        busy: 0,
        jobs: Vec::new(),
        draining: false,
        encoders: Vec::new(),
        ffmpeg_version: String::new(),
        sandbox: Vec::new(),
        disk_free: 0,
        protocol: PROTOCOL,
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(NONE - 1)
}
