//! What lies about and no job needs any more.

use serde::{Deserialize, Serialize};

use super::{Destination, Folder, ObjectPath, PublicationId, Source, UploadId};

/// Something to remove. In the record the kinds of sources are spelled as those of [`Source`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Waste {
    /// A source that came in a request.
    Inline {
        /// Key below the server's inline store.
        key: ObjectPath,
        /// Bytes.
        size: u64,
    },
    /// A source that was uploaded to this server.
    Upload {
        /// Its id.
        id: UploadId,
    },
    /// What was published for an output of a job that retention removed (`retention.delete_results`).
    Result {
        /// Where it was published.
        destination: Box<Destination>,
        /// As what: whatever else is there by now is nobody's to remove.
        publication: PublicationId,
        /// The other files of a set, by their paths from the folder of this one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        others: Vec<String>,
    },
}

/// What becomes of published results when retention removes their job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Results {
    /// They stay.
    #[default]
    Keep,
    /// They go with it, if they are still what the record says.
    Remove,
}

impl Waste {
    /// What a source leaves on this server; nothing for those that belong to somebody else.
    #[must_use]
    pub fn of(source: &Source) -> Option<Self> {
        if let Source::Inline { key, size } = source {
            return Some(Self::Inline { key: key.clone(), size: *size });
        }
        if let Source::Upload { id } = source {
            return Some(Self::Upload { id: *id });
        }
        None
    }

    /// As the source it was.
    #[must_use]
    pub fn source(&self) -> Option<Source> {
        match self {
            Self::Inline { key, size } => Some(Source::Inline { key: key.clone(), size: *size }),
            Self::Upload { id } => Some(Source::Upload { id: *id }),
            Self::Result { .. } => None,
        }
    }

    /// In which control's data folder it lies.
    #[must_use]
    pub fn folder(&self) -> Folder {
        self.source().map_or(Folder::ONLY, |source| Folder::holding(&source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_earlier_builds_are_read() {
        for source in [
            Source::Inline { key: ObjectPath::parse("a").unwrap(), size: 3 },
            Source::Upload { id: UploadId::from_uuid(uuid::Uuid::from_u128(7)) },
        ] {
            let text = serde_json::to_string(&source).unwrap();
            let waste: Waste = serde_json::from_str(&text).unwrap();
            assert_eq!((Waste::of(&source), waste.source()), (Some(waste.clone()), Some(source)));
        }
        assert_eq!(Waste::of(&Source::Http { url: "https://h/".into() }), None);
    }
}
