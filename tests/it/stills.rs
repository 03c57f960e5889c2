//! Stills through the whole machine: single pictures, series with their lists, beside films and alone.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::clips;
use crate::support::server::Server;

fn job(clip: &std::path::Path, outputs: &Value) -> Value {
    json!({"source": {"kind": "file", "path": clip}, "outputs": outputs})
}

fn to(path: &str) -> Value {
    json!({"kind": "storage", "path": path})
}

/// Width and height of a JPEG, from its frame header.
fn jpeg_size(bytes: &[u8]) -> (u16, u16) {
    assert!(bytes.starts_with(&[0xff, 0xd8]) && bytes.ends_with(&[0xff, 0xd9]), "not a whole JPEG");
    let at = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    let side = |n: usize| u16::from_be_bytes([bytes[at + n], bytes[at + n + 1]]);
    (side(7), side(5))
}

#[tokio::test]
async fn a_poster_and_a_timeline_are_made_beside_a_film() {
    let server = Server::start().await;
    let outputs = json!([
        {"preset": "proxy_360p", "destination": to("{job_id}/film.mp4")},
        {"preset": "poster", "destination": to("{job_id}/film.jpg")},
        {"preset": "thumbnails", "destination": to("{job_id}/timeline"),
         "stills": {"every_seconds": 1, "box": "80x45", "sprite": {"columns": 2, "rows": 2}}},
        {"container": "vtt", "destination": to("{job_id}/list.vtt"),
         "stills": {"count": 3, "box": "64x36", "format": "webp"}},
    ]);
    let id = server.submit(&job(&clips::mp4(5), &outputs)).await;
    let done = server.finished(&id).await;
    assert_eq!(done["status"], "completed", "{done:#}");
    let storage = server.data().join("storage").join(&id);

    let poster = &done["outputs"][1]["result"];
    assert_eq!(
        (&poster["frames"], &poster["width"], &poster["height"]),
        (&json!(1), &json!(320), &json!(180))
    );
    assert_eq!(poster["files"][0]["content_type"], "image/jpeg");
    assert_eq!(jpeg_size(&std::fs::read(storage.join("film.jpg")).unwrap()), (320, 180));

    let timeline = &done["outputs"][2]["result"];
    assert_eq!((&timeline["frames"], &timeline["file_count"]), (&json!(5), &json!(3)), "{timeline:#}");
    let roles: Vec<_> = timeline["files"].as_array().unwrap().iter().map(|file| &file["role"]).collect();
    assert_eq!(roles, ["thumbnails", "sprite", "sprite"]);
    let list = std::fs::read_to_string(storage.join("timeline/thumbnails.vtt")).unwrap();
    let cues: Vec<&str> = list.lines().filter(|line| line.contains("#xywh=")).collect();
    assert!(list.starts_with("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n"), "{list}");
    assert_eq!(cues.len(), 5);
    let side = |name: &str| u16::try_from(timeline[name].as_u64().unwrap()).unwrap();
    let (width, height) = (side("width"), side("height"));
    assert_eq!(format!("#xywh={width},{height},{width},{height}"), cues[3][cues[3].find('#').unwrap()..]);
    let sheet = cues[4].split('#').next().unwrap();
    assert!(sheet.ends_with("/sprite_00002.jpg"), "{sheet}");
    assert_eq!(
        jpeg_size(&std::fs::read(storage.join("timeline").join(sheet)).unwrap()),
        (2 * width, 2 * height)
    );
    // And over HTTP, from where the list leads.
    let content = format!("{}/api/v1/jobs/{id}/outputs/2/content", server.url);
    let led = server.http.get(&content).send().await.unwrap();
    assert_eq!(led.status(), StatusCode::FOUND);
    let picture = server.http.get(format!("{content}/{sheet}")).send().await.unwrap();
    assert_eq!(
        (picture.status(), picture.headers()["content-type"].to_str().unwrap()),
        (StatusCode::OK, "image/jpeg")
    );

    let single = std::fs::read_to_string(storage.join("list.vtt")).unwrap();
    let names: Vec<&str> = single.lines().filter(|line| line.contains(".webp")).collect();
    assert_eq!(names.len(), 3, "{single}");
    let distinct: std::collections::BTreeSet<_> =
        names.iter().map(|name| std::fs::read(storage.join(name)).unwrap()).collect();
    assert_eq!(distinct.len(), 3, "three moments, three pictures");
    server.assert_clean().await;
}

