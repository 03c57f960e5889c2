//! The gateway against origins that misbehave: equal bytes or a failure of the catalogue, never something between.

mod bounded;
mod faults;
mod ffmpeg;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::*;
use crate::domain::SystemIds;
use crate::storage::http::{HttpClients, SystemLookup};
use crate::storage::origin::{HttpOrigin, HttpRequest};
use crate::storage::policy::AddressPolicy;
use crate::storage::test_origin::{Fault, Length, Ranges, Script, TestOrigin, noise};

/// Larger than some blocks, and not a multiple of one.
const SIZE: usize = 3 * 1024 * 1024 + 123;

static CONTENT: LazyLock<Arc<[u8]>> = LazyLock::new(|| noise(SIZE));

/// Limits that are reached within a test.
fn quick() -> FetchLimits {
    FetchLimits {
        connect_timeout: Duration::from_millis(500),
        header_timeout: Duration::from_millis(500),
        stall_timeout: Duration::from_millis(150),
        min_rate: 10 * KIB,
        rate_window: Duration::from_millis(200),
        retries: 4,
        backoff: (Duration::from_millis(1), Duration::from_millis(4)),
        disk_margin: 0,
        ..Default::default()
    }
}

/// Never waits for the whole before it gives a URL.
fn streaming() -> FetchLimits {
    FetchLimits { spool_first: 0, spool_first_within: Duration::ZERO, ..quick() }
}

struct Bench {
    work: tempfile::TempDir,
    clients: Arc<HttpClients>,
    max_bytes: u64,
}

impl Bench {
    fn new() -> Self {
        let policy = AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]);
        let clients = HttpClients::new(policy, Arc::new(SystemLookup), Duration::from_millis(500));
        Self { work: tempfile::tempdir().unwrap(), clients: Arc::new(clients), max_bytes: u64::MAX }
    }

    fn origin(&self, url: &str) -> Arc<HttpOrigin> {
        let request = HttpRequest::parse(url, &BTreeMap::new()).unwrap();
        Arc::new(HttpOrigin::new(Arc::clone(&self.clients), request, Duration::from_millis(500)))
    }

    async fn open(&self, url: &str, limits: FetchLimits) -> Result<Remote, Failure> {
        let disk = Disk::new(0);
        let place = Place { work: self.work.path(), disk: &disk, max_bytes: self.max_bytes, ids: &SystemIds };
        Remote::open(self.origin(url), limits, place).await
    }

    fn left_behind(&self) -> usize {
        std::fs::read_dir(self.work.path()).unwrap().count()
    }
}

/// Figures, for whoever runs a test with its output shown.
#[expect(clippy::print_stdout, reason = "a test's output is captured")]
fn say(text: &str) {
    println!("{text}");
}

