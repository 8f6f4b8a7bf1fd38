//! What runs, on disk: one record per node, which is what adoption reads.
//!
//! A record is a file of lines. The first is written before the launch and says what is intended: the node's
//! definition and its life. The second is written by the new process itself, before it becomes the node's program:
//! `pid <pid> <start time>`. A third, `stopped <life>`, says that it is gone because somebody asked, and `rested <life>`
//! that its agent stopped it at its own end. A line without its newline was cut off by a crash and does not count. Nothing is synced: records must survive the agent, not the
//! machine, whose reboot ends what they speak of.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::process::identity;
use crate::model::{ConfigurationId, InstanceName, Life, Node, NodeName};

/// The format of the first line; another number is a record of another release and is refused.
const FORMAT: u32 = 1;
/// The file's name in the node's directory.
const NAME: &str = "record";
/// The largest record that is read, in bytes: a definition is far below.
const MAX_RECORD: u64 = 4 << 20;

/// The first line of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Intent {
    format: u32,
    boot: String,
    pid_namespace: u64,
    life: Life,
    node: Node,
}

/// What a record says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub node: Node,
    pub life: Life,
    /// Whether pids in it mean anything here: same boot, same pid namespace.
    pub here: bool,
    pub found: Found,
}

impl Record {
    /// The process that led the life, if its number means anything here.
    pub fn leader(&self) -> Option<u32> {
        match self.found {
            Found::Launched { pid, .. } if self.here => Some(pid),
            _ => None,
        }
    }
}

/// How far the life of a record came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Intended; whether a process came of it is unknown.
    Intended,
    /// Its process wrote this before it became the node's program.
    Launched { pid: u32, start_time: u64 },
    /// It ended and is not to be started again without being asked.
    Stopped,
    /// Its agent stopped it when it ended itself, and is to start it when it returns.
    Rested,
}

/// Why a record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not a record of this release ({why}); it was left as it is", path.display())]
    Foreign { path: PathBuf, why: String },
}

impl RegisterError {
    /// Whether trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Foreign { .. })
    }
}

/// The records of all nodes of one agent, in the nodes' own directories.
#[derive(Debug, Clone)]
pub struct Register {
    /// Nodes whose record another release wrote: what it says of them is not for us to overwrite.
    foreign: Arc<BTreeSet<PathBuf>>,
    nodes: PathBuf,
    boot: String,
    pid_namespace: u64,
}

impl Register {
    /// Keeps its records in `nodes/<node>/record`.
    pub fn new(nodes: PathBuf) -> io::Result<Self> {
        Ok(Self {
            foreign: Arc::default(),
            nodes,
            boot: identity::boot_id()?,
            pid_namespace: identity::pid_namespace()?,
        })
    }

    /// The boot that records made now belong to.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// The directory of that node.
    pub fn directory(&self, node: &NodeName) -> PathBuf {
        self.nodes.join(node.as_str())
    }

    /// Replaces the node's record by an intent. The file is for the process that is launched next, which appends to it.
    pub fn intend(&self, node: &Node, life: Life) -> Result<File, RegisterError> {
        let directory = self.directory(&node.name);
        if self.foreign.contains(&directory.join(NAME)) {
            let why = "a later release of watchpost may run this node".into();
            return Err(RegisterError::Foreign { path: directory.join(NAME), why });
        }
        let (path, fresh) = (directory.join(NAME), directory.join("record.new"));
        let failed = |what| {
            let path = path.clone();
            move |source| RegisterError::Io { what, path, source }
        };
        let intent = Intent {
            format: FORMAT,
            boot: self.boot.clone(),
            pid_namespace: self.pid_namespace,
            life,
            node: node.clone(),
        };
        let mut line = serde_json::to_vec(&intent).map_err(|error| failed("write")(error.into()))?;
        line.push(b'\n');
        // A leftover of a crash may be half a line: it is not this intent's.
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(failed("write"))?;
        file.write_all(&line).map_err(failed("write"))?;
        fs::rename(&fresh, &path).map_err(failed("write"))?;
        Ok(file)
    }

    /// Notes that this life is over and the node is to stay down until somebody asks.
    pub fn stopped(&self, node: &NodeName, life: Life) -> Result<(), RegisterError> {
        self.note(node, &format!("stopped {life}\n"))
    }

    /// Notes that this life is over since the agent ends, and that its next run is to start the node. Where the life
    /// was over because somebody asked, it stays at that.
    pub fn rested(&self, node: &NodeName, life: Life) -> Result<(), RegisterError> {
        self.note(node, &format!("rested {life}\n"))
    }

