//! The memory that the program's own file takes.

use std::ffi::{c_int, c_void};
use std::fs;
use std::ops::Range;
use std::ptr;

/// Gives the kernel back what was read of this program: it keeps that for as long as it likes, and the next who gets there
/// finds it again. What somebody has written to stays as it is: where a debugger, or whoever loads programs, has done so.
pub fn put_away() {
    let Ok(smaps) = fs::read_to_string("/proc/self/smaps") else { return };
    let written = written_to(&smaps);
    // SAFETY: `of_program` takes what it is called with, and `written` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(of_program), ptr::from_ref(&written).cast_mut().cast()) };
}

/// Is called with what is loaded, the program first, until it does not return 0.
unsafe extern "C" fn of_program(program: *mut libc::dl_phdr_info, _: libc::size_t, written: *mut c_void) -> c_int {
    // SAFETY: the dynamic loader lends its own tables for the time of this call, and `put_away` its ranges.
    let (base, headers, written) = unsafe {
        let program = &*program;
        let headers = std::slice::from_raw_parts(program.dlpi_phdr, program.dlpi_phnum.into());
        (program.dlpi_addr, headers, &*written.cast::<Vec<Range<u64>>>())
    };
    let page = rustix::param::page_size() as u64;
    let is_only_read = |header: &&libc::Elf64_Phdr| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0;
    for header in headers.iter().filter(is_only_read) {
        let begin = base + header.p_vaddr;
        let (from, to) = (begin & !(page - 1), (begin + header.p_memsz).next_multiple_of(page));
        if written.iter().any(|range| range.start < to && from < range.end) {
            continue;
        }
        // SAFETY: nobody has written to these pages, so they are the file's, and whoever needs one is given the same again.
        // It is advice, and may fail.
        unsafe { libc::madvise(from as *mut c_void, (to - from) as usize, libc::MADV_DONTNEED) };
    }
    1
}

/// The mappings of which some page is not the file's any more, by the kernel's own account of this process.
fn written_to(smaps: &str) -> Vec<Range<u64>> {
    let (mut written, mut mapping) = (Vec::new(), None);
    for line in smaps.lines() {
        let Some((name, rest)) = line.split_once(char::is_whitespace) else { continue };
        match name.split_once('-') {
            Some((from, to)) => {
                let address = |text| u64::from_str_radix(text, 16).ok();
                mapping = address(from).zip(address(to)).map(|(from, to)| from..to);
            }
            None if name == "Anonymous:" && rest.trim() != "0 kB" => written.extend(mapping.take()),
            None => {}
        }
    }
    written
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

    #[test]
    fn what_was_written_to_is_known_from_the_kernel() {
        let smaps = "1000-2000 r-xp 00000000 08:01 7   /bin/x-y\nSize:  4 kB\nAnonymous:             0 kB\n\
                     2000-3000 r-xp 00001000 08:01 7   /bin/x-y\nSize:  4 kB\nAnonymous:             4 kB\nVmFlags: rd ex\n\
                     a000-ff00 rw-p 00000000 00:00 0\nAnonymous:           128 kB\n";
        assert_eq!(written_to(smaps), [0x2000..0x3000, 0xa000..0xff00]);
        assert_eq!(written_to("rubbish - and more\nAnonymous: x"), []);
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
