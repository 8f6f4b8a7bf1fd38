//! Where the sockets are to which nodes talk: at paths short enough for one, the same for every run of an agent.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::notices::NotifySocket;
use crate::model::NodeName;

/// Of ours in whatever place.
const OURS: &str = "watchpost";
/// Where an agent keeps which place it chose, among the directories of its nodes.
const CHOSEN: &str = ".sockets";
/// The longest path of a socket, in bytes. The kernel takes 107.
const LONGEST: usize = 100;
/// How long the part of it is that stands for a node whose name is too long, with the slash before it.
const SHORT_NAME: usize = 1 + 16;
/// Who runs as another user passes through, and sees nothing.
const MODE: u32 = 0o711;

/// The directory of one agent's sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    home: PathBuf,
}

/// Why nodes have no sockets.
#[derive(Debug, thiserror::Error)]
pub enum NoRunDir {
    #[error("cannot use {}: {cause}", path.display())]
    Use { path: PathBuf, cause: io::Error },
    #[error("{} is not only its owner's to write, or not ours: remove it, or set `run_dir`", path.display())]
    Shared { path: PathBuf },
    #[error("{} is too long for a path of sockets: set a shorter `run_dir`", path.display())]
    TooLong { path: PathBuf },
}

impl RunDir {
    /// Finds a place by trying: `chosen` alone, if there is one, else the one that an earlier run had, else one that is
    /// made for such things. `nodes` is the directory of the nodes: no other agent has the same at the same time.
    pub fn open(chosen: Option<&Path>, nodes: &Path) -> Result<Self, NoRunDir> {
        let directory = fs::metadata(nodes).map_err(|cause| NoRunDir::Use { path: nodes.to_owned(), cause })?;
        let name = format!("{:x}-{:x}", directory.dev(), directory.ino());
        if let Some(chosen) = chosen {
            return Self::at(chosen, &name);
        }
        let before = fs::read_to_string(nodes.join(CHOSEN)).ok().map(|path| PathBuf::from(path.trim_end()));
        let usual = candidates(nodes);
        // Nobody can have us use any other place by writing its name there.
        let before = before.filter(|before| usual.contains(before));
        let mut failure = None;
        for place in before.iter().chain(&usual) {
            match Self::at(place, &name) {
                Ok(found) => {
                    if let Some(place) = place.to_str() {
                        // Without it the next run may choose another place: its nodes then talk to nobody for a life.
                        let _ = fs::write(nodes.join(CHOSEN), format!("{place}\n"));
                    }
                    return Ok(found);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or(NoRunDir::TooLong { path: nodes.to_owned() }))
    }

    fn at(place: &Path, name: &str) -> Result<Self, NoRunDir> {
        let home = place.join(name);
        if home.as_os_str().len() + SHORT_NAME > LONGEST {
            return Err(NoRunDir::TooLong { path: home });
        }
        make(place)?;
        make(&home)?;
        let probe = home.join(".try");
        let tried = NotifySocket::bind(&probe, None);
        let _ = fs::remove_file(&probe); // it may not have come to that
        tried.map_err(|cause| NoRunDir::Use { path: home.clone(), cause })?;
        Ok(Self { home })
    }

    /// Where the socket of that node is.
    pub fn path(&self, node: &NodeName) -> PathBuf {
        let path = self.home.join(node.as_str());
        match path.as_os_str().len() <= LONGEST && node.as_str().len() != SHORT_NAME - 1 {
            true => path,
            // Names of that length could be taken for one of these.
            false => self.home.join(format!("{:016x}", sum(node.as_str().as_bytes()))),
        }
    }

    /// Makes it again, should somebody have cleared it away.
    pub fn restore(&self) -> Result<(), NoRunDir> {
        self.home.parent().map_or(Ok(()), make)?;
        make(&self.home)
    }

    /// Removes the socket of a node.
    pub fn forget(&self, node: &NodeName) {
        let _ = fs::remove_file(self.path(node)); // there may be none
    }

    /// Removes all sockets and their directory: no node runs. The next one has it made again.
    pub fn clear(&self) {
        for entry in fs::read_dir(&self.home).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path()); // it may be gone
        }
        let _ = fs::remove_dir(&self.home); // somebody has put something else there
    }
}

