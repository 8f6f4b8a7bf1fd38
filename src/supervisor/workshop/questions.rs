//! Programs that ask nodes how they are: one question at a time to each, and nothing is left of whoever asks.

use std::sync::Arc;

use super::{Benches, Done, Tools, WardId, Word, Workshop, unless_it_panics};
use crate::model::{Exit, Life, Node, ProbeBy};
use crate::supervisor::hands::Subject;
use crate::supervisor::process;
use crate::supervisor::process::looks::Waiting;
use crate::supervisor::process::tree::SweepError;
use crate::supervisor::process::{Process, Remains, tree};

/// Set in the keys of programs that ask nodes how they are, beside their pid and the number of the ward.
pub(super) const ASKER: u64 = 1 << 63;

/// Where the pid of one that asks begins in its key, behind the number of the ward.
pub(super) const ASKER_PID: u32 = 40;

/// A program that asks a node how it is.
pub(super) struct Question {
    /// Nobody else's: rounds begin anew with each supervisor.
    pub(super) number: u64,
    pub(super) life: Life,
    pub(super) round: u64,
    /// Once it is there.
    pub(super) asker: Option<Arc<Process>>,
    /// Nobody waits for it.
    pub(super) given_up: bool,
}

impl Workshop {
    /// Has a program ask the node how it is; answered by [`Word::Asked`], or by [`Word::Probed`] if nothing came of it.
    pub fn ask(&self, ward: WardId, node: Arc<Node>, life: Life, round: u64, command: Vec<String>) {
        let (number, has_former) = self.benches.open_question(ward, life, round);
        let (tools, done) = (Arc::clone(&self.tools), self.done.clone());
        self.give(Subject::Health(node.name.clone()), move || {
            let ask = || {
                if has_former {
                    // Now, since later what it started could not be told from what this one starts.
                    tools.sweep_askers(&node, 0, true, &tools.looks.wait()).map_err(|error| error.to_string())?;
                }
                tools.ask(&node, life, &command)
            };
            let asked = unless_it_panics(ask).and_then(|asked| asked);
            let _ = done.send(Done::Asking(ward, number, asked)); // as above
        });
    }

    /// Ends the program that asks this question: nobody waits for it.
    pub fn give_up_question(&self, ward: WardId, round: u64) {
        if let Some(question) = self.benches.wards.borrow_mut().get_mut(&ward).and_then(|ward| ward.question.as_mut())
            && question.round == round
        {
            question.given_up = true;
            question.end();
        }
    }

    /// Clears away what is left of a program that has asked; answered by [`Word::Probed`].
    pub fn clear_question(
        &self,
        ward: WardId,
        node: Arc<Node>,
        (life, round): (Life, u64),
        exit: Exit,
        remains: Remains,
    ) {
        let (tools, done) = (Arc::clone(&self.tools), self.done.clone());
        let waiting = tools.looks.wait();
        self.give(Subject::Health(node.name.clone()), move || {
            let leader = remains.pid();
            drop(remains);
            let sweep = || tools.sweep_askers(&node, leader, true, &waiting).map_err(|error| error.to_string());
            if let Err(error) = unless_it_panics(sweep).and_then(|swept| swept) {
                tracing::warn!(node = %node.name, "{error}");
            }
            let answer = match exit {
                Exit::Status(0) => Ok(()),
                exit => Err(exit.to_string()),
            };
            let _ = done.send(Done::Tell(ward, Word::Probed { life, round, answer })); // as above
        });
    }
}

impl Benches {
    /// Opens a question; returns its number, and whether there is one that a supervisor which panicked left open.
    pub(super) fn open_question(&self, id: WardId, life: Life, round: u64) -> (u64, bool) {
        let number = self.questions.get() + 1;
        self.questions.set(number);
        let mut wards = self.wards.borrow_mut();
        let former = wards.get_mut(&id).and_then(|ward| {
            ward.question.replace(Box::new(Question { number, life, round, asker: None, given_up: false }))
        });
        former.iter().for_each(|question| question.end()); // nobody waits for it
        (number, former.is_some())
    }

