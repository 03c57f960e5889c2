//! ffmpeg's log at `level+verbose`: what it counted, what it complained about, and what that means.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use super::{EncodeReport, Tick, versions};
use crate::domain::{Code, Failure};
use crate::media::process::{Tail, Tidy};

/// Kept: the last lines of any kind above verbose, and the last complaints.
const TAIL: usize = 40;
const COMPLAINTS: usize = 20;

/// What was read and decoded of a source stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DecodedStream {
    /// Stream index in the source.
    pub index: u32,
    /// Packets read.
    pub packets: u64,
    /// Frames decoded.
    pub frames: u64,
    /// Sound samples decoded.
    pub samples: Option<u64>,
    /// Packets the decoder refused after it had given its first frame: damage.
    pub errors: u64,
    /// Packets it refused before: a recording that starts between keyframes, no damage (MEDIA-RULES §1.11).
    pub early_errors: u64,
    /// Frames with parts made up, after the first frame.
    pub concealed: u64,
}

/// What was written of an output's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedStream {
    /// The output's place in the plan.
    pub output: usize,
    /// Stream index in the output.
    pub index: u32,
    /// Frames given to the encoder.
    pub frames: u64,
    /// Sound samples given to the encoder.
    pub samples: Option<u64>,
    /// Packets written.
    pub packets: u64,
}

/// What a frame-rate filter took and gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GridStatistics {
    /// Frames taken.
    pub taken: u64,
    /// Frames given.
    pub given: u64,
}

/// What a complaint says about the whole run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sign {
    EndedEarly,
    DiskFull,
    UnknownEncoder,
    InputRefused,
}

/// Everything kept of the log so far. Bounded, whatever ffmpeg writes.
#[derive(Debug)]
pub(super) struct LogState {
    tail: Tail,
    complaints: Tail,
    decoded: Vec<DecodedStream>,
    encoded: Vec<EncodedStream>,
    grids: Vec<GridStatistics>,
    /// Streams whose first frame has reached its filters.
    begun: Vec<u32>,
    signs: BTreeSet<Sign>,
    broken_places: u64,
    last_out_seconds: Option<f64>,
    encoders: BTreeMap<String, String>,
}

impl Default for LogState {
    fn default() -> Self {
        Self {
            tail: Tail::new(TAIL),
            complaints: Tail::new(COMPLAINTS),
            decoded: Vec::new(),
            encoded: Vec::new(),
            grids: Vec::new(),
            begun: Vec::new(),
            signs: BTreeSet::new(),
            broken_places: 0,
            last_out_seconds: None,
            encoders: BTreeMap::new(),
        }
    }
}

/// Contexts of demuxers that find their way again after damage, so that the decoder never hears of it: what was lost
/// shows in their complaints only (measured: noise over a tenth of a Matroska, FLV or Ogg file, 11 to 49 of 100 frames
/// gone, status 0, not one decoding error). None of the sample clips makes them complain.
const RESYNCING: [&str; 5] = ["[matroska,webm", "[flv", "[ogg", "[avi", "[asf"];

/// More streams than any probe lets through; a log that names more is not ffmpeg's.
const STREAMS: usize = 256;

impl LogState {
    /// Takes a tick of progress.
    pub(super) fn tick(&mut self, tick: Tick) {
        self.last_out_seconds = tick.out_seconds.or(self.last_out_seconds);
    }

    /// Takes a line.
    pub(super) fn line(&mut self, line: &str) {
        let complaint = ["[error]", "[fatal]", "[panic]"].iter().any(|level| line.contains(level));
        if complaint {
            self.complaint(line);
            self.complaints.push(line);
        }
        if line.contains("[verbose]") {
            self.statistics(line);
        } else {
            self.tail.push(line);
            if let Some((name, version)) = versions::told(line) {
                self.encoders.insert(name.to_owned(), version);
            }
        }
        // Printed as information, yet it is damage made invisible.
        if line.contains("] concealing ") {
            self.concealed();
        }
    }

