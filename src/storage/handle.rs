//! What a publication needs to be committed or destroyed, by anyone, at any later time.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::domain::{
    Access, Bucket, Code, Failure, HttpMethod, ObjectOptions, ObjectPath, Overwrite, PublicationId, beside,
};

/// A publishing handle, as recorded with the permit (PROTOCOL F3). It is written to the store and read by other
/// processes and later builds, therefore the version; it holds no credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "version")]
pub enum Handle {
    /// One file.
    #[serde(rename = "1")]
    V1(Staged),
    /// A set of files.
    #[serde(rename = "2")]
    V2(StagedSet),
}

/// Files that become visible together. What nobody finds without the lists lies under its own name already, in a folder
/// that only this publication uses (PROTOCOL §1.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StagedSet {
    /// The file that clients open. It is committed last, and what it has come to is what the set has come to.
    pub entry: Staged,
    /// The other files with names of the client's, in the order they are committed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<Staged>,
    /// The files in the publication's own folder, by their paths from the entry's folder.
    pub members: Vec<String>,
}

impl StagedSet {
    /// The members as their destination has them; their sizes and hashes are not known any more.
    pub fn members(&self) -> impl Iterator<Item = Staged> + '_ {
        self.members.iter().enumerate().filter_map(|(n, name)| {
            let place = self.entry.place.beside(name)?;
            let publication = Self::mark_of_member(self.entry.publication, n);
            Some(Staged { publication, overwrite: Overwrite::Replace, size: 0, sha256: String::new(), place })
        })
    }

    /// What the list of this number is marked with: files of one folder that wait for their commit have names by it.
    #[must_use]
    pub fn mark_of_list(publication: PublicationId, n: usize) -> PublicationId {
        Self::mark(publication, n + 1)
    }

    /// The same for a member.
    #[must_use]
    pub fn mark_of_member(publication: PublicationId, n: usize) -> PublicationId {
        /// More lists than a set has.
        const LISTS: usize = 256;
        Self::mark(publication, n + LISTS)
    }

    fn mark(publication: PublicationId, n: usize) -> PublicationId {
        let mark = u128::try_from(n).unwrap_or(u128::MAX);
        PublicationId::from_uuid(uuid::Uuid::from_u128(publication.uuid().as_u128() ^ mark))
    }
}

/// One file that was, or is about to be, sent to its destination without being visible there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Staged {
    /// Names the handle; also written into the object or file, by which it is recognised after the commit.
    pub publication: PublicationId,
    /// What committing does to an object already there.
    pub overwrite: Overwrite,
    /// Bytes of the whole file.
    pub size: u64,
    /// SHA-256 of the whole file, lower-case hex.
    pub sha256: String,
    /// Where it is.
    pub place: Place,
}

/// Where the invisible bytes are and what they will become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Place {
    /// `.flux-<publication>.part` beside the target.
    Local {
        /// The configured folder it is below.
        root: PathBuf,
        /// The target below that folder.
        path: ObjectPath,
        /// How many of the target's parent folders did not exist, counted from the innermost: removed again when
        /// the handle is destroyed and they are empty.
        new_folders: u16,
    },
    /// An incomplete multipart upload in the configured bucket of S3, as earlier builds recorded it. Only read; what is
    /// begun now is a [`Place::Bucket`].
    S3 {
        /// The endpoint, where it is not AWS itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint: Option<String>,
        /// The bucket.
        bucket: String,
        /// The whole key, prefix included.
        key: String,
        /// The upload's id.
        upload: String,
        /// Entity tags of the parts in order; empty until everything was sent.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        parts: Vec<String>,
    },
    /// `.flux-<publication>.part` beside the target on an FTP server.
    Ftp {
        /// The target, without a login.
        url: String,
        /// Whether whoever commits or destroys must bring the job's login.
        access: Access,
        /// When the part was written, as the server said; absent until it was sent, or where it does not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        modified: Option<String>,
    },
    /// Nothing yet: an HTTP receiver gets the file in the moment of the commit, from the worker that has it.
    Http {
        /// The receiver, without login and query.
        url: String,
        /// How it is sent.
        method: HttpMethod,
        /// The file on that worker.
        source: PathBuf,
        /// Its MIME type.
        content_type: String,
    },
    /// An upload, or a temporary blob, in a bucket: the configured one or one that the request named.
    Bucket {
        /// The bucket.
        bucket: Bucket,
        /// With whose credentials; unsaid for the configured one; those of a request are brought by whoever commits or destroys.
        access: Access,
        /// The whole key.
        key: String,
        /// How the object is marked.
        #[serde(default)]
        object: ObjectOptions,
        /// The upload's id, or the temporary blob's name.
        upload: String,
        /// Entity tags of the parts in order; empty until everything was sent.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        parts: Vec<String>,
    },
}

impl Place {
    /// The place of another file, whose path is read from the folder of this one; `None` = there is none.
    fn beside(&self, name: &str) -> Option<Self> {
        let mut other = self.clone();
        match &mut other {
            Self::Local { path, new_folders, .. } => {
                *path = ObjectPath::parse(beside(path.as_str(), name)).ok()?;
                // The publication's own folder goes with its last file.
                *new_folders = 1;
            }
            Self::S3 { key, .. } | Self::Bucket { key, .. } => *key = beside(key, name),
            Self::Ftp { url, .. } => *url = beside(url, name),
            Self::Http { .. } => return None,
        }
        Some(other)
    }
}

