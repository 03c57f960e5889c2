//! HLS and DASH through the whole machine: encoded once, cut, checked, published by their lists, read back over HTTP.

use std::collections::BTreeSet;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::clips;
use crate::support::server::{Server, left_behind};

fn job(clip: &std::path::Path, outputs: &Value) -> Value {
    json!({ "source": { "kind": "file", "path": clip.to_str().unwrap() }, "outputs": outputs })
}

/// What a list names, without its query.
fn named(list: &str) -> BTreeSet<String> {
    let attribute =
        |line: &str| line.split("URI=\"").nth(1).and_then(|rest| rest.split('"').next()).map(str::to_owned);
    let lines = list.lines().filter(|line| !line.trim().is_empty());
    lines
        .filter_map(|line| if line.starts_with('#') { attribute(line) } else { Some(line.to_owned()) })
        .collect()
}

/// Reads a text, from where it leads to; says where that was.
async fn text(server: &Server, path: &str) -> (String, String) {
    let mut response = server.http.get(format!("{}{path}", server.url)).send().await.unwrap();
    if response.status() == StatusCode::FOUND {
        let to = response.headers()["location"].to_str().unwrap().to_owned();
        response = server.http.get(format!("{}{to}", server.url)).send().await.unwrap();
    }
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    let at = response.url().path().to_owned();
    (at, response.text().await.unwrap())
}

#[tokio::test]
async fn a_ladder_is_published_by_its_lists_and_every_file_is_served() {
    let server = Server::start().await;
    let preset = json!([{
        "preset": "hls_1080p_abr",
        "video": { "speed": "ultrafast" },
        "package": { "segment_seconds": 2 },
        "ladder": [
            { "name": "big", "box": "320x180", "rate": { "mode": "crf", "crf": 30 } },
            { "name": "small", "box": "160x90", "rate": { "mode": "crf", "crf": 30 } },
        ],
        "destination": { "kind": "storage", "path": "vod/{name}" },
    }]);
    let id = server.submit(&job(&clips::mp4(5), &preset)).await;
    let job = server.finished(&id).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    let result = &job["outputs"][0]["result"];
    let names: Vec<_> =
        result["renditions"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["big", "small", "audio_0"]);
    assert_eq!(result["renditions"][1]["segments"], 3);
    assert_eq!(result["frames"], 125);
    assert_eq!(result["files"][0]["role"], "master");

    // The content leads to the list, and from there everything is found that it names.
    let (at, master) = text(&server, &format!("/api/v1/jobs/{id}/outputs/0/content")).await;
    assert!(at.ends_with("/content/master%2Em3u8") || at.ends_with("/content/master.m3u8"), "{at}");
    let folder = at.rsplit_once('/').unwrap().0.to_owned();
    let mut media = 0;
    for playlist in named(&master) {
        let (at, list) = text(&server, &format!("{folder}/{playlist}")).await;
        let beside = at.rsplit_once('/').unwrap().0;
        for file in named(&list) {
            text_or_bytes(&server, &format!("{beside}/{file}")).await;
            media += 1;
        }
    }
    assert!(media >= 12, "{media}");
    let (_, mpd) = text(&server, &format!("{folder}/manifest.mpd")).await;
    assert!(mpd.contains("<MPD") && mpd.contains("big"), "{mpd}");
    assert_eq!(left_behind(&server.data()), Vec::<std::path::PathBuf>::new());
    server.assert_clean().await;
}

async fn text_or_bytes(server: &Server, path: &str) {
    let response = server.http.get(format!("{}{path}", server.url)).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    assert!(!response.bytes().await.unwrap().is_empty(), "{path}");
}

#[tokio::test]
async fn the_seeds_transport_streams_come_from_their_bodies() {
    let server = Server::start().await;
    let clip = clips::mp4(4);
    let body = json!({
        "input_url": format!("file:{}", clip.display()),
        "preset": "hls_720p",
        "output": { "storage": "local", "path": "output/video.mp4", "type": "hls" },
    });
    let id = server.submit(&body).await;
    let job = server.finished(&id).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    let files = job["outputs"][0]["result"]["files"].as_array().unwrap();
    assert_eq!(files[0]["path"], "output/video.mp4/playlist.m3u8");
    assert!(
        files.iter().any(|file| file["path"].as_str().unwrap().ends_with("/segment_000.ts")),
        "{files:#?}"
    );
    assert_eq!(files[0]["content_type"], "application/vnd.apple.mpegurl");
    server.assert_clean().await;
}

