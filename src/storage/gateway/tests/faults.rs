//! Each fault of an origin, with the source fetched whole first and with it streamed.

use super::*;

/// The whole, or the code of the failure, however the source is opened.
async fn outcome(script: &Script, limits: FetchLimits) -> Result<(), Code> {
    let origin = TestOrigin::start(script.clone()).await;
    let bench = Bench::new();
    let result = match bench.open(&origin.url("/in"), limits).await {
        Ok(remote) => read_all(&remote).await,
        Err(failure) => Err(failure),
    };
    assert_eq!(bench.left_behind(), 0, "the spool stays behind");
    match result {
        Ok(bytes) => {
            assert!(bytes == script.content[..], "the bytes differ under {:?}", script.fault);
            Ok(())
        }
        Err(failure) => {
            assert!(!failure.message.contains("127.0.0.1") && failure.message.ends_with('.'), "{failure}");
            Err(failure.code)
        }
    }
}

type Case = (&'static str, Script, Result<(), Code>);

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    let more = SIZE as u64 + 1024 * 1024;
    let no_ranges = |script: Script| Script {
        ranges: Ranges::Ignored,
        ..script
    };
    let claimed = |bytes| Script {
        length: Length::Claimed(bytes),
        ..script(Fault::None)
    };
    vec![
        ("nothing wrong", script(Fault::None), Ok(())),
        ("no validator", Script { etag: None, ..script(Fault::DropEvery(500_000)) }, Ok(())),
        ("weak validator", Script { etag: Some("W/\"v1\""), ..script(Fault::None) }, Ok(())),
        ("drops", script(Fault::DropEvery(300_000)), Ok(())),
        ("drops inside every block", script(Fault::DropEvery(100_000)), Ok(())),
        ("resets", script(Fault::ResetEvery(300_000)), Ok(())),
        ("resets at once, always", script(Fault::ResetEvery(0)), Err(Code::SourceUnreachable)),
        ("stalls at first", script(Fault::StallTimes(2)), Ok(())),
        ("busy now and then", script(Fault::BusyEveryThird), Ok(())),
        ("changes", script(Fault::ChangeFrom(2)), Err(Code::SourceChanged)),
        ("vanishes", script(Fault::StatusFrom(2, 404)), Err(Code::SourceNotFound)),
        ("gone at once", script(Fault::StatusFrom(1, 410)), Err(Code::SourceNotFound)),
        ("forbidden later", script(Fault::StatusFrom(2, 403)), Err(Code::SourceForbidden)),
        ("login needed", script(Fault::StatusFrom(1, 401)), Err(Code::SourceForbidden)),
        ("broken", script(Fault::StatusFrom(1, 500)), Err(Code::SourceUnreachable)),
        ("broken later", script(Fault::StatusFrom(2, 500)), Err(Code::SourceUnreachable)),
        ("teapot", script(Fault::StatusFrom(1, 418)), Err(Code::SourceUnreachable)),
        ("too slow", script(Fault::TrickleFrom(2)), Err(Code::SourceUnreachable)),
        ("says more than it has", claimed(more), Err(Code::SourceUnreachable)),
        ("compresses", script(Fault::Gzip), Err(Code::SourceUnreachable)),
        ("stops ranges", script(Fault::WholeFrom(2)), Err(Code::SourceUnreachable)),
        ("wrong range", script(Fault::WrongRange), Err(Code::SourceUnreachable)),
        ("no ranges", no_ranges(script(Fault::None)), Ok(())),
        ("no ranges, says more", no_ranges(claimed(more)), Err(Code::SourceUnreachable)),
        ("no ranges, stalls", no_ranges(script(Fault::StallTimes(2))), Ok(())),
        ("no ranges, drops for ever", no_ranges(script(Fault::DropEvery(2_000_000))), Err(Code::SourceUnreachable)),
        ("no ranges, no validator, changes", no_ranges(Script { etag: None, ..script(Fault::StallThenChange) }), Err(Code::SourceChanged)),
        ("no length", Script { length: Length::Chunked, ..script(Fault::None) }, Ok(())),
        ("no length, stalls", Script { length: Length::Chunked, ..script(Fault::StallTimes(2)) }, Ok(())),
        ("no length, always cut off", Script { length: Length::Chunked, ..script(Fault::DropEvery(1_000_000)) }, Err(Code::SourceUnreachable)),
        ("empty", Script { content: Arc::from([]), ..script(Fault::None) }, Err(Code::MediaCorrupt)),
        ("empty, no ranges", no_ranges(Script { content: Arc::from([]), ..script(Fault::None) }), Err(Code::MediaCorrupt)),
        ("empty, no length", Script { content: Arc::from([]), length: Length::Chunked, ..script(Fault::None) }, Err(Code::MediaCorrupt)),
    ]
}

#[tokio::test]
async fn every_fault_ends_in_equal_bytes_or_a_failure() {
    for (name, script, expected) in cases() {
        assert_eq!(outcome(&script, quick()).await, expected, "spooled: {name}");
        assert_eq!(outcome(&script, streaming()).await, expected, "streamed: {name}");
    }
}
