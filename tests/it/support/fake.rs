//! An ffmpeg that breaks down as planned, and is the real one where nothing else was planned.
//!
//! A job is known by the bitrate of its sound ([`bitrate`]), because nothing else of a job is on the command line. Each
//! attempt takes the next of its job's faults. Every file gets a comment of its own, so that no two attempts publish
//! the same bytes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// How one run of ffmpeg goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Does nothing, for ever.
    Hang,
    /// Likewise, and ignores SIGTERM.
    Stubborn,
    /// Writes 30 MB to standard error, then works.
    Flood,
    /// Ends with 0 and has written nothing.
    Empty,
    /// Dies of SIGSEGV in the middle.
    Crash,
    /// Works, three seconds late.
    Slow,
    /// Works, and takes 50 seconds to it, in which it tells of progress.
    Long,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Hang => "hang",
            Self::Stubborn => "stubborn",
            Self::Flood => "flood",
            Self::Empty => "empty",
            Self::Crash => "crash",
            Self::Slow => "slow",
            Self::Long => "long",
        }
    }
}

/// The program.
pub struct Fake {
    folder: PathBuf,
}

/// The bitrate of a job's sound in kbit/s, which names it.
pub fn bitrate(job: usize) -> String {
    format!("{}k", 32 + job)
}

const SCRIPT: &str = r#"#!/bin/sh
real=ffmpeg
dir=${0%/*}
key=silent after= last= files=
for a; do
  [ "$after" = -b:a ] && key=$a
  case $a in file:out-*) files="$files,${a#file:}" ;; esac
  after=$a last=$a
done
# What asks for no encode: versions, filters; proofs of encoders are taken as given.
case "$last $*" in
  "- "*"-f lavfi"*"-f null"*) exit 0 ;;
  file:*) ;;
  *) exec "$real" "$@" ;;
esac
fault=
for n in 1 2 3 4 5 6 7 8 9; do
  if mv "$dir/$key-$n" "$dir/used-$key-$n" 2>/dev/null; then
    read -r fault < "$dir/used-$key-$n"
    break
  fi
done
echo "${PWD##*/} $$ ${fault:-none} $files" >> "$dir/starts"
case $fault in
  hang) exec sleep 3600 ;;
  stubborn) trap '' TERM INT HUP; exec sleep 3600 ;;
  empty) exit 0 ;;
  crash) echo half > out-0.mp4; kill -SEGV $$ ;;
  flood) head -c 30000000 /dev/zero | tr '\0' x >&2 ;;
  slow) sleep 3 ;;
  long)
    n=0
    while [ $n -lt 50 ]; do
      n=$((n + 1))
      printf 'frame=%s\ntotal_size=%s\nout_time_us=%s\nprogress=continue\n' $n $n $n
      sleep 1
    done ;;
esac
# All but the last argument, then a comment, then the last.
count=$# at=0
for a; do
  at=$((at + 1))
  [ $at -eq 1 ] && set --
  [ $at -lt $count ] && set -- "$@" "$a"
done
exec "$real" "$@" -metadata "comment=${PWD##*/} $$" "$last"
"#;

impl Fake {
    /// Puts it into a folder.
    pub fn install(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let fake = Self { folder: folder.to_owned() };
        // ETXTBSY is not a script's problem, but a name that appears complete is.
        let draft = folder.join("draft");
        std::fs::write(&draft, SCRIPT).unwrap();
        std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(draft, fake.program()).unwrap();
        fake
    }

    /// What `worker.ffmpeg` is to be.
    pub fn program(&self) -> PathBuf {
        self.folder.join("ffmpeg")
    }

    /// What happens to the first attempts of a job.
    pub fn plan(&self, job: usize, faults: &[Fault]) {
        let bits = (32 + job) * 1000;
        for (n, fault) in (1..).zip(faults) {
            std::fs::write(self.folder.join(format!("{bits}-{n}")), format!("{}\n", fault.name())).unwrap();
        }
    }

    /// The runs whose encode was started, in that order, with the process id.
    pub fn starts(&self) -> Vec<(String, i32)> {
        let start = |line: &str| {
            let mut words = line.split(' ');
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        };
        self.lines().iter().filter_map(|line| start(line)).collect()
    }

    /// The same with the files that were to be written.
    pub fn works(&self) -> Vec<(String, String)> {
        let work = |line: &str| {
            let (run, rest) = line.split_once(' ')?;
            Some((run.to_owned(), rest.rsplit(' ').next()?.to_owned()))
        };
        self.lines().iter().filter_map(|line| work(line)).collect()
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join("starts")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
