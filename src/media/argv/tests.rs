use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::domain::preset::{EncodeSpec, Presets};
use crate::domain::{
    AudioStream, ColorRange, ColorSpace, ContentLight, FieldOrder, Mastering, MasteringDisplay, Measured,
    MediaInfo, OutputIndex, Rational, Rotation, VideoStream,
};
use crate::media::plan::tests::{audio, many_languages, media, spec, tags, video};
use crate::media::plan::{Feed, Policy, plan};

fn file() -> Input {
    Input::File(PathBuf::from("/work/in"))
}

/// One option and its value per line.
fn lines(argv: &[String]) -> String {
    let mut text = String::new();
    for word in argv {
        let option =
            word.starts_with('-') && !word[1..].starts_with(|c: char| c.is_ascii_digit()) && word.len() > 1;
        let place = word.starts_with("file:out");
        text.push_str(if text.is_empty() {
            ""
        } else if option || place {
            "\n"
        } else {
            " "
        });
        text.push_str(word);
    }
    text
}

fn encoded(info: &MediaInfo, specs: &[EncodeSpec], limits: &Limits) -> Vec<String> {
    let outputs: Vec<_> = (0..).map(OutputIndex).zip(specs.iter().cloned()).collect();
    let plan = plan(info, &outputs, &Policy::default()).unwrap();
    let gains = plan.loudness_passes().into_iter().flat_map(|(_, users)| users).map(|i| (i, -3.25)).collect();
    let input = file();
    encode(&plan, &Reading { input: &input, demuxer: info.container, limits }, &gains)
}

/// What follows the input: the part that presets and sources decide.
fn tail(argv: &[String]) -> &[String] {
    let input = argv.iter().position(|word| word == "-i").unwrap();
    &argv[input + 2..]
}

/// A 1080p landscape film, a phone's portrait clip in P3 full range, HLG, and interlaced standard definition in TS.
fn sources() -> Vec<(&'static str, MediaInfo)> {
    let film = VideoStream { frame_rate: Rational::new(24_000, 1001).ok(), ..video(1920, 1080) };
    let phone = VideoStream {
        rotation: Rotation::Cw90,
        pix_fmt: "yuvj420p".into(),
        color: ColorSpace { range: Some(ColorRange::Full), ..tags("smpte432", "bt709", "smpte170m") },
        frame_rate: Rational::new(60, 1).ok(),
        variable_rate: true,
        time_base: Rational::new(1, 600).unwrap(),
        ..video(1280, 720)
    };
    let hlg = VideoStream {
        codec: "hevc".into(),
        pix_fmt: "yuv420p10le".into(),
        bit_depth: 10,
        color: tags("bt2020", "arib-std-b67", "bt2020nc"),
        time_base: Rational::new(1, 90_000).unwrap(),
        ..video(3840, 2160)
    };
    let broadcast = VideoStream {
        codec: "mpeg2video".into(),
        sar: Rational::new(64, 45).unwrap(),
        field_order: FieldOrder::TopFirst,
        color: ColorSpace::default(),
        frame_rate: Rational::new(25, 1).ok(),
        time_base: Rational::new(1, 90_000).unwrap(),
        start_seconds: Some(1.4),
        ..video(720, 576)
    };
    vec![
        ("film", media(vec![film], vec![audio(6)])),
        ("phone", media(vec![phone], vec![audio(1)])),
        ("hlg", media(vec![hlg], vec![])),
        ("broadcast", MediaInfo { container: Demuxer::Mpegts, ..media(vec![broadcast], vec![audio(2)]) }),
    ]
}

#[test]
fn every_preset_over_typical_sources() {
    for (name, _, preset) in Presets::builtin().iter().filter(|(_, _, preset)| preset.stills.is_none()) {
        let text: Vec<_> = sources()
            .iter()
            // Presets of sound alone refuse a source without any; `missing_streams_are_named` sees to that.
            .filter(|(_, info)| preset.video.is_some() || !info.audio.is_empty())
            .map(|(source, info)| {
                let argv = encoded(info, std::slice::from_ref(preset), &Limits::default());
                format!("# {source}\n{}\n", lines(tail(&argv)))
            })
            .collect();
        insta::assert_snapshot!(name.as_str(), text.join("\n"));
    }
}

