//! Every codec that can be encoded, as its init segment names it.

use flux::media::package::{
    AudioRendition, DynamicRange, Kind, Layout, Manifests, Names, Rendition, Request, package,
};

use super::kit::{self, FRAGMENTS, made, picture, text};

fn video(name: &str, codec: &str) -> Rendition {
    let source = "-f lavfi -i testsrc2=s=320x180:r=25:d=4";
    picture(name, made(&format!("codec-{name}.mp4"), &format!("{source} {codec} {FRAGMENTS}")))
}

fn audio(name: &str, codec: &str) -> Rendition {
    let source = "-f lavfi -i sine=d=4:r=48000";
    let file =
        made(&format!("codec-{name}.mp4"), &format!("{source} {codec} -frag_duration 500000 {FRAGMENTS}"));
    let kind = Kind::Audio(AudioRendition {
        group: name.into(),
        language: Some("en".into()),
        ..AudioRendition::default()
    });
    Rendition { file, name: name.into(), kind }
}

fn request(renditions: Vec<Rendition>) -> Request {
    Request {
        renditions,
        captions: vec![],
        segment_seconds: 4.0,
        layout: Layout::Fragments,
        iframes: true,
        manifests: Manifests { hls: true, dash: true },
        names: Names::default(),
    }
}

#[test]
fn codecs_are_named_by_their_init_segments_and_colours_by_theirs() {
    let avc = "-c:v libx264 -preset ultrafast -profile:v high -pix_fmt yuv420p -g 50 -sc_threshold 0 -x264-params 8x8dct=1";
    let colours = "-color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc";
    let keys = "keyint=50:min-keyint=50:scenecut=0:open-gop=0:bframes=2";
    let hdr = format!(
        "-c:v libx265 -preset ultrafast -tag:v hvc1 -pix_fmt yuv420p10le {colours} -x265-params log-level=none:hdr10=1:{keys}"
    );
    let hlg = hdr.replace("smpte2084", "arib-std-b67").replace("hdr10=1:", "");
    let vp9 = "-c:v libvpx-vp9 -cpu-used 8 -deadline realtime -pix_fmt yuv420p -g 50 -keyint_min 50";
    let av1 = "-c:v libsvtav1 -preset 10 -g 50 -pix_fmt yuv420p -svtav1-params scd=0:irefresh-type=2";
    let rows = [
        (video("avc", avc), "avc1.64000c", DynamicRange::Sdr),
        (video("pq", &hdr), "hvc1.2.4.L60.90", DynamicRange::Pq),
        (video("hlg", &hlg), "hvc1.2.4.L60.90", DynamicRange::Hlg),
        (video("av1", av1), "av01.0.00M.08", DynamicRange::Sdr),
        (video("vp9", vp9), "vp09.00.11.08", DynamicRange::Sdr),
    ];
    let sounds = [
        (audio("aac", "-ac 2 -c:a aac -b:a 64k"), "mp4a.40.2", 2),
        (audio("opus", "-ac 2 -c:a libopus -b:a 64k"), "Opus", 2),
        (audio("surround", "-ac 6 -c:a ac3 -b:a 192k"), "ac-3", 6),
        (audio("surround_ec3", "-ac 6 -c:a eac3 -b:a 192k"), "ec-3", 6),
    ];
    let pictures = rows.iter().map(|row| row.0.clone());
    let done = request(pictures.chain(sounds.iter().map(|row| row.0.clone())).collect());
    let folder = tempfile::tempdir().unwrap();
    let done = package(&done, folder.path()).unwrap();
    for (report, (_, codec, range)) in done.renditions.iter().zip(&rows) {
        assert_eq!((report.codecs.as_str(), report.picture.unwrap().range), (*codec, *range));
    }
    for (report, (_, codec, channels)) in done.renditions[rows.len()..].iter().zip(&sounds) {
        assert_eq!((report.codecs.as_str(), report.channels), (*codec, Some(*channels)));
    }
    let master = text(folder.path(), "master.m3u8");
    assert_eq!(master.matches("#EXT-X-STREAM-INF").count(), 20, "each picture with each group");
    assert!(
        master
            .contains("CODECS=\"hvc1.2.4.L60.90,ac-3\",RESOLUTION=320x180,FRAME-RATE=25.000,VIDEO-RANGE=PQ")
    );
    let mpd = text(folder.path(), "manifest.mpd");
    assert!(mpd.contains("codecs=\"opus\"") && !mpd.contains("Opus\""), "{mpd}");
    assert_eq!(mpd.matches("<AdaptationSet").count(), 9, "no switching between codecs or ranges: {mpd}");
    assert_eq!(mpd.matches("TransferCharacteristics\" value=\"16\"").count(), 1);
    kit::passes(folder.path(), done.entries());
}

#[test]
fn picture_and_sound_in_one_file_are_cut_together() {
    let codec = "-map 1:v -map 0:a -ac 2 -c:a aac -c:v libx264 -preset ultrafast -pix_fmt yuv420p -bf 2 -g 50 -sc_threshold 0";
    let source = "-f lavfi -i sine=d=8:r=48000 -f lavfi -i testsrc2=s=320x180:r=25:d=8";
    let file = made("codec-muxed.mp4", &format!("{source} {codec} {FRAGMENTS}"));
    let folder = tempfile::tempdir().unwrap();
    let done = package(&request(vec![picture("all", file.clone())]), folder.path()).unwrap();
    let only = &done.renditions[0];
    assert_eq!(
        (only.codecs.split_once(',').unwrap().1, only.channels, only.segments),
        ("mp4a.40.2", Some(2), 2)
    );
    let master = folder.path().join("master.m3u8");
    assert_eq!(kit::frames(&master, "v:0"), 200);
    assert_eq!(kit::samples(&master, "a:0"), kit::samples(&file, "a:0"));
    kit::passes(folder.path(), done.entries());
}