/// Every kind of source that lacks something or begins oddly; what is published has passed the linter.
#[tokio::test]
async fn odd_sources_become_sets_that_pass() {
    let server = Server::start().await;
    let output = |n: usize, fields: Value| {
        let mut output = json!({ "destination": { "kind": "storage", "path": format!("odd/{n}") } });
        output.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        output
    };
    let picture = json!({ "preset": "dash_1080p", "video": { "speed": "ultrafast" } });
    let single = json!({ "preset": "hls_1080p_abr", "video": { "speed": "ultrafast" }, "package": { "single_file": true } });
    let sound = json!({ "container": "cmaf", "audio": { "codec": "aac", "tracks": "all" } });
    let transport = json!({ "preset": "hls_720p", "video": { "speed": "ultrafast" } });
    for (n, (clip, fields, renditions)) in [
        (clips::late_picture(), picture.clone(), vec!["720p", "audio_0"]),
        (clips::late_picture(), transport, vec!["video"]),
        (clips::tiny(), picture, vec!["720p", "audio_0"]),
        (clips::mp4(3), single, vec!["360p", "audio_0"]),
        (clips::audio_only(), sound, vec!["audio_0"]),
    ]
    .into_iter()
    .enumerate()
    {
        let job = server.finished(&server.submit(&job(&clip, &json!([output(n, fields)]))).await).await;
        assert_eq!(job["status"], "completed", "{clip:?}: {job:#}");
        let found = job["outputs"][0]["result"]["renditions"].as_array().unwrap();
        let found: Vec<_> = found.iter().map(|rendition| rendition["name"].as_str().unwrap()).collect();
        assert_eq!(found, renditions, "{clip:?}");
    }
    server.assert_clean().await;
}

#[tokio::test]
async fn a_second_encode_replaces_the_lists_and_mixes_with_nothing() {
    let server = Server::start().await;
    let output = json!([{
        "preset": "dash_1080p", "video": { "speed": "ultrafast" },
        "destination": { "kind": "storage", "path": "vod/film.{ext}" },
    }]);
    let first = server.finished(&server.submit(&job(&clips::mp4(2), &output)).await).await;
    let second = server.finished(&server.submit(&job(&clips::mp4(3), &output)).await).await;
    let files = |job: &Value| -> BTreeSet<String> {
        assert_eq!(job["status"], "completed", "{job:#}");
        let files = job["outputs"][0]["result"]["files"].as_array().unwrap();
        files.iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect()
    };
    let shared: Vec<_> = files(&first).intersection(&files(&second)).cloned().collect();
    assert_eq!(shared, ["vod/film.mpd", "vod/film.poster.jpg"]);
}

