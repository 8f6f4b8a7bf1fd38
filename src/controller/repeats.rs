//! Requests of clients that come again: each is carried out once, and answered each time alike.
//!
//! A client that lost its connection before the answer came asks again under the same `reqid`. While the first is under
//! way, the second waits for the same answer; after that it gets the answer that the first one got, for a while. Two
//! requests are the same if their kind, their id and their contents are: the ids are clients' own, and some have few.
//!
//! What a deployment deploys is staged apart from it. One that has an id that was answered for another configuration is
//! refused: whoever asks may mean either.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

use super::kept::Kept;
use super::state::Ticket;
use crate::message::client::*;
use crate::message::frame;
use crate::model::{InstanceName, NodeName, Outcome, Output, RequestId};

/// How long answers are kept: whoever lost a connection asks again soon.
pub const AGE: Duration = Duration::from_secs(120);
/// How many are kept, and how many bytes they may take together.
const MOST: usize = 64;
const BYTES: usize = 4 << 20;
/// See the module.
#[derive(Debug, Default)]
pub struct Repeats {
    running: BTreeMap<Ticket, Asked>,
    /// Oldest first.
    done: VecDeque<Done>,
    bytes: usize,
    /// Some of them still hold their configuration.
    unhashed: bool,
}

#[derive(Debug)]
struct Done {
    at: Instant,
    asked: Asked,
    /// But for its outcomes, of which there may be one for each node.
    answer: ClientResponse,
    /// Those, encoded: that takes a quarter of the room, and hardly anybody asks for them.
    outcomes: Box<[u8]>,
}

/// What makes two requests one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    kind: Kind,
    reqid: RequestId,
    contents: Contents,
}

/// What a request is about. A configuration is hashed only when it has been answered, or when it has to be compared: that
/// takes a while, and most requests come once.
#[derive(Debug, Clone)]
enum Contents {
    Hash(u64),
    /// What is to be deployed, and upon what.
    Configuration(Option<Box<Kept>>, Option<Deployed>),
}

impl Contents {
    fn of(value: impl Hash) -> Self {
        Self::Hash(hash(value))
    }

    fn hash(&self) -> u64 {
        match self {
            Self::Hash(hash) => *hash,
            Self::Configuration(kept, upon) => hash((kept, upon)),
        }
    }
}

impl PartialEq for Contents {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Configuration(one, upon), Self::Configuration(other, upon_other)) => {
                (one, upon) == (other, upon_other)
            }
            _ => self.hash() == other.hash(),
        }
    }
}

impl Eq for Contents {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Deploy,
    SetConfiguration,
    Start,
    Stop,
    Restart,
}

/// What a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repeated {
    /// It was not asked before.
    No,
    /// It is under way, for whoever holds this ticket.
    Runs(Ticket),
    /// It was answered so.
    Done(ClientResponse),
    /// It is called like one that was answered, and is another: this refuses it.
    Refused(ClientResponse),
}

impl Repeats {
    /// Whether it was asked before, where a deployment would deploy `ready`. If not, it runs from now on under this ticket.
    pub fn ask(&mut self, request: &ClientRequest, ready: Option<&Kept>, ticket: Ticket, now: Instant) -> Repeated {
        let Some(asked) = Asked::of(request, ready) else { return Repeated::No };
        self.forget(now);
        if let Some((first, _)) = self.running.iter().find(|(_, running)| running.is_same(&asked)) {
            return Repeated::Runs(*first);
        }
        if let Some(done) = self.done.iter().rev().find(|done| done.asked == asked) {
            return Repeated::Done(done.answer());
        }
        if asked.kind == Kind::Deploy && self.done.iter().any(|done| done.asked.is_same(&asked)) {
            let error = format!(
                "request `{}` was answered already, and another configuration is staged by now: ask under another id",
                asked.reqid
            );
            let (reqid, outcomes) = (asked.reqid, vec![Outcome::failed(error)]);
            return Repeated::Refused(DeployResponse { reqid, configuration: None, outcomes, deployment: None }.into());
        }
        self.running.insert(ticket, asked);
        Repeated::No
    }

    /// Whoever holds this ticket is answered so; the answer is left as it is.
    pub fn answered(&mut self, ticket: Ticket, answer: &mut ClientResponse, now: Instant) {
        let Some(asked) = self.running.remove(&ticket) else { return };
        let all = outcomes(answer).map(std::mem::take);
        let (without, mut encoded) = (answer.clone(), Vec::new());
        if let (Some(all), Some(place)) = (all, outcomes(answer)) {
            // Writing to memory does not fail, and serde has a form for everything in an outcome.
            frame::encode_body(&mut encoded, &Bare(&all)).expect("outcomes can be encoded");
            *place = all;
        }
        self.bytes += encoded.len();
        self.unhashed = true;
        self.done.push_back(Done { at: now, asked, answer: without, outcomes: encoded.into() });
        // The last one is kept whatever its size: it is the likeliest to be asked for.
        while self.done.len() > MOST || (self.bytes > BYTES && self.done.len() > 1) {
            self.forget_oldest();
        }
    }

