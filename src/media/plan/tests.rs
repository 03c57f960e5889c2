mod ladders;
mod languages;
mod picture;

use proptest::prelude::*;
use serde_json::json;

use super::size::Placement;
use super::*;
use crate::domain::preset::Presets;
use crate::domain::{AudioStream, ColorRange, ColorSpace, Demuxer, FieldOrder, Measured, Rotation};

pub(in crate::media) use self::languages::many_languages;

pub(in crate::media) fn video(width: u32, height: u32) -> VideoStream {
    VideoStream {
        index: 0,
        codec: "h264".into(),
        width,
        height,
        sar: Rational::ONE,
        rotation: Rotation::None,
        pix_fmt: "yuv420p".into(),
        bit_depth: 8,
        color: tags("bt709", "bt709", "bt709"),
        field_order: FieldOrder::Progressive,
        frame_rate: Rational::new(30, 1).ok(),
        variable_rate: false,
        time_base: Rational::new(1, 15_360).unwrap(),
        start_seconds: Some(0.0),
        duration_seconds: Some(10.0),
        packets: Some(300),
        attached_picture: false,
        default: true,
        measured: Measured::default(),
    }
}

pub(in crate::media) fn tags(primaries: &str, transfer: &str, matrix: &str) -> ColorSpace {
    ColorSpace {
        range: Some(ColorRange::Limited),
        matrix: Some(matrix.into()),
        primaries: Some(primaries.into()),
        transfer: Some(transfer.into()),
    }
}

pub(in crate::media) fn audio(channels: u16) -> AudioStream {
    AudioStream {
        index: 1,
        codec: "aac".into(),
        channels,
        sample_rate: 44_100,
        start_seconds: Some(0.0),
        duration_seconds: Some(10.0),
        language: None,
        default: true,
    }
}

pub(in crate::media) fn media(video: Vec<VideoStream>, audio: Vec<AudioStream>) -> MediaInfo {
    MediaInfo {
        container: Demuxer::Mov,
        size: 1,
        duration_seconds: Some(10.0),
        video,
        audio,
        subtitles: vec![],
        other: vec![],
    }
}

pub(in crate::media) fn spec(preset: Option<&str>, fields: serde_json::Value) -> EncodeSpec {
    let serde_json::Value::Object(fields) = fields else { panic!("an object") };
    Presets::builtin().resolve(preset, fields).unwrap()
}

fn picture_of(stream: VideoStream, fields: &serde_json::Value) -> (VideoPlan, Vec<String>) {
    let mut fields = fields.clone();
    let codec = fields.as_object_mut().unwrap();
    codec.entry("codec").or_insert("h264".into());
    let spec = spec(None, json!({"container": "mkv", "video": fields}));
    let plan = plan(&media(vec![stream], vec![]), &[(OutputIndex(0), spec)], &Policy::default()).unwrap();
    let output = plan.outputs.into_iter().next().unwrap();
    (output.video.unwrap(), output.warnings)
}

