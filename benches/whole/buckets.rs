//! From bucket to bucket: what that costs over local files, and what it saves over fetching all, encoding, sending all.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use object_store::ObjectStoreExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::clip;
use super::overhead::{PRESET, bare, bare_arguments};
use super::process::{Server, job};
use super::report::{Report, median, percentile};

const ROUNDS: usize = 3;
const BUCKET: &str = "footage";
const SOURCE: &str = "in/camera.mp4";
const KEY: &str = "bench";

pub(crate) async fn run(report: &mut Report) {
    eprintln!("buckets");
    let (clip, work) = (clip::hd(30), tempfile::tempdir().expect("a folder"));
    let arguments = bare_arguments(&clip).await;
    let mut tasks = JoinSet::new();
    let bucket = serve(work.path(), &clip, &mut tasks).await;
    let server = Server::start(&[]);
    server.settled().await;
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let mut took = [0.0; 2];
        for turn in 0..2 {
            let side = (round + turn) % 2;
            let body = if side == 0 { job(&clip, PRESET, None) } else { between(&bucket) };
            took[side] = through_flux(&server, &body).await;
        }
        eprintln!("  local {:.2} s, S3 to S3 {:.2} s", took[0], took[1]);
        ratios.push(took[1] / took[0]);
    }
    add(report, "S3 to S3 / file to file, loopback", &ratios, "≤ 1.10");

    let spent = seconds(async || {
        bare(&arguments, work.path());
    })
    .await;
    let bytes = std::fs::metadata(&clip).expect("the clip").len() as f64;
    let (slow, [up, down]) = throttled(bucket.trim_start_matches("http://"), bytes / spent, &mut tasks).await;
    let (mut ratios, mut fetched, mut given) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut took = [0.0; 2];
        for turn in 0..2 {
            let side = (round + turn) % 2;
            took[side] = if side == 0 {
                seconds(async || by_steps(&slow, &arguments, work.path()).await).await
            } else {
                let before = [up.carried(), down.carried()];
                let took = through_flux(&server, &between(&slow)).await;
                fetched.push((down.carried() - before[1]) as f64 / bytes);
                given.push((up.carried() - before[0]) as f64 / bytes);
                took
            };
        }
        eprintln!("  fetch, encode, send {:.2} s, flux {:.2} s", took[0], took[1]);
        ratios.push(took[1] / took[0]);
    }
    add(report, "  bytes that flux fetched / those of the source", &fetched, "");
    add(report, "  bytes that flux sent / those of the source", &given, "");
    add(report, "S3 to S3 / fetch all, encode, send all, slow network", &ratios, "≤ 0.85");
}

fn add(report: &mut Report, what: &str, ratios: &[f64], target: &str) {
    let (least, most) = (percentile(ratios, 0.0), percentile(ratios, 1.0));
    report.add(what, format!("{:.3}  ({least:.3} to {most:.3})", median(ratios)), target);
}

async fn seconds(what: impl AsyncFnOnce()) -> f64 {
    let begun = Instant::now();
    what().await;
    begun.elapsed().as_secs_f64()
}

async fn through_flux(server: &Server, body: &Value) -> f64 {
    seconds(async || {
        let id = server.submit(body).await;
        server.completed(&id).await;
    })
    .await
}

/// A job from bucket to bucket.
fn between(endpoint: &str) -> Value {
    let place = |path: &str| {
        json!({"kind": "s3", "endpoint": endpoint, "bucket": BUCKET, "path": path, "region": "us-east-1",
               "access_key_id": KEY, "secret_access_key": KEY})
    };
    json!({"source": place(SOURCE), "outputs": [{"preset": PRESET, "destination": place("out/{job_id}.mp4")}]})
}

/// What a script does: everything here, then the encode, then everything there.
async fn by_steps(endpoint: &str, arguments: &[String], work: &Path) {
    let store = client(endpoint);
    let fetched = store.get(&SOURCE.into()).await.expect("an object").bytes().await.expect("its bytes");
    std::fs::write(work.join("fetched.mp4"), &fetched).expect("it is kept");
    // The same picture as the local clip, which the arguments name.
    bare(arguments, work);
    let made = std::fs::read_dir(work).expect("the folder").flatten().map(|entry| entry.path());
    let made = made.filter(|path| path.is_file() && !path.ends_with("fetched.mp4"));
    let made = made.max_by_key(|path| path.metadata().map_or(0, |data| data.len())).expect("an output");
    let bytes = std::fs::read(made).expect("the output");
    store.put(&"out/by-steps.mp4".into(), bytes.into()).await.expect("it is stored");
}

fn client(endpoint: &str) -> AmazonS3 {
    let builder =
        AmazonS3Builder::new().with_endpoint(endpoint).with_bucket_name(BUCKET).with_allow_http(true);
    let builder = builder.with_access_key_id(KEY).with_secret_access_key(KEY).with_region("us-east-1");
    builder.build().expect("a client")
}

/// An S3 server in this process with the clip in it; its endpoint.
async fn serve(work: &Path, clip: &Path, tasks: &mut JoinSet<()>) -> String {
    let root = work.join("s3");
    let source = root.join(BUCKET).join(SOURCE);
    std::fs::create_dir_all(source.parent().expect("a folder")).expect("a bucket");
    std::fs::copy(clip, source).expect("the clip");
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(&root).expect("a root"));
    builder.set_auth(SimpleAuth::from_single(KEY, KEY));
    let service = builder.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            connections.spawn(async move {
                let _ =
                    Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    endpoint
}

/// One direction of a network.
struct Way {
    /// When the next byte may go.
    free: Mutex<Instant>,
    carried: AtomicU64,
}

impl Way {
    /// Bytes so far.
    fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

/// The way to `to` with so many bytes a second in each direction, all connections together; its endpoint, and the ways
/// there and back.
async fn throttled(to: &str, rate: f64, tasks: &mut JoinSet<()>) -> (String, [Arc<Way>; 2]) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let way = || Arc::new(Way { free: Mutex::new(Instant::now()), carried: AtomicU64::new(0) });
    let (to, ways) = (to.to_owned(), [way(), way()]);
    let both = ways.clone();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(&to).await.expect("the server is there");
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            let [up, down] = ways.clone();
            connections.spawn(carry(near_in, far_out, up, rate));
            connections.spawn(carry(far_in, near_out, down, rate));
        }
    });
    (endpoint, both)
}

async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    way: Arc<Way>,
    rate: f64,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        let until = {
            let mut free = way.free.lock().expect("unpoisoned");
            *free = (*free).max(Instant::now()) + Duration::from_secs_f64(size as f64 / rate);
            *free
        };
        way.carried.fetch_add(size as u64, Ordering::Relaxed);
        tokio::time::sleep_until(until.into()).await;
        if to.write_all(&buffer[..size]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
