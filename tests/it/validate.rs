//! `flux validate` as its users see it: folders, files and URLs, words, JSON and exit codes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::{Path as Segments, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flux::media::package::{Layout, package};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::package::kit::{Ladder, text};
use crate::support::server::flux;

fn packaged(layout: Layout) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    package(&Ladder::standard().request(layout), folder.path()).unwrap();
    folder
}

async fn validate(place: &str) -> (i32, Value) {
    let mut command = flux(&["validate", place, "-o", "json"]);
    let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = serde_json::from_slice(&done.stdout);
    let said = said.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&done.stderr)));
    (done.status.code().unwrap(), said)
}

fn rules(report: &Value, severity: &str) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let found = findings.filter(|finding| finding["severity"] == severity);
    found.map(|finding| finding["rule"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn folders_and_files_pass_or_fail_by_their_exit_code() {
    let folder = packaged(Layout::Fragments);
    let place = folder.path().to_str().unwrap();
    let (code, report) = validate(place).await;
    assert_eq!((code, &report["passes"]), (0, &Value::Bool(true)), "{report:#}");
    assert_eq!(report["segments"], 16);
    let (code, _) = validate(&format!("{place}/manifest.mpd")).await;
    assert_eq!(code, 0);
    let master = text(folder.path(), "master.m3u8").replacen("RESOLUTION=320x180", "RESOLUTION=640x360", 1);
    std::fs::write(folder.path().join("master.m3u8"), master).unwrap();
    let (code, report) = validate(&format!("{place}/master.m3u8")).await;
    assert_eq!((code, rules(&report, "must")), (1, vec!["resolution".to_owned()]), "{report:#}");
    let finding = report["findings"].as_array().unwrap().iter().find(|f| f["rule"] == "resolution").unwrap();
    assert_eq!((&finding["measured"], &finding["expected"]), (&"640x360".into(), &"320x180".into()));

    let words = flux(&["validate", place]).output().unwrap();
    let words = String::from_utf8(words.stdout).unwrap();
    assert!(words.contains("must resolution: master.m3u8:6: 640x360; expected 320x180\n"), "{words}");
    assert!(words.lines().last().unwrap().starts_with("fails: "), "{words}");
    for (place, code) in [("nowhere", 3), ("ftp://x/y", 3), ("http://", 2)] {
        assert_eq!(flux(&["validate", place]).output().unwrap().status.code(), Some(code), "{place}");
    }
}

/// A folder behind HTTP.
async fn serve(root: &Path) -> SocketAddr {
    async fn file(
        State(root): State<PathBuf>,
        Segments(path): Segments<String>,
        asked: HeaderMap,
    ) -> Response {
        let Ok(bytes) = std::fs::read(root.join(&path)) else { return StatusCode::NOT_FOUND.into_response() };
        let kind = match path.rsplit('.').next() {
            Some("m3u8") => "application/vnd.apple.mpegurl",
            Some("mpd") => "application/dash+xml",
            _ => "video/mp4",
        };
        let range = asked.get(header::RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
        let range = range.and_then(|range| range.split_once('-'));
        let range = range.and_then(|(a, b)| Some((a.parse::<usize>().ok()?, b.parse::<usize>().ok()?)));
        match range {
            Some((from, last)) => {
                let to = (last + 1).min(bytes.len());
                let part = bytes[from.min(to)..to].to_vec();
                (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_TYPE, kind)], part).into_response()
            }
            None => ([(header::CONTENT_TYPE, kind)], bytes).into_response(),
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new().route("/{*path}", get(file)).with_state(root.to_owned());
    #[expect(clippy::disallowed_methods, reason = "test servers end with their test")]
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

#[tokio::test]
async fn urls_are_read_with_ranges_and_lead_nowhere_else() {
    let folder = packaged(Layout::SingleFile);
    let address = serve(folder.path()).await;
    for entry in ["master.m3u8", "manifest.mpd"] {
        let (code, report) = validate(&format!("http://{address}/{entry}")).await;
        assert_eq!((code, report["segments"].as_u64()), (0, Some(16)), "{report:#}");
        assert_eq!(rules(&report, "should").contains(&"gzip".to_owned()), entry == "master.m3u8");
    }
    let canary = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inside = format!("http://{}/secret.m3u8", canary.local_addr().unwrap());
    let master = text(folder.path(), "master.m3u8").replace("0a1b2c3d/90p.m3u8", &inside);
    std::fs::write(folder.path().join("master.m3u8"), master).unwrap();
    let (code, report) = validate(&format!("http://{address}/master.m3u8")).await;
    assert_eq!((code, rules(&report, "must")), (1, vec!["fetch".to_owned()]), "{report:#}");
    let asked = tokio::time::timeout(std::time::Duration::from_millis(50), canary.accept()).await;
    assert!(asked.is_err(), "a playlist made us ask our neighbours");
}
