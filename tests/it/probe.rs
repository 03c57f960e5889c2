//! What a source is, asked of a server and on the command line: the real probe, its limits, its failures, its end.

use base64::Engine as _;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::origin::{Fault, Origin};
use crate::support::server::{Role, Server, Start, flux, left_behind};
use crate::support::{clips, eventually};

const PROBE: &str = "/api/v1/probe";

fn of(source: &Value) -> Value {
    json!({"source": source})
}

#[tokio::test]
async fn a_server_and_the_command_say_the_same_of_every_kind_of_source() {
    let server = Server::start().await;
    let clip = clips::mp4(2);
    let bytes = std::fs::read(&clip).unwrap();
    let (status, said) = server.post(PROBE, &of(&json!({"kind": "file", "path": clip}))).await;
    assert_eq!(status, StatusCode::OK, "{said:#}");
    assert_eq!((&said["container"], &said["size"]), (&json!("mov"), &json!(bytes.len())));
    assert_eq!(said["duration_seconds"], 2.0);
    let video = &said["video"][0];
    assert_eq!(
        (&video["width"], &video["height"], &video["frame_rate"]),
        (&json!(320), &json!(180), &json!(25.0))
    );
    assert_eq!(
        (&video["codec"], &video["main"], &video["bit_depth"]),
        (&json!("h264"), &json!(true), &json!(8))
    );
    assert!(video["codec_string"].as_str().is_some_and(|text| text.starts_with("avc1.42c0")), "{video:#}");
    let sound = &said["audio"][0];
    assert_eq!((&sound["codec_string"], &sound["channels"]), (&json!("mp4a.40.2"), &json!(1)));
    assert_eq!(said["warnings"], json!([]));

    let origin = Origin::start(bytes.clone(), Fault::None).await;
    let (_, place) = server.post("/api/v1/uploads", &json!({"filename": "a.mp4", "size": bytes.len()})).await;
    let url = format!("{}{}", server.url, place["url"].as_str().unwrap());
    let put = server.http.put(url).body(bytes.clone()).send().await.unwrap();
    assert_eq!(put.status(), StatusCode::OK);
    let data = base64::engine::general_purpose::STANDARD.encode(&bytes);
    for body in [
        of(&json!({"kind": "http", "url": format!("{}?sig=secret", origin.url())})),
        of(&json!({"kind": "inline", "data": data})),
        of(&place["source"]),
        json!({"input_url": origin.url()}),
        json!({"input_key": format!("uploads/{}/a.mp4", place["id"].as_str().unwrap())}),
    ] {
        let (status, other) = server.post(PROBE, &body).await;
        assert_eq!((status, &other), (StatusCode::OK, &said));
    }
    let mut command = flux(&["probe", clip.to_str().unwrap(), "--json"]);
    let told = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&told.stdout).unwrap(), said);
    assert!(!server.log().contains("sig=secret"), "{}", server.log());
    server.assert_clean().await;
}

#[tokio::test]
async fn failures_are_problems_with_the_code_that_a_job_would_have() {
    let server = Server::start().await;
    let clip = clips::mp4(2);
    let whole = std::fs::read(&clip).unwrap();
    let serve = async |bytes: Vec<u8>, fault| {
        let origin = Origin::start(bytes, fault).await;
        let source = json!({"kind": "http", "url": origin.url()});
        (origin, source)
    };
    let (_cut, cut) = serve(clips::cut(&clip, 0.6), Fault::None).await;
    let (_junk, junk) = serve(b"#!/bin/sh\nnothing here".repeat(50), Fault::None).await;
    let (_gone, gone) = serve(whole.clone(), Fault::Status(404)).await;
    let (_shut, shut) = serve(whole.clone(), Fault::Status(403)).await;
    for (source, status, code) in [
        (&cut, 422, "media_truncated"),
        (&junk, 422, "media_corrupt"),
        (&gone, 422, "source_not_found"),
        (&shut, 422, "source_forbidden"),
        (&json!({"kind": "file", "path": "/etc/passwd"}), 422, "validation_failed"),
        (&json!({"kind": "http", "url": "http://169.254.169.254/x"}), 422, "validation_failed"),
        (&json!({"kind": "carrier_pigeon"}), 422, "validation_failed"),
    ] {
        let (answered, problem) = server.post(PROBE, &of(source)).await;
        assert_eq!((answered.as_u16(), &problem["code"]), (status, &json!(code)), "{source}: {problem:#}");
        assert_eq!(problem["type"], format!("/problems/{code}"));
        assert_eq!(server.get(&format!("/problems/{code}")).await.0, StatusCode::OK);
    }
    let (status, problem) = server.post(PROBE, &json!({"source": gone, "outputs": []})).await;
    assert_eq!((status.as_u16(), &problem["errors"][0]["pointer"]), (422, &json!("/outputs")));

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cut.mp4"), clips::cut(&clip, 0.6)).unwrap();
    for (name, code, said) in
        [("cut.mp4", 1, "media_truncated"), ("missing.mp4", 3, "cannot read missing.mp4")]
    {
        let mut command = flux(&["probe", name]);
        command.current_dir(folder.path());
        let told = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let stderr = String::from_utf8_lossy(&told.stderr).into_owned();
        assert_eq!(told.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
    }
    server.assert_clean().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_its_question_and_others_are_told_to_wait() {
    let server = Server::start().await;
    let bytes = std::fs::read(clips::long(30)).unwrap();
    let hanging = Origin::start(bytes, Fault::Silent).await;
    let source = of(&json!({"kind": "http", "url": hanging.url()}));
    let full = {
        let ask = || server.http.post(format!("{}{PROBE}", server.url)).json(&source).send();
        let mut asking: Vec<_> = (0..4).map(|_| Box::pin(ask())).collect();
        let all = futures_util::future::join_all(asking.iter_mut());
        let taken = eventually("four are being answered", async || {
            (left_behind(&server.data()).len() == 4).then_some(())
        });
        tokio::select! {
            _ = all => panic!("a silent origin was answered for"),
            () = taken => {}
        }
        server.http.post(format!("{}{PROBE}", server.url)).json(&source).send().await.unwrap()
        // Here the four connections are closed.
    };
    assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(full.headers().contains_key("retry-after"));
    server.assert_clean().await;
    let (status, _) = server.post(PROBE, &of(&json!({"kind": "file", "path": clips::tiny()}))).await;
    assert_eq!(status, StatusCode::OK, "the seats are free again");
}

#[tokio::test]
async fn a_control_without_tools_says_so() {
    let control = Start::role(Role::Control).server().await;
    let (status, problem) = control.post(PROBE, &of(&json!({"kind": "file", "path": clips::tiny()}))).await;
    assert_eq!((status.as_u16(), &problem["code"]), (501, &json!("probe_unavailable")), "{problem:#}");
}
