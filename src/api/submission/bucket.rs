//! Buckets in a request, for sources and destinations alike: where they are and with whose credentials.

use serde_json::Value;
use url::Url;

use crate::api::fields::{Faults, Fields, Place};
use crate::domain::limits::MAX_URL_BYTES;
use crate::domain::{Access, Bucket, Credentials};

/// Longest key, token or password.
const MAX_SECRET_BYTES: usize = 8 * 1024;
/// Longest service account file.
const MAX_ACCOUNT_BYTES: usize = 16 * 1024;

/// Which protocol the bucket speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Provider {
    S3,
    Gcs,
    Azure,
}

impl Provider {
    /// By the name of a kind.
    pub(super) fn of(kind: &str) -> Option<Self> {
        match kind {
            "s3" => Some(Self::S3),
            "gcs" | "gs" => Some(Self::Gcs),
            "azure" | "az" => Some(Self::Azure),
            _ => None,
        }
    }
}

/// A bucket and who uses it.
pub(super) struct BucketDraft {
    pub(super) bucket: Bucket,
    pub(super) access: Access,
    pub(super) credentials: Option<Credentials>,
}

/// Takes the fields that say where a bucket is and who uses it.
pub(super) fn read(provider: Provider, fields: &mut Fields<'_>) -> Option<BucketDraft> {
    let endpoint = fields.string("endpoint").map(|place| endpoint(place, fields.faults));
    let bucket = match provider {
        Provider::S3 => {
            let name = name(fields, "bucket");
            let region = fields.string("region").map(|place| token(place, 64, "a region", fields.faults));
            let path_style = fields.flag("path_style");
            Bucket::S3 { name: name?, region: all(region)?, endpoint: all(endpoint)?, path_style }
        }
        Provider::Gcs => Bucket::Gcs { name: name(fields, "bucket")?, endpoint: all(endpoint)? },
        Provider::Azure => {
            let (account, container) = (name(fields, "account"), name(fields, "container"));
            Bucket::Azure { account: account?, container: container?, endpoint: all(endpoint)? }
        }
    };
    let given = match provider {
        Provider::S3 => s3_key(fields),
        Provider::Gcs => google(fields),
        Provider::Azure => azure(fields),
    };
    let profile = fields.string("profile").map(|place| {
        let at = place.at.clone();
        token(place, 64, "a profile's name", fields.faults).map(|name| Place { at, value: name })
    });
    let (credentials, profile) = (all(given)?, all(profile)?);
    let access = match (&credentials, profile) {
        (Some(_), Some(profile)) => {
            fields.faults.add(profile.at, "cannot stand beside credentials");
            return None;
        }
        (Some(_), None) => Access::Request,
        (None, Some(profile)) => Access::Profile { name: profile.value },
        (None, None) => Access::Unsaid,
    };
    Some(BucketDraft { bucket, access, credentials })
}

/// A field that was given and could not be read has left its fault: `None` for the whole.
#[expect(clippy::option_option, reason = "absent and wrong are two things")]
fn all<T>(field: Option<Option<T>>) -> Option<Option<T>> {
    field.map_or(Some(None), |read| read.map(Some))
}

fn name(fields: &mut Fields<'_>, field: &'static str) -> Option<String> {
    let place = fields.required_string(field)?;
    token(place, 255, "a name", fields.faults)
}

/// Letters, digits, `.`, `_` and `-`: what may stand in a host or a path as it is.
fn token(place: Place<String>, most: usize, what: &str, faults: &Faults) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let text = &place.value;
    if (1..=most).contains(&text.len()) && text.bytes().all(plain) && !text.bytes().all(|b| b == b'.') {
        return Some(place.value);
    }
    faults.add(place.at, format!("is not {what} of 1 to {most} letters, digits, '.', '_', '-'"));
    None
}

fn endpoint(place: Place<String>, faults: &Faults) -> Option<String> {
    let plain = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some_and(|host| !host.is_empty())
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    match Url::parse(place.value.trim()).ok().filter(plain) {
        Some(url) if place.value.len() <= MAX_URL_BYTES => {
            Some(url.as_str().trim_end_matches('/').to_owned())
        }
        _ => {
            faults.add(place.at, "must be an http or https URL without login, query and fragment");
            None
        }
    }
}

