//! Receiving request bodies: the right type, in bounded time and bounded memory.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::SemaphorePermit;

use super::Api;
use super::fields::Faults;
use super::json;
use super::problem::{Kind, Problem};
use crate::domain::limits::MAX_INLINE_BYTES;

/// Most bytes of an ordinary JSON body.
const SMALL: usize = 1024 * 1024;
/// Most bytes of a body with an inline source: base64 of [`MAX_INLINE_BYTES`] beside an ordinary body.
const LARGE: usize = MAX_INLINE_BYTES.div_ceil(3) * 4 + SMALL;

/// A received JSON body.
pub(super) struct Json<'a> {
    pub(super) value: Value,
    pub(super) faults: Faults,
    /// Whether it is larger than any body without an inline source may be.
    pub(super) large: bool,
    _permit: Option<SemaphorePermit<'a>>,
}

/// Reads a JSON body. A large one holds one of few permits until it is dropped.
pub(super) async fn read_json(api: &Api, request: Request) -> Result<Json<'_>, Problem> {
    require_json(request.headers())?;
    let reading = collect(api, request.into_body());
    let (bytes, permit) = tokio::time::timeout(api.limits.body_timeout, reading).await.map_err(|_| {
        Problem::new(Kind::RequestTimeout, "the body came too slowly").retry_after(Duration::from_secs(1))
    })??;
    let faults = Faults::default();
    let value = json::parse(&bytes, &faults)?;
    Ok(Json { value, faults, large: bytes.len() > SMALL, _permit: permit })
}

/// The answer to a body above 1 MiB that has no inline source to excuse it.
pub(super) fn too_large() -> Problem {
    Problem::new(Kind::BodyTooLarge, format!("a body without an inline source is at most {SMALL} bytes"))
}

async fn collect(api: &Api, mut body: Body) -> Result<(Bytes, Option<SemaphorePermit<'_>>), Problem> {
    let mut bytes = BytesMut::new();
    let mut permit = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::new(Kind::InvalidRequest, "the body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > LARGE {
            return Err(Problem::new(Kind::BodyTooLarge, format!("a body is at most {LARGE} bytes")));
        }
        bytes.extend_from_slice(&data);
        if bytes.len() > SMALL && permit.is_none() {
            permit = Some(api.0.large_bodies.try_acquire().map_err(|_| {
                Problem::new(Kind::Unavailable, "too many large bodies at once")
                    .retry_after(Duration::from_secs(2))
            })?);
        }
    }
    Ok((bytes.freeze(), permit))
}

/// `application/json` only: other types are what a cross-site form can send without asking first.
fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(Problem::new(Kind::UnsupportedMediaType, "send the body with 'Content-Type: application/json'"))
    }
}
