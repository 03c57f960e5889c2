//! Every route with the access it needs. What is not in this table is not served.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};

use super::auth::{Scope, guard};
use super::edge::edge;
use super::problem::Problem;
use super::{
    Api, Mount, content, deliveries, jobs, presets, probe, retention, stream, system, uploads, workers,
};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Anybody, from anywhere: tells nothing about jobs.
    Public,
    /// Whoever has a URL that this server signed.
    Signed,
    /// A key with the scope.
    Needs(Scope),
}

/// How long a handler may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// It answers and is done: bounded by `request_timeout`.
    Once,
    /// Its body is open-ended and bounded by its own rules.
    Stream,
}

/// What a route answers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Post,
    Put,
    Delete,
}

/// A row of the table.
pub(super) struct Route {
    #[cfg_attr(not(test), expect(dead_code, reason = "for the tests that walk the table"))]
    pub(super) verb: Verb,
    pub(super) path: &'static str,
    pub(super) access: Access,
    pub(super) pace: Pace,
    handler: MethodRouter<Api>,
}

impl Route {
    fn new<H, T>(verb: Verb, path: &'static str, access: Access, pace: Pace, handler: H) -> Self
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        let filter = match verb {
            // Answers HEAD too.
            Verb::Get => MethodFilter::GET,
            Verb::Post => MethodFilter::POST,
            Verb::Put => MethodFilter::PUT,
            Verb::Delete => MethodFilter::DELETE,
        };
        Self { verb, path, access, pace, handler: on(filter, handler) }
    }
}

const READ: Access = Access::Needs(Scope::JobsRead);
const WRITE: Access = Access::Needs(Scope::JobsWrite);

/// The whole API.
pub(super) fn table() -> Vec<Route> {
    use Pace::{Once, Stream};
    use Verb::{Delete, Get, Post, Put};
    vec![
        Route::new(Post, "/api/v1/jobs", WRITE, Once, jobs::create),
        Route::new(Get, "/api/v1/jobs", READ, Once, jobs::list),
        Route::new(Get, "/api/v1/jobs/{id}", READ, Once, jobs::get),
        Route::new(Delete, "/api/v1/jobs/{id}", WRITE, Once, jobs::delete),
        Route::new(Post, "/api/v1/jobs/{id}/cancel", WRITE, Once, jobs::cancel),
        Route::new(Post, "/api/v1/jobs/{id}/retry", WRITE, Once, jobs::retry),
        Route::new(Get, "/api/v1/jobs/{id}/log", READ, Once, jobs::log),
        Route::new(Get, "/api/v1/jobs/{id}/deliveries", READ, Once, deliveries::list),
        Route::new(
            Post,
            "/api/v1/jobs/{id}/deliveries/{delivery}/redeliver",
            WRITE,
            Once,
            deliveries::redeliver,
        ),
        Route::new(Get, "/api/v1/jobs/{id}/stream", READ, Stream, stream::job),
        Route::new(Get, "/api/v1/jobs/{id}/outputs/{output}/content", READ, Stream, content::first),
        Route::new(Get, "/api/v1/jobs/{id}/outputs/{output}/content/{*file}", READ, Stream, content::named),
        Route::new(Get, "/api/v1/events", READ, Stream, stream::all),
        Route::new(Post, "/api/v1/uploads", WRITE, Once, uploads::create),
        Route::new(Put, "/api/v1/uploads/{id}", Access::Signed, Stream, uploads::receive),
        Route::new(Delete, "/api/v1/uploads/{id}", WRITE, Once, uploads::abandon),
        Route::new(Post, "/api/v1/uploads/{id}/complete", WRITE, Once, uploads::complete),
        Route::new(Post, "/api/v1/probe", WRITE, Once, probe::create),
        Route::new(Get, "/api/v1/presets", READ, Once, presets::list),
        Route::new(Get, "/api/v1/presets/{name}", READ, Once, presets::get),
        Route::new(Get, "/api/v1/workers", READ, Once, workers::list),
        Route::new(Get, "/api/v1/workers/status", READ, Once, workers::list),
        Route::new(Get, "/api/v1/retention", Access::Needs(Scope::Admin), Once, retention::look),
        // The seeds' own paths.
        Route::new(Post, "/jobs", WRITE, Once, jobs::create),
        Route::new(Get, "/jobs", READ, Once, jobs::list),
        Route::new(Get, "/jobs/{id}", READ, Once, jobs::get),
        Route::new(Delete, "/jobs/{id}", WRITE, Once, jobs::delete),
        Route::new(Get, "/workers", READ, Once, workers::list),
        Route::new(Get, "/", Access::Public, Once, system::index),
        Route::new(Get, "/health", Access::Public, Once, system::health),
        Route::new(Get, "/ready", Access::Public, Once, system::ready),
        Route::new(Get, "/metrics", Access::Public, Once, system::scrape),
        Route::new(Get, "/problems/{code}", Access::Public, Once, system::problem),
    ]
}

/// The table as a router, with the edge around it.
pub(super) fn build(api: Api) -> Router {
    let mut router = Router::new();
    for Route { path, access, pace, handler, .. } in table() {
        let guard = from_fn_with_state((api.clone(), access, pace), guard);
        router = router.route(path, handler.route_layer(guard));
    }
    for Mount { path, service } in api.mounts.clone() {
        router = router.route_service(path, service);
    }
    router
        .fallback(|| async { Problem::of_status(http::StatusCode::NOT_FOUND) })
        // Bodies are bounded by their readers, which know what each route may take.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(Arc::clone(&api.ids), edge))
        .with_state(api)
}
