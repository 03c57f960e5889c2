//! An S3 server in this process, and what it can be made to do.
//!
//! It answers for an upload that it does not know as AWS does (404), where s3s-fs says 403.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError, HttpResponse};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::server::Start;

pub const BUCKET: &str = "results";
pub const KEY_ID: &str = "test-key";
pub const SECRET: &str = "test-secret-canary";

/// A running server; it ends when dropped.
pub struct S3Server {
    pub endpoint: String,
    folder: tempfile::TempDir,
    holding: watch::Sender<Hold>,
    _tasks: JoinSet<()>,
}

/// What becomes of the parts of uploads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    Nothing,
    Parts,
    /// At least one part waits.
    Held,
}

impl S3Server {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let holding = watch::Sender::new(Hold::Nothing);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, service, folder.path().to_owned(), holding.clone()));
        Self { endpoint, folder, holding, _tasks: tasks }
    }

    /// A server that keeps its results here, below the prefix `team/a`.
    pub fn configured(&self) -> Start {
        Start::default()
            .set("FLUX__STORAGE__URL", format!("s3://{BUCKET}/team/a"))
            .set("FLUX__STORAGE__ENDPOINT", &self.endpoint)
            .set("FLUX__STORAGE__ACCESS_KEY_ID", KEY_ID)
            .set("FLUX__STORAGE__SECRET_ACCESS_KEY", SECRET)
    }

    /// The object at a key as the server keeps it.
    pub fn object(&self, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.folder.path().join(BUCKET).join(key)).ok()
    }

    pub fn put(&self, key: &str, bytes: &[u8]) {
        let path = self.folder.path().join(BUCKET).join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Names of the objects in a folder of the bucket.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join(BUCKET).join(folder)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Incomplete uploads and parts of them.
    pub fn leftovers(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.folder.path()).unwrap();
        names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(".upload"))
            .collect()
    }

    /// Answers no part from now on.
    pub fn hold_parts(&self) {
        self.holding.send_replace(Hold::Parts);
    }

    /// Waits until a part is held.
    pub async fn held(&self) {
        self.holding.subscribe().wait_for(|hold| *hold == Hold::Held).await.unwrap();
    }

    pub fn let_go(&self) {
        self.holding.send_replace(Hold::Nothing);
    }
}

async fn accept(listener: TcpListener, service: S3Service, root: PathBuf, holding: watch::Sender<Hold>) {
    let root = Arc::new(root);
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let (service, root, holding) = (service.clone(), Arc::clone(&root), holding.clone());
        connections.spawn(async move {
            let answer = service_fn(move |request| {
                answer(request, service.clone(), Arc::clone(&root), holding.clone())
            });
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), answer).await;
        });
    }
}

async fn answer(
    request: http::Request<Incoming>,
    service: S3Service,
    root: Arc<PathBuf>,
    holding: watch::Sender<Hold>,
) -> Result<HttpResponse, HttpError> {
    let upload = url::Url::parse(&format!("http://h{}", request.uri())).unwrap();
    let upload = upload.query_pairs().find(|(name, _)| name == "uploadId").map(|(_, id)| id.into_owned());
    if upload.is_some() && request.method() == http::Method::PUT {
        holding.send_if_modified(|hold| {
            let first = *hold == Hold::Parts;
            if first {
                *hold = Hold::Held;
            }
            first
        });
        let _ = holding.subscribe().wait_for(|hold| *hold == Hold::Nothing).await;
    }
    let unknown = upload.is_some_and(|id| !root.join(format!(".upload-{id}.json")).is_file());
    let response = hyper::service::Service::call(&service, request).await?;
    if unknown && response.status() == http::StatusCode::FORBIDDEN {
        let body = "<?xml version=\"1.0\"?><Error><Code>NoSuchUpload</Code><Message>gone</Message></Error>";
        return Ok(http::Response::builder().status(404).body(Body::from(body.to_owned())).unwrap());
    }
    Ok(response)
}
