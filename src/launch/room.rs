//! Room on disk for what is to be launched: whoever finds that there is none before a node is stopped has lost nothing.

use std::fs::{File, remove_file};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// What one node needs for its record and the first lines of its output, in bytes, and what is needed in any case.
const A_NODE: u64 = 16 << 10;
const IN_ANY_CASE: u64 = 64 << 10;
/// Nobody asks for more than this, in bytes.
const MOST: u64 = 16 << 20;

/// Why there is none.
#[derive(Debug, thiserror::Error)]
#[error("there is no room for the records of {nodes} nodes in {}: {source}", directory.display())]
pub struct NoRoom {
    nodes: usize,
    directory: PathBuf,
    source: io::Error,
}

/// Looks whether there is room for so many nodes in `directory`. Blocks for a moment.
pub fn for_nodes(directory: &Path, nodes: usize) -> Result<(), NoRoom> {
    if nodes == 0 {
        return Ok(());
    }
    let bytes = (nodes as u64).saturating_mul(A_NODE).saturating_add(IN_ANY_CASE).min(MOST);
    let path = directory.join(".room");
    let asked = File::create(&path).and_then(|file| match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        // A file system that promises nothing.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        asked => Ok(asked?),
    });
    // Nothing of it is needed any more; where it could not be made it is not there.
    let _ = remove_file(&path);
    asked.map_err(|source| NoRoom { nodes, directory: directory.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_the_question_and_a_directory_that_is_full_says_so() {
        let directory = tempfile::tempdir().unwrap();
        for_nodes(directory.path(), 100_000).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        for_nodes(Path::new("/nowhere"), 0).unwrap();
        let error = for_nodes(Path::new("/nowhere"), 3).unwrap_err().to_string();
        assert!(error.starts_with("there is no room for the records of 3 nodes in /nowhere: "), "{error}");
    }
}