#[test]
fn sizes() {
    let turned = |w, h| VideoStream { rotation: Rotation::Cw90, ..video(w, h) };
    let wide = |w, h, sar: &str| VideoStream { sar: sar.parse().unwrap(), ..video(w, h) };
    for (what, stream, fields, expected) in [
        ("same", video(1280, 720), json!({"box": "1280x720"}), (1280, 720)),
        ("down", video(1920, 1080), json!({"box": "1280x720"}), (1280, 720)),
        ("never up", video(640, 360), json!({"box": "1280x720"}), (640, 360)),
        ("up on demand", video(640, 360), json!({"box": "1280x720", "upscale": true}), (1280, 720)),
        ("cinema", video(1920, 800), json!({"box": "1280x720"}), (1280, 534)),
        ("cinema fits", video(1920, 800), json!({"box": "1920x1080"}), (1920, 800)),
        ("portrait turns the box", video(1080, 1920), json!({"box": "1280x720"}), (720, 1280)),
        ("rotated", turned(1920, 1080), json!({"box": "1280x720"}), (720, 1280)),
        ("fixed box", video(1080, 1920), json!({"box": "1280x720", "orient": "fixed"}), (406, 720)),
        ("square", video(1000, 1000), json!({"box": "1280x720"}), (720, 720)),
        ("sar 11:12", wide(720, 480, "11:12"), json!({"box": "854x480"}), (660, 480)),
        ("sar 64:45", wide(800, 640, "64:45"), json!({"box": "1280x720"}), (1138, 640)),
        ("sar 64:45 down", wide(800, 640, "64:45"), json!({"box": "854x480"}), (854, 480)),
        ("absurd sar", wide(640, 360, "4000:1"), json!({"box": "1280x720"}), (640, 360)),
        ("width alone", video(1920, 1080), json!({"width": 640}), (640, 360)),
        ("height alone", video(1920, 800), json!({"height": 400}), (960, 400)),
        ("no box", video(1920, 1080), json!({}), (1920, 1080)),
        ("odd", video(853, 479), json!({}), (854, 480)),
        ("odd box", video(1920, 1080), json!({"box": "853x481"}), (852, 480)),
        ("tiny", video(8, 8), json!({"box": "1280x720"}), (16, 16)),
        ("thread", video(4000, 4), json!({"box": "1280x720"}), (1280, 16)),
        (
            "pad",
            video(1920, 1080),
            json!({"box": "1080x1920", "orient": "fixed", "fit": "pad"}),
            (1080, 1920),
        ),
        (
            "pad never up",
            video(640, 360),
            json!({"box": "1080x1920", "orient": "fixed", "fit": "pad"}),
            (640, 1138),
        ),
        ("cover", video(1920, 1080), json!({"box": "720x720", "fit": "cover"}), (720, 720)),
        ("cover never up", video(640, 360), json!({"box": "720x720", "fit": "cover"}), (360, 360)),
        ("stretch", video(1920, 1080), json!({"box": "640x480", "fit": "stretch"}), (640, 480)),
        ("stretch never up", video(640, 360), json!({"box": "640x480", "fit": "stretch"}), (480, 360)),
    ] {
        let (plan, warnings) = picture_of(stream, &fields);
        assert_eq!((plan.width, plan.height), expected, "{what}");
        assert_eq!(
            warnings.contains(&"not_upscaled".to_owned()),
            what.starts_with("never")
                || what.contains("never up")
                || matches!(what, "sar 64:45" | "absurd sar" | "tiny"),
            "{what}: {warnings:?}"
        );
    }
}

#[test]
fn odd_pictures_are_extended_not_resampled() {
    let (plan, _) = picture_of(video(853, 480), &json!({}));
    assert_eq!(plan.filters[1], Filter::Extend { width: 854, height: 480, right: 1, bottom: 0 });
    assert!(!plan.filters.iter().any(|f| matches!(f, Filter::Scale { .. })), "{:?}", plan.filters);
}

#[test]
fn untouched_pictures_are_only_tagged() {
    let (plan, _) = picture_of(video(1280, 720), &json!({"box": "1280x720"}));
    let tag = Filter::Tag(Signal::BT709);
    assert_eq!(plan.filters, [Filter::Format(Layout::Yuv420), tag, Filter::SquareSamples]);
}

