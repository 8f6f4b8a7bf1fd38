//! What holds for any input at all.

mod any;
mod cluster_file;
mod liveness;
mod plan;
mod supervisor;
