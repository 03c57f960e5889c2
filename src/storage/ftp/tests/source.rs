//! Reading from FTP servers, through the gateway.

use crate::domain::SystemIds;
use crate::storage::gateway::{Disk, FetchLimits, Place, Remote};
use crate::storage::origin::FtpOrigin;
use crate::storage::test_origin::noise;

use super::*;

/// Several blocks, and not a multiple of one.
const SIZE: usize = 3 * 1024 * 1024 + 123;

/// Limits that are reached within a test, and no waiting for the whole.
fn streaming() -> FetchLimits {
    FetchLimits {
        stall_timeout: Duration::from_millis(600),
        header_timeout: Duration::from_secs(2),
        rate_window: Duration::from_secs(2),
        retries: 3,
        backoff: (Duration::from_millis(1), Duration::from_millis(4)),
        spool_first: 0,
        spool_first_within: Duration::ZERO,
        disk_margin: 0,
        ..FetchLimits::default()
    }
}

/// Opens a source and reads all of it: its bytes, or how it fails.
async fn read(clients: &FtpClients, url: &str) -> Result<Vec<u8>, Failure> {
    let work = tempfile::tempdir().unwrap();
    let (server, login, path) = target(url);
    let origin = Arc::new(FtpOrigin::new(clients.clone(), server, login, path));
    let disk = Disk::new(0);
    let place = Place { work: work.path(), disk: &disk, max_bytes: u64::MAX, ids: &SystemIds };
    let remote = Remote::open(origin, streaming(), place).await?;
    // A look at the end first, as for an mp4's index.
    let size = remote.size();
    let tail = remote.read_at(size.saturating_sub(1000), 1000).await?;
    remote.whole().await?;
    let all = std::fs::read(remote.file().unwrap()).unwrap();
    assert!(all.ends_with(&tail));
    Ok(all)
}

async fn code(clients: &FtpClients, url: &str) -> Code {
    read(clients, url).await.map(|bytes| bytes.len()).unwrap_err().code
}

#[tokio::test]
async fn a_real_server_is_read_in_ranges() {
    let server = Real::start();
    let content = noise(SIZE);
    server.put("a b.mp4", &content);
    server.put("small", b"123");
    server.put("empty", b"");
    let clients = trusting(&server);
    assert!(read(&clients, &server.url("a%20b.mp4")).await.unwrap() == content[..]);
    assert_eq!(read(&clients, &server.url("small")).await.unwrap(), b"123");
    assert_eq!(code(&clients, &server.url("empty")).await, Code::MediaCorrupt);
    assert_eq!(code(&clients, &server.url("none")).await, Code::SourceNotFound);
    std::fs::create_dir(server.path("folder")).unwrap();
    assert!(matches!(
        code(&clients, &server.url("folder")).await,
        Code::SourceNotFound | Code::SourceUnreachable
    ));
    let wrong = server.url("small").replace("word", "canary");
    let failure = read(&clients, &wrong).await.unwrap_err();
    assert_eq!(failure.code, Code::SourceForbidden);
    assert!(!format!("{failure:?}").contains("canary"));
}

#[tokio::test]
async fn a_real_server_is_read_encrypted_and_only_when_it_is_trusted() {
    let server = Real::start();
    let content = noise(SIZE);
    server.put("in", &content);
    assert!(read(&trusting(&server), &server.secure_url("in")).await.unwrap() == content[..]);
    let untrusting = clients();
    assert_eq!(code(&untrusting, &server.secure_url("in")).await, Code::SourceUnreachable);
    // The certificate is for another name.
    let by_address = server.secure_url("in").replace("localhost", "127.0.0.1");
    assert_eq!(code(&trusting(&server), &by_address).await, Code::SourceUnreachable);
}

#[tokio::test]
async fn a_server_without_encryption_gets_no_password() {
    let peer = Peer::start(Quirks::default(), &[("in", b"1")]).await;
    let url = peer.url("in").replace("ftp://", "ftps://user:canary@");
    assert_eq!(code(&clients(), &url).await, Code::SourceUnreachable);
    assert!(!peer.commands().iter().any(|line| line.starts_with("PASS") || line.starts_with("USER")));
}

