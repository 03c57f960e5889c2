//! The verbs of a run: everything a worker's control says about a task it holds.

use super::super::{
    Attempt, Code, Epoch, Failure, Hold, JobStatus, MediaInfo, OutputIndex, OutputStatus, Publication,
    PublicationId, PublicationState, RunId, RunOutcome, SessionId, TaskId, TaskState,
};
use super::Fenced::{Done, Lost};
use super::{Fenced, Illegal, Machine, OutputDone, Permit, RequeueReason, RunKey};

impl Machine {
    /// A ready task gets a holder and the next epoch.
    pub fn claim(&mut self, task: TaskId, hold: Hold) -> Result<Epoch, Illegal> {
        let now = self.context.now;
        let claimable = |t: &&mut super::super::TaskRecord| t.id == task && t.state == TaskState::Ready;
        let task =
            self.job.tasks.iter_mut().find(claimable).ok_or(Illegal("only a ready task is claimed"))?;
        task.state = TaskState::Running;
        task.epoch = Epoch(task.epoch.0 + 1);
        self.effects.begun.push(Attempt {
            run: hold.run,
            task: task.id,
            epoch: task.epoch,
            worker: hold.worker.clone(),
            started_at: now,
            ended_at: None,
            outcome: None,
            code: None,
            log: None,
        });
        task.hold = Some(hold);
        Ok(task.epoch)
    }

    /// The worker accepted the run: a queued job becomes running.
    pub fn started(&mut self, key: &RunKey) -> Fenced<()> {
        if self.held(key).is_none() {
            return Lost;
        }
        if self.job.job.status == JobStatus::Queued {
            let ending = self.is_ending();
            let job = &mut self.job.job;
            job.status = JobStatus::Running;
            job.started_at.get_or_insert(self.context.now);
            if !ending {
                job.failure = None;
            }
            self.tell_status("a worker started the job");
        }
        Done(())
    }

    /// Stores what the source is.
    pub fn media(&mut self, key: &RunKey, media: &MediaInfo) -> Fenced<()> {
        if self.held(key).is_none() {
            return Lost;
        }
        self.job.job.media = Some(media.clone());
        Done(())
    }

    /// Moves an output forwards to a working status; a report that comes late changes nothing.
    pub fn output_status(
        &mut self,
        key: &RunKey,
        output: OutputIndex,
        status: OutputStatus,
    ) -> Result<Fenced<()>, Illegal> {
        if self.held(key).is_none() {
            return Ok(Lost);
        }
        let at = self.output_position(output)?;
        let message = match status {
            OutputStatus::Encoding => "encoding",
            OutputStatus::Verifying => "verifying",
            OutputStatus::Uploading => "uploading",
            OutputStatus::Pending
            | OutputStatus::Completed
            | OutputStatus::Failed
            | OutputStatus::Cancelled => {
                return Err(Illegal("a run only reports working statuses"));
            }
        };
        let record = &mut self.job.outputs[at];
        if !record.status.is_terminal() && record.status < status {
            record.status = status;
            self.tell_output(at, format!("output {output} is {message}"));
        }
        Ok(Done(()))
    }