    fn complaint(&mut self, line: &str) {
        // `[error] file:in: Invalid data…`, without a context in brackets: ffmpeg itself could not open its input.
        let bare = line.strip_prefix("[error] ").unwrap_or("");
        let names_input =
            ["file:", "http://", "Error opening input"].iter().any(|name| bare.starts_with(name));
        let signs = [
            (line.contains("File ended prematurely"), Sign::EndedEarly),
            (line.contains("No space left on device"), Sign::DiskFull),
            (line.contains("Unknown encoder"), Sign::UnknownEncoder),
            (names_input, Sign::InputRefused),
        ];
        self.signs.extend(signs.into_iter().filter_map(|(seen, sign)| seen.then_some(sign)));
        let demuxer = |name: &&str| line.split_once(name).is_some_and(|(_, rest)| rest.starts_with(" @ "));
        self.broken_places += u64::from(RESYNCING.iter().any(demuxer));
        // 5.1: "Error while decoding stream #0:0: …"; 6 and 7: "[vist#0:0/h264 @ …] [error] Error submitting packet to decoder".
        let refused = line.contains("Error while decoding stream")
            || line.contains("Error submitting packet to decoder")
            || line.contains("corrupt decoded frame");
        if refused && let Some(index) = source_stream(line) {
            let begun = self.begun.contains(&index);
            if let Some(stream) = self.decoded_mut(index) {
                if begun {
                    stream.errors += 1;
                } else {
                    stream.early_errors += 1;
                }
            }
        }
    }

    /// The line does not name the stream, and only picture decoders conceal: it counts for the only picture begun.
    fn concealed(&mut self) {
        if let Some(index) = self.begun.first().copied()
            && let Some(stream) = self.decoded_mut(index)
        {
            stream.concealed += 1;
        }
    }

    fn statistics(&mut self, line: &str) {
        if let Some(index) = first_frame(line) {
            if !self.begun.contains(&index) && self.begun.len() < STREAMS {
                self.begun.push(index);
            }
        } else if let Some(rest) = after(line, "  Input stream #0:") {
            let Some(index) = number(rest) else { return };
            let counts =
                (before(rest, " packets read"), before(rest, " frames decoded"), before(rest, " samples)"));
            let errors = before(rest, " decode errors");
            if let Some(stream) = self.decoded_mut(index) {
                stream.packets = counts.0.unwrap_or(0);
                stream.frames = counts.1.unwrap_or(0);
                stream.samples = counts.2;
                // Newer versions count what they do not print.
                let counted = errors.unwrap_or(0).saturating_sub(stream.early_errors);
                stream.errors = stream.errors.max(counted);
            }
        } else if let Some(rest) = after(line, "  Output stream #") {
            let (Some(output), Some(index)) = (number(rest), after(rest, ":").and_then(number)) else {
                return;
            };
            let Some(packets) = before(rest, " packets muxed") else {
                return;
            };
            let (frames, samples) = (before(rest, " frames encoded").unwrap_or(0), before(rest, " samples)"));
            if self.encoded.len() < STREAMS {
                self.encoded.push(EncodedStream { output, index, frames, samples, packets });
            }
        } else if let (Some(taken), Some(given)) =
            (before(line, " frames in, "), before(line, " frames out;"))
            && self.grids.len() < STREAMS
        {
            self.grids.push(GridStatistics { taken, given });
        }
    }

    fn decoded_mut(&mut self, index: u32) -> Option<&mut DecodedStream> {
        if let Some(place) = self.decoded.iter().position(|stream| stream.index == index) {
            return self.decoded.get_mut(place);
        }
        if self.decoded.len() == STREAMS {
            return None;
        }
        self.decoded.push(DecodedStream { index, ..DecodedStream::default() });
        self.decoded.last_mut()
    }

    /// ffmpeg ended with 0.
    pub(super) fn into_report(self, took: Duration, tidy: &Tidy) -> EncodeReport {
        EncodeReport {
            decoded: self.decoded,
            encoded: self.encoded,
            grids: self.grids,
            ended_early: self.signs.contains(&Sign::EndedEarly),
            broken_places: self.broken_places,
            last_out_seconds: self.last_out_seconds,
            encoders: self.encoders,
            took,
            log_tail: tidy.lines(self.tail.into_lines()),
        }
    }

    /// Whether a write found the disk full.
    pub(super) fn out_of_room(&self) -> bool {
        self.signs.contains(&Sign::DiskFull)
    }

