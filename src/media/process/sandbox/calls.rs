//! seccomp: system calls that no tool needs, each a way out or a large piece of the kernel.
//!
//! A list of what is forbidden, not of what is allowed: the calls that codecs and C libraries make differ between
//! versions, and a filter that breaks an encode after an update would be switched off. What is forbidden fails with
//! EPERM, as where a container forbids it.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter, sock_filter,
};

/// Forbidden whatever the arguments.
const FORBIDDEN: &[libc::c_long] = &[
    // Other processes: their memory, their files, their scheduling.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_perf_event_open,
    // The group that is killed as one.
    libc::SYS_setsid,
    libc::SYS_setpgid,
    // Mounts, namespaces, files by handle.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    // Parts of the kernel with a history: io_uring also gets around filters of socket().
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_personality,
    // The machine itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    // Tools connect; nobody connects to them.
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_socketpair,
];

/// Starting a process without `clone`; newer machines have no such calls.
#[cfg(target_arch = "x86_64")]
const FORKS: &[libc::c_long] = &[libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const FORKS: &[libc::c_long] = &[];

/// Calls of other machines' tables, such as those of 32 bits, end the tool.
const MACHINE: TargetArch = if cfg!(target_arch = "aarch64") {
    TargetArch::aarch64
} else if cfg!(target_arch = "riscv64") {
    TargetArch::riscv64
} else {
    TargetArch::x86_64
};

/// A second table of calls with other numbers (x32), which the list does not name.
const X32: u32 = 0x4000_0000;

/// Confines this process. `connects`: it may have TCP sockets. `alone`: it may have threads, but start no process.
pub(super) fn confine(connects: bool, alone: bool) -> Result<(), seccompiler::Error> {
    // The last one set is the first one asked; the strictest answer holds.
    apply_filter(&forbidding(connects, alone)?)?;
    apply_filter(&odd_numbers(alone))
}

/// Conditions on arguments, given by their places.
type Conditions = Vec<Result<SeccompCondition, BackendError>>;

fn forbidding(connects: bool, alone: bool) -> Result<BpfProgram, BackendError> {
    let own = std::process::id();
    let fast_open = number(libc::MSG_FASTOPEN);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    let mut forbid = |call, when: Conditions| -> Result<(), BackendError> {
        rules.entry(call).or_default().push(SeccompRule::new(when.into_iter().collect::<Result<_, _>>()?)?);
        Ok(())
    };
    // A signal to itself is what `abort` does.
    forbid(libc::SYS_kill, vec![differs(0, own)])?;
    forbid(libc::SYS_tgkill, vec![differs(0, own)])?;
    // The limits of others.
    forbid(libc::SYS_prlimit64, vec![differs(0, 0), differs(0, own)])?;
    // It dies with its worker, whatever it thinks of that.
    forbid(libc::SYS_prctl, vec![masked(0, u32::MAX, number(libc::PR_SET_PDEATHSIG))])?;
    // A connection without connect(), which Landlock would not see.
    forbid(libc::SYS_sendto, vec![masked(3, fast_open, fast_open)])?;
    forbid(libc::SYS_sendmsg, vec![masked(2, fast_open, fast_open)])?;
    forbid(libc::SYS_sendmmsg, vec![masked(3, fast_open, fast_open)])?;
    if connects {
        // Anything but TCP over IPv4 or IPv6; MPTCP has a number of its own, and Landlock does not see it.
        forbid(
            libc::SYS_socket,
            vec![differs(0, number(libc::AF_INET)), differs(0, number(libc::AF_INET6))],
        )?;
        for kind in (0..=KINDS).filter(|kind| *kind != number(libc::SOCK_STREAM)) {
            forbid(libc::SYS_socket, vec![masked(1, KINDS, kind)])?;
        }
        forbid(libc::SYS_socket, vec![differs(2, 0), differs(2, number(libc::IPPROTO_TCP))])?;
    }
    if alone {
        // A clone that is no thread.
        forbid(libc::SYS_clone, vec![masked(0, number(libc::CLONE_THREAD), 0)])?;
        rules.extend(FORKS.iter().map(|call| (*call, Vec::new())));
    }
    if !connects {
        rules.insert(libc::SYS_socket, Vec::new());
    }
    let forbidden = SeccompAction::Errno(number(libc::EPERM));
    SeccompFilter::new(rules, SeccompAction::Allow, forbidden, MACHINE)?.try_into()
}

/// Bits of a socket's type that say its kind; the others are flags.
const KINDS: u32 = 0xf;

/// The constants of the C library are signed, the kernel's arguments are not.
const fn number(value: i32) -> u32 {
    value.cast_unsigned()
}

fn differs(place: u8, value: u32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(place, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value.into())
}

fn masked(place: u8, mask: u32, value: u32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(place, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask.into()), value.into())
}

/// What the list cannot say: calls of the second table, and `clone3`, whose flags lie in memory, where no filter can
/// look. "No such call" makes the C library use `clone`.
fn odd_numbers(alone: bool) -> Vec<sock_filter> {
    let error = |errno: i32| libc::SECCOMP_RET_ERRNO | number(errno);
    let statement = |code: u32, k: u32| sock_filter { code: narrow(code), jt: 0, jf: 0, k };
    let jump = |code: u32, k: u32, jf: u8| sock_filter {
        code: narrow(libc::BPF_JMP | code | libc::BPF_K),
        jt: 0,
        jf,
        k,
    };
    // The number of the call is the first word of what a filter sees.
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    if cfg!(target_arch = "x86_64") {
        filter.push(jump(libc::BPF_JGE, X32, 1));
        filter.push(statement(libc::BPF_RET, error(libc::EPERM)));
    }
    if alone {
        filter.push(jump(libc::BPF_JEQ, CLONE3, 1));
        filter.push(statement(libc::BPF_RET, error(libc::ENOSYS)));
    }
    filter.push(statement(libc::BPF_RET, libc::SECCOMP_RET_ALLOW));
    filter
}

/// `clone3` has the same number on every machine.
const CLONE3: u32 = 435;

/// Codes of a filter's statements have 16 bits.
fn narrow(code: u32) -> u16 {
    u16::try_from(code).unwrap_or(u16::MAX)
}
