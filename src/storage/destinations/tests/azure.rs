//! Azurite, Azure's own emulator, as a process beside the test; `scripts/ensure-emulators.sh` installs it.

use crate::domain::uploads::{Claim, Invitation};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use tokio::io::AsyncBufReadExt as _;
use tokio::task::JoinSet;

use super::*;
use crate::domain::{Access, OutputSecrets};

const ACCOUNT: &str = "devstoreaccount1";
/// Every azurite's well-known key.
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// As in `scripts/ensure-emulators.sh`.
const VERSION: &str = "3.35.0";

/// A running emulator with an empty container; killed when dropped.
pub(in crate::storage) struct Azurite {
    process: Child,
    endpoint: String,
    /// Reads on: it ends when it cannot write its log of requests.
    _log: JoinSet<()>,
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test looks for a program that its own script installed")]
fn program() -> PathBuf {
    let cache = || match std::env::var("XDG_CACHE_HOME") {
        Ok(cache) => PathBuf::from(cache),
        Err(_) => PathBuf::from(std::env::var("HOME").unwrap()).join(".cache"),
    };
    let folder =
        std::env::var("FLUX_EMULATORS").map_or_else(|_| cache().join("flux/emulators"), PathBuf::from);
    let main = folder.join(format!("azurite-{VERSION}/node_modules/azurite/dist/src/blob/main.js"));
    assert!(main.is_file(), "{} is missing: run scripts/ensure-emulators.sh", main.display());
    main
}

impl Azurite {
    #[expect(clippy::disallowed_methods, reason = "a server of the test, not a tool of flux")]
    pub(in crate::storage) async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut process = Command::new("node")
            .arg(program())
            .args(["--inMemoryPersistence", "--blobHost", "127.0.0.1", "--blobPort", "0"])
            .args(["--skipApiVersionCheck", "--disableTelemetry"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node runs: scripts/ensure-emulators.sh");
        let output = tokio::process::ChildStdout::from_std(process.stdout.take().unwrap()).unwrap();
        let mut lines = tokio::io::BufReader::new(output).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap().expect("azurite says where it listens");
            if let Some((_, address)) = line.split_once("successfully listens on ") {
                break address.trim().to_owned();
            }
        };
        let mut log = JoinSet::new();
        log.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let started = Self { process, endpoint: format!("{address}/{ACCOUNT}"), _log: log };
        started.make_container().await;
        started
    }

    pub(in crate::storage) fn container(&self) -> domain::Bucket {
        domain::Bucket::Azure {
            account: ACCOUNT.to_owned(),
            container: BUCKET.to_owned(),
            endpoint: Some(self.endpoint.clone()),
        }
    }

    /// Anyone may read it. `object_store` makes no containers, so the request is signed here.
    #[expect(clippy::disallowed_methods, reason = "talks to a loopback server made by the test")]
    async fn make_container(&self) {
        // Azurite does not look at how old a signed request is.
        let (date, version) = ("Sun, 06 Nov 1994 08:49:37 GMT", "2021-12-02");
        let blank = "\n".repeat(12);
        let text = format!(
            "PUT{blank}x-ms-blob-public-access:blob\nx-ms-date:{date}\nx-ms-version:{version}\n/{ACCOUNT}/{ACCOUNT}/{BUCKET}\nrestype:container"
        );
        let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(KEY).unwrap());
        let signature = STANDARD.encode(hmac::sign(&key, text.as_bytes()));
        let answer = reqwest::Client::new()
            .put(format!("{}/{BUCKET}?restype=container", self.endpoint))
            .header("x-ms-date", date)
            .header("x-ms-version", version)
            .header("x-ms-blob-public-access", "blob")
            .header("authorization", format!("SharedKey {ACCOUNT}:{signature}"))
            .header("content-length", "0")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
    }
}

/// Who may write there.
pub(in crate::storage) fn key() -> Credentials {
    Credentials::AccountKey { key: KEY.to_owned() }
}

