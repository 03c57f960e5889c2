//! EXT-X-MEDIA: what a master playlist says of renditions, and those that are subtitles.

use std::collections::BTreeSet;

use super::super::playlist::{Attributes, Playlist};
use super::super::text::{self, Segments, is_language};
use super::{Rule, Stream, Walk};

impl Walk<'_, '_> {
    /// Checks all tags by themselves.
    pub(super) fn renditions(&mut self, entry: &str, media: &[Attributes]) {
        let (mut names, mut defaults) = (BTreeSet::new(), BTreeSet::new());
        for tag in media {
            let get = |key: &str| tag.get(key).map_or("", String::as_str);
            let (kind, name) = (get("TYPE"), get("NAME"));
            let group = (kind, get("GROUP-ID"));
            let place = format!("{entry} EXT-X-MEDIA \"{name}\"");
            let default = get("DEFAULT") == "YES";
            if !names.insert((group, name)) {
                let said = "a name twice in its group";
                self.session.find(Rule::RenditionNames, &*place, said, "names that differ");
            } else if default && !defaults.insert(group) {
                let said = "a second DEFAULT=YES";
                self.session.find(Rule::RenditionNames, &*place, said, "one default in a group");
            }
            if default && get("AUTOSELECT") != "YES" {
                let said = "DEFAULT=YES without AUTOSELECT=YES";
                self.session.find(Rule::Autoselect, &*place, said, "both");
            }
            if kind != "SUBTITLES" && tag.contains_key("FORCED") {
                let said = format!("FORCED with TYPE={kind}");
                self.session.find(Rule::Forced, &*place, said, "TYPE=SUBTITLES");
            }
            match tag.get("LANGUAGE") {
                None if matches!(kind, "AUDIO" | "SUBTITLES") => {
                    let expected = "a language tag such as \"en\"";
                    self.session.find(Rule::Language, place, "no LANGUAGE", expected);
                }
                Some(tag) if !is_language(tag) => {
                    let said = format!("LANGUAGE=\"{tag}\"");
                    self.session.find(Rule::LanguageTag, place, said, "a language tag such as \"en\"");
                }
                _ => {}
            }
        }
    }

    /// What a tag says of the sound in a stream, against what that is.
    pub(super) fn channels(&mut self, entry: &str, tag: &Attributes, stream: usize) {
        let Some(real) = self.streams.get(stream).and_then(|stream| stream.facts()?.channels) else { return };
        let Some(told) = tag.get("CHANNELS") else { return };
        let (count, more) = told.split_once('/').unwrap_or((told, ""));
        // Objects beside the channels are counted as what they sound like together.
        if count.parse() != Ok(real) && !more.contains("JOC") {
            let place = format!("{entry} EXT-X-MEDIA \"{}\"", tag.get("NAME").map_or("", String::as_str));
            let said = format!("CHANNELS=\"{told}\"");
            self.session.find(Rule::Channels, place, said, format!("\"{real}\""));
        }
    }

    /// Reads the subtitles that a master playlist names. The media have been read.
    pub(super) fn subtitles(&mut self, entry: &str, media: &[Attributes]) {
        let mut seen = BTreeSet::new();
        for tag in media.iter().filter(|tag| tag.get("TYPE").is_some_and(|kind| kind == "SUBTITLES")) {
            let Some(uri) = tag.get("URI") else { continue };
            if !seen.insert(self.session.fetch.resolve(entry, uri)) {
                continue;
            }
            if let Some((place, playlist)) = self.open(entry, uri) {
                self.text(&place, &playlist);
            }
        }
    }

    /// Checks a playlist of subtitles with its segments, against the media that are known.
    pub(super) fn text(&mut self, place: &str, playlist: &Playlist) {
        let target = self.list(place, playlist);
        let mut segments = Segments::new(text::zero(&self.streams));
        let mut before = None;
        let mut longest = f64::from(target);
        for segment in &playlist.segments {
            let line = format!("{place}:{}", segment.line);
            self.entry(&line, target, segment, &mut before);
            longest = longest.max(segment.duration);
            if segment.map.is_some() {
                // Text in MP4 is read like any media, and no more is known of it.
                let _ = self.segment(place, &line, segment);
                continue;
            }
            let file = self.resolve(place, &line, &segment.uri);
            let document = file.and_then(|file| text::file(self.session, &file, segment.range));
            segments.next(self.session, &line, segment.duration, document);
        }
        let whole = self.streams.iter().filter(|stream| stream.plays() && stream.is_whole());
        let media = whole.map(Stream::duration).fold(0.0, f64::max);
        let end: f64 = playlist.segments.iter().map(|segment| segment.duration).sum();
        if media > 0.0 && (end - media).abs() > longest {
            let said = format!("subtitles end at {end:.3} s");
            let expected = format!("{media:.3} s, within {longest:.3} s");
            self.session.find(Rule::SubtitlesEnd, place, said, expected);
        }
        self.session.report.renditions += 1;
    }
}

/// Whether a reference is to a file of WebVTT, by its name.
pub(super) fn is_text(uri: &str) -> bool {
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    let extension = path.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    extension.is_some_and(|extension| matches!(extension.as_str(), "vtt" | "webvtt"))
}
