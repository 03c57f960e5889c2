//! Buckets that requests name: with their own credentials, with a profile's, and what is refused.

use super::testing::Refused;
use super::*;
use crate::domain::{Access, Acl, OutputSecrets, Profile};

/// A bucket of `server` at the address that the request says.
fn bucket(server: &S3Server, name: &str) -> domain::Bucket {
    domain::Bucket::S3 {
        name: name.to_owned(),
        region: None,
        endpoint: Some(server.plain_endpoint()),
        path_style: None,
    }
}

fn to(bucket: domain::Bucket, access: Access) -> Destination {
    Destination::Bucket {
        bucket,
        path: ObjectPath::parse("out/a.mp4").unwrap(),
        access,
        overwrite: Overwrite::Replace,
        object: ObjectOptions {
            acl: Some(Acl::PublicRead),
            content_type: Some("video/x-test".to_owned()),
            cache_control: Some("max-age=60".to_owned()),
            storage_class: Some("STANDARD_IA".to_owned()),
            metadata: [("team".to_owned(), "a".to_owned())].into(),
        },
    }
}

fn secrets(secret: &str) -> OutputSecrets {
    let credentials = Credentials::S3 {
        access_key_id: testing::KEY_ID.to_owned(),
        secret_access_key: secret.to_owned(),
        session_token: None,
    };
    OutputSecrets { credentials: Some(credentials), ..OutputSecrets::default() }
}

fn open(desk: &Desk, rules: &[&str], buckets: &BucketAccess) -> Destinations {
    let settings = StorageSettings::Local { root: desk.folder.path().join("storage") };
    let rules: Vec<_> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    Destinations::build(&settings, &[], QUICK, (&rules, buckets)).unwrap()
}