    /// Permits a publication and records its handle, if and only if the job goes on (PROTOCOL §1.4).
    pub fn permit(&mut self, key: &RunKey, publication: &Publication) -> Result<Fenced<Permit>, Illegal> {
        let Some(task) = self.held(key) else {
            return Ok(Lost);
        };
        let epoch = self.job.tasks[task].epoch;
        if publication.run != key.run || publication.epoch != epoch {
            return Err(Illegal("a run asks for permits of its own publications"));
        }
        let at = self.output_position(publication.output)?;
        if let Some(known) = self.job.publications.iter().find(|p| p.id == publication.id) {
            return match known.state {
                PublicationState::Open | PublicationState::Committed
                    if known.run == key.run && known.output == publication.output =>
                {
                    Ok(Done(Permit { lower: self.open_below(publication.output, epoch) }))
                }
                PublicationState::Dead => Ok(Lost),
                PublicationState::Open | PublicationState::Committed => {
                    Err(Illegal("another run's publication has this id"))
                }
            };
        }
        if self.is_ending() {
            // No more permits: what is open, if anything, is for a run that only resolves.
            self.release(task, RunOutcome::Cancelled, None);
            if !self.settle() {
                self.make_ready(task);
            }
            return Ok(Lost);
        }
        if self.job.outputs[at].status == OutputStatus::Completed {
            return Err(Illegal("the output is completed"));
        }
        if self.job.publications.iter().any(|p| p.output == publication.output && p.epoch == epoch) {
            return Err(Illegal("a run has one publication per output"));
        }
        let lower = self.open_below(publication.output, epoch);
        self.job.publications.push(Publication { state: PublicationState::Open, ..publication.clone() });
        self.job.tasks[task].state = TaskState::Committing;
        Ok(Done(Permit { lower }))
    }

    /// Records publications found dead or destroyed: they can never become visible.
    pub fn publications_dead(&mut self, key: &RunKey, dead: &[PublicationId]) -> Result<Fenced<()>, Illegal> {
        if self.held(key).is_none() {
            return Ok(Lost);
        }
        let state = |id: &PublicationId| self.job.publications.iter().find(|p| p.id == *id).map(|p| p.state);
        match dead.iter().map(state).find(|s| matches!(s, None | Some(PublicationState::Committed))) {
            Some(None) => return Err(Illegal("the job has no such publication")),
            Some(Some(_)) => return Err(Illegal("a committed publication cannot be dead")),
            None => {}
        }
        for publication in &mut self.job.publications {
            if dead.contains(&publication.id) {
                publication.state = PublicationState::Dead;
            }
        }
        if self.is_ending() {
            self.settle();
        }
        Ok(Done(()))
    }

    /// Records that an output is visible; every other publication of it is dead from here on.
    pub fn output_done(&mut self, key: &RunKey, done: &OutputDone) -> Result<Fenced<()>, Illegal> {
        if self.held(key).is_none() {
            let output = self.job.outputs.iter().find(|o| o.index == done.output);
            let recorded = output.is_some_and(|o| o.publication == Some(done.publication));
            let mine = matches!(self.context.past, Some(RunOutcome::Done | RunOutcome::Cancelled));
            return Ok(if recorded && mine { Done(()) } else { Lost });
        }
        let at = self.output_position(done.output)?;
        if self.job.outputs[at].publication == Some(done.publication) {
            return Ok(Done(()));
        }
        if self.job.outputs[at].status == OutputStatus::Completed {
            return Err(Illegal("the output is completed by another publication"));
        }
        let known =
            self.job.publications.iter().find(|p| p.id == done.publication && p.output == done.output);
        if known.is_none_or(|p| p.state != PublicationState::Open) {
            return Err(Illegal("only an open publication of the output becomes visible"));
        }
        let ending = self.is_ending();
        for publication in self.job.publications.iter_mut().filter(|p| p.output == done.output) {
            publication.state = if publication.id == done.publication {
                PublicationState::Committed
            } else {
                PublicationState::Dead
            };
        }
        let record = &mut self.job.outputs[at];
        record.status = OutputStatus::Completed;
        record.publication = Some(done.publication);
        record.result = Some(done.result.clone());
        record.failure = None;
        self.tell_output(at, format!("output {} is published", done.output));
        if ending {
            self.settle();
        }
        Ok(Done(()))
    }

    /// Ends the task well. A worker that ends without having published everything has failed.
    pub fn complete(&mut self, key: &RunKey) -> Fenced<()> {
        let Some(task) = self.held(key) else {
            return self.repeated(&[RunOutcome::Done]);
        };
        if self.is_ending() {
            self.release(task, RunOutcome::Done, None);
            if !self.settle() {
                self.job.tasks[task].charged += 1;
                self.resolve_later(task);
            }
            return Done(());
        }
        if self.job.outputs.iter().all(|o| o.status == OutputStatus::Completed) {
            self.release(task, RunOutcome::Done, None);
            self.settle();
            return Done(());
        }
        let failure = Failure::new(Code::Internal, "the worker ended without publishing every output");
        self.end_badly(task, &failure, &[]);
        Done(())
    }

