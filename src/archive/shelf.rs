//! The archive on disk: dated directories of logs. A log is there as a whole or not at all, never over another one, and never
//! twice: whatever ends between any two steps, the next try finds what was done.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use rustix::io::Errno;

use super::guard::Room;
use super::name::{Destination, Rotated, is_day};
use super::press::Press;
use super::queue::rename_new;
use super::retention::Kept;

/// What is not whole yet begins so, and goes on with whose it is.
const FRESH: &str = ".tmp-";
/// So many logs may have the same name before something is wrong.
const MOST_COPIES: u32 = 100;
/// The most files of an archive that are looked at.
const MOST: usize = 4_000_000;

/// An archive, as one agent fills it.
#[derive(Debug, Clone)]
pub struct Shelf {
    home: PathBuf,
    /// Tells what this agent has not finished from what others have not.
    whose: String,
    /// Whether it is for the agent's user and group alone, where it has to be made.
    is_closed: bool,
}

impl Shelf {
    /// One that others may look into as the umask has it, unless it is closed.
    pub fn new(home: PathBuf, whose: &str, is_closed: bool) -> Self {
        Self { home, whose: whose.to_owned(), is_closed }
    }

    /// Where it is.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Puts a log there, and returns once it is on the disk. One that is there already is not put there again.
    pub fn put(&self, log: &File, name: &Rotated, logger: Option<&str>, press: &Press<'_>) -> io::Result<PathBuf> {
        let Destination { day, file, pack } = name.destination(logger, press.extension(), 1);
        let directory = self.home.join(day);
        self.make(&directory)?;
        // What a command would make of it is known only when it has.
        if !(pack && press.is_command()) && self.holds(&directory.join(&file), log, pack)? {
            return Ok(directory.join(file));
        }
        let fresh = format!("{FRESH}{}.{file}", self.whose);
        let path = directory.join(&fresh);
        let press_this = Some(press).filter(|_| pack);
        let written =
            write(&path, log, press_this).and_then(|()| self.name(&directory, &fresh, log, name, logger, press));
        written.inspect_err(|_| {
            let _ = fs::remove_file(&path); // best effort: the error that matters is on its way
        })
    }

