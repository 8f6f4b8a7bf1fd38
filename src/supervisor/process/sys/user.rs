//! The user database.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::ptr;

use rustix::io::Errno;

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: libc::uid_t,
    pub gid: libc::gid_t,
    /// All groups, the first one included.
    pub groups: Vec<libc::gid_t>,
    pub home: CString,
}

/// No entry of the database is longer, in bytes.
const LONGEST_ENTRY: usize = 1 << 20;

/// The kernel's own bound on the groups of a process (`NGROUPS_MAX`).
const MOST_GROUPS: usize = 65536;

/// Looks up a user and all groups that it belongs to; `None` if there is no such user.
pub fn look_up(name: &CStr) -> Result<Option<User>, Errno> {
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let mut strings = vec![0; 1024];
    loop {
        let mut found = ptr::null_mut();
        // SAFETY: every pointer is valid for the call, and `strings` is as long as said.
        let code = unsafe {
            libc::getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), strings.as_mut_ptr(), strings.len(), &mut found)
        };
        match code {
            0 if !found.is_null() => break,
            0 | libc::ENOENT | libc::ESRCH => return Ok(None),
            libc::ERANGE if strings.len() < LONGEST_ENTRY => strings.resize(strings.len() * 4, 0),
            libc::EINTR => {}
            code => return Err(Errno::from_raw_os_error(code)),
        }
    }
    // SAFETY: getpwnam_r succeeded and found one, so it filled `entry`, whose texts are in `strings`.
    let (uid, gid, home) = unsafe {
        let entry = &*entry.as_ptr();
        (entry.pw_uid, entry.pw_gid, CStr::from_ptr(entry.pw_dir).to_owned())
    };
    Ok(Some(User { uid, gid, groups: groups(name, gid)?, home }))
}

/// Looks up a group; `None` if there is no such group.
pub fn look_up_group(name: &CStr) -> Result<Option<libc::gid_t>, Errno> {
    let mut entry = MaybeUninit::<libc::group>::uninit();
    let mut strings = vec![0; 1024];
    loop {
        let mut found = ptr::null_mut();
        // SAFETY: every pointer is valid for the call, and `strings` is as long as said.
        let code = unsafe {
            libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), strings.as_mut_ptr(), strings.len(), &mut found)
        };
        match code {
            // SAFETY: it succeeded and found one, so it filled `entry`.
            0 if !found.is_null() => return Ok(Some(unsafe { (*entry.as_ptr()).gr_gid })),
            0 | libc::ENOENT | libc::ESRCH => return Ok(None),
            libc::ERANGE if strings.len() < LONGEST_ENTRY => strings.resize(strings.len() * 4, 0),
            libc::EINTR => {}
            code => return Err(Errno::from_raw_os_error(code)),
        }
    }
}

fn groups(name: &CStr, gid: libc::gid_t) -> Result<Vec<libc::gid_t>, Errno> {
    let mut groups = vec![0; 64];
    loop {
        let mut count = groups.len() as libc::c_int; // at most MOST_GROUPS
        // SAFETY: `groups` has room for `count` entries.
        let result = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &mut count) };
        if result >= 0 {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            return Ok(groups);
        }
        if groups.len() >= MOST_GROUPS {
            return Err(Errno::TOOBIG);
        }
        groups.resize(groups.len() * 4, 0);
    }
}
