//! What may stand in one setting together: ranges, and codecs against containers.

mod picture;
mod set;

use super::{
    AudioCodec, AudioSpec, BitDepth, CaptionMode, Channels, Clip, Container, DynamicRange, EncodeSpec, Fit,
    Passes, Picture, Profile, Rate, Sound, Tracks, VideoCodec, VideoSpec,
};
use crate::domain::Fault;

/// Sides a picture may have, pixels: what x264, x265 and libvpx take, and what [`super::BoxSize`] allows.
const SIDES: std::ops::RangeInclusive<u32> = 16..=16_384;
/// Highest frame rate that is written, frames per second.
const MAX_FPS: u32 = 120;
/// SVT-AV1's smallest picture, pixels (MEDIA-RULES §1.17).
pub const AV1_MIN_SIDE: u32 = 64;

impl EncodeSpec {
    /// Everything that contradicts itself or cannot be encoded; pointers are relative to the output object.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Some(spec) = self.encoded_picture() {
            video(spec, &mut faults);
        }
        if let Some(spec) = self.encoded_sound() {
            audio(spec, &mut faults);
        }
        container(self, &mut faults);
        copies(self, &mut faults);
        set(self, &mut faults);
        clip(self.clip, &mut faults);
        stills(self.container, self.stills.as_ref(), &mut faults);
        poster(self, &mut faults);
        captions(self, &mut faults);
        if faults.is_empty() && self.is_empty() {
            faults.push(nothing());
        }
        faults
    }

    /// Whether it asks for nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.video.is_none() && self.audio.is_none() && self.stills.is_none()
    }
}

pub(super) use super::stills::check as stills;
pub(super) use set::check as set;

/// A poster is a picture of the film that is encoded.
pub(super) fn poster(spec: &EncodeSpec, faults: &mut Vec<Fault>) {
    if spec.poster && spec.encoded_picture().is_none() {
        faults.push(Fault::new("/poster", "a poster needs video that is encoded"));
    }
}

/// Subtitles go into what has a place for them.
pub(super) fn captions(spec: &EncodeSpec, faults: &mut Vec<Fault>) {
    let Some(captions) = &spec.captions else { return };
    if spec.container.captions().is_none() {
        let detail = format!("{} carries no subtitles", spec.container.name());
        faults.push(Fault::new("/captions", detail));
    }
    if spec.clip.is_some() && spec.container.captions() == Some(CaptionMode::Mux) {
        faults.push(Fault::new("/captions", "a clip carries subtitles only in hls, dash and cmaf"));
    }
    if captions.languages == Tracks::First {
        faults.push(Fault::new(
            "/captions/languages",
            "languages is \"all\" or 1 to 16 languages of three letters",
        ));
    }
}

/// A part of no length, or one that says nothing.
pub(super) fn clip(clip: Option<Clip>, faults: &mut Vec<Fault>) {
    if let Some(fault) = clip.and_then(Clip::fault) {
        faults.push(Fault::new(format!("/clip{}", fault.pointer), fault.detail));
    }
}

/// An output of nothing.
pub(super) fn nothing() -> Fault {
    Fault::new("", "an output needs video, audio or both")
}

/// The codecs of pictures that a container holds.
const fn pictures(container: Container) -> &'static [VideoCodec] {
    use VideoCodec::{Av1, H264, Hevc, Vp9};
    match container {
        Container::Mkv | Container::Dash => &[H264, Hevc, Av1, Vp9],
        // MEDIA-RULES §1.17: Apple's players do not take VP9.
        Container::Mp4 | Container::Hls | Container::Cmaf => &[H264, Hevc, Av1],
        Container::Webm => &[Vp9, Av1],
        Container::Mov => &[H264, Hevc],
        Container::M4a
        | Container::Mp3
        | Container::Ogg
        | Container::Jpg
        | Container::Png
        | Container::Webp
        | Container::Vtt => &[],
    }
}

