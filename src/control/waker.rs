//! Brings workers up when tasks wait and nobody has a slot for them.
//!
//! One loop decides (how many, when, not twice); a [`Waker`] only knows how. Workers leave by themselves when they are
//! idle, under their own slot lock (PROTOCOL §1.18): whoever refuses because it drains is simply no longer counted, and
//! the next look wakes another. Waking one too many or one too late costs money or time, never a job.
//!
//! To add a way: a variant of [`How`], a file below this one, its keys in `config::typed::waking`.

mod command;
mod connect;
pub(super) mod fly;
mod process;

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use self::command::Command;
pub use self::fly::Fly;
pub use self::process::Children;

use super::Found;
use super::fleet::{Contact, Member};
use super::shared::Shared;
use crate::domain::BootId;

/// Notices that come together are answered by one look; a worker that just became free is used meanwhile.
const SETTLE: Duration = Duration::from_millis(20);

/// Between two looks while tasks wait that nobody has a slot for.
const SOON: Duration = Duration::from_secs(1);

/// First and longest wait after a wake that failed.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));

/// After so long without trouble the first wait is short again.
const CALM: Duration = Duration::from_mins(5);

/// Whoever says that we may not is not asked more often.
const DENIED: Duration = Duration::from_mins(5);

/// The longest that somebody may tell us to wait.
const LONGEST: Duration = Duration::from_mins(5);

/// How and how far workers are woken.
#[derive(Debug, Clone)]
pub struct Waking {
    /// Who does it.
    pub how: How,
    /// How long a worker may take to answer; none is woken in its place until then.
    pub startup_timeout: Duration,
    /// None is woken while so many are up or coming.
    pub most: NonZeroU32,
}

impl Default for Waking {
    fn default() -> Self {
        Self { how: How::Nobody, startup_timeout: Duration::from_mins(1), most: NonZeroU32::MIN }
    }
}

/// Who brings workers up.
#[derive(Debug, Clone)]
pub enum How {
    /// Nobody.
    Nobody,
    /// Whatever starts a worker that is connected to.
    Connect,
    /// This process, as its children.
    Process(Box<Children>),
    /// The operator's program.
    Command(Box<Command>),
    /// Fly's Machines API.
    Fly(Box<Fly>),
}

/// Knows how to bring workers up. It decides nothing.
#[async_trait]
pub(super) trait Waker: Send + Sync {
    /// For the log.
    fn name(&self) -> &'static str;
    /// Slots of each worker, where that is known before one answers.
    fn slots(&self) -> Option<u32> {
        None
    }
    /// What it knows of its own workers; otherwise they are counted as they answer.
    fn crew(&self) -> Option<Crew> {
        None
    }
    /// Begins to wake workers, and does not wait until they answer.
    async fn wake(&self, shared: &Arc<Shared>, need: Need) -> Woken;
}

/// How many workers are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    /// To be woken now.
    pub(super) workers: u32,
    /// Woken before, and not heard of yet.
    pub(super) coming: u32,
    /// Answering.
    pub(super) up: u32,
}

/// The workers of a waker that follows them itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crew {
    /// Those that do not answer yet.
    pub(super) coming: u32,
    /// All that take up room, coming ones included; `None`: those that answer.
    pub(super) up: Option<u32>,
}

/// What came of a wake.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Woken {
    /// So many are on their way.
    pub(super) begun: u32,
    /// Why there are no more.
    pub(super) trouble: Option<Trouble>,
}

/// Why no more were woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It may pass; the other side may have said when.
    Busy(Option<Duration>),
    /// It will not pass by itself.
    Denied,
}

/// Where everybody says that the loop should look: leaves that no wait happens under.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    look: Notify,
    failed: AtomicU32,
    /// Workers sleep until they are connected to: nobody may connect to one without need.
    on_connect: bool,
}

