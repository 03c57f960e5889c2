//! The integration tests: one binary, one module per subject.
#![expect(unreachable_pub, reason = "nothing outside of a test binary can reach into it")]

#[cfg(test)]
mod access;
#[cfg(test)]
mod architecture;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod buckets;
#[cfg(test)]
mod canaries;
#[cfg(test)]
mod captions;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod clips;
#[cfg(test)]
mod controls;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod garage;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod nemesis;
#[cfg(test)]
mod package;
#[cfg(test)]
mod parts;
#[cfg(test)]
mod peers;
#[cfg(test)]
mod playback;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod report;
#[cfg(test)]
mod retention;
#[cfg(test)]
mod sandbox;
#[cfg(test)]
mod sets;
#[cfg(test)]
mod stills;
#[cfg(test)]
mod storage;
#[cfg(test)]
mod support;
#[cfg(test)]
mod sync;
#[cfg(test)]
mod uploads;
#[cfg(test)]
mod validate;
#[cfg(test)]
mod waking;
#[cfg(test)]
mod webhooks;
