//! A small world: a few workers, a few jobs, and everything that can go wrong, all of it from one seed.

use super::super::memory::Fault;
use super::super::worker::{At, Deed, Rule};
use super::super::*;
use super::dice::Dice;
use super::verdict::{self, Told};
use crate::domain::Code;

/// Things happen for so long; then the world heals.
const UNREST: Duration = Duration::from_secs(100);

/// Every job has ended by then, or never ends: the longest waits are those of delayed tasks.
const PATIENCE: Duration = Duration::from_hours(2);

/// What workers may still keep after the last job has ended is gone by then (PROTOCOL §1.7: two renewals).
const QUIET: Duration = Duration::from_mins(5);

const PLACES: [At; 5] = [At::Start, At::Encoding, At::BeforeCommit, At::AfterCommit, At::BeforeFinish];

#[derive(Debug, Clone, Copy)]
enum Act {
    Submit(u16),
    /// The worker's process dies and another is there at once.
    Restart(usize),
    /// Its machine goes away, and comes back with another process.
    Crash(usize),
    /// It cannot be reached; its runs go on.
    Part(usize),
    Heal(usize),
    EndSession,
    /// The control's wall clock is set so many hours ahead of the time, or behind it.
    Jump(i64),
    /// The next control comes after one that said goodbye.
    Leave,
    /// The next control comes after one that is just gone.
    Abandon,
    Cancel(usize),
    Retry(usize),
    Delete(usize),
}

/// What became of a world.
pub(super) struct Outcome {
    /// What the checker has to say.
    pub(super) breaches: Vec<String>,
    /// Everything that happened.
    pub(super) account: String,
}

/// Lives through the world of a seed, where all keep every rule but this one.
pub(super) async fn live(seed: u64, left_out: Option<Rule>) -> Outcome {
    let mut dice = Dice::new(seed);
    let slots: Vec<u32> = (0..dice.between(2, 4)).map(|_| dice.pick(&[1, 2, 3])).collect();
    let acts = acts(&mut dice, slots.len());
    let ground = Ground { retention: None, ..Ground::new(&slots, seed) };
    if let Some(rule) = left_out {
        ground.destination.leave_out(rule);
        ground.store.leave_out(rule);
    }
    for worker in &ground.workers {
        for _ in 0..dice.roll(10) {
            worker.plan(plan(&mut dice));
        }
        let mut habit = Dice::new(seed ^ u64::try_from(dice.roll(usize::MAX >> 1)).unwrap());
        worker.usually(move || vec![(At::Encoding, Deed::Take(habit.within(Duration::from_secs(20))))]);
    }
    let faults: Vec<_> = (0..dice.roll(40)).map(|_| fault(&mut dice)).collect();
    ground.store.inject(&faults);
    let bench = Bench::on(ground, (Discovery::default(), Found::Listed), |_| {}).await;
    let mut world = World { bench, jobs: Vec::new(), told: Vec::new() };
    for (at, act) in acts {
        tokio::time::sleep_until(world.bench.clock.began + at).await;
        world = world.act(act).await;
        world.look();
    }
    world.heal();
    world.ended().await;
    // Of what failed, some is tried once more, by workers that err no more than they were going to.
    for at in 0..world.jobs.len() {
        if dice.percent(50) {
            world = world.act(Act::Retry(at)).await;
        }
    }
    world.ended().await;
    quiet(&world.bench).await;
    world.bench.lifecycle.shut_down(crate::lifecycle::ShutdownReason::Requested);
    world.bench.control.drained().await;
    let World { bench, told, .. } = world;
    Outcome { breaches: verdict::of(&bench, told.clone()), account: verdict::account(&bench, told) }
}

