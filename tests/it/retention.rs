//! What retention shows before it removes anything.

use reqwest::StatusCode;
use serde_json::Value;

use crate::support::clips;
use crate::support::server::{Role, Start, flux, job_for};

#[tokio::test]
async fn what_would_go_is_shown_and_stays() {
    let server = Start::role(Role::Control).server().await;
    let over = server.submit(&job_for(&clips::mp4(1))).await;
    let waiting = server.submit(&job_for(&clips::mp4(1))).await;
    let (status, _) = server.post(&format!("/api/v1/jobs/{over}/cancel"), &Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let (status, now) = server.get("/api/v1/retention").await;
    assert_eq!((status, &now["jobs"]), (StatusCode::OK, &serde_json::json!([])), "it is kept for a week");
    let (_, found) = server.get("/api/v1/retention?hours=0").await;
    let jobs: Vec<_> = found["jobs"].as_array().unwrap().iter().map(|job| job["id"].clone()).collect();
    assert_eq!(jobs, [over.as_str()], "{found:#}");
    assert_eq!((&found["delete_results"], &found["more"]), (&false.into(), &false.into()));
    let shown = flux(&["retention", "--hours", "0"]).env("FLUX_URL", &server.url).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains(&over) && !shown.contains(&waiting), "{shown}");
    assert_eq!(server.job(&over).await["status"], "cancelled", "looking removes nothing");
    let (status, problem) = server.get("/api/v1/retention?hours=soon").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{problem:#}");
}
