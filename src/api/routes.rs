//! Every route with the access it needs. What is not in this table is not served.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, post, put};

use super::auth::{Scope, guard};
use super::edge::edge;
use super::problem::Problem;
use super::{Api, content, jobs, presets, stream, system, uploads, workers};

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

/// A row of the table.
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) access: Access,
    pub(super) pace: Pace,
    handler: MethodRouter<Api>,
}

const READ: Access = Access::Needs(Scope::JobsRead);
const WRITE: Access = Access::Needs(Scope::JobsWrite);

/// The whole API.
pub(super) fn table() -> Vec<Route> {
    use Pace::{Once, Stream};
    let row = |path, access, pace, handler| Route {
        path,
        access,
        pace,
        handler,
    };
    vec![
        row("/api/v1/jobs", WRITE, Once, post(jobs::create)),
        row("/api/v1/jobs", READ, Once, get(jobs::list)),
        row("/api/v1/jobs/{id}", READ, Once, get(jobs::get)),
        row("/api/v1/jobs/{id}", WRITE, Once, delete(jobs::delete)),
        row("/api/v1/jobs/{id}/cancel", WRITE, Once, post(jobs::cancel)),
        row("/api/v1/jobs/{id}/retry", WRITE, Once, post(jobs::retry)),
        row("/api/v1/jobs/{id}/log", READ, Once, get(jobs::log)),
        row("/api/v1/jobs/{id}/stream", READ, Stream, get(stream::job)),
        row(
            "/api/v1/jobs/{id}/outputs/{output}/content",
            READ,
            Stream,
            get(content::first),
        ),
        row(
            "/api/v1/jobs/{id}/outputs/{output}/content/{*file}",
            READ,
            Stream,
            get(content::named),
        ),
        row("/api/v1/events", READ, Stream, get(stream::all)),
        row("/api/v1/uploads", WRITE, Once, post(uploads::create)),
        row(
            "/api/v1/uploads/{id}",
            Access::Signed,
            Stream,
            put(uploads::receive),
        ),
        row("/api/v1/presets", READ, Once, get(presets::list)),
        row("/api/v1/presets/{name}", READ, Once, get(presets::get)),
        row("/api/v1/workers", READ, Once, get(workers::list)),
        row("/api/v1/workers/status", READ, Once, get(workers::list)),
        // The seeds' own paths.
        row("/jobs", WRITE, Once, post(jobs::create)),
        row("/jobs", READ, Once, get(jobs::list)),
        row("/jobs/{id}", READ, Once, get(jobs::get)),
        row("/jobs/{id}", WRITE, Once, delete(jobs::delete)),
        row("/workers", READ, Once, get(workers::list)),
        row("/", Access::Public, Once, get(system::index)),
        row("/health", Access::Public, Once, get(system::health)),
        row("/ready", Access::Public, Once, get(system::ready)),
        row("/metrics", Access::Public, Once, get(system::metrics)),
        row("/problems/{code}", Access::Public, Once, get(system::problem)),
    ]
}

/// The table as a router, with the edge around it.
pub(super) fn build(api: Api) -> Router {
    let mut router = Router::new();
    for Route {
        path,
        access,
        pace,
        handler,
    } in table()
    {
        let guard = from_fn_with_state((api.clone(), access, pace), guard);
        router = router.route(path, handler.route_layer(guard));
    }
    router
        .fallback(|| async { Problem::of_status(http::StatusCode::NOT_FOUND) })
        // Bodies are bounded by their readers, which know what each route may take.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(api.clone(), edge))
        .with_state(api)
}
