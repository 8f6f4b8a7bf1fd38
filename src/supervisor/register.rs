//! What runs, on disk: one record per node, which is what adoption reads.
//!
//! A record is a file of lines to which more are added. One is written before a launch and says what is intended: the
//! node's definition, its life and its crashes so far. The next is written by the new process itself, before it becomes
//! the node's program: `pid <life> <pid> <start time>`, and the number of its pidfd where that has one. More may come: `ready
//! <life>`, where it had to give a sign of that; `stable <life>`, once earlier crashes are forgotten; `crashed <life> <what>`,
//! once its end was told and the next life is to wait, for its time or for the definition; `stopped <life>`, when it is gone because somebody asked, `rested
//! <life>` when its agent stopped it at its own end, and `failed <life> <reason>` when it was given up. Each ends in a
//! checksum. The next intent comes behind that, so that nothing has to be made or renamed for a restart; a file
//! that became long is made anew. Nothing is synced: records must survive the agent, not the machine, whose reboot ends
//! what they speak of.
//!
//! A line that a crash left half written does not count, and is cut off before anything is added. A record that is damaged,
//! or that another release wrote, is set aside, and the process that it spoke of is known by its marker.

mod lines;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};

use self::lines::{Crash, FORMAT, Flaw, Intent, Said};
use super::history::Past;
use super::process::clock;
use super::process::identity::{self, Identity};
use crate::model::{ConfigurationId, InstanceName, Life, Node, NodeName};

/// The file's name in the node's directory.
const NAME: &str = "record";
/// What one that is damaged is called from then on.
const DAMAGED: &str = "record.damaged";
/// The largest record that is read, in bytes: a definition is far below.
const MAX_RECORD: u64 = 4 << 20;
/// A record that is this long is made anew for the next life, in bytes: by then it holds a dozen.
const LONG: u64 = 16 << 10;

/// What a record says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub node: Node,
    pub life: Life,
    /// Whether pids in it mean anything here: same boot, same pid namespace.
    pub here: bool,
    pub found: Found,
    /// The definition is not known: the process was found by its marker.
    pub guessed: bool,
    /// Its process was born into its node's control group, which is where this agent has it.
    pub grouped: bool,
    /// Its crashes so far.
    pub past: Past,
    /// Why it was given up, or waits, if that is so.
    pub reason: Option<String>,
    /// How long it is still to wait until it is started again, if it waits.
    pub waits: Option<Duration>,
    /// The process that led the life, if that is not known to have left nothing, and its number means anything here.
    pub leader: Option<u32>,
    /// Its process gave the sign that it is ready.
    pub ready: bool,
}

/// How far the life of a record came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Intended; whether a process came of it is unknown.
    Intended,
    /// Its process wrote this before it became the node's program.
    Launched(Identity),
    /// It ended, which was told, or no process came of it; and the next life is to wait.
    Crashed,
    /// It ended and is not to be started again without being asked.
    Stopped,
    /// Its agent stopped it when it ended itself, and is to start it when it returns.
    Rested,
    /// It failed, and waits for a person.
    GivenUp,
}

/// All that is on disk.
#[derive(Debug, Default)]
pub struct Entries {
    /// Sorted by node.
    pub records: Vec<Record>,
    /// Nodes of which nothing is known any more, though they may run, and what became of the record of each. Sorted by node.
    pub lost: Vec<(NodeName, Loss)>,
    /// What could not be read, or not be set aside.
    pub refused: Vec<RegisterError>,
}

/// Why nothing is known of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// There is no record: it never ran, or left the configuration, or somebody deleted it.
    Missing,
    /// Nothing was in it, and it seems to be older than this boot: then the machine went down before the disk had more, and
    /// nothing of what it spoke of runs. But clocks are set.
    Blank,
    /// It said nothing that can be believed, for this reason, and was set aside.
    Damaged(String),
    /// Another release wrote it, as this tells, and it was set aside.
    Foreign(String),
    /// It could not be read, or says nothing that can be believed and could not be set aside: [`Entries::refused`] says why.
    Unread,
}

/// Why a record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("process {pid} entered itself late into {}; it is ended before the next is launched", path.display())]
    Late { path: PathBuf, pid: u32 },
}

