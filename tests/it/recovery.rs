//! What holds after any end: every job that was acknowledged ends once, and nothing else stays.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::chance::Chance;
use crate::support::origin::{Fault, Origin};
use crate::support::server::{Server, Start, job_for, processes_below};
use crate::support::{clips, eventually, sha256};

/// How often the job's whole history says that it ended.
async fn ends(server: &Server, id: &str) -> usize {
    let stream =
        server.http.get(format!("{}/api/v1/jobs/{id}/stream", server.url)).header("last-event-id", "1");
    let text = stream.send().await.unwrap().text().await.unwrap();
    let field = |block: &str, name: &str| {
        block.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    let terminal = |block: &&str| {
        let data: Value =
            field(block, "data:").and_then(|data| serde_json::from_str(&data).ok()).unwrap_or_default();
        let ended = matches!(data["status"].as_str(), Some("completed" | "failed" | "cancelled"));
        ended && field(block, "event:").as_deref() != Some("output")
    };
    text.split("\n\n").filter(terminal).count()
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "the seed repeats a run that failed")]
async fn killed_at_any_moment_every_acknowledged_job_ends_once() {
    #[expect(clippy::disallowed_methods, reason = "to repeat a run that failed")]
    let seed = match std::env::var("FLUX_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => u64::from(SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos()),
    };
    eprintln!("FLUX_TEST_SEED={seed}");
    let mut chance = Chance::new(seed);
    let mut server = Server::start().await;
    let mut ids = Vec::new();
    for round in 0..8 {
        for _ in 0..=chance.below(2) {
            ids.push(server.submit(&job_for(&clips::mp4(1))).await);
        }
        match round % 4 {
            // Nothing but the 202 was said.
            0 => {}
            // The narrow window between the permit and the record.
            1 => {
                let last = ids.last().unwrap().clone();
                eventually("it is published", async || {
                    let job = server.job(&last).await;
                    let status = job["outputs"][0]["status"].as_str().unwrap_or_default();
                    matches!(status, "uploading" | "completed").then_some(())
                })
                .await;
            }
            // The moment is what is tried, therefore the wait.
            _ => tokio::time::sleep(Duration::from_millis(chance.below(1_500))).await,
        }
        server.kill();
        server = server.again().await;
    }
    for id in &ids {
        let job = server.finished(id).await;
        let file = server.data().join(format!("storage/{id}/out.mp4"));
        if job["status"] == "completed" {
            assert_eq!(
                job["outputs"][0]["result"]["files"][0]["sha256"],
                sha256(&std::fs::read(&file).unwrap()),
                "{job:#}"
            );
        } else {
            // Only a job that was running at six kills may be blamed for them.
            assert_eq!(job["error"]["code"], "worker_lost", "{job:#}");
            assert!(job["attempts"].as_array().unwrap().len() > 5 && !file.exists(), "{job:#}");
        }
        assert_eq!(ends(&server, id).await, 1, "{job:#}");
    }
    server.assert_clean().await;
}

#[tokio::test]
async fn a_job_that_kills_the_server_at_every_start_ends_and_the_next_one_runs() {
    let mut server = Start::default().set("FLUX__WORKER__SLOTS", "1").server().await;
    let poison = server.submit(&job_for(&clips::long(60))).await;
    let good = server.submit(&job_for(&clips::mp4(1))).await;
    for _ in 0..6 {
        eventually("it runs", async || (server.job(&poison).await["status"] == "running").then_some(()))
            .await;
        server.kill();
        server = server.again().await;
    }
    let job = server.finished(&poison).await;
    assert_eq!(
        (job["status"].as_str(), job["error"]["code"].as_str()),
        (Some("failed"), Some("worker_lost")),
        "{job:#}"
    );
    assert_eq!(job["attempts"].as_array().unwrap().len(), 6);
    assert_eq!(server.finished(&good).await["status"], "completed");
    server.assert_clean().await;
}

