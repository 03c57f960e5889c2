//! Where publications become visible, or do not.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::lock;
use crate::domain::{JobId, OutputIndex, PublicationId};

/// The world that workers publish to; it outlives them all.
#[derive(Debug, Default)]
pub(in crate::control::tests) struct Destination(Mutex<BTreeMap<PublicationId, (JobId, OutputIndex, Fate)>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Staged,
    Visible,
    Destroyed,
}

impl Destination {
    pub(super) fn stage(&self, id: PublicationId, job: JobId, output: OutputIndex) {
        lock(&self.0).insert(id, (job, output, Fate::Staged));
    }

    /// Makes it visible, unless it was destroyed.
    pub(super) fn commit(&self, id: PublicationId) -> bool {
        let mut table = lock(&self.0);
        let fate = &mut table.get_mut(&id).unwrap().2;
        if *fate == Fate::Staged {
            *fate = Fate::Visible;
        }
        *fate == Fate::Visible
    }

    /// Destroys it, unless it is visible; answers whether it is.
    pub(super) fn destroy(&self, id: PublicationId) -> bool {
        let mut table = lock(&self.0);
        let fate = &mut table.get_mut(&id).unwrap().2;
        if *fate == Fate::Staged {
            *fate = Fate::Destroyed;
        }
        *fate == Fate::Visible
    }

    /// What is visible of a job, by output.
    pub(in crate::control::tests) fn visible(&self, job: JobId) -> Vec<(OutputIndex, PublicationId)> {
        let table = lock(&self.0);
        let mine = table.iter().filter(|(_, (of, _, fate))| *of == job && *fate == Fate::Visible);
        let mut list: Vec<_> = mine.map(|(id, (_, output, _))| (*output, *id)).collect();
        list.sort_unstable();
        list
    }

    /// What is visible of any job.
    pub(in crate::control::tests) fn all_visible(&self) -> Vec<(JobId, OutputIndex, PublicationId)> {
        let table = lock(&self.0);
        let all = table.iter().filter(|(_, (_, _, fate))| *fate == Fate::Visible);
        all.map(|(id, (job, output, _))| (*job, *output, *id)).collect()
    }
}
