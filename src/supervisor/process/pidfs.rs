//! The file system of pidfds (Linux 6.9), in which every process has a number of its own for as long as the machine is up:
//! no other has it, not even one that gets its pid in the same clock tick.

use std::os::fd::AsFd;
use std::sync::OnceLock;

use rustix::process::PidfdFlags;

/// By this the kernel names it.
const MAGIC: u32 = 0x5049_4446;

/// The number of the process whose pidfd that is; `None` where the kernel gives none.
pub(super) fn number(pidfd: impl AsFd) -> Option<u64> {
    let number = is_there().then(|| rustix::fs::fstat(pidfd).ok()).flatten().map(|stat| stat.st_ino);
    number.filter(|number| *number != 0)
}

/// Whether pidfds are in it here. Where they are not, all have one number, or each another one.
pub(super) fn is_there() -> bool {
    static IS_THERE: OnceLock<bool> = OnceLock::new();
    *IS_THERE.get_or_init(|| {
        let ours = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
        // The kernel's word for it is as wide as the machine's.
        ours.and_then(rustix::fs::fstatfs).is_ok_and(|found| found.f_type as u32 == MAGIC)
    })
}

#[cfg(test)]
mod tests {
    use super::super::spawn;
    use super::super::testing::{finish, script};
    use super::*;

    #[test]
    fn every_process_has_a_number_of_its_own_by_whatever_pidfd_it_is_asked() {
        let home = tempfile::tempdir().unwrap();
        let [one, other] = [(); 2].map(|()| spawn(&script(home.path(), "exec sleep 1000"), None).unwrap());
        let again = rustix::process::pidfd_open(super::super::handle::number(one.pid()).unwrap(), PidfdFlags::empty());
        assert_eq!(number(&one), number(again.unwrap()));
        assert_eq!(number(&one).is_some(), is_there());
        assert!(!is_there() || number(&one) != number(&other));
        for process in [one, other] {
            process.kill().unwrap();
            finish(&process);
        }
    }
}
