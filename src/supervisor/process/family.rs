//! Who descends from whom, and which node each belongs to.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::stat::{Stat, is_gone};

/// The variable by which a process and its offspring are known: `<cluster>/<node>/<incarnation>`.
const MARKER: &[u8] = b"WATCHPOST_NODE=";

/// The kernel lets an environment grow to no more, in bytes; a process may point it at more of its memory.
const LONGEST_ENVIRONMENT: u64 = 6 << 20;

/// Room in which most have their environment, so that one call brings it, in bytes.
const USUAL_ENVIRONMENT: usize = 8 << 10;

/// Nobody honest has more ancestors.
const MOST_PARENTS: usize = 200;

/// How long a process may be in the middle of exec, where its environment seems empty, in milliseconds.
const EXEC_PATIENCE: u32 = 50;

/// What a process's environment says of the node it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// The node that is asked about.
    Ours,
    /// Another one: whatever its session or its parents, it is none of our business.
    Foreign,
    /// Nothing, or it may not be read.
    None,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Relative {
    pub stat: Stat,
    pub mark: Mark,
}

/// Some of the machine's processes, by pid, as they were a moment ago. Never holds this one.
#[derive(Debug)]
pub(super) struct Family {
    members: BTreeMap<u32, Relative>,
    /// The session by which a member without a mark belongs to the node.
    session: Option<u32>,
    is_nobody: bool,
}

impl Family {
    /// Those that lost their parent and were `given` to us, and everything below them, except below another node's.
    ///
    /// Where the kernel does not list children (CONFIG_PROC_CHILDREN), it is everybody.
    pub fn below_us(marker: &str, session: u32, given: impl FnOnce() -> io::Result<Vec<u32>>) -> io::Result<Self> {
        let mut waiting = match given() {
            Ok(children) => children,
            Err(error) if is_gone(&error) => return Self::everybody(marker, session),
            Err(error) => return Err(error),
        };
        if waiting.is_empty() {
            // So it is after most lives.
            return Ok(Self { members: BTreeMap::new(), session: None, is_nobody: true });
        }
        let mut family = Self::empty(marker, session)?;
        while let Some(pid) = waiting.pop() {
            if family.add(pid, marker)? != Some(Mark::Foreign) {
                waiting.extend(children_of(pid)?.into_iter().filter(|child| !family.members.contains_key(child)));
            }
        }
        Ok(family)
    }

    /// Every process of the machine, as far as our pid namespace sees.
    pub fn everybody(marker: &str, session: u32) -> io::Result<Self> {
        let mut family = Self::empty(marker, session)?;
        for pid in numbers_in("/proc")? {
            family.add(pid, marker)?;
        }
        Ok(family)
    }

    /// Whether there was nobody at all to look at, dead or alive, of whatever node.
    pub fn is_nobody(&self) -> bool {
        self.is_nobody
    }

    /// The living members that belong to the node, with the start time of each, sorted by pid.
    pub fn of_the_node(&self) -> impl Iterator<Item = (u32, u64)> {
        let living = self.members.iter().filter(|(_, relative)| !relative.stat.is_dead());
        living.filter(|(pid, _)| self.belongs(**pid)).map(|(pid, relative)| (*pid, relative.stat.start_time))
    }

    fn empty(marker: &str, session: u32) -> io::Result<Self> {
        Ok(Self { members: BTreeMap::new(), session: session_that_tells(marker, session)?, is_nobody: false })
    }

    /// Says how it is marked; `None` if it is gone, or is this process.
    fn add(&mut self, pid: u32, marker: &str) -> io::Result<Option<Mark>> {
        if pid == std::process::id() {
            return Ok(None);
        }
        let Some(stat) = Stat::of(pid)? else {
            return Ok(None);
        };
        let mark = mark(pid, marker);
        self.members.insert(pid, Relative { stat, mark });
        Ok(Some(mark))
    }

    /// Climbs until somebody's membership is plain.
    fn belongs(&self, mut pid: u32) -> bool {
        // Parents were read at different moments, so a circle is thinkable.
        for _ in 0..self.members.len() {
            match self.members.get(&pid) {
                None | Some(Relative { mark: Mark::Foreign, .. }) => return false,
                Some(Relative { mark: Mark::Ours, .. }) => return true,
                Some(Relative { stat, .. }) if Some(stat.session) == self.session => return true,
                Some(Relative { stat, .. }) => pid = stat.parent,
            }
        }
        false
    }
}

