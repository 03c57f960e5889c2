//! `flux completions`.

use clap::CommandFactory;

use super::args::{Cli, CompletionsArgs};
use super::output::data;
use super::{Exit, Outcome};

#[expect(clippy::unnecessary_wraps, reason = "every command ends the same way")]
pub(super) fn run(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "flux", &mut script);
    data(&String::from_utf8_lossy(&script));
    Ok(Exit::Ok)
}
