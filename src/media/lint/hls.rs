//! Playlists: what they must say, and the renditions that they tell of.

mod renditions;

use std::collections::BTreeMap;

use super::fetch::Fetched;
use super::measure::{Init, Measured};
use super::playlist::{Attributes, Map, Playlist, Segment};
use super::stream::{Claim, Manifest, Part, Stream};
use super::{Rule, Session, at};

/// Checks a master or media playlist and all that it names.
pub(super) fn check(session: &mut Session<'_>, entry: &str, text: &str, document: &Fetched) -> Vec<Stream> {
    let playlist = Playlist::parse(text);
    let mut walk =
        Walk { session, streams: Vec::new(), known: BTreeMap::new(), independent: playlist.independent };
    walk.served(entry, document);
    walk.head(entry, &playlist);
    if playlist.is_master() {
        walk.master(entry, &playlist);
    } else if playlist.segments.first().is_some_and(|first| renditions::is_text(&first.uri)) {
        walk.text(entry, &playlist);
    } else {
        walk.media(entry, &playlist);
    }
    walk.streams
}

struct Walk<'s, 'f> {
    session: &'s mut Session<'f>,
    streams: Vec<Stream>,
    /// Playlists read so far and the stream of each.
    known: BTreeMap<String, Option<usize>>,
    /// Whether the master says so for all.
    independent: bool,
}

impl Walk<'_, '_> {
    fn served(&mut self, place: &str, document: &Fetched) {
        let Some(served) = &document.served else { return };
        let kind = served.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if kind != "application/vnd.apple.mpegurl" && kind != "audio/mpegurl" {
            let said = format!("Content-Type \"{kind}\"");
            self.session.find(Rule::ContentType, place, said, "application/vnd.apple.mpegurl");
        }
        if !served.compressed {
            self.session.find(Rule::Gzip, place, "sent as it is", "gzip");
        }
    }

    fn head(&mut self, place: &str, playlist: &Playlist) {
        for (line, fault) in &playlist.faults {
            let place = format!("{place}:{line}");
            self.session.find(
                Rule::PlaylistSyntax,
                place,
                fault.as_str(),
                "a playlist as RFC 8216 describes it",
            );
        }
        if playlist.version < playlist.needs {
            let said = format!("EXT-X-VERSION {}", playlist.version);
            self.session.find(Rule::Version, place, said, format!("at least {}", playlist.needs));
        }
    }

    /// Where a reference in the document at `base` leads; what leads nowhere is a finding at `place`.
    fn resolve(&mut self, base: &str, place: &str, reference: &str) -> Option<String> {
        let resolved = self.session.fetch.resolve(base, reference);
        if resolved.is_none() {
            let said = format!("a reference to {reference:?}");
            self.session.find(Rule::Fetch, place, said, "one that may be read");
        }
        resolved
    }

    fn open(&mut self, base: &str, reference: &str) -> Option<(String, Playlist)> {
        let place = self.resolve(base, base, reference)?;
        let document = self.session.read(&place, None)?;
        let playlist = Playlist::parse(&String::from_utf8_lossy(&document.bytes));
        self.served(&place, &document);
        self.head(&place, &playlist);
        if playlist.is_master() {
            self.session.find(Rule::PlaylistSyntax, place, "a master playlist", "a media playlist");
            return None;
        }
        Some((place, playlist))
    }

    /// The stream of a media playlist, read once however often it is named.
    fn stream(&mut self, base: &str, reference: &str) -> Option<usize> {
        let place = self.session.fetch.resolve(base, reference);
        if let Some(known) = place.as_ref().and_then(|place| self.known.get(place)) {
            return *known;
        }
        let opened = self.open(base, reference);
        let index = opened.map(|(place, playlist)| self.media(&place, &playlist));
        if let Some(place) = place {
            self.known.insert(place, index);
        }
        index
    }

