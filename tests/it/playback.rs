//! Packages as a browser plays them: a real Chromium, its own HLS player, and a page that appends segments by itself.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path as Segments, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use flux::media::package::{Layout, Package, Request, package};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::package::kit::{Ladder, text};

/// Appends segment by segment, the second of them from another picture, and says what came of it: what is buffered, when
/// each frame was shown, whether one can seek.
const APPENDING: &str = include_str!("playback/appending.html");
/// Gives the master playlist to the browser's own player.
const NATIVE: &str = include_str!("playback/native.html");

/// A browser that ends with the test.
struct Browser(Child);

impl Browser {
    #[expect(clippy::disallowed_methods, reason = "tests play their results in a real browser")]
    fn open(url: &str, profile: &Path) -> Self {
        for program in ["chromium", "chromium-browser"] {
            let mut command = Command::new(program);
            // It may run as root here, and must not ask a network for anything.
            command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
            command.args(["--no-first-run", "--disable-background-networking", "--mute-audio"]);
            command.arg("--autoplay-policy=no-user-gesture-required");
            command.arg(format!("--user-data-dir={}", profile.display())).arg(url);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if let Ok(child) = command.spawn() {
                return Self(child);
            }
        }
        panic!("these tests need chromium: run `make test`");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves a folder and a page, and returns what the page says.
async fn played(folder: &Path, page: String) -> Value {
    async fn file(
        State((root, page)): State<(PathBuf, String)>,
        Segments(path): Segments<String>,
    ) -> Response {
        if path == "page.html" {
            return Html(page).into_response();
        }
        let kind = match path.rsplit('.').next() {
            Some("m3u8") => "application/vnd.apple.mpegurl",
            _ => "video/mp4",
        };
        let bytes = std::fs::read(root.join(path));
        bytes.map_or_else(
            |_| StatusCode::NOT_FOUND.into_response(),
            |bytes| ([(header::CONTENT_TYPE, kind)], bytes).into_response(),
        )
    }
    async fn report(State(said): State<mpsc::Sender<String>>, body: String) -> StatusCode {
        let _ = said.send(body).await;
        StatusCode::NO_CONTENT
    }
    let (sender, mut said) = mpsc::channel(4);
    let reports = Router::new().route("/report", post(report)).with_state(sender);
    let files = Router::new().route("/{*path}", get(file)).with_state((folder.to_owned(), page));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/page.html", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "test servers end with their test")]
    tokio::spawn(async move { axum::serve(listener, reports.merge(files)).await });
    let profile = tempfile::tempdir().unwrap();
    let browser = Browser::open(&url, profile.path());
    let said = tokio::time::timeout(Duration::from_mins(2), said.recv()).await;
    drop(browser);
    let said = said.expect("the page said nothing for two minutes").unwrap();
    serde_json::from_str(&said).unwrap()
}

fn packaged() -> (tempfile::TempDir, Package) {
    let folder = tempfile::tempdir().unwrap();
    let request: Request = Ladder::standard().request(Layout::Fragments);
    let done = package(&request, folder.path()).unwrap();
    (folder, done)
}

fn seconds(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

#[tokio::test]
async fn a_browser_switches_pictures_without_a_gap_and_without_a_shift() {
    let (folder, done) = packaged();
    let page = APPENDING
        .replace("VIDEO_CODEC", &done.renditions[0].codecs)
        .replace("AUDIO_CODEC", &done.renditions[2].codecs)
        .replace("FOLDER", "0a1b2c3d");
    let said = played(folder.path(), page).await;
    assert_eq!(said["error"], Value::Null, "{said:#}");
    // One range from 0: neither the reordering delay nor the priming is to be seen.
    for (kind, list) in [("video", "180p"), ("audio", "audio_de")] {
        let list = text(folder.path(), &format!("0a1b2c3d/{list}.m3u8"));
        let lengths = list.lines().filter_map(|line| line.strip_prefix("#EXTINF:")?.strip_suffix(','));
        let end: f64 = lengths.take(3).map(|length| length.parse::<f64>().unwrap()).sum();
        let ranges = said[kind].as_array().unwrap();
        assert_eq!(ranges.len(), 1, "{said:#}");
        assert!(seconds(&ranges[0][0]).abs() < 0.001, "{said:#}");
        assert!((seconds(&ranges[0][1]) - end).abs() < 0.002, "{said:#}");
    }
    // At the switches, and off them, the picture that belongs there is shown, in its own size.
    let sought = said["sought"].as_array().unwrap();
    for (seen, (time, width)) in sought.iter().zip([(4.0, 160), (7.96, 160), (8.0, 320), (5.48, 160)]) {
        assert!((seconds(&seen[0]) - time).abs() < 0.001 && seen[1] == width, "at {time} s: {seen}");
    }
    let frames: Vec<f64> = said["frames"].as_array().unwrap().iter().map(seconds).collect();
    assert!(frames[0] < 0.2, "{said:#}");
    for frame in &frames {
        let off = (frame / 0.04 - (frame / 0.04).round()).abs() * 0.04;
        assert!(off < 0.001, "a picture at {frame} s is not on the grid of 25 a second");
    }
    for (before, after) in [(3.9, 4.1), (7.9, 8.1)] {
        let here = frames.iter().filter(|&&frame| frame > before && frame < after).count();
        assert!(here >= 2, "pictures around {before} s: {here}");
    }
    assert_eq!(said["sizes"], serde_json::json!([[320, 180], [160, 90]]), "both pictures were shown");
}

#[tokio::test]
async fn the_browsers_own_player_plays_the_master_playlist() {
    let (folder, _done) = packaged();
    let said = played(folder.path(), NATIVE.to_owned()).await;
    // Chromium before 142 has no such player and says so.
    if said["can"] == "" {
        return;
    }
    assert_eq!(said["error"], Value::Null, "{said:#}");
    assert!(seconds(&said["played"]) > 1.0, "{said:#}");
    assert!((seconds(&said["duration"]) - 13.0).abs() < 0.1, "{said:#}");
}