/// Whether the container can hold the codecs.
pub(super) fn container(spec: &EncodeSpec, faults: &mut Vec<Fault>) {
    use AudioCodec::{Aac, Mp3, Opus};
    let (container, video, audio) = (spec.container, spec.encoded_picture(), spec.encoded_sound());
    if container.is_stills() {
        let detail = || format!("{} is made of stills and has no streams", container.name());
        faults.extend(video.map(|_| Fault::new("/video", detail())));
        faults.extend(audio.map(|_| Fault::new("/audio", detail())));
        return;
    }
    let pictures = pictures(container);
    let sounds: &[AudioCodec] = match container {
        Container::Mp4 | Container::Mkv => &[Aac, Opus, Mp3],
        Container::Webm | Container::Ogg => &[Opus],
        // MEDIA-RULES §1.17: Apple's players do not take Opus.
        Container::Mov | Container::M4a | Container::Hls | Container::Cmaf => &[Aac],
        Container::Mp3 => &[Mp3],
        Container::Dash => &[Aac, Opus],
        Container::Jpg | Container::Png | Container::Webp | Container::Vtt => &[],
    };
    let name = container.name();
    if let Some(spec) = video
        && !pictures.contains(&spec.codec)
    {
        let names: Vec<_> = pictures.iter().map(|c| c.codec_name()).collect();
        let (codec, names) = (spec.codec.codec_name(), names.join(", "));
        faults.push(match pictures {
            [] => Fault::new("/video", format!("{name} holds no picture")),
            _ => Fault::new("/video/codec", format!("{name} does not hold {codec}; use {names}")),
        });
    }
    if let Some(spec) = audio
        && !sounds.contains(&spec.codec)
    {
        let names: Vec<_> = sounds.iter().map(|c| c.codec_name()).collect();
        faults.push(Fault::new(
            "/audio/codec",
            format!("{name} does not hold {}; use {}", spec.codec.codec_name(), names.join(", ")),
        ));
    }
    let one = matches!(container, Container::M4a | Container::Mp3 | Container::Ogg);
    if one && audio.is_some_and(|spec| spec.tracks != Tracks::First) {
        faults.push(Fault::new("/audio/tracks", format!("{name} holds one track")));
    }
}

/// What is taken over is neither cut nor put into sets; whether the container holds it, the source decides.
pub(super) fn copies(spec: &EncodeSpec, faults: &mut Vec<Fault>) {
    let picture = matches!(spec.video, Some(Picture::Copy(_)));
    let sound = matches!(spec.audio, Some(Sound::Copy(_)));
    for (copied, at) in [(picture, "/video/codec"), (sound, "/audio/codec")] {
        if copied && spec.container.is_set() {
            faults.push(Fault::new(at, "sets are encoded; copy is for single files"));
        }
    }
    if picture && spec.container.is_sound_only() {
        faults.push(Fault::new("/video", format!("{} holds no picture", spec.container.name())));
    }
    if spec.clip.is_some() && (picture || sound) {
        faults.push(Fault::new("/clip", "what is copied is not cut; encode it, or leave the clip out"));
    }
}

/// The picture by itself.
pub(super) fn video(spec: &VideoSpec, faults: &mut Vec<Fault>) {
    let mut fault =
        |pointer: &str, detail: String| faults.push(Fault::new(format!("/video{pointer}"), detail));
    rate(spec, &mut fault);
    size(spec, &mut fault);
    timing(spec, &mut fault);
    depth(spec, &mut fault);
    picture::check(spec, &mut fault);
}

