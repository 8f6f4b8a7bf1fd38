//! What a launch takes, in the order that makes it safe to die between any two steps; and what an end takes.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use super::questions::has_askers;
use super::speech::tell_of;
use super::{Done, Down, Fact, Tools, WardId, Word, Workshop, unless_it_panics};
use crate::model::{Life, Node, NodeName};
use crate::supervisor::hands::Subject;
use crate::supervisor::history::Past;
use crate::supervisor::process::groups::{GroupError, refuse};
use crate::supervisor::process::looks::Waiting;
use crate::supervisor::process::notices::NotifySocket;
use crate::supervisor::process::tree::SweepError;
use crate::supervisor::process::{Process, Record, Remains, tree, user_of};
use crate::supervisor::state::LaunchFailure;
use crate::supervisor::{LaunchOrder, output, process};

/// Of how many lives of a node it is known which files they wrote to: more than die before the first is looked into.
const LIVES: usize = 16;

/// The first process of a life, which leads its session and process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leader {
    pub(super) life: Life,
    /// `None` where it is not known that there was one.
    pub(super) pid: Option<u32>,
    pub(super) origin: Origin,
}

/// Who launched a process, and with that where those may be whom it leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This run of the agent, which is given the children that it loses.
    Ours,
    /// An earlier run, into the node's control group, which only those leave who may write to groups.
    Grouped,
    /// An earlier run: the children that it lost may be anybody's.
    Adrift,
}

/// A process that came of a launch, and where it is heard.
pub(super) type Born = (Process, Option<Arc<NotifySocket>>);

/// The last lives of a node, and which file each of its streams was in each.
pub(super) type Lives = Vec<(Life, [u64; 2])>;

impl Workshop {
    /// Ends what the life before left behind, then launches; answered by [`Word::Launched`] or [`Word::LaunchFailed`].
    pub fn launch(&self, LaunchOrder { ward, node, life, past, remains }: LaunchOrder) {
        let (before, socket) = {
            let mut wards = self.benches.wards.borrow_mut();
            let Some(ward) = wards.get_mut(&ward) else { return };
            ward.fact = Fact::Launching(life);
            ward.is_ready = false;
            ward.note_past(past.clone());
            // It stays until a sweep succeeds or the next one is born: one that fails is to be done again.
            (ward.leader, ward.socket.clone())
        };
        let (tools, done) = (Arc::clone(&self.tools), self.done.clone());
        let before = before.map(|leader| (leader, tools.looks.wait()));
        let mut remains = remains;
        self.give(Subject::Node(node.name.clone()), move || {
            remains.iter_mut().for_each(Remains::end_group);
            let result = unless_it_panics(|| tools.launch(&node, life, past, before, socket))
                .unwrap_or_else(|reason| Err(LaunchFailure { reason, permanent: true }));
            let is_there = result.is_ok();
            let _ = done.send(Done::Launched(ward, life, result)); // nobody listens while the agent ends
            drop(remains);
            // What it says is told behind that it is there.
            if is_there
                && node.is_zeek()
                && let Err(error) = tools.hear_channel(ward, &node, life)
            {
                tracing::error!(node = %node.name, "{error}");
            }
        });
    }

    /// Ends what the lives up to this one left behind, and then notes that it is `down`, if it is; answered by
    /// [`Word::Swept`]. Where many are stopped, that is half the jobs.
    pub fn sweep(&self, ward: WardId, node: Arc<Node>, life: Life, remains: Option<Remains>, down: Option<Down>) {
        let leader = self.benches.wards.borrow().get(&ward).and_then(|ward| ward.leader);
        let Some(leader) = leader.filter(|leader| leader.life <= life) else {
            let swept = Word::Swept { life, trouble: None, noted: None };
            return self.benches.tell(ward, swept); // no process came of it
        };
        let (tools, done) = (Arc::clone(&self.tools), self.done.clone());
        let waiting = tools.looks.wait();
        self.give(Subject::Node(node.name.clone()), move || {
            drop(remains);
            let sweep = || tools.sweep(&node, leader, &waiting).map_err(|error| error.to_string());
            let trouble = unless_it_panics(sweep).and_then(|swept| swept).err();
            if tools.groups.is_ok() && trouble.is_none() {
                tools.idle_groups.add(node.name.clone());
            }
            if let Some(down) = down {
                tools.note_down(&node.name, life, down);
            }
            let swept = Word::Swept { life, trouble, noted: down };
            let _ = done.send(Done::Tell(ward, swept)); // nobody listens while the agent ends
        });
    }
}

