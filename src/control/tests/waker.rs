//! How many workers are woken, and when, on paused time, with a waker that does as a test says.

use std::num::NonZeroU32;
use std::sync::Mutex;

use tokio::sync::Notify;

use super::worker::{At, Deed};
use super::*;
use crate::control::shared::Shared;
use crate::control::waker::{Alone, Crew, How, Loop, Need, Right, Trouble, Waker, Waking, Woken};

/// Workers of `slots` come up after `delay`, until the script says otherwise.
struct Fake {
    slots: u32,
    told: Option<u32>,
    delay: Duration,
    destination: Arc<Destination>,
    script: Mutex<Vec<Woken>>,
    log: Mutex<Vec<(Duration, Need)>>,
    begun: Instant,
    workers: Mutex<Vec<Arc<FakeWorker>>>,
    /// Every run of the workers waits for it.
    hold: Option<Arc<Notify>>,
}

struct Shell(Arc<Fake>);

#[async_trait]
impl Waker for Shell {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn slots(&self) -> Option<u32> {
        self.0.told
    }

    fn crew(&self) -> Option<Crew> {
        None
    }

    async fn wake(&self, shared: &Arc<Shared>, need: Need) -> Woken {
        let fake = &self.0;
        fake.log.lock().unwrap().push((fake.begun.elapsed(), need));
        if let Some(scripted) = fake.script.lock().unwrap().pop() {
            return scripted;
        }
        for _ in 0..need.workers {
            let mut workers = fake.workers.lock().unwrap();
            let n = workers.len();
            let seed = 900 + u64::try_from(n).unwrap();
            let worker = FakeWorker::new(&format!("woken{n}"), fake.slots, seed, &fake.destination);
            for _ in 0..100 {
                let deeds = fake.hold.iter().map(|go| (At::Encoding, Deed::Wait(Arc::clone(go))));
                worker.plan(deeds.collect());
            }
            workers.push(Arc::clone(&worker));
            let (shared, delay) = (Arc::clone(shared), fake.delay);
            shared.clone().spawn("rise", async move {
                tokio::time::sleep(delay).await;
                shared.join(WorkerHandle { found: Found::Registered, ..in_process(&worker) });
            });
        }
        Woken { begun: need.workers, trouble: None }
    }
}

struct Nobody;

#[async_trait]
impl Right for Nobody {
    async fn may_wake(&self) -> bool {
        false
    }
}

fn waking(most: u32) -> Waking {
    let most = NonZeroU32::new(most).unwrap();
    Waking { how: How::Nobody, startup_timeout: Duration::from_mins(1), most }
}

impl Fake {
    fn new(bench: &Bench, slots: u32, told: Option<u32>) -> Self {
        Self {
            slots,
            told,
            delay: Duration::from_secs(2),
            destination: Arc::clone(&bench.destination),
            script: Mutex::default(),
            log: Mutex::default(),
            begun: Instant::now(),
            workers: Mutex::default(),
            hold: None,
        }
    }

    fn scripted(mut self, script: Vec<Woken>) -> Self {
        *self.script.get_mut().unwrap() = script.into_iter().rev().collect();
        self
    }

    fn start(self, bench: &Bench, most: u32, right: Box<dyn Right>) -> Arc<Self> {
        let fake = Arc::new(self);
        let shared = Arc::clone(&bench.control.0);
        let waker = Loop::new(Arc::clone(&shared), waking(most), Box::new(Shell(Arc::clone(&fake))), right);
        shared.spawn("waker", waker.work());
        fake
    }

    /// Workers asked for, wake by wake.
    fn wakes(&self) -> Vec<u32> {
        self.log.lock().unwrap().iter().map(|(_, need)| need.workers).collect()
    }

    fn times(&self) -> Vec<u64> {
        self.log.lock().unwrap().iter().map(|(at, _)| at.as_secs()).collect()
    }
}

fn nothing(begun: u32, trouble: Option<Trouble>) -> Woken {
    Woken { begun, trouble }
}

#[tokio::test(start_paused = true)]
async fn as_many_workers_as_the_tasks_need_and_no_more() {
    let bench = Bench::start(&[]).await;
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(bench.submit(1).await);
    }
    let go = Arc::new(Notify::new());
    let fake = Fake { hold: Some(Arc::clone(&go)), ..Fake::new(&bench, 2, Some(2)) };
    let fake = fake.start(&bench, 16, Box::new(Alone));
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(fake.wakes(), [3], "two and two and one");
    // One slot is free still: the sixth job needs nobody, the seventh does.
    jobs.push(bench.submit(1).await);
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(fake.wakes(), [3]);
    jobs.push(bench.submit(1).await);
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(fake.wakes(), [3, 1]);
    for _ in &jobs {
        go.notify_one();
    }
    for job in jobs {
        assert_eq!(bench.ended(job).await, JobStatus::Completed);
    }
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(fake.wakes(), [3, 1], "nobody is woken for nothing");
}

