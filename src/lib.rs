//! flux: a distributed video-encoding service in one executable.
//!
//! The map of rooms and the direction between them is in `ARCHITECTURE.md`; each room's own page is its module doc.

pub mod domain;
pub mod store;
