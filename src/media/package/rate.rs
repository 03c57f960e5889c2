//! Bit rates as HLS defines them.

/// Bit rates of a rendition, bits a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Rates {
    pub(crate) average: u64,
    pub(crate) peak: u64,
}

/// RFC 8216 (second edition) §4.4.6.2: the peak is the largest bit rate of any consecutive segments that last between
/// half and one and a half target durations. Segments are (bytes, seconds).
pub(crate) fn rates(segments: &[(u64, f64)], target: f64) -> Rates {
    let (bytes, seconds) =
        segments.iter().fold((0, 0.0), |(bytes, seconds), (b, s)| (bytes + b, seconds + s));
    let average = bits_per_second(bytes, seconds);
    let mut peak = 0;
    for first in 0..segments.len() {
        let (mut bytes, mut seconds) = (0, 0.0);
        for (more, longer) in &segments[first..] {
            bytes += more;
            seconds += longer;
            if seconds > 1.5 * target {
                break;
            }
            if seconds >= 0.5 * target {
                peak = peak.max(bits_per_second(bytes, seconds));
            }
        }
    }
    // Nothing is long enough, or everything is too long: the definition says nothing, the whole does.
    Rates { average, peak: peak.max(average) }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are rounded up to whole bits"
)]
fn bits_per_second(bytes: u64, seconds: f64) -> u64 {
    if seconds > 0.0 { (bytes as f64 * 8.0 / seconds).ceil() as u64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_tails_are_no_peak_of_their_own() {
        let six = rates(&[(6000, 6.0), (12000, 6.0), (900, 0.1)], 6.0);
        assert_eq!(six.average, 12_496);
        // Two and three together: 12900 bytes in 6.1 s.
        assert_eq!(six.peak, 16_919);
    }

    #[test]
    fn short_segments_are_taken_together() {
        let two = rates(&[(1000, 2.0), (9000, 2.0), (1000, 2.0), (1000, 2.0)], 6.0);
        assert_eq!(two.peak, 20_000, "the middle two of 4 s");
    }

    #[test]
    fn a_clip_shorter_than_half_a_target_has_its_average() {
        assert_eq!(rates(&[(1000, 1.0)], 6.0), Rates { average: 8000, peak: 8000 });
        assert_eq!(rates(&[], 6.0), Rates::default());
    }
}