impl Wakes {
    pub(super) fn new(how: &How) -> Self {
        Self { on_connect: matches!(how, How::Connect), ..Self::default() }
    }

    /// Tasks may be waiting, or a worker came or went.
    pub(super) fn look(&self) {
        self.look.notify_one();
    }

    /// Whether a worker without runs is left alone until there is need for it: to ask after it would wake it.
    pub(super) const fn lets_sleep(&self) -> bool {
        self.on_connect
    }

    /// A worker did not come up, or died.
    fn fell(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.look();
    }
}

/// Whether this control is the one that wakes. A record that only one control can use needs no answer.
#[async_trait]
pub(super) trait Right: Send + Sync {
    async fn may_wake(&self) -> bool;
}

/// The only control there is.
pub(super) struct Alone;

#[async_trait]
impl Right for Alone {
    async fn may_wake(&self) -> bool {
        true
    }
}

/// Wakes workers until the soft stop.
pub(super) async fn run(shared: Arc<Shared>, waking: Waking) {
    let waker: Box<dyn Waker> = match &waking.how {
        How::Nobody => return shared.lifecycle.soft().cancelled().await,
        How::Connect => Box::new(connect::Connect::new(waking.startup_timeout)),
        How::Process(children) => Box::new(process::Nursery::new(children, waking.startup_timeout)),
        How::Command(command) => Box::new(command.as_ref().clone()),
        How::Fly(fly) => Box::new(fly::Machines::new(fly.as_ref().clone(), waking.startup_timeout)),
    };
    Loop::new(shared, waking, waker, Box::new(Alone)).work().await;
}

/// Whether tasks wait for workers that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demand {
    Met,
    Unmet,
}

pub(super) struct Loop {
    shared: Arc<Shared>,
    waking: Waking,
    waker: Box<dyn Waker>,
    right: Box<dyn Right>,
    /// Until when each worker that was woken may take, for a waker that does not follow them.
    coming: Vec<Instant>,
    /// Incarnations that have answered.
    known: HashSet<BootId>,
    rests_until: Option<Instant>,
    backoff: Duration,
    troubled_at: Option<Instant>,
}

impl Loop {
    pub(super) fn new(
        shared: Arc<Shared>,
        waking: Waking,
        waker: Box<dyn Waker>,
        right: Box<dyn Right>,
    ) -> Self {
        Self {
            shared,
            waking,
            waker,
            right,
            coming: Vec::new(),
            known: HashSet::new(),
            rests_until: None,
            backoff: RETRY.0,
            troubled_at: None,
        }
    }

    pub(super) async fn work(mut self) {
        let shared = Arc::clone(&self.shared);
        let soft = shared.lifecycle.soft();
        loop {
            let wait = match self.look().await {
                Demand::Met => shared.pace.poll,
                Demand::Unmet => SOON,
            };
            let now = Instant::now();
            // A rest that ends sooner is not slept over.
            let rested = self.rests_until.filter(|until| *until > now);
            let again = rested.map_or(now + wait, |until| until.min(now + wait));
            tokio::select! {
                biased;
                () = soft.cancelled() => return,
                () = shared.wakes.look.notified() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep_until(again) => {}
            }
        }
    }

