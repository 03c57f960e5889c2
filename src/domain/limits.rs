//! Bounds on what strangers may send. One place, so that every door refuses the same things.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Most outputs of one job.
pub const MAX_OUTPUTS: usize = 50;
/// Most labels and most metadata keys of one job.
pub const MAX_KEYS: usize = 50;
/// Most bytes of a job's metadata, as JSON.
pub const MAX_METADATA_BYTES: usize = 16 * 1024;
/// Most bytes of an object path (S3's own limit).
pub const MAX_PATH_BYTES: usize = 1024;
/// Most bytes of a source or callback URL.
pub const MAX_URL_BYTES: usize = 8 * 1024;
/// Most request headers for one URL.
pub const MAX_HEADERS: usize = 20;
/// Most bytes of a decoded inline source.
pub const MAX_INLINE_BYTES: usize = 8 * 1024 * 1024;
/// Priorities run from `-MAX_PRIORITY` to `MAX_PRIORITY`, higher first.
pub const MAX_PRIORITY: i16 = 100;

/// What a source may be at most, checked before and while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceLimits {
    /// Bytes.
    pub max_bytes: u64,
    /// Declared or measured duration.
    pub max_duration: Duration,
    /// Pixels of one picture.
    pub max_pixels: u64,
    /// Streams in the container.
    pub max_streams: u32,
    /// Frames per second.
    pub max_frame_rate: u32,
}

impl Default for SourceLimits {
    /// 64 GiB, 12 h, 64 Mpixel (8K is 33), 64 streams, 1,000 fps (MEDIA.md has harmless files that claim 600 and 1,000).
    fn default() -> Self {
        Self {
            max_bytes: 64 * 1024 * 1024 * 1024,
            max_duration: Duration::from_hours(12),
            max_pixels: 67_108_864,
            max_streams: 64,
            max_frame_rate: 1_000,
        }
    }
}
