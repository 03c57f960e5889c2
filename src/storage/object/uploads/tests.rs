use std::sync::Arc;

use super::super::super::destinations::testing::{self, KEY_ID, Refused, S3Server};
use super::super::{Opening, Patience, Who};
use super::*;
use crate::domain;
use crate::storage::http::{HttpClients, SystemLookup};
use crate::storage::policy::AddressPolicy;

const MIB: u64 = 1024 * 1024;
const HOUR: Duration = Duration::from_hours(1);

fn id() -> UploadId {
    UploadId::from_uuid(uuid::Uuid::from_u128(7))
}

fn bucket(server: &S3Server) -> Bucket {
    let patience = Patience { retries: 1, within: Duration::from_secs(5), backoff: Duration::from_millis(1) };
    let policy = AddressPolicy::any();
    let clients = Arc::new(HttpClients::new(policy, Arc::new(SystemLookup), Duration::from_secs(1)));
    let opening = Opening {
        bucket: &server.bucket(),
        prefix: Some(testing::prefix()),
        who: Who::As(testing::key(testing::SECRET)),
        acl: Some(domain::Acl::PublicRead),
        patience,
        clients: &clients,
    };
    Bucket::open_at(opening).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "talks to a loopback server made by the test")]
async fn put(url: &str, kind: Option<&str>, body: Vec<u8>) -> (u16, String) {
    let mut request = reqwest::Client::new().put(url).body(body);
    if let Some(kind) = kind {
        request = request.header("content-type", kind);
    }
    let answer = request.send().await.unwrap();
    let etag = answer.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
    (answer.status().as_u16(), etag.unwrap_or_default())
}

async fn whole(bucket: &Bucket, size: u64, kind: Option<&str>, life: Duration) -> String {
    match bucket.invite((id(), size), kind, life).await.unwrap().unwrap() {
        Invitation::Whole { url, headers } => {
            assert_eq!(headers.len(), usize::from(kind.is_some()), "what must be sent along");
            url
        }
        Invitation::Parts { .. } => panic!("a small upload goes in one request"),
    }
}

#[tokio::test]
async fn an_upload_in_one_request_is_the_jobs_once_it_is_claimed() {
    let server = S3Server::start().await;
    let bucket = bucket(&server);
    let url = whole(&bucket, 5, Some("video/mp4"), HOUR).await;
    assert!(url.contains(KEY_ID) && url.contains(".incoming?"));
    assert_eq!(bucket.claim(id(), 5).await.unwrap(), Claim::Missing);
    assert_eq!(put(&url, Some("video/mp4"), b"hello".to_vec()).await.0, 200);
    assert_eq!(bucket.claim(id(), 6).await.unwrap(), Claim::Size(5));
    assert!(matches!(bucket.claim(id(), 5).await.unwrap(), Claim::Whole { .. }));
    // The URL is still good, but what it names is not what jobs read.
    assert_eq!(put(&url, Some("video/mp4"), b"other".to_vec()).await.0, 200);
    assert!(matches!(bucket.claim(id(), 5).await.unwrap(), Claim::Whole { .. }));
    assert_eq!(server.object(bucket.upload(id()).unwrap().as_ref()), Some(b"hello".to_vec()));
    bucket.discard(id()).await.unwrap();
    bucket.discard(id()).await.unwrap();
    for key in [bucket.upload(id()), bucket.incoming(id())] {
        assert_eq!(server.object(key.unwrap().as_ref()), None);
    }
}

#[tokio::test]
async fn a_url_is_good_for_what_it_was_signed_for() {
    let server = S3Server::start().await;
    let bucket = bucket(&server);
    let url = whole(&bucket, 5, Some("video/mp4"), HOUR).await;
    let tampered = url.replace(".incoming", "");
    assert_eq!(put(&tampered, Some("video/mp4"), b"hello".to_vec()).await.0, 403);
    let longer = url.replace("X-Amz-Expires=3600", "X-Amz-Expires=36000");
    assert_ne!(longer, url);
    assert_eq!(put(&longer, Some("video/mp4"), b"hello".to_vec()).await.0, 403);
    assert_eq!(put(&url, Some("text/html"), b"hello".to_vec()).await.0, 403, "another type");
    let expired = whole(&bucket, 5, None, Duration::ZERO).await;
    let (status, _) = put(&expired, None, b"hello".to_vec()).await;
    assert!((400..500).contains(&status), "{status}");
    assert_eq!(bucket.claim(id(), 5).await.unwrap(), Claim::Missing);
}

#[tokio::test]
async fn a_large_upload_goes_in_parts() {
    let server = S3Server::start().await;
    let bucket = bucket(&server);
    let size = 65 * MIB;
    let invitation = bucket.invite((id(), size), None, HOUR).await.unwrap().unwrap();
    let Invitation::Parts { size: part, urls } = invitation else { panic!("a large upload") };
    assert_eq!((part, urls.len()), (64 * MIB, 2));
    let length = |n: u64| usize::try_from(n).unwrap();
    let (first, etag) = put(&urls[0], None, vec![1; length(part)]).await;
    assert_eq!(bucket.claim(id(), size).await.unwrap(), Claim::Missing);
    let (second, last) = put(&urls[1], None, vec![2; length(size - part)]).await;
    assert_eq!((first, second), (200, 200));
    // s3s-fs does not look at the tags.
    server.refuse(Refused::Completes, 400, "InvalidPart");
    assert_eq!(bucket.assemble(id(), std::slice::from_ref(&etag)).await.unwrap(), Assembled::Refused);
    server.relent();
    assert_eq!(bucket.claim(id(), size).await.unwrap(), Claim::Missing);
    assert_eq!(bucket.assemble(id(), &[etag.clone(), last.clone()]).await.unwrap(), Assembled::Done);
    assert_eq!(bucket.claim(id(), size + 1).await.unwrap(), Claim::Size(size));
    assert!(matches!(bucket.claim(id(), size).await.unwrap(), Claim::Whole { .. }));
    bucket.assemble(id(), &[etag, last]).await.unwrap();
    let late = put(&urls[1], None, vec![3; length(size - part)]).await;
    assert_ne!(late.0, 200, "its parts are closed");
    bucket.discard(id()).await.unwrap();
    assert_eq!(bucket.claim(id(), size).await.unwrap(), Claim::Missing);
}

#[tokio::test]
async fn an_upload_that_is_not_finished_leaves_nothing_behind() {
    let server = S3Server::start().await;
    let bucket = bucket(&server);
    let invitation = bucket.invite((id(), 65 * MIB), None, HOUR).await.unwrap().unwrap();
    let Invitation::Parts { urls, .. } = invitation else { panic!("a large upload") };
    assert_eq!(put(&urls[1], None, vec![2; usize::try_from(MIB).unwrap()]).await.0, 200);
    assert!(!server.leftovers().is_empty());
    bucket.discard(id()).await.unwrap();
    assert_eq!(server.leftovers(), Vec::<String>::new());
    assert_eq!(server.object(bucket.parts(id()).unwrap().as_ref()), None);
}

#[test]
fn parts_are_few_and_cover_the_largest_upload() {
    for size in [WHOLE + 1, 64 << 30, 5 << 40] {
        assert!(size.div_ceil(part_size(size)) <= MOST_PARTS);
    }
    assert_eq!(part_size(64 << 30), 68_719_477);
}
