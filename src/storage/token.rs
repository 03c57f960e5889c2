//! Whether two processes mean the same storage: one leaves a token, the other reads it back (PROTOCOL §1.10).
//!
//! A worker with a folder of its own would publish where nobody looks, and every job would seem to succeed.

use std::io::{Read as _, Write as _};

use futures_util::TryStreamExt as _;
use object_store::ObjectStoreExt as _;
use rustix::fs::{self as sys, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use uuid::Uuid;

use super::Destinations;
use super::destinations::{Configured, blocking};
use super::local::LocalError;
use super::object::{self, Bucket, failure};
use crate::domain::{Code, Failure, ObjectPath};

/// Bytes read of a token at most; ours have far fewer.
const MAX_BYTES: u64 = 256;

/// Where they are in a bucket.
const FOLDER: &str = ".flux-tokens";

impl Destinations {
    /// Leaves a text in the configured storage under a fresh random id.
    pub async fn leave_token(&self, id: Uuid, text: String) -> Result<(), Failure> {
        match &self.inner.storage {
            Configured::Folder(root) => {
                let root = root.clone();
                blocking(move || {
                    let doing = |errno| LocalError::Io { doing: "write a test file", errno };
                    let folder = root.descriptor().map_err(doing)?;
                    let flags =
                        OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let file = sys::openat(&folder, name(id), flags, Mode::from_raw_mode(0o644));
                    let mut file = std::fs::File::from(file.map_err(doing)?);
                    file.write_all(text.as_bytes())
                        .map_err(|error| doing(Errno::from_io_error(&error).unwrap_or(Errno::IO)))
                })
                .await
            }
            Configured::Bucket(bucket) => {
                let key = key(bucket, id)?;
                let put = bucket.reader().put(&key, text.into_bytes().into()).await;
                put.map(drop).map_err(|error| failure(&error))
            }
        }
    }

    /// The text that was left under an id; `None` = none is there.
    pub async fn read_token(&self, id: Uuid) -> Result<Option<String>, Failure> {
        match &self.inner.storage {
            Configured::Folder(root) => {
                let (root, path) = (root.clone(), path(id)?);
                blocking(move || {
                    let doing = "read a test file";
                    let file = match root.open_file(&path) {
                        Ok(file) => file,
                        Err(LocalError::Io { errno: Errno::NOENT, .. }) => return Ok(None),
                        Err(error) => return Err(error),
                    };
                    let mut text = String::new();
                    let read = file.take(MAX_BYTES).read_to_string(&mut text);
                    read.map_err(|error| LocalError::Io {
                        doing,
                        errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
                    })?;
                    Ok(Some(text))
                })
                .await
            }
            Configured::Bucket(bucket) => {
                let key = key(bucket, id)?;
                let bytes = match bucket.reader().get_range(&key, 0..MAX_BYTES).await {
                    Ok(bytes) => bytes,
                    Err(object_store::Error::NotFound { .. }) => return Ok(None),
                    Err(error) => return Err(failure(&error)),
                };
                Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
            }
        }
    }

    /// Takes a token away; one that is gone is no error.
    pub async fn remove_token(&self, id: Uuid) -> Result<(), Failure> {
        match &self.inner.storage {
            Configured::Folder(root) => {
                let root = root.clone();
                blocking(move || {
                    let doing = |errno| LocalError::Io { doing: "remove a test file", errno };
                    let folder = root.descriptor().map_err(doing)?;
                    match sys::unlinkat(&folder, name(id), AtFlags::empty()) {
                        Ok(()) | Err(Errno::NOENT) => Ok(()),
                        Err(errno) => Err(doing(errno)),
                    }
                })
                .await
            }
            Configured::Bucket(bucket) => {
                let key = key(bucket, id)?;
                match bucket.reader().delete(&key).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                    Err(error) => Err(failure(&error)),
                }
            }
        }
    }

    /// The tokens that lie there: mostly of controls that died between leaving one and taking it away.
    pub async fn tokens(&self) -> Result<Vec<Uuid>, Failure> {
        match &self.inner.storage {
            Configured::Folder(root) => {
                let root = root.clone();
                blocking(move || {
                    let doing = |errno| LocalError::Io { doing: "look for test files", errno };
                    let entries = sys::Dir::new(root.descriptor().map_err(doing)?).map_err(doing)?;
                    let mut found = Vec::new();
                    for entry in entries {
                        let entry = entry.map_err(doing)?;
                        found.extend(entry.file_name().to_str().ok().and_then(id_of));
                    }
                    Ok::<_, LocalError>(found)
                })
                .await
            }
            Configured::Bucket(bucket) => {
                let folder = object::path(&bucket.key(&plain(FOLDER.to_owned())?))?;
                let listed: Vec<_> =
                    bucket.reader().list(Some(&folder)).try_collect().await.map_err(|e| failure(&e))?;
                Ok(listed.iter().filter_map(|object| id_of(object.location.filename()?)).collect())
            }
        }
    }
}

fn name(id: Uuid) -> String {
    format!(".flux-{id}.token")
}

fn id_of(name: &str) -> Option<Uuid> {
    name.strip_prefix(".flux-")?.strip_suffix(".token")?.parse().ok()
}

fn path(id: Uuid) -> Result<ObjectPath, Failure> {
    plain(name(id))
}

/// In a bucket they have a folder of their own: listing it does not list the results.
fn key(bucket: &Bucket, id: Uuid) -> Result<object_store::path::Path, Failure> {
    object::path(&bucket.key(&plain(format!("{FOLDER}/{}", name(id)))?))
}

fn plain(text: String) -> Result<ObjectPath, Failure> {
    ObjectPath::parse(text).map_err(|error| Failure::new(Code::Internal, error.to_string()))
}