fn rate(spec: &VideoSpec, fault: &mut impl FnMut(&str, String)) {
    // 0 is lossless in x264 (which no common profile has) and "not set" in SVT-AV1 behind ffmpeg 5.1.
    let best = 1.0;
    let worst = match spec.codec {
        VideoCodec::H264 | VideoCodec::Hevc => 51.0,
        VideoCodec::Av1 | VideoCodec::Vp9 => 63.0,
    };
    let whole = matches!(spec.codec, VideoCodec::Av1 | VideoCodec::Vp9);
    match spec.rate {
        Rate::Crf { crf } | Rate::CappedCrf { crf, .. } => {
            let name = spec.codec.codec_name();
            if !(best..=worst).contains(&crf) {
                fault("/rate/crf", format!("crf of {name} is {best} to {worst}"));
            } else if whole && crf.fract() != 0.0 {
                fault("/rate/crf", format!("crf of {name} is a whole number"));
            }
        }
        Rate::Bitrate { target, max: Some(max), .. } if max < target => {
            fault("/rate/max", "max is below target".to_owned());
        }
        // SVT-AV1 behind ffmpeg 5.1 neither writes nor reads what a first pass saw.
        Rate::Bitrate { passes: Passes::Two, .. } if spec.codec == VideoCodec::Av1 => {
            fault("/rate/passes", "av1 is encoded in one pass".to_owned());
        }
        Rate::Bitrate { .. } => {}
    }
}

fn size(spec: &VideoSpec, fault: &mut impl FnMut(&str, String)) {
    for (name, side) in [("width", spec.width), ("height", spec.height)] {
        if side.is_some_and(|side| !SIDES.contains(&side)) {
            fault(&format!("/{name}"), format!("{name} is {} to {} pixels", SIDES.start(), SIDES.end()));
        } else if side.is_some() && spec.bounds.is_some() {
            fault(&format!("/{name}"), format!("{name} and box exclude each other; give one"));
        }
    }
    if spec.codec == VideoCodec::Av1 {
        let small = |side: Option<u32>| side.is_some_and(|side| side < AV1_MIN_SIDE && SIDES.contains(&side));
        let detail = || format!("av1 needs at least {AV1_MIN_SIDE}x{AV1_MIN_SIDE} pixels");
        if small(spec.bounds.map(super::BoxSize::width)) || small(spec.bounds.map(super::BoxSize::height)) {
            fault("/box", detail());
        }
        for (name, side) in [("/width", spec.width), ("/height", spec.height)] {
            if small(side) {
                fault(name, detail());
            }
        }
    }
    let has_shape = spec.bounds.is_some() || (spec.width.is_some() && spec.height.is_some());
    if spec.fit != Fit::Contain && !has_shape {
        fault("/fit", "cover, pad and stretch need a box, or width and height".to_owned());
    }
    if spec.upscale && spec.bounds.is_none() && spec.width.is_none() && spec.height.is_none() {
        fault("/upscale", "upscale needs a box, a width or a height".to_owned());
    }
}

fn timing(spec: &VideoSpec, fault: &mut impl FnMut(&str, String)) {
    if let Some(value) = spec.fps.value {
        let fps = value.as_f64();
        if !(1.0..=f64::from(MAX_FPS)).contains(&fps) {
            fault("/fps/value", format!("fps is 1 to {MAX_FPS}"));
        } else if spec.fps.max.is_some_and(|max| fps > f64::from(max)) {
            fault("/fps/value", "value is above max".to_owned());
        }
        // A rational of huge terms cannot be told apart from a simple one and overflows the encoders' time bases.
        if value.num() > 1_000_000 || value.den() > 100_000 {
            fault("/fps/value", "a frame rate is written like \"25\" or \"30000/1001\"".to_owned());
        }
        if spec.fps.mode == super::FpsMode::Source {
            fault("/fps/value", "value needs mode \"cfr\"".to_owned());
        }
    }
    if spec.fps.max.is_some_and(|max| !(1..=MAX_FPS).contains(&max)) {
        fault("/fps/max", format!("max is 1 to {MAX_FPS}"));
    }
    if !(0.5..=20.0).contains(&spec.gop_seconds) {
        fault("/gop_seconds", "gop_seconds is 0.5 to 20".to_owned());
    }
}

