//! The HTTP port before the server is ready: while the database is down, clients are told so.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::Failed;
use crate::api::{self, ServerLimits};
use crate::config::ControlPlan;
use crate::domain::SystemIds;
use crate::lifecycle::{Lifecycle, TaskKind};

/// Opened when somebody has to be told, and at the latest when the server is ready.
pub(super) struct Porch {
    listen: SocketAddr,
    limits: ServerLimits,
    lifecycle: Lifecycle,
    open: Option<Open>,
}

struct Open {
    listener: Arc<TcpListener>,
    address: SocketAddr,
    closing: CancellationToken,
    served: JoinHandle<()>,
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
        let (listener, address) = super::bind(self.listen, "--listen")?;
        let (listener, closing) = (Arc::new(listener), self.lifecycle.soft().child_token());
        let app = api::starting(Arc::new(SystemIds));
        let serving = api::serve(Arc::clone(&listener), app, closing.clone(), self.limits.clone());
        let served = self.lifecycle.spawn(TaskKind::Background, "http before the start", serving);
        tracing::info!(listen = %address, "not ready: http://{address} answers 503");
        self.open = Some(Open { listener, address, closing, served });
        Ok(())
    }

    /// The port, for the server itself. Who connects meanwhile waits in the backlog.
    pub(super) async fn hand_over(self) -> Result<(Arc<TcpListener>, SocketAddr, ServerLimits), Failed> {
        let Some(Open { listener, address, closing, served }) = self.open else {
            let (listener, address) = super::bind(self.listen, "--listen")?;
            return Ok((Arc::new(listener), address, self.limits));
        };
        closing.cancel();
        // Its end is the lifecycle's to judge.
        let _ = served.await;
        Ok((listener, address, self.limits))
    }
}