    /// ffmpeg ended otherwise.
    pub(super) fn into_failure(self, status: ExitStatus, tidy: &Tidy) -> Failure {
        /// `SIGXFSZ`: the kernel's limit on the size of a file.
        const FILE_SIZE: i32 = 25;
        let (code, message) = if self.signs.contains(&Sign::DiskFull) {
            (Code::DiskFull, "The worker has no room for the output.".to_owned())
        } else if let Some(signal) = status.signal() {
            match signal {
                FILE_SIZE => (Code::EncodeFailed, "The output grew larger than allowed.".to_owned()),
                signal => (Code::EncoderCrashed, format!("The encoder was killed by signal {signal}.")),
            }
        } else if self.signs.contains(&Sign::UnknownEncoder) {
            (Code::EncoderUnavailable, "The worker's ffmpeg lacks the encoder.".to_owned())
        } else if status.code() == Some(127) {
            (Code::ToolMissing, "ffmpeg could not be started on the worker.".to_owned())
        } else if self.signs.contains(&Sign::InputRefused) {
            (Code::MediaCorrupt, "The source could not be opened for decoding.".to_owned())
        } else {
            (Code::EncodeFailed, "The encoder failed.".to_owned())
        };
        Failure::new(code, message).with_detail(status.to_string()).with_log(self.into_lines(tidy))
    }

    /// The meaningful lines: complaints, or the last of all when there are none.
    pub(super) fn into_lines(self, tidy: &Tidy) -> Vec<String> {
        let complaints = self.complaints.into_lines();
        tidy.lines(if complaints.is_empty() { self.tail.into_lines() } else { complaints })
    }
}

/// The source stream a line is about: `stream #0:1` or `vist#0:1/h264`.
fn source_stream(line: &str) -> Option<u32> {
    ["stream #0:", "ist#0:", "in stream "].into_iter().find_map(|mark| after(line, mark).and_then(number))
}

/// A filter graph is set up by the first frame of its stream: "graph 0 input from stream 0:1" for pictures,
/// `graph_0_in_0_1` for sound.
fn first_frame<T: std::str::FromStr>(line: &str) -> Option<T> {
    if let Some(rest) = after(line, " input from stream 0:") {
        return number(rest);
    }
    let rest = after(line, "[graph_")?;
    number(after(rest, "_in_0_")?)
}

fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.split_once(mark).map(|(_, rest)| rest)
}

