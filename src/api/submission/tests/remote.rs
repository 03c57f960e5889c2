//! Places of other people: buckets, FTP and HTTP destinations, and what of them is sealed.

use super::*;
use crate::domain::{Access, Acl, Bucket, HttpMethod, OutputIndex, Overwrite};

/// As `seeds/encoder-v2-readme.md` posts it.
#[test]
fn the_encoder_v2_body_as_it_stands() {
    let made = submit(
        r#"{
    "source": {
      "kind": "s3",
      "access_key_id": "AKIAIOSFODNN7EXAMPLE",
      "access_key_secret": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
      "region": "us-east-1",
      "bucket": "my-bucket",
      "path": "uploads/input/video.mp4"
    },
    "outputs": [
      {
        "container": "mp4",
        "videoCodec": "libx264",
        "videoBitrate": "2500k",
        "audioCodec": "aac",
        "audioBitrate": "128k",
        "width": 1280,
        "height": 720,
        "destination": {
          "kind": "s3",
          "access_key_id": "AKIAIOSFODNN7EXAMPLE",
          "access_key_secret": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
          "region": "us-east-1",
          "bucket": "my-bucket",
          "path": "processed/output/video_720p.mp4",
          "acl": "public-read"
        }
      }
    ],
    "notificationUrl": "https://example.com/webhook"
  }"#,
    )
    .expect("accepted");
    let Source::Bucket { bucket, path, access: Access::Request } = &made.spec.source else {
        panic!("{:?}", made.spec.source);
    };
    assert_eq!((bucket.url().as_str(), path.as_str()), ("s3://my-bucket", "uploads/input/video.mp4"));
    assert_eq!(paths(&made), ["processed/output/video_720p.mp4"]);
    let Destination::Bucket { access: Access::Request, object, .. } = &made.spec.outputs[0].destination
    else {
        panic!("{:?}", made.spec.outputs[0].destination);
    };
    assert_eq!(object.acl, Some(Acl::PublicRead));
    let key = Credentials::S3 {
        access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
        secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
        session_token: None,
    };
    assert_eq!(made.secrets.source_credentials.as_ref(), Some(&key));
    assert_eq!(made.secrets.output(OutputIndex(0)).credentials.as_ref(), Some(&key));
    assert!(!serde_json::to_string(&made.spec).unwrap().contains("EXAMPLE"));
    // What it says is what the canonical body says.
    let canonical = json!({
        "source": {"kind": "storage", "path": "in.mp4"},
        "outputs": [{"container": "mp4", "video": {"codec": "h264", "bitrate": "2500k", "width": 1280, "height": 720},
                     "audio": {"codec": "aac", "bitrate": "128k"}, "destination": {"kind": "storage", "path": "o.mp4"}}],
    });
    let canonical = submit(&canonical.to_string()).expect("accepted");
    assert_eq!(made.spec.outputs[0].encode, canonical.spec.outputs[0].encode);
    assert_eq!(made.spec.outputs[0].warnings, Vec::<String>::new());
}

/// An Encoder v2 output with these fields beside a container and a destination.
#[expect(clippy::needless_pass_by_value, reason = "callers write literals")]
fn flat(fields: Value) -> Value {
    let mut body = to(json!({"kind": "storage", "path": "o.mp4"}));
    let output = body["outputs"][0].as_object_mut().unwrap();
    output.remove("preset");
    output.insert("container".into(), "mp4".into());
    output.extend(fields.as_object().unwrap().clone());
    body
}

#[test]
fn flat_fields_are_mapped_by_value_and_faults_stand_where_they_were_written() {
    let accepted = [
        json!({"videoCodec": "libx265", "videoBitrate": "2.5M", "audioCodec": "libfdk_aac"}),
        json!({"video_codec": "h264", "videoBitrate": 2_500_000, "audio_codec": "aac", "extraArgs": []}),
        json!({"videoCodec": "h264", "videoBitrate": "2500k", "height": 480, "audioCodec": "aac", "extra_args": ""}),
    ];
    for fields in accepted {
        let made = submit(&flat(fields.clone()).to_string()).unwrap_or_else(|f| panic!("{fields}: {f:?}"));
        assert!(made.spec.outputs[0].encode.audio.is_some() && made.spec.outputs[0].warnings.is_empty());
    }
    let silent = submit(&flat(json!({"videoCodec": "h264"})).to_string()).expect("accepted");
    assert!(silent.spec.outputs[0].warnings[0].contains("no sound"));
    for (fields, at) in [
        (json!({"videoCodec": "libvpx", "audioCodec": "aac"}), "/outputs/0/videoCodec"),
        (json!({"videoCodec": "vp8"}), "/outputs/0/videoCodec"),
        (json!({"videoCodec": "h264", "audioCodec": "libvorbis"}), "/outputs/0/audioCodec"),
        (json!({"videoCodec": "h264", "videoBitrate": "fast"}), "/outputs/0/videoBitrate"),
        (json!({"videoCodec": "h264", "width": "wide"}), "/outputs/0/width"),
        (json!({"videoCodec": "h264", "video_codec": "h264"}), "/outputs/0/videoCodec"),
        (json!({"videoCodec": "h264", "video": {"codec": "h264"}}), "/outputs/0/videoCodec"),
        (json!({"videoCodec": "h264", "format": "mp4"}), "/outputs/0/format"),
        (json!({"videoCodec": "h264", "extraArgs": ["-vf", "movie=x"]}), "/outputs/0/extraArgs"),
    ] {
        let found = faults(&flat(fields.clone()));
        assert!(found.iter().any(|f| f.starts_with(&format!("{at} "))), "{fields}: {found:?}");
    }
}

