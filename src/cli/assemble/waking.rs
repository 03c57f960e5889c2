//! How workers that are down are brought up, as configured.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context;

use super::super::Failed;
use crate::config::{self, Surroundings, Waker};
use crate::control::{Children, Command, Fly, How, Waking};
use crate::media::process::{Launcher, Sandbox, Spawner};

pub(super) fn waking(plan: &config::Waking) -> Result<Waking, Failed> {
    let how = match &plan.waker {
        Waker::Nobody => How::Nobody,
        Waker::Connect => How::Connect,
        Waker::Process(shared) => How::Process(Box::new(children(shared)?)),
        Waker::Command(words) => How::Command(Box::new(command(words)?)),
        Waker::Fly(fly) => How::Fly(Box::new(Fly {
            app: fly.app.clone(),
            group: fly.group.clone(),
            token: fly.token.clone(),
            api_url: fly.api_url.clone(),
        })),
    };
    Ok(Waking { how, startup_timeout: plan.startup_timeout, most: plan.most })
}

/// A child reads the configuration of its parent: the same file, the same environment, the same place.
fn children(shared: &config::Children) -> Result<Children, Failed> {
    let mut args: Vec<OsString> = ["serve", "--role", "worker"].map(OsString::from).to_vec();
    if let Some(file) = &shared.file {
        args.extend(["--config".into(), file.clone().into()]);
    }
    args.extend(["--data-dir".into(), shared.data_dir.clone().into()]);
    let mut env = environment(|_| true)?;
    let idle = humantime::format_duration(shared.idle_timeout).to_string();
    // Its control is its parent, which knows where it is.
    let own = [("FLUX__WORKER__IDLE_TIMEOUT", idle), ("FLUX__WORKER__CONTROL", String::new())];
    env.extend(own.map(|(name, value)| (name.into(), value.into())));
    Ok(Children {
        spawner: spawner()?,
        program: config::program().context("cannot find this program's own file")?,
        args,
        env,
        folder: shared.cwd.clone(),
        name: shared.id.clone(),
        slots: shared.slots.get(),
    })
}

/// It gets what it needs to be the operator's program, and none of flux's own settings: these hold secrets.
fn command(words: &[String]) -> Result<Command, Failed> {
    let mut words = words.iter();
    let program = words.next().map(PathBuf::from).context("workers.wake_command is empty")?;
    let folder = Surroundings::of_process().map_err(anyhow::Error::new)?.cwd;
    Ok(Command {
        spawner: spawner()?,
        program,
        args: words.map(OsString::from).collect(),
        env: environment(|name| !name.starts_with("FLUX__") && name != "API_KEY")?,
        folder,
    })
}

fn environment(wanted: impl Fn(&str) -> bool) -> Result<Vec<(OsString, OsString)>, Failed> {
    let around = Surroundings::of_process().map_err(anyhow::Error::new)?;
    let wanted = around.env.into_iter().filter(|(name, _)| wanted(name));
    Ok(wanted.map(|(name, value)| (name.into(), value.into())).collect())
}

fn spawner() -> Result<Spawner, Failed> {
    let exe = config::program().context("cannot find this program's own file")?;
    // Programs of the operator's: bound to this process, and not confined.
    let launcher = Launcher::ReExec { exe, sandbox: Sandbox::off() };
    Ok(Spawner::start(launcher).context("cannot start the thread that starts programs")?)
}
