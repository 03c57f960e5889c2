//! The renditions of a set: which pictures of a ladder are worth making, at which rates, from which larger picture.
//!
//! Rules: MEDIA-RULES §1.5 (rungs against the source), §1.6 (one time zero), §1.8 (GOPs fixed in frames).

use super::size::{self, Geometry};
use super::{AudioPlan, Feed, Filter, Keyframes, OutputPlan, Policy, VideoPlan, picture, sound};
use crate::domain::preset::{
    BitRate, DynamicRange, EncodeSpec, FileFormat, FpsMode, FpsSpec, PackageSpec, Rate, Segment, Sound,
    VideoSpec,
};
use crate::domain::{Code, Failure, MediaInfo, OutputIndex, Rational, VideoStream};

/// A rung with fewer pixels saved than this is not worth its bits (MEDIA-RULES §1.5).
const WORTH: f64 = 0.85;
/// How the rate of a picture follows its size (MEDIA-RULES §1.5).
const RATE_BY_PIXELS: f64 = 0.75;
/// By how much a rate may pass a limit and still count as it: 30.3 of a jittery phone clip.
const JITTER: f64 = 1.05;

/// A picture of the set, on its way.
struct Candidate {
    name: String,
    spec: VideoSpec,
    geometry: Geometry,
    /// The top's frame rate divided by this.
    divisor: u32,
}

/// All files that a set is cut from, in order; `first` is the place that the first of them takes in the plan.
pub(super) fn plan(
    info: &MediaInfo,
    index: OutputIndex,
    spec: &EncodeSpec,
    package: &PackageSpec,
    policy: &Policy,
    first: usize,
) -> Result<Vec<OutputPlan>, Failure> {
    let mut warnings = Vec::new();
    let pictures = match spec.encoded_picture() {
        None => Vec::new(),
        Some(wanted) => {
            let stream = info.main_video().ok_or_else(|| {
                Failure::new(Code::NoVideoStream, "the output needs a picture and the source has none")
            })?;
            pictures(stream, spec, wanted, policy, first, &mut warnings)?
        }
    };
    let sounds = spec.encoded_sound().map(|wanted| sound::tracks(info, wanted)).unwrap_or_default();
    warnings.extend(spec.encoded_sound().and_then(|wanted| sound::missing(info, wanted)));
    let needed = spec.audio.as_ref().is_some_and(Sound::is_required) || pictures.is_empty();
    if needed && sounds.is_empty() {
        return Err(Failure::new(Code::NoAudioStream, "the output needs sound and the source has none"));
    }
    let mut files = match package.segment {
        Segment::Fmp4 => apart(index, pictures, sounds),
        Segment::Ts => together(index, pictures, sounds.first()),
    };
    if let Some(file) = files.first_mut() {
        // Said once, of the whole output.
        warnings.append(&mut file.warnings);
        file.warnings = warnings;
    }
    Ok(files)
}

fn apart(index: OutputIndex, pictures: Vec<(String, VideoPlan)>, sounds: Vec<AudioPlan>) -> Vec<OutputPlan> {
    let format = FileFormat::Fragments;
    let pictures =
        pictures.into_iter().map(|(name, video)| file(index, name, format, Some(from_zero(video)), vec![]));
    let sounds = sounds
        .into_iter()
        .enumerate()
        .map(|(n, audio)| file(index, format!("audio_{n}"), format, None, vec![audio]));
    pictures.chain(sounds).collect()
}

/// Renditions that players put together begin at one time (MEDIA-RULES §1.6), also where the source's picture begins
/// after its sound.
fn from_zero(mut video: VideoPlan) -> VideoPlan {
    if video.feed == Feed::Source {
        for filter in &mut video.filters {
            if let Filter::Fps(rate) = *filter {
                *filter = Filter::FpsFromZero(rate);
            }
        }
    }
    video
}

fn together(
    index: OutputIndex,
    pictures: Vec<(String, VideoPlan)>,
    sound: Option<&AudioPlan>,
) -> Vec<OutputPlan> {
    let pictures = pictures.into_iter().map(|(name, video)| (name, from_zero(video)));
    pictures
        .map(|(name, video)| {
            file(index, name, FileFormat::Ts, Some(video), sound.cloned().into_iter().collect())
        })
        .collect()
}