#[test]
fn every_kind_of_bucket_is_read_and_its_credentials_are_sealed() {
    let account = json!({"type": "service_account", "client_email": "a@b", "private_key": "canary",
                         "private_key_id": "canary", "token_uri": "http://169.254.169.254/"});
    let cases = [
        (
            json!({"kind": "s3", "bucket": "b", "path": "k", "endpoint": "https://s3.example:9000/", "path_style": true,
                "access_key_id": "AKcanary", "secret_access_key": "canary", "session_token": "canary"}),
            "s3",
            Access::Request,
        ),
        (json!({"kind": "s3", "bucket": "b", "key": "k", "anonymous": true}), "s3", Access::Anonymous),
        (
            json!({"kind": "s3", "bucket": "b", "path": "k", "profile": "archive"}),
            "s3",
            Access::Profile { name: "archive".into() },
        ),
        (
            json!({"kind": "gcs", "bucket": "b", "path": "k", "service_account": account}),
            "gcs",
            Access::Request,
        ),
        (json!({"kind": "gs", "bucket": "b", "path": "k", "access_token": "canary"}), "gcs", Access::Request),
        (
            json!({"kind": "azure", "account": "a", "container": "c", "path": "k", "account_key": "canary"}),
            "azure",
            Access::Request,
        ),
        (
            json!({"kind": "az", "account": "a", "container": "c", "path": "k", "sas_token": "?sig=canary"}),
            "azure",
            Access::Request,
        ),
        (json!({"kind": "azure", "account": "a", "container": "c", "path": "k"}), "azure", Access::Unsaid),
    ];
    for (body, kind, expected) in cases {
        let made = submit(&from(body.clone()).to_string()).unwrap_or_else(|f| panic!("{body}: {f:?}"));
        let Source::Bucket { access, .. } = &made.spec.source else { panic!("{body}") };
        assert_eq!((made.spec.source.kind(), access), (kind, &expected), "{body}");
        assert_eq!(made.secrets.source_credentials.is_some(), expected == Access::Request);
        assert!(!serde_json::to_string(&made.spec).unwrap().contains("canary"), "{body}");
        if let Some(Credentials::ServiceAccount { json }) = &made.secrets.source_credentials {
            assert!(!json.contains("token_uri"), "servers are not the request's to name");
        }
    }
}

