//! Controller and agents in virtual time: their real decisions, over links, processes and clocks made up by chance.
//!
//! A run is its seed, which a failure prints. `WATCHPOST_SEED` runs one seed alone, `WATCHPOST_SEEDS` that many.

mod agent;
mod chance;
mod cluster;
mod deployments;
mod files;
mod gentle;
mod log;
mod machine;
mod world;
