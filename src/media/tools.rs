//! Which ffmpeg this is and what it can really do: an encoder counts only after it has encoded a frame here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Access;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::process::{Finished, Reach, Spawner, Spec, run};
use crate::domain::{Code, Failure};

/// The encoders flux can ask for.
pub const ENCODERS: &[&str] =
    &["libx264", "libx265", "libsvtav1", "libvpx-vp9", "aac", "libopus", "libmp3lame"];
/// The filters whose absence changes what flux can do.
pub const FILTERS: &[&str] = &["zscale", "tonemap", "bwdif", "ebur128"];

/// Where a bare program name is looked for. `PATH` is the configuration's to read; it may pass an absolute path.
const FOLDERS: &[&str] = &["/usr/local/bin", "/usr/bin", "/bin", "/opt/ffmpeg/bin", "/opt/homebrew/bin"];
/// Encoders proved at once: each takes about a core for 50 ms.
const AT_ONCE: usize = 4;
/// A tiny encode takes about 0.1 s; a loaded machine may take long, and a hung tool must not stop the start.
const PROOF_TIME: Duration = Duration::from_secs(20);

/// Where the tools are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// Absolute path of ffmpeg.
    pub ffmpeg: PathBuf,
    /// Absolute path of ffprobe.
    pub ffprobe: PathBuf,
}

/// What the tools can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// ffmpeg's version, for example `5.1.9-0+deb12u1`.
    pub version: String,
    /// Those of [`ENCODERS`] that encoded a frame.
    pub encoders: BTreeSet<&'static str>,
    /// Those of [`FILTERS`] that are built in.
    pub filters: BTreeSet<&'static str>,
}

/// Why the tools cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// No such executable file.
    #[error("{0} is not installed or not executable")]
    Missing(String),
    /// It is there, but is not what it should be.
    #[error("{name} does not answer as expected: {said}")]
    Strange {
        /// The program.
        name: &'static str,
        /// What it said instead.
        said: String,
    },
}

impl From<ToolError> for Failure {
    fn from(error: ToolError) -> Self {
        Self::new(Code::ToolMissing, "ffmpeg is missing or unusable on the worker.")
            .with_detail(error.to_string())
    }
}

impl Tools {
    /// Finds both programs without running them (well below a millisecond), so that a server is ready at once.
    ///
    /// # Errors
    /// [`ToolError::Missing`], naming the program.
    pub fn locate(ffmpeg: &Path, ffprobe: &Path) -> Result<Self, ToolError> {
        Ok(Self { ffmpeg: find(ffmpeg)?, ffprobe: find(ffprobe)? })
    }

    /// Finds both programs and proves what they can do: [`Tools::locate`], then [`Tools::prove`].
    ///
    /// # Errors
    /// See [`ToolError`].
    pub async fn detect(
        spawner: &Spawner,
        ffmpeg: &Path,
        ffprobe: &Path,
    ) -> Result<(Self, Capabilities), ToolError> {
        let tools = Self::locate(ffmpeg, ffprobe)?;
        let capabilities = tools.prove(spawner).await?;
        Ok((tools, capabilities))
    }

    /// Asks the version and the filters and makes one tiny encode per encoder, some at a time. Ten processes,
    /// about 1 s of CPU (2 s of wall time measured on two busy cores), so it belongs in the background of a start.
    ///
    /// # Errors
    /// [`ToolError::Strange`] when a program is not what its name says. A missing encoder is not an error.
    pub async fn prove(&self, spawner: &Spawner) -> Result<Capabilities, ToolError> {
        let version = async {
            let said = self.ask(spawner, "ffmpeg", &["-version"]).await?;
            read_version(&said, "ffmpeg")
                .ok_or(ToolError::Strange { name: "ffmpeg", said: first_line(&said) })
        };
        let probe = async {
            let said = self.ask(spawner, "ffprobe", &["-version"]).await?;
            read_version(&said, "ffprobe")
                .ok_or(ToolError::Strange { name: "ffprobe", said: first_line(&said) })
        };
        let filters = async {
            let said = self.ask(spawner, "ffmpeg", &["-hide_banner", "-filters"]).await?;
            Ok(listed(&said, FILTERS))
        };
        let answers = async { tokio::try_join!(version, probe, filters) };
        let (answers, encoders) = tokio::join!(answers, self.proved(spawner));
        let (version, _, filters) = answers?;
        Ok(Capabilities { version, encoders, filters })
    }

