//! MPDs that strangers write: segments listed one by one, and repeated to the end.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use flux::media::lint::{Folder, Rule, lint_all};
use flux::media::package::{Layout, package};

use super::faults::{edit, ideal, said};
use super::kit::{encode, text};

const MPD: &str = "manifest.mpd";

/// The value of the first attribute of that name.
fn value<'a>(text: &'a str, name: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!(" {name}=\"")).unwrap();
    rest.split('"').next().unwrap()
}

/// Replaces every `<name …>…</name>`; the new text is made of the old one and of the representation before it.
fn replaced(mpd: &str, name: &str, new: impl Fn(&str, &str) -> String) -> String {
    let (open, close) = (format!("<{name} "), format!("</{name}>"));
    let mut done = String::new();
    let mut rest = mpd;
    while let Some(from) = rest.find(&open) {
        let to = from + rest[from..].find(&close).unwrap() + close.len();
        let (before, old) = (&rest[..from], &rest[from..to]);
        done.push_str(before);
        let representation = before.rfind("<Representation").map_or("", |at| &before[at..]);
        done.push_str(&new(old, representation));
        rest = &rest[to..];
    }
    done + rest
}

/// A package whose MPD lists files one by one.
fn listed_files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    package(&ideal(Layout::Fragments), folder.path()).unwrap();
    let mpd = replaced(&text(folder.path(), MPD), "SegmentTemplate", |old, _| {
        let timeline = &old[old.find("<SegmentTimeline>").unwrap()..old.find("</SegmentTemplate>").unwrap()];
        let urls = (0..3).map(|n| {
            let media = value(old, "media").replace("$Number%05d$", &format!("{n:05}"));
            format!("<SegmentURL media=\"{media}\"/>")
        });
        let (scale, init) = (value(old, "timescale"), value(old, "initialization"));
        let urls: String = urls.collect();
        format!(
            "<SegmentList timescale=\"{scale}\"><Initialization sourceURL=\"{init}\"/>{timeline}{urls}</SegmentList>"
        )
    });
    fs::write(folder.path().join(MPD), mpd).unwrap();
    folder
}

/// A package whose MPD lists ranges of files, all as long.
fn listed_ranges() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    package(&ideal(Layout::SingleFile), folder.path()).unwrap();
    let mpd = replaced(&text(folder.path(), MPD), "SegmentBase", |old, representation| {
        let name = value(representation, "id");
        let list = text(folder.path(), &format!("0a1b2c3d/{name}.m3u8"));
        let list = m3u8_rs::parse_media_playlist_res(list.as_bytes()).unwrap();
        let urls = list.segments.iter().map(|segment| {
            let range = segment.byte_range.as_ref().unwrap();
            let from = range.offset.unwrap();
            format!("<SegmentURL mediaRange=\"{from}-{}\"/>", from + range.length - 1)
        });
        let urls: String = urls.collect();
        let init = value(old, "range");
        format!("<SegmentList duration=\"6\"><Initialization range=\"{init}\"/>{urls}</SegmentList>")
    });
    fs::write(folder.path().join(MPD), mpd).unwrap();
    folder
}

fn found(folder: &Path) -> (BTreeSet<Rule>, String) {
    said(&mut Folder::new(folder), &[MPD.to_owned()])
}

#[test]
fn segments_that_are_listed_are_read_as_those_of_templates() {
    for folder in [listed_files(), listed_ranges()] {
        let report = lint_all(&mut Folder::new(folder.path()), [MPD]);
        assert_eq!(report.findings, [], "{}", text(folder.path(), MPD));
        assert_eq!((report.renditions, report.segments), (5, 15));
    }
}

#[test]
fn lists_that_ffmpeg_writes_pass() {
    let source = "-f lavfi -i testsrc2=s=160x90:r=25:d=7 -f lavfi -i sine=d=7:r=48000 -map 0:v -map 1:a";
    let codecs = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 50 -sc_threshold 0 -c:a aac -ac 2";
    for options in ["-use_timeline 1", "-use_timeline 0", "-single_file 1 -use_timeline 0"] {
        let folder = tempfile::tempdir().unwrap();
        let dash = format!("-f dash -seg_duration 2 -use_template 0 {options}");
        encode(&format!("{source} {codecs} {dash}"), &folder.path().join(MPD));
        assert!(text(folder.path(), MPD).contains("<SegmentList"));
        let report = lint_all(&mut Folder::new(folder.path()), [MPD]);
        let list: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert!(report.passes(), "{options}: {}", list.join("\n"));
        assert_eq!((report.renditions, report.segments), (2, 8));
    }
}