    pub(super) fn asking(&self, id: WardId, number: u64, asked: Result<Process, String>) {
        // Watched in any case: one whose question is gone, with its ward or for another, is to be buried, too.
        let asked = asked.and_then(|process| {
            let process = Arc::new(process);
            match self.exits.watch(asker_key(id, &process), Arc::clone(&process)) {
                Ok(()) => Ok(process),
                Err(error) => {
                    let _ = process.kill(); // nobody would hear of its end
                    Err(format!("cannot watch the program that asks: {error}"))
                }
            }
        });
        let is_it = |question: &Question| question.number == number;
        let mut wards = self.wards.borrow_mut();
        let ward = wards.get_mut(&id);
        match asked {
            Ok(process) => match ward.and_then(|ward| ward.question.as_mut()).filter(|question| is_it(question)) {
                Some(question) => {
                    question.asker = Some(process);
                    if question.given_up {
                        question.end();
                    }
                }
                None => drop(process.kill()),
            },
            Err(why) => {
                let question = ward.and_then(|ward| ward.question.take_if(|question| is_it(question)));
                drop(wards);
                if let Some(Question { life, round, .. }) = question.map(|question| *question) {
                    self.tell(id, Word::Probed { life, round, answer: Err(why) });
                }
            }
        }
    }

    pub(super) fn asker_ended(&self, id: WardId, exit: Exit, remains: Remains) {
        let is_its =
            |question: &mut Box<Question>| question.asker.as_ref().is_some_and(|asker| asker.pid() == remains.pid());
        let question = self.wards.borrow_mut().get_mut(&id).and_then(|ward| ward.question.take_if(is_its));
        // The end of one that asked another question answers none: it is only buried.
        if let Some(Question { life, round, .. }) = question.map(|question| *question) {
            self.tell(id, Word::Asked { life, round, exit, remains });
        }
    }
}

impl Question {
    pub(super) fn end(&self) {
        if let Some(asker) = &self.asker
            && let Err(error) = asker.kill()
        {
            tracing::warn!("cannot end process {}, which asks a node how it is: {error}", asker.pid());
        }
    }
}

impl Tools {
    /// Starts the program that asks the node how it is.
    pub(super) fn ask(&self, node: &Node, life: Life, command: &[String]) -> Result<Process, String> {
        let mut program = self.site.asker(node, life, command).map_err(|error| error.to_string())?;
        let group = self.groups.as_ref().as_ref().ok().map(|groups| groups.of_askers(&node.name)).transpose();
        program.group = group.map_err(|error| format!("cannot make a control group: {error}"))?;
        process::spawn(&program, None).map_err(|error| error.to_string())
    }

    /// Ends all that a program which asked the node left behind; `leader` is 0 where it is not known.
    pub(super) fn sweep_askers(
        &self,
        node: &Node,
        leader: u32,
        ours: bool,
        waiting: &Waiting,
    ) -> Result<(), SweepError> {
        let marker = self.site.askers_marker(node);
        match &*self.groups {
            // Who left the group cannot be told from others by anything else.
            Ok(groups) => groups.end_askers(&node.name).map(drop),
            Err(_) if ours && self.strays_come_here => tree::sweep(&marker, leader, waiting).map(drop),
            Err(_) => tree::sweep_all(&marker, leader, waiting).map(drop),
        }
    }
}

/// Under which one that asks is watched: until it is buried nobody else has its pid, so the next one has another.
pub(super) fn asker_key(id: WardId, asker: &Process) -> u64 {
    ASKER | u64::from(asker.pid()) << ASKER_PID | id.0
}

/// Whether programs ask it how it is, as it is defined now: one that was asked before may have lost its probe since.
pub(super) fn has_askers(node: &Node) -> bool {
    let probe = node.liveness.as_ref().and_then(|liveness| liveness.probe.as_ref());
    probe.is_some_and(|probe| matches!(probe.by, ProbeBy::Exec(_)))
}
