//! What an agent that starts finds of an earlier one: which nodes there are, which of them run, and how the others ended.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::state::{Event, FoundNode};
use crate::launch::Site;
use crate::model::{Exit, InstanceName, Life, Node, NodeName, NodeState, ReadyBy, Role, Text};
use crate::side_by_side::side_by_side;
use crate::supervisor::history::Past;
use crate::supervisor::process::groups::{Groups, NoGroups};
use crate::supervisor::process::identity::Identity;
use crate::supervisor::process::marked::{self, Marked};
use crate::supervisor::process::oom::{self, KernelLog};
use crate::supervisor::process::{Process, clock};
use crate::supervisor::register::{Entries, Found, Loss, Record, Register, RegisterError};
use crate::supervisor::workshop::{LateDeath, Origin};

/// What became of a record of which nothing is believed.
const ASIDE: &str = "set aside as record.damaged";

/// What an earlier agent left of a node.
pub(super) struct Adoptable {
    pub life: Life,
    pub leader: Option<u32>,
    pub origin: Origin,
    pub process: Option<Process>,
    /// Its process, which ended meanwhile, or before.
    pub died: Option<LateDeath>,
    /// Whether its process, where it runs, is known to be ready.
    pub ready: bool,
    pub past: Past,
    /// How long it is still to wait for its next life, and why, if it waits.
    pub waits: Option<(Duration, Text)>,
    pub given_up: bool,
}

/// Takes up what the records tell of: what an agent is to know of each node, and what is to become of each. These processes
/// of nodes were told to have ended.
pub(super) fn take_up(
    records: Vec<Record>,
    deaths: &BTreeMap<NodeName, u32>,
    groups: &Result<Groups, NoGroups>,
    kernel_log: &mut KernelLog,
) -> io::Result<(BTreeMap<NodeName, Adoptable>, Vec<Event>)> {
    let (mut adoptable, mut nodes, mut told) = (BTreeMap::new(), Vec::new(), Vec::new());
    // The kernel takes most of a start for that.
    let running = side_by_side(&records, running);
    for (record, process) in records.into_iter().zip(running) {
        let process = process?;
        let count = || groups.as_ref().ok()?.oom_kills(&record.node.name);
        let died = death(&record, process.as_ref(), kernel_log, count).map(|(pid, exit)| {
            let told = deaths.get(&record.node.name) == Some(&pid);
            LateDeath { pid, exit, told }
        });
        let died = died.or_else(|| undecided(&record));
        if died.is_none_or(|death| !death.told) {
            told.extend(tell_of_death(&record, process.as_ref()));
        }
        let ready = record.ready || has_settled(&record, process.as_ref());
        // Its restart was under way and came to nothing: it is due, and nothing is forgiven.
        let is_due = record.here && record.found == Found::Intended && record.past.attempt > 0;
        let waits = record.waits.filter(|_| died.is_none()).or(is_due.then_some(Duration::ZERO));
        let Record { node, life, found, guessed, grouped, past, reason, leader, .. } = record;
        let (reason, node) = (reason.map(Text::from).unwrap_or_default(), Arc::new(node));
        let up = if ready { NodeState::Running } else { NodeState::Pending };
        let (state, pid) = match (&process, died, found) {
            (Some(process), _, _) => (up, Some(process.pid())),
            (None, Some(LateDeath { told: true, .. }), _) => (NodeState::Crashed, None),
            (None, Some(LateDeath { pid, .. }), _) => (up, Some(pid)),
            (None, None, Found::GivenUp) => (NodeState::Failed, None),
            (None, None, _) if waits.is_some() => (NodeState::Crashed, None),
            (None, None, _) => (NodeState::Stopped, None),
        };
        let origin = if grouped { Origin::Grouped } else { Origin::Adrift };
        let (given_up, wanted) = (found == Found::GivenUp, found != Found::Stopped);
        let waits = waits.map(|left| (left, reason.clone()));
        let taken = Adoptable { life, leader, origin, process, died, ready, past, waits, given_up };
        adoptable.insert(node.name.clone(), taken);
        nodes.push(FoundNode { node, state, pid, reason, wanted, guessed });
    }
    told.push(Event::Found(nodes));
    Ok((adoptable, told))
}

