//! For every check of the linter a fault that makes it fail, and no other: a package that passes everything, one change,
//! and what the linter says now that it did not say before.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use flux::media::lint::{Fetch, FetchError, Fetched, Folder, Rule, Served, Severity, lint_all};
use flux::media::package::{Layout, Rendition, Request, package};

use super::kit::{FRAGMENTS, Ladder, made, picture, sound, text};
use super::subtitles;

/// A film of 13 s with GOPs of so many frames.
fn film(size: &str, rate: u32, gop: u32, bits: u32, more: &str) -> PathBuf {
    let name = format!("film-{size}-{rate}-{gop}-{bits}-{}.mp4", more.replace([' ', ':', '='], ""));
    let high = if more.contains("main") { "" } else { ":8x8dct=1" };
    let keys = format!("-x264-params keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0{high}");
    let codec = format!(
        "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -bf 2 -b:v {bits}k -maxrate {bits}k -bufsize {bits}k {keys}"
    );
    let profile = if more.is_empty() { "-profile:v high" } else { more };
    made(&name, &format!("-f lavfi -i testsrc2=s={size}:r={rate}:d=13 {codec} {profile} {FRAGMENTS}"))
}

/// Nothing is to be said against it.
pub(super) fn ideal(layout: Layout) -> Request {
    let mut request = Ladder::standard().request(layout);
    let sounds: Vec<Rendition> = request.renditions.drain(2..).collect();
    request.renditions = vec![
        picture("180p", film("320x180", 25, 25, 400, "")),
        picture("180p_low", film("320x180", 25, 25, 300, "")),
        picture("90p", film("160x90", 25, 25, 100, "")),
    ];
    request.renditions.extend(sounds);
    request.segment_seconds = 6.0;
    request
}

/// The same with other pictures.
fn pictures(files: [PathBuf; 3]) -> Request {
    let mut request = ideal(Layout::Fragments);
    for (rendition, file) in request.renditions.iter_mut().zip(files) {
        rendition.file = file;
    }
    request
}

fn four_seconds() -> Request {
    Request { segment_seconds: 4.0, ..ideal(Layout::Fragments) }
}

fn gops(gop: u32) -> Request {
    let one = |size: &str, bits: u32| film(size, 25, gop, bits, "");
    pictures([one("320x180", 400), one("320x180", 300), one("160x90", 100)])
}

/// Pictures alone.
fn silent(gop: u32) -> Request {
    let mut request = gops(gop);
    request.renditions.truncate(3);
    request
}

/// Replaces the first occurrence in a file, which must be there.
pub(super) fn edit(folder: &Path, path: &str, from: &str, to: &str) {
    let before = text(folder, path);
    assert!(before.contains(from), "{path} has no {from}:\n{before}");
    fs::write(folder.join(path), before.replacen(from, to, 1)).unwrap();
}

/// Changes the bytes of a file.
fn patch(folder: &Path, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(folder.join(path)).unwrap();
    change(&mut bytes);
    fs::write(folder.join(path), bytes).unwrap();
}

/// Where boxes of that kind have their contents.
fn places(bytes: &[u8], kind: [u8; 4]) -> Vec<usize> {
    let found: Vec<usize> =
        bytes.windows(4).enumerate().filter(|(_, four)| **four == kind).map(|(at, _)| at + 4).collect();
    assert!(!found.is_empty());
    found
}

fn add(bytes: &mut [u8], at: usize, more: u32) {
    let four: &mut [u8] = &mut bytes[at..at + 4];
    let value = u32::from_be_bytes(four.try_into().unwrap()) + more;
    four.copy_from_slice(&value.to_be_bytes());
}

/// Moves all decode times of a segment. Theirs are 64 bits wide.
fn shift(folder: &Path, path: &str, ticks: u32) {
    patch(folder, path, |bytes| {
        for at in places(bytes, *b"tfdt") {
            add(bytes, at + 8, ticks);
        }
    });
}

