//! What a tool may touch: its source, its work folder, the system's libraries, and one port of this machine.
//!
//! Media are hostile and decoders have holes, so a tool that was taken over must be worth nothing: it sees no other
//! file, no other program's memory, no network, and may start no program. The rules are set by the launcher, on itself,
//! right before it becomes the tool (STACK §7). Each part stands alone: Landlock for files, ports and signals
//! ([`reach`]), seccomp for system calls that no tool needs ([`calls`]), rlimits for what both cannot count.

mod calls;
mod reach;

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{NICE, RunError, Spawner, Spec, run};
use crate::domain::SandboxMode;
use crate::media::Input;

/// The first Landlock that knows ports; older ones only know files.
const PORTS: u32 = 4;
/// The first that keeps signals inside.
const SIGNALS: u32 = 6;
/// A look takes some milliseconds; a machine that starts many things at once takes longer.
const LOOK_TIME: Duration = Duration::from_secs(20);

/// How a worker confines its tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// What must be there.
    pub mode: SandboxMode,
    /// Files and folders that tools may read and run besides the system's own.
    pub readable: Vec<PathBuf>,
    /// Most bytes of private memory of one tool; `None` = no bound.
    pub memory: Option<u64>,
    /// Largest file of one encoder, bytes. Other tools write none at all.
    pub file_size: u64,
    /// Most open files of one tool.
    pub open_files: u64,
    /// Niceness of tools, 0 to 19.
    pub nice: u8,
}

impl Sandbox {
    /// No rules and no bounds.
    #[must_use]
    pub const fn off() -> Self {
        Self {
            mode: SandboxMode::Off,
            readable: Vec::new(),
            memory: None,
            file_size: u64::MAX,
            open_files: 1024,
            nice: NICE,
        }
    }
}

/// What one tool needs of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach {
    /// Files it reads.
    pub read: Vec<PathBuf>,
    /// Folder it writes in.
    pub write: Option<PathBuf>,
    /// Port it connects to.
    pub port: Option<u16>,
}

impl Reach {
    /// Nothing but the system's libraries.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// A tool that reads this.
    #[must_use]
    pub fn reading(input: &Input) -> Self {
        match input {
            Input::File(path) => Self { read: vec![path.clone()], ..Self::default() },
            Input::Loopback { url } => {
                let port = url::Url::parse(url).ok().and_then(|url| url.port());
                Self { port, ..Self::default() }
            }
        }
    }

    /// The same tool, when it writes below `folder`.
    #[must_use]
    pub fn writing(self, folder: &Path) -> Self {
        Self { write: Some(folder.to_owned()), ..self }
    }
}

/// What was found to hold, by trying it from inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Confined {
    /// Version of Landlock in use; 0 = none.
    pub landlock: u32,
    /// Files elsewhere cannot be opened.
    pub files: bool,
    /// Other ports cannot be connected to.
    pub ports: bool,
    /// System calls are filtered: no datagram socket can be had.
    pub calls: bool,
}

impl Confined {
    /// The parts that hold, for people.
    #[must_use]
    pub fn active(&self) -> Vec<String> {
        let parts = [
            (self.files, format!("landlock files (ABI {})", self.landlock)),
            (self.ports, "landlock network: only the gateway's port".to_owned()),
            (self.landlock >= SIGNALS, "landlock signals".to_owned()),
            (self.calls, "seccomp".to_owned()),
        ];
        parts.into_iter().filter_map(|(holds, part)| holds.then_some(part)).collect()
    }

    /// The parts that do not, and what that means.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let parts = [
            (self.files, "no landlock: ffmpeg may read every file that this user may"),
            (self.ports, "no landlock for networks (Linux 6.7): ffmpeg may open TCP connections"),
            (self.calls, "no seccomp: ffmpeg may use every system call"),
        ];
        parts.into_iter().filter_map(|(holds, part)| (!holds).then_some(part)).collect()
    }
}

/// Why it is not known what holds.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The launcher did not run to its end.
    #[error("trying the sandbox")]
    Run(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It ended badly.
    #[error("the sandbox cannot be set up: {0}")]
    Refused(String),
}

impl Spawner {
    /// Tries the sandbox: a launcher confines itself and reaches for what it must not.
    ///
    /// # Errors
    /// The launcher did not run, or could not confine itself although it had to.
    pub async fn look(&self) -> Result<Confined, LookError> {
        let mut spec = Spec::new(Path::new(""), [""; 0], "/");
        spec.reach = Some(Reach { port: Some(TRIED.0), ..Reach::default() });
        let ended = run(self, spec, (LOOK_TIME, 1024), &CancellationToken::new()).await;
        let ended = ended.map_err(|error: RunError| LookError::Run(Box::new(error)))?;
        if !ended.status.success() {
            let said = ended.log.last().cloned();
            return Err(LookError::Refused(said.unwrap_or_else(|| ended.status.to_string())));
        }
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        Ok(read_look(&said))
    }
}

/// The port that is allowed during a look, and the one that is tried. Nobody listens on either.
const TRIED: (u16, u16) = (2, 1);

/// Confines this process, for good.
///
/// # Errors
/// A part is missing, and `mode` says that it must not.
pub(super) fn confine(
    mode: SandboxMode,
    reach: &Reach,
    readable: &[PathBuf],
    program: &Path,
) -> Result<u32, String> {
    let required = mode == SandboxMode::Required;
    if mode == SandboxMode::Off {
        return Ok(0);
    }
    let version = match reach::confine(reach, readable, program) {
        Ok(version) if required && version < PORTS => {
            return Err(format!("landlock {version} of this kernel is too old"));
        }
        Ok(version) => version,
        Err(error) if required => return Err(format!("landlock: {error}")),
        Err(_) => 0,
    };
    match calls::confine(reach.port.is_some(), !is_script(program)) {
        Err(error) if required => Err(format!("seccomp: {error}")),
        // What is missing was found and told when the worker began.
        Ok(()) | Err(_) => Ok(version),
    }
}

/// Whether a program is a wrapper of the operator's, which may start programs.
fn is_script(program: &Path) -> bool {
    let mut head = [0; 2];
    File::open(program).and_then(|mut file| file.read_exact(&mut head)).is_ok() && &head == b"#!"
}

/// Reaches for what is forbidden, and says how it went.
pub(super) fn try_out(version: u32) -> String {
    let denied = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let files = File::open("/etc/passwd").err().is_some_and(denied);
    let ports = TcpStream::connect((Ipv4Addr::LOCALHOST, TRIED.1)).err().is_some_and(denied);
    let calls = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).err().is_some_and(denied);
    format!("{version} {files} {ports} {calls}")
}

fn read_look(said: &str) -> Confined {
    let mut words = said.split_whitespace();
    let landlock = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let mut holds = || words.next() == Some("true");
    Confined { landlock, files: holds(), ports: holds(), calls: holds() }
}

#[cfg(test)]
mod tests;
