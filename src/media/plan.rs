//! What to encode, decided purely: `(MediaInfo, outputs, policy) → EncodePlan`.
//!
//! Every decision about size, time, colour and sound is made here, as numbers and closed enums; `argv` only spells
//! them. Files: `fields` (interlace, telecine), `frame` (what is cut off, turned, mirrored), `size` (geometry), `timing`
//! (frame rates, keyframes), `color` (signals and conversions), `bytes` (room to set aside), `passes` (the first of two),
//! `sound` (channels, loudness), `language`, `copy` (tracks as they are), `captions` (subtitles), `set` (ladders), `filter` (what
//! may stand in a filter graph), `cut` (parts of a source), `process` (what one ffmpeg makes).

mod bytes;
mod captions;
mod color;
mod copy;
mod cut;
mod fields;
mod filter;
mod frame;
mod language;
mod passes;
mod poster;
mod process;
mod set;
mod size;
mod sound;
mod stills;
mod timing;

use crate::domain::preset::{
    AV1_MIN_SIDE, AudioCodec, BitDepth, EncodeSpec, FileFormat, Level, Load, Profile, Rate, Sound, Speed,
    VideoCodec, VideoSpec, lowest_level,
};
use crate::domain::{Code, Failure, Mastering, MediaInfo, OutputIndex, Rational, VideoStream};

pub use captions::{CaptionTrack, CaptionsPlan, LEAD_SECONDS, MuxedCaptions};
pub use color::{Matrix, Primaries, Range, Signal, Transfer};
pub use copy::{Copied, TrackKind};
pub use cut::Cut;
pub(in crate::media) use cut::out_of_range;
pub use fields::Joining;
pub use filter::{Filter, Layout};
pub use language::Language;
pub(in crate::media) use passes::{PASS_LOGS, pass_log};
pub use poster::PosterPlan;
pub use process::{Twin, processes};
pub(in crate::media) use size::stored as upright;
pub use sound::{MeasuredLoudness, gain};
pub use stills::{Choice, StillsPlan, stills};

/// What the operator allows, as far as planning needs it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Longest output that is written, seconds; a source that promises more is refused by the probe's limits.
    pub max_seconds: f64,
    /// Frames per second that a source is halved down to unless the output says otherwise (MEDIA-RULES §1.18e).
    pub max_frame_rate: u32,
}

impl Default for Policy {
    /// 12 hours (the default of [`crate::domain::limits::SourceLimits`]) and 60 fps.
    fn default() -> Self {
        Self { max_seconds: 12.0 * 3600.0, max_frame_rate: 60 }
    }
}

/// One ffmpeg process: one source, one decode, all outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodePlan {
    /// The part of the source that is read; `None` = all of it.
    pub cut: Option<Cut>,
    /// The files, in the job's order of outputs; those of a set follow each other, pictures first.
    pub outputs: Vec<OutputPlan>,
    /// Files that are the same as one of these.
    pub twins: Vec<Twin>,
    /// Pictures of films, made of what is encoded.
    pub posters: Vec<PosterPlan>,
    /// Subtitles of sets.
    pub captions: Vec<CaptionsPlan>,
    /// Span of media to expect, seconds, for progress and time limits; `None` when the source does not say.
    pub expected_seconds: Option<f64>,
    /// Longest output that is accepted, seconds; a longer one is a runaway and fails the encode.
    pub max_seconds: f64,
}

impl EncodePlan {
    /// Where ffmpeg itself stops writing, seconds: only a brake for what progress reports miss. It lies behind
    /// `max_seconds`, because ffmpeg exits with 0 when it cuts, and only the length then tells.
    #[must_use]
    pub fn brake_seconds(&self) -> f64 {
        self.max_seconds + 1.0
    }

    /// The source's streams that are read for any output.
    #[must_use]
    pub fn reads(&self, stream: u32) -> bool {
        self.outputs.iter().any(|output| output.reads(stream))
            || self.captions.iter().any(|captions| captions.track.stream == stream)
    }

