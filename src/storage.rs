//! Sources and destinations: where bytes come from and where results go.
//!
//! Owns the source gateway, the address policy, local folders, object stores, uploads and publishing handles.
//! The only user of `object_store` and `reqwest`. Must not know: ffmpeg, jobs' states, the store.
//! Invariants: a block of a source becomes readable only when all its bytes came under the pinned validator; nothing
//! becomes visible at a destination but by committing a handle, and a destroyed handle can never be committed.

pub mod beneath;
mod gateway;
pub mod http;
pub mod origin;
pub mod policy;
pub mod sources;

#[cfg(test)]
mod test_origin;
