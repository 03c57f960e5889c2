//! Sources at http and https URLs (RFC 9110 §13, §14).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName,
    HeaderValue, IF_MATCH, LAST_MODIFIED, LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::{RequestBuilder, Response, StatusCode};
use url::Url;

use super::{ByteStream, Extent, Opened, Origin, OriginError, Pin, empty};
use crate::domain::Code;
use crate::storage::http::{HttpClients, chain, refusal};

/// Hops followed from one URL.
const MAX_REDIRECTS: usize = 5;
/// Headers a client may not set: they decide framing, ranges and validators, which are ours.
const OWN_HEADERS: [&str; 12] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "if-match",
    "if-none-match",
    "if-range",
    "range",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// A URL with what is sent along to its own origin and no other.
pub(crate) struct HttpRequest {
    url: Url,
    user: Option<(String, Option<String>)>,
    headers: HeaderMap,
}

/// Why a URL and its headers make no request; the second half of a sentence about a source or a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error("URL cannot be read")]
    Url,
    #[error("headers name one that this server sets itself")]
    OwnHeader,
    #[error("headers hold characters that no header may have")]
    Header,
}

impl HttpRequest {
    /// Takes the URL apart; userinfo becomes basic authentication.
    ///
    /// # Errors
    /// [`BadRequest`].
    pub(crate) fn parse(text: &str, headers: &BTreeMap<String, String>) -> Result<Self, BadRequest> {
        let mut url = Url::parse(text).map_err(|_| BadRequest::Url)?;
        let decoded = |s: &str| percent_encoding::percent_decode_str(s).decode_utf8_lossy().into_owned();
        let user = (!url.username().is_empty() || url.password().is_some())
            .then(|| (decoded(url.username()), url.password().map(decoded)));
        strip(&mut url);
        let mut sent = HeaderMap::new();
        for (name, value) in headers {
            if OWN_HEADERS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
                return Err(BadRequest::OwnHeader);
            }
            let pair =
                HeaderName::try_from(name.as_str()).ok().zip(HeaderValue::try_from(value.as_str()).ok());
            let Some((name, mut value)) = pair else {
                return Err(BadRequest::Header);
            };
            value.set_sensitive(true);
            sent.insert(name, value);
        }
        Ok(Self { url, user, headers: sent })
    }

    /// The URL without userinfo.
    #[must_use]
    pub(crate) const fn url(&self) -> &Url {
        &self.url
    }

    /// Whether the client's headers have this one.
    #[must_use]
    pub(crate) fn has_header(&self, name: HeaderName) -> bool {
        self.headers.contains_key(name)
    }

    /// Adds headers and login to a request for `url`, where that is the origin they were given for.
    pub(crate) fn dress(&self, url: &Url, mut request: RequestBuilder) -> RequestBuilder {
        if url.origin() == self.url.origin() {
            request = request.headers(self.headers.clone());
            if let Some((user, password)) = &self.user {
                request = request.basic_auth(user, password.as_ref());
            }
        }
        request
    }
}

/// An http or https URL, read in ranges.
pub(crate) struct HttpOrigin {
    clients: Arc<HttpClients>,
    request: HttpRequest,
    header_timeout: Duration,
    /// Where redirects led: later ranges go there directly.
    location: Mutex<Url>,
}

impl HttpOrigin {
    /// An origin; nothing is asked yet.
    #[must_use]
    pub(crate) fn new(clients: Arc<HttpClients>, request: HttpRequest, header_timeout: Duration) -> Self {
        let location = Mutex::new(request.url.clone());
        Self { clients, request, header_timeout, location }
    }

