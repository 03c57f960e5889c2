//! When segments begin and how long they last, within a rendition and across them.

use super::stream::{Manifest, Stream, seconds};
use super::{Rule, Session};
use crate::media::boxes::codec::Family;
use crate::media::package::same_instant;

/// Key frames further apart than this, seconds, are too rare (Apple 1.13).
const KEY_INTERVAL: f64 = 2.0;
/// Rounding of what manifests write, seconds.
const ROUNDING: f64 = 0.001;

/// Checks the times of all streams.
pub(super) fn check(session: &mut Session<'_>, streams: &[Stream]) {
    let playable: Vec<&Stream> = streams.iter().filter(|stream| stream.plays()).collect();
    for stream in &playable {
        lengths(session, stream);
        keys(session, stream);
        continuity(session, stream);
        priming(session, stream);
    }
    let video: Vec<&Stream> = playable.iter().copied().filter(|stream| stream.is_video()).collect();
    if let Some((leader, others)) = video.split_first() {
        for other in others {
            boundaries(session, leader, other);
        }
    }
    if let Some(leader) = video.first().or(playable.first()) {
        for other in &playable {
            zero(session, leader, other);
            if other.manifest == Manifest::Hls && other.target != leader.target {
                let said = format!("EXT-X-TARGETDURATION {}", other.target);
                session.find(
                    Rule::SameTarget,
                    &other.place,
                    said,
                    format!("{}, as {} has", leader.target, leader.place),
                );
            }
        }
    }
}

fn lengths(session: &mut Session<'_>, stream: &Stream) {
    let tolerance = stream.frame() + ROUNDING;
    let measured = stream.lengths();
    let origin = stream.first().map_or(0, |first| if first.facts.transport { first.start } else { 0 });
    for (part, &length) in stream.segments.iter().zip(&measured) {
        let Some(this) = &part.measured else { continue };
        if stream.manifest == Manifest::Hls {
            if (part.claimed - length).abs() > tolerance {
                session.find(
                    Rule::Extinf,
                    &part.place,
                    format!("{:.6}", part.claimed),
                    format!("{length:.6}"),
                );
            }
            let most = f64::from(stream.target) + 0.5;
            if length > most + ROUNDING {
                session.find(
                    Rule::SegmentLength,
                    &part.place,
                    format!("{length:.3} s"),
                    format!("at most {most} s"),
                );
            }
        } else if let Some(told) = part.begins {
            let begins = signed_seconds(this.start.saturating_sub(origin), this.timescale).max(0.0);
            if (told - begins).abs() > tolerance || (part.claimed - length).abs() > tolerance {
                let said = format!("{told:.3} s for {:.3} s", part.claimed);
                session.find(
                    Rule::MpdTimeline,
                    &part.place,
                    said,
                    format!("{begins:.3} s for {length:.3} s"),
                );
            }
        }
    }
    if stream.manifest == Manifest::Hls && stream.is_whole() {
        let told: f64 = stream.segments.iter().map(|part| part.claimed).sum();
        let real: f64 = measured.iter().sum();
        if (told - real).abs() > tolerance {
            session.find(Rule::DurationSum, &stream.place, format!("{told:.6} s"), format!("{real:.6} s"));
        }
    }
}

fn signed_seconds(ticks: i64, timescale: u32) -> f64 {
    let size = seconds(ticks.unsigned_abs(), timescale);
    if ticks < 0 { -size } else { size }
}

fn keys(session: &mut Session<'_>, stream: &Stream) {
    if !stream.is_video() {
        return;
    }
    let (mut last, mut gap) = (None::<i64>, 0.0_f64);
    for part in &stream.segments {
        let Some(measured) = &part.measured else {
            last = None;
            continue;
        };
        if !measured.begins_with_key {
            session.find(Rule::KeyFrameFirst, &part.place, "begins with another picture", "an IDR picture");
        }
        for &key in &measured.keys {
            gap = gap
                .max(last.map_or(0.0, |last| signed_seconds(key.saturating_sub(last), measured.timescale)));
            last = Some(key);
        }
    }
    let frame = stream.frame();
    if gap > KEY_INTERVAL + frame / 2.0 + ROUNDING {
        session.find(
            Rule::KeyInterval,
            &stream.place,
            format!("{gap:.3} s between key frames"),
            "at most 2 s",
        );
    }
}

