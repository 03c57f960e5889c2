//! HTTP for object stores whose address a request may have chosen: through the clients that obey the address policy.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use url::Url;

use super::super::http::HttpClients;
use crate::domain::Failure;

/// Gives stores clients that check every address before it is connected to. The clients' own options decide about
/// timeouts, redirects (none) and proxies (none); those of `object_store` are not asked.
#[derive(Debug, Clone)]
pub(in crate::storage) struct Connector {
    clients: Arc<HttpClients>,
    /// Longest time until the head of an answer, the sending of a part included.
    answer: Duration,
}

impl Connector {
    /// Clients of `clients`; whoever sends large parts waits longer for an `answer`.
    pub(in crate::storage) fn new(clients: &Arc<HttpClients>, answer: Duration) -> Self {
        Self { clients: Arc::clone(clients), answer }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let url = Url::parse(&request.uri().to_string())
            .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let client = self
            .clients
            .guarded(&url)
            .map_err(|failure| HttpError::new(HttpErrorKind::Unknown, Blocked(failure)))?;
        match tokio::time::timeout(self.answer, HttpService::call(&client, request)).await {
            Ok(answer) => answer,
            Err(elapsed) => Err(HttpError::new(HttpErrorKind::Timeout, elapsed)),
        }
    }
}

/// An address that the policy does not permit.
#[derive(Debug, thiserror::Error)]
#[error("the address is not permitted")]
struct Blocked(Failure);

/// The policy's refusal, where that is what an error comes from.
pub(in crate::storage) fn blocked(error: &object_store::Error) -> Option<Failure> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(Blocked(failure)) = this.downcast_ref::<Blocked>() {
            return Some(failure.clone());
        }
        if let Some(failure) = super::super::http::refused(this) {
            return Some(failure);
        }
        cause = this.source();
    }
    None
}
