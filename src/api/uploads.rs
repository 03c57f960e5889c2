//! Uploads: a place with a signed URL, then the bytes. Where the storage is a bucket they go there: see [`storage`].

mod storage;

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{StatusCode, Uri, header};
use serde_json::json;
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::auth::Principal;
use super::fields::{Faults, Fields, Place};
use super::params::{self, Params};
use super::problem::{Kind, Problem};
use super::{Api, ByteStream, PREFIX, body};
use crate::domain::{Fault, Folder, UploadId};
use crate::store::UploadRecord;

pub(super) use self::storage::{abandon, claim, complete, is_of};

/// Slowest accepted upload, bytes a second: a 64 KiB allowance in kernel buffers hides nothing below it.
const LEAST_RATE: u64 = 10 * 1024;

/// `POST /uploads`: `{filename, size}` → where to PUT the bytes.
pub(super) async fn create(
    State(api): State<Api>,
    who: Principal,
    request: Request,
) -> Result<Response, Problem> {
    let body = body::read_json(&api, request).await?;
    let asked = read(body.value, body.faults, api.limits.max_upload_bytes).map_err(Problem::invalid)?;
    let place = if let Some(place) = storage::invite(&api, &who, &asked).await? {
        place
    } else {
        let upload = begin(&api, &who, &asked, api.control.folder()).await?;
        let url = format!("{PREFIX}/uploads/{}?token={}", upload.id, sign(&api, upload.id));
        view(&upload, json!({"method": "PUT", "url": url, "headers": {}}))
    };
    Ok((StatusCode::CREATED, axum::Json(place)).into_response())
}

/// Records an upload that will lie in this folder.
async fn begin(api: &Api, who: &Principal, asked: &Asked, folder: Folder) -> Result<UploadRecord, Problem> {
    let upload = UploadRecord {
        id: UploadId::from_uuid(folder.mark(api.ids.random())),
        tenant: who.tenant.clone(),
        name: asked.name.clone(),
        size: asked.size,
        etag: None,
        expires_at: api.clock.now().plus(api.limits.upload_expiry),
    };
    api.control.store().create_upload(&upload).await?;
    Ok(upload)
}

/// `PUT /uploads/{id}?token=…`: the bytes themselves. The token is the right to send them.
pub(super) async fn receive(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    request: Request,
) -> Result<Response, Problem> {
    let id: UploadId = params::id(&id, "upload")?;
    let token = Params::of(&uri).one("token")?.unwrap_or_default();
    // A wrong token and an unknown upload look the same.
    let no_such = || Problem::no_such("upload");
    if !bool::from(token.as_bytes().ct_eq(sign(&api, id).as_bytes())) {
        return Err(no_such());
    }
    let upload = api.control.store().upload(None, id).await?.ok_or_else(no_such)?;
    if upload.expires_at <= api.clock.now() {
        return Err(Problem::new(Kind::Gone, "the upload has expired"));
    }
    if upload.etag.is_some() {
        return Err(Problem::new(Kind::UploadFinished, "its bytes are here; post a new upload for others"));
    }
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length != upload.size) {
        return Err(wrong_size(upload.size));
    }
    let received = store(&api, &upload, request.into_body()).await?;
    api.control.store().upload_done(id, &received).await?;
    Ok(axum::Json(json!({"id": id, "size": upload.size, "sha256": received})).into_response())
}

/// Passes the body on while it keeps its promises: size, pace, and an overall time that its size allows.
async fn store(api: &Api, upload: &UploadRecord, body: Body) -> Result<String, Problem> {
    let allowed = Duration::from_secs(60 + upload.size / LEAST_RATE);
    let watched = watched(body.into_data_stream(), upload.size, api.limits.upload_idle);
    let receiving = api.files.receive_upload(upload, watched);
    let slow = || {
        Problem::new(Kind::RequestTimeout, "the upload came too slowly").retry_after(Duration::from_secs(1))
    };
    tokio::select! {
        () = api.closing.cancelled() => {
            Err(Problem::new(Kind::Unavailable, "the server is stopping").retry_after(Duration::from_secs(5)))
        }
        () = tokio::time::sleep_until(Instant::now() + allowed) => Err(slow()),
        received = receiving => Ok(received?.sha256),
    }
}

/// The body as a stream that errs when it is silent for `idle`, too long or too short.
fn watched(body: BodyDataStream, size: u64, idle: Duration) -> ByteStream {
    Box::pin(stream::unfold(Some((body, 0u64)), move |state| async move {
        let (mut body, seen) = state?;
        Some(match next(&mut body, seen, size, idle).await {
            Ok(Some(bytes)) => {
                let seen = seen + bytes.len() as u64;
                (Ok(bytes), Some((body, seen)))
            }
            Ok(None) => return None,
            Err(error) => (Err(error), None),
        })
    }))
}

