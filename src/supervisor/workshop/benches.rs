//! What comes back from the kernel and from the hands, and what is known of each ward by that.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc as channel;
use tokio::task::yield_now;

use super::launching::{Born, Leader, Origin};
use super::questions::{ASKER, ASKER_PID};
use super::reading::Bystander;
use super::{Benches, Done, End, Fact, Tools, WardId, Word};
use crate::model::{Exit, Life, Timestamp};
use crate::supervisor::channel::News;
use crate::supervisor::hands::Hands;
use crate::supervisor::process::notices::NotifySocket;
use crate::supervisor::process::{Ended, Process};
use crate::supervisor::state::LaunchFailure;

/// While work waits for the hands, what they have done is heard so long after what was heard before. And so long after a
/// death was heard of, the news of it has mostly left.
const MOMENT: Duration = Duration::from_millis(1);
/// And so much of it in one turn.
const AT_ONCE: usize = 256;

impl Benches {
    pub(super) async fn hear_exits(self: Rc<Self>) {
        // It fails only while the event loop itself ends.
        while let Ok(dead) = self.exits.next().await {
            dead.into_iter().for_each(|ended| self.died(ended));
            yield_now().await; // what was told now goes out before anybody looks for more
        }
    }

    /// Reports deaths to the coroner when the news of them is on its way.
    pub(super) async fn report_deaths(self: Rc<Self>, tools: Arc<Tools>) {
        // Asleep: to look on until it has left takes the processor from whoever is to hear of it, or to launch.
        tokio::time::sleep(MOMENT).await;
        for death in self.deaths.take() {
            tools.coroner.examine(death, || Bystander(Arc::downgrade(&tools)));
        }
    }

    /// Hears what was done: at once, or all that is done within a moment where much is under way, so that a thousand nodes
    /// that come back do not wake this thread a thousand times.
    pub(super) async fn hear_hands(self: Rc<Self>, hands: Hands, mut dones: channel::UnboundedReceiver<Done>) {
        let mut all = Vec::new();
        while dones.recv_many(&mut all, AT_ONCE).await > 0 {
            all.drain(..).for_each(|done| self.is_done(done));
            if hands.backlog().is_some() {
                tokio::time::sleep(MOMENT).await;
            }
        }
    }

    fn is_done(self: &Rc<Self>, done: Done) {
        match done {
            Done::Tell(ward, word) => {
                if let Word::Swept { life, trouble: None, .. } = word {
                    self.is_swept(ward, life);
                }
                self.tell(ward, word);
            }
            Done::News(News::Heard { ward, life, heard, all }) => {
                self.tell(ward, Word::Heard { life, heard, all });
            }
            Done::News(News::Unheard { ward, life }) => self.tell(ward, Word::Unheard { life }),
            Done::Bound(id, life, socket) => self.bound(id, life, socket),
            Done::Heard { ward, life, said, all } => {
                self.await_words_later(ward);
                if all || !said.is_nothing() {
                    self.tell(ward, Word::Said { life, said, all });
                }
            }
            Done::Asking(ward, number, asked) => self.asking(ward, number, asked),
            Done::Launched(ward, life, Ok(born)) => self.launched(ward, life, born),
            Done::Launched(ward, life, Err(failure)) => {
                self.note(ward, Fact::Down(life));
                self.tell(ward, Word::LaunchFailed { life, failure });
            }
        }
    }

    pub(super) fn launched(&self, ward: WardId, life: Life, (process, socket): Born) {
        let pid = process.pid();
        if !self.wards.borrow().contains_key(&ward) {
            // Nobody minds it: a ward is let go only when nothing is being born in it, so this is for safety.
            tracing::error!("process {pid} was launched for a ward that was let go");
            return drop(process.kill());
        }
        match self.alive(ward, life, process, socket, Origin::Ours) {
            Ok(()) => {
                self.tell(ward, Word::Launched { life, pid });
                self.await_words(ward);
            }
            Err(error) => {
                // Only a lack of memory or descriptors; the process was ended, since nobody would hear of its exit.
                let failure =
                    LaunchFailure { reason: format!("cannot watch process {pid}: {error}"), permanent: false };
                self.note(ward, Fact::Down(life));
                self.tell(ward, Word::LaunchFailed { life, failure });
            }
        }
    }

