mod remote;

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::api::json as strict;
use crate::domain::preset::Presets;
use crate::domain::{ObjectPath, OnDamage, VerifyLevel};

fn job() -> JobId {
    JobId::from_uuid(Uuid::from_u128(7))
}

fn submit(text: &str) -> Result<Submission, Vec<String>> {
    let faults = Faults::default();
    let value = strict::parse(text.as_bytes(), &faults).expect("JSON");
    read(value, faults, &Presets::builtin(), job())
        .map_err(|faults| faults.into_iter().map(|f| format!("{} {}", f.pointer, f.detail)).collect())
}

fn faults(body: &Value) -> Vec<String> {
    submit(&body.to_string()).expect_err("a refusal")
}

fn paths(submission: &Submission) -> Vec<String> {
    let path = |output: &OutputSpec| output.destination.text().to_owned();
    submission.spec.outputs.iter().map(path).collect()
}

/// A canonical body with one output at `destination`.
#[expect(clippy::needless_pass_by_value, reason = "callers write literals")]
fn to(destination: Value) -> Value {
    json!({"source": {"kind": "storage", "path": "in/film.mov"},
           "outputs": [{"preset": "720p_h264", "destination": destination}]})
}

/// A canonical body from `source`.
#[expect(clippy::needless_pass_by_value, reason = "callers write literals")]
fn from(source: Value) -> Value {
    json!({"source": source, "outputs": [{"preset": "720p_h264", "destination": {"kind": "storage", "path": "o.mp4"}}]})
}

#[test]
fn the_canonical_body_in_full() {
    let body = json!({
        "source": {"kind": "https", "url": "https://example.com/in.mp4"},
        "outputs": [
            {"preset": "720p_h264", "destination": {"kind": "storage", "path": "out/{job_id}/{index}_{name}_{height}.{ext}"}},
            {"container": "mp4",
             "video": {"codec": "h264", "bitrate": "2500k", "width": 1280, "height": 720},
             "audio": {"codec": "aac", "bitrate": "128k"},
             "destination": {"kind": "file", "path": "/srv/out/{preset}.mp4", "overwrite": "fail"}},
        ],
        "notification_url": "https://example.com/hook?key=canary", "priority": -5,
        "labels": {"team": "a"}, "metadata": {"any": [1, null]},
        "on_damage": "warn", "verify": "full", "timeout_seconds": 600,
    });
    let made = submit(&body.to_string()).expect("accepted");
    assert_eq!(made.spec.source, Source::Http { url: "https://example.com/in.mp4".into() });
    assert_eq!(
        paths(&made),
        ["out/00000000-0000-0000-0000-000000000007/0_in_720.mp4", "/srv/out/custom.mp4"]
    );
    assert_eq!(made.spec.notification_url.as_deref(), Some("https://example.com/hook?…"));
    assert_eq!(made.secrets.notification_url.as_deref(), Some("https://example.com/hook?key=canary"));
    assert_eq!((made.spec.priority, made.spec.labels["team"].as_str()), (-5, "a"));
    let options = made.spec.options;
    assert_eq!((options.on_damage, options.verify), (OnDamage::Warn, Some(VerifyLevel::Full)));
    assert_eq!(options.timeout_seconds, Some(600));
}

/// As `seeds/flux-encoder-execution-flow.ja.md` posts it.
#[test]
fn the_flux_encoder_body_as_it_stands() {
    let made = submit(
        r#"{
  "input_url": "https://example.com/video.mp4",
  "preset": "720p_h264",
  "output": {
    "storage": "s3",
    "path": "output/video.mp4"
  }
}"#,
    )
    .expect("accepted");
    assert_eq!(made.spec.source, Source::Http { url: "https://example.com/video.mp4".into() });
    assert_eq!(paths(&made), ["output/video.mp4"]);
    assert_eq!(made.spec.outputs[0].preset.as_ref().map(PresetName::as_str), Some("720p_h264"));
    assert!(made.spec.outputs[0].warnings[0].contains("\"s3\""));
}

