//! Spells plans as ffmpeg command lines, without the program name. Pure: no decision is made here.
//!
//! Options are those of ffmpeg 5.1 that newer versions still take. Every value is a number, a closed enum's name,
//! our own file name or our own input (a path or URL made by flux), so nothing a client sends can become an option.
//! `-xerror` is not used: it stops at the first error and still misses truncation (MEDIA-RULES §1.11).

mod captions;
mod codec;
mod filter;
mod shown;
mod still;

use std::collections::BTreeMap;
use std::num::NonZeroU16;

pub use shown::shown;
pub use still::{Moment, still, still_files};

use super::Input;
use super::plan::{
    AudioPlan, Copied, Cut, EncodePlan, Filter, Language, OutputPlan, SoundPlace, TrackKind, VideoPlan,
    pass_log,
};
use crate::domain::Demuxer;
use crate::domain::limits::SourceLimits;
use crate::domain::preset::{FileFormat, VideoCodec};

/// Length of a fragment of sound, microseconds: segments are cut between fragments, so short ones let the cuts of
/// sound lie close to those of the picture.
const SOUND_FRAGMENT_MICROS: u32 = 500_000;

/// What a command line says about resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Threads of each decoder, encoder and filter graph; `None` = ffmpeg's choice (all cores).
    pub threads: Option<NonZeroU16>,
    /// Pixels of one picture.
    pub max_pixels: u64,
    /// Streams in the container.
    pub max_streams: u32,
}

impl Limits {
    /// Those of the source limits.
    #[must_use]
    pub const fn new(source: &SourceLimits, threads: Option<NonZeroU16>) -> Self {
        Self { threads, max_pixels: source.max_pixels, max_streams: source.max_streams }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(&SourceLimits::default(), None)
    }
}

/// How a source is opened.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// The file or loopback URL.
    pub input: &'a Input,
    /// Our own sniffing's verdict; ffmpeg never guesses.
    pub demuxer: Demuxer,
    /// Resources.
    pub limits: &'a Limits,
}

/// How far ffmpeg looks ahead before it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookAhead {
    /// To find late tracks: probing (10 MB, 10 s).
    Far,
    /// Tracks are known: encoding starts sooner (5 MB, 5 s; GATEWAY §5).
    Near,
}

/// Measured gains in dB by place in the plan, for [`encode`].
pub type Gains = BTreeMap<SoundPlace, f64>;

/// Input options shared by ffmpeg and ffprobe, up to and including `-i INPUT` (GATEWAY §5, RELIABILITY §4.1).
#[must_use]
pub fn input_options(reading: &Reading<'_>, look_ahead: LookAhead) -> Vec<String> {
    let formats: Vec<_> = Demuxer::ALL.iter().map(|d| d.ffmpeg_name()).collect();
    let (bytes, micros) = match look_ahead {
        LookAhead::Far => ("10M", "10M"),
        LookAhead::Near => ("5M", "5M"),
    };
    let mut argv = Argv::default();
    let location = match reading.input {
        Input::File(path) => {
            argv.pair("-protocol_whitelist", "file");
            format!("file:{}", path.display())
        }
        Input::Loopback { url } => {
            argv.pair("-protocol_whitelist", "http,tcp");
            url.clone()
        }
    };
    argv.pair("-format_whitelist", formats.join(","));
    argv.pair("-f", reading.demuxer.ffmpeg_name());
    argv.pair("-max_streams", reading.limits.max_streams);
    argv.pair("-max_pixels", reading.limits.max_pixels);
    argv.pair("-probesize", bytes);
    argv.pair("-analyzeduration", micros);
    if let Input::Loopback { .. } = reading.input {
        // The gateway's block size: shorter seeks read on instead of opening a new range.
        argv.pair("-short_seek_size", 262_144);
    }
    argv.pair("-i", location);
    argv.0
}