/// Finds the processes of which the register does not tell, though they may run: those of damaged and deleted records and of
/// those that another release wrote, and those that their agent did not live to see born. They are entered into it, and what is
/// to be told comes back. Who cannot be entered, as on a full disk, is minded all the same: the next agent finds it in the
/// same way.
pub(super) fn retrieve(
    entries: &mut Entries,
    instance: &InstanceName,
    site: &Site,
    register: &Register,
) -> io::Result<Vec<Event>> {
    let is_doubtful = |record: &Record| record.here && record.found == Found::Intended;
    if entries.lost.is_empty() && !entries.records.iter().any(is_doubtful) {
        return Ok(Vec::new());
    }
    let mut marked = marked::leaders(&site.cluster, &site.place)?;
    let trouble = |name: &NodeName, error: RegisterError| Event::Trouble(Some(name.clone()), error.to_string());
    let enter = |node: &Node, life, process, past: &Past, guessed| {
        let entered = register.enter(node, life, process, past.clone(), guessed);
        entered.err().map(|error| trouble(&node.name, error))
    };
    let mut told = Vec::new();
    for record in entries.records.iter_mut().filter(|record| is_doubtful(record)) {
        match marked.remove(&record.node.name) {
            Some(found) if found.life == record.life => {
                let (life, process) = (found.life, identified(&found));
                (record.found, record.leader) = (Found::Launched(process), Some(found.pid));
                told.extend(enter(&record.node, life, process, &record.past, record.guessed));
            }
            // It may be about to be born.
            _ => match register.revoke(&record.node.name) {
                Ok(found) => {
                    record.found = found;
                    if let Found::Launched(Identity { pid, .. }) = found {
                        record.leader = Some(pid);
                    }
                }
                // Nothing is launched either until it can be taken back.
                Err(error) => told.push(trouble(&record.node.name, error)),
            },
        }
    }
    for (name, loss) in std::mem::take(&mut entries.lost) {
        let found = marked.remove(&name);
        let record = register.directory(&name).join("record");
        let what = match &loss {
            Loss::Missing => format!("{} is missing", record.display()),
            Loss::Blank => format!("{} is empty", record.display()),
            Loss::Damaged(why) => format!("{} is damaged ({why}) and was {ASIDE}", record.display()),
            Loss::Foreign(why) => format!("{} is of another release ({why}) and was {ASIDE}", record.display()),
            Loss::Unread => format!("{} cannot be read or set aside", record.display()),
        };
        if let Some(found) = found {
            let (process, Marked { life, pid, .. }) = (identified(&found), found);
            let msg = format!("{what}; process {pid} was found by its marker and is minded on");
            told.push(warn(&name, msg));
            // Nobody knows what it is; but it is no Zeek for having no command.
            let command = marked::command_line(pid);
            let node = Node { command, ..Node::new(name, instance.clone(), Role::None) };
            let past = Past::default();
            told.extend(enter(&node, life, process, &past, true));
            entries.records.push(Record {
                node,
                life,
                here: true,
                found: Found::Launched(process),
                guessed: true,
                grouped: false,
                past,
                reason: None,
                waits: None,
                leader: Some(pid),
                // Nobody knows what it is to do for that.
                ready: true,
            });
        } else if matches!(loss, Loss::Damaged(_) | Loss::Foreign(_)) {
            told.push(warn(&name, format!("{what}; no process of the node was found")));
        }
    }
    Ok(told)
}

