//! The `source` object.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde_json::Value;

use super::bucket::{self, BucketDraft, Provider};
use super::{ftp_url, http_url};
use crate::api::fields::{Faults, Fields, Place};
use crate::domain::limits::{MAX_HEADERS, MAX_INLINE_BYTES, MAX_PATH_BYTES};
use crate::domain::{Access, Bucket, Credentials, InvalidPath, JobId, ObjectPath, Source, UploadId};

/// What the storage room serves; it refuses the other kinds by name.
const KNOWN: &str = "http, https, s3, gcs, azure, ftp, ftps, file, inline, upload or storage";

/// Encoders differ about padding; both are plain base64.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A source before the job's id is known.
pub(super) struct SourceDraft {
    pub(super) at: String,
    pub(super) source: Kind,
    /// The whole URL, where the shown one hides something.
    pub(super) sealed_url: Option<String>,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) credentials: Option<Credentials>,
    pub(super) maybe_upload: Option<UploadId>,
}

/// Where the bytes are.
pub(super) enum Kind {
    /// Named by the request.
    Elsewhere(Source),
    /// In the request.
    Inline(Bytes),
}

impl Kind {
    /// The source as stored; inline bytes get a key of their job.
    pub(super) fn finish(self, job: JobId) -> Result<(Source, Option<Bytes>), InvalidPath> {
        match self {
            Self::Elsewhere(source) => Ok((source, None)),
            Self::Inline(bytes) => {
                let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                Ok((Source::Inline { key: ObjectPath::parse(job.to_string())?, size }, Some(bytes)))
            }
        }
    }
}

impl SourceDraft {
    fn of(at: String, source: Kind) -> Self {
        let (headers, credentials) = (BTreeMap::new(), None);
        Self { at, source, sealed_url: None, headers, credentials, maybe_upload: None }
    }

    pub(super) fn plain(at: String, source: Source) -> Self {
        Self::of(at, Kind::Elsewhere(source))
    }

    /// A fetched URL; its secrets are taken out.
    pub(super) fn http(at: String, url: &Place<String>, faults: &Faults) -> Option<Self> {
        let (shown, sealed_url) = http_url(url, faults)?;
        Some(Self { sealed_url, ..Self::plain(at, Source::Http { url: shown }) })
    }

    /// An `ftp` or `ftps` URL; a login in it or beside it is taken out.
    pub(super) fn ftp(
        at: String,
        url: &Place<String>,
        login: [Option<Place<String>>; 2],
        faults: &Faults,
    ) -> Option<Self> {
        let [username, password] = login;
        let (shown, credentials) = ftp_url(url, username, password, faults)?;
        Some(Self { credentials, ..Self::plain(at, Source::Ftp { url: shown }) })
    }

    /// `s3://BUCKET/KEY` and its like.
    pub(super) fn bucket_url(at: String, url: &str, faults: &Faults) -> Option<Self> {
        let Some((bucket, key)) = Bucket::parse_url(url) else {
            let detail = "must be s3://BUCKET/KEY, gs://BUCKET/KEY or az://ACCOUNT/CONTAINER/KEY";
            faults.add(at, detail);
            return None;
        };
        match ObjectPath::parse(key) {
            Ok(path) => Some(Self::plain(at, Source::Bucket { bucket, path, access: Access::Unsaid })),
            Err(error) => {
                faults.add(at, error.to_string());
                None
            }
        }
    }
}

/// Reads `{kind, …}`.
pub(super) fn read(place: Place<Value>, faults: &Faults) -> Option<SourceDraft> {
    let at = place.at.clone();
    let mut fields = Fields::of(place, faults)?;
    let kind = fields.required_string("kind")?;
    let draft = match kind.value.as_str() {
        "http" | "https" => http(at, &mut fields),
        "ftp" | "ftps" => {
            let url = fields.required_string("url");
            let login = [fields.string("username"), fields.string("password")];
            url.and_then(|url| SourceDraft::ftp(at, &url, login, faults))
        }
        "file" => fields.required_string("path").and_then(|path| file(at, path, faults)),
        "inline" => inline(&mut fields).map(|bytes| SourceDraft::of(at, Kind::Inline(bytes))),
        "upload" => upload(at, &mut fields),
        "storage" => fields.required_string("path").and_then(|path| storage(at, path, faults)),
        other => {
            if let Some(provider) = Provider::of(other) {
                let draft = in_bucket(at, provider, &mut fields);
                fields.finish();
                return draft;
            }
            faults.add(kind.at, format!("must be one of {KNOWN}"));
            // The other fields belong to a kind this build does not know; judging them would only mislead.
            return None;
        }
    };
    fields.finish();
    draft
}

