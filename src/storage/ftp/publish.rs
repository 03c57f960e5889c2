//! Publishing on an FTP server: a part file beside the target, and a rename.
//!
//! The fence is the server's file system. RNTO renames what has the part's name at that moment, so after a DELE of the
//! part no sender that was overtaken can commit it. What FTP lacks:
//!
//! - *Marks.* Whether a target is a publication of ours is told by its size, its time (a rename keeps the part's), and
//!   its SHA-256, for which it is read back. That happens only after a crash or a lost reply, when the part is gone.
//! - *A rename onto free names only.* `overwrite: fail` looks before it renames; a file that comes in between is lost.
//! - *A rename that replaces*, on some servers. There the old target is moved aside first, and for a moment there is
//!   none. It is not removed first: a sender that was overtaken in between would remove what the next one published.
//!
//! Folders that were made stay, also when the handle is destroyed.

use std::path::Path;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::AsyncReadExt;

use super::{FtpClients, FtpFault, FtpLogin, FtpServer, Session, destination_failure};
use crate::domain::beside;
use crate::domain::{Code, Failure, Overwrite, PublicationId};
use crate::storage::hex;
use crate::storage::local::{LocalError, already_there, part_name, withdrawn};
use crate::storage::pauses::Pauses;

/// One handle, seen by this server.
#[derive(Debug, Clone)]
pub(in crate::storage) struct Part {
    /// Of the target.
    pub(in crate::storage) path: String,
    pub(in crate::storage) publication: PublicationId,
    pub(in crate::storage) overwrite: Overwrite,
    /// Bytes of the whole file.
    pub(in crate::storage) size: u64,
    /// Of the whole file, lower-case hex.
    pub(in crate::storage) sha256: String,
    /// When the part was written, as the server said after it was sent.
    pub(in crate::storage) modified: Option<String>,
}

impl Part {
    pub(super) fn name(&self) -> String {
        beside(&self.path, &part_name(self.publication))
    }

    /// Where a target is put that the rename cannot replace.
    fn aside(&self) -> String {
        beside(&self.path, &format!(".flux-{}.old", self.publication))
    }
}

/// What a destroyed handle had come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Fate {
    Dead,
    Committed,
}

/// One server as a destination.
pub(in crate::storage) struct Uploads<'a> {
    pub(in crate::storage) clients: &'a FtpClients,
    pub(in crate::storage) server: FtpServer,
    pub(in crate::storage) login: FtpLogin,
    pub(in crate::storage) pauses: Pauses,
}

