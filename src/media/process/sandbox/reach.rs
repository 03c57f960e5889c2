//! Landlock: which files, which port, and signals to nobody outside.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus, NetPort,
    PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError,
    Scope,
};

use super::Reach;

/// What is asked of the kernel: everything that this version knows, as far as the kernel does.
const KNOWN: ABI = ABI::V10;

/// Programs and libraries: the usual places, and those of systems that keep them elsewhere.
const PROGRAMS: &[&str] =
    &["/usr", "/lib", "/lib32", "/lib64", "/bin", "/opt", "/nix/store", "/gnu/store", "/run/current-system"];
/// What libraries read: the list of libraries, fonts, the local time, and how many processors there are.
const READ: &[&str] = &[
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/fonts",
    "/etc/localtime",
    "/var/cache/fontconfig",
    "/dev/urandom",
    "/dev/random",
    "/dev/zero",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/kernel/mm/transparent_hugepage",
];
/// Where output is thrown away.
const SINK: &str = "/dev/null";

/// Confines this process; the version of Landlock that is in use, 0 where the kernel has none.
pub(super) fn confine(reach: &Reach, readable: &[PathBuf], program: &Path) -> Result<u32, RulesetError> {
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    let run = AccessFs::Execute | AccessFs::ReadFile | AccessFs::ReadDir;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules = PROGRAMS.iter().try_fold(rules, |rules, path| allow(rules, Path::new(path), run))?;
    rules = READ.iter().try_fold(rules, |rules, path| allow(rules, Path::new(path), read))?;
    rules = readable.iter().try_fold(rules, |rules, path| allow(rules, path, run))?;
    rules = reach.read.iter().try_fold(rules, |rules, path| allow(rules, path, read))?;
    rules = allow(rules, program, run)?;
    rules = allow(rules, Path::new(SINK), AccessFs::ReadFile | AccessFs::WriteFile)?;
    if let Some(folder) = &reach.write {
        // No links, pipes or sockets: the worker opens by name what it finds there.
        let write = AccessFs::WriteFile
            | AccessFs::MakeReg
            | AccessFs::MakeDir
            | AccessFs::RemoveFile
            | AccessFs::RemoveDir
            | AccessFs::Refer
            | AccessFs::Truncate;
        rules = allow(rules, folder, read | write)?;
    }
    if let Some(port) = reach.port {
        rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    Ok(match rules.restrict_self()?.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as u32,
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
    })
}

/// A path that is not there needs no rule. A folder's rights mean nothing for a file, and are left out.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    mut rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let Ok(place) = PathFd::new(path) else { return Ok(rules) };
    if !path.is_dir() {
        rights &= AccessFs::from_file(KNOWN);
    }
    rules.add_rule(PathBeneath::new(place, rights))
}