    /// Asks for a range from `from`, following redirects by hand so that every hop is checked.
    async fn ask(
        &self,
        from: Url,
        range: &Range<u64>,
        pin: Option<&Pin>,
    ) -> Result<(Url, Response), OriginError> {
        let mut url = from;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(&url, range, pin).await?;
            let target = match response.status() {
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => response.headers().get(LOCATION),
                _ => return Ok((url, response)),
            };
            let next = target.and_then(|value| value.to_str().ok()).and_then(|text| url.join(text).ok());
            url = next.ok_or_else(|| {
                OriginError::refused(Code::SourceUnreachable, "The source's server redirects to nowhere.")
            })?;
            // Userinfo in a redirect is the other server's idea, never ours.
            strip(&mut url);
        }
        Err(OriginError::refused(Code::SourceUnreachable, "The source's server redirects too often."))
    }

    async fn send(&self, url: &Url, range: &Range<u64>, pin: Option<&Pin>) -> Result<Response, OriginError> {
        let client = self.clients.guarded(url).map_err(OriginError::Refused)?;
        let mut request = self
            .request
            .dress(url, client.get(url.clone()))
            .header(ACCEPT_ENCODING, "identity")
            .header(RANGE, format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        if let Some(tag) = pin.and_then(Pin::strong_etag) {
            request = request.header(IF_MATCH, tag);
        }
        match tokio::time::timeout(self.header_timeout, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(sending(&error)),
            Err(_) => Err(OriginError::transient("its server did not answer in time", "no response header")),
        }
    }

    fn location(&self) -> Url {
        self.location.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks where the source was last seen and, when a redirect's target has expired, from the beginning again.
    async fn reach(&self, range: &Range<u64>, pin: Option<&Pin>) -> Result<Response, OriginError> {
        let last = self.location();
        let (mut url, mut response) = self.ask(last.clone(), range, pin).await?;
        if is_gone(response.status()) && last != self.request.url {
            (url, response) = self.ask(self.request.url.clone(), range, pin).await?;
        }
        if response.status().is_success() {
            *self.location.lock().unwrap_or_else(PoisonError::into_inner) = url;
        }
        Ok(response)
    }
}

#[async_trait]
impl Origin for HttpOrigin {
    async fn open(&self, first: u64) -> Result<Opened, OriginError> {
        let response = self.reach(&(0..first), None).await?;
        let headers = response.headers();
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                identity(headers)?;
                let part = ContentRange::of(headers)?;
                let size = part.total.ok_or_else(|| {
                    OriginError::refused(
                        Code::SourceUnreachable,
                        "The source's server does not say how large it is.",
                    )
                })?;
                if part.range.start != 0 || part.range.end > first || part.range.is_empty() {
                    return Err(not_the_range());
                }
                let pin = pin_of(headers, Some(size));
                Ok(Opened { pin, extent: Extent::Range(part.range), body: body(response) })
            }
            StatusCode::OK => {
                identity(headers)?;
                let pin = pin_of(headers, content_length(headers));
                Ok(Opened { pin, extent: Extent::Whole, body: body(response) })
            }
            StatusCode::RANGE_NOT_SATISFIABLE if ContentRange::says_empty(headers) => {
                Err(OriginError::Refused(empty()))
            }
            status => Err(status_error(status, headers)),
        }
    }

    async fn range(&self, pin: &Pin, range: Range<u64>) -> Result<ByteStream, OriginError> {
        let response = self.reach(&range, Some(pin)).await?;
        let headers = response.headers();
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                identity(headers)?;
                let part = ContentRange::of(headers)?;
                if part.range.start != range.start || part.range.end > range.end {
                    return Err(not_the_range());
                }
                let now = pin_of(headers, part.total);
                if !pin.agrees(&now) {
                    return Err(OriginError::changed(format!("pinned {pin:?}, now {now:?}")));
                }
                Ok(body(response))
            }
            StatusCode::OK => {
                let now = pin_of(headers, content_length(headers));
                if !pin.agrees(&now) {
                    return Err(OriginError::changed(format!("pinned {pin:?}, now {now:?}")));
                }
                Err(OriginError::refused(
                    Code::SourceUnreachable,
                    "The source's server stopped answering range requests.",
                ))
            }
            StatusCode::PRECONDITION_FAILED => Err(OriginError::changed("412 to If-Match")),
            StatusCode::RANGE_NOT_SATISFIABLE => Err(OriginError::changed("416 inside the pinned size")),
            status => Err(status_error(status, headers)),
        }
    }
}

/// Takes userinfo and fragment away.
pub(in crate::storage) fn strip(url: &mut Url) {
    // Both fail only for URLs that cannot have userinfo.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
}

const fn is_gone(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE
    )
}