/// What ffmpeg would do: one request, read until the answer says it ends.
async fn request(url: &str, method: &str, range: &str) -> (String, TcpStream) {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let range = if range.is_empty() { String::new() } else { format!("Range: bytes={range}\r\n") };
    stream
        .write_all(format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\n{range}\r\n").as_bytes())
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    (String::from_utf8(head).unwrap().to_lowercase(), stream)
}

async fn get(url: &str, range: Range<usize>) -> Vec<u8> {
    let (head, mut stream) = request(url, "GET", &format!("{}-", range.start)).await;
    assert!(head.starts_with("http/1.1 206"), "{head}");
    let mut bytes = vec![0; range.len()];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

type Range<T> = std::ops::Range<T>;

/// Reads all of a source the way the worker lets ffmpeg read it: until its end or the source's failure.
async fn read_all(remote: &Remote) -> Result<Vec<u8>, Failure> {
    let size = usize::try_from(remote.size()).unwrap();
    match (remote.file(), remote.url()) {
        (Some(path), _) => Ok(std::fs::read(path).unwrap()),
        (None, Some(url)) => {
            let bytes = tokio::select! {
                bytes = get(url, 0..size) => bytes,
                failure = remote.failed() => return Err(failure),
            };
            remote.failure().map_or(Ok(bytes), Err)
        }
        (None, None) => unreachable!("neither a file nor a URL"),
    }
}

fn script(fault: Fault) -> Script {
    Script { content: Arc::clone(&CONTENT), fault, etag: Some("\"v1\""), ..Default::default() }
}

#[tokio::test]
async fn a_shorter_claim_is_the_one_thing_that_cannot_be_seen() {
    let claimed = SIZE as u64 / 2;
    let script = Script { length: Length::Claimed(claimed), ..script(Fault::None) };
    let origin = TestOrigin::start(script.clone()).await;
    let remote = Bench::new().open(&origin.url("/in"), quick()).await.unwrap();
    assert_eq!(remote.size(), claimed);
    assert!(remote.failure().is_none());
}

#[tokio::test]
async fn a_lost_source_holds_its_readers_and_never_ends_them() {
    let origin = TestOrigin::start(script(Fault::StatusFrom(2, 404))).await;
    let bench = Bench::new();
    let remote = bench.open(&origin.url("/in"), streaming()).await.unwrap();
    let (head, mut stream) = request(remote.url().unwrap(), "GET", "0-").await;
    assert!(head.contains(&format!("content-length: {SIZE}")));
    assert_eq!(remote.failed().await.code, Code::SourceNotFound);
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_millis(100), stream.read_to_end(&mut rest)).await;
    assert!(end.is_err(), "the answer ended after {} bytes", rest.len());
    assert!(rest.len() < SIZE);
    // A new reader is held as well.
    let (_, mut late) = request(remote.url().unwrap(), "GET", "0-9").await;
    assert!(tokio::time::timeout(Duration::from_millis(100), late.read_u8()).await.is_err());
    assert_eq!(remote.read_at(SIZE as u64 - 9, 9).await.unwrap_err().code, Code::SourceNotFound);
    // Dropping the source ends them, and the listener with them.
    let url = remote.url().unwrap().to_owned();
    drop(remote);
    let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "the connection outlives its source");
    let host = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    assert!(TcpStream::connect(host).await.is_err(), "the listener outlives its source");
    assert_eq!(bench.left_behind(), 0);
}

#[tokio::test]
async fn small_sources_are_files_at_once_and_large_ones_become_files() {
    let origin = TestOrigin::start(script(Fault::None)).await;
    let bench = Bench::new();
    let remote = bench.open(&origin.url("/in"), quick()).await.unwrap();
    assert!(remote.file().is_some() && remote.url().is_none());
    let remote = bench.open(&origin.url("/in"), streaming()).await.unwrap();
    assert!(remote.file().is_none() && remote.url().is_some());
    remote.whole().await.unwrap();
    assert_eq!(std::fs::read(remote.file().unwrap()).unwrap(), origin_bytes());
    // The URL still works for whoever has it.
    assert_eq!(get(remote.url().unwrap(), 5..1000).await, origin_bytes()[5..1000]);
}

fn origin_bytes() -> Vec<u8> {
    CONTENT.to_vec()
}

#[tokio::test]
async fn the_server_answers_as_ffmpeg_expects_and_only_to_its_url() {
    let origin = TestOrigin::start(script(Fault::None)).await;
    let bench = Bench::new();
    let remote = bench.open(&origin.url("/in"), streaming()).await.unwrap();
    let url = remote.url().unwrap();
    let (head, mut stream) = request(url, "GET", "100-199").await;
    assert!(head.starts_with("http/1.1 206"), "{head}");
    assert!(head.contains(&format!("content-range: bytes 100-199/{SIZE}\r\n")), "{head}");
    assert!(head.contains("content-length: 100\r\n") && head.contains("accept-ranges: bytes\r\n"), "{head}");
    let mut bytes = [0; 100];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes, origin_bytes()[100..200]);
    let (head, _) = request(url, "HEAD", "").await;
    assert!(
        head.starts_with("http/1.1 200") && head.contains(&format!("content-length: {SIZE}\r\n")),
        "{head}"
    );
    let (head, _) = request(url, "GET", &format!("{SIZE}-")).await;
    assert!(
        head.starts_with("http/1.1 416") && head.contains(&format!("content-range: bytes */{SIZE}")),
        "{head}"
    );
    let (head, _) = request(url, "POST", "").await;
    assert!(head.starts_with("http/1.1 405"), "{head}");
    let base = url.rsplit_once('/').unwrap().0;
    let port = base.rsplit_once('/').unwrap().0;
    for other in [
        format!("{base}/x"),
        format!("{base}/in/"),
        format!("{port}/in"),
        format!("{port}/"),
        format!("{url}2"),
    ] {
        let (head, _) = request(&other, "GET", "").await;
        assert!(head.starts_with("http/1.1 404"), "{other}: {head}");
    }
}

