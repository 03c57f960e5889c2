//! The control's HTTP port: the API, and where workers register.

use std::sync::Arc;
use std::time::Duration;

use super::super::Failed;
use super::super::assemble::control::Ground;
use super::super::files::StorageFiles;
use super::porch::Porch;
use crate::api::{self, Mount, Services};
use crate::config::{self, ControlPlan};
use crate::control::Control;
use crate::lifecycle::{Lifecycle, TaskKind};
use crate::rpc::{self, Token};
use crate::telemetry::Metrics;
use crate::worker::Prober;

/// How often finished histogram samples are folded away.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

pub(super) fn listen(
    role: &'static str,
    plan: &ControlPlan,
    (control, ground, prober): (&Control, &Ground, Option<Prober>),
    metrics: Metrics,
    porch: Porch,
    lifecycle: &Lifecycle,
) -> Result<(), Failed> {
    let upkeep = metrics.clone();
    let app = api::router(Services {
        control: control.clone(),
        presets: Arc::clone(&ground.presets),
        files: Arc::new(StorageFiles::new(ground.storage.clone())),
        prober,
        clock: Arc::clone(&ground.clock),
        ids: Arc::clone(&ground.ids),
        auth: auth(plan),
        limits: api::Limits {
            max_upload_bytes: plan.common.sources.limits.max_bytes,
            streams: plan.server.max_streams,
            submissions_per_minute: plan.rate_per_minute,
            pending_per_tenant: plan.queue.max_pending_per_tenant,
            ..api::Limits::default()
        },
        results: plan.retention.results,
        metrics: Arc::new(move || metrics.render()),
        mounts: registry(plan, control).into_iter().collect(),
        closing: lifecycle.soft().clone(),
    });
    let address = porch.welcome(app)?;
    let closing = lifecycle.soft().clone();
    lifecycle.spawn(TaskKind::Background, "metrics upkeep", async move {
        let mut tick = tokio::time::interval(METRICS_UPKEEP);
        while closing.run_until_cancelled(tick.tick()).await.is_some() {
            upkeep.upkeep();
        }
    });
    tracing::info!(
        role,
        listen = %address,
        data_dir = %plan.common.data_dir.display(),
        version = env!("CARGO_PKG_VERSION"),
        "ready: http://{address}"
    );
    Ok(())
}

/// Where workers register. Without a token everybody could, and would be sent jobs: so only where everybody who can
/// connect may do everything anyhow.
fn registry(plan: &ControlPlan, control: &Control) -> Option<Mount> {
    let token = plan.workers.token.clone().map(Token::new);
    let safe = token.is_some() || (plan.keys.is_empty() && plan.server.listen.ip().is_loopback());
    safe.then(|| Mount::new(rpc::FLEET_PATH, rpc::fleet_service(Arc::new(control.clone()), token)))
}

fn auth(plan: &ControlPlan) -> api::Auth {
    if plan.keys.is_empty() {
        return api::Auth::Loopback { hosts: Vec::new() };
    }
    let scope = |scope: &config::Scope| match scope {
        config::Scope::JobsRead => api::Scope::JobsRead,
        config::Scope::JobsWrite => api::Scope::JobsWrite,
        config::Scope::JobsPriority => api::Scope::JobsPriority,
        config::Scope::Admin => api::Scope::Admin,
    };
    let key = |key: &config::ApiKey| api::ApiKey {
        name: key.name.clone(),
        tenant: key.tenant.clone(),
        sha256: key.hash.0,
        scopes: key.scopes.iter().map(scope).collect(),
        submissions_per_minute: key.rate_per_minute,
    };
    api::Auth::Keys(plan.keys.iter().map(key).collect())
}
