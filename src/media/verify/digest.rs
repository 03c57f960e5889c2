//! SHA-256 of an output, right after the encoder ended: no decode finds every flipped bit (ENCODING §9).

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::PathBuf;

use crate::domain::{Code, Failure};

/// Size and digest of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Bytes.
    pub size: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// Reads the file on a blocking thread (nothing forks there, PROTOCOL §1.29).
///
/// # Errors
/// `verification_failed` when there is no such file, `internal` when it cannot be read.
pub async fn of(path: PathBuf) -> Result<Digest, Failure> {
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => super::failed("the encoder wrote no output"),
        _ => {
            Failure::new(Code::Internal, "The output could not be read back.").with_detail(error.to_string())
        }
    };
    let read = move || {
        let mut file = std::fs::File::open(path)?;
        let (mut context, mut size) = (ring::digest::Context::new(&ring::digest::SHA256), 0_u64);
        let mut buffer = vec![0_u8; 256 * 1024];
        loop {
            let read = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            context.update(&buffer[..read]);
            size += read as u64;
        }
        let sha256 = context.finish().as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Ok(Digest { size, sha256 })
    };
    tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other).flatten().map_err(unreadable)
}
