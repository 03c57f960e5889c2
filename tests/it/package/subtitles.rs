//! Subtitles that are put beside a package by hand: what the linter says of right ones and of wrong ones.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use flux::media::lint::{Folder, Rule, lint_all};
use flux::media::package::{Layout, package};

use super::faults::{Web, edit, ideal, said};
use super::kit::{self, Ladder, text};

/// The rules that have their faults here.
pub const RULES: [Rule; 10] = [
    Rule::Autoselect,
    Rule::Forced,
    Rule::WebVtt,
    Rule::TimestampMap,
    Rule::CueTimes,
    Rule::CuePlace,
    Rule::CueText,
    Rule::SubtitlesEnd,
    Rule::LanguageTag,
    Rule::Role,
];

const MASTER: &str = "master.m3u8";
const MPD: &str = "manifest.mpd";
const LIST: &str = "0a1b2c3d/subs_de.m3u8";
const WHOLE: &str = "0a1b2c3d/subs_de.vtt";
/// Segments of 6, 6 and 1 s; the second cue is shown across the first cut.
const SEGMENTS: [&str; 3] =
    ["0a1b2c3d/subs_de_00000.vtt", "0a1b2c3d/subs_de_00001.vtt", "0a1b2c3d/subs_de_00002.vtt"];
const FIRST: &str = "\n00:00:01.000 --> 00:00:03.000\nOne\n";
const ACROSS: &str = "\n00:00:05.500 --> 00:00:07.000 line:0\n<i>Two</i>\n";
const THIRD: &str = "\n3\n00:00:08.000 --> 00:00:09.000\nThree\nlines\n";

/// A package of 13 s with subtitles in its manifests, and what to open.
pub struct Subtitled {
    pub folder: tempfile::TempDir,
    pub entries: Vec<String>,
}