proptest! {
    #[test]
    fn sizes_are_even_inside_the_box_and_in_shape(
        width in 1_u32..8000, height in 1_u32..8000, sar in 0_usize..4, turned: bool,
        box_width in 16_u32..4096, box_height in 16_u32..4096, fit in 0_usize..4, upscale: bool, fixed: bool,
    ) {
        let sar = ["1:1", "11:12", "64:45", "4:3"][sar].parse().unwrap();
        let rotation = if turned { Rotation::Cw90 } else { Rotation::None };
        let stream = VideoStream { sar, rotation, ..video(width, height) };
        let fit = ["contain", "cover", "pad", "stretch"][fit];
        let orient = if fixed { "fixed" } else { "auto" };
        let fields = json!({"codec": "h264", "box": format!("{box_width}x{box_height}"), "fit": fit, "upscale": upscale, "orient": orient});
        let spec = spec(None, json!({"container": "mkv", "video": fields}));
        let shown = stream.display_size();
        let placed = size::fit(&stream, spec.encoded_picture().unwrap());
        let (w, h) = (placed.width, placed.height);
        prop_assert!(w % 2 == 0 && h % 2 == 0 && w >= 16 && h >= 16, "{placed:?}");
        let fits = |bw, bh| w <= bw && h <= bh;
        prop_assert!(fits(box_width, box_height) || (!fixed && fits(box_height, box_width)), "{placed:?}");
        let (sw, sh) = placed.scaled;
        let small = w == 16 || h == 16 || sw == 16 || sh == 16;
        if !upscale && !small {
            prop_assert!(sw <= shown.0 + 1 && sh <= shown.1 + 1, "{placed:?} of {shown:?}");
        }
        if fit != "stretch" && !small {
            // The scaled picture's sides are each within a pixel of one common scale (two where it is cropped).
            let slack = if fit == "cover" { 2.01 } else { 1.01 };
            let (fx, fy) = (f64::from(sw) / f64::from(shown.0), f64::from(sh) / f64::from(shown.1));
            let off = ((fx - fy).abs() * f64::from(shown.0)).min((fx - fy).abs() * f64::from(shown.1));
            prop_assert!(off <= 2.0 * slack, "{placed:?} of {shown:?}: {off}");
        }
        match placed.placement {
            Placement::Whole => prop_assert_eq!((sw, sh), (w, h)),
            Placement::Crop { x, y } => prop_assert!(x + w <= sw && y + h <= sh && x % 2 == 0 && y % 2 == 0),
            Placement::Pad { x, y } => prop_assert!(x + sw <= w && y + sh <= h && x % 2 == 0 && y % 2 == 0),
            Placement::Extend { right, bottom } => {
                prop_assert!(right <= 1 && bottom <= 1);
                prop_assert_eq!((sw + right, sh + bottom), (w, h));
            }
        }
    }
}

#[test]
fn frame_rates() {
    let at = |rate: &str| VideoStream { frame_rate: Some(rate.parse().unwrap()), ..video(640, 360) };
    let unknown = VideoStream { frame_rate: None, ..video(640, 360) };
    for (what, stream, fields, timing, keys) in [
        ("as it is", at("30000/1001"), json!({}), None, 150),
        ("above the limit", at("120"), json!({}), Some("60"), 300),
        ("far above", at("240"), json!({"fps": {"max": 30}}), Some("30"), 150),
        ("a little above", at("1000/33"), json!({"fps": {"max": 30}}), Some("30"), 150),
        ("even at its own rate", at("25"), json!({"fps": {"mode": "cfr"}}), Some("25"), 125),
        (
            "even at a given rate",
            at("25"),
            json!({"fps": {"mode": "cfr", "value": 29.97}, "gop_seconds": 2}),
            Some("30000/1001"),
            60,
        ),
        ("unknown", unknown.clone(), json!({}), None, 150),
        ("unknown but even", unknown, json!({"fps": {"mode": "cfr"}}), Some("30"), 150),
    ] {
        let (plan, warnings) = picture_of(stream, &fields);
        let expected = timing.map_or(Timing::Passthrough, |rate| Timing::Cfr(rate.parse().unwrap()));
        assert_eq!((plan.timing, plan.keyframes), (expected, Keyframes::Within(keys)), "{what}");
        assert_eq!(plan.filters.iter().any(|f| matches!(f, Filter::Fps(_))), timing.is_some(), "{what}");
        assert_eq!(warnings.contains(&"frame_rate_assumed".to_owned()), what == "unknown but even", "{what}");
    }
}

#[test]
fn ticks_hold_the_sources_own() {
    for (ticks, expected) in [
        ("1/90000", "1/90000"),
        ("1/1000", "1/16000"),
        ("1/5", "1/10240"),
        ("1001/30000", "1001/30000"),
        ("2/25", "1/6400"),
    ] {
        let stream = VideoStream { time_base: ticks.parse().unwrap(), ..video(640, 360) };
        let (plan, _) = picture_of(stream, &json!({}));
        assert_eq!(plan.time_base.to_string(), expected, "{ticks}");
    }
    let (plan, _) = picture_of(video(640, 360), &json!({"fps": {"mode": "cfr", "value": 29.97}}));
    assert_eq!(plan.time_base.to_string(), "1001/30000");
}