fn file(
    index: OutputIndex,
    rendition: String,
    format: FileFormat,
    video: Option<VideoPlan>,
    audio: Vec<AudioPlan>,
) -> OutputPlan {
    let file_name = format!("out-{index}-{rendition}.{}", format.extension());
    let rendition = Some(rendition);
    OutputPlan {
        index,
        rendition,
        format,
        file_name,
        video,
        audio,
        copied: Vec::new(),
        captions: Vec::new(),
        rank: 0,
        warnings: Vec::new(),
    }
}

fn pictures(
    stream: &VideoStream,
    spec: &EncodeSpec,
    video: &VideoSpec,
    policy: &Policy,
    first: usize,
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, VideoPlan)>, Failure> {
    let whole = stream;
    let stream = &super::frame::of(stream, video)?.stream;
    // Sets have an even frame rate whatever the source has.
    let even = VideoSpec { fps: FpsSpec { mode: FpsMode::Cfr, ..video.fps }, ..video.clone() };
    let mut rungs: Vec<Candidate> = if spec.ladder.is_empty() {
        vec![candidate(stream, "video".to_owned(), even.clone())]
    } else {
        let rungs = spec.ladder.iter();
        rungs.map(|rung| candidate(stream, rung.name.to_string(), rung.over(&even))).collect()
    };
    if rungs.len() > 1 {
        rungs = worthwhile(stream, rungs, warnings);
    }
    let Some(top) = rungs.first() else { return Ok(Vec::new()) };
    let top = picture(whole, &VideoSpec { fps: even.fps, ..top.spec.clone() }, policy, warnings)?;
    let rate = top.frame_rate.ok_or_else(|| Failure::new(Code::Internal, "an even rate was not decided"))?;
    for rung in &mut rungs {
        rung.divisor = divisor(rate, rung.spec.fps.max);
    }
    // The keys of all rungs stand at the same times only if the top's GOP can be divided like its rate.
    let common = rungs.iter().fold(1, |all, rung| lcm(all, rung.divisor));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "20 s of at most 120 fps")]
    let frames = (f64::from(video.gop_seconds) * rate.as_f64() / f64::from(common)).round().max(1.0) as u32;
    let mut plans = Vec::with_capacity(rungs.len());
    for rung in &rungs {
        let own = divided(rate, rung.divisor);
        let fps = FpsSpec { mode: FpsMode::Cfr, value: Some(own), max: None };
        let spec = VideoSpec { fps, ..rung.spec.clone() };
        let mut told = Vec::new();
        let mut plan = picture(whole, &spec, policy, &mut told)?;
        // The first's were told before, and sizes are each rung's own business.
        told.retain(|warning| warning == "tone_mapped" && !warnings.contains(warning));
        warnings.append(&mut told);
        plan.keyframes = Keyframes::Every(frames * common / rung.divisor);
        let gives = |larger: &VideoPlan| {
            let covers = larger.width >= plan.width && larger.height >= plan.height;
            covers && larger.pix_fmt == plan.pix_fmt && larger.color == plan.color
        };
        let larger = rungs
            .iter()
            .zip(&plans)
            .rposition(|(larger, (_, made))| rung.divisor.is_multiple_of(larger.divisor) && gives(made));
        if let Some(larger) = larger {
            let slower = (rungs[larger].divisor != rung.divisor).then_some(Filter::Fps(own));
            plan.filters = super::filter::smaller(slower, &plan);
            plan.feed = Feed::Picture(first + larger);
        }
        plans.push((rung.name.clone(), plan));
    }
    Ok(plans)
}

fn candidate(stream: &VideoStream, name: String, spec: VideoSpec) -> Candidate {
    let geometry = size::fit(stream, &spec);
    Candidate { name, spec, geometry, divisor: 1 }
}