/// Where such directories are, first choice first.
fn candidates(nodes: &Path) -> Vec<PathBuf> {
    let us = rustix::process::geteuid();
    if us.is_root() {
        return vec![Path::new("/run").join(OURS), std::env::temp_dir().join(OURS)];
    }
    let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let mut candidates: Vec<_> = session.map(|session| session.join(OURS)).into_iter().collect();
    candidates.extend([nodes.join(".run"), std::env::temp_dir().join(format!("{OURS}-{}", us.as_raw()))]);
    candidates
}

/// Makes a directory that only we may write to, if it is not there.
fn make(path: &Path) -> Result<(), NoRunDir> {
    let failed = |cause| NoRunDir::Use { path: path.to_owned(), cause };
    match DirBuilder::new().mode(MODE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
        // Whatever our umask is.
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(failed)?,
    }
    let found = fs::symlink_metadata(path).map_err(failed)?;
    let is_ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0;
    is_ours.then_some(()).ok_or_else(|| NoRunDir::Shared { path: path.to_owned() })
}

/// FNV-1a: the same in every release.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_the_same_short_path_in_every_run() {
        let home = tempfile::tempdir().unwrap();
        let (place, nodes) = (home.path().join("run"), home.path().join("nodes"));
        fs::create_dir(&nodes).unwrap();
        let run = RunDir::open(Some(&place), &nodes).unwrap();
        assert_eq!(RunDir::open(Some(&place), &nodes).unwrap(), run);
        for name in ["a".into(), "0123456789abcdef".into(), "x".repeat(128)] {
            let path = run.path(&NodeName::new(&name).unwrap());
            assert!(path.as_os_str().len() <= LONGEST, "{path:?}");
            assert_eq!(path.ends_with(&name), name == "a", "{path:?}");
            NotifySocket::bind(&path, None).unwrap();
        }
        assert_eq!(fs::metadata(&place).unwrap().mode() & 0o777, MODE);
        let [one, other] = ["y", "z"].map(|letter| run.path(&NodeName::new(&letter.repeat(100)).unwrap()));
        assert_ne!(one, other);
        run.clear();
        assert!(!run.home.exists());
        run.restore().unwrap();
        NotifySocket::bind(&run.path(&NodeName::new("a").unwrap()), None).unwrap();
    }

    #[test]
    fn a_place_that_is_too_long_or_somebody_elses_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let nodes = home.path();
        let long = home.path().join("l".repeat(100));
        let error = RunDir::open(Some(&long), nodes).unwrap_err();
        assert!(matches!(error, NoRunDir::TooLong { .. }), "{error}");
        assert!(!long.exists());
        let open = home.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        let error = RunDir::open(Some(&open), nodes).unwrap_err();
        assert!(matches!(error, NoRunDir::Shared { .. }), "{error}");
        let link = home.path().join("link");
        std::os::unix::fs::symlink("/", &link).unwrap();
        assert!(matches!(RunDir::open(Some(&link), nodes).unwrap_err(), NoRunDir::Shared { .. }));
    }

    #[test]
    fn a_state_directory_as_deep_as_can_be_has_a_place_for_sockets_all_the_same() {
        let home = tempfile::tempdir().unwrap();
        let nodes = (0..5).fold(home.path().to_owned(), |path, _| path.join("d".repeat(200)));
        fs::create_dir_all(&nodes).unwrap();
        let run = RunDir::open(None, &nodes).unwrap();
        let path = run.path(&NodeName::new("n").unwrap());
        NotifySocket::bind(&path, None).unwrap();
        assert_eq!(RunDir::open(None, &nodes).unwrap().path(&NodeName::new("n").unwrap()), path);
        run.forget(&NodeName::new("n").unwrap());
        run.clear();
        assert!(!run.home.exists());
    }
}