#[tokio::test]
async fn sources_given_to_the_server_go_with_their_jobs_and_results_stay() {
    use base64::Engine as _;
    let server = Server::start().await;
    let bytes = std::fs::read(clips::mp4(1)).unwrap();
    let mut body = job_for(&clips::mp4(1));
    body["source"] =
        json!({"kind": "inline", "data": base64::engine::general_purpose::STANDARD.encode(&bytes)});
    let id = server.submit(&body).await;
    let kept = server.data().join("inline").join(&id);
    assert!(kept.exists());
    assert_eq!(server.finished(&id).await["status"], "completed");

    // What crashes left between a file and its row, and what is none of ours.
    let orphan = server.data().join("inline/01900000-0000-7000-8000-000000000001");
    let upload = server.data().join("uploads/01900000-0000-7000-8000-000000000002");
    let part = server.data().join("uploads/01900000-0000-7000-8000-000000000003.part");
    let foreign = server.data().join("inline/notes.txt");
    for path in [&orphan, &upload, &part, &foreign] {
        std::fs::write(path, b"x").unwrap();
    }
    let server = server.again().await;
    eventually("orphans are swept", async || {
        (![&orphan, &upload, &part].iter().any(|path| path.exists())).then_some(())
    })
    .await;
    assert!(kept.exists(), "its job is known");
    assert!(foreign.exists());

    let url = format!("{}/api/v1/jobs/{id}", server.url);
    assert_eq!(server.http.delete(url).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    let server = server.again().await;
    eventually("the source is swept", async || (!kept.exists()).then_some(())).await;
    assert!(server.data().join(format!("storage/{id}/out.mp4")).exists());
}

#[tokio::test]
async fn an_upload_that_arrived_and_was_not_recorded_is_recorded_by_the_next_try() {
    let server = Server::start().await;
    let bytes = std::fs::read(clips::mp4(1)).unwrap();
    let asked = json!({"filename": "a.mp4", "size": bytes.len()});
    let (_, place) = server.post("/api/v1/uploads", &asked).await;
    let id = place["id"].as_str().unwrap();
    // The server dies after the rename and before the row.
    std::fs::write(server.data().join("uploads").join(id), &bytes).unwrap();
    let server = server.again().await;
    let url = format!("{}{}", server.url, place["url"].as_str().unwrap());
    let put = server.http.put(url).body(bytes).send().await.unwrap();
    assert_eq!(put.status(), StatusCode::OK, "{}", put.text().await.unwrap());
    let mut body = job_for(&clips::mp4(1));
    body["source"] = json!({"kind": "upload", "id": id});
    let job = server.submit(&body).await;
    assert_eq!(server.finished(&job).await["status"], "completed");
}

/// A mounted file system of so many MiB; unmounted when dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// `None` where mounting is not permitted.
    fn mount(at: &Path, mib: u32) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test needs a disk of its own")]
        let output = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(at)
            .output();
        output.is_ok_and(|output| output.status.success()).then(|| Self(at.to_owned()))
    }

    /// Takes all but so many bytes.
    fn fill(&self, leave: u64) {
        let disk = rustix::fs::statvfs(&self.0).unwrap();
        let free = disk.f_bavail * disk.f_frsize;
        let filler = std::fs::File::create(self.0.join("filler")).unwrap();
        rustix::fs::fallocate(
            &filler,
            rustix::fs::FallocateFlags::empty(),
            0,
            free.saturating_sub(leave).max(1),
        )
        .unwrap();
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        #[expect(clippy::disallowed_methods, reason = "the test needs a disk of its own")]
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Runs a test of this file again as the root of a user namespace of its own, who may mount.
#[expect(clippy::disallowed_methods, reason = "the test starts itself")]
fn again_in_a_namespace(test: &str) {
    const INSIDE: &str = "FLUX_TEST_INSIDE_NAMESPACE";
    assert!(
        std::env::var_os(INSIDE).is_none(),
        "not even the root of a user namespace may mount a tmpfs here"
    );
    let test = format!("recovery::{test}");
    let output = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture"])
        .env(INSIDE, "yes")
        .output()
        .expect("unshare (of util-linux) makes the namespace where one may mount");
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "a full disk needs a small file system: run this as root, or permit user namespaces.\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn a_full_disk_fails_jobs_by_name_and_not_the_server() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let Some(disk) = SmallDisk::mount(&dir.path().join("data"), 24) else {
        return again_in_a_namespace("a_full_disk_fails_jobs_by_name_and_not_the_server");
    };
    // Nothing is set aside: here the disk fills up under a run.
    let start = Start::default().below(Arc::clone(&dir)).set("FLUX__WORKER__DISK_FLOOR", "0");
    let server = start.set("FLUX__QUEUE__MAX_ATTEMPTS", "1").server().await;
    assert_eq!(server.encode(&clips::mp4(1)).await["status"], "completed");

    // A source from elsewhere needs room for its cache beside what stays free.
    let origin = Origin::start(std::fs::read(clips::mp4(1)).unwrap(), Fault::None).await;
    let mut body = job_for(&clips::mp4(1));
    body["source"] = json!({"kind": "http", "url": origin.url()});
    let job = server.finished(&server.submit(&body).await).await;
    assert_eq!(job["error"]["code"], "disk_full", "{job:#}");

    // Room for the record, and for less than one output.
    disk.fill(640 * 1024);
    let job = server.encode(&clips::long(20)).await;
    assert_eq!(
        (job["status"].as_str(), job["error"]["code"].as_str()),
        (Some("failed"), Some("disk_full")),
        "{job:#}"
    );
    assert_eq!(server.get("/health").await.0, StatusCode::OK);
    disk.free();

    // Room for nothing: a job is refused, not lost.
    disk.fill(0);
    let refused = eventually("the record is full", async || {
        let (status, problem) = server.post("/api/v1/jobs", &job_for(&clips::mp4(1))).await;
        (status != StatusCode::ACCEPTED).then_some((status, problem))
    })
    .await;
    let full = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::INSUFFICIENT_STORAGE];
    assert!(full.contains(&refused.0), "{refused:#?}");
    assert_eq!(server.get("/health").await.0, StatusCode::OK);
    disk.free();
    assert_eq!(server.encode(&clips::mp4(1)).await["status"], "completed");
    let (_, list) = server.get("/api/v1/jobs?limit=100").await;
    for job in list["jobs"].as_array().unwrap() {
        server.finished(job["id"].as_str().unwrap()).await;
    }
    server.assert_clean().await;
    drop(server);
    assert!(processes_below(dir.path()).is_empty());
}

#[tokio::test]
async fn a_job_waits_for_room_on_the_disk_and_is_not_failed() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let Some(disk) = SmallDisk::mount(&dir.path().join("data"), 24) else {
        return again_in_a_namespace("a_job_waits_for_room_on_the_disk_and_is_not_failed");
    };
    let start = Start::default().below(Arc::clone(&dir)).set("FLUX__WORKER__DISK_FLOOR", "8MiB");
    let server = start.server().await;
    disk.fill(6 << 20);
    let id = server.submit(&job_for(&clips::mp4(1))).await;
    eventually("the worker refuses for lack of room", async || {
        server.log().contains("no room for more runs").then_some(())
    })
    .await;
    assert_eq!(server.job(&id).await["status"], "queued");
    disk.free();
    assert_eq!(server.finished(&id).await["status"], "completed");
}
