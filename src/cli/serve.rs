//! `flux serve`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpSocket;

use super::args::{Role, ServeArgs};
use super::assemble::{self, Machinery, Record};
use super::files::StorageFiles;
use super::{Exit, Failed, Outcome};
use crate::api::{self, ServerLimits, Services};
use crate::config::{self, Config, Overrides, Plan};
use crate::lifecycle::{Lifecycle, TaskKind};
use crate::telemetry::{self, Metrics};

/// Connections the kernel holds while all of ours are busy (STACK §5).
const BACKLOG: u32 = 4096;

/// How long released runs may take to give their tasks back: killing processes and one row each.
const RELEASE_TIME: Duration = Duration::from_secs(5);

/// How often finished histogram samples are folded away.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

pub(super) async fn run(args: ServeArgs) -> Outcome {
    let overrides = Overrides {
        file: args.file.config.clone(),
        data_dir: args.file.data_dir.clone(),
        listen: args.listen.clone(),
        log_level: None,
    };
    let config = assemble::load(&overrides)?;
    telemetry::init_logs(&config.log).map_err(anyhow::Error::new)?;
    let Role::All = args.role;
    let Plan::All(config) =
        Plan::resolve(config::Role::All, config).map_err(|e| Failed::new(Exit::Validation, e))?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let metrics = Metrics::install().map_err(anyhow::Error::new)?;
    let lifecycle = Lifecycle::new();
    lifecycle.obey_signals().context("cannot listen for signals")?;
    raise_descriptor_limit();
    let machinery = assemble::start(&config, Record::Durable, &lifecycle).await?;
    listen(&config, &machinery, metrics, &lifecycle)?;
    lifecycle.stopping().await;
    stop(&config, machinery, &lifecycle).await;
    match lifecycle.reason() {
        Some(reason) if reason.code() != 0 => Err(Failed::msg(Exit::Failed, reason)),
        _ => Ok(Exit::Ok),
    }
}

fn listen(
    config: &Config,
    machinery: &Machinery,
    metrics: Metrics,
    lifecycle: &Lifecycle,
) -> Result<(), Failed> {
    let listener = bind(config)?;
    let address = listener.local_addr().context("cannot read the listening address")?;
    let upkeep = metrics.clone();
    let app = api::router(Services {
        control: machinery.control.clone(),
        presets: Arc::clone(&machinery.presets),
        files: Arc::new(StorageFiles::new(machinery.storage.clone())),
        clock: Arc::clone(&machinery.clock),
        ids: Arc::clone(&machinery.ids),
        auth: auth(config),
        limits: api::Limits {
            max_upload_bytes: config.sources.limits.max_bytes,
            streams: config.server.max_streams,
            ..api::Limits::default()
        },
        metrics: Arc::new(move || metrics.render()),
        closing: lifecycle.soft().clone(),
    });
    let limits = ServerLimits { header_timeout: config.server.header_timeout, ..ServerLimits::default() };
    lifecycle.spawn(TaskKind::Essential, "http", api::serve(listener, app, lifecycle.soft().clone(), limits));
    let closing = lifecycle.soft().clone();
    lifecycle.spawn(TaskKind::Background, "metrics upkeep", async move {
        let mut tick = tokio::time::interval(METRICS_UPKEEP);
        while closing.run_until_cancelled(tick.tick()).await.is_some() {
            upkeep.upkeep();
        }
    });
    tracing::info!(
        role = "all",
        listen = %address,
        data_dir = %config.server.data_dir.display(),
        version = env!("CARGO_PKG_VERSION"),
        "ready: http://{address}"
    );
    Ok(())
}

fn bind(config: &Config) -> Result<tokio::net::TcpListener, Failed> {
    let address = config.server.listen;
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => "; another program listens there, choose another with --listen",
            _ => "",
        };
        Failed::new(
            Exit::Unavailable,
            anyhow::Error::new(error).context(format!("cannot listen on {address}{hint}")),
        )
    })
}

/// Runs may finish until the drain timeout (or a second signal), then they are given back, uncharged.
async fn stop(config: &Config, machinery: Machinery, lifecycle: &Lifecycle) {
    machinery.worker.drain();
    let hard = lifecycle.hard();
    tokio::select! {
        () = machinery.control.drained() => {}
        () = tokio::time::sleep(config.server.drain_timeout) => {}
        () = hard.cancelled() => {}
    }
    machinery.worker.release_all();
    if tokio::time::timeout(RELEASE_TIME, machinery.control.drained()).await.is_err() {
        tracing::warn!("some runs were not given back in time; they are taken up at the next start");
    }
    lifecycle.drain(RELEASE_TIME).await;
    // The data folder's lock goes with the store: the next server may start when this one has ended.
    let closed = machinery.store.closed();
    drop(machinery);
    if tokio::time::timeout(RELEASE_TIME, closed).await.is_err() {
        tracing::warn!("the record was still in use at the end");
    }
}

fn auth(config: &Config) -> api::Auth {
    if config.keys.is_empty() {
        return api::Auth::Loopback { hosts: Vec::new() };
    }
    let scope = |scope: &config::Scope| match scope {
        config::Scope::JobsRead => api::Scope::JobsRead,
        config::Scope::JobsWrite => api::Scope::JobsWrite,
        config::Scope::Admin => api::Scope::Admin,
    };
    let key = |key: &config::ApiKey| api::ApiKey {
        name: key.name.clone(),
        tenant: key.tenant.clone(),
        sha256: key.hash.0,
        scopes: key.scopes.iter().map(scope).collect(),
    };
    api::Auth::Keys(config.keys.iter().map(key).collect())
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
