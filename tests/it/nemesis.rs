//! Real processes under attack, by seed: killed, frozen, cut off from each other, with an ffmpeg that breaks down.
//!
//! `plan` says what a seed does, `cluster` has the processes, `client` the clients; what they saw is a `history`, and
//! `checker` judges it. `directed` tries single failures on purpose.
//!
//! `FLUX_NEMESIS_SEED=7` repeats one; `FLUX_NEMESIS_START` and `FLUX_NEMESIS_SEEDS` choose others (`make soak`).

mod checker;
mod client;
mod cluster;
mod directed;
mod history;
mod liar;
mod mutants;
mod plan;
mod record;
mod takeover;

use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::client::{Clients, plain};
use self::cluster::{Cluster, Process};
use self::history::{Clock, History};
use self::plan::{Move, Plan, Record};
use crate::support::clips;

/// Runs at a time: mostly they wait.
const AT_ONCE: usize = 4;

#[tokio::test]
async fn every_acknowledged_job_ends_once_whatever_is_done_to_processes_and_network() {
    attack(Record::Sole, 16).await;
}

#[tokio::test]
async fn every_acknowledged_job_ends_once_whatever_is_done_to_controls_that_share_a_database() {
    attack(Record::Shared, 4).await;
}

#[expect(clippy::print_stderr, reason = "the seed repeats a run that failed")]
async fn attack(record: Record, count: u64) {
    #[expect(clippy::disallowed_methods, reason = "to repeat a run that failed")]
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().unwrap());
    let one = number("FLUX_NEMESIS_SEED");
    let start = one.or(number("FLUX_NEMESIS_START")).unwrap_or(1);
    let count = if one.is_some() { 1 } else { number("FLUX_NEMESIS_SEEDS").unwrap_or(count) };
    let runs = futures_util::stream::iter(start..start + count);
    let runs = runs.map(|seed| async move { (seed, run(seed, record).await) });
    let (mut runs, mut bad) = (std::pin::pin!(runs.buffer_unordered(AT_ONCE)), Vec::new());
    while let Some((seed, result)) = runs.next().await {
        let verdict = if result.is_ok() { "ok" } else { "BAD" };
        eprintln!("FLUX_NEMESIS_SEED={seed}: {verdict}");
        bad.extend(result.err());
    }
    assert!(bad.is_empty(), "{}", bad.join("\n\n"));
}

/// One seed; what was wrong, with all that helps to see why.
async fn run(seed: u64, record: Record) -> Result<(), String> {
    let plan = Plan::of(seed, record);
    let mut cluster = Cluster::start(plan.record, plan.workers, plan.slots).await;
    for (number, job) in plan.jobs.iter().enumerate() {
        cluster.fake.plan(number, &job.faults);
    }
    let clients = Clients {
        http: reqwest::Client::builder().no_proxy().build().unwrap(),
        urls: cluster.urls.subscribe(),
        turn: Arc::default(),
        clip: clips::tiny(),
        told: Arc::new(Mutex::new(Vec::new())),
    };
    let begin = Instant::now();
    let mut lives = JoinSet::new();
    for (number, job) in plan.jobs.iter().enumerate() {
        lives.spawn(clients.clone().live(number, job.clone(), begin));
    }
    for (at, step) in &plan.moves {
        tokio::time::sleep_until(begin + *at).await;
        cluster.make(*step).await;
    }
    cluster.heal().await;
    let set = plan.moves.iter().any(|(_, step)| matches!(step, Move::SetClock(_)));
    let mut history = History { clock: if set { Clock::Jumped } else { Clock::Even }, ..History::default() };
    let mut trouble = Vec::new();
    while let Some(ended) = lives.join_next().await {
        match ended {
            Ok(Some(job)) => history.streams.push((plain(&job), clients.stream(&job).await)),
            Ok(None) => {}
            Err(error) => trouble.push(error.to_string()),
        }
    }
    cluster.quiet().await;
    history.left = cluster.stop().await;
    history.told.clone_from(&clients.told.lock().unwrap());
    history.jobs = cluster.jobs().await;
    (history.visible, _) = record::files(&cluster.storage());
    history.starts = cluster.fake.works().into_iter().map(|(run, files)| (plain(&run), files)).collect();
    trouble.extend(checker::check(&history));
    if trouble.is_empty() {
        return Ok(());
    }
    let report =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nemesis-{record:?}-{seed}.txt"));
    let logs: Vec<_> = cluster.controls.iter().chain(&cluster.workers).map(Process::log).collect();
    let text = format!("{trouble:#?}\n\n{plan:#?}\n\n{history:#?}\n\n{}", logs.join("\n\n=====\n\n"));
    std::fs::write(&report, text).unwrap();
    Err(format!("seed {seed} ({}): {trouble:#?}", report.display()))
}
