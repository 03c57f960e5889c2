//! Sending to receivers that refuse, hang, drop, are busy or point elsewhere.

use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::super::http::SystemLookup;
use super::super::policy::AddressPolicy;
use super::super::test_origin::noise;
use super::*;
use crate::storage::hex;

/// What a receiver does with one request.
#[derive(Debug, Clone)]
enum Act {
    /// Reads all of it and answers so, with this header line.
    Answer(u16, String),
    /// Answers after the head, and closes.
    Refuse(u16),
    /// Reads so much of the body and then nothing more.
    Hang(usize),
    /// Reads all and says nothing.
    Mute,
    /// Reads so much of the body and closes.
    Drop(usize),
}

fn answer(status: u16) -> Act {
    Act::Answer(status, String::new())
}

/// Heads, in lower case, and bodies.
type Requests = Vec<(String, Vec<u8>)>;

/// A receiver that acts once for each request, by the last one for ever.
struct Receiver {
    address: SocketAddr,
    seen: Arc<Mutex<Requests>>,
    _tasks: JoinSet<()>,
}

impl Receiver {
    async fn start(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&seen);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            let mut turn = 0;
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let act = acts[turn.min(acts.len() - 1)].clone();
                turn += 1;
                let seen = Arc::clone(&shared);
                connections.spawn(async move { serve(stream, act, &seen).await });
            }
        });
        Self { address, seen, _tasks: tasks }
    }

    fn url(&self) -> String {
        format!("http://{}/in?sig=canary", self.address)
    }

    fn requests(&self) -> Requests {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, act: Act, seen: &Mutex<Requests>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length: usize =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let wanted = match act {
        Act::Answer(..) | Act::Mute => length,
        Act::Refuse(_) => 0,
        Act::Hang(bytes) | Act::Drop(bytes) => bytes.min(length),
    };
    let mut body = vec![0; wanted];
    stream.read_exact(&mut body).await.unwrap();
    seen.lock().unwrap().push((head, body));
    let (status, header) = match act {
        Act::Answer(status, header) => (status, header),
        Act::Refuse(status) => (status, String::new()),
        Act::Hang(_) | Act::Mute => return std::future::pending().await,
        Act::Drop(_) => return,
    };
    let text = format!("HTTP/1.1 {status} X\r\n{header}content-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    if wanted < length {
        // So that the answer is not lost to a reset.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
}

const LIMITS: PutLimits = PutLimits { stall: Duration::from_millis(600), answer: Duration::from_millis(600) };

fn quick() -> Pauses {
    Pauses::new(3, Duration::from_millis(1), Duration::from_millis(4))
}

fn clients(rules: &[&str]) -> Arc<HttpClients> {
    let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    Arc::new(HttpClients::new(AddressPolicy::new(rules), Arc::new(SystemLookup), Duration::from_secs(1)))
}

struct File {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
    content: Arc<[u8]>,
    sha256: String,
}

impl File {
    fn new() -> Self {
        let content = noise(2 * 1024 * 1024 + 7);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.mp4");
        std::fs::write(&path, &content).unwrap();
        let sha256 = hex(ring::digest::digest(&ring::digest::SHA256, &content).as_ref());
        Self { _folder: folder, path, content, sha256 }
    }

    fn put(&self, url: &str, headers: &[(&str, &str)]) -> Put<'_> {
        let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Put {
            method: Method::PUT,
            request: request(url, &headers).unwrap(),
            path: &self.path,
            size: self.content.len() as u64,
            sha256: &self.sha256,
            content_type: "video/mp4",
        }
    }
}

#[tokio::test]
async fn a_file_arrives_whole_with_its_headers() {
    let file = File::new();
    for (method, headers, kind) in [
        (Method::PUT, &[("X-Api-Key", "secret")][..], "content-type: video/mp4\r\n"),
        (Method::POST, &[("Content-Type", "application/x-own")][..], "content-type: application/x-own\r\n"),
    ] {
        let receiver = Receiver::start(vec![answer(201)]).await;
        let sent =
            Put { method: method.clone(), ..file.put(&receiver.url().replace("//", "//u:p@"), headers) };
        put(&clients(&["127.0.0.1"]), LIMITS, quick(), &sent).await.unwrap();
        let requests = receiver.requests();
        let [(head, body)] = requests.as_slice() else { panic!("{} requests", requests.len()) };
        assert!(head.starts_with(&format!("{} /in?sig=canary http/1.1\r\n", method.as_str().to_lowercase())));
        assert!(body[..] == file.content[..]);
        for line in [kind, "authorization: basic dtpw\r\n", "content-digest: sha-256=:"] {
            assert!(head.contains(line), "{line} in {head}");
        }
        assert!(!head.contains("transfer-encoding"), "{head}");
        assert_eq!(head.matches("content-type").count(), 1, "{head}");
    }
}

