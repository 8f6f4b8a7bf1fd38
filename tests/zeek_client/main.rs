//! The unmodified zeek-client against the controller: every command, in success and in failure.
//!
//! It is installed from the Python package index into a virtual environment under `target/`, once, by whichever test
//! comes first. What must be there for that is Python 3 with its `venv` module; nothing of the system is touched.

// Much of it is for other tests.
#[allow(dead_code, unused_imports)]
#[path = "../common/mod.rs"]
mod common;

mod install;
mod play;
mod run;
mod scripts;

mod commands;
mod deadlines;
mod deploying;
mod doors;
mod events;
mod refused;
mod whole;
