//! What an object store's error means.
//!
//! `object_store` keeps the status and body of an answer in a private type; the body's `<Code>` is read from its text.

use crate::domain::{Code, Failure};

/// An answer that decides something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Aborted, completed or never there.
    NoSuchUpload,
    /// No object at the key.
    NoSuchKey,
    /// No such bucket.
    NoSuchBucket,
    /// The condition `If-None-Match: *` failed.
    Taken,
    /// The store does not know this request.
    NotImplemented,
    /// Credentials or rights.
    Forbidden,
    /// The bucket is in another region than the request was signed for.
    Elsewhere,
    /// The store is full.
    NoSpace,
    /// A request that will not get better by repeating it.
    Refused,
    /// No answer, or a server error after retries.
    Unreachable,
}

/// The code in an answer's body.
fn code_in(text: &str) -> &str {
    let (_, rest) = text.split_once("<Code>").unwrap_or_default();
    rest.split_once("</Code>").map_or("", |(code, _)| code)
}

/// An error for the operator, without the body of an answer: a store that does not like a signature repeats there what
/// it was sent, the token of temporary credentials included.
pub(in crate::storage) fn told(error: &object_store::Error) -> String {
    let text = error.to_string();
    let code = code_in(&text);
    let plain = (1..=64).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let after = |mark: &str| Some(text.find(mark)? + mark.len());
    // "status code: 403 Forbidden: BODY" and "error response: BODY", as `object_store` writes them.
    let status =
        after("status code: ").map(|from| text[from..].find(": ").map_or(text.len(), |end| from + end));
    let end = status.or(after("error response: ")).unwrap_or(text.len());
    let said = text[..end].trim_end_matches([':', ' ']);
    if plain { format!("{said}: {code}") } else { said.to_owned() }
}

/// Reads an error.
pub(super) fn answer(error: &object_store::Error) -> Answer {
    let text = error.to_string();
    match code_in(&text) {
        "NoSuchUpload" => return Answer::NoSuchUpload,
        "NoSuchBucket" => return Answer::NoSuchBucket,
        "NotImplemented" => return Answer::NotImplemented,
        "XMinioStorageFull" | "QuotaExceeded" | "InsufficientStorage" => return Answer::NoSpace,
        "AuthorizationHeaderMalformed" | "ExpiredToken" | "InvalidToken" if !is_elsewhere(&text) => {
            return Answer::Forbidden;
        }
        _ if is_elsewhere(&text) => return Answer::Elsewhere,
        _ => {}
    }
    match error {
        // HEAD has no body to say which 404 it is; there it can only be the key or the bucket.
        object_store::Error::NotFound { .. } => Answer::NoSuchKey,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Answer::Forbidden
        }
        object_store::Error::Precondition { .. } => Answer::Taken,
        object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. } => {
            Answer::NotImplemented
        }
        object_store::Error::InvalidPath { .. } => Answer::Refused,
        // A 501 comes as a server error after all retries.
        _ if text.contains("status code: 501") => Answer::NotImplemented,
        _ if text.contains("status code: 507") => Answer::NoSpace,
        _ if is_refusal(&text) => Answer::Refused,
        _ => Answer::Unreachable,
    }
}

/// What a bucket answers to requests that were signed for another region. Without an endpoint of its own nobody else
/// redirects.
pub(in crate::storage) fn is_elsewhere(text: &str) -> bool {
    let named = text.contains("AuthorizationHeaderMalformed") && text.contains("region");
    named
        || ["PermanentRedirect", "IllegalLocationConstraint", "without LOCATION"]
            .into_iter()
            .any(|mark| text.contains(mark))
}

/// A definite no that is none of the known ones, such as the 400 to a HEAD request, which has no body to say why.
pub(in crate::storage) fn is_refusal(text: &str) -> bool {
    text.contains("status code: 4")
        && !text.contains("status code: 408")
        && !text.contains("status code: 429")
}

