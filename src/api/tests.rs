//! The router as clients meet it, over a store in memory.

mod access;
mod files;
mod jobs;
mod limits;
mod reference;
mod streams;

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::routes::{Access, Verb, table};
use super::testkit::{Answer, Invited, Server, key, local, request, small_job, start};
use super::{Auth, Limits, Scope};
use crate::domain::limits::MAX_INLINE_BYTES;
use crate::domain::uploads::Invitation;

const PATIENCE: Duration = Duration::from_secs(10);

fn with_keys() -> Auth {
    let both = [Scope::JobsRead, Scope::JobsWrite];
    Auth::Keys(vec![
        key("alice", "a", &both),
        key("bob", "b", &both),
        key("reader", "a", &[Scope::JobsRead]),
        key("none", "a", &[]),
        key("root", "ops", &[Scope::JobsRead, Scope::JobsWrite, Scope::Admin]),
    ])
}

fn as_key(name: &str, method: &str, path: &str) -> http::request::Builder {
    request(method, path).header("authorization", format!("Bearer {name}"))
}

fn empty(builder: http::request::Builder) -> http::Request<Body> {
    builder.body(Body::empty()).unwrap()
}

fn body(builder: http::request::Builder, value: &Value) -> http::Request<Body> {
    builder.header("content-type", "application/json").body(Body::from(value.to_string())).unwrap()
}
