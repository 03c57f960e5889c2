//! `flux submit`: sends a job; a local file is uploaded first.

use std::path::Path;

use anyhow::Context;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::args::{Format, SubmitArgs};
use super::client::Client;
use super::jobs::{id_of, print_job};
use super::output::note;
use super::{Exit, Failed, Outcome, watch};
use crate::domain::Bucket;

pub(super) async fn run(args: SubmitArgs) -> Outcome {
    let client = Client::new(&args.server)?;
    let body = match &args.body {
        Some(path) => read_body(path)?,
        None => compose(&client, &args).await?,
    };
    let job = client.post("/jobs", Some(&body), args.idempotency_key.as_deref()).await?;
    let id = id_of(&job)?;
    if !args.wait {
        print_job(&job, args.server.format);
        return Ok(Exit::Ok);
    }
    if args.server.format == Format::Table {
        note(format_args!("job {id}"));
    }
    watch::follow(&client, &id, args.server.format).await
}

fn read_body(path: &Path) -> Result<Value, Failed> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).context("cannot read standard input")
    } else {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let parsed = text.and_then(|text| serde_json::from_str(&text).context("the job is not JSON"));
    parsed.map_err(|error| Failed::new(Exit::Usage, error))
}

async fn compose(client: &Client, args: &SubmitArgs) -> Result<Value, Failed> {
    let source = args.source.as_deref().unwrap_or_default();
    let source = match remote(source) {
        Some(remote) => remote,
        None => json!({"kind": "upload", "id": upload(client, Path::new(source)).await?}),
    };
    // The server knows an upload by its id only; the name is here.
    let path = args.path.replace("{name}", &stem(args.source.as_deref().unwrap_or_default()));
    let output =
        |preset: &String| json!({"preset": preset, "destination": {"kind": "storage", "path": path}});
    let outputs: Vec<Value> = args.presets.iter().map(output).collect();
    Ok(json!({"source": source, "outputs": outputs, "labels": labels(&args.labels)?}))
}

/// The source that a URL names; `None` = a local file. Credentials for buckets stand in a job's file, not here.
fn remote(text: &str) -> Option<Value> {
    let (scheme, _) = text.split_once("://")?;
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => Some(json!({"kind": "http", "url": text})),
        "ftp" | "ftps" => Some(json!({"kind": "ftp", "url": text})),
        _ => {
            let (bucket, path) = Bucket::parse_url(text)?;
            Some(match bucket {
                Bucket::S3 { name, .. } => json!({"kind": "s3", "bucket": name, "path": path}),
                Bucket::Gcs { name, .. } => json!({"kind": "gcs", "bucket": name, "path": path}),
                Bucket::Azure { account, container, .. } => {
                    json!({"kind": "azure", "account": account, "container": container, "path": path})
                }
            })
        }
    }
}

/// The last segment of a path or URL without its extension, as a safe name.
fn stem(source: &str) -> String {
    let path = source.split(['?', '#']).next().unwrap_or(source);
    let name = path.rsplit('/').find(|segment| !segment.is_empty()).unwrap_or("source");
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| if stem.is_empty() { name } else { stem });
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    stem.chars().map(safe).take(100).collect()
}

fn labels(pairs: &[String]) -> Result<Map<String, Value>, Failed> {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').ok_or_else(|| {
            Failed::msg(Exit::Usage, format_args!("--label takes NAME=VALUE, not {text:?}"))
        })?;
        Ok((name.to_owned(), Value::from(value)))
    };
    pairs.iter().map(pair).collect()
}

async fn upload(client: &Client, path: &Path) -> Result<String, Failed> {
    let missing = |error| {
        let error = anyhow::Error::new(error).context(format!("cannot read {}", path.display()));
        Failed::new(Exit::NotFound, error)
    };
    let file = tokio::fs::File::open(path).await.map_err(missing)?;
    let size = file.metadata().await.map_err(missing)?.len();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("source");
    let place = client.post("/uploads", Some(&json!({"filename": name, "size": size})), None).await?;
    let nowhere = || Failed::msg(Exit::Unavailable, "the server's answer names no place for the upload");
    let id = place["id"].as_str().ok_or_else(nowhere)?;
    if let Some(url) = place["url"].as_str() {
        client.put_bytes(url, &place["headers"], (file, size)).await?;
    } else {
        let parts = &place["parts"];
        let each = parts["size"].as_u64().filter(|each| *each > 0).ok_or_else(nowhere)?;
        let mut etags = Vec::new();
        for (n, url) in (0..).zip(parts["urls"].as_array().ok_or_else(nowhere)?) {
            let (url, from) = (url.as_str().ok_or_else(nowhere)?, n * each);
            let length = each.min(size.saturating_sub(from));
            let part = part(path, from, length).await.map_err(missing)?;
            let etag = client.put_bytes(url, &Value::Null, (part, length)).await?;
            etags.push(etag.ok_or_else(|| {
                Failed::msg(Exit::Unavailable, "the storage did not say which part it has (ETag)")
            })?);
        }
        client.post(&format!("/uploads/{id}/complete"), Some(&json!({"etags": etags})), None).await?;
    }
    Ok(id.to_owned())
}

/// A part of a file.
async fn part(path: &Path, from: u64, length: u64) -> std::io::Result<tokio::io::Take<tokio::fs::File>> {
    let mut file = tokio::fs::File::open(path).await?;
    file.seek(std::io::SeekFrom::Start(from)).await?;
    Ok(file.take(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_named_after_the_file() {
        assert_eq!(stem("/x/te[s]t_ video ' _.flv"), "te_s_t__video____");
        assert_eq!(stem("https://h/a/film.final.mov?sig=1"), "film.final");
        assert_eq!(stem(".hidden"), ".hidden");
    }

    #[test]
    fn urls_of_other_places_are_sources_of_their_kind() {
        let kind = |text: &str| remote(text).map(|source| source["kind"].clone());
        for (text, expected) in [
            ("HTTPS://h/x", "http"),
            ("ftps://h/x", "ftp"),
            ("s3://b/k", "s3"),
            ("gs://b/k", "gcs"),
            ("az://a/c/k", "azure"),
        ] {
            assert_eq!(kind(text), Some(Value::from(expected)), "{text}");
        }
        for file in ["film.mov", "/in/s3:/x", "s3://b", "x://y"] {
            assert_eq!(remote(file), None, "{file}");
        }
    }

    #[test]
    fn labels_are_pairs() {
        let map = labels(&["team=a".into(), "x=1=2".into()]).unwrap();
        assert_eq!((map["team"].as_str(), map["x"].as_str()), (Some("a"), Some("1=2")));
        assert!(labels(&["plain".into()]).is_err());
    }
}
