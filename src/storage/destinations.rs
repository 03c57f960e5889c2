//! Publishing: a file becomes visible at its destination whole, once, and only with a permit (PROTOCOL F3).
//!
//! 1. [`Destinations::stage`] makes a handle, gives it to the caller's journal *before* any byte is sent, then sends the
//!    file to where nobody sees it. Whatever the journal holds after a crash is destroyed at the next start.
//! 2. The sent handle is recorded with the permit (the control does that).
//! 3. [`Destinations::commit`] makes it visible, or [`Destinations::destroy`] makes that impossible for ever.
//!
//! Every verb may be repeated. Dropping a future is safe: what it leaves behind is what `destroy` removes.

mod looking;
mod places;
mod senders;
mod set;
#[cfg(test)]
pub(in crate::storage) mod testing;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(super) use self::places::Located;
use self::places::{Resolved, check_metadata};
use self::senders::Senders;
use super::buckets::Buckets;
use super::ftp;
use super::handle::{Handle, Place, Staged};
use super::http::{HttpClients, SystemLookup};
use super::local::{self, LocalError, Missing, Root};
use super::object::{self, Bucket, Opening, Patience, Who};
use super::policy::{AddressPolicy, AllowRule};
use super::{Error, StorageSettings};
use crate::domain::{
    Access, BucketAccess, Code, Destination, Failure, ObjectOptions, ObjectPath, OutputSecrets, PublicationId,
};

/// How long a connection to a bucket of a request may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A verified file on this machine, ready to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedFile {
    /// Where it is. It must not be written any more: on one file system it is linked, not copied.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// MIME type, kept by object stores.
    pub content_type: String,
}

/// Files that are published together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetFiles {
    /// The file that clients open.
    pub entry: StagedFile,
    /// The other files with names of the client's, by their paths from the entry's folder.
    pub lists: Vec<(String, StagedFile)>,
    /// Those in the publication's own folder, likewise.
    pub members: Vec<(String, StagedFile)>,
}

/// A publication that is visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Where, for people and tools: `file:///…`, `s3://…`, `ftp://…`; without login and query.
    pub url: String,
}

/// What a destroyed handle had come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandleFate {
    /// It can never become visible.
    Dead,
    /// It had been committed: adopt it.
    Committed(Committed),
}

/// What is at a destination now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// Which publication it is; `None` = not one of flux's, or a file system without extended attributes.
    pub publication: Option<PublicationId>,
    /// Bytes.
    pub size: u64,
    /// SHA-256 as it was published, where the destination remembers it.
    pub sha256: Option<String>,
    /// The destination's own validator.
    pub etag: Option<String>,
}

/// Whether a destination refuses to commit what was destroyed; for `doctor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fencing {
    /// It does, as everything here relies on.
    Works,
    /// It committed a destroyed upload: exactly-once publishing is not guaranteed there.
    Broken,
}

/// The configured storage as the source side reads it (`storage` sources).
#[derive(Debug, Clone)]
pub enum Reading {
    /// Files below a folder.
    Folder(PathBuf),
    /// Objects of a bucket.
    Objects {
        /// The bucket, with its clients shared.
        store: Arc<dyn object_store::ObjectStore>,
        /// Put before every key.
        prefix: Option<ObjectPath>,
    },
}

/// All configured destinations. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Destinations {
    pub(super) inner: Arc<Inner>,
    /// What every verb here may use besides the server's own: see [`Destinations::with`].
    secrets: Arc<OutputSecrets>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) storage: Configured,
    roots: Vec<Root>,
    /// Servers that requests name by a URL.
    senders: Senders,
    /// Buckets that requests name.
    buckets: Buckets,
}

/// What `storage` means.
#[derive(Debug)]
pub(super) enum Configured {
    Folder(Root),
    Bucket(Arc<Bucket>),
}

impl Destinations {
    /// Opens the configured places; no network. `allow` is what requests may name besides the public internet.
    pub(super) fn open(
        storage: &StorageSettings,
        roots: &[PathBuf],
        allow: &[AllowRule],
        buckets: &BucketAccess,
    ) -> Result<Self, Error> {
        Self::build(storage, roots, Patience::default(), (allow, buckets))
    }

    #[cfg(test)]
    fn open_with(storage: &StorageSettings, roots: &[PathBuf], patience: Patience) -> Result<Self, Error> {
        Self::build(storage, roots, patience, (&[], &BucketAccess::default()))
    }

