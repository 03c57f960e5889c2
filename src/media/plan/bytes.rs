//! How much the outputs will take, for setting room aside before the encode: a guess on the safe side.

use super::{EncodePlan, OutputPlan};
use crate::domain::Rational;
use crate::domain::preset::Rate;

/// What a constant quality spends on a pixel at most, unless the source is noise.
const BITS_PER_PIXEL: f64 = 0.1;
/// Frames per second where nobody knows.
const LIKELY_FRAMES: f64 = 60.0;
/// No constant quality makes more of a source than this many times its bytes; nobody needs the noise of its codec.
const GROWTH: f64 = 2.0;
/// PROTOCOL §1.17.
const SPARE: f64 = 1.3;

/// Bit/s of an output.
enum Spending {
    /// As it was asked for.
    Promised(f64),
    /// What the quality that was asked for likely takes at most.
    Likely(f64),
}

impl EncodePlan {
    /// What the outputs of a source of `source` bytes will take, bytes, with something to spare.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a guess, which saturates"
    )]
    pub fn expected_bytes(&self, source: u64) -> u64 {
        let most = source as f64 * GROWTH;
        let of = |output: &OutputPlan| match (self.expected_seconds, output.spending()) {
            (Some(seconds), Spending::Promised(bits)) => bits * seconds / 8.0,
            (Some(seconds), Spending::Likely(bits)) => (bits * seconds / 8.0).min(most),
            (None, _) => most,
        };
        // What the first pass leaves for the second: two bytes for each block of 16x16 and 300 of each frame (measured: 932
        // bytes a frame of x264 for 640x360, 748 of x265, 280 of libvpx).
        let logs = |output: &OutputPlan| {
            let Some(video) = output.video.as_ref().filter(|video| video.has_two_passes()) else {
                return 0.0;
            };
            let frames = video.frame_rate.map_or(LIKELY_FRAMES, Rational::as_f64)
                * self.expected_seconds.unwrap_or(0.0);
            frames * (300.0 + f64::from(video.width) * f64::from(video.height) / 128.0)
        };
        // The segments of a set lie beside the renditions that they are cut from.
        let copies = |output: &OutputPlan| if output.rendition.is_some() { 2.0 } else { 1.0 };
        let outputs = self.outputs.iter().chain(self.twins.iter().map(|twin| &twin.output));
        let files = outputs.map(|output| of(output) * copies(output)).sum::<f64>();
        ((files + self.outputs.iter().map(logs).sum::<f64>()) * SPARE) as u64
    }
}

impl OutputPlan {
    fn spending(&self) -> Spending {
        if !self.copied.is_empty() {
            // What is taken over is no larger than the source.
            return Spending::Likely(f64::MAX);
        }
        let sound: f64 = self.audio.iter().map(|audio| f64::from(audio.bitrate)).sum();
        let Some(video) = &self.video else { return Spending::Promised(sound) };
        let frames = video.frame_rate.map_or(LIKELY_FRAMES, Rational::as_f64);
        let likely = f64::from(video.width) * f64::from(video.height) * frames * BITS_PER_PIXEL;
        match video.rate {
            Rate::Bitrate { target, .. } => Spending::Promised(sound + f64::from(target.bits())),
            Rate::Crf { .. } => Spending::Likely(sound + likely),
            Rate::CappedCrf { max, .. } => Spending::Likely(sound + likely.min(f64::from(max.bits()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{audio, media, spec, video};
    use super::super::{Policy, plan};
    use crate::domain::OutputIndex;

    fn expected(rate: &serde_json::Value, seconds: Option<f64>, source: u64) -> u64 {
        let mut info = media(vec![video(1280, 720)], vec![audio(2)]);
        info.duration_seconds = seconds;
        let fields = json!({"video": {"rate": rate}, "audio": {"bitrate": "100k"}});
        let outputs = [(OutputIndex(0), spec(Some("720p_h264"), fields))];
        let mut plan = plan(&info, &outputs, &Policy::default()).unwrap();
        plan.expected_seconds = seconds;
        plan.expected_bytes(source)
    }

    #[test]
    fn promises_are_taken_at_their_word_and_qualities_bounded_by_the_source() {
        let average = json!({"mode": "bitrate", "target": "4000k"});
        assert_eq!(expected(&average, Some(80.0), 1), 4_100_000 * 10 * 13 / 10);
        let quality = json!({"mode": "crf", "crf": 23});
        assert_eq!(expected(&quality, Some(80.0), 1000), 2600);
        let large = expected(&quality, Some(80.0), 1 << 40);
        assert!((30_000_000..50_000_000).contains(&large), "{large}");
        let capped = json!({"mode": "capped_crf", "crf": 23, "max": "1000k"});
        assert_eq!(expected(&capped, Some(80.0), 1 << 40), 1_100_000 * 10 * 13 / 10);
        assert_eq!(expected(&average, None, 1000), 2600);
    }
}