/// The number of an attribute in the first line that begins so.
fn attribute(text: &str, line: &str, name: &str) -> u64 {
    let line = text.lines().find(|found| found.starts_with(line)).unwrap();
    let (_, value) = line.split_once(name).unwrap();
    value.split(',').next().unwrap().parse().unwrap()
}

fn multiply(folder: &Path, line: &str, name: &str) {
    let value = attribute(&text(folder, "master.m3u8"), line, name);
    edit(folder, "master.m3u8", &format!("{name}{value}"), &format!("{name}{}", value * 2));
}

/// One fault: the rule, the package it is made in, and the change.
type Row = (Rule, fn() -> Request, fn(&Path));

const LOW: &str = "0a1b2c3d/90p.m3u8";

fn fragments() -> Request {
    ideal(Layout::Fragments)
}

fn single() -> Request {
    ideal(Layout::SingleFile)
}

fn lists() -> Vec<Row> {
    vec![
        (Rule::Fetch, fragments, |f| fs::remove_file(f.join("0a1b2c3d/90p_00001.m4s")).unwrap()),
        (Rule::ByteRange, single, |f| {
            let list = text(f, LOW);
            let range = list.lines().rfind(|line| line.starts_with("#EXT-X-BYTERANGE:")).unwrap();
            edit(f, LOW, range, &range.replacen(':', ":1", 1));
        }),
        (Rule::PlaylistSyntax, fragments, |f| edit(f, LOW, "#EXTM3U", "#EXTM3X")),
        (Rule::Version, fragments, |f| edit(f, LOW, "VERSION:7", "VERSION:5")),
        (Rule::Vod, fragments, |f| edit(f, LOW, "#EXT-X-PLAYLIST-TYPE:VOD\n", "")),
        (Rule::Map, fragments, |f| edit(f, LOW, "#EXT-X-MAP:URI=\"90p_init.mp4\"\n", "")),
        (Rule::IndependentSegments, fragments, |f| {
            edit(f, "master.m3u8", "#EXT-X-INDEPENDENT-SEGMENTS\n", "");
            edit(f, LOW, "#EXT-X-INDEPENDENT-SEGMENTS\n", "");
        }),
        // Segments of 6.48 s and 6.52 s, both called so within a frame.
        (Rule::TargetDuration, || silent(54), |f| edit(f, LOW, "6.480000", "6.520000")),
        (
            Rule::SegmentLength,
            || silent(163),
            |f| {
                for entry in fs::read_dir(f.join("0a1b2c3d")).unwrap() {
                    let path = entry.unwrap().path();
                    if path.extension().is_some_and(|extension| extension == "m3u8") {
                        let list = fs::read_to_string(&path).unwrap();
                        let list = list.replace("DURATION:7", "DURATION:6");
                        fs::write(&path, list.replace("EXTINF:6.52", "EXTINF:6.48")).unwrap();
                    }
                }
            },
        ),
        (Rule::Extinf, fragments, |f| {
            edit(f, LOW, "EXTINF:6.000000", "EXTINF:5.900000");
            edit(f, LOW, "EXTINF:6.000000", "EXTINF:6.100000");
        }),
        (Rule::DurationSum, fragments, |f| {
            edit(f, LOW, "EXTINF:6.000000", "EXTINF:6.030000");
            edit(f, LOW, "EXTINF:6.000000", "EXTINF:6.030000");
        }),
        (Rule::SameTarget, four_seconds, |f| edit(f, "0a1b2c3d/audio_de.m3u8", "DURATION:4", "DURATION:5")),
        (Rule::SameBoundaries, single, move_a_cut),
        (Rule::IframePlaylist, fragments, |f| {
            let master = text(f, "master.m3u8");
            let lines = master.lines().filter(|line| !line.starts_with("#EXT-X-I-FRAME"));
            fs::write(f.join("master.m3u8"), lines.collect::<Vec<_>>().join("\n")).unwrap();
        }),
        (Rule::IframeEntries, fragments, |f| {
            let path = "0a1b2c3d/90p_iframes.m3u8";
            let size = attribute(&text(f, path).replace('@', ","), "#EXT-X-BYTERANGE:", ":");
            edit(f, path, &format!("RANGE:{size}"), &format!("RANGE:{}", size - 10));
        }),
        (Rule::TargetSix, four_seconds, |_| {}),
    ]
}

