//! Jobs between other people's servers: FTP, and receivers of HTTP PUT.

use serde_json::{Value, json};

use crate::support::ftp::FtpServer;
use crate::support::inbox::Inbox;
use crate::support::origin::{Fault, Filling, Origin};
use crate::support::server::{Server, Start};
use crate::support::{clips, eventually, sha256};

fn job(source: &Value, destination: &Value) -> Value {
    json!({"source": source, "outputs": [{"preset": "proxy_360p", "destination": destination}]})
}

fn code(job: &Value) -> &str {
    job["outputs"][0]["error"]["code"].as_str().or(job["error"]["code"].as_str()).unwrap_or_default()
}

fn hash(job: &Value) -> &str {
    job["outputs"][0]["result"]["files"][0]["sha256"].as_str().unwrap_or_default()
}

/// A server that trusts the FTP server's authority, and whose log is full.
async fn trusting(ftp: &FtpServer) -> Server {
    Start::default()
        .set("SSL_CERT_FILE", ftp.authority().display().to_string())
        .set("FLUX__LOG__LEVEL", "trace")
        .server()
        .await
}

/// Names that publishing left behind.
fn parts(ftp: &FtpServer) -> Vec<String> {
    ftp.names().into_iter().filter(|name| name.contains(".flux-")).collect()
}

#[tokio::test]
async fn from_ftp_to_ftp_encrypted_and_in_clear() {
    let ftp = FtpServer::start();
    ftp.put("clip.mp4", &std::fs::read(clips::mp4(2)).unwrap());
    let server = trusting(&ftp).await;
    for (source, destination, path) in [
        (ftp.url("clip.mp4"), ftp.url("made/here/{name}-{preset}.mp4"), "made/here/clip-proxy_360p.mp4"),
        (ftp.secure_url("clip.mp4"), ftp.secure_url("safe.mp4"), "safe.mp4"),
    ] {
        let body = job(
            &json!({"kind": "ftp", "url": source}),
            &json!({"kind": "ftp", "url": destination, "overwrite": "fail"}),
        );
        let id = server.submit(&body).await;
        let job = server.finished(&id).await;
        assert_eq!(job["status"], "completed", "{job:#}");
        let shown = job["outputs"][0]["destination"]["url"].as_str().unwrap();
        assert!(shown.ends_with(path) && !shown.contains('@'), "{shown}");
        assert_eq!(hash(&job), sha256(&ftp.get(path).expect("the file is there")));
        let told = job.to_string();
        assert!(!told.contains("pass word") && !told.contains("pass%20word"), "{job:#}");
        // The place is taken now, which is seen before anything is encoded.
        let again = server.finished(&server.submit(&body).await).await;
        assert_eq!((again["status"].as_str(), code(&again)), (Some("failed"), "destination_exists"));
    }
    assert_eq!(parts(&ftp), Vec::<String>::new());
    let log = server.log();
    assert!(!log.contains("pass word") && !log.contains("pass%20word"), "the log has the password");
    server.assert_clean().await;
}

#[tokio::test]
async fn a_set_goes_to_an_ftp_server_whole() {
    let ftp = FtpServer::start();
    let server = trusting(&ftp).await;
    let output = json!({
        "preset": "dash_1080p",
        "video": { "speed": "ultrafast" },
        "destination": {"kind": "ftp", "url": ftp.url("vod/{name}")},
    });
    let body = json!({"source": {"kind": "file", "path": clips::mp4(3)}, "outputs": [output]});
    let job = server.finished(&server.submit(&body).await).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    let files = job["outputs"][0]["result"]["files"].as_array().unwrap();
    assert!(files.len() > 4, "{files:#?}");
    for file in files {
        // After the server's own address, as the client wrote it.
        let path = file["path"].as_str().unwrap().split_once("/vod/").unwrap().1;
        let there = ftp.get(&format!("vod/{path}")).unwrap_or_else(|| panic!("{path} is missing"));
        assert_eq!(file["sha256"], sha256(&there), "{path}");
    }
    assert_eq!(parts(&ftp), Vec::<String>::new());
    server.assert_clean().await;
}

