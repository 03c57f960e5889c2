//! Figures about this process, read from `/proc` when metrics are asked for. Absent where there is no `/proc`.

use std::fs;

/// Clock ticks a second in `/proc`: 100 on every Linux that has Rust (`USER_HZ` is part of its ABI).
const TICKS: u64 = 100;

/// A reading; `None` where the system does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Reading {
    /// Memory in use, bytes.
    pub(super) resident: Option<u64>,
    /// Processor time since the start, all threads, without children, whole seconds.
    pub(super) cpu_seconds: Option<u64>,
    /// Open file descriptors.
    pub(super) fds: Option<u64>,
    /// Threads.
    pub(super) threads: Option<u64>,
}

pub(super) fn read() -> Reading {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fds = fs::read_dir("/proc/self/fd").ok();
    Reading {
        resident: status_value(&status, "VmRSS:").map(|kib| kib * 1024),
        cpu_seconds: cpu_ticks(&stat).map(|ticks| ticks / TICKS),
        // The descriptor that reads the folder is one of them.
        fds: fds.and_then(|fds| u64::try_from(fds.count().saturating_sub(1)).ok()),
        threads: status_value(&status, "Threads:"),
    }
}

fn status_value(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15 of proc(5), counted after the name in parentheses, which may itself hold spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_files_and_threads() {
        let reading = read();
        assert!(reading.resident.unwrap() > 1 << 20);
        assert!(reading.fds.unwrap() >= 3);
        assert!(reading.threads.unwrap() >= 1);
        assert!(reading.cpu_seconds.is_some());
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 1 2 3 4 250 50 9 9 20 0 1 0 5 6 7";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (a"), None);
    }
}
