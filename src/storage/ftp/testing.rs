//! FTP servers for tests: a real one, and one that errs as told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[path = "../../../tests/it/support/ftp.rs"]
#[allow(
    dead_code,
    clippy::allow_attributes,
    unreachable_pub,
    reason = "shared with the tests of whole processes"
)]
mod server;

pub(in crate::storage) use self::server::{FtpServer as Real, PASSWORD, USER};

/// What goes wrong. Nothing does by default.
#[derive(Debug, Clone, Default)]
pub(in crate::storage) struct Quirks {
    /// Sent instead of the greeting, for ever.
    pub(in crate::storage) endless_greeting: Option<&'static [u8]>,
    /// Commands that get this reply and nothing else.
    pub(in crate::storage) replies: Vec<(&'static str, &'static str)>,
    /// The passive answer names this port and nobody listens there.
    pub(in crate::storage) passive_port: Option<u16>,
    /// The passive answer names this address.
    pub(in crate::storage) passive_ip: Option<[u8; 4]>,
    /// REST is accepted and forgotten.
    pub(in crate::storage) forgets_rest: bool,
    /// A data connection is closed after so many bytes.
    pub(in crate::storage) drop_every: Option<usize>,
    /// So many data connections break off in their middle, with 426.
    pub(in crate::storage) broken_transfers: u64,
    /// So many connections are greeted with 421.
    pub(in crate::storage) busy: u64,
    /// Data connections stay open and silent after half of a file that is read, and take nothing of one that is sent.
    pub(in crate::storage) stalls: bool,
    /// The files are gone from this transfer on.
    pub(in crate::storage) gone_at_transfer: Option<u64>,
    /// SIZE says so many bytes more than there are.
    pub(in crate::storage) size_too_large_by: u64,
    /// RNTO refuses names that exist.
    pub(in crate::storage) renames_onto_free_names_only: bool,
    /// Renames are carried out, and the connection ends without a reply.
    pub(in crate::storage) lost_renames: u64,
    /// MDTM of every file changes from this transfer on.
    pub(in crate::storage) changes_at_transfer: Option<u64>,
}

impl Quirks {
    /// How much of so many bytes a transfer sends.
    fn end(&self, transfer: u64, all: usize) -> usize {
        match self.drop_every {
            Some(bytes) => bytes.min(all),
            None if transfer < self.broken_transfers || self.stalls => all / 2,
            None => all,
        }
    }
}

/// Files by path.
pub(in crate::storage) type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A server in this process that errs as told. It takes any login. Dropping it ends it.
pub(in crate::storage) struct Peer {
    pub(in crate::storage) address: SocketAddr,
    pub(in crate::storage) files: Files,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    quirks: Quirks,
    files: Files,
    connections: AtomicU64,
    transfers: AtomicU64,
    renames: AtomicU64,
    commands: Mutex<Vec<String>>,
}

impl Peer {
    pub(in crate::storage) async fn start(quirks: Quirks, files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let files = files.iter().map(|(path, content)| ((*path).to_owned(), content.to_vec())).collect();
        let files: Files = Arc::new(Mutex::new(files));
        let shared = Arc::new(Shared {
            quirks,
            files: Arc::clone(&files),
            connections: AtomicU64::new(0),
            transfers: AtomicU64::new(0),
            renames: AtomicU64::new(0),
            commands: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        let serving = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&serving);
                connections.spawn(async move { serve(stream, &shared).await });
            }
        });
        Self { address, files, shared, _tasks: tasks }
    }

    pub(in crate::storage) fn url(&self, path: &str) -> String {
        format!("ftp://{}/{path}", self.address)
    }

    pub(in crate::storage) fn file(&self, path: &str) -> Option<Vec<u8>> {
        self.files.lock().unwrap().get(path).cloned()
    }

    pub(in crate::storage) fn names(&self) -> Vec<String> {
        self.files.lock().unwrap().keys().cloned().collect()
    }

    /// Commands so far, with their arguments.
    pub(in crate::storage) fn commands(&self) -> Vec<String> {
        self.shared.commands.lock().unwrap().clone()
    }

    /// Control connections so far.
    pub(in crate::storage) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

/// What one session has said so far.
#[derive(Default)]
struct State {
    data: Option<TcpListener>,
    from: usize,
    rename: Option<String>,
}

async fn serve(stream: TcpStream, shared: &Shared) -> Option<()> {
    let quirks = &shared.quirks;
    let (reader, mut writer) = stream.into_split();
    if let Some(piece) = quirks.endless_greeting {
        loop {
            writer.write_all(piece).await.ok()?;
        }
    }
    let number = shared.connections.fetch_add(1, Ordering::SeqCst);
    if number < quirks.busy {
        return writer.write_all(b"421 Too many connections\r\n").await.ok();
    }
    writer.write_all(b"220 ready\r\n").await.ok()?;
    let mut lines = BufReader::new(reader).lines();
    let mut state = State::default();
    while let Some(line) = lines.next_line().await.ok()? {
        shared.commands.lock().unwrap().push(line.clone());
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let told = quirks.replies.iter().find(|(name, _)| *name == command);
        let reply = match told {
            Some((_, reply)) => (*reply).to_owned(),
            None => answer(&mut writer, shared, &mut state, command, argument).await?,
        };
        writer.write_all(format!("{reply}\r\n").as_bytes()).await.ok()?;
    }
    Some(())
}