#[test]
fn flux_encoder_values_are_mapped() {
    let with = |url: &str, output: Value| {
        json!({"input_url": url, "preset": "720p_h264", "output": output}).to_string()
    };
    let output = json!({"storage": "local", "path": "a.mp4", "metadata": {"k": "v"}, "type": "single"});
    let made = submit(&with("https://u:p@h/x.mp4?sig=canary#t", output.clone())).expect("accepted");
    assert_eq!(made.spec.source, Source::Http { url: "https://h/x.mp4?…".into() });
    assert_eq!(made.secrets.source_url.as_deref(), Some("https://u:p@h/x.mp4?sig=canary"));
    assert!(!serde_json::to_string(&made.spec).unwrap().contains("canary"));
    let made = submit(&with("file:///srv/in/a%20b.mov", output.clone())).expect("accepted");
    assert_eq!(made.spec.source, Source::File { path: "/srv/in/a b.mov".into() });
    for (url, says) in [
        ("javascript:alert(1)", "must be an http"),
        ("concat:a|b", "must be an http"),
        ("/etc/passwd", "must be an http"),
        ("http://", "not a URL"),
    ] {
        let found = submit(&with(url, output.clone())).expect_err(url);
        assert!(
            found.len() == 1 && found[0].starts_with("/input_url ") && found[0].contains(says),
            "{url}: {found:?}"
        );
    }
    let found =
        submit(&with("http://h/x", json!({"path": "a.mp4", "type": "hls"}))).expect_err("wrong shape");
    assert!(found[0].starts_with("/output/path") || found[0].starts_with("/output/type"), "{found:?}");
}

