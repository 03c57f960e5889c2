use proptest::prelude::*;

use super::*;

fn cue(start: u64, end: u64, payload: &str) -> Cue {
    let (start, end) = (Moment::from_millis(start), Moment::from_millis(end));
    Cue { id: None, start, end, settings: String::new(), payload: payload.into() }
}

fn wrong(text: &str) -> (usize, Wrong) {
    let Fault { line, what } = read(text).expect_err(text);
    (line, what)
}

#[test]
fn a_file_with_everything_is_read() {
    let text = "\u{feff}WEBVTT - a title\r\nX-TIMESTAMP-MAP=MPEGTS:900000,LOCAL:00:00:01.000\r\nKind: captions\r\n\r\n\
        NOTE\r\nof nobody's interest\r\n\r\nSTYLE\r\n::cue { color: red }\r\n::cue(b) {}\r\n\r\nREGION \t\r\nid:top\r\n\r\n\r\n\
        intro\r\n00:01.000 -->\t00:02.500 \t align:start  line:0 \r\n<v Ann>One\r\n two\r\n\r\n\
        NOTE behind\r\n\r\n123:59:59.999 --> 124:00:00.000";
    let document = read(text).unwrap();
    let map = document.timestamp_map.unwrap();
    assert_eq!((map.local.millis(), map.mpegts), (1000, 900_000));
    assert_eq!((map.ticks(Moment::from_millis(2000)), map.ticks(Moment::default())), (990_000, 810_000));
    assert_eq!(document.styles, ["::cue { color: red }\n::cue(b) {}"]);
    assert_eq!(document.regions, ["id:top"]);
    let first = Cue {
        id: Some("intro".into()),
        settings: "align:start  line:0".into(),
        ..cue(1000, 2500, "<v Ann>One\n two")
    };
    assert_eq!(document.cues, [first, cue(446_399_999, 446_400_000, "")]);
    assert_eq!(read("WEBVTT"), Ok(Document::default()));
    assert_eq!(read("WEBVTT\t--> title"), Ok(Document::default()));
    let old_mac = read("WEBVTT\r\r00:00.000 --> 00:01.000\rone\rtwo\r").unwrap();
    assert_eq!(old_mac.cues, [cue(0, 1000, "one\ntwo")]);
}

#[test]
fn both_orders_of_the_map_are_read_and_one_is_written() {
    let written = "X-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:126000";
    for text in [written, "X-TIMESTAMP-MAP=MPEGTS:126000,LOCAL:00:00.000"] {
        let document = read(&format!("WEBVTT\n{text}\n")).unwrap();
        assert_eq!(document.timestamp_map.unwrap().to_string(), written);
        assert_eq!(document.to_string(), format!("WEBVTT\n{written}\n"));
    }
}

#[test]
fn what_a_player_would_trip_on_is_named_with_its_line() {
    let timed = |times: &str| format!("WEBVTT\n\n{times}\ntext\n");
    let map = |map: &str| format!("WEBVTT\nX-TIMESTAMP-MAP{map}\n\n");
    let rows = [
        (String::new(), 1, Wrong::Signature),
        ("\n\nWEBVTT\n".into(), 1, Wrong::Signature),
        ("webvtt\n".into(), 1, Wrong::Signature),
        ("WEBVTTX\n".into(), 1, Wrong::Signature),
        ("WEBVTT\n00:00.000 --> 00:01.000\nno empty line".into(), 2, Wrong::Arrow),
        (map("=LOCAL:00:00:00.000"), 2, Wrong::TimestampMap),
        (map("=LOCAL:00:00:00.000,MPEGTS:"), 2, Wrong::TimestampMap),
        (map("=LOCAL:00:00:00,MPEGTS:0"), 2, Wrong::TimestampMap),
        (map("=MPEGTS:0,MPEGTS:0"), 2, Wrong::TimestampMap),
        (map("=LOCAL:00:00:00.000,MPEGTS:+1"), 2, Wrong::TimestampMap),
        (map("=LOCAL:00:00:00.000,MPEGTS:8589934592"), 2, Wrong::TimestampMap),
        (map(":LOCAL:00:00:00.000,MPEGTS:0"), 2, Wrong::TimestampMap),
        ("WEBVTT\n\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:0\n".into(), 3, Wrong::NoArrow),
        (timed("00:00:00,000 --> 00:00:01,000"), 3, Wrong::Time),
        (timed("00:00:00.00 --> 00:00:01.000"), 3, Wrong::Time),
        (timed("0:00:00.000 --> 00:00:01.000"), 3, Wrong::Time),
        (timed("00:60.000 --> 01:01.000"), 3, Wrong::Time),
        (timed("60:00.000 --> 00:61:00.000"), 3, Wrong::Time),
        (timed("00:00.000 --> +1:01.000"), 3, Wrong::Time),
        (timed("00:00.000 --> "), 3, Wrong::Time),
        (timed("123456789:00:00.000 --> 223456789:00:00.000"), 3, Wrong::Time),
        (timed("00:00.000-->00:01.000"), 3, Wrong::Times),
        (timed("00:00.000 -->00:01.000"), 3, Wrong::Times),
        (timed("1\n00:00.000 -- > 00:01.000"), 3, Wrong::NoArrow),
        (timed("00:02.000 --> 00:01.000"), 3, Wrong::EndsTooSoon),
        (timed("00:01.000 --> 00:01.000"), 3, Wrong::EndsTooSoon),
        (timed("00:00.000 --> 00:01.000 --> 00:02.000"), 3, Wrong::Arrow),
        (timed("a --> b\n00:00.000 --> 00:01.000"), 3, Wrong::Arrow),
        (timed("00:00.000 --> 00:01.000\none\n00:01.000 --> 00:02.000"), 5, Wrong::Arrow),
        (timed("NOTE\n\nNOTE\none\ntwo --> three"), 7, Wrong::Arrow),
        (timed("00:00.000 --> 00:01.000\n\nSTYLE\n::cue {}"), 5, Wrong::LateBlock),
        (timed("00:00.000 --> 00:01.000\none\n\nand what was behind an empty line"), 6, Wrong::NoArrow),
        (timed("NOTES"), 3, Wrong::NoArrow),
        (timed("NOTE x\n00:00.000 --> 00:01.000"), 4, Wrong::Arrow),
        (timed("STYLE \n00:00.000 --> 00:01.000"), 4, Wrong::Arrow),
        (timed("REGION\n00:00.000 --> 00:01.000"), 4, Wrong::Arrow),
        (format!("WEBVTT\n\nNOTE {}\n", "x".repeat(MAX_LINE)), 3, Wrong::LongLine),
        (format!("WEBVTT {}\n", "x".repeat(MAX_LINE)), 1, Wrong::LongLine),
        (timed(&"x\n".repeat(MAX_LINES + 1)), MAX_LINES + 3, Wrong::TooManyLines),
        (format!("WEBVTT\n{}", "\n".repeat(MAX_BYTES)), 0, Wrong::TooLarge),
        (
            format!("WEBVTT\n{}", "\n00:00.000 --> 00:01.000\n".repeat(MAX_CUES + 1)),
            2 * MAX_CUES + 3,
            Wrong::TooManyCues,
        ),
    ];
    for (text, line, what) in rows {
        let shown: String = text.chars().take(80).collect();
        assert_eq!(wrong(&text), (line, what), "{shown:?}");
    }
    assert_eq!(wrong("").1.to_string(), "no WEBVTT at the beginning");
}

