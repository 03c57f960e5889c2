//! Machines on Fly, against a stub of its API that keeps their states as the real one does.

use std::collections::VecDeque;
use std::sync::Mutex;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::control::Fly;
use crate::control::waker::fly::Machines;
use crate::control::waker::{Need, Trouble, Waker, Woken};

const TOKEN: &str = "FlyV1 fm2_s3cr3t";

#[derive(Debug, Clone)]
struct Machine {
    id: &'static str,
    state: &'static str,
    group: &'static str,
    /// Lists that still show it as starting.
    slow: u32,
}

fn machine(id: &'static str, state: &'static str) -> Machine {
    Machine { id, state, group: "worker", slow: 2 }
}

/// What the API answers instead, once.
#[derive(Debug, Clone)]
struct Fault {
    /// Of a list, or of a start.
    of: &'static str,
    status: u16,
    retry_after: Option<&'static str>,
}

fn fault(of: &'static str, status: u16) -> Fault {
    Fault { of, status, retry_after: None }
}

#[derive(Default)]
struct Api {
    machines: Vec<Machine>,
    faults: VecDeque<Fault>,
    /// `list`, `start ID`, in order.
    log: Vec<String>,
    /// Somebody else starts this one when we try to.
    rival: Option<&'static str>,
}

type Shelf = Arc<Mutex<Api>>;

impl Api {
    fn fault(&mut self, of: &str) -> Option<Response> {
        let fault = self.faults.front().filter(|fault| fault.of == of)?.clone();
        self.faults.pop_front();
        let mut response = StatusCode::from_u16(fault.status).unwrap().into_response();
        if let Some(wait) = fault.retry_after {
            response.headers_mut().insert("retry-after", wait.parse().unwrap());
        }
        Some(response)
    }
}

fn allowed(headers: &HeaderMap) -> bool {
    headers.get("authorization").is_some_and(|value| value == TOKEN)
}

