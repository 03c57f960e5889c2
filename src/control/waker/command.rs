//! The operator's own program: told how many workers should be up, it sees to it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Need, Trouble, Waker, Woken};
use crate::control::shared::Shared;
use crate::media::process::{Spawner, Spec, Stderr, Stdout};

/// The longest it may take; the workers may take longer.
const PATIENCE: Duration = Duration::from_mins(1);

/// A program to run whenever workers are missing.
#[derive(Debug, Clone)]
pub struct Command {
    /// Starts it.
    pub spawner: Spawner,
    /// Absolute path.
    pub program: PathBuf,
    /// Arguments; there is no shell.
    pub args: Vec<OsString>,
    /// Its environment, besides the two numbers.
    pub env: Vec<(OsString, OsString)>,
    /// Where it runs.
    pub folder: PathBuf,
}

#[async_trait]
impl Waker for Command {
    fn name(&self) -> &'static str {
        "command"
    }

    async fn wake(&self, _: &Arc<Shared>, need: Need) -> Woken {
        let wanted = need.up.saturating_add(need.coming).saturating_add(need.workers);
        let numbers = [("WORKERS_WANTED", wanted), ("WORKERS_MISSING", need.workers)];
        let mut spec = Spec::new(&self.program, self.args.iter().cloned(), &self.folder);
        spec.env = self.env.clone();
        spec.env.extend(numbers.map(|(name, number)| (name.into(), number.to_string().into())));
        (spec.stdout, spec.stderr, spec.nice) = (Stdout::Null, Stderr::Inherited, 0);
        match self.run(spec).await {
            Ok(()) => Woken { begun: need.workers, trouble: None },
            Err(problem) => {
                tracing::warn!(program = %self.program.display(), problem, "the command that wakes workers failed");
                Woken { begun: 0, trouble: Some(Trouble::Busy(None)) }
            }
        }
    }
}

impl Command {
    async fn run(&self, spec: Spec) -> Result<(), String> {
        let mut child = self.spawner.spawn(spec).await.map_err(|error| format!("{error:#}"))?;
        match tokio::time::timeout(PATIENCE, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(status.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            // Dropping the child kills it and what it started.
            Err(_) => Err(format!("it took longer than {}s", PATIENCE.as_secs())),
        }
    }
}
