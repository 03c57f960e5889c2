//! An S3 server in this process: `s3s` in front of a temporary folder, with real `SigV4` checks.
//!
//! Differs from S3 where `s3s-fs` 0.14.1 does: it answers 403 to Abort, Complete and `UploadPart` of an unknown upload;
//! the wrapper here turns that into the 404 `NoSuchUpload` that S3, `MinIO` and garage give. It ignores ACLs and GET's
//! `If-Match`, and checks `If-None-Match: *` on Complete as AWS does.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError, HttpResponse};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::Url;

use crate::domain::{self, Credentials, ObjectPath};
use crate::storage::StorageSettings;

pub(in crate::storage) const BUCKET: &str = "results";
pub(in crate::storage) const KEY_ID: &str = "test-key";
pub(in crate::storage) const SECRET: &str = "test-secret-canary";

/// A running server; it ends when dropped.
pub(in crate::storage) struct S3Server {
    pub(in crate::storage) endpoint: Url,
    folder: tempfile::TempDir,
    faults: Arc<Faults>,
    _tasks: JoinSet<()>,
}

/// Whose names and proofs it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Dialect {
    #[default]
    Amazon,
    Google,
}

/// What the server does wrong, and what it has seen.
#[derive(Default)]
struct Faults {
    dialect: Dialect,
    busy: AtomicU32,
    lose_completes: AtomicU32,
    requests: AtomicU32,
    refusal: Mutex<Option<(Refused, u16, &'static str)>>,
    /// Headers of the requests that made uploads.
    creations: Mutex<Vec<http::HeaderMap>>,
}

/// Which requests are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Refused {
    All,
    Parts,
    Completes,
}

impl S3Server {
    pub(in crate::storage) async fn start() -> Self {
        Self::start_as(Dialect::Amazon).await
    }

    /// The same server as Google's XML API would look: a bearer token, and headers of Google's names.
    pub(in crate::storage) async fn start_google() -> Self {
        Self::start_as(Dialect::Google).await
    }

    async fn start_as(dialect: Dialect) -> Self {
        // A second installation is refused, which is fine: tests share a process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        if dialect == Dialect::Amazon {
            builder.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        }
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let faults = Arc::new(Faults { dialect, ..Faults::default() });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, service, folder.path().to_owned(), Arc::clone(&faults)));
        Self { endpoint, folder, faults, _tasks: tasks }
    }

    /// The bucket.
    pub(in crate::storage) fn bucket(&self) -> domain::Bucket {
        let (name, endpoint) = (BUCKET.to_owned(), Some(self.plain_endpoint()));
        domain::Bucket::S3 { name, region: None, endpoint, path_style: None }
    }

    /// It as the configured storage, below a prefix.
    pub(in crate::storage) fn settings(&self) -> StorageSettings {
        settings_of(self.bucket(), SECRET)
    }

    /// Without the slash at its end.
    pub(in crate::storage) fn plain_endpoint(&self) -> String {
        self.endpoint.as_str().trim_end_matches('/').to_owned()
    }

    /// The object at a key as the server keeps it.
    pub(in crate::storage) fn object(&self, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.folder.path().join(BUCKET).join(key)).ok()
    }

    /// Puts an object there.
    pub(in crate::storage) fn put(&self, key: &str, content: &[u8]) {
        let path = self.folder.path().join(BUCKET).join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Incomplete uploads and parts of them.
    pub(in crate::storage) fn leftovers(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.folder.path()).unwrap();
        names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(".upload"))
            .collect()
    }

    /// Answers the next `count` requests with 503.
    pub(in crate::storage) fn be_busy(&self, count: u32) {
        self.faults.busy.store(count, Ordering::SeqCst);
    }

    /// Answers these requests with a status and a code from now on.
    pub(in crate::storage) fn refuse(&self, which: Refused, status: u16, code: &'static str) {
        *self.faults.refusal.lock().unwrap() = Some((which, status, code));
    }

    /// Answers all requests again.
    pub(in crate::storage) fn relent(&self) {
        *self.faults.refusal.lock().unwrap() = None;
    }

    /// Headers of the requests that made uploads, in order.
    pub(in crate::storage) fn creations(&self) -> Vec<http::HeaderMap> {
        self.faults.creations.lock().unwrap().clone()
    }

    /// Carries out the next `count` Completes and then loses their answers.
    pub(in crate::storage) fn lose_completes(&self, count: u32) {
        self.faults.lose_completes.store(count, Ordering::SeqCst);
    }

    pub(in crate::storage) fn requests(&self) -> u32 {
        self.faults.requests.load(Ordering::SeqCst)
    }
}

