//! Sources that are larger than their cache: the same bytes as ever, from a file that never grows beyond its bound.

use super::*;

const BOUND: u64 = 8 * BLOCK;

fn bounded() -> FetchLimits {
    FetchLimits { cache: BOUND, ..streaming() }
}

impl Bench {
    /// Bytes of the one file in the work folder.
    fn cached(&self) -> u64 {
        std::fs::read_dir(self.work.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
    }
}

fn of_size(blocks: u64) -> Script {
    let content = noise(usize::try_from(blocks * BLOCK).unwrap() - 1000);
    Script { content, etag: Some("\"v1\""), ..Default::default() }
}

fn block(content: &[u8], number: u64) -> &[u8] {
    let start = usize::try_from(number * BLOCK).unwrap();
    &content[start..content.len().min(start + usize::try_from(BLOCK).unwrap())]
}

#[tokio::test]
async fn read_in_order_each_byte_is_fetched_once_and_the_file_stays_small() {
    let script = of_size(200);
    let origin = TestOrigin::start(script.clone()).await;
    let bench = Bench::new();
    let remote = bench.open(&origin.url("/in"), bounded()).await.unwrap();
    // Hints and long runs in order fetch nothing that has no room.
    remote.fill_to_end();
    for turn in 1..=2 {
        assert!(read_all(&remote).await.unwrap() == script.content[..]);
        let (sent, size) = (origin.body_bytes(), script.content.len() as u64);
        assert!(sent <= turn * size * 105 / 100, "{sent} bytes fetched of {size} in turn {turn}");
        assert!(
            sent >= turn * size - BOUND,
            "{sent} bytes fetched of {size}: that is more than the cache holds"
        );
    }
    assert_eq!((bench.cached(), remote.cached_at_most()), (BOUND, BOUND));
    assert!(remote.file().is_none() && remote.traffic().present <= BOUND);
    assert_eq!(remote.whole().await.unwrap_err().code, Code::DiskFull);
}

#[tokio::test]
async fn a_block_that_went_is_fetched_again_only_as_the_same() {
    for (fault, expected) in [
        (Fault::None, None),
        (Fault::ChangeFrom(21), Some(Code::SourceChanged)),
        (Fault::StatusFrom(21, 404), Some(Code::SourceNotFound)),
        (Fault::StatusFrom(21, 403), Some(Code::SourceForbidden)),
    ] {
        let script = Script { fault, ..of_size(40) };
        let origin = TestOrigin::start(script.clone()).await;
        let bench = Bench::new();
        let remote = bench.open(&origin.url("/in"), bounded()).await.unwrap();
        let read = async |number: u64| remote.read_at(number * BLOCK, 300_000).await;
        for number in 0..20 {
            let bytes = remote.read_at(number * BLOCK, usize::try_from(BLOCK).unwrap()).await.unwrap();
            assert!(bytes == block(&script.content, number), "block {number}");
        }
        // What was read last is still here.
        read(12).await.unwrap();
        assert_eq!(origin.requests(), 20);
        let again = remote.read_at(0, usize::try_from(BLOCK).unwrap()).await;
        assert_eq!(origin.requests(), 21);
        assert!(origin.heads()[20].contains("if-match: \"v1\""), "{}", origin.heads()[20]);
        match expected {
            None => assert!(again.unwrap() == block(&script.content, 0)),
            Some(code) => {
                assert_eq!(again.unwrap_err().code, code, "{:?}", script.fault);
                assert_eq!(remote.failure().map(|failure| failure.code), Some(code));
            }
        }
    }
}

#[tokio::test]
async fn many_readers_of_a_small_cache_all_come_to_their_end() {
    let script = of_size(60);
    let origin = TestOrigin::start(Script { fault: Fault::DropEvery(3_000_000), ..script.clone() }).await;
    let bench = Bench::new();
    let remote = bench.open(&origin.url("/in"), bounded()).await.unwrap();
    let url = remote.url().unwrap();
    let part = script.content.len() / 12;
    let reads =
        (0..12).map(|n| async move { (n, get(url, n * part..n * part + 2 * part.min(400_000)).await) });
    for (n, bytes) in futures_util::future::join_all(reads).await {
        let from = n * part;
        assert!(bytes == script.content[from..from + bytes.len()], "reader {n}");
    }
    assert!(bench.cached() <= BOUND, "{} bytes on disk", bench.cached());
}

#[tokio::test]
async fn what_cannot_be_fetched_in_parts_is_kept_whole() {
    let script = Script { ranges: Ranges::Ignored, ..of_size(20) };
    let origin = TestOrigin::start(script.clone()).await;
    let remote = Bench::new().open(&origin.url("/in"), bounded()).await.unwrap();
    assert_eq!(remote.cached_at_most(), script.content.len() as u64);
    assert!(read_all(&remote).await.unwrap() == script.content[..]);
    remote.whole().await.unwrap();
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_disk_that_fills_up_while_blocks_are_kept_fails_the_source() {
    let origin = TestOrigin::start(of_size(20)).await;
    let bench = Bench::new();
    let origin = bench.origin(&origin.url("/in"));
    let opened = origin.open(BLOCK).await.map_err(|_| "refused").unwrap();
    let room = Disk::new(0).reserve(bench.work.path(), BOUND).unwrap();
    let spool = Spool::bounded(SpoolFile::full(), 20 * BLOCK - 1000, BOUND, room);
    let shared = Arc::new(Shared::new(spool, origin, opened.pin, bounded()));
    let driving = fetcher::drive(Arc::clone(&shared), opened.extent, opened.body);
    let failure = tokio::join!(driving, shared.failed()).1;
    assert_eq!(failure.code, Code::DiskFull);
    assert!(Reader::exact(shared, 0..10).next().await.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn random_reads_through_a_small_cache_equal_the_file(
        blocks in 1_u64..24,
        bound in 1_u64..10,
        reads in proptest::collection::vec((0_u64..6_500_000, 0_usize..700_000), 1..24),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let script = of_size(blocks);
            let (content, size) = (&script.content, script.content.len());
            let origin = TestOrigin::start(script.clone()).await;
            let bench = Bench::new();
            let limits = FetchLimits { cache: bound * BLOCK, ..streaming() };
            let remote = bench.open(&origin.url("/in"), limits).await.unwrap();
            for (offset, len) in reads {
                assert_reads(&remote, content, (offset, len)).await;
                let most = (bound * BLOCK).min(size as u64);
                assert!(bench.cached() <= most, "{} bytes on disk, not {most}", bench.cached());
            }
        });
    }
}