fn masters() -> Vec<Row> {
    const MASTER: &str = "master.m3u8";
    vec![
        (Rule::PeakBandwidth, fragments, |f| multiply(f, "#EXT-X-STREAM-INF", ":BANDWIDTH=")),
        (Rule::AverageBandwidth, fragments, |f| multiply(f, "#EXT-X-STREAM-INF", ",AVERAGE-BANDWIDTH=")),
        (Rule::Codecs, fragments, |f| edit(f, MASTER, ",mp4a.40.2\"", "\"")),
        (Rule::Resolution, fragments, |f| edit(f, MASTER, "160x90", "160x92")),
        (Rule::FrameRate, fragments, |f| edit(f, MASTER, "RATE=25.000", "RATE=24.000")),
        (Rule::VideoRange, fragments, |f| edit(f, MASTER, "RANGE=SDR", "RANGE=PQ")),
        (Rule::Groups, fragments, |f| edit(f, MASTER, "AUDIO=\"aac\"", "AUDIO=\"aac\",SUBTITLES=\"none\"")),
        (Rule::RenditionNames, fragments, |f| edit(f, MASTER, "NAME=\"en\"", "NAME=\"de\"")),
        (Rule::Channels, fragments, |f| edit(f, MASTER, "CHANNELS=\"2\"", "CHANNELS=\"6\"")),
        (Rule::Language, fragments, |f| edit(f, MASTER, "LANGUAGE=\"en\",", "")),
        (Rule::DefaultVariant, fragments, |f| {
            let master = text(f, MASTER);
            let at = master.find("#EXT-X-STREAM-INF").unwrap();
            let last = master.rfind("#EXT-X-STREAM-INF").unwrap();
            let end = master.find("#EXT-X-I-FRAME").unwrap();
            let swapped = [&master[..at], &master[last..end], &master[at..last], &master[end..]].concat();
            fs::write(f.join(MASTER), swapped).unwrap();
        }),
        (Rule::TopResolution, fragments, |f| {
            let master = text(f, MASTER);
            let at: Vec<usize> = master.match_indices("#EXT-X-STREAM-INF").map(|(at, _)| at).collect();
            fs::write(f.join(MASTER), [&master[..at[1]], &master[at[2]..]].concat()).unwrap();
        }),
        (Rule::MpdSyntax, fragments, |f| edit(f, "manifest.mpd", "\"static\"", "\"dynamic\"")),
        (Rule::MpdDuration, fragments, |f| edit(f, "manifest.mpd", "Duration=\"PT13", "Duration=\"PT14")),
        (Rule::MpdTimeline, fragments, |f| {
            let two = "d=\"70000\"/><S d=\"83600\"/>";
            edit(f, "manifest.mpd", "d=\"76800\" r=\"1\"/>", two);
        }),
    ]
}