    fn note(&self, node: &NodeName, line: &str) -> Result<(), RegisterError> {
        let path = self.directory(node).join(NAME);
        let written = OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(line.as_bytes()));
        match written {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()), // it never came to a launch
            written => written.map_err(|source| RegisterError::Io { what: "write", path, source }),
        }
    }

    /// Forgets a node that left the configuration. Its output stays.
    pub fn forget(&self, node: &NodeName) -> Result<(), RegisterError> {
        let path = self.directory(node).join(NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|source| RegisterError::Io { what: "remove", path, source }),
        }
    }

    /// Keeps the id of the configuration that is in force on `instance`.
    pub fn remember(&self, instance: &InstanceName, id: &ConfigurationId) -> Result<(), RegisterError> {
        let path = self.in_force(instance);
        let fresh = self.nodes.join(format!(".new-{instance}"));
        let written = fs::write(&fresh, format!("{id}\n")).and_then(|()| fs::rename(&fresh, &path));
        written.map_err(|source| RegisterError::Io { what: "write", path, source })
    }

    /// The id that was kept last; `None` if there is none, or what is there is none.
    pub fn configuration(&self, instance: &InstanceName) -> Result<Option<ConfigurationId>, RegisterError> {
        let path = self.in_force(instance);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.strip_suffix('\n').and_then(|id| ConfigurationId::new(id).ok())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RegisterError::Io { what: "read", path, source }),
        }
    }

    /// No node has a name that begins with a dot; and agents of one process may share the directory.
    fn in_force(&self, instance: &InstanceName) -> PathBuf {
        self.nodes.join(format!(".in-force-{instance}"))
    }

    /// Every record that is there, sorted by node; what cannot be read is told beside them and left as it is.
    /// Those of another release are left alone from now on: their nodes cannot be launched here.
    pub fn read(&mut self) -> Result<(Vec<Record>, Vec<RegisterError>), RegisterError> {
        let io = |source| RegisterError::Io { what: "read", path: self.nodes.clone(), source };
        let (mut records, mut refused) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.nodes).map_err(io)? {
            let path = entry.map_err(io)?.path().join(NAME);
            match self.read_one(&path) {
                Ok(Some(record)) => records.push(record),
                Ok(None) => {}
                Err(error) => refused.push(error),
            }
        }
        records.sort_by(|a, b| a.node.name.cmp(&b.node.name));
        let foreign = refused.iter().filter_map(|error| match error {
            RegisterError::Foreign { path, .. } => Some(path.clone()),
            RegisterError::Io { .. } => None,
        });
        self.foreign = Arc::new(foreign.collect());
        Ok((records, refused))
    }

    fn read_one(&self, path: &Path) -> Result<Option<Record>, RegisterError> {
        use std::io::Read;
        let foreign = |why: &str| RegisterError::Foreign { path: path.into(), why: why.into() };
        let mut text = String::new();
        let read = File::open(path).and_then(|file| {
            let written = file.metadata()?.modified()?;
            file.take(MAX_RECORD).read_to_string(&mut text).map(|_| written)
        });
        let written = match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(foreign("it is not text")),
            Err(source) => return Err(RegisterError::Io { what: "read", path: path.into(), source }),
            Ok(written) => written,
        };
        let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let Some(first) = lines.next().filter(|_| !text.starts_with('\0')) else {
            // Where the machine went down before the disk had it, nothing of what it spoke of runs. Else somebody cut
            // it off, and the node that it spoke of may well run.
            return if was_before_this_boot(written) { Ok(None) } else { Err(foreign("it is not whole")) };
        };
        let intent: Intent = serde_json::from_str(first).map_err(|error| foreign(&error.to_string()))?;
        if intent.format != FORMAT {
            return Err(foreign(&format!("its format is {}", intent.format)));
        }
        let mut found = Found::Intended;
        for line in lines {
            found = match line.split(' ').collect::<Vec<_>>()[..] {
                // Another life's end may be written late, behind the intent of the next.
                ["stopped", life] if life.parse() == Ok(intent.life.0) => Found::Stopped,
                ["rested", life] if life.parse() == Ok(intent.life.0) && found != Found::Stopped => Found::Rested,
                ["stopped" | "rested", _] => found,
                ["pid", pid, start] => match (pid.parse(), start.parse()) {
                    (Ok(pid), Ok(start_time)) => Found::Launched { pid, start_time },
                    _ => return Err(foreign("its second line has no numbers")),
                },
                _ => return Err(foreign("it has a line of an unknown kind")),
            };
        }
        let here = intent.boot == self.boot && intent.pid_namespace == self.pid_namespace;
        Ok(Some(Record { node: intent.node, life: intent.life, here, found }))
    }
}

