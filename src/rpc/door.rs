//! Who may call: the token is checked before a message is read, for every service behind the door but health.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::security::Token;

/// Load balancers and orchestrators ask for health without a secret; it tells nothing else.
const OPEN: &str = "/grpc.health.v1.Health/";

/// In the extensions of every request that came over a socket: a caller that has called once is no silent one.
#[derive(Debug, Clone, Default)]
pub(super) struct Greeted(Arc<AtomicBool>);

impl Greeted {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Lets calls in that carry the token; without a token, all.
#[derive(Debug, Clone)]
pub(super) struct Door(pub(super) Option<Token>);

impl<S> Layer<S> for Door {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { token: self.0.clone(), inner }
    }
}

/// What is behind a [`Door`].
#[derive(Debug, Clone)]
pub(super) struct Guarded<S> {
    token: Option<Token>,
    inner: S,
}

impl<S, B> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let open = request.uri().path().starts_with(OPEN);
        let admitted = open || self.token.as_ref().is_none_or(|token| token.admits(request.headers()));
        if !admitted {
            tracing::debug!(path = request.uri().path(), "call without the worker token refused");
            let refusal = Status::unauthenticated("the worker token is missing or not the right one");
            return Either::Right(ready(Ok(refusal.into_http())));
        }
        if let Some(Greeted(greeted)) = request.extensions().get() {
            greeted.store(true, Ordering::Relaxed);
        }
        Either::Left(self.inner.call(request))
    }
}
