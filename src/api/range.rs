//! Byte ranges (RFC 9110 §14): one range, or none.

/// A part of a file: `start..=end`, both inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// Last byte, included.
    pub end: u64,
}

impl ByteRange {
    /// Bytes in the range.
    #[must_use]
    pub const fn length(self) -> u64 {
        self.end - self.start + 1
    }
}

/// What a `Range` header asks of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// All of it: no header, one we do not understand, or several ranges (a server may ignore those).
    Whole,
    /// A part.
    Part(ByteRange),
    /// A part that the file does not have.
    Outside,
}

/// Reads a `Range` header for a file of `size` bytes.
pub(super) fn parse(header: Option<&str>, size: u64) -> Asked {
    let Some(spec) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else {
        return Asked::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-').filter(|_| !spec.contains(',')) else {
        return Asked::Whole;
    };
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // A number beyond u64 is beyond any file.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let range = match (first, last) {
        ("", suffix) => match number(suffix) {
            Some(0) => return Asked::Outside,
            Some(length) => ByteRange { start: size.saturating_sub(length), end: size.saturating_sub(1) },
            None => return Asked::Whole,
        },
        (first, "") => match number(first) {
            Some(start) => ByteRange { start, end: size.saturating_sub(1) },
            None => return Asked::Whole,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(start), Some(end)) if start <= end => {
                ByteRange { start, end: end.min(size.saturating_sub(1)) }
            }
            _ => return Asked::Whole,
        },
    };
    if range.start < size { Asked::Part(range) } else { Asked::Outside }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges() {
        let part = |start, end| Asked::Part(ByteRange { start, end });
        for (header, want) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=0-99", part(0, 99)),
            ("bytes=0-1000", part(0, 99)),
            ("bytes=50-", part(50, 99)),
            ("bytes=-10", part(90, 99)),
            ("bytes=-1000", part(0, 99)),
            ("bytes=100-", Asked::Outside),
            ("bytes=100-200", Asked::Outside),
            ("bytes=-0", Asked::Outside),
            ("bytes=99999999999999999999-", Asked::Outside),
            ("bytes=5-4", Asked::Whole),
            ("bytes=0-1,5-6", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("lines=0-1", Asked::Whole),
        ] {
            assert_eq!(parse(Some(header), 100), want, "{header}");
        }
        assert_eq!(parse(None, 100), Asked::Whole);
        assert_eq!(parse(Some("bytes=0-"), 0), Asked::Outside);
    }

    proptest! {
        #[test]
        fn a_part_is_always_inside_the_file(header in "bytes=[0-9]{0,20}-[0-9]{0,20}", size in 0u64..1000) {
            if let Asked::Part(range) = parse(Some(&header), size) {
                prop_assert!(range.start <= range.end && range.end < size);
            }
        }
    }
}
