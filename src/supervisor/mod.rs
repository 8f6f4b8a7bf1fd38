//! One supervisor per node: it decides when the process lives, and minds that it does.

pub mod output;
pub mod process;
