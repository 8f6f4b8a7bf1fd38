//! A control group for each node, where the machine lets us have them: by it a node's whole tree is ended, whoever of it
//! left its session, its parent or its environment behind.
//!
//! Any cgroup2 tree that we may write to will do, also one that has no controller. The groups lie beside our own and not
//! below it, so that a service manager that ends the group of the agent ends no node.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::WaitIdOptions;

use super::handle;
use super::identity;
use super::mounts::{self, Tree};
use super::oom;
use super::quotas::{self, Lacking, QuotaError};
use super::sys::child;
use super::tree::SweepError;
use crate::model::{Abilities, Exit, NodeName, Quota, Quotas};

/// The directory of all groups of ours, in whatever place of the tree.
const OURS: &str = "watchpost";
/// How long those that were killed may take to go, all together.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the groups of nodes are to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Place {
    /// Wherever they can be: at the top of the tree, or beside the group that we are in.
    #[default]
    Anywhere,
    /// In this group, named as `/proc/self/cgroup` would.
    In(PathBuf),
    /// Nodes are to have none.
    Nowhere,
}

/// Why nodes have no group of their own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoGroups {
    #[error("the settings want none")]
    Unwanted,
    #[error("no cgroup2 tree is mounted")]
    NoTree,
    #[error("cannot read {path}: {cause}")]
    Look { path: &'static str, cause: String },
    #[error("cannot make {}: {cause}", path.display())]
    Make { path: PathBuf, cause: String },
    #[error("{} has no cgroup.kill, which needs Linux 5.14", path.display())]
    CannotKill { path: PathBuf },
    #[error("no process can be born into {}: {cause}", path.display())]
    CannotBear { path: PathBuf, cause: String },
}

/// The groups of one agent's nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// Of the tree, not ours.
    above: PathBuf,
    home: PathBuf,
    lacking: Lacking,
}

