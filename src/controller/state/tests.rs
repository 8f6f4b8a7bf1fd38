use super::*;
use crate::model::{ConfigurationId, Node, Role};

#[test]
fn get_nodes_says_of_every_agent_whether_it_answered() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.ask("nodes", |reqid| client::GetNodesRequest { reqid }.into());
    let inner = cluster.take_sent("a", |message| match message {
        ToAgent::GetNodesRequest(request) => Some(request.reqid),
        _ => None,
    });
    cluster.lose("a");
    cluster.say("b", GetNodesResponse { reqid: inner, nodes: vec![] });
    assert_eq!(cluster.answer("nodes"), ["a: the link was lost before it answered", "b: done"]);
}

#[test]
fn what_was_asked_on_a_link_that_a_newer_one_replaced_is_given_up() {
    let mut cluster = Cluster::deployed(&[("a", "n1")]);
    cluster.ask("restart", |reqid| client::RestartRequest { reqid, nodes: BTreeSet::new() }.into());
    cluster.answers_itself = false;
    let former = cluster.links["a"];
    cluster.connect("a");
    assert_eq!(cluster.ended, [former]);
    assert_eq!(cluster.answer("restart"), ["a: the link was lost before it answered"]);

    cluster.connect("a"); // before it answered the welcome
    cluster.published.clear();
    cluster.answers_itself = true;
    cluster.connect("a");
    cluster.pass(Duration::from_secs(60));
    let errors: Vec<_> = cluster.published.iter().filter(|news| matches!(news, News::Error(_))).collect();
    assert_eq!(errors, [] as [&News; 0], "nothing is missed that was asked on former links");
}

/// A controller whose agents are this test.
struct Cluster {
    state: State,
    now: Now,
    links: BTreeMap<String, LinkId>,
    next_link: u64,
    sent: Vec<(LinkId, ToAgent)>,
    ended: Vec<LinkId>,
    dials: Vec<String>,
    saved: Stored,
    published: Vec<News>,
    tickets: BTreeMap<Ticket, String>,
    answers: BTreeMap<String, ClientResponse>,
    answers_itself: bool,
}

impl Cluster {
    fn new(stored: Stored) -> Self {
        let now = Now { mono: Instant::now(), wall: Timestamp(0) };
        let rules = Rules {
            name: instance("controller"),
            ports: PortRules::default(),
            request_timeout: Duration::from_secs(10),
            epoch: 1,
        };
        let (state, first) = State::new(rules, stored.clone(), now);
        let mut cluster = Self {
            state,
            now,
            links: BTreeMap::new(),
            next_link: 0,
            sent: Vec::new(),
            ended: Vec::new(),
            dials: Vec::new(),
            saved: stored,
            published: Vec::new(),
            tickets: BTreeMap::new(),
            answers: BTreeMap::new(),
            answers_itself: true,
        };
        cluster.perform(first);
        cluster
    }

    /// With agents that are connected and run these nodes, given as instance and node.
    fn deployed(nodes: &[(&str, &str)]) -> Self {
        let mut cluster = Self::new(Stored::default());
        for (instance, _) in nodes {
            cluster.connect(instance);
        }
        cluster.deploy("first", configuration("c1", nodes));
        assert!(cluster.answer("first").iter().all(|outcome| outcome.ends_with("done")));
        cluster.sent.clear();
        cluster
    }

    fn connect(&mut self, name: &str) {
        self.connect_as(name, hello(name));
    }

    fn connect_as(&mut self, name: &str, hello: NotifyAgentHello) {
        self.next_link += 1;
        let link = LinkId(self.next_link);
        self.links.insert(name.into(), link);
        self.step(Event::LinkUp(link, Peer { name: name.into(), host: None, dialled: None }));
        self.step(Event::Mail(link, vec![hello.into()]));
    }

    fn lose(&mut self, name: &str) {
        let link = self.links.remove(name).unwrap();
        self.step(Event::LinkDown(link, "cut".into()));
    }

    fn say(&mut self, name: &str, message: impl Into<ToController>) {
        self.step(Event::Mail(self.links[name], vec![message.into()]));
    }

    fn ask(&mut self, name: &str, request: impl FnOnce(RequestId) -> ClientRequest) {
        let ticket = Ticket(self.tickets.len() as u64);
        self.tickets.insert(ticket, name.into());
        self.step(Event::Ask(ticket, request(id(name))));
    }

    fn deploy(&mut self, name: &str, configuration: Configuration) {
        self.ask(name, |reqid| client::SetConfigurationRequest { reqid, configuration }.into());
    }

