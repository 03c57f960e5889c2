//! How workers make themselves known to a control: `control.v1.Fleet`, both sides.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tonic::codegen::StdError;
use tonic::{Request, Response, Status};
use tower::{Layer, Service, ServiceExt};

use super::control_pb::fleet_client::FleetClient as Generated;
use super::control_pb::fleet_server::{Fleet, FleetServer};
use super::dial::{self, DialError, Transport};
use super::door::Door;
use super::security::{ClientSecurity, Token};
use super::wire::{PROTOCOL, Registered, Registration};
use super::{CallError, control_pb};

/// Where the service is on the control's HTTP port; `{method}` is one segment.
pub const FLEET_PATH: &str = "/control.v1.Fleet/{method}";

/// A registration is a few hundred bytes.
const MAX_REGISTRATION: usize = 16 << 10;

/// Longest time from a call's head to its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a control does not take a worker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FleetRefusal {
    /// Another protocol.
    #[error(
        "this worker speaks protocol {theirs} and the control speaks {PROTOCOL}: run the same version of flux on both"
    )]
    Incompatible {
        /// The worker's.
        theirs: u32,
    },
    /// Not an address.
    #[error("{address} is not an address such as host:50051")]
    Address {
        /// As the worker said.
        address: String,
    },
    /// Jobs carry secrets, and the way there is not safe.
    #[error(
        "{address} is on another machine and the control has no workers.tls; set it, or workers.trusted_network = true"
    )]
    NotEncrypted {
        /// As the worker said.
        address: String,
    },
    /// The control keeps a bounded number of workers.
    #[error("the control knows as many workers as it may")]
    Full,
}

/// What a control answers to workers.
#[async_trait]
pub trait FleetApi: Send + Sync + 'static {
    /// Takes a worker in, or notes that it is still there.
    async fn register(&self, registration: Registration) -> Result<Registered, FleetRefusal>;
}

struct Registry<A>(Arc<A>);

#[async_trait]
impl<A: FleetApi> Fleet for Registry<A> {
    async fn register(
        &self,
        request: Request<control_pb::RegisterRequest>,
    ) -> Result<Response<control_pb::RegisterResponse>, Status> {
        let registration = Registration::try_from(request.into_inner())?;
        let registered = self.0.register(registration).await;
        let registered = registered.map_err(|refusal| Status::failed_precondition(refusal.to_string()))?;
        Ok(Response::new(registered.into()))
    }
}

/// The service for the control's HTTP port, at [`FLEET_PATH`]. With a token, only calls that carry it come in.
pub fn fleet_service<A, B>(
    api: Arc<A>,
    token: Option<Token>,
) -> impl Service<http::Request<B>, Response = http::Response<tonic::body::Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static
where
    A: FleetApi,
    B: http_body::Body<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
{
    let service = FleetServer::new(Registry(api)).max_decoding_message_size(MAX_REGISTRATION);
    let guarded = Door(token).layer(service);
    tower::service_fn(move |request: http::Request<B>| {
        let answer = guarded.clone().oneshot(request);
        async move {
            tokio::time::timeout(PATIENCE, answer)
                .await
                .unwrap_or_else(|_| Ok(Status::deadline_exceeded("the call took too long").into_http()))
        }
    })
}

/// A control as a worker calls it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FleetClient(Generated<Transport>);

impl FleetClient {
    /// The control at `http(s)://HOST:PORT`; connects when first called.
    pub fn connect(url: &str, security: &ClientSecurity) -> Result<Self, DialError> {
        Ok(Self(Generated::new(dial::to_url(url, security)?)))
    }

    /// Says that a worker is there.
    pub async fn register(&self, registration: &Registration) -> Result<Registered, CallError> {
        let request = control_pb::RegisterRequest::from(registration);
        let answer = tokio::time::timeout(PATIENCE, self.0.clone().register(request)).await;
        let answer =
            answer.map_err(|_| CallError::Unreachable(format!("no answer within {PATIENCE:?}")))??;
        Ok(answer.into_inner().into())
    }
}
