//! Finds a worker for tasks that must run alone: one worker at a time gets nothing else until it is empty.
//!
//! Such tasks were running when a worker died (PROTOCOL §1.21), so that they are few, and each is tried a few times at
//! most. Workers that the others leave no room on, or that cannot do what waits, are passed over for a round.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::control::fleet::Member;
use crate::control::runs::Runs;

/// How long a worker on which nothing of ours runs may stay full of what other controls run there.
const PATIENCE: Duration = Duration::from_mins(1);

/// The worker that is being cleared, if any task wants one.
#[derive(Debug, Default)]
pub(super) struct Clearing {
    /// Tasks that wait for a worker to themselves.
    wanted: u64,
    chosen: Option<Chosen>,
    /// Those that were no use in this round.
    passed: HashSet<usize>,
}

#[derive(Debug)]
struct Chosen {
    member: Arc<Member>,
    until: Instant,
}

impl Clearing {
    /// So many tasks wait for a worker to themselves.
    pub(super) fn wanted(&mut self, tasks: u64) {
        self.wanted = tasks;
        if tasks == 0 {
            self.chosen = None;
            self.passed.clear();
        }
    }

    pub(super) const fn is_wanted(&self) -> bool {
        self.wanted > 0
    }

    pub(super) fn is_for(&self, member: &Arc<Member>) -> bool {
        self.member().is_some_and(|chosen| Arc::ptr_eq(chosen, member))
    }

    pub(super) fn member(&self) -> Option<&Arc<Member>> {
        self.chosen.as_ref().map(|chosen| &chosen.member)
    }

    /// Sticks to the worker that was chosen as long as that makes sense; else takes the one with the least to do.
    pub(super) fn choose(&mut self, members: &[Arc<Member>], runs: &Runs, now: Instant) {
        if self.wanted == 0 {
            return;
        }
        if let Some(chosen) = &self.chosen {
            match chosen.member.ready(now) {
                Some(ready) if runs.count_on(ready.boot) > 0 || chosen.until > now => return,
                Some(_) | None => self.pass_over(),
            }
        }
        let passed = &self.passed;
        let candidates = members.iter().filter(|member| !passed.contains(&member.number()));
        let free = candidates.filter_map(|member| {
            let ready = member.ready(now)?;
            (!runs.alone_on(ready.boot)).then(|| (runs.count_on(ready.boot), member))
        });
        match free.min_by_key(|(held, _)| *held) {
            Some((_, member)) => {
                self.chosen = Some(Chosen { member: Arc::clone(member), until: now + PATIENCE });
            }
            // Everybody was tried: the next look begins a new round.
            None => self.passed.clear(),
        }
    }

    /// A claim was made for the clear worker; whether it found a task.
    pub(super) fn used(&mut self, found: bool) {
        if found {
            self.wanted = self.wanted.saturating_sub(1);
            self.chosen = None;
            self.passed.clear();
        } else {
            self.pass_over();
        }
    }

    fn pass_over(&mut self) {
        if let Some(chosen) = self.chosen.take() {
            self.passed.insert(chosen.member.number());
        }
    }
}
