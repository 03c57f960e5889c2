//! Cutting MPEG-TS (`-f mpegts -muxdelay 0 -muxpreload 0`).
//!
//! A segment begins with a key frame, and the tables that describe the program are put before every key frame, so that
//! each GOP can be played alone. All other packets stay as they are, in their order. Only the counters of the tables'
//! packets are counted anew, for there are more of them now.

use std::io::{BufReader, Read};

use super::cut::{self, Facts, Key, Place, Segment, Track, boundaries, same_instant, seconds};
use super::write::{Out, Sink, Source};
use super::{DynamicRange, Kind, PackageError, Rendition, Request, names};
use crate::domain::FileRole;
use crate::media::boxes::codec::{Codec, Family};
use crate::media::boxes::sps::Sps;
use crate::media::ts::{self, Adts, CLOCK, Demux, PACKET, Seen, Stream, StreamKind};

/// Bytes of the first picture that are kept to look for its parameters.
const MAX_FIRST: usize = 1 << 20;

/// What the first reading of a file found.
struct Survey<'r> {
    rendition: &'r Rendition,
    index: usize,
    source: Source,
    leader: Stream,
    /// The tables' first packets.
    programs: [u8; PACKET],
    program: [u8; PACKET],
    table: u16,
    /// Where segments may begin.
    points: Vec<Point>,
    /// When the last picture or sound ends, ticks.
    end: i64,
    facts: Facts,
}

/// A key frame, or a piece of sound.
struct Point {
    /// Number of its first packet.
    packet: u64,
    /// Number of the packet after its last.
    last: u64,
    time: i64,
}

/// Cuts all renditions.
pub(super) fn cut<'r>(request: &'r Request, out: &mut Out) -> Result<Vec<Track<'r>>, PackageError> {
    let mut surveys = Vec::new();
    for (index, rendition) in request.renditions.iter().enumerate() {
        surveys.push(Survey::of(rendition, index)?);
    }
    let leader = surveys.iter().find(|s| matches!(s.rendition.kind, Kind::Video)).or(surveys.first());
    let (mut grid, mut name) = (Vec::new(), String::new());
    if let Some(leader) = leader {
        name.clone_from(&leader.rendition.name);
        let starts: Vec<i64> = leader.points.iter().map(|point| point.time).collect();
        let cuts = boundaries(&starts, leader.end, CLOCK, request.segment_seconds);
        grid = cuts.iter().filter_map(|&n| starts.get(n).copied()).collect();
    }
    surveys.iter().map(|survey| survey.write(request, &name, &grid, out)).collect()
}

impl<'r> Survey<'r> {
    fn of(rendition: &'r Rendition, index: usize) -> Result<Self, PackageError> {
        let source = Source::open(&rendition.file)?;
        let broken = |why: &str| PackageError::rendition(rendition, why);
        let wants_picture = matches!(rendition.kind, Kind::Video);
        let mut look = Look::new(wants_picture);
        let mut reader = Packets::new(&source)?;
        while let Some(packet) = reader.next(&rendition.file)? {
            look.packet(&packet).map_err(broken)?;
        }
        let (Some(leader), Some(table)) = (look.leader, look.demux.table) else {
            return Err(broken(if wants_picture { "it has no H.264 picture" } else { "it has no sound" }));
        };
        let (Some(programs), Some(program)) = (look.programs, look.program) else {
            return Err(broken("it has no tables"));
        };
        if look.points.is_empty() {
            return Err(broken("it has no key frame"));
        }
        let count = look.number;
        if let Some(last) = look.points.last_mut().filter(|point| point.last == 0) {
            last.last = count;
        }
        let end = look.latest.saturating_add(look.frame_ticks());
        let facts = look.facts(end).map_err(broken)?;
        let points = look.points;
        Ok(Self { rendition, index, source, leader, programs, program, table, points, end, facts })
    }