fn acts(dice: &mut Dice, workers: usize) -> Vec<(Duration, Act)> {
    let jobs = dice.between(5, 15);
    let mut acts = Vec::new();
    for _ in 0..jobs {
        let at = if dice.percent(40) { Duration::ZERO } else { dice.within(UNREST / 2) };
        acts.push((at, Act::Submit(dice.pick(&[1, 1, 2, 3]))));
    }
    for _ in 0..dice.roll(8) {
        let (at, job) = (dice.within(UNREST), dice.roll(jobs));
        acts.push((at, dice.pick(&[Act::Cancel(job), Act::Retry(job), Act::Delete(job)])));
    }
    for _ in 0..dice.roll(5) {
        let (at, worker) = (dice.within(UNREST), dice.roll(workers));
        let begin = dice.pick(&[Act::Restart(worker), Act::Crash(worker), Act::Part(worker)]);
        acts.push((at, begin));
        // Shorter and longer than a call, a renewal and the silence that costs a run.
        acts.push((at + dice.within(UNREST / 2), Act::Heal(worker)));
    }
    for _ in 0..dice.roll(3) {
        acts.push((dice.within(UNREST), dice.pick(&[Act::EndSession, Act::Leave, Act::Abandon])));
    }
    if dice.percent(20) {
        acts.push((dice.within(UNREST), Act::Jump(dice.pick(&[-9, -1, 1, 9]))));
        acts.push((dice.within(UNREST), Act::Jump(0)));
    }
    acts.sort_by_key(|(at, _)| *at);
    acts
}

fn plan(dice: &mut Dice) -> Vec<(At, Deed)> {
    let mut plan = Vec::new();
    if dice.percent(60) {
        let deed = dice.pick(&[
            Deed::Break,
            Deed::Die,
            Deed::FallSilent,
            Deed::Release,
            Deed::Fail(Code::EncodeTimeout),
            Deed::Fail(Code::MediaCorrupt),
        ]);
        plan.push((dice.pick(&PLACES), deed));
    }
    for _ in 0..dice.roll(3) {
        plan.push((dice.pick(&PLACES), Deed::Take(dice.within(Duration::from_secs(25)))));
    }
    plan
}

fn fault(dice: &mut Dice) -> Option<Fault> {
    let fault = dice.pick(&[Fault::Refused, Fault::AnswerLost, Fault::NoSpace]);
    dice.percent(30).then_some(fault)
}

struct World {
    bench: Bench,
    jobs: Vec<JobId>,
    told: Vec<Told>,
}

impl World {
    async fn act(mut self, act: Act) -> Self {
        let (control, workers) = (&self.bench.control, &self.bench.workers);
        match act {
            Act::Submit(outputs) => {
                let job = self.bench.submit(outputs).await;
                self.jobs.push(job);
                self.told.push(Told::Accepted { key: verdict::name(job), job: verdict::name(job) });
            }
            Act::Restart(worker) => workers[worker].restart(),
            Act::Crash(worker) => {
                workers[worker].hang();
                workers[worker].restart();
            }
            Act::Part(worker) => workers[worker].hang(),
            Act::Heal(worker) => workers[worker].heal(),
            Act::EndSession => self.bench.store.end_session(),
            Act::Jump(hours) => self.bench.clock.jump(hours),
            Act::Leave => self.bench = self.bench.replaced(async |bench| bench.control.leave().await).await,
            Act::Abandon => {
                self.bench = self.bench.replaced(async |bench| bench.control.0.done.cancel()).await;
            }
            Act::Cancel(job) => {
                if let Some(job) = self.jobs.get(job) {
                    control.cancel(None, *job).await.unwrap();
                }
            }
            Act::Retry(job) => {
                if let Some(job) = self.jobs.get(job) {
                    self.told.push(Told::Retrying { job: verdict::name(*job) });
                    control.retry(None, *job).await.unwrap();
                }
            }
            Act::Delete(job) => {
                if let Some(job) = self.jobs.get(job) {
                    self.told.push(Told::Deleting { job: verdict::name(*job) });
                    control.delete(None, *job).await.unwrap();
                }
            }
        }
        self
    }

    /// A client looks at each job.
    fn look(&mut self) {
        for id in &self.jobs {
            let job = verdict::name(*id);
            self.told.push(if self.bench.store.is_deleted(*id) {
                Told::Gone { job }
            } else {
                Told::Saw { job, status: verdict::status(self.bench.store.status(*id)) }
            });
        }
    }

    fn heal(&self) {
        for worker in &self.bench.workers {
            worker.heal();
        }
    }

    async fn ended(&mut self) {
        let since = Instant::now();
        let over =
            |job: &JobId| self.bench.store.status(*job).is_terminal() || self.bench.store.is_deleted(*job);
        while !self.jobs.iter().all(over) && since.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.look();
    }
}

/// Waits until workers and control have put everything away; what is left then is for the checker to tell.
pub(super) async fn quiet(bench: &Bench) {
    let since = Instant::now();
    let busy = |worker: &Arc<FakeWorker>| worker.kept() + worker.promised() > 0;
    while bench.workers.iter().any(busy) && since.elapsed() < QUIET {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
