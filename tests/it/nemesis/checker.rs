//! Judges a history (Jepsen's total-queue idea): what was acknowledged is there, once, and ended once.
//!
//! Pure: `mutants` has a bad history for each rule. The letters are those of the protocol's invariants.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Clock, Fate, History, Job, Status, StreamEvent, Told, Visible};

/// A verb's time is taken when it is said, and then it waits for its turn to write: the next attempt's claim may have
/// been said before the last one's end, microseconds.
const WAITS: i64 = 500_000;

/// How jobs may fail: of what ffmpeg was made to do, or of the workers they lost.
const REASONS: &[&str] = &["encode_timeout", "encoder_crashed", "verification_failed", "worker_lost"];

/// Every breach, in words; none of a good history.
pub fn check(history: &History) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut say = |breach: String| breaches.push(breach);
    acknowledged(history, &mut say);
    sightings(history, &mut say);
    for job in &history.jobs {
        ended_once(job, &mut say);
        attempts(job, history.clock, &mut say);
        publications(job, &mut say);
    }
    for (job, events) in &history.streams {
        stream(job, events, &mut say);
    }
    destination(history, &mut say);
    processes(history, &mut say);
    for left in &history.left {
        say(format!("left behind: {left}"));
    }
    breaches
}

/// Every acknowledged job is on record (unless its client deleted it), and no key has two.
fn acknowledged(history: &History, say: &mut impl FnMut(String)) {
    let known: BTreeSet<&str> = history.jobs.iter().map(|job| job.id.as_str()).collect();
    let mut by_key: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for told in &history.told {
        if let Told::Accepted { key, job } = told {
            by_key.entry(key).or_default().insert(job);
            if !known.contains(job.as_str()) && !deleting(history, job) {
                say(format!("{job} was acknowledged and is lost"));
            }
        }
    }
    for job in &history.jobs {
        if let Some(key) = &job.key {
            by_key.entry(key).or_default().insert(&job.id);
        }
    }
    for (key, jobs) in by_key.iter().filter(|(_, jobs)| jobs.len() > 1) {
        say(format!("key {key} has {} jobs: {jobs:?}", jobs.len()));
    }
}

fn deleting(history: &History, job: &str) -> bool {
    history.told.iter().any(|told| matches!(told, Told::Deleting { job: asked } if asked == job))
}

/// I1 as clients see it: a terminal status never changes, but for one retry of a failed job each.
fn sightings(history: &History, say: &mut impl FnMut(String)) {
    let mut last: BTreeMap<&str, Status> = BTreeMap::new();
    let mut retrying: BTreeMap<&str, u32> = BTreeMap::new();
    let mut deletes: BTreeSet<&str> = BTreeSet::new();
    let mut gone: BTreeSet<&str> = BTreeSet::new();
    for told in &history.told {
        match told {
            Told::Accepted { .. } => {}
            Told::Retrying { job } => *retrying.entry(job).or_default() += 1,
            Told::Deleting { job } => {
                deletes.insert(job);
            }
            Told::Gone { job } => {
                gone.insert(job);
                if !deletes.contains(job.as_str()) {
                    say(format!("{job} is gone and nobody deleted it"));
                }
            }
            Told::Saw { job, status } => {
                if gone.contains(job.as_str()) {
                    say(format!("{job} was gone and came back"));
                }
                let before = last.insert(job, *status);
                let Some(before) = before.filter(|before| before.is_terminal() && before != status) else {
                    continue;
                };
                let left = retrying.entry(job).or_default();
                if before == Status::Failed && *left > 0 {
                    *left -= 1;
                } else {
                    say(format!("{job} was {before:?} and became {status:?}"));
                }
            }
        }
    }
    for job in &history.jobs {
        let seen = last.get(job.id.as_str()).filter(|status| status.is_terminal());
        let retried = retrying.get(job.id.as_str()).is_some_and(|left| *left > 0);
        if let Some(seen) = seen.filter(|seen| **seen != job.status && !retried && !job.deleted) {
            say(format!("{} was {seen:?} and is {:?} on record", job.id, job.status));
        }
    }
}

/// I1 and I7 on record: each job has ended, and each of its runs once.
fn ended_once(job: &Job, say: &mut impl FnMut(String)) {
    let id = &job.id;
    if !job.status.is_terminal() {
        say(format!("{id} never ended: {:?}", job.status));
    } else if job.open_tasks > 0 {
        say(format!("{id} ended and has {} tasks that did not", job.open_tasks));
    }
    let reason = job.failure.as_deref().filter(|_| job.status == Status::Failed);
    if reason.is_some_and(|code| !REASONS.contains(&code)) {
        say(format!("{id} failed and nobody gave it a reason to: {reason:?}"));
    }
    if !job.events.windows(2).all(|pair| pair[0].seq < pair[1].seq) {
        say(format!("{id}: the numbers of its events do not grow"));
    }
    let mut ends: BTreeMap<i64, u32> = (1..=job.run).map(|run| (run, 0)).collect();
    let mut over = BTreeSet::new();
    for event in &job.events {
        let Some(status) = event.status else { continue };
        if over.contains(&event.run) {
            say(format!("{id}: run {} became {status:?} after its end", event.run));
        }
        if status.is_terminal() {
            *ends.entry(event.run).or_default() += 1;
            over.insert(event.run);
        }
    }
    for (run, count) in ends.iter().filter(|(_, count)| **count != 1) {
        say(format!("{id}: run {run} ended {count} times"));
    }
}

