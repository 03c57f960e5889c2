//! ISO base media (ISO 14496-12) and `QuickTime`: every sample named by the index lies inside the file.

use super::reader::Reader;
use super::{Completeness, Facts, encrypted, fragments, truncated};
use crate::domain::{Code, Failure};

/// A box: its kind and where its contents are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Atom {
    pub(super) kind: [u8; 4],
    /// First byte of the header.
    pub(super) start: u64,
    /// First byte of the contents.
    pub(super) body: u64,
    /// First byte after it, as declared; may lie beyond the file.
    pub(super) end: u64,
}

/// What the walk has met so far.
#[derive(Debug, Default)]
struct Met {
    index: bool,
    media: bool,
    fragments: bool,
    seconds: Option<f64>,
    cut: Option<[u8; 4]>,
}

pub(super) async fn check(reader: &mut Reader<'_>) -> Result<Facts, Failure> {
    let size = reader.size();
    let (mut at, mut met) = (0, Met::default());
    while let Some(atom) = next(reader, at, size).await? {
        reader.step()?;
        let whole = atom.end <= size;
        match &atom.kind {
            b"moov" if whole => {
                met.index = true;
                movie(reader, atom, &mut met).await?;
            }
            b"moof" if whole => {
                met.fragments = true;
                fragments::fragment(reader, atom).await?;
            }
            b"sidx" if whole => fragments::segment_index(reader, atom).await?,
            b"moov" | b"moof" => return Err(truncated("the index itself is cut")),
            b"mdat" => met.media |= atom.end > atom.body,
            _ => {}
        }
        if !whole {
            met.cut = Some(atom.kind);
        }
        at = atom.end;
    }
    match met {
        Met { index: false, media: true, fragments: false, .. } => Err(truncated("media without an index")),
        Met { index: false, fragments: true, .. } => Err(Failure::new(
            Code::MediaUnsupported,
            "The source is one segment of a stream, without the header it needs.",
        )),
        Met { index: false, .. } => {
            Err(Failure::new(Code::MediaCorrupt, "The source has neither media nor an index."))
        }
        // Whole samples prove a plain file; in fragments only the last box tells.
        Met { fragments: true, cut: Some(_), .. } => Err(truncated("the last fragment is cut")),
        Met { fragments, seconds, .. } => {
            Ok(Facts { completeness: Completeness::Proven, fragmented: fragments, declared_seconds: seconds })
        }
    }
}

/// The box at `at`, or `None` at the end of `limit` (or where no box can be).
pub(super) async fn next(reader: &mut Reader<'_>, at: u64, limit: u64) -> Result<Option<Atom>, Failure> {
    if at.saturating_add(8) > limit {
        return Ok(None);
    }
    let Some([a, b, c, d, kind @ ..]) = reader.array::<8>(at).await? else {
        return Ok(None);
    };
    let kind: [u8; 4] = kind;
    let (length, header) = match u32::from_be_bytes([a, b, c, d]) {
        0 => (limit - at, 8),
        1 => match reader.u64(at + 8).await? {
            Some(length) => (length, 16),
            None => return Ok(None),
        },
        length => (u64::from(length), 8),
    };
    if length < header {
        // Zero padding and broken headers end the walk; what matters was before, or is missing.
        return Ok(None);
    }
    Ok(Some(Atom { kind, start: at, body: at + header, end: at.saturating_add(length) }))
}

/// The first child of that kind.
pub(super) async fn child(
    reader: &mut Reader<'_>,
    parent: Atom,
    kind: [u8; 4],
) -> Result<Option<Atom>, Failure> {
    let mut at = parent.body;
    while let Some(atom) = next(reader, at, parent.end).await? {
        reader.step()?;
        if atom.kind == kind && atom.end <= parent.end {
            return Ok(Some(atom));
        }
        at = atom.end;
    }
    Ok(None)
}

async fn movie(reader: &mut Reader<'_>, moov: Atom, met: &mut Met) -> Result<(), Failure> {
    let mut at = moov.body;
    while let Some(atom) = next(reader, at, moov.end).await? {
        reader.step()?;
        match &atom.kind {
            b"mvhd" => met.seconds = duration(reader, atom).await?,
            b"mvex" => met.fragments = true,
            b"trak" if atom.end <= moov.end => track(reader, atom).await?,
            _ => {}
        }
        at = atom.end;
    }
    Ok(())
}

