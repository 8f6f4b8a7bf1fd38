//! The node's output files: `stdout` and `stderr` in its directory, those of the present life.
//!
//! The node writes into them itself, and owns the directory if it runs as a user of its own. So they are read with
//! suspicion: what is not a plain file is as good as missing.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::model::Output;

/// The most that is read back of each stream, in bytes: half of what an [`Output`] may hold.
const MOST_BYTES: usize = 8 << 10;

/// Makes room for a new life: what the last one wrote becomes `stdout.1` and `stderr.1`, in place of what was there.
///
/// A file that is empty or missing leaves the older one alone.
pub fn rotate(directory: &Path) -> io::Result<()> {
    for stream in ["stdout", "stderr"] {
        let file = directory.join(stream);
        match fs::symlink_metadata(&file) {
            Ok(metadata) if metadata.is_file() && metadata.len() == 0 => {}
            Ok(_) => fs::rename(&file, directory.join(format!("{stream}.1")))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads the last lines of the present life: at most `lines` of each stream, and at most 8 KiB of each, the oldest
/// dropped first. What is not UTF-8 is replaced; a missing file is empty.
pub fn last_lines(directory: &Path, lines: usize) -> io::Result<Output> {
    let tail = |stream| tail(&directory.join(stream), lines);
    Ok(Output { stdout: tail("stdout")?, stderr: tail("stderr")? })
}

fn tail(path: &Path, lines: usize) -> io::Result<String> {
    let Some(mut file) = open_plain(path)? else {
        return Ok(String::new());
    };
    // One byte more tells whether the first line is whole.
    let start = file.metadata()?.len().saturating_sub(MOST_BYTES as u64 + 1);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(last_of(&String::from_utf8_lossy(&bytes), lines).to_owned())
}

/// `None` if there is no plain file.
fn open_plain(path: &Path) -> io::Result<Option<File>> {
    // A link could lead to what is not the node's, and a pipe would make us wait.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_file() => Ok(Some(file.into())),
        Ok(_) | Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// The last lines that fit; a line that alone is too long keeps its end.
fn last_of(text: &str, lines: usize) -> &str {
    let cut = (text.len().saturating_sub(MOST_BYTES)..).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let mut fitting = &text[cut..];
    // What was cut in the middle of a line goes, up to that line's end, unless nothing would be left.
    if !text[..cut].is_empty() && !text[..cut].ends_with('\n') {
        fitting = fitting.split_once('\n').map(|(_, rest)| rest).filter(|rest| !rest.is_empty()).unwrap_or(fitting);
    }
    let body = fitting.strip_suffix('\n').unwrap_or(fitting);
    let ends = body.rmatch_indices('\n').map(|(at, _)| at + 1);
    match lines.checked_sub(1) {
        None => "",
        Some(before) => ends.into_iter().nth(before).map_or(fitting, |start| &fitting[start..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_those_at_the_end() {
        for (text, lines, want) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 2, "a\nb\n"),
            ("a\nb\n", 1, "b\n"),
            ("a\n\n\n", 2, "\n\n"),
            ("a\n", 0, ""),
            ("", 3, ""),
            ("\n", 1, "\n"),
            ("a", 100, "a"),
        ] {
            assert_eq!(tail_of(text.as_bytes(), lines), want, "{lines} of {text:?}");
        }
    }

    #[test]
    fn no_more_than_eight_kibibytes_of_whole_lines_come_back() {
        let line = "0123456789\n";
        let text = tail_of(line.repeat(10_000).as_bytes(), usize::MAX);
        assert_eq!(text, line.repeat(MOST_BYTES / line.len()));
        let fits_exactly = format!("old\n{}\n", "x".repeat(MOST_BYTES - 1));
        assert_eq!(tail_of(fits_exactly.as_bytes(), 100), fits_exactly["old\n".len()..]);
    }

    #[test]
    fn a_line_that_is_too_long_keeps_its_end() {
        let text = tail_of(format!("{}the end\n", "x".repeat(100_000)).as_bytes(), 5);
        assert_eq!(text.len(), MOST_BYTES);
        assert!(text.ends_with("xthe end\n"));
    }

    #[test]
    fn bytes_that_are_no_text_do_not_swell_it() {
        for text in [vec![0xff; 100_000], "ä".repeat(50_000).into_bytes(), b"\xff\n".repeat(9_000)] {
            let tail = tail_of(&text, usize::MAX);
            assert!((MOST_BYTES - 4..=MOST_BYTES).contains(&tail.len()), "{}", tail.len());
        }
        assert_eq!(tail_of(b"a\xffb\n", 1), "a\u{fffd}b\n");
    }

    #[test]
    fn what_is_missing_or_no_plain_file_is_empty() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("stdout")).unwrap();
        fs::write(home.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink("secret", home.path().join("stderr")).unwrap();
        assert_eq!(last_lines(home.path(), 9).unwrap(), Output::default());
        fs::remove_dir(home.path().join("stdout")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, home.path().join("stdout"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        fs::remove_file(home.path().join("stderr")).unwrap();
        assert_eq!(last_lines(home.path(), 9).unwrap(), Output::default());
    }

    #[test]
    fn a_new_life_gets_new_files_and_an_empty_one_hides_nothing() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(home.path().join(name), text).unwrap();
        let read = |name: &str| fs::read_to_string(home.path().join(name)).ok();
        rotate(home.path()).unwrap();
        write("stdout", "first");
        write("stderr", "");
        rotate(home.path()).unwrap();
        assert_eq!((read("stdout"), read("stdout.1").as_deref()), (None, Some("first")));
        assert_eq!((read("stderr").as_deref(), read("stderr.1")), (Some(""), None));
        write("stdout", "");
        rotate(home.path()).unwrap();
        assert_eq!(read("stdout.1").as_deref(), Some("first"));
        assert_eq!(last_lines(home.path(), 9).unwrap(), Output::default(), "the present life is silent");
        write("stdout", "second");
        rotate(home.path()).unwrap();
        assert_eq!(read("stdout.1").as_deref(), Some("second"));
    }

    fn tail_of(bytes: &[u8], lines: usize) -> String {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("stdout"), bytes).unwrap();
        last_lines(home.path(), lines).unwrap().stdout
    }
}
