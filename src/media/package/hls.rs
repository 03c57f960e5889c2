//! HLS playlists (RFC 8216 and Apple's authoring specification).

use std::collections::BTreeMap;
use std::fmt::Write;

use super::cut::{Place, Track};
use super::write::Out;
use super::{
    AudioRendition, CaptionRendition, DynamicRange, Kind, Layout, PackageError, Rates, Request, captions,
    names,
};
use crate::domain::FileRole;

pub(super) const CONTENT_TYPE: &str = "application/vnd.apple.mpegurl";

/// The playlists' paths.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) master: Option<String>,
    pub(super) playlists: Vec<String>,
}

/// The group of all subtitles.
const CAPTIONS: &str = "captions";
/// What Apple calls subtitles that also tell of sounds.
const FOR_THE_DEAF: &str =
    "public.accessibility.transcribes-spoken-dialog,public.accessibility.describes-music-and-sound";

/// Writes all playlists of media, the master last.
pub(super) fn write(
    request: &Request,
    (tracks, captions): (&[Track<'_>], &[captions::Written<'_>]),
    target: u32,
    out: &mut Out,
) -> Result<Written, PackageError> {
    let mut written = Written { master: request.names.master.clone(), playlists: Vec::new() };
    let mut iframes = Vec::new();
    for track in tracks {
        let named = |template| names::filled(template, track.index, &track.rendition.name, None);
        let path = named(&request.names.playlist);
        let text = playlist(track, request.layout, target, &path);
        out.file(&path, FileRole::Playlist, CONTENT_TYPE, text.as_bytes())?;
        written.playlists.push(path);
        if request.iframes && request.names.master.is_some() && track.is_video() {
            let path = named(&request.names.iframes);
            let text = key_frames(track, request.layout, &path);
            out.file(&path, FileRole::IframePlaylist, CONTENT_TYPE, text.as_bytes())?;
            iframes.push((track, path));
        }
    }
    if let Some(path) = &written.master {
        let lists = Lists { playlists: &written.playlists, iframes: &iframes, captions };
        let text = master(path, request.layout, tracks, target, &lists);
        out.file(path, FileRole::Master, CONTENT_TYPE, text.as_bytes())?;
    }
    Ok(written)
}

/// 7 for fragmented MP4, as Apple's own tools write; MPEG-TS needs 6 for nothing but independent segments.
const fn version(layout: Layout) -> u32 {
    match layout {
        Layout::Fragments | Layout::SingleFile => 7,
        Layout::Transport => 6,
    }
}

/// The head of a media playlist.
fn head(track: &Track<'_>, layout: Layout, target: u32, own: &str, only_key_frames: bool) -> String {
    let mut text = String::from("#EXTM3U\n");
    let _ = writeln!(text, "#EXT-X-VERSION:{}", version(layout));
    let _ = writeln!(text, "#EXT-X-TARGETDURATION:{target}");
    text.push_str("#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-PLAYLIST-TYPE:VOD\n");
    text.push_str(if only_key_frames { "#EXT-X-I-FRAMES-ONLY\n" } else { "#EXT-X-INDEPENDENT-SEGMENTS\n" });
    if let Some(init) = &track.init {
        let uri = names::relative(own, &init.path);
        let _ = match layout {
            Layout::SingleFile => {
                writeln!(text, "#EXT-X-MAP:URI=\"{uri}\",BYTERANGE=\"{}@{}\"", init.size, init.offset)
            }
            Layout::Fragments | Layout::Transport => writeln!(text, "#EXT-X-MAP:URI=\"{uri}\""),
        };
    }
    text
}

/// Durations whose sum stays exact: each is a difference of rounded instants.
struct Clock {
    timescale: u32,
    ticks: u64,
    before: u64,
}

impl Clock {
    const fn new(timescale: u32) -> Self {
        Self { timescale, ticks: 0, before: 0 }
    }

    /// Microseconds of the next so many ticks.
    fn next(&mut self, ticks: u64) -> u64 {
        self.ticks += ticks;
        let scale = u128::from(self.timescale);
        let now = (u128::from(self.ticks) * 1_000_000 + scale / 2) / scale;
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let length = now - self.before;
        self.before = now;
        length
    }
}

fn entry(text: &mut String, micros: u64, range: Option<(u64, u64)>, uri: &str) {
    let _ = writeln!(text, "#EXTINF:{}.{:06},", micros / 1_000_000, micros % 1_000_000);
    if let Some((size, offset)) = range {
        let _ = writeln!(text, "#EXT-X-BYTERANGE:{size}@{offset}");
    }
    text.push_str(uri);
    text.push('\n');
}

fn playlist(track: &Track<'_>, layout: Layout, target: u32, own: &str) -> String {
    let mut text = head(track, layout, target, own, false);
    let mut clock = Clock::new(track.timescale);
    for segment in &track.segments {
        let Place { path, offset, size } = &segment.place;
        let range = (layout == Layout::SingleFile).then_some((*size, *offset));
        entry(&mut text, clock.next(segment.duration), range, &names::relative(own, path));
    }
    text.push_str("#EXT-X-ENDLIST\n");
    text
}

