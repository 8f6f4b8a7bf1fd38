//! What it takes to plan: a change to 10,000 nodes on 200 instances, and nothing at all, against reading and comparing the
//! two files. The controller decides as it does behind its actor, with the agents' answers at hand: it reads the file, asks
//! everybody, hears everybody and puts the answer together, in frames and in JSON.
//!
//! `-- plot` also draws how that grows into docs/plan-growth.svg.

mod common;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::{Duration, Instant};

use common::cluster::name;
use common::figures::{Sample, line, now, options};
use common::plot::{Curve, Plot};
use watchpost::bridge::{Features, LinkId, Peer};
use watchpost::controller::kept::Kept;
use watchpost::controller::log::Recalled;
use watchpost::controller::state::{Effect, Event, Rules, State, Ticket};
use watchpost::controller::store::Stored;
use watchpost::message::agent::{
    API_VERSION, InspectConfigurationRequest, InspectConfigurationResponse, NotifyAgentHello, ToAgent, ToController,
};
use watchpost::message::client::{ClientResponse, PlanRequest};
use watchpost::message::frame::{MAX_FRAME, Wire, split};
use watchpost::model::{
    Abilities, Configuration, ConfigurationId, Inspection, InstanceName, Now, RequestId, Timestamp, cluster_file,
};
use watchpost::plan::diff::{self, NodeChange};
use watchpost::plan::{PortRules, steps};
use watchpost::web::configuration::{self, Checked};
use watchpost::web::json::Plan;

/// Nodes of each instance.
const EACH: usize = 50;
const SIZES: [usize; 5] = [100, 300, 1_000, 3_000, 10_000];
const ROUNDS: usize = 7;
const GOAL: f64 = 3.0;

fn main() {
    let Some(options) = options() else { return };
    let mut curves = [("read and compare", vec![]), ("plan a change", vec![]), ("plan, nothing to do", vec![])];
    println!("milliseconds: median (least to most)");
    for nodes in SIZES {
        let [mut floor, mut change, mut nothing] = [(); 3].map(|()| Sample::default());
        let (old, new) = (text(nodes, false), text(nodes, true));
        let mut stage = Stage::new(&old);
        for _ in 0..ROUNDS * options.factor {
            floor.add(read_and_compare(&old, &new, nodes / 10));
            change.add(stage.plan(&new, nodes / 10));
            nothing.add(stage.plan(&old, 0));
        }
        println!("{nodes} nodes on {} instances, every tenth of them changed", nodes.div_ceil(EACH));
        line("the two files read and compared", &floor, None);
        line("planned", &change, Some((&change.over(&floor), Some(GOAL))));
        line("planned, and nothing to do", &nothing, Some((&nothing.over(&floor), Some(GOAL))));
        for ((_, curve), sample) in curves.iter_mut().zip([&floor, &change, &nothing]) {
            curve.push((nodes as f64, sample.median()));
        }
    }
    if std::env::args().any(|argument| argument == "plot") {
        let plot = Plot {
            title: "Planning, by the number of nodes (50 on each instance)",
            x: "nodes",
            y: "milliseconds",
            curves: curves.into_iter().map(|(name, points)| Curve { name, points }).collect(),
        };
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plan-growth.svg");
        std::fs::write(path, plot.svg()).expect("docs can be written to");
        println!("drawn: {path}");
    }
}

/// A cluster file of so many nodes. The other one has every tenth of them in another environment.
fn text(nodes: usize, is_other: bool) -> String {
    let mut text = "[instances]\n".to_owned();
    (0..nodes.div_ceil(EACH)).for_each(|at| writeln!(text, "sensor-{at}").expect("text takes text"));
    for at in 0..nodes {
        let colour = if is_other && at % 10 == 0 { "blue" } else { "red" };
        let instance = at / EACH;
        write!(
            text,
            "[node-{at}]\ninstance = sensor-{instance}\nrole = none\ncommand = /opt/app/worker --number {at}\n\
             env = COLOUR={colour}\nrestart = on-failure\nready = settle 1s\nstop_grace = 20s\n"
        )
        .expect("text takes text");
    }
    text
}

fn id(text: &str) -> ConfigurationId {
    name(text, ConfigurationId::new)
}

fn parsed(text: &str, of: &str) -> Configuration {
    cluster_file::parse("cluster.cfg", text, id(of), "here").expect("a cluster file")
}

/// The floor: whoever plans cannot do less.
fn read_and_compare(old: &str, new: &str, changed: usize) -> f64 {
    let began = now();
    let (old, new) = (parsed(old, "old"), parsed(new, "new"));
    let changes = diff::nodes(&old.nodes, &new.nodes);
    let replaced = changes.iter().filter(|change| matches!(change, NodeChange::Replace { .. })).count();
    let took = since(began);
    assert_eq!(replaced, changed);
    took
}