    fn build(
        storage: &StorageSettings,
        roots: &[PathBuf],
        patience: Patience,
        (allow, buckets): (&[AllowRule], &BucketAccess),
    ) -> Result<Self, Error> {
        let clients = |policy| Arc::new(HttpClients::new(policy, Arc::new(SystemLookup), CONNECT_TIMEOUT));
        let (guarded, trusted) = (clients(AddressPolicy::new(allow.to_vec())), clients(AddressPolicy::any()));
        let storage = match storage {
            StorageSettings::Local { root } => Configured::Folder(Root::open(root, Missing::Make)?),
            StorageSettings::Bucket { bucket, prefix, credentials } => {
                // reqwest panics without one.
                if rustls::crypto::CryptoProvider::get_default().is_none() {
                    return Err(Error::NoTlsProvider);
                }
                let who = credentials.clone().map_or(Who::Machine, Who::As);
                let prefix = prefix.clone();
                let opening = Opening { bucket, prefix, who, acl: None, patience, clients: &trusted };
                let opened = Bucket::open_at(opening).map_err(|failure| Error::ObjectStore {
                    bucket: bucket.name().to_owned(),
                    source: failure.message.into(),
                })?;
                Configured::Bucket(Arc::new(opened))
            }
        };
        let roots = roots.iter().map(|root| Root::open(root, Missing::Refuse)).collect::<Result<_, _>>()?;
        let buckets = Buckets::new(buckets.clone(), guarded, trusted, patience);
        let senders = Senders::new(allow, Arc::new(SystemLookup));
        let inner = Inner { storage, roots, senders, buckets };
        Ok(Self { inner: Arc::new(inner), secrets: Arc::default() })
    }

    /// The same destinations, used with the secrets of one output: its credentials, headers and whole URL. Handles hold
    /// none of them, so whoever commits or destroys brings them again.
    #[must_use]
    pub fn with(&self, secrets: &OutputSecrets) -> Self {
        Self { inner: Arc::clone(&self.inner), secrets: Arc::new(secrets.clone()) }
    }

    /// Whether a job may name this destination: roots, names and metadata; asks no disk and no network.
    pub fn check(&self, destination: &Destination) -> Result<(), Failure> {
        let senders = &self.inner.senders;
        match destination {
            Destination::Http { url, .. } => return senders.check_http(url, &self.secrets),
            Destination::Ftp { url, .. } => return senders.check_ftp(url, &self.secrets),
            Destination::Storage { .. } | Destination::File { .. } | Destination::Bucket { .. } => {}
        }
        let located = self.locate(destination)?;
        match destination {
            Destination::File { .. } | Destination::Http { .. } | Destination::Ftp { .. } => Ok(()),
            Destination::Storage { metadata, .. } => check_metadata(metadata),
            Destination::Bucket { object, .. } => {
                check_metadata(&object.metadata)?;
                match located {
                    Located::Object { bucket, .. } => bucket.check(object),
                    Located::File { .. } => Ok(()),
                }
            }
        }
    }

    /// Makes a handle, hands it to `journal`, then sends the file; returns the handle that is whole and can be
    /// committed. `journal` must have the handle on disk before it answers. On failure the handle is destroyed here, as
    /// far as the destination can be reached; the journal's entry is the caller's to resolve.
    pub async fn stage<J, F>(
        &self,
        destination: &Destination,
        publication: PublicationId,
        file: &StagedFile,
        journal: J,
    ) -> Result<Handle, Failure>
    where
        J: FnOnce(Handle) -> F + Send,
        F: Future<Output = Result<(), Failure>> + Send,
    {
        let begun = self.begin(destination, publication, file).await?;
        let handle = Handle::V1(begun.clone());
        let sending = async {
            journal(handle.clone()).await?;
            self.send(begun, file).await.map(Handle::V1)
        };
        self.or_destroyed(handle.clone(), sending).await
    }

    /// What comes of a begun handle; one that is not whole in the end is destroyed.
    async fn or_destroyed(
        &self,
        begun: Handle,
        whole: impl Future<Output = Result<Handle, Failure>> + Send,
    ) -> Result<Handle, Failure> {
        let done = whole.await;
        if done.is_err() {
            // The failure that is reported is the first one.
            let _ = self.destroy(&begun).await;
        }
        done
    }

    /// Makes a handle. For files nothing is touched yet; in a bucket an upload without parts exists afterwards.
    async fn begin(
        &self,
        destination: &Destination,
        publication: PublicationId,
        file: &StagedFile,
    ) -> Result<Staged, Failure> {
        let place = match self.inner.senders.place(destination, &self.secrets, file)? {
            Some(place) => place,
            None => self.begin_at(destination, publication, file).await?,
        };
        Ok(Staged {
            publication,
            overwrite: destination.overwrite(),
            size: file.size,
            sha256: file.sha256.clone(),
            place,
        })
    }

