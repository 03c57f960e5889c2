//! Is the output exact? Tracks against the plan (V6), packets against the encoder's account (V1), frames against the
//! decoder's (V2), spans (V3, V4) and the offset of sound to picture (V5). Tolerances: MEDIA-RULES §2.

use super::packets::{PacketTable, StreamPackets};
use super::{VerifyRequest, failed};
use crate::domain::preset::{FileFormat, VideoCodec};
use crate::domain::{ColorRange, Failure, MediaInfo, Rational, Rotation};
use crate::media::encode::{EncodedStream, GridStatistics};
use crate::media::plan::{AudioPlan, Cadence, Keyframes, OutputPlan, Timing, TrackKind, VideoPlan};
use crate::media::probe::{Document, Stream};

/// Clips below this are all edges: counts and tracks are checked, spans are not (MEDIA-RULES §2).
const TINY_SECONDS: f64 = 1.0;
const TINY_FRAMES: u64 = 10;
/// A millisecond: Matroska's tick.
const TICK: f64 = 0.001;

/// Where an output's streams begin and end.
#[derive(Debug, Default)]
pub(super) struct Spans {
    pub(super) video: Option<Span>,
    /// Of each sound, in the file's order.
    pub(super) audio: Vec<Span>,
    /// The longest time between two frames that follow each other, and where, seconds.
    pub(super) longest_gap: Option<(f64, f64)>,
    /// Time without sound inside the sound, as the source's own timestamps have it, seconds.
    pub(super) silence: Option<f64>,
}

/// One stream's span.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// Seconds.
    pub(super) start: f64,
    /// Seconds.
    pub(super) end: f64,
    pub(super) packets: u64,
    pub(super) base: Rational,
}

impl Spans {
    /// The span of all streams, seconds.
    pub(super) fn seconds(&self) -> f64 {
        let all = || self.video.iter().chain(&self.audio);
        let start = all().map(|span| span.start).fold(f64::INFINITY, f64::min);
        let end = all().map(|span| span.end).fold(f64::NEG_INFINITY, f64::max);
        (end - start).max(0.0)
    }
}

/// V6: the planned streams exactly.
pub(super) fn check_tracks(plan: &OutputPlan, document: &Document) -> Result<(), Failure> {
    let planned =
        usize::from(plan.video.is_some()) + plan.audio.len() + plan.copied.len() + plan.captions.len();
    if document.streams.len() != planned {
        return Err(failed(format_args!("it has {} streams instead of {planned}", document.streams.len())));
    }
    if let Some(video) = &plan.video {
        check_picture(video, document)?;
    }
    let mut sounds = document.streams.iter().filter(|stream| stream.codec_type.as_deref() == Some("audio"));
    for audio in &plan.audio {
        check_sound(audio, sounds.next())?;
    }
    for track in &plan.copied {
        let stream = document.streams.iter().find(|stream| is(stream, track.kind));
        let found = stream.and_then(|stream| stream.codec_name.as_deref()).unwrap_or("unknown");
        if found != track.codec {
            return Err(failed(format_args!("a copied track is {found} instead of {}", track.codec)));
        }
    }
    let text = document.streams.iter().filter(|stream| stream.codec_type.as_deref() == Some("subtitle"));
    let found: Vec<_> = text.map(|stream| stream.codec_name.as_deref().unwrap_or("unknown")).collect();
    let planned: Vec<_> = plan.captions.iter().map(|captions| captions.codec).collect();
    if found != planned {
        return Err(failed(format_args!("its subtitles are {found:?} instead of {planned:?}")));
    }
    Ok(())
}

fn is(stream: &Stream, kind: TrackKind) -> bool {
    let named = match kind {
        TrackKind::Picture => "video",
        TrackKind::Sound => "audio",
    };
    stream.codec_type.as_deref() == Some(named)
}

