//! How an object says which publication it is.

use object_store::{Attribute, Attributes, GetResult};

use super::Staging;
use crate::domain::{ObjectOptions, PublicationId};
use crate::storage::StagedFile;

/// Metadata key of the publication that an object is.
const PUBLICATION: &str = "flux-publication";
/// Metadata key of an object's SHA-256.
const SHA256: &str = "flux-sha256";

/// An object that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct Found {
    pub(in crate::storage) publication: Option<PublicationId>,
    /// Lower-case hex.
    pub(in crate::storage) sha256: Option<String>,
    /// Bytes.
    pub(in crate::storage) size: u64,
    pub(in crate::storage) etag: Option<String>,
}

impl Found {
    pub(super) fn of(result: &GetResult) -> Self {
        let text = |own| {
            let spelled = [Staging::Uploads, Staging::Blobs].map(|staging| key(staging, own));
            spelled.iter().find_map(|key| result.attributes.get(key)).map(|value| value.to_string())
        };
        Self {
            publication: text(PUBLICATION).and_then(|id| id.parse().ok()),
            sha256: text(SHA256),
            size: result.meta.size,
            etag: result.meta.e_tag.clone(),
        }
    }
}

/// One of our own names. Azure's are identifiers.
fn key(staging: Staging, own: &str) -> Attribute {
    Attribute::Metadata(match staging {
        Staging::Uploads => own.to_owned().into(),
        Staging::Blobs => own.replace('-', "_").into(),
    })
}

/// What an object is marked with: by its request, and by us.
pub(super) fn attributes(
    staging: Staging,
    publication: PublicationId,
    file: &StagedFile,
    object: &ObjectOptions,
) -> Attributes {
    let mut attributes: Attributes = object
        .metadata
        .iter()
        .map(|(name, value)| (Attribute::Metadata(name.clone().into()), value.clone()))
        .collect();
    let content_type = object.content_type.clone().unwrap_or_else(|| file.content_type.clone());
    attributes.insert(Attribute::ContentType, content_type.into());
    if let Some(cache) = &object.cache_control {
        attributes.insert(Attribute::CacheControl, cache.clone().into());
    }
    attributes.insert(key(staging, PUBLICATION), publication.to_string().into());
    attributes.insert(key(staging, SHA256), file.sha256.clone().into());
    attributes
}
