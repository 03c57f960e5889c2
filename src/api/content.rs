//! Published results: a redirect where the destination can make a URL, else the bytes, whole or a range.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::auth::Principal;
use super::jobs;
use super::problem::{Kind, Problem};
use super::range::{self, Asked};
use super::{Api, PREFIX};
use crate::domain::{FileRole, OutputFile, OutputStatus, beside};
use crate::store::StoredJob;

/// `GET /jobs/{id}/outputs/{n}/content`: the output's first file.
pub(super) async fn first(
    api: State<Api>,
    who: Principal,
    method: Method,
    Path((id, output)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    serve(api, who, method, (id, output, None), headers).await
}

/// `GET /jobs/{id}/outputs/{n}/content/{file}`: a file of it by name.
pub(super) async fn named(
    api: State<Api>,
    who: Principal,
    method: Method,
    Path((id, output, file)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    serve(api, who, method, (id, output, Some(file)), headers).await
}

async fn serve(
    State(api): State<Api>,
    who: Principal,
    method: Method,
    (id, output, name): (String, String, Option<String>),
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let stored = jobs::find(&api, &who, &id).await?;
    let (destination, file) = locate(&stored, &output, name.as_deref())?;
    if name.is_none() && file.role.is_some() {
        return moved(&id, &output, file);
    }
    let described = describe(file, &headers);
    // A HEAD or a 304 needs no byte of the file, and a presigned GET would not answer a HEAD.
    let asked = match described {
        Described::Answer(response) => return Ok(response),
        Described::Send(asked) if method == Method::HEAD => return Ok(head(file, asked, Body::empty())),
        Described::Send(asked) => asked,
    };
    // What a list names is found from where the list was read: here.
    let is_list = file.role.is_some_and(FileRole::is_list);
    if let Some(url) = if is_list { None } else { api.files.presign(destination, file).await? } {
        let location = HeaderValue::from_str(&url).map_err(|_| Problem::internal())?;
        return Ok((StatusCode::FOUND, [(header::LOCATION, location)]).into_response());
    }
    let part = match asked {
        Asked::Part(part) => Some(part),
        Asked::Whole | Asked::Outside => None,
    };
    let bytes = api.files.open_result(destination, file, part).await?;
    Ok(head(file, asked, Body::from_stream(bytes)))
}

/// To where the list of a set has its files beside it.
fn moved(job: &str, output: &str, file: &OutputFile) -> Result<Response, Problem> {
    let name = utf8_percent_encode(file.path.rsplit('/').next().unwrap_or_default(), NON_ALPHANUMERIC);
    let location = format!("{PREFIX}/jobs/{job}/outputs/{output}/content/{name}");
    let location = HeaderValue::from_str(&location).map_err(|_| Problem::internal())?;
    Ok((StatusCode::FOUND, [(header::LOCATION, location)]).into_response())
}

fn locate<'a>(
    stored: &'a StoredJob,
    output: &str,
    name: Option<&str>,
) -> Result<(&'a crate::domain::Destination, &'a OutputFile), Problem> {
    let index: usize = output.parse().map_err(|_| Problem::no_such("output"))?;
    let output = stored.aggregate.outputs.get(index).ok_or_else(|| Problem::no_such("output"))?;
    let published = output.result.as_ref().filter(|_| output.status == OutputStatus::Completed);
    let result = published.ok_or_else(|| {
        Problem::new(Kind::OutputNotReady, format!("the output is {}", output.status.as_str()))
    })?;
    let file = match name {
        None => result.files.first(),
        Some(name) => {
            let beside = beside(output.spec.destination.text(), name);
            let is = |file: &&OutputFile| {
                file.path == beside || file.path == name || file.path.rsplit('/').next() == Some(name)
            };
            result.files.iter().find(is)
        }
    };
    Ok((&output.spec.destination, file.ok_or_else(|| Problem::no_such("file"))?))
}

enum Described {
    Answer(Response),
    Send(Asked),
}

/// Judges the conditional and range headers (RFC 9110 §13.2.2) against the recorded file.
fn describe(file: &OutputFile, headers: &HeaderMap) -> Described {
    let tag = etag(file);
    let text = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
    let listed =
        |list: &str| list.split(',').any(|t| t.trim() == "*" || t.trim().trim_start_matches("W/") == tag);
    if text(header::IF_NONE_MATCH).is_some_and(listed) {
        return Described::Answer((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let unchanged = text(header::IF_RANGE).is_none_or(|wanted| wanted.trim() == tag);
    let asked = range::parse(text(header::RANGE).filter(|_| unchanged), file.size);
    if asked == Asked::Outside {
        let problem = Problem::new(Kind::RangeNotSatisfiable, format!("the file has {} bytes", file.size));
        let size = HeaderValue::from_str(&format!("bytes */{}", file.size));
        let problem = match size {
            Ok(size) => problem.with(header::CONTENT_RANGE, size),
            Err(_) => problem,
        };
        return Described::Answer(problem.into_response());
    }
    Described::Send(asked)
}

fn head(file: &OutputFile, asked: Asked, body: Body) -> Response {
    let mut response = Response::new(body);
    let mut set = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::ACCEPT_RANGES, "bytes".to_owned());
    set(header::ETAG, etag(file));
    set(header::CONTENT_TYPE, file.content_type.clone());
    set(header::CONTENT_DISPOSITION, disposition(&file.path));
    set(header::CACHE_CONTROL, "private, no-cache".to_owned());
    match asked {
        Asked::Part(part) => {
            set(header::CONTENT_LENGTH, part.length().to_string());
            set(header::CONTENT_RANGE, format!("bytes {}-{}/{}", part.start, part.end, file.size));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        Asked::Whole | Asked::Outside => set(header::CONTENT_LENGTH, file.size.to_string()),
    }
    response
}

/// Strong: the content's own hash.
fn etag(file: &OutputFile) -> String {
    format!("\"{}\"", file.sha256)
}

/// RFC 6266: a plain name for old clients, the true one encoded.
fn disposition(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let plain: String =
        name.chars().map(|c| if c.is_ascii_graphic() && !"\"\\%".contains(c) { c } else { '_' }).collect();
    format!("inline; filename=\"{plain}\"; filename*=UTF-8''{}", utf8_percent_encode(name, NON_ALPHANUMERIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> OutputFile {
        OutputFile {
            path: "out/ä \"x\".mp4".into(),
            size: 10,
            sha256: "ab".into(),
            content_type: "video/mp4".into(),
            role: None,
        }
    }

    fn with(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn conditions_decide_what_is_sent() {
        let part =
            |headers: &HeaderMap| matches!(describe(&file(), headers), Described::Send(Asked::Part(_)));
        assert!(part(&with(&[(header::RANGE, "bytes=0-1")])));
        assert!(part(&with(&[(header::RANGE, "bytes=0-1"), (header::IF_RANGE, "\"ab\"")])));
        assert!(!part(&with(&[(header::RANGE, "bytes=0-1"), (header::IF_RANGE, "\"cd\"")])));
        assert!(!part(&with(&[(header::RANGE, "bytes=0-1"), (header::IF_RANGE, "W/\"ab\"")])));
        let answered = |headers: &HeaderMap| match describe(&file(), headers) {
            Described::Answer(response) => Some(response.status().as_u16()),
            Described::Send(_) => None,
        };
        assert_eq!(answered(&with(&[(header::IF_NONE_MATCH, "\"x\", \"ab\"")])), Some(304));
        assert_eq!(answered(&with(&[(header::RANGE, "bytes=10-")])), Some(416));
        assert_eq!(answered(&with(&[])), None);
    }

    #[test]
    fn names_cannot_break_out_of_the_header() {
        assert_eq!(
            disposition("a/b/ä \"x\".mp4"),
            "inline; filename=\"___x_.mp4\"; filename*=UTF-8''%C3%A4%20%22x%22%2Emp4"
        );
    }
}