fn check_picture(plan: &VideoPlan, document: &Document) -> Result<(), Failure> {
    let Some(stream) = document.streams.iter().find(|s| s.codec_type.as_deref() == Some("video")) else {
        return Err(failed("it has no picture"));
    };
    let same = |what: &str, found: &str, planned: &str| {
        if found == planned {
            Ok(())
        } else {
            Err(failed(format_args!("its {what} is {found} instead of {planned}")))
        }
    };
    let (codec, pix_fmt) = (stream.codec_name.as_deref(), stream.pix_fmt.as_deref());
    same("codec", codec.unwrap_or("unknown"), plan.codec.codec_name())?;
    same("size", &format!("{}x{}", stream.width, stream.height), &format!("{}x{}", plan.width, plan.height))?;
    same("pixel format", pix_fmt.unwrap_or("unknown"), plan.pix_fmt)?;
    let unit = if plan.codec == VideoCodec::H264 { 10 } else { 30 };
    if let (Some(planned), Some(found)) = (plan.level, stream.level)
        && found * 10 > i32::from(planned.tenths()) * unit
    {
        return Err(failed(format_args!(
            "its level {:.1} is above the planned {planned}",
            f64::from(found) / f64::from(unit)
        )));
    }
    if stream.is_cover() || stream.rotation() != Rotation::None {
        return Err(failed("its picture is a cover or still turned"));
    }
    if stream.sar().is_some_and(|sar| sar != Rational::ONE) {
        return Err(failed("its pixels are not square"));
    }
    let color = stream.color();
    let planned = &plan.color;
    for (what, found, wanted) in [
        ("matrix", &color.matrix, &planned.matrix),
        ("primaries", &color.primaries, &planned.primaries),
        ("transfer", &color.transfer, &planned.transfer),
    ] {
        let wanted = if wanted.is_empty() { "unknown" } else { wanted };
        same(what, found.as_deref().unwrap_or("unknown"), wanted)?;
    }
    // Limited is what every decoder takes an untagged picture for.
    let range = if color.range == Some(ColorRange::Full) { "pc" } else { "tv" };
    same("range", range, planned.range)
}

fn check_sound(plan: &AudioPlan, stream: Option<&Stream>) -> Result<(), Failure> {
    let Some(stream) = stream else {
        return Err(failed("it has no sound"));
    };
    let found = format!(
        "{} {} Hz, {} channels",
        stream.codec_name.as_deref().unwrap_or("unknown"),
        stream.sample_rate.as_deref().unwrap_or("?"),
        stream.channels
    );
    let planned = format!("{} {} Hz, {} channels", plan.codec.codec_name(), plan.sample_rate, plan.channels);
    if found == planned {
        Ok(())
    } else {
        Err(failed(format_args!("its sound is {found} instead of {planned}")))
    }
}

/// V1 to V5.
pub(super) fn check_counts(
    request: &VerifyRequest<'_>,
    plan: &OutputPlan,
    document: &Document,
    table: &PacketTable,
) -> Result<Spans, Failure> {
    let mut spans = Spans::default();
    for stream in &document.streams {
        if stream.codec_type.as_deref() == Some("subtitle") {
            let written = request.report.output(request.place).find(|e| e.index == stream.index);
            let found = table.stream(stream.index).map_or(0, |packets| packets.count);
            check_texts(found, written.map_or(0, |written| written.packets), plan.format)?;
            continue;
        }
        let packets = table.stream(stream.index)?;
        let base = stream.time_base.as_deref().and_then(|text| text.parse().ok()).unwrap_or(Rational::ONE);
        let encoded = request.report.output(request.place).find(|e| e.index == stream.index);
        let encoded = encoded.ok_or_else(|| failed("the encoder gave no account of it"))?;
        if packets.count != encoded.packets {
            let (found, written) = (packets.count, encoded.packets);
            return Err(failed(format_args!(
                "stream {} has {found} packets of {written} written",
                stream.index
            )));
        }
        if packets.empty > 0 || packets.timeless > 0 {
            return Err(failed("it has packets without bytes or times"));
        }
        let span = span(packets, base)?;
        match (stream.codec_type.as_deref(), &plan.video, plan.audio.get(spans.audio.len())) {
            (Some("video"), Some(video), _) => {
                check_frames(request, video, encoded)?;
                check_picture_times(video, packets, span)?;
                spans.longest_gap = longest_gap(packets, base);
                spans.video = Some(span);
            }
            (Some("audio"), _, Some(audio)) => {
                let silence = check_samples(request, audio, encoded, span)?;
                spans.silence = [spans.silence, silence].into_iter().flatten().reduce(f64::max);
                spans.audio.push(span);
            }
            // Nothing of a copied track was decoded: its packets are counted (MEDIA-RULES §2).
            (Some("video"), None, _) => spans.video = Some(span),
            (Some("audio"), _, None) => spans.audio.push(span),
            _ => {}
        }
    }
    check_offset(request, plan, &spans)?;
    check_clip(request, plan, &spans)?;
    Ok(spans)
}

