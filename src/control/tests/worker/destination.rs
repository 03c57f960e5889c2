//! Where publications become visible, or do not.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use super::lock;
use crate::domain::{JobId, OutputIndex, PublicationId};

/// The world that workers publish to; it outlives them all.
#[derive(Debug, Default)]
pub(in crate::control::tests) struct Destination {
    table: Mutex<BTreeMap<PublicationId, (JobId, OutputIndex, Fate)>>,
    left_out: OnceLock<Rule>,
}

/// A rule of the protocol that a world may leave out, to see that it is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::control::tests) enum Rule {
    /// F3: handles of lower epochs are destroyed before one's own is committed.
    DestroyLower,
    /// F3: what turns out to be committed is adopted.
    Adopt,
    /// A cancel waits for a publication that its run was permitted.
    CancelAfterCommit,
    /// A cancel waits for the open publications of a run that was lost.
    CancelAfterResolve,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Staged,
    Visible,
    Destroyed,
}

impl Destination {
    /// From now on nobody keeps this rule.
    pub(in crate::control::tests) fn leave_out(&self, rule: Rule) {
        self.left_out.set(rule).unwrap();
    }

    pub(in crate::control::tests) fn keeps(&self, rule: Rule) -> bool {
        self.left_out.get() != Some(&rule)
    }

    pub(super) fn stage(&self, id: PublicationId, job: JobId, output: OutputIndex) {
        lock(&self.table).insert(id, (job, output, Fate::Staged));
    }

    /// Makes it visible, unless it was destroyed.
    pub(super) fn commit(&self, id: PublicationId) -> bool {
        let mut table = lock(&self.table);
        let fate = &mut table.get_mut(&id).unwrap().2;
        if *fate == Fate::Staged {
            *fate = Fate::Visible;
        }
        *fate == Fate::Visible
    }

    /// Destroys it, unless it is visible; answers whether it is.
    pub(super) fn destroy(&self, id: PublicationId) -> bool {
        let mut table = lock(&self.table);
        let fate = &mut table.get_mut(&id).unwrap().2;
        if *fate == Fate::Staged {
            *fate = Fate::Destroyed;
        }
        *fate == Fate::Visible
    }

    /// What is visible of a job, by output.
    pub(in crate::control::tests) fn visible(&self, job: JobId) -> Vec<(OutputIndex, PublicationId)> {
        let table = lock(&self.table);
        let mine = table.iter().filter(|(_, (of, _, fate))| *of == job && *fate == Fate::Visible);
        let mut list: Vec<_> = mine.map(|(id, (_, output, _))| (*output, *id)).collect();
        list.sort_unstable();
        list
    }

    /// What is visible of any job.
    pub(in crate::control::tests) fn all_visible(&self) -> Vec<(JobId, OutputIndex, PublicationId)> {
        let table = lock(&self.table);
        let all = table.iter().filter(|(_, (_, _, fate))| *fate == Fate::Visible);
        all.map(|(id, (job, output, _))| (*job, *output, *id)).collect()
    }
}
