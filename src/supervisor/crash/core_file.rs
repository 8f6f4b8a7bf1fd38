//! Where the kernel, or who it hands them to, puts the memory of processes that crash.
//!
//! A core file is named and never copied here, and of its content only whose it is gets read. What the pattern says that nobody knows any more, such as the
//! moment, fits any text.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// How much older than the news of a death its core file may be: a large one takes time to write.
const WRITING: Duration = Duration::from_secs(600);
/// How many files of a directory are looked at.
const MOST: usize = 10_000;

/// What was found out about a core file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreReport {
    /// How the kernel is told to name core files, or whom to hand them to.
    pub pattern: String,
    /// The file, if there is one.
    pub found: Option<PathBuf>,
    /// Who has put it there, or would have: `kernel`, `systemd-coredump`, `apport`, or another program.
    pub by: String,
    /// Where it was looked for.
    pub looked: Vec<PathBuf>,
}

/// Who crashed.
#[derive(Debug, Clone)]
pub struct Crashed<'a> {
    pub pid: u32,
    pub signal: i32,
    /// Where it was launched; it may have gone elsewhere.
    pub directory: &'a Path,
    pub at: SystemTime,
    pub hostname: &'a str,
    pub boot: &'a str,
}

/// Where the system keeps what this depends on.
#[derive(Debug, Clone)]
pub struct Places {
    pub pattern: PathBuf,
    pub uses_pid: PathBuf,
    pub systemd: PathBuf,
    pub apport: PathBuf,
    pub apport_cores: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            pattern: "/proc/sys/kernel/core_pattern".into(),
            uses_pid: "/proc/sys/kernel/core_uses_pid".into(),
            systemd: "/var/lib/systemd/coredump".into(),
            apport: "/var/crash".into(),
            apport_cores: "/var/lib/apport/coredump".into(),
        }
    }
}

/// Whether a name may be that of the file.
type Fits<'a> = &'a dyn Fn(&str) -> bool;

/// Looks for the core file of who crashed.
pub fn look(places: &Places, crashed: &Crashed<'_>) -> CoreReport {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default().trim_end_matches('\n').to_owned();
    let pattern = read(&places.pattern);
    let Crashed { pid, boot, .. } = crashed;
    if let Some(handler) = pattern.strip_prefix('|') {
        let program = handler.split_whitespace().next().unwrap_or_default();
        let by = Path::new(program).file_name().map_or(program.into(), |name| name.to_string_lossy().into_owned());
        let boot = boot.replace('-', "");
        let in_systemd = |name: &str| name.starts_with("core.") && name.contains(&format!(".{boot}.{pid}."));
        let in_apport = |name: &str| name.ends_with(".crash");
        let in_cores = |name: &str| name.starts_with("core.") && name.contains(&format!(".{pid}."));
        let tries: Vec<(&Path, Fits<'_>)> = match by.as_str() {
            "systemd-coredump" => vec![(&places.systemd, &in_systemd)],
            "apport" => vec![(&places.apport_cores, &in_cores), (&places.apport, &in_apport)],
            // Whoever else it is has places of its own.
            _ => Vec::new(),
        };
        let looked: Vec<PathBuf> = tries.iter().map(|(place, _)| (*place).to_owned()).collect();
        let found = tries.iter().find_map(|(place, fits)| newest(place, crashed, fits));
        return CoreReport { pattern, found, by, looked };
    }
    let has_pid = pattern.replace("%%", "").contains("%p");
    let uses_pid = !has_pid && read(&places.uses_pid) == "1";
    let whole = if uses_pid { format!("{pattern}.%p") } else { pattern.clone() };
    let path = crashed.directory.join(whole);
    let (directory, name) = (path.parent().unwrap_or(crashed.directory).to_owned(), path.file_name());
    let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // A directory that depends on who crashed is not resolved but where all of it is known.
    let directory: PathBuf = known(&directory.to_string_lossy(), crashed).map_or(directory, PathBuf::from);
    let parts = parts(&name, crashed);
    let found = match pattern.is_empty() {
        true => None,
        false => newest(&directory, crashed, &|name| fits(&parts, name)),
    };
    // One that another life has written over is no longer its own.
    let found = found.filter(|path| super::core_pid::whose(path).is_none_or(|whose| whose == *pid));
    CoreReport { pattern, found, by: "kernel".into(), looked: vec![directory] }
}

/// The newest file there whose name fits, of those that are new enough.
fn newest(directory: &Path, crashed: &Crashed<'_>, fits: Fits<'_>) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?.take(MOST).filter_map(Result::ok);
    let files = entries.filter(|entry| entry.file_name().to_str().is_some_and(fits)).filter_map(|entry| {
        let found = entry.metadata().ok().filter(|found| found.is_file())?;
        let modified = found.modified().ok()?;
        (modified + WRITING >= crashed.at).then_some((modified, entry.path()))
    });
    files.max().map(|(_, path)| path)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Anything,
}