/// I4: epochs grow, and no two attempts of a task overlap, as far as the clock can tell.
fn attempts(job: &Job, clock: Clock, say: &mut impl FnMut(String)) {
    let mut by_task: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for run in &job.runs {
        by_task.entry(&run.task).or_default().push(run);
        if run.ended.is_none() && job.status.is_terminal() {
            say(format!("{}: attempt {} never ended", job.id, run.id));
        }
    }
    for runs in by_task.values_mut() {
        runs.sort_by_key(|run| run.epoch);
        for pair in runs.windows(2) {
            if pair[0].epoch >= pair[1].epoch {
                say(format!("{}: two attempts have epoch {}", job.id, pair[1].epoch));
            } else if pair[0]
                .ended
                .is_none_or(|ended| ended > pair[1].started + WAITS && clock == Clock::Even)
            {
                say(format!("{}: attempts {} and {} overlap", job.id, pair[0].epoch, pair[1].epoch));
            }
        }
    }
    let ids: BTreeSet<_> = job.runs.iter().map(|run| &run.id).collect();
    if ids.len() != job.runs.len() {
        say(format!("{}: two attempts have one run id", job.id));
    }
}

/// I2 and I3 on record: nothing stays open, and a completed output has one committed publication: its own.
fn publications(job: &Job, say: &mut impl FnMut(String)) {
    let id = &job.id;
    for publication in &job.publications {
        if publication.state == Fate::Open && job.status.is_terminal() {
            say(format!("{id} ended and publication {} is open", publication.id));
        }
        if !job.runs.iter().any(|run| run.id == publication.run) {
            say(format!("{id}: publication {} belongs to no attempt", publication.id));
        }
    }
    for output in &job.outputs {
        let mine = job.publications.iter().filter(|known| known.output == output.index);
        let committed: Vec<_> = mine.filter(|known| known.state == Fate::Committed).map(|p| &p.id).collect();
        let recorded: Vec<_> = output.publication.iter().filter(|_| output.completed).collect();
        if committed != recorded {
            say(format!("{id}: output {} is {recorded:?}, committed are {committed:?}", output.index));
        }
    }
    let all = job.outputs.iter().all(|output| output.completed);
    if (job.status == Status::Completed) != all && job.status.is_terminal() {
        say(format!("{id} is {:?} and its outputs are not of one mind", job.status));
    }
}

/// What the stream tells is what the record says: numbers grow, and it ends once, with the job's last run.
fn stream(id: &str, events: &[StreamEvent], say: &mut impl FnMut(String)) {
    let numbers: Vec<_> = events.iter().filter_map(|event| event.id).collect();
    if !numbers.windows(2).all(|pair| pair[0] < pair[1]) {
        say(format!("{id}: the numbers of its stream do not grow: {numbers:?}"));
    }
    let terminal = |event: &StreamEvent| Status::named(&event.name).is_some_and(Status::is_terminal);
    let ends = events.iter().filter(|event| terminal(event)).count();
    if ends != 1 || !events.last().is_some_and(terminal) {
        say(format!("{id}: its stream ends {ends} times, and with {:?}", events.last()));
    }
}

/// I2 and I3 at the destination: what is visible is what is on record, byte for byte, and nothing else.
fn destination(history: &History, say: &mut impl FnMut(String)) {
    let mut expected: BTreeMap<&str, &Visible> = BTreeMap::new();
    for job in &history.jobs {
        for output in job.outputs.iter().filter(|output| output.completed) {
            expected.extend(output.files.iter().map(|file| (file.path.as_str(), file)));
        }
    }
    for found in &history.visible {
        match expected.remove(found.path.as_str()) {
            Some(recorded) if recorded == found => {}
            Some(recorded) => say(format!("{} is not what the record says: {recorded:?}", found.path)),
            // The record of a deleted job goes, its results stay.
            None if !history.jobs.iter().any(|job| job.id == found.job())
                && deleting(history, &found.job()) => {}
            None => say(format!("{} is visible, the record knows nothing of it", found.path)),
        }
    }
    for path in expected.keys() {
        say(format!("{path} is completed on record and not visible"));
    }
}

/// I5: a run does no work twice; and no process works for a run nobody claimed. Where an encode of several outputs breaks
/// down, each of them is made alone: that is other work.
fn processes(history: &History, say: &mut impl FnMut(String)) {
    let mut started = BTreeSet::new();
    let runs: BTreeSet<_> = history.jobs.iter().flat_map(|job| &job.runs).map(|run| &run.id).collect();
    let swept = history.told.iter().any(|told| matches!(told, Told::Deleting { .. }));
    for (run, files) in &history.starts {
        if !started.insert((run, files)) {
            say(format!("run {run} was encoded twice"));
        }
        if !runs.contains(run) && !swept {
            say(format!("run {run} was encoded and is not on record"));
        }
    }
}
