//! The directory of an agent's dossiers: written whole or not at all, and bounded.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::dossier::{Dossier, FORMAT};
use crate::model::{CrashRules, CrashSummary, NodeName};

/// The longest dossier that is read, in bytes.
const LONGEST: u64 = 512 << 10;
/// How a dossier's file ends.
const ENDING: &str = ".json";

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Morgue {
    directory: PathBuf,
    rules: CrashRules,
}

/// A dossier's file.
struct Filed {
    id: String,
    path: PathBuf,
    bytes: u64,
    modified: SystemTime,
}

impl Filed {
    /// Whose it is, by its id.
    fn node(&self) -> &str {
        self.id.rsplit_once('.').map_or("", |(node, _)| node)
    }
}

impl Morgue {
    /// Keeps dossiers in this directory, which is made when there is one.
    pub fn new(directory: PathBuf, rules: CrashRules) -> Self {
        Self { directory, rules }
    }

    pub fn rules(&self) -> &CrashRules {
        &self.rules
    }

    /// Whether there is one of that id.
    pub fn has(&self, id: &str) -> bool {
        self.directory.join(format!("{id}{ENDING}")).exists()
    }

    /// Files a dossier, in place of one of the same id.
    pub fn file(&self, dossier: &Dossier) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let fresh = self.directory.join(".new");
        let text = serde_json::to_vec_pretty(dossier)?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&text)?;
        fs::rename(&fresh, self.directory.join(format!("{}{ENDING}", dossier.id)))
    }

    /// Removes the oldest dossiers beyond what is kept; the newest of all stays. How many there were.
    pub fn prune(&self) -> io::Result<usize> {
        let mut all = self.filed()?;
        all.sort_by(|a, b| (a.modified, &a.id).cmp(&(b.modified, &b.id)));
        let mut of_node: HashMap<&str, usize> = HashMap::new();
        all.iter().for_each(|filed| *of_node.entry(filed.node()).or_default() += 1);
        let mut bytes: u64 = all.iter().map(|filed| filed.bytes).sum();
        let last = all.len().saturating_sub(1);
        for filed in &all[..last] {
            let left = of_node.entry(filed.node()).or_default();
            if *left > self.rules.keep as usize || bytes > self.rules.keep_bytes {
                fs::remove_file(&filed.path)?;
                bytes -= filed.bytes;
                *left -= 1;
            }
        }
        Ok(all.len())
    }

    fn filed(&self) -> io::Result<Vec<Filed>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut filed = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_suffix(ENDING)) else { continue };
            let found = entry.metadata()?;
            let (path, bytes, modified) = (entry.path(), found.len(), found.modified()?);
            filed.push(Filed { id: id.to_owned(), path, bytes, modified });
        }
        Ok(filed)
    }

    /// What is filed of this node, or of all, newest first, so many at most. What cannot be read is left out, and told
    /// in the log.
    pub fn list(&self, node: Option<&NodeName>, most: usize) -> io::Result<Vec<CrashSummary>> {
        let mut filed = self.filed()?;
        filed.retain(|filed| node.is_none_or(|node| filed.node() == node.as_str()));
        filed.sort_by(|a, b| (b.modified, &b.id).cmp(&(a.modified, &a.id)));
        let dossiers = filed.iter().take(most).filter_map(|filed| {
            let read = read(&filed.path).and_then(|text| understand(&text));
            let refused =
                |error: &io::Error| tracing::warn!("cannot read the dossier {}: {error}", filed.path.display());
            read.inspect_err(refused).ok()
        });
        Ok(dossiers.map(|dossier| dossier.summary()).collect())
    }

    /// The text of one; `None` if there is none of that id.
    pub fn text(&self, id: &str) -> io::Result<Option<String>> {
        if id.contains('/') || id.starts_with('.') {
            return Ok(None);
        }
        match read(&self.directory.join(format!("{id}{ENDING}"))) {
            Ok(text) => understand(&text).map(|_| Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

fn understand(text: &str) -> io::Result<Dossier> {
    #[derive(serde::Deserialize)]
    struct Head {
        format: u32,
    }
    let head: Head = serde_json::from_str(text)?;
    match head.format {
        FORMAT => Ok(serde_json::from_str(text)?),
        other => Err(io::Error::other(format!("its format is {other}, and this release knows {FORMAT}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Exit, InstanceName, Life, Node, Role, Timestamp};

    fn dossier(node: &str, life: u64) -> Dossier {
        let instance = InstanceName::new("i").unwrap();
        let mut defined = Node::new(NodeName::new(node).unwrap(), instance.clone(), Role::Worker);
        defined.env.insert("PASSWORD".into(), "s3cret".into());
        defined.command = vec!["prog".into(), "--flag".into()];
        Dossier::new(
            &instance,
            &defined,
            Life(life),
            4711,
            Exit::Signal { number: 11, core_dumped: true },
            Timestamp(life),
        )
    }

    #[test]
    fn a_dossier_reads_back_as_it_was_and_holds_no_value_of_a_variable() {
        let home = tempfile::tempdir().unwrap();
        let morgue = Morgue::new(home.path().join("crashes"), CrashRules::default());
        assert_eq!((morgue.list(None, 9).unwrap(), morgue.text("a.1").unwrap()), (vec![], None));
        morgue.file(&dossier("a", 1)).unwrap();
        let text = morgue.text("a.1").unwrap().unwrap();
        assert!(text.starts_with("{\n  \"format\": 1,"), "{text}");
        assert!(text.contains("PASSWORD=") && !text.contains("s3cret"), "{text}");
        assert_eq!(understand(&text).unwrap(), dossier("a", 1));
        assert_eq!(morgue.list(None, 9).unwrap(), [dossier("a", 1).summary()]);
        for id in ["../crashes/a.1", ".new", "a.2", ""] {
            assert_eq!(morgue.text(id).unwrap(), None, "{id}");
        }
    }

    #[test]
    fn the_oldest_go_first_of_each_node_and_of_all() {
        let home = tempfile::tempdir().unwrap();
        let at = |rules| Morgue::new(home.path().into(), rules);
        let few = at(CrashRules { keep: 3, ..CrashRules::default() });
        few.file(&dossier("b.c", 1)).unwrap();
        (1..=5).for_each(|life| few.file(&dossier("a", life)).unwrap());
        few.prune().unwrap();
        let ids = |morgue: &Morgue| {
            let mut ids: Vec<_> = morgue.list(None, 99).unwrap().into_iter().map(|crash| crash.id).collect();
            ids.sort();
            ids
        };
        assert_eq!(ids(&few), ["a.3", "a.4", "a.5", "b.c.1"]);
        assert_eq!(few.list(Some(&NodeName::new("b.c").unwrap()), 9).unwrap().len(), 1);
        let small = at(CrashRules { keep_bytes: 1, ..CrashRules::default() });
        small.file(&dossier("a", 6)).unwrap();
        small.prune().unwrap();
        assert_eq!(ids(&small), ["a.6"], "the last one stays");
    }

    #[test]
    fn what_is_damaged_or_of_another_release_is_left_out() {
        let home = tempfile::tempdir().unwrap();
        let morgue = Morgue::new(home.path().into(), CrashRules::default());
        morgue.file(&dossier("a", 1)).unwrap();
        let whole = fs::read_to_string(home.path().join("a.1.json")).unwrap();
        for (life, text) in [(2, &whole[..whole.len() / 2]), (3, ""), (4, "{\"format\": 2}")] {
            fs::write(home.path().join(format!("a.{life}.json")), text).unwrap();
            assert!(morgue.text(&format!("a.{life}")).is_err());
        }
        assert_eq!(morgue.list(None, 99).unwrap().len(), 1);
    }
}
