//! A thousand workers and a deep queue: machines die and come back, the network parts, and the control is replaced.

use std::collections::BTreeMap;

use super::super::worker::{At, Deed};
use super::super::*;
use super::dice::Dice;
use super::verdict::{self, Told};
use super::world::quiet;
use crate::domain::Code;

const WORKERS: usize = 1_000;

/// Between two misfortunes.
const STEP: Duration = Duration::from_secs(2);

/// The work arrives in so many portions, a step apart.
const PORTIONS: usize = 20;

/// The longest run without trouble.
const LONGEST: Duration = Duration::from_secs(40);

/// What happened, for people.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) breaches: Vec<String>,
    /// How long the fleet took, on its own clock.
    pub(super) took: Duration,
}

/// Lives until so many tasks have ended.
pub(super) async fn live(tasks: usize, seed: u64) -> Report {
    let mut dice = Dice::new(seed);
    let slots: Vec<u32> = (0..WORKERS).map(|_| dice.pick(&[1, 2, 3, 4])).collect();
    let ground = Ground { retention: None, ..Ground::new(&slots, seed) };
    for worker in &ground.workers {
        let mut habit = Dice::new(u64::try_from(dice.roll(1 << 31)).unwrap());
        worker.usually(move || plan(&mut habit));
    }
    let mut bench = Bench::on(ground, (Discovery::default(), Found::Listed), |_| {}).await;
    let began = Instant::now();
    let mut told = Vec::new();
    let mut replaced = false;
    let mut parted: BTreeMap<Instant, usize> = BTreeMap::new();
    while told.len() < tasks || bench.store.open_tasks() > 0 {
        for _ in 0..tasks.div_ceil(PORTIONS).min(tasks - told.len()) {
            let job = verdict::name(bench.submit(1).await);
            told.push(Told::Accepted { key: job.clone(), job });
        }
        if !replaced && told.len() == tasks && bench.store.open_tasks() < tasks / 2 {
            bench = bench.replaced(async |bench| bench.control.0.done.cancel()).await;
            replaced = true;
        }
        // Machines die while there is much to do; what is left then has time to end.
        if bench.store.open_tasks() > tasks / 10 {
            let (dead, alone) = (dice.roll(WORKERS), dice.roll(WORKERS));
            if dice.percent(20) {
                bench.workers[dead].restart();
            }
            bench.workers[alone].hang();
            parted.insert(Instant::now() + dice.within(Duration::from_mins(1)), alone);
        }
        tokio::time::sleep(STEP).await;
        let later = parted.split_off(&Instant::now());
        for worker in std::mem::replace(&mut parted, later).into_values() {
            bench.workers[worker].heal();
        }
        assert!(began.elapsed() < Duration::from_hours(24), "{} tasks never end", bench.store.open_tasks());
    }
    let took = began.elapsed();
    for worker in parted.into_values() {
        bench.workers[worker].heal();
    }
    quiet(&bench).await;
    bench.lifecycle.shut_down(crate::lifecycle::ShutdownReason::Requested);
    bench.control.drained().await;
    assert!(replaced && bench.store.all().len() == tasks);
    Report { breaches: verdict::of(&bench, told), took }
}

fn plan(dice: &mut Dice) -> Vec<(At, Deed)> {
    let mut plan = Vec::new();
    if dice.percent(1) {
        let at = dice.pick(&[At::Start, At::BeforeCommit, At::AfterCommit, At::BeforeFinish]);
        let deeds =
            [Deed::Break, Deed::Die, Deed::FallSilent, Deed::Release, Deed::Fail(Code::EncodeTimeout)];
        plan.push((at, dice.pick(&deeds)));
    }
    plan.push((At::Encoding, Deed::Take(dice.within(LONGEST))));
    plan
}
