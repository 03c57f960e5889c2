//! The integration tests: one binary, one module per subject.

#[cfg(test)]
mod architecture;
