//! Publishing: a file becomes visible at its destination whole, once, and only with a permit (PROTOCOL F3).
//!
//! 1. [`Destinations::stage`] makes a handle, gives it to the caller's journal *before* any byte is sent, then sends the
//!    file to where nobody sees it. Whatever the journal holds after a crash is destroyed at the next start.
//! 2. The sent handle is recorded with the permit (the control does that).
//! 3. [`Destinations::commit`] makes it visible, or [`Destinations::destroy`] makes that impossible for ever.
//!
//! Every verb may be repeated. Dropping a future is safe: what it leaves behind is what `destroy` removes.

mod senders;
#[cfg(test)]
pub(in crate::storage) mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use url::Url;

use self::senders::{Senders, Sending};
use super::ftp;
use super::handle::{Handle, Place, Staged};
use super::http::SystemLookup;
use super::local::{self, LocalError, Missing, Root, Target};
use super::object::{self, Bucket, Patience, Upload};
use super::policy::AllowRule;
use super::{Error, StorageSettings};
use crate::domain::{Code, Destination, Failure, ObjectPath, OutputSecrets, Overwrite, PublicationId};

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
    senders: Senders,
}

/// What `storage` means.
#[derive(Debug)]
pub(super) enum Configured {
    Folder(Root),
    Bucket(Box<Bucket>),
}

/// A destination, found.
#[derive(Debug)]
pub(super) enum Located<'a> {
    File { root: &'a Root, path: ObjectPath },
    Object { bucket: &'a Bucket, key: String },
}

impl Destinations {
    /// Opens the configured places; no network. `allow` is what requests may name besides the public internet.
    pub(super) fn open(
        storage: &StorageSettings,
        roots: &[PathBuf],
        allow: &[AllowRule],
    ) -> Result<Self, Error> {
        Self::build(storage, roots, Patience::default(), allow)
    }

    #[cfg(test)]
    fn open_with(storage: &StorageSettings, roots: &[PathBuf], patience: Patience) -> Result<Self, Error> {
        Self::build(storage, roots, patience, &[])
    }

    fn build(
        storage: &StorageSettings,
        roots: &[PathBuf],
        patience: Patience,
        allow: &[AllowRule],
    ) -> Result<Self, Error> {
        let storage = match storage {
            StorageSettings::Local { root } => Configured::Folder(Root::open(root, Missing::Make)?),
            StorageSettings::S3(settings) => Configured::Bucket(Box::new(Bucket::open(settings, patience)?)),
        };
        let roots = roots.iter().map(|root| Root::open(root, Missing::Refuse)).collect::<Result<_, _>>()?;
        let senders = Senders::new(allow, Arc::new(SystemLookup));
        Ok(Self { inner: Arc::new(Inner { storage, roots, senders }), secrets: Arc::default() })
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
        self.locate(destination)?;
        match destination {
            Destination::File { .. } | Destination::Http { .. } | Destination::Ftp { .. } => Ok(()),
            Destination::Storage { metadata, .. } => check_metadata(metadata),
            Destination::Bucket { object, .. } => check_metadata(&object.metadata),
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
                let none = BTreeMap::new();
                let metadata = match destination {
                    Destination::Storage { metadata, .. } => metadata,
                    Destination::Bucket { object, .. } => &object.metadata,
                    Destination::File { .. } | Destination::Http { .. } | Destination::Ftp { .. } => &none,
                };
                check_metadata(metadata)?;
                let upload = bucket.create(&key, publication, file, metadata).await?;
                let endpoint = bucket.endpoint().map(str::to_owned);
                Place::S3 { endpoint, bucket: bucket.name().to_owned(), key, upload, parts: Vec::new() }
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
            Resolved::Object { bucket, upload, .. } => {
                let sent = bucket.send(upload, file).await?;
                if let Place::S3 { parts, .. } = &mut staged.place {
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
            Resolved::Object { bucket, upload, parts } => {
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
        if matches!(destination, Destination::Http { .. } | Destination::Ftp { .. }) {
            return senders::existing(&self.inner.senders, destination, &self.secrets).await;
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
            Destination::Bucket { .. } => Err(not_yet(destination)),
            Destination::Http { .. } | Destination::Ftp { .. } => Err(senders::not_read_back(destination)),
        }
    }

    /// Finds a key of the configured storage.
    pub(super) fn locate_storage(&self, path: ObjectPath) -> Result<Located<'_>, Failure> {
        refuse_own_names(&path)?;
        Ok(match &self.inner.storage {
            Configured::Folder(root) => Located::File { root, path },
            Configured::Bucket(bucket) => Located::Object { key: bucket.key(&path), bucket },
        })
    }

    fn locate_file(&self, path: &str) -> Result<Located<'_>, Failure> {
        let forbidden = |message: &str| Failure::new(Code::DestinationForbidden, message);
        let roots = &self.inner.roots;
        let Some(first) = roots.first() else {
            return Err(forbidden("this server has no folder for file destinations"));
        };
        let located = if path.starts_with('/') {
            roots.iter().find_map(|root| root.relative(Path::new(path)).map(|path| (root, path)))
        } else {
            ObjectPath::parse(path).ok().map(|path| (first, path))
        };
        let (root, path) =
            located.ok_or_else(|| forbidden("the path is not below a folder for file destinations"))?;
        refuse_own_names(&path)?;
        Ok(Located::File { root, path })
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
                    Ok(Resolved::Object { bucket: known, upload, parts })
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
        }
    }

    fn committed(staged: &Staged) -> Committed {
        let url = match &staged.place {
            Place::Local { root, path, .. } => {
                Url::from_file_path(root.join(path.as_str())).map_or_else(|()| String::new(), String::from)
            }
            Place::S3 { bucket, key, .. } => object::url(bucket, key),
            Place::Ftp { url, .. } | Place::Http { url, .. } => url.clone(),
        };
        Committed { url }
    }
}

/// A handle's place among those configured.
enum Resolved<'a> {
    File(Target),
    Object { bucket: &'a Bucket, upload: Upload<'a>, parts: &'a [String] },
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

/// A kind that the vocabulary has and this room does not serve.
fn not_yet(destination: &Destination) -> Failure {
    let kind = destination.kind();
    let message =
        format!("'{kind}' destinations are not available in this build; known: storage, file, http or ftp");
    Failure::new(Code::DestinationForbidden, message)
}

/// Names that flux itself uses beside targets.
fn refuse_own_names(path: &ObjectPath) -> Result<(), Failure> {
    if path.as_str().split('/').any(|name| name.starts_with(".flux-")) {
        return Err(Failure::new(Code::DestinationForbidden, "names that start with '.flux-' are reserved"));
    }
    Ok(())
}

/// Metadata that S3 takes as headers: at most 2 KiB in all, names as HTTP tokens, values in printable ASCII.
fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), Failure> {
    let forbidden = |message: String| Err(Failure::new(Code::DestinationForbidden, message));
    let total: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if total > 2 * 1024 - 256 {
        return forbidden("the object metadata is longer than the 1,792 bytes that S3 leaves".to_owned());
    }
    for (name, value) in metadata {
        let fits = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b));
        if !fits || name.starts_with("flux-") {
            return forbidden(
                "object metadata names are lower-case letters, digits, '-' and '_', not 'flux-…'".to_owned(),
            );
        }
        if !value.bytes().all(|b| (b' '..=b'~').contains(&b)) || value.trim() != value || value.is_empty() {
            return forbidden(format!("the object metadata value of '{name}' is not plain text"));
        }
    }
    Ok(())
}