    fn master(&mut self, entry: &str, playlist: &Playlist) {
        let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let sounds = playlist.media.iter().filter(|tag| tag.get("TYPE").is_some_and(|kind| kind == "AUDIO"));
        for tag in sounds {
            let group = groups.entry(tag.get("GROUP-ID").map_or("", String::as_str)).or_default();
            if let Some(stream) = tag.get("URI").and_then(|uri| self.stream(entry, uri)) {
                group.push(stream);
                self.channels(entry, tag, stream);
            }
        }
        self.renditions(entry, &playlist.media);
        for variant in &playlist.variants {
            let place = format!("{entry}:{}", variant.line);
            let mut claim = Claim::of(&place, &variant.attributes);
            claim.has_subtitles = variant.attributes.contains_key("SUBTITLES");
            for kind in ["AUDIO", "VIDEO", "SUBTITLES"] {
                let Some(group) = variant.attributes.get(kind) else { continue };
                let there = playlist.media.iter().any(|tag| {
                    tag.get("TYPE").is_some_and(|t| t == kind) && tag.get("GROUP-ID") == Some(group)
                });
                if !there {
                    let said = format!("{kind}=\"{group}\"");
                    self.session.find(Rule::Groups, &*place, said, "an EXT-X-MEDIA with that GROUP-ID");
                }
            }
            if let Some(group) = variant.attributes.get("AUDIO") {
                claim.sounds = groups.get(group.as_str()).cloned().unwrap_or_default();
            }
            if let Some(stream) = self.stream(entry, &variant.uri) {
                // Sound that is a variant itself is one of its group, of which one plays.
                claim.is_one_of_sounds = claim.sounds.contains(&stream);
                if let Some(stream) = self.streams.get_mut(stream) {
                    stream.claims.push(claim);
                }
            }
        }
        self.ladder(entry, playlist);
        self.key_frames(entry, playlist);
        self.subtitles(entry, &playlist.media);
    }

    /// What Apple advises about the list of variants.
    fn ladder(&mut self, entry: &str, playlist: &Playlist) {
        let video: Vec<(u64, &str)> = playlist
            .variants
            .iter()
            .filter_map(|variant| {
                let rate =
                    variant.attributes.get("AVERAGE-BANDWIDTH").or(variant.attributes.get("BANDWIDTH"))?;
                Some((rate.parse().ok()?, variant.attributes.get("RESOLUTION")?.as_str()))
            })
            .collect();
        let Some(&(first, _)) = video.first() else { return };
        let near = |rate: u64| rate.abs_diff(2_000_000);
        if let Some(best) = video.iter().map(|(rate, _)| *rate).min_by_key(|&rate| near(rate))
            && near(best) < near(first)
        {
            let said = format!("{} kbit/s first", first / 1000);
            self.session.find(Rule::DefaultVariant, entry, said, format!("{} kbit/s first", best / 1000));
        }
        let pixels = |resolution: &str| {
            let (width, height) = resolution.split_once('x')?;
            Some(width.parse::<u64>().ok()?.saturating_mul(height.parse::<u64>().ok()?))
        };
        let largest = video.iter().filter_map(|(_, size)| pixels(size)).max().unwrap_or(0);
        let at_top = video.iter().filter(|(_, size)| pixels(size) == Some(largest)).count();
        if at_top < 2 {
            self.session.find(Rule::TopResolution, entry, "one variant at the largest resolution", "two");
        }
    }

    fn key_frames(&mut self, entry: &str, playlist: &Playlist) {
        if playlist.iframes.is_empty() && self.streams.iter().any(Stream::is_video) {
            self.session.find(Rule::IframePlaylist, entry, "none", "an EXT-X-I-FRAME-STREAM-INF");
        }
        for tag in &playlist.iframes {
            let Some(uri) = tag.get("URI") else { continue };
            let Some((place, list)) = self.open(entry, uri) else { continue };
            if !list.only_key_frames {
                self.session.find(Rule::IframeEntries, &*place, "no EXT-X-I-FRAMES-ONLY", "that tag");
                continue;
            }
            self.vod(&place, &list);
            let mut parts = Vec::new();
            for segment in &list.segments {
                let read = self.key_frame(&place, segment);
                let measured = read.map(std::sync::Arc::new);
                parts.push(Part {
                    place: format!("{place}:{}", segment.line),
                    claimed: segment.duration,
                    begins: None,
                    measured,
                });
            }
            let mut claim = Claim::of(&format!("{entry} EXT-X-I-FRAME-STREAM-INF {uri}"), tag);
            claim.only_key_frames = true;
            // Bit rates are as claimed lengths have it: a key frame lasts to the next.
            self.streams.push(Stream {
                place,
                manifest: Manifest::Hls,
                claims: vec![claim],
                segments: parts,
                target: list.target.unwrap_or(0),
            });
        }
    }

