//! Packages made of what a real ffmpeg encodes: read back by ffmpeg and by independent parsers, and checked by our own.

mod codecs;
mod faults;
mod hostile;
pub mod kit;
mod segments;
mod subtitles;

use std::collections::BTreeSet;

use flux::domain::FileRole;
use flux::media::lint::{Folder, lint_all};
use flux::media::package::{Kind, Layout, Manifests, Names, PackageError, Rendition, package};

use kit::{Ladder, frames, made, picture, pixels, text};

#[test]
fn a_ladder_is_read_back_frame_by_frame_from_both_manifests() {
    let ladder = Ladder::standard();
    for layout in [Layout::Fragments, Layout::SingleFile] {
        let folder = tempfile::tempdir().unwrap();
        let done = package(&ladder.request(layout), folder.path()).unwrap();
        assert_eq!(done.entries().collect::<Vec<_>>(), ["master.m3u8", "manifest.mpd"]);
        let last = done.files.last().map(|file| file.role);
        assert_eq!(last, Some(FileRole::Manifest), "what names others comes after them");
        for file in &done.files {
            let size = std::fs::metadata(folder.path().join(&file.path)).unwrap().len();
            assert_eq!(size, file.size, "{}", file.path);
        }
        for entry in done.entries() {
            let path = folder.path().join(entry);
            for (n, rendition) in ladder.renditions.iter().take(2).enumerate() {
                let stream = format!("v:{n}");
                assert_eq!(frames(&path, &stream), 325, "{layout:?} {entry}");
                assert_eq!(pixels(&path, &stream), pixels(&rendition.file, "v:0"), "{layout:?} {entry}");
            }
        }
        let top = &done.renditions[0];
        assert_eq!((top.codecs.as_str(), top.segments), ("avc1.64000c", 4));
        let picture = top.picture.unwrap();
        assert_eq!((picture.width, picture.height, picture.frames), (320, 180, 325));
        assert_eq!(picture.frame_rate.to_string(), "25/1");
        assert!((done.duration - 13.0).abs() < 0.03, "{}", done.duration);
        let sound = &done.renditions[2];
        assert_eq!((sound.codecs.as_str(), sound.channels, sound.segments), ("mp4a.40.2", Some(2), 4));
        kit::passes(folder.path(), done.entries());
    }
}

#[test]
fn independent_parsers_read_what_we_write() {
    let folder = tempfile::tempdir().unwrap();
    let done = package(&Ladder::standard().request(Layout::Fragments), folder.path()).unwrap();
    let master = text(folder.path(), "master.m3u8");
    let m3u8_rs::Playlist::MasterPlaylist(master) = m3u8_rs::parse_playlist_res(master.as_bytes()).unwrap()
    else {
        panic!("not a master playlist");
    };
    assert_eq!((master.version, master.independent_segments), (Some(7), true));
    let variants: Vec<_> = master.variants.iter().filter(|variant| !variant.is_i_frame).collect();
    assert_eq!(variants.len(), 2);
    assert_eq!(master.variants.len(), 4, "two playlists of key frames");
    assert_eq!(variants[0].codecs.as_deref(), Some("avc1.64000c,mp4a.40.2"));
    assert_eq!(variants[0].resolution.map(|size| (size.width, size.height)), Some((320, 180)));
    assert_eq!(variants[0].frame_rate, Some(25.0));
    let peaks = done.renditions[0].peak_bandwidth
        + done.renditions[2].peak_bandwidth.max(done.renditions[3].peak_bandwidth);
    assert_eq!(variants[0].bandwidth, peaks, "the dearest combination");
    let languages: Vec<_> =
        master.alternatives.iter().map(|sound| (sound.language.as_deref(), sound.default)).collect();
    assert_eq!(languages, [(Some("de"), true), (Some("en"), false)]);
    for rendition in &done.renditions {
        let list = text(folder.path(), rendition.playlist.as_deref().unwrap());
        let list = m3u8_rs::parse_media_playlist_res(list.as_bytes()).unwrap();
        assert_eq!((list.target_duration, list.end_list, list.segments.len()), (4, true, 4));
        let sum: f64 = list.segments.iter().map(|segment| f64::from(segment.duration)).sum();
        assert!((sum - rendition.duration).abs() < 0.001, "{sum} {}", rendition.duration);
    }
    let mpd = text(folder.path(), "manifest.mpd");
    let mut reader = quick_xml::Reader::from_str(&mpd);
    let mut names = Vec::new();
    loop {
        match reader.read_event().unwrap() {
            quick_xml::events::Event::Start(start) => {
                names.push(String::from_utf8(start.name().as_ref().to_vec()).unwrap());
            }
            quick_xml::events::Event::Eof => break,
            _ => {}
        }
    }
    let count = |name: &str| names.iter().filter(|seen| *seen == name).count();
    assert_eq!((count("AdaptationSet"), count("Representation"), count("SegmentTimeline")), (3, 4, 4));
}

