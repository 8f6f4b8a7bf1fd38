//! What leads from one bundle to another.

use std::fmt;

use super::{BundlePath, Entry, Manifest};

/// A file or directory that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    pub path: BundlePath,
    pub how: How,
}

/// How it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Added,
    Removed,
    /// Its content, its mode, or when it was changed.
    Changed,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.how {
            How::Added => '+',
            How::Removed => '-',
            How::Changed => '~',
        };
        write!(f, "{sign} {}", self.path)
    }
}

impl Manifest {
    /// What leads from `former` to this, in the order of paths. A directory in which something was added or removed is
    /// another one by its time alone, and is not named for that.
    pub fn changed_since(&self, former: &Self) -> Vec<Changed> {
        let (mut old, mut new) = (former.entries().iter().peekable(), self.entries().iter().peekable());
        let mut changes = Vec::new();
        let mut note = |entry: &Entry, how| changes.push(Changed { path: entry.path.clone(), how });
        loop {
            match (old.peek(), new.peek()) {
                (Some(was), Some(is)) if was.path == is.path => {
                    let is_same = was.kind == is.kind && was.mode == is.mode;
                    let is_touched = was.modified != is.modified && matches!(is.kind, super::Kind::File { .. });
                    if !is_same || is_touched {
                        note(is, How::Changed);
                    }
                    old.next();
                    new.next();
                }
                (Some(was), Some(is)) if was.path < is.path => {
                    note(was, How::Removed);
                    old.next();
                }
                (Some(was), None) => {
                    note(was, How::Removed);
                    old.next();
                }
                (_, Some(is)) => {
                    note(is, How::Added);
                    new.next();
                }
                (None, None) => return changes,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Digest, Kind};
    use super::*;

    #[test]
    fn what_was_added_removed_and_changed_is_told_in_the_order_of_paths() {
        let file = |path: &str, content: &str, mode, modified| {
            let kind = Kind::File { size: content.len() as u64, digest: Digest::of(content.as_bytes()) };
            Entry { path: path.parse().unwrap(), mode, modified, kind }
        };
        let directory =
            |path: &str, modified| Entry { path: path.parse().unwrap(), mode: 0o755, modified, kind: Kind::Directory };
        let of = |entries: Vec<Entry>| Manifest::new(entries).unwrap();
        let old = of(vec![
            directory("a", 1),
            file("a/gone", "1", 0o644, 1),
            file("a/mode", "1", 0o644, 1),
            file("a/same", "1", 0o644, 1),
            file("a/text", "1", 0o644, 1),
            file("time", "1", 0o644, 1),
        ]);
        let new = of(vec![
            directory("a", 2),
            file("a/mode", "1", 0o755, 1),
            file("a/new", "1", 0o644, 1),
            file("a/same", "1", 0o644, 1),
            file("a/text", "2", 0o644, 1),
            file("time", "1", 0o644, 2),
        ]);
        let told: Vec<_> = new.changed_since(&old).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["- a/gone", "~ a/mode", "+ a/new", "~ a/text", "~ time"]);
        assert_eq!(old.changed_since(&old), []);
        assert_eq!(of(Vec::new()).changed_since(&old).len(), 6);
    }
}