#[tokio::test(start_paused = true)]
async fn the_first_worker_tells_what_the_others_are_worth() {
    let bench = Bench::start(&[]).await;
    for _ in 0..9 {
        bench.submit(1).await;
    }
    let fake = Fake { hold: Some(Arc::new(Notify::new())), ..Fake::new(&bench, 2, None) };
    let fake = fake.start(&bench, 16, Box::new(Alone));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(fake.wakes(), [1, 4]);
}

#[tokio::test(start_paused = true)]
async fn one_that_may_still_come_is_not_woken_again() {
    let bench = Bench::start(&[]).await;
    let job = bench.submit(1).await;
    let fake = Fake::new(&bench, 1, Some(1)).scripted(vec![nothing(1, None), nothing(1, None)]);
    let fake = fake.start(&bench, 16, Box::new(Alone));
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(fake.times(), [0]);
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    let times = fake.times();
    assert_eq!(times.len(), 3, "{times:?}");
    assert!((60..=63).contains(&times[1]) && (120..=126).contains(&times[2]), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn no_more_are_up_than_may_be() {
    let bench = Bench::start(&[]).await;
    let mut jobs = Vec::new();
    for _ in 0..9 {
        jobs.push(bench.submit(1).await);
    }
    let fake = Fake::new(&bench, 1, Some(1)).start(&bench, 3, Box::new(Alone));
    for job in jobs {
        assert_eq!(bench.ended(job).await, JobStatus::Completed);
    }
    assert_eq!(fake.wakes(), [3]);
}

#[tokio::test(start_paused = true)]
async fn trouble_is_waited_out() {
    let bench = Bench::start(&[]).await;
    let job = bench.submit(1).await;
    let busy = |told| nothing(0, Some(Trouble::Busy(told)));
    let script =
        vec![busy(None), busy(None), busy(Some(Duration::from_secs(30))), nothing(0, Some(Trouble::Denied))];
    let fake = Fake::new(&bench, 1, Some(1)).scripted(script).start(&bench, 16, Box::new(Alone));
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    let times = fake.times();
    assert_eq!((times.len(), times[0]), (5, 0), "{times:?}");
    assert!(times[2] <= 3, "the first waits are short: {times:?}");
    assert!((30..=32).contains(&(times[3] - times[2])), "as long as it was told: {times:?}");
    assert!((300..=302).contains(&(times[4] - times[3])), "whoever says no is left alone: {times:?}");
}

#[tokio::test(start_paused = true)]
async fn only_who_may_wakes() {
    let bench = Bench::start(&[]).await;
    bench.submit(1).await;
    let fake = Fake::new(&bench, 1, Some(1)).start(&bench, 16, Box::new(Nobody));
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert!(fake.wakes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_leaves_with_a_task_waiting_is_replaced_at_once() {
    let bench = Bench::start(&[]).await;
    let first = bench.submit(1).await;
    let fake = Fake::new(&bench, 1, Some(1)).start(&bench, 16, Box::new(Alone));
    assert_eq!(bench.ended(first).await, JobStatus::Completed);
    fake.workers.lock().unwrap()[0].drain();
    let before = Instant::now();
    let second = bench.submit(1).await;
    assert_eq!(bench.ended(second).await, JobStatus::Completed);
    assert!(before.elapsed() < Duration::from_secs(4), "{:?} for a start of 2 s", before.elapsed());
    assert_eq!(fake.wakes(), [1, 1]);
    let charged = bench.store.job(second).attempts.len();
    assert_eq!(charged, 1, "the refusal cost nothing");
}

#[tokio::test(start_paused = true)]
async fn a_worker_with_room_is_not_helped() {
    let bench = Bench::start(&[2]).await;
    let fake = Fake::new(&bench, 1, Some(1)).start(&bench, 16, Box::new(Alone));
    for _ in 0..10 {
        let job = bench.submit(1).await;
        assert_eq!(bench.ended(job).await, JobStatus::Completed);
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(fake.wakes().is_empty(), "{:?}", fake.wakes());
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_is_asked_for_nothing() {
    let bench = Bench::start(&[2]).await;
    let job = bench.submit(1).await;
    assert_eq!(bench.ended(job).await, JobStatus::Completed);
    let asked = bench.workers[0].reserved();
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(bench.workers[0].reserved(), asked, "or it would never be idle for long enough to leave");
    assert_eq!(asked, 1, "one slot for one task");
}