/// Who was found by its marker, with all by which the kernel tells it from others.
fn identified(found: &Marked) -> Identity {
    let who = Identity::new(found.pid, found.start_time);
    // Whoever takes it up looks again, and says why that fails.
    Process::adopt(who).ok().flatten().map_or(who, |process| process.identity())
}

/// Something that a person has to hear of, also who has this machine alone.
fn warn(node: &NodeName, msg: String) -> Event {
    tracing::warn!(%node, "{msg}");
    Event::Trouble(Some(node.clone()), msg)
}

/// The process of a record, if it still runs. An agent that cannot tell does not start: it might start a second one.
fn running(record: &Record) -> io::Result<Option<Process>> {
    match record.found {
        Found::Launched(who) if record.here => Process::adopt(who).map_err(|error| {
            let (pid, node) = (who.pid, &record.node.name);
            io::Error::new(error.kind(), format!("cannot look at process {pid} of node {node}: {error}"))
        }),
        _ => Ok(None),
    }
}

/// Whether it has been up for as long as its definition asks, where it asks for nothing else. Of one that is gone nobody
/// knows for how long it was.
fn has_settled(record: &Record, process: Option<&Process>) -> bool {
    match record.node.ready_by() {
        ReadyBy::Settle(time) => process.is_none_or(|process| clock::age(process.start_time()) >= time),
        _ => false,
    }
}

/// The process of a record that is not there any more, and how it ended, as far as that can be known. What the machine
/// took with it when it went down did not die of itself.
fn death(
    record: &Record,
    process: Option<&Process>,
    kernel_log: &mut KernelLog,
    oom_kills: impl FnOnce() -> Option<u64>,
) -> Option<(u32, Exit)> {
    match record.found {
        Found::Launched(who) if record.here && process.is_none() => {
            let exit = Process::end_of(who);
            Some((who.pid, oom::explain(exit, kernel_log, who.pid, who.start_time, oom_kills)))
        }
        _ => None,
    }
}

/// The end that was told of a process whose definition was not known: what comes of it is yet to be decided.
fn undecided(record: &Record) -> Option<LateDeath> {
    let pid = record.leader.filter(|_| record.guessed && record.found == Found::Crashed)?;
    Some(LateDeath { pid, exit: Exit::Unknown, told: true })
}

/// A node whose process ended while nobody minded it.
fn tell_of_death(record: &Record, process: Option<&Process>) -> Option<Event> {
    let Found::Launched(who) = record.found else { return None };
    if process.is_some() {
        return None;
    }
    let more = match record.here && Process::is_given_away(who) {
        true => "; another process has its number now, and is left alone",
        false => "",
    };
    let msg = format!("process {} ended while its agent was away{more}", who.pid);
    Some(Event::Trouble(Some(record.node.name.clone()), msg))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::process::identity;

    #[test]
    fn who_has_the_pid_and_the_start_time_of_a_record_of_elsewhere_is_neither_taken_up_nor_said_to_have_died() {
        let (pid, node) = (std::process::id(), NodeName::new("a").unwrap());
        let start_time = identity::start_time(pid).unwrap().unwrap();
        let record = |here| Record {
            node: Node::new(node.clone(), InstanceName::new("i").unwrap(), Role::None),
            life: Life(7),
            here,
            found: Found::Launched(Identity::new(pid, start_time)),
            guessed: false,
            grouped: false,
            past: Past::default(),
            reason: None,
            waits: None,
            leader: here.then_some(pid),
            ready: false,
        };
        assert_eq!(running(&record(true)).unwrap().map(|process| process.pid()), Some(pid));
        let elsewhere = record(false);
        assert!(running(&elsewhere).unwrap().is_none());
        assert_eq!(death(&elsewhere, None, &mut KernelLog::open(), || None), None, "it is nobody's to say how");
        let Some(Event::Trouble(Some(_), msg)) = tell_of_death(&elsewhere, None) else { panic!() };
        assert_eq!(msg, format!("process {pid} ended while its agent was away"), "of a stranger nothing is known");
    }
}
