use proptest::prelude::*;

use super::*;
use crate::media::structure::tests::Bytes;

fn of(head: &[u8]) -> Result<Demuxer, Failure> {
    let source = Bytes::new(head);
    futures_util::FutureExt::now_or_never(sniff(&source)).unwrap()
}

fn code(head: &[u8]) -> Code {
    of(head).unwrap_err().code
}

#[test]
fn containers_are_known_by_their_bytes() {
    let ts = |packet: usize, lead: usize| {
        let mut data = vec![0_u8; lead];
        for _ in 0..6 {
            data.push(0x47);
            data.resize(data.len() + packet - 1, 0xAA);
        }
        data
    };
    let mp3 = [[0xFF, 0xFB, 0x90, 0x00].as_slice(), &[0; 413], &[0xFF, 0xFB, 0x90, 0x00]].concat();
    let tagged = [b"ID3\x04\0\0\0\0\x02\x01".as_slice(), &[0; 257], &mp3].concat();
    let adts = [0xFF, 0xF1, 0x50, 0x80, 0x01, 0x1F, 0xFC, 0x00].as_slice();
    for (head, demuxer) in [
        (b"\0\0\0\x20ftypisom\0\0\x02\0".as_slice(), Demuxer::Mov),
        (b"\0\0\0\x08wide\0\0\0\0mdat", Demuxer::Mov),
        (b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x20", Demuxer::Mov),
        (b"\x1A\x45\xDF\xA3\x9F\x42\x86\x81\x01\x42\x82\x84webm", Demuxer::Matroska),
        (b"RIFF\0\0\0\0AVI LIST", Demuxer::Avi),
        (b"RIFF\0\0\0\0WAVEfmt ", Demuxer::Wav),
        (b"RF64\xff\xff\xff\xffWAVEds64", Demuxer::Wav),
        (b"FLV\x01\x05\0\0\0\x09", Demuxer::Flv),
        (b"OggS\0\x02", Demuxer::Ogg),
        (b"\0\0\x01\xBA\x44", Demuxer::Mpeg),
        (b"\0\0\x01\xB3\x16", Demuxer::Mpegvideo),
        (b"\0\0\0\x01\x67\x42", Demuxer::H264),
        (b"\0\0\0\x01\x09\xF0", Demuxer::H264),
        (b"\0\0\0\x01\x40\x01\x0C", Demuxer::Hevc),
        (b"\0\0\x01\xB0\x01", Demuxer::M4v),
        (b"DKIF\0\0", Demuxer::Ivf),
        (b"GIF89a", Demuxer::Gif),
        (b"fLaC\0", Demuxer::Flac),
        (b"\x0B\x77\0", Demuxer::Ac3),
        (&ts(188, 0), Demuxer::Mpegts),
        (&ts(188, 100), Demuxer::Mpegts),
        (&ts(192, 4), Demuxer::Mpegts),
        (&mp3, Demuxer::Mp3),
        (&tagged, Demuxer::Mp3),
        (&[adts, adts].concat(), Demuxer::Aac),
    ] {
        assert_eq!(of(head).unwrap(), demuxer, "{:?}", &head[..head.len().min(16)]);
    }
}

#[test]
fn what_is_not_media_is_named() {
    for (head, code, word) in [
        (b"".as_slice(), Code::MediaCorrupt, "empty"),
        (b"this is not a video\n", Code::MediaCorrupt, "text"),
        ("ファイル\n".as_bytes(), Code::MediaCorrupt, "text"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:6\n", Code::MediaUnsupported, "playlist"),
        (b"\xEF\xBB\xBF  #extm3u\n", Code::MediaUnsupported, "playlist"),
        (b"ffconcat version 1.0\nfile x\n", Code::MediaUnsupported, "list"),
        (b"<?xml version='1.0'?>\n<MPD xmlns='urn'>", Code::MediaUnsupported, "manifest"),
        (b"<svg xmlns='x'/>", Code::MediaUnsupported, "picture"),
        (b"<!DOCTYPE html><p>403", Code::MediaUnsupported, "web page"),
        (b"PK\x03\x04", Code::MediaUnsupported, "ZIP"),
        (b"\x89PNG\r\n\x1a\n", Code::MediaUnsupported, "picture"),
        (b"\xFF\xD8\xFF\xE0", Code::MediaUnsupported, "picture"),
        (b"\0\0\0\x1Cftypheic\0\0", Code::MediaUnsupported, "picture"),
        (b"\x01\x02\x03\x04\x05", Code::MediaCorrupt, "recognises"),
    ] {
        let failure = of(head).unwrap_err();
        assert_eq!(failure.code, code, "{failure}");
        assert!(failure.message.contains(word), "{failure}");
    }
    assert_eq!(code(&[0; 4096]), Code::MediaCorrupt);
}

proptest! {
    #[test]
    fn any_bytes_get_a_verdict(head in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = of(&head);
    }

    /// Text must never reach ffmpeg, which would render it as a film (the `tty` demuxer) or follow it.
    #[test]
    fn no_text_is_media(text in "[ -~\n]{0,600}") {
        prop_assume!(!text.starts_with("ID3"));
        prop_assert!(of(text.as_bytes()).is_err(), "{text:?}");
    }
}
