use async_trait::async_trait;
use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;

/// A source in memory.
pub(in crate::media) struct Bytes(bytes::Bytes);

impl Bytes {
    pub(in crate::media) fn new(data: &[u8]) -> Self {
        Self(bytes::Bytes::copy_from_slice(data))
    }
}

#[async_trait]
impl RandomRead for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }
    async fn read_at(&self, offset: u64, len: usize) -> std::io::Result<bytes::Bytes> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let end = start.saturating_add(len).min(self.0.len());
        Ok(self.0.slice(start..end))
    }
}

fn checked(data: &[u8], demuxer: Demuxer) -> Result<Facts, Failure> {
    check(&Bytes::new(data), demuxer).now_or_never().unwrap()
}

fn code(data: &[u8], demuxer: Demuxer) -> Code {
    checked(data, demuxer).unwrap_err().code
}

fn atom(kind: [u8; 4], body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len() + 8).unwrap().to_be_bytes(), kind.as_slice(), body].concat()
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_be_bytes()).collect()
}

/// A movie of one video track: two chunks of two samples each at `offset`, sizes 10, 20, 30, 40.
fn movie(offset: u32, coding: [u8; 4]) -> Vec<u8> {
    let stsd = atom(*b"stsd", &[words(&[0, 1]), atom(coding, &[0; 16])].concat());
    let tables = [
        stsd,
        atom(*b"stsc", &words(&[0, 1, 1, 2, 1])),
        atom(*b"stsz", &words(&[0, 0, 4, 10, 20, 30, 40])),
        atom(*b"stco", &words(&[0, 2, offset, offset + 30])),
    ]
    .concat();
    let hdlr = atom(*b"hdlr", &[words(&[0, 0]).as_slice(), b"vide", &[0; 12]].concat());
    let minf = atom(*b"minf", &atom(*b"stbl", &tables));
    let mvhd = atom(*b"mvhd", &words(&[0, 0, 0, 600, 1500]));
    atom(*b"moov", &[mvhd, atom(*b"trak", &atom(*b"mdia", &[hdlr, minf].concat()))].concat())
}

fn mp4() -> Vec<u8> {
    let ftyp = atom(*b"ftyp", b"isom\0\0\0\0");
    let length = u32::try_from(ftyp.len() + movie(0, *b"avc1").len()).unwrap();
    [ftyp, movie(length + 8, *b"avc1"), atom(*b"mdat", &[7; 100])].concat()
}

#[test]
fn every_sample_of_an_mp4_must_be_there() {
    let whole = mp4();
    let facts = checked(&whole, Demuxer::Mov).unwrap();
    assert_eq!(facts, Facts { declared_seconds: Some(2.5), ..Facts::PROVEN });
    for missing in 1..100 {
        assert_eq!(code(&whole[..whole.len() - missing], Demuxer::Mov), Code::MediaTruncated, "{missing}");
    }
    // The index cut, or not there yet.
    assert_eq!(code(&whole[..100], Demuxer::Mov), Code::MediaTruncated);
    assert_eq!(code(&atom(*b"mdat", &[0; 50]), Demuxer::Mov), Code::MediaTruncated);
    assert_eq!(code(&atom(*b"free", &[0; 50]), Demuxer::Mov), Code::MediaCorrupt);
    assert_eq!(
        code(b"\0\0\0\x08free\0\0\0\0mdat", Demuxer::Mov),
        Code::MediaCorrupt,
        "nothing was ever written"
    );
}

#[test]
fn encrypted_media_is_refused() {
    assert_eq!(code(&movie(0, *b"encv"), Demuxer::Mov), Code::MediaUnsupported);
}

#[test]
fn hostile_boxes_end_the_walk() {
    let huge = [&[0, 0, 0, 1], b"moov".as_slice(), &u64::MAX.to_be_bytes(), &[0; 64]].concat();
    assert!(checked(&huge, Demuxer::Mov).is_err());
    // A sample table that claims four thousand million entries.
    let mut liar = mp4();
    let at = liar.windows(4).position(|w| w == b"stsz").unwrap();
    liar[at + 12..at + 16].copy_from_slice(&u32::MAX.to_be_bytes());
    let _ = checked(&liar, Demuxer::Mov);
}

#[test]
fn fragments_must_hold_their_runs() {
    let header = atom(*b"moov", &atom(*b"mvex", &[]));
    let fragment = |offset: u32| {
        let tfhd = atom(*b"tfhd", &words(&[0x0002_0000, 1]));
        let trun = atom(*b"trun", &words(&[0x201, 2, offset, 30, 40]));
        atom(*b"moof", &atom(*b"traf", &[tfhd, trun].concat()))
    };
    let length = u32::try_from(fragment(0).len()).unwrap();
    let file = |offset: u32| [header.clone(), fragment(offset), atom(*b"mdat", &[1; 70])].concat();
    let whole = file(length + 8);
    assert!(checked(&whole, Demuxer::Mov).unwrap().fragmented);
    assert_eq!(code(&whole[..whole.len() - 1], Demuxer::Mov), Code::MediaTruncated);
    assert_eq!(code(&file(length + 9), Demuxer::Mov), Code::MediaTruncated);
    // Cut between fragments: only an index of segments can tell.
    let sidx = atom(*b"sidx", &words(&[0, 1, 1000, 0, 0, 1, length + 78, 0, 0]));
    let indexed = [header, sidx, fragment(length + 8), atom(*b"mdat", &[1; 70])].concat();
    assert!(checked(&indexed, Demuxer::Mov).is_ok());
    assert_eq!(code(&indexed[..indexed.len() - 78], Demuxer::Mov), Code::MediaTruncated);
}