#[tokio::test]
async fn bodies_that_make_no_sense_for_sets_are_refused_with_their_places() {
    let server = Server::start().await;
    let to = json!({ "kind": "storage", "path": "a" });
    for (output, pointer, says) in [
        (
            json!({ "preset": "hls_720p", "destination": { "kind": "http", "url": "https://example.com/x" } }),
            "/outputs/0/destination/url",
            "many files",
        ),
        (
            json!({ "preset": "hls_720p", "destination": { "kind": "storage", "path": "a/x.mpd" } }),
            "/outputs/0/destination/path",
            "does not have",
        ),
        (json!({ "preset": "720p_h264", "package": {}, "destination": to }), "/outputs/0/package", "sets"),
        (
            json!({ "preset": "hls_1080p_abr", "audio": { "codec": "opus" }, "destination": to }),
            "/outputs/0/audio/codec",
            "opus",
        ),
        (
            json!({ "preset": "hls_1080p_abr", "video": { "codec": "vp9" }, "destination": to }),
            "/outputs/0/video/codec",
            "vp9",
        ),
        (
            json!({ "preset": "hls_720p", "video": { "gop_seconds": 8 }, "destination": to }),
            "/outputs/0/package/segment_seconds",
            "GOP",
        ),
        (
            json!({ "preset": "hls_720p", "package": { "names": { "segment": "../x_%d.ts" } }, "destination": to }),
            "/outputs/0/package/names/segment",
            "file name",
        ),
        (
            json!({ "preset": "audio_m4a", "video": { "codec": "h264" }, "destination": to }),
            "/outputs/0/video",
            "no picture",
        ),
        (
            json!({ "preset": "dash_1080p", "package": { "manifests": ["hls"] }, "destination": to }),
            "/outputs/0/package/manifests/0",
            "cmaf",
        ),
    ] {
        let (status, problem) = server.post("/api/v1/jobs", &job(&clips::mp4(2), &json!([output]))).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{output} {problem:#}");
        let errors = problem["errors"].as_array().unwrap();
        let told = errors.iter().find(|error| error["pointer"] == pointer);
        let detail = told.unwrap_or_else(|| panic!("{output}: {problem:#}"))["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{output}: {detail}");
    }
    let pair = json!([
        { "preset": "hls_720p", "destination": { "kind": "storage", "path": "a" } },
        { "preset": "hls_720p_abr", "destination": { "kind": "storage", "path": "a/other.m3u8" } },
    ]);
    let (status, problem) = server.post("/api/v1/jobs", &job(&clips::mp4(2), &pair)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem:#}");
}

/// One set for players of HDR and for all others, from one decode.
#[tokio::test]
async fn ladders_of_hdr_and_of_standard_range_stand_side_by_side() {
    let server = Server::start().await;
    let set = |path: &str| {
        let rung = |name: &str, size: &str, more: Value| {
            let mut rung = json!({ "name": name, "box": size, "rate": { "mode": "crf", "crf": 28 } });
            rung.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            rung
        };
        let hdr = json!({ "codec": "hevc", "bit_depth": 10, "range": "keep" });
        json!([{
            "preset": "hls_1080p_abr",
            "video": { "speed": "ultrafast" },
            "ladder": [
                rung("hdr-big", "640x360", hdr.clone()),
                rung("hdr-small", "320x180", hdr),
                rung("big", "640x360", json!({})),
                rung("small", "320x180", json!({})),
            ],
            "poster": true,
            "destination": { "kind": "storage", "path": path },
        }])
    };
    let job_of_hdr = server.finished(&server.submit(&job(&clips::hdr(), &set("both"))).await).await;
    assert_eq!(job_of_hdr["status"], "completed", "{job_of_hdr:#}");
    let result = &job_of_hdr["outputs"][0]["result"];
    assert_eq!(result["warnings"], json!(["tone_mapped"]));
    let streams = result["streams"].as_array().unwrap();
    let told: Vec<_> = streams
        .iter()
        .map(|s| {
            (
                s["rendition"].as_str().unwrap(),
                s["codec"].as_str().unwrap(),
                s["color"]["transfer"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("hdr-big", "hevc", "smpte2084"),
            ("hdr-small", "hevc", "smpte2084"),
            ("big", "h264", "bt709"),
            ("small", "h264", "bt709"),
        ]
    );
    let id = job_of_hdr["id"].as_str().unwrap();
    let (_, master) = text(&server, &format!("/api/v1/jobs/{id}/outputs/0/content")).await;
    let variants: Vec<_> = master.lines().filter(|line| line.starts_with("#EXT-X-STREAM-INF")).collect();
    assert_eq!(
        variants.iter().filter(|line| line.contains("VIDEO-RANGE=PQ") && line.contains("hvc1.")).count(),
        2
    );
    assert_eq!(
        variants.iter().filter(|line| line.contains("VIDEO-RANGE=SDR") && line.contains("avc1.")).count(),
        2
    );
    let files = result["files"].as_array().unwrap();
    assert!(files.iter().any(|file| file["role"] == "poster"), "a poster of the standard range: {files:#?}");

    // What has no HDR has none to keep.
    let plain = server.finished(&server.submit(&job(&clips::mp4(2), &set("plain"))).await).await;
    assert_eq!(plain["status"], "completed", "{plain:#}");
    let result = &plain["outputs"][0]["result"];
    let names: Vec<_> =
        result["renditions"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["small", "audio_0"], "{result:#}");
    assert_eq!(result["warnings"][0], "rungs_dropped: hdr-big, hdr-small, big");
    server.assert_clean().await;
}
