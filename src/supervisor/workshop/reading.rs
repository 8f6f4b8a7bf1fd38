//! What nodes wrote, and what is filed of those that died.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Instant;

use super::{Done, End, Tools, WardId, Word, Workshop};
use crate::message::agent::{GetCrashesRequest, ReadOutputRequest};
use crate::model::output::LONGEST_READ;
use crate::model::{
    CrashSummary, Exit, Life, Node, NodeName, NodeState, Output, OutputPiece, OutputStream, Text, Timestamp,
};
use crate::supervisor::crash::dossier::Given;
use crate::supervisor::crash::{Death, Witness};
use crate::supervisor::hands::Subject;
use crate::supervisor::output;
use crate::supervisor::output::read::Scope;
use crate::supervisor::output::{Lock, Read};
use crate::supervisor::process::Remains;

/// How many lines of a stream travel with a failure.
const LAST_LINES: usize = 100;

/// How many deaths one list names.
const MOST_CRASHES: usize = 1000;

/// What is filed of deaths.
#[derive(Debug, Default)]
pub struct Filed {
    /// Newest first.
    pub crashes: Vec<CrashSummary>,
    pub dossier: Option<String>,
}

/// Tells the coroner what the workshop knows, for as long as there is one.
pub(super) struct Bystander(pub(super) Weak<Tools>);

impl Workshop {
    /// Reads what the node wrote last; answered by [`Word::LastWords`]. What is left of it is buried before, so that
    /// nobody writes any more.
    pub fn last_words(&self, ward: WardId, node: NodeName, life: Life, remains: Remains) {
        let (tools, done) = (Arc::clone(&self.tools), self.done.clone());
        let about = Subject::Node(node.clone()); // the next launch, whatever asks for it, waits until they are read
        let waits = self.hands.give_first(
            about,
            Box::new(move || {
                drop(remains);
                let output = last_words(&tools.register.directory(&node), &tools.keeper.lock(&node));
                let _ = done.send(Done::Tell(ward, Word::LastWords { life, output })); // as above
            }),
        );
        self.look_after_backlog(waits);
    }

    /// Reads the last lines that a node wrote.
    pub fn last_lines(&self, node: NodeName, lines: usize, tell: impl FnOnce(io::Result<Output>) + Send + 'static) {
        let keeper = self.tools.keeper.clone();
        self.run(Subject::Output(node.clone()), move |register| {
            let (directory, lock) = (register.directory(&node), keeper.lock(&node));
            tell(output::last_lines(&directory, lines, |_| Scope::All, &lock));
        });
    }

    /// Reads a piece of what a node wrote; where there is nothing yet, once there is, or its time is up.
    pub fn read_piece(&self, request: ReadOutputRequest, tell: impl FnOnce(io::Result<OutputPiece>) + Send + 'static) {
        let (hands, tools) = (self.hands.clone(), Arc::clone(&self.tools));
        let about = Subject::Output(request.node.clone());
        self.give(about.clone(), move || {
            let ReadOutputRequest { node, stream, wait, .. } = request.clone();
            let read = tools.readings.read(&tools.keeper, &tools.register.directory(&node), &request, !wait.is_zero());
            let place = match read {
                Ok(Read::Waits { behind, .. }) => behind,
                Ok(Read::Piece(piece)) => return tell(Ok(piece)),
                Err(error) => return tell(Err(error)),
            };
            let keeper = tools.keeper.clone();
            keeper.when_there_is_more(node.clone(), stream, place, wait.min(LONGEST_READ), move || {
                let last = move || {
                    let directory = tools.register.directory(&node);
                    let read = tools.readings.read(&tools.keeper, &directory, &request, false);
                    tell(read.map(Read::into_piece));
                };
                hands.give(about, Box::new(last));
            });
        });
    }

    /// What the dossier of the ward's last end will be called, if one is to be made.
    pub fn dossier(&self, ward: WardId) -> Option<String> {
        let wards = self.benches.wards.borrow();
        let ward = wards.get(&ward)?;
        ward.end.as_ref().and_then(|end| self.tools.coroner.name(&ward.name, end.life))
    }

