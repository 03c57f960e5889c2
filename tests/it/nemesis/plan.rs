//! What a seed decides: who is hit when and how, and what each client does. Nothing else here is random.

use std::time::Duration;

use crate::support::chance::Chance;
use crate::support::fake::Fault;
use crate::support::proxy::Mode;

/// How long things are hit.
const CHAOS: Duration = Duration::from_secs(5);
/// Between two hits.
const PAUSE: (u64, u64) = (60, 600);
/// How long a hit lasts.
const HURT: (u64, u64) = (80, 2_500);

/// What the record is, and who shares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// One control and a file of its own.
    Sole,
    /// Two controls and a PostgreSQL that is attacked as well.
    Shared,
}

impl Record {
    pub fn controls(self) -> usize {
        match self {
            Self::Sole => 1,
            Self::Shared => 2,
        }
    }
}

/// One run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub record: Record,
    pub workers: usize,
    pub slots: u32,
    /// In order of time.
    pub moves: Vec<(Duration, Move)>,
    pub jobs: Vec<JobPlan>,
}

/// One thing the nemesis does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// SIGKILL; `Mode::Refuse` shows its end to callers, anything else hides it behind the proxy.
    Kill(Who, Mode),
    Start(Who),
    /// SIGSTOP.
    Freeze(Who),
    /// SIGCONT.
    Thaw(Who),
    /// A worker's proxy.
    Network(usize, Mode),
    Reset(usize),
    HalfClose(usize),
    /// The database ends as a crash does, and is started again.
    CrashRecord,
    ResumeRecord,
    /// The database's clock is set so many hours ahead of the time: every session is over at once.
    SetClock(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Control(usize),
    Worker(usize),
}

/// What becomes of one job.
#[derive(Debug, Clone)]
pub struct JobPlan {
    /// When its client submits it.
    pub at: Duration,
    /// Whether its source comes with it, through the control to the worker.
    pub inline: bool,
    pub outputs: usize,
    /// How its encodes go wrong.
    pub faults: Vec<Fault>,
    /// What its client does so long after it was accepted.
    pub then: Option<(Duration, Wish)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Cancel,
    Delete,
    /// Once it has failed, whenever that is.
    Retry,
}

impl Plan {
    pub fn of(seed: u64, record: Record) -> Self {
        let mut chance = Chance::new(seed);
        let workers = 2 + chance.index(2);
        let slots = 1 + u32::from(chance.percent(50));
        let mut moves = Vec::new();
        let mut at = millis(&mut chance, PAUSE);
        while at < CHAOS {
            let until = at + millis(&mut chance, HURT);
            let (hit, heal) = hit(&mut chance, workers, record);
            moves.push((at, hit));
            moves.extend(heal.map(|heal| (until, heal)));
            at += millis(&mut chance, PAUSE);
        }
        moves.sort_by_key(|(at, _)| *at);
        let jobs = (0..12 + chance.index(6)).map(|_| JobPlan::of(&mut chance)).collect();
        Self { record, workers, slots, moves, jobs }
    }
}

/// A hit, and what heals it.
fn hit(chance: &mut Chance, workers: usize, record: Record) -> (Move, Option<Move>) {
    let worker = chance.index(workers);
    let control = Who::Control(chance.index(record.controls()));
    let network = |mode| (Move::Network(worker, mode), Some(Move::Network(worker, Mode::Pass)));
    let kinds = if record == Record::Shared { 114 } else { 100 };
    match chance.below(kinds) {
        0..20 => {
            let shown = chance.one_of(&[Mode::Refuse, Mode::Pass]);
            let who = Who::Worker(worker);
            (Move::Kill(who, shown), Some(Move::Start(who)))
        }
        20..32 => (Move::Kill(control, Mode::Pass), Some(Move::Start(control))),
        32..44 => (Move::Freeze(Who::Worker(worker)), Some(Move::Thaw(Who::Worker(worker)))),
        44..52 => (Move::Freeze(control), Some(Move::Thaw(control))),
        52..60 => (Move::Reset(worker), None),
        60..66 => (Move::HalfClose(worker), None),
        66..74 => network(Mode::Delay(Duration::from_millis(20 + chance.below(300)))),
        74..81 => network(Mode::Deaf),
        81..88 => network(Mode::Mute),
        88..95 => network(Mode::Hole),
        95..100 => network(Mode::Refuse),
        100..108 => (Move::CrashRecord, Some(Move::ResumeRecord)),
        _ => (Move::SetClock(8), Some(Move::SetClock(0))),
    }
}

impl JobPlan {
    fn of(chance: &mut Chance) -> Self {
        const BREAKDOWNS: &[Fault] =
            &[Fault::Hang, Fault::Stubborn, Fault::Flood, Fault::Empty, Fault::Crash, Fault::Slow];
        let at = Duration::from_millis(chance.below(5_000));
        let faults = match chance.below(100) {
            0..60 => Vec::new(),
            60..90 => vec![chance.one_of(BREAKDOWNS)],
            // Three failures are the end of a job, and a hang takes a while to be seen.
            _ => (0..3).map(|_| chance.one_of(&[Fault::Empty, Fault::Crash])).collect(),
        };
        let later = Duration::from_millis(chance.below(3_000));
        let then = match chance.below(100) {
            0..18 => Some((later, Wish::Cancel)),
            18..26 => Some((later, Wish::Delete)),
            26..60 => Some((later, Wish::Retry)),
            _ => None,
        };
        let inline = chance.percent(25);
        let outputs = 1 + usize::from(chance.percent(25));
        Self { at, inline, outputs, faults, then }
    }
}

fn millis(chance: &mut Chance, (least, most): (u64, u64)) -> Duration {
    Duration::from_millis(least + chance.below(most - least))
}

/// What befalls a database is rare: some of the seeds that everybody runs must have it.
#[test]
fn the_shared_record_crashes_and_has_its_clock_set() {
    let moves: Vec<_> =
        (1..=4).flat_map(|seed| Plan::of(seed, Record::Shared).moves).map(|(_, step)| step).collect();
    assert!(moves.contains(&Move::CrashRecord), "{moves:?}");
    assert!(moves.contains(&Move::SetClock(8)), "{moves:?}");
}
