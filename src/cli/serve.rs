//! `flux serve`.

mod http;
mod porch;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::net::{TcpListener, TcpSocket};

use self::porch::Porch;
use super::args::ServeArgs;
use super::assemble::control::{self, Ground};
use super::assemble::{self, Machinery, Record, worker};
use super::{Exit, Failed, Outcome};
use crate::config::{ControlPlan, Listener, Overrides, Plan, Waker, WorkerPlan};
use crate::control::Control;
use crate::domain::SystemIds;
use crate::lifecycle::{Lifecycle, ShutdownReason, TaskKind};
use crate::telemetry::{self, Metrics};
use crate::worker::Worker;

/// Connections the kernel holds while all of ours are busy (STACK §5).
const BACKLOG: u32 = 4096;

/// How long released runs may take to give their tasks back: killing processes and one row each.
const RELEASE_TIME: Duration = Duration::from_secs(5);

/// How often a worker that drains is asked whether it is done.
const LOOK: Duration = Duration::from_millis(20);

pub(super) async fn run(args: ServeArgs) -> Outcome {
    let overrides = Overrides {
        file: args.file.config.clone(),
        data_dir: args.file.data_dir.clone(),
        listen: args.listen.clone(),
        grpc_listen: args.grpc_listen.clone(),
        log_level: None,
    };
    let config = assemble::load(&overrides)?;
    telemetry::init_logs(&config.log).map_err(anyhow::Error::new)?;
    let plan = Plan::resolve(args.role.into(), &config).map_err(|e| Failed::new(Exit::Validation, e))?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    drop(config);
    let lifecycle = Lifecycle::new();
    lifecycle.obey_signals().context("cannot listen for signals")?;
    raise_descriptor_limit();
    match plan {
        Plan::All(control, worker) => Box::pin(serve_all(&control, &worker, &lifecycle)).await?,
        Plan::Control(control) => Box::pin(serve_control(&control, &lifecycle)).await?,
        Plan::Worker(worker, listener) => Box::pin(serve_worker(&worker, &listener, &lifecycle)).await?,
    }
    match lifecycle.reason() {
        Some(reason) if reason.code() != 0 => Err(Failed::msg(Exit::Failed, reason)),
        _ => Ok(Exit::Ok),
    }
}

async fn serve_all(
    plan: &ControlPlan,
    worker_plan: &WorkerPlan,
    lifecycle: &Lifecycle,
) -> Result<(), Failed> {
    let metrics = Metrics::install().map_err(anyhow::Error::new)?;
    let mut porch = Porch::new(plan, lifecycle);
    let record = Record::Durable(&mut || porch.open());
    let Machinery { control, worker, ground } =
        assemble::start((plan, worker_plan), record, lifecycle).await?;
    if worker_plan.worker.idle_timeout.is_some() && !matches!(plan.workers.waking.waker, Waker::Process(_)) {
        tracing::warn!("worker.idle_timeout is for --role worker: this process stays");
    }
    http::listen("all", plan, (&control, &ground, Some(worker.prober())), metrics, porch, lifecycle)?;
    lifecycle.stopping().await;
    drain(&worker, plan.common.drain_timeout, lifecycle).await;
    drop(worker);
    close(control, ground, lifecycle).await;
    Ok(())
}

async fn serve_control(plan: &ControlPlan, lifecycle: &Lifecycle) -> Result<(), Failed> {
    let metrics = Metrics::install().map_err(anyhow::Error::new)?;
    let mut porch = Porch::new(plan, lifecycle);
    let ground = control::open(plan, Record::Durable(&mut || porch.open()), lifecycle).await?;
    let control = control::start(plan, &ground, Vec::new(), lifecycle).await?;
    http::listen("control", plan, (&control, &ground, None), metrics, porch, lifecycle)?;
    lifecycle.stopping().await;
    close(control, ground, lifecycle).await;
    Ok(())
}

async fn serve_worker(plan: &WorkerPlan, listener: &Listener, lifecycle: &Lifecycle) -> Result<(), Failed> {
    let data_dir = &plan.common.data_dir;
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("cannot make the data folder {}", data_dir.display()))?;
    let (socket, address) = bind(listener.network.listen, "--grpc-listen")?;
    let storage = assemble::open_storage(&plan.common)?;
    let ids: std::sync::Arc<dyn crate::domain::IdSource> = std::sync::Arc::new(SystemIds);
    let worker = worker::start(plan, &storage, &ids, lifecycle).await?;
    let stop = lifecycle.hard().child_token();
    worker::expose(&worker, listener, (socket, address), &stop, lifecycle)?;
    if let Some(timeout) = plan.worker.idle_timeout {
        lifecycle.spawn(
            TaskKind::Background,
            "idle exit",
            leave_when_idle(worker.clone(), timeout, lifecycle.clone()),
        );
    }
    tracing::info!(
        role = "worker",
        grpc_listen = %address,
        worker = %plan.worker.id,
        slots = plan.worker.slots,
        data_dir = %data_dir.display(),
        version = env!("CARGO_PKG_VERSION"),
        "ready: grpc on {address}"
    );
    lifecycle.stopping().await;
    drain(&worker, plan.common.drain_timeout, lifecycle).await;
    stop.cancel();
    lifecycle.drain(RELEASE_TIME).await;
    Ok(())
}

/// The worker decides under its own lock; nothing can be lost between that and the end of the process.
async fn leave_when_idle(worker: Worker, timeout: Duration, lifecycle: Lifecycle) {
    let stopping = lifecycle.soft().clone();
    if stopping.run_until_cancelled(worker.idle_out(timeout)).await.is_some() {
        lifecycle.shut_down(ShutdownReason::Idle);
    }
}

/// Runs may finish until the drain timeout (or a second signal), then they are given back, uncharged.
async fn drain(worker: &Worker, timeout: Duration, lifecycle: &Lifecycle) {
    worker.drain();
    let idle = async || {
        while !worker.idle() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = idle() => {}
        () = tokio::time::sleep(timeout) => {}
        () = lifecycle.hard().cancelled() => {}
    }
    worker.release_all();
    tokio::select! {
        () = idle() => {}
        () = lifecycle.hard().cancelled() => {}
        () = tokio::time::sleep(RELEASE_TIME) => {
            tracing::warn!("no control took note of some runs that were given back; it will miss them");
        }
    }
}

/// Runs on other machines go on without this control; the next one takes them up.
async fn close(control: Control, ground: Ground, lifecycle: &Lifecycle) {
    control.leave().await;
    lifecycle.drain(RELEASE_TIME).await;
    // The data folder's lock goes with the store: the next server may start when this one has ended.
    let Ground { closed, store, outbox, .. } = ground;
    drop((control, store, outbox));
    if tokio::time::timeout(RELEASE_TIME, closed).await.is_err() {
        tracing::warn!("the record was still in use at the end");
    }
}

fn bind(address: SocketAddr, flag: &str) -> Result<(TcpListener, SocketAddr), Failed> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    open().map_err(|error: std::io::Error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("; another program listens there, choose another with {flag}")
            }
            _ => String::new(),
        };
        Failed::new(
            Exit::Unavailable,
            anyhow::Error::new(error).context(format!("cannot listen on {address}{hint}")),
        )
    })
}

/// A thousand readers need more descriptors than the usual soft limit of 1,024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}
