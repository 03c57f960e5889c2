//! Sound in segments of its own.
//!
//! ffmpeg's fragments of sound follow no picture: with these flags a file without one has a single fragment. So its
//! samples are read from the tables and laid out anew, one fragment per segment, cut where a frame of sound is nearest
//! to the instant at which the pictures are cut. The payload is copied, never touched; the edit list that hides the
//! priming stays in the init segment.

use super::cut::{Segment, Track, seconds};
use super::mp4::{Grid, Opened, Writer};
use super::write::Out;
use super::{PackageError, Request};
use crate::media::boxes::boxed;
use crate::media::boxes::fragment::Sample;

/// In a sample's flags: depends on nothing.
const SYNC: u32 = 0x0200_0000;
/// A segment that ends with the film may be so much longer than the rule, seconds, rather than leave a crumb.
const CRUMB: f64 = 0.4;

/// Cuts and writes a rendition of sound.
pub(super) fn write<'r>(
    opened: &Opened<'r>,
    request: &Request,
    grid: &Grid,
    out: &mut Out,
) -> Result<Track<'r>, PackageError> {
    let track = &opened.track;
    let ticks: u64 = opened.groups.iter().map(|group| group.duration).sum();
    let end = track.presented(i64::try_from(ticks).unwrap_or(i64::MAX));
    let starts = starts(grid, end, track.timescale);
    let mut writer = Writer::begin(opened, request, starts.len(), out)?;
    let mut segment = Pending::default();
    let mut number = 0;
    for group in &opened.groups {
        let fragment = opened.fragment(group)?;
        let Some(piece) = fragment.of(track.id) else { continue };
        let Some(mut time) = piece.decode_time else {
            return Err(PackageError::rendition(opened.rendition, "a fragment has no time"));
        };
        for sample in &piece.samples {
            let presented = track.presented(i64::try_from(time).unwrap_or(i64::MAX));
            let middle = presented.saturating_add(i64::from(sample.duration / 2));
            while starts.get(number + 1).is_some_and(|&next| middle >= next) && !segment.is_empty() {
                number = segment.write(number, opened, &mut writer, out)?;
            }
            segment.push(group.offset, sample, time);
            time = time.saturating_add(sample.duration.into());
        }
    }
    if !segment.is_empty() {
        number = segment.write(number, opened, &mut writer, out)?;
    }
    if number != starts.len() {
        return Err(PackageError::rendition(opened.rendition, "its sound has holes"));
    }
    writer.end(track.timescale, opened.sound_facts(), out)
}

/// When segments of this sound begin, its own ticks: with the pictures, and on in the same steps after them.
#[expect(clippy::cast_possible_truncation, reason = "ticks fit")]
fn starts(grid: &Grid, end: i64, timescale: u32) -> Vec<i64> {
    let own = |instant: i64| {
        (i128::from(instant) * i128::from(timescale) / i128::from(grid.timescale.max(1))) as i64
    };
    let crumb =
        |start: i64| seconds(u64::try_from(end.saturating_sub(start)).unwrap_or(0), timescale) <= CRUMB;
    let mut instants = grid.starts.clone();
    let last = instants.last().copied().unwrap_or(0);
    let mut next = last.saturating_add(grid.step);
    while !crumb(own(next)) && instants.len() < 1 << 20 {
        instants.push(next);
        next = next.saturating_add(grid.step);
    }
    let mut starts: Vec<i64> = instants.into_iter().map(own).collect();
    // Sound that ends before the pictures do has fewer segments.
    while starts.len() > 1 && starts.last().is_some_and(|&start| crumb(start)) {
        starts.pop();
    }
    starts
}

/// Samples of the segment to come.
#[derive(Debug, Default)]
struct Pending {
    decode_time: u64,
    samples: Vec<(u32, u32)>,
    /// Consecutive bytes of the source.
    ranges: Vec<(u64, u64)>,
}

