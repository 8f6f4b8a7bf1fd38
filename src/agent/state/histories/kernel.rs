//! What outlives an agent: processes with their numbers, and the register on disk.

use std::collections::BTreeSet;

use crate::model::{Exit, Life};

/// So many numbers there are: each is given out again as soon as it is free.
const NUMBERS: usize = 2;

/// A definition of the node: the first or the second.
pub type Version = u8;

/// Names a process for good: its number, and when it was born.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub pid: u32,
    pub born: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Node(Life, Version),
    Stranger,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Being {
    Alive { asked: bool, killed: bool },
    Zombie(Exit),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub name: Name,
    pub who: Who,
    pub being: Being,
}

/// The processes of the machine. A number stays taken until its zombie is reaped.
#[derive(Debug, Clone, Default)]
pub struct Kernel {
    table: [Option<Process>; NUMBERS],
    /// What lives on of a life whose leader ended.
    pub strays: BTreeSet<Life>,
    births: u32,
}

impl Kernel {
    /// Panics if another process of the node is there.
    pub fn bear(&mut self, life: Life, version: Version) -> Name {
        assert!(self.nodes().is_empty(), "two processes of one node");
        assert!(self.strays.is_empty(), "something of a former life beside the next");
        self.put(Who::Node(life, version))
    }

    /// Gives the first free number to somebody else.
    pub fn put(&mut self, who: Who) -> Name {
        let at = self.table.iter().position(Option::is_none).expect("a free number");
        self.births += 1;
        let name = Name { pid: 100 + at as u32, born: self.births };
        let being = Being::Alive { asked: false, killed: false };
        self.table[at] = Some(Process { name, who, being });
        name
    }

    pub fn find(&self, name: Name) -> Option<&Process> {
        self.table.iter().flatten().find(|process| process.name == name)
    }

    pub fn find_mut(&mut self, name: Name) -> Option<&mut Process> {
        self.table.iter_mut().flatten().find(|process| process.name == name)
    }

    pub fn is_alive(&self, name: Name) -> bool {
        self.find(name).is_some_and(|process| matches!(process.being, Being::Alive { .. }))
    }

    /// Whoever has that number now, dead or alive.
    pub fn holder(&self, pid: u32) -> Option<&Process> {
        self.table.iter().flatten().find(|process| process.name.pid == pid)
    }

    /// The living processes of the node.
    pub fn nodes(&self) -> Vec<Process> {
        let all = self.table.iter().flatten().copied();
        all.filter(|it| matches!((it.who, it.being), (Who::Node(..), Being::Alive { .. }))).collect()
    }

    pub fn end(&mut self, name: Name, exit: Exit) {
        if let Some(process) = self.find_mut(name) {
            process.being = Being::Zombie(exit);
        }
    }

    pub fn reap(&mut self, name: Name) {
        for place in &mut self.table {
            place.take_if(|process| process.name == name && matches!(process.being, Being::Zombie(_)));
        }
    }

    /// A signal through a pidfd: for that very process, or for nobody. Panics if it is not the node's.
    pub fn signal(&mut self, name: Name, life: Life, is_kill: bool) {
        let Some(process) = self.find_mut(name) else { return };
        assert!(matches!(process.who, Who::Node(of, _) if of == life), "a signal to a stranger: {process:?}");
        if let Being::Alive { asked, killed } = &mut process.being {
            (*asked, *killed) = (true, *killed || is_kill);
        }
    }

    /// Counts births anew, in the order in which they came, also in the names that others keep.
    pub fn count_anew(&mut self, kept: &mut [&mut Name]) {
        let named = self.table.iter_mut().flatten().map(|process| &mut process.name);
        let mut all: Vec<&mut Name> = named.chain(kept.iter_mut().map(|name| &mut **name)).collect();
        let order: Vec<u32> = all.iter().map(|name| name.born).collect::<BTreeSet<_>>().into_iter().collect();
        for name in &mut all {
            name.born = 1 + order.iter().position(|born| *born == name.born).unwrap_or_default() as u32;
        }
        self.births = order.len() as u32;
    }

    /// What it has, with lives counted back from that one.
    pub fn told_from(&self, base: Life) -> impl std::fmt::Debug {
        let back = |life: &Life| base.0.wrapping_sub(life.0);
        let told = self.table.iter().flatten().map(|process| {
            let who = match &process.who {
                Who::Node(life, version) => Some((back(life), *version)),
                Who::Stranger => None,
            };
            (process.name, who, process.being)
        });
        (told.collect::<Vec<_>>(), self.strays.iter().map(back).collect::<Vec<_>>())
    }
}

/// How far the life of a record came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Intended,
    Launched(Name),
    Crashed,
    Stopped,
    Rested,
    GivenUp,
}

/// The node's record on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub version: Version,
    pub life: Life,
    pub found: Found,
    /// How many restarts are counted: in a row, and of the last window.
    pub counted: (u32, usize),
    /// The life is ready.
    pub ready: bool,
}

impl Record {
    /// A line behind what is there, as [`Register`](crate::supervisor::register::Register) reads them.
    pub fn note(&mut self, life: Life, found: Found, counted: Option<(u32, usize)>) {
        let is_heeded = found != Found::Rested || self.found != Found::Stopped;
        let is_over = matches!(self.found, Found::Stopped | Found::Rested | Found::GivenUp);
        let is_late = found == Found::Crashed && is_over;
        if life == self.life && is_heeded && !is_late {
            self.found = found;
            self.counted = counted.unwrap_or(self.counted);
        }
    }
}
