//! What init segments and segments really hold.

use crate::media::boxes::codec::{Codec, Family};
use crate::media::boxes::fragment::{Fragment, Piece};
use crate::media::boxes::movie::{Media, Movie, Track};
use crate::media::boxes::{Header, atoms, find};
use crate::media::package::DynamicRange;
use crate::media::ts::{self, CLOCK, Demux, PACKET, Seen, StreamKind};

/// Bytes of a picture that are kept to look into it.
const MAX_PICTURE: usize = 1 << 18;

/// An init segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Init {
    pub(super) movie: Movie,
    pub(super) track: Track,
}

/// A segment of a rendition, measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) bytes: u64,
    /// Ticks a second.
    pub(super) timescale: u32,
    /// When its first picture or sound is presented, ticks; priming lies before 0.
    pub(super) start: i64,
    /// Ticks of everything in it.
    pub(super) duration: u64,
    /// Pictures or frames of sound.
    pub(super) samples: u64,
    /// Decode time of the first sample; MPEG-TS has none to speak of.
    pub(super) decode_time: Option<u64>,
    /// Ticks between fragments in it that are missing or twice there.
    pub(super) gap: i64,
    /// Whether its first picture is a key frame; true for sound.
    pub(super) begins_with_key: bool,
    /// When key frames are presented, ticks.
    pub(super) keys: Vec<i64>,
    pub(super) facts: Facts,
}

/// What the media say they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Facts {
    pub(super) transport: bool,
    pub(super) codecs: Vec<Codec>,
    /// Pixels.
    pub(super) size: Option<(u32, u32)>,
    pub(super) range: Option<DynamicRange>,
    pub(super) channels: Option<u16>,
    /// Ticks at the beginning that an edit list takes out.
    pub(super) trimmed: i64,
}

/// Why a segment is none.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) measured: &'static str,
    pub(super) expected: &'static str,
}

const fn unreadable(measured: &'static str, expected: &'static str) -> Unreadable {
    Unreadable { measured, expected }
}

impl Init {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let movie = Movie::parse(find(bytes, *b"moov")?)?;
        let track = movie.leading()?.clone();
        Some(Self { movie, track })
    }

    fn facts(&self) -> Facts {
        let mut facts = Facts { trimmed: self.track.edit.media_time, ..Facts::default() };
        for track in
            std::iter::once(&self.track).chain(self.movie.tracks.iter().filter(|t| t.id != self.track.id))
        {
            match track.media {
                Media::Picture { width, height, color } => {
                    facts.size = Some((width, height));
                    facts.range =
                        Some(color.map_or(DynamicRange::Sdr, |c| DynamicRange::of_transfer(c.transfer)));
                }
                Media::Sound { channels, .. } => facts.channels = Some(channels),
                Media::Other => continue,
            }
            facts.codecs.push(track.codec.clone());
        }
        facts
    }
}

impl Measured {
    /// Reads a segment: fragmented MP4 with its init segment, else MPEG-TS.
    pub(super) fn of(init: Option<&Init>, bytes: &[u8]) -> Result<Self, Unreadable> {
        match init {
            Some(init) => fragments(init, bytes),
            None => transport(bytes),
        }
    }

    /// Reads a fragment that ends with its first sample, which must be a key frame.
    pub(super) fn of_key_frame(init: &Init, bytes: &[u8]) -> Option<Self> {
        let moof = atoms(bytes).find(|atom| atom.kind == *b"moof")?;
        let fragment = Fragment::parse(moof.body, &init.movie)?;
        let piece = fragment.of(init.track.id)?;
        let first = piece.samples.first().filter(|first| first.sync)?;
        let end = (moof.start as u64).checked_add(first.at)?.checked_add(first.size.into())?;
        if end != bytes.len() as u64 {
            return None;
        }
        let mut measured = Self::empty(init, bytes);
        measured.start = init.track.presented(piece.first_composition()?);
        measured.duration = first.duration.into();
        measured.samples = 1;
        Some(measured)
    }

    fn empty(init: &Init, bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.len() as u64,
            timescale: init.track.timescale,
            start: 0,
            duration: 0,
            samples: 0,
            decode_time: None,
            gap: 0,
            begins_with_key: true,
            keys: Vec::new(),
            facts: init.facts(),
        }
    }

    /// Ticks of one picture or frame of sound.
    pub(super) const fn frame(&self) -> u64 {
        match self.duration.checked_div(self.samples) {
            Some(frame) => frame,
            None => 0,
        }
    }
}

