//! What manifests claim of renditions, against what those are.

use super::measure::Facts;
use super::stream::{Claim, Manifest, Stream};
use super::{Rule, Session};
use crate::media::boxes::codec::{Codec, Family};
use crate::media::package::{DynamicRange, Rates, rates};

/// How far a bit rate may be off (Apple 1.26, 1.27).
const TOLERANCE: f64 = 0.1;

/// Checks the claims of all streams.
pub(super) fn check(session: &mut Session<'_>, streams: &[Stream]) {
    let all_sdr =
        streams.iter().filter_map(Stream::facts).all(|f| f.range.is_none_or(|r| r == DynamicRange::Sdr));
    for stream in streams {
        let Some(facts) = stream.facts() else { continue };
        for claim in &stream.claims {
            codecs(session, streams, stream, claim);
            picture(session, facts, stream, claim, all_sdr);
            bandwidth(session, streams, stream, claim);
        }
        if stream.plays() {
            media(session, stream, facts);
        }
    }
    sound(session, streams);
}

fn codecs(session: &mut Session<'_>, streams: &[Stream], stream: &Stream, claim: &Claim) {
    let own = stream.facts().into_iter().flat_map(|facts| &facts.codecs);
    let theirs = claim.sounds.iter().filter_map(|&sound| streams.get(sound)?.facts()).flat_map(|f| &f.codecs);
    let mut expected: Vec<&str> = Vec::new();
    for codec in own.chain(theirs).filter(|codec| !claim.only_key_frames || is_picture(codec)) {
        let text = match stream.manifest {
            Manifest::Hls => codec.text.as_str(),
            Manifest::Dash => codec.dash(),
        };
        if !expected.contains(&text) {
            expected.push(text);
        }
    }
    let told = claim.codecs.as_deref().unwrap_or_default();
    let is_text = |text: &str| claim.has_subtitles && (text == "wvtt" || text.starts_with("stpp"));
    let told_of = told.split(',').map(str::trim).filter(|text| !text.is_empty() && !is_text(text));
    let mut said: Vec<&str> = told_of.collect();
    said.sort_unstable();
    let mut sorted = expected.clone();
    sorted.sort_unstable();
    let same = |(said, real): (&&str, &&str)| said.eq_ignore_ascii_case(real);
    if said.len() != sorted.len() || !said.iter().zip(&sorted).all(same) {
        let measured = if told.is_empty() { "none".to_owned() } else { format!("\"{told}\"") };
        session.find(Rule::Codecs, &claim.place, measured, format!("\"{}\"", expected.join(",")));
    }
}

const fn is_picture(codec: &Codec) -> bool {
    matches!(codec.family, Family::Avc | Family::Hevc | Family::Av1 | Family::Vp9)
}

fn picture(session: &mut Session<'_>, facts: &Facts, stream: &Stream, claim: &Claim, all_sdr: bool) {
    let Some((width, height)) = facts.size else { return };
    let size = format!("{width}x{height}");
    if claim.resolution.as_deref() != Some(&size) {
        session.find(Rule::Resolution, &claim.place, claim.resolution.as_deref().unwrap_or("none"), size);
    }
    if !claim.only_key_frames
        && let Some(rate) = frame_rate(stream)
    {
        let told = claim.frame_rate.as_deref().and_then(rational);
        if told.is_none_or(|told| (told - rate).abs() > rate * 0.002) {
            let measured = claim.frame_rate.as_deref().unwrap_or("none");
            session.find(Rule::FrameRate, &claim.place, measured, format!("{rate:.3}"));
        }
    }
    if stream.manifest == Manifest::Hls
        && let Some(range) = facts.range
    {
        let told = claim.range.as_deref();
        if told.is_some_and(|told| told != range.as_str()) || (told.is_none() && !all_sdr) {
            session.find(Rule::VideoRange, &claim.place, told.unwrap_or("none"), range.as_str());
        }
    }
}

/// Pictures a second over the whole.
fn frame_rate(stream: &Stream) -> Option<f64> {
    let frames: u64 =
        stream.segments.iter().filter_map(|part| part.measured.as_ref()).map(|m| m.samples).sum();
    let seconds = stream.duration();
    #[expect(clippy::cast_precision_loss, reason = "a rate of a film")]
    let rate = frames as f64 / seconds;
    (stream.is_whole() && seconds > 0.0).then_some(rate)
}

/// `30`, `29.970` or `30000/1001`.
fn rational(text: &str) -> Option<f64> {
    let (num, den) = text.split_once('/').unwrap_or((text, "1"));
    let value = num.parse::<f64>().ok()? / den.parse::<f64>().ok()?;
    value.is_finite().then_some(value)
}

