//! The worker's side: one trait in domain types behind the generated service.

use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::pb::worker_service_server::{WorkerService, WorkerServiceServer};
use super::wire::{
    self, Given, PermitGrant, Renewal, Renewed, ReservationId, Reserved, RunEvent, RunRequest, WorkerReport,
};
use super::{MAX_MESSAGE, carry, pb};
use crate::domain::{RunId, SessionId};

/// Where a run's events go. Bounded: a control that does not read makes the run wait to *report*, never to encode.
pub type EventSink = mpsc::Sender<RunEvent>;

/// Why a worker refuses a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another incarnation, or no such run.
    #[error("no such run on this worker")]
    NotFound,
    /// A run of a higher epoch was seen, or the reservation is gone.
    #[error("{0}")]
    Stale(&'static str),
    /// The worker takes nothing more.
    #[error("the worker is draining")]
    Draining,
}

/// What a worker can be asked, in domain types.
#[async_trait]
pub trait WorkerApi: Send + Sync + 'static {
    /// Starts or attaches; events arrive from `Accepted` on.
    async fn run(&self, request: RunRequest) -> Result<mpsc::Receiver<RunEvent>, Refusal>;
    /// What it is and runs.
    async fn status(&self) -> WorkerReport;
    /// Stops a run at once, unless another session has taken it up since; whether it was known.
    async fn cancel(&self, run: RunId, by: Option<SessionId>) -> bool;
    /// Grants up to so many slots for 10 s.
    async fn reserve(&self, slots: u32, session: SessionId) -> Reserved;
    /// Takes back grants that are not needed; those that it does not know are over already.
    async fn hand_back(&self, reservations: Vec<ReservationId>);
    /// Extends runs; answers what really runs.
    async fn renew(&self, renewal: Renewal) -> Renewed;
    /// Answers a run's `Ready`.
    async fn permit(&self, grant: PermitGrant) -> Result<(), Refusal>;
    /// Gives a run the source it asked for.
    async fn put_source(&self, run: RunId, given: Given) -> Result<(), Refusal>;
    /// What the control left in the storage under this id; `Ok(None)` = there is none. An error is for people.
    async fn read_token(&self, id: Uuid) -> Result<Option<String>, String>;
    /// The run's end is on record.
    async fn ack(&self, run: RunId);
}

/// The generated service over a [`WorkerApi`].
#[derive(Debug, Clone)]
pub struct WorkerServer<A>(std::sync::Arc<A>);

impl<A: WorkerApi> WorkerServer<A> {
    /// Serves this worker.
    pub fn new(api: std::sync::Arc<A>) -> Self {
        Self(api)
    }
}

/// The generated service, with the bounds that hold on every transport.
pub(super) fn generated<A: WorkerApi>(api: std::sync::Arc<A>) -> WorkerServiceServer<WorkerServer<A>> {
    WorkerServiceServer::new(WorkerServer::new(api))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Self::not_found(refusal.to_string()),
            Refusal::Stale(_) => Self::failed_precondition(refusal.to_string()),
            Refusal::Draining => Self::unavailable(refusal.to_string()),
        }
    }
}

impl From<wire::InvalidMessage> for Status {
    fn from(invalid: wire::InvalidMessage) -> Self {
        Self::invalid_argument(invalid.to_string())
    }
}

type ProgressStream = Pin<Box<dyn Stream<Item = Result<pb::JobProgress, Status>> + Send>>;

#[async_trait]
impl<A: WorkerApi> WorkerService for WorkerServer<A> {
    type SubmitJobStream = ProgressStream;
    type PutSourceStream = Pin<Box<dyn Stream<Item = Result<pb::PutSourceResponse, Status>> + Send>>;

    async fn submit_job(&self, request: Request<pb::JobRequest>) -> Result<Response<ProgressStream>, Status> {
        let events = self.0.run(request.into_inner().try_into()?).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(events).map(|event| Ok((&event).into())))))
    }

    async fn get_status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::WorkerStatus>, Status> {
        Ok(Response::new(self.0.status().await.into()))
    }

    async fn cancel_job(
        &self,
        request: Request<pb::CancelRequest>,
    ) -> Result<Response<pb::CancelResponse>, Status> {
        let request = request.into_inner();
        let run = RunId::from_uuid(wire::uuid(&request.run_id, "run_id")?);
        let by = if request.session_id.is_empty() {
            None
        } else {
            Some(SessionId::from_uuid(wire::uuid(&request.session_id, "session_id")?))
        };
        let success = self.0.cancel(run, by).await;
        let message = if success { "stopped" } else { "no such run" }.to_owned();
        Ok(Response::new(pb::CancelResponse { success, message }))
    }

    async fn reserve(
        &self,
        request: Request<pb::ReserveRequest>,
    ) -> Result<Response<pb::ReserveResponse>, Status> {
        let request = request.into_inner();
        let session = SessionId::from_uuid(wire::uuid(&request.session_id, "session_id")?);
        if !request.hand_back.is_empty() {
            let id = |bytes: &Bytes| wire::uuid(bytes, "hand_back").map(ReservationId);
            self.0.hand_back(request.hand_back.iter().map(id).collect::<Result<_, _>>()?).await;
        }
        Ok(Response::new(self.0.reserve(request.slots, session).await.into()))
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::RenewResponse>, Status> {
        Ok(Response::new(self.0.renew(request.into_inner().try_into()?).await.into()))
    }

    async fn permit(
        &self,
        request: Request<pb::PermitRequest>,
    ) -> Result<Response<pb::PermitResponse>, Status> {
        self.0.permit(request.into_inner().try_into()?).await?;
        Ok(Response::new(pb::PermitResponse {}))
    }

    async fn put_source(
        &self,
        request: Request<Streaming<pb::SourcePart>>,
    ) -> Result<Response<Self::PutSourceStream>, Status> {
        // The head of the answer goes out at once: a long source is no slow call.
        let api = std::sync::Arc::clone(&self.0);
        let received = async move { carry::receive(&*api, request.into_inner()).await };
        Ok(Response::new(Box::pin(stream::once(received))))
    }

    async fn read_token(
        &self,
        request: Request<pb::ReadTokenRequest>,
    ) -> Result<Response<pb::ReadTokenResponse>, Status> {
        let id = wire::uuid(&request.into_inner().token_id, "token_id")?;
        let (text, trouble) = match self.0.read_token(id).await {
            Ok(text) => (text, String::new()),
            Err(trouble) => (None, trouble),
        };
        Ok(Response::new(pb::ReadTokenResponse { text, trouble }))
    }

    async fn ack(&self, request: Request<pb::AckRequest>) -> Result<Response<pb::AckResponse>, Status> {
        self.0.ack(RunId::from_uuid(wire::uuid(&request.into_inner().run_id, "run_id")?)).await;
        Ok(Response::new(pb::AckResponse {}))
    }
}
