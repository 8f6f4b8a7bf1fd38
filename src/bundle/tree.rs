//! The files of a bundle as a node finds them: a directory of its own, made beside the one that it runs with, and never
//! changed once it is there.

use std::fs::{self, DirBuilder, File, FileTimes, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fd::AsFd;
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, chmod, openat, syncfs};
use rustix::io::Errno;
use rustix::path::Arg;

use super::{BundleId, Entry, Kind, Manifest, Store, StoreError};

/// What the names of all trees begin with.
const PREFIX: &str = "files-";
/// What the name of one ends with that is being made.
const NEW: &str = ".new";
/// How many digits a bundle has.
const DIGITS: usize = 64;
/// What nobody but the agent and root may do, whatever whoever packed it allowed.
const OTHERS_WRITE: u32 = 0o022;

/// Why the files of a bundle cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot make {}: {source}", path.display())]
    Disk { path: PathBuf, source: io::Error },
}

/// Where a node is to find which bundle.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The directory that the tree goes into.
    pub home: PathBuf,
    pub bundle: BundleId,
    /// The group that is to read it, if not the agent's own user.
    pub reader: Option<u32>,
}

impl Place {
    /// What the tree is called.
    pub fn name(&self) -> String {
        let digits = self.bundle.digest();
        self.reader.map_or_else(|| format!("{PREFIX}{digits}"), |group| format!("{PREFIX}{digits}-{group}"))
    }

    /// The tree itself.
    pub fn tree(&self) -> PathBuf {
        self.home.join(self.name())
    }
}

/// Lays out the files of a bundle in their place, unless they are there: all of them, or none.
///
/// They have the modes and times that they were given, but nobody except the agent and root may change them; and what their
/// owner may read or run, the group of their `reader` may, too. `at_work` is called before each of them.
pub fn make(store: &Store, place: &Place, at_work: &mut dyn FnMut()) -> Result<(), TreeError> {
    let Place { home, bundle, reader } = place;
    let tree = place.tree();
    if tree.is_dir() {
        return Ok(());
    }
    let manifest = store.manifest(*bundle)?;
    let new = home.join(format!("{}{NEW}", place.name()));
    let failed = |path: &Path, source| TreeError::Disk { path: path.into(), source };
    // As whoever launches the node makes it.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(home);
    made.map_err(|source| failed(home, source))?;
    if reader.is_some() {
        // Whoever is to read it passes through, and no more.
        fs::set_permissions(home, Permissions::from_mode(0o711)).map_err(|source| failed(home, source))?;
    }
    remove(&new).map_err(|source| failed(&new, source))?;
    DirBuilder::new().mode(0o700).create(&new).map_err(|source| failed(&new, source))?;
    // What is there once it has its name is on the disk itself: nobody looks through it again.
    let sure = || File::open(&new).and_then(|new| Ok(syncfs(new)?)).map_err(|source| failed(&new, source));
    let made = fill(store, &manifest, &new, *reader, at_work).and_then(|()| sure());
    let made = made.and_then(|()| fs::rename(&new, &tree).map_err(|source| failed(&tree, source)));
    if made.is_err() {
        let _ = remove(&new); // the next one to make it does so, too
    }
    made
}

fn fill(
    store: &Store,
    manifest: &Manifest,
    new: &Path,
    reader: Option<u32>,
    at_work: &mut dyn FnMut(),
) -> Result<(), TreeError> {
    let place = |entry: &Entry| new.join(entry.path.as_str());
    let failed = |path: &Path, source| TreeError::Disk { path: path.into(), source };
    for entry in manifest.entries() {
        at_work();
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
                finish(&file, entry, reader).map_err(|source| failed(&path, source))?;
            }
        }
    }
    // Whatever is put into a directory gives it another time: what is in it comes first.
    for entry in manifest.entries().iter().rev().filter(|entry| entry.kind == Kind::Directory) {
        let path = place(entry);
        let finished = File::open(&path).and_then(|directory| finish(&directory, entry, reader));
        finished.map_err(|source| failed(&path, source))?;
    }
    fs::set_permissions(new, Permissions::from_mode(0o755)).map_err(|source| failed(new, source))
}

fn finish(file: &File, entry: &Entry, reader: Option<u32>) -> io::Result<()> {
    let modified = match entry.modified {
        since @ 0.. => SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since.unsigned_abs())),
        before => SystemTime::UNIX_EPOCH.checked_sub(Duration::from_secs(before.unsigned_abs())),
    };
    if let Some(modified) = modified {
        // A time that no file system has is no reason not to run.
        let _ = file.set_times(FileTimes::new().set_modified(modified));
    }
    let mut mode = u32::from(entry.mode) & !OTHERS_WRITE;
    if reader.is_some() {
        fchown(file, None, reader)?;
        mode |= (mode & 0o500) >> 3;
    }
    file.set_permissions(Permissions::from_mode(mode))
}

/// Removes every tree in `home` that has none of these names. Returns how many there were.
pub fn retain(home: &Path, keep: &[String]) -> io::Result<usize> {
    let (mut gone, mut stays) = (0, None);
    let all = match fs::read_dir(home) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        all => all?,
    };
    for entry in all {
        let entry = entry?;
        let name = entry.file_name();
        // For whom it was laid out does not matter: accounts may have changed since.
        let is_kept = |name: &str| keep.iter().any(|kept| bundle_of(kept) == bundle_of(name));
        let is_tree = name.to_str().is_some_and(|name| is_ours(name) && !is_kept(name));
        if is_tree && entry.file_type()?.is_dir() {
            // One that cannot go keeps no other.
            match remove(&entry.path()) {
                Ok(()) => gone += 1,
                Err(error) => stays = stays.or(Some(error)),
            }
        }
    }
    stays.map_or(Ok(gone), Err)
}

