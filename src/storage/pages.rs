//! Reading what a web page or playlist names: bounded, guarded, without credentials.
//!
//! For commands that look at what somebody else has published. The address that a person typed may be anywhere; what
//! it names, or redirects to, must be there too or on the public internet, so that a playlist cannot make this machine
//! ask its neighbours.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use super::http::{HttpClients, SystemLookup, chain, refusal};
use super::policy::{AddressPolicy, AllowRule};

/// Bytes of one answer at most.
const MAX_BYTES: usize = 256 << 20;
/// Redirects followed from one URL.
const MAX_REDIRECTS: usize = 5;
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// How long one answer may take in all.
const WHOLE: Duration = Duration::from_mins(1);

/// Reads pages; see the module.
#[derive(Debug)]
pub struct Pages {
    clients: HttpClients,
}

/// One answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The body; of the range, where one was asked for.
    pub bytes: Vec<u8>,
    /// `Content-Type`, empty without one.
    pub content_type: String,
}

/// Why a page could not be read: the second half of a sentence, without the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PageError(String);

impl Pages {
    /// For what the page at `entry` names.
    ///
    /// # Errors
    /// Not an http or https URL.
    pub fn beside(entry: &Url) -> Result<Self, PageError> {
        let host = entry.host_str().filter(|_| matches!(entry.scheme(), "http" | "https"));
        let host = host.ok_or_else(|| PageError("not an http or https URL".into()))?;
        let port = entry.port_or_known_default().unwrap_or(443);
        let rule = format!("{host}:{port}").parse::<AllowRule>();
        let rule = rule.map_err(|_| PageError("a host that cannot be asked".into()))?;
        let policy = AddressPolicy::new(vec![rule]);
        Ok(Self { clients: HttpClients::new(policy, Arc::new(SystemLookup), CONNECT) })
    }

    /// Reads a page or a range of one. A server that ignores ranges is no fault: the range is cut out here.
    ///
    /// # Errors
    /// Whatever kept it from being read.
    pub async fn get(&self, url: &Url, range: Option<Range<u64>>) -> Result<Page, PageError> {
        let asked = tokio::time::timeout(WHOLE, self.whole(url, range)).await;
        asked.unwrap_or_else(|_| Err(PageError(format!("no answer within {} s", WHOLE.as_secs()))))
    }

    /// Whether the server would send the page compressed; `None` when it does not say.
    pub async fn compresses(&self, url: &Url) -> Option<bool> {
        let asked = self.ask(&Method::HEAD, url, None, "gzip");
        let response = tokio::time::timeout(WHOLE, asked).await.ok()?.ok()?;
        response
            .status()
            .is_success()
            .then(|| header(response.headers(), CONTENT_ENCODING.as_str()) == "gzip")
    }

    async fn whole(&self, url: &Url, range: Option<Range<u64>>) -> Result<Page, PageError> {
        let response = self.ask(&Method::GET, url, range.as_ref(), "identity").await?;
        let status = response.status();
        if !status.is_success() {
            return Err(PageError(format!("status {}", status.as_u16())));
        }
        let content_type = header(response.headers(), CONTENT_TYPE.as_str());
        let mut bytes = Vec::new();
        let mut body = response.bytes_stream();
        while let Some(piece) = body.next().await {
            bytes.extend_from_slice(&piece.map_err(|error| PageError(chain(&error)))?);
            if bytes.len() > MAX_BYTES {
                return Err(PageError(format!("more than {MAX_BYTES} bytes")));
            }
        }
        if let (Some(range), StatusCode::OK) = (range, status) {
            let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
            let (from, to) = (place(range.start), place(range.end));
            bytes.truncate(to);
            bytes.drain(..from.min(to));
        }
        Ok(Page { bytes, content_type })
    }

    async fn ask(
        &self,
        method: &Method,
        url: &Url,
        range: Option<&Range<u64>>,
        encoding: &'static str,
    ) -> Result<Response, PageError> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let client = self.clients.guarded(&url).map_err(|failure| PageError(failure.message))?;
            let mut request = client.request(method.clone(), url.clone()).header(ACCEPT_ENCODING, encoding);
            if let Some(range) = range {
                request =
                    request.header(RANGE, format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
            }
            let response = request.send().await.map_err(|error| {
                let refused = refusal(&error).map(|failure| failure.message);
                PageError(refused.unwrap_or_else(|| chain(&error)))
            })?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let next = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            url = next
                .and_then(|next| url.join(next).ok())
                .ok_or_else(|| PageError("a redirect to nowhere".into()))?;
        }
        Err(PageError("too many redirects".into()))
    }
}

fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}