fn sending(error: &reqwest::Error) -> OriginError {
    if let Some(failure) = refusal(error) {
        return OriginError::Refused(failure);
    }
    let what = match error {
        e if e.is_timeout() => "its server could not be reached in time",
        e if e.is_connect() => "its server could not be reached",
        _ => "the connection broke off",
    };
    OriginError::transient(what, chain(error))
}

fn status_error(status: StatusCode, headers: &HeaderMap) -> OriginError {
    let number = status.as_u16();
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            OriginError::refused(Code::SourceNotFound, &format!("The source does not exist (HTTP {number})."))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => OriginError::refused(
            Code::SourceForbidden,
            &format!("The source's server refused access (HTTP {number})."),
        ),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            busy(number, headers)
        }
        status if status.is_server_error() => busy(number, headers),
        _ => OriginError::refused(
            Code::SourceUnreachable,
            &format!("The source's server answered HTTP {number}, which gives no file."),
        ),
    }
}

fn busy(number: u16, headers: &HeaderMap) -> OriginError {
    OriginError::Transient {
        what: format!("its server answered HTTP {number}"),
        detail: String::new(),
        after: retry_after(headers),
    }
}

/// How long a server asks to wait, where it says so in seconds.
pub(in crate::storage) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn not_the_range() -> OriginError {
    OriginError::refused(
        Code::SourceUnreachable,
        "The source's server sent another range than it was asked for.",
    )
}

/// Refuses an encoded body: its bytes are not the file's.
fn identity(headers: &HeaderMap) -> Result<(), OriginError> {
    match headers.get(CONTENT_ENCODING) {
        Some(value) if !value.as_bytes().eq_ignore_ascii_case(b"identity") => Err(OriginError::refused(
            Code::SourceUnreachable,
            "The source's server compresses the file although it was asked not to.",
        )),
        _ => Ok(()),
    }
}

fn pin_of(headers: &HeaderMap, size: Option<u64>) -> Pin {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).map(str::to_owned);
    Pin { size, etag: text(ETAG), last_modified: text(LAST_MODIFIED) }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn body(response: Response) -> ByteStream {
    response
        .bytes_stream()
        .map(|chunk| chunk.map_err(|error| OriginError::transient("the connection broke off", chain(&error))))
        .boxed()
}

/// `Content-Range: bytes 0-99/1234` (RFC 9110 §14.4).
struct ContentRange {
    range: Range<u64>,
    total: Option<u64>,
}

impl ContentRange {
    fn of(headers: &HeaderMap) -> Result<Self, OriginError> {
        headers
            .get(CONTENT_RANGE)
            .and_then(|v| v.to_str().ok())
            .and_then(Self::parse)
            .ok_or_else(not_the_range)
    }

    fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?);
        let total = match total.trim() {
            "*" => None,
            number => Some(number.parse::<u64>().ok()?),
        };
        let range = first..last.checked_add(1)?;
        let fits = first <= last && total.is_none_or(|total| range.end <= total);
        fits.then_some(Self { range, total })
    }

    fn says_empty(headers: &HeaderMap) -> bool {
        headers.get(CONTENT_RANGE).is_some_and(|value| value.as_bytes() == b"bytes */0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_strictly() {
        let read = |text| ContentRange::parse(text).map(|r| (r.range, r.total));
        assert_eq!(read("bytes 0-99/1234"), Some((0..100, Some(1234))));
        assert_eq!(read("bytes 5-5/*"), Some((5..6, None)));
        for bad in [
            "bytes 9-3/10",
            "bytes 0-10/10",
            "bytes */10",
            "0-9/10",
            "bytes 0-18446744073709551615/*",
            "bytes 0-9",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn userinfo_becomes_credentials_and_leaves_the_url() {
        let request =
            HttpRequest::parse("https://us%65r:p%40ss@h.example/a?q=1#frag", &BTreeMap::new()).unwrap();
        assert_eq!(request.url().as_str(), "https://h.example/a?q=1");
        assert_eq!(request.user, Some(("user".into(), Some("p@ss".into()))));
    }

    #[test]
    fn headers_that_are_ours_or_broken_are_refused() {
        for (name, value) in [("Range", "bytes=0-1"), ("HOST", "x"), ("a b", "x"), ("x", "a\r\nb: c")] {
            let headers = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            assert!(HttpRequest::parse("https://h.example/", &headers).is_err(), "{name}");
        }
    }
}