/// The rungs that the source is worth; at least one. Those of one codec, depth and range are a ladder, the ladders stand as
/// their first rungs did.
fn worthwhile(stream: &VideoStream, mut rungs: Vec<Candidate>, warnings: &mut Vec<String>) -> Vec<Candidate> {
    let all: Vec<String> = rungs.iter().map(|rung| rung.name.clone()).collect();
    let keeps = |rung: &Candidate| rung.spec.range == DynamicRange::Keep;
    if !stream.color.is_hdr() && !rungs.iter().all(keeps) {
        // There is nothing to keep.
        rungs.retain(|rung| !keeps(rung));
    }
    let kind = |rung: &Candidate| (rung.spec.codec, rung.spec.bit_depth, rung.spec.range);
    let mut ladders: Vec<Vec<Candidate>> = Vec::new();
    for rung in rungs {
        let own =
            |ladder: &&mut Vec<Candidate>| ladder.first().is_some_and(|first| kind(first) == kind(&rung));
        match ladders.iter_mut().find(own) {
            Some(ladder) => ladder.push(rung),
            None => ladders.push(vec![rung]),
        }
    }
    let kept: Vec<Candidate> = ladders.into_iter().flat_map(|ladder| collapsed(stream, ladder)).collect();
    let dropped: Vec<_> = all.into_iter().filter(|name| kept.iter().all(|rung| rung.name != *name)).collect();
    if !dropped.is_empty() {
        warnings.push(format!("rungs_dropped: {}", dropped.join(", ")));
    }
    kept
}

/// The rungs of one ladder that the source is worth, largest first.
fn collapsed(stream: &VideoStream, mut rungs: Vec<Candidate>) -> Vec<Candidate> {
    rungs.sort_by_key(|rung| (std::cmp::Reverse(pixels(&rung.geometry)), area(&rung.spec)));
    // Those that would be the source's own picture: the one with the smallest box stands for all.
    let own = rungs.first().map(|top| pixels(&top.geometry));
    let at_top = rungs.iter().take_while(|rung| Some(pixels(&rung.geometry)) == own).count();
    rungs.drain(1..at_top.max(1));
    if let Some(top) = rungs.first_mut().filter(|top| top.geometry.not_upscaled) {
        let share = ratio(pixels(&top.geometry), fitted(stream, &top.spec)).powf(RATE_BY_PIXELS);
        top.spec.rate = scaled(top.spec.rate, share);
    }
    let mut kept: Vec<Candidate> = Vec::new();
    for rung in rungs {
        let worth =
            kept.last().is_none_or(|larger| ratio(pixels(&rung.geometry), pixels(&larger.geometry)) <= WORTH);
        if worth {
            kept.push(rung);
        }
    }
    kept
}

/// Pixels of the picture that the box was made for: the source's shape, as large as the box takes it.
fn fitted(stream: &VideoStream, spec: &VideoSpec) -> u64 {
    pixels(&size::fit(stream, &VideoSpec { upscale: true, ..spec.clone() }))
}

fn pixels(geometry: &Geometry) -> u64 {
    u64::from(geometry.width) * u64::from(geometry.height)
}

fn area(spec: &VideoSpec) -> u64 {
    spec.bounds.map_or(u64::MAX, |bounds| u64::from(bounds.width()) * u64::from(bounds.height()))
}

#[expect(clippy::cast_precision_loss, reason = "at most 2^28 pixels")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b.max(1) as f64
}

fn scaled(rate: Rate, share: f64) -> Rate {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a percentage from 0 to 100")]
    let percent = (share * 100.0).round().clamp(1.0, 100.0) as u32;
    let scale = |rate: BitRate| rate.percent(percent);
    match rate {
        Rate::Crf { crf } => Rate::Crf { crf },
        Rate::CappedCrf { crf, max, buffer } => {
            Rate::CappedCrf { crf, max: scale(max), buffer: buffer.map(scale) }
        }
        Rate::Bitrate { target, max, buffer, passes } => {
            Rate::Bitrate { target: scale(target), max: max.map(scale), buffer: buffer.map(scale), passes }
        }
    }
}

/// By what the top's rate is divided to fit: frames of all rungs then stand at the same times.
fn divisor(rate: Rational, max: Option<u32>) -> u32 {
    let Some(max) = max else { return 1 };
    (1..=16).find(|n| rate.as_f64() / f64::from(*n) <= f64::from(max) * JITTER).unwrap_or(16)
}

fn divided(rate: Rational, by: u32) -> Rational {
    Rational::new(rate.num(), rate.den().saturating_mul(by)).unwrap_or(rate)
}

fn lcm(a: u32, b: u32) -> u32 {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a / x.max(1) * b
}