#[tokio::test]
async fn every_answer_means_one_thing() {
    let file = File::new();
    let slow_down = Act::Answer(429, "retry-after: 0\r\n".to_owned());
    let everything = usize::MAX;
    for (acts, expected, requests) in [
        (vec![answer(503), slow_down, answer(200)], Ok(()), 3),
        (vec![Act::Drop(1000), Act::Drop(everything), Act::Hang(1000), answer(200)], Ok(()), 4),
        (vec![Act::Mute, answer(204)], Ok(()), 2),
        (vec![answer(500)], Err(Code::DestinationUnreachable), 4),
        (vec![Act::Drop(1000)], Err(Code::DestinationUnreachable), 4),
        (vec![Act::Hang(0)], Err(Code::DestinationUnreachable), 4),
        (vec![Act::Mute], Err(Code::DestinationUnreachable), 4),
        (vec![Act::Refuse(403)], Err(Code::DestinationForbidden), 1),
        (vec![answer(404)], Err(Code::DestinationForbidden), 1),
        (vec![answer(501)], Err(Code::DestinationForbidden), 1),
        (vec![Act::Refuse(413)], Err(Code::DestinationForbidden), 1),
        (vec![answer(507)], Err(Code::DiskFull), 1),
        (vec![answer(304)], Err(Code::DestinationForbidden), 1),
    ] {
        let receiver = Receiver::start(acts.clone()).await;
        let sent = put(&clients(&["127.0.0.1"]), LIMITS, quick(), &file.put(&receiver.url(), &[])).await;
        assert_eq!(sent.as_ref().map_err(|failure| failure.code).copied(), expected, "{acts:?}: {sent:?}");
        assert_eq!(receiver.requests().len(), requests, "{acts:?}");
        if let Err(failure) = sent {
            assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
        }
    }
}

#[tokio::test]
async fn redirects_that_repeat_the_request_are_followed_under_the_policy() {
    let file = File::new();
    let target = Receiver::start(vec![answer(200)]).await;
    let to = format!("location: {}\r\n", target.url().replace("canary", "other"));
    let door = Receiver::start(vec![Act::Answer(307, to.clone())]).await;
    let headers = [("X-Api-Key", "secret")];
    put(&clients(&["127.0.0.1"]), LIMITS, quick(), &file.put(&door.url(), &headers)).await.unwrap();
    let (head, body) = target.requests().remove(0);
    assert!(head.starts_with("put /in?sig=other ") && !head.contains("secret"), "{head}");
    assert!(body[..] == file.content[..]);

    // Elsewhere inside is not gone to, and other redirects would turn the request into a GET.
    let only_the_door = [&*door.address.to_string()];
    let refused = put(&clients(&only_the_door), LIMITS, quick(), &file.put(&door.url(), &headers)).await;
    assert_eq!(refused.unwrap_err().code, Code::DestinationForbidden);
    let see_other = Receiver::start(vec![Act::Answer(303, to)]).await;
    let refused = put(&clients(&["127.0.0.1"]), LIMITS, quick(), &file.put(&see_other.url(), &[])).await;
    assert_eq!(refused.unwrap_err().code, Code::DestinationForbidden);
    assert_eq!(target.requests().len(), 1);
    let ring = Receiver::start(vec![Act::Answer(308, "location: /again\r\n".to_owned())]).await;
    let refused = put(&clients(&["127.0.0.1"]), LIMITS, quick(), &file.put(&ring.url(), &[])).await;
    assert_eq!((refused.unwrap_err().code, ring.requests().len()), (Code::DestinationForbidden, 4));
}

#[tokio::test]
async fn inner_addresses_and_changed_files_are_not_sent() {
    let file = File::new();
    let receiver = Receiver::start(vec![answer(200)]).await;
    let refused = put(&clients(&[]), LIMITS, quick(), &file.put(&receiver.url(), &[])).await.unwrap_err();
    assert_eq!(refused.code, Code::DestinationForbidden);
    assert!(refused.message.contains("sources.allow"), "{refused}");
    std::fs::write(&file.path, b"other").unwrap();
    let changed = put(&clients(&["127.0.0.1"]), LIMITS, quick(), &file.put(&receiver.url(), &[])).await;
    assert_eq!(changed.unwrap_err().code, Code::Internal);
    assert_eq!(receiver.requests().len(), 0);
    let headers = BTreeMap::from([("Host".to_owned(), "inner".to_owned())]);
    let refused = request("http://h.example/", &headers).map(|_| ()).unwrap_err();
    assert_eq!(refused.code, Code::DestinationForbidden);
    assert!(refused.message.starts_with("the destination's headers"), "{refused}");
}
