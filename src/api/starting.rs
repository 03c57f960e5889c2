//! The API while there is no record yet: nothing can be accepted, and whoever asks is told to come back.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;

use super::edge::edge;
use super::problem::{Kind, Problem};
use super::system;
use crate::domain::IdSource;

/// What clients are asked to wait.
const RETRY: Duration = Duration::from_secs(2);

/// Answers `/health`, and 503 with `Retry-After` to everything else; ready for [`super::serve`].
pub fn starting(ids: Arc<dyn IdSource>) -> Router {
    Router::new()
        .route("/health", get(system::health))
        .fallback(async || {
            Problem::new(Kind::Unavailable, "the server waits for its database").retry_after(RETRY)
        })
        .layer(from_fn_with_state(ids, edge))
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
            let answer = starting(Arc::new(SystemIds)).oneshot(request).await.unwrap();
            assert_eq!(answer.status(), status, "{path}");
            assert_eq!(answer.headers().contains_key("retry-after"), status != StatusCode::OK, "{path}");
        }
    }
}
