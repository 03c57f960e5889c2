//! What an init segment says: tracks, time scales, edits, codecs.

use super::codec::{self, Codec};
use super::{Fields, atoms, find};

/// The contents of a `moov`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Movie {
    pub(crate) tracks: Vec<Track>,
}

/// One track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Track {
    pub(crate) id: u32,
    /// Ticks a second; never 0.
    pub(crate) timescale: u32,
    pub(crate) codec: Codec,
    pub(crate) media: Media,
    pub(crate) edit: Edit,
    /// What fragments need not repeat (`trex`).
    pub(crate) defaults: Defaults,
}

/// What a track shows or sounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    /// A picture of so many pixels.
    Picture {
        width: u32,
        height: u32,
        color: Option<Color>,
    },
    Sound {
        channels: u16,
        /// Hz.
        rate: u32,
    },
    Other,
}

/// ISO 23091-2 code points (`colr` of kind `nclx`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Color {
    pub(crate) primaries: u16,
    pub(crate) transfer: u16,
    pub(crate) matrix: u16,
    pub(crate) full: bool,
}

/// Where presentation begins: one offset edit, perhaps after an empty one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Edit {
    /// Whether there is an edit list at all.
    pub(crate) listed: bool,
    /// The composition time that is presented first, ticks of the track.
    pub(crate) media_time: i64,
    /// How long nothing is presented before, ticks of the track.
    pub(crate) delay: i64,
}

/// Defaults of samples in fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Defaults {
    pub(crate) duration: u32,
    pub(crate) size: u32,
    pub(crate) flags: u32,
}

impl Movie {
    /// Reads the contents of a `moov`. `None` when there is no track that could be read.
    pub(crate) fn parse(moov: &[u8]) -> Option<Self> {
        let movie_scale = timescale(find(moov, *b"mvhd")?)?;
        let mut tracks: Vec<Track> = atoms(moov)
            .filter(|atom| atom.kind == *b"trak")
            .filter_map(|trak| Track::parse(trak.body, movie_scale))
            .collect();
        for trex in find(moov, *b"mvex").into_iter().flat_map(atoms).filter(|atom| atom.kind == *b"trex") {
            let mut fields = Fields::new(trex.body);
            let (Some(_), Some(id)) = (fields.full(), fields.u32()) else { continue };
            let (Some(_), Some(duration), Some(size), Some(flags)) =
                (fields.u32(), fields.u32(), fields.u32(), fields.u32())
            else {
                continue;
            };
            if let Some(track) = tracks.iter_mut().find(|track| track.id == id) {
                track.defaults = Defaults { duration, size, flags };
            }
        }
        (!tracks.is_empty()).then_some(Self { tracks })
    }

    /// The track that leads: the picture, where there is one.
    pub(crate) fn leading(&self) -> Option<&Track> {
        let picture = self.tracks.iter().find(|track| track.is_picture());
        picture.or_else(|| self.tracks.first())
    }

    /// The sound, where there is one.
    pub(crate) fn sound(&self) -> Option<&Track> {
        self.tracks.iter().find(|track| matches!(track.media, Media::Sound { .. }))
    }
}

impl Track {
    fn parse(trak: &[u8], movie_scale: u32) -> Option<Self> {
        let mut tkhd = Fields::new(find(trak, *b"tkhd")?);
        let (version, _) = tkhd.full()?;
        tkhd.skip(if version == 0 { 8 } else { 16 })?;
        let id = tkhd.u32()?;
        let mdia = find(trak, *b"mdia")?;
        let timescale = timescale(find(mdia, *b"mdhd")?)?;
        let mut hdlr = Fields::new(find(mdia, *b"hdlr")?);
        hdlr.skip(8)?;
        let handler: [u8; 4] = hdlr.array()?;
        let stbl = find(find(mdia, *b"minf")?, *b"stbl")?;
        let mut stsd = Fields::new(find(stbl, *b"stsd")?);
        stsd.skip(8)?;
        let entry = atoms(stsd.rest()).next()?;
        let (codec, shown) = match &handler {
            b"vide" => picture(entry.kind, entry.body)?,
            b"soun" => sound(entry.kind, entry.body)?,
            _ => (Codec::other(entry.kind), Media::Other),
        };
        let list = find(trak, *b"edts").and_then(|edts| find(edts, *b"elst"));
        let edit = list.and_then(|elst| edit(elst, movie_scale, timescale)).unwrap_or_default();
        Some(Self { id, timescale, codec, media: shown, edit, defaults: Defaults::default() })
    }

    pub(crate) const fn is_picture(&self) -> bool {
        matches!(self.media, Media::Picture { .. })
    }

    /// When a composition time is presented, ticks from the beginning of the presentation.
    pub(crate) const fn presented(&self, composition: i64) -> i64 {
        composition.saturating_sub(self.edit.media_time).saturating_add(self.edit.delay)
    }
}

/// Of an `mvhd` or `mdhd`; `None` when it is 0.
fn timescale(header: &[u8]) -> Option<u32> {
    let mut fields = Fields::new(header);
    let (version, _) = fields.full()?;
    fields.skip(if version == 0 { 8 } else { 16 })?;
    fields.u32().filter(|&scale| scale > 0)
}

fn edit(elst: &[u8], movie_scale: u32, timescale: u32) -> Option<Edit> {
    let mut fields = Fields::new(elst);
    let (version, _) = fields.full()?;
    let count = fields.u32()?;
    let mut edit = Edit { listed: true, ..Edit::default() };
    for _ in 0..count.min(16) {
        let length = fields.wide(version)?;
        let media_time =
            if version == 0 { i64::from(fields.u32()?.cast_signed()) } else { fields.u64()?.cast_signed() };
        fields.skip(4)?;
        if media_time >= 0 {
            edit.media_time = media_time;
            return Some(edit);
        }
        let ticks = u128::from(length) * u128::from(timescale) / u128::from(movie_scale);
        edit.delay = edit.delay.saturating_add(i64::try_from(ticks).unwrap_or(i64::MAX));
    }
    Some(edit)
}

fn picture(kind: [u8; 4], entry: &[u8]) -> Option<(Codec, Media)> {
    let mut fields = Fields::new(entry);
    fields.skip(24)?;
    let (width, height) = (u32::from(fields.u16()?), u32::from(fields.u16()?));
    fields.skip(50)?;
    let boxes = fields.rest();
    let color = find(boxes, *b"colr").and_then(|colr| {
        let mut fields = Fields::new(colr);
        (fields.array()? == *b"nclx").then_some(())?;
        let (primaries, transfer, matrix) = (fields.u16()?, fields.u16()?, fields.u16()?);
        Some(Color { primaries, transfer, matrix, full: fields.u8()? & 0x80 != 0 })
    });
    Some((codec::picture(kind, boxes, color), Media::Picture { width, height, color }))
}

fn sound(kind: [u8; 4], entry: &[u8]) -> Option<(Codec, Media)> {
    let mut fields = Fields::new(entry);
    fields.skip(8)?;
    let version = fields.u16()?;
    fields.skip(6)?;
    let channels = fields.u16()?;
    fields.skip(6)?;
    let rate = fields.u32()? >> 16;
    // QuickTime's longer entries; ffmpeg never writes them into mp4.
    fields.skip(if version == 1 { 16 } else { 0 })?;
    let (codec, told) = codec::sound(kind, fields.rest());
    Some((codec, Media::Sound { channels: told.unwrap_or(channels), rate }))
}
