//! The files of a bundle as a node finds them: a directory of its own, made beside the one that it runs with, and never
//! changed once it is there.

use std::fs::{self, DirBuilder, File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{BundleId, Entry, Kind, Manifest, Store, StoreError};

/// What the names of all trees begin with.
const PREFIX: &str = "files-";
/// What the name of one ends with that is being made.
const NEW: &str = ".new";
/// How many digits of a bundle are in the name of its tree.
const DIGITS: usize = 16;

/// Why the files of a bundle cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot make {}: {source}", path.display())]
    Disk { path: PathBuf, source: io::Error },
}

/// What the tree of a bundle is called.
pub fn name_of(id: BundleId) -> String {
    format!("{PREFIX}{}", &id.digest().to_string()[..DIGITS])
}

/// Lays out the files of a bundle in `home`, unless they are there: all of them, or none.
///
/// Nobody but the agent and root may change them. They have the modes and times that they were given.
pub fn make(store: &Store, id: BundleId, home: &Path) -> Result<(), TreeError> {
    let tree = home.join(name_of(id));
    if tree.is_dir() {
        return Ok(());
    }
    let manifest = store.manifest(id)?;
    let new = home.join(format!("{}{NEW}", name_of(id)));
    let failed = |path: &Path, source| TreeError::Disk { path: path.into(), source };
    fs::create_dir_all(home).map_err(|source| failed(home, source))?;
    remove(&new).map_err(|source| failed(&new, source))?;
    DirBuilder::new().mode(0o700).create(&new).map_err(|source| failed(&new, source))?;
    let made = fill(store, &manifest, &new);
    let made = made.and_then(|()| fs::rename(&new, &tree).map_err(|source| failed(&tree, source)));
    if made.is_err() {
        let _ = remove(&new); // the next one to make it does so, too
    }
    made
}

fn fill(store: &Store, manifest: &Manifest, new: &Path) -> Result<(), TreeError> {
    let place = |entry: &Entry| new.join(entry.path.as_str());
    let failed = |path: &Path, source| TreeError::Disk { path: path.into(), source };
    for entry in manifest.entries() {
        let path = place(entry);
        match entry.kind {
            // Nobody else gets in before it is finished; and it can be written to, whatever its mode will be.
            Kind::Directory => {
                DirBuilder::new().mode(0o700).create(&path).map_err(|source| failed(&path, source))?;
            }
            Kind::File { digest, .. } => {
                let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
                let file = file.map_err(|source| failed(&path, source))?;
                store.copy(digest, &file)?;
                finish(&file, entry).map_err(|source| failed(&path, source))?;
            }
        }
    }
    // Whatever is put into a directory gives it another time: what is in it comes first.
    for entry in manifest.entries().iter().rev().filter(|entry| entry.kind == Kind::Directory) {
        let path = place(entry);
        let finished = File::open(&path).and_then(|directory| finish(&directory, entry));
        finished.map_err(|source| failed(&path, source))?;
    }
    fs::set_permissions(new, Permissions::from_mode(0o755)).map_err(|source| failed(new, source))
}

fn finish(file: &File, entry: &Entry) -> io::Result<()> {
    let modified = match entry.modified {
        since @ 0.. => SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since.unsigned_abs())),
        before => SystemTime::UNIX_EPOCH.checked_sub(Duration::from_secs(before.unsigned_abs())),
    };
    if let Some(modified) = modified {
        // A time that no file system has is no reason not to run.
        let _ = file.set_times(FileTimes::new().set_modified(modified));
    }
    file.set_permissions(Permissions::from_mode(entry.mode.into()))
}

/// Removes every tree in `home` that is none of these bundles'. Returns how many there were.
pub fn retain(home: &Path, keep: &[BundleId]) -> io::Result<usize> {
    let keep: Vec<String> = keep.iter().map(|id| name_of(*id)).collect();
    let mut gone = 0;
    let all = match fs::read_dir(home) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        all => all?,
    };
    for entry in all {
        let entry = entry?;
        let name = entry.file_name();
        let is_tree = name.to_str().is_some_and(|name| is_ours(name) && !keep.iter().any(|kept| kept == name));
        if is_tree && entry.file_type()?.is_dir() {
            remove(&entry.path())?;
            gone += 1;
        }
    }
    Ok(gone)
}