impl Uploads<'_> {
    /// Sends the file to its invisible place; says when the server thinks that was.
    pub(in crate::storage) async fn send(
        &self,
        part: &Part,
        source: &Path,
    ) -> Result<Option<String>, Failure> {
        self.trying(|| self.send_once(part, source).boxed()).await
    }

    async fn send_once(&self, part: &Part, source: &Path) -> Result<Option<String>, Stop> {
        let mut session = self.session().await?;
        let name = part.name();
        let mut transfer = match session.store(&name).await {
            Err(FtpFault::Missing(_) | FtpFault::Denied(_)) => {
                make_parents(&mut session, &part.path).await?;
                session.store(&name).await?
            }
            other => other?,
        };
        let changed = |_| Stop::Failed(LocalError::Changed.into());
        let mut file = tokio::fs::File::open(source).await.map_err(changed)?;
        let mut buffer = vec![0; 64 * 1024];
        let mut sent = 0;
        loop {
            let read = file.read(&mut buffer).await.map_err(changed)?;
            if read == 0 {
                break;
            }
            sent += read as u64;
            if sent > part.size {
                return Err(Stop::Failed(LocalError::Changed.into()));
            }
            transfer.write(&buffer[..read]).await?;
        }
        if sent != part.size {
            return Err(Stop::Failed(LocalError::Changed.into()));
        }
        transfer.finish().await?;
        if let Some(size) = session.size(&name).await?.filter(|size| *size != part.size) {
            let detail = format!("{size} bytes there of {} sent", part.size);
            return Err(FtpFault::unreachable("it kept another file than it was sent", detail).into());
        }
        let modified = session.modified(&name).await?;
        session.quit().await;
        Ok(modified)
    }

    /// Makes the file visible. Repeating it says the same; without its part it is refused.
    pub(in crate::storage) async fn commit(&self, part: &Part) -> Result<(), Failure> {
        self.trying(|| self.commit_once(part).boxed()).await
    }

    async fn commit_once(&self, part: &Part) -> Result<(), Stop> {
        let mut session = self.session().await?;
        let name = part.name();
        match session.size(&name).await {
            Ok(Some(size)) if size != part.size => return Err(Stop::Failed(LocalError::NotWhole.into())),
            Ok(_) => {}
            Err(FtpFault::Missing(_)) => return self.committed_before(&mut session, part).await,
            Err(fault) => return Err(fault.into()),
        }
        if part.overwrite == Overwrite::Fail && exists(&mut session, &part.path).await? {
            return Err(Stop::Failed(already_there()));
        }
        match session.rename(&name, &part.path).await {
            Ok(()) => {}
            Err(fault @ (FtpFault::Missing(_) | FtpFault::Denied(_) | FtpFault::Refused(_))) => {
                self.replace(&mut session, part, fault).await?;
            }
            Err(fault) => return Err(fault.into()),
        }
        session.quit().await;
        Ok(())
    }

    /// The rename was refused: the part is gone, or this server does not rename onto a file that exists.
    async fn replace(&self, session: &mut Session, part: &Part, fault: FtpFault) -> Result<(), Stop> {
        let (name, aside) = (part.name(), part.aside());
        if !exists(session, &name).await? {
            return self.committed_before(session, part).await;
        }
        if part.overwrite == Overwrite::Fail || !exists(session, &part.path).await? {
            return Err(fault.into());
        }
        session.rename(&part.path, &aside).await?;
        let renamed = session.rename(&name, &part.path).await;
        put_back(session, part).await?;
        Ok(renamed?)
    }

    async fn committed_before(&self, session: &mut Session, part: &Part) -> Result<(), Stop> {
        if self.is_ours(session, part).await? { Ok(()) } else { Err(Stop::Failed(withdrawn())) }
    }

    /// Removes the part for ever, and says whether it had been committed.
    pub(in crate::storage) async fn destroy(&self, part: &Part) -> Result<Fate, Failure> {
        self.trying(|| self.destroy_once(part).boxed()).await
    }

    async fn destroy_once(&self, part: &Part) -> Result<Fate, Stop> {
        let mut session = self.session().await?;
        let name = part.name();
        match session.remove(&name).await {
            // A rename would have taken the part's name away.
            Ok(()) => {
                put_back(&mut session, part).await?;
                return Ok(Fate::Dead);
            }
            Err(FtpFault::Missing(_)) => {}
            // One code means missing and not permitted; a part that is still there is not destroyed.
            Err(fault @ (FtpFault::Denied(_) | FtpFault::Refused(_))) => {
                if exists(&mut session, &name).await? {
                    return Err(fault.into());
                }
            }
            Err(fault) => return Err(fault.into()),
        }
        if exists(&mut session, &name).await? {
            let detail = "the part is still there after its removal".to_owned();
            return Err(FtpFault::Nonsense(detail).into());
        }
        put_back(&mut session, part).await?;
        let committed = self.is_ours(&mut session, part).await?;
        session.quit().await;
        Ok(if committed { Fate::Committed } else { Fate::Dead })
    }

    /// Removes a file; one that is not there is removed already.
    pub(in crate::storage) async fn take_away(&self, path: &str) -> Result<(), Failure> {
        self.trying(|| self.take_away_once(path).boxed()).await
    }

    async fn take_away_once(&self, path: &str) -> Result<(), Stop> {
        let mut session = self.session().await?;
        match session.remove(path).await {
            Ok(()) | Err(FtpFault::Missing(_)) => {}
            Err(fault) if exists(&mut session, path).await? => return Err(fault.into()),
            Err(_) => {}
        }
        session.quit().await;
        Ok(())
    }

    /// Bytes of what is at a path now.
    pub(in crate::storage) async fn existing(&self, path: &str) -> Result<Option<u64>, Failure> {
        self.trying(|| self.existing_once(path).boxed()).await
    }

    async fn existing_once(&self, path: &str) -> Result<Option<u64>, Stop> {
        let mut session = self.session().await?;
        let found = match session.size(path).await {
            Ok(Some(size)) => Some(size),
            Err(FtpFault::Missing(_)) => None,
            Ok(None) => exists(&mut session, path).await?.then_some(0),
            Err(fault) => return Err(fault.into()),
        };
        session.quit().await;
        Ok(found)
    }

    async fn is_ours(&self, session: &mut Session, part: &Part) -> Result<bool, Stop> {
        let there = match session.size(&part.path).await {
            Ok(Some(size)) => size == part.size,
            Ok(None) => exists(session, &part.path).await?,
            Err(FtpFault::Missing(_)) => false,
            Err(fault) => return Err(fault.into()),
        };
        if !there {
            return Ok(false);
        }
        let modified = session.modified(&part.path).await?;
        if part.modified.as_ref().zip(modified.as_ref()).is_some_and(|(then, now)| then != now) {
            return Ok(false);
        }
        self.hash(session, part).await.map(|found| found == part.sha256)
    }

    /// Reads the target back, as far as the file is long.
    async fn hash(&self, session: &mut Session, part: &Part) -> Result<String, Stop> {
        let mut transfer = session.retrieve(&part.path, 0).await?;
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        let mut read = 0;
        loop {
            let next = tokio::time::timeout(self.clients.limits().stall, transfer.next()).await;
            let chunk =
                next.map_err(|_| FtpFault::unreachable("its server stopped sending", "stall limit"))??;
            if chunk.is_empty() {
                break;
            }
            read += chunk.len() as u64;
            if read > part.size {
                return Ok(String::new());
            }
            context.update(&chunk);
        }
        transfer.finish().await?;
        Ok(hex(context.finish().as_ref()))
    }

    async fn session(&self) -> Result<Session, Stop> {
        Ok(self.clients.session(&self.server, &self.login).await?)
    }

    /// Repeats what failed for a reason that may pass. Every verb may be repeated.
    async fn trying<'s, T>(
        &self,
        verb: impl Fn() -> BoxFuture<'s, Result<T, Stop>> + Send + Sync,
    ) -> Result<T, Failure> {
        let mut pauses = self.pauses.clone();
        loop {
            let fault = match verb().await {
                Ok(done) => return Ok(done),
                Err(Stop::Failed(failure)) => return Err(failure),
                Err(Stop::Fault(fault)) => fault,
            };
            let pause = match &fault {
                FtpFault::Unreachable { .. } => pauses.next(None),
                _ => None,
            };
            let Some(pause) = pause else {
                return Err(destination_failure(fault));
            };
            tracing::debug!(?fault, ?pause, "trying an FTP server again");
            tokio::time::sleep(pause).await;
        }
    }
}

