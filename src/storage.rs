//! Sources and destinations: where bytes come from and where results go.
//!
//! Owns the source gateway, the address policy, local folders, object stores, uploads and publishing handles.
//! The only user of `object_store`, `reqwest` and `suppaftp`. Must not know: ffmpeg, jobs' states, the store.
//! Invariants: a block of a source becomes readable only when all its bytes came under the pinned validator; nothing
//! becomes visible at a destination but by committing a [`Handle`], and a destroyed handle can never be committed,
//! because the part file or the multipart upload it needs is gone and not because somebody remembers a flag.
//! To add a kind of destination: a variant of `domain::Destination` and of [`handle::Place`], a file beside `local`
//! and `object` with the same verbs (begin, send, commit, destroy, existing, open), and its rows in the fence tests.

mod beneath;
mod buckets;
pub mod destinations;
mod ftp;
mod gateway;
pub mod handle;
mod http;
mod invitations;
mod local;
mod object;
mod origin;
mod pages;
mod pauses;
mod policy;
mod put;
pub mod results;
pub mod sources;
#[cfg(test)]
mod test_origin;
mod token;
pub mod uploads;
mod webhooks;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::domain;
use crate::domain::limits::SourceLimits;

pub use destinations::{
    Committed, Destinations, Existing, Fencing, HandleFate, Reading, SetFiles, StagedFile,
};
pub use gateway::{FetchLimits, Traffic};
pub use handle::Handle;
pub use invitations::UploadPlace;
pub use pages::{Page, PageError, Pages};
pub use policy::{AddressPolicy, AllowRule, InvalidRule};
pub use results::{ByteRange, ReadError, ResultBody};
pub use sources::{OpenSource, SourceInput, SourceSettings, SourceStorage, Sources, SourcesError};
pub use uploads::{Received, UploadError, Uploads};
pub use webhooks::{Answer, HttpMessenger, Message, Messenger};

/// Folder of finished uploads below the data folder: one file per upload, named by its id (a UUID, no extension).
pub const UPLOADS_FOLDER: &str = "uploads";
/// Folder of inline sources below the data folder: one file per source, named by its key.
pub const INLINE_FOLDER: &str = "inline";

/// Where finished uploads lie: `<data folder>/uploads/<upload id>`.
#[must_use]
pub fn upload_folder(data_dir: &Path) -> PathBuf {
    data_dir.join(UPLOADS_FOLDER)
}

/// Where inline sources lie: `<data folder>/inline/<key>`.
#[must_use]
pub fn inline_folder(data_dir: &Path) -> PathBuf {
    data_dir.join(INLINE_FOLDER)
}

/// What the operator configured about places to read from and write to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What `storage` sources and destinations mean.
    pub storage: StorageSettings,
    /// Folders that `file` destinations may write below; none = `file` destinations are refused.
    pub destination_roots: Vec<PathBuf>,
    /// This server's own folder: uploads and inline sources live below it.
    pub data_dir: PathBuf,
    /// Folders that `file` sources may be below; none = `file` sources are refused.
    pub file_roots: Vec<PathBuf>,
    /// What may be fetched from and sent to besides the public internet.
    pub allow: Vec<AllowRule>,
    /// With whose credentials buckets of requests are used.
    pub buckets: domain::BucketAccess,
    /// What a source may be at most.
    pub limits: SourceLimits,
    /// How origins are talked to.
    pub fetch: FetchLimits,
}

/// The configured storage.
#[derive(Debug, Clone)]
pub enum StorageSettings {
    /// A folder; made when it does not exist.
    Local {
        /// The folder.
        root: PathBuf,
    },
    /// A bucket of an object store; it must exist.
    Bucket {
        /// Which.
        bucket: domain::Bucket,
        /// Put before every key.
        prefix: Option<domain::ObjectPath>,
        /// Absent: the machine's own role.
        credentials: Option<domain::Credentials>,
    },
}

/// Why the room could not be opened. All of these are the operator's to repair.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A configured folder cannot be made or used.
    #[error("cannot use the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The bucket's settings do not make a client.
    #[error("cannot set up the object store for bucket {bucket}")]
    ObjectStore {
        /// The bucket.
        bucket: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The source side cannot be set up.
    #[error("cannot set up sources")]
    Sources(#[from] SourcesError),
    /// The process has no TLS implementation: `main` installs rustls' ring provider before anything else.
    #[error("no TLS provider was installed in this process")]
    NoTlsProvider,
}

/// The room's front door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Storage {
    destinations: Destinations,
    sources: Sources,
    uploads: Arc<Uploads>,
}

impl Storage {
    /// Opens the configured places. Makes the storage and data folders; `file` roots must exist already, so that a
    /// missing mount is noticed instead of being written beside. Does no network.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        let destinations = Destinations::open(
            &settings.storage,
            &settings.destination_roots,
            &settings.allow,
            &settings.buckets,
        )?;
        let uploads = Arc::new(Uploads::open(&settings.data_dir)?);
        let storage = match destinations.reading() {
            Reading::Folder(root) => SourceStorage::Local { root },
            Reading::Objects { store, prefix } => {
                SourceStorage::Objects { store, prefix: prefix.map(String::from).unwrap_or_default() }
            }
        };
        let sources = Sources::open_with(SourceSettings {
            file_roots: settings.file_roots.clone(),
            allow: settings.allow.clone(),
            limits: settings.limits,
            fetch: settings.fetch.clone(),
            inline_dir: inline_folder(&settings.data_dir),
            upload_dir: upload_folder(&settings.data_dir),
            storage,
            buckets: settings.buckets.clone(),
        })?;
        Ok(Self { destinations, sources, uploads })
    }

    /// Opening sources.
    #[must_use]
    pub const fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Publishing, and reading back what was published.
    #[must_use]
    pub const fn destinations(&self) -> &Destinations {
        &self.destinations
    }

    /// Bytes that clients give to this server.
    #[must_use]
    pub fn uploads(&self) -> &Uploads {
        &self.uploads
    }
}

/// Makes a folder and its parents, with an error that names it.
fn make_folder(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(|source| Error::Folder { path: path.to_owned(), source })
}

/// Whether flux itself uses names like one in this path: for what is not published yet, and for clients' uploads.
fn is_reserved(path: &str) -> bool {
    path.split('/').any(|name| name.starts_with(".flux-"))
}

/// Bytes as lower-case hex.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SHA-256 of what is left to read of a file, lower-case hex. Blocks.
fn hash_file(file: &mut std::fs::File) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0_u8; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(context.finish().as_ref())),
            n => context.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_makes_what_is_ours_and_refuses_what_is_missing_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings {
            storage: StorageSettings::Local { root: folder.path().join("data/storage") },
            destination_roots: Vec::new(),
            data_dir: folder.path().join("data"),
            file_roots: Vec::new(),
            allow: Vec::new(),
            buckets: domain::BucketAccess::default(),
            limits: SourceLimits::default(),
            fetch: FetchLimits::default(),
        };
        let storage = Storage::open(&settings).unwrap();
        assert!(upload_folder(&settings.data_dir).is_dir() && inline_folder(&settings.data_dir).is_dir());
        assert!(matches!(storage.destinations().reading(), Reading::Folder(root) if root.is_dir()));
        settings.destination_roots.push(folder.path().join("unmounted"));
        let error = Storage::open(&settings).unwrap_err();
        assert!(matches!(&error, Error::Folder { path, .. } if path.ends_with("unmounted")), "{error}");
        assert!(!folder.path().join("unmounted").exists());
    }
}