    /// Tells clients something of the file at this place, and of those that are the same.
    pub fn note(&mut self, place: usize, note: &str) {
        let twins = self.twins.iter_mut().filter(|twin| twin.of == place).map(|twin| &mut twin.output);
        for output in self.outputs.get_mut(place).into_iter().chain(twins) {
            output.warnings.push(note.to_owned());
        }
    }

    /// Seconds of the source that are decoded before the first frame of the result.
    #[must_use]
    pub fn lead_in_seconds(&self) -> f64 {
        self.cut.filter(|cut| !cut.seeks).map_or(0.0, |cut| cut.start.seconds())
    }

    /// The measuring passes that loudness targets need: one per distinct sound (track and downmix), with the tracks
    /// that use its result (MEDIA-RULES §1.14).
    #[must_use]
    pub fn loudness_passes(&self) -> Vec<(&AudioPlan, Vec<SoundPlace>)> {
        let mut passes: Vec<(&AudioPlan, Vec<SoundPlace>)> = Vec::new();
        for (file, output) in self.outputs.iter().enumerate() {
            for (track, audio) in output.audio.iter().enumerate().filter(|(_, a)| a.loudness.is_some()) {
                let place = SoundPlace { file, track };
                match passes.iter_mut().find(|(known, _)| known.sounds_like(audio)) {
                    Some((_, users)) => users.push(place),
                    None => passes.push((audio, vec![place])),
                }
            }
        }
        passes
    }
}

/// Where a sound is among the files of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SoundPlace {
    /// The file's place.
    pub file: usize,
    /// Which of its sounds.
    pub track: usize,
}

/// One file that ffmpeg writes: an output, or a rendition of one.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputPlan {
    /// The job's output.
    pub index: OutputIndex,
    /// What it is in a set; `None` = it is the whole output.
    pub rendition: Option<String>,
    /// File format.
    pub format: FileFormat,
    /// File name in the work folder: `out-{index}.{ext}`, `out-{index}-{rendition}.{ext}`.
    pub file_name: String,
    /// The picture.
    pub video: Option<VideoPlan>,
    /// The sound: of a rendition at most one, of a file what was asked for, the one that plays unasked first.
    pub audio: Vec<AudioPlan>,
    /// Tracks of the source that are taken over, the picture first.
    pub copied: Vec<Copied>,
    /// Tracks of subtitles in it.
    pub captions: Vec<MuxedCaptions>,
    /// Its place among all files that were asked for, twins too.
    pub rank: usize,
    /// What the client should know (`not_upscaled`, …).
    pub warnings: Vec<String>,
}

impl OutputPlan {
    /// Whether it is made of this stream of the source.
    #[must_use]
    pub fn reads(&self, stream: u32) -> bool {
        self.video.as_ref().is_some_and(|video| video.stream == stream)
            || self.audio.iter().any(|audio| audio.stream == stream)
            || self.copied.iter().any(|track| track.stream == stream)
            || self.captions.iter().any(|captions| captions.track.stream == stream)
    }
}

/// The picture of an output, every decision made.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoPlan {
    /// Source stream index.
    pub stream: u32,
    /// What the filter chain begins with.
    pub feed: Feed,
    /// Codec.
    pub codec: VideoCodec,
    /// Encoder effort.
    pub speed: Speed,
    /// How bits are spent.
    pub rate: Rate,
    /// Final width, even, pixels.
    pub width: u32,
    /// Final height, even, pixels.
    pub height: u32,
    /// The filter chain, in order; it sees pictures already turned upright by ffmpeg's autorotation.
    pub filters: Vec<Filter>,
    /// How many frames the decoded ones become.
    pub cadence: Cadence,
    /// Frame timing.
    pub timing: Timing,
    /// The encoder's ticks, seconds: fine enough to hold every planned timestamp exactly.
    pub time_base: Rational,
    /// Frames per second to tell encoders that need one for rate control and level; `None` when nobody knows.
    pub frame_rate: Option<Rational>,
    /// Where key frames stand.
    pub keyframes: Keyframes,
    /// B-frames, where set.
    pub bframes: Option<u8>,
    /// Profile as the encoder spells it, where set.
    pub profile: Option<&'static str>,
    /// Level, where the codec has one and it is known.
    pub level: Option<Level>,
    /// Pixel format.
    pub pix_fmt: &'static str,
    /// Colour of the result, tagged so.
    pub color: PlannedColor,
    /// Static metadata that PQ pictures carry on, where the source has any.
    pub mastering: Option<Mastering>,
}

