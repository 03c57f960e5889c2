//! What a task asks of its worker, and what a worker can do: small sets, so that an index can begin with one.

use serde::{Deserialize, Serialize};

use super::JobSpec;
use super::preset::{AudioCodec, VideoCodec};

/// The encoders that decide where a task can run, a bit each in this order. New ones go to the end: rows hold the bits.
const ENCODERS: [&str; 7] = [
    VideoCodec::H264.encoder(),
    VideoCodec::Hevc.encoder(),
    VideoCodec::Av1.encoder(),
    VideoCodec::Vp9.encoder(),
    AudioCodec::Aac.encoder(),
    AudioCodec::Opus.encoder(),
    AudioCodec::Mp3.encoder(),
];

/// Beside the encoders: the task wants a worker to itself.
const SOLO: u16 = 1 << 14;

/// What a task needs of a worker (PROTOCOL §1.17): the encoders of its outputs, and whether it must run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskClass(u16);

impl TaskClass {
    /// The class of a job's first task.
    #[must_use]
    pub fn of(spec: &JobSpec) -> Self {
        let encoders = spec.outputs.iter().flat_map(|output| {
            let encode = &output.encode;
            let video = encode.video.as_ref().map(|video| video.codec.encoder());
            video.into_iter().chain(encode.audio.as_ref().map(|audio| audio.codec.encoder()))
        });
        Self(bits(encoders))
    }

    /// The same task, to be run on a worker that runs nothing else: it is suspected of killing workers (PROTOCOL §1.21).
    #[must_use]
    pub const fn solo(self) -> Self {
        Self(self.0 | SOLO)
    }

    /// Whether it must run alone.
    #[must_use]
    pub const fn is_solo(self) -> bool {
        self.0 & SOLO != 0
    }

    /// The number in the store.
    #[must_use]
    pub fn number(self) -> i64 {
        i64::from(self.0)
    }

    /// The class with this number.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        u16::try_from(number).ok().map(Self)
    }
}

/// What a worker can do: the encoders it has proved by encoding with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Abilities(u16);

impl Abilities {
    /// Everything: a worker that nobody else can stand in for is asked all the same, and fails by name what it cannot do.
    pub const ALL: Self = Self(SOLO - 1);

    /// Of ffmpeg's names of the encoders; unknown ones mean nothing here.
    #[must_use]
    pub fn of<'a>(encoders: impl IntoIterator<Item = &'a str>) -> Self {
        Self(bits(encoders))
    }

    /// As a number, to sort by.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Whether a task of this class can run there.
    #[must_use]
    pub const fn meets(self, class: TaskClass) -> bool {
        class.0 & !SOLO & !self.0 == 0
    }
}

/// What else runs on a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Company {
    /// Other runs, or slots for them: no task that must run alone.
    Shared,
    /// Nothing, and every slot is ours: tasks that must run alone come first, one at a time.
    Alone,
}

fn bits<'a>(encoders: impl IntoIterator<Item = &'a str>) -> u16 {
    let bit = |name: &str| ENCODERS.iter().position(|known| *known == name).map_or(0, |at| 1 << at);
    encoders.into_iter().fold(0, |all, name| all | bit(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_takes_what_it_has_every_encoder_for() {
        let class = TaskClass(bits(["libx264", "aac"]));
        assert!(Abilities::of(["aac", "libx264", "h264_vaapi"]).meets(class));
        assert!(!Abilities::of(["libx264"]).meets(class));
        assert!(Abilities::ALL.meets(class) && Abilities::ALL.meets(class.solo()));
        assert!(Abilities::of([]).meets(TaskClass::default()));
    }

    #[test]
    fn numbers_round_trip_and_solo_is_one_bit() {
        let class = TaskClass(bits(["libvpx-vp9"])).solo();
        assert_eq!(TaskClass::from_number(class.number()), Some(class));
        assert!(class.is_solo() && class.solo() == class && !TaskClass::default().is_solo());
        assert_eq!(TaskClass::from_number(-1), None);
    }
}