fn depth(spec: &VideoSpec, fault: &mut impl FnMut(&str, String)) {
    let codec = spec.codec.codec_name();
    let ten = spec.bit_depth == BitDepth::Ten;
    match spec.codec {
        VideoCodec::H264 | VideoCodec::Hevc => {
            if spec.bframes.is_some_and(|n| n > 8) {
                fault("/bframes", "bframes is 0 to 8".to_owned());
            }
        }
        VideoCodec::Av1 | VideoCodec::Vp9 => {
            if spec.bframes.is_some() {
                fault("/bframes", format!("{codec} has no B-frames to set"));
            }
        }
    }
    match (spec.codec, spec.profile) {
        (_, None) | (VideoCodec::H264, Some(Profile::High)) | (VideoCodec::Hevc, Some(Profile::Main)) => {}
        (VideoCodec::H264, Some(Profile::Baseline | Profile::Main)) => {
            if ten {
                fault("/profile", "10-bit h264 needs profile high".to_owned());
            }
            if spec.profile == Some(Profile::Baseline) && spec.bframes.is_some_and(|n| n > 0) {
                fault("/bframes", "profile baseline has no B-frames".to_owned());
            }
        }
        (VideoCodec::Hevc, Some(Profile::Baseline | Profile::High)) => {
            fault("/profile", "the profile of hevc is main".to_owned());
        }
        (VideoCodec::Av1 | VideoCodec::Vp9, Some(_)) => {
            fault("/profile", format!("{codec} has no profile to set"));
        }
    }
    let keeps = matches!(spec.codec, VideoCodec::Hevc | VideoCodec::Av1);
    if spec.range == DynamicRange::Keep && !(ten && keeps) {
        fault("/range", "range \"keep\" needs codec hevc or av1 with bit_depth 10".to_owned());
    }
}

/// The sound by itself.
pub(super) fn audio(spec: &AudioSpec, faults: &mut Vec<Fault>) {
    let mut fault =
        |pointer: &str, detail: String| faults.push(Fault::new(format!("/audio{pointer}"), detail));
    let name = spec.codec.codec_name();
    // libopus takes its five rates only, and all decoders give 48 kHz; LAME takes MPEG-1 and MPEG-2 rates.
    let rates: &[u32] = match spec.codec {
        AudioCodec::Aac => {
            &[8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000]
        }
        AudioCodec::Opus => &[48_000],
        AudioCodec::Mp3 => &[16_000, 22_050, 24_000, 32_000, 44_100, 48_000],
    };
    if !rates.contains(&spec.sample_rate) {
        let list: Vec<_> = rates.iter().map(u32::to_string).collect();
        fault("/sample_rate", format!("the sample rate of {name} is one of {}", list.join(", ")));
    }
    // The encoders' own limits; libopus refuses more than 256 kbit/s per channel.
    let (low, high) = match (spec.codec, spec.channels) {
        (AudioCodec::Aac, Channels::Mono) => (8_000, 288_000),
        (AudioCodec::Aac, _) => (16_000, 1_024_000),
        (AudioCodec::Opus, Channels::Mono | Channels::Source) => (6_000, 256_000),
        (AudioCodec::Opus, Channels::Stereo) => (6_000, 510_000),
        (AudioCodec::Opus, Channels::Surround) => (32_000, 1_024_000),
        (AudioCodec::Mp3, _) => (32_000, 320_000),
    };
    if spec.bitrate.is_some_and(|rate| !(low..=high).contains(&rate.bits())) {
        fault("/bitrate", format!("the bit rate of {name} is {}k to {}k here", low / 1000, high / 1000));
    }
    if spec.codec == AudioCodec::Mp3 && spec.channels == Channels::Surround {
        fault("/channels", "mp3 has at most 2 channels".to_owned());
    }
    if let Some(loudness) = spec.loudness {
        if !(-31.0..=-5.0).contains(&loudness.target) {
            fault("/loudness/target", "target is -31 to -5 LUFS".to_owned());
        }
        if !(-9.0..=0.0).contains(&loudness.true_peak) {
            fault("/loudness/true_peak", "true_peak is -9 to 0 dBTP".to_owned());
        }
    }
}