/// A playlist of key frames: each entry is the bytes from its fragment's first to the end of its first sample.
fn key_frames(track: &Track<'_>, layout: Layout, own: &str) -> String {
    let mut text = head(track, layout, track.key_target(), own, true);
    let mut clock = Clock::new(track.timescale);
    for segment in &track.segments {
        let uri = names::relative(own, &segment.place.path);
        for key in &segment.keys {
            entry(&mut text, clock.next(key.duration), Some((key.size, key.offset)), &uri);
        }
    }
    text.push_str("#EXT-X-ENDLIST\n");
    text
}

/// Renditions of sound that are the same in quality.
struct Group<'a> {
    name: &'a str,
    /// With the playlist of each.
    members: Vec<(&'a Track<'a>, &'a AudioRendition, &'a str)>,
    rates: Rates,
}

fn groups<'a>(tracks: &'a [Track<'a>], playlists: &'a [String], target: u32) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for (track, path) in tracks.iter().zip(playlists) {
        let Kind::Audio(audio) = &track.rendition.kind else { continue };
        let rates = track.rates(target);
        let name = group_name(audio);
        let at = groups.iter().position(|group| group.name == name).unwrap_or_else(|| {
            groups.push(Group { name, members: Vec::new(), rates: Rates::default() });
            groups.len() - 1
        });
        let Some(group) = groups.get_mut(at) else { continue };
        group.members.push((track, audio, path));
        // One of them plays at a time.
        group.rates.peak = group.rates.peak.max(rates.peak);
        group.rates.average = group.rates.average.max(rates.average);
    }
    groups
}

fn group_name(audio: &AudioRendition) -> &str {
    if audio.group.is_empty() { "audio" } else { &audio.group }
}

/// The playlists that a master names.
struct Lists<'a> {
    /// Of each track.
    playlists: &'a [String],
    /// Of key frames.
    iframes: &'a [(&'a Track<'a>, String)],
    captions: &'a [captions::Written<'a>],
}

