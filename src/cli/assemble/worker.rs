//! The worker's part of a process: tools, slots, and the listener through which controls call it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::Failed;
use super::control::identity;
use crate::config::{self, Listener, MemoryBound, WorkerPlan};
use crate::domain::{BootId, IdSource, SandboxMode};
use crate::lifecycle::{Lifecycle, TaskKind};
use crate::media::Toolbox;
use crate::media::process::{Confined, Launcher, Sandbox, Spawner};
use crate::media::tools::{Capabilities, Tools};
use crate::rpc::{self, ClientSecurity, FleetClient, NetworkLimits, ServerSecurity, ServerTls, Token};
use crate::storage::Storage;
use crate::worker::{Advertised, Deps, Limits, Registrar, WorkRoot, Worker, WorkerSettings};

/// What a tool may have on a machine with less: the largest presets need 3 GiB.
const LEAST_MEMORY: u64 = 4 << 30;

/// ffmpeg and ffprobe where they are; a missing one fails jobs by name, not the start.
pub(in crate::cli) fn toolbox(worker: &config::Worker) -> Result<Toolbox, Failed> {
    let exe = config::program().context("cannot find this program's own file")?;
    let launcher = Launcher::ReExec { exe, sandbox: sandbox(worker) };
    let spawner = Spawner::start(launcher).context("cannot start the thread that starts programs")?;
    let (ffmpeg, ffprobe) = (&worker.ffmpeg, &worker.ffprobe);
    let tools = Tools::locate(ffmpeg, ffprobe).unwrap_or_else(|error| {
        tracing::error!(%error, "no job can be encoded before this is repaired; see `flux doctor`");
        Tools { ffmpeg: ffmpeg.clone(), ffprobe: ffprobe.clone() }
    });
    Ok(Toolbox { spawner, tools })
}

fn sandbox(worker: &config::Worker) -> Sandbox {
    let sandbox = &worker.sandbox;
    Sandbox {
        mode: sandbox.mode,
        readable: sandbox.readable.clone(),
        memory: match sandbox.memory {
            MemoryBound::Machine => Some(machine_memory().max(LEAST_MEMORY)),
            MemoryBound::Bytes(bytes) => Some(bytes),
            MemoryBound::Unbounded => None,
        },
        file_size: sandbox.file_size,
        open_files: sandbox.open_files.into(),
        nice: worker.nice,
    }
}

fn machine_memory() -> u64 {
    let info = rustix::system::sysinfo();
    u64::from(info.mem_unit).saturating_mul(info.totalram)
}

/// What holds of the sandbox, tried; an error where something that is required does not.
pub(in crate::cli) async fn confined(worker: &config::Worker, toolbox: &Toolbox) -> Result<Confined, Failed> {
    if worker.sandbox.mode == SandboxMode::Off {
        return Ok(Confined::default());
    }
    let looked = toolbox.spawner.look().await;
    if worker.sandbox.mode == SandboxMode::Auto {
        return Ok(looked.unwrap_or_else(|error| {
            tracing::error!(error = %format!("{:#}", anyhow::Error::new(error)), "the sandbox cannot be tried");
            Confined::default()
        }));
    }
    let confined = looked.context("sandbox.mode is \"required\"")?;
    match confined.missing().first() {
        None => Ok(confined),
        Some(missing) => Err(anyhow::anyhow!("sandbox.mode is \"required\", but here is {missing}").into()),
    }
}

/// Starts the worker; who calls it is another matter.
pub(in crate::cli) async fn start(
    plan: &WorkerPlan,
    storage: &Storage,
    ids: &Arc<dyn IdSource>,
    lifecycle: &Lifecycle,
) -> Result<Worker, Failed> {
    let toolbox = toolbox(&plan.worker)?;
    let confined = confined(&plan.worker, &toolbox).await?;
    match (plan.worker.sandbox.mode, confined.missing()) {
        (SandboxMode::Off, _) => tracing::warn!("ffmpeg runs without a sandbox, as sandbox.mode says"),
        (_, missing) if missing.is_empty() => {}
        (_, missing) => tracing::warn!(?missing, "ffmpeg runs with a part of the sandbox"),
    }
    let (known, capabilities) = watch::channel(None);
    lifecycle.spawn(TaskKind::Background, "prove encoders", prove(toolbox.clone(), known));
    let boot = BootId::from_uuid(ids.random());
    let settings = WorkerSettings {
        id: plan.worker.id.clone(),
        boot,
        slots: plan.worker.slots.get(),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        orphan_grace: plan.worker.orphan_grace,
        disk_floor: plan.worker.disk_floor,
        protections: confined.active(),
        limits: Limits {
            source: plan.common.sources.limits,
            verify: plan.verify,
            stall: plan.worker.stall_timeout,
            timeout: plan.worker.task_timeout,
        },
    };
    let root = WorkRoot::open(&plan.worker.work_dir, boot).context("cannot use worker.work_dir")?;
    let deps = Deps {
        sources: storage.sources().clone(),
        destinations: storage.destinations().clone(),
        toolbox,
        capabilities,
        ids: Arc::clone(ids),
        lifecycle: lifecycle.clone(),
        root,
    };
    Ok(Worker::start(settings, deps))
}

async fn prove(toolbox: Toolbox, known: watch::Sender<Option<Capabilities>>) {
    match toolbox.tools.prove(&toolbox.spawner).await {
        Ok(capabilities) => {
            tracing::info!(version = capabilities.version, encoders = ?capabilities.encoders, "ffmpeg is ready");
            known.send_replace(Some(capabilities));
        }
        Err(error) => tracing::error!(%error, "ffmpeg cannot be used"),
    }
}

/// Serves a worker's calls until `stop`, and tells its controls where. Not bound to the soft stage: what runs is
/// followed to its end through it.
pub(in crate::cli) fn expose(
    worker: &Worker,
    listener: &Listener,
    (socket, address): (tokio::net::TcpListener, SocketAddr),
    stop: &CancellationToken,
    lifecycle: &Lifecycle,
) -> Result<(), Failed> {
    let token = listener.network.token.clone().map(Token::new);
    let tls = listener
        .tls
        .clone()
        .map(|tls| ServerTls { identity: identity(tls.identity), client_ca: tls.client_ca });
    let security = ServerSecurity { token: token.clone(), tls };
    let tokens = (lifecycle.soft().clone(), stop.clone());
    let limits = NetworkLimits::for_slots(worker.slots());
    let served = rpc::serve(socket, Arc::new(worker.clone()), security, limits, tokens);
    let served = served.context("cannot serve workers' calls")?;
    // Its end at the stop is wanted; an earlier one is told by its error.
    lifecycle.spawn(TaskKind::Essential, "grpc", served);
    let security = ClientSecurity { token, tls: None };
    for url in &listener.network.control {
        let client =
            FleetClient::connect(url.as_str(), &security).context("cannot register with worker.control")?;
        let advertised = match &listener.network.advertise {
            Some(address) => Advertised::Fixed(address.clone()),
            None => Advertised::Listening(address),
        };
        let registrar = Registrar { client, control: url.clone(), advertised };
        let (worker, stop) = (worker.clone(), stop.clone());
        lifecycle.spawn(TaskKind::Background, "registration", async move {
            stop.run_until_cancelled_owned(registrar.run(worker)).await;
        });
    }
    Ok(())
}
