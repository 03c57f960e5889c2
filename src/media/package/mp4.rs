//! Cutting fragmented MP4: init segments, media segments, byte ranges (ISO 14496-12, CMAF).
//!
//! Pictures are copied fragment by fragment as the encoder's muxer wrote them: sequence numbers, decode times and the
//! edit list, which takes the reordering delay out, stay as they are. Sound is laid out anew ([`super::sound`]).

use super::cut::{self, Facts, Key, Place, Segment, Track, boundaries, same_instant, seconds};
use super::write::{Out, Sink, Source};
use super::{DynamicRange, Kind, Layout, PackageError, Rendition, Request, names, sound};
use crate::domain::FileRole;
use crate::media::boxes::fragment::Fragment;
use crate::media::boxes::movie::{self, Media, Movie};
use crate::media::boxes::{Header, boxed, find};

/// Bytes of a `moov` or `moof` at most. The `moof` of a whole film's sound has 4 bytes a frame: 5 MB for 8 hours.
const MAX_HEADER: u64 = 64 << 20;
/// Fragments of one rendition at most.
const MAX_GROUPS: usize = 1 << 20;

/// A rendition's file and where its fragments are.
#[derive(Debug)]
pub(super) struct Opened<'r> {
    pub(super) rendition: &'r Rendition,
    pub(super) index: usize,
    pub(super) source: Source,
    pub(super) movie: Movie,
    /// The leading track.
    pub(super) track: movie::Track,
    moov: Vec<u8>,
    pub(super) groups: Vec<Group>,
}

/// One fragment: `moof`, `mdat` and whatever follows before the next `moof`.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) offset: u64,
    /// Bytes of the `moof` alone.
    pub(super) header: usize,
    size: u64,
    /// When its first sample is presented, ticks.
    start: i64,
    pub(super) duration: u64,
    frames: usize,
    /// Bytes from its first to the end of its first sample.
    first_sample: u64,
}

/// Cuts all renditions.
pub(super) fn cut<'r>(request: &'r Request, out: &mut Out) -> Result<Vec<Track<'r>>, PackageError> {
    let mut opened = Vec::new();
    for (index, rendition) in request.renditions.iter().enumerate() {
        opened.push(Opened::open(rendition, index)?);
    }
    let grid = Grid::of(&opened, request.segment_seconds);
    let mut tracks = Vec::new();
    for rendition in &opened {
        tracks.push(match rendition.rendition.kind {
            Kind::Video => rendition.write_video(request, &grid, out)?,
            Kind::Audio(_) => sound::write(rendition, request, &grid, out)?,
        });
    }
    Ok(tracks)
}

/// Where everything is cut.
#[derive(Debug)]
pub(super) struct Grid {
    leader: String,
    /// When segments begin, ticks of `timescale`; the first too.
    pub(super) starts: Vec<i64>,
    pub(super) timescale: u32,
    /// What a segment lasts as a rule, ticks.
    pub(super) step: i64,
}

impl Grid {
    #[expect(clippy::cast_possible_truncation, reason = "f64 to integer saturates")]
    fn of(opened: &[Opened<'_>], wanted: f64) -> Self {
        let video = opened.iter().find(|one| matches!(one.rendition.kind, Kind::Video));
        let Some(leader) = video else {
            // Sound alone is cut on the clock.
            let step = (wanted * 1e6).round().max(1.0) as i64;
            return Self { leader: String::new(), starts: vec![0], timescale: 1_000_000, step };
        };
        let starts: Vec<i64> = leader.groups.iter().map(|group| group.start).collect();
        let timescale = leader.track.timescale;
        let cuts = boundaries(&starts, leader.end(), timescale, wanted);
        let mut starts: Vec<i64> = cuts.iter().filter_map(|&n| starts.get(n).copied()).collect();
        // A rendition at half the rate may round its last picture away: then nobody is cut there.
        let reaches = |one: &Opened<'_>, start: i64| {
            let last = one.groups.last().map_or(0, |group| group.start);
            let (last, start) = (
                i128::from(last) * i128::from(timescale),
                i128::from(start) * i128::from(one.track.timescale),
            );
            last + i128::from(one.track.timescale.max(timescale)) >= start
        };
        let videos = || opened.iter().filter(|one| matches!(one.rendition.kind, Kind::Video));
        while let [_, .., last] = starts.as_slice()
            && !videos().all(|one| reaches(one, *last))
        {
            starts.pop();
        }
        let step = match starts.as_slice() {
            [first, second, ..] => second.saturating_sub(*first),
            _ => ((wanted * f64::from(timescale)).round() as i64).max(leader.end()),
        };
        Self { leader: leader.rendition.name.clone(), starts, timescale, step: step.max(1) }
    }
}