    fn write(
        &self,
        request: &Request,
        leader: &str,
        grid: &[i64],
        out: &mut Out,
    ) -> Result<Track<'r>, PackageError> {
        let cuts = self.cuts(leader, grid)?;
        let mut writer =
            Writer { survey: self, tables: [0; 2], sink: None, keys: Vec::new(), segments: Vec::new() };
        let mut reader = Packets::new(&self.source)?;
        let (mut number, mut point) = (0, 0);
        let path = |n| names::filled(&request.names.segment, self.index, &self.rendition.name, Some(n));
        // Sound that comes before the first key frame is played with it.
        writer.sink = Some(out.begin(&path(0))?);
        writer.tables()?;
        while let Some(mut packet) = reader.next(&self.rendition.file)? {
            if self.points.get(point).is_some_and(|next| next.packet == number) {
                if let Some(segment @ 1..) = cuts.iter().position(|&cut| cut == point) {
                    writer.end_segment(out)?;
                    writer.sink = Some(out.begin(&path(segment))?);
                }
                writer.point(point)?;
                point += 1;
            }
            writer.packet(&mut packet)?;
            number += 1;
            writer.key_ends(number);
        }
        writer.end_segment(out)?;
        let segments = writer.segments;
        Ok(Track {
            rendition: self.rendition,
            index: self.index,
            facts: self.facts.clone(),
            timescale: CLOCK,
            init: None,
            segment_index: None,
            segments,
        })
    }

    /// Points at which segments begin.
    fn cuts(&self, leader: &str, grid: &[i64]) -> Result<Vec<usize>, PackageError> {
        let mut cuts = Vec::new();
        for &instant in grid {
            let nearest =
                self.points.iter().enumerate().min_by_key(|(_, point)| point.time.abs_diff(instant));
            let Some((at, point)) = nearest else { continue };
            if self.leader.kind.is_picture() && !same_instant(point.time, CLOCK, instant, CLOCK) {
                return Err(PackageError::Misaligned {
                    rendition: self.rendition.name.clone(),
                    leader: leader.to_owned(),
                    seconds: seconds(instant.max(0).unsigned_abs(), CLOCK),
                });
            }
            cuts.push(at);
        }
        // The first segment begins with the first point, and sound may end before the pictures do.
        cuts.dedup();
        if let Some(first) = cuts.first_mut() {
            *first = 0;
        }
        Ok(cuts)
    }

    /// Ticks from a point to the next, or to the end.
    fn until(&self, point: usize, next: usize) -> u64 {
        let from = self.points.get(point).map_or(0, |point| point.time);
        let to = self.points.get(next).map_or(self.end, |point| point.time);
        u64::try_from(to - from).unwrap_or(0)
    }
}

/// State of the first reading.
struct Look {
    demux: Demux,
    wants_picture: bool,
    leader: Option<Stream>,
    number: u64,
    programs: Option<[u8; PACKET]>,
    program: Option<[u8; PACKET]>,
    points: Vec<Point>,
    frames: u64,
    earliest: i64,
    latest: i64,
    picture: Vec<u8>,
    sps: Option<Sps>,
    sound: Option<(StreamKind, Option<Adts>)>,
}

impl Look {
    fn new(wants_picture: bool) -> Self {
        Self {
            demux: Demux::default(),
            wants_picture,
            leader: None,
            number: 0,
            programs: None,
            program: None,
            points: Vec::new(),
            frames: 0,
            earliest: i64::MAX,
            latest: i64::MIN,
            picture: Vec::new(),
            sps: None,
            sound: None,
        }
    }

    fn packet(&mut self, packet: &[u8; PACKET]) -> Result<(), &'static str> {
        match self.demux.read(packet).ok_or("it is not MPEG-TS")? {
            Seen::Programs => {
                self.programs.get_or_insert(*packet);
            }
            Seen::Program => {
                self.program.get_or_insert(*packet);
            }
            Seen::Start { stream, random_access, pts, payload } => {
                if stream.kind.is_sound() && self.sound.is_none() {
                    self.sound = Some((stream.kind, ts::adts(payload)));
                }
                let leads =
                    if self.wants_picture { stream.kind == StreamKind::Avc } else { stream.kind.is_sound() };
                if leads && self.leader.is_none() {
                    self.leader = Some(stream);
                }
                if self.leader == Some(stream) {
                    self.start(random_access, pts, payload);
                }
            }
            Seen::More { stream, payload } if self.leader == Some(stream) => self.look_for_sps(payload),
            Seen::More { .. } | Seen::Other => {}
        }
        self.number += 1;
        Ok(())
    }

    fn start(&mut self, random_access: bool, pts: Option<u64>, payload: &[u8]) {
        self.end_point();
        let Some(pts) = pts else { return };
        let time = ts::unwrapped(if self.frames == 0 { 0 } else { self.latest }, pts);
        let begins = random_access || !self.wants_picture;
        if begins {
            self.points.push(Point { packet: self.number, last: 0, time });
        }
        if self.points.is_empty() {
            return;
        }
        self.frames += 1;
        self.earliest = self.earliest.min(time);
        self.latest = self.latest.max(time);
        if begins {
            self.look_for_sps(payload);
        }
    }

    /// The point that is being read ends with the packet before this one, or before it, where others came between.
    fn end_point(&mut self) {
        let number = self.number;
        if let Some(last) = self.points.last_mut().filter(|point| point.last == 0) {
            last.last = number;
        }
    }

    fn look_for_sps(&mut self, payload: &[u8]) {
        if self.wants_picture
            && self.sps.is_none()
            && !self.points.is_empty()
            && self.picture.len() < MAX_FIRST
        {
            self.picture.extend(payload);
            self.sps = ts::parameters(&self.picture);
        }
    }

    /// Ticks of one picture, or of the piece of sound before the last.
    fn frame_ticks(&self) -> i64 {
        let gaps = i64::try_from(self.frames).unwrap_or(i64::MAX).saturating_sub(1);
        if gaps < 1 { 0 } else { (self.latest - self.earliest + gaps / 2) / gaps }
    }

    fn facts(&self, end: i64) -> Result<Facts, &'static str> {
        let mut codecs = Vec::new();
        let mut picture = None;
        if self.wants_picture {
            let sps = self.sps.ok_or("its picture has no parameters")?;
            codecs.push(Codec::new(Family::Avc, sps.codec()));
            let ticks = u64::try_from(end - self.earliest).unwrap_or(0);
            let size = (sps.width, sps.height);
            picture = Some(cut::picture(size, self.frames, ticks, CLOCK, DynamicRange::Sdr));
        }
        let (mut channels, mut sample_rate) = (None, None);
        if let Some((kind, adts)) = self.sound {
            codecs.push(match (kind, adts) {
                (StreamKind::Mp3, _) => Codec::new(Family::Mp3, "mp4a.40.34"),
                (StreamKind::Ac3, _) => Codec::new(Family::Ac3, "ac-3"),
                (_, Some(adts)) => Codec::new(Family::Aac, format!("mp4a.40.{}", adts.kind)),
                (_, None) => return Err("its sound cannot be read"),
            });
            channels = adts.map(|adts| adts.channels);
            sample_rate = adts.map(|adts| adts.rate);
        }
        Ok(Facts { codecs, picture, channels, sample_rate })
    }
}