#[test]
fn texts_do_not_become_structure() {
    let hostile = Cue {
        id: Some("a\n\n00:00.000 --> 00:01.000".into()),
        settings: "line:0\n\nSTYLE".into(),
        ..cue(0, 1000, "one\n\n\r\n00:00.000 --> 00:01.000\n")
    };
    let document = Document { styles: vec!["a -->\n\nb".into()], cues: vec![hostile], ..Document::default() };
    let read = read(&document.to_string()).unwrap();
    assert_eq!(read.styles, ["a -- >\nb"]);
    assert_eq!(read.cues, [cue(0, 1000, "one\n00:00.000 --&gt; 00:01.000")]);
}

#[test]
fn controls_are_seen() {
    assert!(!cue(0, 1, "one\n\ttwo é").has_controls());
    for text in ["\0", "a\u{1b}[1m", "\u{85}", "\u{7f}"] {
        assert!(cue(0, 1, text).has_controls(), "{text:?}");
    }
}

/// Lines of text that no file would refuse.
fn texts(lines: usize) -> impl Strategy<Value = String> {
    let line = "[a-zA-Z:<>&é\\-][ -~é]{0,20}".prop_map(|line: String| line.replace("-->", "-- >"));
    proptest::collection::vec(line, 0..lines).prop_map(|lines| lines.join("\n"))
}

fn cues() -> impl Strategy<Value = Cue> {
    let id = proptest::option::of("[a-zA-Z0-9][a-zA-Z0-9 ]{0,8}");
    let times = (0..=Moment::MAX.millis() - 1, 1..10_000_000_u64);
    (id, times, "(line:[0-9]{1,2}( align:end)?)?", texts(4)).prop_map(
        |(id, (start, length), settings, text)| Cue { id, settings, ..cue(start, start + length, &text) },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        map in proptest::option::of((0..=Moment::MAX.millis(), 0..1_u64 << 33)),
        styles in proptest::collection::vec(texts(3), 0..3),
        regions in proptest::collection::vec(texts(3), 0..3),
        cues in proptest::collection::vec(cues(), 0..6),
    ) {
        let map = map.map(|(local, mpegts)| TimestampMap { local: Moment::from_millis(local), mpegts });
        let document = Document { timestamp_map: map, styles, regions, cues };
        prop_assert_eq!(read(&document.to_string()), Ok(document));
    }

    #[test]
    fn any_text_can_be_written(
        id in proptest::option::of("NOTE|STYLE|REGION\t|[\\PC\r\n\\->0-9:]{0,12}"),
        settings in "[\\PC\r\n\\->]{0,12}",
        payload in "[\\PC\r\n\\->0-9:.]{0,40}",
        style in "[\\PC\r\n\\->]{0,12}",
    ) {
        let cues = vec![Cue { id, settings, ..cue(0, 1, &payload) }, cue(5, 6, &payload)];
        let document = Document { styles: vec![style], cues, ..Document::default() };
        let read = read(&document.to_string()).unwrap();
        prop_assert_eq!(read.cues.len(), 2);
        prop_assert_eq!(read.styles.len(), 1);
    }

    #[test]
    fn rubbish_is_read_or_refused(text in "(WEBVTT)?[\r\n]{0,2}([ -~\r\n\t]{0,10}|NOTE|STYLE|00:0[0-9]\\.000 --> 00:1[0-9]\\.000|\n\n|X-TIMESTAMP-MAP=){0,12}") {
        if let Ok(document) = read(&text) {
            prop_assert_eq!(read(&document.to_string()), Ok(document));
        }
    }

    #[test]
    fn moments_are_their_own_text(millis in 0..=Moment::MAX.millis()) {
        let moment = Moment::from_millis(millis);
        prop_assert_eq!(moment.to_string().parse(), Ok(moment));
    }
}