/// What a chain of filters works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// The decoded source.
    Source,
    /// The finished picture of the file at this place of the plan: scaling a small picture is cheaper.
    Picture(usize),
}

/// Where key frames stand, in frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyframes {
    /// At most so far apart; where scenes change, too.
    Within(u32),
    /// At the multiples of this and nowhere else, so that all pictures of a set can be cut at the same times.
    Every(u32),
}

impl Keyframes {
    /// The longest distance, frames.
    #[must_use]
    pub const fn longest(self) -> u32 {
        match self {
            Self::Within(frames) | Self::Every(frames) => frames,
        }
    }
}

/// How many frames come out of the decoded ones, before any change of rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cadence {
    /// As many.
    Same,
    /// One per field.
    Doubled,
    /// Four of five: film out of telecine.
    Film,
}

/// Frame timing of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// The source's frames and times: frames out = frames decoded.
    Passthrough,
    /// Even spacing at this rate on the absolute timeline.
    Cfr(Rational),
}

/// Colour tags of the result, in ffmpeg's spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedColor {
    /// Primaries.
    pub primaries: String,
    /// Transfer.
    pub transfer: String,
    /// Matrix.
    pub matrix: String,
    /// `tv` or `pc`.
    pub range: &'static str,
}

impl From<Signal> for PlannedColor {
    fn from(signal: Signal) -> Self {
        Self {
            primaries: signal.primaries.name().to_owned(),
            transfer: signal.transfer.name().to_owned(),
            matrix: signal.matrix.name().to_owned(),
            range: signal.range.name(),
        }
    }
}

/// The sound of an output, every decision made.
#[derive(Debug, Clone, PartialEq)]
pub struct AudioPlan {
    /// Source stream index.
    pub stream: u32,
    /// Codec.
    pub codec: AudioCodec,
    /// Bit rate, bit/s.
    pub bitrate: u32,
    /// Channels of the result: 1, 2 or 6.
    pub channels: u16,
    /// Samples per second of the result.
    pub sample_rate: u32,
    /// Loudness to reach by one constant gain measured first; `None` = untouched.
    pub loudness: Option<crate::domain::preset::Loudness>,
    /// The filter chain, in order, without the measured gain. It starts the sound at the timeline's zero (the
    /// earliest stream's start): a late track is led in by silence, holes are filled with silence.
    pub filters: Vec<Filter>,
    /// The source's language: the one tag that is kept.
    pub language: Option<Language>,
}

impl AudioPlan {
    /// Whether both are the same samples before encoding.
    fn sounds_like(&self, other: &Self) -> bool {
        self.stream == other.stream && self.filters == other.filters
    }
}

