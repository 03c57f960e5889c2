//! Publishing: a file becomes visible at its destination whole, once, and only with a permit (PROTOCOL F3).
//!
//! 1. [`Destinations::stage`] makes a handle, gives it to the caller's journal *before* any byte is sent, then sends the
//!    file to where nobody sees it. Whatever the journal holds after a crash is destroyed at the next start.
//! 2. The sent handle is recorded with the permit (the control does that).
//! 3. [`Destinations::commit`] makes it visible, or [`Destinations::destroy`] makes that impossible for ever.
//!
//! Every verb may be repeated. Dropping a future is safe: what it leaves behind is what `destroy` removes.

mod places;
mod senders;
#[cfg(test)]
pub(in crate::storage) mod testing;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use url::Url;

use self::places::{check_metadata, refuse_own_names};
use self::senders::{Senders, Sending};
use super::buckets::Buckets;
use super::ftp;
use super::handle::{Handle, Place, Staged};
use super::http::{HttpClients, SystemLookup};
use super::local::{self, LocalError, Missing, Root, Target};
use super::object::{self, Bucket, Opening, Patience, Upload, Who};
use super::policy::{AddressPolicy, AllowRule};
use super::{Error, StorageSettings};
use crate::domain::{
    self, Access, BucketAccess, Code, Destination, Failure, ObjectOptions, ObjectPath, OutputSecrets,
    Overwrite, PublicationId,
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

/// A destination, found.
#[derive(Debug)]
pub(super) enum Located<'a> {
    File { root: &'a Root, path: ObjectPath },
    Object { bucket: Arc<Bucket>, key: String },
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
            StorageSettings::S3(settings) => {
                Configured::Bucket(Arc::new(Bucket::open(settings, patience, &trusted)?))
            }
            StorageSettings::Bucket { bucket, prefix, credentials } => {
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
        let handle = self.begin(destination, publication, file).await?;
        let sent = match journal(handle.clone()).await {
            Ok(()) => self.send(handle.clone(), file).await,
            Err(failure) => Err(failure),
        };
        if sent.is_err() {
            // The failure that is reported is the first one.
            let _ = self.destroy(&handle).await;
        }
        sent
    }

    /// Makes a handle. For files nothing is touched yet; in a bucket an upload without parts exists afterwards.
    async fn begin(
        &self,
        destination: &Destination,
        publication: PublicationId,
        file: &StagedFile,
    ) -> Result<Handle, Failure> {
        let place = match self.inner.senders.place(destination, &self.secrets, file)? {
            Some(place) => place,
            None => self.begin_at(destination, publication, file).await?,
        };
        Ok(Handle::V1(Staged {
            publication,
            overwrite: destination.overwrite(),
            size: file.size,
            sha256: file.sha256.clone(),
            place,
        }))
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
                let (parts, access) = match destination {
                    Destination::Bucket { access, .. } => (Vec::new(), Some(access.clone())),
                    _ => (Vec::new(), None),
                };
                match (access, bucket.identity()) {
                    (None, domain::Bucket::S3 { .. }) => {
                        let endpoint = bucket.endpoint().map(str::to_owned);
                        Place::S3 { endpoint, bucket: bucket.name().to_owned(), key, upload, parts }
                    }
                    (access, identity) => {
                        let bucket = match destination {
                            Destination::Bucket { bucket, .. } => bucket.clone(),
                            _ => identity.clone(),
                        };
                        let access = access.unwrap_or_default();
                        Place::Bucket { bucket, access, key, object, upload, parts }
                    }
                }
            }
        })
    }

    /// Sends the bytes of a begun handle and returns it whole.
    async fn send(&self, handle: Handle, file: &StagedFile) -> Result<Handle, Failure> {
        let Handle::V1(mut staged) = handle;
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
        Ok(Handle::V1(staged))
    }

    /// Makes a staged file visible. Only under a permit, and after the lower handles were destroyed. The answer is on
    /// disk (or with the store) when this returns; repeating it says the same. A destroyed handle is refused by the
    /// destination itself.
    pub async fn commit(&self, handle: &Handle) -> Result<Committed, Failure> {
        let Handle::V1(staged) = handle;
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
        let Handle::V1(staged) = handle;
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

    /// What is at a destination now, so that a job recognises its own publications before it encodes or refuses.
    pub async fn existing(&self, destination: &Destination) -> Result<Option<Existing>, Failure> {
        match destination {
            // What is there already does not matter to a receiver.
            Destination::Http { .. } => return Ok(None),
            Destination::Ftp { url, .. } => return self.inner.senders.existing(url, &self.secrets).await,
            Destination::Storage { .. } | Destination::File { .. } | Destination::Bucket { .. } => {}
        }
        match self.locate(destination)? {
            Located::File { root, path } => {
                let root = root.clone();
                let found = blocking(move || local::existing(&root, &path)).await?;
                Ok(found.map(|found| Existing {
                    publication: found.mark.publication,
                    size: found.size,
                    sha256: found.mark.sha256,
                    etag: Some(found.etag),
                }))
            }
            Located::Object { bucket, key } => Ok(bucket.find(&key).await?.map(|found| Existing {
                publication: found.publication,
                size: found.size,
                sha256: found.sha256,
                etag: found.etag,
            })),
        }
    }

    /// Removes what a publication put at a destination, if it is still there; whether it was. Whatever else is there by
    /// now stays, and so does everything where the destination cannot tell (a file system without attributes).
    pub async fn remove(
        &self,
        destination: &Destination,
        publication: PublicationId,
    ) -> Result<bool, Failure> {
        match self.locate(destination)? {
            Located::File { root, path } => {
                let root = root.clone();
                Ok(blocking(move || local::remove_result(&root, &path, publication)).await?)
            }
            Located::Object { bucket, key } => {
                let found = bucket.find(&key).await?;
                let ours = found.is_some_and(|found| found.publication == Some(publication));
                if ours {
                    bucket.delete(&key).await?;
                }
                Ok(ours)
            }
        }
    }

    /// Refuses a place that must not be overwritten and is taken. A look ahead that spares an encode: who is in time is
    /// decided by the commit.
    pub async fn refuse_taken(&self, destination: &Destination) -> Result<(), Failure> {
        match destination.overwrite() {
            Overwrite::Replace => Ok(()),
            Overwrite::Fail => match self.existing(destination).await? {
                Some(_) => Err(local::already_there()),
                None => Ok(()),
            },
        }
    }

    /// Whether what is published there is a file of this machine, which is on disk before it is visible.
    #[must_use]
    pub fn keeps_files(&self, destination: &Destination) -> bool {
        matches!(self.locate(destination), Ok(Located::File { .. }))
    }

    /// Whether the configured storage can be written and fences: writes, destroys, and tries to commit. Leaves nothing
    /// behind. `probe` is a fresh random id.
    pub async fn reachable(&self, probe: PublicationId) -> Result<Fencing, Failure> {
        let works = match &self.inner.storage {
            Configured::Folder(root) => {
                let root = root.clone();
                blocking(move || local::check_fence(&root, probe)).await?
            }
            Configured::Bucket(bucket) => {
                let name = ObjectPath::parse(format!(".flux-{probe}.check"))
                    .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
                bucket.check_fence(&bucket.key(&name), probe).await?
            }
        };
        Ok(if works { Fencing::Works } else { Fencing::Broken })
    }

    /// The storage for reading sources from.
    #[must_use]
    pub fn reading(&self) -> Reading {
        match &self.inner.storage {
            Configured::Folder(root) => Reading::Folder(root.path().to_owned()),
            Configured::Bucket(bucket) => {
                Reading::Objects { store: bucket.reader(), prefix: bucket.prefix().cloned() }
            }
        }
    }

    /// Finds the place a destination names.
    pub(super) fn locate(&self, destination: &Destination) -> Result<Located<'_>, Failure> {
        match destination {
            Destination::Storage { path, .. } => self.locate_storage(path.clone()),
            Destination::File { path, .. } => self.locate_file(path),
            Destination::Bucket { bucket, path, access, object, .. } => {
                refuse_own_names(path)?;
                let bucket = self.bucket(bucket, access, object)?;
                Ok(Located::Object { bucket: Arc::new(bucket), key: path.as_str().to_owned() })
            }
            Destination::Http { .. } | Destination::Ftp { .. } => Err(senders::not_read_back(destination)),
        }
    }

    /// Finds the place a handle names, which must still be configured: a handle is not a right to write anywhere.
    fn resolve<'a>(&'a self, staged: &'a Staged) -> Result<Resolved<'a>, Failure> {
        let elsewhere = || {
            Failure::new(
                Code::DestinationForbidden,
                "the publication belongs to a storage that is not configured now",
            )
        };
        match &staged.place {
            Place::Local { root, path, new_folders } => {
                let storage = match &self.inner.storage {
                    Configured::Folder(root) => Some(root),
                    Configured::Bucket(_) => None,
                };
                let known = storage.into_iter().chain(&self.inner.roots).find(|known| known.path() == root);
                Ok(Resolved::File(Target {
                    root: known.ok_or_else(elsewhere)?.clone(),
                    path: path.clone(),
                    publication: staged.publication,
                    overwrite: staged.overwrite,
                    size: staged.size,
                    sha256: staged.sha256.clone(),
                    new_folders: *new_folders,
                }))
            }
            Place::S3 { endpoint, bucket, key, upload, parts } => match &self.inner.storage {
                Configured::Bucket(known)
                    if known.name() == bucket && known.endpoint() == endpoint.as_deref() =>
                {
                    let upload =
                        Upload { key, id: upload, publication: staged.publication, size: staged.size };
                    let object = ObjectOptions::default();
                    Ok(Resolved::Object { bucket: Arc::clone(known), upload, parts, object })
                }
                Configured::Bucket(_) | Configured::Folder(_) => Err(elsewhere()),
            },
            Place::Ftp { url, modified, .. } => {
                let (uploads, path) = self.inner.senders.ftp(url, &self.secrets)?;
                Ok(Resolved::Ftp { uploads, part: senders::part(staged, path, modified.as_ref()) })
            }
            Place::Http { url, method, source, content_type } => {
                Ok(Resolved::Http(Sending { url, method: *method, source, content_type }))
            }
            Place::Bucket { bucket, access, key, object, upload, parts } => {
                let upload = Upload { key, id: upload, publication: staged.publication, size: staged.size };
                let bucket = match &self.inner.storage {
                    Configured::Bucket(known) if known.identity() == bucket && *access == Access::Unsaid => {
                        Arc::clone(known)
                    }
                    Configured::Bucket(_) | Configured::Folder(_) => {
                        Arc::new(self.bucket(bucket, access, object)?)
                    }
                };
                Ok(Resolved::Object { bucket, upload, parts, object: object.clone() })
            }
        }
    }

    fn committed(staged: &Staged) -> Committed {
        let url = match &staged.place {
            Place::Local { root, path, .. } => {
                Url::from_file_path(root.join(path.as_str())).map_or_else(|()| String::new(), String::from)
            }
            Place::S3 { bucket, key, .. } => object::url(bucket, key),
            Place::Ftp { url, .. } | Place::Http { url, .. } => url.clone(),
            Place::Bucket { bucket, key, .. } => format!("{}/{key}", bucket.url()),
        };
        Committed { url }
    }
}

/// A handle's place among those configured.
enum Resolved<'a> {
    File(Target),
    Object { bucket: Arc<Bucket>, upload: Upload<'a>, parts: &'a [String], object: ObjectOptions },
    Ftp { uploads: ftp::Uploads<'a>, part: ftp::Part },
    Http(Sending<'a>),
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