/// Every text is in the file. MP4 fills the time between them with empty ones.
fn check_texts(found: u64, written: u64, format: FileFormat) -> Result<(), Failure> {
    let whole = if format.is_isobmff() { found >= written } else { found == written };
    if whole {
        return Ok(());
    }
    Err(failed(format_args!("it has {found} texts of subtitles of {written} written")))
}

fn span(packets: &StreamPackets, base: Rational) -> Result<Span, Failure> {
    let (Some(first), Some(end)) = (packets.first(), packets.end) else {
        return Err(failed("nothing in it is shown"));
    };
    Ok(Span { start: seconds(first, base), end: seconds(end, base), packets: packets.count, base })
}

/// V1 and V2: every frame given to the encoder is in the file, and every decoded frame was given.
fn check_frames(
    request: &VerifyRequest<'_>,
    plan: &VideoPlan,
    encoded: &EncodedStream,
) -> Result<(), Failure> {
    if encoded.frames != encoded.packets {
        let (frames, packets) = (encoded.frames, encoded.packets);
        return Err(failed(format_args!("{frames} frames were encoded, {packets} written")));
    }
    let decoded = request.report.decoded_stream(plan.stream).map_or(0, |stream| stream.frames);
    // What the chain gives before any change of rate.
    let joined = if plan.cadence == Cadence::Doubled { decoded * 2 } else { decoded };
    let exact = match plan.timing {
        // How many of the decoded frames lie in the clip, nobody says; its length is checked.
        _ if request.plan.cut.is_some() => encoded.frames > 0,
        Timing::Passthrough => encoded.frames == joined,
        // The filter says what it took and gave; without its word, the rates must agree within a frame.
        Timing::Cfr(rate) => {
            let grids = &request.report.grids;
            if grids.is_empty() {
                on_grid(request, plan, rate, decoded, encoded.frames)
            } else {
                let of_source = |grid: &&GridStatistics| grid.taken == joined;
                // What reaches the next grid: everything, or four of five. The last five may be fewer.
                let left = |given: u64| if plan.cadence == Cadence::Film { given * 4 / 5 } else { given };
                let slack = if plan.cadence == Cadence::Film { 2 } else { 0 };
                let film = |grid: &GridStatistics| {
                    plan.cadence == Cadence::Film && left(grid.given).abs_diff(encoded.frames) <= slack
                };
                // A picture with fewer frames is made of a larger one, which has a grid of its own.
                let fed = |grid: &GridStatistics| {
                    let mut firsts = grids.iter().filter(of_source);
                    of_source(&grid) || firsts.any(|first| left(first.given).abs_diff(grid.taken) <= slack)
                };
                grids.iter().any(|grid| fed(grid) && grid.given.abs_diff(encoded.frames) <= 1)
                    || grids.iter().filter(of_source).any(film)
            }
        }
    };
    if exact {
        return Ok(());
    }
    Err(failed(format_args!("{decoded} frames were decoded, {} encoded", encoded.frames)))
}

/// N = round(span × rate) ± 1, where the span follows from an even source rate; nothing to say otherwise.
fn on_grid(
    request: &VerifyRequest<'_>,
    plan: &VideoPlan,
    rate: Rational,
    decoded: u64,
    encoded: u64,
) -> bool {
    let source = request.source.video.iter().find(|video| video.index == plan.stream);
    let Some(from) = source.filter(|video| !video.variable_rate).and_then(|video| video.frame_rate) else {
        return encoded > 0;
    };
    (count(decoded) * rate.as_f64() / from.as_f64() - count(encoded)).abs() <= 1.5
}

