//! Where Zeek is, and which: found once, and again when the program is another one.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::version::{OLDEST, Version};
use crate::supervisor::process::errand::{self, Errand};

/// Where Zeek is looked for behind PATH.
const USUAL: [&str; 4] = ["/usr/local/zeek/bin", "/opt/zeek/bin", "/usr/local/bin", "/usr/bin"];
/// How long Zeek may take to tell its version: a thousand times as long as it does.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Zeek that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// The program, absolute.
    pub program: String,
    /// What `bin` and `share` are below.
    pub prefix: String,
    pub version: Version,
}

impl Installation {
    /// The directory of Zeek's programs.
    pub fn bin(&self) -> String {
        Path::new(&self.program).parent().map_or_else(String::new, |bin| bin.display().to_string())
    }

    /// The directories in which Zeek finds its own scripts, and those of the site.
    pub fn script_path(&self) -> [String; 4] {
        let share = format!("{}/share/zeek", self.prefix);
        ["", "/policy", "/site", "/builtin-plugins"].map(|below| format!("{share}{below}"))
    }
}

/// Why there is no Zeek to run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoZeek {
    #[error(
        "there is no Zeek in {0}: install it, say where it is by the setting `zeek` in [agent], or give the node a `command`"
    )]
    NotFound(Places),
    #[error("{program} does not tell its version: {why}")]
    Mute { program: String, why: String },
    #[error("{program} is Zeek {version}, and {OLDEST} is the oldest that can be launched: install a later one")]
    TooOld { program: String, version: Version },
}

/// Directories, or the one program that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places(Vec<PathBuf>);

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<String> = self.0.iter().map(|place| place.display().to_string()).collect();
        f.write_str(&places.join(", "))
    }
}

/// Finds Zeek, and remembers which it is as long as the program stays the same.
#[derive(Debug)]
pub struct Finder {
    wanted: Option<PathBuf>,
    directories: Vec<PathBuf>,
    environment: BTreeMap<String, String>,
    scratch: PathBuf,
    /// Held while Zeek is asked, so that it is asked once however many nodes start.
    known: Mutex<Option<(Stamp, Installation)>>,
}

/// What tells one program from another under the same name.
type Stamp = (PathBuf, u64, i64, i64);

impl Finder {
    /// Looks at `wanted`, a program or the prefix that it is below; where that is nothing in the
    /// PATH of `environment`, in which Zeek is asked, then in the usual places.
    /// Has `scratch` for itself.
    pub fn new(wanted: Option<PathBuf>, environment: BTreeMap<String, String>, scratch: PathBuf) -> Self {
        let path = environment
            .get("PATH")
            .map_or("", String::as_str)
            .split(':')
            .filter(|directory| directory.starts_with('/'));
        let directories = path.chain(USUAL).map(PathBuf::from).collect();
        Self { wanted, directories, environment, scratch, known: Mutex::default() }
    }

    /// The Zeek that is there now. Blocks for as long as Zeek takes to tell its version.
    pub fn find(&self) -> Result<Installation, NoZeek> {
        let (program, stamp) = self.look()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, zeek)) = known.as_ref().filter(|(before, _)| *before == stamp) {
            return Ok(zeek.clone());
        }
        let zeek = self.ask(&program)?;
        *known = Some((stamp, zeek.clone()));
        Ok(zeek)
    }

    fn look(&self) -> Result<(PathBuf, Stamp), NoZeek> {
        let candidates: Vec<PathBuf> = match &self.wanted {
            Some(wanted) => vec![wanted.join("bin/zeek"), wanted.clone()],
            None => self.directories.iter().map(|directory| directory.join("zeek")).collect(),
        };
        let found = candidates.into_iter().find_map(|program| Some((stamp(&program)?, program)));
        let places = || Places(self.wanted.clone().map_or_else(|| self.directories.clone(), |wanted| vec![wanted]));
        found.map(|(stamp, program)| (program, stamp)).ok_or_else(|| NoZeek::NotFound(places()))
    }

    fn ask(&self, program: &Path) -> Result<Installation, NoZeek> {
        let shown = program.display().to_string();
        let mute = |why: String| NoZeek::Mute { program: shown.clone(), why };
        let argv = vec![shown.clone(), "--version".into()];
        let errand = Errand { argv, env: self.environment.clone(), home: self.scratch.clone(), ..Errand::default() };
        let told = errand::run(errand, PATIENCE).map_err(|error| mute(error.to_string()))?;
        let version = Version::told_in(&told.output)
            .ok_or_else(|| mute(format!("it {} and said: {}", told.exit, told.output.trim())))?;
        if version < OLDEST {
            return Err(NoZeek::TooOld { program: shown, version });
        }
        Ok(Installation { prefix: prefix(program), program: shown, version })
    }
}