#[cfg(test)]
impl Grid {
    pub(super) fn for_test(starts: &[i64], timescale: u32, step: i64) -> Self {
        Self { leader: String::new(), starts: starts.to_vec(), timescale, step }
    }
}

impl<'r> Opened<'r> {
    fn open(rendition: &'r Rendition, index: usize) -> Result<Self, PackageError> {
        let source = Source::open(&rendition.file)?;
        let broken = |why: &str| PackageError::rendition(rendition, why);
        let (mut at, mut found) = (0, None::<(Vec<u8>, Movie, movie::Track)>);
        let mut groups: Vec<Group> = Vec::new();
        while at < source.size {
            let head = source.read(at, usize::try_from((source.size - at).min(16)).unwrap_or(16))?;
            let header = Header::parse(&head).ok_or_else(|| broken("it is not made of boxes"))?;
            let size = header.size.unwrap_or(source.size - at);
            let end = at.checked_add(size).filter(|&end| end <= source.size);
            let end = end.ok_or_else(|| broken("its last box is cut"))?;
            match &header.kind {
                b"moov" | b"moof" if size > MAX_HEADER => return Err(broken("its index is too large")),
                b"moov" if found.is_none() => {
                    let bytes = source.read(at, usize::try_from(size).unwrap_or(0))?;
                    let movie = bytes.get(header.length..).and_then(Movie::parse);
                    let movie = movie.ok_or_else(|| broken("its index cannot be read"))?;
                    let track = movie.leading().cloned().ok_or_else(|| broken("it has no track"))?;
                    found = Some((bytes, movie, track));
                }
                b"moof" => {
                    let (_, movie, track) =
                        found.as_ref().ok_or_else(|| broken("a fragment comes before its index"))?;
                    let bytes = source.read(at, usize::try_from(size).unwrap_or(0))?;
                    let fragment = bytes.get(header.length..).and_then(|body| Fragment::parse(body, movie));
                    let fragment = fragment.ok_or_else(|| broken("a fragment cannot be read"))?;
                    match Group::of(&fragment, track, at, bytes.len()).map_err(broken)? {
                        Some(group) if groups.len() < MAX_GROUPS => groups.push(group),
                        Some(_) => return Err(broken("it has too many fragments")),
                        None if groups.is_empty() => return Err(broken("its first fragment is empty")),
                        // What other tracks have alone goes with the fragment before.
                        None => extend(&mut groups, at, end),
                    }
                }
                b"mdat" => extend(&mut groups, at, end),
                _ => {}
            }
            at = end;
        }
        let (moov, movie, track) = found.ok_or_else(|| broken("it has no index"))?;
        if groups.is_empty() {
            return Err(broken("it has no fragments; it must be fragmented MP4"));
        }
        match (&rendition.kind, track.is_picture()) {
            (Kind::Video, false) => return Err(broken("it has no picture")),
            (Kind::Audio(_), true) => return Err(broken("it has a picture, but is to be sound")),
            _ => {}
        }
        Ok(Self { rendition, index, source, movie, track, moov, groups })
    }

    /// When the last sample ends, ticks.
    fn end(&self) -> i64 {
        self.groups.last().map_or(0, |last| last.start.saturating_add_unsigned(last.duration))
    }

    /// The init segment: who it is for, and the index as it was.
    fn init(&self) -> Vec<u8> {
        // CMAF tracks have a file each; cmfc is the brand that permits the edit list.
        let brands: &[u8] = if self.movie.tracks.len() == 1 {
            b"iso6\0\0\0\0iso5iso6mp41cmfc"
        } else {
            b"iso6\0\0\0\0iso5iso6mp41"
        };
        let mut init = boxed(*b"ftyp", brands);
        init.extend(&self.moov);
        init
    }

    /// What begins each media segment.
    pub(super) fn styp(&self) -> Vec<u8> {
        let brands: &[u8] =
            if self.movie.tracks.len() == 1 { b"msdh\0\0\0\0msdhcmfs" } else { b"msdh\0\0\0\0msdh" };
        boxed(*b"styp", brands)
    }