/// A secret: any text without control characters. Never repeated in a fault.
pub(super) fn secret(place: Place<String>, faults: &Faults) -> Option<String> {
    let fits = !place.value.is_empty()
        && place.value.len() <= MAX_SECRET_BYTES
        && !place.value.chars().any(char::is_control);
    if !fits {
        faults.add(place.at, format!("must be 1 to {MAX_SECRET_BYTES} bytes without control characters"));
        return None;
    }
    Some(place.value)
}

#[expect(clippy::option_option, reason = "absent and wrong are two things")]
fn s3_key(fields: &mut Fields<'_>) -> Option<Option<Credentials>> {
    let id = fields.string("access_key_id");
    let key = fields.either("secret_access_key", "access_key_secret");
    let session = fields.string("session_token");
    let faults = fields.faults;
    match (id, key) {
        (None, None) => {
            let session = session?;
            faults.add(session.at, "needs access_key_id and secret_access_key as well");
            Some(None)
        }
        (Some(id), None) => {
            faults.add(id.at, "needs secret_access_key as well");
            Some(None)
        }
        (None, Some(key)) => {
            faults.add(key.at, "needs access_key_id as well");
            Some(None)
        }
        (Some(id), Some(key)) => {
            let (id, key) = (secret(id, faults), secret(key, faults));
            let session = session.map(|place| secret(place, faults));
            Some(id.zip(key).zip(all(session)).map(|((access_key_id, secret_access_key), session_token)| {
                Credentials::S3 { access_key_id, secret_access_key, session_token }
            }))
        }
    }
}

#[expect(clippy::option_option, reason = "absent and wrong are two things")]
fn google(fields: &mut Fields<'_>) -> Option<Option<Credentials>> {
    let account = fields.take("service_account");
    let token = fields.string("access_token");
    let faults = fields.faults;
    if let (Some(account), Some(token)) = (&account, &token) {
        faults.add(token.at.as_str(), format!("cannot stand beside {}", account.at));
        return Some(None);
    }
    if let Some(place) = token {
        return Some(secret(place, faults).map(|token| Credentials::Bearer { token }));
    }
    account.map(|place| service_account(place, faults))
}

/// The key file, as an object or as its text. Only what names and proves the account is kept: such a file can also name
/// servers, which are not the request's to choose.
fn service_account(place: Place<Value>, faults: &Faults) -> Option<Credentials> {
    let document = match place.value {
        Value::String(text) if text.len() <= MAX_ACCOUNT_BYTES => {
            serde_json::from_str(&text).unwrap_or_default()
        }
        other => other,
    };
    let text = |name: &str| document.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let kept: Option<serde_json::Map<_, _>> = ["client_email", "private_key", "private_key_id"]
        .into_iter()
        .map(|name| Some((name.to_owned(), Value::from(text(name)?))))
        .collect();
    match kept {
        Some(kept) if text("type").is_none_or(|kind| kind == "service_account") => {
            let json = Value::Object(kept).to_string();
            if json.len() <= MAX_ACCOUNT_BYTES {
                return Some(Credentials::ServiceAccount { json });
            }
        }
        _ => {}
    }
    let detail = "must be a service account's key file: client_email, private_key, private_key_id";
    faults.add(place.at, detail);
    None
}

#[expect(clippy::option_option, reason = "absent and wrong are two things")]
fn azure(fields: &mut Fields<'_>) -> Option<Option<Credentials>> {
    let given = [
        fields.string("account_key").map(|place| (Kind::Key, place)),
        fields.string("sas_token").map(|place| (Kind::Sas, place)),
        fields.string("access_token").map(|place| (Kind::Bearer, place)),
    ];
    let mut given = given.into_iter().flatten();
    let (kind, place) = given.next()?;
    if let Some((_, second)) = given.next() {
        fields.faults.add(second.at, format!("cannot stand beside {}", place.at));
        return Some(None);
    }
    Some(secret(place, fields.faults).map(|text| match kind {
        Kind::Key => Credentials::AccountKey { key: text },
        Kind::Sas => Credentials::Sas { token: text.trim_start_matches('?').to_owned() },
        Kind::Bearer => Credentials::Bearer { token: text },
    }))
}

enum Kind {
    Key,
    Sas,
    Bearer,
}