fn continuity(session: &mut Session<'_>, stream: &Stream) {
    let mut next: Option<u64> = None;
    for part in &stream.segments {
        let Some((measured, decode)) = part.measured.as_ref().and_then(|m| Some((m, m.decode_time?))) else {
            next = None;
            continue;
        };
        let gap = match next {
            Some(next) => i128::from(decode) - i128::from(next),
            None => 0,
        };
        let gap = if gap == 0 { i128::from(measured.gap) } else { gap };
        if gap != 0 {
            let said = format!("{gap} ticks of 1/{} s after the end of what is before", measured.timescale);
            session.find(Rule::Continuity, &part.place, said, "0");
        }
        next = Some(decode.saturating_add(measured.duration));
    }
}

fn priming(session: &mut Session<'_>, stream: &Stream) {
    let Some(first) = stream.first().filter(|first| !first.facts.transport) else { return };
    let aac = first.facts.codecs.first().is_some_and(|codec| codec.family == Family::Aac);
    if aac && first.facts.trimmed <= 0 {
        session.find(Rule::Priming, &stream.place, "priming is presented", "an edit list that takes it out");
    }
}

/// All renditions of pictures against the first.
fn boundaries(session: &mut Session<'_>, leader: &Stream, other: &Stream) {
    let mut same = leader.segments.len() == other.segments.len();
    if !same {
        let said = format!("{} segments", other.segments.len());
        let expected = format!("{}, as {} has", leader.segments.len(), leader.place);
        session.find(Rule::SameBoundaries, &other.place, said, expected);
    }
    let pairs = || leader.segments.iter().zip(&other.segments).skip(1);
    for (one, two) in pairs() {
        let (Some(a), Some(b)) = (&one.measured, &two.measured) else { continue };
        if same && !same_instant(a.start, a.timescale, b.start, b.timescale) {
            // The first difference says it all: what follows is shifted.
            same = false;
            let said = format!("begins at {:.6} s", signed_seconds(b.start, b.timescale));
            let expected = format!("{:.6} s, as in {}", signed_seconds(a.start, a.timescale), leader.place);
            session.find(Rule::SameBoundaries, &two.place, said, expected);
        }
    }
    if !same {
        return;
    }
    for (one, two) in leader.segments.iter().zip(&other.segments) {
        let (Some(a), Some(b)) = (&one.measured, &two.measured) else { continue };
        let times = a.decode_time.zip(b.decode_time);
        let times = times.and_then(|(x, y)| i64::try_from(x).ok().zip(i64::try_from(y).ok()));
        if let Some((x, y)) = times
            && !same_instant(x, a.timescale, y, b.timescale)
        {
            let said = format!("tfdt {:.6} s", signed_seconds(y, b.timescale));
            let expected = format!("{:.6} s, as in {}", signed_seconds(x, a.timescale), leader.place);
            session.find(Rule::DecodeTimes, &two.place, said, expected);
            return;
        }
    }
}

/// Everything begins with the leader. Priming before that is not presented.
fn zero(session: &mut Session<'_>, leader: &Stream, other: &Stream) {
    let first = |stream: &Stream| stream.segments.first().and_then(|part| part.measured.clone());
    let (Some(a), Some(b)) = (first(leader), first(other)) else { return };
    // Transport streams begin where their clock says; sound there is cut where it is nearest.
    let sound_in_transport = b.facts.transport && !other.is_video();
    let (begin, expected) = if a.facts.transport { (b.start, a.start) } else { (b.start.max(0), 0) };
    let expected_scale = if a.facts.transport { a.timescale } else { b.timescale };
    if !sound_in_transport && !same_instant(begin, b.timescale, expected, expected_scale) {
        let said = format!("begins at {:.6} s", signed_seconds(begin, b.timescale));
        let right = format!("{:.6} s", signed_seconds(expected, expected_scale));
        session.find(Rule::TimelineZero, &other.place, said, right);
    }
}