/// A bucket as the configured storage, used with this secret.
pub(in crate::storage) fn settings_of(bucket: domain::Bucket, secret: &str) -> StorageSettings {
    StorageSettings::Bucket { bucket, prefix: Some(prefix()), credentials: Some(key(secret)) }
}

/// What its keys begin with.
pub(in crate::storage) fn prefix() -> ObjectPath {
    ObjectPath::parse("team/a").unwrap()
}

/// The server's key with this secret.
pub(in crate::storage) fn key(secret: &str) -> Credentials {
    Credentials::S3 {
        access_key_id: KEY_ID.to_owned(),
        secret_access_key: secret.to_owned(),
        session_token: None,
    }
}

async fn accept(listener: TcpListener, service: S3Service, root: PathBuf, faults: Arc<Faults>) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let (service, root, faults) = (service.clone(), root.clone(), Arc::clone(&faults));
        connections.spawn(async move {
            let answer = service_fn(move |request| {
                answer(request, service.clone(), root.clone(), Arc::clone(&faults))
            });
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), answer).await;
        });
    }
}

async fn answer(
    mut request: http::Request<Incoming>,
    service: S3Service,
    root: PathBuf,
    faults: Arc<Faults>,
) -> Result<HttpResponse, HttpError> {
    faults.requests.fetch_add(1, Ordering::SeqCst);
    if take(&faults.busy) {
        return Ok(problem(503, "SlowDown"));
    }
    if faults.dialect == Dialect::Google {
        let proof = format!("Bearer {SECRET}");
        let shown = request.headers_mut().remove(http::header::AUTHORIZATION);
        if shown.is_none_or(|shown| shown.as_bytes() != proof.as_bytes()) {
            return Ok(problem(401, "AuthenticationRequired"));
        }
        rename(request.headers_mut(), "x-goog-", "x-amz-");
    }
    let url = Url::parse(&format!("http://h{}", request.uri())).unwrap();
    if url.query().is_some_and(|query| query.split(['=', '&']).any(|name| name == "uploads")) {
        faults.creations.lock().unwrap().push(request.headers().clone());
    }
    let upload = url.query_pairs().find(|(name, _)| name == "uploadId").map(|(_, id)| id.into_owned());
    let refusal = *faults.refusal.lock().unwrap();
    if let Some((which, status, code)) = refusal
        && match which {
            Refused::All => true,
            Refused::Parts => upload.is_some() && request.method() == http::Method::PUT,
            Refused::Completes => upload.is_some() && request.method() == http::Method::POST,
        }
    {
        return Ok(problem(status, code));
    }
    let complete = upload.is_some() && request.method() == http::Method::POST;
    let unknown = upload.is_some_and(|id| !root.join(format!(".upload-{id}.json")).is_file());
    let mut response = hyper::service::Service::call(&service, request).await?;
    if faults.dialect == Dialect::Google {
        rename(response.headers_mut(), "x-amz-", "x-goog-");
    }
    if unknown && response.status() == http::StatusCode::FORBIDDEN {
        return Ok(problem(404, "NoSuchUpload"));
    }
    if complete && response.status().is_success() && take(&faults.lose_completes) {
        return Ok(problem(500, "InternalError"));
    }
    Ok(response)
}

fn rename(headers: &mut http::HeaderMap, from: &str, to: &str) {
    let named: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(from)).cloned().collect();
    for name in named {
        if let Some(value) = headers.remove(&name) {
            let name = name.as_str().replacen(from, to, 1);
            headers.insert(http::HeaderName::try_from(name).unwrap(), value);
        }
    }
}

fn take(counter: &AtomicU32) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

fn problem(status: u16, code: &str) -> HttpResponse {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>test</Message></Error>");
    http::Response::builder().status(status).body(Body::from(body)).unwrap()
}