/// The number a text starts with.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// The number right before a mark.
fn before(text: &str, mark: &str) -> Option<u64> {
    let head = &text[..text.find(mark)?];
    let start = head.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    head[start..].parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::media::Input;

    fn log(text: &str) -> LogState {
        let mut state = LogState::default();
        text.lines().for_each(|line| state.line(line));
        state
    }

    fn tidy() -> Tidy {
        Tidy::new(&Input::File("/srv/in".into()), Path::new("/work/1"))
    }

    fn failure(text: &str, status: i32) -> Code {
        log(text).into_failure(ExitStatus::from_raw(status), &tidy()).code
    }

    #[test]
    fn the_account_is_read() {
        let report = log("[graph_1_in_0_1 @ 0x1] [verbose] tb:1/48000 samplefmt:fltp samplerate:48000 chlayout:5.1\n\
            [graph 0 input from stream 0:0 @ 0x1] [verbose] w:1280 h:720 pixfmt:yuv420p tb:1/12800 fr:25/1 sar:1/1\n\
            [Parsed_fps_0 @ 0x1] [verbose] 132 frames in, 158 frames out; 0 frames dropped, 26 frames duplicated.\n\
            [verbose] Input file #0 (file:/srv/in):\n\
            [verbose]   Input stream #0:0 (video): 132 packets read (795933 bytes); 131 frames decoded; 1 decode errors; \n\
            [verbose]   Input stream #0:1 (audio): 249 packets read (255526 bytes); 249 frames decoded (254976 samples); \n\
            [verbose]   Total: 381 packets (1051459 bytes) demuxed\n\
            [verbose]   Output stream #0:0 (video): 132 frames encoded; 132 packets muxed (543316 bytes); \n\
            [verbose]   Output stream #0:1 (audio): 249 frames encoded (254976 samples); 250 packets muxed (87844 bytes); \n\
            [verbose]   Output stream #1:0 (video): 158 frames encoded; 158 packets muxed (142561 bytes); ")
        .into_report(Duration::ZERO, &tidy());
        let video = report.decoded_stream(0).unwrap();
        assert_eq!((video.packets, video.frames, video.errors), (132, 131, 1));
        assert_eq!(report.decoded_stream(1).unwrap().samples, Some(254_976));
        assert_eq!(report.grids, [GridStatistics { taken: 132, given: 158 }]);
        let streams: Vec<_> = report.output(0).map(|s| (s.index, s.frames, s.packets)).collect();
        assert_eq!(streams, [(0, 132, 132), (1, 249, 250)]);
        assert_eq!(report.output(1).count(), 1);
    }

    #[test]
    fn damage_counts_only_after_the_first_frame() {
        let report =
            log("[error] Error while decoding stream #0:0: Invalid data found when processing input\n\
            [graph 0 input from stream 0:0 @ 0x5] [verbose] w:1280 h:720 pixfmt:yuv420p\n\
            [h264 @ 0x5] [info] concealing 469 DC, 469 AC, 469 MV errors in P frame\n\
            [error] Error while decoding stream #0:0: Invalid data found when processing input\n\
            [vist#0:0/h264 @ 0x5] [error] Error submitting packet to decoder: Invalid data found\n\
            [matroska,webm @ 0x5] [error] File ended prematurely")
            .into_report(Duration::ZERO, &tidy());
        let stream = report.decoded_stream(0).unwrap();
        assert_eq!((stream.early_errors, stream.errors, stream.concealed), (1, 2, 1));
        assert!(report.ended_early);
    }

    #[test]
    fn demuxers_that_find_their_way_again_are_heard() {
        let report = log(
            "[matroska,webm @ 0x5] [error] Element at 0x13711 ending at 0xaed0f70 exceeds containing master\n\
            [flv @ 0x5] [error] Packet mismatch 1515867803 5313 96680\n\
            [ogg @ 0x5] [error] CRC mismatch!\n\
            [flv @ 0x5] [warning] Invalid timestamps stream=1, pts=2023, dts=2438, size=178\n\
            [matroska @ 0x5] [error] a muxer's complaint\n\
            [h264 @ 0x5] [error] Invalid NAL unit size (-1 > 551).",
        )
        .into_report(Duration::ZERO, &tidy());
        assert_eq!(report.broken_places, 3);
    }

    #[test]
    fn a_full_disk_is_heard_even_where_ffmpeg_ends_well() {
        let line = "[error] Error writing trailer of file:out-0.mp4: No space left on device";
        assert!(log(line).out_of_room());
        assert!(!log("[info] video:1kB audio:1kB").out_of_room());
        assert_eq!(failure(line, 0), Code::DiskFull);
    }

    #[test]
    fn failures_have_their_classes() {
        assert_eq!(
            failure("[error] av_interleaved_write_frame(): No space left on device", 1 << 8),
            Code::DiskFull
        );
        assert_eq!(failure("[fatal] Unknown encoder 'libx264'", 1 << 8), Code::EncoderUnavailable);
        assert_eq!(failure("", 11), Code::EncoderCrashed);
        assert_eq!(failure("", 25), Code::EncodeFailed);
        assert_eq!(failure("[fatal] launch: running ffmpeg: No such file", 127 << 8), Code::ToolMissing);
        assert_eq!(
            failure("[error] file:/srv/in: Invalid data found when processing input", 1 << 8),
            Code::MediaCorrupt
        );
        assert_eq!(failure("[fatal] Conversion failed!", 1 << 8), Code::EncodeFailed);
        let failure = log("[fatal] file:/srv/in and /etc/x").into_failure(ExitStatus::from_raw(256), &tidy());
        assert_eq!(failure.log, ["[fatal] file:source and …"]);
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut state = LogState::default();
        for n in 0..100_000 {
            state.line(&format!("[error] Error while decoding stream #0:{n}: x"));
            state.line(&format!(
                "[verbose]   Output stream #{n}:0 (video): 1 frames encoded; 1 packets muxed (1 bytes); "
            ));
        }
        assert_eq!((state.decoded.len(), state.encoded.len()), (STREAMS, STREAMS));
        assert_eq!(state.into_lines(&tidy()).len(), COMPLAINTS);
    }
}