fn master(own: &str, layout: Layout, tracks: &[Track<'_>], target: u32, lists: &Lists<'_>) -> String {
    let Lists { playlists, iframes, captions } = *lists;
    let groups = groups(tracks, playlists, target);
    let mut text = String::from("#EXTM3U\n");
    let _ = writeln!(text, "#EXT-X-VERSION:{}\n#EXT-X-INDEPENDENT-SEGMENTS", version(layout));
    for group in &groups {
        media(&mut text, group, own);
    }
    subtitles(&mut text, captions, own);
    let has_text = !captions.is_empty();
    let video: Vec<_> = tracks.iter().zip(playlists).filter(|(track, _)| track.is_video()).collect();
    for (track, path) in &video {
        if groups.is_empty() {
            variant(&mut text, own, (track, path), (None, has_text), target);
        }
        for group in &groups {
            variant(&mut text, own, (track, path), (Some(group), has_text), target);
        }
    }
    if video.is_empty() {
        for group in &groups {
            let chosen = group.members.iter().find(|member| member.1.default).or(group.members.first());
            if let Some((track, _, path)) = chosen {
                variant(&mut text, own, (track, path), (Some(group), has_text), target);
            }
        }
    }
    for (track, path) in iframes {
        let rates = track.key_rates();
        let codec = track.facts.codecs.first().map_or("", |codec| codec.text.as_str());
        let _ = write!(
            text,
            "#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS=\"{codec}\"",
            rates.peak, rates.average
        );
        picture(&mut text, track, false);
        let _ = writeln!(text, ",URI=\"{}\"", names::relative(own, path));
    }
    text
}

/// The EXT-X-MEDIA tags of a group. Names differ within it, one is the default.
fn media(text: &mut String, group: &Group<'_>, own: &str) {
    let default = group.members.iter().position(|(_, audio, _)| audio.default).unwrap_or(0);
    let mut names = UniqueNames::default();
    for (n, (track, audio, path)) in group.members.iter().enumerate() {
        let label = names.of(label(audio));
        let _ = write!(text, "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"{}\",NAME=\"{label}\"", quoted(group.name));
        if let Some(language) = &audio.language {
            let _ = write!(text, ",LANGUAGE=\"{}\"", quoted(language));
        }
        let default = if n == default { "YES" } else { "NO" };
        let _ = write!(text, ",DEFAULT={default},AUTOSELECT=YES");
        if let Some(channels) = track.facts.channels {
            let _ = write!(text, ",CHANNELS=\"{channels}\"");
        }
        let _ = writeln!(text, ",URI=\"{}\"", names::relative(own, path));
    }
}

/// The EXT-X-MEDIA tags of subtitles. None is shown unasked: sources call most of theirs the default.
fn subtitles(text: &mut String, captions: &[captions::Written<'_>], own: &str) {
    let mut names = UniqueNames::default();
    for written in captions {
        let (rendition, Some(path)) = (written.rendition, &written.playlist) else { continue };
        let label = names.of(caption_label(rendition));
        let _ = write!(text, "#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID=\"{CAPTIONS}\",NAME=\"{label}\"");
        if let Some(language) = &rendition.language {
            let _ = write!(text, ",LANGUAGE=\"{}\"", quoted(language));
        }
        let forced = if rendition.forced { "YES" } else { "NO" };
        let _ = write!(text, ",DEFAULT=NO,AUTOSELECT=YES,FORCED={forced}");
        if rendition.hearing_impaired {
            let _ = write!(text, ",CHARACTERISTICS=\"{FOR_THE_DEAF}\"");
        }
        let _ = writeln!(text, ",URI=\"{}\"", names::relative(own, path));
    }
}

/// Numbers what has the same name as something before it.
#[derive(Default)]
struct UniqueNames(BTreeMap<String, u32>);

impl UniqueNames {
    fn of(&mut self, name: String) -> String {
        let times = self.0.entry(name.clone()).and_modify(|times| *times += 1).or_insert(1);
        if *times > 1 { format!("{name} {times}") } else { name }
    }
}

/// What people choose subtitles by.
pub(super) fn caption_label(captions: &CaptionRendition) -> String {
    let name = match (captions.label.as_str(), &captions.language) {
        ("", Some(language)) => quoted(language),
        ("", None) => "Subtitles".to_owned(),
        (label, _) => quoted(label),
    };
    match (captions.hearing_impaired, captions.forced) {
        (false, false) => name,
        (true, false) => format!("{name} (SDH)"),
        (false, true) => format!("{name} (forced)"),
        (true, true) => format!("{name} (SDH, forced)"),
    }
}

/// What people choose by.
pub(super) fn label(audio: &AudioRendition) -> String {
    match (audio.label.as_str(), &audio.language) {
        ("", Some(language)) => quoted(language),
        ("", None) => "Audio".to_owned(),
        (label, _) => quoted(label),
    }
}

/// Text for a quoted attribute, which has no way to say these characters (RFC 8216 §4.2).
fn quoted(text: &str) -> String {
    text.chars().map(|c| if c == '"' || c.is_control() { '\'' } else { c }).collect()
}

/// A variant: what it costs is the dearest combination that it can play.
fn variant(
    text: &mut String,
    own: &str,
    (track, path): (&Track<'_>, &str),
    (group, has_text): (Option<&Group<'_>>, bool),
    target: u32,
) {
    let mut rates = track.rates(target);
    let mut codecs = track.codecs();
    if let Some(group) = group {
        if track.is_video() {
            rates.peak += group.rates.peak;
            rates.average += group.rates.average;
        } else {
            // Sound alone: one of the group plays.
            rates = group.rates;
        }
        for (sound, ..) in &group.members {
            let theirs = sound.codecs();
            if !codecs.split(',').any(|known| known == theirs) {
                codecs = format!("{codecs},{theirs}");
            }
        }
    }
    let _ = write!(
        text,
        "#EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS=\"{codecs}\"",
        rates.peak, rates.average
    );
    picture(text, track, true);
    if let Some(group) = group {
        let _ = write!(text, ",AUDIO=\"{}\"", quoted(group.name));
    }
    if has_text {
        let _ = write!(text, ",SUBTITLES=\"{CAPTIONS}\"");
    }
    if track.is_video() {
        text.push_str(",CLOSED-CAPTIONS=NONE");
    }
    let _ = writeln!(text, "\n{}", names::relative(own, path));
}

fn picture(text: &mut String, track: &Track<'_>, moving: bool) {
    let Some(picture) = track.facts.picture else { return };
    let _ = write!(text, ",RESOLUTION={}x{}", picture.width, picture.height);
    if moving {
        let _ = write!(text, ",FRAME-RATE={:.3}", picture.frame_rate.as_f64());
    }
    let range: DynamicRange = picture.range;
    let _ = write!(text, ",VIDEO-RANGE={}", range.as_str());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up_however_many_there_are() {
        // 29.97 fps: 60 frames are 2.002 s exactly, 100 of 1001/30000 are not.
        let mut clock = Clock::new(30_000);
        let sum: u64 = (0..1000).map(|_| clock.next(100)).sum();
        assert_eq!(sum, 3_333_333);
        assert_eq!(Clock::new(30_000).next(60_060), 2_002_000);
    }

    #[test]
    fn labels_cannot_leave_their_quotes() {
        let audio = |label: &str, language: Option<&str>| AudioRendition {
            label: label.into(),
            language: language.map(str::to_owned),
            ..AudioRendition::default()
        };
        assert_eq!(label(&audio("a\"b\nc", None)), "a'b'c");
        assert_eq!(label(&audio("", Some("de"))), "de");
        assert_eq!(label(&audio("", None)), "Audio");
    }
}
