//! What the tests stand on: real servers, real clips, a misbehaving origin. Nothing here sleeps for a fixed time.

pub mod canary;
pub mod certs;
pub mod chance;
pub mod clips;
pub mod echo;
pub mod fake;
#[expect(dead_code, reason = "the unit tests of the storage room use the rest")]
pub mod ftp;
pub mod garage;
pub mod inbox;
pub mod moto;
pub mod origin;
pub mod postgres;
pub mod proxy;
pub mod receiver;
pub mod s3;
pub mod server;

use std::time::Duration;

/// How long a test waits for what must happen; far above what it takes, so that only a defect reaches it.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// SHA-256, lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// Waits until `check` gives something, looking again each time the system had time to move.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tick.tick().await;
    }
}
