//! What a movie fragment holds: samples with their times and places.

use super::movie::{Defaults, Movie};
use super::{Fields, atoms, find};

/// Samples of one fragment at most: a day of AAC. Counts need no bytes behind them, so a lie must not cost memory.
const MAX_SAMPLES: usize = 1 << 22;
/// In a sample's flags: it is no place to begin at.
const NOT_SYNC: u32 = 0x0001_0000;

/// The contents of a `moof`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) sequence: u32,
    pub(crate) pieces: Vec<Piece>,
}

/// One track's part (`traf`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) track: u32,
    /// Decode time of the first sample, ticks; `None` without a `tfdt`.
    pub(crate) decode_time: Option<u64>,
    pub(crate) samples: Vec<Sample>,
}

/// One coded picture or frame of sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// First byte, counted from the fragment's first.
    pub(crate) at: u64,
    pub(crate) size: u32,
    pub(crate) duration: u32,
    /// Composition minus decode time.
    pub(crate) offset: i32,
    pub(crate) sync: bool,
}

impl Fragment {
    /// Reads the contents of a `moof` of that movie. Data must be addressed from the fragment itself
    /// (`default-base-is-moof`), which is what CMAF demands; anything else is `None`.
    pub(crate) fn parse(moof: &[u8], movie: &Movie) -> Option<Self> {
        let mut mfhd = Fields::new(find(moof, *b"mfhd")?);
        mfhd.full()?;
        let sequence = mfhd.u32()?;
        let mut pieces = Vec::new();
        for traf in atoms(moof).filter(|atom| atom.kind == *b"traf") {
            pieces.push(Piece::parse(traf.body, movie)?);
        }
        Some(Self { sequence, pieces })
    }

    /// A track's part.
    pub(crate) fn of(&self, track: u32) -> Option<&Piece> {
        self.pieces.iter().find(|piece| piece.track == track)
    }
}

impl Piece {
    fn parse(traf: &[u8], movie: &Movie) -> Option<Self> {
        let mut tfhd = Fields::new(find(traf, *b"tfhd")?);
        let (_, flags) = tfhd.full()?;
        let track = tfhd.u32()?;
        if flags & 1 != 0 || flags & 0x02_0000 == 0 {
            return None;
        }
        let mut defaults = movie.tracks.iter().find(|known| known.id == track)?.defaults;
        if flags & 2 != 0 {
            tfhd.skip(4)?;
        }
        for (bit, value) in
            [(8, &mut defaults.duration), (0x10, &mut defaults.size), (0x20, &mut defaults.flags)]
        {
            if flags & bit != 0 {
                *value = tfhd.u32()?;
            }
        }
        let decode_time = match find(traf, *b"tfdt") {
            Some(tfdt) => {
                let mut fields = Fields::new(tfdt);
                let (version, _) = fields.full()?;
                Some(fields.wide(version)?)
            }
            None => None,
        };
        let (mut samples, mut at) = (Vec::new(), 0);
        for trun in atoms(traf).filter(|atom| atom.kind == *b"trun") {
            at = run(trun.body, defaults, at, &mut samples)?;
        }
        Some(Self { track, decode_time, samples })
    }

    /// Ticks of all samples together.
    pub(crate) fn duration(&self) -> u64 {
        self.samples.iter().map(|sample| u64::from(sample.duration)).sum()
    }

    /// Composition time of the first sample.
    pub(crate) fn first_composition(&self) -> Option<i64> {
        let first = self.samples.first()?;
        Some(i64::try_from(self.decode_time?).ok()?.saturating_add(first.offset.into()))
    }
}

/// Reads a `trun` whose data begins at `at` unless it says otherwise; returns where its data ends.
fn run(trun: &[u8], defaults: Defaults, mut at: u64, samples: &mut Vec<Sample>) -> Option<u64> {
    let mut fields = Fields::new(trun);
    let (_, flags) = fields.full()?;
    let count = usize::try_from(fields.u32()?).ok()?;
    if samples.len().checked_add(count)? > MAX_SAMPLES {
        return None;
    }
    if flags & 1 != 0 {
        at = u64::from(fields.u32()?);
    }
    let first_flags = if flags & 4 != 0 { Some(fields.u32()?) } else { None };
    for n in 0..count {
        let duration = if flags & 0x100 != 0 { fields.u32()? } else { defaults.duration };
        let size = if flags & 0x200 != 0 { fields.u32()? } else { defaults.size };
        let own = if flags & 0x400 != 0 { Some(fields.u32()?) } else { None };
        let offset = if flags & 0x800 != 0 { fields.u32()?.cast_signed() } else { 0 };
        let said = first_flags.filter(|_| n == 0).or(own).unwrap_or(defaults.flags);
        samples.push(Sample { at, size, duration, offset, sync: said & NOT_SYNC == 0 });
        at = at.checked_add(u64::from(size))?;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::super::boxed;
    use super::super::codec::Codec;
    use super::super::movie::{Edit, Media, Track};
    use super::*;

    fn movie() -> Movie {
        let track = Track {
            id: 1,
            timescale: 25,
            codec: Codec::other(*b"none"),
            media: Media::Other,
            edit: Edit::default(),
            defaults: Defaults { duration: 1, size: 10, flags: NOT_SYNC },
        };
        Movie { tracks: vec![track] }
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn moof(tfhd: u32, trun: &[u32]) -> Vec<u8> {
        let traf = [
            boxed(*b"tfhd", &words(&[tfhd, 1])),
            boxed(*b"tfdt", &words(&[0, 75])),
            boxed(*b"trun", &words(trun)),
        ];
        [boxed(*b"mfhd", &words(&[0, 4])), boxed(*b"traf", &traf.concat())].concat()
    }

    #[test]
    fn samples_have_times_and_places() {
        // Data offset, flags of the first sample, a size for each, two samples.
        let parsed = Fragment::parse(&moof(0x02_0000, &[0x205, 2, 100, 0, 7, 8]), &movie()).unwrap();
        let piece = parsed.of(1).unwrap();
        assert_eq!((parsed.sequence, piece.decode_time, piece.duration()), (4, Some(75), 2));
        let seen: Vec<_> = piece.samples.iter().map(|s| (s.at, s.size, s.sync)).collect();
        assert_eq!(seen, [(100, 7, true), (107, 8, false)]);
    }

    #[test]
    fn counts_without_bytes_cost_nothing() {
        assert!(Fragment::parse(&moof(0x02_0000, &[1, u32::MAX, 100]), &movie()).is_none());
        assert!(Fragment::parse(&moof(0x02_0000, &[0x201, 3, 100, 1]), &movie()).is_none());
        // Addressed from the file's beginning.
        assert!(Fragment::parse(&moof(0, &[1, 1, 100]), &movie()).is_none());
    }
}
