//! Signatures of Standard Webhooks 1.0: HMAC-SHA256 over `id.timestamp.body`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use super::super::Timestamp;

/// What a secret's text begins with.
const PREFIX: &str = "whsec_";
/// What a signature begins with: its scheme.
const SCHEME: &str = "v1,";

/// How old, or how far ahead, a timestamp may be (as the official libraries have it).
pub const TOLERANCE: Duration = Duration::from_mins(5);

/// A text that is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not 'whsec_' and the base64 of 24 to 64 random bytes; make one with `flux webhooks secret`")]
pub struct InvalidSecret;

/// A key to sign with. Prints nothing.
#[derive(Clone)]
pub struct WebhookSecret(hmac::Key);

impl WebhookSecret {
    /// Reads `whsec_…`.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let bytes = text.trim().strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok());
        let bytes = bytes.filter(|bytes| (24..=64).contains(&bytes.len())).ok_or(InvalidSecret)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The text of a secret with these bytes.
    #[must_use]
    pub fn text(bytes: &[u8]) -> String {
        format!("{PREFIX}{}", STANDARD.encode(bytes))
    }
}

impl std::fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

/// The value of `webhook-signature`: one signature per secret, so that receivers may change theirs in their own time.
#[must_use]
pub fn sign(secrets: &[WebhookSecret], id: &str, seconds: i64, body: &str) -> String {
    let signed = signed(id, seconds, body);
    let one = |secret: &WebhookSecret| {
        format!("{SCHEME}{}", STANDARD.encode(hmac::sign(&secret.0, signed.as_bytes())))
    };
    secrets.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Why a message is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No signature was made with one of the secrets over these bytes.
    #[error("the signature does not fit")]
    Wrong,
    /// The timestamp is no number of seconds.
    #[error("the timestamp is not a number of seconds")]
    NotATime,
    /// The timestamp is too old or too new: perhaps somebody says it again.
    #[error("the timestamp is more than five minutes off")]
    OutOfTime,
}

/// Checks a message as a receiver does: one good signature is enough.
pub fn verify(
    secrets: &[WebhookSecret],
    (id, timestamp, signatures): (&str, &str, &str),
    body: &str,
    now: Timestamp,
) -> Result<(), SignatureError> {
    let seconds: i64 = timestamp.parse().map_err(|_| SignatureError::NotATime)?;
    let signed = signed(id, seconds, body);
    let fits = |signature: &str| {
        let bytes = signature.strip_prefix(SCHEME).and_then(|text| STANDARD.decode(text).ok());
        bytes.is_some_and(|bytes| {
            secrets.iter().any(|secret| hmac::verify(&secret.0, signed.as_bytes(), &bytes).is_ok())
        })
    };
    if !signatures.split(' ').any(fits) {
        return Err(SignatureError::Wrong);
    }
    let sent = Timestamp::from_micros(seconds.saturating_mul(1_000_000));
    let off = now.since(sent).max(sent.since(now));
    if off > TOLERANCE { Err(SignatureError::OutOfTime) } else { Ok(()) }
}

fn signed(id: &str, seconds: i64, body: &str) -> String {
    format!("{id}.{seconds}.{body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the official libraries' own tests.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const SECONDS: i64 = 1_614_265_330;
    const BODY: &str = r#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn secret(text: &str) -> WebhookSecret {
        WebhookSecret::parse(text).unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::from_micros(SECONDS * 1_000_000)
    }

    #[test]
    fn the_published_example_comes_out() {
        assert_eq!(sign(&[secret(SECRET)], ID, SECONDS, BODY), SIGNATURE);
    }

    #[test]
    fn every_secret_signs_and_one_is_enough() {
        let other = secret(&WebhookSecret::text(&[7; 32]));
        let both = sign(&[other.clone(), secret(SECRET)], ID, SECONDS, BODY);
        assert_eq!(both.split(' ').count(), 2);
        let at = SECONDS.to_string();
        for one in [other, secret(SECRET)] {
            assert_eq!(verify(&[one], (ID, &at, &both), BODY, now()), Ok(()));
        }
        let third = secret(&WebhookSecret::text(&[8; 24]));
        assert_eq!(verify(&[third], (ID, &at, &both), BODY, now()), Err(SignatureError::Wrong));
    }

    #[test]
    fn what_was_changed_or_is_old_is_refused() {
        let (secrets, at) = ([secret(SECRET)], SECONDS.to_string());
        let wrong = Err(SignatureError::Wrong);
        assert_eq!(verify(&secrets, (ID, &at, SIGNATURE), "{}", now()), wrong);
        assert_eq!(verify(&secrets, ("msg_2", &at, SIGNATURE), BODY, now()), wrong);
        assert_eq!(verify(&secrets, (ID, "1614265331", SIGNATURE), BODY, now()), wrong);
        assert_eq!(verify(&secrets, (ID, "soon", SIGNATURE), BODY, now()), Err(SignatureError::NotATime));
        let late = now().plus(TOLERANCE).plus(Duration::from_secs(1));
        assert_eq!(verify(&secrets, (ID, &at, SIGNATURE), BODY, late), Err(SignatureError::OutOfTime));
    }

    #[test]
    fn secrets_are_long_enough_and_print_nothing() {
        for bad in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_!"] {
            assert!(WebhookSecret::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(format!("{:?}", secret(SECRET)), "WebhookSecret(…)");
    }
}
