//! `flux validate`: checks a presentation on a disk or on a server.

use std::ops::Range;
use std::path::Path;

use serde_json::json;
use tokio::runtime::Handle;
use url::Url;

use super::args::{Format, ValidateArgs};
use super::output::{data, field, json as write_json};
use super::{Exit, Failed, Outcome};
use crate::media::lint::{Fetch, FetchError, Fetched, Finding, Folder, Report, Served, Severity, lint_all};
use crate::storage::Pages;

pub(super) async fn run(args: ValidateArgs) -> Outcome {
    let (mut fetch, entries) = open(&args.place)?;
    // Reading is blocking, and what is read over the network is waited for from there.
    let checking =
        tokio::task::spawn_blocking(move || lint_all(fetch.as_mut(), entries.iter().map(String::as_str)));
    let report = checking.await.map_err(|error| Failed::msg(Exit::Failed, error))?;
    match args.format {
        Format::Json => write_json(&document(&report)),
        Format::Table => print(&report),
    }
    Ok(if report.passes() { Exit::Ok } else { Exit::Failed })
}

/// What to read from, and what to begin with.
fn open(place: &str) -> Result<(Box<dyn Fetch + Send>, Vec<String>), Failed> {
    if place.starts_with("http://") || place.starts_with("https://") {
        let url = Url::parse(place).map_err(|_| Failed::msg(Exit::Usage, "the URL cannot be read"))?;
        let pages = Pages::beside(&url).map_err(|error| Failed::msg(Exit::Usage, error))?;
        let web = Web { pages, runtime: Handle::current() };
        return Ok((Box::new(web), vec![url.into()]));
    }
    let path = Path::new(place);
    let missing = |what: &str| Failed::msg(Exit::NotFound, format_args!("{what}: {}", path.display()));
    if path.is_dir() {
        let known = ["master.m3u8", "playlist.m3u8", "manifest.mpd"];
        let entries: Vec<String> =
            known.iter().filter(|name| path.join(name).is_file()).map(|name| (*name).to_owned()).collect();
        if entries.is_empty() {
            return Err(missing("no master.m3u8, playlist.m3u8 or manifest.mpd in this folder"));
        }
        return Ok((Box::new(Folder::new(path)), entries));
    }
    let name = path.file_name().and_then(|name| name.to_str()).filter(|_| path.is_file());
    let name = name.ok_or_else(|| missing("no such file or folder"))?.to_owned();
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((Box::new(Folder::new(folder)), vec![name]))
}

fn print(report: &Report) {
    for finding in &report.findings {
        // What is quoted comes from strangers.
        data(&field(&json!(finding.to_string())));
    }
    let count = |severity| report.findings.iter().filter(|f| f.rule.severity() == severity).count();
    data(&format!(
        "{}: {} renditions, {} segments; {} must, {} should",
        if report.passes() { "passes" } else { "fails" },
        report.renditions,
        report.segments,
        count(Severity::Must),
        count(Severity::Should)
    ));
}

fn document(report: &Report) -> serde_json::Value {
    let finding = |finding: &Finding| {
        json!({
            "rule": finding.rule.as_str(),
            "severity": finding.rule.severity().as_str(),
            "source": finding.rule.source(),
            "place": finding.place,
            "measured": finding.measured,
            "expected": finding.expected,
            "text": finding.rule.text(),
        })
    };
    json!({
        "passes": report.passes(),
        "renditions": report.renditions,
        "segments": report.segments,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

/// A presentation on a server.
struct Web {
    pages: Pages,
    runtime: Handle,
}

impl Fetch for Web {
    fn resolve(&self, base: &str, reference: &str) -> Option<String> {
        let url = Url::parse(base).ok()?.join(reference).ok()?;
        matches!(url.scheme(), "http" | "https").then(|| url.into())
    }

    fn fetch(&mut self, place: &str, range: Option<Range<u64>>) -> Result<Fetched, FetchError> {
        let url = Url::parse(place).map_err(|_| FetchError("not a URL".into()))?;
        let page = self.runtime.block_on(self.pages.get(&url, range));
        let page = page.map_err(|error| FetchError(error.to_string()))?;
        let is_playlist = page.bytes.starts_with(b"#EXTM3U");
        // A server that does not say is not told off.
        let compressed = !is_playlist || self.runtime.block_on(self.pages.compresses(&url)).unwrap_or(true);
        let served = Some(Served { content_type: page.content_type, compressed });
        Ok(Fetched { bytes: page.bytes, served })
    }
}