fn media() -> Vec<Row> {
    vec![
        (Rule::Contents, fragments, |f| {
            patch(f, "0a1b2c3d/90p_00001.m4s", |bytes| bytes.truncate(bytes.len() - 100));
        }),
        (Rule::KeyFrameFirst, fragments, |f| {
            patch(f, "0a1b2c3d/90p_00001.m4s", |bytes| another_picture(bytes));
        }),
        (Rule::DecodeTimes, fragments, |f| {
            for n in 0..3 {
                shift(f, &format!("0a1b2c3d/90p_{n:05}.m4s"), 512);
            }
            patch(f, "0a1b2c3d/90p_init.mp4", |bytes| {
                // After version, flags, count and the edit's length.
                let at = places(bytes, *b"elst")[0] + 12;
                add(bytes, at, 512);
            });
        }),
        (Rule::Continuity, fragments, |f| shift(f, "0a1b2c3d/audio_en_00001.m4s", 100)),
        (Rule::Priming, fragments, |f| {
            patch(f, "0a1b2c3d/audio_en_init.mp4", |bytes| {
                let at = places(bytes, *b"edts")[0] - 4;
                bytes[at..at + 4].copy_from_slice(b"free");
            });
        }),
        (Rule::TimelineZero, late_sound, |_| {}),
        (Rule::FrameRateLimit, || pictures([100; 3].map(|rate| film("160x90", rate, 100, 400, ""))), |_| {}),
        (Rule::HevcTag, hev1, |_| {}),
        (Rule::Interlaced, fields, |_| {}),
        (Rule::AvcProfile, main_profile, |_| {}),
        (Rule::KeyInterval, || gops(75), |_| {}),
        (Rule::PeakToAverage, black_then_busy, |_| {}),
        (Rule::StereoAac, mono, |_| {}),
    ]
}

/// Ends the second segment of one rendition a GOP earlier.
fn move_a_cut(folder: &Path) {
    let ranges = |path: &str| -> Vec<(u64, u64)> {
        let list = text(folder, path);
        let ranges = list.lines().filter_map(|line| line.strip_prefix("#EXT-X-BYTERANGE:"));
        let pair = |range: &str| {
            let (size, offset) = range.split_once('@').unwrap();
            (size.parse().unwrap(), offset.parse().unwrap())
        };
        ranges.map(pair).collect()
    };
    let (segments, keys) = (ranges(LOW), ranges("0a1b2c3d/90p_iframes.m3u8"));
    let cut = keys[11].1;
    let ((size, offset), (last_size, last)) = (segments[1], segments[2]);
    edit(folder, LOW, &format!("RANGE:{size}@"), &format!("RANGE:{}@", cut - offset));
    edit(
        folder,
        LOW,
        &format!("RANGE:{last_size}@{last}"),
        &format!("RANGE:{}@{cut}", last + last_size - cut),
    );
    edit(folder, LOW, "EXTINF:6.000000", "EXTINF:6.0");
    edit(folder, LOW, "EXTINF:6.000000", "EXTINF:5.000000");
    edit(folder, LOW, "EXTINF:1.000000", "EXTINF:2.000000");
}

/// The first slice of a segment is of no IDR picture.
fn another_picture(bytes: &mut [u8]) {
    let mut at = places(bytes, *b"mdat")[0];
    loop {
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        if bytes[at + 4] & 0x1f == 5 {
            bytes[at + 4] = 0x61;
            return;
        }
        at += 4 + length;
    }
}

fn late_sound() -> Request {
    let late = "-itsoffset 0.5 -f lavfi -i sine=f=440:d=12:r=48000 -ac 2 -c:a libopus -b:a 64k";
    let mut request = ideal(Layout::Fragments);
    request.renditions[4].file = made("late.mp4", &format!("{late} {FRAGMENTS}"));
    request
}

fn hev1() -> Request {
    let codec = "-c:v libx265 -preset ultrafast -tag:v hev1 -pix_fmt yuv420p -b:v 100k";
    let keys = "-x265-params log-level=none:keyint=25:min-keyint=25:scenecut=0:open-gop=0:bframes=2";
    let source = "-f lavfi -i testsrc2=s=160x90:r=25:d=13";
    let mut request = ideal(Layout::Fragments);
    request.renditions[2].file = made("hev1.mp4", &format!("{source} {codec} {keys} {FRAGMENTS}"));
    request
}

fn fields() -> Request {
    let mut request = ideal(Layout::Fragments);
    request.renditions[2].file = film("160x96", 25, 25, 100, "-profile:v high -flags +ildct+ilme");
    request
}

fn main_profile() -> Request {
    let mut request = ideal(Layout::Fragments);
    request.renditions[2].file = film("160x90", 25, 25, 100, "-profile:v main");
    request
}

