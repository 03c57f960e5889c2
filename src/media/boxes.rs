//! ISO base media boxes (ISO 14496-12) that are in memory: what an init segment promises and what a fragment holds.
//!
//! Pure. [`super::structure`] asks whether a stranger's file is whole and reads through a window; this module reads what
//! packaging and linting have fetched already. Nothing here trusts a size or a count, and nothing panics: what does not
//! fit is `None`.

pub(crate) mod codec;
pub(crate) mod fragment;
pub(crate) mod movie;
pub(crate) mod sps;

/// A box's kind and the size it declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: [u8; 4],
    /// Bytes in all, header included; `None` = to the end of whatever holds it.
    pub(crate) size: Option<u64>,
    /// Bytes of the header: 8 or 16.
    pub(crate) length: usize,
}

impl Header {
    /// The header at the beginning of `bytes`; 16 bytes are always enough.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let short = fields.u32()?;
        let kind = fields.array()?;
        let (size, length) = match short {
            0 => (None, 8),
            1 => (Some(fields.u64()?), 16),
            short => (Some(u64::from(short)), 8),
        };
        let fits = size.is_none_or(|size| size >= length as u64);
        fits.then_some(Self { kind, size, length })
    }
}

/// A whole box in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Atom<'a> {
    pub(crate) kind: [u8; 4],
    /// Where its header begins in the bytes that were walked.
    pub(crate) start: usize,
    /// Everything after its header.
    pub(crate) body: &'a [u8],
    /// Where the next one begins.
    pub(crate) end: usize,
}

/// The boxes of a container, in order; ends before the first that does not fit.
pub(crate) fn atoms(bytes: &[u8]) -> impl Iterator<Item = Atom<'_>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(start..)?;
        let header = Header::parse(rest)?;
        let size = match header.size {
            Some(size) => usize::try_from(size).ok()?,
            None => rest.len(),
        };
        let body = rest.get(header.length..size)?;
        let atom = Atom { kind: header.kind, start, body, end: start + size };
        start = atom.end;
        Some(atom)
    })
}

/// The contents of the first box of that kind.
pub(crate) fn find(bytes: &[u8], kind: [u8; 4]) -> Option<&[u8]> {
    atoms(bytes).find(|atom| atom.kind == kind).map(|atom| atom.body)
}

/// Reads big-endian fields one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What has not been read.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    pub(crate) fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(|_| ())
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Version and flags of a full box.
    pub(crate) fn full(&mut self) -> Option<(u8, u32)> {
        let word = self.u32()?;
        Some((word.to_be_bytes()[0], word & 0x00ff_ffff))
    }

    /// A field that is 64 bits wide in version 1 and 32 before.
    pub(crate) fn wide(&mut self, version: u8) -> Option<u64> {
        if version == 0 { self.u32().map(u64::from) } else { self.u64() }
    }
}

/// A box with these contents.
pub(crate) fn boxed(kind: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 8);
    // Only headers are made in memory; none comes near 4 GiB.
    bytes.extend(u32::try_from(body.len() + 8).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(kind);
    bytes.extend(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_walked_to_the_first_that_does_not_fit() {
        let mut bytes = boxed(*b"free", b"xy");
        bytes.extend(boxed(*b"moov", &boxed(*b"mvhd", b"z")));
        bytes.extend([0, 0, 0, 99, b'm', b'd', b'a', b't', 1]);
        let kinds: Vec<_> = atoms(&bytes).map(|atom| (atom.kind, atom.start, atom.end)).collect();
        assert_eq!(kinds, [(*b"free", 0, 10), (*b"moov", 10, 27)]);
        assert_eq!(find(find(&bytes, *b"moov").unwrap(), *b"mvhd"), Some(&b"z"[..]));
    }

    #[test]
    fn sizes_that_lie_end_the_walk() {
        for lie in [[0, 0, 0, 7], [0, 0, 0, 1], [255, 255, 255, 255]] {
            let bytes = [&lie[..], b"moov", &[0, 0, 0, 0, 0, 0, 0, 3]].concat();
            assert_eq!(atoms(&bytes).count(), 0, "{lie:?}");
        }
        let open = [&[0, 0, 0, 0][..], b"mdat", b"rest"].concat();
        assert_eq!(atoms(&open).next().unwrap().body, b"rest");
    }
}