/// The records of all nodes of one agent, in the nodes' own directories.
#[derive(Debug, Clone)]
pub struct Register {
    /// Nodes whose last intent could not be taken back: that is to be done before their next.
    unrevoked: Arc<Mutex<BTreeSet<NodeName>>>,
    nodes: PathBuf,
    boot: String,
    pid_namespace: u64,
    /// Where nodes have their control groups, if they have any.
    groups: Option<PathBuf>,
}

impl Register {
    /// Keeps its records in `nodes/<node>/record`, of nodes whose control groups are in `groups`.
    pub fn new(nodes: PathBuf, groups: Option<PathBuf>) -> io::Result<Self> {
        Ok(Self {
            unrevoked: Arc::default(),
            groups,
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

    /// Adds an intent to the node's record. The file is for the process that is launched next, which appends to it.
    pub fn intend(&self, node: &Node, life: Life, past: Past) -> Result<File, RegisterError> {
        self.begin(node, life, past, false, self.groups.as_deref())
    }

    /// Adds a process that was found running to its node's record. Where the definition is `guessed` it is nobody's.
    pub fn enter(
        &self,
        node: &Node,
        life: Life,
        process: Identity,
        past: Past,
        guessed: bool,
    ) -> Result<(), RegisterError> {
        let mut file = self.begin(node, life, past, guessed, None)?;
        let path = self.directory(&node.name).join(NAME);
        let line = lines::sealed(&lines::launched(life, process));
        file.write_all(&line).map_err(|source| RegisterError::Io { what: "write", path, source })
    }

    fn begin(
        &self,
        node: &Node,
        life: Life,
        past: Past,
        guessed: bool,
        groups: Option<&Path>,
    ) -> Result<File, RegisterError> {
        let path = self.directory(&node.name).join(NAME);
        if self.unrevoked().contains(&node.name)
            && let Found::Launched(Identity { pid, .. }) = self.revoke(&node.name)?
        {
            return Err(RegisterError::Late { path, pid });
        }
        let intent = Intent {
            format: FORMAT,
            boot: Cow::Borrowed(&self.boot),
            pid_namespace: self.pid_namespace,
            life,
            guessed,
            past,
            at: milliseconds_since_boot(),
            groups: groups.map(Cow::Borrowed),
            node: Cow::Borrowed(node),
        };
        let written = serde_json::to_string(&intent).map_err(io::Error::from).and_then(|intent| {
            let line = lines::sealed(&intent);
            match open_to_add(&path)? {
                Some((mut file, length)) if length < LONG => file.write_all(&line).map(|()| file),
                _ => make_anew(&path, &line),
            }
        });
        written.map_err(|source| RegisterError::Io { what: "write", path, source })
    }

    /// Takes back an intent of which no process is known. Whoever is still to be born of it finds its record replaced, and
    /// ends; whoever was quicker has entered itself into the former one, and is told of. Where that fails the node's next
    /// life does not begin until it can be done.
    pub fn revoke(&self, node: &NodeName) -> Result<Found, RegisterError> {
        let path = self.directory(node).join(NAME);
        let revoke = || -> io::Result<Vec<u8>> {
            let former = File::open(&path)?;
            let mut bytes = Vec::new();
            (&former).take(MAX_RECORD).read_to_end(&mut bytes)?;
            let mut file = make_anew(&path, &bytes)?;
            let known = bytes.len();
            former.take(MAX_RECORD).read_to_end(&mut bytes)?;
            // Without it the next agent finds the process by its marker.
            let _ = file.write_all(&bytes[known..]);
            Ok(bytes)
        };
        let revoked = revoke();
        match revoked {
            Ok(_) => self.unrevoked().remove(node),
            Err(_) => self.unrevoked().insert(node.clone()),
        };
        let bytes = revoked.map_err(|source| RegisterError::Io { what: "replace", path, source })?;
        Ok(lines::read(&bytes).map_or(Found::Intended, |said| said.found))
    }

    fn unrevoked(&self) -> MutexGuard<'_, BTreeSet<NodeName>> {
        self.unrevoked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that this life is over and the node is to stay down until somebody asks.
    pub fn stopped(&self, node: &NodeName, life: Life) -> Result<(), RegisterError> {
        self.note(node, &format!("stopped {life}"))
    }

    /// Notes that this life is over since the agent ends, and that its next run is to start the node. Where the life
    /// was over because somebody asked, it stays at that.
    pub fn rested(&self, node: &NodeName, life: Life) -> Result<(), RegisterError> {
        self.note(node, &format!("rested {life}"))
    }

    /// Notes that the process of this life is ready.
    pub fn ready(&self, node: &NodeName, life: Life) -> Result<(), RegisterError> {
        self.note(node, &lines::ready(life))
    }

    /// Notes that the crashes before this life are forgotten.
    pub fn stable(&self, node: &NodeName, life: Life) -> Result<(), RegisterError> {
        self.note(node, &lines::stable(life))
    }

    /// Notes that this life is over, for this reason, which was told, and that the next one is due after this wait.
    pub fn crashed(
        &self,
        node: &NodeName,
        life: Life,
        past: Past,
        wait: Duration,
        reason: &str,
    ) -> Result<(), RegisterError> {
        let at = milliseconds_since_boot();
        let due = at.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let crash = Crash { past, at, due, reason: lines::shortened(reason) };
        let line = lines::crashed(life, &crash).map_err(|error| RegisterError::Io {
            what: "write",
            path: self.directory(node).join(NAME),
            source: error.into(),
        })?;
        self.note(node, &line)
    }

    /// Notes that this life was the last, for this reason, until somebody asks for another.
    pub fn given_up(&self, node: &NodeName, life: Life, reason: &str) -> Result<(), RegisterError> {
        self.note(node, &lines::given_up(life, reason))
    }

    fn note(&self, node: &NodeName, line: &str) -> Result<(), RegisterError> {
        let path = self.directory(node).join(NAME);
        let written = open_to_add(&path).and_then(|found| match found {
            Some((mut file, _)) => file.write_all(&lines::sealed(line)),
            None => Ok(()), // it never came to a launch
        });
        written.map_err(|source| RegisterError::Io { what: "write", path, source })
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

    /// Every record that is there. What is damaged is set aside, and so is what another release wrote; where that cannot be
    /// done, the others are read all the same.
    pub fn read(&self) -> Result<Entries, RegisterError> {
        let io = |source| RegisterError::Io { what: "read", path: self.nodes.clone(), source };
        let mut entries = Entries::default();
        for entry in fs::read_dir(&self.nodes).map_err(io)? {
            let directory = entry.map_err(io)?.path();
            let name = directory.file_name().and_then(|name| name.to_str()).and_then(|name| NodeName::new(name).ok());
            match (self.read_one(&directory.join(NAME)), name) {
                (Ok(Reading::Record(record)), _) => entries.records.push(*record),
                (Ok(Reading::Lost(loss)), name) => entries.lost.extend(name.map(|name| (name, loss))),
                (Ok(Reading::Nothing), _) => {}
                (Err(error), name) => {
                    entries.refused.push(error);
                    entries.lost.extend(name.map(|name| (name, Loss::Unread)));
                }
            }
        }
        entries.records.sort_by(|a, b| a.node.name.cmp(&b.node.name));
        entries.lost.sort();
        Ok(entries)
    }

    fn read_one(&self, path: &Path) -> Result<Reading, RegisterError> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| {
            let found = file.metadata()?;
            // What comes behind that is not written yet. With room for it one call reads it; without, a dozen.
            let length = found.len().min(MAX_RECORD);
            bytes.reserve_exact(length as usize);
            let written = found.modified()?;
            file.take(length).read_to_end(&mut bytes).map(|_| written)
        });
        let written = match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Reading::Lost(Loss::Missing)),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Reading::Nothing),
            Err(source) => return Err(RegisterError::Io { what: "read", path: path.into(), source }),
            Ok(written) => written,
        };
        match lines::read(&bytes) {
            Ok(said) => Ok(Reading::Record(Box::new(self.record(said)))),
            Err(Flaw::Empty) if was_before_this_boot(written) => {
                let removed = fs::remove_file(path);
                removed.map_err(|source| RegisterError::Io { what: "remove", path: path.into(), source })?;
                Ok(Reading::Lost(Loss::Blank))
            }
            Err(flaw) => {
                set_aside(path).map_err(|source| RegisterError::Io { what: "set aside", path: path.into(), source })?;
                Ok(Reading::Lost(match flaw {
                    Flaw::Foreign(why) => Loss::Foreign(why),
                    flaw => Loss::Damaged(flaw.to_string()),
                }))
            }
        }
    }

    fn record(&self, Said { intent, found, reason, crash, leader, ready, stable }: Said) -> Record {
        let same_boot = intent.boot == self.boot;
        let here = same_boot && intent.pid_namespace == self.pid_namespace;
        let now = milliseconds_since_boot();
        // Times of another boot say nothing: who was to wait then has waited.
        let crash = crash.filter(|_| same_boot);
        let waits = crash.as_ref().map(|crash| Duration::from_millis(crash.due.saturating_sub(now)));
        let (past, at, reason) = match crash {
            Some(Crash { past, at, reason, .. }) => (past, at, Some(reason)),
            None if stable => (Past::default(), now, reason),
            None => (intent.past, intent.at, reason),
        };
        let past = if same_boot { past.aged(Duration::from_millis(now.saturating_sub(at))) } else { Past::default() };
        let grouped =
            here && intent.groups.is_some_and(|groups| self.groups.as_ref().is_some_and(|ours| *groups == **ours));
        let leader = leader.filter(|_| here && matches!(found, Found::Launched(_) | Found::Crashed));
        let (node, life, guessed) = (intent.node.into_owned(), intent.life, intent.guessed);
        Record { node, life, here, found, guessed, grouped, past, reason, waits, leader, ready }
    }
}

