//! Workers that come and go, on paused time. Nothing listens at the addresses: calls there are refused.

use super::*;
use crate::control::{Found, WorkerState};
use crate::rpc::wire::{PROTOCOL, Registration};
use crate::rpc::{FleetApi as _, FleetRefusal};

fn registration(address: &str, protocol: u32) -> Registration {
    Registration {
        worker: "w".parse().unwrap(),
        boot: crate::domain::BootId::from_uuid(uuid::Uuid::nil()),
        address: address.into(),
        slots: 1,
        version: "1".into(),
        protocol,
    }
}

async fn with(discovery: Discovery) -> Bench {
    Bench::start_full(&[1], 1, discovery, |_| {}).await
}

async fn addresses(bench: &Bench) -> Vec<(String, Found)> {
    bench.control.workers().await.into_iter().map(|worker| (worker.address, worker.found)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_registered_worker_leaves_when_it_is_silent_and_a_listed_one_stays() {
    let discovery = Discovery { nodes: vec!["127.0.0.1:1".into()], ..Discovery::default() };
    let bench = with(discovery).await;
    let all = [("127.0.0.1:1".to_owned(), Found::Listed), ("127.0.0.1:2".to_owned(), Found::Registered)];
    for _ in 0..3 {
        // Said again and again, it is one worker; and a listed one that registers is the listed one.
        for address in ["127.0.0.1:2", "127.0.0.1:1"] {
            bench.control.register(registration(address, PROTOCOL)).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert_eq!(addresses(&bench).await[1..], all, "it registers still");
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(addresses(&bench).await[1..], all[..1], "silent, and registered no more");
    let listed = &bench.control.workers().await[1];
    assert_eq!(listed.state, WorkerState::Unreachable);
    assert!(listed.reason.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_cannot_be_used_is_refused_by_name() {
    let bench = with(Discovery::default()).await;
    for bad in ["", "w", "w:", "w:0", "w:70000"] {
        let refused = bench.control.register(registration(bad, PROTOCOL)).await;
        assert_eq!(refused, Err(FleetRefusal::Address { address: bad.into() }));
    }
    let far = bench.control.register(registration("10.0.0.1:1", PROTOCOL)).await;
    assert_eq!(far, Err(FleetRefusal::NotEncrypted { address: "10.0.0.1:1".into() }));
    let old = bench.control.register(registration("127.0.0.1:2", PROTOCOL + 1)).await;
    assert_eq!(old, Err(FleetRefusal::Incompatible { theirs: PROTOCOL + 1 }));
    let trusting = with(Discovery { trusted_network: true, ..Discovery::default() }).await;
    assert!(trusting.control.register(registration("10.0.0.1:1", PROTOCOL)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_resolves_to_loopback_is_used_and_one_that_does_not_resolve_is_tried_again() {
    let bench = with(Discovery { dns: Some("localhost:7".into()), ..Discovery::default() }).await;
    let found = async |bench: &Bench| {
        addresses(bench).await.iter().any(|worker| *worker == ("127.0.0.1:7".into(), Found::Resolved))
    };
    for _ in 0..100 {
        if found(&bench).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(found(&bench).await);
    let lost = with(Discovery { dns: Some("nowhere.invalid:7".into()), ..Discovery::default() }).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(addresses(&lost).await.len(), 1);
}