fn since(began: u64) -> f64 {
    (now() - began) as f64 / 1e6
}

/// A controller whose agents are all there, and run what the old file says.
struct Stage {
    state: State,
    now: Now,
    asked: u64,
    deployed: Configuration,
}

impl Stage {
    fn new(old: &str) -> Self {
        let deployed = parsed(old, "old");
        let stored = Stored { deployed: Some(Kept::new(&deployed)), ..Stored::default() };
        let rules = Rules {
            name: name("controller", InstanceName::new),
            ports: PortRules::default(),
            dials: watchpost::controller::state::Reach::Nowhere,
            request_timeout: Duration::from_secs(600),
            pace: watchpost::plan::Pace::default(),
            on_failure: watchpost::model::OnFailure::Back,
            epoch: 1,
            on_disk: false,
            keys: watchpost::trust::CurveRoot::from([7; 32]),
        };
        let now = Now { mono: Instant::now(), wall: Timestamp(0) };
        let (mut state, _) = State::new(rules, stored, Recalled::default(), now);
        for (at, instance) in deployed.instances.iter().enumerate() {
            let link = LinkId(at as u64);
            let (instance, name) = (instance.name.clone(), instance.name.to_string());
            let peer = Peer { name, host: None, dialled: None, features: Features::NONE, certificate: None };
            state.step(Event::LinkUp(link, peer), now);
            let hello = NotifyAgentHello {
                instance,
                host: None,
                api_version: API_VERSION,
                version: "0.1.0".into(),
                epoch: 1,
                run: 1,
                place: 0,
                abilities: Abilities::untried(),
            };
            state.step(Event::Mail(link, vec![hello.into()]), now);
        }
        Self { state, now, asked: 0, deployed }
    }

    /// Plans once; the time that agents would take is left out.
    fn plan(&mut self, text: &str, changed: usize) -> f64 {
        self.asked += 1;
        let reqid = name(&format!("plan-{}", self.asked), RequestId::new);
        let ticket = Ticket(self.asked);

        let began = now();
        let Checked { configuration, complaints } =
            configuration::check(text, "cluster.cfg", "here", id("new"), &PortRules::default());
        assert!(complaints.is_empty(), "{complaints:?}");
        let without = BTreeSet::new();
        let request = PlanRequest { reqid, configuration, complaints, all_at_once: false, without };
        let effects = self.state.step(Event::Ask(ticket, request.into()), self.now);
        let questions: Vec<(LinkId, Vec<u8>)> = effects.into_iter().filter_map(question).collect();
        let mut took = since(began);

        let answers: Vec<_> = questions.into_iter().map(|(link, frame)| (link, self.answer(&frame))).collect();

        let began = now();
        let mut answered = None;
        for (link, frame) in answers {
            let frame = split(&frame, MAX_FRAME).expect("a frame").expect("all of it");
            let message = ToController::decode(frame.kind, frame.body).expect("an answer");
            let effects = self.state.step(Event::Mail(link, vec![message]), self.now);
            answered = effects.into_iter().find_map(|effect| match effect {
                Effect::Answer(_, ClientResponse::PlanResponse(answer)) => Some(answer),
                _ => None,
            });
        }
        let plan = Plan::from(*answered.expect("everybody has answered").plan);
        let json = serde_json::to_string(&plan).expect("a plan is always JSON");
        took += since(began);
        assert!(json.len() > 1000 && plan.ok);
        assert_eq!(plan.nodes.iter().filter(|node| node.action == "restart").count(), changed);
        took
    }

    /// What an agent says that has its share of what is deployed.
    fn answer(&self, frame: &[u8]) -> Vec<u8> {
        let frame = split(frame, MAX_FRAME).expect("a frame").expect("all of it");
        let Ok(ToAgent::InspectConfigurationRequest(request)) = ToAgent::decode(frame.kind, frame.body) else {
            panic!("it is asked for nothing else")
        };
        let InspectConfigurationRequest { reqid, configuration } = request;
        let want = configuration.open();
        let have = want.nodes.first().map(|node| self.deployed.share_of(&node.instance));
        let steps = steps::foreseen(have, want);
        let inspection = Ok(Inspection { steps, complaints: Vec::new() });
        let answer = ToController::from(InspectConfigurationResponse { reqid, inspection });
        framed(|bytes| answer.append_to(bytes))
    }
}

/// What goes out to an agent, in its frame.
fn question(effect: Effect) -> Option<(LinkId, Vec<u8>)> {
    match effect {
        Effect::Send(link, message) => Some((link, framed(|bytes| message.append_to(bytes)))),
        _ => None,
    }
}

fn framed<E: std::fmt::Debug>(append: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(&mut bytes).expect("it fits into a frame");
    bytes
}
