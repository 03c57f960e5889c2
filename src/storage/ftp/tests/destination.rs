//! The fence on FTP servers, at every place where a publisher can be when it dies or is overtaken.

use crate::domain::{Overwrite, PublicationId};
use crate::storage::hex;
use crate::storage::pauses::Pauses;

use super::*;

fn uploads<'a>(clients: &'a FtpClients, url: &str) -> (Uploads<'a>, String) {
    let (server, login, path) = target(url);
    let pauses = Pauses::new(3, Duration::from_millis(1), Duration::from_millis(4));
    (Uploads { clients, server, login, pauses }, path)
}

/// A file on this machine.
struct File {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
    content: Vec<u8>,
}

impl File {
    fn new(content: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, content).unwrap();
        Self { _folder: folder, path, content: content.to_vec() }
    }

    fn part(&self, path: &str, id: u128, overwrite: Overwrite) -> Part {
        Part {
            path: path.to_owned(),
            publication: PublicationId::from_uuid(uuid::Uuid::from_u128(id)),
            overwrite,
            size: self.content.len() as u64,
            sha256: hex(ring::digest::digest(&ring::digest::SHA256, &self.content).as_ref()),
            modified: None,
        }
    }
}

async fn send(uploads: &Uploads<'_>, file: &File, mut part: Part) -> Part {
    part.modified = uploads.send(&part, &file.path).await.unwrap();
    part
}

/// The whole life of handles on one server. `get` looks at what is there.
async fn the_fence_holds(
    clients: &FtpClients,
    url: &str,
    get: &dyn Fn(&str) -> Option<Vec<u8>>,
    names: &dyn Fn() -> Vec<String>,
) {
    let (uploads, path) = uploads(clients, url);
    let (one, two) = (File::new(&vec![1; 300_000]), File::new(b"two"));

    // Invisible until it is committed, and committing again says the same.
    let first = send(&uploads, &one, one.part(&path, 1, Overwrite::Fail)).await;
    assert_eq!((get(&path), uploads.existing(&path).await.unwrap()), (None, None));
    uploads.commit(&first).await.unwrap();
    uploads.commit(&first).await.unwrap();
    assert!(get(&path).unwrap() == one.content);
    assert_eq!(uploads.existing(&path).await.unwrap(), Some(300_000));

    // Died between the rename and its record: adopted, twice.
    for _ in 0..2 {
        assert_eq!(uploads.destroy(&first).await.unwrap(), Fate::Committed);
    }

    // A taken place is refused, and then replaced.
    let second = send(&uploads, &two, two.part(&path, 2, Overwrite::Fail)).await;
    assert_eq!(uploads.commit(&second).await.unwrap_err().code, Code::DestinationExists);
    assert!(get(&path).unwrap() == one.content);
    assert_eq!(uploads.destroy(&second).await.unwrap(), Fate::Dead);
    let third = send(&uploads, &two, two.part(&path, 3, Overwrite::Replace)).await;
    uploads.commit(&third).await.unwrap();
    assert_eq!(get(&path).unwrap(), b"two");
    assert_eq!(uploads.destroy(&first).await.unwrap(), Fate::Dead);

    // A destroyed handle can never be committed, nor a handle that was never filled.
    let fourth = send(&uploads, &one, one.part(&path, 4, Overwrite::Replace)).await;
    for _ in 0..2 {
        assert_eq!(uploads.destroy(&fourth).await.unwrap(), Fate::Dead);
    }
    for part in [fourth, one.part(&path, 5, Overwrite::Replace)] {
        assert_eq!(uploads.commit(&part).await.unwrap_err().code, Code::Internal);
        assert_eq!(uploads.destroy(&part).await.unwrap(), Fate::Dead);
    }
    assert_eq!(get(&path).unwrap(), b"two");
    assert!(!names().iter().any(|name| name.contains(".flux-")), "{:?}", names());

    // A file that changed is not published.
    std::fs::write(&one.path, b"short").unwrap();
    let refused = uploads.send(&one.part(&path, 6, Overwrite::Replace), &one.path).await.unwrap_err();
    assert_eq!(refused.code, Code::Internal);
    assert_eq!(uploads.destroy(&one.part(&path, 6, Overwrite::Replace)).await.unwrap(), Fate::Dead);
}

#[tokio::test]
async fn a_real_server_fences() {
    let server = Real::start();
    let clients = trusting(&server);
    for url in [server.url("out.mp4"), server.secure_url("new/folder/out.mp4")] {
        the_fence_holds(&clients, &url, &|path| server.get(path), &|| server.names()).await;
    }
}

