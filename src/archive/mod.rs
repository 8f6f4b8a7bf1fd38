//! The logs that Zeek nodes have closed leave their queues into an archive of dated directories, and the oldest are let go.
//!
//! [`name`] reads names and makes those of the archive, [`retention`] decides what goes, [`guard`] when people are told of a
//! disk, [`pace`] when something is tried or looked at again: all of it without a file or a clock. `queue` and `shelf` touch
//! files, `disks`, `courier` and `press` ask the kernel and commands, `clerk` is the thread, and [`handle`] has it work. Nothing is removed from a node's directory that is not in the archive.

mod clerk;
mod courier;
mod disks;
pub mod guard;
pub mod handle;
pub mod name;
pub mod pace;
pub mod pattern;
mod press;
mod queue;
pub mod retention;
mod roll;
mod shelf;

pub use handle::{Archive, News, Opening};
pub use roll::{Minded, Order, Wish};

/// Where a node that writes logs puts those that it has closed, below its working directory.
pub const QUEUE: &str = "log-queue";
