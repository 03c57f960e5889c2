//! Sources of every kind behind one handle: a local file by itself, anything remote through the gateway.
//!
//! Local kinds (`file`, `inline`, `upload`, local `storage`) are opened below their root and given to ffmpeg as a
//! file; remote kinds (`http`, object storage) get a spool. To add a kind: a local one is a root, a remote one is an
//! [`Origin`]; add it to [`Sources::open`] and [`Sources::check`].

mod local;
mod opened;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;

use self::local::Local;
use self::opened::Kind;
pub use self::opened::{OpenSource, SourceInput};
use super::beneath::{BeneathError, Root, stays_below};
use super::buckets::{Buckets, Purpose, Wanted};
use super::ftp::{FtpClients, FtpLimits, FtpLogin, FtpTarget};
use super::gateway::{Disk, Place, Remote};
pub use super::gateway::{FetchLimits, Traffic};
use super::http::{HttpClients, Lookup, SystemLookup};
use super::object::Patience;
use super::origin::{FtpOrigin, HttpOrigin, HttpRequest, ObjectOrigin, Origin, empty};
use super::policy::{AddressPolicy, AllowRule, blocked};
use crate::domain::limits::SourceLimits;
use crate::domain::{self, Access, BucketAccess, Code, Credentials, Failure, IdSource, JobSecrets, Source};

/// Where keys of the configured storage are.
#[derive(Debug, Clone)]
pub enum SourceStorage {
    /// Below a folder.
    Local {
        /// The folder.
        root: PathBuf,
    },
    /// In an object store.
    Objects {
        /// The store.
        store: Arc<dyn ObjectStore>,
        /// Put before every key with a `/`; may be empty.
        prefix: String,
    },
}

/// What the operator decides about sources.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// Folders that `file` sources may be below; none = no `file` sources.
    pub file_roots: Vec<PathBuf>,
    /// What may be fetched besides the public internet (`sources.allow`).
    pub allow: Vec<AllowRule>,
    /// What a source may be at most.
    pub limits: SourceLimits,
    /// How origins are talked to.
    pub fetch: FetchLimits,
    /// Where inline sources were put at submission.
    pub inline_dir: PathBuf,
    /// Where uploads are: one file each, named by the upload's id.
    pub upload_dir: PathBuf,
    /// The configured storage.
    pub storage: SourceStorage,
    /// Who may read which buckets.
    pub buckets: BucketAccess,
}

/// Why sources cannot be opened at all.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// A configured folder is missing or unreadable.
    #[error("opening the folder {path}")]
    OpenRoot {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
}

/// Opens sources. Cheap to clone.
#[derive(Clone)]
pub struct Sources {
    inner: Arc<Inner>,
}

struct Inner {
    file_roots: Vec<Root>,
    inline: Root,
    uploads: Root,
    storage: Stored,
    clients: Arc<HttpClients>,
    ftp: FtpClients,
    buckets: Buckets,
    limits: SourceLimits,
    fetch: FetchLimits,
    disk: Arc<Disk>,
}

enum Stored {
    Local(Root),
    Objects(Arc<dyn ObjectStore>, String),
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("clients", &self.inner.clients).finish_non_exhaustive()
    }
}

impl Sources {
    /// Opens every configured folder, creating those of this server itself.
    pub fn open_with(settings: SourceSettings) -> Result<Self, SourcesError> {
        Self::with_lookup(settings, Arc::new(SystemLookup))
    }