/// `None` if it is no program.
fn stamp(program: &Path) -> Option<Stamp> {
    let real = std::fs::canonicalize(program).ok()?;
    let metadata = std::fs::metadata(&real).ok()?;
    let is_program = metadata.is_file() && metadata.mode() & 0o111 != 0;
    is_program.then(|| (real, metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
}

/// What the program's `bin` is below: where its scripts are, if the program is a link to somewhere else.
fn prefix(program: &Path) -> String {
    let above = |program: &Path| program.parent().and_then(Path::parent).map(Path::to_path_buf);
    let given = above(program).unwrap_or_else(|| "/".into());
    let real = std::fs::canonicalize(program).ok().as_deref().and_then(above);
    let has_scripts = |prefix: &PathBuf| prefix.join("share/zeek").is_dir();
    let prefix = [Some(given.clone()), real].into_iter().flatten().find(has_scripts).unwrap_or(given);
    prefix.display().to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A program that says this, and a finder for it.
    fn zeek(says: &str) -> (tempfile::TempDir, Finder) {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join("bin")).unwrap();
        let program = home.path().join("bin/zeek");
        let counted = format!("#!/bin/sh\necho >> {}/asked\n{says}\n", home.path().display());
        fs::write(&program, counted).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let finder = Finder::new(Some(home.path().into()), BTreeMap::new(), home.path().join("scratch"));
        (home, finder)
    }

    #[test]
    fn zeek_is_asked_once_for_its_version() {
        let (home, finder) = zeek("echo zeek version 8.0.10");
        let found = finder.find().unwrap();
        assert_eq!(found.version, Version { major: 8, minor: 0 });
        assert_eq!(found.prefix, home.path().display().to_string());
        assert_eq!(finder.find().unwrap(), found);
        assert_eq!(fs::read_to_string(home.path().join("asked")).unwrap(), "\n");
    }

    #[test]
    fn another_program_in_its_place_is_asked_anew() {
        let (home, finder) = zeek("echo zeek version 8.0.10");
        finder.find().unwrap();
        let (other, _) = zeek("echo zeek version 8.1.0");
        fs::rename(other.path().join("bin/zeek"), home.path().join("bin/zeek")).unwrap();
        assert_eq!(finder.find().unwrap().version, Version { major: 8, minor: 1 });
    }

    #[test]
    fn no_zeek_an_old_one_and_one_that_says_nothing_are_told_apart() {
        let nowhere =
            Finder::new(Some("/nowhere".into()), BTreeMap::new(), "/nowhere".into()).find().unwrap_err().to_string();
        assert!(nowhere.starts_with("there is no Zeek in /nowhere: install it"), "{nowhere}");
        let (_home, old) = zeek("echo zeek version 4.2.1");
        let old = old.find().unwrap_err().to_string();
        assert!(old.contains("is Zeek 4.2, and 5.0 is the oldest"), "{old}");
        let (_home, broken) = zeek("echo no library >&2; exit 127");
        let broken = broken.find().unwrap_err().to_string();
        assert!(broken.ends_with("it exited with status 127 and said: no library"), "{broken}");
    }

    #[test]
    fn the_path_comes_before_the_usual_places() {
        let (home, _) = zeek("echo zeek version 9.0.0");
        let path = format!("relative:/nowhere:{}/bin:/bin:/usr/bin", home.path().display());
        let environment: BTreeMap<_, _> = [("PATH".to_owned(), path)].into();
        assert_eq!(Finder::new(None, environment, home.path().join("scratch")).find().unwrap().version.major, 9);
    }
}