#[tokio::test]
async fn a_film_brings_its_poster_and_takes_it_along() {
    let server = Server::start().await;
    let outputs = json!([
        {"preset": "proxy_360p", "poster": true, "destination": to("{job_id}/film.mp4")},
        {"preset": "hls_720p_abr", "poster": true, "video": {"speed": "ultrafast"}, "destination": to("{job_id}/set")},
        {"preset": "480p_h264", "destination": to("{job_id}/plain.mp4")},
    ]);
    let id = server.submit(&job(&clips::black_start(), &outputs)).await;
    let done = server.finished(&id).await;
    assert_eq!(done["status"], "completed", "{done:#}");
    let storage = server.data().join("storage").join(&id);
    for (n, path) in [(0, "film.poster.jpg"), (1, "set/master.poster.jpg")] {
        let files = &done["outputs"][n]["result"]["files"];
        assert_eq!((&files[1]["role"], files[0]["role"] == "poster"), (&json!("poster"), false), "{files:#}");
        let bytes = std::fs::read(storage.join(path)).unwrap();
        assert_eq!(jpeg_size(&bytes), (320, 180));
        assert!(bytes.len() > 6144, "a third of the film is black, and the poster is not: {}", bytes.len());
        assert!(!done["outputs"][n]["result"]["warnings"].to_string().contains("poster"), "{done:#}");
    }
    assert_eq!(done["outputs"][0]["result"]["frames"], 150);
    assert_eq!(done["outputs"][2]["result"]["file_count"], 1);
    let content = format!("{}/api/v1/jobs/{id}/outputs/0/content", server.url);
    let film = server.http.get(&content).send().await.unwrap();
    assert_eq!(
        (film.status(), film.headers()["content-type"].to_str().unwrap()),
        (StatusCode::OK, "video/mp4")
    );
    let poster = server.http.get(format!("{content}/film.poster.jpg")).send().await.unwrap();
    assert_eq!(poster.status(), StatusCode::OK);
    let refused = json!([{"preset": "proxy_360p", "poster": true,
        "destination": {"kind": "http", "url": "http://127.0.0.1:1/x"}}]);
    let (status, problem) = server.post("/api/v1/jobs", &job(&clips::tiny(), &refused)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem:#}");
    server.assert_clean().await;
}

#[tokio::test]
async fn black_is_skipped_and_exact_moments_are_kept() {
    let server = Server::start().await;
    let clip = clips::black_start();
    let outputs = json!([
        {"container": "png", "stills": {"at": "best"}, "destination": to("{job_id}/best.png")},
        {"container": "jpg", "stills": {"at": 0, "skip_black": false}, "destination": to("{job_id}/black.jpg")},
        {"container": "jpg", "stills": {"at": "00:00:03.000"}, "destination": to("{job_id}/at.jpg")},
        {"container": "vtt", "stills": {"every_seconds": 3, "box": "320x180"}, "destination": to("{job_id}/v")},
    ]);
    let id = server.submit(&job(&clip, &outputs)).await;
    let done = server.finished(&id).await;
    assert_eq!(done["status"], "completed", "{done:#}");
    let size = |n: usize, file: usize| done["outputs"][n]["result"]["files"][file]["size"].as_u64().unwrap();
    // A black JPEG of this size is below 2 KiB, the test picture above 6.
    assert!(size(1, 0) < 2048, "{}", size(1, 0));
    assert!(size(0, 0) > 6144 && size(2, 0) > 6144 && size(3, 1) > 6144, "{done:#}");
    server.assert_clean().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_or_fails_by_its_name() {
    let server = Server::start().await;
    for (output, pointer) in [
        (json!({"container": "jpg", "stills": {"at": 1, "count": 2}}), "/outputs/0/stills/count"),
        (json!({"container": "jpg", "stills": {"every_seconds": 1}}), "/outputs/0/stills"),
        (json!({"container": "vtt", "stills": {"count": 20000}}), "/outputs/0/stills/count"),
        (json!({"container": "jpg"}), "/outputs/0/stills"),
        (json!({"container": "jpg", "stills": {"at": 1}, "video": {"codec": "h264"}}), "/outputs/0/video"),
        (json!({"preset": "720p_h264", "stills": {"at": 1}}), "/outputs/0/stills"),
        (json!({"preset": "poster", "stills": {"at": "movie=/etc/passwd"}}), "/outputs/0/stills/at"),
    ] {
        let mut output = output;
        output["destination"] = to("x/{index}.{ext}");
        let (status, problem) = server.post("/api/v1/jobs", &job(&clips::tiny(), &json!([output]))).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{output}: {problem:#}");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{output}: {problem:#}");
    }
    for (clip, stills, code) in [
        (clips::mp4(2), json!({"container": "jpg", "stills": {"at": 99}}), "media_unsupported"),
        (clips::audio_only(), json!({"preset": "poster"}), "no_video_stream"),
    ] {
        let mut output = stills;
        output["destination"] = to("y/{job_id}.{ext}");
        let id = server.submit(&job(&clip, &json!([output]))).await;
        let done = server.finished(&id).await;
        assert_eq!((&done["status"], &done["error"]["code"]), (&json!("failed"), &json!(code)), "{done:#}");
    }
    server.assert_clean().await;
}