    /// Ends the run badly: backoff and another try, or the job's end.
    pub fn fail(
        &mut self,
        key: &RunKey,
        failure: &Failure,
        outputs: &[(OutputIndex, Failure)],
    ) -> Fenced<()> {
        let Some(task) = self.held(key) else {
            return self.repeated(&[RunOutcome::Failed]);
        };
        self.end_badly(task, failure, outputs);
        Done(())
    }

    /// Gives the task back to the queue.
    pub fn requeue(&mut self, key: &RunKey, reason: RequeueReason) -> Fenced<()> {
        let Some(task) = self.held(key) else {
            return self.repeated(&[RunOutcome::Lost, RunOutcome::Released]);
        };
        match reason {
            RequeueReason::Lost => {
                self.job.tasks[task].losses += 1;
                self.release(task, RunOutcome::Lost, None);
                self.give_back(task, "the worker was lost; the job waits for another");
            }
            RequeueReason::Died => {
                let suspect = &mut self.job.tasks[task];
                suspect.crashes += u32::from(suspect.class.is_solo());
                suspect.class = suspect.class.solo();
                self.release(task, RunOutcome::Lost, None);
                self.give_back(task, "the worker died; the job waits for one that runs nothing else");
            }
            RequeueReason::Released => {
                self.release(task, RunOutcome::Released, None);
                self.give_back(task, "the worker gave the job back; it waits for another");
            }
        }
        Done(())
    }

    /// Requeues what is held by workers that went with the control's process (PROTOCOL §1.25). No attempt is charged. A
    /// run that had begun counts as a loss: a drain leaves nothing held, so the process was killed, and a job that kills
    /// it at every start must end. It makes no suspect: whoever kills a whole service rarely means one job.
    pub fn recover(&mut self, gone: impl Fn(&Hold) -> bool) {
        let begun = self.job.job.status == JobStatus::Running;
        for task in 0..self.job.tasks.len() {
            if self.job.tasks[task].hold.as_ref().is_some_and(&gone) {
                self.job.tasks[task].losses += u32::from(begun);
                self.release(task, RunOutcome::Lost, None);
                self.give_back(task, "the service restarted; the job waits for a worker");
            }
        }
    }

    /// Another session takes over what a session that is over still holds: same run, same epoch, same worker.
    pub fn take_over(&mut self, task: TaskId, run: RunId, session: SessionId) -> Fenced<()> {
        let holds = |t: &&mut super::super::TaskRecord| t.id == task && t.state.is_held();
        let hold = self.job.tasks.iter_mut().find(holds).and_then(|t| t.hold.as_mut());
        let Some(hold) = hold.filter(|hold| hold.run == run) else {
            return Lost;
        };
        hold.session = session;
        Done(())
    }

    fn end_badly(&mut self, task: usize, failure: &Failure, outputs: &[(OutputIndex, Failure)]) {
        self.job.tasks[task].charged += 1;
        self.release(task, RunOutcome::Failed, Some(failure));
        if self.settle() {
            return;
        }
        if self.is_ending() {
            self.resolve_later(task);
        } else if failure.retryable() && self.job.tasks[task].charged < self.context.policy.max_attempts {
            self.job.job.failure = Some(failure.clone());
            self.delay(task);
            self.back_to_queue("the attempt failed; the job waits for the next one");
        } else {
            self.condemn(task, failure, outputs);
        }
    }

    /// A verb said again by the run that it ended: the answer is as before.
    fn repeated(&self, before: &[RunOutcome]) -> Fenced<()> {
        if self.context.past.is_some_and(|outcome| before.contains(&outcome)) { Done(()) } else { Lost }
    }
}
