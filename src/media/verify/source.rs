//! Was the source whole and sound? (V7, and the damage policy of MEDIA-RULES §1.11.)

use super::VerifyRequest;
use super::output::Spans;
use crate::domain::{Code, Demuxer, Failure, OnDamage, Rational};
use crate::media::encode::DecodedStream;
use crate::media::plan::{self, OutputPlan};
use crate::media::structure::Completeness;

/// Under `warn` one frame in so many may be lost (MEDIA-RULES §1.11: 1 %), and one in any case: a part of a short clip
/// is less than a frame, and its verdict on a clip with one bad packet of 50 is a warning.
const ONE_IN: u64 = 100;
/// Longest hole under `warn`, seconds.
const HOLE: f64 = 2.0;

/// A clip that begins after everything in the source; known only now where no header told the length.
pub(super) fn refuse_nothing(request: &VerifyRequest<'_>) -> Result<(), Failure> {
    let Some(cut) = request.plan.cut else { return Ok(()) };
    let mut streams = request.report.output(request.place);
    if streams.any(|stream| stream.packets > 0) { Ok(()) } else { Err(plan::out_of_range(cut.start, None)) }
}

/// A source that ended too early is an error, not a short success.
pub(super) fn refuse_truncation(request: &VerifyRequest<'_>) -> Result<(), Failure> {
    let log = || request.report.log_tail.iter().filter(|line| line.contains("[error]")).cloned();
    if request.report.ended_early {
        return Err(Failure::new(
            Code::MediaTruncated,
            "The source ended before its container says it does.",
        )
        .with_log(log()));
    }
    let declared = declared_end(request).map(|whole| match request.plan.cut {
        None => whole,
        // What lies behind the clip was not read.
        Some(cut) => cut.length(Some(whole)).ok().and_then(|(length, _)| length).unwrap_or_default(),
    });
    let (Some(declared), Some(reached)) = (declared, request.report.last_out_seconds) else {
        return Ok(());
    };
    if reached < declared - (declared * 0.01).max(0.5) {
        return Err(Failure::new(
            Code::MediaTruncated,
            format!("The source declares {declared:.2} s and ended after {reached:.2} s."),
        )
        .with_log(log()));
    }
    Ok(())
}

/// The declared duration, where it means something: a structure that is proven whole needs no second witness (an
/// mp4 index with a longer track that was not encoded would speak falsely), and some containers only estimate.
fn declared_end(request: &VerifyRequest<'_>) -> Option<f64> {
    let declares = match request.source.container {
        Demuxer::Mov => request.facts.fragmented,
        Demuxer::Matroska | Demuxer::Avi | Demuxer::Wav | Demuxer::Asf => {
            request.facts.completeness == Completeness::Undeclared
        }
        Demuxer::Rm | Demuxer::Mxf | Demuxer::Flac => true,
        Demuxer::Flv
        | Demuxer::Ogg
        | Demuxer::Mpegts
        | Demuxer::Mpeg
        | Demuxer::Mpegvideo
        | Demuxer::Mp3
        | Demuxer::Aac
        | Demuxer::Ac3
        | Demuxer::Dts
        | Demuxer::H264
        | Demuxer::Hevc
        | Demuxer::Ivf
        | Demuxer::M4v
        | Demuxer::Gif => false,
    };
    if !declares {
        return None;
    }
    let source = request.source;
    let used = |index: u32| request.plan.reads(index);
    let video = source.video.iter().filter(|v| !v.attached_picture).map(|v| (v.index, v.duration_seconds));
    let streams: Vec<(u32, Option<f64>)> =
        video.chain(source.audio.iter().map(|a| (a.index, a.duration_seconds))).collect();
    let read = source.subtitles.iter().all(|track| used(track.index));
    let all_used = source.other.is_empty() && read && streams.iter().all(|(index, _)| used(*index));
    if all_used {
        return source.duration_seconds;
    }
    // The container's duration may be that of a stream nobody asked for.
    streams.into_iter().filter(|(index, _)| used(*index)).filter_map(|(_, seconds)| seconds).reduce(f64::max)
}