#[test]
fn a_still_is_sought_before_the_source_is_opened() {
    let (_, film) = sources().remove(0);
    let thumbnails = Presets::builtin().get("thumbnails").unwrap().clone();
    let plan = crate::media::plan::stills(&film, OutputIndex(0), &thumbnails).unwrap().unwrap();
    let input = Input::File("/in".into());
    let limits = Limits::default();
    let reading = Reading { input: &input, demuxer: film.container, limits: &limits };
    let argv = still(&plan.picture, &reading, 10.0, Moment::Key);
    let at = |word: &str| argv.iter().position(|known| known == word).unwrap();
    assert!(at("-ss") < at("-i") && argv[at("-ss") + 1] == "10.000" && argv[at("-frames:v") + 1] == "1");
    let crate::media::plan::Choice::Sheets(sheet) = plan.choice else { panic!("no sheets") };
    let argv = still_files(&plan, Some(sheet), ("stills-0.raw", "still-0-%05d.jpg"), 1);
    insta::assert_snapshot!("thumbnails", lines(&argv));
}

#[test]
fn of_all_tags_only_the_sounds_language_is_kept() {
    let tagged = AudioStream { language: Some("fra".into()), ..audio(2) };
    let argv = encoded(
        &media(vec![video(640, 360)], vec![tagged]),
        &[spec(Some("720p_h264"), json!({})), spec(Some("1080p_vp9"), json!({}))],
        &Limits::default(),
    );
    let tags: Vec<_> =
        argv.windows(2).filter(|w| w[0].starts_with("-m") && w[0].contains("metadata")).collect();
    let each = [["-map_metadata", "-1"], ["-metadata:s:a:0", "language=fra"]];
    assert_eq!(tags, [each, each].concat());
}

#[test]
fn the_whole_line_with_one_thread() {
    let (_, info) = sources().remove(3);
    let limits = Limits { threads: NonZeroU16::new(1), ..Limits::default() };
    let preset = |name: &str| spec(Some(name), json!({}));
    insta::assert_snapshot!(
        "whole_line",
        lines(&encoded(&info, &[preset("1080p_hevc"), preset("1080p_av1"), preset("1080p_vp9")], &limits))
    );
}

#[test]
fn outputs_share_one_decode_and_what_begins_alike() {
    let (_, info) = sources().remove(3);
    let specs = [
        spec(Some("720p_h264"), json!({})),
        spec(Some("proxy_360p"), json!({})),
        spec(None, json!({"container": "mp4", "audio": {"codec": "aac"}})),
    ];
    let argv = encoded(&info, &specs, &Limits::default());
    let graph =
        argv.iter().position(|word| word == "-filter_complex").map(|at| argv[at + 1].clone()).unwrap();
    assert!(
        graph.starts_with(
            "[0:0]bwdif=mode=send_frame:parity=auto:deint=interlaced,split=2[s0][s1];[s0]scale="
        ),
        "{graph}"
    );
    assert!(graph.ends_with("[v1]"), "{graph}");
    let maps: Vec<_> = argv.windows(2).filter(|w| w[0] == "-map").map(|w| w[1].as_str()).collect();
    assert_eq!(maps, ["[v0]", "0:1", "[v1]", "0:1", "0:1"]);
    assert_eq!(argv.iter().filter(|word| *word == "-i").count(), 1);
}

#[test]
fn equal_pictures_are_made_once() {
    let (_, info) = sources().remove(0);
    let same = |container: &str| {
        spec(None, json!({"container": container, "video": {"codec": "h264", "box": "640x360"}}))
    };
    let argv = encoded(&info, &[same("mp4"), same("mkv")], &Limits::default());
    let graph =
        argv.iter().position(|word| word == "-filter_complex").map(|at| argv[at + 1].clone()).unwrap();
    assert!(graph.ends_with("setsar=1,split=2[v0][v1]"), "{graph}");
}