impl Tools {
    /// Everything from the order to the process, in the order that makes it safe to die between any two steps.
    pub(super) fn launch(
        &self,
        node: &Node,
        life: Life,
        past: Past,
        before: Option<(Leader, Waiting)>,
        socket: Option<Arc<NotifySocket>>,
    ) -> Result<Born, LaunchFailure> {
        let permanent = |reason: String| LaunchFailure { reason, permanent: true };
        let passing = |reason: String| LaunchFailure { reason, permanent: false };
        let was_down = before.is_none();
        if let Some((leader, waiting)) = before {
            self.sweep(node, leader, &waiting)
                .map_err(|error| passing(format!("cannot end the life before: {error}")))?;
        }
        let directory = self.site.directory(node);
        let has_lived = self.volumes.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&node.name);
        make_home(&directory, node, has_lived)
            .and_then(|is_new| match is_new {
                true => Ok(output::FIRST_LIFE),
                false => output::begin_life(&directory, &self.keeper.lock(&node.name)),
            })
            .map(|volumes| self.note_volumes(&node.name, life, volumes))
            .map_err(|error| passing(format!("cannot prepare {}: {error}", directory.display())))?;
        // Before all that can fail, so that what comes of it is noted with its life.
        let record = self.register.intend(node, life, past).map_err(|error| passing(error.to_string()))?;
        let mut program = self.site.program(node, life).map_err(|error| permanent(error.to_string()))?;
        program.group = self
            .group(node, was_down)
            .map_err(|error| LaunchFailure { permanent: error.is_permanent(), reason: error.to_string() })?;
        let socket = self.socket(node, life, socket).map_err(passing)?;
        if let Some(socket) = &socket {
            tell_of(socket, node, &mut program);
        }
        if node.is_zeek() {
            self.archive.before_life(&node.name, &program.directory, node.directory.is_none()).map_err(|error| {
                passing(format!("cannot take up the logs that it has left in {}: {error}", program.directory.display()))
            })?;
            self.lay_channel(node, life, &mut program).map_err(passing)?;
        }
        let process = process::spawn(&program, Some(Record { file: record.as_fd(), life }))
            .map_err(|error| LaunchFailure { permanent: error.is_permanent(), reason: error.to_string() })?;
        self.keeper.mind(node);
        Ok((process, socket))
    }

    pub(super) fn note_volumes(&self, node: &NodeName, life: Life, volumes: [u64; 2]) {
        let mut known = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        let lives = known.entry(node.clone()).or_insert_with(|| Lives::with_capacity(1)); // most have one
        if lives.len() >= LIVES {
            lives.remove(0);
        }
        lives.push((life, volumes));
    }

    /// The group that the node is born into, with its limits; `None` where it needs none and can have none.
    pub(super) fn group(&self, node: &Node, was_down: bool) -> Result<Option<PathBuf>, GroupError> {
        let quotas = node.run_as.as_ref().map(|run_as| run_as.quotas).unwrap_or_default();
        match &*self.groups {
            Ok(groups) => {
                self.idle_groups.remove(groups, &node.name);
                let group = if was_down { groups.anew(&node.name, &quotas) } else { groups.of(&node.name, &quotas) };
                group.map(Some)
            }
            Err(why) => refuse(&quotas, why).map_or(Ok(None), Err),
        }
    }

    /// What cannot be written is in the log: the node is down all the same.
    pub(super) fn note_down(&self, node: &NodeName, life: Life, down: Down) {
        let noted = match down {
            Down::Stopped => self.register.stopped(node, life),
            Down::Rested => self.register.rested(node, life),
        };
        if let Err(error) = noted {
            tracing::warn!(%node, "{error}");
        }
    }

    /// By the group, where there is one; and then whoever left it, where that can be told without looking at everybody.
    pub(super) fn sweep(&self, node: &Node, leader: Leader, waiting: &Waiting) -> Result<usize, SweepError> {
        if leader.origin != Origin::Ours && has_askers(node) {
            self.sweep_askers(node, 0, false, waiting)?;
        }
        let killed = self.groups.as_ref().as_ref().map_or(Ok(0), |groups| {
            self.peaks.keep(groups, &node.name, leader.life);
            groups.end(&node.name)
        })?;
        // A leader leads its session, too; where no leader is known, only the marker tells.
        let (marker, session) = (self.site.marker(node, leader.life), leader.pid.unwrap_or(0));
        let strays = match leader.origin {
            Origin::Ours if self.strays_come_here => tree::sweep(&marker, session, waiting)?,
            Origin::Grouped if self.has_group(node) && stays_in_its_group(node) => 0,
            _ => tree::sweep_all(&marker, session, waiting)?,
        };
        Ok(killed + strays)
    }

    fn has_group(&self, node: &Node) -> bool {
        self.groups.as_ref().as_ref().is_ok_and(|groups| groups.is_there(&node.name))
    }
}

/// Whether whoever is born into the node's group cannot leave it: it runs as neither root nor the agent, whose groups are.
fn stays_in_its_group(node: &Node) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    node.user.as_deref().and_then(user_of).is_some_and(|(user, _)| user != 0 && user != ours)
}

/// Makes a node's directory; whether there was none. A node that works below it as another user passes through; nobody
/// else has to. Where it should be there already it is looked at first, since that holds up nobody else.
pub(super) fn make_home(directory: &Path, node: &Node, should_be_there: bool) -> io::Result<bool> {
    let passes = node.directory.is_none() || node.files.is_some();
    let mode = if node.user.is_some() && passes { 0o711 } else { 0o700 };
    let found = match should_be_there.then(|| std::fs::metadata(directory)) {
        Some(Ok(found)) => found,
        _ => {
            let mut maker = DirBuilder::new();
            match maker.mode(mode).create(directory) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(_) => return maker.recursive(true).create(directory).map(|()| true),
            }
            std::fs::metadata(directory)?
        }
    };
    if found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o777 != mode {
        std::fs::set_permissions(directory, Permissions::from_mode(mode))?;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{InstanceName, Role};

    #[test]
    fn who_runs_as_root_or_as_its_agent_or_as_nobody_knows_whom_may_have_left_its_group() {
        let mut node = Node::new(NodeName::new("a").unwrap(), InstanceName::new("i").unwrap(), Role::None);
        assert!(!stays_in_its_group(&node), "it runs as its agent");
        for user in ["root", "no-such-user"] {
            node.user = Some(user.into());
            assert!(!stays_in_its_group(&node), "{user}");
        }
        node.user = Some("nobody".into());
        let (nobody, _) = user_of("nobody").unwrap();
        assert_eq!(stays_in_its_group(&node), nobody != rustix::process::geteuid().as_raw());
    }
}