/// Opens a record to which lines are to be added, and how long it is; `None` if there is none.
///
/// A line that another process is just writing may be seen without its end, where it crosses a page, and be cut off. Hardly
/// anybody can be at that: the jobs of a node are done one after the other, and a launch is over once its newborn has written.
fn open_to_add(path: &Path) -> io::Result<Option<(File, u64)>> {
    let file = match OpenOptions::new().read(true).append(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    if last == *b"\n" {
        return Ok(Some((file, length)));
    }
    let mut bytes = Vec::new();
    (&file).take(MAX_RECORD).read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
    file.set_len(whole)?;
    Ok(Some((file, whole)))
}

/// Makes a record of these lines alone, which takes the place of the one that is there at once or not at all.
fn make_anew(path: &Path, lines: &[u8]) -> io::Result<File> {
    let fresh = path.with_file_name("record.new");
    // A leftover of a crash may be half a line: it is not this intent's.
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(&fresh, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(lines)?;
    fs::rename(&fresh, path)?;
    Ok(file)
}

/// Keeps a copy of a damaged record and removes it: whoever is still to be born of it finds it gone, and ends. Where there is
/// no room for a copy, and where it is longer than any record, it is renamed, and a newborn would go on.
fn set_aside(path: &Path) -> io::Result<()> {
    let aside = path.with_file_name(DAMAGED);
    let is_copied = fs::metadata(path)?.len() <= MAX_RECORD && fs::copy(path, &aside).is_ok();
    if is_copied { fs::remove_file(path) } else { fs::rename(path, aside) }
}

/// What stands in the place of a record.
enum Reading {
    Record(Box<Record>),
    Lost(Loss),
    /// It is no node's directory.
    Nothing,
}

/// By the clock that nobody sets.
fn milliseconds_since_boot() -> u64 {
    u64::try_from(clock::since_boot().as_millis()).unwrap_or(u64::MAX)
}

/// Whether a file was last written in an earlier life of the machine, by the clock that people set; in doubt it was not.
fn was_before_this_boot(written: SystemTime) -> bool {
    let uptime = fs::read_to_string("/proc/uptime").ok();
    let seconds = uptime.and_then(|uptime| uptime.split(['.', ' ']).next()?.parse().ok());
    let boot = seconds.and_then(|seconds| SystemTime::now().checked_sub(Duration::from_secs(seconds)));
    boot.is_some_and(|boot| written + Duration::from_secs(5) < boot)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::model::{InstanceName, Role};

    fn register() -> (tempfile::TempDir, Register, Node) {
        let directory = tempfile::tempdir().unwrap();
        let register = Register::new(directory.path().into(), None).unwrap();
        let node = Node::new(NodeName::new("a").unwrap(), InstanceName::new("i").unwrap(), Role::Worker);
        fs::create_dir(register.directory(&node.name)).unwrap();
        (directory, register, node)
    }

    #[test]
    fn a_record_of_another_release_is_set_aside_and_its_node_looked_for() {
        let (_directory, register, node) = register();
        let path = register.directory(&node.name).join(NAME);
        let foreign = "{\"format\":9}\n";
        fs::write(&path, foreign).unwrap();
        assert_eq!(register.read().unwrap().lost, [(node.name.clone(), Loss::Foreign("its format is 9".into()))]);
        assert_eq!(fs::read_to_string(path.with_file_name(DAMAGED)).unwrap(), foreign);
        register.intend(&node, Life(7), Past::default()).unwrap();
    }

    #[test]
    fn a_record_that_cannot_be_read_is_told_of_and_its_node_looked_for() {
        let (_directory, register, node) = register();
        fs::create_dir(register.directory(&node.name).join(NAME)).unwrap();
        let entries = register.read().unwrap();
        assert_eq!((entries.lost, entries.refused.len()), (vec![(node.name.clone(), Loss::Unread)], 1));
        register.intend(&node, Life(7), Past::default()).unwrap_err();
    }

    #[test]
    fn a_record_that_cannot_be_set_aside_is_told_of_and_keeps_nobody_from_reading_the_others() {
        let (_directory, register, node) = register();
        let path = register.directory(&node.name).join(NAME);
        fs::write(&path, "garbage\n").unwrap();
        fs::create_dir(path.with_file_name(DAMAGED)).unwrap();
        let other = Node { name: NodeName::new("b").unwrap(), ..node.clone() };
        fs::create_dir(register.directory(&other.name)).unwrap();
        register.intend(&other, Life(1), Past::default()).unwrap();
        let entries = register.read().unwrap();
        assert_eq!(entries.records.iter().map(|record| &record.node.name).collect::<Vec<_>>(), [&other.name]);
        assert_eq!(entries.lost, [(node.name.clone(), Loss::Unread)]);
        let [refused] = &entries.refused[..] else { panic!("{entries:?}") };
        assert!(refused.to_string().starts_with(&format!("cannot set aside {}: ", path.display())), "{refused}");
    }

    #[test]
    fn what_the_machine_took_down_with_it_is_no_record_and_no_damage_and_its_node_is_looked_for_all_the_same() {
        let (_directory, register, node) = register();
        let path = register.directory(&node.name).join(NAME);
        for left in [Vec::new(), vec![0; 4096], [&[0; 4096][..], &lines::sealed("stopped 6")].concat()] {
            fs::write(&path, left).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
            let entries = register.read().unwrap();
            assert!(entries.records.is_empty() && entries.refused.is_empty());
            assert_eq!(
                entries.lost,
                [(node.name.clone(), Loss::Blank)],
                "it only looks like that where a clock was set"
            );
            assert!(!path.exists(), "who is still to be born of it ends");
            register.intend(&node, Life(7), Past::default()).unwrap();
            assert_eq!(found(&register), Found::Intended);
        }
    }

    fn found(register: &Register) -> Found {
        let entries = register.read().unwrap();
        assert!(entries.refused.is_empty() && entries.lost.is_empty(), "{entries:?}");
        entries.records[0].found
    }

    /// By that a newborn knows that its record is no longer in force.
    fn is_gone(record: &File) -> bool {
        record.metadata().unwrap().nlink() == 0
    }

    #[test]
    fn a_pid_of_another_boot_or_another_pid_namespace_means_nothing_here() {
        let (directory, mut register, node) = register();
        let groups = Some(directory.path().to_owned());
        register.groups = groups.clone();
        let past = Past { attempt: 4, ago: vec![20] };
        let mut file = register.intend(&node, Life(7), past.clone()).unwrap();
        file.write_all(&lines::sealed(&lines::launched(Life(7), Identity::new(42, 1000)))).unwrap();
        let read = |change: fn(&mut Register)| {
            let mut reader =
                Register { groups: groups.clone(), ..Register::new(directory.path().into(), None).unwrap() };
            change(&mut reader);
            reader.read().unwrap().records.remove(0)
        };
        let ours = read(|_| {});
        assert!(ours.here && ours.grouped);
        assert_eq!((ours.leader, ours.past.attempt), (Some(42), 4));
        let elsewhere = read(|reader| reader.pid_namespace += 1);
        assert!(!elsewhere.here && !elsewhere.grouped);
        assert_eq!((elsewhere.leader, elsewhere.past.attempt), (None, 4), "its crashes are of this boot");
        let before = read(|reader| reader.boot = "another".into());
        assert!(!before.here && !before.grouped);
        assert_eq!((before.leader, &before.past), (None, &Past::default()));
        for record in [ours, elsewhere, before] {
            assert_eq!(record.found, Found::Launched(Identity::new(42, 1000)));
        }
    }

    #[test]
    fn a_record_that_is_set_aside_is_nobodys_and_can_be_looked_into() {
        let (_directory, register, node) = register();
        let path = register.directory(&node.name).join(NAME);
        let late = register.intend(&node, Life(1), Past::default()).unwrap();
        fs::write(&path, "garbage").unwrap();
        assert_eq!(register.read().unwrap().lost.len(), 1);
        assert!(is_gone(&late) && !path.exists());
        assert_eq!(fs::read(path.with_file_name(DAMAGED)).unwrap(), b"garbage");
    }

    #[test]
    fn an_intent_that_is_taken_back_is_nobodys_record_and_whoever_was_quicker_is_found() {
        let (_directory, register, node) = register();
        let late = register.intend(&node, Life(1), Past::default()).unwrap();
        assert_eq!(register.revoke(&node.name).unwrap(), Found::Intended);
        assert!(is_gone(&late));

        let mut quick = register.intend(&node, Life(2), Past::default()).unwrap();
        quick.write_all(&lines::sealed(&lines::launched(Life(2), Identity::new(70, 7000)))).unwrap();
        let launched = Found::Launched(Identity::new(70, 7000));
        assert_eq!(register.revoke(&node.name).unwrap(), launched);
        assert_eq!(found(&register), launched, "and stays in the record");
    }

    #[test]
    fn an_intent_that_could_not_be_taken_back_is_before_the_next_life_begins() {
        let (_directory, register, node) = register();
        let in_the_way = register.directory(&node.name).join("record.new");
        let begin = |life| register.clone().intend(&node, Life(life), Past::default());
        let fail_to_revoke = || {
            fs::create_dir(&in_the_way).unwrap();
            register.revoke(&node.name).unwrap_err();
        };
        let late = begin(1).unwrap();
        fail_to_revoke();
        begin(2).unwrap_err();
        assert!(!is_gone(&late));
        fs::remove_dir(&in_the_way).unwrap();
        let mut quick = begin(2).unwrap();
        assert!(is_gone(&late));

        fail_to_revoke();
        fs::remove_dir(&in_the_way).unwrap();
        quick.write_all(&lines::sealed(&lines::launched(Life(2), Identity::new(70, 7000)))).unwrap();
        assert!(matches!(begin(3), Err(RegisterError::Late { pid: 70, .. })));
        begin(3).unwrap();
    }

    #[test]
    fn a_record_tells_how_far_the_life_came() {
        let (_directory, register, node) = register();
        let mut file = register.intend(&node, Life(7), Past::default()).unwrap();
        assert_eq!(found(&register), Found::Intended);
        file.write_all(&lines::sealed(&lines::launched(Life(7), Identity::new(42, 1000)))).unwrap();
        assert_eq!(found(&register), Found::Launched(Identity::new(42, 1000)));
        register.stopped(&node.name, Life(6)).unwrap();
        assert_eq!(found(&register), Found::Launched(Identity::new(42, 1000)));
        register.stopped(&node.name, Life(7)).unwrap();
        assert_eq!(found(&register), Found::Stopped);
        let record = &register.read().unwrap().records[0];
        assert_eq!((&record.node, record.life, record.here), (&node, Life(7), true));
        register.forget(&node.name).unwrap();
        assert!(register.read().unwrap().records.is_empty());
    }

    #[test]
    fn what_its_agent_stopped_for_now_is_no_stop_that_somebody_asked_for() {
        let (_directory, register, node) = register();
        register
            .intend(&node, Life(7), Past::default())
            .unwrap()
            .write_all(&lines::sealed(&lines::launched(Life(7), Identity::new(42, 1000))))
            .unwrap();
        register.rested(&node.name, Life(6)).unwrap();
        assert_eq!(found(&register), Found::Launched(Identity::new(42, 1000)));
        register.rested(&node.name, Life(7)).unwrap();
        assert_eq!(found(&register), Found::Rested);
        register.stopped(&node.name, Life(7)).unwrap();
        register.rested(&node.name, Life(7)).unwrap();
        assert_eq!(found(&register), Found::Stopped, "whoever asked is heeded");
    }

    #[test]
    fn a_record_cut_off_at_any_byte_is_readable_or_set_aside_and_never_believed() {
        let (_directory, register, node) = register();
        let mut file = register.intend(&node, Life(7), Past::default()).unwrap();
        file.write_all(&lines::sealed(&lines::launched(Life(7), Identity::new(42, 1000)))).unwrap();
        register.stopped(&node.name, Life(7)).unwrap();
        let path = register.directory(&node.name).join(NAME);
        let whole = fs::read(&path).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let entries = register.read().unwrap();
            let is_read = cut > first;
            assert_eq!((entries.records.len(), entries.lost.len()), (is_read.into(), (!is_read).into()), "{cut}");
            for record in entries.records {
                let launched = Found::Launched(Identity::new(42, 1000));
                assert!(record.found == Found::Intended || record.found == launched);
            }
            let aside = path.with_file_name(DAMAGED);
            assert_eq!(fs::read(&aside).ok(), (!is_read).then(|| whole[..cut].to_vec()), "{cut}");
            let _ = fs::remove_file(aside);
        }
    }

    #[test]
    fn the_next_life_is_added_wherever_the_line_before_was_cut_off() {
        let (_directory, register, node) = register();
        let path = register.directory(&node.name).join(NAME);
        let begin = |life: u64| {
            let mut file = register.intend(&node, Life(life), Past::default()).unwrap();
            file.write_all(&lines::sealed(&lines::launched(Life(life), Identity::new(40 + life as u32, 1000))))
                .unwrap();
        };
        begin(1);
        let first = fs::read(&path).unwrap();
        begin(2);
        let both = fs::read(&path).unwrap();
        assert!(both.starts_with(&first) && both.len() > first.len());
        for cut in 0..both.len() {
            fs::write(&path, &both[..cut]).unwrap();
            begin(3);
            let kept = fs::read(&path).unwrap();
            let lines = kept.split_inclusive(|byte| *byte == b'\n').count();
            let whole = both[..cut].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(lines, whole + 2, "{cut}");
            let said = lines::read(&kept).unwrap();
            assert_eq!((said.intent.life, said.found), (Life(3), Found::Launched(Identity::new(43, 1000))), "{cut}");
        }
        fs::write(&path, &both[..both.len() - 1]).unwrap();
        register.stopped(&node.name, Life(2)).unwrap();
        assert_eq!(found(&register), Found::Stopped, "so is what is noted of a life");
    }

    #[test]
    fn that_a_process_was_born_into_its_group_counts_where_groups_are_still_there() {
        let (directory, _, node) = register();
        let grouped = |written: Option<&str>, read: Option<&str>| {
            let [writer, reader] = [written, read]
                .map(|groups| Register::new(directory.path().into(), groups.map(PathBuf::from)).unwrap());
            writer.intend(&node, Life(7), Past::default()).unwrap();
            reader.read().unwrap().records[0].grouped
        };
        assert!(grouped(Some("/c/a"), Some("/c/a")));
        for (written, read) in [(Some("/c/a"), Some("/c/b")), (Some("/c/a"), None), (None, Some("/c/a")), (None, None)]
        {
            assert!(!grouped(written, read), "{written:?}, then {read:?}");
        }
    }

    #[test]
    fn a_record_does_not_grow_without_end() {
        let (_directory, register, node) = register();
        let path = register.directory(&node.name).join(NAME);
        let mut was_made_anew = false;
        let mut before = 0;
        for life in 1..200 {
            register.intend(&node, Life(life), Past::default()).unwrap();
            let length = fs::metadata(&path).unwrap().len();
            was_made_anew |= length < before;
            assert!(length < 2 * LONG);
            before = length;
        }
        assert!(was_made_anew);
        assert_eq!(register.read().unwrap().records[0].life, Life(199));
    }

    #[test]
    fn what_was_given_up_and_how_often_it_crashed_is_known_to_the_next_agent() {
        let (_directory, register, node) = register();
        let past = Past { attempt: 4, ago: vec![20, 10] };
        register.intend(&node, Life(7), past.clone()).unwrap();
        register.given_up(&node.name, Life(7), "given up after 4 restarts").unwrap();
        let record = register.read().unwrap().records.remove(0);
        assert_eq!((record.found, record.reason.as_deref()), (Found::GivenUp, Some("given up after 4 restarts")));
        assert_eq!(record.past.attempt, 4);
        assert!(record.past.ago.iter().zip(&past.ago).all(|(now, then)| now >= then && *now < then + 60_000));
    }

    #[test]
    fn who_waits_to_be_started_again_waits_for_the_rest_only_and_is_known_with_its_crashes() {
        let (_directory, mut register, node) = register();
        let mut file = register.intend(&node, Life(7), Past { attempt: 1, ago: vec![7] }).unwrap();
        file.write_all(&lines::sealed(&lines::launched(Life(7), Identity::new(42, 1000)))).unwrap();
        let (hour, past) = (Duration::from_secs(3600), Past { attempt: 2, ago: vec![10, 0] });
        register.ready(&node.name, Life(7)).unwrap();
        register.stable(&node.name, Life(7)).unwrap();
        assert_eq!(register.read().unwrap().records[0].past, Past::default());
        register.crashed(&node.name, Life(7), past, hour, "exited with status 3").unwrap();
        let record = register.read().unwrap().records.remove(0);
        assert_eq!((record.found, record.leader, record.ready), (Found::Crashed, Some(42), true));
        assert_eq!((record.reason.as_deref(), record.past.attempt), (Some("exited with status 3"), 2));
        assert!(record.waits.is_some_and(|left| left <= hour && left + Duration::from_secs(60) > hour), "{record:?}");

        register.crashed(&node.name, Life(7), Past::default(), Duration::ZERO, "").unwrap();
        assert_eq!(register.read().unwrap().records[0].waits, Some(Duration::ZERO), "its time is over");
        register.boot = "another".into();
        let record = register.read().unwrap().records.remove(0);
        assert_eq!((record.waits, record.leader, record.here), (None, None, false), "the machine went down meanwhile");
        assert_eq!((record.found, record.past), (Found::Crashed, Past::default()));
    }

    #[test]
    fn a_process_that_is_entered_keeps_the_crashes_of_its_node() {
        let (_directory, register, node) = register();
        register.enter(&node, Life(7), Identity::new(42, 1000), Past { attempt: 4, ago: vec![20, 10] }, false).unwrap();
        let record = register.read().unwrap().records.remove(0);
        assert_eq!(record.found, Found::Launched(Identity::new(42, 1000)));
        assert_eq!((record.past.attempt, record.past.ago.len()), (4, 2));
    }

    #[test]
    fn the_configuration_in_force_is_kept_for_each_instance_and_is_no_node() {
        let (_directory, register, _) = register();
        let [a, b] = ["a.x", "a.y"].map(|name| InstanceName::new(name).unwrap());
        let id = |text| ConfigurationId::new(text).unwrap();
        assert_eq!(register.configuration(&a).unwrap(), None);
        register.remember(&a, &id("first")).unwrap();
        register.remember(&b, &id("other")).unwrap();
        register.remember(&a, &id("second")).unwrap();
        assert_eq!(register.configuration(&a).unwrap(), Some(id("second")));
        assert_eq!(register.configuration(&b).unwrap(), Some(id("other")));
        assert_eq!(register.read().unwrap().records, []);
    }

    #[test]
    fn the_end_of_a_node_without_a_record_is_no_error() {
        let (_directory, register, node) = register();
        register.stopped(&node.name, Life(1)).unwrap();
        register.forget(&node.name).unwrap();
    }
}