impl Handle {
    /// What becomes visible last, and decides.
    #[must_use]
    pub const fn entry(&self) -> &Staged {
        match self {
            Self::V1(staged) => staged,
            Self::V2(set) => &set.entry,
        }
    }

    /// The publication it belongs to.
    #[must_use]
    pub const fn publication(&self) -> PublicationId {
        self.entry().publication
    }

    /// Whether nobody can act on it without the secrets of its job.
    #[must_use]
    pub const fn needs_secrets(&self) -> bool {
        match &self.entry().place {
            Place::Local { .. } | Place::S3 { .. } | Place::Http { .. } => false,
            Place::Ftp { access, .. } | Place::Bucket { access, .. } => matches!(access, Access::Request),
        }
    }

    /// The text that is recorded.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Every field has an infallible serializer except a folder that is not UTF-8; `Root` refuses those.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`Handle::to_json`] wrote.
    pub fn from_json(text: &str) -> Result<Self, Failure> {
        serde_json::from_str(text).map_err(|error| {
            Failure::new(Code::Internal, "a recorded publication could not be read")
                .with_detail(error.to_string())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Handle {
        Handle::V1(Staged {
            publication: PublicationId::from_uuid(uuid::Uuid::from_u128(7)),
            overwrite: Overwrite::Fail,
            size: 3,
            sha256: "ab".to_owned(),
            place: Place::Local {
                root: "/srv/out".into(),
                path: ObjectPath::parse("a/b.mp4").unwrap(),
                new_folders: 1,
            },
        })
    }

    /// Rows written by this build are read by later ones: this text must never change, only gain a sibling.
    #[test]
    fn the_first_version_keeps_its_shape() {
        let text = concat!(
            r#"{"version":"1","publication":"00000000-0000-0000-0000-000000000007","overwrite":"fail","size":3,"#,
            r#""sha256":"ab","place":{"kind":"local","root":"/srv/out","path":"a/b.mp4","new_folders":1}}"#
        );
        assert_eq!(local().to_json(), text);
        assert_eq!(Handle::from_json(text).unwrap(), local());
    }

    /// What earlier builds recorded of uploads to the configured bucket.
    #[test]
    fn the_first_shape_of_uploads_is_read() {
        let text = concat!(
            r#"{"version":"1","publication":"00000000-0000-0000-0000-000000000007","overwrite":"fail","size":3,"#,
            r#""sha256":"ab","place":{"kind":"s3","endpoint":"http://h:9000/","bucket":"b","key":"k","upload":"u","#,
            r#""parts":["\"1\""]}}"#
        );
        let Handle::V1(staged) = Handle::from_json(text).unwrap() else { panic!("a file") };
        let expected = Place::S3 {
            endpoint: Some("http://h:9000/".to_owned()),
            bucket: "b".to_owned(),
            key: "k".to_owned(),
            upload: "u".to_owned(),
            parts: vec!["\"1\"".to_owned()],
        };
        assert_eq!(staged.place, expected);
        assert_eq!(Handle::V1(staged).to_json(), text);
    }

    #[test]
    fn a_set_keeps_its_shape() {
        let text = concat!(
            r#"{"version":"2","entry":{"publication":"00000000-0000-0000-0000-000000000007","overwrite":"fail","size":3,"#,
            r#""sha256":"ab","place":{"kind":"local","root":"/srv/out","path":"a/b.mp4","new_folders":1}},"#,
            r#""members":["1a2b3c4d/0.m4s"]}"#
        );
        let Handle::V1(entry) = local() else { panic!("a file") };
        let set = StagedSet { entry, lists: Vec::new(), members: vec!["1a2b3c4d/0.m4s".to_owned()] };
        let member = set.members().next().unwrap();
        assert!(matches!(member.place, Place::Local { path, .. } if path.as_str() == "a/1a2b3c4d/0.m4s"));
        let outside = StagedSet { members: vec!["../x".to_owned()], ..set.clone() };
        assert_eq!(outside.members().count(), 0);
        let set = Handle::V2(set);
        assert_eq!(set.to_json(), text);
        assert_eq!(Handle::from_json(text).unwrap(), set);
    }

    #[test]
    fn an_upload_with_parts_round_trips() {
        let Handle::V1(mut staged) = local() else { panic!("a file") };
        staged.place = Place::Bucket {
            bucket: Bucket::Gcs { name: "b".to_owned(), endpoint: None },
            access: Access::Unsaid,
            key: "k".to_owned(),
            object: ObjectOptions::default(),
            upload: "u".to_owned(),
            parts: vec!["\"1\"".to_owned()],
        };
        let handle = Handle::V1(staged);
        assert_eq!(Handle::from_json(&handle.to_json()).unwrap(), handle);
    }

    #[test]
    fn a_path_that_leaves_its_root_is_refused_when_a_handle_is_read() {
        let text = local().to_json().replace("a/b.mp4", "../b.mp4");
        assert_eq!(Handle::from_json(&text).unwrap_err().code, Code::Internal);
        let newer = local().to_json().replace(r#""version":"1""#, r#""version":"3""#);
        assert!(Handle::from_json(&newer).is_err());
    }
}