#[test]
fn colors() {
    let sd = |rate: &str| VideoStream {
        color: ColorSpace::default(),
        frame_rate: Some(rate.parse().unwrap()),
        ..video(720, 480)
    };
    let bare = |w, h, pix_fmt: &str| VideoStream {
        color: ColorSpace::default(),
        pix_fmt: pix_fmt.into(),
        ..video(w, h)
    };
    let signal = |p, t, m| VideoStream { color: tags(p, t, m), ..video(1920, 1080) };
    let keep = json!({"codec": "hevc", "bit_depth": 10, "range": "keep"});
    let simple = json!({});
    for (what, stream, fields, expected, step) in [
        ("tagged", signal("bt709", "bt709", "bt709"), &simple, "bt709 bt709 bt709", "format"),
        ("untagged HD", bare(1280, 720, "yuv420p"), &simple, "bt709 bt709 bt709", "format"),
        ("untagged portrait", bare(720, 1280, "yuv420p"), &simple, "bt709 bt709 bt709", "format"),
        ("untagged 525", sd("30000/1001"), &simple, "smpte170m smpte170m smpte170m", "format"),
        ("untagged 625", sd("25"), &simple, "bt470bg smpte170m bt470bg", "format"),
        ("full range", bare(1280, 720, "yuvj420p"), &simple, "bt709 bt709 bt709", "scale"),
        ("4:4:4", bare(1280, 720, "yuv444p"), &simple, "bt709 bt709 bt709", "scale"),
        ("rgb", bare(320, 240, "bgra"), &simple, "bt709 bt709 bt709", "scale"),
        ("P3", signal("smpte432", "bt709", "smpte170m"), &simple, "bt709 bt709 bt709", "convert"),
        ("wide SDR", signal("bt2020", "bt2020-10", "bt2020nc"), &simple, "bt709 bt709 bt709", "convert"),
        (
            "unknown name",
            signal("bt709,movie=x", "reserved", "bt709"),
            &simple,
            "bt709 bt709 bt709",
            "format",
        ),
        ("PQ", signal("bt2020", "smpte2084", "bt2020nc"), &simple, "bt709 bt709 bt709", "tone"),
        (
            "HLG half tagged",
            VideoStream {
                color: ColorSpace { transfer: Some("arib-std-b67".into()), ..ColorSpace::default() },
                ..video(1920, 1080)
            },
            &simple,
            "bt709 bt709 bt709",
            "tone",
        ),
        (
            "PQ kept",
            VideoStream { pix_fmt: "yuv420p10le".into(), ..signal("bt2020", "smpte2084", "bt2020nc") },
            &keep,
            "bt2020 smpte2084 bt2020nc",
            "format",
        ),
        (
            "HLG 4:2:2 kept",
            VideoStream { pix_fmt: "yuv422p10le".into(), ..signal("bt2020", "arib-std-b67", "bt2020nc") },
            &keep,
            "bt2020 arib-std-b67 bt2020nc",
            "scale",
        ),
        ("ICtCp kept", signal("bt2020", "smpte2084", "ictcp"), &keep, "bt2020 smpte2084 bt2020nc", "convert"),
        ("SDR kept", signal("bt709", "bt709", "bt709"), &keep, "bt709 bt709 bt709", "scale"),
    ] {
        let (plan, warnings) = picture_of(stream, fields);
        let PlannedColor { primaries, transfer, matrix, range } = &plan.color;
        assert_eq!(format!("{primaries} {transfer} {matrix}"), expected, "{what}");
        assert_eq!(*range, "tv", "{what}");
        let first = match plan.filters[0] {
            Filter::Format(_) => "format",
            Filter::Scale { .. } => "scale",
            Filter::Convert { .. } => "convert",
            Filter::Linearise { .. } => "tone",
            other => panic!("{what}: {other:?}"),
        };
        assert_eq!(first, step, "{what}");
        assert_eq!(warnings.contains(&"tone_mapped".to_owned()), step == "tone", "{what}");
        let last_but_square = plan.filters.iter().rev().nth(1).is_some_and(|f| matches!(f, Filter::Tag(_)));
        assert!(last_but_square, "{what}: {:?}", plan.filters);
    }
}