/// Why a verb ended.
enum Stop {
    Fault(FtpFault),
    Failed(Failure),
}

impl From<FtpFault> for Stop {
    fn from(fault: FtpFault) -> Self {
        Self::Fault(fault)
    }
}

/// Whether something has that name.
async fn exists(session: &mut Session, path: &str) -> Result<bool, Stop> {
    let fault = match session.size(path).await {
        Ok(Some(_)) => return Ok(true),
        Err(FtpFault::Missing(_)) => return Ok(false),
        Ok(None) => None,
        // Folders have no size.
        Err(fault @ (FtpFault::Denied(_) | FtpFault::Refused(_))) => Some(fault),
        Err(fault) => return Err(fault.into()),
    };
    match session.listed(path).await {
        Err(other) if other.is_unsupported() => Err(fault.map_or_else(unknowable, Stop::Fault)),
        Err(FtpFault::Denied(_)) => Ok(true),
        other => Ok(other?),
    }
}

/// Ends what replacing a target in two steps began: the old one goes where nothing took its place, else away.
async fn put_back(session: &mut Session, part: &Part) -> Result<(), Stop> {
    let aside = part.aside();
    match session.size(&aside).await {
        Ok(Some(_)) => {}
        // Also servers without SIZE: what may be left there is litter, not a danger.
        Ok(None) | Err(FtpFault::Missing(_) | FtpFault::Denied(_) | FtpFault::Refused(_)) => return Ok(()),
        Err(fault) => return Err(fault.into()),
    }
    if exists(session, &part.path).await? {
        Ok(session.remove(&aside).await?)
    } else {
        Ok(session.rename(&aside, &part.path).await?)
    }
}

fn unknowable() -> Stop {
    let message = "the FTP server cannot say whether a file is there (it has neither SIZE nor MLST)";
    Stop::Failed(Failure::new(Code::DestinationForbidden, message))
}

async fn make_parents(session: &mut Session, path: &str) -> Result<(), Stop> {
    let cuts = path.char_indices().filter(|&(at, c)| c == '/' && at > 0).map(|(at, _)| at);
    for at in cuts {
        match session.make_folder(&path[..at]).await {
            // It is there already, or may not be made: sending the file tells.
            Ok(()) | Err(FtpFault::Missing(_) | FtpFault::Denied(_) | FtpFault::Refused(_)) => {}
            Err(fault) => return Err(fault.into()),
        }
    }
    Ok(())
}