    /// Has a dossier made of the ward's last end, which nobody asked for, once everybody was told of it: to wake the
    /// thread that makes it would hold that up. `memory` is the most that it said it had, for where nobody else knows.
    pub fn examine(&self, ward: WardId, node: &Arc<Node>, state: NodeState, reason: Text, memory: Option<u64>) {
        let end = self.benches.wards.borrow_mut().get_mut(&ward).and_then(|ward| ward.end.take());
        let Some(end) = end else { return };
        let End { life, pid, start_time, exit, time, heard, largest_resident, kernel } = *end;
        let (node, largest_resident) = (Arc::clone(node), largest_resident.or(memory));
        let death = Death { node, life, pid, start_time, exit, time, heard, largest_resident, kernel, state, reason };
        self.look_into(death);
    }

    /// The same of a death that an earlier run of the agent told of and may not have lived to look into.
    pub fn examine_late(&self, node: &Arc<Node>, life: Life, pid: u32, reason: Text) {
        let (time, heard, state) = (Timestamp::now(), Instant::now(), NodeState::Crashed);
        let (exit, start_time, largest_resident, kernel) = (Exit::Unknown, None, None, None);
        let node = Arc::clone(node);
        let death = Death { node, life, pid, start_time, exit, time, heard, largest_resident, kernel, state, reason };
        self.look_into(death);
    }

    fn look_into(&self, death: Death) {
        let mut deaths = self.benches.deaths.borrow_mut();
        deaths.push(death);
        if deaths.len() == 1 {
            actix::spawn(Rc::clone(&self.benches).report_deaths(Arc::clone(&self.tools)));
        }
    }

    /// Reads what is filed of nodes that died: one dossier, or a list of them, of one node or all.
    pub fn read_crashes(&self, request: GetCrashesRequest, tell: impl FnOnce(io::Result<Filed>) + Send + 'static) {
        let morgue = self.tools.coroner.morgue().clone();
        self.run(Subject::Crashes, move |_| {
            let read = match request.id {
                Some(id) => morgue.text(&id).map(|dossier| Filed { crashes: Vec::new(), dossier }),
                None => {
                    let crashes = morgue.list(request.node.as_ref(), MOST_CRASHES);
                    crashes.map(|crashes| Filed { crashes, dossier: None })
                }
            };
            tell(read);
        });
    }
}

impl Witness for Bystander {
    fn given(&self, node: &Node, life: Life) -> Given {
        let program = self.0.upgrade().and_then(|tools| tools.site.program(node, life).ok());
        program.map_or_else(Given::default, |program| Given {
            command: program.argv,
            directory: program.directory,
            environment: program.env.into_keys().collect(),
        })
    }

    fn last_output(&self, node: &Node, life: Life) -> Output {
        let Some(tools) = self.0.upgrade() else { return Output::default() };
        let (directory, lock) = (tools.site.directory(node), tools.keeper.lock(&node.name));
        let known = tools.volumes.lock().unwrap_or_else(PoisonError::into_inner).get(&node.name).cloned();
        let scope = |stream: OutputStream| match known.as_ref().and_then(|lives| volume_of(lives, life, stream)) {
            Some(volume) => Scope::Volume(volume),
            None => output::present_life(&directory, &lock)(stream),
        };
        let read = output::last_lines(&directory, LAST_LINES, scope, &lock);
        read.inspect_err(|error| tracing::warn!("cannot read the output in {}: {error}", directory.display()))
            .unwrap_or_default()
    }

    fn memory_peak(&self, node: &Node, life: Life) -> Option<u64> {
        let tools = self.0.upgrade()?;
        tools.peaks.of(tools.groups.as_ref().as_ref().ok()?, &node.name, life)
    }
}

/// Which file of that stream was a life's. One that was found running had the file before that of the next life.
pub(super) fn volume_of(lives: &[(Life, [u64; 2])], life: Life, stream: OutputStream) -> Option<u64> {
    let own = lives.iter().find(|(of, _)| *of == life).map(|(_, volumes)| volumes[stream as usize]);
    own.or_else(|| lives.iter().find(|(of, _)| *of > life).map(|(_, volumes)| (volumes[stream as usize] - 1).max(1)))
}

/// What the node wrote last, if it wrote anything.
pub(super) fn last_words(directory: &Path, lock: &Lock) -> Option<Output> {
    let output = output::last_lines(directory, LAST_LINES, output::present_life(directory, lock), lock)
        .inspect_err(|error| tracing::warn!("cannot read the output in {}: {error}", directory.display()))
        .ok()?;
    (output != Output::default()).then_some(output)
}