#[test]
fn only_declared_fields_of_codecs_with_fields_are_joined() {
    let with = |codec: &str, field_order| VideoStream { codec: codec.into(), field_order, ..video(720, 576) };
    for (stream, fields, expected) in [
        (with("mpeg2video", FieldOrder::TopFirst), json!({}), true),
        (with("h264", FieldOrder::BottomFirst), json!({}), true),
        (with("h264", FieldOrder::BottomFirst), json!({"deinterlace": "off"}), false),
        (with("h264", FieldOrder::Unknown), json!({}), false),
        (with("vp9", FieldOrder::TopFirst), json!({}), false),
    ] {
        let what = format!("{} {:?}", stream.codec, stream.field_order);
        let (plan, _) = picture_of(stream, &fields);
        assert_eq!(plan.filters[0] == Filter::Deinterlace(Joining::Flagged), expected, "{what}");
    }
}

fn sound_of(channels: u16, fields: &serde_json::Value) -> AudioPlan {
    let spec = spec(None, json!({"container": "mkv", "audio": fields}));
    let plan =
        plan(&media(vec![], vec![audio(channels)]), &[(OutputIndex(0), spec)], &Policy::default()).unwrap();
    plan.outputs.into_iter().next().unwrap().audio.into_iter().next().unwrap()
}

#[test]
fn channels_and_bit_rates() {
    for (source, fields, channels, bitrate) in [
        (1, json!({"codec": "aac"}), 1, 64_000),
        (2, json!({"codec": "aac"}), 2, 128_000),
        (4, json!({"codec": "opus"}), 2, 96_000),
        (6, json!({"codec": "aac"}), 6, 256_000),
        (8, json!({"codec": "opus"}), 6, 192_000),
        (6, json!({"codec": "mp3"}), 2, 128_000),
        (6, json!({"codec": "aac", "channels": 2, "bitrate": "96k"}), 2, 96_000),
        (2, json!({"codec": "aac", "channels": 1}), 1, 64_000),
    ] {
        let plan = sound_of(source, &fields);
        assert_eq!((plan.channels, plan.bitrate), (channels, bitrate), "{source} channels");
        assert!(!plan.filters.contains(&Filter::BothSides), "{source} channels");
    }
    let doubled = sound_of(1, &json!({"codec": "aac", "channels": 2}));
    assert_eq!(doubled.filters[0], Filter::BothSides);
}

#[test]
fn no_built_in_preset_is_short_of_bits_for_its_channels() {
    for (name, _, spec) in Presets::builtin().iter().filter(|(_, _, spec)| spec.stills.is_none()) {
        let outputs = [(OutputIndex(0), spec.clone())];
        let plan =
            plan(&media(vec![video(1920, 1080)], vec![audio(6)]), &outputs, &Policy::default()).unwrap();
        for sound in plan.outputs.iter().flat_map(|file| &file.audio) {
            assert!(sound.bitrate / u32::from(sound.channels) >= 32_000, "{name}: {sound:?}");
        }
    }
}

#[test]
fn missing_streams_are_named() {
    let outputs = |spec: EncodeSpec| {
        [(OutputIndex(0), Presets::builtin().get("720p_h264").unwrap().clone()), (OutputIndex(3), spec)]
    };
    let code = |info: &MediaInfo, spec| {
        plan(info, &outputs(spec), &Policy::default()).map_err(|(index, failure)| (index.0, failure.code))
    };
    let preset = || spec(Some("480p_h264"), json!({}));
    let silent = media(vec![video(640, 360)], vec![]);
    let blind = media(vec![VideoStream { attached_picture: true, ..video(500, 500) }], vec![audio(2)]);
    assert_eq!(code(&blind, preset()).unwrap_err(), (0, Code::NoVideoStream));
    let wanting = spec(Some("480p_h264"), json!({"audio": {"required": true}}));
    assert_eq!(code(&silent, wanting).unwrap_err(), (3, Code::NoAudioStream));
    assert_eq!(
        code(&silent, spec(None, json!({"container": "mp4", "audio": {"codec": "aac"}}))).unwrap_err(),
        (3, Code::NoAudioStream)
    );
    assert!(code(&silent, preset()).unwrap().outputs.iter().all(|o| o.audio.is_empty()));
    let small = spec(None, json!({"container": "mp4", "video": {"codec": "av1", "box": "64x64"}}));
    assert_eq!(code(&media(vec![video(50, 50)], vec![]), small).unwrap_err(), (3, Code::MediaUnsupported));
}