/// Plans outputs over one part of one source: that of the first output.
///
/// # Errors
/// The first output that cannot be made of this source, and why (`no_video_stream`, `no_audio_stream`,
/// `media_unsupported`, `clip_out_of_range`).
pub fn plan(
    info: &MediaInfo,
    outputs: &[(OutputIndex, EncodeSpec)],
    policy: &Policy,
) -> Result<EncodePlan, (OutputIndex, Failure)> {
    let mut planned = Vec::new();
    for (index, spec) in outputs {
        let files = match (&spec.package, spec.container.file()) {
            (Some(package), None) => set::plan(info, *index, spec, package, policy, planned.len()),
            (_, format) => {
                output(info, *index, spec, format.unwrap_or(FileFormat::Mp4), policy).map(|file| vec![file])
            }
        };
        planned.extend(files.map_err(|failure| (*index, failure))?);
    }
    let mut expected_seconds = timing::expected_seconds(info, &planned);
    let clip = outputs.first().and_then(|(index, spec)| Some((*index, spec.clip?)));
    let has_text = info.subtitles.iter().any(crate::domain::SubtitleStream::is_text);
    let with_text = has_text && outputs.iter().any(|(_, spec)| spec.captions.is_some());
    let cut = clip.map(|(_, clip)| Cut::of(clip, info.container, with_text));
    if let (Some(cut), Some((index, _))) = (cut, clip) {
        let (length, short) = cut.length(expected_seconds).map_err(|failure| (index, failure))?;
        cut.lay(&mut planned);
        if short {
            for file in &mut planned {
                file.warnings.push(cut::shortened(length));
            }
        }
        expected_seconds = length;
    }
    let (captions, told) = captions::renditions(info, outputs, cut);
    for (index, warning) in told {
        if let Some(first) = planned.iter_mut().find(|file| file.index == index) {
            first.warnings.push(warning);
        }
    }
    let max_seconds = timing::cap(expected_seconds, policy);
    let specs = outputs;
    let (mut outputs, twins) = process::once(planned);
    let posters = poster::plan((&mut outputs, &twins), specs, expected_seconds);
    Ok(EncodePlan { cut, outputs, twins, posters, captions, expected_seconds, max_seconds })
}

fn output(
    info: &MediaInfo,
    index: OutputIndex,
    spec: &EncodeSpec,
    format: FileFormat,
    policy: &Policy,
) -> Result<OutputPlan, Failure> {
    let mut warnings = Vec::new();
    let stream = match &spec.video {
        None => None,
        Some(_) => Some(info.main_video().ok_or_else(|| {
            Failure::new(Code::NoVideoStream, "the output needs a picture and the source has none")
        })?),
    };
    let video = match (stream, spec.encoded_picture()) {
        (Some(stream), Some(wanted)) => Some(picture(stream, wanted, policy, &mut warnings)?),
        _ => None,
    };
    let copied = copy::plan(info, spec, format)?;
    warnings.extend(spec.encoded_sound().and_then(|wanted| sound::missing(info, wanted)));
    let audio = spec.encoded_sound().map(|wanted| sound::tracks(info, wanted)).unwrap_or_default();
    let has_sound = !audio.is_empty() || copied.iter().any(|track| track.kind == TrackKind::Sound);
    // Sound that is only wished for may be missing, but something must be left to write.
    let needed = spec.audio.as_ref().is_some_and(Sound::is_required) || stream.is_none();
    if needed && !has_sound {
        return Err(Failure::new(Code::NoAudioStream, "the output needs sound and the source has none"));
    }
    let (captions, told) = captions::muxed(info, spec, format);
    warnings.extend(told);
    let file_name = format!("out-{index}.{}", format.extension());
    let rank = 0;
    Ok(OutputPlan {
        index,
        rendition: None,
        format,
        file_name,
        video,
        audio,
        copied,
        captions,
        rank,
        warnings,
    })
}