    /// The same with another way to resolve names.
    pub fn with_lookup(settings: SourceSettings, lookup: Arc<dyn Lookup>) -> Result<Self, SourcesError> {
        let storage = match settings.storage {
            SourceStorage::Local { root } => Stored::Local(own_root(&root)?),
            SourceStorage::Objects { store, prefix } => Stored::Objects(store, prefix),
        };
        let timeout = settings.fetch.connect_timeout;
        let policy = AddressPolicy::new(settings.allow);
        let ftp_limits = FtpLimits {
            connect: timeout,
            reply: settings.fetch.header_timeout,
            confirm: settings.fetch.header_timeout,
            stall: settings.fetch.stall_timeout,
        };
        let ftp = FtpClients::new(policy.clone(), Arc::clone(&lookup), ftp_limits);
        let guarded = Arc::new(HttpClients::new(policy, Arc::clone(&lookup), timeout));
        let trusted = Arc::new(HttpClients::new(AddressPolicy::any(), lookup, timeout));
        // The gateway tries again by itself; a store that does so too would only hide how long it takes.
        let patience = Patience { retries: 2, ..Patience::default() };
        let buckets = Buckets::new(settings.buckets, Arc::clone(&guarded), trusted, patience);
        let inner = Inner {
            ftp,
            file_roots: settings.file_roots.iter().map(|path| root(path)).collect::<Result<_, _>>()?,
            inline: own_root(&settings.inline_dir)?,
            uploads: own_root(&settings.upload_dir)?,
            storage,
            clients: guarded,
            buckets,
            limits: settings.limits,
            disk: Disk::new(settings.fetch.disk_margin),
            fetch: settings.fetch,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What can be refused at submission, without touching the network or the source.
    ///
    /// # Errors
    /// `source_blocked` or `source_too_large`.
    pub fn check(&self, source: &Source, secrets: &JobSecrets) -> Result<(), Failure> {
        match source {
            Source::Http { url } => {
                // The query was cut from the spec; what is fetched is what must be judged.
                let url = secrets.source_url.as_deref().unwrap_or(url);
                let url = url::Url::parse(url)
                    .map_err(|_| Failure::new(Code::SourceBlocked, "The source's URL cannot be read."))?;
                self.inner.clients.policy().check_url(&url)
            }
            Source::File { path } => self.below_a_root(Path::new(path)).map(drop),
            Source::Inline { size, .. } => self.fits(*size),
            Source::Upload { .. } => Ok(()),
            Source::Storage { path } => refuse_own_names(path),
            Source::Ftp { url } => {
                let server = ftp_target(url)?.server;
                self.inner.ftp.check(&server).map_err(|_| blocked(&server.host, server.port))
            }
            Source::Bucket { bucket, path, access } => {
                refuse_own_names(path)?;
                self.bucket(bucket, access, secrets).map(drop)
            }
        }
    }

    /// Opens a source for one task. What it needs on disk goes into `work`, the task's own folder.
    pub async fn open(
        &self,
        source: &Source,
        secrets: &JobSecrets,
        work: &Path,
        ids: &dyn IdSource,
    ) -> Result<OpenSource, Failure> {
        let inner = &self.inner;
        match source {
            Source::Http { url } => {
                let whole = secrets.source_url.as_deref().unwrap_or(url);
                let request = HttpRequest::parse(whole, &secrets.source_headers)
                    .map_err(|error| Failure::new(Code::SourceBlocked, format!("The source's {error}.")))?;
                inner.clients.policy().check_url(request.url())?;
                let origin = HttpOrigin::new(Arc::clone(&inner.clients), request, inner.fetch.header_timeout);
                self.remote(Arc::new(origin), work, ids).await
            }
            Source::Ftp { url } => {
                let target = ftp_target(url)?;
                let login = ftp_login(secrets.source_credentials.as_ref(), target.login)?;
                let origin = FtpOrigin::new(inner.ftp.clone(), target.server, login, target.path);
                self.remote(Arc::new(origin), work, ids).await
            }
            Source::Bucket { bucket, path, access } => {
                let store = self.bucket(bucket, access, secrets)?.reader();
                let key = object_key(path.as_str())?;
                let origin = ObjectOrigin::new(store, key, inner.fetch.header_timeout);
                self.remote(Arc::new(origin), work, ids).await
            }
            Source::File { path } => {
                let (root, path) = self.below_a_root(Path::new(path))?;
                self.local(root, path, work, ids).await
            }
            Source::Inline { key, .. } => {
                self.local(inner.inline.clone(), PathBuf::from(key.as_str()), work, ids).await
            }
            Source::Upload { id } => {
                let name = id.to_string();
                if let Stored::Objects(store, prefix) = &inner.storage {
                    let path = format!("{}/{name}", super::object::UPLOADS);
                    match self.object(store, prefix, &path, (work, ids)).await {
                        // It may have come to this server before there was a bucket.
                        Err(failure) if failure.code == Code::SourceNotFound => {}
                        opened => return opened,
                    }
                }
                self.local(inner.uploads.clone(), PathBuf::from(name), work, ids).await
            }
            Source::Storage { path } => match &inner.storage {
                Stored::Local(root) => {
                    self.local(root.clone(), PathBuf::from(path.as_str()), work, ids).await
                }
                Stored::Objects(store, prefix) => {
                    self.object(store, prefix, path.as_str(), (work, ids)).await
                }
            },
        }
    }

    /// Opens a file that was put into a task's own folder as its source.
    pub async fn open_given(
        &self,
        work: &Path,
        name: &str,
        ids: &dyn IdSource,
    ) -> Result<OpenSource, Failure> {
        let folder = root(work).map_err(|error| {
            Failure::new(Code::Internal, "The task's folder is not there.").with_detail(error.to_string())
        })?;
        self.local(folder, PathBuf::from(name), work, ids).await
    }

    /// A bucket of a request, for reading.
    fn bucket(
        &self,
        bucket: &domain::Bucket,
        access: &Access,
        secrets: &JobSecrets,
    ) -> Result<super::object::Bucket, Failure> {
        self.inner.buckets.open(Wanted {
            bucket,
            access,
            given: secrets.source_credentials.as_ref(),
            purpose: Purpose::Reading,
            acl: None,
        })
    }

    /// The root a path is below and the path relative to it.
    fn below_a_root(&self, path: &Path) -> Result<(Root, PathBuf), Failure> {
        let refuse =
            || Failure::new(Code::SourceBlocked, "This server reads no files there ('sources.file_roots').");
        let roots = &self.inner.file_roots;
        let found = if path.is_relative() {
            // Relative paths mean the first root, as destinations do.
            roots.first().map(|root| (root, path))
        } else {
            roots.iter().find_map(|root| root.relative(path).map(|below| (root, below)))
        };
        let (root, below) = found.ok_or_else(refuse)?;
        if stays_below(below) { Ok((root.clone(), below.to_owned())) } else { Err(refuse()) }
    }

    fn fits(&self, size: u64) -> Result<(), Failure> {
        if size == 0 {
            return Err(empty());
        }
        if size <= self.inner.limits.max_bytes {
            return Ok(());
        }
        Err(super::gateway::too_large(self.inner.limits.max_bytes))
    }

    async fn object(
        &self,
        store: &Arc<dyn ObjectStore>,
        prefix: &str,
        path: &str,
        (work, ids): (&Path, &dyn IdSource),
    ) -> Result<OpenSource, Failure> {
        let key = if prefix.is_empty() { path.to_owned() } else { format!("{prefix}/{path}") };
        let key = object_key(&key)?;
        let origin = ObjectOrigin::new(Arc::clone(store), key, self.inner.fetch.header_timeout);
        self.remote(Arc::new(origin), work, ids).await
    }

    async fn local(
        &self,
        root: Root,
        path: PathBuf,
        work: &Path,
        ids: &dyn IdSource,
    ) -> Result<OpenSource, Failure> {
        let name = format!("source-{}", ids.random().simple());
        let work = work.to_owned();
        let opening = tokio::task::spawn_blocking(move || {
            let opened = root.file(&path)?;
            Local::new(opened, &work, &name).map_err(BeneathError::Open)
        });
        let local = match opening.await {
            Ok(opened) => opened.map_err(|error| not_opened(&error))?,
            Err(error) => {
                let failure = Failure::new(Code::Internal, "Opening the source failed inside the server.");
                return Err(failure.with_detail(error.to_string()));
            }
        };
        self.fits(local.size())?;
        Ok(Kind::Local(local).into())
    }

    async fn remote(
        &self,
        origin: Arc<dyn Origin>,
        work: &Path,
        ids: &dyn IdSource,
    ) -> Result<OpenSource, Failure> {
        let place = Place { work, disk: &self.inner.disk, max_bytes: self.inner.limits.max_bytes, ids };
        let remote = Remote::open(origin, self.inner.fetch.clone(), place).await?;
        Ok(Kind::Remote(remote).into())
    }
}

fn root(path: &Path) -> Result<Root, SourcesError> {
    Root::open(path).map_err(|error| SourcesError::OpenRoot { path: path.to_owned(), error })
}

/// A folder of this server itself, which may not exist yet.
fn own_root(path: &Path) -> Result<Root, SourcesError> {
    std::fs::create_dir_all(path).map_err(|error| SourcesError::OpenRoot { path: path.to_owned(), error })?;
    root(path)
}

fn ftp_target(url: &str) -> Result<FtpTarget, Failure> {
    FtpTarget::parse(url).map_err(|error| {
        let sentence = "The source's URL names no file on an FTP server.";
        Failure::new(Code::SourceBlocked, sentence).with_detail(error.to_string())
    })
}

/// Who logs in: whom the request names, else whom the URL names, else nobody in particular.
fn ftp_login(given: Option<&Credentials>, in_url: Option<FtpLogin>) -> Result<FtpLogin, Failure> {
    match given {
        Some(Credentials::Login { username, password }) => FtpLogin::new(username.clone(), password.clone())
            .map_err(|error| {
                let sentence = "The source's user or password holds characters that FTP cannot send.";
                Failure::new(Code::SourceForbidden, sentence).with_detail(error.to_string())
            }),
        Some(_) => Err(Failure::new(Code::SourceForbidden, "An FTP server takes a user and a password.")),
        None => Ok(in_url.unwrap_or_default()),
    }
}

/// Names that flux itself uses: other clients' uploads, and what is not published yet.
fn refuse_own_names(path: &domain::ObjectPath) -> Result<(), Failure> {
    if super::is_reserved(path.as_str()) {
        return Err(Failure::new(Code::SourceBlocked, "Names that start with '.flux-' are reserved."));
    }
    Ok(())
}

fn object_key(key: &str) -> Result<object_store::path::Path, Failure> {
    object_store::path::Path::parse(key).map_err(|error| {
        Failure::new(Code::SourceNotFound, "No object of a storage can have that key.")
            .with_detail(error.to_string())
    })
}

fn not_opened(error: &BeneathError) -> Failure {
    let (code, sentence) = match error {
        BeneathError::Missing => (Code::SourceNotFound, "The source does not exist."),
        BeneathError::Escapes => {
            (Code::SourceBlocked, "The source's path leads out of the folder it must be in.")
        }
        BeneathError::NotAFile => (Code::SourceBlocked, "The source is not a regular file."),
        BeneathError::Denied => (Code::SourceForbidden, "This server may not read the source."),
        BeneathError::Open(_) => (Code::SourceUnreachable, "The source could not be opened."),
    };
    let detail = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    Failure::new(code, sentence).with_detail(detail)
}

#[cfg(test)]
mod tests;