#[test]
fn faults_of_lists_are_found() {
    type Row = (Rule, fn() -> tempfile::TempDir, fn(&Path));
    let rows: [Row; 9] = [
        (Rule::Fetch, listed_files, |f| edit(f, MPD, "180p_00001.m4s", "180p_00009.m4s")),
        (Rule::MpdTimeline, listed_files, |f| {
            edit(f, MPD, "d=\"76800\" r=\"1\"/>", "d=\"70000\"/><S d=\"83600\"/>");
        }),
        (Rule::MpdSyntax, listed_files, |f| edit(f, MPD, "d=\"76800\" r=\"1\"/>", "d=\"76800\" r=\"0\"/>")),
        (Rule::MpdSyntax, listed_files, |f| edit(f, MPD, "d=\"76800\" r=\"1\"/>", "d=\"76800\" r=\"x\"/>")),
        (Rule::MpdSyntax, listed_files, |f| edit(f, MPD, "<Initialization", "<Initialisation")),
        (Rule::MpdSyntax, listed_ranges, |f| edit(f, MPD, " duration=\"6\"", "")),
        (Rule::MpdSyntax, listed_ranges, |f| edit(f, MPD, "mediaRange=\"", "mediaRange=\"x")),
        (Rule::ByteRange, listed_ranges, |f| {
            let mpd = text(f, MPD);
            let range = value(&mpd, "mediaRange");
            let (from, to) = range.split_once('-').unwrap();
            edit(f, MPD, range, &format!("{from}-{}", to.parse::<u64>().unwrap() + 1_000_000_000));
        }),
        (Rule::Contents, listed_ranges, |f| {
            let mpd = text(f, MPD);
            let range = value(&mpd, "mediaRange");
            let (from, to) = range.split_once('-').unwrap();
            edit(f, MPD, range, &format!("{}-{to}", from.parse::<u64>().unwrap() + 10));
        }),
    ];
    for (n, (rule, make, change)) in rows.into_iter().enumerate() {
        let folder = make();
        change(folder.path());
        let (rules, list) = found(folder.path());
        assert_eq!(rules, BTreeSet::from([rule]), "{n}: {list}");
    }
}

#[test]
fn lengths_are_repeated_to_the_next_one_and_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut request = ideal(Layout::Fragments);
    request.renditions.truncate(3);
    request.segment_seconds = 1.0;
    package(&request, folder.path()).unwrap();
    let entry = [MPD.to_owned()];
    let before = said(&mut Folder::new(folder.path()), &entry);
    let mpd = text(folder.path(), MPD);
    assert!(mpd.contains("r=\"12\"/>"), "{mpd}");
    fs::write(folder.path().join(MPD), mpd.replace("r=\"12\"/>", "r=\"-1\"/>")).unwrap();
    assert_eq!(said(&mut Folder::new(folder.path()), &entry), before);
    let next =
        mpd.replace("d=\"12800\" r=\"12\"/>", "d=\"12800\" r=\"-1\"/><S t=\"51200\" d=\"12800\" r=\"-1\"/>");
    fs::write(folder.path().join(MPD), next).unwrap();
    assert_eq!(said(&mut Folder::new(folder.path()), &entry), before);
    let short =
        mpd.replace("d=\"12800\" r=\"12\"/>", "d=\"12800\" r=\"-1\"/><S t=\"51200\" d=\"6400\" r=\"-1\"/>");
    fs::write(folder.path().join(MPD), short).unwrap();
    assert!(said(&mut Folder::new(folder.path()), &entry).0.contains(&Rule::Fetch));
}

#[test]
fn ranges_that_overlap_are_told() {
    let folder = listed_ranges();
    let mpd = text(folder.path(), MPD);
    let at = mpd.find("<SegmentURL").unwrap();
    let ranges: Vec<&str> = mpd[at..].split("mediaRange=\"").skip(1).take(2).collect();
    let first = ranges[0].split('"').next().unwrap();
    let second = ranges[1].split('"').next().unwrap();
    edit(folder.path(), MPD, second, first);
    let (rules, list) = found(folder.path());
    assert!(rules.contains(&Rule::ByteRange), "{list}");
}