fn picture(
    stream: &VideoStream,
    spec: &VideoSpec,
    policy: &Policy,
    warnings: &mut Vec<String>,
) -> Result<VideoPlan, Failure> {
    if stream.width == 0 || stream.height == 0 {
        return Err(Failure::new(Code::MediaUnsupported, "the source does not say how large its picture is"));
    }
    let framed = frame::of(stream, spec)?;
    warnings.extend(framed.warning(spec));
    let geometry = size::fit(&framed.stream, spec);
    let (width, height) = (geometry.width, geometry.height);
    if spec.codec == VideoCodec::Av1 && (width < AV1_MIN_SIDE || height < AV1_MIN_SIDE) {
        let message = format!(
            "av1 needs at least {AV1_MIN_SIDE}x{AV1_MIN_SIDE} pixels; this picture is {width}x{height}"
        );
        return Err(Failure::new(Code::MediaUnsupported, message));
    }
    if geometry.not_upscaled {
        warnings.push("not_upscaled".to_owned());
    }
    let fields = fields::decide(stream, spec);
    warnings.extend(fields.warning().map(str::to_owned));
    let mut timed = timing::decide(&fields.timed(stream), spec, policy);
    if timed.assumed {
        warnings.push("frame_rate_assumed".to_owned());
    }
    let colored = color::decide(stream, spec);
    if colored.tone_mapped() {
        warnings.push("tone_mapped".to_owned());
    }
    let pix_fmt = match spec.bit_depth {
        BitDepth::Eight => "yuv420p",
        BitDepth::Ten => "yuv420p10le",
    };

    let mut filters = fields.filters();
    match (fields.cadence(), timed.timing) {
        (Cadence::Film, Timing::Passthrough) => timed = timed.even(fields::film()),
        (Cadence::Film, Timing::Cfr(rate)) if rate == fields::film() => {}
        (_, Timing::Passthrough) => {}
        (_, Timing::Cfr(rate)) => filters.push(Filter::Fps(rate)),
    }
    filters.extend(framed.filters());
    let paint = filter::Paint { color: &colored, depth: spec.bit_depth, bars: spec.pad_color };
    filter::picture(&mut filters, &framed.stream, &geometry, &paint);

    let load = Load {
        codec: spec.codec,
        width,
        height,
        frame_rate: timed.frame_rate,
        rate: spec.rate,
        bit_depth: spec.bit_depth,
        profile: spec.profile,
    };
    let rate = level(spec, load)?;
    Ok(VideoPlan {
        stream: stream.index,
        feed: Feed::Source,
        codec: spec.codec,
        speed: spec.speed,
        rate,
        width,
        height,
        filters,
        cadence: fields.cadence(),
        timing: timed.timing,
        time_base: timed.time_base,
        frame_rate: timed.frame_rate,
        keyframes: Keyframes::Within(timed.keyframe_interval),
        bframes: spec.bframes,
        profile: profile(spec),
        level: spec.level.or_else(|| lowest_level(load)),
        pix_fmt,
        color: colored.target.into(),
        mastering: stream.measured.mastering.filter(|_| colored.target.transfer == Transfer::Pq),
    })
}

/// The rate below the ceiling of the level that was asked for, if one was.
fn level(spec: &VideoSpec, load: Load) -> Result<Rate, Failure> {
    let Some(level) = spec.level else { return Ok(spec.rate) };
    level.holds(load).map_err(|excess| {
        let (Load { width, height, .. }, rate) = (load, load.frame_rate.map_or(0.0, Rational::as_f64));
        let message = format!("video.level {level} {excess}: {width}x{height}, {rate:.2} frames a second");
        Failure::new(Code::MediaUnsupported, message)
    })?;
    Ok(level.bounded(load))
}

fn profile(spec: &VideoSpec) -> Option<&'static str> {
    match spec.codec {
        VideoCodec::H264 => Some(match (spec.bit_depth, spec.profile) {
            (BitDepth::Ten, _) => "high10",
            (BitDepth::Eight, Some(Profile::Baseline)) => "baseline",
            (BitDepth::Eight, Some(Profile::Main)) => "main",
            (BitDepth::Eight, Some(Profile::High) | None) => "high",
        }),
        VideoCodec::Hevc => Some(match spec.bit_depth {
            BitDepth::Eight => "main",
            BitDepth::Ten => "main10",
        }),
        // Both follow from the pixel format.
        VideoCodec::Av1 | VideoCodec::Vp9 => None,
    }
}

#[cfg(test)]
pub(super) mod tests;