/// The session of the leader that ended, if whoever is in it belongs to the node with this marker.
pub(super) fn session_that_tells(marker: &str, session: u32) -> io::Result<Option<u32>> {
    // As long as anybody is left in a session, its number is given to nobody else. So if a stranger has it, nobody was
    // left, and whoever is in that session now belongs to the stranger.
    let stranger = Stat::of(session)?.is_some_and(|stat| !stat.is_dead()) && mark(session, marker) != Mark::Ours;
    // Zero is what everybody has whose session began outside our pid namespace: it names none.
    Ok((session != 0 && session != our_own_session()? && !stranger).then_some(session))
}

/// Whether that process belongs to the node whose marker this is and whose `leader` lives: by its own mark, by its session,
/// or by those of its parents, up to the first that tells.
pub(super) fn belongs(mut pid: u32, marker: &str, leader: u32) -> io::Result<bool> {
    // Parents are read one after the other, so a circle is thinkable.
    for _ in 0..MOST_PARENTS {
        if pid == leader {
            return Ok(true);
        }
        let Some(stat) = Stat::of(pid)?.filter(|_| pid != std::process::id()) else { return Ok(false) };
        match mark(pid, marker) {
            Mark::Ours => return Ok(true),
            Mark::Foreign => return Ok(false),
            // As long as its leader lives nobody else has that number.
            Mark::None if stat.session == leader => return Ok(true),
            Mark::None => pid = stat.parent,
        }
    }
    Ok(false)
}

/// The session that we are in, as it was when this was first asked. Should we leave it for one of our own, no node's
/// leader has that one's number either.
fn our_own_session() -> io::Result<u32> {
    static SESSION: OnceLock<u32> = OnceLock::new();
    match SESSION.get() {
        Some(session) => Ok(*session),
        None => {
            // It may be zero, which is why /proc is asked and not getsid, for whose wrapper zero is no pid.
            let session = Stat::of(std::process::id())?.map_or(0, |us| us.session);
            Ok(*SESSION.get_or_init(|| session))
        }
    }
}

/// The children of our main thread: those that lost their parent come to it, and so do those of our own threads that
/// ended. `NotFound` where the kernel does not list children.
pub(super) fn given_to_us() -> io::Result<Vec<u32>> {
    /// Kept open, since to find it takes ten times as long as to read it; and whose it is, since we may be forked. Two who
    /// read at a time would have the kernel begin anew with each piece.
    static LIST: Mutex<Option<(u32, File)>> = Mutex::new(None);
    let us = std::process::id();
    let mut kept = LIST.lock().unwrap_or_else(PoisonError::into_inner);
    let (_, list) = match kept.take_if(|(whose, _)| *whose == us) {
        Some(list) => kept.insert(list),
        None => kept.insert((us, File::open(list_of_children(us, us))?)),
    };
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match list.read_at(&mut piece, text.len() as u64) {
            Ok(0) => return Ok(numbers(&String::from_utf8_lossy(&text))),
            Ok(length) => text.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The processes whose parent we are.
pub(super) fn children_by_parent() -> io::Result<Vec<u32>> {
    let mut children = Vec::new();
    for pid in numbers_in("/proc")? {
        children.extend(Stat::of(pid)?.filter(|stat| stat.parent == std::process::id()).map(|_| pid));
    }
    Ok(children)
}

fn children_of(pid: u32) -> io::Result<Vec<u32>> {
    let mut children = Vec::new();
    for thread in or_none(numbers_in(&format!("/proc/{pid}/task")))? {
        children.extend(or_none(children_of_thread(pid, thread))?);
    }
    Ok(children)
}

fn children_of_thread(pid: u32, thread: u32) -> io::Result<Vec<u32>> {
    let mut list = String::new();
    // Not through `read_to_string`, which asks for its length first: it has none.
    File::open(list_of_children(pid, thread))?.take(u64::MAX).read_to_string(&mut list)?;
    Ok(numbers(&list))
}

fn list_of_children(pid: u32, thread: u32) -> String {
    format!("/proc/{pid}/task/{thread}/children")
}

fn numbers(list: &str) -> Vec<u32> {
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

pub(super) fn numbers_in(directory: &str) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        match entry {
            Ok(entry) => numbers.extend(entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())),
            Err(error) if is_gone(&error) => break, // the process went while its threads were listed
            Err(error) => return Err(error),
        }
    }
    Ok(numbers)
}