    fn step(&mut self, event: Event) {
        let effects = self.state.step(event, self.now);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let mut replies = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send(link, message) => {
                    replies.extend(reply(&message).map(|reply| (link, reply)));
                    self.sent.push((link, message));
                }
                Effect::EndLink(link, _) => self.ended.push(link),
                Effect::Dial(name, _) => self.dials.push(format!("dial {name}")),
                Effect::HangUp(name) => self.dials.push(format!("hang up {name}")),
                Effect::Save(saves, then) => {
                    saves.into_iter().for_each(|save| *self.saved.slot_mut(save.slot) = Some(save.configuration));
                    self.answered(then);
                }
                Effect::Answer(ticket, response) => self.answered(Some((ticket, response))),
                Effect::Silence(_) => {}
                Effect::Publish { news, .. } => self.published.push(news),
            }
        }
        if self.answers_itself {
            replies.into_iter().for_each(|(link, reply)| self.step(Event::Mail(link, vec![reply])));
        }
    }

    fn answered(&mut self, answer: Option<(Ticket, ClientResponse)>) {
        if let Some((ticket, response)) = answer {
            let name = self.tickets.remove(&ticket).expect("a request is answered once");
            self.answers.insert(name, response);
        }
    }

    /// Time passes, deadline by deadline.
    fn pass(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while let Some(at) = self.state.next_deadline().filter(|at| *at <= end) {
            self.now.mono = at;
            self.step(Event::Tick);
        }
        self.now.mono = end;
    }

    /// The outcomes of that request's answer, in words.
    fn answer(&mut self, name: &str) -> Vec<String> {
        let outcomes = match self.answers.remove(name).unwrap_or_else(|| panic!("{name} is not answered")) {
            ClientResponse::SetConfigurationResponse(answer) => answer.outcomes,
            ClientResponse::DeployResponse(answer) => answer.outcomes,
            ClientResponse::GetNodesResponse(answer) => answer.outcomes,
            ClientResponse::StartResponse(answer) => answer.outcomes,
            ClientResponse::StopResponse(answer) => answer.outcomes,
            ClientResponse::RestartResponse(answer) => answer.outcomes,
            ClientResponse::TestTimeoutResponse(answer) => vec![answer.outcome],
            other => panic!("{other:?}"),
        };
        let words = |outcome: Outcome| {
            let node = outcome.node.map(|node| node.to_string());
            let who = node.or(outcome.instance.map(|instance| instance.to_string())).unwrap_or("all".into());
            format!("{who}: {}", outcome.error.as_deref().unwrap_or("done"))
        };
        outcomes.into_iter().map(words).collect()
    }

    fn take_sent<T>(&mut self, to: &str, find: impl Fn(ToAgent) -> Option<T>) -> T {
        let link = self.links[to];
        let at = self.sent.iter().position(|(of, message)| *of == link && find(message.clone()).is_some());
        let (_, message) = self.sent.remove(at.unwrap_or_else(|| panic!("not sent to {to}: {:?}", self.sent)));
        find(message).unwrap()
    }
}

/// What an agent says at once that does as it is told.
fn reply(message: &ToAgent) -> Option<ToController> {
    let done = |reqid: &RequestId| (reqid.clone(), Outcome::instance_done(&instance("i")));
    Some(match message {
        ToAgent::AgentWelcomeRequest(AgentWelcomeRequest { reqid }) => {
            let (reqid, outcome) = done(reqid);
            AgentWelcomeResponse { reqid, outcome }.into()
        }
        ToAgent::AgentStandbyRequest(AgentStandbyRequest { reqid }) => {
            let (reqid, outcome) = done(reqid);
            AgentStandbyResponse { reqid, outcome }.into()
        }
        ToAgent::SetConfigurationRequest(SetConfigurationRequest { reqid, .. }) => {
            let (reqid, outcome) = done(reqid);
            SetConfigurationResponse { reqid, outcomes: vec![outcome] }.into()
        }
        _ => return None,
    })
}

fn hello(name: &str) -> NotifyAgentHello {
    NotifyAgentHello {
        instance: instance(name),
        host: None,
        api_version: API_VERSION,
        version: "0.1.0".into(),
        epoch: 7,
    }
}

fn configuration(id: &str, nodes: &[(&str, &str)]) -> Configuration {
    let mut configuration = Configuration::empty(ConfigurationId::new(id).unwrap());
    let names: BTreeSet<_> = nodes.iter().map(|(of, _)| *of).collect();
    configuration.instances =
        names.into_iter().map(|name| Instance { name: instance(name), host: None, port: None }).collect();
    let node = |(of, name): &(&str, &str)| Node {
        command: vec!["program".into()],
        ..Node::new(NodeName::new(name).unwrap(), instance(of), Role::None)
    };
    configuration.nodes = nodes.iter().map(node).collect();
    configuration
}

fn instance(text: &str) -> InstanceName {
    InstanceName::new(text).unwrap()
}

fn id(text: &str) -> RequestId {
    RequestId::new(text).unwrap()
}
