//! The API while there is no record yet: nothing can be accepted, and whoever asks is told to come back.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tower::ServiceExt;

use super::edge::edge;
use super::problem::{Kind, Problem};
use super::system;
use crate::domain::IdSource;

/// What clients are asked to wait.
const RETRY: Duration = Duration::from_secs(2);

/// Where requests go once there is a record: on the connections they come by, so that no request is cut off when the
/// server gets ready.
#[derive(Debug, Clone, Default)]
pub struct Entrance(Arc<OnceLock<Router>>);

impl Entrance {
    /// Every later request is for `app`. The first call counts.
    pub fn lead_to(&self, app: Router) {
        let _ = self.0.set(app);
    }

    async fn enter(self, request: Request, outside: Next) -> Response {
        match self.0.get() {
            Some(app) => app.clone().oneshot(request).await.into_response(),
            None => outside.run(request).await,
        }
    }
}

/// Answers `/health`, and 503 with `Retry-After` to everything else, until `entrance` leads elsewhere; ready for
/// [`super::serve`].
pub fn starting(ids: Arc<dyn IdSource>, entrance: Entrance) -> Router {
    Router::new()
        .route("/health", get(system::health))
        .fallback(async || {
            Problem::new(Kind::Unavailable, "the server waits for its database").retry_after(RETRY)
        })
        .layer(from_fn_with_state(ids, edge))
        .layer(from_fn(move |request, outside| entrance.clone().enter(request, outside)))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::{Request, StatusCode};
    use tower::ServiceExt;

    use super::*;
    use crate::domain::SystemIds;

    #[tokio::test]
    async fn only_its_health_is_well() {
        for (path, status) in [
            ("/health", StatusCode::OK),
            ("/ready", StatusCode::SERVICE_UNAVAILABLE),
            ("/api/v1/jobs", StatusCode::SERVICE_UNAVAILABLE),
        ] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let answer = starting(Arc::new(SystemIds), Entrance::default()).oneshot(request).await.unwrap();
            assert_eq!(answer.status(), status, "{path}");
            assert_eq!(answer.headers().contains_key("retry-after"), status != StatusCode::OK, "{path}");
        }
    }

    #[tokio::test]
    async fn requests_find_what_is_ready_without_connecting_anew() {
        let entrance = Entrance::default();
        let app = starting(Arc::new(SystemIds), entrance.clone());
        let ready = async || {
            let request = Request::get("/ready").body(Body::empty()).unwrap();
            app.clone().oneshot(request).await.unwrap().status()
        };
        assert_eq!(ready().await, StatusCode::SERVICE_UNAVAILABLE);
        entrance.lead_to(Router::new().route("/ready", get(async || StatusCode::NO_CONTENT)));
        assert_eq!(ready().await, StatusCode::NO_CONTENT);
    }
}
