//! The control's side: one client type over any transport, in domain types.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use prost::Message;
use tonic::body::Body;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;
use uuid::Uuid;

use super::dial::{self, DialError, Transport};
use super::pb::worker_service_client::WorkerServiceClient;
use super::security::ClientSecurity;
use super::server::{WorkerApi, generated};
use super::wire::{
    self, Given, PROTOCOL, PermitGrant, Renewal, Renewed, ReservationId, Reserved, RunEvent, RunRequest,
    WorkerReport,
};
use super::{CallError, MAX_MESSAGE, carry, pb};
use crate::domain::{RunId, SessionId};

/// A run's events, until the worker ends them or the connection breaks.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<RunEvent, CallError>> + Send>>;

/// A worker as a control calls it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WorkerClient(WorkerServiceClient<Transport>);

impl WorkerClient {
    /// A worker in this process: the same generated service, no socket (STACK §2: 1.8 µs a call).
    pub fn in_process<A: WorkerApi>(api: Arc<A>) -> Self {
        let service = generated(api);
        let service = ServiceExt::<http::Request<Body>>::map_err(service, |never: Infallible| match never {});
        Self::over(BoxCloneSyncService::new(service))
    }

    /// The worker at `HOST:PORT`; connects when first called, and again when the connection broke.
    pub fn connect(address: &str, security: &ClientSecurity) -> Result<Self, DialError> {
        Ok(Self::over(dial::to_address(address, security)?))
    }

    fn over(transport: Transport) -> Self {
        let client = WorkerServiceClient::new(transport)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Self(client)
    }

    /// Starts or attaches to a run.
    pub async fn run(&self, request: &RunRequest) -> Result<EventStream, CallError> {
        let request = bounded(pb::JobRequest::from(request))?;
        let stream = self.0.clone().submit_job(request).await?.into_inner();
        Ok(Box::pin(stream.map(|message| Ok(RunEvent::try_from(message?)?))))
    }

    /// What the worker is and runs. One of another protocol is an error: nothing it says may be relied on.
    pub async fn status(&self) -> Result<WorkerReport, CallError> {
        let report = self.0.clone().get_status(pb::StatusRequest {}).await?.into_inner();
        if report.protocol != PROTOCOL {
            return Err(CallError::Incompatible { theirs: report.protocol });
        }
        Ok(report.try_into()?)
    }

    /// Stops a run at once, unless another session has taken it up since; whether it was known.
    pub async fn cancel(&self, run: RunId, by: SessionId) -> Result<bool, CallError> {
        let request = pb::CancelRequest { run_id: wire::raw(run.uuid()), session_id: wire::raw(by.uuid()) };
        Ok(self.0.clone().cancel_job(request).await?.into_inner().success)
    }

    /// Asks for up to so many slots.
    pub async fn reserve(&self, slots: u32, session: SessionId) -> Result<Reserved, CallError> {
        let request =
            pb::ReserveRequest { slots, session_id: wire::raw(session.uuid()), hand_back: Vec::new() };
        Ok(self.0.clone().reserve(request).await?.into_inner().try_into()?)
    }

    /// Gives back slots that are not needed.
    pub async fn hand_back(&self, slots: &[ReservationId], session: SessionId) -> Result<(), CallError> {
        let hand_back = slots.iter().map(|id| wire::raw(id.0)).collect();
        let request = pb::ReserveRequest { slots: 0, session_id: wire::raw(session.uuid()), hand_back };
        self.0.clone().reserve(request).await?;
        Ok(())
    }

    /// Extends the runs this control holds there.
    pub async fn renew(&self, renewal: &Renewal) -> Result<Renewed, CallError> {
        Ok(self.0.clone().renew(bounded(pb::RenewRequest::from(renewal))?).await?.into_inner().try_into()?)
    }

    /// Answers a run's `Ready`.
    pub async fn permit(&self, grant: &PermitGrant) -> Result<(), CallError> {
        self.0.clone().permit(bounded(pb::PermitRequest::from(grant))?).await?;
        Ok(())
    }

    /// Gives a run the source it asked for; as long as it takes.
    pub async fn put_source(&self, run: RunId, given: Given) -> Result<(), CallError> {
        let mut answer = self.0.clone().put_source(carry::parts(run, given)).await?.into_inner();
        let broke_off = || CallError::Unreachable("the worker broke off".to_owned());
        answer.message().await?.map(drop).ok_or_else(broke_off)
    }

    /// What the worker finds in its storage under this id; `Err` within says why it cannot look.
    pub async fn read_token(&self, id: Uuid) -> Result<Result<Option<String>, String>, CallError> {
        let request = pb::ReadTokenRequest { token_id: wire::raw(id) };
        let answer = self.0.clone().read_token(request).await?.into_inner();
        Ok(if answer.trouble.is_empty() { Ok(answer.text) } else { Err(answer.trouble) })
    }

    /// Tells that a run's end is on record.
    pub async fn ack(&self, run: RunId) -> Result<(), CallError> {
        self.0.clone().ack(pb::AckRequest { run_id: wire::raw(run.uuid()) }).await?;
        Ok(())
    }
}

/// A message that is too large is told as what it is: the transport would break the stream, which reads like a worker
/// that cannot be reached, and would be tried again.
fn bounded<M: Message>(message: M) -> Result<M, CallError> {
    let size = message.encoded_len();
    if size > MAX_MESSAGE {
        return Err(CallError::Protocol(format!(
            "a message of {size} bytes, {MAX_MESSAGE} at most, was not sent"
        )));
    }
    Ok(message)
}
