//! The memory that the program's own file takes.

use std::ffi::{c_int, c_void};
use std::ptr;

/// Gives the kernel back what was read of this program: it keeps that for as long as it likes, and the next who gets there
/// finds it again.
///
/// Only for whoever knows that nobody has written to what is only to be read: what a debugger has put there is lost.
pub fn put_away() {
    // Sound: `of_program` takes what it is called with, and nothing is passed to it.
    unsafe { libc::dl_iterate_phdr(Some(of_program), ptr::null_mut()) };
}

/// Is called with what is loaded, the program first, until it does not return 0.
unsafe extern "C" fn of_program(program: *mut libc::dl_phdr_info, _: libc::size_t, _: *mut c_void) -> c_int {
    // Sound: the dynamic loader lends its own tables for the time of this call.
    let (base, headers) = unsafe {
        let program = &*program;
        (program.dlpi_addr, std::slice::from_raw_parts(program.dlpi_phdr, program.dlpi_phnum.into()))
    };
    let page = rustix::param::page_size() as u64;
    let is_only_read = |header: &&libc::Elf64_Phdr| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0;
    for header in headers.iter().filter(is_only_read) {
        let begin = base + header.p_vaddr;
        let (from, to) = (begin & !(page - 1), (begin + header.p_memsz).next_multiple_of(page));
        // Sound: these pages are the file's, and whoever needs one is given the same again. It is advice, and may fail.
        unsafe { libc::madvise(from as *mut c_void, (to - from) as usize, libc::MADV_DONTNEED) };
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_away_is_there_again_for_whoever_needs_it() {
        let before = resident();
        put_away();
        let after = resident();
        assert!(0 < after && after < before, "{after} KiB of {before}");
    }

    /// How much of the program is mapped that can run, in KiB.
    fn resident() -> u64 {
        let own = std::env::current_exe().unwrap();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let is_its_own = |head: &str| head.contains(" r-xp ") && head.ends_with(own.to_str().unwrap());
        let mapping = maps.lines().skip_while(|line| !is_its_own(line));
        let size = mapping.filter_map(|line| line.strip_prefix("Rss:")?.strip_suffix(" kB")).next();
        size.expect("a program that runs").trim().parse().unwrap()
    }
}