fn mono() -> Request {
    let mut request = ideal(Layout::Fragments);
    request.renditions.truncate(3);
    let tone = "-f lavfi -i sine=f=440:d=13:r=48000 -ac 1 -c:a aac -b:a 64k";
    request.renditions.push(sound("de", made("mono.mp4", &format!("{tone} {FRAGMENTS}")), true));
    request
}

fn black_then_busy() -> Request {
    let scene =
        "-filter_complex color=black:s=320x180:r=25:d=18[a];testsrc2=s=320x180:r=25:d=6[b];[a][b]concat";
    let keys = "-x264-params keyint=25:min-keyint=25:scenecut=0:open-gop=0:8x8dct=1";
    let codec = "-c:v libx264 -preset ultrafast -profile:v high -pix_fmt yuv420p -bf 2 -crf 23";
    let file = made("busy.mp4", &format!("{scene} {codec} {keys} {FRAGMENTS}"));
    let mut request = ideal(Layout::Fragments);
    request.renditions = vec![picture("a", file.clone()), picture("b", file)];
    request
}

/// What is said of a folder, by rule.
pub(super) fn said(fetch: &mut dyn Fetch, entries: &[String]) -> (BTreeSet<Rule>, String) {
    let report = lint_all(fetch, entries.iter().map(String::as_str));
    let list: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    (report.findings.iter().map(|finding| finding.rule).collect(), list.join("\n"))
}

/// Packages, changes, and says which rules are broken that were not.
fn broken(request: &Request, change: fn(&Path)) -> (BTreeSet<Rule>, String) {
    let folder = tempfile::tempdir().unwrap();
    let done = package(request, folder.path()).unwrap();
    let entries: Vec<String> = done.entries().map(str::to_owned).collect();
    let (before, _) = said(&mut Folder::new(folder.path()), &entries);
    change(folder.path());
    let (after, list) = said(&mut Folder::new(folder.path()), &entries);
    // Packages that are at fault as they are have no other fault.
    let new: BTreeSet<Rule> = after.difference(&before).copied().collect();
    (if new.is_empty() { after } else { new }, list)
}

#[test]
fn the_ideal_package_has_no_fault() {
    for layout in [Layout::Fragments, Layout::SingleFile] {
        let (rules, list) = broken(&ideal(layout), |_| {});
        assert_eq!(rules, BTreeSet::new(), "{layout:?}: {list}");
    }
}

