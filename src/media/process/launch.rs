//! `flux __launch`: the last thing between the worker and a tool. Runs in the child, before any runtime or thread.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::process::{Pid, Resource, Rlimit, Signal};

use super::sandbox::{self, Reach, Sandbox};
use super::{Limit, Limits, Spec};
use crate::domain::SandboxMode;

/// The hidden first argument that makes the executable a launcher.
pub const LAUNCH_COMMAND: &str = "__launch";

/// As a shell says "could not run it".
const CANNOT_RUN: u8 = 127;

/// `--parent PID --nice N [--file-size N] [--memory N] [--cpu N] [--open-files N]
/// [--sandbox auto|required [--read PATH]… [--run PATH]… [--write PATH] [--port N]] -- PROGRAM ARGS…`, parsed.
/// An empty program asks for a look at what the sandbox does.
#[derive(Debug, Default, PartialEq, Eq)]
struct Orders {
    parent: Option<i32>,
    nice: i32,
    limits: Limits,
    sandbox: Option<SandboxMode>,
    reach: Reach,
    readable: Vec<PathBuf>,
    program: OsString,
    args: Vec<OsString>,
}

/// The launcher's command line for a program.
pub(super) fn arguments(spec: &Spec, sandbox: &Sandbox) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec![
        LAUNCH_COMMAND.into(),
        "--parent".into(),
        std::process::id().to_string().into(),
        "--nice".into(),
        spec.reach.as_ref().map_or(spec.nice, |_| sandbox.nice).to_string().into(),
    ];
    let limits = bounds(spec, sandbox);
    let limits = [
        ("--file-size", limits.file_size),
        ("--memory", limits.memory),
        ("--cpu", limits.cpu_seconds),
        ("--open-files", limits.open_files),
    ];
    for (name, value) in limits.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        args.extend([name.into(), value.to_string().into()]);
    }
    if let Some(reach) = spec.reach.as_ref().filter(|_| sandbox.mode != SandboxMode::Off) {
        let mut say = |name: &str, value: &OsStr| args.extend([name.into(), value.to_owned()]);
        say("--sandbox", sandbox.mode.as_str().as_ref());
        reach.read.iter().for_each(|path| say("--read", path.as_ref()));
        sandbox.readable.iter().for_each(|path| say("--run", path.as_ref()));
        reach.write.iter().for_each(|path| say("--write", path.as_ref()));
        reach.port.iter().for_each(|port| say("--port", port.to_string().as_ref()));
    }
    args.push("--".into());
    args.push(spec.program.clone().into());
    args.extend(spec.args.iter().cloned());
    args
}

/// A confined tool is bounded even where its spec says nothing: one that writes no output writes nothing at all.
fn bounds(spec: &Spec, sandbox: &Sandbox) -> Limits {
    let Some(reach) = &spec.reach else { return spec.limits };
    let written = if reach.write.is_some() { sandbox.file_size } else { 0 };
    Limits {
        file_size: spec.limits.file_size.or(Some(written)),
        memory: spec.limits.memory.or(sandbox.memory),
        open_files: spec.limits.open_files.or(Some(sandbox.open_files)),
        ..spec.limits
    }
}

/// The kernel's names for our limits; no core dumps, ever (they would hold the source).
pub(super) fn resources(limits: Limits) -> impl Iterator<Item = Limit> {
    [
        Some((Resource::Core, 0)),
        limits.file_size.map(|most| (Resource::Fsize, most)),
        limits.memory.map(|most| (Resource::Data, most)),
        limits.cpu_seconds.map(|most| (Resource::Cpu, most)),
        limits.open_files.map(|most| (Resource::Nofile, most)),
    ]
    .into_iter()
    .flatten()
}

/// What `flux __launch ARGS…` runs, with the arguments after `__launch`. Returns only when it could not become the
/// program. Call it first thing in `main`: it must stay single-threaded and quick.
#[must_use]
pub fn launch_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let ended = parse(args).and_then(|orders| {
        let landlock = restrain(&orders)?;
        if orders.program.is_empty() {
            tell(&sandbox::try_out(landlock))
        } else {
            Err(become_program(&orders))
        }
    });
    let Err(reason) = ended else { return ExitCode::SUCCESS };
    // The worker reads this line as the tool's own log.
    let _ = writeln!(std::io::stderr(), "[fatal] launch: {reason}");
    ExitCode::from(CANNOT_RUN)
}

