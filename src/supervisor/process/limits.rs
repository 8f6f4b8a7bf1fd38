//! How many files we may have open: a descriptor for every node, and more for every link.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises our soft limit on open files to the hard one; returns both as they were, soft first.
///
/// Nodes get the original pair back ([`Program::nofile`](super::Program::nofile)): a program that loops over all
/// descriptors, or still uses `select`, suffers from a high one.
pub fn raise_open_files() -> io::Result<(u64, u64)> {
    let original = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: original.maximum, maximum: original.maximum })?;
    let number = |limit: Option<u64>| limit.unwrap_or(libc::RLIM_INFINITY);
    Ok((number(original.current), number(original.maximum)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (soft, hard) = raise_open_files().unwrap();
        assert!(soft <= hard, "{soft} of {hard}");
        assert_eq!(raise_open_files().unwrap(), (hard, hard));
    }
}
