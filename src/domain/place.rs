//! Where other people's media is: buckets, and how what is put there is marked. Never a secret.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A bucket of S3 or Google Cloud Storage, or a container of Azure.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "provider", rename_all = "snake_case", deny_unknown_fields)]
pub enum Bucket {
    /// S3, or a store that speaks its protocol.
    S3 {
        /// The bucket.
        name: String,
        /// Absent: `us-east-1`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
        /// `http(s)://HOST[:PORT]` of a store that is not AWS.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint: Option<String>,
        /// Whether the bucket stands in the path of URLs; absent: with an endpoint it does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path_style: Option<bool>,
    },
    /// Google Cloud Storage.
    Gcs {
        /// The bucket.
        name: String,
        /// `http(s)://HOST[:PORT]` of a store that is not Google's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint: Option<String>,
    },
    /// Azure Blob Storage.
    Azure {
        /// The storage account.
        account: String,
        /// The container.
        container: String,
        /// `http(s)://HOST[:PORT][/PATH]` of a store that is not Azure's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint: Option<String>,
    },
}

impl Bucket {
    /// The name of its kind in the API and in metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::S3 { .. } => "s3",
            Self::Gcs { .. } => "gcs",
            Self::Azure { .. } => "azure",
        }
    }

    /// The bucket, or the container.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::S3 { name, .. } | Self::Gcs { name, .. } => name,
            Self::Azure { container, .. } => container,
        }
    }

    /// The endpoint that the request named.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        match self {
            Self::S3 { endpoint, .. } | Self::Gcs { endpoint, .. } | Self::Azure { endpoint, .. } => {
                endpoint.as_deref()
            }
        }
    }

    /// Whether both are one bucket of one server, however it is to be talked to.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let plain = |bucket: &Self| bucket.endpoint().map(|text| text.trim_end_matches('/').to_owned());
        self.url() == other.url() && plain(self) == plain(other)
    }

    /// What people and tools call it: `s3://name`, `gs://name`, `az://account/container`.
    #[must_use]
    pub fn url(&self) -> String {
        match self {
            Self::S3 { name, .. } => format!("s3://{name}"),
            Self::Gcs { name, .. } => format!("gs://{name}"),
            Self::Azure { account, container, .. } => format!("az://{account}/{container}"),
        }
    }

    /// Reads `s3://BUCKET/KEY`, `gs://BUCKET/KEY` or `az://ACCOUNT/CONTAINER/KEY`; nothing is decoded. `None` for
    /// anything else, also where a part is empty or the host carries a login.
    #[must_use]
    pub fn parse_url(url: &str) -> Option<(Self, &str)> {
        let (scheme, rest) = url.split_once("://")?;
        let (name, key) = rest.split_once('/')?;
        if name.is_empty() || name.contains('@') {
            return None;
        }
        let name = name.to_owned();
        let (bucket, key) = match scheme.to_ascii_lowercase().as_str() {
            "s3" => (Self::S3 { name, region: None, endpoint: None, path_style: None }, key),
            "gs" => (Self::Gcs { name, endpoint: None }, key),
            "az" => {
                let (container, key) = key.split_once('/')?;
                if container.is_empty() {
                    return None;
                }
                (Self::Azure { account: name, container: container.to_owned(), endpoint: None }, key)
            }
            _ => return None,
        };
        (!key.is_empty()).then_some((bucket, key))
    }
}

/// With whose credentials a bucket is used (PROTOCOL §1.9).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum Access {
    /// The request brought none and named none: the server's own serve only buckets that the operator listed; any
    /// other source is read without credentials, any other destination is refused.
    #[default]
    Unsaid,
    /// Without any, because the request says so.
    Anonymous,
    /// Those of the request, which are sealed with the job.
    Request,
    /// Those of a profile in the configuration.
    Profile {
        /// Its name.
        name: String,
    },
}

/// How an object is marked when it is made. A store that has no such mark ignores it, but for the ACL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectOptions {
    /// A canned ACL (S3 only); most buckets refuse any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl: Option<Acl>,
    /// As the store names it: `STANDARD_IA`, `NEARLINE`, `Cool`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// Absent: that of the container format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// `Cache-Control` of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// The client's own metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// Canned ACLs of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acl {
    /// The owner only.
    Private,
    /// Anyone may read.
    PublicRead,
    /// Anyone may read and write.
    PublicReadWrite,
    /// Anyone with an account may read.
    AuthenticatedRead,
    /// The bucket's owner may read.
    BucketOwnerRead,
    /// The bucket's owner has all rights.
    BucketOwnerFullControl,
}

impl Acl {
    /// As S3 spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::PublicRead => "public-read",
            Self::PublicReadWrite => "public-read-write",
            Self::AuthenticatedRead => "authenticated-read",
            Self::BucketOwnerRead => "bucket-owner-read",
            Self::BucketOwnerFullControl => "bucket-owner-full-control",
        }
    }
}

/// How a result is sent to an HTTP server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// The URL is the result's own place.
    #[default]
    Put,
    /// The URL takes results in.
    Post,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_known_by_its_server_and_its_name() {
        let s3 = |endpoint: Option<&str>, region: Option<&str>| Bucket::S3 {
            name: "b".to_owned(),
            region: region.map(str::to_owned),
            endpoint: endpoint.map(str::to_owned),
            path_style: None,
        };
        assert!(s3(Some("http://h/"), None).is_same(&s3(Some("http://h"), Some("eu-west-1"))));
        assert!(!s3(Some("http://h"), None).is_same(&s3(Some("http://other"), None)));
        assert!(!s3(Some("http://h"), None).is_same(&s3(None, None)));
        assert!(!s3(None, None).is_same(&Bucket::Gcs { name: "b".to_owned(), endpoint: None }));
    }

    #[test]
    fn bucket_urls_have_a_bucket_and_a_key() {
        for (url, shown, key) in [
            ("s3://b/a/b.mp4", "s3://b", "a/b.mp4"),
            ("GS://b/k%20 ?x", "gs://b", "k%20 ?x"),
            ("az://acc/box/a/k", "az://acc/box", "a/k"),
        ] {
            let (bucket, found) = Bucket::parse_url(url).unwrap();
            assert_eq!((bucket.url().as_str(), found), (shown, key));
        }
        for bad in
            ["s3://b", "s3://b/", "s3:///k", "s3://AK:SK@b/k", "az://acc/k", "az://acc//k", "x://b/k", "b/k"]
        {
            assert_eq!(Bucket::parse_url(bad), None, "{bad}");
        }
    }
}