/// Why a node gets no group, or not the one that it is to have.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    #[error("cannot make a control group: {0}")]
    Make(#[source] io::Error),
    #[error("cannot end who is left in the control group {}: {source}", path.display())]
    Left { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Quota(#[from] QuotaError),
}

impl GroupError {
    /// Whether trying again is futile until a person has changed something.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Quota(_))
    }
}

/// Why a node with these limits cannot be started where nodes have no groups; `None` if it has none.
pub fn refuse(quotas: &Quotas, why: &NoGroups) -> Option<GroupError> {
    let (quota, _, value) = quotas.wanted().next()?;
    Some(QuotaError::NoGroup { key: quota.key(), value, why: why.to_string() }.into())
}

/// What an agent can do for its nodes here, with these groups, as status shows it.
pub fn abilities(groups: &Result<Groups, NoGroups>) -> Abilities {
    let outliving = match super::is_init() {
        true => Err("the agent is PID 1 of a container, and with it the kernel ends every node".to_owned()),
        false => Ok(()),
    };
    let (killing, lacking) = match groups {
        Ok(groups) => (
            Ok(groups.home.display().to_string()),
            groups.lacking.iter().map(|(quota, why)| (*quota, why.to_string())).collect(),
        ),
        Err(why) => {
            let no_group = format!("nodes have no control groups: {why}");
            (Err(why.to_string()), Quota::ALL.into_iter().map(|quota| (quota, no_group.clone())).collect())
        }
    };
    Abilities { killing, lacking, outliving }
}

impl Groups {
    /// Finds out by trying where this agent's nodes can have groups. `nodes` is the directory of the nodes: no other
    /// agent has the same at the same time, and this one has it again after a restart.
    pub fn open(place: &Place, cluster: &str, nodes: &Path) -> Result<Self, NoGroups> {
        let within = match place {
            Place::Nowhere => return Err(NoGroups::Unwanted),
            Place::Anywhere => None,
            Place::In(path) => Some(path.as_path()),
        };
        let tree = mounts::cgroup2()
            .map_err(|(path, error)| NoGroups::Look { path, cause: error.to_string() })?
            .ok_or(NoGroups::NoTree)?;
        let name = name(cluster, nodes).map_err(|error| make_failed(nodes, &error))?;
        let mut failure = NoGroups::NoTree;
        for candidate in candidates(&tree, within) {
            match Self::in_directory(&candidate, &name) {
                Ok(groups) => return Ok(groups),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn in_directory(directory: &Path, name: &str) -> Result<Self, NoGroups> {
        let (above, ours) = (directory.to_owned(), directory.join(OURS));
        let mut groups = Self { above, home: ours.join(name), lacking: Lacking::new() };
        // Not in its home: an agent may be launching nodes there at this moment.
        let trial = Self { home: ours.join(format!("{name}.try-{}", std::process::id())), ..groups.clone() };
        let probe = trial.home.join("probe");
        let is_new = fs::create_dir_all(directory).and_then(|()| fs::create_dir(&ours)).is_ok();
        let tried =
            fs::create_dir_all(&probe).map_err(|error| make_failed(&probe, &error)).and_then(|()| try_out(&probe));
        if tried.is_ok() {
            groups.lacking = quotas::try_out(&trial.chain(), &probe);
        }
        // The first node makes the home: an agent without nodes leaves nothing behind.
        let _ = fs::remove_dir(&probe); // where it could not be made, as the next
        let _ = fs::remove_dir(&trial.home);
        if tried.is_err() && is_new {
            let _ = fs::remove_dir(&ours); // somebody may have come to use it
        }
        tried.map(|()| groups)
    }

    /// Groups that are mere directories below this one.
    #[cfg(test)]
    pub fn made_up(above: &Path) -> Self {
        Self { above: above.to_owned(), home: above.join("x"), lacking: Lacking::new() }
    }

    /// The group of that node, made if it is not there, with these limits.
    pub fn of(&self, node: &NodeName, quotas: &Quotas) -> Result<PathBuf, GroupError> {
        self.make(node, quotas, |path| {
            self.refresh(node, path);
            Ok(())
        })
    }

    /// The same for a node of which nothing is known to run: no limit of an earlier definition is left, and nobody who would
    /// run beside the next life.
    pub fn anew(&self, node: &NodeName, quotas: &Quotas) -> Result<PathBuf, GroupError> {
        self.make(node, quotas, |path| {
            remove(path);
            match fs::create_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map_err(GroupError::Make),
            }
            let left = end(path).map_err(|source| GroupError::Left { path: path.to_owned(), source })?;
            if left > 0 {
                let processes = if left == 1 { "process" } else { "processes" };
                tracing::warn!(%node, "ended {left} {processes} in its control group, of which no record told");
            }
            match fs::create_dir(path) {
                // Nobody was in it any more, so it was not removed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                made => made.map_err(GroupError::Make),
            }
        })
    }

    fn make(
        &self,
        node: &NodeName,
        quotas: &Quotas,
        found: impl FnOnce(&Path) -> Result<(), GroupError>,
    ) -> Result<PathBuf, GroupError> {
        let path = self.path(node);
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_all(&path).map_err(GroupError::Make)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => found(&path)?,
            made => made.map_err(GroupError::Make)?,
        }
        quotas::apply(quotas, &self.lacking, &path)?;
        Ok(path)
    }

    /// The most memory that all of that node's processes had at once since its group was made, in bytes; `None` if nobody
    /// counts.
    pub fn memory_peak(&self, node: &NodeName) -> Option<u64> {
        fs::read_to_string(self.path(node).join("memory.peak")).ok()?.trim_end().parse().ok()
    }

    /// How many of that node's processes the kernel killed because memory ran out; `None` if nobody counts.
    pub fn oom_kills(&self, node: &NodeName) -> Option<u64> {
        oom::kills(&fs::read_to_string(self.path(node).join("memory.events")).ok()?)
    }

    /// Whether they are not below the group that this process is in: who ends that does not end them.
    pub fn is_outside_ours(&self) -> bool {
        let tree = mounts::cgroup2().ok().flatten();
        // At the top of the tree is nobody who could be ended with all that is below.
        let own = tree.and_then(|tree| tree.own.filter(|own| *own != tree.top));
        own.is_none_or(|own| !self.home.starts_with(own))
    }

    /// Which of the limits cannot be had.
    pub fn lacking(&self) -> &Lacking {
        &self.lacking
    }

    /// Where the groups of nodes are.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The groups above those of nodes, from the top down.
    fn chain(&self) -> Vec<PathBuf> {
        vec![self.above.clone(), self.above.join(OURS), self.home.clone()]
    }

    /// Ours may have been cleared away since they handed the controllers on.
    fn make_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(&self.home)?;
        for quota in Quota::ALL.into_iter().filter(|quota| !self.lacking.contains_key(quota)) {
            if let Err(why) = quotas::enable(&self.chain(), quota) {
                tracing::warn!("nodes cannot be limited any more: {why}"); // one that is to be says so itself
            }
        }
        fs::create_dir_all(path)
    }

    /// What was counted in an earlier life says nothing of the next one.
    fn refresh(&self, node: &NodeName, path: &Path) {
        if !self.lacking.contains_key(&Quota::Memory) && self.oom_kills(node).is_some_and(|count| count > 0) {
            let _ = fs::remove_dir(path).and_then(|()| fs::create_dir(path)); // somebody is in it
        }
    }

    /// Kills everybody in that node's group and waits until they are gone; how many there were at least.
    ///
    /// Whoever they start meanwhile goes with them. Blocks, so it wants a thread where that does no harm.
    pub fn end(&self, node: &NodeName) -> Result<usize, SweepError> {
        let path = self.path(node);
        end(&path).map_err(|cause| SweepError::Group { path, cause })
    }

    /// The same as [`of`](Self::of) for those who ask that node how it is.
    pub fn of_askers(&self, node: &NodeName) -> io::Result<PathBuf> {
        let path = self.askers(node);
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_all(&path)?,
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Ok(path)
    }

    /// The same as [`end`](Self::end) of those who ask that node how it is.
    pub fn end_askers(&self, node: &NodeName) -> Result<usize, SweepError> {
        let path = self.askers(node);
        end(&path).map_err(|cause| SweepError::Group { path, cause })
    }

    /// Whether that node has a group.
    pub fn is_there(&self, node: &NodeName) -> bool {
        self.path(node).exists()
    }

    /// Whether that process is in the group of that node, or in one below it.
    pub fn has(&self, node: &NodeName, pid: u32) -> bool {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let group = groups.lines().find_map(|line| line.strip_prefix("0::"));
        // Its path there begins somewhere above us, and goes on as ours does.
        let group =
            group.and_then(|group| Some((group, self.path(node).strip_prefix(self.home.parent()?).ok()?.to_owned())));
        group.is_some_and(|(group, ours)| {
            let ours = format!("/{OURS}/{}", ours.display());
            group.find(&ours).is_some_and(|at| matches!(group.as_bytes().get(at + ours.len()), None | Some(b'/')))
        })
    }

    /// Forgets the group of a node, once nobody is in it.
    pub fn forget(&self, node: &NodeName) {
        remove(&self.path(node));
        remove(&self.askers(node));
    }

    /// Forgets the groups that nobody is in.
    pub fn clear(&self) {
        let entries = fs::read_dir(&self.home).into_iter().flatten().flatten();
        entries.filter(is_directory).for_each(|entry| remove(&entry.path()));
        // What is above it is left to whoever comes next, and may be making a group there at this moment.
        let _ = fs::remove_dir(&self.home); // somebody is in one of them
    }

    /// With something before the name, or a node could be called as one of the kernel's own files.
    fn path(&self, node: &NodeName) -> PathBuf {
        self.home.join(format!("node-{node}"))
    }

    fn askers(&self, node: &NodeName) -> PathBuf {
        self.home.join(format!("probe-{node}"))
    }
}

/// Names the agent for as long as its nodes run: two with the same directory cannot be, and the same one keeps it.
fn name(cluster: &str, nodes: &Path) -> io::Result<String> {
    Ok(format!("{cluster}.{}", identity::place(nodes)?))
}

/// Where groups could be made, first choice first.
fn candidates(tree: &Tree, within: Option<&Path>) -> Vec<PathBuf> {
    if let Some(chosen) = within {
        return vec![tree.top.join(chosen.strip_prefix("/").unwrap_or(chosen))];
    }
    let beside = tree.own.as_deref().and_then(Path::parent).filter(|beside| beside.starts_with(&tree.top));
    let mut candidates = vec![tree.top.clone()];
    candidates.extend(beside.filter(|beside| *beside != tree.top).map(Path::to_owned));
    candidates
}

fn try_out(probe: &Path) -> Result<(), NoGroups> {
    if !probe.join("cgroup.kill").exists() {
        return Err(NoGroups::CannotKill { path: probe.to_owned() });
    }
    let cannot_bear = |errno: Errno| NoGroups::CannotBear { path: probe.to_owned(), cause: errno.to_string() };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let group = rustix::fs::open(probe, flags, Mode::empty()).map_err(cannot_bear)?;
    let child = child::try_group(group.as_fd()).map_err(cannot_bear)?;
    match handle::reap(child.as_fd(), WaitIdOptions::empty()) {
        // Somebody else in this program may have reaped it.
        Some(Exit::Status(0) | Exit::Unknown) | None => Ok(()),
        Some(exit) => Err(NoGroups::CannotBear { path: probe.to_owned(), cause: format!("it ended by {exit}") }),
    }
}

fn make_failed(path: &Path, error: &io::Error) -> NoGroups {
    NoGroups::Make { path: path.to_owned(), cause: error.to_string() }
}

fn end(group: &Path) -> io::Result<usize> {
    let events = match File::open(group.join("cgroup.events")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        events => events?,
    };
    if !is_populated(&events)? {
        return Ok(0);
    }
    // Those in groups below are not counted, and killed as well.
    let killed = fs::read_to_string(group.join("cgroup.procs")).map_or(1, |pids| pids.lines().count().max(1));
    fs::write(group.join("cgroup.kill"), "1")?;
    let deadline = Instant::now() + PATIENCE;
    while is_populated(&events)? {
        if !changes_before(deadline, &events)? {
            let why = "processes in it do not go though they were sent SIGKILL: see their state in /proc";
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
    }
    // Some kernels, Linux 6.18 for one, kill at once whoever is born into a group that was killed before: the next life
    // gets a new one.
    remove(group);
    Ok(killed)
}

/// Whether a living process is in the group or below: one that ended and was not reaped counts no more.
fn is_populated(events: &File) -> io::Result<bool> {
    let mut text = [0; 256]; // it has two short lines, and comes in one piece
    match rustix::io::retry_on_intr(|| rustix::io::pread(events, &mut text, 0)) {
        // Somebody removed the group, so it was empty.
        Err(Errno::NODEV) => Ok(false),
        read => Ok(text[..read?].split(|byte| *byte == b'\n').any(|line| line == b"populated 1")),
    }
}

/// Whether the kernel says before the deadline that the file says something else than when it was read.
fn changes_before(deadline: Instant, events: &File) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(events, PollFlags::PRI)], Some(&left)) {
            Err(Errno::INTR) => {}
            changed => return Ok(changed? == 1),
        }
    }
}

