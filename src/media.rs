//! ffmpeg and ffprobe: what a source is, what to do with it, doing it, and checking that it was done.
//!
//! Owns planning (pure), argv building (pure), child processes, progress parsing and verification.
//! The only room that spawns processes. Must not know: networks, stores, HTTP, where results go.
//! Invariant: argv is built from an [`plan::EncodePlan`] alone; no client text reaches a command line or filter graph,
//! and ffmpeg's exit code is never the only evidence of success.
//!
//! The order of a task: [`sniff`] (which container), [`structure`] (is it whole), [`probe`] (what is inside),
//! [`analyze`] (what headers do not say, where an output needs it), [`plan`], [`argv`], [`encode`], [`verify`]. Each takes the verdict of the one before as an argument, so a step
//! cannot be skipped by accident.
//! To add a codec: `domain::preset`, then `plan`, `argv` and its snapshot, then `verify`.
//! To add a container: `domain::Demuxer`, then `sniff`, then `structure` if it declares where it ends.

pub mod analyze;
pub mod argv;
mod boxes;
pub mod captions;
pub mod encode;
pub mod lint;
pub mod package;
pub mod plan;
pub mod probe;
pub mod process;
pub mod sniff;
pub mod stills;
pub mod structure;
pub mod tools;
mod ts;
pub mod verify;
pub mod webvtt;

use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;

/// What ffmpeg reads from. Names never come from clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A whole local file.
    File(PathBuf),
    /// The source gateway's URL on loopback.
    Loopback {
        /// `http://127.0.0.1:PORT/TOKEN/in`.
        url: String,
    },
}

/// Reads any part of a source through the same cache that ffmpeg reads from.
#[async_trait]
pub trait RandomRead: Send + Sync {
    /// Bytes in all.
    fn size(&self) -> u64;
    /// Up to `len` bytes at `offset`; fewer only at the end, none beyond it.
    async fn read_at(&self, offset: u64, len: usize) -> std::io::Result<Bytes>;
}

/// What every step that runs a program needs.
#[derive(Debug, Clone)]
pub struct Toolbox {
    /// Starts the programs.
    pub spawner: process::Spawner,
    /// Where they are.
    pub tools: tools::Tools,
}
