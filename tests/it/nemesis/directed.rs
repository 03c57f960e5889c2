//! Single failures, tried on purpose.
