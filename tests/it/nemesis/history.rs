//! What was seen of one run: by the clients, in the record, at the destination, on the machine.
//!
//! Ids are lower-case hex without dashes throughout.

/// Everything the checker is given.
#[derive(Debug, Default, Clone)]
pub struct History {
    /// What clients saw, each job's in its order (one client per job, one request at a time).
    pub told: Vec<Told>,
    /// The record after the end.
    pub jobs: Vec<Job>,
    /// What the events' stream of a job said, from the beginning.
    pub streams: Vec<(String, Vec<StreamEvent>)>,
    /// What is at the destination.
    pub visible: Vec<Visible>,
    /// Runs whose encode was started, once per start, with the files that were to be written.
    pub starts: Vec<(String, String)>,
    /// Processes, folders, parts and test files that should be gone.
    pub left: Vec<String>,
    /// Whether times can be compared.
    pub clock: Clock,
}

/// What the clock did that the times on record were taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clock {
    #[default]
    Even,
    /// Somebody set it.
    Jumped,
}

/// One thing a client learned or asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A submission with this key was answered with this job.
    Accepted { key: String, job: String },
    /// The job had this status.
    Saw { job: String, status: Status },
    /// A retry is being asked for; it may take effect from now on, whatever is answered.
    Retrying { job: String },
    /// Likewise a delete.
    Deleting { job: String },
    /// There is no such job any more.
    Gone { job: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Queued,
    Running,
    Completed,
    Failed,
    Cancelled,
}

impl Status {
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// `None` of what is none.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "queued" => Self::Queued,
            "running" => Self::Running,
            "completed" => Self::Completed,
            "failed" => Self::Failed,
            "cancelled" => Self::Cancelled,
            _ => return None,
        })
    }
}

/// A job's rows.
#[derive(Debug, Clone)]
pub struct Job {
    pub id: String,
    pub key: Option<String>,
    pub status: Status,
    /// The code of its failure.
    pub failure: Option<String>,
    /// How often it was started over, plus one.
    pub run: i64,
    pub deleted: bool,
    /// Tasks that are not over.
    pub open_tasks: i64,
    pub outputs: Vec<Output>,
    pub runs: Vec<Run>,
    pub publications: Vec<Publication>,
    pub events: Vec<Event>,
}

#[derive(Debug, Clone)]
pub struct Output {
    pub index: i64,
    pub completed: bool,
    pub publication: Option<String>,
    pub files: Vec<Visible>,
}

/// An attempt.
#[derive(Debug, Clone)]
pub struct Run {
    pub id: String,
    pub task: String,
    pub epoch: i64,
    /// Microseconds, by the record's clock.
    pub started: i64,
    pub ended: Option<i64>,
}

#[derive(Debug, Clone)]
pub struct Publication {
    pub id: String,
    pub output: i64,
    pub run: String,
    pub state: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Open,
    Committed,
    Dead,
}

#[derive(Debug, Clone)]
pub struct Event {
    pub seq: i64,
    /// The job's run number then.
    pub run: i64,
    /// The job's status, if this is a change of it.
    pub status: Option<Status>,
}

/// A server-sent event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEvent {
    pub id: Option<i64>,
    pub name: String,
}

/// A file as it is, or as the record says it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visible {
    /// Below the destination; begins with the job's id.
    pub path: String,
    pub size: u64,
    pub sha256: String,
}

impl Visible {
    /// The job it belongs to, by its path.
    pub fn job(&self) -> String {
        self.path.split('/').next().unwrap_or_default().replace('-', "")
    }
}