#[tokio::test]
async fn every_quirk_ends_in_equal_bytes_or_a_failure() {
    let content = noise(SIZE);
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let none = Quirks::default;
    let cases: Vec<(&str, Quirks, Result<(), Code>)> = vec![
        ("nothing wrong", none(), Ok(())),
        ("no SIZE", Quirks { replies: vec![("SIZE", "502 no")], ..none() }, Ok(())),
        ("no REST", Quirks { replies: vec![("REST", "502 no")], ..none() }, Ok(())),
        ("no MDTM", Quirks { replies: vec![("MDTM", "502 no")], ..none() }, Ok(())),
        ("REST is forgotten", Quirks { forgets_rest: true, ..none() }, Ok(())),
        ("data connections drop", Quirks { drop_every: Some(700_000), ..none() }, Ok(())),
        ("busy at first", Quirks { busy: 2, ..none() }, Ok(())),
        (
            "no SIZE, and the transfer breaks off once",
            Quirks { replies: vec![("SIZE", "502 no")], broken_transfers: 1, ..none() },
            Ok(()),
        ),
        (
            "no SIZE, and every transfer breaks off",
            Quirks { replies: vec![("SIZE", "502 no")], broken_transfers: 99, ..none() },
            Err(Code::SourceUnreachable),
        ),
        ("busy for ever", Quirks { busy: 999, ..none() }, Err(Code::SourceUnreachable)),
        (
            "passive port blocked",
            Quirks { passive_port: Some(unused), ..none() },
            Err(Code::SourceUnreachable),
        ),
        (
            "passive port of another service",
            Quirks { passive_port: Some(22), ..none() },
            Err(Code::SourceUnreachable),
        ),
        ("stalls", Quirks { stalls: true, ..none() }, Err(Code::SourceUnreachable)),
        ("longer than it is", Quirks { size_too_large_by: 9, ..none() }, Err(Code::SourceUnreachable)),
        ("changes meanwhile", Quirks { changes_at_transfer: Some(3), ..none() }, Err(Code::SourceChanged)),
        ("deleted meanwhile", Quirks { gone_at_transfer: Some(3), ..none() }, Err(Code::SourceNotFound)),
        ("bad login", Quirks { replies: vec![("PASS", "530 no")], ..none() }, Err(Code::SourceForbidden)),
        (
            "no right to read",
            Quirks { replies: vec![("RETR", "550 in: Permission denied")], ..none() },
            Err(Code::SourceForbidden),
        ),
        (
            "no reply that can be read",
            Quirks { replies: vec![("TYPE", "\u{1b}[31m")], ..none() },
            Err(Code::SourceUnreachable),
        ),
        (
            "an endless line",
            Quirks { endless_greeting: Some(&[b'2'; 4096]), ..none() },
            Err(Code::SourceUnreachable),
        ),
        (
            "endless lines",
            Quirks { endless_greeting: Some(b"220-and another thing\r\n"), ..none() },
            Err(Code::SourceUnreachable),
        ),
    ];
    for (name, quirks, expected) in cases {
        let peer = Peer::start(quirks, &[("in", &content)]).await;
        let got = read(&clients(), &peer.url("in")).await;
        match (&got, expected) {
            (Ok(bytes), Ok(())) => assert!(bytes[..] == content[..], "{name}: other bytes"),
            (Err(failure), Err(code)) => {
                assert_eq!(failure.code, code, "{name}: {failure:?}");
                assert!(!format!("{failure:?}").contains('\u{1b}'), "{name}: {failure:?}");
            }
            _ => panic!("{name}: {:?}", got.map(|bytes| bytes.len())),
        }
    }
}

#[tokio::test]
async fn sessions_are_used_again_and_few() {
    let content = noise(24 * 1024 * 1024);
    let peer = Peer::start(Quirks::default(), &[("in", &content)]).await;
    assert!(read(&clients(), &peer.url("in")).await.unwrap() == content[..]);
    let ranges = peer.commands().iter().filter(|line| line.starts_with("RETR")).count() as u64;
    assert!(ranges > 3 && peer.connections() <= 3, "{ranges} ranges on {} connections", peer.connections());
}

#[tokio::test]
async fn nobody_is_sent_to_another_address() {
    // The answer names an address whose port somebody listens on; the data is on the server's own.
    let quirks = Quirks { passive_ip: Some([127, 0, 0, 2]), ..Quirks::default() };
    let peer = Peer::start(quirks, &[("in", b"123")]).await;
    assert_eq!(read(&clients(), &peer.url("in")).await.unwrap(), b"123");
    for (rules, url) in [
        (&[][..], peer.url("in")),
        (&["127.0.0.2"][..], peer.url("in")),
        (&["10.0.0.0/8"][..], peer.url("in").replace("127.0.0.1", "localhost")),
        (&["127.0.0.1:21"][..], peer.url("in")),
    ] {
        let before = peer.connections();
        let clients = FtpClients::new(policy(rules), Arc::new(SystemLookup), LIMITS);
        assert_eq!(code(&clients, &url).await, Code::SourceBlocked, "{rules:?}");
        assert_eq!(peer.connections(), before, "{rules:?}");
    }
}