/// As `seeds/cloud-distributed-transcode-pipeline-readme.md` posts it.
#[test]
fn the_cloud_pipeline_body_as_it_stands() {
    let made = submit(r#"{"input_key": "uploads/test/video.mp4"}"#).expect("accepted");
    assert_eq!(
        made.spec.source,
        Source::Storage { path: ObjectPath::parse("uploads/test/video.mp4").unwrap() }
    );
    assert_eq!(made.maybe_upload, None);
    let id = job();
    assert_eq!(paths(&made), ["480p", "720p", "1080p"].map(|r| format!("outputs/{id}/video_{r}.mp4")));
    let made = submit(r#"{"input_key": "a/b.mp4", "resolutions": ["1080p"]}"#).expect("accepted");
    assert_eq!(made.spec.outputs[0].preset.as_ref().map(PresetName::as_str), Some("1080p_h264"));
    assert_eq!(made.spec.outputs.len(), 1);
    let upload = Uuid::from_u128(9);
    let made =
        submit(&json!({"input_key": format!("uploads/{upload}/film.mov")}).to_string()).expect("accepted");
    assert_eq!(made.maybe_upload, Some(UploadId::from_uuid(upload)));
    assert_eq!(
        submit(r#"{"input_key": "a.mp4", "resolutions": ["720p", "4k", 5]}"#).expect_err("refused"),
        [
            "/resolutions/1 must be one of 480p, 720p, 1080p",
            "/resolutions/2 must be one of 480p, 720p, 1080p"
        ]
    );
    let twice = submit(r#"{"input_key": "a.mp4", "resolutions": ["720p", "720p"]}"#).expect_err("refused");
    assert!(twice[0].starts_with("/resolutions/1 is the destination of output 0 too"), "{twice:?}");
}

/// The shape of Encoder v2 with kinds of this build: camel-case names are aliases.
#[test]
fn camel_case_is_an_alias_at_the_top() {
    let mut body = to(json!({"kind": "storage", "path": "o.mp4"}));
    body["notificationUrl"] = "https://example.com/webhook".into();
    let made = submit(&body.to_string()).expect("accepted");
    assert_eq!(made.spec.notification_url.as_deref(), Some("https://example.com/webhook"));
    body["notification_url"] = "https://example.com/other".into();
    assert_eq!(faults(&body).len(), 1);
}

#[test]
fn all_faults_at_once_with_their_places() {
    let found = faults(&json!({
        "source": {"kind": "http", "url": "gopher://x", "passwd": "p"},
        "outputs": [
            {"preset": "720p_h265x", "destination": {"kind": "storage", "path": "a.mp4"}},
            {"preset": "720p_h264", "destination": {"kind": "storage", "path": "../b.mp4"}},
            {"preset": "720p_h264"},
            {"preset": "720p_h264", "destination": {"kind": "s3", "path": "x"}},
        ],
        "priority": 101, "labels": {"a b": "c", "n": 5}, "metadata": [], "on_damage": "maybe",
        "output": {},
    }));
    let places: Vec<_> = found.iter().filter_map(|f| f.split(' ').next()).collect();
    for place in [
        "/source/url",
        "/source/passwd",
        "/outputs/0/preset",
        "/outputs/1/destination/path",
        "/outputs/2/destination",
        "/outputs/3/destination/bucket",
        "/priority",
        "/labels/a b",
        "/labels/n",
        "/metadata",
        "/on_damage",
        "/output",
    ] {
        assert!(places.contains(&place.split(' ').next().unwrap()), "{place} is missing in {found:#?}");
    }
    let unknown = found.iter().find(|f| f.starts_with("/outputs/0/preset")).unwrap();
    assert!(unknown.contains("720p_h264"), "near names: {unknown}");
    assert!(found.iter().any(|f| f.contains("did you mean \"outputs\"")), "{found:#?}");
}

#[test]
fn sources_of_this_server() {
    let made = submit(&from(json!({"kind": "file", "path": "/srv/in/x.mov"})).to_string()).expect("accepted");
    assert_eq!(made.spec.source, Source::File { path: "/srv/in/x.mov".into() });
    let id = Uuid::from_u128(3);
    let made = submit(&from(json!({"kind": "upload", "id": id})).to_string()).expect("accepted");
    assert_eq!(made.spec.source, Source::Upload { id: UploadId::from_uuid(id) });
    assert!(faults(&from(json!({"kind": "carrier-pigeon"})))[0].starts_with("/source/kind must be one of"));
    assert!(faults(&from(json!({"kind": "upload", "id": "../x"})))[0].starts_with("/source/id"));
    assert!(faults(&from(json!({"kind": "storage", "path": "/abs"})))[0].starts_with("/source/path"));
    assert!(faults(&from(json!("x")))[0].starts_with("/source must be an object"));
    let headers =
        json!({"kind": "http", "url": "http://h/", "headers": {"Host": "evil", "X-A": "b\r\nc", "Ok": "1"}});
    assert_eq!(faults(&from(headers)).len(), 2);
}

#[test]
fn inline_sources_are_decoded_once() {
    for (field, text) in
        [("data", "aGVsbG8="), ("content", "aGVsbG8"), ("base64", "data:video/mp4;base64,aGVs\nbG8=")]
    {
        let made = submit(&from(json!({"kind": "inline", field: text})).to_string()).expect(field);
        assert_eq!(made.inline.as_deref(), Some(&b"hello"[..]));
        assert_eq!(
            made.spec.source,
            Source::Inline { key: ObjectPath::parse(job().to_string()).unwrap(), size: 5 }
        );
    }
    for bad in [
        json!({"kind": "inline"}),
        json!({"kind": "inline", "data": ""}),
        json!({"kind": "inline", "data": "%%"}),
        json!({"kind": "inline", "data": "aGVsbG8=", "content": "aGVsbG8="}),
    ] {
        assert_eq!(faults(&from(bad.clone())).len(), 1, "{bad}");
    }
    let huge = "A".repeat((crate::domain::limits::MAX_INLINE_BYTES + 3) / 3 * 4 + 4);
    assert!(faults(&from(json!({"kind": "inline", "data": huge})))[0].contains("use an upload"));
}

#[test]
fn destinations_stay_below_their_roots_and_apart() {
    for bad in ["/etc/passwd", "../x", "a/../../x", "a\\b", "", "{secret}", "a//b", "{name"] {
        assert_eq!(faults(&to(json!({"kind": "storage", "path": bad}))).len(), 1, "{bad:?}");
    }
    for bad in ["/srv/../etc/x", "//etc", "a\u{0}b"] {
        assert_eq!(faults(&to(json!({"kind": "file", "path": bad}))).len(), 1, "{bad:?}");
    }
    let two = json!({"source": {"kind": "storage", "path": "in.mov"}, "destination": {"kind": "storage", "path": "x/{preset}.mp4"},
                     "outputs": [{"preset": "720p_h264"}, {"preset": "480p_h264"}]});
    assert_eq!(
        paths(&submit(&two.to_string()).expect("a common destination")),
        ["x/720p_h264.mp4", "x/480p_h264.mp4"]
    );
    let same = json!({"source": {"kind": "storage", "path": "in.mov"}, "destination": {"kind": "storage", "path": "x.mp4"},
                      "outputs": [{"preset": "720p_h264"}, {"preset": "480p_h264"}]});
    assert!(faults(&same)[0].contains("is the destination of output 0 too"));
}

#[test]
fn shapes_do_not_mix_and_something_must_be_there() {
    assert_eq!(
        faults(&json!({"source": {}, "input_url": "http://h/"})),
        ["/input_url cannot stand beside \"source\""]
    );
    assert!(faults(&json!({})).iter().any(|f| f == "/source is required"));
    assert_eq!(faults(&json!([])), [" must be an object"]);
    assert!(
        faults(&json!({"source": {"kind": "storage", "path": "a"}, "outputs": []}))[0].contains("1 to 50")
    );
    assert!(
        submit(r#"{"input_key": "a.mp4", "input_key": "b.mp4"}"#).expect_err("twice")[0]
            .contains("given twice")
    );
    assert!(faults(&json!({"input_key": "a.mp4", "priority": 1e300})).len() == 1);
}

#[test]
fn raw_ffmpeg_arguments_are_not_a_field() {
    let mut body = to(json!({"kind": "storage", "path": "o.mp4"}));
    body["outputs"][0]["extra_args"] = json!(["-vf", "movie=/etc/passwd"]);
    assert_eq!(faults(&body).len(), 1);
}