    /// Those of [`ENCODERS`] that work, tried some at a time. Owned tasks: with streams over borrowed names the
    /// compiler cannot see that the whole is `Send`.
    async fn proved(&self, spawner: &Spawner) -> BTreeSet<&'static str> {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut proofs = JoinSet::new();
        for encoder in ENCODERS {
            let (tools, spawner, turns) = (self.clone(), spawner.clone(), Arc::clone(&turns));
            proofs.spawn(async move {
                let _turn = turns.acquire().await;
                tools.encodes(&spawner, encoder).await.then_some(*encoder)
            });
        }
        proofs.join_all().await.into_iter().flatten().collect()
    }

    async fn ask(&self, spawner: &Spawner, name: &'static str, args: &[&str]) -> Result<String, ToolError> {
        let program = if name == "ffprobe" { &self.ffprobe } else { &self.ffmpeg };
        let finished = self.finish(spawner, Spec::new(program, args, "/")).await;
        let strange = |said: String| ToolError::Strange { name, said };
        let finished = finished.map_err(strange)?;
        if !finished.status.success() {
            return Err(strange(finished.log.last().cloned().unwrap_or_else(|| finished.status.to_string())));
        }
        Ok(String::from_utf8_lossy(&finished.stdout).into_owned())
    }

    async fn encodes(&self, spawner: &Spawner, encoder: &str) -> bool {
        // 64x64 is the least SVT-AV1 takes (MEDIA-RULES §1.17).
        let source = match encoder {
            "aac" | "libopus" | "libmp3lame" => "anullsrc=r=48000:cl=stereo:d=0.1",
            _ => "color=s=64x64:r=25:d=0.04",
        };
        let args = ["-nostdin", "-v", "error", "-f", "lavfi", "-i", source, "-c", encoder, "-f", "null", "-"];
        self.finish(spawner, Spec::new(&self.ffmpeg, args, "/")).await.is_ok_and(|f| f.status.success())
    }

    /// Confined as an encode is: what works only outside the sandbox does not work.
    async fn finish(&self, spawner: &Spawner, spec: Spec) -> Result<Finished, String> {
        run(spawner, spec.confined(Reach::nothing()), (PROOF_TIME, 256 * 1024), &CancellationToken::new())
            .await
            .map_err(|e| e.to_string())
    }
}

fn find(program: &Path) -> Result<PathBuf, ToolError> {
    let runs = |path: &Path| path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok();
    let candidates: Vec<PathBuf> = if program.components().count() > 1 {
        std::path::absolute(program).into_iter().collect()
    } else {
        FOLDERS.iter().map(|folder| Path::new(folder).join(program)).collect()
    };
    candidates
        .into_iter()
        .find(|path| runs(path))
        .ok_or_else(|| ToolError::Missing(program.display().to_string()))
}

/// `ffmpeg version 5.1.9-0+deb12u1 Copyright …`
fn read_version(said: &str, name: &str) -> Option<String> {
    let rest = said.strip_prefix(name)?.strip_prefix(" version ")?;
    rest.split_whitespace().next().map(str::to_owned)
}

fn first_line(said: &str) -> String {
    said.lines().next().unwrap_or("nothing").chars().take(200).collect()
}

/// The wanted names in a `-filters` table (flags, name, shape, description).
fn listed(said: &str, wanted: &[&'static str]) -> BTreeSet<&'static str> {
    let names: BTreeSet<&str> = said.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    wanted.iter().copied().filter(|name| names.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::process::Launcher;

    #[test]
    fn versions_and_tables_are_read() {
        let said =
            "ffmpeg version 5.1.9-0+deb12u1 Copyright (c) 2000-2026 the FFmpeg developers\nbuilt with gcc";
        assert_eq!(read_version(said, "ffmpeg").as_deref(), Some("5.1.9-0+deb12u1"));
        assert_eq!(read_version("bash: ffmpeg: nope", "ffmpeg"), None);
        let table = "Filters:\n  T.. = Timeline support\n ... zscale            V->V       Apply resizing\n TSC tonemap  V->V  x\n";
        assert_eq!(listed(table, FILTERS), BTreeSet::from(["zscale", "tonemap"]));
    }

    #[test]
    fn a_missing_tool_is_named() {
        let error = Tools::locate(Path::new("/nowhere/ffmpeg"), Path::new("ffprobe")).unwrap_err();
        assert_eq!(error.to_string(), "/nowhere/ffmpeg is not installed or not executable");
        assert_eq!(Failure::from(error).code, Code::ToolMissing);
    }

    #[tokio::test]
    async fn encoders_are_proved_by_encoding() {
        let spawner = Spawner::start(Launcher::Direct).unwrap();
        let (tools, found) =
            Tools::detect(&spawner, Path::new("ffmpeg"), Path::new("ffprobe")).await.unwrap();
        assert!(tools.ffmpeg.is_absolute());
        assert!(found.encoders.contains("libx264") && found.encoders.contains("aac"), "{found:?}");
        assert!(!tools.encodes(&spawner, "libnosuch").await);
        let wrong = Tools { ffmpeg: "/bin/true".into(), ffprobe: tools.ffprobe };
        assert!(matches!(wrong.prove(&spawner).await, Err(ToolError::Strange { name: "ffmpeg", .. })));
    }
}
