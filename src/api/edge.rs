//! The outermost layer: request ids, panics, and the last word on every answer's shape and headers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::problem::Problem;
use crate::domain::IdSource;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Wraps every request, known route or not.
pub(super) async fn edge(State(ids): State<Arc<dyn IdSource>>, request: Request, next: Next) -> Response {
    let id = accepted_id(request.headers()).unwrap_or_else(|| ids.random().simple().to_string());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let response = answered.unwrap_or_else(|_| {
        tracing::error!(%method, path, request_id = id, "a handler panicked");
        Problem::internal().into_response()
    });
    let response = finish(response, &id);
    if response.status().is_server_error() {
        tracing::warn!(%method, path, request_id = id, status = response.status().as_u16(), "request failed");
    } else {
        tracing::debug!(%method, path, request_id = id, status = response.status().as_u16(), "request");
    }
    response
}

/// A client's id goes into logs and headers, so only a harmless alphabet is taken over.
fn accepted_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let fits =
        (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    fits.then(|| id.to_owned())
}

fn finish(mut response: Response, id: &str) -> Response {
    let failed = response.status().is_client_error() || response.status().is_server_error();
    let problem = response.extensions_mut().remove::<Problem>();
    // An error without our problem came from the router or the framework.
    if let Some(problem) = problem.or_else(|| failed.then(|| Problem::of_status(response.status()))) {
        *response.status_mut() = problem.status();
        *response.body_mut() = Body::from(problem.body(id));
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    }
    let no_content = response.status() == StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    if !no_content && !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The edge around another router.
    pub(in crate::api) fn around(router: axum::Router) -> axum::Router {
        let ids: Arc<dyn IdSource> = Arc::new(crate::domain::SystemIds);
        router.layer(axum::middleware::from_fn_with_state(ids, edge))
    }

    #[test]
    fn only_harmless_request_ids_are_taken_over() {
        let with = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(id).unwrap());
            accepted_id(&headers)
        };
        assert_eq!(with("abc_DEF-1").as_deref(), Some("abc_DEF-1"));
        for bad in ["", "a b", "a;b", "<script>", &"x".repeat(65)] {
            assert_eq!(with(bad), None, "{bad:?}");
        }
    }
}