    async fn begin_at(
        &self,
        destination: &Destination,
        publication: PublicationId,
        file: &StagedFile,
    ) -> Result<Place, Failure> {
        Ok(match self.locate(destination)? {
            Located::File { root, path } => {
                let (looked, target) = (root.clone(), path.clone());
                let new_folders = blocking(move || looked.missing_folders(&target)).await?;
                Place::Local { root: root.path().to_owned(), path, new_folders }
            }
            Located::Object { bucket, key } => {
                let object = match destination {
                    Destination::Storage { metadata, .. } => {
                        ObjectOptions { metadata: metadata.clone(), ..ObjectOptions::default() }
                    }
                    Destination::Bucket { object, .. } => object.clone(),
                    Destination::File { .. } | Destination::Http { .. } | Destination::Ftp { .. } => {
                        ObjectOptions::default()
                    }
                };
                check_metadata(&object.metadata)?;
                let upload = bucket.create(&key, publication, file, &object).await?;
                let (bucket, access) = match destination {
                    Destination::Bucket { bucket, access, .. } => (bucket.clone(), access.clone()),
                    _ => (bucket.identity().clone(), Access::Unsaid),
                };
                Place::Bucket { bucket, access, key, object, upload, parts: Vec::new() }
            }
        })
    }

    /// Sends the bytes of a begun handle and returns it whole.
    async fn send(&self, mut staged: Staged, file: &StagedFile) -> Result<Staged, Failure> {
        if staged.size != file.size || staged.sha256 != file.sha256 {
            return Err(LocalError::Changed.into());
        }
        match self.resolve(&staged)? {
            Resolved::File(target) => {
                let source = file.path.clone();
                let waiting = Waiting::default();
                let abandoned = Arc::clone(&waiting.abandoned);
                blocking(move || local::send(&target, &source, &abandoned)).await?;
            }
            Resolved::Object { bucket, upload, object, .. } => {
                let sent = bucket.send(upload, file, &object).await?;
                if let Place::S3 { parts, .. } | Place::Bucket { parts, .. } = &mut staged.place {
                    *parts = sent;
                }
            }
            Resolved::Ftp { uploads, part } => {
                let sent = uploads.send(&part, &file.path).await?;
                if let Place::Ftp { modified, .. } = &mut staged.place {
                    *modified = sent;
                }
            }
            // Sending is the commit.
            Resolved::Http(_) => {}
        }
        Ok(staged)
    }

    /// Makes a staged file visible. Only under a permit, and after the lower handles were destroyed. The answer is on
    /// disk (or with the store) when this returns; repeating it says the same. A destroyed handle is refused by the
    /// destination itself.
    pub async fn commit(&self, handle: &Handle) -> Result<Committed, Failure> {
        match handle {
            Handle::V1(staged) => self.commit_file(staged).await,
            Handle::V2(set) => self.commit_set(set).await,
        }
    }

    async fn commit_file(&self, staged: &Staged) -> Result<Committed, Failure> {
        let committed = Self::committed(staged);
        match self.resolve(staged)? {
            Resolved::File(target) => blocking(move || local::commit(&target)).await?,
            Resolved::Object { bucket, upload, parts, .. } => {
                bucket.commit(upload, parts, staged.overwrite).await?;
            }
            Resolved::Ftp { uploads, part } => uploads.commit(&part).await?,
            Resolved::Http(sending) => self.inner.senders.put(&sending, staged, &self.secrets).await?,
        }
        Ok(committed)
    }

    /// Makes it impossible for ever to commit a handle, and says whether that had happened already.
    pub async fn destroy(&self, handle: &Handle) -> Result<HandleFate, Failure> {
        match handle {
            Handle::V1(staged) => self.destroy_file(staged).await,
            Handle::V2(set) => self.destroy_set(set).await,
        }
    }

    async fn destroy_file(&self, staged: &Staged) -> Result<HandleFate, Failure> {
        let was_committed = match self.resolve(staged)? {
            Resolved::File(target) => {
                blocking(move || local::destroy(&target)).await? == local::Fate::Committed
            }
            Resolved::Object { bucket, upload, .. } => {
                bucket.destroy(upload).await? == object::Destroyed::WasCommitted
            }
            Resolved::Ftp { uploads, part } => uploads.destroy(&part).await? == ftp::Fate::Committed,
            Resolved::Http(_) => return Ok(senders::forgotten(staged)),
        };
        Ok(if was_committed { HandleFate::Committed(Self::committed(staged)) } else { HandleFate::Dead })
    }
}

/// Tells the blocking pool that nobody waits any more, so that it leaves no part behind.
#[derive(Debug, Default)]
struct Waiting {
    abandoned: Arc<AtomicBool>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::SeqCst);
    }
}

/// Runs file work on the blocking pool.
pub(super) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, Failure>
where
    T: Send + 'static,
    E: Into<Failure> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(error) => {
            Err(Failure::new(Code::Internal, "a file operation did not finish")
                .with_detail(error.to_string()))
        }
    }
}