async fn next<S>(body: &mut S, seen: u64, size: u64, idle: Duration) -> std::io::Result<Option<Bytes>>
where
    S: Stream<Item = Result<Bytes, axum::Error>> + Unpin,
{
    use std::io::{Error, ErrorKind};
    let item = tokio::time::timeout(idle, body.next())
        .await
        .map_err(|_| Error::new(ErrorKind::TimedOut, "silent upload"))?;
    match item {
        Some(Ok(bytes)) if seen + bytes.len() as u64 <= size => Ok(Some(bytes)),
        Some(Ok(_)) => Err(Error::new(ErrorKind::FileTooLarge, "more bytes than announced")),
        Some(Err(error)) => Err(Error::other(error)),
        None if seen < size => Err(Error::new(ErrorKind::UnexpectedEof, "fewer bytes than announced")),
        None => Ok(None),
    }
}

struct Asked {
    name: String,
    size: u64,
    content_type: Option<String>,
}

fn read(value: serde_json::Value, faults: Faults, most: u64) -> Result<Asked, Vec<Fault>> {
    let mut asked = None;
    if let Some(mut fields) = Fields::of(Place { at: String::new(), value }, &faults) {
        let name = fields.required_string("filename").map(|name| safe_name(&name.value));
        if !fields.has("size") {
            faults.add("/size", "is required");
        }
        let size = fields.integer("size", 1..=i64::try_from(most).unwrap_or(i64::MAX)).map(i64::unsigned_abs);
        // The bytes say what they are; a bucket keeps what the client says all the same.
        let content_type = fields.string("content_type").and_then(|kind| {
            let text = kind.value.trim();
            let fits = (1..=256).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b));
            if !fits {
                faults.add(kind.at, "is not a content type");
            }
            fits.then(|| text.to_owned())
        });
        fields.finish();
        asked = name.zip(size).map(|(name, size)| Asked { name, size, content_type });
    }
    asked.filter(|_| faults.is_empty()).ok_or_else(|| faults.into_vec())
}

/// One harmless segment of a client's file name.
fn safe_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let safe: String = last
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
        .take(100)
        .collect();
    if safe.chars().all(|c| c == '.') { "upload".to_owned() } else { safe }
}

/// An upload with what its client needs to send it.
fn view(upload: &UploadRecord, mut how: serde_json::Value) -> serde_json::Value {
    let what = json!({
        "id": upload.id,
        "filename": upload.name,
        "size": upload.size,
        "expires_at": upload.expires_at,
        "source": {"kind": "upload", "id": upload.id},
        "input_key": format!("uploads/{}/{}", upload.id, upload.name),
    });
    if let (Some(how), serde_json::Value::Object(what)) = (how.as_object_mut(), what) {
        how.extend(what);
    }
    how
}

/// An HMAC under the store's key: it outlives a restart and any control can check it.
fn sign(api: &Api, id: UploadId) -> String {
    let mac = api.control.store().fingerprint(format!("upload:{id}").as_bytes());
    mac.iter().fold(String::with_capacity(64), |mut hex, byte| {
        use std::fmt::Write;
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn wrong_size(announced: u64) -> Problem {
    Problem::new(Kind::InvalidRequest, format!("the upload was announced with {announced} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_reduced_to_one_segment() {
        assert_eq!(safe_name("../../etc/passwd"), "passwd");
        assert_eq!(safe_name("C:\\films\\a b.mov"), "a_b.mov");
        assert_eq!(safe_name(".."), "upload");
        assert_eq!(safe_name(""), "upload");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_breaks_its_promises_errs() {
        async fn drain(body: Body, size: u64) -> Result<usize, std::io::ErrorKind> {
            let mut stream = watched(body.into_data_stream(), size, Duration::from_secs(30));
            let mut total = 0;
            while let Some(item) = stream.next().await {
                total += item.map_err(|e| e.kind())?.len();
            }
            Ok(total)
        }
        assert_eq!(drain(Body::from("12345"), 5).await, Ok(5));
        assert_eq!(drain(Body::from("12345"), 6).await, Err(std::io::ErrorKind::UnexpectedEof));
        assert_eq!(drain(Body::from("12345"), 4).await, Err(std::io::ErrorKind::FileTooLarge));
        let silent = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(drain(silent, 4).await, Err(std::io::ErrorKind::TimedOut));
    }
}
