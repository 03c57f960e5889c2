use serde_json::json;

use super::super::{BitRate, Container, Passes, Rate, VideoCodec};
use super::*;

fn resolve(name: Option<&str>, overrides: Value) -> Result<EncodeSpec, Vec<Fault>> {
    let Value::Object(map) = overrides else { panic!("an object") };
    Presets::builtin().resolve(name, map)
}

fn pointers(result: Result<EncodeSpec, Vec<Fault>>) -> Vec<String> {
    result.unwrap_err().into_iter().map(|f| f.pointer).collect()
}

fn complaints(document: &str) -> Vec<String> {
    Presets::builtin().with_document(document).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn the_embedded_document_is_good() {
    let presets = Presets::default().with_document(BUILTIN).unwrap();
    let names: Vec<_> = presets.iter().map(|(name, _, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "1080p_av1",
            "1080p_h264",
            "1080p_hevc",
            "1080p_vp9",
            "2160p_hevc_hdr",
            "480p_h264",
            "720p_h264",
            "audio_m4a",
            "dash_1080p",
            "hls_1080p_abr",
            "hls_720p",
            "hls_720p_abr",
            "hls_720p_abr_video_only",
            "hls_720p_video_only",
            "podcast_mp3",
            "poster",
            "proxy_360p",
            "social_vertical",
            "thumbnails",
            "web_1080p",
        ]
    );
    for (name, description, spec) in presets.iter() {
        assert!(!description.is_empty(), "{name}");
        assert_eq!(spec.faults(), [], "{name}");
        assert_eq!(presets.get(name.as_str()), Some(spec));
    }
}

#[test]
fn extending_keeps_what_is_not_said_and_replaces_the_rate_whole() {
    let presets = Presets::builtin();
    let proxy = presets.get("proxy_360p").unwrap();
    let video = proxy.encoded_picture().unwrap();
    assert_eq!(video.rate, Rate::Crf { crf: 28.0 });
    assert_eq!(video.bounds.unwrap().to_string(), "640x360");
    assert_eq!(proxy.encoded_sound().unwrap().bitrate, Some(BitRate::new(64_000).unwrap()));
    let vertical = presets.get("social_vertical").unwrap().encoded_picture().unwrap();
    assert_eq!((vertical.fps.max, vertical.gop_seconds.to_bits()), (Some(30), 2.0_f32.to_bits()));
}

#[test]
fn settings_survive_json() {
    for (name, _, spec) in Presets::builtin().iter() {
        let json = serde_json::to_string(spec).unwrap();
        assert_eq!(serde_json::from_str::<EncodeSpec>(&json).unwrap(), *spec, "{name}");
    }
}

#[test]
fn requests_are_laid_over_presets() {
    let spec =
        resolve(Some("720p_h264"), json!({"video": {"crf": 20, "width": 640}, "audio": {"codec": "none"}}))
            .unwrap();
    let video = spec.encoded_picture().unwrap();
    assert_eq!(video.rate, Rate::Crf { crf: 20.0 });
    assert_eq!((video.bounds, video.width, video.height), (None, Some(640), None));
    assert_eq!(spec.audio, None);
    assert_eq!(resolve(Some("720p_h264"), json!({"audio": null})).unwrap().audio, None);
    assert!(resolve(Some("720p_h264"), json!({"container": "mp4"})).is_ok());
}

#[test]
fn another_codec_drops_what_was_meant_for_the_old_one() {
    let spec = resolve(Some("1080p_hevc"), json!({"video": {"codec": "av1", "bit_depth": 10}})).unwrap();
    let video = spec.encoded_picture().unwrap();
    assert_eq!(video.codec, VideoCodec::Av1);
    assert!(matches!(video.rate, Rate::CappedCrf { crf: 34.0, .. }), "{:?}", video.rate);
    let video = resolve(Some("720p_h264"), json!({"video": {"codec": "hevc"}})).unwrap();
    let video = video.encoded_picture().unwrap();
    assert_eq!((video.profile, video.rate), (None, Rate::Crf { crf: 26.0 }));
}

#[test]
fn the_design_documents_body_is_accepted() {
    let spec = resolve(
        None,
        json!({"container": "mp4", "video": {"codec": "h264", "bitrate": "2500k", "width": 1280, "height": 720},
               "audio": {"codec": "aac", "bitrate": "128k"}}),
    )
    .unwrap();
    assert_eq!(spec.container, Container::Mp4);
    let rate = spec.encoded_picture().unwrap().rate;
    assert_eq!(
        rate,
        Rate::Bitrate {
            target: BitRate::new(2_500_000).unwrap(),
            max: None,
            buffer: None,
            passes: Passes::One
        }
    );
}

#[test]
fn a_codec_alone_gets_the_presets_quality() {
    let spec = resolve(None, json!({"container": "mkv", "video": {"codec": "vp9"}})).unwrap();
    assert_eq!(spec.encoded_picture().unwrap().rate, Rate::Crf { crf: 32.0 });
}

#[test]
fn every_fault_is_reported_at_once() {
    let found = pointers(resolve(
        None,
        json!({
            "container": "webm",
            "video": {"codec": "vp9", "rate": {"mode": "capped_crf", "crf": "x"}, "heigth": 3, "speed": "warp"},
            "audio": {"codec": "aac", "bitrate": "1 k", "loudness": {"target": -16, "peak": 1}},
            "filters": "movie=/etc/passwd",
        }),
    ));
    assert_eq!(
        found,
        [
            "/video/rate/crf",
            "/video/rate/max",
            "/video/speed",
            "/video/heigth",
            "/audio/bitrate",
            "/audio/loudness/peak",
            "/filters",
        ]
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn contradictions_are_refused() {
    for (body, at) in [
        (json!({"container": "webm", "video": {"codec": "h264"}}), "/video/codec"),
        (json!({"container": "webm", "video": {"codec": "vp9"}, "audio": {"codec": "aac"}}), "/audio/codec"),
        (json!({"container": "mp4", "video": {"codec": "vp9"}}), "/video/codec"),
        (json!({"container": "mov", "audio": {"codec": "opus"}}), "/audio/codec"),
        (json!({"container": "mp4", "video": {"codec": "h264", "crf": 52}}), "/video/rate/crf"),
        (json!({"container": "mp4", "video": {"codec": "h264", "crf": 0}}), "/video/rate/crf"),
        (json!({"container": "mp4", "video": {"codec": "av1", "crf": 30.5}}), "/video/rate/crf"),
        (json!({"container": "mp4", "video": {"codec": "h264", "crf": 20, "bitrate": "1M"}}), "/video/crf"),
        (
            json!({"container": "mp4", "video": {"codec": "h264", "crf": 20, "rate": {"mode": "crf", "crf": 1}}}),
            "/video/rate",
        ),
        (
            json!({"container": "mp4", "video": {"codec": "h264", "rate": {"mode": "magic"}}}),
            "/video/rate/mode",
        ),
        (
            json!({"container": "mp4", "video": {"codec": "h264", "rate": {"mode": "crf", "crf": 1, "target": 1}}}),
            "/video/rate/target",
        ),
        (
            json!({"container": "mp4", "video": {"codec": "h264", "rate": {"mode": "bitrate", "target": 100_000, "passes": 3}}}),
            "/video/rate/passes",
        ),
        (
            json!({"container": "mp4", "video": {"codec": "h264", "rate": {"mode": "crf", "crf": 20, "passes": 2}}}),
            "/video/rate/passes",
        ),
        (
            json!({"container": "mp4", "video": {"codec": "av1", "rate": {"mode": "bitrate", "target": 100_000, "passes": 2}}}),
            "/video/rate/passes",
        ),
        (json!({"container": "mp4", "video": {"codec": "h264", "width": 0}}), "/video/width"),
        (json!({"container": "mp4", "video": {"codec": "h264", "width": -4}}), "/video/width"),
        (
            json!({"container": "mp4", "video": {"codec": "h264", "box": "640x360", "height": 360}}),
            "/video/height",
        ),
        (json!({"container": "mp4", "video": {"codec": "av1", "box": "48x48"}}), "/video/box"),
        (json!({"container": "mp4", "video": {"codec": "h264", "fit": "pad"}}), "/video/fit"),
        (
            json!({"container": "mp4", "video": {"codec": "h264", "fps": {"mode": "cfr", "value": 1000}}}),
            "/video/fps/value",
        ),
        (
            json!({"container": "mp4", "video": {"codec": "h264", "fps": {"mode": "cfr", "value": 60, "max": 30}}}),
            "/video/fps/value",
        ),
        (json!({"container": "mp4", "video": {"codec": "h264", "fps": {"value": 30}}}), "/video/fps/value"),
        (json!({"container": "mp4", "video": {"codec": "h264", "gop_seconds": 0}}), "/video/gop_seconds"),
        (
            json!({"container": "mp4", "video": {"codec": "h264", "bit_depth": 10, "range": "keep"}}),
            "/video/range",
        ),
        (json!({"container": "mp4", "video": {"codec": "hevc", "range": "keep"}}), "/video/range"),
        (json!({"container": "mp4", "video": {"codec": "hevc", "profile": "high"}}), "/video/profile"),
        (
            json!({"container": "mp4", "video": {"codec": "h264", "profile": "baseline", "bframes": 2}}),
            "/video/bframes",
        ),
        (json!({"container": "mp4", "video": {"codec": "h264", "bit_depth": 9}}), "/video/bit_depth"),
        (json!({"container": "mp4", "video": {"codec": "h264", "rotate": 45}}), "/video/rotate"),
        (json!({"container": "mp4", "video": {"codec": "h264", "flip": "both"}}), "/video/flip"),
        (json!({"container": "mp4", "video": {"codec": "h264", "crop": "bars"}}), "/video/crop"),
        (
            json!({"container": "mp4", "video": {"codec": "h264", "crop": {"x": 0, "y": 0, "w": 640}}}),
            "/video/crop/h",
        ),
        (
            json!({"container": "mp4", "video": {"codec": "h264", "crop": {"x": -2, "y": 0, "w": 640, "h": 360}}}),
            "/video/crop/x",
        ),
        (
            json!({"container": "mp4", "video": {"codec": "h264", "crop": {"x": 1, "y": 0, "w": 640, "h": 360}}}),
            "/video/crop/x",
        ),
        (
            json!({"container": "mp4", "video": {"codec": "h264", "crop": {"x": 0, "y": 0, "w": 0, "h": 360}}}),
            "/video/crop/w",
        ),
        (
            json!({"container": "mp4", "video": {"codec": "h264", "crop": {"x": 0, "y": 16380, "w": 640, "h": 360}}}),
            "/video/crop/h",
        ),
        (
            json!({"container": "mp4", "video": {"codec": "h264", "box": "64x64", "fit": "pad", "pad_color": "red,movie=x"}}),
            "/video/pad_color",
        ),
        (json!({"container": "mp4", "video": {"codec": "h264", "pad_color": "red"}}), "/video/pad_color"),
        (json!({"container": "mp4", "video": {"codec": "h264", "level": "9"}}), "/video/level"),
        (json!({"container": "webm", "video": {"codec": "vp9", "level": "4"}}), "/video/level"),
        (json!({"container": "mp4", "video": {"codec": "hevc", "level": "4.2"}}), "/video/level"),
        (
            json!({"container": "mp4", "video": {"codec": "h264", "level": "3", "bitrate": "20M"}}),
            "/video/level",
        ),
        (
            json!({"container": "mp4", "video": {"codec": "h264", "level": "4", "box": "3840x2160", "fit": "stretch", "upscale": true}}),
            "/video/level",
        ),
        (json!({"container": "mp4", "video": {"codec": "copy", "crf": 20}}), "/video/rate"),
        (json!({"container": "m4a", "video": {"codec": "copy"}}), "/video"),
        (json!({"container": "hls", "video": {"codec": "copy"}}), "/video/codec"),
        (json!({"container": "hls", "video": {"codec": "h264"}, "audio": {"codec": "copy"}}), "/audio/codec"),
        (json!({"container": "mp4", "video": {"codec": "copy"}, "clip": {"start": 1}}), "/clip"),
        (json!({"container": "mp4", "audio": {"codec": "mp3", "channels": 6}}), "/audio/channels"),
        (json!({"container": "mp4", "audio": {"codec": "opus", "sample_rate": 44100}}), "/audio/sample_rate"),
        (
            json!({"container": "mp4", "audio": {"codec": "aac", "loudness": {"target": 3}}}),
            "/audio/loudness/target",
        ),
        (json!({"container": "mp4", "audio": {"codec": "aac", "channels": 3}}), "/audio/channels"),
        (json!({"container": "gif", "video": {"codec": "h264"}}), "/container"),
        (json!({"container": "mp4", "video": {"codec": "h264"}, "stills": {"at": 1}}), "/stills"),
        (json!({"container": "mp4", "video": "h264"}), "/video"),
        (json!({"container": "mp4"}), ""),
        (json!({"video": {"codec": "h264"}}), "/container"),
    ] {
        assert_eq!(pointers(resolve(None, body.clone())), [at], "{body}");
    }
    assert_eq!(pointers(resolve(Some("720p_h264"), json!({"container": "mkv"}))), ["/container"]);
    let gif = resolve(None, json!({"container": "gif"})).unwrap_err();
    assert!(gif[0].detail.contains("not available"), "{gif:?}");
}

#[test]
fn a_set_without_a_picture_has_no_poster_of_it() {
    let sound = resolve(Some("hls_1080p_abr"), json!({"video": null, "ladder": null})).unwrap();
    assert!(!sound.poster && sound.captions.is_some());
    assert!(resolve(Some("hls_1080p_abr"), json!({})).unwrap().poster);
    assert!(!resolve(Some("dash_1080p"), json!({"poster": false})).unwrap().poster);
}

#[test]
fn contradictions_of_sets_are_refused() {
    for (body, at) in [
        (
            json!({"container": "mp4", "video": {"codec": "h264"},
                "ladder": [{"name": "a", "box": "64x64", "rate": {"mode": "crf", "crf": 23}}]}),
            "/ladder",
        ),
        (
            json!({"container": "hls", "video": {"codec": "h264"}, "ladder": [{"name": "a", "box": "64x64"},
                {"name": "a", "box": "32x32", "rate": {"mode": "crf", "crf": 23}}]}),
            "/ladder/1/name",
        ),
        (
            json!({"container": "hls", "video": {"codec": "h264"},
                "ladder": [{"name": "a", "box": "64x64", "rate": {"mode": "crf", "crf": 99}}]}),
            "/ladder/0/rate/crf",
        ),
        (
            json!({"container": "hls", "video": {"codec": "h264"},
                "ladder": [{"name": "a", "box": "64x64", "level": "3", "rate": {"mode": "bitrate", "target": "20M"}}]}),
            "/ladder/0/level",
        ),
        (
            json!({"container": "hls", "video": {"codec": "h264"}, "ladder": [{"name": "A", "box": "64x64"}]}),
            "/ladder/0/name",
        ),
        (
            json!({"container": "hls", "video": {"codec": "h264"},
                "ladder": [{"name": "a", "box": "64x64", "codec": "vp9", "rate": {"mode": "crf", "crf": 30}}]}),
            "/ladder/0/codec",
        ),
        (
            json!({"container": "hls", "video": {"codec": "h264"}, "ladder": [{"name": "a", "box": "64x64", "codec": "hevc"}]}),
            "/ladder/0/rate",
        ),
        (
            json!({"container": "hls", "video": {"codec": "h264"}, "ladder": [{"name": "a", "box": "64x64", "range": "keep"}]}),
            "/ladder/0/range",
        ),
        (
            json!({"container": "hls", "video": {"codec": "h264"}, "package": {"segment_seconds": 0}}),
            "/package/segment_seconds",
        ),
        (
            json!({"container": "dash", "video": {"codec": "h264"}, "package": {"segment": "ts", "iframes": false}}),
            "/package/segment",
        ),
        (
            json!({"container": "dash", "video": {"codec": "av1"}, "ladder": [{"name": "a", "box": "64x32"}]}),
            "/ladder/0/box",
        ),
        (
            json!({"container": "hls", "video": {"codec": "h264"}, "ladder": [{"name": "a_b", "box": "64x64"}]}),
            "/ladder/0/name",
        ),
        (json!({"container": "m4a", "audio": {"codec": "aac", "tracks": "all"}}), "/audio/tracks"),
        (json!({"container": "hls", "audio": {"codec": "aac", "tracks": ["english"]}}), "/audio/tracks"),
    ] {
        assert_eq!(pointers(resolve(None, body.clone())), [at], "{body}");
    }
}

#[test]
fn copies_take_away_how_a_preset_would_have_encoded() {
    let body = json!({"video": {"codec": "copy"}, "audio": {"codec": "copy", "required": true}});
    let spec = resolve(Some("720p_h264"), body.clone()).unwrap();
    assert_eq!(serde_json::to_value(&spec).unwrap(), {
        let mut whole = body;
        whole["container"] = json!("mp4");
        whole
    });
    let read: EncodeSpec = serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
    assert_eq!((read.faults(), read), (vec![], spec));
}

#[test]
fn parts_of_a_source_are_read_and_refused() {
    let with = |clip| resolve(Some("720p_h264"), json!({ "clip": clip }));
    let spec = with(json!({"start": "00:01:00", "duration": 2.5})).unwrap();
    assert_eq!(serde_json::to_value(spec.clip).unwrap(), json!({"start": 60.0, "duration": 2.5}));
    for (clip, at) in [
        (json!({"start": -1}), "/clip/start"),
        (json!({"start": "1:2:3:4"}), "/clip/start"),
        (json!({"duration": 0}), "/clip/duration"),
        (json!({"start": 400_000}), "/clip/start"),
        (json!({"end": 3}), "/clip/end"),
        (json!({}), "/clip"),
        (json!(5), "/clip"),
    ] {
        assert_eq!(pointers(with(clip.clone())), [at], "{clip}");
    }
}

#[test]
fn frame_rates_in_common_spellings() {
    for (value, exact) in [
        (json!(29.97), "30000/1001"),
        (json!(25), "25/1"),
        (json!("24000/1001"), "24000/1001"),
        (json!(50.0), "50/1"),
    ] {
        let body =
            json!({"container": "mp4", "video": {"codec": "h264", "fps": {"mode": "cfr", "value": value}}});
        let spec = resolve(None, body).unwrap();
        assert_eq!(spec.encoded_picture().unwrap().fps.value.unwrap().to_string(), exact);
    }
}

#[test]
fn a_variable_rate_is_the_sources_own() {
    let body = json!({"container": "mp4", "video": {"codec": "h264", "fps": {"mode": "vfr", "max": 30}}});
    let fps = resolve(None, body).unwrap().encoded_picture().unwrap().fps;
    assert_eq!((fps.mode, fps.max), (super::super::FpsMode::Source, Some(30)));
}

#[test]
fn unknown_presets_come_with_near_names() {
    let presets = Presets::builtin();
    let near = |name: &str| presets.near(name).into_iter().map(PresetName::as_str).collect::<Vec<_>>();
    assert_eq!(near("720p_h246").first(), Some(&"720p_h264"));
    assert_eq!(near("1080P_HEVC").first(), Some(&"1080p_hevc"));
    assert!(near("720p").contains(&"720p_h264"));
    assert!(near("1080p").len() == 3);
    assert!(near("zzz").is_empty());
    let faults = resolve(Some("720p_h265"), json!({})).unwrap_err();
    assert!(faults[0].pointer == "/preset" && faults[0].detail.contains("720p_h264"), "{faults:?}");
}

#[test]
fn operators_add_and_replace_presets() {
    let presets = Presets::builtin()
        .with_document(
            "[presets.b]\nextends = \"a\"\nvideo = { crf = 30 }\n[presets.a]\nextends = \"720p_h264\"\naudio = { codec = \"none\" }\n\
             [presets.480p_h264]\nreplace = true\nextends = \"480p_h264\"\ndescription = \"ours\"\nvideo = { codec = \"hevc\" }\n",
        )
        .unwrap();
    assert_eq!(presets.get("b").unwrap().audio, None);
    assert_eq!(presets.get("b").unwrap().encoded_picture().unwrap().rate, Rate::Crf { crf: 30.0 });
    assert_eq!(presets.description("480p_h264"), Some("ours"));
    assert_eq!(presets.get("480p_h264").unwrap().encoded_picture().unwrap().codec, VideoCodec::Hevc);
}

#[test]
fn bad_documents_say_where() {
    assert_eq!(
        complaints(
            "[presets.x]\nextends = \"nope\"\n[presets.y]\ncontainer = \"mp4\"\nvideo = { codec = \"h264\", sharpness = 1 }\n[presets.720p_h264]\ncontainer = \"mp4\"\naudio = { codec = \"aac\" }\n"
        ),
        [
            "presets.720p_h264: there is a preset of this name; say `replace = true` to take its place",
            "presets.x.extends: no preset is named \"nope\"",
            "presets.y.video.sharpness: unknown field; there are codec, rate, speed, box, width, height, fit, orient, upscale, fps, gop_seconds, bframes, profile, bit_depth, range, deinterlace, level, crop, rotate, flip, pad_color",
        ]
    );
    assert!(
        complaints("[presets.a]\nextends = \"b\"\n[presets.b]\nextends = \"a\"\n")
            .iter()
            .all(|c| c.contains("circle"))
    );
    assert!(complaints("[presets.\"A B\"]\n")[0].contains("not a preset name"));
    assert!(complaints("[preset.a]\n")[0].contains("unknown field"));
    assert!(complaints("[presets.a]\nreplace = 1\n")[0].contains("presets.a.replace"));
}