    pub(super) fn alive(
        &self,
        id: WardId,
        life: Life,
        process: Process,
        socket: Option<Arc<NotifySocket>>,
        origin: Origin,
    ) -> io::Result<()> {
        let process = Arc::new(process);
        let pid = process.pid();
        if let Err(error) = self.exits.watch(id.0, Arc::clone(&process)) {
            if origin == Origin::Ours {
                process.kill()?;
            }
            return Err(error);
        }
        if let Some(ward) = self.wards.borrow_mut().get_mut(&id) {
            ward.fact = Fact::Alive(life, pid);
            ward.process = Some(process);
            ward.leader = Some(Leader { life, pid: Some(pid), origin });
            let is_same =
                |former: &Arc<NotifySocket>| socket.as_ref().is_some_and(|socket| Arc::ptr_eq(former, socket));
            if let Some(former) = std::mem::replace(&mut ward.socket, socket.clone()).filter(|former| !is_same(former))
            {
                self.notices.let_go(&former);
            }
        }
        Ok(())
    }

    pub(super) fn died(&self, Ended { key, exit, largest_resident, remains }: Ended) {
        if key & ASKER != 0 {
            return self.asker_ended(WardId(key & ((1 << ASKER_PID) - 1)), exit, remains);
        }
        let id = WardId(key);
        let (life, exit) = {
            let mut wards = self.wards.borrow_mut();
            let Some(ward) = wards.get_mut(&id) else { return };
            let Fact::Alive(life, pid) = ward.fact else { return };
            ward.fact = Fact::Down(life);
            let start_time = ward.process.take().map_or(0, |process| process.start_time());
            let exit = self.autopsy.borrow_mut().examine(exit, pid, start_time, &ward.name);
            let is_for_memory = exit == Exit::OutOfMemory;
            let kernel = is_for_memory.then(|| self.autopsy.borrow().said_of(pid, start_time)).flatten();
            let (time, heard) = (Timestamp::now(), Instant::now());
            let start_time = Some(start_time);
            ward.end = Some(Box::new(End { life, pid, start_time, exit, time, heard, largest_resident, kernel }));
            (life, exit)
        };
        self.tell(id, Word::Died { life, exit, remains, untold: self.untold.clone() });
    }

    /// Nothing is left of the lives up to this one: there is nobody to look for any more.
    pub(super) fn is_swept(&self, id: WardId, life: Life) {
        if let Some(ward) = self.wards.borrow_mut().get_mut(&id) {
            ward.leader.take_if(|leader| leader.life <= life);
        }
    }

    pub(super) fn note(&self, id: WardId, fact: Fact) {
        if let Some(ward) = self.wards.borrow_mut().get_mut(&id) {
            ward.fact = fact;
        }
    }

    /// Says what it means that nothing runs.
    pub(super) fn settle(&self, id: WardId, what: fn(Life) -> Fact) {
        if let Some(ward) = self.wards.borrow_mut().get_mut(&id)
            && let Fact::Down(life) | Fact::GivenUp(life) | Fact::Crashed(life, _) = ward.fact
        {
            ward.fact = what(life);
        }
    }

    pub(super) fn tell(&self, id: WardId, word: Word) {
        if let Some(minder) = self.wards.borrow().get(&id).and_then(|ward| ward.minder.as_ref()) {
            minder.do_send(word);
        }
    }

    pub(super) fn process(&self, id: WardId) -> Option<Arc<Process>> {
        self.wards.borrow().get(&id).and_then(|ward| ward.process.clone())
    }
}