#[test]
fn a_matroska_segment_is_whole_or_of_unknown_size() {
    let head = b"\x1A\x45\xDF\xA3\x87\x42\x82\x84webm";
    let with = |size: &[u8], body: &[u8]| [head.as_slice(), b"\x18\x53\x80\x67", size, body].concat();
    let cluster = b"\x1F\x43\xB6\x75\x84abcd";
    assert_eq!(checked(&with(b"\x89", cluster), Demuxer::Matroska).unwrap(), Facts::PROVEN);
    assert_eq!(code(&with(b"\x8A", cluster), Demuxer::Matroska), Code::MediaTruncated);
    let unknown = b"\x01\xFF\xFF\xFF\xFF\xFF\xFF\xFF";
    assert_eq!(checked(&with(unknown, cluster), Demuxer::Matroska).unwrap(), Facts::UNDECLARED);
    assert_eq!(code(&with(unknown, &cluster[..7]), Demuxer::Matroska), Code::MediaTruncated);
    let crypt = b"\x16\x54\xAE\x6B\x89\xAE\x87\x6D\x80\x84\x62\x40\x81\x00";
    let _ = checked(&with(b"\xFF", crypt), Demuxer::Matroska);
    let crypt = b"\x16\x54\xAE\x6B\x8B\xAE\x89\x6D\x80\x86\x62\x40\x83\x50\x35\x80";
    assert_eq!(code(&with(b"\x90", crypt), Demuxer::Matroska), Code::MediaUnsupported);
}

#[test]
fn riff_sizes_are_kept() {
    let avi = |length: u32, body: usize| {
        [b"RIFF".as_slice(), &length.to_le_bytes(), b"AVI ", &vec![0; body]].concat()
    };
    assert_eq!(checked(&avi(24, 20), Demuxer::Avi).unwrap(), Facts::PROVEN);
    assert_eq!(code(&avi(26, 20), Demuxer::Avi), Code::MediaTruncated);
    assert_eq!(checked(&avi(0, 20), Demuxer::Avi).unwrap(), Facts::UNDECLARED);
    let two = [avi(24, 20), [b"RIFF".as_slice(), &100_u32.to_le_bytes(), b"AVIX"].concat()].concat();
    assert_eq!(code(&two, Demuxer::Avi), Code::MediaTruncated);
}

#[test]
fn an_flv_ends_with_a_whole_tag_near_its_duration() {
    let tag = |kind: u8, millis: u32, data: &[u8]| {
        let length = u32::try_from(data.len()).unwrap();
        let [t3, t2, t1, t0] = millis.to_be_bytes();
        let head = [&[kind], &length.to_be_bytes()[1..], &[t2, t1, t0, t3, 0, 0, 0]].concat();
        [head, data.to_vec(), (length + 11).to_be_bytes().to_vec()].concat()
    };
    let meta =
        [b"\x02\0\x0aonMetaData\x08\0\0\0\x01\0\x08duration\0".as_slice(), &2.0_f64.to_be_bytes()].concat();
    let start = [b"FLV\x01\x01\0\0\0\x09\0\0\0\0".to_vec(), tag(18, 0, &meta), tag(9, 0, &[0; 40])].concat();
    let whole = [start.clone(), tag(9, 1900, &[0; 40])].concat();
    let facts = checked(&whole, Demuxer::Flv).unwrap();
    assert_eq!((facts.completeness, facts.declared_seconds), (Completeness::Proven, Some(2.0)));
    assert_eq!(code(&whole[..whole.len() - 20], Demuxer::Flv), Code::MediaTruncated);
    assert_eq!(code(&start, Demuxer::Flv), Code::MediaTruncated);
}

#[test]
fn an_ogg_stream_says_that_it_ends() {
    let page = |flags: u8, body: u8| {
        [b"OggS\0".as_slice(), &[flags], &[0; 20], &[1, body], &vec![9; usize::from(body)]].concat()
    };
    let whole = [page(2, 30), page(0, 200), page(4, 100)].concat();
    assert_eq!(checked(&whole, Demuxer::Ogg).unwrap(), Facts::PROVEN);
    for missing in 1..140 {
        assert_eq!(code(&whole[..whole.len() - missing], Demuxer::Ogg), Code::MediaTruncated, "{missing}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn noise_never_panics(data in proptest::collection::vec(any::<u8>(), 0..3000)) {
        for demuxer in Demuxer::ALL {
            let _ = checked(&data, *demuxer);
        }
    }

    /// Bytes changed anywhere, then cut anywhere: an answer, never a panic or an endless walk.
    #[test]
    fn mutations_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut data = mp4();
        for (at, value) in changes {
            let at = at.index(data.len());
            data[at] = value;
        }
        let _ = checked(&data[..cut.index(data.len())], Demuxer::Mov);
        for demuxer in [Demuxer::Matroska, Demuxer::Flv, Demuxer::Ogg] {
            let _ = checked(&data, demuxer);
        }
    }
}
