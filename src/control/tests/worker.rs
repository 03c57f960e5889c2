//! A worker that does nothing but speak the protocol, and errs where a test says so; and the destination that its
//! publications become visible at.

mod destination;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(super) use self::destination::{Destination, Rule};

use crate::domain::testing::SeededIds;
use crate::domain::{
    BootId, Code, Company, Demuxer, Epoch, Failure, IdSource, JobId, MediaInfo, OutputIndex, OutputStatus,
    Phase, Progress, Publication, PublicationId, PublicationState, RunId, SessionId, TaskId, TaskReport,
    WorkerId,
};
use crate::rpc::wire::{
    Action, Given, PROTOCOL, PermitGrant, Permitted, Renewal, Renewed, ReservationId, Reserved, RunEvent,
    RunFailure, RunRequest, Transcode, WorkerReport,
};
use crate::rpc::{Refusal, WorkerApi};

/// Between two heartbeats of a run that takes its time; real ones beat more often.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Renewals without a run after which it is stopped (PROTOCOL §1.7).
const MOST_MISSED: u32 = 2;

/// Where in a run something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// Before anything is told.
    Start,
    /// After the first progress.
    Encoding,
    /// Permitted, not yet visible.
    BeforeCommit,
    /// Visible, not yet told.
    AfterCommit,
    /// All outputs are told.
    BeforeFinish,
}

/// What happens there, once per run.
#[derive(Debug, Clone)]
pub(super) enum Deed {
    /// The stream breaks; the run goes on.
    Break,
    /// The run is gone, as with its worker.
    Die,
    /// Nothing more is heard, the stream stays open.
    FallSilent,
    /// It waits until the test says go on.
    Wait(Arc<Notify>),
    /// It takes so long.
    Take(Duration),
    /// It fails.
    Fail(Code),
    /// It is given back.
    Release,
}

/// What a run does that nothing is planned for.
type Habit = Box<dyn FnMut() -> Vec<(At, Deed)> + Send>;

pub(super) struct FakeWorker {
    pub(super) id: WorkerId,
    slots: u32,
    ids: SeededIds,
    destination: Arc<Destination>,
    tasks: TaskTracker,
    hangs: watch::Sender<bool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    boot: Option<BootId>,
    encoders: Vec<String>,
    draining: bool,
    reservations: Vec<(ReservationId, Instant)>,
    seen: BTreeMap<TaskId, Epoch>,
    runs: BTreeMap<RunId, Arc<Run>>,
    plans: VecDeque<Vec<(At, Deed)>>,
    habit: Option<Habit>,
    started: Vec<(JobId, Instant)>,
    begun: Vec<RunId>,
    companies: Vec<Company>,
    cancelled: Vec<RunId>,
    acked: Vec<RunId>,
    refuse_starts: u32,
    granted: usize,
}

