//! Times of cues, and where they lie among those of MPEG-TS.

use std::fmt;
use std::str::FromStr;

use super::Wrong;

/// Ticks of MPEG's clock in a millisecond.
const TICKS: i64 = 90;
/// MPEG's clock has 33 bits.
const CLOCK_END: u64 = 1 << 33;
/// Digits of hours at most: 11,000 years, and nothing overflows.
const MAX_HOUR_DIGITS: usize = 8;

/// Milliseconds from the beginning, at most [`Self::MAX`]: WebVTT knows nothing finer.
///
/// Written and read as `HH:MM:SS.mmm`; hours may have more digits, and may be left out when read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The last that can be written, so that what is written can be read.
    pub const MAX: Self = Self(99_999_999 * 3_600_000 + 3_599_999);

    /// So many milliseconds from the beginning, at most [`Self::MAX`].
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        if millis > Self::MAX.0 { Self::MAX } else { Self(millis) }
    }

    /// Milliseconds from the beginning.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Seconds from the beginning.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 ms")]
    pub const fn seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0 / 1000, self.0 % 1000);
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        write!(f, "{hours:02}:{minutes:02}:{:02}.{millis:03}", seconds % 60)
    }
}

impl FromStr for Moment {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let read = || {
            let (clock, millis) = text.split_once('.')?;
            let (rest, seconds) = clock.rsplit_once(':')?;
            let (hours, minutes) = match rest.rsplit_once(':') {
                Some((hours, minutes)) => (digits(hours, 2..=MAX_HOUR_DIGITS)?, minutes),
                None => (0, rest),
            };
            let sixty = |text: &str| digits(text, 2..=2).filter(|&value| value < 60);
            let seconds = hours * 3600 + sixty(minutes)? * 60 + sixty(seconds)?;
            Some(Self(seconds * 1000 + digits(millis, 3..=3)?))
        };
        read().ok_or(Wrong::Time)
    }
}

/// A number of so many digits and nothing else.
fn digits(text: &str, count: std::ops::RangeInclusive<usize>) -> Option<u64> {
    let plain = count.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

/// `X-TIMESTAMP-MAP` (RFC 8216 §3.5): the time `local` of cues is `mpegts` of the media.
///
/// Media in fragmented MP4 count as MPEG-TS that begins at 0 where their timeline does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimestampMap {
    /// On the cues' clock.
    pub local: Moment,
    /// On MPEG's clock: ticks of 1/90000 s, below 2³³.
    pub mpegts: u64,
}

impl TimestampMap {
    /// When something at that time of the cues' clock is on the media's: ticks of 1/90000 s, not wrapped.
    #[must_use]
    pub fn ticks(self, moment: Moment) -> i64 {
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let apart = signed(moment.0).saturating_sub(signed(self.local.0));
        apart.saturating_mul(TICKS).saturating_add(signed(self.mpegts))
    }
}

impl fmt::Display for TimestampMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "X-TIMESTAMP-MAP=LOCAL:{},MPEGTS:{}", self.local, self.mpegts % CLOCK_END)
    }
}

impl FromStr for TimestampMap {
    type Err = Wrong;

    /// Reads a whole header line; the two may be in any order.
    fn from_str(line: &str) -> Result<Self, Wrong> {
        let read = || {
            let (one, two) = line.strip_prefix("X-TIMESTAMP-MAP=")?.split_once(',')?;
            let (local, mpegts) = if one.starts_with("LOCAL:") { (one, two) } else { (two, one) };
            let local = local.strip_prefix("LOCAL:")?.parse().ok()?;
            let mpegts =
                digits(mpegts.strip_prefix("MPEGTS:")?, 1..=10).filter(|&ticks| ticks < CLOCK_END)?;
            Some(Self { local, mpegts })
        };
        read().ok_or(Wrong::TimestampMap)
    }
}
