//! Objects in buckets that requests name: who reads them, and what ends a read.

use super::*;
use crate::domain::Profile;
use crate::domain::{Bucket, Credentials};
use crate::storage::destinations::testing::{self, BUCKET, KEY_ID, S3Server, SECRET};

fn bucket(endpoint: &str, name: &str) -> Bucket {
    let endpoint = Some(endpoint.trim_end_matches('/').to_owned());
    Bucket::S3 { name: name.to_owned(), region: None, endpoint, path_style: None }
}

fn source(bucket: Bucket, path: &str, access: Access) -> Source {
    Source::Bucket { bucket, path: key(path), access }
}

fn credentials(secret: &str) -> Credentials {
    Credentials::S3 {
        access_key_id: KEY_ID.to_owned(),
        secret_access_key: secret.to_owned(),
        session_token: None,
    }
}

impl House {
    async fn open_as(
        &self,
        source: &Source,
        credentials: Option<Credentials>,
    ) -> Result<OpenSource, Failure> {
        let secrets = JobSecrets { source_credentials: credentials, ..JobSecrets::default() };
        self.sources.check(source, &secrets)?;
        self.sources.open(source, &secrets, &self.dir.path().join("work"), &SystemIds).await
    }

    async fn read_as(&self, source: &Source, credentials: Option<Credentials>) -> Result<Vec<u8>, Failure> {
        let open = self.open_as(source, credentials).await?;
        open.whole().await?;
        let bytes = std::fs::read(the_file(open.input())).unwrap();
        open.verdict().await?;
        Ok(bytes)
    }
}

#[tokio::test]
async fn a_bucket_is_read_with_the_requests_credentials_or_a_profiles() {
    let server = S3Server::start().await;
    let content = noise(3_000_000);
    server.put("in/x.mp4", &content);
    let profile = Profile {
        place: bucket(server.endpoint.as_str(), ""),
        credentials: Some(credentials(SECRET)),
        buckets: Vec::new(),
    };
    let house = house_with(|settings| {
        settings.buckets.profiles.insert("archive".to_owned(), profile);
    });
    let at = |name: &str, path: &str, access| source(bucket(server.endpoint.as_str(), name), path, access);
    let mine = at(BUCKET, "in/x.mp4", Access::Request);
    assert!(house.read_as(&mine, Some(credentials(SECRET))).await.unwrap() == content.as_ref());
    let profile = at(BUCKET, "in/x.mp4", Access::Profile { name: "archive".to_owned() });
    assert!(house.read_as(&profile, None).await.unwrap() == content.as_ref());

    let code =
        async |source: &Source, credentials| house.read_as(source, credentials).await.unwrap_err().code;
    assert_eq!(code(&mine, Some(credentials("wrong"))).await, Code::SourceForbidden);
    assert_eq!(code(&mine, None).await, Code::SourceForbidden);
    for access in [Access::Anonymous, Access::Unsaid] {
        assert_eq!(code(&at(BUCKET, "in/x.mp4", access), None).await, Code::SourceForbidden);
    }
    let key = || Some(credentials(SECRET));
    assert_eq!(code(&at(BUCKET, "in/no.mp4", Access::Request), key()).await, Code::SourceNotFound);
    assert_eq!(code(&at("missing", "in/x.mp4", Access::Request), key()).await, Code::SourceNotFound);
    let unknown = at(BUCKET, "in/x.mp4", Access::Profile { name: "other".to_owned() });
    assert_eq!(code(&unknown, None).await, Code::SourceForbidden);
}

/// `s3s` ignores `If-Match`, so these come from an origin that answers as S3 would and misbehaves as told.
#[tokio::test]
async fn what_changes_or_vanishes_while_it_is_read_has_its_code() {
    for (fault, expected) in [
        (Fault::None, None),
        (Fault::ChangeFrom(3), Some(Code::SourceChanged)),
        (Fault::StatusFrom(3, 404), Some(Code::SourceNotFound)),
        (Fault::StatusFrom(3, 403), Some(Code::SourceForbidden)),
        // A bucket of another region: HEAD has no body to say so.
        (Fault::StatusFrom(1, 301), Some(Code::SourceForbidden)),
        (Fault::StatusFrom(1, 400), Some(Code::SourceForbidden)),
    ] {
        let content = noise(8_000_000);
        let told = format!("{fault:?}");
        let script =
            Script { content: Arc::clone(&content), fault, etag: Some("\"one\""), ..Script::default() };
        let origin = TestOrigin::start(script).await;
        let house = house_with(|_| {});
        let public = source(bucket(&origin.url(""), "public"), "in/x.mp4", Access::Anonymous);
        let read = house.read_as(&public, None).await;
        assert_eq!(
            read.as_ref().err().map(|failure| failure.code),
            expected,
            "{told}: {:?}",
            read.as_ref().err()
        );
        if expected.is_none() {
            assert!(read.unwrap() == content.as_ref());
            assert!(
                origin.heads().iter().all(|head| !head.contains("authorization:")),
                "nobody's credentials"
            );
            assert!(
                origin.heads().iter().any(|head| head.contains("if-match: \"one\"")),
                "{:?}",
                origin.heads()
            );
        }
    }
}

/// A presigned URL is an `http` source; once it has expired the store says 403.
#[tokio::test]
async fn a_presigned_url_is_read_until_it_has_expired() {
    let server = S3Server::start().await;
    let content = noise(3_000_000);
    server.put("in/x.mp4", &content);
    let http = |url: &str| Source::Http { url: url.to_owned() };
    let house = house_with(|_| {});
    let settings = crate::storage::StorageSettings::Bucket {
        bucket: server.bucket(),
        prefix: None,
        credentials: Some(testing::key(SECRET)),
    };
    let destinations =
        crate::storage::Destinations::open(&settings, &[], &[], &BucketAccess::default()).unwrap();
    let there = domain::Destination::Storage {
        path: key("in/x.mp4"),
        overwrite: domain::Overwrite::Replace,
        metadata: BTreeMap::new(),
    };
    let file = domain::OutputFile {
        path: "in/x.mp4".to_owned(),
        size: 3_000_000,
        sha256: String::new(),
        content_type: String::new(),
        role: None,
    };
    let url = destinations.presign(&there, &file, Duration::from_mins(1)).await.unwrap();
    assert!(house.read_as(&http(url.as_str()), None).await.unwrap() == content.as_ref());
    let expired = url.as_str().replacen("X-Amz-Date=20", "X-Amz-Date=19", 1);
    let failure = house.read_as(&http(&expired), None).await.map(drop).unwrap_err();
    assert_eq!(failure.code, Code::SourceForbidden, "{}", failure.detail);
}

#[tokio::test]
async fn an_address_that_the_policy_refuses_is_not_connected_to() {
    let origin = TestOrigin::start(Script { content: noise(1000), ..Script::default() }).await;
    let house = house_with(|settings| settings.allow.clear());
    for endpoint in [
        origin.url(""),
        origin.url("").replace("127.0.0.1", "localhost"),
        "http://169.254.169.254".to_owned(),
    ] {
        let inside = source(bucket(&endpoint, "b"), "k", Access::Request);
        let failure = house.open_as(&inside, Some(credentials("canary"))).await.err().unwrap();
        assert_eq!(failure.code, Code::SourceBlocked, "{endpoint}");
    }
    assert_eq!(origin.requests(), 0);
}