/// State of the second reading.
struct Writer<'a, 'r> {
    survey: &'a Survey<'r>,
    /// The next counters of the two tables.
    tables: [u8; 2],
    sink: Option<Sink>,
    /// Of the segment being written: the point and the bytes of its key frame.
    keys: Vec<(usize, u64, u64)>,
    segments: Vec<Segment>,
}

impl Writer<'_, '_> {
    /// A key frame comes next: the tables go before it.
    fn point(&mut self, point: usize) -> Result<(), PackageError> {
        if let Some(sink) = &self.sink {
            self.keys.push((point, sink.size(), 0));
        }
        self.tables()
    }

    fn tables(&mut self) -> Result<(), PackageError> {
        let (mut programs, mut program) = (self.survey.programs, self.survey.program);
        self.packet(&mut programs)?;
        self.packet(&mut program)
    }

    fn packet(&mut self, packet: &mut [u8; PACKET]) -> Result<(), PackageError> {
        let Some(sink) = &mut self.sink else { return Ok(()) };
        let pid = u16::from(packet[1] & 0x1f) << 8 | u16::from(packet[2]);
        if pid == 0 || pid == self.survey.table {
            let [programs, program] = &mut self.tables;
            let counter = if pid == 0 { programs } else { program };
            packet[3] = packet[3] & 0xf0 | *counter & 0x0f;
            *counter = counter.wrapping_add(1);
        }
        sink.bytes(packet)
    }

    /// Whether the key frame being written ended with the packet before that number.
    fn key_ends(&mut self, number: u64) {
        if let (Some(sink), Some((point, offset, size @ 0))) = (&self.sink, self.keys.last_mut())
            && self.survey.points.get(*point).is_some_and(|point| point.last == number)
        {
            *size = sink.size() - *offset;
        }
    }

    fn end_segment(&mut self, out: &mut Out) -> Result<(), PackageError> {
        let Some(sink) = self.sink.take() else { return Ok(()) };
        let place = Place { path: sink.path().to_owned(), offset: 0, size: sink.size() };
        let keys = std::mem::take(&mut self.keys);
        let first = keys.first().map_or(0, |key| key.0);
        let after = keys.last().map_or(first, |key| key.0) + 1;
        let is_picture = self.survey.leader.kind.is_picture();
        let segment = Segment {
            start: self.survey.points.get(first).map_or(0, |point| point.time),
            duration: self.survey.until(first, after),
            keys: if is_picture {
                keys.iter()
                    .map(|&(point, offset, size)| Key {
                        offset,
                        size: if size == 0 { place.size - offset } else { size },
                        duration: self.survey.until(point, point + 1),
                    })
                    .collect()
            } else {
                Vec::new()
            },
            place,
        };
        self.segments.push(segment);
        out.end(sink, FileRole::Segment, "video/mp2t")
    }
}

/// Packets of a file, in order.
struct Packets<'a> {
    reader: BufReader<std::io::Take<&'a std::fs::File>>,
    left: u64,
}

impl<'a> Packets<'a> {
    fn new(source: &'a Source) -> Result<Self, PackageError> {
        let file = source.rewound()?;
        let reader = BufReader::with_capacity(PACKET * 1024, file.take(source.size));
        Ok(Self { reader, left: source.size / PACKET as u64 })
    }

    fn next(&mut self, path: &std::path::Path) -> Result<Option<[u8; PACKET]>, PackageError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let mut packet = [0; PACKET];
        self.reader.read_exact(&mut packet).map_err(PackageError::file(path))?;
        Ok(Some(packet))
    }
}
