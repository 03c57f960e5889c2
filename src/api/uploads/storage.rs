//! Uploads that clients send to the storage themselves, with URLs that this server signs and never sees used.
//!
//! An upload in one request is looked for when a job names it. Parts need the client to say that it has sent them all.

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{Asked, begin, view, wrong_size};
use crate::api::auth::Principal;
use crate::api::fields::{Faults, Fields, Place};
use crate::api::problem::{Kind, Problem};
use crate::api::{Api, PREFIX, body, params};
use crate::domain::uploads::{Assembled, Claim, Invitation};
use crate::domain::{Fault, Folder, UploadId};
use crate::store::UploadRecord;

/// Most parts of an upload, as many as are ever offered.
const MOST_PARTS: usize = 1_000;
/// Longest entity tag that is passed on.
const MOST_ETAG: usize = 256;

/// Where to send an upload to the storage; `None` = this server takes it.
pub(super) async fn invite(api: &Api, who: &Principal, asked: &Asked) -> Result<Option<Value>, Problem> {
    if !api.files.invites(asked.size) {
        return Ok(None);
    }
    // Recorded first: what is begun in the bucket from here on is swept with the record.
    let upload = begin(api, who, asked, Folder::ONLY).await?;
    let life = api.limits.upload_expiry;
    let invited = api.files.invite(&upload, asked.content_type.as_deref(), life).await;
    if let Ok(Some(invitation)) = invited {
        return Ok(Some(view(&upload, how(&upload, invitation))));
    }
    api.control.store().abandon_upload(upload.id, api.clock.now()).await?;
    Ok(invited.map(|_| None)?)
}

fn how(upload: &UploadRecord, invitation: Invitation) -> Value {
    match invitation {
        Invitation::Whole { url, headers } => {
            let headers: Map<String, Value> =
                headers.into_iter().map(|(name, value)| (name, value.into())).collect();
            json!({"method": "PUT", "url": url, "headers": headers})
        }
        Invitation::Parts { size, urls } => json!({
            "method": "PUT",
            "parts": {"size": size, "urls": urls},
            "complete_url": format!("{PREFIX}/uploads/{}/complete", upload.id),
        }),
    }
}

/// `POST /uploads/{id}/complete`: `{etags}` of the parts in order; none for an upload in one request.
pub(in crate::api) async fn complete(
    State(api): State<Api>,
    who: Principal,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let upload = own(&api, &who, &id).await?;
    let body = body::read_json(&api, request).await?;
    let etags = read(body.value, body.faults).map_err(Problem::invalid)?;
    if upload.etag.is_none() {
        finish(&api, &upload, &etags).await?;
    }
    let source = json!({"kind": "upload", "id": upload.id});
    Ok(axum::Json(json!({"id": upload.id, "size": upload.size, "source": source})).into_response())
}

async fn finish(api: &Api, upload: &UploadRecord, etags: &[String]) -> Result<(), Problem> {
    let refuse = |detail: &str| {
        Err(Problem::invalid(vec![Fault { pointer: "/etags".to_owned(), detail: detail.to_owned() }]))
    };
    if !etags.is_empty() && api.files.assemble(upload, etags).await? == Assembled::Refused {
        return refuse(
            "the storage does not have these parts, or all but the last are not of the size that was said",
        );
    }
    match claim(api, upload).await? {
        Claim::Whole { .. } => Ok(()),
        Claim::Missing => refuse("the upload is not whole yet"),
        Claim::Size(_) => Err(wrong_size(upload.size)),
    }
}

/// Looks for an upload in the storage, and records that it is whole.
pub(in crate::api) async fn claim(api: &Api, upload: &UploadRecord) -> Result<Claim, Problem> {
    let claim = api.files.claim(upload).await?;
    if let Claim::Whole { etag } = &claim
        && let Err(error) = api.control.store().upload_done(upload.id, etag).await
    {
        // Two claims at once copied the same bytes, and the other's tag is on record.
        let now = api.control.store().upload(None, upload.id).await?;
        if now.is_none_or(|now| now.etag.is_none()) {
            return Err(error.into());
        }
    }
    Ok(claim)
}

/// What a size that is not the announced one is called.
pub(in crate::api) fn is_of(found: u64, upload: &UploadRecord) -> String {
    format!("the upload has {found} bytes and was announced with {}", upload.size)
}

/// `DELETE /uploads/{id}`: gives an upload up; what there is of it is removed within a minute or so.
pub(in crate::api) async fn abandon(
    State(api): State<Api>,
    who: Principal,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let upload = own(&api, &who, &id).await?;
    if api.control.store().abandon_upload(upload.id, api.clock.now()).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::new(Kind::UploadInUse, "jobs use the upload; it is removed after them"))
    }
}

async fn own(api: &Api, who: &Principal, id: &str) -> Result<UploadRecord, Problem> {
    let id: UploadId = params::id(id, "upload")?;
    let upload = api.control.store().upload(Some(&who.tenant), id).await?;
    let upload = upload.ok_or_else(|| Problem::no_such("upload"))?;
    if upload.expires_at <= api.clock.now() {
        return Err(Problem::new(Kind::Gone, "the upload has expired"));
    }
    Ok(upload)
}

fn read(value: Value, faults: Faults) -> Result<Vec<String>, Vec<Fault>> {
    let mut etags = Vec::new();
    if let Some(mut fields) = Fields::of(Place { at: String::new(), value }, &faults) {
        if let Some(given) = fields.take("etags") {
            match serde_json::from_value::<Vec<String>>(given.value) {
                Ok(given) if given.len() <= MOST_PARTS && given.iter().all(|etag| is_etag(etag)) => {
                    etags = given;
                }
                _ => faults.add(given.at, "must be the entity tags of the parts, as the storage gave them"),
            }
        }
        fields.finish();
    }
    if faults.is_empty() { Ok(etags) } else { Err(faults.into_vec()) }
}

fn is_etag(text: &str) -> bool {
    (1..=MOST_ETAG).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_passed_on_only_if_they_are_such() {
        let read = |value: Value| read(value, Faults::default());
        assert_eq!(read(json!({})), Ok(Vec::new()));
        assert_eq!(read(json!({"etags": ["\"ab\"", "cd"]})).unwrap().len(), 2);
        for bad in [
            json!("x"),
            json!([1]),
            json!([""]),
            json!(["a b"]),
            json!(["x".repeat(300)]),
            json!(vec!["a"; 1001]),
        ] {
            assert_eq!(read(json!({"etags": bad})).unwrap_err()[0].pointer, "/etags");
        }
        assert!(read(json!({"parts": []})).is_err());
    }
}