#[tokio::test]
async fn sizes_over_the_limit_are_refused_however_they_are_told() {
    for length in [Length::True, Length::Chunked] {
        let origin = TestOrigin::start(Script { length, ..script(Fault::None) }).await;
        let bench = Bench { max_bytes: SIZE as u64 - 1, ..Bench::new() };
        let refused = bench.open(&origin.url("/in"), quick()).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.code, Code::SourceTooLarge);
        assert_eq!(bench.left_behind(), 0);
    }
    let claim = Script { length: Length::Claimed(u64::MAX / 2), ..script(Fault::None) };
    let origin = TestOrigin::start(claim).await;
    let all = FetchLimits { cache: u64::MAX, ..quick() };
    let full = Bench::new().open(&origin.url("/in"), all).await.map(|_| ()).unwrap_err();
    assert_eq!(full.code, Code::DiskFull);
}

#[tokio::test]
async fn a_seek_storm_fetches_every_byte_about_once() {
    const LARGE: usize = 24 * 1024 * 1024 + 5;
    let content = noise(LARGE);
    let origin = TestOrigin::start(Script {
        content: Arc::clone(&content),
        etag: Some("\"v1\""),
        ..Default::default()
    })
    .await;
    let bench = Bench::new();
    let start = Instant::now();
    let remote = bench.open(&origin.url("/in"), streaming()).await.unwrap();
    let url = remote.url().unwrap();
    let mut at = 7_usize;
    for turn in 0..200_usize {
        // Forwards as a fragmented mp4 is walked, and now and then to anywhere.
        at = if turn % 3 == 0 { at.wrapping_mul(2_654_435_761) % LARGE } else { (at + 130_000) % LARGE };
        let end = (at + 20_000).min(LARGE);
        assert!(get(url, at..end).await == content[at..end], "at {at}");
    }
    remote.whole().await.unwrap();
    let size = LARGE as u64;
    let (sent, took) = (origin.body_bytes(), start.elapsed());
    say(&format!(
        "storm: {sent} of {size} bytes in {} requests, {took:?}, {:?}",
        origin.requests(),
        remote.traffic()
    ));
    assert!(sent * 100 <= size * 105, "{sent} bytes fetched of {size}");
}

#[tokio::test]
async fn what_is_read_in_order_is_fetched_in_long_ranges() {
    const LARGE: usize = 64 * 1024 * 1024;
    let content = noise(LARGE);
    let origin = TestOrigin::start(Script {
        content: Arc::clone(&content),
        etag: Some("\"v1\""),
        ..Default::default()
    })
    .await;
    let bench = Bench::new();
    let remote = bench.open(&origin.url("/in"), streaming()).await.unwrap();
    let start = Instant::now();
    assert!(get(remote.url().unwrap(), 0..LARGE).await == content[..]);
    let cold = start.elapsed();
    let start = Instant::now();
    assert!(get(remote.url().unwrap(), 0..LARGE).await == content[..]);
    let rate = |took: Duration| u128::from(LARGE as u64) / took.as_micros().max(1);
    say(&format!(
        "cold {} MB/s, warm {} MB/s, {} requests",
        rate(cold),
        rate(start.elapsed()),
        origin.requests()
    ));
    assert_eq!(origin.body_bytes(), LARGE as u64);
    assert!(origin.requests() < 40, "{} requests", origin.requests());
    // Reading in order turned into fetching the rest, so the file is there now.
    assert!(remote.file().is_some());
}