/// The whole command line of an encode. Outputs are `file:out-N.ext` in the working directory; progress is on
/// standard output, the end-of-run counts ("N frames decoded", "N packets muxed") on standard error.
#[must_use]
pub fn encode(plan: &EncodePlan, reading: &Reading<'_>, gains: &Gains) -> Vec<String> {
    let mut argv = Argv::encoding(plan, reading);
    let graph = graph(&mut argv, plan);
    for (position, output) in plan.outputs.iter().enumerate() {
        if let Some(video) = &output.video {
            pictures(&mut argv, &graph, position, video);
            let pass = Pass::of(output, video, 2);
            picture(&mut argv, output.format, video, reading.limits.threads, pass.as_ref());
        }
        for track in &output.copied {
            copied(&mut argv, output.format, track);
        }
        for (track, audio) in output.audio.iter().enumerate() {
            let gain = gains.get(&SoundPlace { file: position, track });
            sound(&mut argv, audio, gain.copied(), (output.audio.len() > 1).then_some(track));
        }
        captions::muxed(&mut argv, &output.captions, output.format);
        file(&mut argv, output, plan.brake_seconds());
    }
    for (n, poster) in plan.posters.iter().enumerate() {
        if let Some(label) = graph.label(plan.outputs.len() + n) {
            still::poster(&mut argv, poster, label);
        }
    }
    for track in &plan.captions {
        captions::apart(&mut argv, track, plan.brake_seconds());
    }
    argv.0
}

/// The first of two passes over the pictures of [`EncodePlan::first_pass`]: the same filters and encoders, no files but the
/// encoders' own (`pass-out-N.ext…`).
#[must_use]
pub fn first_pass(plan: &EncodePlan, reading: &Reading<'_>) -> Vec<String> {
    let mut argv = Argv::encoding(plan, reading);
    let graph = graph(&mut argv, plan);
    for (position, output) in plan.outputs.iter().enumerate() {
        let Some(video) = &output.video else { continue };
        pictures(&mut argv, &graph, position, video);
        match Pass::of(output, video, 1) {
            Some(pass) => {
                codec::video(&mut argv, video, reading.limits.threads, Some(&pass));
                timed(&mut argv, video);
            }
            // Only others are made of it.
            None => argv.pair("-c:v", "wrapped_avframe"),
        }
        argv.pair("-t", format!("{:.3}", plan.brake_seconds()));
        argv.pair("-f", "null");
        argv.flag("-");
    }
    argv.0
}

/// One of two passes over a picture.
#[derive(Debug, Clone)]
struct Pass {
    number: u8,
    /// What the name of the file between them begins with.
    log: String,
}

impl Pass {
    fn of(output: &OutputPlan, video: &VideoPlan, number: u8) -> Option<Self> {
        video.has_two_passes().then(|| Self { number, log: pass_log(&output.file_name) })
    }
}

/// The graph of the pictures that share their beginning.
fn graph(argv: &mut Argv, plan: &EncodePlan) -> filter::Graph {
    let graph = filter::Graph::of(plan);
    if let Some(text) = &graph.text {
        argv.pair("-filter_complex", text);
    }
    graph
}

/// Which picture, and through which filters.
fn pictures(argv: &mut Argv, graph: &filter::Graph, position: usize, video: &VideoPlan) {
    if let Some(label) = graph.label(position) {
        argv.pair("-map", format!("[{label}]"));
    } else {
        argv.pair("-map", format!("0:{}", video.stream));
        argv.pair("-vf", filter::chain(&video.filters));
    }
}

/// The command line that measures a sound of `plan` after its downmix (MEDIA-RULES §1.14); the summary is on standard
/// error.
#[must_use]
pub fn loudness(plan: &EncodePlan, audio: &AudioPlan, reading: &Reading<'_>) -> Vec<String> {
    let mut argv = Argv::default();
    argv.global("level+info", reading.limits.threads);
    argv.seek(plan.cut);
    argv.0.extend(input_options(reading, LookAhead::Near));
    let mut filters = audio.filters.clone();
    filters.push(Filter::Measure);
    argv.pair("-map", format!("0:{}", audio.stream));
    argv.pair("-af", filter::chain(&filters));
    argv.pair("-f", "null");
    argv.flag("-");
    argv.0
}