#[test]
fn rate_modes() {
    let (_, info) = sources().remove(0);
    let rates = |container: &str, codec: &str, rate: serde_json::Value| {
        let argv = encoded(
            &info,
            &[spec(None, json!({"container": container, "video": {"codec": codec, "rate": rate}}))],
            &Limits::default(),
        );
        let picked = argv
            .windows(2)
            .filter(|w| ["-crf:v", "-b:v", "-maxrate:v", "-bufsize:v"].contains(&w[0].as_str()));
        picked.map(|w| w.join(" ")).collect::<Vec<_>>().join(" ")
    };
    let bitrate = json!({"mode": "bitrate", "target": "1M"});
    let capped = json!({"mode": "capped_crf", "crf": 30, "max": "1M"});
    assert_eq!(rates("mp4", "h264", bitrate.clone()), "-maxrate:v 1500000 -bufsize:v 3000000 -b:v 1000000");
    assert_eq!(rates("mp4", "hevc", capped.clone()), "-maxrate:v 1000000 -bufsize:v 2000000 -crf:v 30");
    assert_eq!(rates("mp4", "av1", bitrate), "-b:v 1000000");
    assert_eq!(rates("webm", "vp9", capped), "-crf:v 30 -b:v 1000000");
    assert_eq!(rates("webm", "vp9", json!({"mode": "crf", "crf": 30})), "-crf:v 30 -b:v 0");
}

#[test]
fn pictures_cut_turned_and_framed() {
    let (_, film) = sources().remove(0);
    let fields = json!({"container": "mp4", "video": {
        "codec": "h264", "level": "4.1", "crop": {"x": 0, "y": 140, "w": 1920, "h": 800}, "rotate": 270, "flip": "horizontal",
        "box": "1280x720", "orient": "fixed", "fit": "pad", "pad_color": "#c08040",
    }});
    let argv = encoded(&film, &[spec(None, fields)], &Limits::default());
    insta::assert_snapshot!("cut_turned_and_framed", lines(tail(&argv)));
}

#[test]
fn two_passes_see_the_same_pictures() {
    let (_, film) = sources().remove(0);
    let twice = |container: &str, codec: &str| {
        spec(
            None,
            json!({"container": container, "audio": {"codec": "opus"}, "video": {"codec": codec, "box": "640x360",
            "rate": {"mode": "bitrate", "target": "500k", "passes": 2}}}),
        )
    };
    let once = spec(None, json!({"container": "mp4", "video": {"codec": "h264", "box": "320x180"}}));
    let specs = [once, twice("mp4", "h264"), twice("mkv", "hevc"), twice("webm", "vp9")];
    let outputs: Vec<_> = (0..).map(OutputIndex).zip(specs).collect();
    let plan = plan(&film, &outputs, &Policy::default()).unwrap();
    let first = plan.first_pass().unwrap();
    let (input, limits) = (file(), Limits::default());
    let reading = Reading { input: &input, demuxer: film.container, limits: &limits };
    insta::assert_snapshot!("first_pass", lines(tail(&first_pass(&first, &reading))));
    let second = encode(&plan, &reading, &Gains::new());
    let passes: Vec<_> = second
        .windows(2)
        .filter(|w| w[0].starts_with("-pass") || w[1].contains("pass"))
        .map(|w| w.join(" "))
        .collect();
    insta::assert_snapshot!("second_pass", passes.join("\n"));
    // The picture of the webm is the third stream of the first process, and the sixth of the second.
    let renamed = [("pass-out-3.webm-2.log".to_owned(), "pass-out-3.webm-5.log".to_owned())];
    assert_eq!(plan.renamed_logs(&first), renamed);
    let ladder = json!({"ladder": [
        {"name": "a", "box": "1280x720", "rate": {"mode": "crf", "crf": 23}},
        {"name": "b", "box": "640x360", "rate": {"mode": "crf", "crf": 23}},
        {"name": "c", "box": "320x180", "rate": {"mode": "bitrate", "target": "100k", "passes": 2}},
    ]});
    let ladder = plan_of(&film, spec(Some("hls_1080p_abr"), ladder));
    let first = ladder.first_pass().unwrap();
    let feeds: Vec<_> = first.outputs.iter().map(|output| output.video.as_ref().unwrap().feed).collect();
    assert_eq!(feeds, [Feed::Source, Feed::Picture(0), Feed::Picture(1)], "c is made of b, and b of a");
    assert_eq!(plan_of(&film, spec(Some("720p_h264"), json!({}))).first_pass(), None);
}

fn plan_of(info: &MediaInfo, spec: EncodeSpec) -> EncodePlan {
    plan(info, &[(OutputIndex(0), spec)], &Policy::default()).unwrap()
}