/// Which bundle a tree is of, by its name.
fn bundle_of(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX)?.get(..DIGITS)
}

/// Whether something is called as trees are: a node that works where its trees are may have files of its own there.
fn is_ours(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX).map(|rest| rest.strip_suffix(NEW).unwrap_or(rest)) else { return false };
    let (digits, group) = rest.split_once('-').unwrap_or((rest, "0"));
    let is_number = group.parse::<u32>().is_ok_and(|number| number.to_string() == group);
    digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) && is_number
}

/// Removes a tree, also one whose directories nobody may write to. No link in it is followed, nor one that comes meanwhile.
fn remove(tree: &Path) -> io::Result<()> {
    match open_up(CWD, tree) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    }
    fs::remove_dir_all(tree)
}

fn open_up(above: impl AsFd, name: impl Arg) -> rustix::io::Result<()> {
    // Also one that its owner may not read: without reading it, there is a handle of it, and by that another name.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = match openat(above, name, flags, Mode::empty()) {
        // A file, or a link.
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        opened => opened?,
    };
    chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), Mode::RWXU)?;
    let directory = openat(&found, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let is_other = !matches!(entry.file_name().to_bytes(), b"." | b"..");
        if is_other && matches!(entry.file_type(), FileType::Directory | FileType::Unknown) {
            open_up(&directory, entry.file_name())?;
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

        fn place(&self, bundle: BundleId) -> Place {
            Place { home: self.node(), bundle, reader: None }
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
        make(&scene.store, &scene.place(id), &mut || {}).unwrap();
        let tree = scene.place(id).tree();
        assert_eq!(fs::read_to_string(tree.join("site/local.zeek")).unwrap(), "@load x");
        for (path, mode) in [("site", 0o555), ("site/local.zeek", 0o644), ("site/run", 0o755), ("empty", 0o600)] {
            let found = fs::metadata(tree.join(path)).unwrap();
            assert_eq!((found.mode() & 0o7777, found.mtime()), (mode, 1_000_000_000), "{path}");
        }
        make(&scene.store, &scene.place(id), &mut || {}).unwrap();
        assert_eq!(fs::read_dir(scene.node()).unwrap().count(), 1);
        assert_eq!(fs::metadata(scene.node()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn who_is_to_read_it_may_whatever_whoever_packed_it_allowed_and_nobody_else() {
        let scene = Scene::new();
        let id = scene.bundle(&[
            ("d", 0o770, None),
            ("d/list", 0o600, Some("x")),
            ("d/run", 0o740, Some("x")),
            ("open", 0o666, Some("x")),
        ]);
        let own = rustix::process::getgid().as_raw();
        let place = Place { reader: Some(own), ..scene.place(id) };
        make(&scene.store, &place, &mut || {}).unwrap();
        let tree = place.tree();
        for (path, mode) in [("d", 0o750), ("d/list", 0o640), ("d/run", 0o750), ("open", 0o644)] {
            let found = fs::metadata(tree.join(path)).unwrap();
            assert_eq!((found.mode() & 0o7777, found.gid()), (mode, own), "{path}");
        }
        assert_eq!(retain(&scene.node(), &[]).unwrap(), 1, "it is known by its name");
    }

    #[test]
    fn a_tree_that_cannot_be_finished_is_not_there_and_what_was_left_of_one_is_no_hindrance() {
        let scene = Scene::new();
        let id = scene.bundle(&[("a", 0o500, None), ("a/b", 0o644, Some("content"))]);
        let unfinished = scene.node().join(format!("{}{NEW}", scene.place(id).name()));
        fs::create_dir_all(unfinished.join("a/x")).unwrap();
        fs::set_permissions(unfinished.join("a"), Permissions::from_mode(0o500)).unwrap();
        let digest = Digest::of(b"content");
        let blob = scene.home.path().join("blobs").join(digest.to_string());
        fs::remove_file(&blob).unwrap();
        fs::write(&blob, "damaged").unwrap();
        assert!(matches!(
            make(&scene.store, &scene.place(id), &mut || {}),
            Err(TreeError::Store(StoreError::Wrong { .. }))
        ));
        assert_eq!(fs::read_dir(scene.node()).unwrap().count(), 0);
        scene.store.put(b"content").unwrap();
        make(&scene.store, &scene.place(id), &mut || {}).unwrap();
        assert!(scene.place(id).tree().join("a/b").exists());
    }

    #[test]
    fn trees_that_nobody_needs_go_and_nothing_else_does() {
        let scene = Scene::new();
        let [old, new] = ["old", "new"].map(|text| scene.bundle(&[("d", 0o500, None), ("d/f", 0o644, Some(text))]));
        for id in [old, new] {
            make(&scene.store, &scene.place(id), &mut || {}).unwrap();
        }
        let precious = scene.home.path().join("precious");
        fs::write(&precious, "").unwrap();
        let tree = scene.place(old).tree();
        std::os::unix::fs::symlink(scene.home.path(), tree.join("elsewhere")).unwrap();
        fs::create_dir(tree.join("d/closed")).unwrap();
        fs::set_permissions(tree.join("d/closed"), Permissions::from_mode(0o0)).unwrap();
        for name in ["files-of-mine", "files-0123456789abcdef"] {
            fs::create_dir(scene.node().join(name)).unwrap();
        }
        assert_eq!(retain(&scene.node(), &[scene.place(new).name()]).unwrap(), 1);
        assert!(!tree.exists() && precious.exists() && scene.place(new).tree().exists());
        assert!(scene.node().join("files-of-mine").exists() && scene.node().join("files-0123456789abcdef").exists());
        assert_eq!(retain(&scene.home.path().join("nowhere"), &[]).unwrap(), 0);
    }
}
