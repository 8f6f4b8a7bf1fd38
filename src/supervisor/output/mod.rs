//! What a node writes: `stdout` and `stderr` in its directory, and what was put aside of them.
//!
//! The node writes into them itself, and owns the directory if it runs as a user of its own. So they are read with
//! suspicion: what is not a plain file is as good as missing. `rotate` puts aside, [`read`] reads all of it, and
//! [`keeper`] is the thread that notices when there is something to put aside, or to read.

pub mod keeper;
mod pace;
mod plain;
pub mod read;
mod readings;
mod rotate;
mod shelf;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::{fs, io};

use crate::model::{Output, OutputStream};
pub use keeper::Keeper;
use read::{Scope, place_of_last};
pub use readings::{Read, Readings};
pub use rotate::Lock;
use shelf::Shelf;

/// The most that is read back of each stream, in bytes: half of what an [`Output`] may hold.
const MOST_BYTES: usize = 8 << 10;

/// What [`begin_life`] returns where nothing was ever written.
pub const FIRST_LIFE: [u64; 2] = [1, 1];

/// Makes room for a new life: what the last one wrote is put aside, under the lock of the node.
///
/// A file that is empty or missing stays as it is. Returns which file each stream is now, counted from 1.
pub fn begin_life(directory: &Path, lock: &Lock) -> io::Result<[u64; 2]> {
    let _held = lock.hold();
    let [stdout, stderr] = Shelf::read_both(directory)?;
    Ok([
        rotate::close(directory, OutputStream::Stdout, stdout.next())?,
        rotate::close(directory, OutputStream::Stderr, stderr.next())?,
    ])
}

/// Which file the stream that is written now is, counted from 1.
pub fn volume(directory: &Path, stream: OutputStream, lock: &Lock) -> io::Result<u64> {
    let _held = lock.hold();
    Ok(Shelf::read(directory, stream)?.next().volume)
}

/// Reads the last lines: at most `lines` of each stream, and at most 8 KiB of each, the oldest dropped first. What is not
/// UTF-8 is replaced; a missing file is empty.
pub fn last_lines(
    directory: &Path,
    lines: usize,
    scope: impl Fn(OutputStream) -> Scope,
    lock: &Lock,
) -> io::Result<Output> {
    let tail = |stream| tail(directory, stream, lines, scope(stream), lock);
    Ok(Output { stdout: tail(OutputStream::Stdout)?, stderr: tail(OutputStream::Stderr)? })
}

/// The scope of what the present life wrote.
pub fn present_life(directory: &Path, lock: &Lock) -> impl Fn(OutputStream) -> Scope {
    // What cannot be told is told where it is read.
    move |stream| volume(directory, stream, lock).map_or(Scope::All, Scope::Volume)
}

fn tail(directory: &Path, stream: OutputStream, lines: usize, scope: Scope, lock: &Lock) -> io::Result<String> {
    let length = fs::symlink_metadata(directory.join(stream.as_str())).map_or(0, |found| found.len());
    if length == 0 && !Shelf::is_there(directory) {
        return Ok(String::new()); // it never said a word, as most who die early
    }
    // One byte more tells whether the first line is whole.
    let most = MOST_BYTES + 1;
    let (mut place, mut opened, mut bytes) =
        (place_of_last(directory, stream, lines, most as u64, scope, lock)?, None, Vec::new());
    loop {
        let piece = read::read(directory, stream, place, most, lock, &mut opened)?;
        let ends = piece.at_end || matches!(scope, Scope::Volume(volume) if piece.place.volume > volume);
        if !matches!(scope, Scope::Volume(volume) if piece.place.volume != volume) {
            bytes.extend(piece.bytes);
        }
        if ends || bytes.len() > 2 * most {
            break;
        }
        place = piece.next;
    }
    Ok(last_of(&String::from_utf8_lossy(&bytes), lines).to_owned())
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
mod lines {
    use std::fs;

    use rustix::fs::{FileType, Mode};

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
        assert_eq!(all(home.path(), 9), Output::default());
        fs::remove_dir(home.path().join("stdout")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, home.path().join("stdout"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        fs::remove_file(home.path().join("stderr")).unwrap();
        assert_eq!(all(home.path(), 9), Output::default());
    }

    #[test]
    fn a_new_life_gets_new_files_and_an_empty_one_hides_nothing() {
        let home = tempfile::tempdir().unwrap();
        let lock = Lock::default();
        let begin = || begin_life(home.path(), &lock).unwrap();
        let write = |name: &str, text: &str| fs::write(home.path().join(name), text).unwrap();
        let present = || last_lines(home.path(), 9, present_life(home.path(), &lock), &lock).unwrap();
        begin();
        write("stdout", "first\n");
        write("stderr", "");
        begin();
        assert!(!home.path().join("stdout").exists() && home.path().join("stderr").exists());
        write("stdout", "");
        begin();
        assert_eq!(present(), Output::default(), "the present life is silent");
        write("stdout", "second\n");
        assert_eq!((present().stdout.as_str(), all(home.path(), 9).stdout.as_str()), ("second\n", "first\nsecond\n"));
        begin();
        write("stdout", "third\n");
        assert_eq!(all(home.path(), 2).stdout, "second\nthird\n");
        assert_eq!(volume(home.path(), OutputStream::Stdout, &lock).unwrap(), 3);
    }

    fn tail_of(bytes: &[u8], lines: usize) -> String {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("stdout"), bytes).unwrap();
        all(home.path(), lines).stdout
    }

    fn all(home: &Path, lines: usize) -> Output {
        last_lines(home, lines, |_| Scope::All, &Lock::default()).unwrap()
    }
}
