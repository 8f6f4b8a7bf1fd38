//! How many files we may have open: a descriptor for every node, and more for every link.

use std::fs::File;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many descriptors are needed beside those that nodes have, while many are started at once: far fewer.
const SPARE: usize = 4096;
/// What is held of a node at the most: its process, and where it is heard.
const PER_NODE: usize = 2;

/// Raises our soft limit on open files to the hard one, and [makes room](make_room) for some; returns both as they were,
/// soft first.
///
/// Nodes get the original pair back ([`Program::nofile`](super::Program::nofile)): a program that loops over all
/// descriptors, or still uses `select`, suffers from a high one.
pub fn raise_open_files() -> io::Result<(u64, u64)> {
    let original = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: original.maximum, maximum: original.maximum })?;
    make_room(0);
    let number = |limit: Option<u64>| limit.unwrap_or(libc::RLIM_INFINITY);
    Ok((number(original.current), number(original.maximum)))
}

/// Has the kernel make its table of our descriptors large enough for so many nodes and some more, as far as the limit
/// allows.
///
/// Where it becomes full the kernel makes one that is twice as large, and in a program with threads it waits until no
/// processor can be reading the former one: ten milliseconds and more each time, in which nothing is launched and nothing
/// taken up. So it is best done before there are threads. Where it cannot be done, the table grows as it is needed.
pub fn make_room(nodes: usize) {
    let wanted = SPARE.saturating_add(nodes.saturating_mul(PER_NODE));
    let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
    let last = wanted.min(limit.unwrap_or(wanted)).saturating_sub(1);
    // The highest number that was ever given away decides how large it is.
    let _ = File::open("/dev/null").map(|null| rustix::io::fcntl_dupfd_cloexec(&null, last as i32));
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// What is limited is the process's, and tests of one process run side by side.
    static LIMIT: Mutex<()> = Mutex::new(());

    #[test]
    fn there_is_room_for_many_nodes_before_there_are_any() {
        let _alone = LIMIT.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(10_000);
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap().trim();
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        assert!(size.parse::<u64>().unwrap() >= limit.min(20_000), "{size} of {limit}");
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let _alone = LIMIT.lock().unwrap_or_else(PoisonError::into_inner);
        let (soft, hard) = raise_open_files().unwrap();
        assert!(soft <= hard, "{soft} of {hard}");
        assert_eq!(raise_open_files().unwrap(), (hard, hard));
    }
}
