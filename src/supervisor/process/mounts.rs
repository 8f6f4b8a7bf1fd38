//! Where the cgroup2 tree is mounted, and where in it we are.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A cgroup2 tree as we see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    /// The directory of its top, or of what is mounted of it.
    pub top: PathBuf,
    /// The directory of our own group; `None` where it lies outside of what is mounted.
    pub own: Option<PathBuf>,
}

/// The tree of this machine; `None` if none is mounted. With an error goes the file that could not be read.
pub(super) fn cgroup2() -> Result<Option<Tree>, (&'static str, io::Error)> {
    let read = |path| fs::read(path).map_err(|error| (path, error));
    Ok(find(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?))
}

fn find(mountinfo: &[u8], cgroup: &[u8]) -> Option<Tree> {
    let ours = cgroup.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"));
    let (root, top) = mountinfo.split(|byte| *byte == b'\n').find_map(mounted)?;
    let below = ours.map(path).and_then(|ours| ours.strip_prefix(&root).map(Path::to_owned).ok());
    // Joined with nothing it would end in a slash.
    let own = below.map(|below| if below.as_os_str().is_empty() { top.clone() } else { top.join(below) });
    Some(Tree { top, own })
}

/// What of the tree is mounted, and where, if the line is about one.
fn mounted(line: &[u8]) -> Option<(PathBuf, PathBuf)> {
    // ID parent device ROOT PLACE options [optional…] - TYPE source options
    let mut fields = line.split(|byte| *byte == b' ');
    let (root, place) = (fields.nth(3)?, fields.next()?);
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    (kind == b"cgroup2").then(|| (path(root), path(place)))
}

/// Undoes what the kernel does to blanks and backslashes: `\040`.
fn path(escaped: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((first, behind)) = rest.split_first() {
        let octal = behind.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(top: &str, own: Option<&str>) -> Option<Tree> {
        Some(Tree { top: top.into(), own: own.map(Into::into) })
    }

    #[test]
    fn the_tree_is_found_wherever_it_is_mounted() {
        let unified = b"25 1 0:23 / /proc rw - proc proc rw\n\
                        30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let hybrid = b"31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n34 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup \
                       cgroup rw,cpu\n41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let service = b"12:cpu:/x\n0::/system.slice/a.service\n";
        assert_eq!(find(unified, service), tree("/sys/fs/cgroup", Some("/sys/fs/cgroup/system.slice/a.service")));
        assert_eq!(find(unified, b"0::/\n"), tree("/sys/fs/cgroup", Some("/sys/fs/cgroup")));
        assert_eq!(find(hybrid, b"0::/\n"), tree("/sys/fs/cgroup/unified", Some("/sys/fs/cgroup/unified")));
        assert_eq!(find(hybrid, b"1:cpu:/\n"), tree("/sys/fs/cgroup/unified", None));
        assert_eq!(find(b"25 1 0:23 / /proc rw - proc proc rw\n", service), None);
        assert_eq!(find(b"", b""), None);
    }

    #[test]
    fn a_part_of_the_tree_that_we_are_not_in_has_no_place_of_ours() {
        let part = b"30 23 0:26 /docker/1 /sys/fs/cgroup\\040x rw - cgroup2 cgroup2 rw\n";
        assert_eq!(find(part, b"0::/docker/1/a\n"), tree("/sys/fs/cgroup x", Some("/sys/fs/cgroup x/a")));
        assert_eq!(find(part, b"0::/docker/2\n"), tree("/sys/fs/cgroup x", None));
        assert_eq!(find(part, b"0::/../2\n"), tree("/sys/fs/cgroup x", None));
    }

    #[test]
    fn the_machine_we_are_on_can_be_read() {
        if let Some(tree) = cgroup2().unwrap() {
            assert!(tree.top.join("cgroup.procs").exists(), "{tree:?}");
        }
    }
}
