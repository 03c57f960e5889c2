//! Looking at the picture before it is planned: what headers do not say, or lie about.
//!
//! Each question is asked only where an output depends on the answer, of a few places of the source, each with one short
//! decode. What cannot be measured is not known: a look that fails or takes too long never fails the job, the encode finds
//! the same truth with better words. The decisions are pure ([`bars`], [`fields`]).
//! To ask something new: a field of [`crate::domain::Measured`], its decision beside `bars`, its filter in `argv::look`.

mod bars;
mod fields;
mod mastering;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Toolbox;
use super::argv::{self, Look, LookAhead, Reading};
use super::process::{Finished, Reach, RunError, Spec, run};
use crate::domain::preset::{Crop, Deinterlace, DynamicRange, EncodeSpec};
use crate::domain::{Area, Code, Demuxer, Failure, Mastering, MediaInfo, Scan, VideoStream};

/// Longest look at one place. Three seconds of 4K take less than ten on one core; a slow origin may need more.
const TIME: Duration = Duration::from_secs(30);

/// Most bytes of what is said of one frame.
const DOCUMENT: usize = 256 * 1024;

/// Looks at the picture of a source as far as these outputs need it, and gives the source with what was measured.
///
/// # Errors
/// `cancelled`; nothing else.
pub async fn measure(
    toolbox: &Toolbox,
    reading: &Reading<'_>,
    mut info: MediaInfo,
    outputs: &[&EncodeSpec],
    cancel: &CancellationToken,
) -> Result<MediaInfo, Failure> {
    let Some(stream) = info.main_video().cloned() else { return Ok(info) };
    let looker = Looker { toolbox, reading, stream: &stream, seconds: span(&info, &stream), cancel };
    let mut measured = stream.measured;
    let pictures = || outputs.iter().filter_map(|output| output.encoded_picture());
    if pictures().any(|video| video.crop == Crop::Auto) {
        measured.lit = looker.lit().await?;
    }
    let by_measurement = |wanted: Deinterlace| matches!(wanted, Deinterlace::Auto | Deinterlace::Field);
    if pictures().any(|video| by_measurement(video.deinterlace)) && fields::may_have(&stream) {
        measured.scan = looker.scan().await?;
    }
    let keeps =
        outputs.iter().flat_map(|output| output.pictures()).any(|video| video.range == DynamicRange::Keep);
    if keeps && stream.color.is_hdr() {
        measured.mastering = looker.mastering().await?;
    }
    for seen in info.video.iter_mut().filter(|seen| seen.index == stream.index) {
        seen.measured = measured;
    }
    Ok(info)
}

/// How long the picture is said to last, seconds.
fn span(info: &MediaInfo, stream: &VideoStream) -> Option<f64> {
    // Elementary streams have no index to seek by, and guess their length from a bit rate.
    let seekable = !matches!(
        info.container,
        Demuxer::H264 | Demuxer::Hevc | Demuxer::M4v | Demuxer::Mpegvideo | Demuxer::Gif
    );
    stream.duration_seconds.or(info.duration_seconds).filter(|seconds| seekable && *seconds > 0.0)
}

/// Asks one source.
struct Looker<'a> {
    toolbox: &'a Toolbox,
    reading: &'a Reading<'a>,
    stream: &'a VideoStream,
    seconds: Option<f64>,
    cancel: &'a CancellationToken,
}

impl Looker<'_> {
    /// What the black bars leave, if there are any for certain.
    async fn lit(&self) -> Result<Option<Area>, Failure> {
        let whole = super::plan::upright(self.stream);
        let mut seen = Vec::new();
        for place in bars::places(self.seconds) {
            let look = Look::Bars { frames: bars::FRAMES, step: bars::STEP };
            let Some(log) = self.at(place, look).await? else { continue };
            let Some(place) = bars::read(&log) else { continue };
            seen.push(place);
            if bars::is_whole(place, whole) {
                // No other place can make bars of what is lit here.
                return Ok(None);
            }
        }
        Ok(bars::decide(&seen, whole))
    }

    /// How the frames are made; `None` = nothing could be seen.
    async fn scan(&self) -> Result<Option<Scan>, Failure> {
        let (mut counts, mut seen) = (fields::Counts::default(), false);
        for (place, frames) in fields::places(self.seconds, self.stream.frame_rate) {
            let Some(log) = self.at(place, Look::Fields { frames }).await? else { continue };
            fields::read(&log, &mut counts);
            seen = true;
            if fields::is_clear(counts, self.stream) {
                break;
            }
        }
        Ok(seen.then(|| fields::decide(counts, self.stream)))
    }

    /// Static metadata of the first frame.
    async fn mastering(&self) -> Result<Option<Mastering>, Failure> {
        let mut args: Vec<String> =
            ["-hide_banner", "-loglevel", "level+error", "-of", "json"].map(String::from).into();
        args.extend(["-select_streams".to_owned(), self.stream.index.to_string()]);
        args.extend(
            ["-show_frames", "-show_entries", "frame=side_data_list", "-read_intervals", "%+#1"]
                .map(String::from),
        );
        args.extend(argv::input_options(self.reading, LookAhead::Near));
        let reach = Reach::reading(self.reading.input);
        let spec = Spec::new(&self.toolbox.tools.ffprobe, args, "/").confined(reach);
        let found = self.run(spec, DOCUMENT).await?;
        Ok(found.and_then(|finished| mastering::read(&finished.stdout)))
    }

    /// The log of one look; `None` = it showed nothing.
    async fn at(&self, seconds: f64, look: Look) -> Result<Option<Vec<String>>, Failure> {
        let argv = argv::look(self.reading, self.stream.index, seconds, look);
        let reach = Reach::reading(self.reading.input);
        let spec = Spec::new(&self.toolbox.tools.ffmpeg, argv, "/").confined(reach);
        Ok(self.run(spec, 0).await?.map(|finished| finished.log))
    }

    /// A tool that did its work; `None` = it did not.
    async fn run(&self, spec: Spec, most: usize) -> Result<Option<Finished>, Failure> {
        match run(&self.toolbox.spawner, spec, (TIME, most), self.cancel).await {
            Ok(finished) => Ok(finished.status.success().then_some(finished)),
            Err(RunError::Cancelled) => Err(Failure::new(Code::Cancelled, "The job was cancelled.")),
            Err(error) => {
                tracing::debug!(target: "flux::media", %error, "looking at the source failed");
                Ok(None)
            }
        }
    }
}