#[test]
fn hdr_keeps_what_its_frames_say_of_their_light() {
    let (_, hlg) = sources().remove(2);
    let display = MasteringDisplay {
        red: (34_000, 16_000),
        green: (13_250, 34_500),
        blue: (7_500, 3_000),
        white: (15_635, 16_450),
        brightest: 10_000_000,
        darkest: 50,
    };
    let mastering =
        Mastering { display: Some(display), light: Some(ContentLight { brightest: 1000, average: 400 }) };
    let measured = Measured { mastering: Some(mastering), ..Measured::default() };
    let pq = VideoStream { measured, color: tags("bt2020", "smpte2084", "bt2020nc"), ..hlg.video[0].clone() };
    let pq = media(vec![pq], vec![]);
    let said = |codec: &str, range: &str| {
        let fields = json!({"container": "mp4", "video": {"codec": codec, "bit_depth": 10, "range": range}});
        let argv = encoded(&pq, &[spec(None, fields)], &Limits::default());
        let params = argv.windows(2).find(|w| w[0].ends_with("-params")).unwrap()[1].clone();
        params
            .split(':')
            .filter(|p| ["hdr10", "master", "max-cll", "content"].iter().any(|k| p.starts_with(k)))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        said("hevc", "keep"),
        "hdr10=1 master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50) max-cll=1000,400"
    );
    assert_eq!(
        said("av1", "keep"),
        "mastering-display=G(0.26500,0.69000)B(0.15000,0.06000)R(0.68000,0.32000)WP(0.31270,0.32900)L(1000.0000,0.0050) content-light=1000,400"
    );
    assert_eq!(said("hevc", "sdr"), "", "what was mapped is not so bright");
}

#[test]
fn a_look_decodes_little() {
    let (input, limits) = (file(), Limits::default());
    let reading = Reading { input: &input, demuxer: Demuxer::Mov, limits: &limits };
    insta::assert_snapshot!(
        "look_for_bars",
        lines(&look(&reading, 0, 12.5, Look::Bars { frames: 3, step: 8 }))
    );
}

#[test]
fn sources_are_opened_by_force_and_nothing_else() {
    let limits = Limits::default();
    let url = "http://127.0.0.1:40000/0123456789abcdef/in";
    let input = Input::Loopback { url: url.to_owned() };
    let reading = Reading { input: &input, demuxer: Demuxer::Mpegts, limits: &limits };
    insta::assert_snapshot!("loopback_input", lines(&input_options(&reading, LookAhead::Far)));
    let input = file();
    let reading = Reading { input: &input, demuxer: Demuxer::Mov, limits: &limits };
    insta::assert_snapshot!("file_input", lines(&input_options(&reading, LookAhead::Near)));
}

#[test]
fn the_measuring_pass_hears_what_the_encoder_will() {
    let (_, info) = sources().remove(0);
    let outputs = [(OutputIndex(0), spec(Some("web_1080p"), json!({})))];
    let plan = plan(&info, &outputs, &Policy::default()).unwrap();
    let (input, limits) = (file(), Limits::default());
    let reading = Reading { input: &input, demuxer: info.container, limits: &limits };
    let (sound, _) = plan.loudness_passes().remove(0);
    let argv = loudness(&plan, sound, &reading);
    insta::assert_snapshot!("loudness", lines(tail(&argv)));
    let ungained = encode(&plan, &reading, &Gains::new());
    assert!(!ungained.iter().any(|word| word.contains("volume=")), "{ungained:?}");
}

#[test]
fn every_sound_and_every_text_has_a_place_of_its_own() {
    let fields = serde_json::json!({"audio": {"tracks": "all"}, "captions": {"source": "auto"}});
    let serde_json::Value::Object(fields) = fields else { unreachable!() };
    let file = Presets::builtin().resolve(Some("720p_h264"), fields).unwrap();
    let set = Presets::builtin().get("hls_1080p_abr").unwrap().clone();
    let argv = encoded(&many_languages(), &[file, EncodeSpec { ladder: vec![], ..set }], &Limits::default());
    let own = argv.iter().position(|word| word == "-map").unwrap();
    insta::assert_snapshot!("languages", lines(&argv[own..]));
}