    /// One entry of a playlist of key frames, looked into as far as its range goes.
    fn key_frame(&mut self, base: &str, segment: &Segment) -> Option<Measured> {
        let place = self.session.fetch.resolve(base, &segment.uri)?;
        let init = segment.map.as_ref().and_then(|map| self.init(base, map));
        let range = segment.range.map(|(offset, size)| offset..offset.saturating_add(size));
        let fetched = self.session.read(&place, range)?;
        let measured = match &init {
            Some(init) => Measured::of_key_frame(init, &fetched.bytes),
            None => Measured::of(None, &fetched.bytes).ok().filter(|m| m.begins_with_key && m.samples == 1),
        };
        if measured.is_none() {
            let place = at(&place, segment.range);
            self.session.find(
                Rule::IframeEntries,
                place,
                "not one whole key frame",
                "moof, or tables, to the end of its first sample",
            );
        }
        measured
    }

    fn init(&mut self, base: &str, map: &Map) -> Option<std::sync::Arc<Init>> {
        let place = self.resolve(base, base, &map.uri)?;
        self.session.init(&place, map.range)
    }

    fn vod(&mut self, place: &str, playlist: &Playlist) {
        if !playlist.vod || !playlist.ended {
            let said = if playlist.vod { "no EXT-X-ENDLIST" } else { "no EXT-X-PLAYLIST-TYPE:VOD" };
            self.session.find(Rule::Vod, place, said, "both");
        }
    }

    /// What every media playlist must say; returns its target duration.
    fn list(&mut self, place: &str, playlist: &Playlist) -> u32 {
        self.vod(place, playlist);
        playlist.target.unwrap_or(0)
    }

    /// What is said of one segment; `before` is the file of the one before and where its range ended.
    fn entry<'p>(
        &mut self,
        line: &str,
        target: u32,
        segment: &'p Segment,
        before: &mut Option<(&'p str, u64)>,
    ) {
        if segment.duration.round() > f64::from(target) {
            let said = format!("EXTINF {}", segment.duration);
            self.session.find(Rule::TargetDuration, line, said, format!("at most {target} when rounded"));
        }
        if let Some((offset, size)) = segment.range {
            if before.is_some_and(|(uri, end)| uri == segment.uri && end > offset) {
                let said = format!("bytes from {offset}, which the segment before has too");
                self.session.find(Rule::ByteRange, line, said, "ranges that do not overlap");
            }
            *before = Some((&segment.uri, offset.saturating_add(size)));
        }
    }

    /// Reads a media playlist with its segments and returns its place in the list of streams.
    fn media(&mut self, place: &str, playlist: &Playlist) -> usize {
        let target = self.list(place, playlist);
        if target != 6 {
            self.session.find(Rule::TargetSix, place, format!("EXT-X-TARGETDURATION {target}"), "6");
        }
        if !self.independent && !playlist.independent {
            self.session.find(Rule::IndependentSegments, place, "not said", "EXT-X-INDEPENDENT-SEGMENTS");
        }
        let mut parts: Vec<Part> = Vec::new();
        let mut before = None;
        for segment in &playlist.segments {
            let line = format!("{place}:{}", segment.line);
            self.entry(&line, target, segment, &mut before);
            let measured = self.segment(place, &line, segment);
            parts.push(Part { place: line, claimed: segment.duration, begins: None, measured });
        }
        let stream = Stream {
            place: place.to_owned(),
            manifest: Manifest::Hls,
            claims: Vec::new(),
            segments: parts,
            target,
        };
        self.streams.push(stream);
        self.streams.len() - 1
    }

    fn segment(&mut self, base: &str, line: &str, segment: &Segment) -> Option<std::sync::Arc<Measured>> {
        let place = self.resolve(base, line, &segment.uri)?;
        let init = match &segment.map {
            Some(map) => Some(self.init(base, map)?),
            None => None,
        };
        self.session.segment(init.as_deref(), &place, segment.range)
    }
}

impl Claim {
    fn of(place: &str, attributes: &Attributes) -> Self {
        let text = |key: &str| attributes.get(key).cloned();
        let number = |key: &str| attributes.get(key).and_then(|value| value.parse().ok());
        Self {
            place: place.to_owned(),
            codecs: text("CODECS"),
            bandwidth: number("BANDWIDTH"),
            average: number("AVERAGE-BANDWIDTH"),
            resolution: text("RESOLUTION"),
            frame_rate: text("FRAME-RATE"),
            range: text("VIDEO-RANGE"),
            ..Self::default()
        }
    }
}