#[tokio::test]
async fn servers_with_less_fence_as_well() {
    let none = Quirks::default;
    for quirks in [
        none(),
        Quirks { renames_onto_free_names_only: true, ..none() },
        Quirks { replies: vec![("MDTM", "502 no")], ..none() },
    ] {
        let peer = Peer::start(quirks, &[]).await;
        the_fence_holds(&clients(), &peer.url("out"), &|path| peer.file(path), &|| peer.names()).await;
    }
}

#[tokio::test]
async fn a_stale_rename_cannot_bring_back_what_was_destroyed() {
    let server = Real::start();
    let clients = trusting(&server);
    let (uploads, path) = uploads(&clients, &server.url("out"));
    let file = File::new(b"stale");
    let part = send(&uploads, &file, file.part(&path, 1, Overwrite::Replace)).await;
    // The sender that is overtaken stands between RNFR and RNTO.
    let mut stale = TcpStream::connect(server.address()).await.unwrap();
    let name = part.name();
    for line in [format!("USER {USER}"), format!("PASS {PASSWORD}"), format!("RNFR {name}")] {
        say(&mut stale, &line).await;
    }
    assert_eq!(uploads.destroy(&part).await.unwrap(), Fate::Dead);
    let reply = say(&mut stale, &format!("RNTO {path}")).await;
    assert!(reply.starts_with("550"), "{reply}");
    assert_eq!(server.names(), Vec::<String>::new());
}

/// Sends a command and waits until the server has answered it.
async fn say(stream: &mut TcpStream, line: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    loop {
        let mut reply = Vec::new();
        while !reply.ends_with(b"\n") {
            reply.push(stream.read_u8().await.unwrap());
        }
        let reply = String::from_utf8(reply).unwrap();
        if !reply.starts_with("220") {
            return reply;
        }
    }
}

#[tokio::test]
async fn a_lost_reply_is_not_a_lost_file() {
    let quirks = Quirks { lost_renames: 1, ..Quirks::default() };
    let peer = Peer::start(quirks, &[]).await;
    let clients = clients();
    let (uploads, path) = uploads(&clients, &peer.url("out"));
    let file = File::new(b"once");
    let part = send(&uploads, &file, file.part(&path, 1, Overwrite::Fail)).await;
    uploads.commit(&part).await.unwrap();
    assert_eq!(peer.file("out").unwrap(), b"once");
}

#[tokio::test]
async fn a_file_that_did_not_arrive_whole_is_sent_again() {
    let peer = Peer::start(Quirks { broken_transfers: 1, busy: 1, ..Quirks::default() }, &[]).await;
    let clients = clients();
    let (uploads, path) = uploads(&clients, &peer.url("out"));
    let file = File::new(&vec![7; 200_000]);
    let part = send(&uploads, &file, file.part(&path, 1, Overwrite::Fail)).await;
    uploads.commit(&part).await.unwrap();
    assert!(peer.file("out").unwrap() == file.content);
}

#[tokio::test]
async fn refusals_have_their_codes() {
    let none = Quirks::default;
    // More than the kernel takes for a server that reads nothing.
    let file = File::new(&vec![1; 16 << 20]);
    for (quirks, expected) in [
        (Quirks { replies: vec![("PASS", "530 no")], ..none() }, Code::DestinationForbidden),
        (Quirks { replies: vec![("STOR", "553 no such name")], ..none() }, Code::DestinationForbidden),
        (Quirks { replies: vec![("STOR", "552 quota")], ..none() }, Code::DiskFull),
        (Quirks { replies: vec![("STOR", "452 full")], ..none() }, Code::DiskFull),
        (Quirks { replies: vec![("STOR", "450 later")], ..none() }, Code::DestinationUnreachable),
        (Quirks { busy: 99, ..none() }, Code::DestinationUnreachable),
        // It hangs; and it takes the file and keeps half of it, each time.
        (Quirks { stalls: true, ..none() }, Code::DestinationUnreachable),
        (Quirks { broken_transfers: 99, ..none() }, Code::DestinationUnreachable),
        (Quirks { passive_port: Some(1), ..none() }, Code::DestinationUnreachable),
    ] {
        let peer = Peer::start(quirks.clone(), &[]).await;
        let clients = clients();
        let (uploads, path) = uploads(&clients, &peer.url("out"));
        let refused = uploads.send(&file.part(&path, 1, Overwrite::Replace), &file.path).await.unwrap_err();
        assert_eq!(refused.code, expected, "{quirks:?}: {refused:?}");
    }
    let peer = Peer::start(none(), &[]).await;
    let blocked = FtpClients::new(policy(&[]), Arc::new(SystemLookup), LIMITS);
    let (uploads, path) = uploads(&blocked, &peer.url("out"));
    let refused = uploads.existing(&path).await.unwrap_err();
    assert_eq!((refused.code, peer.connections()), (Code::DestinationForbidden, 0));
}
