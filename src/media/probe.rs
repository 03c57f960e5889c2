//! What a source is: one bounded ffprobe, read into [`MediaInfo`], refused beyond the limits.
//!
//! The probe reads headers and about the first second of packets, never the whole source. Headers lie (MEDIA.md has
//! 600 and 1,000 fps clips that are neither): the frame rate comes from packets, a declared duration is a hint.

mod document;
mod naming;
mod rate;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::argv::{self, LookAhead, Reading};
use super::process::{Reach, Spec, Tidy, run};
use super::{Input, Toolbox};
use crate::domain::limits::SourceLimits;
use crate::domain::{Code, Demuxer, Failure, MediaInfo};

pub(super) use document::{Document, Stream};

/// Longest probe. ffprobe under the options below has never taken 2 s, but a slow origin may feed it slowly.
const TIME: Duration = Duration::from_mins(1);
/// Most bytes of ffprobe's document; 64 streams with long tags and all sampled packets are below 1 MiB.
const DOCUMENT: usize = 8 * 1024 * 1024;
/// Packets of all streams that are looked at for the frame rate: two seconds of film with sound.
const PACKETS: u32 = 240;
/// Sources below this are read whole: they cost less than the process that reads them.
const SMALL: u64 = 2 * 1024 * 1024;
/// Bounds the packets of a small source, which may hold many of one byte.
const PACKETS_SMALL: u32 = 20_000;

/// Reads what a source is.
///
/// # Errors
/// `media_limit` beyond `limits`, `media_corrupt` when nothing can be read, `media_unsupported` when it is encrypted,
/// `encode_timeout` when it takes longer than a minute, `cancelled`, `tool_missing`.
pub async fn probe(
    toolbox: &Toolbox,
    input: &Input,
    demuxer: Demuxer,
    size: u64,
    limits: &SourceLimits,
) -> Result<MediaInfo, Failure> {
    let packets = if size <= SMALL { PACKETS_SMALL } else { PACKETS };
    let interval = format!("%+#{packets}");
    let mut args: Vec<String> =
        ["-hide_banner", "-loglevel", "level+warning", "-of", "json"].map(String::from).into();
    args.extend(
        ["-show_streams", "-show_format", "-show_entries", SHOWN, "-read_intervals"].map(String::from),
    );
    args.push(interval);
    // One more than allowed, so that too many can be told from just enough.
    let bounds = argv::Limits { max_streams: limits.max_streams + 1, ..argv::Limits::new(limits, None) };
    let reading = Reading { input, demuxer, limits: &bounds };
    args.extend(argv::input_options(&reading, LookAhead::Far));
    let spec = Spec::new(&toolbox.tools.ffprobe, args, "/").confined(Reach::reading(input));
    let finished = run(&toolbox.spawner, spec, (TIME, DOCUMENT), &CancellationToken::new()).await?;

    let log = Tidy::new(input, Path::new("")).lines(finished.log);
    if log.iter().any(|line| line.contains("Picture size") && line.contains("is invalid")) {
        return Err(Failure::new(Code::MediaLimit, "The source's picture is too large.").with_log(log));
    }
    let unreadable = |detail: String| {
        Failure::new(Code::MediaCorrupt, "The source could not be read as media.").with_detail(detail)
    };
    if !finished.status.success() {
        return Err(unreadable(finished.status.to_string()).with_log(log));
    }
    let document: Document = serde_json::from_slice(&finished.stdout)
        .map_err(|error| unreadable(error.to_string()).with_log(log))?;
    document.refuse_limits(limits)?;
    Ok(document.into_info(demuxer, size, packets as usize))
}

/// Codec strings (RFC 6381) by stream index, of the streams where one can be told. A look of its own, because
/// configurations are shown with attachments, and those may be larger than any document that is read: then there is none.
pub async fn codecs(
    toolbox: &Toolbox,
    input: &Input,
    demuxer: Demuxer,
    limits: &SourceLimits,
) -> BTreeMap<u32, String> {
    let shown = ["-hide_banner", "-loglevel", "level+error", "-of", "json", "-show_data", "-show_entries"];
    let mut args: Vec<String> = shown.map(String::from).into();
    args.push(CONFIGURATIONS.to_owned());
    let bounds = argv::Limits::new(limits, None);
    args.extend(argv::input_options(&Reading { input, demuxer, limits: &bounds }, LookAhead::Far));
    let spec = Spec::new(&toolbox.tools.ffprobe, args, "/").confined(Reach::reading(input));
    let finished = run(&toolbox.spawner, spec, (TIME, DOCUMENT), &CancellationToken::new()).await;
    let document = finished.ok().and_then(|end| serde_json::from_slice::<Document>(&end.stdout).ok());
    let streams = document.into_iter().flat_map(|document| document.streams);
    streams.filter_map(|stream| Some((stream.index, stream.codec_string()?))).collect()
}

/// What codec strings are made of.
const CONFIGURATIONS: &str = "stream=index,codec_type,codec_name,profile,extradata,width,height,pix_fmt,avg_frame_rate,\
color_range,color_space,color_transfer,color_primaries";

/// Fields of packets that the frame rate needs; streams and the format are shown whole.
const SHOWN: &str = "packet=stream_index,pts,dts,duration";

#[cfg(test)]
mod tests;