/// The pattern with what is known of who crashed.
fn parts(pattern: &str, crashed: &Crashed<'_>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match (c, if c == '%' { rest.next() } else { None }) {
            ('%', Some('%')) => text.push('%'),
            ('%', Some('p' | 'P')) => text += &crashed.pid.to_string(),
            ('%', Some('s')) => text += &crashed.signal.to_string(),
            ('%', Some('h')) => text += crashed.hostname,
            ('%', Some(_)) => {
                parts.push(Part::Text(std::mem::take(&mut text)));
                parts.push(Part::Anything);
            }
            ('%', None) => {}
            (c, _) => text.push(c),
        }
    }
    parts.push(Part::Text(text));
    parts
}

fn known(pattern: &str, crashed: &Crashed<'_>) -> Option<String> {
    match &parts(pattern, crashed)[..] {
        [Part::Text(text)] => Some(text.clone()),
        _ => None,
    }
}

/// Whether a name is made of these parts.
fn fits(parts: &[Part], name: &str) -> bool {
    match parts {
        [] => name.is_empty(),
        [Part::Text(text), rest @ ..] => name.strip_prefix(text.as_str()).is_some_and(|name| fits(rest, name)),
        [Part::Anything] => true,
        [Part::Anything, rest @ ..] => {
            (0..=name.len()).filter(|at| name.is_char_boundary(*at)).any(|at| fits(rest, &name[at..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crashed(directory: &Path) -> Crashed<'_> {
        let boot = "0123-4567";
        Crashed { pid: 4711, signal: 11, directory, at: SystemTime::now(), hostname: "sensor", boot }
    }

    fn places(home: &Path, pattern: &str) -> Places {
        fs::write(home.join("pattern"), format!("{pattern}\n")).unwrap();
        fs::write(home.join("uses_pid"), "1\n").unwrap();
        Places {
            pattern: home.join("pattern"),
            uses_pid: home.join("uses_pid"),
            systemd: home.join("systemd"),
            apport: home.join("crash"),
            apport_cores: home.join("apport"),
        }
    }

    #[test]
    fn a_core_file_is_found_where_the_kernel_was_told_to_put_it() {
        for (pattern, name, other) in [
            ("core", "core.4711", "core.4712"),
            ("core.%p", "core.4711", "core.47110"),
            ("%e-%p-%t.core", "some-prog-4711-1700000000.core", "prog-4712-1700000000.core"),
            ("cores/%h.%s.%P%%", "cores/sensor.11.4711%.4711", "cores/sensor.11.4711%"),
        ] {
            let home = tempfile::tempdir().unwrap();
            fs::create_dir(home.path().join("cores")).unwrap();
            fs::write(home.path().join(other), "").unwrap();
            let look = || look(&places(home.path(), pattern), &crashed(home.path()));
            assert_eq!(look().found, None, "{pattern}");
            fs::write(home.path().join(name), "").unwrap();
            let report = look();
            assert_eq!((report.found, report.by.as_str()), (Some(home.path().join(name)), "kernel"), "{pattern}");
        }
    }

    #[test]
    fn one_of_an_earlier_crash_is_not_taken_for_it() {
        let home = tempfile::tempdir().unwrap();
        let file = fs::File::create(home.path().join("core.4711")).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
        assert_eq!(look(&places(home.path(), "core"), &crashed(home.path())).found, None);
    }

    #[test]
    fn whoever_is_handed_core_files_is_asked_for_its_own() {
        let home = tempfile::tempdir().unwrap();
        for directory in ["systemd", "crash", "apport"] {
            fs::create_dir(home.path().join(directory)).unwrap();
        }
        let systemd = home.path().join("systemd/core.prog.0.01234567.4711.1700000000000000.zst");
        fs::write(&systemd, "").unwrap();
        fs::write(home.path().join("systemd/core.prog.0.other.4711.1700000000000000.zst"), "").unwrap();
        let look = |pattern| look(&places(home.path(), pattern), &crashed(home.path()));
        let report = look("|/lib/systemd/systemd-coredump %P %u");
        assert_eq!((report.found, report.by.as_str()), (Some(systemd), "systemd-coredump"));
        let apport = home.path().join("crash/_usr_bin_prog.0.crash");
        fs::write(&apport, "").unwrap();
        assert_eq!(look("|/usr/share/apport/apport -p%p").found, Some(apport));
        let report = look("|/opt/catch %p");
        assert_eq!((report.found, report.by.as_str(), report.looked.len()), (None, "catch", 0));
        assert_eq!(look("").found, None, "no core files are made");
    }
}