    fn facts(&self) -> Facts {
        let sound = self.movie.sound();
        let (channels, sample_rate) = match sound.map(|track| track.media) {
            Some(Media::Sound { channels, rate }) => (Some(channels), Some(rate)),
            _ => (None, None),
        };
        let mut codecs = vec![self.track.codec.clone()];
        codecs.extend(sound.filter(|sound| sound.id != self.track.id).map(|sound| sound.codec.clone()));
        let picture = match self.track.media {
            Media::Picture { width, height, color } => {
                let frames = self.groups.iter().map(|group| group.frames as u64).sum();
                let ticks = self.groups.iter().map(|group| group.duration).sum();
                let range = color.map_or(DynamicRange::Sdr, |c| DynamicRange::of_transfer(c.transfer));
                Some(cut::picture((width, height), frames, ticks, self.track.timescale, range))
            }
            Media::Sound { .. } | Media::Other => None,
        };
        Facts { codecs, picture, channels, sample_rate }
    }

    fn write_video(&self, request: &Request, grid: &Grid, out: &mut Out) -> Result<Track<'r>, PackageError> {
        let mut cuts = Vec::new();
        for &start in &grid.starts {
            let found = self
                .groups
                .iter()
                .position(|group| same_instant(group.start, self.track.timescale, start, grid.timescale));
            cuts.push(found.ok_or_else(|| PackageError::Misaligned {
                rendition: self.rendition.name.clone(),
                leader: grid.leader.clone(),
                seconds: seconds(start.max(0).unsigned_abs(), grid.timescale),
            })?);
        }
        let mut writer = Writer::begin(self, request, cuts.len(), out)?;
        for (n, &from) in cuts.iter().enumerate() {
            let to = cuts.get(n + 1).copied().unwrap_or(self.groups.len());
            let Some(groups @ [first, ..]) = self.groups.get(from..to) else {
                return Err(PackageError::rendition(self.rendition, "its fragments are out of order"));
            };
            let head = writer.segment(n, out)?;
            let mut keys = Vec::new();
            for (n, group) in groups.iter().enumerate() {
                let after =
                    groups.get(n + 1).or_else(|| self.groups.get(to)).map_or(self.end(), |next| next.start);
                let length = u64::try_from(after.saturating_sub(group.start)).unwrap_or(group.duration);
                // The head of the segment goes with its first key frame only in so far as it lies before it.
                let offset = writer.sink()?.size();
                keys.push(Key { offset, size: group.first_sample, duration: length });
                writer.sink()?.copy(&self.source, group.offset, group.size)?;
            }
            let duration = keys.iter().map(|key| key.duration).sum();
            writer.finish(Segment { place: head, start: first.start, duration, keys }, out)?;
        }
        writer.end(self.track.timescale, self.facts(), out)
    }
}

/// What lies between two fragments belongs to the first.
fn extend(groups: &mut [Group], at: u64, end: u64) {
    if let Some(last) = groups.last_mut()
        && last.offset + last.size == at
    {
        last.size = end - last.offset;
    }
}

impl Group {
    /// `None` when the track has no samples here.
    fn of(
        fragment: &Fragment,
        track: &movie::Track,
        offset: u64,
        header: usize,
    ) -> Result<Option<Self>, &'static str> {
        let Some((piece, first)) = fragment.of(track.id).and_then(|p| Some((p, p.samples.first()?))) else {
            return Ok(None);
        };
        if !first.sync {
            return Err("a fragment does not begin with a key frame");
        }
        let composition = piece.first_composition().ok_or("a fragment has no time")?;
        Ok(Some(Self {
            offset,
            header,
            size: header as u64,
            start: track.presented(composition),
            duration: piece.duration(),
            frames: piece.samples.len(),
            first_sample: first.at.saturating_add(first.size.into()),
        }))
    }
}

/// Writes the segments of one rendition, into one file or many.
#[derive(Debug)]
pub(super) struct Writer<'a, 'r> {
    opened: &'a Opened<'r>,
    template: &'a str,
    layout: Layout,
    content_type: &'static str,
    sink: Option<Sink>,
    init: Place,
    /// Where the segment index goes, once it is known.
    index: Option<Place>,
    segments: Vec<Segment>,
}

impl<'a, 'r> Writer<'a, 'r> {
    pub(super) fn begin(
        opened: &'a Opened<'r>,
        request: &'a Request,
        segments: usize,
        out: &mut Out,
    ) -> Result<Self, PackageError> {
        let name = &opened.rendition.name;
        let content_type = if opened.track.is_picture() { "video/mp4" } else { "audio/mp4" };
        let init = opened.init();
        let single = request.layout == Layout::SingleFile;
        let template = if single { &request.names.single } else { &request.names.init };
        let path = names::filled(template, opened.index, name, None);
        let place = Place { path: path.clone(), offset: 0, size: init.len() as u64 };
        let (mut sink, mut index) = (None, None);
        if single {
            let mut file = out.begin(&path)?;
            file.bytes(&init)?;
            let size = INDEX_HEAD + segments * INDEX_ENTRY;
            if segments > usize::from(u16::MAX) {
                return Err(PackageError::rendition(
                    opened.rendition,
                    "it has too many segments for one file",
                ));
            }
            index = Some(Place { path, offset: file.size(), size: size as u64 });
            file.bytes(&vec![0; size])?;
            sink = Some(file);
        } else {
            out.file(&path, FileRole::Init, content_type, &init)?;
        }
        let (template, layout) = (request.names.segment.as_str(), request.layout);
        let segments = Vec::with_capacity(segments);
        Ok(Self { opened, template, layout, content_type, sink, init: place, index, segments })
    }

