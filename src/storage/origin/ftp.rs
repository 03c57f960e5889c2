//! Sources on FTP servers.
//!
//! FTP has no ranges and no validators: a range is a transfer that begins in the middle (REST) and is broken off at its
//! end, and a file is pinned by its size and its time (SIZE, MDTM), which are asked for again before each range. Whether a
//! server means its REST is tried once at opening; one that has none, or takes it and begins at the start, is read whole.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{ByteStream, Extent, Opened, Origin, OriginError, Pin, empty};
use crate::domain::Code;
use crate::storage::ftp::{FtpClients, FtpFault, FtpLogin, FtpServer, Session, Transfer};
use crate::storage::policy::blocked;

/// Sessions with one server for one source: as many as the gateway fetches ranges at a time. Servers often take only a
/// few per user.
const SESSIONS: usize = 2;

/// A file on an FTP server, read in ranges where the server can.
pub(crate) struct FtpOrigin {
    clients: FtpClients,
    server: FtpServer,
    login: FtpLogin,
    path: String,
    idle: Arc<Idle>,
    slots: Arc<Semaphore>,
}

/// Sessions between two ranges.
#[derive(Default)]
struct Idle(Mutex<Vec<Session>>);

impl Idle {
    fn take(&self) -> Option<Session> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, session: Session) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }
}

/// What the server says about the file.
struct Facts {
    size: Option<u64>,
    modified: Option<String>,
}

impl FtpOrigin {
    /// An origin; nothing is asked yet.
    #[must_use]
    pub(crate) fn new(clients: FtpClients, server: FtpServer, login: FtpLogin, path: String) -> Self {
        let slots = Arc::new(Semaphore::new(SESSIONS));
        Self { clients, server, login, path, idle: Arc::default(), slots }
    }

    async fn slot(&self) -> Result<OwnedSemaphorePermit, OriginError> {
        let closed = |_| OriginError::transient("the source was closed", "");
        Arc::clone(&self.slots).acquire_owned().await.map_err(closed)
    }

    async fn session(&self) -> Result<Session, FtpFault> {
        self.clients.session(&self.server, &self.login).await
    }

    async fn facts(&self, session: &mut Session) -> Result<Facts, FtpFault> {
        let size = match session.size(&self.path).await {
            Ok(size) => size,
            // Servers refuse SIZE for what they refuse to send, and some for no reason: RETR tells.
            Err(FtpFault::Missing(_) | FtpFault::Denied(_)) => None,
            Err(fault) => return Err(fault),
        };
        Ok(Facts { size, modified: session.modified(&self.path).await? })
    }

    /// Whether a transfer that should begin at the last byte brings one byte and no more.
    async fn restarts(&self, session: &mut Session, size: u64) -> Result<bool, FtpFault> {
        let mut transfer = match session.retrieve(&self.path, size - 1).await {
            Ok(transfer) => transfer,
            Err(fault @ (FtpFault::Unreachable { .. } | FtpFault::Nonsense(_) | FtpFault::Tls(_))) => {
                return Err(fault);
            }
            // REST refused, or RETR: the transfer of the whole says which.
            Err(_) => return Ok(false),
        };
        let mut bytes = 0;
        loop {
            let chunk = tokio::time::timeout(self.clients.limits().stall, transfer.next()).await;
            let Ok(chunk) = chunk else {
                return Ok(false);
            };
            match chunk?.len() {
                0 => break,
                more => bytes += more,
            }
            if bytes > 1 {
                return Ok(false);
            }
        }
        Ok(bytes == 1 && transfer.finish().await.is_ok())
    }

    async fn whole(
        &self,
        mut session: Session,
        pin: Pin,
        permit: OwnedSemaphorePermit,
    ) -> Result<Opened, FtpFault> {
        let transfer = session.retrieve(&self.path, 0).await?;
        let reading = Reading { transfer, session, idle: Arc::clone(&self.idle), left: None, permit };
        Ok(Opened { pin, extent: Extent::Whole, body: reading.into_stream() })
    }

    async fn open_once(&self, first: u64, permit: OwnedSemaphorePermit) -> Result<Opened, FtpFault> {
        let mut session = self.session().await?;
        let facts = self.facts(&mut session).await?;
        let pin = Pin { size: facts.size, etag: None, last_modified: facts.modified };
        let Some(size) = facts.size.filter(|size| *size > first) else {
            return self.whole(session, pin, permit).await;
        };
        if !self.restarts(&mut session, size).await? {
            // Whatever is still on its way on the old session stays there.
            drop(session);
            return self.whole(self.session().await?, pin, permit).await;
        }
        let range = 0..first.min(size);
        let transfer = session.retrieve(&self.path, 0).await?;
        let left = Some(range.end);
        let reading = Reading { transfer, session, idle: Arc::clone(&self.idle), left, permit };
        Ok(Opened { pin, extent: Extent::Range(range), body: reading.into_stream() })
    }

