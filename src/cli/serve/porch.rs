//! The HTTP port: while the database is down before the server is ready, clients are told so.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;

use super::super::Failed;
use crate::api::{self, Entrance, ServerLimits};
use crate::config::ControlPlan;
use crate::domain::SystemIds;
use crate::lifecycle::{Lifecycle, TaskKind};

/// Opened when somebody has to be told, and at the latest when the server is ready.
pub(super) struct Porch {
    listen: SocketAddr,
    limits: ServerLimits,
    lifecycle: Lifecycle,
    open: Option<(SocketAddr, Entrance)>,
}

impl Porch {
    pub(super) fn new(plan: &ControlPlan, lifecycle: &Lifecycle) -> Self {
        let limits = ServerLimits { header_timeout: plan.server.header_timeout, ..ServerLimits::default() };
        Self { listen: plan.server.listen, limits, lifecycle: lifecycle.clone(), open: None }
    }

    /// Answers from now on that the server is not ready.
    pub(super) fn open(&mut self) -> Result<(), Failed> {
        if self.open.is_some() {
            return Ok(());
        }
        let entrance = Entrance::default();
        let address = self.serve(api::starting(Arc::new(SystemIds), entrance.clone()))?;
        tracing::info!(listen = %address, "not ready: http://{address} answers 503");
        self.open = Some((address, entrance));
        Ok(())
    }

    /// Serves the API; where it listens. Who is connected already stays so.
    pub(super) fn welcome(self, app: Router) -> Result<SocketAddr, Failed> {
        let Some((address, entrance)) = self.open else { return self.serve(app) };
        entrance.lead_to(app);
        Ok(address)
    }

    fn serve(&self, app: Router) -> Result<SocketAddr, Failed> {
        let (listener, address) = super::bind(self.listen, "--listen")?;
        let serving = api::serve(listener, app, self.lifecycle.soft().clone(), self.limits.clone());
        self.lifecycle.spawn(TaskKind::Essential, "http", serving);
        Ok(address)
    }
}