struct Run {
    key: (JobId, RunId, Epoch),
    log: watch::Sender<Vec<RunEvent>>,
    /// Ends the streams of this generation.
    stream: Mutex<CancellationToken>,
    gone: CancellationToken,
    over: AtomicBool,
    /// Renewals in a row that did not list it.
    missed: AtomicU32,
    permits: Mutex<mpsc::Receiver<PermitGrant>>,
    permit: mpsc::Sender<PermitGrant>,
    plan: Mutex<Vec<(At, Deed)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeWorker {
    pub(super) fn new(name: &str, slots: u32, seed: u64, destination: &Arc<Destination>) -> Arc<Self> {
        let ids = SeededIds::new(seed);
        Arc::new(Self {
            id: name.parse().unwrap(),
            state: Mutex::new(State {
                boot: Some(BootId::from_uuid(ids.random())),
                encoders: vec!["libx264".into()],
                ..State::default()
            }),
            slots,
            ids,
            destination: Arc::clone(destination),
            tasks: TaskTracker::new(),
            hangs: watch::Sender::new(false),
        })
    }

    /// The next runs err like this, one entry per run.
    pub(super) fn plan(&self, deeds: Vec<(At, Deed)>) {
        self.state().plans.push_back(deeds);
    }

    /// Runs that nothing is planned for err like this.
    pub(super) fn usually(&self, habit: impl FnMut() -> Vec<(At, Deed)> + Send + 'static) {
        self.state().habit = Some(Box::new(habit));
    }

    /// From now on no call is answered, and no event arrives.
    pub(super) fn hang(&self) {
        self.hangs.send_replace(true);
    }

    /// It answers again, also what it was asked meanwhile by those who still wait.
    pub(super) fn heal(&self) {
        self.hangs.send_replace(false);
    }

    /// Its process dies and is started again at once.
    pub(super) fn restart(&self) {
        let mut state = self.state();
        state.boot = Some(BootId::from_uuid(self.ids.random()));
        state.reservations.clear();
        for run in std::mem::take(&mut state.runs).into_values() {
            run.gone.cancel();
            run.cut();
        }
    }

    /// It has proved these encoders and no others.
    pub(super) fn proves(&self, encoders: &[&str]) {
        self.state().encoders = encoders.iter().map(|name| (*name).to_owned()).collect();
    }

    /// In what company its runs were started.
    pub(super) fn companies(&self) -> Vec<Company> {
        self.state().companies.clone()
    }

    fn boot(&self) -> BootId {
        self.state().boot.unwrap()
    }

    /// The next so many starts are refused.
    pub(super) fn refuse_starts(&self, count: u32) {
        self.state().refuse_starts = count;
    }

    /// Takes nothing more and gives back what runs.
    pub(super) fn drain(&self) {
        let mut state = self.state();
        state.draining = true;
        for run in state.runs.values() {
            run.end(RunEvent::Released("draining".into()));
        }
    }

    /// Slots granted so far.
    pub(super) fn reserved(&self) -> usize {
        self.state().granted
    }

    pub(super) fn started(&self) -> Vec<(JobId, Instant)> {
        self.state().started.clone()
    }

    pub(super) fn cancelled(&self) -> usize {
        self.state().cancelled.len()
    }

    /// Slots that are promised to somebody.
    pub(super) fn promised(&self) -> usize {
        let now = Instant::now();
        self.state().reservations.iter().filter(|(_, until)| *until > now).count()
    }

    /// Every run that began here, once per beginning.
    pub(super) fn begun(&self) -> Vec<RunId> {
        self.state().begun.clone()
    }

    /// Runs that the worker still keeps something of.
    pub(super) fn kept(&self) -> usize {
        self.state().runs.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn busy(state: &State) -> usize {
        state.runs.values().filter(|run| !run.over.load(Ordering::Relaxed)).count()
    }

    async fn answers(&self) {
        if *self.hangs.borrow() {
            // The sender is ours: it does not go away while we wait.
            let _ = self.hangs.subscribe().wait_for(|hangs| !hangs).await;
        }
    }

    fn begin(self: &Arc<Self>, request: &RunRequest, work: Transcode) -> Arc<Run> {
        let (permit, permits) = mpsc::channel(8);
        let mut state = self.state();
        let planned = state.plans.pop_front();
        let plan = planned.or_else(|| state.habit.as_mut().map(|habit| habit())).unwrap_or_default();
        state.begun.push(request.run);
        state.started.push((request.job, Instant::now()));
        let run = Arc::new(Run {
            key: (request.job, request.run, request.epoch),
            log: watch::Sender::default(),
            stream: Mutex::default(),
            gone: CancellationToken::new(),
            over: AtomicBool::new(false),
            missed: AtomicU32::new(0),
            permits: Mutex::new(permits),
            permit,
            plan: Mutex::new(plan),
        });
        state.runs.insert(request.run, Arc::clone(&run));
        let (worker, job) = (Arc::clone(self), Arc::clone(&run));
        self.tasks.spawn(async move {
            let gone = job.gone.clone();
            let end = gone.run_until_cancelled(worker.work(&job, work)).await;
            if let Some(Err(end)) = end {
                job.end(end);
            }
        });
        run
    }

    /// A whole run; the error is how it ends.
    async fn work(&self, run: &Run, work: Transcode) -> Result<(), RunEvent> {
        let (job, id, epoch) = run.key;
        self.at(run, At::Start).await?;
        run.tell(RunEvent::Accepted);
        let mut completed = work.completed;
        let mut dead = Vec::new();
        for open in work.open.into_iter().filter(|_| self.destination.keeps(Rule::DestroyLower)) {
            if self.destination.destroy(open.id) && self.destination.keeps(Rule::Adopt) {
                completed.push(open.output);
                run.tell(done(open.output, open.id));
            } else {
                dead.push(open.id);
            }
        }
        if !dead.is_empty() {
            run.tell(RunEvent::Resolved(dead));
        }
        if work.resolve_only {
            return Err(RunEvent::Finished);
        }
        run.tell(RunEvent::Media(Box::new(media())));
        let outputs = u16::try_from(work.spec.outputs.len()).unwrap();
        run.beat(100);
        self.at(run, At::Encoding).await?;
        for output in (0..outputs).map(OutputIndex).filter(|output| !completed.contains(output)) {
            run.tell(RunEvent::OutputMoved(output, OutputStatus::Encoding));
            run.beat(300);
            run.tell(RunEvent::OutputMoved(output, OutputStatus::Uploading));
            let own = PublicationId::from_uuid(self.ids.random());
            self.destination.stage(own, job, output);
            run.tell(RunEvent::Ready(Publication {
                id: own,
                output,
                run: id,
                epoch,
                handle: "{}".into(),
                manifest: "{}".into(),
                state: PublicationState::Open,
            }));
            let Some(permitted) = run.permitted(own).await else {
                return Err(RunEvent::Failed(Box::new(failure(Code::Cancelled))));
            };
            let lower = permitted.lower.iter().filter(|_| self.destination.keeps(Rule::DestroyLower));
            let adopted = { lower }
                .find(|lower| self.destination.destroy(lower.id) && self.destination.keeps(Rule::Adopt));
            self.at(run, At::BeforeCommit).await?;
            let visible = if let Some(adopted) = adopted {
                self.destination.destroy(own);
                adopted.id
            } else if self.destination.commit(own) {
                own
            } else {
                return Err(RunEvent::Failed(Box::new(failure(Code::DestinationUnreachable))));
            };
            self.at(run, At::AfterCommit).await?;
            run.tell(done(output, visible));
        }
        run.beat(990);
        self.at(run, At::BeforeFinish).await?;
        Err(RunEvent::Finished)
    }

    async fn at(&self, run: &Run, at: At) -> Result<(), RunEvent> {
        let deed = {
            let mut plan = lock(&run.plan);
            let next = plan.iter().position(|(when, _)| *when == at);
            next.map(|next| plan.remove(next).1)
        };
        match deed {
            None => tokio::task::yield_now().await,
            Some(Deed::Break) => run.cut(),
            Some(Deed::Die) => {
                self.state().runs.remove(&run.key.1);
                run.cut();
                std::future::pending::<()>().await;
            }
            Some(Deed::FallSilent) => std::future::pending().await,
            Some(Deed::Take(long)) => {
                let until = Instant::now() + long;
                while let left = until.saturating_duration_since(Instant::now())
                    && !left.is_zero()
                {
                    tokio::time::sleep(left.min(HEARTBEAT)).await;
                    run.beat(200);
                }
            }
            Some(Deed::Wait(go)) => {
                let mut beat = tokio::time::interval(Duration::from_secs(2));
                loop {
                    tokio::select! {
                        biased;
                        () = go.notified() => break,
                        _ = beat.tick() => run.beat(200),
                    }
                }
            }
            Some(Deed::Fail(code)) => return Err(RunEvent::Failed(Box::new(failure(code)))),
            Some(Deed::Release) => return Err(RunEvent::Released("told to".into())),
        }
        Ok(())
    }

    fn follow(self: &Arc<Self>, run: &Arc<Run>) -> mpsc::Receiver<RunEvent> {
        let (events, receiver) = mpsc::channel(8);
        let mut log = run.log.subscribe();
        let cut = lock(&run.stream).clone();
        let (worker, run) = (Arc::clone(self), Arc::clone(run));
        self.tasks.spawn(cut.run_until_cancelled_owned(async move {
            let mut at = 0;
            loop {
                let Ok(event) = log.wait_for(|log| log.len() > at).await.map(|log| log[at].clone()) else {
                    return;
                };
                at += 1;
                worker.answers().await;
                let last = event.is_last();
                if events.send(event).await.is_err() || last {
                    return;
                }
                let _ = &run;
            }
        }));
        receiver
    }
}

impl Run {
    fn tell(&self, event: RunEvent) {
        self.log.send_modify(|log| log.push(event));
    }

    fn beat(&self, permille: u16) {
        self.tell(RunEvent::Heartbeat {
            monotonic: Duration::from_secs(5),
            report: TaskReport {
                phase: Phase::Encoding,
                progress: Progress::from_permille(permille),
                fps: None,
                speed: None,
                eta_seconds: None,
            },
        });
    }

    fn end(&self, event: RunEvent) {
        if !self.over.swap(true, Ordering::Relaxed) {
            self.tell(event);
        }
        self.gone.cancel();
    }

    fn cut(&self) {
        std::mem::take(&mut *lock(&self.stream)).cancel();
    }

    async fn permitted(&self, own: PublicationId) -> Option<Permitted> {
        loop {
            let grant = std::future::poll_fn(|context| lock(&self.permits).poll_recv(context)).await?;
            if grant.publication == own {
                return grant.granted;
            }
        }
    }
}

#[async_trait]
impl WorkerApi for Handle {
    async fn run(&self, request: RunRequest) -> Result<mpsc::Receiver<RunEvent>, Refusal> {
        let worker = &self.0;
        worker.answers().await;
        if request.boot != worker.boot() {
            return Err(Refusal::NotFound);
        }
        let known = worker.state().runs.get(&request.run).cloned();
        if let Some(run) = known {
            return Ok(worker.follow(&run));
        }
        let Action::Start(start) = &request.action else {
            return Err(Refusal::NotFound);
        };
        {
            let mut state = worker.state();
            if state.draining {
                return Err(Refusal::Draining);
            }
            if state.refuse_starts > 0 {
                state.refuse_starts -= 1;
                return Err(Refusal::Stale("told to refuse"));
            }
            let place = state.reservations.iter().position(|(id, _)| *id == start.reservation);
            let until = place.map(|place| state.reservations.swap_remove(place).1);
            if until.is_none_or(|until| until < Instant::now()) {
                return Err(Refusal::Stale("the reservation is gone"));
            }
            let seen = state.seen.entry(request.task).or_default();
            if request.epoch < *seen {
                return Err(Refusal::Stale("a higher epoch was seen"));
            }
            *seen = request.epoch;
            state.companies.push(start.company);
        }
        let run = worker.begin(&request, start.work.clone());
        Ok(worker.follow(&run))
    }

    async fn status(&self) -> WorkerReport {
        self.0.answers().await;
        let state = self.0.state();
        WorkerReport {
            worker: self.0.id.clone(),
            boot: state.boot.unwrap(),
            version: "test".into(),
            slots: self.0.slots,
            busy: u32::try_from(FakeWorker::busy(&state)).unwrap(),
            jobs: state.runs.values().map(|run| run.key.0).collect(),
            draining: state.draining,
            encoders: state.encoders.clone(),
            ffmpeg_version: if state.encoders.is_empty() { String::new() } else { "0".into() },
            sandbox: vec![],
            disk_free: 1,
            protocol: PROTOCOL,
        }
    }

    async fn cancel(&self, run: RunId, _: Option<SessionId>) -> bool {
        self.0.answers().await;
        let mut state = self.0.state();
        state.cancelled.push(run);
        let Some(run) = state.runs.remove(&run) else {
            return false;
        };
        run.over.store(true, Ordering::Relaxed);
        run.gone.cancel();
        run.cut();
        true
    }

    async fn reserve(&self, slots: u32, _: SessionId) -> Reserved {
        self.0.answers().await;
        let mut state = self.0.state();
        let now = Instant::now();
        state.reservations.retain(|(_, until)| *until > now);
        let taken = u32::try_from(FakeWorker::busy(&state) + state.reservations.len()).unwrap();
        let free = if state.draining { 0 } else { self.0.slots.saturating_sub(taken) };
        let reservations: Vec<_> = (0..slots.min(free)).map(|_| ReservationId(self.0.ids.random())).collect();
        state.granted += reservations.len();
        state.reservations.extend(reservations.iter().map(|id| (*id, now + Duration::from_secs(10))));
        Reserved { boot: state.boot.unwrap(), reservations, draining: state.draining }
    }

    async fn hand_back(&self, reservations: Vec<ReservationId>) {
        self.0.answers().await;
        self.0.state().reservations.retain(|(id, _)| !reservations.contains(id));
    }

    async fn renew(&self, renewal: Renewal) -> Renewed {
        self.0.answers().await;
        let mut state = self.0.state();
        state.runs.retain(|id, run| {
            let listed = renewal.runs.contains(id);
            let missed = if listed { 0 } else { run.missed.load(Ordering::Relaxed) + 1 };
            run.missed.store(missed, Ordering::Relaxed);
            let stays = missed < MOST_MISSED;
            if !stays {
                run.over.store(true, Ordering::Relaxed);
                run.gone.cancel();
                run.cut();
            }
            stays
        });
        Renewed { boot: state.boot.unwrap(), runs: state.runs.keys().copied().collect() }
    }

    async fn permit(&self, grant: PermitGrant) -> Result<(), Refusal> {
        self.0.answers().await;
        let run = self.0.state().runs.get(&grant.run).cloned().ok_or(Refusal::NotFound)?;
        let _ = run.permit.try_send(grant);
        Ok(())
    }

    async fn put_source(&self, _: RunId, _: Given) -> Result<(), Refusal> {
        Err(Refusal::NotFound)
    }

    async fn read_token(&self, _: uuid::Uuid) -> Result<Option<String>, String> {
        Ok(None)
    }

    async fn ack(&self, run: RunId) {
        self.0.answers().await;
        let mut state = self.0.state();
        state.runs.remove(&run);
        state.acked.push(run);
    }
}

/// The worker as the service holds it.
pub(super) struct Handle(pub(super) Arc<FakeWorker>);

fn done(output: OutputIndex, publication: PublicationId) -> RunEvent {
    RunEvent::OutputDone { output, publication, result: Box::new(crate::domain::fixtures::result()) }
}

fn failure(code: Code) -> RunFailure {
    RunFailure {
        failure: Failure::new(code, "told to fail"),
        outputs: Vec::new(),
        log_tail: "one\ntwo\n".into(),
    }
}

fn media() -> MediaInfo {
    MediaInfo {
        container: Demuxer::Mov,
        size: 1,
        duration_seconds: Some(1.0),
        video: Vec::new(),
        audio: Vec::new(),
        subtitles: vec![],
        other: Vec::new(),
    }
}
