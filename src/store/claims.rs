//! What claims mean, whichever database they are made in: which slot may take which task, and whose turn it is.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use super::{Claimed, Grant, RunKey};
use crate::domain::machine::is_ending;
use crate::domain::{
    Abilities, Aggregate, Company, Epoch, Hold, JobId, JobSecrets, OutputStatus, PublicationState, SessionId,
    TaskClass, TaskId,
};

/// A granted slot.
#[derive(Clone)]
pub(super) struct Slot {
    pub(super) kind: Kind,
    pub(super) hold: Hold,
}

/// What a slot can take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    alone: bool,
    can: Abilities,
}

impl Kind {
    /// Classes it takes, in order of preference: suspects first where nobody else can come to harm.
    pub(super) fn choices(self, classes: &[TaskClass]) -> Vec<Vec<TaskClass>> {
        let able = classes.iter().copied().filter(|class| self.can.meets(*class));
        let (solo, shared): (Vec<_>, Vec<_>) = able.partition(|class| class.is_solo());
        if self.alone { vec![solo, shared] } else { vec![shared] }
    }
}

impl Ord for Kind {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.alone, self.can.number()).cmp(&(self.alone, other.can.number()))
    }
}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// All slots of a claim. Workers that can do the same in the same company are served together.
pub(super) fn slots(session: SessionId, grants: &[Grant]) -> Vec<Slot> {
    let slot = |grant: &Grant, run| Slot {
        kind: Kind { alone: grant.company == Company::Alone, can: grant.can },
        hold: Hold { run, session, worker: grant.worker.clone(), boot: grant.boot },
    };
    grants.iter().flat_map(|grant| grant.runs.iter().map(move |run| slot(grant, *run))).collect()
}

/// Slots of each kind, those of workers with nothing else on them first.
pub(super) fn by_kind(slots: impl IntoIterator<Item = Slot>) -> BTreeMap<Kind, Vec<Hold>> {
    let mut kinds: BTreeMap<Kind, Vec<Hold>> = BTreeMap::new();
    for Slot { kind, hold } in slots {
        kinds.entry(kind).or_default().push(hold);
    }
    kinds
}

/// The tenants in order of service: those after the one that was served last come first.
pub(super) fn in_turn(tenants: impl IntoIterator<Item = String>, last: Option<&String>) -> Vec<String> {
    let mut tenants: Vec<String> = tenants.into_iter().collect();
    let after = tenants.iter().position(|tenant| last.is_some_and(|last| tenant > last)).unwrap_or(0);
    tenants.rotate_left(after);
    tenants
}

/// A task in a tenant's line, by rank.
pub(super) type Waiting = (i64, TaskId, JobId);

/// One of each line in turn until `slots` are filled, and the tenant that was served last.
pub(super) fn deal(
    lines: impl IntoIterator<Item = (String, VecDeque<Waiting>)>,
    slots: usize,
) -> (Vec<(TaskId, JobId)>, Option<String>) {
    let mut lines: VecDeque<_> = lines.into_iter().collect();
    let mut picked = Vec::with_capacity(slots);
    let mut served = None;
    while picked.len() < slots {
        let Some((tenant, mut line)) = lines.pop_front() else {
            break;
        };
        if let Some((_, task, job)) = line.pop_front() {
            picked.push((task, job));
            served = Some(tenant.clone());
            lines.push_back((tenant, line));
        }
    }
    (picked, served)
}

/// What the holder of a claimed task is told. A claim changes nothing of this but the epoch.
pub(super) fn claimed(
    job: &Aggregate,
    task: TaskId,
    hold: &Hold,
    epoch: Epoch,
    secrets: JobSecrets,
) -> Option<Claimed> {
    let record = job.tasks.iter().find(|t| t.id == task)?;
    let open = job.publications.iter().filter(|p| p.state == PublicationState::Open).cloned().collect();
    let completed = job.outputs.iter().filter(|o| o.status == OutputStatus::Completed);
    Some(Claimed {
        key: RunKey { job: job.job.id, task, run: hold.run, session: hold.session },
        worker: hold.worker.clone(),
        boot: hold.boot,
        epoch,
        kind: record.kind,
        tenant: job.job.tenant.clone(),
        spec: job.job.spec.clone(),
        secrets,
        completed: completed.map(|o| o.index).collect(),
        open,
        resolve_only: is_ending(job),
        earlier_failures: record.charged + record.losses + record.crashes,
        class: record.class,
    })
}
