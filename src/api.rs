//! The HTTP face: REST, server-sent events, results and uploads on one port.
//!
//! Owns parsing of requests, the public shapes (job resource, problem details, SSE frames), authentication, limits per
//! reader and the accept loop. Must not know: SQL, gRPC, object stores, ffmpeg; it speaks to [`Control`], to the store
//! for reads, and to [`Files`] for bytes.
//! Invariants: every error path answers `application/problem+json` with the request's id; every route stands in
//! [`routes::table`] with the access it needs, so none can be served without it; another tenant's job does not exist;
//! a reader of a stream costs bounded memory however slow it is, and slows nobody.
//! To add a route: its row in [`routes::table`], a handler that extracts, calls once and shows, a view if it returns
//! something new, and its rows in the tests that walk the table.

mod accept;
mod auth;
mod body;
mod content;
mod deliveries;
mod edge;
mod fields;
mod files;
mod idempotency;
mod jobs;
mod json;
mod letters;
mod params;
mod presets;
mod probe;
mod problem;
mod quota;
mod range;
mod readings;
mod receiver;
mod retention;
mod routes;
mod server;
mod sse;
mod starting;
mod stream;
mod submission;
mod system;
#[cfg(test)]
mod testkit;
#[cfg(test)]
mod tests;
mod uploads;
mod view;
mod workers;

use std::convert::Infallible;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt as _};

pub use auth::{ApiKey, Auth, Scope};
pub use files::{ByteStream, Files, Received};
pub use letters::JobLetters;
pub use probe::document as probe_document;
pub use range::ByteRange;
pub use receiver::{Message, Sink, receiver};
pub use server::{ServerLimits, serve};
pub use starting::{Entrance, starting};

use crate::control::Control;
use crate::domain::preset::Presets;
use crate::domain::{Clock, IdSource, Results};
use crate::worker::Prober;

/// The prefix of the versioned API.
pub const PREFIX: &str = "/api/v1";

/// Renders the metrics of this process in the Prometheus text format.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What the API is made of; the command line puts it together.
pub struct Services {
    /// Accepts, cancels, retries, deletes and watches jobs.
    pub control: Control,
    /// The presets clients may name.
    pub presets: Arc<Presets>,
    /// Results, uploads and inline sources.
    pub files: Arc<dyn Files>,
    /// Answers what sources are; none in a process without tools.
    pub prober: Option<Prober>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn IdSource>,
    /// Who may do what.
    pub auth: Auth,
    /// Bounds on what clients may take.
    pub limits: Limits,
    /// What becomes of results when retention removes their job.
    pub results: Results,
    /// The metrics page.
    pub metrics: RenderMetrics,
    /// What else is served on this port. Each sees to its own access, limits and answers.
    pub mounts: Vec<Mount>,
    /// Ends streams and readiness when the process begins to stop.
    pub closing: CancellationToken,
}

/// A service that is not REST, such as the one where workers register.
#[derive(Debug, Clone)]
pub struct Mount {
    path: &'static str,
    service: BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>,
}

impl Mount {
    /// Serves it at this path, in the router's syntax.
    pub fn new<S, B>(path: &'static str, service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
        B: http_body::Body<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
    {
        let service = service.map_response(|answer: http::Response<B>| answer.map(Body::new));
        Self { path, service: BoxCloneSyncService::new(service) }
    }
}

/// Bounds on what clients may take. All times are wall time.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest time from a request's head to the end of its body (uploads have their own).
    pub body_timeout: Duration,
    /// Longest time a handler that is not a stream may take, its body included: above `body_timeout`.
    pub request_timeout: Duration,
    /// Requests in hand whose JSON is above 1 MiB (inline sources); more get 503.
    pub large_bodies: usize,
    /// Event streams of this server.
    pub streams: usize,
    /// Event streams of one key.
    pub streams_per_key: usize,
    /// Submissions a minute of everybody together on a server without keys; keys have their own.
    pub submissions_per_minute: Option<NonZeroU32>,
    /// Jobs of one tenant that may wait.
    pub pending_per_tenant: Option<NonZeroU64>,
    /// Silence after which a stream gets a comment.
    pub heartbeat: Duration,
    /// Age at which a stream ends; clients resume it.
    pub stream_age: Duration,
    /// Bytes of one upload.
    pub max_upload_bytes: u64,
    /// Silence after which an upload is given up.
    pub upload_idle: Duration,
    /// How long an upload may wait for its bytes and for a job.
    pub upload_expiry: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_mins(1),
            large_bodies: 8,
            streams: 8_000,
            streams_per_key: 2_000,
            submissions_per_minute: None,
            pending_per_tenant: None,
            heartbeat: Duration::from_secs(15),
            stream_age: Duration::from_hours(1),
            max_upload_bytes: crate::domain::limits::SourceLimits::default().max_bytes,
            upload_idle: Duration::from_secs(30),
            upload_expiry: Duration::from_hours(24),
        }
    }
}

/// The services with the counters that belong to serving them.
struct Inner {
    services: Services,
    gate: auth::Gate,
    streams: Arc<Semaphore>,
    large_bodies: Arc<Semaphore>,
    readings: readings::Readings,
    queues: quota::Queues,
}

/// What handlers hold.
#[derive(Clone)]
struct Api(Arc<Inner>);

impl std::ops::Deref for Api {
    type Target = Services;
    fn deref(&self) -> &Services {
        &self.0.services
    }
}

/// The whole API as a router, ready for [`serve`].
pub fn router(services: Services) -> Router {
    let gate = auth::Gate::new(&services.auth, &services.limits);
    let streams = Arc::new(Semaphore::new(services.limits.streams));
    let large_bodies = Arc::new(Semaphore::new(services.limits.large_bodies));
    let (readings, queues) = (readings::Readings::new(), quota::Queues::default());
    routes::build(Api(Arc::new(Inner { services, gate, streams, large_bodies, readings, queues })))
}