/// Removes a group and those that its node made below it, as far as they are empty.
fn remove(group: &Path) {
    if fs::remove_dir(group).is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
        let below = fs::read_dir(group).into_iter().flatten().flatten();
        below.filter(is_directory).for_each(|entry| remove(&entry.path()));
        let _ = fs::remove_dir(group); // somebody is in it, or it is gone
    }
}

fn is_directory(entry: &fs::DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{finish, number_in, script, wait_until};
    use super::super::{Program, spawn, stat::Stat};
    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    /// The groups of a new agent; where this machine does not let us have any, it says why, and that is all there is
    /// to see.
    fn groups(nodes: &Path) -> Option<Groups> {
        let opened = Groups::open(&Place::Anywhere, "test", nodes);
        let may = rustix::process::geteuid().is_root()
            && mounts::cgroup2().unwrap().is_some_and(|tree| {
                // Other tests of this process try at the same time.
                let own = nodes.file_name().unwrap().display();
                let try_it = tree.top.join(format!("watchpost-test-{}{own}", std::process::id()));
                fs::create_dir(&try_it).and_then(|()| fs::remove_dir(&try_it)).is_ok()
            });
        if cfg!(target_arch = "x86_64") {
            assert_eq!(opened.is_ok(), may, "{opened:?}");
        }
        opened.ok()
    }

    #[test]
    fn who_left_session_parent_and_environment_behind_goes_with_its_group() {
        let home = tempfile::tempdir().unwrap();
        let Some(groups) = groups(home.path()) else { return };
        let node = node("far");
        let far = "env -i setsid /bin/sh -c 'trap \"\" TERM; echo $$ > far; while :; do /bin/sleep 1; done' &";
        let program =
            Program { group: Some(groups.of(&node, &Quotas::default()).unwrap()), ..script(home.path(), far) };
        let leader = spawn(&program, None).unwrap();
        assert_eq!(finish(&leader), Exit::Status(0));
        let far = number_in(&home.path().join("far"));
        assert!(groups.has(&node, far) && !groups.has(&self::node("fa"), far));
        assert!(groups.is_there(&node) && !groups.is_there(&self::node("fa")));
        assert!(!groups.has(&node, std::process::id()));
        let lives = |pid| Stat::of(pid).unwrap().is_some_and(|stat| !stat.is_dead());
        assert!(lives(far));
        assert!(groups.end(&node).unwrap() >= 1);
        assert!(!lives(far));
        assert_eq!(groups.end(&node).unwrap(), 0, "nobody is left");
        groups.clear();
        assert!(!groups.home.exists());
        assert_eq!(groups.end(&node).unwrap(), 0, "nor is the group");
    }

    #[test]
    fn who_is_found_in_the_group_of_a_node_that_is_not_known_to_run_is_ended_before_the_next_life() {
        let home = tempfile::tempdir().unwrap();
        let Some(groups) = groups(home.path()) else { return };
        let node = node("unknown");
        let group = groups.of(&node, &Quotas::default()).unwrap();
        let unknown = spawn(&Program { group: Some(group), ..script(home.path(), "exec sleep 1000") }, None).unwrap();
        let group = groups.anew(&node, &Quotas::default()).unwrap();
        assert_eq!(finish(&unknown), Exit::Signal { number: 9, core_dumped: false });
        let next = spawn(&Program { group: Some(group), ..script(home.path(), "exit 3") }, None).unwrap();
        assert_eq!(finish(&next), Exit::Status(3), "and the group is for whoever comes");
        groups.clear();
    }

    #[test]
    fn those_who_multiply_faster_than_they_can_be_counted_are_gone_at_once() {
        let home = tempfile::tempdir().unwrap();
        let Some(groups) = groups(home.path()) else { return };
        let node = node("many");
        let many = "f() { env -i setsid /bin/sh -c '/bin/sleep 0.01; exec /bin/sleep 1000' & }\n\
                    i=0; while [ $i -lt 20 ]; do f; i=$((i+1)); done; echo 1 > begun; while :; do f; wait $!; done";
        let program =
            Program { group: Some(groups.of(&node, &Quotas::default()).unwrap()), ..script(home.path(), many) };
        let leader = spawn(&program, None).unwrap();
        number_in(&home.path().join("begun"));
        assert!(groups.end(&node).unwrap() >= 1);
        assert_eq!(finish(&leader), Exit::Signal { number: 9, core_dumped: false });
        groups.clear();
        assert!(!groups.home.exists(), "nobody is in it");
    }

    #[test]
    fn an_agent_without_nodes_has_no_groups() {
        let home = tempfile::tempdir().unwrap();
        let Some(groups) = groups(home.path()) else { return };
        assert!(!groups.home.exists());
        assert!(groups.of(&node("first"), &Quotas::default()).unwrap().exists());
        let again = Groups::open(&Place::Anywhere, "test", home.path()).unwrap();
        assert!(again.path(&node("first")).exists(), "those of an earlier run stay");
        groups.clear();
    }

    #[test]
    fn a_trial_beside_an_agent_leaves_its_groups_alone_however_it_ends() {
        // A tree that is made up has no cgroup.kill, so that the trial fails.
        let made_up = tempfile::tempdir().unwrap();
        let ours = made_up.path().join(OURS);
        let home = ours.join("x");
        fs::create_dir_all(home.join("node-a")).unwrap();
        assert!(matches!(Groups::in_directory(made_up.path(), "x"), Err(NoGroups::CannotKill { .. })));
        assert!(home.join("node-a").exists(), "a group that nobody is in yet stays");
        fs::remove_dir(home.join("node-a")).unwrap();
        Groups::in_directory(made_up.path(), "x").unwrap_err();
        assert!(home.exists(), "so does a home without groups");
        assert_eq!(fs::read_dir(&ours).unwrap().count(), 1, "nothing of the trial stays");

        let Some(groups) = groups(made_up.path()) else { return };
        groups.of(&node("a"), &Quotas::default()).unwrap();
        groups.forget(&node("a"));
        Groups::open(&Place::Anywhere, "test", made_up.path()).unwrap();
        assert!(groups.home.exists(), "one that succeeds leaves it, too");
        groups.clear();
    }

    #[test]
    fn a_node_is_born_again_after_its_group_was_killed() {
        let home = tempfile::tempdir().unwrap();
        let Some(groups) = groups(home.path()) else { return };
        let node = node("again");
        for _ in 0..3 {
            let program = Program {
                group: Some(groups.of(&node, &Quotas::default()).unwrap()),
                ..script(home.path(), "sleep 1000 & echo up")
            };
            let leader = spawn(&program, None).unwrap();
            assert_eq!(finish(&leader), Exit::Status(0));
            assert!(groups.end(&node).unwrap() >= 1, "its child is there");
        }
        groups.clear();
    }

    #[test]
    fn a_group_that_somebody_is_in_stays() {
        let home = tempfile::tempdir().unwrap();
        let Some(groups) = groups(home.path()) else { return };
        let (busy, idle) = (node("busy"), node("idle"));
        fs::create_dir(groups.of(&busy, &Quotas::default()).unwrap().join("below")).unwrap();
        let program =
            Program { group: Some(groups.path(&busy).join("below")), ..script(home.path(), "exec sleep 1000") };
        let process = spawn(&program, None).unwrap();
        groups.of(&idle, &Quotas::default()).unwrap();
        groups.clear();
        assert!(groups.path(&busy).exists() && !groups.path(&idle).exists());
        assert!(groups.end(&busy).unwrap() >= 1, "those below count");
        assert_eq!(finish(&process), Exit::Signal { number: 9, core_dumped: false });
        wait_until("the group is empty", || {
            groups.forget(&busy);
            !groups.path(&busy).exists()
        });
        groups.clear();
    }

    #[test]
    fn a_group_that_an_earlier_run_left_behind_is_made_anew() {
        let home = tempfile::tempdir().unwrap();
        let Some(groups) = groups(home.path()) else { return };
        let node = node("left");
        let below = groups.of(&node, &Quotas::default()).unwrap().join("below");
        fs::create_dir(&below).unwrap();
        groups.of(&node, &Quotas::default()).unwrap();
        assert!(below.exists(), "what a node has made in it stays as long as it comes back");
        assert!(groups.anew(&node, &Quotas::default()).unwrap().exists() && !below.exists());
        groups.clear();
    }

    #[test]
    fn a_group_that_is_not_there_is_told_by_its_path() {
        let home = tempfile::tempdir().unwrap();
        let program = Program { group: Some("/nowhere/g".into()), ..script(home.path(), ":") };
        let error = spawn(&program, None).unwrap_err().to_string();
        assert!(error.starts_with("cannot start a process in the control group /nowhere/g: No such file"), "{error}");
    }

    #[test]
    fn killing_and_limits_are_two_abilities_and_each_is_shown_as_it_was_found() {
        let home = tempfile::tempdir().unwrap();
        let none = abilities(&Err(NoGroups::NoTree));
        assert_eq!(none.killing, Err("no cgroup2 tree is mounted".into()));
        assert_eq!(none.lacking[&Quota::Cpu], "nodes have no control groups: no cgroup2 tree is mounted");
        let Some(groups) = groups(home.path()) else { return };
        let tree = mounts::cgroup2().unwrap().unwrap();
        let has = |quota: Quota| {
            let controllers = fs::read_to_string(tree.top.join("cgroup.controllers")).unwrap();
            controllers.split_whitespace().any(|controller| controller == quota.controller())
        };
        let limit = Quotas { memory_max: Some(crate::model::Bytes(64 << 20)), ..Quotas::default() };
        match groups.of(&node("limited"), &limit) {
            Ok(group) => assert_eq!(fs::read_to_string(group.join("memory.max")).unwrap(), "67108864\n"),
            Err(error) => {
                assert!(error.is_permanent() && !has(Quota::Memory), "{error}");
                let top = tree.top.display();
                let why = format!("the cgroup2 tree at {top} has no memory controller there");
                assert_eq!(error.to_string(), format!("cannot limit it by memory_max = 64M: {why}"));
                assert_eq!(abilities(&Ok(groups.clone())).lacking[&Quota::Memory], why);
            }
        }
        let shown = abilities(&Ok(groups.clone()));
        assert_eq!(shown.killing, Ok(groups.home.display().to_string()), "it can kill, whatever it can limit");
        groups.clear();
    }

    #[test]
    fn without_groups_a_node_with_a_limit_is_refused_by_name() {
        let limited = Quotas { pids_max: Some(5), ..Quotas::default() };
        let error = refuse(&limited, &NoGroups::NoTree).unwrap();
        let want = "cannot limit it by pids_max = 5: it has no control group, since no cgroup2 tree is mounted";
        assert_eq!((error.to_string().as_str(), error.is_permanent()), (want, true));
        assert!(refuse(&Quotas::default(), &NoGroups::NoTree).is_none());
    }

    #[test]
    fn a_group_in_which_memory_ran_out_is_not_taken_again() {
        let made_up = tempfile::tempdir().unwrap();
        let groups = Groups::made_up(made_up.path());
        let node = node("a");
        let path = groups.of(&node, &Quotas::default()).unwrap();
        assert_eq!((groups.oom_kills(&node), groups.memory_peak(&node)), (None, None));
        fs::write(path.join("memory.peak"), "1351680\n").unwrap();
        assert_eq!(groups.memory_peak(&node), Some(1_351_680));
        fs::remove_file(path.join("memory.peak")).unwrap();
        fs::write(path.join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
        assert_eq!(groups.oom_kills(&node), Some(1));
        // A real group is removed with its files; of one that is made up, only this can be seen.
        groups.of(&node, &Quotas::default()).unwrap();
        fs::remove_file(path.join("memory.events")).unwrap();
        groups.of(&node, &Quotas::default()).unwrap();
        assert_eq!(groups.oom_kills(&node), None);
    }

    #[test]
    fn a_group_that_cannot_be_made_anew_is_not_taken_for_one_that_somebody_is_in() {
        let home = tempfile::tempdir().unwrap();
        let Some(groups) = groups(home.path()) else { return };
        let node = node("refused");
        groups.of(&node, &Quotas::default()).unwrap();
        fs::write(groups.home.join("cgroup.max.descendants"), "0").unwrap();
        let error = groups.anew(&node, &Quotas::default()).unwrap_err();
        assert!(matches!(error, GroupError::Make(_)), "{error}");
        groups.clear();
    }

    #[test]
    fn a_place_that_will_not_do_is_refused_with_the_reason() {
        let made_up = tempfile::tempdir().unwrap();
        let error = Groups::in_directory(made_up.path(), "x").unwrap_err();
        assert!(matches!(error, NoGroups::CannotKill { .. }), "{error}");
        assert!(fs::read_dir(made_up.path()).unwrap().next().is_none(), "nothing stays behind");
        let error = Groups::in_directory(Path::new("/proc"), "x").unwrap_err();
        assert!(matches!(error, NoGroups::Make { .. }), "{error}");
        assert_eq!(Groups::open(&Place::Nowhere, "x", made_up.path()), Err(NoGroups::Unwanted));
    }

    #[test]
    fn groups_are_made_at_the_top_or_beside_our_own_and_never_below_it() {
        let tree = |own: &str| Tree { top: "/c".into(), own: Some(own.into()) };
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(candidates(&tree("/c"), None), paths(&["/c"]));
        assert_eq!(candidates(&tree("/c/a.service"), None), paths(&["/c"]));
        assert_eq!(candidates(&tree("/c/user/me/a.scope"), None), paths(&["/c", "/c/user/me"]));
        assert_eq!(candidates(&Tree { top: "/c".into(), own: None }, None), paths(&["/c"]));
        assert_eq!(candidates(&tree("/c"), Some(Path::new("/w.slice/n"))), paths(&["/c/w.slice/n"]));
    }
}
