//! What nodes say: on their sockets, and Zeek nodes by their channels.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::yield_now;

use super::questions::has_askers;
use super::{Benches, Done, Fact, Tools, Ward, WardId, Word, Workshop, unless_it_panics};
use crate::model::{Life, Node, ReadyBy, ZeekHealth};
use crate::supervisor::channel::Place;
use crate::supervisor::channel::Question as Asked;
use crate::supervisor::hands::Subject;
use crate::supervisor::process;
use crate::supervisor::process::Program;
use crate::supervisor::process::notices::NotifySocket;
use crate::supervisor::said::Said;

/// From one look at what a node says to the next.
const LISTENING_PAUSE: Duration = Duration::from_millis(20);

impl Workshop {
    /// Hears what a Zeek node says, and has said in a life that an earlier run of the agent launched.
    pub fn hear_channel(&self, ward: WardId, node: &Node, life: Life) {
        if node.is_zeek()
            && let Err(error) = self.tools.hear_channel(ward, node, life)
        {
            tracing::error!(node = %node.name, "{error}");
        }
    }

    /// Binds the socket of a life that runs already, and ends whoever asked it how it is when an earlier run ended.
    pub(super) fn hear_again(&self, ward: WardId, node: Arc<Node>, life: Life, leader: u32) {
        let (tools, done) = (Arc::clone(&self.tools), self.done.clone());
        let about = Subject::Node(node.name.clone());
        let waiting = tools.looks.wait();
        let work = move || {
            match speaks(&node).then(|| tools.bind_again(&node, leader)) {
                Some(Ok(socket)) => {
                    socket.resume(life);
                    let _ = done.send(Done::Bound(ward, life, socket)); // nobody listens while the agent ends
                }
                Some(Err(error)) => tracing::warn!(node = %node.name, "it is not heard: {error}"),
                None => {}
            }
            if has_askers(&node)
                && let Err(error) = tools.sweep_askers(&node, 0, false, &waiting)
            {
                tracing::warn!(node = %node.name, "{error}");
            }
        };
        let waits = self.hands.give_first(about, Box::new(work));
        self.look_after_backlog(waits);
    }

    /// Has [`Word::Speaks`] told again, should it have got lost.
    pub fn await_words(&self, ward: WardId) {
        self.benches.await_words(ward);
    }

    /// Reads what the node has said; answered by [`Word::Said`]. With `all` also if that is nothing; or by [`Word::Unheard`]
    /// if that may be so because it cannot be heard.
    pub fn listen(&self, ward: WardId, node: Arc<Node>, life: Life, all: bool) {
        if all && node.speaks_by_channel() {
            return self.tools.channels.listen(ward, life);
        }
        let found = match self.benches.wards.borrow().get(&ward).map(Box::as_ref) {
            Some(Ward { fact: Fact::Alive(of, leader), socket: Some(socket), .. }) if *of == life => {
                Some((*leader, Arc::clone(socket)))
            }
            _ => None,
        };
        let Some((leader, socket)) = found else {
            if all {
                self.benches.tell(ward, Word::Unheard { life });
            }
            return;
        };
        let (tools, done) = (Arc::clone(&self.tools), self.done.clone());
        let waits = self.hands.give_first(
            Subject::Health(node.name.clone()),
            Box::new(move || {
                let listened = unless_it_panics(|| {
                    let said = tools.listen(&node, life, leader, &socket);
                    let can_be_heard = said.lives || socket.is_in_place(node.user.as_deref());
                    (said, can_be_heard)
                });
                // Also after a panic somebody waits for what was heard.
                let (said, can_be_heard) = listened.unwrap_or_default();
                let is_unheard = all && !can_be_heard;
                let heard = Done::Heard { ward, life, said, all: all && can_be_heard };
                let unheard = is_unheard.then_some(Done::Tell(ward, Word::Unheard { life }));
                // Nobody listens while the agent ends.
                [heard].into_iter().chain(unheard).for_each(|told| drop(done.send(told)));
            }),
        );
        self.look_after_backlog(waits);
    }

    /// This life of a Zeek node is over: the last that it said is told.
    pub fn channel_is_over(&self, ward: WardId, life: Life) {
        self.tools.channels.over(ward, life);
    }

    /// Asks the present life of a Zeek node by its channel; the answer is told in any case, and in time.
    pub fn inquire(&self, ward: WardId, question: Asked) {
        match self.fact(ward) {
            Fact::Alive(life, _) => self.tools.channels.ask(ward, life, question),
            _ => (question.tell)(Err("it does not run".into())),
        }
    }
}

impl Benches {
    pub(super) async fn hear_notices(self: Rc<Self>) {
        // It fails only while the event loop itself ends.
        while let Ok(wards) = self.notices.next().await {
            for id in wards.into_iter().map(WardId) {
                let fact = self.wards.borrow().get(&id).map(|ward| ward.fact.clone());
                // Whoever is being born is listened to once it is known who that is.
                if let Some(Fact::Alive(life, _)) = fact {
                    self.tell(id, Word::Speaks { life });
                }
            }
            yield_now().await;
        }
    }

    /// Has somebody told as soon as the node says something.
    pub(super) fn await_words(&self, id: WardId) {
        let wards = self.wards.borrow();
        if let Some(Ward { fact: Fact::Alive(..), socket: Some(socket), .. }) = wards.get(&id).map(Box::as_ref)
            && let Err(error) = self.notices.await_one(id.0, socket)
        {
            tracing::warn!("cannot listen at {}: {error}", socket.path().display());
        }
    }