    async fn look(&mut self) -> Demand {
        self.take_note();
        // Slots before tasks: what is claimed in between counts once, as a slot, and wakes nobody.
        let (free, answering) = self.slots();
        let unasked = |member: &Arc<Member>| member.seen().contact == Contact::Unknown;
        if self.shared.fleet.members().iter().any(unasked) {
            // It may have room, and says so or is silent within one call.
            return Demand::Unmet;
        }
        let Ok(stats) = self.shared.store.stats().await else {
            return Demand::Unmet;
        };
        let now = Instant::now();
        let crew = self.waker.crew();
        let coming = crew.map_or(u32::try_from(self.coming.len()).unwrap_or(u32::MAX), |crew| crew.coming);
        let up = crew.and_then(|crew| crew.up).unwrap_or(answering.saturating_add(coming));
        let each = self.slots_of_one();
        let missing = stats.ready.saturating_sub(free).saturating_sub(u64::from(coming) * u64::from(each));
        if missing == 0 {
            return if stats.ready > free { Demand::Unmet } else { Demand::Met };
        }
        let room = self.waking.most.get().saturating_sub(up);
        let workers = u32::try_from(missing.div_ceil(u64::from(each))).unwrap_or(u32::MAX).min(room);
        if workers == 0 || self.rests_until.is_some_and(|until| until > now) || !self.right.may_wake().await {
            return Demand::Unmet;
        }
        tracing::info!(
            waker = self.waker.name(),
            ready = stats.ready,
            free,
            coming,
            workers,
            "waking workers"
        );
        let woken = self.waker.wake(&self.shared, Need { workers, coming, up: answering }).await;
        let until = Instant::now() + self.waking.startup_timeout;
        if crew.is_none() {
            self.coming.extend((0..woken.begun).map(|_| until));
        }
        if let Some(trouble) = woken.trouble {
            self.rest(trouble);
        }
        Demand::Unmet
    }

    /// Who has answered since the last look, whose time is over, who fell.
    fn take_note(&mut self) {
        let now = Instant::now();
        let boots: HashSet<BootId> = self.shared.fleet.members().iter().filter_map(|m| m.boot()).collect();
        let arrived = boots.difference(&self.known).count();
        self.known = boots;
        self.coming.drain(..arrived.min(self.coming.len()));
        let before = self.coming.len();
        self.coming.retain(|until| *until > now);
        if self.coming.len() < before {
            let late = before - self.coming.len();
            tracing::warn!(waker = self.waker.name(), late, "woken workers did not answer in time");
            self.rest(Trouble::Busy(None));
        }
        if self.shared.wakes.failed.swap(0, Ordering::Relaxed) > 0 {
            self.rest(Trouble::Busy(None));
        }
    }

    /// Slots that no task of ours fills, and how many workers answer.
    fn slots(&self) -> (u64, u32) {
        let (mut free, mut answering) = (0, 0);
        for member in self.shared.fleet.members().iter() {
            let seen = member.seen();
            let Some(report) = seen.report.filter(|_| seen.contact == Contact::Answers) else { continue };
            // One in this process takes up none of the room for others.
            answering += u32::from(member.found != Found::InProcess);
            if !report.draining {
                free += u64::from(report.slots.saturating_sub(self.shared.runs.count_on(report.boot)));
            }
        }
        (free, answering)
    }

    /// As the waker knows, else as the workers say that ever answered. While nobody knows, one worker is taken to be
    /// enough: it will tell.
    fn slots_of_one(&self) -> u32 {
        let members = self.shared.fleet.members();
        let elsewhere = members.iter().filter(|member| member.found != Found::InProcess);
        let told = elsewhere.filter_map(|member| member.seen().report).map(|report| report.slots).max();
        self.waker.slots().or(told).unwrap_or(u32::MAX).max(1)
    }

    fn rest(&mut self, trouble: Trouble) {
        let now = Instant::now();
        if self.troubled_at.is_none_or(|at| now.duration_since(at) > CALM) {
            self.backoff = RETRY.0;
        }
        self.troubled_at = Some(now);
        let step = self.backoff;
        self.backoff = (step * 2).min(RETRY.1);
        // Between half of it and all of it, so that controls that failed together do not come back together.
        let dice = u32::from(self.shared.ids.random().as_bytes()[0]);
        let jittered = step / 2 + step / 2 * dice / u32::from(u8::MAX);
        let wait = match trouble {
            Trouble::Busy(told) => jittered.max(told.unwrap_or_default().min(LONGEST)),
            Trouble::Denied => DENIED,
        };
        self.rests_until = Some(self.rests_until.unwrap_or(now).max(now + wait));
    }
}