/// The reply to a command; `None` ends the connection.
async fn answer(
    writer: &mut tokio::net::tcp::OwnedWriteHalf,
    shared: &Shared,
    state: &mut State,
    command: &str,
    argument: &str,
) -> Option<String> {
    let quirks = &shared.quirks;
    if quirks.gone_at_transfer.is_some_and(|from| shared.transfers.load(Ordering::SeqCst) >= from) {
        shared.files.lock().unwrap().clear();
    }
    let size = |path: &str| shared.files.lock().unwrap().get(path).map(Vec::len);
    let missing = || "550 No such file".to_owned();
    Some(match command {
        "USER" => "331 password".to_owned(),
        "PASS" => "230 welcome".to_owned(),
        "TYPE" | "NOOP" => "200 yes".to_owned(),
        "SIZE" => {
            size(argument).map_or_else(missing, |n| format!("213 {}", n as u64 + quirks.size_too_large_by))
        }
        "MLST" => {
            size(argument).map_or_else(missing, |n| format!("250-facts\r\n size={n}; {argument}\r\n250 end"))
        }
        "MDTM" => {
            let late = quirks
                .changes_at_transfer
                .is_some_and(|from| shared.transfers.load(Ordering::SeqCst) >= from);
            size(argument).map_or_else(missing, |_| format!("213 202611290{}0000", u8::from(late)))
        }
        "PASV" => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = quirks.passive_port.unwrap_or(listener.local_addr().unwrap().port());
            let [a, b, c, d] = quirks.passive_ip.unwrap_or([127, 0, 0, 1]);
            state.data = quirks.passive_port.is_none().then_some(listener);
            format!("227 Entering Passive Mode ({a},{b},{c},{d},{},{})", port / 256, port % 256)
        }
        "REST" => {
            state.from = if quirks.forgets_rest { 0 } else { argument.parse().unwrap() };
            "350 go on".to_owned()
        }
        "RETR" => {
            let Some(content) = shared.files.lock().unwrap().get(argument).cloned() else {
                return Some(missing());
            };
            writer.write_all(b"150 here it comes\r\n").await.ok()?;
            let (mut data, _) = state.data.take()?.accept().await.ok()?;
            let number = shared.transfers.fetch_add(1, Ordering::SeqCst);
            let from = std::mem::take(&mut state.from).min(content.len());
            let content = &content[from..];
            let end = quirks.end(number, content.len());
            let sent = data.write_all(&content[..end]).await;
            if quirks.stalls {
                return std::future::pending().await;
            }
            drop(data);
            if sent.is_err() || end < content.len() {
                "426 broke off".to_owned()
            } else {
                "226 that was it".to_owned()
            }
        }
        "STOR" => {
            if argument.contains('/') && !argument.starts_with("made/") {
                return Some("550 No such folder".to_owned());
            }
            writer.write_all(b"150 give\r\n").await.ok()?;
            let (mut data, _) = state.data.take()?.accept().await.ok()?;
            if quirks.stalls {
                return std::future::pending().await;
            }
            let mut content = Vec::new();
            data.read_to_end(&mut content).await.ok()?;
            if shared.transfers.fetch_add(1, Ordering::SeqCst) < quirks.broken_transfers {
                content.truncate(content.len() / 2);
            }
            shared.files.lock().unwrap().insert(argument.to_owned(), content);
            "226 kept".to_owned()
        }
        "DELE" => {
            shared.files.lock().unwrap().remove(argument).map_or_else(missing, |_| "250 gone".to_owned())
        }
        "RNFR" if size(argument).is_some() => {
            state.rename = Some(argument.to_owned());
            "350 to what?".to_owned()
        }
        "RNFR" => missing(),
        "RNTO" => {
            if quirks.renames_onto_free_names_only && size(argument).is_some() {
                return Some("553 exists".to_owned());
            }
            let mut files = shared.files.lock().unwrap();
            let Some(content) = state.rename.take().and_then(|from| files.remove(&from)) else {
                return Some(missing());
            };
            files.insert(argument.to_owned(), content);
            drop(files);
            if shared.renames.fetch_add(1, Ordering::SeqCst) < quirks.lost_renames {
                return None;
            }
            "250 renamed".to_owned()
        }
        "MKD" => format!("257 \"{argument}\" made"),
        "QUIT" => "221 bye".to_owned(),
        _ => "502 what?".to_owned(),
    })
}