/// Azure answers before a large copy is done, and shows an empty blob with its marks until then.
#[tokio::test]
async fn a_copy_that_is_not_done_is_waited_for_or_made_impossible() {
    let desk = Desk::azure().await;
    let to = storage("a", Overwrite::Fail);
    let file = desk.file("x", b"whole");
    let handle = desk.stage(&to, 1, &file).await;
    let Configured::Bucket(bucket) = &desk.destinations.inner.storage else { panic!("a bucket") };
    let staged = handle.entry();
    let Place::Bucket { key, upload, .. } = &staged.place else { panic!("a bucket") };
    let store = bucket.reader();
    let path = |key: &str| object_store::path::Path::parse(key).unwrap();
    let half = async || {
        let mark = object_store::Attribute::Metadata("flux_publication".into());
        let attributes = [(mark, publication(1).to_string())].into_iter().collect();
        let options = object_store::PutOptions { attributes, ..Default::default() };
        store.put_opts(&path(key), bytes::Bytes::new().into(), options).await.unwrap();
    };
    half().await;
    let copied = async {
        object_store::ObjectStoreExt::copy(&store, &path(upload), &path(key)).await.unwrap();
    };
    let (committed, ()) = tokio::join!(desk.destinations.commit(&handle), copied);
    committed.unwrap();
    assert_eq!(desk.visible("a").await, Some(b"whole".to_vec()));
    assert_eq!(desk.leftovers().await, Vec::<String>::new());

    half().await;
    assert_eq!(desk.destinations.destroy(&handle).await.unwrap(), HandleFate::Dead);
    assert_eq!(desk.visible("a").await, None, "what was half is gone");
}

#[tokio::test]
async fn a_container_of_a_request_is_written_as_it_says_and_not_otherwise() {
    let azurite = Azurite::start().await;
    let desk = Desk::local();
    let rules = ["127.0.0.1".parse().unwrap()];
    let settings = StorageSettings::Local { root: desk.folder.path().join("storage") };
    let open = |rules| Destinations::build(&settings, &[], QUICK, (rules, &BucketAccess::default())).unwrap();
    let mut to = Destination::Bucket {
        bucket: azurite.container(),
        path: ObjectPath::parse("out/a b.mp4").unwrap(),
        access: Access::Request,
        overwrite: Overwrite::Replace,
        object: ObjectOptions {
            cache_control: Some("no-store".to_owned()),
            metadata: [("team".to_owned(), "a".to_owned())].into(),
            ..ObjectOptions::default()
        },
    };
    let secrets = OutputSecrets { credentials: Some(key()), ..OutputSecrets::default() };
    let file = desk.file("x", &bytes(20 * 1024 * 1024, 4));

    let destinations = open(&rules).with(&secrets);
    let handle = destinations.stage(&to, publication(1), &file, no_journal).await.unwrap();
    assert!(handle.needs_secrets() && !handle.to_json().contains(KEY));
    let committed = destinations.commit(&handle).await.unwrap();
    assert_eq!(committed.url, format!("az://{ACCOUNT}/{BUCKET}/out/a b.mp4"));
    let existing = destinations.existing(&to).await.unwrap().unwrap();
    assert_eq!((existing.publication, existing.size), (Some(publication(1)), file.size));
    assert_eq!(existing.sha256.as_ref(), Some(&file.sha256));

    let other = OutputSecrets {
        credentials: Some(Credentials::AccountKey { key: STANDARD.encode(b"another key") }),
        ..OutputSecrets::default()
    };
    let refused = open(&rules).with(&other).stage(&to, publication(2), &file, no_journal).await.unwrap_err();
    assert_eq!(refused.code, Code::DestinationForbidden, "{}", refused.detail);
    // The same place without the operator's rule: nothing is connected to.
    let refused = open(&[]).with(&secrets).check(&to).unwrap_err();
    assert_eq!(refused.code, Code::DestinationForbidden);
    if let Destination::Bucket { object, .. } = &mut to {
        object.metadata.insert("with-dash".to_owned(), "x".to_owned());
    }
    assert_eq!(destinations.check(&to).unwrap_err().code, Code::DestinationForbidden);
}

/// A client sends an upload with the URL alone, and without seeing a key.
#[tokio::test]
async fn a_client_sends_an_upload_to_a_container_itself() {
    let desk = Desk::azure().await;
    let Configured::Bucket(bucket) = &desk.destinations.inner.storage else { panic!("a bucket") };
    let id = domain::UploadId::from_uuid(uuid::Uuid::from_u128(7));
    let hour = Duration::from_hours(1);
    let invitation = bucket.invite((id, 5), None, hour).await.unwrap().unwrap();
    let Invitation::Whole { url, headers } = invitation else { panic!("one request") };
    assert!(!url.contains(KEY));
    assert_eq!(put(&url, headers, "hello").await, 201);
    assert_eq!(bucket.claim(id, 6).await.unwrap(), Claim::Size(5));
    assert!(matches!(bucket.claim(id, 5).await.unwrap(), Claim::Whole { .. }));
    bucket.discard(id).await.unwrap();
    assert_eq!(bucket.claim(id, 5).await.unwrap(), Claim::Missing);
    assert!(!bucket.invites(6_000 * 1024 * 1024), "more than one request carries");
}

#[expect(clippy::disallowed_methods, reason = "talks to a loopback server made by the test")]
async fn put(url: &str, headers: Vec<(String, String)>, body: &'static str) -> u16 {
    let request = reqwest::Client::new().put(url);
    let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
    request.body(body).send().await.unwrap().status().as_u16()
}