/// Damage of the streams this output was made from: a failure, or warnings.
pub(super) fn judge_damage(
    request: &VerifyRequest<'_>,
    plan: &OutputPlan,
    spans: &Spans,
) -> Result<Vec<String>, Failure> {
    let picture = plan.video.iter().map(|video| ("picture", video.stream));
    let sounds = plan.audio.iter().map(|audio| ("sound", audio.stream));
    let mut warnings = Vec::new();
    for (what, index) in picture.chain(sounds) {
        let Some(stream) = request.report.decoded_stream(index) else {
            continue;
        };
        if stream.frames == 0 {
            return Err(Failure::new(
                Code::MediaCorrupt,
                format!("Nothing of the source's {what} could be decoded."),
            ));
        }
        let Some(damage) = damage(stream) else { continue };
        let log = request
            .report
            .log_tail
            .iter()
            .filter(|l| l.contains("[error]") || l.contains("concealing"))
            .cloned();
        let total = stream.packets.max(1);
        let said = format!("{damage} of {total} frames of the source's {what} are damaged");
        // A hole is only one where the source is known to have lost something.
        let hole = spans.longest_gap.filter(|(gap, _)| what == "picture" && *gap > HOLE);
        match request.on_damage {
            OnDamage::Fail => {
                return Err(Failure::new(Code::MediaCorrupt, format!("{said} (on_damage is \"fail\")."))
                    .with_log(log));
            }
            OnDamage::Warn if !is_small(damage, total) || hole.is_some() => {
                return Err(Failure::new(Code::MediaCorrupt, format!("{said}, more than a warning allows."))
                    .with_log(log));
            }
            OnDamage::Warn => {
                let near = spans.longest_gap.filter(|_| what == "picture");
                let near = near
                    .map_or_else(String::new, |(gap, at)| format!(" (longest gap {gap:.3} s at {at:.3} s)"));
                warnings.push(format!("source_damaged: {said}{near}"));
            }
        }
    }
    warnings.extend(judge_container(request, plan, spans)?);
    Ok(warnings)
}

/// Damage that the demuxer skipped: what it skipped is gone without a trace but the hole it leaves.
fn judge_container(
    request: &VerifyRequest<'_>,
    plan: &OutputPlan,
    spans: &Spans,
) -> Result<Option<String>, Failure> {
    let places = request.report.broken_places;
    if places == 0 {
        return Ok(None);
    }
    let refused = |said: String| {
        let log = request.report.log_tail.iter().filter(|line| line.contains("[error]")).cloned();
        Err(Failure::new(Code::MediaCorrupt, said).with_log(log))
    };
    let said = format!("the source's container is broken in {places} places");
    let rate = plan.video.as_ref().and_then(|video| video.frame_rate).map_or(0.0, Rational::as_f64);
    let (gap, at) = spans.longest_gap.unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "frames of a short hole")]
    let missing = (gap * rate).round() as u64;
    let frames = spans.video.map_or(0, |video| video.packets);
    match request.on_damage {
        OnDamage::Fail => refused(format!("{said} (on_damage is \"fail\").")),
        OnDamage::Warn if gap > HOLE || !is_small(missing.saturating_sub(1), frames) => {
            refused(format!("{said}, more than a warning allows."))
        }
        OnDamage::Warn => Ok(Some(format!("source_damaged: {said} (longest gap {gap:.3} s at {at:.3} s)"))),
    }
}

/// Whether so many damaged frames are few enough for a warning.
fn is_small(damaged: u64, total: u64) -> bool {
    damaged <= (total / ONE_IN).max(1)
}

/// Damaged frames, if the decoder complained at all. A count of packets alone says nothing: VP8 has packets that show
/// nothing, and a recording that starts between keyframes has packets that cannot be shown.
fn damage(stream: &DecodedStream) -> Option<u64> {
    let missing = stream.packets.saturating_sub(stream.frames).saturating_sub(stream.early_errors);
    let lost = if stream.errors == 0 { 0 } else { missing.max(stream.errors.min(1)).min(stream.errors) };
    Some(lost.max(stream.concealed)).filter(|damaged| *damaged > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_frame_in_a_hundred_may_be_lost_and_one_of_a_short_clip() {
        for (damaged, total, small) in [
            (1, 2, true),
            (1, 50, true),
            (2, 50, false),
            (2, 199, false),
            (2, 200, true),
            (10, 1000, true),
            (11, 1000, false),
        ] {
            assert_eq!(is_small(damaged, total), small, "{damaged} of {total}");
        }
    }

    #[test]
    fn only_complaints_after_the_first_frame_are_damage() {
        let stream = |packets, frames, errors, early_errors, concealed| DecodedStream {
            index: 0,
            packets,
            frames,
            samples: None,
            errors,
            early_errors,
            concealed,
        };
        assert_eq!(damage(&stream(484, 480, 0, 4, 0)), None, "starts between key frames");
        assert_eq!(damage(&stream(934, 901, 0, 0, 0)), None, "VP8 with hidden frames");
        assert_eq!(damage(&stream(50, 49, 1, 0, 1)), Some(1), "one packet lost");
        assert_eq!(damage(&stream(50, 50, 0, 0, 3)), Some(3), "made-up parts");
        assert_eq!(damage(&stream(50, 50, 2, 0, 0)), Some(1), "complaints without loss");
    }
}