#[tokio::test]
async fn a_requests_own_credentials_write_and_nothing_of_them_is_recorded() {
    let (desk, server) = (Desk::local(), S3Server::start().await);
    let destinations = open(&desk, &["127.0.0.1"], &BucketAccess::default());
    let to = to(bucket(&server, BUCKET), Access::Request);
    let file = desk.file("x", b"content");
    let mine = destinations.with(&secrets(testing::SECRET));
    mine.check(&to).unwrap();
    let handle = mine.stage(&to, publication(1), &file, no_journal).await.unwrap();
    assert!(handle.needs_secrets() && !handle.to_json().contains(testing::SECRET));
    let recorded = Handle::from_json(&handle.to_json()).unwrap();
    // Whoever has the handle and not the secrets can do nothing with it.
    assert_eq!(destinations.commit(&recorded).await.unwrap_err().code, Code::DestinationForbidden);
    let committed = mine.commit(&recorded).await.unwrap();
    assert_eq!(committed.url, format!("s3://{BUCKET}/out/a.mp4"));
    assert_eq!(server.object("out/a.mp4"), Some(b"content".to_vec()));
    assert_eq!(mine.existing(&to).await.unwrap().unwrap().publication, Some(publication(1)));
    // Overtaken by a later attempt, which brings the secrets again.
    let late = mine.stage(&to, publication(2), &file, no_journal).await.unwrap();
    assert_eq!(mine.destroy(&late).await.unwrap(), HandleFate::Dead);
    assert_eq!(mine.commit(&late).await.unwrap_err().code, Code::Internal);
    assert_eq!(server.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn wrong_keys_and_blocked_addresses_have_their_codes() {
    let (desk, server) = (Desk::local(), S3Server::start().await);
    let destinations = open(&desk, &["127.0.0.1"], &BucketAccess::default());
    let file = desk.file("x", b"content");
    let stage = async |destinations: &Destinations, secret: &str| {
        let to = to(bucket(&server, BUCKET), Access::Request);
        destinations.with(&secrets(secret)).stage(&to, publication(1), &file, no_journal).await.unwrap_err()
    };
    assert_eq!(stage(&destinations, "wrong").await.code, Code::DestinationForbidden);
    let before = server.requests();
    let closed = open(&desk, &[], &BucketAccess::default());
    let refused = stage(&closed, testing::SECRET).await;
    assert_eq!(refused.code, Code::DestinationForbidden);
    assert!(refused.message.contains("sources.allow"), "{}", refused.message);
    assert_eq!(server.requests(), before, "nothing may be sent there");
    let unsaid = to(bucket(&server, BUCKET), Access::Unsaid);
    assert_eq!(destinations.check(&unsaid).unwrap_err().code, Code::DestinationForbidden);
}

/// Said at the creation of the upload, by a server that answers as S3 does.
#[tokio::test]
async fn each_refusal_of_a_store_has_its_code() {
    for (status, code, expected) in [
        (404, "NoSuchBucket", Code::DestinationForbidden),
        (301, "PermanentRedirect", Code::DestinationForbidden),
        (400, "AuthorizationHeaderMalformed", Code::DestinationForbidden),
        (400, "ExpiredToken", Code::DestinationForbidden),
        (403, "AccessDenied", Code::DestinationForbidden),
        (403, "SignatureDoesNotMatch", Code::DestinationForbidden),
        (400, "AccessControlListNotSupported", Code::DestinationForbidden),
        (507, "XMinioStorageFull", Code::DiskFull),
        (503, "SlowDown", Code::DestinationUnreachable),
    ] {
        let (desk, server) = (Desk::local(), S3Server::start().await);
        server.refuse(Refused::All, status, code);
        let mine = open(&desk, &["127.0.0.1"], &BucketAccess::default()).with(&secrets(testing::SECRET));
        let to = to(bucket(&server, BUCKET), Access::Request);
        let staged = mine.stage(&to, publication(1), &desk.file("x", b"1"), no_journal).await;
        let failure = staged.unwrap_err();
        assert_eq!(failure.code, expected, "{status} {code}: {failure:?}");
        // An answer to HEAD has no body: a missing bucket looks like a missing object there.
        let existing = mine.existing(&to).await;
        let found = existing.as_ref().err().map(|failure| failure.code);
        assert_eq!(found, (status != 404).then_some(expected), "{status} {code}: {existing:?}");
    }
}

#[tokio::test]
async fn an_upload_whose_parts_are_refused_is_aborted() {
    let (desk, server) = (Desk::local(), S3Server::start().await);
    let mine = open(&desk, &["127.0.0.1"], &BucketAccess::default()).with(&secrets(testing::SECRET));
    let to = to(bucket(&server, BUCKET), Access::Request);
    let file = desk.file("x", &bytes(20 * 1024 * 1024, 1));
    for (n, status, code, expected) in [
        (1, 403, "AccessDenied", Code::DestinationForbidden),
        (2, 507, "XMinioStorageFull", Code::DiskFull),
        (3, 500, "InternalError", Code::DestinationUnreachable),
    ] {
        server.refuse(Refused::Parts, status, code);
        let staged = mine.stage(&to, publication(n), &file, no_journal).await;
        assert_eq!(staged.unwrap_err().code, expected, "{status} {code}");
        assert_eq!(server.creations().len(), usize::try_from(n).unwrap(), "it had been begun");
        assert_eq!(server.leftovers(), Vec::<String>::new(), "{status} {code}");
    }
}

/// Whoever is on the way could otherwise make a private object public.
#[tokio::test]
async fn the_marks_of_an_object_are_sent_and_the_acl_is_signed() {
    let (desk, server) = (Desk::local(), S3Server::start().await);
    let mine = open(&desk, &["127.0.0.1"], &BucketAccess::default()).with(&secrets(testing::SECRET));
    let to = to(bucket(&server, BUCKET), Access::Request);
    let handle = mine.stage(&to, publication(1), &desk.file("x", b"1"), no_journal).await.unwrap();
    mine.commit(&handle).await.unwrap();
    let headers = &server.creations()[0];
    for (name, value) in [
        ("x-amz-acl", "public-read"),
        ("x-amz-storage-class", "STANDARD_IA"),
        ("content-type", "video/x-test"),
        ("cache-control", "max-age=60"),
        ("x-amz-meta-team", "a"),
    ] {
        assert_eq!(headers.get(name).and_then(|found| found.to_str().ok()), Some(value), "{name}");
    }
    let proof = headers["authorization"].to_str().unwrap();
    let signed = proof.split("SignedHeaders=").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    assert!(signed.split(';').any(|name| name == "x-amz-acl"), "{signed}");
}

/// A profile names its own address, which the operator trusts; a request cannot send its credentials elsewhere.
#[tokio::test]
async fn a_profile_writes_at_its_own_address_only() {
    let (desk, server) = (Desk::local(), S3Server::start().await);
    let elsewhere = S3Server::start().await;
    let profile = Profile {
        place: bucket(&server, ""),
        credentials: secrets(testing::SECRET).credentials,
        buckets: vec![BUCKET.to_owned()],
    };
    let buckets = BucketAccess { profiles: [("archive".to_owned(), profile)].into(), ..Default::default() };
    // No rule for loopback: the profile needs none.
    let destinations = open(&desk, &[], &buckets);
    let access = Access::Profile { name: "archive".to_owned() };
    let plain =
        domain::Bucket::S3 { name: BUCKET.to_owned(), region: None, endpoint: None, path_style: None };
    let to_profile = to(plain, access.clone());
    let file = desk.file("x", b"content");
    let handle = destinations.stage(&to_profile, publication(1), &file, no_journal).await.unwrap();
    assert!(!handle.needs_secrets(), "a sweep can destroy it");
    destinations.commit(&handle).await.unwrap();
    assert_eq!(server.object("out/a.mp4"), Some(b"content".to_vec()));
    let stolen = to(bucket(&elsewhere, BUCKET), access);
    assert_eq!(destinations.check(&stolen).unwrap_err().code, Code::DestinationForbidden);
    assert!(destinations.stage(&stolen, publication(2), &file, no_journal).await.is_err());
    assert_eq!(elsewhere.requests(), 0);
}

/// What was published is read back as a source of the same kind, with the same credentials.
async fn read_back(
    desk: &Desk,
    bucket: domain::Bucket,
    credentials: Option<Credentials>,
) -> Result<Vec<u8>, Failure> {
    let folder = desk.folder.path();
    let sources = crate::storage::Sources::open_with(crate::storage::SourceSettings {
        file_roots: Vec::new(),
        allow: vec!["127.0.0.1".parse().unwrap()],
        limits: domain::limits::SourceLimits::default(),
        fetch: crate::storage::FetchLimits::default(),
        inline_dir: folder.join("inline"),
        upload_dir: folder.join("uploads"),
        storage: crate::storage::SourceStorage::Local { root: folder.join("storage") },
        buckets: BucketAccess::default(),
    })
    .unwrap();
    let access = if credentials.is_some() { Access::Request } else { Access::Anonymous };
    let path = ObjectPath::parse("team/a/in/a").unwrap();
    let source = domain::Source::Bucket { bucket, path, access };
    let secrets = domain::JobSecrets { source_credentials: credentials, ..domain::JobSecrets::default() };
    let open = sources.open(&source, &secrets, &folder.join("work"), &domain::SystemIds).await?;
    Ok(open.read_at(0, 1000).await?.to_vec())
}

async fn publish(desk: &Desk) {
    let handle = desk.stage(&storage("in/a", Overwrite::Replace), 1, &desk.file("x", b"abc")).await;
    desk.destinations.commit(&handle).await.unwrap();
}

#[tokio::test]
async fn google_and_azure_are_sources_too() {
    let desk = Desk::gcs().await;
    publish(&desk).await;
    let endpoint = desk.server.as_ref().map(S3Server::plain_endpoint);
    let bucket = domain::Bucket::Gcs { name: BUCKET.to_owned(), endpoint };
    let token = |token: &str| Some(Credentials::Bearer { token: token.to_owned() });
    assert_eq!(read_back(&desk, bucket.clone(), token(testing::SECRET)).await.unwrap(), b"abc");
    let refused = read_back(&desk, bucket, token("wrong")).await.unwrap_err();
    assert_eq!(refused.code, Code::SourceForbidden, "{}", refused.detail);

    let desk = Desk::azure().await;
    publish(&desk).await;
    let container = desk.azurite.as_ref().unwrap().container();
    assert_eq!(read_back(&desk, container.clone(), Some(azure::key())).await.unwrap(), b"abc");
    assert_eq!(read_back(&desk, container, None).await.unwrap(), b"abc", "the container is public");
}
