//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a quoted string, or a bare token as many clients send.

use http::HeaderMap;

use super::problem::{Kind, Problem};

/// Most characters of a key.
const MAX: usize = 255;

/// The key of a request, if it has one.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let bad = |what: &str| Problem::new(Kind::InvalidRequest, format!("Idempotency-Key {what}"));
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(bad("is given twice"));
    }
    let text = value.to_str().map_err(|_| bad("must be ASCII"))?.trim();
    let key = match text.strip_prefix('"') {
        Some(rest) => unquote(rest).ok_or_else(|| bad("has a broken quoted string"))?,
        None if text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b',') => text.to_owned(),
        None => return Err(bad("must be a quoted string or a token")),
    };
    if (1..=MAX).contains(&key.len()) { Ok(Some(key)) } else { Err(bad("must have 1 to 255 characters")) }
}

/// The content of a structured-field string (RFC 8941 §3.3.3) after its opening quote.
fn unquote(rest: &str) -> Option<String> {
    let mut out = String::with_capacity(rest.len());
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return chars.as_str().is_empty().then_some(out),
            '\\' => out.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
            c if c.is_ascii() && !c.is_ascii_control() => out.push(c),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(text: &str) -> Result<Option<String>, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", HeaderValue::from_str(text).unwrap());
        key(&headers)
    }

    #[test]
    fn quoted_and_bare() {
        assert_eq!(read("\"a b\\\"c\"").unwrap().as_deref(), Some("a b\"c"));
        assert_eq!(read("8e03978e-40d5-43dd").unwrap().as_deref(), Some("8e03978e-40d5-43dd"));
        assert_eq!(read("\"x\"").unwrap(), read("x").unwrap());
        assert_eq!(key(&HeaderMap::new()).unwrap(), None);
        for bad in ["", "\"\"", "\"a", "\"a\\x\"", "\"a\"b", "a b", "a,b", &"x".repeat(256)] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
