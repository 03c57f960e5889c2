//! Problem details (RFC 9457): the one shape of every error answer.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::domain::{Class, Code, Failure, Fault};
use crate::store;

macro_rules! kinds {
    ($($name:ident = $code:literal, $status:literal, $retry:literal, $title:literal;)*) => {
        /// What went wrong, by name. The code is part of the API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Kind {$($name,)*}

        impl Kind {
            pub(super) const ALL: &'static [Self] = &[$(Self::$name),*];
            pub(super) const fn code(self) -> &'static str { match self {$(Self::$name => $code),*} }
            const fn number(self) -> u16 { match self {$(Self::$name => $status),*} }
            /// Whether the same request may succeed later.
            pub(super) const fn retryable(self) -> bool { match self {$(Self::$name => $retry),*} }
            pub(super) const fn title(self) -> &'static str { match self {$(Self::$name => $title),*} }
        }
    };
}

kinds! {
    MalformedJson = "malformed_json", 400, false, "The body is not valid JSON";
    InvalidRequest = "invalid_request", 400, false, "A header or parameter is not valid";
    Unauthenticated = "unauthenticated", 401, false, "A valid API key is needed";
    Forbidden = "forbidden", 403, false, "The key may not do this";
    OriginRefused = "origin_refused", 403, false, "Requests from this host or origin are refused";
    NotFound = "not_found", 404, false, "There is no such thing here";
    MethodNotAllowed = "method_not_allowed", 405, false, "The method is not known here";
    RequestTimeout = "request_timeout", 408, true, "The request came too slowly";
    JobFinished = "job_finished", 409, false, "The job has already ended";
    JobNotFailed = "job_not_failed", 409, false, "Only failed jobs are retried";
    SecretsGone = "secrets_gone", 409, false, "The job's credentials were already wiped";
    OutputNotReady = "output_not_ready", 409, true, "The output is not published yet";
    UploadFinished = "upload_finished", 409, false, "The upload is already whole";
    UploadInUse = "upload_in_use", 409, false, "Jobs use the upload";
    Gone = "gone", 410, false, "It was there and was removed";
    BodyTooLarge = "body_too_large", 413, false, "The body is too large";
    UnsupportedMediaType = "unsupported_media_type", 415, false, "The body must be application/json";
    RangeNotSatisfiable = "range_not_satisfiable", 416, false, "The range is outside the file";
    ValidationFailed = "validation_failed", 422, false, "The request has faults";
    IdempotencyKeyReused = "idempotency_key_reused", 422, false, "The idempotency key was used with another body";
    TooManyStreams = "too_many_streams", 429, true, "Too many open event streams";
    RateLimited = "rate_limited", 429, true, "The key submits too fast";
    TenantQueueFull = "tenant_queue_full", 429, true, "Too many jobs of the tenant wait";
    ProbeUnavailable = "probe_unavailable", 501, false, "This server has nothing to probe sources with";
    Internal = "internal", 500, true, "A defect in the server";
    QueueFull = "queue_full", 503, true, "The queue is full";
    Unavailable = "unavailable", 503, true, "The server cannot answer just now";
    DiskFull = "disk_full", 503, true, "The server has no room left";
}

/// The title of every problem with a source; its code says which.
pub(super) const SOURCE_TITLE: &str = "The source cannot be read or used";

/// An error answer before it knows its request id; [`super::edge`] gives it its body.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub(super) kind: Kind,
    /// Why a source cannot be read or used, where that is the problem: then the code is that of a job.
    of_source: Option<Code>,
    detail: String,
    errors: Vec<Fault>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    request_id: &'a str,
    retryable: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FaultView<'a>>,
}