/// Frames are shown one after the other, begin with a key frame, and keys come as often as planned; V3 for even rates.
fn check_picture_times(plan: &VideoPlan, packets: &StreamPackets, span: Span) -> Result<(), Failure> {
    let times = packets.sorted();
    if times.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(failed("two frames have the same time"));
    }
    if packets.keys.first() != Some(&true) {
        return Err(failed("it does not begin with a key frame"));
    }
    let (longest, most) = (packets.longest_group(), plan.keyframes.longest() as usize);
    if most > 0 && longest > most {
        return Err(failed(format_args!("{longest} frames follow a key frame, {most} were planned")));
    }
    if let Keyframes::Every(frames) = plan.keyframes {
        let stray =
            packets.keys.iter().enumerate().position(|(n, key)| *key != n.is_multiple_of(frames as usize));
        if let Some(at) = stray {
            return Err(failed(format_args!("frame {at} breaks the rhythm of {frames} frames a GOP")));
        }
    }
    let Timing::Cfr(rate) = plan.timing else {
        return Ok(());
    };
    if span.packets < TINY_FRAMES {
        return Ok(());
    }
    let (found, planned) = (span.end - span.start, count(span.packets) / rate.as_f64());
    if (found - planned).abs() > 1.0 / rate.as_f64() + TICK {
        return Err(failed(format_args!("its picture lasts {found:.3} s instead of {planned:.3} s")));
    }
    Ok(())
}

/// V4: samples given to the encoder are in the file, and none of the decoded is missing. Gives the time that the
/// source's timestamps leave without sound (phones' AMR in 3GP, dropped packets of broadcasts).
fn check_samples(
    request: &VerifyRequest<'_>,
    plan: &AudioPlan,
    encoded: &EncodedStream,
    span: Span,
) -> Result<Option<f64>, Failure> {
    let Some(samples) = encoded.samples else {
        return Ok(None);
    };
    let (given, found) = (count(samples) / f64::from(plan.sample_rate), span.end - span.start);
    let frame = f64::from(plan.codec.frame_samples()) / f64::from(plan.sample_rate);
    // One frame of priming at the start, one of padding at the end; Opus looks 20 ms ahead.
    let edges = 2.0 * frame + 0.02 + TICK;
    if given > TINY_SECONDS && found < given - edges {
        return Err(failed(format_args!("its sound lasts {found:.3} s, {given:.3} s were encoded")));
    }
    let source = request.source.audio.iter().find(|audio| audio.index == plan.stream);
    let decoded = request.report.decoded_stream(plan.stream);
    if let (None, Some(rate @ 1..), Some(decoded)) =
        (request.plan.cut, source.map(|a| a.sample_rate), decoded.and_then(|d| d.samples))
    {
        let decoded = count(decoded) / f64::from(rate);
        // Resampling may drop overlaps of a recording's clock, never more than 1 %.
        if decoded > TINY_SECONDS && given < decoded - (2.0 * frame + 0.05).max(decoded * 0.01) {
            return Err(failed(format_args!("{decoded:.3} s of sound were decoded, {given:.3} s encoded")));
        }
    }
    Ok(Some(found - given).filter(|gap| *gap > edges))
}

/// No track of a clip is longer than was asked for, nor shorter where the source's track begins before and ends well
/// after it: declared lengths are up to 2 s too long (MEDIA-RULES §2).
fn check_clip(request: &VerifyRequest<'_>, plan: &OutputPlan, spans: &Spans) -> Result<(), Failure> {
    const MAY_END: f64 = 2.0;
    let Some((cut, wanted)) = request.plan.cut.and_then(|cut| Some((cut, cut.duration?.seconds()))) else {
        return Ok(());
    };
    let zero = timeline_zero(request.source).unwrap_or_default();
    let covers = |track: Option<(Option<f64>, Option<f64>)>| {
        track.and_then(|(start, duration)| start.zip(duration)).is_some_and(|(start, duration)| {
            let (begins, ends) = (start - zero, start - zero + duration);
            begins <= cut.start.seconds() && cut.start.seconds() + wanted + MAY_END < ends
        })
    };
    let check = |what: &str, span: Option<Span>, edges: f64, whole: bool| match span {
        Some(span) => {
            let found = span.end - span.start;
            if found > wanted + edges || (whole && found < wanted - edges) {
                let said = format!("the {what} of its clip lasts {found:.3} s instead of {wanted:.3} s");
                return Err(failed(said));
            }
            Ok(())
        }
        None => Ok(()),
    };
    if let Some(video) = &plan.video {
        let source = request.source.video.iter().find(|source| source.index == video.stream);
        let whole = covers(source.map(|source| (source.start_seconds, source.duration_seconds)));
        let frame = video.frame_rate.map_or(0.25, |rate| 1.0 / rate.as_f64()).min(0.25);
        // The source's own frames may stand anywhere: only an even rate says where the last one is.
        check("picture", spans.video, 2.0 * frame + TICK, whole && video.timing != Timing::Passthrough)?;
    }
    for (audio, span) in plan.audio.iter().zip(&spans.audio) {
        let source = request.source.audio.iter().find(|source| source.index == audio.stream);
        let whole = covers(source.map(|source| (source.start_seconds, source.duration_seconds)));
        // The codec's frames at both ends.
        check("sound", Some(*span), 0.1 + TICK, whole)?;
    }
    Ok(())
}

