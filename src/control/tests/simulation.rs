//! Dispatch in whole worlds on a clock of their own: the real control, scripted workers, the real state machine.
//!
//! Everything follows from a seed, and the checker is the one that judges attacks on real processes. A failing seed is
//! printed; `FLUX_SIM_SEED=n` lives through that one alone. The crowd of a thousand workers has 10,000 tasks unless
//! `FLUX_SIM_TASKS` says how many.

mod crowd;
mod dice;
mod verdict;
mod world;

use self::world::Outcome;
use super::worker::Rule;

/// Worlds in a run of the tests.
const SEEDS: u64 = 1_000;

/// Tasks of the crowd, where nobody asks for more.
const TASKS: u64 = 10_000;

/// Prints the seed of the world that ended in a panic.
struct Named(u64);

#[expect(clippy::print_stderr, reason = "the output of a test that failed")]
impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with FLUX_SIM_SEED={}", self.0);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "whoever runs a test says so in the environment")]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

fn on_paused_time<T>(seed: u64, future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let _named = Named(seed);
    runtime.block_on(future)
}

fn outcome(seed: u64) -> Outcome {
    on_paused_time(seed, world::live(seed, None))
}

#[test]
fn a_thousand_seeds() {
    let seeds = number("FLUX_SIM_SEED").map_or(1..=SEEDS, |seed| seed..=seed);
    let bad: Vec<_> = seeds
        .map(|seed| (seed, outcome(seed).breaches))
        .filter(|(_, breaches)| !breaches.is_empty())
        .collect();
    assert!(bad.is_empty(), "replay with FLUX_SIM_SEED: {bad:#?}");
}

/// The protocol's mutants: each rule holds something up, or it would not be one (PROTOCOL §2). How many seeds it takes
/// to see that one is missing is printed.
#[test]
#[expect(clippy::print_stderr, reason = "the figure is part of the answer")]
fn no_rule_can_be_left_out() {
    let unknown = "is visible, the record knows nothing of it";
    for (rule, breach) in [
        (Rule::DestroyLower, unknown),
        (Rule::Adopt, unknown),
        (Rule::CancelAfterCommit, unknown),
        (Rule::CancelAfterResolve, unknown),
    ] {
        let broken = |seed: &u64| {
            let outcome = on_paused_time(*seed, world::live(*seed, Some(rule)));
            outcome.breaches.iter().any(|found| found.contains(breach))
        };
        let caught = (1..=SEEDS).find(broken);
        eprintln!("without {rule:?}: seen in world {caught:?}");
        assert!(caught.is_some(), "{rule:?} can be left out");
    }
}

/// Else a seed that failed would be worth nothing.
#[test]
fn a_seed_replays() {
    for seed in 1..=20 {
        assert!(outcome(seed).account == outcome(seed).account, "seed {seed} is two worlds");
    }
}

#[test]
fn a_thousand_workers_and_their_crowd_of_tasks() {
    let seed = number("FLUX_SIM_SEED").unwrap_or(1);
    let tasks = number("FLUX_SIM_TASKS").unwrap_or(TASKS);
    let report = on_paused_time(seed, crowd::live(usize::try_from(tasks).unwrap(), seed));
    assert!(report.breaches.is_empty(), "in {:?}: {:#?}", report.took, report.breaches);
}
