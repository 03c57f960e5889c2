//! flux: a distributed video-encoding service in one executable.
//!
//! The map of rooms and the direction between them is in `ARCHITECTURE.md`; each room's own page is its module doc.

pub mod api;
pub mod cli;
pub mod config;
pub mod control;
pub mod domain;
pub mod lifecycle;
pub mod media;
pub mod rpc;
pub mod storage;
pub mod store;
pub mod telemetry;
pub mod worker;
