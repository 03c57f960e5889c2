//! Talking to a server: one place that knows URLs, keys and what an error answer means for the exit code.

use std::fmt::Write as _;

use anyhow::Context;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use tokio::io::AsyncRead;

use super::args::Server;
use super::{Exit, Failed};

/// A server's API.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

impl Client {
    pub(super) fn new(server: &Server) -> Result<Self, Failed> {
        let base = server.url.trim_end_matches('/').to_owned();
        let known = base.starts_with("http://") || base.starts_with("https://");
        if !known {
            return Err(Failed::msg(
                Exit::Usage,
                format_args!("--url must start with http:// or https://, not {base:?}"),
            ));
        }
        let http = reqwest::Client::builder()
            .user_agent(concat!("flux/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(std::time::Duration::from_secs(10))
            .build()
            .context("cannot make an HTTP client")?;
        Ok(Self { http, base, key: server.api_key.clone() })
    }

    /// Asks for JSON below `/api/v1`.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failed> {
        json(self.send(self.request(Method::GET, path)).await?).await
    }

    /// Sends JSON (or nothing) below `/api/v1`.
    pub(super) async fn post(
        &self,
        path: &str,
        body: Option<&Value>,
        idempotency: Option<&str>,
    ) -> Result<Value, Failed> {
        let mut request = self.request(Method::POST, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(key) = idempotency {
            request = request.header("idempotency-key", key);
        }
        json(self.send(request).await?).await
    }

    /// Deletes below `/api/v1`.
    pub(super) async fn delete(&self, path: &str) -> Result<(), Failed> {
        self.send(self.request(Method::DELETE, path)).await.map(drop)
    }

    /// Opens an event stream below `/api/v1`.
    pub(super) async fn stream(&self, path: &str, last: Option<&str>) -> Result<Response, Failed> {
        let mut request = self.request(Method::GET, path).header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        self.send(request).await
    }

    /// Puts bytes where an upload's answer said, with what it said; its entity tag, where there is one. The URL is signed:
    /// the key stays here.
    pub(super) async fn put_bytes(
        &self,
        url: &str,
        headers: &Value,
        (bytes, size): (impl AsyncRead + Send + 'static, u64),
    ) -> Result<Option<String>, Failed> {
        let target = if url.starts_with('/') { format!("{}{url}", self.base) } else { url.to_owned() };
        let mut request = self.http.put(&target).header("content-length", size);
        for (name, value) in headers.as_object().into_iter().flatten() {
            request = request.header(name, value.as_str().unwrap_or_default());
        }
        let body = reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::new(bytes));
        let response = self.send(request.body(body)).await?;
        let etag = response.headers().get("etag").and_then(|etag| etag.to_str().ok());
        Ok(etag.map(str::to_owned))
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}/api/v1{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, Failed> {
        let response = request.send().await.map_err(|error| unreachable(&self.base, error))?;
        if response.status().is_success() { Ok(response) } else { Err(refused(response).await) }
    }
}

/// What a person can act on: the innermost cause, and what it most likely means.
fn unreachable(base: &str, error: reqwest::Error) -> Failed {
    // A signed URL goes to a storage, and must not be shown.
    let asked = error.url().and_then(|url| url.host_str().map(|host| format!("{}://{host}", url.scheme())));
    let own = error.url().is_none_or(|url| url.as_str().starts_with(base));
    let base = if own { base.to_owned() } else { asked.unwrap_or_default() };
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let hint = if own && error.is_connect() { "; is `flux serve` running there?" } else { "" };
    Failed::msg(Exit::Unavailable, format_args!("cannot reach {base}: {cause}{hint}"))
}

async fn json(response: Response) -> Result<Value, Failed> {
    response.json().await.map_err(|error| {
        Failed::new(Exit::Unavailable, anyhow::Error::new(error).context("the server's answer is not JSON"))
    })
}

/// An error answer, with every fault it lists.
async fn refused(response: Response) -> Failed {
    let status = response.status();
    let problem: Value = response.json().await.unwrap_or_default();
    let mut text =
        problem["detail"].as_str().or(problem["title"].as_str()).unwrap_or(status.as_str()).to_owned();
    // The detail names a single fault itself.
    for fault in problem["errors"].as_array().filter(|faults| faults.len() > 1).into_iter().flatten() {
        let (pointer, detail) =
            (fault["pointer"].as_str().unwrap_or(""), fault["detail"].as_str().unwrap_or(""));
        let _ = write!(text, "\n  {pointer}: {detail}");
    }
    Failed::msg(exit_for(status), text)
}

fn exit_for(status: StatusCode) -> Exit {
    match status.as_u16() {
        401 | 403 => Exit::Auth,
        404 | 410 => Exit::NotFound,
        400 | 409 | 413 | 415 | 422 => Exit::Validation,
        429 | 500.. => Exit::Unavailable,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_their_exit_codes() {
        let cases =
            [(401, Exit::Auth), (404, Exit::NotFound), (422, Exit::Validation), (503, Exit::Unavailable)];
        for (status, exit) in cases {
            assert_eq!(exit_for(StatusCode::from_u16(status).unwrap()), exit);
        }
    }
}