/// What is looked for in a source's picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The part that is not black (`cropdetect`), of this many frames that are so far apart.
    Bars {
        /// Frames.
        frames: u32,
        /// One of so many.
        step: u32,
    },
    /// How frames are made of fields (`idet`), of this many.
    Fields {
        /// Frames.
        frames: u32,
    },
}

/// The command line that looks at the picture from the key frame before a place, seconds; its findings are on standard
/// error.
#[must_use]
pub fn look(reading: &Reading<'_>, stream: u32, seconds: f64, look: Look) -> Vec<String> {
    let mut argv = Argv::default();
    argv.global("level+info", reading.limits.threads);
    if seconds > 0.0 {
        // To decode up to the place itself would cost up to a whole group of pictures.
        argv.flag("-noaccurate_seek");
        argv.pair("-ss", format!("{seconds:.3}"));
    }
    argv.0.extend(input_options(reading, LookAhead::Near));
    argv.pair("-map", format!("0:{stream}"));
    let (filters, frames) = match look {
        Look::Fields { frames } => (vec![Filter::CountFields], frames),
        Look::Bars { frames, step } => (vec![Filter::EveryNth(step), Filter::FindBars], frames),
    };
    argv.pair("-vf", filter::chain(&filters));
    argv.pair("-frames:v", frames);
    argv.pair("-fps_mode:v", "passthrough");
    argv.pair("-f", "null");
    argv.flag("-");
    argv.0
}

fn picture(
    argv: &mut Argv,
    format: FileFormat,
    video: &VideoPlan,
    threads: Option<NonZeroU16>,
    pass: Option<&Pass>,
) {
    codec::video(argv, video, threads, pass);
    timed(argv, video);
    if format.is_isobmff() {
        argv.pair("-video_track_timescale", timescale(video.time_base.den()));
        if video.codec == VideoCodec::Hevc {
            // Apple's players take no other tag.
            argv.pair("-tag:v", "hvc1");
        }
    }
}

/// Samples and times of the frames that an encoder gets.
fn timed(argv: &mut Argv, video: &VideoPlan) {
    argv.pair("-pix_fmt:v", video.pix_fmt);
    // Also for even rates: the fps filter has already put every frame on its tick, and ffmpeg's own cfr mode would
    // fill a late start with copies of the first frame.
    argv.pair("-fps_mode:v", "passthrough");
    // The specifier matters: without it the sound's encoder gets these ticks too, and `-t` then cuts it (measured
    // with 5.1.9: one AAC frame left of a second).
    argv.pair("-enc_time_base:v", video.time_base);
}

fn copied(argv: &mut Argv, format: FileFormat, track: &Copied) {
    argv.pair("-map", format!("0:{}", track.stream));
    match track.kind {
        TrackKind::Picture => {
            argv.pair("-c:v", "copy");
            if format.is_isobmff() && track.codec == VideoCodec::Hevc.codec_name() {
                argv.pair("-tag:v", "hvc1");
            }
        }
        TrackKind::Sound => argv.pair("-c:a", "copy"),
    }
}

/// A multiple of the encoder's ticks per second that is as fine as the muxer's own choice would be.
fn timescale(mut ticks: u32) -> u32 {
    while ticks < 10_000 {
        ticks *= 2;
    }
    ticks
}

/// A sound; `track` says which, where the file has several.
fn sound(argv: &mut Argv, audio: &AudioPlan, gain: Option<f64>, track: Option<usize>) {
    let of = |option: &str| track.map_or_else(|| option.to_owned(), |track| format!("{option}:{track}"));
    let mut filters = audio.filters.clone();
    filters.extend(gain.filter(|_| audio.loudness.is_some()).map(Filter::Gain));
    argv.pair("-map", format!("0:{}", audio.stream));
    argv.pair(&track.map_or("-af".to_owned(), |_| of("-filter:a")), filter::chain(&filters));
    argv.pair(&of("-c:a"), audio.codec.encoder());
    argv.pair(&of("-b:a"), audio.bitrate);
    if let Some(track) = track {
        argv.pair(&of("-disposition:a"), if track == 0 { "default" } else { "0" });
    }
}

