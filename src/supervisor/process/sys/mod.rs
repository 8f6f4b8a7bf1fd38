//! The system calls that `rustix` does not have: every `unsafe` block of the crate is in this folder.
//!
//! [`child`] is what runs between clone and exec, [`birth`] the clone into a control group, [`user`] asks the user
//! database, [`group`] signals a process group through a pidfd, [`info`] asks a pidfd about the dead, [`datagram`] who
//! sent one, [`usage`] asks what a child had used, [`heap`] asks the allocator to let go, [`program`] puts the
//! program's own pages away, [`signals`] hears of children without a handler, [`local_time`] what time it is here.
#![allow(unsafe_code)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("watchpost supports 64-bit Linux only: the numbers of several system calls differ on 32-bit machines");

mod birth;
pub(super) mod child;
pub(super) mod datagram;
pub(super) mod group;
pub(super) mod heap;
pub(super) mod info;
pub(super) mod local_time;
pub(super) mod program;
pub(super) mod signals;
pub(super) mod usage;
pub(super) mod user;