    /// Begins a segment; the size of the returned place is filled in by [`Self::finish`].
    pub(super) fn segment(&mut self, number: usize, out: &mut Out) -> Result<Place, PackageError> {
        if self.layout != Layout::SingleFile {
            let name = &self.opened.rendition.name;
            let path = names::filled(self.template, self.opened.index, name, Some(number));
            let mut sink = out.begin(&path)?;
            sink.bytes(&self.opened.styp())?;
            self.sink = Some(sink);
            return Ok(Place { path, offset: 0, size: 0 });
        }
        let sink = self.sink()?;
        Ok(Place { path: sink.path().to_owned(), offset: sink.size(), size: 0 })
    }

    pub(super) fn sink(&mut self) -> Result<&mut Sink, PackageError> {
        self.sink.as_mut().ok_or(PackageError::Request("no segment was begun"))
    }

    pub(super) fn finish(&mut self, mut segment: Segment, out: &mut Out) -> Result<(), PackageError> {
        segment.place.size = self.sink()?.size() - segment.place.offset;
        self.segments.push(segment);
        if self.layout != Layout::SingleFile
            && let Some(sink) = self.sink.take()
        {
            // The type of segments is for pictures; sound has its own.
            let picture = self.opened.track.is_picture();
            let content_type = if picture { "video/iso.segment" } else { self.content_type };
            out.end(sink, FileRole::Segment, content_type)?;
        }
        Ok(())
    }

    pub(super) fn end(
        mut self,
        timescale: u32,
        facts: Facts,
        out: &mut Out,
    ) -> Result<Track<'r>, PackageError> {
        if let (Some(index), Some(mut sink)) = (&self.index, self.sink.take()) {
            let bytes = segment_index(self.opened.track.id, timescale, &self.segments);
            let bytes = bytes.ok_or_else(|| {
                PackageError::rendition(self.opened.rendition, "a segment is too large for an index")
            })?;
            sink.patch(index.offset, &bytes)?;
            out.end(sink, FileRole::Segment, self.content_type)?;
        }
        Ok(Track {
            rendition: self.opened.rendition,
            index: self.opened.index,
            facts,
            timescale,
            init: Some(self.init),
            segment_index: self.index,
            segments: self.segments,
        })
    }
}

impl Opened<'_> {
    /// Facts for [`super::sound`].
    pub(super) fn sound_facts(&self) -> Facts {
        self.facts()
    }

    /// A fragment's table of samples, read again.
    pub(super) fn fragment(&self, group: &Group) -> Result<Fragment, PackageError> {
        let bytes = self.source.read(group.offset, group.header)?;
        let body = find(&bytes, *b"moof");
        body.and_then(|body| Fragment::parse(body, &self.movie))
            .ok_or_else(|| PackageError::rendition(self.rendition, "a fragment cannot be read"))
    }
}

/// Bytes of a `sidx` without its entries.
const INDEX_HEAD: usize = 40;
/// Bytes of an entry.
const INDEX_ENTRY: usize = 12;

/// A `sidx` with an entry per segment (ISO 14496-12 §8.16.3).
fn segment_index(track: u32, timescale: u32, segments: &[Segment]) -> Option<Vec<u8>> {
    let first = segments.first().map_or(0, |segment| segment.start.max(0).unsigned_abs());
    let mut body = vec![1, 0, 0, 0];
    body.extend(track.to_be_bytes());
    body.extend(timescale.to_be_bytes());
    body.extend(first.to_be_bytes());
    body.extend(0_u64.to_be_bytes());
    body.extend(0_u16.to_be_bytes());
    body.extend(u16::try_from(segments.len()).ok()?.to_be_bytes());
    for segment in segments {
        let size = u32::try_from(segment.place.size).ok().filter(|&size| size < 1 << 31)?;
        body.extend(size.to_be_bytes());
        body.extend(u32::try_from(segment.duration).ok()?.to_be_bytes());
        // Begins with a random access point of kind 1: decoding and presentation start there.
        body.extend(0x9000_0000_u32.to_be_bytes());
    }
    Some(boxed(*b"sidx", &body))
}
