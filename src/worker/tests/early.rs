//! What is refused, or waits, before anything is encoded.

use std::sync::atomic::AtomicU64;

use super::super::disk::Space;
use super::*;

const FLOOR: u64 = 1 << 20;
const TOTAL: u64 = 1 << 40;

/// A worker on a disk with as much room as the number says.
fn on_disk(free: &Arc<AtomicU64>) -> Bench {
    let free = Arc::clone(free);
    let look = move |_: &Path| Space { free: free.load(Ordering::SeqCst), total: TOTAL };
    Bench::with(Duration::from_mins(10), FLOOR, Box::new(look))
}

fn encoded(facts: &[RunEvent]) -> bool {
    facts.iter().any(|fact| matches!(fact, RunEvent::Media(_) | RunEvent::OutputMoved(..)))
}

#[tokio::test]
async fn a_place_that_is_taken_is_refused_before_the_encode() {
    let bench = Bench::new();
    let taken = bench.dir.path().join("results/0.mp4");
    std::fs::write(&taken, "somebody else's").unwrap();
    let (request, stream) = bench.start(1).await;
    let facts = stream.rest().await;
    let Some(RunEvent::Failed(failed)) = facts.last() else { panic!("{facts:?}") };
    assert_eq!(failed.failure.code, Code::DestinationExists);
    let outputs: Vec<_> = failed.outputs.iter().map(|(output, failure)| (output.0, failure.code)).collect();
    assert_eq!(outputs, [(0, Code::DestinationExists)]);
    assert!(!encoded(&facts), "{facts:?}");
    assert_eq!(std::fs::read_to_string(taken).unwrap(), "somebody else's");
    bench.worker.ack(request.run).await;
    bench.clean().await;
}

#[tokio::test]
async fn a_place_that_is_taken_meanwhile_is_still_refused_by_the_commit() {
    let bench = Bench::new();
    let (request, mut stream) = bench.start(1).await;
    let publication = stream.ready().await;
    std::fs::write(bench.dir.path().join("results/0.mp4"), "somebody else's").unwrap();
    bench.permit(&publication, Vec::new()).await;
    let facts = stream.rest().await;
    let Some(RunEvent::Failed(failed)) = facts.last() else { panic!("{facts:?}") };
    assert_eq!(failed.failure.code, Code::DestinationExists);
    assert_eq!(bench.published(), ["0.mp4"]);
    bench.worker.ack(request.run).await;
    bench.clean().await;
}

#[tokio::test]
async fn no_slot_is_granted_where_the_floor_is_not_free() {
    let free = Arc::new(AtomicU64::new(FLOOR - 1));
    let bench = on_disk(&free);
    assert!(bench.worker.reserve(1, SESSION).await.reservations.is_empty());
    free.store(FLOOR, Ordering::SeqCst);
    assert_eq!(bench.worker.reserve(1, SESSION).await.reservations.len(), 1);
}

#[tokio::test]
async fn a_run_that_needs_more_waits_for_room_and_then_goes_on() {
    let free = Arc::new(AtomicU64::new(FLOOR));
    let bench = on_disk(&free);
    let (request, mut stream) = bench.start(1).await;
    // The clip and what becomes of it need more than nothing beside the floor.
    assert!(matches!(stream.next().await, Some(RunEvent::Accepted)));
    assert!(matches!(stream.next().await, Some(RunEvent::Media(_))));
    free.store(TOTAL, Ordering::SeqCst);
    let publication = stream.ready().await;
    bench.permit(&publication, Vec::new()).await;
    assert_eq!(stream.rest().await.last(), Some(&RunEvent::Finished));
    bench.worker.ack(request.run).await;
    bench.clean().await;
}
