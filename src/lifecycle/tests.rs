use std::future::pending;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_tasks_and_ends_clean() {
    let lifecycle = Lifecycle::new();
    let soft = lifecycle.soft().clone();
    lifecycle.spawn(TaskKind::Background, "worker", async move {
        soft.cancelled().await;
        tokio::time::sleep(MINUTE / 2).await;
    });
    let begun = tokio::time::Instant::now();
    assert_eq!(lifecycle.drain(MINUTE).await, Drained::Clean);
    assert_eq!(begun.elapsed(), MINUTE / 2);
    assert_eq!(lifecycle.reason(), Some(ShutdownReason::Requested));
    assert!(!lifecycle.hard().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn after_the_timeout_tasks_are_told_to_stop_hard() {
    let lifecycle = Lifecycle::new();
    let hard = lifecycle.hard().clone();
    lifecycle.spawn(TaskKind::Background, "encode", async move { hard.cancelled().await });
    let begun = tokio::time::Instant::now();
    assert_eq!(lifecycle.drain(MINUTE).await, Drained::Forced);
    assert_eq!(begun.elapsed(), MINUTE);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_never_leaves_is_abandoned_and_counted() {
    let lifecycle = Lifecycle::new();
    lifecycle.spawn(TaskKind::Background, "stuck", pending::<()>());
    let begun = tokio::time::Instant::now();
    assert_eq!(lifecycle.drain(MINUTE).await, Drained::Abandoned { tasks: 1 });
    assert_eq!(begun.elapsed(), MINUTE + HARD_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_task_spawned_while_draining_is_waited_for() {
    let lifecycle = Lifecycle::new();
    let inner = lifecycle.clone();
    lifecycle.spawn(TaskKind::Background, "outer", async move {
        inner.stopping().await;
        inner.spawn(TaskKind::Background, "late", tokio::time::sleep(MINUTE / 4));
    });
    let begun = tokio::time::Instant::now();
    assert_eq!(lifecycle.drain(MINUTE).await, Drained::Clean);
    assert_eq!(begun.elapsed(), MINUTE / 4);
}

#[tokio::test(start_paused = true)]
async fn the_first_signal_drains_and_the_second_stops_now() {
    let lifecycle = Lifecycle::new();
    let (press, signals) = mpsc::channel(1);
    let mut listeners = tokio::task::JoinSet::new();
    listeners.spawn(lifecycle.clone().obey(ReceiverStream::new(signals)));
    let hard = lifecycle.hard().clone();
    lifecycle.spawn(TaskKind::Background, "encode", async move { hard.cancelled().await });

    press.send(Signal::Terminate).await.unwrap();
    lifecycle.stopping().await;
    assert!(!lifecycle.hard().is_cancelled());
    assert_eq!(lifecycle.reason(), Some(ShutdownReason::Signal(Signal::Terminate)));

    let begun = tokio::time::Instant::now();
    press.send(Signal::Interrupt).await.unwrap();
    assert_eq!(lifecycle.drain(MINUTE).await, Drained::Forced);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(lifecycle.reason(), Some(ShutdownReason::Signal(Signal::Terminate)), "the first reason stays");
}

async fn panicking(why: &str) {
    tokio::task::yield_now().await;
    panic!("{why}");
}

#[derive(Debug, thiserror::Error)]
#[error("cannot bind")]
struct CannotBind(#[source] io::Error);

#[tokio::test(start_paused = true)]
async fn an_essential_task_that_fails_takes_the_process_down() {
    let lifecycle = Lifecycle::new();
    lifecycle.spawn(TaskKind::Essential, "api", async { Err(CannotBind(io::Error::other("port taken"))) });
    lifecycle.stopping().await;
    let reason = lifecycle.reason().unwrap();
    assert_eq!(reason, ShutdownReason::Fatal("api: cannot bind: port taken".to_owned()));
    assert_eq!(reason.code(), 1);
    assert_eq!(lifecycle.drain(MINUTE).await, Drained::Clean);
}

#[tokio::test(start_paused = true)]
async fn an_essential_task_that_panics_or_just_ends_does_so_too() {
    let lifecycle = Lifecycle::new();
    lifecycle.spawn(TaskKind::Essential, "dispatch", panicking("row 7")).await.unwrap();
    assert_eq!(lifecycle.reason(), Some(ShutdownReason::Fatal("dispatch: panicked: row 7".to_owned())));

    let lifecycle = Lifecycle::new();
    lifecycle.spawn(TaskKind::Essential, "dispatch", async {}).await.unwrap();
    assert_eq!(lifecycle.reason(), Some(ShutdownReason::Fatal("dispatch ended unexpectedly".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn an_essential_task_may_end_once_it_is_told_to() {
    let lifecycle = Lifecycle::new();
    let soft = lifecycle.soft().clone();
    lifecycle.spawn(TaskKind::Essential, "api", async move { soft.cancelled().await });
    lifecycle.shut_down(ShutdownReason::Idle);
    assert_eq!(lifecycle.drain(MINUTE).await, Drained::Clean);
    assert_eq!(lifecycle.reason().unwrap().code(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_background_task_fails_alone() {
    let lifecycle = Lifecycle::new();
    lifecycle.spawn(TaskKind::Background, "sweep", panicking("oops")).await.unwrap();
    lifecycle
        .spawn(TaskKind::Background, "sweep", async { Err(CannotBind(io::Error::other("x"))) })
        .await
        .unwrap();
    assert!(!lifecycle.is_stopping());
    assert_eq!(lifecycle.reason(), None);
}

#[tokio::test(start_paused = true)]
async fn hard_implies_soft() {
    let lifecycle = Lifecycle::new();
    lifecycle.hard().cancel();
    assert!(lifecycle.is_stopping());
    assert_eq!(lifecycle.reason(), Some(ShutdownReason::Requested));
}

#[tokio::test]
async fn real_signals_are_heard() {
    use rustix::process::{Signal as Unix, getpid, kill_process};
    let lifecycle = Lifecycle::new();
    lifecycle.obey_signals().unwrap();
    kill_process(getpid(), Unix::TERM).unwrap();
    lifecycle.stopping().await;
    kill_process(getpid(), Unix::INT).unwrap();
    lifecycle.hard().cancelled().await;
    assert_eq!(lifecycle.reason(), Some(ShutdownReason::Signal(Signal::Terminate)));
}
