//! Which format a state directory has, and how what an earlier release left is carried over.
//!
//! One small file at its top says so. A release that meets a later format than its own leaves the directory as it is: what
//! it does not know of it could not keep. One that meets an earlier format takes it step by step to its own, and notes each
//! step when it is done; a crash in between has the next start go on from there.

use std::fs;
use std::path::Path;

use super::{StateDir, StateDirError, read_small};

/// The format that this release writes.
pub const FORMAT: u32 = 1;

/// The file's name.
const NAME: &str = "format";

/// Takes a directory from one format to the next. It may be done again after a crash in its middle, so each thing that it
/// does must bear that.
type Step = fn(&Path) -> Result<(), StateDirError>;

/// The first leads from format 0, which had no file that said so, to format 1, and so on.
const STEPS: [Step; FORMAT as usize] = [|_| Ok(())]; // from 0 to 1 it only gets its name

/// What a directory says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    format: u32,
    /// The release that made it so, such as `0.1.0`.
    release: String,
}

/// The directory's format; 0 if it does not say, as that of an early release and an empty one. Touches nothing.
pub(super) fn check(path: &Path) -> Result<u32, StateDirError> {
    match read(path)? {
        None => Ok(0),
        Some(Found { format, .. }) if format <= FORMAT => Ok(format),
        Some(Found { format, release }) => Err(StateDirError::Newer { path: path.to_owned(), format, release }),
    }
}

fn read(path: &Path) -> Result<Option<Found>, StateDirError> {
    let file = path.join(NAME);
    let Some((text, _)) = read_small(&file)? else { return Ok(None) };
    // Later releases may say more, behind that or in further lines.
    let mut words = text.lines().next().unwrap_or_default().split(' ');
    let found = match (words.next().map(str::parse), words.next(), words.next()) {
        (Some(Ok(format)), Some("watchpost"), Some(release)) if format > 0 => {
            Some(Found { format, release: crate::bridge::greeting::printable(release) })
        }
        _ => None,
    };
    found.map(Some).ok_or(StateDirError::NoFormat { path: file })
}

/// Takes the directory from `format` to that of this release.
pub(super) fn carry_over(directory: &StateDir, format: u32) -> Result<(), StateDirError> {
    by_steps(directory, format, &STEPS)
}

fn by_steps(directory: &StateDir, format: u32, steps: &[Step]) -> Result<(), StateDirError> {
    let has_state = fs::read_dir(directory.nodes()).is_ok_and(|mut nodes| nodes.next().is_some())
        || directory.path().join("controller.redb").exists();
    for (step, from) in steps.iter().zip(0..).skip(format as usize) {
        let to = from + 1;
        if has_state {
            tracing::info!("carrying {} over from format {from} to {to}", directory.path().display());
        }
        step(directory.path())?;
        let line = format!("{to} watchpost {}\n", env!("CARGO_PKG_VERSION"));
        directory.write_atomically(NAME, line.as_bytes(), 0o600)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;

    /// Every file and directory below that path, with what is in it.
    fn everything(path: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => all.extend(everything(&path).into_iter().chain([(path, None)])),
                false => drop(all.insert(path.clone(), Some(fs::read(&path).unwrap()))),
            }
        }
        all
    }

    #[test]
    fn a_directory_of_a_later_release_is_refused_in_one_sentence_and_left_untouched() {
        let directory = tempfile::tempdir().unwrap();
        drop(StateDir::take(directory.path()).unwrap());
        for (file, bytes) in [("format", "7 watchpost 3.1.4\nand more\n"), ("controller.redb", "?"), ("lock", "1\n")] {
            fs::write(directory.path().join(file), bytes).unwrap();
        }
        fs::remove_dir(directory.path().join("nodes")).unwrap();
        let before = everything(directory.path());
        let error = StateDir::take(directory.path()).unwrap_err().to_string();
        let ours = env!("CARGO_PKG_VERSION");
        let words = format!("is in format 7, of watchpost 3.1.4, and watchpost {ours} knows formats up to {FORMAT}:");
        assert!(error.contains(&words) && !error.contains('\n'), "{error}");
        assert_eq!(everything(directory.path()), before);
        assert!(StateDir::check_format(directory.path()).is_err(), "also for who takes nothing");
    }

    #[test]
    fn a_directory_that_does_not_say_its_format_is_carried_over_with_all_that_is_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let taken = StateDir::take(directory.path()).unwrap();
        let token = taken.token().unwrap();
        drop(taken);
        let (record, format) = (directory.path().join("nodes/w"), directory.path().join(NAME));
        fs::write(&record, "what an earlier release wrote").unwrap();
        fs::remove_file(&format).unwrap();
        let taken = StateDir::take(directory.path()).unwrap();
        assert_eq!(fs::read_to_string(&record).unwrap(), "what an earlier release wrote");
        assert_eq!(taken.token().unwrap(), token);
        let line = format!("{FORMAT} watchpost {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(fs::read_to_string(&format).unwrap(), line);
    }

    #[test]
    fn a_file_that_says_no_format_is_refused_with_the_way_out() {
        let directory = tempfile::tempdir().unwrap();
        drop(StateDir::take(directory.path()).unwrap());
        for text in ["", "1", "0 watchpost 0.1.0\n", "x watchpost 0.1.0\n", "-1 watchpost 0.1.0\n", "1 other 0.1.0\n"] {
            fs::write(directory.path().join(NAME), text).unwrap();
            let error = StateDir::take(directory.path()).unwrap_err().to_string();
            assert!(error.contains("does not say which format the state directory has"), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_crash_between_two_steps_or_in_one_has_the_next_start_go_on_from_there() {
        fn note(path: &Path, step: &str) -> Result<(), StateDirError> {
            let log = path.join("steps");
            let done = fs::read_to_string(&log).unwrap_or_default() + step;
            fs::write(&log, done).unwrap();
            Ok(())
        }
        fn crash(path: &Path) -> Result<(), StateDirError> {
            note(path, "half ")?;
            Err(StateDirError::NoFormat { path: path.to_owned() })
        }
        let directory = tempfile::tempdir().unwrap();
        let taken = StateDir::take(directory.path()).unwrap();
        fs::remove_file(directory.path().join(NAME)).unwrap();
        let (first, last): (Step, Step) = (|path| note(path, "first "), |path| note(path, "last "));
        assert_eq!(check(directory.path()).unwrap(), 0);
        by_steps(&taken, 0, &[first, crash]).unwrap_err();
        assert_eq!(read(directory.path()).unwrap().unwrap().format, 1);
        by_steps(&taken, 1, &[first, last]).unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("steps")).unwrap(), "first half last ");
        assert_eq!(read(directory.path()).unwrap().unwrap().format, 2);
        assert!(check(directory.path()).is_err(), "and this release does not know what came of it");
        by_steps(&taken, 2, &[first, last]).unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("steps")).unwrap(), "first half last ", "nothing is left");
    }
}