async fn duration(reader: &mut Reader<'_>, mvhd: Atom) -> Result<Option<f64>, Failure> {
    let wide = reader.array::<1>(mvhd.body).await? == Some([1]);
    let (scale, length) = if wide {
        (reader.u32(mvhd.body + 20).await?, reader.u64(mvhd.body + 24).await?)
    } else {
        (reader.u32(mvhd.body + 12).await?, reader.u32(mvhd.body + 16).await?.map(u64::from))
    };
    let (Some(scale @ 1..), Some(length)) = (scale, length) else {
        return Ok(None);
    };
    #[expect(clippy::cast_precision_loss, reason = "a declared duration is an estimate")]
    let seconds = length as f64 / f64::from(scale);
    // All ones says "unknown", zero says "in fragments".
    Ok((length > 0 && length != u64::from(u32::MAX) && length != u64::MAX).then_some(seconds))
}

async fn track(reader: &mut Reader<'_>, trak: Atom) -> Result<(), Failure> {
    let Some(mdia) = child(reader, trak, *b"mdia").await? else {
        return Ok(());
    };
    let kind = match child(reader, mdia, *b"hdlr").await? {
        Some(hdlr) => reader.array::<4>(hdlr.body + 8).await?,
        None => None,
    };
    // Broken timecode or metadata tracks are common and harm nobody.
    if !matches!(kind.as_ref(), Some(b"vide" | b"soun")) {
        return Ok(());
    }
    let Some(minf) = child(reader, mdia, *b"minf").await? else {
        return Ok(());
    };
    let Some(stbl) = child(reader, minf, *b"stbl").await? else {
        return Ok(());
    };
    if let Some(stsd) = child(reader, stbl, *b"stsd").await? {
        let coding = reader.array::<4>(stsd.body + 12).await?;
        if matches!(coding.as_ref(), Some(b"encv" | b"enca" | b"drmi" | b"drms")) {
            return Err(encrypted());
        }
    }
    if let Some(end) = last_byte(reader, stbl).await?
        && end > reader.size()
    {
        return Err(truncated(format!("a sample ends at byte {end} of {}", reader.size())));
    }
    Ok(())
}

/// The end of the track's last byte: chunk offsets (stco/co64) plus the sizes (stsz) of the samples in them (stsc).
async fn last_byte(reader: &mut Reader<'_>, stbl: Atom) -> Result<Option<u64>, Failure> {
    let (wide, offsets) = match child(reader, stbl, *b"stco").await? {
        Some(stco) => (false, Some(stco)),
        None => (true, child(reader, stbl, *b"co64").await?),
    };
    let (Some(offsets), Some(stsc)) = (offsets, child(reader, stbl, *b"stsc").await?) else {
        return Ok(None);
    };
    let Some(sizes) = child(reader, stbl, *b"stsz").await? else {
        return Ok(None);
    };
    let width = if wide { 8 } else { 4 };
    let count = |declared: Option<u32>, table: Atom, header: u64, entry: u64| {
        let fits = table.end.saturating_sub(table.body + header) / entry;
        u64::from(declared.unwrap_or(0)).min(fits)
    };
    let chunks = count(reader.u32(offsets.body + 4).await?, offsets, 8, width);
    let runs = count(reader.u32(stsc.body + 4).await?, stsc, 8, 12);
    let same = reader.u32(sizes.body + 4).await?.unwrap_or(0);
    let declared = reader.u32(sizes.body + 8).await?;
    let samples = if same == 0 { count(declared, sizes, 12, 4) } else { u64::from(declared.unwrap_or(0)) };

    // Three tables are read side by side, each through its own window: memory does not grow with the file.
    let (mut run_reader, mut size_reader) = (reader.beside(), reader.beside());
    let (mut run, mut per_chunk, mut next_run_at) = (0, 0_u64, 1_u64);
    let (mut sample, mut end) = (0_u64, 0_u64);
    for chunk in 1..=chunks {
        while run < runs && chunk >= next_run_at {
            per_chunk = run_reader.u32(stsc.body + 8 + run * 12 + 4).await?.map_or(0, u64::from);
            run += 1;
            let first = if run < runs { run_reader.u32(stsc.body + 8 + run * 12).await? } else { None };
            next_run_at = first.map_or(u64::MAX, u64::from);
        }
        let here = per_chunk.min(samples - sample);
        if here == 0 {
            continue;
        }
        let bytes = if same == 0 {
            sum(&mut size_reader, sizes.body + 12 + sample * 4, here).await?
        } else {
            u64::from(same).saturating_mul(here)
        };
        sample += here;
        let at = offsets.body + 8 + (chunk - 1) * width;
        let start = if wide { reader.u64(at).await? } else { reader.u32(at).await?.map(u64::from) };
        end = end.max(start.unwrap_or(0).saturating_add(bytes));
    }
    Ok(Some(end))
}

/// The sum of `count` 32-bit sizes.
async fn sum(reader: &mut Reader<'_>, at: u64, count: u64) -> Result<u64, Failure> {
    let mut total = 0_u64;
    for n in 0..count {
        let Some(size) = reader.u32(at + n * 4).await? else {
            break;
        };
        total = total.saturating_add(u64::from(size));
    }
    Ok(total)
}
