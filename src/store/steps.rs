//! Transitions of single jobs as commands that wait for their turn, so that a store can carry out many at once.

use tokio::sync::oneshot;

use super::delta::{self, Delta, Rules, Step};
use super::records::Loaded;
use super::shared::Shared;
use super::{Error, Result};
use crate::domain::machine::{Illegal, Machine};
use crate::domain::{JobId, RunId, RunOutcome};

/// A transition that waits, with whoever waits for its answer.
pub(super) trait Command: Send {
    /// The job that it is about.
    fn job(&self) -> JobId;
    /// The run that speaks.
    fn run(&self) -> Option<RunId>;
    /// Applies it to what was `found` and keeps its answer; gives what is to be written. Called again from the start
    /// when its group was rolled back. A verb that the state machine refuses fails alone, since nothing is written for
    /// it.
    fn carry_out(
        &mut self,
        found: Option<Result<Loaded>>,
        past: Option<RunOutcome>,
        shared: &Shared,
    ) -> Option<Delta>;
    /// Answers, once it is known what became of the commit.
    fn reply(self: Box<Self>, outcome: Result<()>);
}

/// What [`wait`] gives back: `None` = no such job.
pub(super) type Answer<T> = oneshot::Receiver<Result<Option<T>>>;

/// Makes a step wait.
pub(super) fn wait<T, F>(step: Step<F>) -> (Box<dyn Command>, Answer<T>)
where
    T: Send + 'static,
    F: Fn(&mut Machine) -> std::result::Result<T, Illegal> + Send + Sync + 'static,
{
    let (reply, answer) = oneshot::channel();
    (Box::new(Asked { step, answer: None, reply }), answer)
}

/// The store was closed meanwhile.
pub(super) fn stopped() -> Error {
    Error::Unavailable { doing: "writing", source: "the store is closed".into() }
}

struct Asked<T, F> {
    step: Step<F>,
    answer: Option<Result<Option<T>>>,
    reply: oneshot::Sender<Result<Option<T>>>,
}

impl<T, F> Command for Asked<T, F>
where
    T: Send + 'static,
    F: Fn(&mut Machine) -> std::result::Result<T, Illegal> + Send + Sync + 'static,
{
    fn job(&self) -> JobId {
        self.step.job
    }

    fn run(&self) -> Option<RunId> {
        self.step.run
    }

    fn carry_out(
        &mut self,
        found: Option<Result<Loaded>>,
        past: Option<RunOutcome>,
        shared: &Shared,
    ) -> Option<Delta> {
        let (answer, delta) = match found {
            Some(Ok(loaded)) if self.step.concerns(&loaded.aggregate) => {
                let rules = Rules::new(shared, self.step.now, past);
                match delta::transition(loaded, rules, &self.step.apply) {
                    Ok((answer, delta)) => (Ok(Some(answer)), Some(delta)),
                    Err(error) => (Err(error), None),
                }
            }
            Some(Err(error)) => (Err(error), None),
            Some(Ok(_)) | None => (Ok(None), None),
        };
        self.answer = Some(answer);
        delta.filter(|delta| !delta.is_empty())
    }

    fn reply(self: Box<Self>, outcome: Result<()>) {
        let Self { answer, reply, .. } = *self;
        // A caller that went away needs no answer: what it asked for is committed and idempotent.
        let _ = reply.send(outcome.and_then(|()| answer.unwrap_or_else(|| Err(stopped()))));
    }
}
