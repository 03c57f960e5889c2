//! The worker role: slots, runs, work folders, and the path from a source to a published output.
//!
//! Owns the slots (nobody else decides what runs here), the runs and their work folders. Puts `media` and `storage`
//! together. Must not know: the store, HTTP, other workers.
//! Invariants: a run exists only by a START addressed to this incarnation; nothing becomes visible without a permit;
//! whatever ends a run (success, failure, cancel, drain, panic) its process group is dead and its folder is gone
//! once the end is acknowledged.
//! To add a kind of task: its message in `rpc::wire`, an arm in `run`, a module beside [`transcode`].

mod account;
mod captions;
mod delivery;
mod disk;
mod encoding;
mod log;
mod packaging;
mod poster;
mod probe;
mod processes;
mod progress;
mod publish;
mod register;
mod run;
mod service;
mod slots;
mod stills;
#[cfg(test)]
mod tests;
mod transcode;
mod workspace;

pub use probe::{Given, Looked, Prober, ProberParts, Refused};
pub use register::{Advertised, Registrar};
pub use service::{Deps, Worker, WorkerSettings};
pub use transcode::Limits;
pub use workspace::{WorkRoot, WorkspaceError};