/// The failure that a client reads.
pub(in crate::storage) fn failure(error: &object_store::Error) -> Failure {
    if let Some(failure) = super::blocked(error) {
        return crate::storage::policy::of_destination(failure);
    }
    let (code, sentence) = match answer(error) {
        Answer::NoSuchBucket => (Code::DestinationForbidden, "the destination's bucket does not exist"),
        Answer::Forbidden => (Code::DestinationForbidden, "the object store refused the credentials"),
        Answer::Elsewhere => {
            (Code::DestinationForbidden, "the destination's bucket is in another region than was said")
        }
        Answer::Refused | Answer::NotImplemented => {
            (Code::DestinationForbidden, "the object store refused the request")
        }
        Answer::Taken => {
            (Code::DestinationExists, "the destination already exists and overwriting is not allowed")
        }
        Answer::NoSpace => (Code::DiskFull, "no room is left at the destination"),
        Answer::NoSuchUpload | Answer::NoSuchKey => {
            (Code::DestinationUnreachable, "the upload at the object store is gone")
        }
        Answer::Unreachable => (Code::DestinationUnreachable, "the object store could not be reached"),
    };
    Failure::new(code, sentence).with_detail(told(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.into() }
    }

    fn not_found(text: &str) -> object_store::Error {
        object_store::Error::NotFound { path: "k".to_owned(), source: text.into() }
    }

    #[test]
    fn answers_are_told_apart_by_code_then_status() {
        let cases = [
            (not_found("404: <Error><Code>NoSuchUpload</Code></Error>"), Answer::NoSuchUpload),
            (not_found("404: <Error><Code>NoSuchBucket</Code></Error>"), Answer::NoSuchBucket),
            (not_found("status code: 404 Not Found: "), Answer::NoSuchKey),
            (generic("Server returned non-2xx status code: 501 Not Implemented: "), Answer::NotImplemented),
            (generic("status code: 507: <Code>XMinioStorageFull</Code>"), Answer::NoSpace),
            (generic("status code: 400 Bad Request: <Code>InvalidPart</Code>"), Answer::Refused),
            (
                generic("status code: 400 Bad Request: <Code>AuthorizationHeaderMalformed</Code>"),
                Answer::Forbidden,
            ),
            (
                generic(
                    "<Code>AuthorizationHeaderMalformed</Code><Message>the region 'a' is wrong</Message>",
                ),
                Answer::Elsewhere,
            ),
            (generic("Received redirect without LOCATION, this normally indicates"), Answer::Elsewhere),
            (generic("status code: 429 Too Many Requests"), Answer::Unreachable),
            (generic("status code: 503 Service Unavailable: <Code>SlowDown</Code>"), Answer::Unreachable),
            (generic("error sending request"), Answer::Unreachable),
        ];
        for (error, expected) in cases {
            assert_eq!(answer(&error), expected, "{error}");
        }
    }

    #[test]
    fn what_a_store_repeats_of_a_request_is_not_told() {
        let body =
            "<Error><Code>SignatureDoesNotMatch</Code><CanonicalRequest>x-amz-security-token:canary: x";
        for (text, expected) in [
            (
                format!(
                    "Error performing PUT http://h/k in 1ms - Server returned non-2xx status code: 403 Forbidden: {body}"
                ),
                "Error performing PUT http://h/k in 1ms - Server returned non-2xx status code: 403 Forbidden: SignatureDoesNotMatch",
            ),
            (
                format!("Server returned error response: {body}"),
                "Server returned error response: SignatureDoesNotMatch",
            ),
            ("status code: 403 Forbidden: {\"you\": \"canary\"}".to_owned(), "status code: 403 Forbidden"),
            (
                "status code: 400 Bad Request: <Code>canary canary</Code>".to_owned(),
                "status code: 400 Bad Request",
            ),
            ("status code: 404 Not Found: ".to_owned(), "status code: 404 Not Found"),
            ("HTTP error: error sending request".to_owned(), "HTTP error: error sending request"),
        ] {
            assert_eq!(told(&generic(&text)), format!("Generic S3 error: {expected}"));
        }
    }

    #[test]
    fn only_the_operator_sees_what_the_store_said() {
        let failure = failure(&generic("status code: 503 http://10.0.0.1/bucket"));
        assert_eq!(failure.code, Code::DestinationUnreachable);
        assert!(!failure.message.contains("10.0.0.1"));
        assert!(failure.detail.contains("10.0.0.1"));
    }
}
