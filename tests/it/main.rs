//! The integration tests: one binary, one module per subject.

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod support;