#[test]
fn the_expected_span_is_that_of_the_used_streams() {
    let late = VideoStream { start_seconds: Some(2.5), duration_seconds: Some(8.0), ..video(640, 360) };
    let early = AudioStream { start_seconds: Some(0.5), duration_seconds: Some(4.0), ..audio(2) };
    let span = |info: &MediaInfo, fields| {
        let plan =
            plan(info, &[(OutputIndex(0), spec(Some("480p_h264"), fields))], &Policy::default()).unwrap();
        (plan.expected_seconds, plan.max_seconds)
    };
    let mut info = media(vec![late], vec![early]);
    assert_eq!(span(&info, json!({})), (Some(10.0), 80.0));
    assert_eq!(span(&info, json!({"video": null, "audio": {"codec": "aac"}})), (Some(4.0), 68.0));
    info.video[0].duration_seconds = None;
    info.duration_seconds = Some(f64::INFINITY);
    assert_eq!(span(&info, json!({})), (None, 12.0 * 3600.0));
}

#[test]
fn equal_sounds_are_measured_once() {
    let preset = |name| spec(Some(name), json!({}));
    let outputs = [
        (OutputIndex(0), preset("web_1080p")),
        (OutputIndex(1), preset("720p_h264")),
        (OutputIndex(2), preset("social_vertical")),
        (OutputIndex(3), spec(Some("web_1080p"), json!({"audio": {"channels": 1}}))),
    ];
    let plan = plan(&media(vec![video(640, 360)], vec![audio(6)]), &outputs, &Policy::default()).unwrap();
    let users: Vec<_> = plan.loudness_passes().into_iter().map(|(_, users)| users).collect();
    let place = |file| SoundPlace { file, track: 0 };
    assert_eq!(users, [vec![place(0), place(2)], vec![place(3)]]);
}

fn ladder(stream: VideoStream, fields: serde_json::Value) -> (Vec<OutputPlan>, Vec<String>) {
    let info = media(vec![stream], vec![audio(2)]);
    let outputs = [(OutputIndex(0), spec(Some("hls_1080p_abr"), fields))];
    let plan = plan(&info, &outputs, &Policy::default()).unwrap();
    let names = plan.outputs.iter().filter_map(|file| {
        let video = file.video.as_ref()?;
        Some(format!("{} {}x{}", file.rendition.as_deref()?, video.width, video.height))
    });
    let names = names.collect();
    (plan.outputs, names)
}

#[test]
fn a_ladder_has_the_rungs_that_a_source_is_worth() {
    for (size, expected) in [
        (
            (1920, 1080),
            vec!["1080p 1920x1080", "720p 1280x720", "540p 960x540", "432p 768x432", "360p 640x360"],
        ),
        // The boxes turn with the picture.
        (
            (1080, 1920),
            vec!["1080p 1080x1920", "720p 720x1280", "540p 540x960", "432p 432x768", "360p 360x640"],
        ),
        // 2.39:1 keeps its 1080p rung (MEDIA-RULES §1.5).
        (
            (1920, 800),
            vec!["1080p 1920x800", "720p 1280x534", "540p 960x400", "432p 768x320", "360p 640x266"],
        ),
        // A size of its own stands for the boxes that it does not fill; 720p has 36 % fewer pixels.
        (
            (1600, 900),
            vec!["1080p 1600x900", "720p 1280x720", "540p 960x540", "432p 768x432", "360p 640x360"],
        ),
        // 1080p, 720p and 540p would be the same picture, and 432p has hardly fewer pixels.
        ((800, 450), vec!["540p 800x450", "360p 640x360"]),
        ((320, 180), vec!["360p 320x180"]),
    ] {
        let (_, names) = ladder(video(size.0, size.1), json!({}));
        assert_eq!(names, expected, "{size:?}");
    }
    let (files, _) = ladder(video(800, 450), json!({}));
    assert_eq!(files[0].warnings, ["rungs_dropped: 1080p, 720p, 432p", "not_upscaled"]);
    // 800 x 450 has 69 % of the pixels of 960 x 540: 0.69^0.75 is 76 % of the rate.
    let Rate::CappedCrf { max, .. } = files[0].video.as_ref().unwrap().rate else { panic!("capped") };
    assert_eq!(max.bits(), 2_000_000 * 76 / 100);
}

