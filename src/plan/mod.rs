//! Decisions about configurations: pure functions from what is to what should be.