#[test]
fn segments_stand_alone_and_key_frame_ranges_hold_one_picture() {
    let folder = tempfile::tempdir().unwrap();
    package(&Ladder::standard().request(Layout::Fragments), folder.path()).unwrap();
    let read = |path: &str| std::fs::read(folder.path().join(path)).unwrap();
    for (n, expected) in [(0, 100), (1, 100), (2, 100), (3, 25)] {
        let joined = [read("0a1b2c3d/180p_init.mp4"), read(&format!("0a1b2c3d/180p_{n:05}.m4s"))].concat();
        let alone = folder.path().join(format!("alone-{n}.mp4"));
        std::fs::write(&alone, joined).unwrap();
        assert_eq!(frames(&alone, "v:0"), expected);
    }
    let list = text(folder.path(), "0a1b2c3d/180p_iframes.m3u8");
    let list = m3u8_rs::parse_media_playlist_res(list.as_bytes()).unwrap();
    assert!(list.i_frames_only);
    assert_eq!(list.segments.len(), 13);
    for segment in &list.segments {
        let range = segment.byte_range.as_ref().unwrap();
        let (from, length) =
            (usize::try_from(range.offset.unwrap()).unwrap(), usize::try_from(range.length).unwrap());
        let media = read(&format!("0a1b2c3d/{}", segment.uri));
        let joined = [read("0a1b2c3d/180p_init.mp4"), media[from..from + length].to_vec()].concat();
        let alone = folder.path().join("key.mp4");
        std::fs::write(&alone, joined).unwrap();
        assert_eq!(kit::first_frame(&alone), "I");
    }
}

#[test]
fn transport_streams_are_cut_at_key_frames_and_named_as_the_seed_did() {
    let ladder = Ladder::transport();
    let folder = tempfile::tempdir().unwrap();
    let mut request = ladder.request(Layout::Transport);
    request.names = Names {
        playlist: "stream_%v.m3u8".into(),
        segment: "segment_%v_%03d.ts".into(),
        ..Names::of(Layout::Transport)
    };
    let done = package(&request, folder.path()).unwrap();
    let paths: BTreeSet<&str> = done.files.iter().map(|file| file.path.as_str()).collect();
    for path in ["stream_0.m3u8", "stream_1.m3u8", "segment_0_000.ts", "segment_1_003.ts", "master.m3u8"] {
        assert!(paths.contains(path), "{path} of {paths:?}");
    }
    assert_eq!(done.renditions[0].codecs, "avc1.64000c,mp4a.40.2");
    for (n, rendition) in ladder.renditions.iter().enumerate() {
        let path = folder.path().join("master.m3u8");
        assert_eq!(frames(&path, &format!("v:{n}")), 325);
        assert_eq!(pixels(&path, &format!("v:{n}")), pixels(&rendition.file, "v:0"));
        assert_eq!(pixels(&folder.path().join(format!("segment_{n}_002.ts")), "v:0").len(), 100);
    }
    kit::passes(folder.path(), done.entries());
    // One rendition needs no master: its playlist is what players open.
    let folder = tempfile::tempdir().unwrap();
    request.renditions.truncate(1);
    request.names = Names { master: None, playlist: "playlist.m3u8".into(), ..Names::of(Layout::Transport) };
    let done = package(&request, folder.path()).unwrap();
    assert_eq!(done.entries().collect::<Vec<_>>(), ["playlist.m3u8"]);
    assert_eq!(done.files.last().map(|file| file.role), Some(FileRole::Playlist));
    assert_eq!(frames(&folder.path().join("playlist.m3u8"), "v:0"), 325);
    kit::passes(folder.path(), done.entries());
}