impl Subtitled {
    pub fn new(layout: Layout) -> Self {
        let mut request = match layout {
            Layout::Transport => Ladder::transport().request(layout),
            Layout::Fragments | Layout::SingleFile => ideal(layout),
        };
        request.segment_seconds = 6.0;
        let folder = tempfile::tempdir().unwrap();
        let done = package(&request, folder.path()).unwrap();
        let entries = done.entries().map(str::to_owned).collect();
        let zero = match layout {
            Layout::Transport => kit::first_tick(&request.renditions[0].file),
            Layout::Fragments | Layout::SingleFile => 0,
        };
        write(folder.path(), zero);
        Self { folder, entries }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn said(&self) -> (BTreeSet<Rule>, String) {
        said(&mut Folder::new(self.path()), &self.entries)
    }
}

/// Writes the files and names them in the manifests.
fn write(folder: &Path, zero: u64) {
    let head = format!("WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:{zero}\n");
    let cues = [[FIRST, ACROSS].concat(), [ACROSS, THIRD].concat(), String::new()];
    for (path, cues) in SEGMENTS.iter().zip(cues) {
        fs::write(folder.join(path), format!("{head}{cues}")).unwrap();
    }
    fs::write(folder.join(WHOLE), ["WEBVTT\n", FIRST, ACROSS, THIRD].concat()).unwrap();
    let list = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:6\n#EXT-X-PLAYLIST-TYPE:VOD\n";
    let entries = SEGMENTS.iter().zip(["6.000000", "6.000000", "1.000000"]);
    let entries = entries.map(|(path, length)| format!("#EXTINF:{length},\n{}\n", &path[9..]));
    let entries: String = entries.collect();
    fs::write(folder.join(LIST), format!("{list}{entries}#EXT-X-ENDLIST\n")).unwrap();
    let tag = "#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID=\"subs\",NAME=\"Deutsch\",LANGUAGE=\"de\",DEFAULT=YES,AUTOSELECT=YES,FORCED=NO,URI";
    let master = text(folder, MASTER).replace("#EXT-X-STREAM-INF:", "#EXT-X-STREAM-INF:SUBTITLES=\"subs\",");
    let at = master.find("#EXT-X-STREAM-INF").unwrap();
    let (before, after) = master.split_at(at);
    fs::write(folder.join(MASTER), format!("{before}{tag}=\"{LIST}\"\n{after}")).unwrap();
    if folder.join(MPD).exists() {
        let role = "<Role schemeIdUri=\"urn:mpeg:dash:role:2011\" value=\"subtitle\"/>";
        let set = "<AdaptationSet contentType=\"text\" mimeType=\"text/vtt\" lang=\"de\">";
        let one = format!(
            "<Representation id=\"subs_de\" bandwidth=\"256\"><BaseURL>{WHOLE}</BaseURL></Representation>"
        );
        edit(folder, MPD, "</Period>", &format!("{set}{role}{one}</AdaptationSet></Period>"));
    }
}

/// A change and the one rule that it breaks.
type Row = (Rule, fn(&Path));

fn manifests() -> Vec<Row> {
    const DE: &str = "LANGUAGE=\"de\",DEFAULT=YES,AUTOSELECT=YES,FORCED=NO";
    vec![
        (Rule::Groups, |f| edit(f, MASTER, "SUBTITLES=\"subs\"", "SUBTITLES=\"other\"")),
        (Rule::Autoselect, |f| edit(f, MASTER, "DEFAULT=YES,AUTOSELECT=YES,FORCED", "DEFAULT=YES,FORCED")),
        (Rule::Autoselect, |f| edit(f, MASTER, DE, "LANGUAGE=\"de\",DEFAULT=YES,AUTOSELECT=NO")),
        (Rule::Forced, |f| edit(f, MASTER, "TYPE=AUDIO,", "TYPE=AUDIO,FORCED=NO,")),
        (Rule::Language, |f| edit(f, MASTER, DE, "DEFAULT=YES,AUTOSELECT=YES")),
        (Rule::LanguageTag, |f| edit(f, MASTER, DE, "LANGUAGE=\"de_DE\",DEFAULT=YES,AUTOSELECT=YES")),
        (Rule::RenditionNames, |f| {
            let master = text(f, MASTER);
            let tag = master.lines().find(|line| line.contains("TYPE=SUBTITLES")).unwrap();
            edit(f, MASTER, tag, &format!("{tag}\n{}", tag.replace("DEFAULT=YES", "DEFAULT=NO")));
        }),
        (Rule::PlaylistSyntax, |f| edit(f, MASTER, &format!(",URI=\"{LIST}\""), "")),
        (Rule::PlaylistSyntax, |f| edit(f, LIST, "#EXTM3U", "#EXTM3X")),
        (Rule::Version, |f| edit(f, LIST, "VERSION:3", "VERSION:2")),
        (Rule::Vod, |f| edit(f, LIST, "#EXT-X-ENDLIST\n", "")),
        (Rule::TargetDuration, |f| {
            edit(
                f,
                LIST,
                "6.000000,\nsubs_de_00001.vtt\n#EXTINF:1.0",
                "7.000000,\nsubs_de_00001.vtt\n#EXTINF:0.0",
            );
        }),
        (Rule::Fetch, |f| fs::remove_file(f.join(SEGMENTS[1])).unwrap()),
        (Rule::SubtitlesEnd, |f| {
            let end = "#EXTINF:6.000000,\nsubs_de_00001.vtt\n#EXTINF:1.000000,\nsubs_de_00002.vtt\n";
            edit(f, LIST, end, "");
        }),
        (Rule::LanguageTag, |f| edit(f, MPD, "text/vtt\" lang=\"de\"", "text/vtt\" lang=\"German (AT)\"")),
        (Rule::Language, |f| edit(f, MPD, "text/vtt\" lang=\"de\"", "text/vtt\"")),
        (Rule::Role, |f| edit(f, MPD, "value=\"subtitle\"", "value=\"main\"")),
        (Rule::MpdSyntax, |f| edit(f, MPD, &format!("<BaseURL>{WHOLE}</BaseURL>"), "")),
        (Rule::Fetch, |f| fs::remove_file(f.join(WHOLE)).unwrap()),
    ]
}

fn files() -> Vec<Row> {
    const MAP: &str = "X-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:0";
    vec![
        (Rule::WebVtt, |f| edit(f, SEGMENTS[2], "WEBVTT", "WEBVTX")),
        (Rule::WebVtt, |f| edit(f, SEGMENTS[0], "00:00:01.000", "00:00:01,000")),
        (Rule::WebVtt, |f| {
            fs::write(f.join(SEGMENTS[1]), [b"WEBVTT\n\n".as_slice(), &[0xff]].concat()).unwrap();
        }),
        (Rule::WebVtt, |f| edit(f, WHOLE, "WEBVTT\n", "WEBVTT")),
        (Rule::TimestampMap, |f| edit(f, SEGMENTS[1], &format!("{MAP}\n"), "")),
        (Rule::TimestampMap, |f| edit(f, SEGMENTS[1], "MPEGTS:0", "MPEGTS:126000")),
        (Rule::TimestampMap, |f| edit(f, SEGMENTS[2], "LOCAL:00:00:00.000", "LOCAL:00:00:12.000")),
        (Rule::CueTimes, |f| edit(f, SEGMENTS[0], "--> 00:00:03.000", "--> 00:00:00.500")),
        (Rule::CueTimes, |f| edit(f, SEGMENTS[1], &[ACROSS, THIRD].concat(), &[THIRD, ACROSS].concat())),
        (Rule::CueTimes, |f| edit(f, WHOLE, "00:00:08.000 -->", "00:00:09.000 -->")),
        // Where only one of the two segments has it.
        (Rule::CuePlace, |f| edit(f, SEGMENTS[0], ACROSS, "")),
        (Rule::CuePlace, |f| edit(f, SEGMENTS[1], ACROSS, "")),
        // Times from the segment's own beginning.
        (Rule::CuePlace, |f| edit(f, SEGMENTS[1], THIRD, "\n00:00:13.000 --> 00:00:14.000\nlate\n")),
        (Rule::CuePlace, |f| {
            fs::write(f.join(SEGMENTS[2]), format!("WEBVTT\n{MAP}\n\n00:00.200 --> 00:00.900\nearly\n"))
                .unwrap();
        }),
        (Rule::CuePlace, |f| {
            edit(f, WHOLE, "00:00:08.000 --> 00:00:09.000", "00:00:13.100 --> 00:00:14.000");
        }),
        (Rule::CueText, |f| edit(f, SEGMENTS[0], "One", "O\u{1b}[1mne")),
        (Rule::CueText, |f| edit(f, WHOLE, "One", "One\0")),
    ]
}

#[test]
fn subtitles_that_follow_the_rules_have_no_fault() {
    for layout in [Layout::Fragments, Layout::SingleFile] {
        let subtitled = Subtitled::new(layout);
        let (rules, list) = subtitled.said();
        assert_eq!(rules, BTreeSet::new(), "{layout:?}: {list}");
    }
    // Segments of text may be as long as they like.
    let longer = Subtitled::new(Layout::Fragments);
    edit(longer.path(), LIST, "DURATION:6", "DURATION:60");
    assert_eq!(longer.said(), (BTreeSet::new(), String::new()));
    let transport = Subtitled::new(Layout::Transport);
    let (rules, list) = transport.said();
    assert!(rules.iter().all(|rule| rule.as_str() != "timestamp_map" && !RULES.contains(rule)), "{list}");
    kit::passes(transport.path(), transport.entries.iter().map(String::as_str));
}

#[test]
fn each_fault_of_subtitles_breaks_its_rule_and_no_other() {
    let mut wrong = Vec::new();
    let rows = [manifests(), files()].concat();
    for (n, &(rule, change)) in rows.iter().enumerate() {
        let subtitled = Subtitled::new(Layout::Fragments);
        change(subtitled.path());
        let (rules, list) = subtitled.said();
        if rules != BTreeSet::from([rule]) {
            wrong.push(format!("{n} {}: {rules:?}\n{list}", rule.as_str()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    let covered: BTreeSet<Rule> = rows.iter().map(|row| row.0).collect();
    assert!(RULES.iter().all(|rule| covered.contains(rule)));
}

#[test]
fn maps_lead_to_the_first_picture_of_transport_streams() {
    let transport = Subtitled::new(Layout::Transport);
    let head = text(transport.path(), SEGMENTS[2]);
    let zero = head.trim_end().rsplit(':').next().unwrap().to_owned();
    assert!(zero != "0", "pictures are reordered, so the first is shown later than it is decoded");
    let maps = [
        (format!("LOCAL:00:00:00.000,MPEGTS:{zero}"), true),
        (format!("MPEGTS:{},LOCAL:00:00:10.000", zero.parse::<u64>().unwrap() + 900_000), true),
        ("LOCAL:00:00:00.000,MPEGTS:0".to_owned(), false),
    ];
    for (map, right) in maps {
        fs::write(transport.path().join(SEGMENTS[2]), format!("WEBVTT\nX-TIMESTAMP-MAP={map}\n")).unwrap();
        let (rules, list) = transport.said();
        assert_eq!(!rules.contains(&Rule::TimestampMap), right, "{map}: {list}");
    }
}

#[test]
fn what_ffmpeg_leaves_out_of_subtitles_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let cues = folder.path().join("cues.vtt");
    fs::write(&cues, ["WEBVTT\n", FIRST, ACROSS, THIRD].concat()).unwrap();
    let source = format!("-f lavfi -i testsrc2=s=160x90:r=25:d=13 -i {}", cues.display());
    let codecs =
        "-map 0:v -map 1:s -c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 50 -sc_threshold 0 -c:s webvtt";
    let hls = "-f hls -hls_time 6 -hls_playlist_type vod -hls_segment_type fmp4 -master_pl_name master.m3u8";
    let map = "-var_stream_map v:0,s:0,sgroup:subs,language:de";
    kit::encode(&format!("{source} {codecs} {hls} {map}"), &folder.path().join("out.m3u8"));
    let (rules, list) = said(&mut Folder::new(folder.path()), &[MASTER.to_owned()]);
    // No maps, no cue in a second segment, no tags of its list that others have.
    for rule in [Rule::TimestampMap, Rule::CuePlace, Rule::Vod, Rule::Autoselect] {
        assert!(rules.contains(&rule), "{} is not in\n{list}", rule.as_str());
    }
    assert!(![Rule::WebVtt, Rule::CueTimes, Rule::CueText].iter().any(|rule| rules.contains(rule)), "{list}");
}

#[test]
fn subtitles_are_counted_and_stand_alone() {
    let plain = tempfile::tempdir().unwrap();
    let done = package(&ideal(Layout::Fragments), plain.path()).unwrap();
    let before = lint_all(&mut Folder::new(plain.path()), done.entries());
    let subtitled = Subtitled::new(Layout::Fragments);
    let entries = || subtitled.entries.iter().map(String::as_str);
    let after = lint_all(&mut Folder::new(subtitled.path()), entries());
    assert_eq!((after.renditions, after.segments), (before.renditions + 2, before.segments + 4));
    // A playlist of subtitles by itself, and a codec that may be named.
    let alone = lint_all(&mut Folder::new(subtitled.path()), [LIST]);
    assert_eq!((alone.findings.as_slice(), alone.renditions, alone.segments), (&[][..], 1, 3));
    edit(subtitled.path(), MASTER, ",mp4a.40.2\"", ",mp4a.40.2,wvtt\"");
    assert_eq!(subtitled.said(), (BTreeSet::new(), String::new()));
    edit(subtitled.path(), MASTER, ",wvtt\"", ",tx3g\"");
    assert_eq!(subtitled.said().0, BTreeSet::from([Rule::Codecs]));
}

#[test]
fn text_in_mp4_is_read_and_not_judged() {
    // Sound takes the place of text in MP4: what matters is that it is no media of the ladder.
    let subtitled = Subtitled::new(Layout::Fragments);
    let sound = text(subtitled.path(), "0a1b2c3d/audio_de.m3u8");
    fs::write(subtitled.path().join(LIST), sound).unwrap();
    edit(subtitled.path(), MPD, "mimeType=\"text/vtt\"", "mimeType=\"application/ttml+xml\"");
    fs::write(subtitled.path().join(WHOLE), "<tt/>").unwrap();
    let (rules, list) = subtitled.said();
    assert_eq!(rules, BTreeSet::new(), "{list}");
    fs::remove_file(subtitled.path().join(WHOLE)).unwrap();
    assert_eq!(subtitled.said().0, BTreeSet::from([Rule::Fetch]));
}

#[test]
fn how_subtitles_are_served_is_checked() {
    let subtitled = Subtitled::new(Layout::Fragments);
    for (kind, expected) in [("text/vtt; charset=utf-8", None), ("text/plain", Some(Rule::ContentType))] {
        let mut web = Web { text: kind, ..Web::new(subtitled.path()) };
        let (rules, list) = said(&mut web, &subtitled.entries);
        assert_eq!(rules, expected.into_iter().collect(), "{list}");
    }
}
