//! Processes: the only place that knows Unix, and Linux at that.
//!
//! [`spawn`] starts one in a session of its own, [`Process`] names one so that a signal can never hit another,
//! [`Exits`] tells when any of many ends and how, [`tree`] clears away what a node leaves behind, and [`groups`] has a
//! group of the kernel's for each node, by which all of it can be ended; [`errand`] runs a program to its end.
//! [`identity`] says which boot and which pid namespace a pid belongs to, [`clock`] how long ago that was; [`limits`]
//! makes room for a descriptor per node, [`memory`] gives back what nobody needs.
//!
//! A pid is a number that comes back; a pidfd is not. So every signal goes through a pidfd, and a number is used only
//! while something pins it: a child of ours that nobody reaped yet.
#![deny(unsafe_code)]

mod berth;
pub mod clock;
mod ended_children;
pub mod errand;
mod error;
mod exits;
mod family;
pub mod groups;
mod handle;
pub mod identity;
mod leaders;
pub mod limits;
mod listeners;
pub mod looks;
pub mod marked;
pub mod memory;
mod mounts;
pub mod notices;
mod obstacles;
pub mod oom;
mod pidfs;
pub mod quotas;
mod rights;
pub mod run_dir;
mod spawn;
mod stat;
mod sys;
#[cfg(test)]
mod testing;
pub mod tree;

/// Whether this process is the first of its pid namespace: then the kernel ends every other one there with it.
pub fn is_init() -> bool {
    std::process::id() == 1
}

/// Whether the kernel tells how the process ended, which somebody has reaped, whose pidfd this is.
pub fn tells_how_the_reaped_ended(pidfd: impl std::os::fd::AsFd) -> bool {
    sys::info::wait_status(pidfd).is_some()
}

pub use berth::reserve as reserve_berths;
pub use ended_children::EndedChildren;
pub use error::SpawnError;
pub use exits::{Ended, Exits, Remains};
pub use handle::Process;
pub use listeners::Listeners;
pub use obstacles::obstacles;
pub use rustix::process::Signal;
pub use spawn::{Program, Record, spawn};
pub(crate) use sys::local_time::local as local_time;
pub(crate) use sys::signals::heed as heed_signals;
pub(crate) use sys::signals::let_through as let_sigchld_through;

/// What that variable is in the environment with which the process began, as far as we may look and it is still there.
pub fn variable(pid: u32, name: &str) -> Option<std::ffi::OsString> {
    family::variable(pid, name)
}

/// The numbers of a user and its group; `None` if there is no such user, which is told at the launch.
pub fn user_of(name: &str) -> Option<(u32, u32)> {
    let name = std::ffi::CString::new(name).ok()?;
    sys::user::look_up(&name).ok().flatten().map(|user| (user.uid, user.gid))
}

/// Whether that process is the node's whose marker this is and whose `leader` lives. One that cannot be looked at is not.
pub fn belongs(pid: u32, marker: &str, leader: u32) -> bool {
    family::belongs(pid, marker, leader).unwrap_or(false)
}