/// `{bucket, path, …}`, read with credentials, with a profile's, or with none.
fn in_bucket(source_at: String, provider: Provider, fields: &mut Fields<'_>) -> Option<SourceDraft> {
    let path = fields.either("path", "key");
    if path.is_none() {
        fields.faults.add(fields.at("path"), "is required");
    }
    let draft = bucket::read(provider, fields);
    let anonymous = fields.flag("anonymous").unwrap_or_default();
    let BucketDraft { bucket, access, credentials } = draft?;
    let access = match (access, anonymous) {
        (access, false) => access,
        (Access::Unsaid, true) => Access::Anonymous,
        (_, true) => {
            fields.faults.add(fields.at("anonymous"), "cannot stand beside credentials or a profile");
            return None;
        }
    };
    let Place { at, value } = path?;
    match ObjectPath::parse(value) {
        Ok(path) => {
            let source = Source::Bucket { bucket, path, access };
            Some(SourceDraft { credentials, ..SourceDraft::plain(source_at, source) })
        }
        Err(error) => {
            fields.faults.add(at, error.to_string());
            None
        }
    }
}

fn http(at: String, fields: &mut Fields<'_>) -> Option<SourceDraft> {
    let url = fields.required_string("url");
    let headers = fields.strings("headers", MAX_HEADERS, header_fits);
    let draft = SourceDraft::http(at, &url?, fields.faults)?;
    Some(SourceDraft { headers, ..draft })
}

/// Headers that describe the request itself are the fetcher's own.
pub(super) fn header_fits(name: &str, value: &str) -> Result<(), &'static str> {
    const OWN: [&str; 10] = [
        "host",
        "range",
        "if-range",
        "connection",
        "content-length",
        "transfer-encoding",
        "te",
        "upgrade",
        "accept-encoding",
        "proxy-authorization",
    ];
    if http::HeaderName::from_bytes(name.as_bytes()).is_err() || http::HeaderValue::from_str(value).is_err() {
        Err("is not a legal header")
    } else if OWN.contains(&name.to_ascii_lowercase().as_str()) {
        Err("is set by the server itself")
    } else {
        Ok(())
    }
}

/// A file of this machine; which roots are open is for the storage room to say.
pub(super) fn file(at: String, path: Place<String>, faults: &Faults) -> Option<SourceDraft> {
    if path.value.is_empty() || path.value.len() > MAX_PATH_BYTES * 4 || path.value.contains('\0') {
        faults.add(path.at, "is not a path");
        return None;
    }
    Some(SourceDraft::plain(at, Source::File { path: path.value }))
}

fn storage(source_at: String, path: Place<String>, faults: &Faults) -> Option<SourceDraft> {
    let Place { at, value } = path;
    match ObjectPath::parse(value) {
        Ok(path) => Some(SourceDraft::plain(source_at, Source::Storage { path })),
        Err(error) => {
            faults.add(at, error.to_string());
            None
        }
    }
}

fn upload(at: String, fields: &mut Fields<'_>) -> Option<SourceDraft> {
    let id = fields.required_string("id")?;
    let Ok(upload) = id.value.parse() else {
        fields.faults.add(id.at, "is not an upload id");
        return None;
    };
    Some(SourceDraft::plain(at, Source::Upload { id: upload }))
}

/// The bytes; the seeds do not name the field, so its three usual names are taken (MEDIA-RULES §4).
fn inline(fields: &mut Fields<'_>) -> Option<Bytes> {
    let given: Vec<_> =
        ["data", "content", "base64"].into_iter().filter_map(|name| fields.string(name)).collect();
    let faults = fields.faults;
    let text = match given.as_slice() {
        [] => {
            faults.add(fields.at("data"), "is required");
            return None;
        }
        [one] => one,
        [first, second, ..] => {
            faults
                .add(second.at.as_str(), format!("is another spelling of {}, which is given too", first.at));
            return None;
        }
    };
    let encoded = strip_data_url(&text.value);
    let bytes = if encoded.bytes().any(|b| b.is_ascii_whitespace()) {
        BASE64.decode(encoded.split_ascii_whitespace().collect::<String>())
    } else {
        BASE64.decode(encoded)
    };
    let refuse = |detail: String| {
        faults.add(text.at.as_str(), detail);
        None
    };
    match bytes {
        Err(_) => refuse("is not base64".to_owned()),
        Ok(bytes) if bytes.is_empty() => refuse("is empty".to_owned()),
        Ok(bytes) if bytes.len() > MAX_INLINE_BYTES => {
            refuse(format!("is more than {MAX_INLINE_BYTES} bytes; use an upload"))
        }
        Ok(bytes) => Some(Bytes::from(bytes)),
    }
}

/// `data:video/mp4;base64,AAAA` → `AAAA`.
fn strip_data_url(text: &str) -> &str {
    match text.strip_prefix("data:").and_then(|rest| rest.split_once(',')) {
        Some((head, data)) if head.ends_with(";base64") => data,
        _ => text,
    }
}
