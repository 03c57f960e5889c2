//! Which places destinations and handles may name, and what may be said of an object there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use url::Url;

use super::senders::{self, Sending};
use super::{Committed, Configured, Destinations};
use crate::domain::{self, Access, Code, Destination, Failure, ObjectOptions, ObjectPath};
use crate::storage::buckets::{Purpose, Wanted};
use crate::storage::handle::{Place, Staged};
use crate::storage::local::{Root, Target};
use crate::storage::object::{Bucket, Upload};
use crate::storage::{ftp, is_reserved};

/// A destination, found.
#[derive(Debug)]
pub(in crate::storage) enum Located<'a> {
    File { root: &'a Root, path: ObjectPath },
    Object { bucket: Arc<Bucket>, key: String },
}

/// A handle's place among those configured.
pub(super) enum Resolved<'a> {
    File(Target),
    Object { bucket: Arc<Bucket>, upload: Upload<'a>, parts: &'a [String], object: ObjectOptions },
    Ftp { uploads: ftp::Uploads<'a>, part: ftp::Part },
    Http(Sending<'a>),
}

impl Destinations {
    /// Finds the place a destination names.
    pub(in crate::storage) fn locate(&self, destination: &Destination) -> Result<Located<'_>, Failure> {
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
    pub(super) fn resolve<'a>(&'a self, staged: &'a Staged) -> Result<Resolved<'a>, Failure> {
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
            Place::S3 { endpoint, bucket, key, upload, parts } => {
                let (name, endpoint) = (bucket.clone(), endpoint.clone());
                let place = domain::Bucket::S3 { name, region: None, endpoint, path_style: None };
                let bucket = self.configured(&place).ok_or_else(elsewhere)?;
                let upload = Upload { key, id: upload, publication: staged.publication, size: staged.size };
                Ok(Resolved::Object { bucket, upload, parts, object: ObjectOptions::default() })
            }
            Place::Ftp { url, modified, .. } => {
                let (uploads, path) = self.inner.senders.ftp(url, &self.secrets)?;
                Ok(Resolved::Ftp { uploads, part: senders::part(staged, path, modified.as_ref()) })
            }
            Place::Http { url, method, source, content_type } => {
                Ok(Resolved::Http(Sending { url, method: *method, source, content_type }))
            }
            Place::Bucket { bucket, access, key, object, upload, parts } => {
                let upload = Upload { key, id: upload, publication: staged.publication, size: staged.size };
                let bucket = match self.configured(bucket).filter(|_| *access == Access::Unsaid) {
                    Some(known) => known,
                    None => Arc::new(self.bucket(bucket, access, object)?),
                };
                Ok(Resolved::Object { bucket, upload, parts, object: object.clone() })
            }
        }
    }

    /// The configured bucket, where it is this one.
    fn configured(&self, bucket: &domain::Bucket) -> Option<Arc<Bucket>> {
        match &self.inner.storage {
            Configured::Bucket(known) if known.identity().is_same(bucket) => Some(Arc::clone(known)),
            Configured::Bucket(_) | Configured::Folder(_) => None,
        }
    }

    pub(super) fn committed(staged: &Staged) -> Committed {
        let url = match &staged.place {
            Place::Local { root, path, .. } => {
                Url::from_file_path(root.join(path.as_str())).map_or_else(|()| String::new(), String::from)
            }
            Place::S3 { bucket, key, .. } => format!("s3://{bucket}/{key}"),
            Place::Ftp { url, .. } | Place::Http { url, .. } => url.clone(),
            Place::Bucket { bucket, key, .. } => format!("{}/{key}", bucket.url()),
        };
        Committed { url }
    }

    /// Finds a key of the configured storage.
    pub(in crate::storage) fn locate_storage(&self, path: ObjectPath) -> Result<Located<'_>, Failure> {
        refuse_own_names(&path)?;
        Ok(match &self.inner.storage {
            Configured::Folder(root) => Located::File { root, path },
            Configured::Bucket(bucket) => {
                Located::Object { key: bucket.key(&path), bucket: Arc::clone(bucket) }
            }
        })
    }

    /// A bucket of a request, for writing.
    pub(super) fn bucket(
        &self,
        bucket: &domain::Bucket,
        access: &Access,
        object: &ObjectOptions,
    ) -> Result<Bucket, Failure> {
        self.inner.buckets.open(Wanted {
            bucket,
            access,
            given: self.secrets.credentials.as_ref(),
            purpose: Purpose::Writing,
            acl: object.acl,
        })
    }

    pub(super) fn locate_file(&self, path: &str) -> Result<Located<'_>, Failure> {
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
}

/// Names that flux itself uses beside targets.
pub(super) fn refuse_own_names(path: &ObjectPath) -> Result<(), Failure> {
    if is_reserved(path.as_str()) {
        return Err(Failure::new(Code::DestinationForbidden, "names that start with '.flux-' are reserved"));
    }
    Ok(())
}

/// Metadata that S3 takes as headers: at most 2 KiB in all, names as HTTP tokens, values in printable ASCII.
pub(super) fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), Failure> {
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