    /// Lets go of the configurations of requests that have been answered, for when nobody waits.
    pub fn let_go(&mut self) {
        if std::mem::take(&mut self.unhashed) {
            self.done.iter_mut().for_each(|done| done.asked.contents = Contents::Hash(done.asked.contents.hash()));
        }
    }

    /// The configuration that the request under this ticket is to put in force, if that is what it asks for.
    pub fn configuration(&self, ticket: Ticket) -> Option<&Kept> {
        match self.running.get(&ticket)? {
            Asked { kind: Kind::SetConfiguration, contents: Contents::Configuration(kept, _), .. } => kept.as_deref(),
            _ => None,
        }
    }

    /// Forgets what was answered long ago.
    pub fn forget(&mut self, now: Instant) {
        while self.done.front().is_some_and(|done| now.saturating_duration_since(done.at) >= AGE) {
            self.forget_oldest();
        }
    }

    /// Whether there is anything to forget.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    fn forget_oldest(&mut self) {
        self.bytes -= self.done.pop_front().map_or(0, |oldest| oldest.outcomes.len());
    }
}

/// Outcomes as they are kept: they count; whoever wants the last lines of a node can ask for them.
struct Bare<'a>(&'a [Outcome]);

impl Serialize for Bare<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// In the order of [`Outcome`].
        #[derive(Serialize)]
        struct One<'a> {
            instance: &'a Option<InstanceName>,
            node: &'a Option<NodeName>,
            error: &'a Option<String>,
            output: Option<Output>,
        }
        serializer.collect_seq(self.0.iter().map(|Outcome { instance, node, error, output: _ }| One {
            instance,
            node,
            error,
            output: None,
        }))
    }
}

impl Done {
    fn answer(&self) -> ClientResponse {
        let mut answer = self.answer.clone();
        if let Some(outcomes) = outcomes(&mut answer) {
            *outcomes = frame::take_front(&mut &*self.outcomes, "outcomes").expect("outcomes that were encoded here");
        }
        answer
    }
}

fn outcomes(answer: &mut ClientResponse) -> Option<&mut Vec<Outcome>> {
    match answer {
        ClientResponse::DeployResponse(DeployResponse { outcomes, .. })
        | ClientResponse::SetConfigurationResponse(SetConfigurationResponse { outcomes, .. })
        | ClientResponse::StartResponse(StartResponse { outcomes, .. })
        | ClientResponse::StopResponse(StopResponse { outcomes, .. })
        | ClientResponse::RestartResponse(RestartResponse { outcomes, .. }) => Some(outcomes),
        _ => None,
    }
}

impl Asked {
    /// `None` for a request that changes nothing.
    fn of(request: &ClientRequest, ready: Option<&Kept>) -> Option<Self> {
        use ClientRequest as R;
        let (kind, reqid, contents) = match request {
            R::DeployRequest(DeployRequest { reqid, .. }) => {
                (Kind::Deploy, reqid, Contents::Configuration(ready.cloned().map(Box::new), None))
            }
            R::SetConfigurationRequest(SetConfigurationRequest { reqid, configuration, upon, .. }) => {
                let kept = Some(Box::new(Kept::new(configuration)));
                (Kind::SetConfiguration, reqid, Contents::Configuration(kept, upon.clone()))
            }
            R::StartRequest(StartRequest { reqid, nodes }) => (Kind::Start, reqid, Contents::of(nodes)),
            R::StopRequest(StopRequest { reqid, nodes }) => (Kind::Stop, reqid, Contents::of(nodes)),
            R::RestartRequest(RestartRequest { reqid, nodes }) => (Kind::Restart, reqid, Contents::of(nodes)),
            _ => return None,
        };
        Some(Self { kind, reqid: reqid.clone(), contents })
    }

    /// Whether whoever waits for one waits for the other. Of deployments there is one at a time, whatever is staged meanwhile.
    fn is_same(&self, other: &Self) -> bool {
        (self.kind, &self.reqid) == (other.kind, &other.reqid)
            && (self.contents == other.contents || self.kind == Kind::Deploy)
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::{Configuration, ConfigurationId};

    fn id(text: &str) -> RequestId {
        RequestId::new(text).unwrap()
    }

    fn restart(reqid: &str, nodes: &[&str]) -> ClientRequest {
        let nodes: BTreeSet<_> = nodes.iter().map(|name| NodeName::new(name).unwrap()).collect();
        RestartRequest { reqid: id(reqid), nodes }.into()
    }

    fn restarted(reqid: &str) -> ClientResponse {
        RestartResponse { reqid: id(reqid), outcomes: vec![Outcome::failed(reqid)] }.into()
    }

    #[test]
    fn what_is_asked_again_waits_for_the_first_and_then_gets_its_answer() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        assert_eq!(repeats.ask(&restart("r", &["a"]), None, Ticket(1), now), Repeated::No);
        assert_eq!(repeats.ask(&restart("r", &["a"]), None, Ticket(2), now), Repeated::Runs(Ticket(1)));
        repeats.answered(Ticket(1), &mut restarted("r"), now);
        assert_eq!(repeats.ask(&restart("r", &["a"]), None, Ticket(3), now), Repeated::Done(restarted("r")));
        let later = now + AGE;
        assert_eq!(
            repeats.ask(&restart("r", &["a"]), None, Ticket(4), later),
            Repeated::No,
            "nobody asks again as late"
        );
    }

