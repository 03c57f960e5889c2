//! What comes out of what: real clips, damaged clips and awkward pictures through a real server, looked at with ffprobe.
//!
//! `table` has a verdict for every clip of the shared sample folder, when this machine has it; everything else is made
//! on the spot. A new clip is a new row.

mod damage;
mod fields;
mod kit;
mod light;
mod passes;
mod picture;
mod shape;
mod side_by_side;
mod table;
