//! The sound of an output: channels, rate, bit rate, and the gain that reaches a loudness.

use super::{AudioPlan, Filter, Language};
use crate::domain::preset::{AudioCodec, AudioSpec, Channels, Loudness, Tracks};
use crate::domain::{AudioStream, MediaInfo};

/// Plans the sounds that are asked for, in the order they are listed.
pub(super) fn tracks(info: &MediaInfo, spec: &AudioSpec) -> Vec<AudioPlan> {
    wanted(info, &spec.tracks).into_iter().map(|stream| plan(stream, spec)).collect()
}

/// What a client should know who asks for languages that the source does not have.
pub(super) fn missing(info: &MediaInfo, spec: &AudioSpec) -> Option<String> {
    let Tracks::Languages(tags) = &spec.tracks else { return None };
    let lacks = |tag: &&String| info.audio.iter().all(|track| track.language.as_ref() != Some(tag));
    let missing: Vec<&str> = tags.iter().filter(lacks).map(String::as_str).collect();
    (!missing.is_empty()).then(|| format!("sound_missing: {}", missing.join(", ")))
}

/// The source's tracks that are asked for, in the order they are listed.
fn wanted<'a>(info: &'a MediaInfo, wanted: &Tracks) -> Vec<&'a AudioStream> {
    let main = info.main_audio();
    match wanted {
        Tracks::First => main.into_iter().collect(),
        Tracks::All => {
            let others = info.audio.iter().filter(|track| main.is_none_or(|main| main.index != track.index));
            main.into_iter().chain(others).collect()
        }
        Tracks::Languages(tags) => tags
            .iter()
            .flat_map(|tag| info.audio.iter().filter(move |track| track.language.as_ref() == Some(tag)))
            .collect(),
    }
}

fn plan(stream: &AudioStream, spec: &AudioSpec) -> AudioPlan {
    let channels = channels(stream.channels, spec);
    let mut filters = Vec::new();
    if (stream.channels, channels) == (1, 2) {
        filters.push(Filter::BothSides);
    }
    filters.push(Filter::Resample { rate: spec.sample_rate, channels });
    AudioPlan {
        stream: stream.index,
        codec: spec.codec,
        bitrate: spec
            .bitrate
            .map_or_else(|| default_bitrate(spec.codec, channels), crate::domain::preset::BitRate::bits),
        channels,
        sample_rate: spec.sample_rate,
        loudness: spec.loudness,
        filters,
        language: stream.language.as_deref().and_then(Language::parse),
    }
}

/// Every result is mono, stereo or 5.1: the layouts that all three codecs and all players agree on.
fn channels(source: u16, spec: &AudioSpec) -> u16 {
    match (spec.channels, spec.codec) {
        (Channels::Mono, _) => 1,
        (Channels::Stereo, _) => 2,
        (Channels::Surround | Channels::Source, AudioCodec::Mp3) => source.clamp(1, 2),
        (Channels::Surround, AudioCodec::Aac | AudioCodec::Opus) => 6,
        (Channels::Source, AudioCodec::Aac | AudioCodec::Opus) => match source {
            0 | 1 => 1,
            2..=5 => 2,
            6.. => 6,
        },
    }
}

/// FIELD §3.2 (Shaka Streamer's defaults), with stereo AAC and MP3 raised to what built-in presets use.
const fn default_bitrate(codec: AudioCodec, channels: u16) -> u32 {
    match (codec, channels) {
        (AudioCodec::Aac | AudioCodec::Mp3, 1) => 64_000,
        (AudioCodec::Aac | AudioCodec::Mp3, 2) => 128_000,
        (AudioCodec::Aac | AudioCodec::Mp3, _) => 256_000,
        (AudioCodec::Opus, 1) => 48_000,
        (AudioCodec::Opus, 2) => 96_000,
        (AudioCodec::Opus, _) => 192_000,
    }
}

/// What a measuring pass found, after the downmix.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeasuredLoudness {
    /// Integrated loudness, LUFS; -70 for silence.
    pub integrated: f64,
    /// Highest true peak, dBTP; negative infinity for silence.
    pub true_peak: f64,
    /// Length of what was measured, seconds.
    pub seconds: f64,
}

/// The constant gain in dB that reaches a target, and whether the peak keeps it from being reached; `None` = leave
/// the sound as it is (MEDIA-RULES §1.14: silence is never raised, and under 3 s nothing can be said).
#[must_use]
pub fn gain(target: Loudness, measured: MeasuredLoudness) -> Option<(f64, bool)> {
    /// At or below this the track is silence with noise.
    const SILENCE: f64 = -50.0;
    /// Shortest measurement that means something, seconds.
    const SHORTEST: f64 = 3.0;
    /// Lossy codecs overshoot the peak of what they are given, dB.
    const OVERSHOOT: f64 = 0.5;
    let MeasuredLoudness { integrated, true_peak, seconds } = measured;
    let usable =
        integrated.is_finite() && integrated > SILENCE && true_peak.is_finite() && seconds >= SHORTEST;
    if !usable {
        return None;
    }
    let wanted = f64::from(target.target) - integrated;
    let room = f64::from(target.true_peak) - true_peak - OVERSHOOT;
    Some((wanted.min(room), room < wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gain_stops_at_the_peak_and_never_raises_silence() {
        let target = Loudness { target: -14.0, true_peak: -1.5 };
        let measured = |integrated, true_peak, seconds| MeasuredLoudness { integrated, true_peak, seconds };
        assert_eq!(gain(target, measured(-10.0, -0.5, 60.0)), Some((-4.0, false)));
        assert_eq!(gain(target, measured(-20.0, -12.0, 60.0)), Some((6.0, false)));
        assert_eq!(gain(target, measured(-20.0, -4.0, 60.0)), Some((2.0, true)));
        assert_eq!(gain(target, measured(-70.0, f64::NEG_INFINITY, 60.0)), None);
        assert_eq!(gain(target, measured(-20.0, -4.0, 2.9)), None);
        assert_eq!(gain(target, measured(f64::NAN, -4.0, 9.0)), None);
    }
}