impl Pending {
    const fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    fn push(&mut self, fragment: u64, sample: &Sample, time: u64) {
        if self.samples.is_empty() {
            self.decode_time = time;
        }
        self.samples.push((sample.duration, sample.size));
        let (at, size) = (fragment.saturating_add(sample.at), u64::from(sample.size));
        match self.ranges.last_mut() {
            Some((start, length)) if *start + *length == at => *length += size,
            _ => self.ranges.push((at, size)),
        }
    }

    /// Writes the segment of that number and returns the next.
    fn write(
        &mut self,
        number: usize,
        opened: &Opened<'_>,
        writer: &mut Writer<'_, '_>,
        out: &mut Out,
    ) -> Result<usize, PackageError> {
        let too_large = || PackageError::rendition(opened.rendition, "a segment of sound is too large");
        let payload: u64 = self.ranges.iter().map(|(_, length)| length).sum();
        let mdat = u32::try_from(payload + 8).map_err(|_| too_large())?;
        let sequence = u32::try_from(number + 1).map_err(|_| too_large())?;
        let head = self.moof(opened.track.id, sequence).ok_or_else(too_large)?;
        let place = writer.segment(number, out)?;
        let sink = writer.sink()?;
        sink.bytes(&head)?;
        sink.bytes(&mdat.to_be_bytes())?;
        sink.bytes(b"mdat")?;
        for &(at, length) in &self.ranges {
            sink.copy(&opened.source, at, length)?;
        }
        let ticks: u64 = self.samples.iter().map(|(duration, _)| u64::from(*duration)).sum();
        let begin = opened.track.presented(i64::try_from(self.decode_time).unwrap_or(i64::MAX));
        let end = begin.saturating_add_unsigned(ticks);
        // Priming is there to be decoded and not to be heard.
        let start = begin.max(0);
        let duration = u64::try_from(end.saturating_sub(start)).unwrap_or(0);
        writer.finish(Segment { place, start, duration, keys: Vec::new() }, out)?;
        *self = Self::default();
        Ok(number + 1)
    }

    /// A `moof` whose data follow right behind the header of their `mdat`.
    fn moof(&self, track: u32, sequence: u32) -> Option<Vec<u8>> {
        let count = u32::try_from(self.samples.len()).ok()?;
        let duration = self.samples.first()?.0;
        let same = self.samples.iter().all(|(other, _)| *other == duration);
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
        // Defaults: duration and flags; data are addressed from the `moof`.
        let tfhd = boxed(*b"tfhd", &words(&[0x02_0028, track, duration, SYNC]));
        let tfdt = boxed(*b"tfdt", &[&words(&[0x0100_0000])[..], &self.decode_time.to_be_bytes()].concat());
        let mfhd = boxed(*b"mfhd", &words(&[0, sequence]));
        let table = |offset: u32| {
            let mut trun = words(&[if same { 0x201 } else { 0x301 }, count, offset]);
            for &(duration, size) in &self.samples {
                if !same {
                    trun.extend(duration.to_be_bytes());
                }
                trun.extend(size.to_be_bytes());
            }
            boxed(*b"trun", &trun)
        };
        let whole = |offset| {
            let traf = boxed(*b"traf", &[&tfhd[..], &tfdt, &table(offset)].concat());
            boxed(*b"moof", &[&mfhd[..], &traf].concat())
        };
        let size = u32::try_from(whole(0).len()).ok()?;
        Some(whole(size.checked_add(8)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(starts: &[i64], step: i64) -> Grid {
        Grid::for_test(starts, 1000, step)
    }

    #[test]
    fn sound_goes_on_after_the_pictures_and_leaves_no_crumbs() {
        let three = grid(&[0, 6000, 12_000], 6000);
        assert_eq!(starts(&three, 17_000 * 48, 48_000), [0, 288_000, 576_000]);
        assert_eq!(starts(&three, 18_020 * 48, 48_000), [0, 288_000, 576_000], "a crumb of 20 ms");
        assert_eq!(starts(&three, 19_000 * 48, 48_000).len(), 4);
        assert_eq!(starts(&three, 11_000 * 48, 48_000), [0, 288_000], "it ends early");
        assert_eq!(starts(&three, 12_100 * 48, 48_000).len(), 2);
        assert_eq!(starts(&three, -1000, 48_000), [0]);
    }
}