#[test]
fn every_check_fails_on_its_fault_and_on_no_other() {
    let rows: Vec<Row> = [lists(), masters(), media()].concat();
    let mut wrong = Vec::new();
    for &(rule, request, change) in &rows {
        let (rules, list) = broken(&request(), change);
        if rules != BTreeSet::from([rule]) {
            wrong.push(format!("{}: {rules:?}\n{list}", rule.as_str()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    // The others have tests of their own, below and beside this file.
    let elsewhere = [Rule::SegmentFormat, Rule::ContentType, Rule::Gzip].into_iter().chain(subtitles::RULES);
    let covered: BTreeSet<Rule> = rows.iter().map(|row| row.0).chain(elsewhere).collect();
    let all: BTreeSet<Rule> = Rule::ALL.iter().copied().collect();
    assert_eq!(all.difference(&covered).collect::<Vec<_>>(), Vec::<&Rule>::new());
}

#[test]
fn hevc_in_transport_streams_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let keys = "-x265-params log-level=none:keyint=25:min-keyint=25:scenecut=0:open-gop=0:bframes=0";
    let codec =
        format!("-c:v libx265 -preset ultrafast -pix_fmt yuv420p {keys} -f mpegts -muxdelay 0 -muxpreload 0");
    let file = made("hevc.ts", &format!("-f lavfi -i testsrc2=s=160x90:r=25:d=6 {codec}"));
    // ffmpeg puts a table of services before those of the program.
    let bytes = fs::read(file).unwrap();
    fs::write(folder.path().join("0.ts"), &bytes[188..]).unwrap();
    let head = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:6\n#EXT-X-PLAYLIST-TYPE:VOD\n";
    let list = format!("{head}#EXT-X-INDEPENDENT-SEGMENTS\n#EXTINF:6.000,\n0.ts\n#EXT-X-ENDLIST\n");
    fs::write(folder.path().join("p.m3u8"), list).unwrap();
    let (rules, list) = said(&mut Folder::new(folder.path()), &["p.m3u8".to_owned()]);
    assert_eq!(rules, BTreeSet::from([Rule::SegmentFormat]), "{list}");
}

#[test]
fn templates_with_one_length_for_all_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut request = four_seconds();
    request.renditions.truncate(3);
    package(&request, folder.path()).unwrap();
    let entry = ["manifest.mpd".to_owned()];
    let (before, _) = said(&mut Folder::new(folder.path()), &entry);
    let mut plain =
        text(folder.path(), "manifest.mpd").replace("startNumber", "duration=\"51200\" startNumber");
    while let (Some(from), Some(to)) = (plain.find("<SegmentTimeline>"), plain.find("</SegmentTimeline>")) {
        plain.replace_range(from..to + "</SegmentTimeline>".len(), "");
    }
    fs::write(folder.path().join("manifest.mpd"), &plain).unwrap();
    let report = lint_all(&mut Folder::new(folder.path()), ["manifest.mpd"]);
    assert_eq!((report.renditions, report.segments), (3, 12));
    assert_eq!(report.findings.iter().map(|finding| finding.rule).collect::<BTreeSet<_>>(), before);
    fs::remove_file(folder.path().join("0a1b2c3d/90p_00003.m4s")).unwrap();
    let (after, list) = said(&mut Folder::new(folder.path()), &entry);
    assert!(after.contains(&Rule::Fetch), "{list}");
}

/// A folder behind a server.
pub(super) struct Web {
    pub(super) folder: Folder,
    /// What it calls playlists.
    pub(super) kind: &'static str,
    /// What it calls subtitles.
    pub(super) text: &'static str,
    pub(super) compressed: bool,
}

impl Web {
    /// One that does everything right.
    pub(super) fn new(folder: &Path) -> Self {
        let kind = "application/vnd.apple.mpegurl; charset=utf-8";
        Self { folder: Folder::new(folder), kind, text: "text/vtt", compressed: true }
    }
}

impl Fetch for Web {
    fn resolve(&self, base: &str, reference: &str) -> Option<String> {
        self.folder.resolve(base, reference)
    }

    fn fetch(&mut self, place: &str, range: Option<Range<u64>>) -> Result<Fetched, FetchError> {
        let mut fetched = self.folder.fetch(place, range)?;
        let kind = match Path::new(place).extension().and_then(|extension| extension.to_str()) {
            Some("mpd") => "application/dash+xml",
            Some("vtt") => self.text,
            _ => self.kind,
        };
        fetched.served = Some(Served { content_type: kind.to_owned(), compressed: self.compressed });
        Ok(fetched)
    }
}

#[test]
fn how_playlists_are_served_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let done = package(&ideal(Layout::Fragments), folder.path()).unwrap();
    let entries: Vec<String> = done.entries().map(str::to_owned).collect();
    let right = "application/vnd.apple.mpegurl; charset=utf-8";
    let rows = [
        (right, true, BTreeSet::new()),
        ("text/plain", true, BTreeSet::from([Rule::ContentType])),
        (right, false, BTreeSet::from([Rule::Gzip])),
    ];
    for (kind, compressed, expected) in rows {
        let mut web = Web { kind, compressed, ..Web::new(folder.path()) };
        let (rules, list) = said(&mut web, &entries);
        assert_eq!(rules, expected, "{list}");
        assert!(rules.iter().all(|rule| rule.severity() == Severity::Should));
    }
}