    /// Makes the directory of a day, so that it is still there when the machine has gone down.
    fn make(&self, day: &Path) -> io::Result<()> {
        if day.exists() {
            return Ok(());
        }
        if !self.home.exists() {
            let mode = if self.is_closed { 0o750 } else { 0o777 }; // less the umask
            DirBuilder::new().recursive(true).mode(mode).create(&self.home)?;
            self.home.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())?;
        }
        DirBuilder::new().recursive(true).mode(0o777).create(day)?;
        File::open(&self.home)?.sync_all()
    }

    /// Gives what was written the first name that no other log has.
    fn name(
        &self,
        directory: &Path,
        fresh: &str,
        log: &File,
        name: &Rotated,
        logger: Option<&str>,
        press: &Press<'_>,
    ) -> io::Result<PathBuf> {
        let open = File::open(directory)?;
        let fresh_path = directory.join(fresh);
        for copy in 1..=MOST_COPIES {
            let Destination { file, pack, .. } = name.destination(logger, press.extension(), copy);
            let path = directory.join(&file);
            match rename_new(&open, fresh, &open, &file) {
                Ok(()) => {
                    open.sync_all()?;
                    return Ok(path);
                }
                Err(Errno::EXIST) if self.is_there(&path, &fresh_path, log, pack, press)? => {
                    fs::remove_file(&fresh_path)?;
                    return Ok(path);
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(io::Error::other(format!("there are {MOST_COPIES} logs of that name in {}", directory.display())))
    }

    /// Whether what is there under that name is this log, or the same as what was made of it.
    fn is_there(&self, path: &Path, fresh: &Path, log: &File, pack: bool, press: &Press<'_>) -> io::Result<bool> {
        match pack && press.is_command() {
            true => is_same(File::open(path)?, File::open(fresh)?),
            false => self.holds(path, log, pack),
        }
    }

    /// Whether what is there under that name is this log.
    fn holds(&self, path: &Path, log: &File, packed: bool) -> io::Result<bool> {
        let there = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => BufReader::new(opened?),
        };
        let mut log = log;
        log.seek(SeekFrom::Start(0))?;
        let log = BufReader::new(log);
        // What cannot be read as it should be is another.
        match packed {
            true => Ok(is_same(MultiGzDecoder::new(there), log).unwrap_or(false)),
            false => is_same(there, log),
        }
    }

    /// Removes what an earlier run of this agent did not finish.
    pub fn tidy(&self) -> io::Result<()> {
        let own = format!("{FRESH}{}.", self.whose);
        self.each(|directory, name| match name.starts_with(&own) {
            true => fs::remove_file(directory.join(name)),
            false => Ok(()),
        })
    }

    /// All files in it.
    pub fn list(&self) -> io::Result<Vec<Kept>> {
        let mut found = Vec::new();
        self.each(|directory, name| {
            let Some(day) = directory.file_name().and_then(|day| day.to_str()) else { return Ok(()) };
            let metadata = match fs::symlink_metadata(directory.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                found => found?,
            };
            if metadata.is_file() && found.len() < MOST {
                let (modified, bytes) = (metadata.modified()?, metadata.blocks() * 512);
                found.push(Kept { day: day.to_owned(), file: name.to_owned(), modified, bytes });
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn each(&self, mut work: impl FnMut(&Path, &str) -> io::Result<()>) -> io::Result<()> {
        for day in entries(&self.home)? {
            let day = day?;
            if !day.file_name().to_str().is_some_and(is_day) || !day.file_type()?.is_dir() {
                continue;
            }
            for file in entries(&day.path())? {
                if let Some(name) = file?.file_name().to_str() {
                    work(&day.path(), name)?;
                }
            }
        }
        Ok(())
    }

    /// Lets go of a log, and of the directory of its day when that is empty.
    pub fn remove(&self, kept: &Kept) -> io::Result<()> {
        let directory = self.home.join(&kept.day);
        match fs::remove_file(directory.join(&kept.file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let _ = fs::remove_dir(directory); // it is not empty
        Ok(())
    }
}

/// What a directory holds; nothing if it is not there.
fn entries(path: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None.into_iter().flatten()),
        read => Ok(Some(read?).into_iter().flatten()),
    }
}

/// Writes a log under a name that says that it is not whole yet; it is as old as the log.
fn write(path: &Path, log: &File, press: Option<&Press<'_>>) -> io::Result<()> {
    let mut log = log;
    log.seek(SeekFrom::Start(0))?;
    let modified = log.metadata()?.modified()?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let fresh = OpenOptions::new().write(true).create_new(true).mode(0o666).open(path)?; // less the umask
    let fresh = match press {
        None => {
            let mut fresh = fresh;
            io::copy(&mut log, &mut fresh)?;
            fresh
        }
        Some(Press::Command { .. }) => {
            press.map_or(Ok(()), |press| press.run(log, path))?;
            fresh
        }
        Some(_) => {
            let mut out = GzEncoder::new(BufWriter::new(fresh), Compression::default());
            io::copy(&mut BufReader::new(log), &mut out)?;
            out.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?
        }
    };
    fresh.set_modified(modified)?;
    // What it was copied from goes next, and the machine may go down after that.
    fresh.sync_all()
}

fn is_same(mut one: impl Read, mut other: impl Read) -> io::Result<bool> {
    let (mut a, mut b) = ([0; 16 << 10], [0; 16 << 10]);
    loop {
        let (read, of_other) = (fill(&mut one, &mut a)?, fill(&mut other, &mut b)?);
        if a[..read] != b[..of_other] {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or there is no more.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The room on the disk that the directory is on, or will be on once it is made.
pub fn room(path: &Path) -> io::Result<Room> {
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(path);
    let disk = rustix::fs::statvfs(there)?;
    Ok(Room { total: disk.f_blocks * disk.f_frsize, free: disk.f_bavail * disk.f_frsize })
}

/// Which disk that is.
pub fn disk(path: &Path) -> Option<u64> {
    let there = path.ancestors().find(|path| path.exists())?;
    fs::metadata(there).ok().map(|found| found.dev())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    const CONN: &str = "conn__2026-01-31-10-00-00__2026-01-31-11-00-00__.log";

    struct Stage {
        home: tempfile::TempDir,
        shelf: Shelf,
    }

    impl Stage {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let shelf = Shelf::new(home.path().join("archive"), "a", true);
            Self { home, shelf }
        }

        fn put(&self, text: &str, compress: bool) -> PathBuf {
            let press = if compress { Press::Gzip { extension: "gz" } } else { Press::Nothing };
            self.put_by(text, &press)
        }

        fn put_by(&self, text: &str, press: &Press<'_>) -> PathBuf {
            let path = self.home.path().join("log");
            fs::write(&path, text).unwrap();
            let log = File::open(path).unwrap();
            self.shelf.put(&log, &Rotated::read(CONN).unwrap(), None, press).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> = self.shelf.list().unwrap().into_iter().map(|kept| kept.file).collect();
            names.sort();
            names
        }
    }

    fn unpacked(path: &Path) -> String {
        let mut text = String::new();
        MultiGzDecoder::new(BufReader::new(File::open(path).unwrap())).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_log_is_put_in_its_day_whole_and_as_old_as_it_was() {
        let stage = Stage::new();
        let packed = stage.put(&"line\n".repeat(100_000), true);
        assert_eq!(packed, stage.shelf.home().join("2026-01-31/conn.10:00:00-11:00:00.log.gz"));
        assert_eq!(unpacked(&packed).len(), 500_000);
        let log = fs::metadata(stage.home.path().join("log")).unwrap();
        assert_eq!(fs::metadata(&packed).unwrap().modified().unwrap(), log.modified().unwrap());
        let plain = stage.put("line\n", false);
        assert_eq!(fs::read_to_string(plain).unwrap(), "line\n");
    }

    #[test]
    fn what_is_there_already_is_not_put_there_twice_and_another_is_not_written_over() {
        for compress in [true, false] {
            let stage = Stage::new();
            let first = stage.put("one\n", compress);
            assert_eq!(stage.put("one\n", compress), first);
            let second = stage.put("two\n", compress);
            assert_ne!(second, first);
            assert_eq!(stage.put("two\n", compress), second);
            assert_eq!(stage.names().len(), 2);
            fs::write(&first, "not what it was").unwrap();
            assert_ne!(stage.put("one\n", compress), first);
        }
    }

    #[test]
    fn a_command_compresses_and_what_it_makes_is_there_once() {
        let stage = Stage::new();
        let (errands, env) = (stage.home.path().join("errands"), Default::default());
        let by = |command: &[&str]| command.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let upper = by(&["tr", "a-z", "A-Z"]);
        let press = |command| Press::Command { extension: "up", command, env: &env, home: &errands };
        let first = stage.put_by("one\n", &press(&upper));
        assert_eq!(first, stage.shelf.home().join("2026-01-31/conn.10:00:00-11:00:00.log.up"));
        assert_eq!(fs::read_to_string(&first).unwrap(), "ONE\n");
        assert_eq!(stage.put_by("one\n", &press(&upper)), first);
        let second = stage.put_by("two\n", &press(&upper));
        assert_eq!(second, stage.shelf.home().join("2026-01-31/conn.10:00:00-11:00:00-2.log.up"));
        let log = File::open(stage.home.path().join("log")).unwrap();
        let fails = by(&["sh", "-c", "echo no room >&2; exit 3"]);
        let name = Rotated::read(CONN).unwrap();
        let error = stage.shelf.put(&log, &name, None, &press(&fails)).unwrap_err().to_string();
        assert_eq!(error, "sh exited with status 3 and said: no room");
        assert_eq!(stage.names().len(), 2, "nothing is left of that");
    }

    #[test]
    fn what_was_not_finished_is_tidied_up_and_no_other_file_is() {
        let stage = Stage::new();
        stage.put("one\n", true);
        let day = stage.shelf.home().join("2026-01-31");
        for name in [".tmp-a.conn.10:00:00-11:00:00.log.gz", ".tmp-b.conn.10:00:00-11:00:00.log.gz", "notes"] {
            fs::write(day.join(name), "").unwrap();
        }
        fs::create_dir(stage.shelf.home().join("stats")).unwrap();
        fs::write(stage.shelf.home().join("stats/.tmp-a.x"), "").unwrap();
        stage.shelf.tidy().unwrap();
        assert_eq!(stage.names(), [".tmp-b.conn.10:00:00-11:00:00.log.gz", "conn.10:00:00-11:00:00.log.gz", "notes"]);
        assert!(stage.shelf.home().join("stats/.tmp-a.x").exists());
        assert_eq!(Shelf::new("/nowhere".into(), "a", true).list().unwrap(), []);
    }

    #[test]
    fn a_day_without_logs_is_let_go() {
        let stage = Stage::new();
        stage.put("one\n", true);
        stage.put("two\n", true);
        let kept = stage.shelf.list().unwrap();
        stage.shelf.remove(&kept[0]).unwrap();
        stage.shelf.remove(&kept[0]).unwrap();
        assert!(stage.shelf.home().join("2026-01-31").exists());
        stage.shelf.remove(&kept[1]).unwrap();
        assert!(!stage.shelf.home().join("2026-01-31").exists());
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_and_is_said() {
        let stage = Stage::new();
        fs::write(stage.shelf.home(), "in the way").unwrap();
        let log = File::open(stage.shelf.home()).unwrap();
        stage.shelf.put(&log, &Rotated::read(CONN).unwrap(), None, &Press::Gzip { extension: "gz" }).unwrap_err();
        assert!(stage.shelf.list().is_err());
    }

    #[test]
    fn a_disk_has_room_also_for_what_is_not_there_yet() {
        let stage = Stage::new();
        let room = room(&stage.home.path().join("not/yet")).unwrap();
        assert!(room.total > 0 && room.free <= room.total);
        assert_eq!(disk(&stage.home.path().join("not/yet")), disk(stage.home.path()));
    }

    #[test]
    fn times_before_1970_are_times_too() {
        let stage = Stage::new();
        let path = stage.home.path().join("log");
        fs::write(&path, "x").unwrap();
        let log = File::options().read(true).write(true).open(path).unwrap();
        log.set_modified(SystemTime::UNIX_EPOCH - Duration::from_secs(5)).unwrap();
        stage.shelf.put(&log, &Rotated::read(CONN).unwrap(), None, &Press::Nothing).unwrap();
        assert!(stage.shelf.list().unwrap()[0].modified < SystemTime::UNIX_EPOCH);
    }
}
