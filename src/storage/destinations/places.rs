//! Which places a destination may name, and what may be said of an object there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{Configured, Destinations, Located};
use crate::domain::{self, Access, Code, Failure, ObjectOptions, ObjectPath};
use crate::storage::buckets::{Purpose, Wanted};
use crate::storage::is_reserved;
use crate::storage::object::Bucket;

impl Destinations {
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