fn or_none(list: io::Result<Vec<u32>>) -> io::Result<Vec<u32>> {
    match list {
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        list => list,
    }
}

/// Looks into the environment of a process.
pub(super) fn mark(pid: u32, marker: &str) -> Mark {
    match self::marker(pid) {
        Some(value) if *value == *marker.as_bytes() => Mark::Ours,
        Some(_) => Mark::Foreign,
        None => Mark::None,
    }
}

/// What a process is marked with; `None` if with nothing, or if it may not be read.
pub(super) fn marker(pid: u32) -> Option<Box<[u8]>> {
    let environment = environment(pid);
    environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(MARKER)).map(Box::from)
}

/// What that variable is in the environment of a process.
pub(super) fn variable(pid: u32, name: &str) -> Option<OsString> {
    let environment = environment(pid);
    let mut variables = environment.split(|byte| *byte == 0);
    let value = variables.find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    Some(OsStr::from_bytes(value).to_owned())
}

/// Empty if the process is gone, or not ours to look into: then its session has to tell.
pub(super) fn environment(pid: u32) -> Vec<u8> {
    let mut environment = Vec::with_capacity(USUAL_ENVIRONMENT);
    for _ in 0..EXEC_PATIENCE {
        let read = File::open(format!("/proc/{pid}/environ"))
            .and_then(|file| file.take(LONGEST_ENVIRONMENT).read_to_end(&mut environment));
        let half_made = || matches!(Stat::of(pid), Ok(Some(Stat { is_half_made: true, .. })));
        if read.is_err() || !environment.is_empty() || !half_made() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_belongs_by_mark_then_session_then_parent() {
        let family = family(&[
            // pid, parent, session, mark
            (10, 1, 10, Mark::Ours),
            (11, 10, 11, Mark::None),
            (12, 11, 12, Mark::None),
            (13, 12, 12, Mark::Foreign),
            (14, 13, 14, Mark::None),
            (15, 1, 7, Mark::None),
            (16, 15, 16, Mark::None),
            (17, 1, 7, Mark::Foreign),
            (18, 1, 18, Mark::None),
            (19, 20, 19, Mark::None),
            (20, 19, 20, Mark::None),
        ]);
        let got: Vec<u32> = family.of_the_node().map(|(pid, _)| pid).collect();
        assert_eq!(got, [10, 11, 12, 15, 16]);
    }

    #[test]
    fn the_dead_are_left_to_whoever_reaps_them() {
        let mut family = family(&[(10, 1, 7, Mark::Ours), (11, 10, 11, Mark::None)]);
        family.members.get_mut(&10).unwrap().stat.state = b'Z';
        assert_eq!(family.of_the_node().collect::<Vec<_>>(), [(11, 1100)]);
    }

    #[test]
    fn a_session_that_a_stranger_has_tells_nothing() {
        let stranger = std::os::unix::process::parent_id();
        assert_eq!(Family::empty("lab/none/1", stranger).unwrap().session, None);
        let ours = Stat::of(std::process::id()).unwrap().unwrap().session;
        assert_eq!(Family::empty("lab/none/1", ours).unwrap().session, None);
        assert_eq!(Family::empty("lab/none/1", 0).unwrap().session, None);
        assert_eq!(Family::empty("lab/none/1", u32::MAX).unwrap().session, Some(u32::MAX));
    }

    #[test]
    fn everybody_is_everybody_else() {
        let family = Family::everybody("lab/none/1", 0).unwrap();
        assert!(family.members.contains_key(&std::os::unix::process::parent_id()));
        assert!(!family.members.contains_key(&std::process::id()));
        assert_eq!(family.of_the_node().count(), 0);
    }

    fn family(members: &[(u32, u32, u32, Mark)]) -> Family {
        let member = |&(pid, parent, session, mark): &_| {
            let stat = Stat {
                state: b'S',
                parent,
                session,
                start_time: u64::from(pid) * 100,
                has_memory: true,
                is_half_made: false,
                wait_status: 0,
            };
            (pid, Relative { stat, mark })
        };
        Family { members: members.iter().map(member).collect(), session: Some(7), is_nobody: false }
    }
}
