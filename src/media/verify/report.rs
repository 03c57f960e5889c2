//! What an output's streams are, from what was read to check them: nothing is read for it.

use super::packets::{PacketTable, StreamPackets};
use crate::domain::preset::Rate;
use crate::domain::{KindReport, PlannedAudio, PlannedVideo, Rational, StreamReport};
use crate::media::plan::{OutputPlan, VideoPlan};
use crate::media::probe::{Document, Stream};

/// The streams of a checked output; `expected` is the span that was planned, seconds.
pub(super) fn streams(
    plan: &OutputPlan,
    document: &Document,
    table: &PacketTable,
    expected: Option<f64>,
) -> Vec<StreamReport> {
    let mut sounds = plan.audio.iter();
    let report = |stream: &Stream| {
        if stream.codec_type.as_deref() == Some("subtitle") {
            return subtitle(stream, table);
        }
        let packets = table.stream(stream.index).ok()?;
        let span = packets.seconds(stream.base());
        let planned = if stream.codec_type.as_deref() == Some("audio") { sounds.next() } else { None };
        let kind = match (stream.codec_type.as_deref()?, &plan.video, planned) {
            ("video", Some(planned), _) => picture(stream, packets, span, planned, expected),
            ("audio", _, Some(planned)) => sound(stream, planned.bitrate.into(), expected),
            ("video", None, _) => copied_picture(stream, packets, span, expected),
            ("audio", _, None) => sound(stream, packets.bit_rates(stream.base()).0, expected),
            _ => return None,
        };
        let (bitrate_average, bitrate_peak) = packets.bit_rates(stream.base());
        Some(StreamReport {
            rendition: plan.rendition.clone(),
            codec: stream.codec_name.clone()?,
            codec_string: stream.codec_string(),
            duration_seconds: rounded(span, 1e6),
            bitrate_average,
            bitrate_peak,
            kind,
        })
    };
    document.streams.iter().filter_map(report).collect()
}

/// Rates of text say nothing, and its span is that of its texts.
fn subtitle(stream: &Stream, table: &PacketTable) -> Option<StreamReport> {
    let packets = table.stream(stream.index).ok();
    Some(StreamReport {
        rendition: None,
        codec: stream.codec_name.clone()?,
        codec_string: stream.codec_string(),
        duration_seconds: rounded(packets.map_or(0.0, |packets| packets.seconds(stream.base())), 1e6),
        bitrate_average: 0,
        bitrate_peak: 0,
        kind: KindReport::Subtitle { language: stream.language(), forced: stream.is_forced() },
    })
}

fn picture(
    stream: &Stream,
    packets: &StreamPackets,
    span: f64,
    plan: &VideoPlan,
    expected: Option<f64>,
) -> KindReport {
    let (bitrate, bitrate_max) = match plan.rate {
        Rate::Crf { .. } => (None, None),
        Rate::CappedCrf { max, .. } => (None, Some(max)),
        Rate::Bitrate { target, max, .. } => (Some(target), max),
    };
    let bits = |rate: crate::domain::preset::BitRate| u64::from(rate.bits());
    KindReport::Video {
        width: stream.width,
        height: stream.height,
        frame_rate: frame_rate(packets, span),
        pixel_format: stream.pix_fmt.clone(),
        color: stream.color(),
        frames: packets.count,
        planned: PlannedVideo {
            width: plan.width,
            height: plan.height,
            frame_rate: plan.frame_rate.map(|rate| rounded(rate.as_f64(), 1e3)),
            duration_seconds: expected.map(|seconds| rounded(seconds, 1e6)),
            bitrate: bitrate.map(bits),
            bitrate_max: bitrate_max.map(bits),
        },
    }
}

fn sound(stream: &Stream, bitrate: u64, expected: Option<f64>) -> KindReport {
    KindReport::Audio {
        channels: stream.channels,
        sample_rate: stream.sample_rate.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default(),
        language: stream.language(),
        loudness: None,
        planned: PlannedAudio { duration_seconds: expected.map(|seconds| rounded(seconds, 1e6)), bitrate },
    }
}

/// A picture that was taken over: it is meant to be what it is.
fn copied_picture(stream: &Stream, packets: &StreamPackets, span: f64, expected: Option<f64>) -> KindReport {
    let frame_rate = frame_rate(packets, span);
    KindReport::Video {
        width: stream.width,
        height: stream.height,
        frame_rate,
        pixel_format: stream.pix_fmt.clone(),
        color: stream.color(),
        frames: packets.count,
        planned: PlannedVideo {
            width: stream.width,
            height: stream.height,
            frame_rate,
            duration_seconds: expected.map(|seconds| rounded(seconds, 1e6)),
            bitrate: None,
            bitrate_max: None,
        },
    }
}

/// Frames per second over the span.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn frame_rate(packets: &StreamPackets, span: f64) -> Option<f64> {
    (span > 0.0).then(|| rounded(packets.count as f64 / span, 1e3))
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

impl StreamPackets {
    /// The shown span, seconds.
    fn seconds(&self, base: Rational) -> f64 {
        let (Some(first), Some(end)) = (self.first(), self.end) else { return 0.0 };
        super::output::seconds(end.saturating_sub(first), base)
    }

    /// Average over the span and the most of any second that begins with a packet, bit/s. What is shorter than a second
    /// has only an average.
    fn bit_rates(&self, base: Rational) -> (u64, u64) {
        let span = self.seconds(base);
        let mut shown: Vec<(i64, u32)> = self.times.iter().copied().zip(self.sizes.iter().copied()).collect();
        shown.sort_unstable();
        let total: u64 = shown.iter().map(|(_, size)| u64::from(*size)).sum();
        let average = bits(total, span);
        if span < 1.0 {
            return (average, average);
        }
        let second = i64::from(base.den() / base.num().max(1)).max(1);
        let (mut last, mut inside, mut most) = (0, 0_u64, 0_u64);
        for (time, size) in &shown {
            while shown.get(last).is_some_and(|(other, _)| *other < time.saturating_add(second)) {
                inside += u64::from(shown[last].1);
                last += 1;
            }
            most = most.max(inside);
            inside -= u64::from(*size);
        }
        (average, (most * 8).max(average))
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are whole bits, far below 2^53"
)]
fn bits(bytes: u64, seconds: f64) -> u64 {
    if seconds > 0.0 { (bytes as f64 * 8.0 / seconds).round() as u64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_second_is_found_wherever_it_begins() {
        let mut table = PacketTable::default();
        // Four a second for three seconds, shown in another order than stored; the two large ones lie either side of 1 s.
        for (time, size) in [(0, 10), (500, 10), (250, 10), (750, 1000), (1000, 1000), (1250, 10), (1500, 10)]
            .into_iter()
            .chain((7..12).map(|n| (n * 250, 10)))
        {
            table.line(&format!("stream_index=0|pts={time}|dts=0|duration=250|size={size}|flags=K_"));
        }
        let packets = table.stream(0).unwrap();
        let base = Rational::new(1, 1000).unwrap();
        assert_eq!(packets.bit_rates(base), (5600, 16_160));
        assert!((packets.seconds(base) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_shorter_than_a_second_has_its_average() {
        let mut table = PacketTable::default();
        table.line("stream_index=0|pts=0|dts=0|duration=500|size=100|flags=K_");
        let base = Rational::new(1, 1000).unwrap();
        assert_eq!(table.stream(0).unwrap().bit_rates(base), (1600, 1600));
    }
}