fn fragments(init: &Init, bytes: &[u8]) -> Result<Measured, Unreadable> {
    let track = &init.track;
    let mut measured = Measured::empty(init, bytes);
    let mut next = None::<u64>;
    let mut end = 0;
    for atom in atoms(bytes) {
        end = atom.end;
        if atom.kind != *b"moof" {
            continue;
        }
        let fragment = Fragment::parse(atom.body, &init.movie);
        let expected = "fragments addressed from their moof, of tracks of the init segment";
        let fragment = fragment.ok_or(unreadable("a moof that cannot be read", expected))?;
        let Some(piece) = fragment.of(track.id).filter(|piece| !piece.samples.is_empty()) else { continue };
        let decode = piece.decode_time.ok_or(unreadable("a fragment without tfdt", "a decode time"))?;
        let whole = fragment.pieces.iter().filter_map(|piece| piece.samples.last()).all(|last| {
            let here = atom.start as u64;
            last.at.checked_add(last.size.into()).is_some_and(|end| here + end <= bytes.len() as u64)
        });
        if !whole {
            return Err(unreadable("a sample that ends behind the segment", "whole samples"));
        }
        let first = next.is_none();
        if first {
            measured.decode_time = Some(decode);
            measured.start = track.presented(piece.first_composition().unwrap_or(0));
        } else if let Some(next) = next {
            let gap = i64::try_from(decode).unwrap_or(0).saturating_sub(i64::try_from(next).unwrap_or(0));
            measured.gap = measured.gap.saturating_add(gap);
        }
        if track.is_picture() {
            pictures(&mut measured, track, piece, bytes.get(atom.start..).unwrap_or_default(), first);
        }
        measured.samples += piece.samples.len() as u64;
        measured.duration += piece.duration();
        next = Some(decode.saturating_add(piece.duration()));
    }
    if next.is_none() {
        return Err(unreadable("no fragment with samples", "a moof and its mdat"));
    }
    if end != bytes.len() {
        return Err(unreadable("bytes that are no box", "boxes to the end"));
    }
    Ok(measured)
}

/// Notes the key frames of a fragment, whose bytes begin with its `moof`.
fn pictures(measured: &mut Measured, track: &Track, piece: &Piece, fragment: &[u8], first: bool) {
    let mut decode = i64::try_from(piece.decode_time.unwrap_or(0)).unwrap_or(0);
    for (n, sample) in piece.samples.iter().enumerate() {
        let begins = first && n == 0;
        if begins {
            let data = usize::try_from(sample.at).ok().and_then(|at| fragment.get(at..));
            let data = data.and_then(|data| data.get(..usize::try_from(sample.size).ok()?));
            measured.begins_with_key = sample.sync && data.is_some_and(|data| is_key(&track.codec, data));
        }
        if sample.sync {
            measured.keys.push(track.presented(decode.saturating_add(sample.offset.into())));
        }
        decode = decode.saturating_add(sample.duration.into());
    }
}

/// Whether a sample is what its flags say: an IDR picture (H.264), or a random access picture (HEVC).
fn is_key(codec: &Codec, sample: &[u8]) -> bool {
    let width = usize::from(codec.nal_length);
    let key = |head: u8| match codec.family {
        Family::Avc => Some(head & 0x1f).filter(|kind| (1..=5).contains(kind)).map(|kind| kind == 5),
        Family::Hevc => {
            Some(head >> 1 & 0x3f).filter(|&kind| kind < 32).map(|kind| (16..=21).contains(&kind))
        }
        Family::Av1
        | Family::Vp9
        | Family::Aac
        | Family::Mp3
        | Family::Ac3
        | Family::Opus
        | Family::Other => None,
    };
    let mut rest = sample;
    // Other codecs have no such units: their flags are believed.
    if width == 0 {
        return true;
    }
    while let Some((length, tail)) = rest.split_at_checked(width) {
        let length = length.iter().fold(0_usize, |sum, &byte| sum << 8 | usize::from(byte));
        let Some((nal, tail)) = tail.split_at_checked(length) else { return false };
        if let Some(verdict) = nal.first().and_then(|&head| key(head)) {
            return verdict;
        }
        rest = tail;
    }
    false
}

/// Whether bytes begin like a segment of fragmented MP4.
pub(super) fn is_fragmented(bytes: &[u8]) -> bool {
    let header = Header::parse(bytes);
    header.is_some_and(|header| matches!(&header.kind, b"styp" | b"moof" | b"sidx" | b"emsg" | b"prft"))
}