/// Whether something is called as trees are: a node that works where its trees are may have files of its own there.
fn is_ours(name: &str) -> bool {
    let digits = name.strip_prefix(PREFIX).map(|rest| rest.strip_suffix(NEW).unwrap_or(rest));
    digits.is_some_and(|digits| digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// Removes a tree, also one whose directories nobody may write to. No link in it is followed.
fn remove(tree: &Path) -> io::Result<()> {
    match fs::symlink_metadata(tree) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    open_up(tree)?;
    fs::remove_dir_all(tree)
}

fn open_up(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // Of a link this is the link's own type.
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::bundle::Digest;

    struct Scene {
        home: tempfile::TempDir,
        store: Store,
    }

    impl Scene {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let store = Store::open(home.path().join("blobs")).unwrap();
            Self { home, store }
        }

        fn node(&self) -> PathBuf {
            self.home.path().join("node")
        }

        fn bundle(&self, entries: &[(&str, u16, Option<&str>)]) -> BundleId {
            let entry = |&(path, mode, content): &(&str, u16, Option<&str>)| {
                let kind = match content {
                    None => Kind::Directory,
                    Some(content) => {
                        let digest = self.store.put(content.as_bytes()).unwrap();
                        Kind::File { size: content.len() as u64, digest }
                    }
                };
                Entry { path: path.parse().unwrap(), mode, modified: 1_000_000_000, kind }
            };
            let manifest = Manifest::new(entries.iter().map(entry).collect()).unwrap();
            self.store.put(&manifest.encode()).unwrap();
            manifest.id()
        }
    }

    #[test]
    fn a_tree_is_what_was_packed_with_its_modes_and_times() {
        let scene = Scene::new();
        let id = scene.bundle(&[
            ("site", 0o555, None),
            ("site/local.zeek", 0o644, Some("@load x")),
            ("site/run", 0o755, Some("#!/bin/sh\n")),
            ("empty", 0o600, Some("")),
        ]);
        make(&scene.store, id, &scene.node()).unwrap();
        let tree = scene.node().join(name_of(id));
        assert_eq!(fs::read_to_string(tree.join("site/local.zeek")).unwrap(), "@load x");
        for (path, mode) in [("site", 0o555), ("site/local.zeek", 0o644), ("site/run", 0o755), ("empty", 0o600)] {
            let found = fs::metadata(tree.join(path)).unwrap();
            assert_eq!((found.mode() & 0o7777, found.mtime()), (mode, 1_000_000_000), "{path}");
        }
        make(&scene.store, id, &scene.node()).unwrap();
        assert_eq!(fs::read_dir(scene.node()).unwrap().count(), 1);
    }

    #[test]
    fn a_tree_that_cannot_be_finished_is_not_there_and_what_was_left_of_one_is_no_hindrance() {
        let scene = Scene::new();
        let id = scene.bundle(&[("a", 0o500, None), ("a/b", 0o644, Some("content"))]);
        let unfinished = scene.node().join(format!("{}{NEW}", name_of(id)));
        fs::create_dir_all(unfinished.join("a/x")).unwrap();
        fs::set_permissions(unfinished.join("a"), Permissions::from_mode(0o500)).unwrap();
        let digest = Digest::of(b"content");
        let blob = scene.home.path().join("blobs").join(digest.to_string());
        fs::remove_file(&blob).unwrap();
        fs::write(&blob, "damaged").unwrap();
        assert!(matches!(make(&scene.store, id, &scene.node()), Err(TreeError::Store(StoreError::Wrong { .. }))));
        assert_eq!(fs::read_dir(scene.node()).unwrap().count(), 0);
        scene.store.put(b"content").unwrap();
        make(&scene.store, id, &scene.node()).unwrap();
        assert!(scene.node().join(name_of(id)).join("a/b").exists());
    }

    #[test]
    fn trees_that_nobody_needs_go_and_nothing_else_does() {
        let scene = Scene::new();
        let [old, new] = ["old", "new"].map(|text| scene.bundle(&[("d", 0o500, None), ("d/f", 0o644, Some(text))]));
        for id in [old, new] {
            make(&scene.store, id, &scene.node()).unwrap();
        }
        let precious = scene.home.path().join("precious");
        fs::write(&precious, "").unwrap();
        let tree = scene.node().join(name_of(old));
        std::os::unix::fs::symlink(scene.home.path(), tree.join("elsewhere")).unwrap();
        for name in ["files-of-mine", "files-0123456789abcdefx"] {
            fs::create_dir(scene.node().join(name)).unwrap();
        }
        assert_eq!(retain(&scene.node(), &[new]).unwrap(), 1);
        assert!(!tree.exists() && precious.exists() && scene.node().join(name_of(new)).exists());
        assert!(scene.node().join("files-of-mine").exists() && scene.node().join("files-0123456789abcdefx").exists());
        assert_eq!(retain(&scene.home.path().join("nowhere"), &[]).unwrap(), 0);
    }
}