#[tokio::test]
async fn refusals_of_ftp_servers_have_their_codes() {
    let ftp = FtpServer::start();
    ftp.put("clip.mp4", &std::fs::read(clips::mp4(1)).unwrap());
    let server = Server::start().await;
    let stored = json!({"kind": "storage", "path": "{job_id}/out.mp4"});
    let wrong = |url: String| url.replace("pass%20word", "canary");
    for (source, expected) in [
        (wrong(ftp.url("clip.mp4")), "source_forbidden"),
        (ftp.url("none.mp4"), "source_not_found"),
        // Nobody vouches for the certificate here.
        (ftp.secure_url("clip.mp4"), "source_unreachable"),
    ] {
        let body = job(&json!({"kind": "ftp", "url": source}), &stored);
        let (status, answer) = server.post("/api/v1/jobs?dry_run=true", &body).await;
        assert!(status.is_success(), "{answer:#}");
        let id = server.submit(&body).await;
        let job = if expected == "source_unreachable" {
            // It is tried again later; the first attempt says enough.
            eventually("an attempt fails", async || {
                let job = server.job(&id).await;
                (job["attempts"][0]["outcome"] == "failed").then_some(job)
            })
            .await
        } else {
            let job = server.finished(&id).await;
            assert_eq!(code(&job), expected, "{job:#}");
            job
        };
        assert!(!job.to_string().contains("canary"), "{job:#}");
    }
    let body = job(
        &json!({"kind": "file", "path": clips::mp4(1)}),
        &json!({"kind": "ftp", "url": wrong(ftp.url("out.mp4"))}),
    );
    let job = server.finished(&server.submit(&body).await).await;
    assert_eq!(code(&job), "destination_forbidden", "{job:#}");
    assert!(!server.log().contains("canary"));
}

#[tokio::test]
async fn killed_while_it_sends_to_ftp_the_next_run_publishes_one_whole_file() {
    let ftp = FtpServer::start();
    let mut server = trusting(&ftp).await;
    let body = job(
        &json!({"kind": "file", "path": clips::mp4(2)}),
        &json!({"kind": "ftp", "url": ftp.url("out.mp4")}),
    );
    let id = server.submit(&body).await;
    // Anywhere between the part's first byte and the record of the rename.
    eventually("something is sent", async || (!ftp.names().is_empty()).then_some(())).await;
    server.kill();
    let server = server.again().await;
    let job = server.finished(&id).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    assert_eq!(hash(&job), sha256(&ftp.get("out.mp4").expect("the file is there")));
    server.assert_clean().await;
}

#[tokio::test]
async fn from_a_dropping_origin_to_a_receiver_that_is_busy_at_first() {
    let origin = Origin::start(std::fs::read(clips::mp4(2)).unwrap(), Fault::DropsEvery(20_000)).await;
    let receiver = Inbox::start(&[503, 201]).await;
    let server = Server::start().await;
    let destination = json!({
        "kind": "http", "url": receiver.url("/in/{name}.mp4?sig=canary"), "method": "POST",
        "headers": {"X-Api-Key": "canary"},
    });
    let id = server.submit(&job(&json!({"kind": "http", "url": origin.url()}), &destination)).await;
    let job = server.finished(&id).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    assert!(!job.to_string().contains("canary") && !server.log().contains("canary"), "{job:#}");
    let taken = receiver.taken();
    assert_eq!(taken.len(), 2);
    for taken in taken {
        assert!(taken.head.starts_with("post /in/clip.mp4?sig=canary http/1.1\r\n"), "{}", taken.head);
        assert!(
            taken.head.contains("x-api-key: canary\r\n")
                && taken.head.contains("content-type: video/mp4\r\n")
        );
        assert_eq!(hash(&job), sha256(&taken.body));
    }
    server.assert_clean().await;
}