/// Whether a file was last written in an earlier life of the machine; in doubt it was not.
fn was_before_this_boot(written: SystemTime) -> bool {
    let uptime = fs::read_to_string("/proc/uptime").ok();
    let seconds = uptime.and_then(|uptime| uptime.split(['.', ' ']).next()?.parse().ok());
    let boot = seconds.and_then(|seconds| SystemTime::now().checked_sub(Duration::from_secs(seconds)));
    boot.is_some_and(|boot| written + Duration::from_secs(5) < boot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{InstanceName, Role};

    fn register() -> (tempfile::TempDir, Register, Node) {
        let directory = tempfile::tempdir().unwrap();
        let register = Register::new(directory.path().into()).unwrap();
        let node = Node::new(NodeName::new("a").unwrap(), InstanceName::new("i").unwrap(), Role::Worker);
        fs::create_dir(register.directory(&node.name)).unwrap();
        (directory, register, node)
    }

    #[test]
    fn a_record_of_another_release_is_left_alone_and_its_node_not_launched() {
        let (_directory, mut register, node) = register();
        let path = register.directory(&node.name).join(NAME);
        let foreign = "{\"format\":2}\n";
        fs::write(&path, foreign).unwrap();
        assert_eq!(register.read().unwrap().1.len(), 1);
        assert!(register.intend(&node, Life(7)).unwrap_err().is_permanent());
        assert_eq!(fs::read_to_string(&path).unwrap(), foreign);
    }

    #[test]
    fn what_the_machine_took_down_with_it_is_no_record() {
        let (_directory, mut register, node) = register();
        let file = File::create(register.directory(&node.name).join(NAME)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        let (records, refused) = register.read().unwrap();
        assert!(records.is_empty() && refused.is_empty());
        register.intend(&node, Life(1)).unwrap();
    }

    fn found(register: &mut Register) -> Found {
        let (records, refused) = register.read().unwrap();
        assert!(refused.is_empty(), "{refused:?}");
        records[0].found
    }

    #[test]
    fn a_record_tells_how_far_the_life_came() {
        let (_directory, mut register, node) = register();
        let mut file = register.intend(&node, Life(7)).unwrap();
        assert_eq!(found(&mut register), Found::Intended);
        file.write_all(b"pid 42 1000\n").unwrap();
        assert_eq!(found(&mut register), Found::Launched { pid: 42, start_time: 1000 });
        register.stopped(&node.name, Life(6)).unwrap();
        assert_eq!(found(&mut register), Found::Launched { pid: 42, start_time: 1000 });
        register.stopped(&node.name, Life(7)).unwrap();
        assert_eq!(found(&mut register), Found::Stopped);
        let record = &register.read().unwrap().0[0];
        assert_eq!((&record.node, record.life, record.here), (&node, Life(7), true));
        register.forget(&node.name).unwrap();
        assert!(register.read().unwrap().0.is_empty());
    }

    #[test]
    fn what_its_agent_stopped_for_now_is_no_stop_that_somebody_asked_for() {
        let (_directory, mut register, node) = register();
        register.intend(&node, Life(7)).unwrap().write_all(b"pid 42 1000\n").unwrap();
        register.rested(&node.name, Life(6)).unwrap();
        assert_eq!(found(&mut register), Found::Launched { pid: 42, start_time: 1000 });
        register.rested(&node.name, Life(7)).unwrap();
        assert_eq!(found(&mut register), Found::Rested);
        register.stopped(&node.name, Life(7)).unwrap();
        register.rested(&node.name, Life(7)).unwrap();
        assert_eq!(found(&mut register), Found::Stopped, "whoever asked is heeded");
    }

    #[test]
    fn a_record_cut_off_at_any_byte_is_readable_or_refused_and_never_believed() {
        let (_directory, mut register, node) = register();
        register.intend(&node, Life(7)).unwrap().write_all(b"pid 42 1000\nstopped 7\n").unwrap();
        let path = register.directory(&node.name).join(NAME);
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (records, refused) = register.read().unwrap();
            let first = whole.iter().position(|byte| *byte == b'\n').unwrap();
            assert_eq!((records.len(), refused.len()), (usize::from(cut > first), usize::from(cut <= first)), "{cut}");
            for record in records {
                assert!(matches!(record.found, Found::Intended | Found::Launched { pid: 42, start_time: 1000 }));
            }
        }
    }

    #[test]
    fn the_configuration_in_force_is_kept_for_each_instance_and_is_no_node() {
        let (_directory, mut register, _) = register();
        let [a, b] = ["a.x", "a.y"].map(|name| InstanceName::new(name).unwrap());
        let id = |text| ConfigurationId::new(text).unwrap();
        assert_eq!(register.configuration(&a).unwrap(), None);
        register.remember(&a, &id("first")).unwrap();
        register.remember(&b, &id("other")).unwrap();
        register.remember(&a, &id("second")).unwrap();
        assert_eq!(register.configuration(&a).unwrap(), Some(id("second")));
        assert_eq!(register.configuration(&b).unwrap(), Some(id("other")));
        assert_eq!(register.read().unwrap().0, []);
    }

    #[test]
    fn the_end_of_a_node_without_a_record_is_no_error() {
        let (_directory, register, node) = register();
        register.stopped(&node.name, Life(1)).unwrap();
        register.forget(&node.name).unwrap();
    }
}