    async fn range_on(
        &self,
        mut session: Session,
        pin: &Pin,
        range: &Range<u64>,
    ) -> Result<(Session, Transfer), OriginError> {
        let facts = self.facts(&mut session).await.map_err(of)?;
        let now = Pin { size: facts.size, etag: None, last_modified: facts.modified };
        if !pin.agrees(&now) {
            return Err(OriginError::changed(format!("pinned {pin:?}, now {now:?}")));
        }
        let transfer = session.retrieve(&self.path, range.start).await.map_err(of)?;
        Ok((session, transfer))
    }
}

#[async_trait]
impl Origin for FtpOrigin {
    async fn open(&self, first: u64) -> Result<Opened, OriginError> {
        let permit = self.slot().await?;
        let opened = self.open_once(first, permit).await.map_err(of)?;
        if opened.pin.size == Some(0) {
            return Err(OriginError::Refused(empty()));
        }
        Ok(opened)
    }

    async fn range(&self, pin: &Pin, range: Range<u64>) -> Result<ByteStream, OriginError> {
        let permit = self.slot().await?;
        let mut used = None;
        // What a session says that gave up a transfer before may be an answer to that one: only a fresh one is believed.
        if let Some(idle) = self.idle.take() {
            used = self.range_on(idle, pin, &range).await.ok();
        }
        let (session, transfer) = match used {
            Some(used) => used,
            None => self.range_on(self.session().await.map_err(of)?, pin, &range).await?,
        };
        let left = Some(range.end - range.start);
        let reading = Reading { transfer, session, idle: Arc::clone(&self.idle), left, permit };
        Ok(reading.into_stream())
    }
}

/// A transfer on its way.
struct Reading {
    transfer: Transfer,
    session: Session,
    idle: Arc<Idle>,
    /// Bytes until it is broken off; absent: to the file's end, which the server must confirm.
    left: Option<u64>,
    permit: OwnedSemaphorePermit,
}

impl Reading {
    fn into_stream(self) -> ByteStream {
        futures_util::stream::unfold(Some(self), |reading| async move {
            let (chunk, reading) = reading?.next().await?;
            Some((chunk, reading))
        })
        .boxed()
    }

    /// The next bytes and what goes on; `None` at the end.
    async fn next(mut self) -> Option<(Result<Bytes, OriginError>, Option<Self>)> {
        let mut chunk = match self.transfer.next().await {
            Ok(chunk) => chunk,
            Err(fault) => return Some((Err(of(fault)), None)),
        };
        match self.left {
            None if chunk.is_empty() => {
                // The data connection ends in the same way when the server's disk breaks.
                let ended = self.transfer.finish().await;
                ended.err().map(|fault| (Err(of(fault)), None))
            }
            None => Some((Ok(chunk), Some(self))),
            Some(_) if chunk.is_empty() => None,
            Some(left) => {
                chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - chunk.len() as u64;
                if left > 0 {
                    self.left = Some(left);
                    return Some((Ok(chunk), Some(self)));
                }
                let Self { transfer, session, idle, permit, .. } = self;
                drop(transfer);
                idle.put(session);
                drop(permit);
                Some((Ok(chunk), None))
            }
        }
    }
}

/// A fault as the gateway takes it: given up at once, or tried again.
fn of(fault: FtpFault) -> OriginError {
    let refused = |code, sentence: &str, detail: String| {
        OriginError::Refused(crate::domain::Failure::new(code, sentence).with_detail(detail))
    };
    match fault {
        FtpFault::Blocked { host, port } => OriginError::Refused(blocked(&host, port)),
        FtpFault::Login => refused(
            Code::SourceForbidden,
            "The source's server refused the user or the password.",
            String::new(),
        ),
        FtpFault::Denied(reply) => {
            refused(Code::SourceForbidden, "The source's server refused access.", reply.to_string())
        }
        FtpFault::Missing(reply) => {
            refused(Code::SourceNotFound, "The source does not exist on its server.", reply.to_string())
        }
        FtpFault::Tls(detail) => refused(
            Code::SourceUnreachable,
            "No encrypted connection to the source's server could be made.",
            detail,
        ),
        FtpFault::Refused(reply) | FtpFault::Full(reply) => {
            refused(Code::SourceUnreachable, "The source's server does not give the file.", reply.to_string())
        }
        FtpFault::Nonsense(detail) => {
            refused(Code::SourceUnreachable, "The source's server answers against the protocol.", detail)
        }
        FtpFault::Unreachable { what, detail } => OriginError::transient(what, detail),
    }
}