fn tell(line: &str) -> Result<(), String> {
    writeln!(std::io::stdout(), "{line}").map_err(|error| format!("telling: {error}"))
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Orders, String> {
    let mut orders = Orders::default();
    let mut args = args.into_iter();
    loop {
        let name = args.next().ok_or("no program given")?;
        if name == "--" {
            break;
        }
        let value = args.next().ok_or("an option without its value")?;
        match name.to_str() {
            Some("--parent") => orders.parent = Some(number(&value)?),
            Some("--nice") => orders.nice = number(&value)?,
            Some("--file-size") => orders.limits.file_size = Some(number(&value)?),
            Some("--memory") => orders.limits.memory = Some(number(&value)?),
            Some("--cpu") => orders.limits.cpu_seconds = Some(number(&value)?),
            Some("--open-files") => orders.limits.open_files = Some(number(&value)?),
            Some("--sandbox") => orders.sandbox = Some(mode(&value)?),
            Some("--read") => orders.reach.read.push(value.into()),
            Some("--run") => orders.readable.push(value.into()),
            Some("--write") => orders.reach.write = Some(value.into()),
            Some("--port") => orders.reach.port = Some(number(&value)?),
            _ => return Err(format!("unknown option {}", name.display())),
        }
    }
    orders.program = args.next().ok_or("no program given")?;
    orders.args = args.collect();
    Ok(orders)
}

fn mode(value: &OsStr) -> Result<SandboxMode, String> {
    [SandboxMode::Auto, SandboxMode::Required]
        .into_iter()
        .find(|mode| value == mode.as_str())
        .ok_or_else(|| format!("{} is no kind of sandbox", value.display()))
}

fn number<T: std::str::FromStr>(value: &OsStr) -> Result<T, String> {
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("{} is not a number", value.display()))
}

/// Ties itself to the worker and gives up rights. The version of Landlock that is in force.
fn restrain(orders: &Orders) -> Result<u32, String> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("asking to die with the worker: {error}"))?;
    // The worker may have died before the line above: then nobody will send the signal any more.
    let parent = rustix::process::getppid().map(Pid::as_raw_pid);
    if orders.parent.is_some() && orders.parent != parent {
        return Err("the worker is gone".into());
    }
    for (resource, most) in resources(orders.limits) {
        // Who started the worker may have set a lower bound, which only root could raise.
        let most = rustix::process::getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        rustix::process::setrlimit(resource, limit)
            .map_err(|error| format!("limiting {resource:?}: {error}"))?;
    }
    // Being nice is a courtesy: a container may refuse it.
    let _ = rustix::process::nice(orders.nice);
    rustix::thread::set_no_new_privs(true).map_err(|error| format!("giving up privileges: {error}"))?;
    let mode = orders.sandbox.unwrap_or(SandboxMode::Off);
    sandbox::confine(mode, &orders.reach, &orders.readable, Path::new(&orders.program))
}

/// Returns why it could not.
fn become_program(orders: &Orders) -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "exec, not a second process: the launcher itself becomes the program"
    )]
    let error = std::process::Command::new(&orders.program).args(&orders.args).exec();
    format!("running {}: {error}", Path::new(&orders.program).file_name().unwrap_or_default().display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let mut spec = Spec::new(Path::new("/bin/tool"), ["-i", "--", "x"], "/");
        spec.limits = Limits { file_size: Some(7), memory: None, cpu_seconds: Some(9), open_files: None };
        let mut sandbox = Sandbox::off();
        let written = arguments(&spec, &sandbox);
        assert_eq!(written[0], LAUNCH_COMMAND);
        let orders = parse(written.into_iter().skip(1)).unwrap();
        assert_eq!(orders.parent, i32::try_from(std::process::id()).ok());
        assert_eq!((orders.nice, orders.limits), (10, spec.limits));
        assert_eq!(orders.program, "/bin/tool");
        assert_eq!(orders.args, ["-i", "--", "x"]);
        assert_eq!((orders.sandbox, &orders.reach), (None, &Reach::nothing()));

        sandbox.mode = SandboxMode::Required;
        sandbox.readable = vec!["/srv/ffmpeg/lib".into()];
        let reach = Reach { read: vec!["/a b".into()], write: Some("/work".into()), port: Some(4000) };
        spec.reach = Some(reach.clone());
        let orders = parse(arguments(&spec, &sandbox).into_iter().skip(1)).unwrap();
        assert_eq!((orders.sandbox, orders.reach), (Some(SandboxMode::Required), reach));
        assert_eq!(orders.readable, sandbox.readable);
        assert_eq!(orders.limits.open_files, Some(1024));
    }

    #[test]
    fn who_writes_nothing_may_write_nothing() {
        let mut spec = Spec::new(Path::new("/bin/tool"), [""; 0], "/");
        let sandbox = Sandbox { memory: Some(5), file_size: 6, open_files: 7, ..Sandbox::off() };
        assert_eq!(bounds(&spec, &sandbox), Limits::default());
        spec.reach = Some(Reach::nothing());
        let read_only =
            Limits { file_size: Some(0), memory: Some(5), cpu_seconds: None, open_files: Some(7) };
        assert_eq!(bounds(&spec, &sandbox), read_only);
        spec.reach = Some(Reach::nothing().writing(Path::new("/work")));
        assert_eq!(bounds(&spec, &sandbox), Limits { file_size: Some(6), ..read_only });
    }

    #[test]
    fn bad_orders_are_refused() {
        let parse_words = |line: &str| parse(line.split_whitespace().map(OsString::from));
        for line in ["", "--parent", "--parent x -- /bin/true", "--what 1 -- /bin/true", "--", "--nice 1"] {
            assert!(parse_words(line).is_err(), "{line:?}");
        }
    }
}