fn transport(bytes: &[u8]) -> Result<Measured, Unreadable> {
    let expected = "MPEG-TS, or fragmented MP4 with its init segment";
    let mut demux = Demux::default();
    let mut facts = Facts { transport: true, ..Facts::default() };
    let (mut number, mut tables) = (0, 0);
    let mut leader = None;
    let mut times: Vec<i64> = Vec::new();
    let mut keys = Vec::new();
    let (mut picture, mut filling) = (Vec::new(), false);
    if bytes.is_empty() || !bytes.len().is_multiple_of(PACKET) {
        return Err(unreadable("no whole packets", expected));
    }
    for packet in bytes.chunks_exact(PACKET) {
        match demux.read(packet).ok_or(unreadable("no packet", expected))? {
            Seen::Programs if number == 0 => tables += 1,
            Seen::Program if number == 1 => tables += 1,
            Seen::Start { stream, random_access, pts, payload } => {
                if stream.kind.is_sound() && facts.channels.is_none() {
                    sound(&mut facts, stream.kind, payload);
                }
                let lead = *leader.get_or_insert_with(|| {
                    let picture = demux.streams.iter().find(|stream| stream.kind.is_picture()).copied();
                    picture.unwrap_or(stream)
                });
                filling &= lead != stream;
                if let (true, Some(pts)) = (lead == stream, pts) {
                    let time = ts::unwrapped(times.last().copied().unwrap_or(0), pts);
                    filling = times.is_empty() && stream.kind.is_picture();
                    times.push(time);
                    if random_access && stream.kind.is_picture() {
                        keys.push(time);
                    }
                    if filling {
                        picture.extend(payload);
                    }
                }
            }
            Seen::More { stream, payload }
                if filling && leader == Some(stream) && picture.len() < MAX_PICTURE =>
            {
                picture.extend(payload);
            }
            Seen::Programs | Seen::Program | Seen::More { .. } | Seen::Other => {}
        }
        number += 1;
    }
    if tables != 2 {
        return Err(unreadable("packets before the program's tables", "PAT and PMT first"));
    }
    let (Some(&earliest), Some(&latest)) = (times.iter().min(), times.iter().max()) else {
        return Err(unreadable("no time stamps", "pictures or sound"));
    };
    let kind = leader.map_or(StreamKind::Other, |stream| stream.kind);
    let begins_with_key = first_picture(&mut facts, kind, &picture);
    let samples = times.len() as u64;
    let gaps = i64::try_from(samples).unwrap_or(1).saturating_sub(1).max(1);
    let duration = u64::try_from(latest - earliest + (latest - earliest) / gaps).unwrap_or(0);
    Ok(Measured {
        bytes: bytes.len() as u64,
        timescale: CLOCK,
        start: earliest,
        duration,
        samples,
        decode_time: None,
        gap: 0,
        begins_with_key,
        keys,
        facts,
    })
}

/// Takes down what the first picture is, and says whether it is a key frame.
fn first_picture(facts: &mut Facts, kind: StreamKind, picture: &[u8]) -> bool {
    match kind {
        StreamKind::Avc => {
            if let Some(sps) = ts::parameters(picture) {
                let codec =
                    Codec { progressive: Some(sps.progressive), ..Codec::new(Family::Avc, sps.codec()) };
                facts.codecs.insert(0, codec);
                facts.size = Some((sps.width, sps.height));
                facts.range = Some(DynamicRange::Sdr);
            }
            let kinds = ts::nals(picture).filter_map(|nal| nal.first().map(|head| head & 0x1f));
            kinds.into_iter().find(|kind| (1..=5).contains(kind)) == Some(5)
        }
        StreamKind::Hevc => {
            facts.codecs.insert(0, Codec::new(Family::Hevc, "hvc1"));
            let kinds = ts::nals(picture).filter_map(|nal| nal.first().map(|head| head >> 1 & 0x3f));
            kinds.into_iter().find(|&kind| kind < 32).is_some_and(|kind| (16..=21).contains(&kind))
        }
        StreamKind::Aac | StreamKind::Mp3 | StreamKind::Ac3 | StreamKind::Other => true,
    }
}

fn sound(facts: &mut Facts, kind: StreamKind, payload: &[u8]) {
    let adts = ts::adts(payload);
    let codec = match (kind, adts) {
        (StreamKind::Aac, Some(adts)) => Codec::new(Family::Aac, format!("mp4a.40.{}", adts.kind)),
        (StreamKind::Mp3, _) => Codec::new(Family::Mp3, "mp4a.40.34"),
        (StreamKind::Ac3, _) => Codec::new(Family::Ac3, "ac-3"),
        _ => return,
    };
    if facts.codecs.is_empty() {
        facts.codecs.push(codec);
    }
    facts.channels = adts.map(|adts| adts.channels);
}
