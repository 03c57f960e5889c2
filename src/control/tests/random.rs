//! Random misbehaviour of workers and of the store: every job ends exactly once, and what is visible is what is
//! recorded.

use proptest::prelude::*;

use super::memory::Fault;
use super::worker::{At, Deed};
use super::*;
use crate::domain::Code;

fn at() -> impl Strategy<Value = At> {
    prop::sample::select(vec![At::Start, At::Encoding, At::BeforeCommit, At::AfterCommit, At::BeforeFinish])
}

fn deed() -> impl Strategy<Value = Option<(At, Deed)>> {
    let deed = prop_oneof![
        Just(Deed::Break),
        Just(Deed::Die),
        Just(Deed::FallSilent),
        Just(Deed::Release),
        Just(Deed::Fail(Code::EncodeTimeout)),
        Just(Deed::Fail(Code::MediaCorrupt)),
    ];
    prop::option::weighted(0.6, (at(), deed))
}

fn fault() -> impl Strategy<Value = Option<Fault>> {
    prop::option::weighted(0.3, prop::sample::select(vec![Fault::Refused, Fault::AnswerLost, Fault::NoSpace]))
}

#[derive(Debug, Clone)]
struct Scenario {
    plans: Vec<Vec<Option<(At, Deed)>>>,
    faults: Vec<Option<Fault>>,
    outputs: Vec<u16>,
    cancels: Vec<(usize, u64)>,
    session_ends: Option<u64>,
}

fn scenario() -> impl Strategy<Value = Scenario> {
    (
        prop::collection::vec(prop::collection::vec(deed(), 0..8), 2),
        prop::collection::vec(fault(), 0..30),
        prop::collection::vec(1_u16..4, 1..6),
        prop::collection::vec((0_usize..6, 0_u64..40_000), 0..3),
        prop::option::weighted(0.3, 0_u64..60_000),
    )
        .prop_map(|(plans, faults, outputs, cancels, session_ends)| Scenario {
            plans,
            faults,
            outputs,
            cancels,
            session_ends,
        })
}

async fn play(scenario: Scenario, seed: u64) {
    let bench = Bench::start_with(&[1, 2], seed, |workers| {
        for (worker, plans) in workers.iter().zip(&scenario.plans) {
            for plan in plans {
                worker.plan(plan.iter().cloned().collect());
            }
        }
    })
    .await;
    bench.store.inject(&scenario.faults);
    let mut jobs = Vec::new();
    for outputs in &scenario.outputs {
        jobs.push(bench.submit(*outputs).await);
    }
    let people = async {
        for (job, after) in &scenario.cancels {
            tokio::time::sleep(Duration::from_millis(*after)).await;
            bench.control.cancel(None, jobs[job % jobs.len()]).await.unwrap();
        }
    };
    let outage = async {
        if let Some(after) = scenario.session_ends {
            tokio::time::sleep(Duration::from_millis(after)).await;
            bench.store.end_session();
        }
    };
    let all = async {
        for job in &jobs {
            bench.ended(*job).await;
        }
    };
    tokio::join!(people, outage, all);
    bench.lifecycle.shut_down(crate::lifecycle::ShutdownReason::Requested);
    bench.control.drained().await;
    for job in &jobs {
        bench.check(*job);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn every_job_ends_exactly_once(scenario in scenario(), seed in 1_u64..1_000) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(play(scenario, seed));
    }
}