#[derive(Serialize)]
struct FaultView<'a> {
    pointer: &'a str,
    detail: &'a str,
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, of_source: None, detail: detail.into(), errors: Vec::new(), headers: Vec::new() }
    }

    /// All faults of a body at once.
    pub(super) fn invalid(errors: Vec<Fault>) -> Self {
        let detail = match errors.as_slice() {
            [one] => format!("{}: {}", one.pointer, one.detail),
            many => format!("{} faults; see errors", many.len()),
        };
        Self { errors, ..Self::new(Kind::ValidationFailed, detail) }
    }

    pub(super) fn no_such(what: &str) -> Self {
        Self::new(Kind::NotFound, format!("no such {what}"))
    }

    pub(super) fn internal() -> Self {
        Self::new(Kind::Internal, "the server met an unexpected condition; its log has the request id")
    }

    /// What a job of a source would fail with, as an answer.
    pub(super) fn of_source(failure: Failure) -> Self {
        let Failure { code, message, detail, .. } = failure;
        tracing::info!(%code, message, detail, "a source could not be probed");
        let kind = match (code, code.class()) {
            (Code::ToolMissing, _) | (_, Class::Infrastructure) => Kind::Unavailable,
            (_, Class::Input | Class::Config) => Kind::ValidationFailed,
            (_, Class::Internal) => Kind::Internal,
        };
        let problem = Self { of_source: Some(code), ..Self::new(kind, message) };
        if code.retryable() { problem.retry_after(Duration::from_secs(10)) } else { problem }
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Says when to try again.
    pub(super) fn retry_after(self, delay: Duration) -> Self {
        self.with(header::RETRY_AFTER, HeaderValue::from(delay.as_secs().max(1)))
    }

    /// For answers that did not come from a handler: the router's and the framework's own.
    pub(super) fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            404 => Self::new(Kind::NotFound, "no such route"),
            405 => Self::new(Kind::MethodNotAllowed, "the Allow header lists what is known here"),
            408 => Self::new(Kind::RequestTimeout, "the request came too slowly"),
            413 => Self::new(Kind::BodyTooLarge, "the body is too large"),
            415 => Self::new(Kind::UnsupportedMediaType, "the body must be application/json"),
            400..=499 => Self::new(Kind::InvalidRequest, "the request could not be understood"),
            _ => Self::internal(),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.kind.number()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(super) fn body(&self, request_id: &str) -> Vec<u8> {
        let (code, title, retryable) = match self.of_source {
            Some(code) => (code.as_str(), SOURCE_TITLE, code.retryable()),
            None => (self.kind.code(), self.kind.title(), self.kind.retryable()),
        };
        let body = Body {
            r#type: format!("/problems/{code}"),
            title,
            status: self.kind.number(),
            detail: &self.detail,
            code,
            request_id,
            retryable,
            errors: self
                .errors
                .iter()
                .map(|f| FaultView { pointer: &f.pointer, detail: &f.detail })
                .collect(),
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

impl IntoResponse for Problem {
    /// Status and headers now, the body at the edge, where the request id is known.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        for (name, value) in &self.headers {
            response.headers_mut().append(name, value.clone());
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&store::Error> for Problem {
    fn from(error: &store::Error) -> Self {
        let chain = chain(error);
        match error {
            store::Error::Unavailable { .. } => {
                tracing::warn!(error = %chain, "store not available");
                Self::new(Kind::Unavailable, "the job store does not answer")
                    .retry_after(Duration::from_secs(2))
            }
            store::Error::NoSpace { .. } => {
                tracing::error!(error = %chain, "store has no room");
                Self::new(Kind::DiskFull, "the job store has no room").retry_after(Duration::from_mins(1))
            }
            store::Error::Inconsistent { .. }
            | store::Error::Locked { .. }
            | store::Error::NewerSchema { .. }
            | store::Error::WrongKey { .. }
            | store::Error::Open { .. } => {
                tracing::error!(error = %chain, "store failed");
                Self::internal()
            }
        }
    }
}

/// A failure of a file operation made for a request (result, upload, inline source).
impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        tracing::warn!(code = %failure.code, message = failure.message, detail = failure.detail, "file operation failed");
        let kind = match (failure.code, failure.code.class()) {
            (Code::DiskFull, _) => Kind::DiskFull,
            (Code::SourceNotFound, _) => Kind::Gone,
            (Code::SourceTooLarge, _) => Kind::BodyTooLarge,
            (_, Class::Input) => Kind::InvalidRequest,
            (_, Class::Config | Class::Infrastructure) => Kind::Unavailable,
            (_, Class::Internal) => return Self::internal(),
        };
        let problem = Self::new(kind, failure.message);
        if kind.retryable() { problem.retry_after(Duration::from_secs(10)) } else { problem }
    }
}

/// The error with its sources, for the log.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_every_member() {
        let faults = vec![
            Fault { pointer: "/outputs/0/preset".into(), detail: "no such preset".into() },
            Fault { pointer: "/x".into(), detail: "unknown field".into() },
        ];
        let body: serde_json::Value =
            serde_json::from_slice(&Problem::invalid(faults).body("req-1")).unwrap();
        insta::assert_json_snapshot!(body);
        let body: serde_json::Value =
            serde_json::from_slice(&Problem::new(Kind::QueueFull, "1000 jobs wait").body("req-2")).unwrap();
        insta::assert_json_snapshot!(body);
    }

    #[test]
    fn codes_are_unique_and_statuses_legal() {
        let mut codes: Vec<_> = Kind::ALL.iter().map(|k| k.code()).collect();
        for kind in Kind::ALL {
            assert!(
                StatusCode::from_u16(kind.number()).is_ok_and(|s| s.is_client_error() || s.is_server_error())
            );
        }
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Kind::ALL.len());
    }
}