#[test]
fn half_credentials_and_two_ways_at_once_are_refused_without_repeating_them() {
    let s3 = |more: Value| {
        let mut body = json!({"kind": "s3", "bucket": "b", "path": "k"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (body, at) in [
        (s3(json!({"access_key_id": "canary"})), "/source/access_key_id"),
        (s3(json!({"access_key_secret": "canary"})), "/source/access_key_secret"),
        (s3(json!({"session_token": "canary"})), "/source/session_token"),
        (
            s3(
                json!({"access_key_id": "canary", "secret_access_key": "canary", "access_key_secret": "canary"}),
            ),
            "/source/access_key_secret",
        ),
        (
            s3(json!({"access_key_id": "canary", "secret_access_key": "canary", "profile": "p"})),
            "/source/profile",
        ),
        (s3(json!({"profile": "p", "anonymous": true})), "/source/anonymous"),
        (s3(json!({"endpoint": "http://u:canary@h/"})), "/source/endpoint"),
        (s3(json!({"region": "a/b"})), "/source/region"),
        (s3(json!({"bucket": "../b"})), "/source/bucket"),
        (s3(json!({"secret_key": "canary"})), "/source/secret_key"),
        (
            json!({"kind": "gcs", "bucket": "b", "path": "k", "service_account": {"canary": 1}}),
            "/source/service_account",
        ),
        (
            json!({"kind": "azure", "account": "a", "container": "c", "path": "k", "account_key": "canary", "sas_token": "canary"}),
            "/source/sas_token",
        ),
    ] {
        let found = faults(&from(body.clone()));
        assert!(found.iter().any(|f| f.starts_with(&format!("{at} "))), "{body}: {found:?}");
        assert!(!found.concat().contains("canary"), "{found:?}");
    }
}

#[test]
fn urls_of_the_seeds_name_buckets_and_ftp_servers() {
    let with =
        |url: &str| json!({"input_url": url, "preset": "720p_h264", "output": {"path": "a.mp4"}}).to_string();
    for (url, kind, stem) in [
        ("s3://b/in/film.mov", "s3", "film"),
        ("gs://b/film.mov", "gcs", "film"),
        ("az://acc/box/film.mov", "azure", "film"),
        ("ftp://u:p%40ss@h/in/film.mov", "ftp", "film"),
    ] {
        let made = submit(&with(url)).expect(url);
        assert_eq!((made.spec.source.kind(), made.spec.source.stem()), (kind, stem), "{url}");
        assert!(!serde_json::to_string(&made.spec).unwrap().contains("p%40ss"));
        if kind == "ftp" {
            let login = Credentials::Login { username: "u".into(), password: "p@ss".into() };
            assert_eq!(made.secrets.source_credentials, Some(login));
        }
    }
    for url in ["s3://b", "s3://AK:canary@b/k", "gs:///k", "az://a/k", "ftp://h/", "ftps://h/a%0d%0aDELE x"] {
        let found = submit(&with(url)).expect_err(url);
        assert!(found[0].starts_with("/input_url ") && !found[0].contains("canary"), "{url}: {found:?}");
    }
}

#[test]
fn http_and_ftp_destinations_are_filled_in_and_their_secrets_sealed() {
    let made = submit(
        &to(json!({"kind": "http", "url": "https://u:canary@h/in/{name}_{height}.{ext}?sig=canary", "method": "POST",
                   "headers": {"Authorization": "Bearer canary"}}))
        .to_string(),
    )
    .expect("accepted");
    assert_eq!(
        made.spec.outputs[0].destination,
        Destination::Http { url: "https://h/in/film_720.mp4?…".into(), method: HttpMethod::Post }
    );
    let secrets = made.secrets.output(OutputIndex(0));
    assert_eq!(secrets.url.as_deref(), Some("https://u:canary@h/in/film_720.mp4?sig=canary"));
    assert_eq!(secrets.headers["Authorization"], "Bearer canary");
    let made = submit(
        &to(json!({"kind": "ftps", "url": "ftps://h:2121/in/{name}.{ext}", "username": "u", "password": "canary",
                   "overwrite": "fail"}))
        .to_string(),
    )
    .expect("accepted");
    assert_eq!(
        made.spec.outputs[0].destination,
        Destination::Ftp { url: "ftps://h:2121/in/film.mp4".into(), overwrite: Overwrite::Fail }
    );
    assert!(!serde_json::to_string(&made.spec).unwrap().contains("canary"));
    for (bad, at) in [
        (json!({"kind": "http", "url": "https://h/x", "method": "DELETE"}), "method"),
        (
            json!({"kind": "http", "url": "https://h/x", "headers": {"Content-Length": "1"}}),
            "headers/Content-Length",
        ),
        (json!({"kind": "http", "url": "https://h/x", "overwrite": "fail"}), "overwrite"),
        (json!({"kind": "ftp", "url": "ftp://h/{secret}"}), "url"),
        (json!({"kind": "ftp", "url": "ftp://u@h/x", "username": "v"}), "username"),
        (json!({"kind": "s3", "bucket": "b", "path": "../x"}), "path"),
        (json!({"kind": "s3", "bucket": "b", "path": "x", "acl": "everyone"}), "acl"),
        (json!({"kind": "s3", "bucket": "b", "path": "x", "cache_control": "a\r\nb: c"}), "cache_control"),
        (json!({"kind": "s3", "bucket": "b", "path": "x", "anonymous": true}), "anonymous"),
        (json!({"kind": "gcs", "bucket": "b", "path": "x", "acl": "private"}), "acl"),
    ] {
        let found = faults(&to(bad.clone()));
        assert!(found[0].starts_with(&format!("/outputs/0/destination/{at} ")), "{bad}: {found:?}");
    }
}

#[test]
fn a_bucket_and_another_with_the_same_name_are_two_places() {
    let s3 = |endpoint: &str| json!({"kind": "s3", "bucket": "b", "path": "o.mp4", "endpoint": endpoint});
    let two = |first: Value, second: Value| {
        json!({"source": {"kind": "storage", "path": "in.mov"},
               "outputs": [{"preset": "720p_h264", "destination": first}, {"preset": "480p_h264", "destination": second}]})
    };
    assert!(submit(&two(s3("https://a.example"), s3("https://b.example")).to_string()).is_ok());
    let same = faults(&two(s3("https://a.example"), s3("https://a.example/")));
    assert!(same[0].starts_with("/outputs/1/destination/path is the destination of output 0"), "{same:?}");
    let post = json!({"kind": "http", "url": "https://h/in?part=1"});
    let other = json!({"kind": "http", "url": "https://h/in?part=2"});
    assert!(submit(&two(post, other).to_string()).is_ok(), "queries are not shown and yet tell places apart");
    assert!(matches!(Bucket::parse_url("s3://b/k"), Some((Bucket::S3 { .. }, "k"))));
}