/// A language as the format takes it.
fn named(language: Language, format: FileFormat) -> Language {
    if format == FileFormat::Mov { language.in_quicktime() } else { language }
}

fn file(argv: &mut Argv, output: &OutputPlan, brake_seconds: f64) {
    // Source metadata may hold places and names; chapters and other tracks are not planned.
    argv.pair("-map_metadata", "-1");
    let copied =
        output.copied.iter().filter(|track| track.kind == TrackKind::Sound).map(|track| track.language);
    let encoded = output.audio.iter().map(|audio| audio.language);
    for (n, language) in copied.chain(encoded).enumerate() {
        if let Some(language) = language.map(|language| named(language, output.format)) {
            argv.pair(&format!("-metadata:s:a:{n}"), format!("language={language}"));
        }
    }
    argv.pair("-map_chapters", "-1");
    if output.captions.is_empty() {
        argv.flag("-sn");
    }
    argv.flag("-dn");
    argv.pair("-t", format!("{brake_seconds:.3}"));
    match output.format {
        FileFormat::Mp4 | FileFormat::Mov | FileFormat::M4a => argv.pair("-movflags", "+faststart"),
        // With `empty_moov` there are no edit lists, and renditions begin at different times (MEDIA-RULES §1.6).
        FileFormat::Fragments => {
            argv.pair("-movflags", "+frag_keyframe+delay_moov+default_base_moof");
            if output.video.is_none() {
                // Every packet of a sound is a key: one fragment about as long as a GOP.
                argv.pair("-frag_duration", SOUND_FRAGMENT_MICROS);
                argv.pair("-min_frag_duration", SOUND_FRAGMENT_MICROS);
            }
        }
        FileFormat::Ts => {
            argv.pair("-muxdelay", 0);
            argv.pair("-muxpreload", 0);
            argv.pair("-mpegts_flags", "+resend_headers");
        }
        FileFormat::Matroska | FileFormat::Webm | FileFormat::Mp3 | FileFormat::Ogg => {}
    }
    argv.pair("-f", output.format.muxer());
    argv.flag(format!("file:{}", output.file_name));
}

/// A command line being written.
#[derive(Debug, Default)]
struct Argv(Vec<String>);

impl Argv {
    fn flag(&mut self, flag: impl Into<String>) {
        self.0.push(flag.into());
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers pass texts and numbers, owned and borrowed, alike"
    )]
    fn pair(&mut self, option: &str, value: impl ToString) {
        self.0.extend([option.to_owned(), value.to_string()]);
    }

    /// What every pass over the pictures begins with.
    fn encoding(plan: &EncodePlan, reading: &Reading<'_>) -> Self {
        let mut argv = Self::default();
        // The counts that verification compares are printed at this level only.
        argv.global("level+verbose", reading.limits.threads);
        // Leftovers of an earlier run in the work folder are replaced, never asked about.
        argv.flag("-y");
        argv.seek(plan.cut);
        argv.0.extend(input_options(reading, LookAhead::Near));
        argv
    }

    /// To the key frame before the cut. Frames before it keep times below zero, so that filters cut them off; ffmpeg's
    /// own exact seeking would count lengths from the key.
    fn seek(&mut self, cut: Option<Cut>) {
        if let Some(cut) = cut.filter(|cut| cut.seeks && !cut.start.is_zero()) {
            self.flag("-noaccurate_seek");
            self.pair("-ss", cut.start);
        }
    }

    fn global(&mut self, level: &str, threads: Option<NonZeroU16>) {
        self.flag("-nostdin");
        self.flag("-hide_banner");
        self.pair("-loglevel", level);
        self.flag("-nostats");
        self.pair("-progress", "pipe:1");
        self.pair("-stats_period", "0.5");
        if let Some(threads) = threads {
            self.pair("-filter_threads", threads);
            self.pair("-filter_complex_threads", threads);
            // Before `-i`: the decoders'.
            self.pair("-threads", threads);
        }
    }
}

#[cfg(test)]
mod tests;