#[tokio::test]
async fn killed_before_the_receiver_answers_the_file_is_sent_again() {
    let receiver = Inbox::start(&[200]).await;
    receiver.hold();
    let mut server = Server::start().await;
    let body = job(
        &json!({"kind": "file", "path": clips::mp4(1)}),
        &json!({"kind": "http", "url": receiver.url("/out.mp4")}),
    );
    let id = server.submit(&body).await;
    eventually("a file is sent", async || (receiver.taken().len() == 1).then_some(())).await;
    server.kill();
    receiver.let_go();
    let server = server.again().await;
    let job = server.finished(&id).await;
    assert_eq!(job["status"], "completed", "{job:#}");
    let taken = receiver.taken();
    assert_eq!(taken.len(), 2, "at least once, and whole each time");
    assert_eq!(hash(&job), sha256(&taken[1].body));
    assert_eq!(taken[0].body.len(), taken[1].body.len());
    server.assert_clean().await;
}

#[tokio::test]
async fn a_receiver_that_refuses_fails_the_job_and_inner_ones_are_not_asked() {
    let receiver = Inbox::start(&[403]).await;
    let source = json!({"kind": "file", "path": clips::mp4(1)});
    let destination = json!({"kind": "http", "url": receiver.url("/out.mp4")});
    let server = Server::start().await;
    let id = server.submit(&job(&source, &destination)).await;
    let failed = server.finished(&id).await;
    assert_eq!(code(&failed), "destination_forbidden", "{failed:#}");
    assert_eq!(failed["attempts"].as_array().unwrap().len(), 1);
    drop(server);
    let server = Start::default().set("FLUX__SOURCES__ALLOW", "192.0.2.1").server().await;
    let (status, answer) = server.post("/api/v1/jobs", &job(&source, &destination)).await;
    assert_eq!(status, 422, "{answer:#}");
    assert_eq!(receiver.taken().len(), 1);
}

/// The most that a process ever held in memory, bytes.
fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// What the caches of sources take on the disk now, bytes.
fn cached(server: &Server) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let inside = |folder: std::path::PathBuf| {
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
    };
    let files = inside(server.data().join("work")).flat_map(inside).flat_map(inside);
    let sources =
        files.filter(|file| file.file_name().is_some_and(|n| n.to_string_lossy().starts_with("source-")));
    sources.filter_map(|file| Some(file.metadata().ok()?.blocks() * 512)).sum()
}

#[tokio::test]
async fn neither_memory_nor_disk_grow_with_the_source() {
    const CACHE: u64 = 64 << 20;
    // A transport stream with 2 GiB of null packets in its middle (ISO 13818-1, PID 0x1FFF): whoever wants its end must
    // read all of it.
    let mut null = [0xff; 188];
    null[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10]);
    let mut clip = std::fs::read(clips::other("ts")).unwrap();
    let end = clip.split_off(clip.len() / 188 / 2 * 188);
    let filling = Filling { piece: null.repeat(1400), times: (2 << 30) / (188 * 1400), end };
    let size = (clip.len() + filling.len()) as u64;
    let origin = Origin::start_long(clip, filling).await;
    let server = Start::default().set("FLUX__SOURCES__CACHE_BYTES", "64MiB").server().await;
    let stored = json!({"kind": "storage", "path": "{job_id}/out.mp4"});
    let id = server.submit(&job(&json!({"kind": "http", "url": origin.url()}), &stored)).await;
    let mut most = 0;
    let job = eventually("the job ends", async || {
        most = most.max(cached(&server));
        let job = server.job(&id).await;
        job["finished_at"].is_string().then_some(job)
    })
    .await;
    assert_eq!(job["status"], "completed", "{job:#}");
    let high = resident(server.pid());
    let sent = origin.sent();
    assert!(sent >= size, "only {sent} of {size} bytes were needed");
    // The file system keeps some blocks about the file itself.
    assert!(
        (CACHE / 2..CACHE + (1 << 20)).contains(&most),
        "{most} bytes on disk of a cache of {CACHE}, {high} in memory"
    );
    assert!(high <= 150 << 20, "{high} bytes of memory for a source of {size}");
    server.assert_clean().await;
}