fn bandwidth(session: &mut Session<'_>, streams: &[Stream], stream: &Stream, claim: &Claim) {
    if !stream.is_whole() {
        return;
    }
    let own = if claim.only_key_frames {
        // A key frame is shown until the next one.
        let sizes =
            stream.sizes().into_iter().zip(&stream.segments).map(|((bytes, _), part)| (bytes, part.claimed));
        rates(&sizes.collect::<Vec<_>>(), stream.target.into())
    } else if claim.is_one_of_sounds {
        Rates::default()
    } else {
        rates(&stream.sizes(), stream.target.into())
    };
    let sounds = claim.sounds.iter().filter_map(|&n| streams.get(n)).filter(|s| s.is_whole());
    let dearest = sounds
        .map(|sound| rates(&sound.sizes(), sound.target.into()))
        .fold(Rates::default(), |a, b| Rates { average: a.average.max(b.average), peak: a.peak.max(b.peak) });
    let measured = Rates { average: own.average + dearest.average, peak: own.peak + dearest.peak };
    let told = |rate: Option<u64>| rate.map_or("none".to_owned(), |rate| rate.to_string());
    if stream.manifest == Manifest::Dash {
        // An MPD's bandwidth is a promise to a buffer: enough is enough.
        if claim.bandwidth.is_some_and(|rate| float(rate) < float(measured.average) * (1.0 - TOLERANCE)) {
            let expected = format!("at least {}, the average", measured.average);
            session.find(Rule::PeakBandwidth, &claim.place, told(claim.bandwidth), expected);
        }
        return;
    }
    if !near(claim.bandwidth, measured.peak) {
        session.find(Rule::PeakBandwidth, &claim.place, told(claim.bandwidth), measured.peak.to_string());
    }
    if !near(claim.average, measured.average) {
        session.find(Rule::AverageBandwidth, &claim.place, told(claim.average), measured.average.to_string());
    }
    if !claim.only_key_frames && measured.peak > measured.average.saturating_mul(2) {
        let said = format!("{} at an average of {}", measured.peak, measured.average);
        session.find(Rule::PeakToAverage, &claim.place, said, "at most twice the average");
    }
}

fn near(told: Option<u64>, measured: u64) -> bool {
    told.is_some_and(|told| (float(told) - float(measured)).abs() <= float(measured) * TOLERANCE)
}

#[expect(clippy::cast_precision_loss, reason = "bit rates are compared within per cents")]
const fn float(rate: u64) -> f64 {
    rate as f64
}

/// What the media themselves must be.
fn media(session: &mut Session<'_>, stream: &Stream, facts: &Facts) {
    let place = stream.place.as_str();
    for codec in &facts.codecs {
        if facts.transport && matches!(codec.family, Family::Hevc | Family::Av1) {
            session.find(Rule::SegmentFormat, place, format!("{} in MPEG-TS", codec.text), "fragmented MP4");
        }
        if codec.family == Family::Hevc && codec.text.starts_with("hev1") {
            session.find(Rule::HevcTag, place, "hev1", "hvc1");
        }
        if codec.progressive == Some(false) {
            session.find(Rule::Interlaced, place, "coded as fields", "whole frames");
        }
        if codec.family == Family::Avc && !avc_is_advised(&codec.text) {
            session.find(Rule::AvcProfile, place, codec.text.as_str(), "High profile, level 5.2 at most");
        }
    }
    if facts.size.is_some()
        && let Some(rate) = frame_rate(stream)
        && rate > 60.5
    {
        session.find(Rule::FrameRateLimit, place, format!("{rate:.3} pictures a second"), "at most 60");
    }
}

/// `avc1.PPCCLL`: High is 100, level 5.2 is 52.
fn avc_is_advised(text: &str) -> bool {
    let digits = text.split_once('.').map_or("", |(_, digits)| digits);
    let part = |range| digits.get(range).and_then(|hex| u8::from_str_radix(hex, 16).ok());
    part(0..2) == Some(100) && part(4..6).is_some_and(|level| level <= 52)
}

fn sound(session: &mut Session<'_>, streams: &[Stream]) {
    let with_sound = || streams.iter().filter(|stream| stream.facts().is_some_and(|f| f.channels.is_some()));
    let stereo = |stream: &Stream| {
        let facts = stream.facts();
        facts.is_some_and(|f| {
            f.channels == Some(2) && f.codecs.iter().any(|codec| codec.family == Family::Aac)
        })
    };
    if let Some(first) = with_sound().next()
        && first.manifest == Manifest::Hls
        && !with_sound().any(stereo)
    {
        session.find(Rule::StereoAac, &first.place, "no sound in stereo AAC", "one rendition of it");
    }
}
