use serde_json::json;

use super::super::*;
use super::{audio, media, spec, video};
use crate::domain::{AudioStream, Demuxer, SubtitleStream};

/// Three sounds and four tracks of subtitles, one of them pictures.
pub(in crate::media) fn many_languages() -> MediaInfo {
    let sound =
        |index, tag: &str| AudioStream { index, language: Some(tag.into()), default: index == 2, ..audio(2) };
    let text = |index, codec: &str, tag: &str| SubtitleStream {
        index,
        codec: codec.into(),
        language: Some(tag.into()),
        default: true,
        forced: index == 5,
        hearing_impaired: false,
    };
    MediaInfo {
        subtitles: vec![
            text(4, "subrip", "deu"),
            text(5, "ass", "deu"),
            text(6, "hdmv_pgs_subtitle", "eng"),
            text(7, "subrip", "fra"),
        ],
        ..media(vec![video(1280, 720)], vec![sound(1, "deu"), sound(2, "eng"), sound(3, "fra")])
    }
}

#[test]
fn files_have_the_sounds_that_are_asked_for() {
    let streams = |tracks: serde_json::Value| {
        let spec = spec(Some("720p_h264"), json!({ "audio": { "tracks": tracks } }));
        let plan = plan(&many_languages(), &[(OutputIndex(0), spec)], &Policy::default()).unwrap();
        let output = plan.outputs.into_iter().next().unwrap();
        (output.audio.iter().map(|audio| audio.stream).collect::<Vec<_>>(), output.warnings)
    };
    assert_eq!(streams(json!("first")), (vec![2], vec![]));
    assert_eq!(streams(json!("all")), (vec![2, 1, 3], vec![]));
    assert_eq!(streams(json!(["fra", "ita", "deu"])), (vec![3, 1], vec!["sound_missing: ita".to_owned()]));
}

#[test]
fn subtitles_of_text_go_along_once_for_all_sets() {
    let asked = |languages: serde_json::Value| json!({ "captions": { "languages": languages } });
    let outputs = [
        (OutputIndex(0), spec(Some("720p_h264"), asked(json!(["fra", "jpn"])))),
        (OutputIndex(1), spec(Some("hls_1080p_abr"), json!({}))),
        (OutputIndex(2), spec(Some("hls_720p"), asked(json!(["deu"])))),
        (OutputIndex(3), spec(Some("dash_1080p"), json!({}))),
    ];
    let plan = plan(&many_languages(), &outputs, &Policy::default()).unwrap();
    let told: Vec<_> = plan
        .captions
        .iter()
        .map(|plan| {
            (plan.track.stream, plan.track.forced, plan.outputs.iter().map(|index| index.0).collect())
        })
        .collect();
    assert_eq!(told, [(4, false, vec![1, 2]), (5, true, vec![1, 2]), (7, false, vec![1])]);
    let muxed: Vec<_> = plan.outputs[0].captions.iter().map(|text| (text.track.stream, text.codec)).collect();
    assert_eq!(muxed, [(7, "mov_text")]);
    assert_eq!(plan.outputs[0].warnings, ["captions_missing: jpn"]);
    let first = plan.outputs.iter().find(|file| file.index == OutputIndex(1)).unwrap();
    assert!(first.warnings.contains(&"captions_left_out: not text (hdmv_pgs_subtitle)".to_owned()));
    assert!(plan.reads(5) && !plan.reads(6));
}

#[test]
fn only_text_keeps_a_clip_of_matroska_from_seeking() {
    let clip = json!({ "clip": { "start": 3 } });
    let outputs = [(OutputIndex(0), spec(Some("hls_1080p_abr"), clip))];
    let seeks = |container, subtitles: &[SubtitleStream]| {
        let info = MediaInfo { container, subtitles: subtitles.to_vec(), ..many_languages() };
        plan(&info, &outputs, &Policy::default()).unwrap().cut.unwrap().seeks
    };
    let all = many_languages().subtitles;
    assert!(!seeks(Demuxer::Matroska, &all[..1]));
    assert!(seeks(Demuxer::Matroska, &all[2..3]), "pictures are left out");
    assert!(seeks(Demuxer::Matroska, &[]) && seeks(Demuxer::Mov, &all));
}