/// Where the earliest track begins, seconds: what plans count from.
fn timeline_zero(source: &MediaInfo) -> Option<f64> {
    let starts = source.video.iter().map(|video| video.start_seconds);
    starts.chain(source.audio.iter().map(|audio| audio.start_seconds)).flatten().reduce(f64::min)
}

/// V5: the picture begins as long after the sound as it does after the earliest stream of the source.
fn check_offset(request: &VerifyRequest<'_>, plan: &OutputPlan, spans: &Spans) -> Result<(), Failure> {
    let (Some(video), Some(video_plan)) = (spans.video, &plan.video) else {
        return Ok(());
    };
    for (sound, audio) in plan.audio.iter().zip(&spans.audio) {
        check_offset_of(request, plan, (video_plan, video), (sound, *audio))?;
    }
    Ok(())
}

fn check_offset_of(
    request: &VerifyRequest<'_>,
    plan: &OutputPlan,
    (video_plan, video): (&VideoPlan, Span),
    (audio_plan, audio): (&AudioPlan, Span),
) -> Result<(), Failure> {
    let Some(source) = request.source.video.iter().find(|v| v.index == video_plan.stream) else {
        return Ok(());
    };
    // The plan leads late sound in by silence, so it begins where the earliest stream does.
    let (Some(video_start), Some(zero)) = (source.start_seconds, timeline_zero(request.source)) else {
        return Ok(());
    };
    // A recording that begins between key frames shows its first frame later than its header says.
    // So does a sound codec whose first packet only fills the decoder (WMA).
    let late = |stream: u32| {
        request.report.decoded_stream(stream).is_some_and(|d| d.early_errors > 0 || d.frames < d.packets)
    };
    if late(video_plan.stream) || late(audio_plan.stream) {
        return Ok(());
    }
    let found = video.start - audio.start;
    let cut = request.plan.cut.map_or(0.0, |cut| cut.start.seconds());
    // In a set the picture begins with the timeline.
    let wanted = if plan.rendition.is_some() { 0.0 } else { (video_start - zero - cut).max(0.0) };
    let rate = match video_plan.timing {
        Timing::Cfr(rate) => Some(rate),
        Timing::Passthrough => source.frame_rate,
    };
    let frame = rate.map_or(0.05, |rate| 1.0 / rate.as_f64()).min(0.25);
    let codec_frame = f64::from(audio_plan.codec.frame_samples()) / f64::from(audio_plan.sample_rate);
    let container = match plan.format {
        FileFormat::Mp4 | FileFormat::Fragments | FileFormat::M4a | FileFormat::Mov => TICK,
        // WebM and Matroska carry whole milliseconds and Opus's look-ahead; the others have no edit lists, so that
        // what fills the decoder first is played.
        FileFormat::Webm | FileFormat::Matroska => 0.01,
        FileFormat::Ts | FileFormat::Mp3 | FileFormat::Ogg => codec_frame,
    };
    if (found - wanted).abs() > frame + codec_frame + container {
        return Err(failed(format_args!(
            "its picture begins {found:.3} s after its sound, in the source it is {wanted:.3} s"
        )));
    }
    Ok(())
}

fn longest_gap(packets: &StreamPackets, base: Rational) -> Option<(f64, f64)> {
    let times = packets.sorted();
    let (gap, at) = times.windows(2).map(|pair| (pair[1] - pair[0], pair[0])).max()?;
    Some((seconds(gap, base), seconds(at, base)))
}

/// Ticks to seconds.
#[expect(clippy::cast_precision_loss, reason = "below 2^53 for 12 h in any time base")]
pub(super) fn seconds(ticks: i64, base: Rational) -> f64 {
    ticks as f64 * base.as_f64()
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn count(number: u64) -> f64 {
    number as f64
}