#[tokio::test]
async fn redirects_are_followed_and_credentials_stay_behind() {
    let target = TestOrigin::start(script(Fault::None)).await;
    let door = TestOrigin::start(script(Fault::Redirect(302, target.url("/real?sig=1")))).await;
    let bench = Bench::new();
    let headers = BTreeMap::from([("X-Api-Key".to_owned(), "canary".to_owned())]);
    let url = door.url("/in").replace("http://", "http://user:pw@");
    let request = HttpRequest::parse(&url, &headers).unwrap();
    let origin = HttpOrigin::new(Arc::clone(&bench.clients), request, Duration::from_millis(500));
    let disk = Disk::new(0);
    let place = Place { work: bench.work.path(), disk: &disk, max_bytes: u64::MAX, ids: &SystemIds };
    let remote = Remote::open(Arc::new(origin), streaming(), place).await.unwrap();
    remote.whole().await.unwrap();
    let first = door.heads();
    assert_eq!(first.len(), 1, "later ranges go to where the redirect led");
    assert!(first[0].contains("x-api-key: canary") && first[0].contains("authorization: basic dxnlcjpwdw=="));
    for head in target.heads() {
        assert!(!head.contains("canary") && !head.contains("authorization"), "{head}");
        assert!(head.contains("accept-encoding: identity"), "{head}");
    }
    assert!(target.heads()[1..].iter().all(|head| head.contains("if-match: \"v1\"")));
}

#[tokio::test]
async fn redirects_inside_are_blocked_and_loops_end() {
    let inner = TestOrigin::start(script(Fault::None)).await;
    let door = TestOrigin::start(script(Fault::Redirect(302, inner.url("/secret")))).await;
    let rule = door.url("").strip_prefix("http://").unwrap().parse().unwrap();
    let clients =
        HttpClients::new(AddressPolicy::new(vec![rule]), Arc::new(SystemLookup), Duration::from_secs(1));
    let bench = Bench { clients: Arc::new(clients), ..Bench::new() };
    let refused = bench.open(&door.url("/in"), quick()).await.map(|_| ()).unwrap_err();
    assert_eq!((refused.code, inner.requests()), (Code::SourceBlocked, 0));
    for to in ["file:///etc/passwd", "http://169.254.169.254/latest/", "gopher://x/"] {
        let door = TestOrigin::start(script(Fault::Redirect(307, to.to_owned()))).await;
        let refused = Bench::new().open(&door.url("/in"), quick()).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.code, Code::SourceBlocked, "{to}");
    }
    let ring = TestOrigin::start(script(Fault::Redirect(301, "/again".to_owned()))).await;
    let refused = Bench::new().open(&ring.url("/in"), quick()).await.map(|_| ()).unwrap_err();
    assert_eq!((refused.code, ring.requests()), (Code::SourceUnreachable, 6));
}

#[tokio::test]
async fn a_redirect_whose_target_expired_is_asked_for_again() {
    let target = TestOrigin::start(script(Fault::None)).await;
    let expired = TestOrigin::start(script(Fault::StatusFrom(2, 403))).await;
    let urls = vec![expired.url("/a"), target.url("/b")];
    let door = TestOrigin::start(script(Fault::RedirectInTurn(urls))).await;
    let bench = Bench::new();
    let remote = bench.open(&door.url("/in"), streaming()).await.unwrap();
    remote.whole().await.unwrap();
    assert_eq!(std::fs::read(remote.file().unwrap()).unwrap(), origin_bytes());
    assert!(expired.requests() >= 2 && target.requests() >= 1);
}

/// Reads what the content says, from the spool and over the URL.
async fn assert_reads(remote: &Remote, content: &[u8], (offset, len): (u64, usize)) {
    let size = content.len();
    let from = usize::try_from(offset).unwrap().min(size);
    let expected = &content[from..(from + len).min(size)];
    let bytes = remote.read_at(offset, len).await.unwrap();
    assert!(bytes == expected, "{len} bytes at {offset} of {size}");
    if let Some(url) = remote.url().filter(|_| !expected.is_empty()) {
        assert!(get(url, from..from + expected.len()).await == expected, "over the URL");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn random_reads_equal_the_file(
        size in 1_usize..2_000_000,
        reads in proptest::collection::vec((0_u64..2_100_000, 0_usize..400_000), 1..12),
        drop_every in proptest::option::of(100_000_u64..400_000),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let content = noise(size);
            let fault = drop_every.map_or(Fault::None, Fault::DropEvery);
            let script = Script { content: Arc::clone(&content), fault, etag: Some("\"v1\""), ..Default::default() };
            let origin = TestOrigin::start(script).await;
            let bench = Bench::new();
            let remote = bench.open(&origin.url("/in"), streaming()).await.unwrap();
            for (offset, len) in reads {
                assert_reads(&remote, &content, (offset, len)).await;
            }
        });
    }
}
