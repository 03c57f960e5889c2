//! `flux __launch`: the last thing between the worker and a tool. Runs in the child, before any runtime or thread.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use rustix::process::{Pid, Resource, Rlimit, Signal};

use super::{Limit, Limits, Spec};

/// The hidden first argument that makes the executable a launcher.
pub const LAUNCH_COMMAND: &str = "__launch";

/// As a shell says "could not run it".
const CANNOT_RUN: u8 = 127;

/// `--parent PID --nice N [--file-size N] [--address-space N] -- PROGRAM ARGS…`, parsed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Orders {
    parent: Option<i32>,
    nice: i32,
    limits: Limits,
    program: OsString,
    args: Vec<OsString>,
}

/// The launcher's command line for a program.
pub(super) fn arguments(spec: &Spec) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec![
        LAUNCH_COMMAND.into(),
        "--parent".into(),
        std::process::id().to_string().into(),
        "--nice".into(),
        spec.nice.to_string().into(),
    ];
    let limits = [("--file-size", spec.limits.file_size), ("--address-space", spec.limits.address_space)];
    for (name, value) in limits.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        args.extend([name.into(), value.to_string().into()]);
    }
    args.push("--".into());
    args.push(spec.program.clone().into());
    args.extend(spec.args.iter().cloned());
    args
}

/// The kernel's names for our limits; no core dumps, ever (they would hold the source).
pub(super) fn resources(limits: Limits) -> impl Iterator<Item = Limit> {
    [
        Some((Resource::Core, 0)),
        limits.file_size.map(|most| (Resource::Fsize, most)),
        limits.address_space.map(|most| (Resource::As, most)),
    ]
    .into_iter()
    .flatten()
}

/// What `flux __launch ARGS…` runs, with the arguments after `__launch`. Returns only when it could not become the
/// program. Call it first thing in `main`: it must stay single-threaded and quick.
#[must_use]
pub fn launch_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let reason = match parse(args) {
        Ok(orders) => become_program(&orders),
        Err(reason) => reason,
    };
    // The worker reads this line as the tool's own log.
    let _ = writeln!(std::io::stderr(), "[fatal] launch: {reason}");
    ExitCode::from(CANNOT_RUN)
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
            Some("--address-space") => orders.limits.address_space = Some(number(&value)?),
            _ => return Err(format!("unknown option {}", name.display())),
        }
    }
    orders.program = args.next().ok_or("no program given")?;
    orders.args = args.collect();
    Ok(orders)
}

fn number<T: std::str::FromStr>(value: &OsStr) -> Result<T, String> {
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("{} is not a number", value.display()))
}

/// Ties itself to the worker, gives up rights, then becomes the program. Returns why it could not.
fn become_program(orders: &Orders) -> String {
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return format!("asking to die with the worker: {error}");
    }
    // The worker may have died before the line above: then nobody will send the signal any more.
    let parent = rustix::process::getppid().map(Pid::as_raw_pid);
    if orders.parent.is_some() && orders.parent != parent {
        return "the worker is gone".into();
    }
    for (resource, most) in resources(orders.limits) {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        if let Err(error) = rustix::process::setrlimit(resource, limit) {
            return format!("limiting {resource:?}: {error}");
        }
    }
    // Being nice is a courtesy: a container may refuse it.
    let _ = rustix::process::nice(orders.nice);
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        return format!("giving up privileges: {error}");
    }
    // Here, with no_new_privs set and before exec, is the place for a sandbox (landlock, then seccomp).
    #[expect(
        clippy::disallowed_methods,
        reason = "exec, not a second process: the launcher itself becomes the program"
    )]
    let error = std::process::Command::new(&orders.program).args(&orders.args).exec();
    format!(
        "running {}: {error}",
        std::path::Path::new(&orders.program).file_name().unwrap_or_default().display()
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let mut spec = Spec::new(Path::new("/bin/tool"), ["-i", "--", "x"], "/");
        spec.limits = Limits { file_size: Some(7), address_space: None };
        let written = arguments(&spec);
        assert_eq!(written[0], LAUNCH_COMMAND);
        let orders = parse(written.into_iter().skip(1)).unwrap();
        assert_eq!(orders.parent, i32::try_from(std::process::id()).ok());
        assert_eq!((orders.nice, orders.limits), (10, spec.limits));
        assert_eq!(orders.program, "/bin/tool");
        assert_eq!(orders.args, ["-i", "--", "x"]);
    }

    #[test]
    fn bad_orders_are_refused() {
        let parse_words = |line: &str| parse(line.split_whitespace().map(OsString::from));
        for line in ["", "--parent", "--parent x -- /bin/true", "--what 1 -- /bin/true", "--", "--nice 1"] {
            assert!(parse_words(line).is_err(), "{line:?}");
        }
    }
}
