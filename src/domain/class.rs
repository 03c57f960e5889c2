//! What a task asks of its worker, and what a worker can do: small sets, so that an index can begin with one.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::preset::{AudioCodec, VideoCodec};
use super::{JobSpec, Source};

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

/// The bits of encoders, used or not.
const ANY_ENCODER: u32 = 0xFFFF;

/// Above them: in which folder a source lies that a client gave.
const FOLDER: u32 = 16;

/// Above that: the task wants a worker to itself.
const SOLO: u32 = 1 << 30;

/// The data folder of a control, where sources lie that clients gave to it: a small number, so that the ids of jobs and
/// uploads can carry it. Two folders of one system have the same number once in 16,383 times; then a control may claim
/// what it does not have, and gives it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Folder(u16);

impl Folder {
    /// Of a control that shares its record with nobody.
    pub const ONLY: Self = Self(0);
    const BITS: u32 = 14;
    const MOST: u16 = (1 << Self::BITS) - 1;

    /// The number of the folder with this id.
    #[must_use]
    pub fn of(id: Uuid) -> Self {
        let number = id.as_u128() % u128::from(Self::MOST);
        Self(u16::try_from(number).unwrap_or(0) + 1)
    }

    /// The id with this folder in its last bits, which are random in every kind of id that is used here.
    #[must_use]
    pub const fn mark(self, id: Uuid) -> Uuid {
        Uuid::from_u128(id.as_u128() & !(Self::MOST as u128) | self.0 as u128)
    }

    fn marked(id: Uuid) -> Self {
        Self(u16::try_from(id.as_u128() & u128::from(Self::MOST)).unwrap_or(0))
    }

    /// Where a source lies; `ONLY` for those that every control reaches.
    #[must_use]
    pub fn holding(source: &Source) -> Self {
        match source {
            Source::Upload { id } => Self::marked(id.uuid()),
            // Its key is the id of its job.
            Source::Inline { key, .. } => key.as_str().parse().map_or(Self::ONLY, Self::marked),
            Source::Http { .. }
            | Source::Ftp { .. }
            | Source::Bucket { .. }
            | Source::File { .. }
            | Source::Storage { .. } => Self::ONLY,
        }
    }

    /// Its number, for rows: 0 is [`Self::ONLY`].
    #[must_use]
    pub fn number(self) -> i64 {
        i64::from(self.0)
    }

    fn bits(self) -> u32 {
        u32::from(self.0) << FOLDER
    }
}

/// What a task needs of a worker and of its control (PROTOCOL §1.17): the encoders of its outputs, where a
/// source lies that was given, and whether it must run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskClass(u32);

impl TaskClass {
    /// The class of a job's first task.
    #[must_use]
    pub fn of(spec: &JobSpec) -> Self {
        let encoders = spec.outputs.iter().flat_map(|output| {
            let encode = &output.encode;
            let pictures = encode.pictures().into_iter().map(|video| video.codec.encoder());
            pictures.chain(encode.encoded_sound().map(|audio| audio.codec.encoder()))
        });
        Self(bits(encoders) | Folder::holding(&spec.source).bits())
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
        u32::try_from(number).ok().map(Self)
    }
}

/// What a worker can do: the encoders it has proved by encoding with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Abilities(u32);

impl Abilities {
    /// Everything: a worker that nobody else can stand in for is asked all the same, and fails by name what it cannot do.
    pub const ALL: Self = Self(ANY_ENCODER);

    /// Of ffmpeg's names of the encoders; unknown ones mean nothing here.
    #[must_use]
    pub fn of<'a>(encoders: impl IntoIterator<Item = &'a str>) -> Self {
        Self(bits(encoders))
    }

    /// The same, for a control with this data folder.
    #[must_use]
    pub fn with(self, folder: Folder) -> Self {
        Self(self.0 & ANY_ENCODER | folder.bits())
    }

    /// As a number, to sort by.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Whether a task of this class can run there.
    #[must_use]
    pub const fn meets(self, class: TaskClass) -> bool {
        let encoders = class.0 & ANY_ENCODER & !self.0 == 0;
        let (here, there) = (self.0 & !ANY_ENCODER & !SOLO, class.0 & !ANY_ENCODER & !SOLO);
        encoders && (here == 0 || there == 0 || here == there)
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

fn bits<'a>(encoders: impl IntoIterator<Item = &'a str>) -> u32 {
    let bit = |name: &str| ENCODERS.iter().position(|known| *known == name).map_or(0, |at| 1 << at);
    encoders.into_iter().fold(0, |all, name| all | bit(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ObjectPath, UploadId};

    #[test]
    fn a_worker_takes_what_it_has_every_encoder_for() {
        let class = TaskClass(bits(["libx264", "aac"]));
        assert!(Abilities::of(["aac", "libx264", "h264_vaapi"]).meets(class));
        assert!(!Abilities::of(["libx264"]).meets(class));
        assert!(Abilities::ALL.meets(class) && Abilities::ALL.meets(class.solo()));
        assert!(Abilities::of([]).meets(TaskClass::default()));
    }

    #[test]
    fn a_given_source_is_for_the_control_that_has_it() {
        let (mine, other) = (Folder::of(Uuid::from_u128(6)), Folder::of(Uuid::from_u128(7)));
        let id = mine.mark(Uuid::from_u128(u128::MAX));
        assert_eq!((Folder::marked(id), id.as_u128() >> 14), (mine, u128::MAX >> 14));
        for source in [
            Source::Upload { id: UploadId::from_uuid(id) },
            Source::Inline { key: ObjectPath::parse(id.to_string()).unwrap(), size: 1 },
        ] {
            let class = TaskClass(Folder::holding(&source).bits());
            assert!(Abilities::ALL.meets(class) && Abilities::of([]).with(mine).meets(class.solo()));
            assert!(!Abilities::ALL.with(other).meets(class));
        }
        assert!(Abilities::ALL.with(other).meets(TaskClass::default()), "what all reach is for all");
    }

    #[test]
    fn numbers_round_trip_and_solo_is_one_bit() {
        let class = TaskClass(bits(["libvpx-vp9"])).solo();
        assert_eq!(TaskClass::from_number(class.number()), Some(class));
        assert!(class.is_solo() && class.solo() == class && !TaskClass::default().is_solo());
        assert_eq!(TaskClass::from_number(-1), None);
    }
}