#[test]
fn rungs_share_their_cuts_and_are_made_of_larger_ones() {
    let rate = |num| Rational::new(num, 1001).unwrap();
    let fast = VideoStream { frame_rate: Some(rate(60_000)), ..video(1920, 1080) };
    let (files, _) = ladder(fast, json!({}));
    let shape = |file: &OutputPlan| {
        let video = file.video.as_ref().unwrap();
        (video.frame_rate.unwrap().to_string(), video.keyframes, video.feed)
    };
    let (whole, half) = ("60000/1001".to_owned(), "30000/1001".to_owned());
    let every = |frames| Keyframes::Every(frames);
    assert_eq!(
        files[..5].iter().map(shape).collect::<Vec<_>>(),
        [
            (whole.clone(), every(120), Feed::Source),
            (whole.clone(), every(120), Feed::Picture(0)),
            (whole, every(120), Feed::Picture(1)),
            (half.clone(), every(60), Feed::Picture(2)),
            (half, every(60), Feed::Picture(3)),
        ]
    );
    let grid = |place: usize| {
        let filters = &files[place].video.as_ref().unwrap().filters;
        filters.iter().copied().find(|filter| matches!(filter, Filter::Fps(_) | Filter::FpsFromZero(_)))
    };
    let (first, slower) = (Filter::FpsFromZero(rate(60_000)), Filter::Fps(rate(30_000)));
    assert_eq!([0, 1, 2, 3, 4].map(grid), [Some(first), None, None, Some(slower), None]);
    assert!(files[5].video.is_none() && files[5].audio.len() == 1, "sound apart");
}

#[test]
fn sets_of_transport_streams_carry_their_sound() {
    let info = media(vec![video(1280, 720)], vec![audio(2), AudioStream { index: 2, ..audio(6) }]);
    let outputs = [(OutputIndex(3), spec(Some("hls_720p_abr"), json!({})))];
    let plan = plan(&info, &outputs, &Policy::default()).unwrap();
    let files: Vec<_> =
        plan.outputs.iter().map(|file| (file.file_name.as_str(), !file.audio.is_empty())).collect();
    assert_eq!(files, [("out-3-720p.ts", true), ("out-3-480p.ts", true), ("out-3-360p.ts", true)]);
}

proptest! {
    /// Whatever the source: at least one rung, falling sizes, cuts at the same times, feeds that come before.
    #[test]
    fn ladders_hold_together(width in 16_u32..4000, height in 16_u32..4000, num in 1_u32..240, half in any::<bool>()) {
        let den = if half { 1001 } else { 1 };
        let rate = Rational::new(if half { num * 1000 } else { num }, den).ok();
        let (files, names) = ladder(VideoStream { frame_rate: rate, ..video(width, height) }, json!({}));
        prop_assert!(!names.is_empty());
        let pictures: Vec<_> = files.iter().filter_map(|file| file.video.as_ref()).collect();
        let mut gop = None;
        for (place, picture) in pictures.iter().enumerate() {
            let Keyframes::Every(frames) = picture.keyframes else { panic!("a rhythm") };
            let rate = picture.frame_rate.unwrap();
            let seconds = f64::from(frames) / rate.as_f64();
            prop_assert!((*gop.get_or_insert(seconds) - seconds).abs() < 1e-9);
            prop_assert_eq!(picture.timing, Timing::Cfr(rate));
            if let Feed::Picture(larger) = picture.feed {
                prop_assert!(larger < place);
                prop_assert!(pictures[larger].width >= picture.width && pictures[larger].height >= picture.height);
            } else {
                prop_assert_eq!(place, 0);
            }
        }
    }
}