#[test]
fn fractional_rates_half_rates_and_sound_alone_are_exact() {
    let film = |name: &str, rate: &str, keys: u32| {
        let source = format!("-f lavfi -i testsrc2=s=160x90:r={rate}:d=14.014");
        let gop = format!("-x264-params keyint={keys}:min-keyint={keys}:scenecut=0:open-gop=0");
        made(
            name,
            &format!(
                "{source} -c:v libx264 -preset ultrafast -profile:v high -pix_fmt yuv420p -bf 2 {gop} {}",
                kit::FRAGMENTS
            ),
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let mut request = Ladder::standard().request(Layout::Fragments);
    request.segment_seconds = 6.0;
    request.renditions[0] = picture("full", film("ntsc.mp4", "60000/1001", 120));
    request.renditions[1] = picture("half", film("half.mp4", "30000/1001", 60));
    let done = package(&request, folder.path()).unwrap();
    assert_eq!(done.renditions[0].picture.unwrap().frame_rate.to_string(), "60000/1001");
    let list = text(folder.path(), "0a1b2c3d/half.m3u8");
    assert!(list.contains("#EXT-X-TARGETDURATION:6\n") && list.contains("#EXTINF:6.006000,\n"), "{list}");
    kit::passes(folder.path(), done.entries());

    let folder = tempfile::tempdir().unwrap();
    request.renditions.drain(..2);
    let done = package(&request, folder.path()).unwrap();
    assert_eq!(done.renditions[0].segments, 3);
    kit::passes(folder.path(), done.entries());
}

#[test]
fn clips_of_any_length_pass() {
    for length in ["0.04", "0.5", "6.01", "6.1"] {
        let source = format!("-f lavfi -i testsrc2=s=160x90:r=25:d={length}");
        let tone = format!("-f lavfi -i sine=f=440:d={length}:r=44100 -c:a aac");
        let codec = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -bf 2 -x264-params keyint=50:min-keyint=50:scenecut=0:open-gop=0";
        let video = made(&format!("short-{length}.mp4"), &format!("{source} {codec} {}", kit::FRAGMENTS));
        let audio = made(&format!("short-sound-{length}.mp4"), &format!("{tone} {}", kit::FRAGMENTS));
        let stream = format!("{source} {tone} {codec} {}", kit::TRANSPORT);
        let stream = made(&format!("short-{length}.ts"), &stream);
        for layout in [Layout::Fragments, Layout::SingleFile, Layout::Transport] {
            let mut request = Ladder::standard().request(layout);
            request.segment_seconds = 6.0;
            request.renditions.truncate(1);
            if layout == Layout::Transport {
                request.renditions[0].file.clone_from(&stream);
            } else {
                request.renditions[0].file.clone_from(&video);
                request.renditions.push(kit::sound("de", audio.clone(), true));
            }
            let folder = tempfile::tempdir().unwrap();
            let done = package(&request, folder.path())
                .unwrap_or_else(|error| panic!("{length} {layout:?}: {error}"));
            kit::passes(folder.path(), done.entries());
        }
    }
}

#[test]
fn one_huge_fragment_of_sound_is_cut_like_many() {
    let folder = tempfile::tempdir().unwrap();
    let mut request = Ladder::standard().request(Layout::Fragments);
    let whole = "-f lavfi -i sine=f=440:d=13:r=48000 -ac 2 -c:a aac -b:a 64k";
    request.renditions[2].file = made("audio-one.mp4", &format!("{whole} {}", kit::FRAGMENTS));
    let done = package(&request, folder.path()).unwrap();
    assert_eq!(done.renditions[2].segments, 4);
    let joined = kit::samples(&folder.path().join("master.m3u8"), "a:0");
    assert_eq!(joined, kit::samples(&request.renditions[2].file, "a:0"));
    kit::passes(folder.path(), done.entries());
}

#[test]
fn what_cannot_be_packaged_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let ladder = Ladder::standard();
    let refused = |change: &dyn Fn(&mut flux::media::package::Request)| {
        let mut request = ladder.request(Layout::Fragments);
        change(&mut request);
        package(&request, folder.path()).unwrap_err()
    };
    let plain = made("plain.mp4", "-f lavfi -i testsrc2=s=160x90:r=25:d=1 -c:v libx264 -preset ultrafast");
    let other = made(
        "other-gop.mp4",
        &format!(
            "-f lavfi -i testsrc2=s=160x90:r=25:d=13 -c:v libx264 -preset ultrafast -g 30 {}",
            kit::FRAGMENTS
        ),
    );
    let rubbish = folder.path().join("rubbish");
    std::fs::write(&rubbish, [7; 1000]).unwrap();
    let cut = folder.path().join("cut.mp4");
    let whole = std::fs::read(&ladder.renditions[0].file).unwrap();
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    for (file, said) in [(plain, "no fragments"), (rubbish, "cut"), (cut, "cut")] {
        let error = refused(&|request| request.renditions[0].file.clone_from(&file)).to_string();
        assert!(error.contains(said), "{error}");
    }
    let error = refused(&|request| request.renditions[1].file.clone_from(&other));
    assert!(matches!(&error, PackageError::Misaligned { rendition, .. } if rendition == "90p"), "{error}");
    let error = refused(&|request| request.renditions[2].kind = Kind::Video);
    assert!(error.to_string().contains("no picture"), "{error}");
    assert!(matches!(refused(&|r| r.names.playlist = "p.m3u8".into()), PackageError::Name(_)));
    assert!(matches!(refused(&|r| r.renditions[1].name = "180p".into()), PackageError::Name(_)));
    assert!(matches!(
        refused(&|r| r.manifests = Manifests { hls: false, dash: false }),
        PackageError::Request(_)
    ));
    assert!(matches!(refused(&|r| r.names.master = None), PackageError::Request(_)));
    assert!(matches!(refused(&|r| r.segment_seconds = f64::NAN), PackageError::Request(_)));
    assert!(matches!(refused(&|r| r.renditions = Vec::<Rendition>::new()), PackageError::Request(_)));
    let missing = refused(&|request| request.renditions[0].file = "/nonexistent".into());
    assert!(matches!(missing, PackageError::File { .. }));
    let mut both = ladder.request(Layout::Transport);
    both.manifests.dash = true;
    assert!(matches!(package(&both, folder.path()), Err(PackageError::Request(_))));
    let report = lint_all(&mut Folder::new(folder.path()), ["nothing.m3u8"]);
    assert!(!report.passes());
}