    /// The same after a pause, so that whoever talks without end is not listened to without end.
    pub(super) fn await_words_later(self: &Rc<Self>, id: WardId) {
        let benches = Rc::clone(self);
        actix::spawn(async move {
            tokio::time::sleep(LISTENING_PAUSE).await;
            benches.await_words(id);
        });
    }

    pub(super) fn bound(&self, id: WardId, life: Life, socket: NotifySocket) {
        if let Some(ward) = self.wards.borrow_mut().get_mut(&id)
            && matches!(ward.fact, Fact::Alive(of, _) if of == life)
        {
            ward.socket = Some(Arc::new(socket));
        }
        self.await_words(id);
    }
}

impl Tools {
    /// Makes the files by which a Zeek node speaks, and tells it where they are.
    pub(super) fn lay_channel(&self, node: &Node, life: Life, program: &mut Program) -> Result<(), String> {
        let place = Place::of(&self.site.directory(node));
        place.lay(life, node.user.as_deref()).map_err(|error| {
            format!("cannot make the files of its channel in {}: {error}", program.directory.display())
        })?;
        let heartbeat = node.zeek.as_ref().and_then(|zeek| zeek.knows.as_ref());
        let heartbeat = heartbeat.map_or(ZeekHealth::HEARTBEAT, |knows| knows.settings.health.heartbeat());
        for (name, value) in [
            ("WATCHPOST_NEWS", place.news(life).display().to_string()),
            ("WATCHPOST_QUESTIONS", place.questions(life).display().to_string()),
            ("WATCHPOST_HEARTBEAT", heartbeat.as_secs_f64().to_string()),
        ] {
            program.env.insert(name.into(), value);
        }
        Ok(())
    }

    pub(super) fn hear_channel(&self, ward: WardId, node: &Node, life: Life) -> Result<(), String> {
        let place = Place::of(&self.site.directory(node));
        let heard = self.channels.hear(ward, node.name.clone(), place, life);
        heard.map_err(|error| format!("nobody can hear what Zeek nodes say: {error}"))
    }

    /// The socket of this life, which is heard from now on; `None` where its definition does not have it speak.
    pub(super) fn socket(
        &self,
        node: &Node,
        life: Life,
        former: Option<Arc<NotifySocket>>,
    ) -> Result<Option<Arc<NotifySocket>>, String> {
        if !speaks(node) {
            return Ok(None);
        }
        let socket = match former.filter(|former| former.is_in_place(node.user.as_deref())) {
            Some(former) => former,
            None => Arc::new(self.bind(node)?),
        };
        socket.begin(life);
        Ok(Some(socket))
    }

    pub(super) fn bind(&self, node: &Node) -> Result<NotifySocket, String> {
        let run_dir = self.run_dir.as_ref().map_err(|why| format!("cannot give it a socket to talk to: {why}"))?;
        let path = run_dir.path(&node.name);
        let user = node.user.as_deref();
        let bound = NotifySocket::bind(&path, user).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                run_dir.restore().map_err(io::Error::other).and_then(|()| NotifySocket::bind(&path, user))
            }
            _ => Err(error),
        });
        bound.map_err(|error| format!("cannot give it the socket {} to talk to: {error}", path.display()))
    }

    /// The socket of a life that another run of the agent launched, if it talks to where that is now.
    pub(super) fn bind_again(&self, node: &Node, leader: u32) -> Result<NotifySocket, String> {
        let socket = self.bind(node)?;
        match process::variable(leader, "NOTIFY_SOCKET").filter(|told| Path::new(told) != socket.path()) {
            Some(told) => {
                Err(format!("it talks to {}, and would be heard at {}", told.display(), socket.path().display()))
            }
            None => Ok(socket),
        }
    }

    pub(super) fn listen(&self, node: &Node, life: Life, leader: u32, socket: &NotifySocket) -> Said {
        let marker = self.site.marker(node, life);
        let is_ours = |pid| {
            let in_group = || self.groups.as_ref().as_ref().is_ok_and(|groups| groups.has(&node.name, pid));
            pid == leader || in_group() || process::belongs(pid, &marker, leader)
        };
        let mut said = Said::default();
        let heard = socket.read(life, is_ours, |datagram| said.hear(datagram));
        if let Some(stranger) = heard.stranger {
            let who =
                stranger.map_or_else(|| "a process outside our pid namespace".into(), |pid| format!("process {pid}"));
            tracing::warn!(node = %node.name, "{who} is none of its processes, or was gone before it was heard: ignored");
        }
        if said.misunderstood {
            let why = "the process that was launched is the node, and it keeps its descriptors itself";
            tracing::debug!(node = %node.name, "ignored what it said beside its state: {why}");
        }
        said
    }
}

/// Whether it is to say how it is.
pub(super) fn speaks(node: &Node) -> bool {
    node.ready.by == ReadyBy::Notify || (node.watchdog().is_some() && !node.speaks_by_channel())
}

/// Tells the program where it is heard, and how often it is to be; unless its definition says otherwise.
pub(super) fn tell_of(socket: &NotifySocket, node: &Node, program: &mut Program) {
    let mut tell = |name: &str, value: String| {
        program.env.entry(name.into()).or_insert(value);
    };
    tell("NOTIFY_SOCKET", socket.path().display().to_string());
    if let Some(watchdog) = node.watchdog().filter(|_| !node.speaks_by_channel()) {
        tell("WATCHDOG_USEC", watchdog.as_micros().to_string());
    }
}
