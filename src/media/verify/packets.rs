//! The headers of an output's packets, read as a stream: memory grows by 13 bytes a packet, no more.

use std::collections::BTreeMap;

use super::failed;
use crate::domain::Failure;

/// Streams that are remembered; a plan has two.
const STREAMS: usize = 16;
/// Frames that are remembered: 12 h at 240 fps.
const FRAMES: usize = 12 * 3600 * 240;

/// Packets by stream.
#[derive(Debug, Default)]
pub(super) struct PacketTable {
    streams: BTreeMap<u32, StreamPackets>,
}

/// One stream's packets; times in ticks.
#[derive(Debug, Default)]
pub(super) struct StreamPackets {
    /// How many.
    pub(super) count: u64,
    /// Those without a single byte.
    pub(super) empty: u64,
    /// Presentation times of those that are shown, in file order.
    pub(super) times: Vec<i64>,
    /// Whether each of `times` is a key frame.
    pub(super) keys: Vec<bool>,
    /// Bytes of each of `times`.
    pub(super) sizes: Vec<u32>,
    /// Those without a presentation time.
    pub(super) timeless: u64,
    /// The latest end.
    pub(super) end: Option<i64>,
    /// Ticks of the last packet seen, as a fallback for packets without a duration.
    last_duration: i64,
}

impl PacketTable {
    /// Takes a line such as `stream_index=0|pts=512|dts=0|duration=512|size=886|flags=K_`.
    pub(super) fn line(&mut self, line: &str) {
        let field = |name: &str| line.split('|').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        let number = |name: &str| field(name).and_then(|text| text.parse::<i64>().ok());
        let Some(index) = field("stream_index").and_then(|text| text.parse().ok()) else {
            return;
        };
        if !self.streams.contains_key(&index) && self.streams.len() == STREAMS {
            return;
        }
        let stream = self.streams.entry(index).or_default();
        stream.count += 1;
        stream.empty += u64::from(number("size").unwrap_or(0) <= 0);
        let flags = field("flags").unwrap_or("");
        let Some(time) = number("pts") else {
            stream.timeless += 1;
            return;
        };
        stream.last_duration = number("duration").unwrap_or(stream.last_duration);
        // Priming and what an edit list cuts off is read, but not played.
        if flags.contains('D') {
            return;
        }
        let end = time.saturating_add(stream.last_duration);
        stream.end = Some(stream.end.map_or(end, |known| known.max(end)));
        if stream.times.len() < FRAMES {
            stream.times.push(time);
            stream.keys.push(flags.contains('K'));
            stream.sizes.push(number("size").and_then(|size| u32::try_from(size).ok()).unwrap_or(0));
        }
    }

    /// One stream's packets.
    pub(super) fn stream(&self, index: u32) -> Result<&StreamPackets, Failure> {
        self.streams.get(&index).ok_or_else(|| failed(format_args!("stream {index} has no packets")))
    }
}

impl StreamPackets {
    /// The first time that is shown.
    pub(super) fn first(&self) -> Option<i64> {
        self.times.iter().copied().min()
    }

    /// Times in the order they are shown.
    pub(super) fn sorted(&self) -> Vec<i64> {
        let mut times = self.times.clone();
        times.sort_unstable();
        times
    }

    /// Times of the key frames, in order.
    pub(super) fn key_times(&self) -> Vec<i64> {
        let keys = self.times.iter().zip(&self.keys).filter(|(_, key)| **key);
        let mut times: Vec<i64> = keys.map(|(time, _)| *time).collect();
        times.sort_unstable();
        times
    }

    /// The longest run from one key frame to the next, in frames.
    pub(super) fn longest_group(&self) -> usize {
        self.keys.split(|key| *key).map(|group| group.len() + 1).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_ffprobe_are_read() {
        let mut table = PacketTable::default();
        // As ffprobe 5.1 writes them, side data and all.
        for line in [
            "stream_index=1|pts=-1024|dts=-1024|duration=1024|size=23|flags=KD|side_data|side_data_type=Skip Samples",
            "",
            "stream_index=0|pts=0|dts=-512|duration=512|size=22459|flags=K_",
            "stream_index=0|pts=1024|dts=0|duration=512|size=886|flags=__",
            "stream_index=0|pts=512|dts=512|duration=N/A|size=0|flags=___",
            "stream_index=0|pts=N/A|dts=1024|duration=512|size=5|flags=K_",
            "stream_index=1|pts=0|dts=0|duration=1024|size=20|flags=K_",
        ] {
            table.line(line);
        }
        let video = table.stream(0).unwrap();
        assert_eq!((video.count, video.empty, video.timeless), (4, 1, 1));
        assert_eq!((video.first(), video.end), (Some(0), Some(1536)));
        assert_eq!((video.sorted(), video.key_times()), (vec![0, 512, 1024], vec![0]));
        assert_eq!(video.longest_group(), 3);
        let audio = table.stream(1).unwrap();
        assert_eq!((audio.count, audio.first(), audio.end), (2, Some(0), Some(1024)));
        assert!(table.stream(2).is_err());
    }
}