async fn list(State(api): State<Shelf>, Path(app): Path<String>, headers: HeaderMap) -> Response {
    let mut api = api.lock().unwrap();
    api.log.push("list".to_owned());
    if !allowed(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if let Some(fault) = api.fault("list") {
        return fault;
    }
    if app != "my-workers" {
        return StatusCode::NOT_FOUND.into_response();
    }
    for machine in api.machines.iter_mut().filter(|machine| machine.state == "starting") {
        match machine.slow.checked_sub(1) {
            Some(left) => machine.slow = left,
            None => machine.state = "started",
        }
    }
    let shown = |machine: &Machine| {
        json!({"id": machine.id, "name": "nice-name", "state": machine.state, "region": "fra", "instance_id": "01H",
               "config": {"image": "flux", "metadata": {"fly_process_group": machine.group}}, "events": []})
    };
    axum::Json(Value::from(api.machines.iter().map(shown).collect::<Vec<_>>())).into_response()
}

async fn start(
    State(api): State<Shelf>,
    Path((_, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let mut api = api.lock().unwrap();
    api.log.push(format!("start {id}"));
    if !allowed(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if let Some(fault) = api.fault("start") {
        return fault;
    }
    let rival = api.rival.take_if(|rival| *rival == id).is_some();
    let Some(machine) = api.machines.iter_mut().find(|machine| machine.id == id) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let before = machine.state;
    if rival {
        machine.state = "starting";
        return StatusCode::CONFLICT.into_response();
    }
    if !matches!(before, "stopped" | "suspended") {
        return StatusCode::PRECONDITION_FAILED.into_response();
    }
    machine.state = "starting";
    axum::Json(json!({"previous_state": before})).into_response()
}

struct Stage {
    api: Shelf,
    bench: Bench,
    url: url::Url,
}

impl Stage {
    async fn new(machines: Vec<Machine>, faults: Vec<Fault>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let api: Shelf = Arc::new(Mutex::new(Api { machines, faults: faults.into(), ..Api::default() }));
        let router = Router::new()
            .route("/v1/apps/{app}/machines", get(list))
            .route("/v1/apps/{app}/machines/{id}/start", post(start))
            .with_state(Arc::clone(&api));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let bench = Bench::start(&[]).await;
        bench.control.0.spawn("stub", async move { axum::serve(listener, router).await.unwrap() });
        Self { api, bench, url }
    }

    fn fly(&self) -> Fly {
        let (app, group) = ("my-workers".to_owned(), Some("worker".to_owned()));
        Fly { app, group, token: TOKEN.into(), api_url: self.url.clone() }
    }

    fn waker(&self) -> Machines {
        Machines::new(self.fly(), Duration::from_mins(1))
    }

    async fn wake(&self, waker: &Machines, workers: u32, coming: u32) -> Woken {
        waker.wake(&self.bench.control.0, Need { workers, coming, up: 0 }).await
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.api.lock().unwrap().log)
    }

    fn state(&self, id: &str) -> &'static str {
        self.api.lock().unwrap().machines.iter().find(|machine| machine.id == id).unwrap().state
    }
}

fn woken(begun: u32) -> Woken {
    Woken { begun, trouble: None }
}

fn troubled(begun: u32, trouble: Trouble) -> Woken {
    Woken { begun, trouble: Some(trouble) }
}

#[tokio::test]
async fn stopped_and_suspended_machines_of_the_group_are_started_and_no_others() {
    let states =
        ["created", "started", "stopping", "suspending", "replacing", "destroying", "destroyed", "new"];
    let mut machines: Vec<_> = states.map(|state| machine(state, state)).to_vec();
    machines.push(Machine { group: "web", ..machine("web", "stopped") });
    machines.extend([machine("a", "stopped"), machine("b", "suspended"), machine("c", "stopped")]);
    let stage = Stage::new(machines, Vec::new()).await;
    let waker = stage.waker();
    assert_eq!(stage.wake(&waker, 2, 0).await, woken(2));
    assert_eq!(stage.log(), ["list", "start a", "start b"]);
    // They take their time, and are neither started again nor counted twice.
    assert_eq!(stage.wake(&waker, 1, 2).await, woken(1));
    assert_eq!(stage.log(), ["list", "start c"]);
    assert_eq!(stage.wake(&waker, 5, 3).await, woken(0));
    assert_eq!(stage.log(), ["list"]);
    stage.wake(&waker, 1, 3).await;
    assert_eq!(stage.state("a"), "started");
}

#[tokio::test]
async fn one_that_somebody_else_starts_counts_as_started() {
    let stage = Stage::new(vec![machine("a", "stopped"), machine("b", "stopped")], Vec::new()).await;
    stage.api.lock().unwrap().rival = Some("a");
    assert_eq!(stage.wake(&stage.waker(), 1, 0).await, woken(1));
    assert_eq!(stage.log(), ["list", "start a", "start b"], "asked for one, one is ours");
    let stage = Stage::new(vec![machine("a", "starting"), machine("b", "stopped")], Vec::new()).await;
    assert_eq!(stage.wake(&stage.waker(), 1, 0).await, woken(0), "the other one is on its way already");
    assert_eq!(stage.log(), ["list"]);
}

#[tokio::test]
async fn a_machine_between_two_states_is_looked_at_again_and_not_for_ever() {
    let faults = vec![fault("start", 412), fault("start", 409)];
    let stage = Stage::new(vec![machine("a", "stopped")], faults).await;
    assert_eq!(stage.wake(&stage.waker(), 1, 0).await, woken(1));
    assert_eq!(stage.log(), ["list", "start a", "list", "start a", "list", "start a"]);
    let stage = Stage::new(vec![machine("a", "stopped")], vec![fault("start", 412); 9]).await;
    assert_eq!(stage.wake(&stage.waker(), 1, 0).await, woken(0));
    assert_eq!(stage.log().len(), 6);
}

#[tokio::test]
async fn whoever_is_busy_says_for_how_long() {
    let both = || vec![machine("a", "stopped"), machine("b", "stopped")];
    let slow_down = Fault { retry_after: Some("7"), ..fault("start", 429) };
    let stage = Stage::new(both(), vec![slow_down]).await;
    let waker = stage.waker();
    let busy = Trouble::Busy(Some(Duration::from_secs(7)));
    assert_eq!(stage.wake(&waker, 2, 0).await, troubled(0, busy));
    assert_eq!(stage.log(), ["list", "start a"], "nothing more is asked");
    for (of, status) in [("list", 500), ("list", 503), ("start", 502), ("start", 504), ("list", 429)] {
        stage.api.lock().unwrap().faults = vec![fault(of, status)].into();
        assert_eq!(stage.wake(&waker, 2, 0).await, troubled(0, Trouble::Busy(None)), "{of} {status}");
    }
    // What was started before the trouble counts.
    stage.log();
    stage.api.lock().unwrap().faults.clear();
    assert_eq!(stage.wake(&waker, 1, 0).await, woken(1));
    stage.api.lock().unwrap().faults = vec![fault("start", 503)].into();
    assert_eq!(stage.wake(&waker, 1, 1).await, troubled(0, Trouble::Busy(None)));
    assert_eq!(stage.log(), ["list", "start a", "list", "start b"]);
}

#[tokio::test]
async fn an_api_that_is_not_there_or_not_one_is_trouble_that_may_pass() {
    let stage = Stage::new(Vec::new(), Vec::new()).await;
    let nowhere = Fly { api_url: "http://127.0.0.1:1".parse().unwrap(), ..stage.fly() };
    let nowhere = Machines::new(nowhere, Duration::from_mins(1));
    assert_eq!(stage.wake(&nowhere, 1, 0).await, troubled(0, Trouble::Busy(None)));
    stage.api.lock().unwrap().faults = vec![fault("list", 200)].into();
    assert_eq!(stage.wake(&stage.waker(), 1, 0).await, troubled(0, Trouble::Busy(None)), "an empty body");
    assert_eq!(stage.wake(&stage.waker(), 1, 0).await, woken(0), "no machines at all");
}

#[tokio::test]
async fn a_wrong_token_or_app_is_asked_once_and_shown_nowhere() {
    let stage = Stage::new(vec![machine("a", "stopped")], Vec::new()).await;
    for fly in [
        Fly { token: "another-token".into(), ..stage.fly() },
        Fly { token: "\u{1}".into(), ..stage.fly() },
        Fly { app: "not-mine".into(), ..stage.fly() },
    ] {
        assert!(!format!("{fly:?}").contains("another-token"));
        let waker = Machines::new(fly, Duration::from_mins(1));
        assert_eq!(stage.wake(&waker, 1, 0).await, troubled(0, Trouble::Denied));
        assert!(stage.log().len() <= 1);
    }
    stage.api.lock().unwrap().faults = vec![fault("start", 403)].into();
    assert_eq!(stage.wake(&stage.waker(), 1, 0).await, troubled(0, Trouble::Denied));
}

#[tokio::test]
async fn one_that_falls_before_it_is_heard_of_is_left_alone() {
    let stage = Stage::new(vec![machine("a", "stopped"), machine("b", "stopped")], Vec::new()).await;
    let waker = stage.waker();
    assert_eq!(stage.wake(&waker, 1, 0).await, woken(1));
    stage.api.lock().unwrap().machines[0].state = "stopped";
    stage.log();
    assert_eq!(stage.wake(&waker, 1, 1).await, woken(1));
    assert_eq!(stage.log(), ["list", "start b"]);
    // Once it was heard of, it left by itself and may come again.
    assert_eq!(
        stage.wake(&waker, 1, 0).await,
        woken(0),
        "b is on its way, and not known to be ours any more"
    );
    stage.api.lock().unwrap().machines[1].state = "started";
    assert_eq!(stage.wake(&waker, 1, 0).await, woken(1));
    assert_eq!(stage.state("a"), "starting");
}
