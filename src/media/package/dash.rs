//! The MPD (ISO 23009-1): static, over the same bytes as the playlists.

use std::io;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

use super::cut::{Track, seconds};
use super::write::Out;
use super::{DynamicRange, Kind, Layout, PackageError, Request, captions, hls, names};
use crate::domain::FileRole;
use crate::media::boxes::codec::Codec;

type Xml = Writer<Vec<u8>>;

/// Writes the manifest and returns its path.
pub(super) fn write(
    request: &Request,
    tracks: &[Track<'_>],
    captions: &[captions::Written<'_>],
    out: &mut Out,
) -> Result<String, PackageError> {
    let mut xml = Writer::new_with_indent(Vec::new(), b' ', 2);
    // Writing into memory cannot fail.
    mpd(&mut xml, request, tracks, captions)
        .map_err(|_| PackageError::Request("the MPD cannot be written"))?;
    let mut bytes = xml.into_inner();
    bytes.push(b'\n');
    out.file(&request.names.manifest, FileRole::Manifest, "application/dash+xml", &bytes)?;
    Ok(request.names.manifest.clone())
}

fn mpd(
    xml: &mut Xml,
    request: &Request,
    tracks: &[Track<'_>],
    captions: &[captions::Written<'_>],
) -> io::Result<()> {
    let total = tracks.iter().map(Track::seconds).fold(0.0, f64::max);
    let longest = tracks.iter().flat_map(|t| t.segments.iter().map(|s| seconds(s.duration, t.timescale)));
    let profiles = match request.layout {
        Layout::SingleFile => "urn:mpeg:dash:profile:isoff-on-demand:2011",
        Layout::Fragments | Layout::Transport => {
            "urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019"
        }
    };
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    xml.create_element("MPD")
        .with_attribute(("xmlns", "urn:mpeg:dash:schema:mpd:2011"))
        .with_attribute(("profiles", profiles))
        .with_attribute(("type", "static"))
        .with_attribute(("mediaPresentationDuration", duration(total).as_str()))
        .with_attribute(("minBufferTime", duration(longest.fold(0.0, f64::max)).as_str()))
        .write_inner_content(|xml| {
            xml.create_element("Period")
                .with_attribute(("id", "0"))
                .with_attribute(("start", "PT0S"))
                .write_inner_content(|xml| {
                    let main = main_sound(tracks);
                    for set in sets(tracks) {
                        adaptation_set(xml, request, &set, main)?;
                    }
                    for written in captions {
                        text(xml, request, written)?;
                    }
                    Ok(())
                })?;
            Ok(())
        })?;
    Ok(())
}

/// Seconds as ISO 8601 writes them.
fn duration(seconds: f64) -> String {
    format!("PT{seconds:.6}S")
}

/// What a player may switch between: pictures of one codec and range; each sound by itself.
fn sets<'a>(tracks: &'a [Track<'a>]) -> Vec<Vec<&'a Track<'a>>> {
    let mut sets: Vec<Vec<&Track<'_>>> = Vec::new();
    for track in tracks {
        let alike = |other: &&Track<'_>| {
            track.is_video()
                && other.is_video()
                && other.family() == track.family()
                && other.facts.picture.map(|p| p.range) == track.facts.picture.map(|p| p.range)
        };
        match sets.iter_mut().find(|set| set.first().is_some_and(alike)) {
            Some(set) => set.push(track),
            None => sets.push(vec![track]),
        }
    }
    sets
}

/// The sound that plays when nobody chooses.
fn main_sound(tracks: &[Track<'_>]) -> Option<usize> {
    let sound = |track: &&Track<'_>| matches!(track.rendition.kind, Kind::Audio(_));
    let chosen = |track: &&Track<'_>| matches!(&track.rendition.kind, Kind::Audio(audio) if audio.default);
    tracks.iter().find(chosen).or_else(|| tracks.iter().find(sound)).map(|track| track.index)
}

fn adaptation_set(
    xml: &mut Xml,
    request: &Request,
    set: &[&Track<'_>],
    main: Option<usize>,
) -> io::Result<()> {
    let Some(first) = set.first() else { return Ok(()) };
    let kind = if first.is_video() { "video" } else { "audio" };
    let mut element = xml
        .create_element("AdaptationSet")
        .with_attribute(("contentType", kind))
        .with_attribute(("mimeType", if first.is_video() { "video/mp4" } else { "audio/mp4" }))
        .with_attribute(("segmentAlignment", "true"))
        .with_attribute(("startWithSAP", "1"));
    if request.layout == Layout::SingleFile {
        element = element.with_attribute(("subsegmentAlignment", "true"));
        element = element.with_attribute(("subsegmentStartsWithSAP", "1"));
    }
    let audio = match &first.rendition.kind {
        Kind::Audio(audio) => Some(audio),
        Kind::Video => None,
    };
    if let Some(language) = audio.and_then(|audio| audio.language.as_deref()) {
        element = element.with_attribute(("lang", language));
    }
    element.write_inner_content(|xml| {
        // Players that cannot show such colours must leave the set alone.
        let transfer = match first.facts.picture.map(|picture| picture.range) {
            Some(DynamicRange::Pq) => Some("16"),
            Some(DynamicRange::Hlg) => Some("18"),
            Some(DynamicRange::Sdr) | None => None,
        };
        if let Some(code) = transfer {
            property(xml, "EssentialProperty", "urn:mpeg:mpegB:cicp:TransferCharacteristics", code)?;
        }
        if let Some(audio) = audio {
            let role = if main == Some(first.index) { "main" } else { "alternate" };
            property(xml, "Role", "urn:mpeg:dash:role:2011", role)?;
            xml.create_element("Label").write_text_content(BytesText::new(&hls::label(audio)))?;
        }
        for track in set {
            representation(xml, request, track)?;
        }
        Ok(())
    })?;
    Ok(())
}

/// A set of one file of text.
fn text(xml: &mut Xml, request: &Request, written: &captions::Written<'_>) -> io::Result<()> {
    let (rendition, Some(path)) = (written.rendition, &written.whole) else { return Ok(()) };
    let mut element = xml
        .create_element("AdaptationSet")
        .with_attribute(("contentType", "text"))
        .with_attribute(("mimeType", "text/vtt"));
    if let Some(language) = rendition.language.as_deref() {
        element = element.with_attribute(("lang", language));
    }
    element.write_inner_content(|xml| {
        let role = match (rendition.forced, rendition.hearing_impaired) {
            (true, _) => "forced-subtitle",
            (false, true) => "caption",
            (false, false) => "subtitle",
        };
        property(xml, "Role", "urn:mpeg:dash:role:2011", role)?;
        xml.create_element("Label").write_text_content(BytesText::new(&hls::caption_label(rendition)))?;
        xml.create_element("Representation")
            .with_attribute(("id", rendition.name.as_str()))
            .with_attribute(("bandwidth", written.bandwidth.max(1).to_string().as_str()))
            .write_inner_content(|xml| {
                let uri = names::relative(&request.names.manifest, path);
                xml.create_element("BaseURL").write_text_content(BytesText::new(&uri))?;
                Ok(())
            })?;
        Ok(())
    })?;
    Ok(())
}

fn property(xml: &mut Xml, kind: &str, scheme: &str, value: &str) -> io::Result<()> {
    xml.create_element(kind)
        .with_attribute(("schemeIdUri", scheme))
        .with_attribute(("value", value))
        .write_empty()?;
    Ok(())
}

fn representation(xml: &mut Xml, request: &Request, track: &Track<'_>) -> io::Result<()> {
    let codecs: Vec<&str> = track.facts.codecs.iter().map(Codec::dash).collect();
    let target = super::cut::target(std::slice::from_ref(track));
    let mut element = xml
        .create_element("Representation")
        .with_attribute(("id", track.rendition.name.as_str()))
        .with_attribute(("codecs", codecs.join(",").as_str()))
        .with_attribute(("bandwidth", track.rates(target).peak.to_string().as_str()));
    if let Some(picture) = track.facts.picture {
        let rate = picture.frame_rate;
        let rate = if rate.den() == 1 { rate.num().to_string() } else { rate.to_string() };
        element = element
            .with_attribute(("width", picture.width.to_string().as_str()))
            .with_attribute(("height", picture.height.to_string().as_str()))
            .with_attribute(("frameRate", rate.as_str()))
            .with_attribute(("sar", "1:1"));
    }
    if let Some(rate) = track.facts.sample_rate {
        element = element.with_attribute(("audioSamplingRate", rate.to_string().as_str()));
    }
    element.write_inner_content(|xml| {
        if let Some(channels) = track.facts.channels {
            let scheme = "urn:mpeg:dash:23003:3:audio_channel_configuration:2011";
            property(xml, "AudioChannelConfiguration", scheme, &channels.to_string())?;
        }
        match (&track.init, &track.segment_index) {
            (Some(init), Some(index)) => {
                let uri = names::relative(&request.names.manifest, &init.path);
                xml.create_element("BaseURL").write_text_content(BytesText::new(&uri))?;
                let range = |offset: u64, size: u64| format!("{offset}-{}", offset + size.saturating_sub(1));
                xml.create_element("SegmentBase")
                    .with_attribute(("timescale", track.timescale.to_string().as_str()))
                    .with_attribute(("indexRange", range(index.offset, index.size).as_str()))
                    .write_inner_content(|xml| {
                        xml.create_element("Initialization")
                            .with_attribute(("range", range(init.offset, init.size).as_str()))
                            .write_empty()?;
                        Ok(())
                    })?;
            }
            _ => template(xml, request, track)?,
        }
        Ok(())
    })?;
    Ok(())
}

/// One template and the lengths of all segments; equal ones in a row are told once.
fn template(xml: &mut Xml, request: &Request, track: &Track<'_>) -> io::Result<()> {
    let own = &request.names.manifest;
    let named =
        |template: &str| names::relative(own, &names::dash(template, track.index, &track.rendition.name));
    xml.create_element("SegmentTemplate")
        .with_attribute(("timescale", track.timescale.to_string().as_str()))
        .with_attribute(("startNumber", "0"))
        .with_attribute(("initialization", named(&request.names.init).as_str()))
        .with_attribute(("media", named(&request.names.segment).as_str()))
        .write_inner_content(|xml| {
            xml.create_element("SegmentTimeline").write_inner_content(|xml| {
                let mut lengths: Vec<(u64, u64)> = Vec::new();
                for segment in &track.segments {
                    match lengths.last_mut() {
                        Some((length, more)) if *length == segment.duration => *more += 1,
                        _ => lengths.push((segment.duration, 0)),
                    }
                }
                let start = track.segments.first().map_or(0, |first| first.start.max(0));
                for (n, (length, more)) in lengths.iter().enumerate() {
                    let mut element = xml.create_element("S");
                    if n == 0 {
                        element = element.with_attribute(("t", start.to_string().as_str()));
                    }
                    element = element.with_attribute(("d", length.to_string().as_str()));
                    if *more > 0 {
                        element = element.with_attribute(("r", more.to_string().as_str()));
                    }
                    element.write_empty()?;
                }
                Ok(())
            })?;
            Ok(())
        })?;
    Ok(())
}