    #[test]
    fn the_same_id_with_other_contents_is_another_request() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        let deploy = |name: &str| {
            let configuration = Configuration::empty(ConfigurationId::new(name).unwrap());
            ClientRequest::from(SetConfigurationRequest {
                reqid: id("r"),
                configuration,
                upon: None,
                terms: Terms::default(),
            })
        };
        let stop = StopRequest { reqid: id("r"), nodes: BTreeSet::new() }.into();
        let all = [restart("r", &[]), restart("r", &["a"]), stop, deploy("1"), deploy("2")];
        for (request, number) in all.iter().zip(0..) {
            assert_eq!(repeats.ask(request, None, Ticket(number), now), Repeated::No, "{request:?}");
        }
        assert_eq!(repeats.ask(&deploy("2"), None, Ticket(9), now), Repeated::Runs(Ticket(4)));
        assert_eq!(repeats.configuration(Ticket(4)).unwrap().id.as_str(), "2");
        for has_let_go in [false, true] {
            let ticket = Ticket(5 + u64::from(has_let_go));
            repeats.ask(&deploy("3"), None, ticket, now);
            repeats.answered(ticket, &mut restarted("r"), now);
            if has_let_go {
                repeats.let_go();
            }
            assert_eq!(repeats.ask(&deploy("3"), None, Ticket(9), now), Repeated::Done(restarted("r")), "{has_let_go}");
            repeats.done.clear();
        }
        let question = ClientRequest::from(GetNodesRequest { reqid: id("r") });
        assert_eq!(repeats.ask(&question, None, Ticket(10), now), Repeated::No);
        assert_eq!(
            repeats.ask(&question, None, Ticket(11), now),
            Repeated::No,
            "a question is asked as often as one likes"
        );
    }

    #[test]
    fn the_id_of_a_deployment_that_was_answered_is_not_taken_for_another_configuration() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        let kept = |name: &str| Kept::new(&Configuration::empty(ConfigurationId::new(name).unwrap()));
        let (first, second) = (kept("c1"), kept("c2"));
        let deploy = |reqid: &str| ClientRequest::from(DeployRequest { reqid: id(reqid), terms: Terms::default() });
        assert_eq!(repeats.ask(&deploy("r"), Some(&first), Ticket(1), now), Repeated::No);
        let again = repeats.ask(&deploy("r"), Some(&second), Ticket(2), now);
        assert_eq!(again, Repeated::Runs(Ticket(1)), "somebody has staged another meanwhile");
        let mut answer = ClientResponse::from(DeployResponse {
            reqid: id("r"),
            configuration: None,
            outcomes: vec![],
            deployment: None,
        });
        repeats.answered(Ticket(1), &mut answer, now);
        assert_eq!(repeats.ask(&deploy("r"), Some(&first), Ticket(3), now), Repeated::Done(answer));
        let refused = repeats.ask(&deploy("r"), Some(&second), Ticket(4), now);
        let Repeated::Refused(ClientResponse::DeployResponse(refused)) = refused else { panic!("{refused:?}") };
        let why = refused.outcomes[0].error.as_deref().unwrap();
        assert!(why.contains("`r` was answered already, and another configuration is staged"), "{why}");
        assert_eq!(repeats.ask(&deploy("s"), Some(&second), Ticket(5), now), Repeated::No);
    }

    #[test]
    fn no_more_answers_are_kept_than_so_many() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        for number in 0..1000 {
            let reqid = number.to_string();
            repeats.ask(&restart(&reqid, &[]), None, Ticket(number), now);
            repeats.answered(Ticket(number), &mut restarted(&reqid), now);
        }
        assert_eq!((repeats.done.len(), repeats.running.len()), (MOST, 0));
        assert!(repeats.bytes > 0);
        assert_eq!(repeats.ask(&restart("999", &[]), None, Ticket(1000), now), Repeated::Done(restarted("999")));
        assert_eq!(repeats.ask(&restart("1", &[]), None, Ticket(1001), now), Repeated::No);
        repeats.forget(now + AGE);
        assert_eq!((repeats.is_empty(), repeats.bytes), (true, 0));

        let long = RestartResponse { reqid: id("r"), outcomes: vec![Outcome::failed("x".repeat(BYTES / 3)); 1] };
        for number in 0..10 {
            repeats.ask(&restart(&number.to_string(), &[]), None, Ticket(number), now);
            repeats.answered(Ticket(number), &mut long.clone().into(), now);
        }
        assert!(repeats.bytes <= BYTES && repeats.done.len() == 2, "{} bytes", repeats.bytes);
    }
}
