//! Deploying 100, 300 and 1,000 nodes to 20 agents of one machine, each behind a link of its own: from the first launch to
//! the last child's own stamp, taken first thing after exec, against a loop that has the kernel do the same; and each phase
//! of the deployment by its name, as its news says when it began.
//!
//! `-- plot` also draws how that grows into docs/launch-growth.svg.

mod common;

use common::figures::{Sample, line, now, options};
use common::floor::{Care, Floor};
use common::host::{Host, be_many_agents_if_asked};
use common::nursery::Nursery;
use common::plot::{Curve, Plot};
use watchpost::message::agent::NotifyLog;
use watchpost::message::client::{Entry, News};
use watchpost::model::{NodeState, Timestamp};

const AGENTS: usize = 20;
const SIZES: [(usize, usize); 3] = [(100, 9), (300, 7), (1_000, 5)];
const GOAL: f64 = 1.5;

/// What a deployment says of itself where one of its phases begins, and what that phase is.
const PHASES: [(&str, &str); 5] = [
    (": gathering", "gather: every instance is there"),
    (": checking", "check: looked at by all, and written down"),
    (" of ", "switch: launched, ready, and told"),
    (": deciding", "decide: in the journal"),
    (": committing", "commit: in force everywhere"),
];

#[derive(Default)]
struct Figures {
    launched: Sample,
    floor: Sample,
    whole: Sample,
    phases: [Sample; PHASES.len()],
    /// From the end of the last phase to the answer.
    answered: Sample,
}

fn main() {
    be_many_agents_if_asked();
    let Some(options) = options() else { return };
    let mut nursery = Nursery::new();
    let [mut floor, mut launched, mut whole] = [(); 3].map(|()| Vec::new());
    println!("nodes on {AGENTS} agents, milliseconds: median (least to most)");
    for (nodes, times) in SIZES {
        let mut figures = Figures::default();
        for _ in 0..times * options.factor {
            measure_floor(&mut nursery, nodes, &mut figures);
            measure_watchpost(&mut nursery, nodes, &mut figures);
        }
        println!("{nodes} nodes");
        line("floor: from the first to the last child", &figures.floor, None);
        let ratio = figures.launched.over(&figures.floor);
        line("from the first launch to the last child", &figures.launched, Some((&ratio, Some(GOAL))));
        for ((_, what), sample) in PHASES.iter().zip(&figures.phases) {
            line(what, sample, None);
        }
        line("answer: the end is in the journal", &figures.answered, None);
        line("from the request to the answer", &figures.whole, Some((&figures.whole.over(&figures.floor), None)));
        for (curve, sample) in
            [(&mut floor, &figures.floor), (&mut launched, &figures.launched), (&mut whole, &figures.whole)]
        {
            curve.push((nodes as f64, sample.median()));
        }
    }
    if std::env::args().any(|argument| argument == "plot") {
        let curves = [("bare loop", floor), ("launches", launched), ("whole deployment", whole)];
        let plot = Plot {
            title: "Deploying to 20 agents of one machine, by the number of nodes",
            x: "nodes",
            y: "milliseconds",
            curves: curves.into_iter().map(|(name, points)| Curve { name, points }).collect(),
        };
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/launch-growth.svg");
        std::fs::write(path, plot.svg()).expect("docs can be written to");
        println!("drawn: {path}");
    }
}

fn measure_floor(nursery: &mut Nursery, nodes: usize, figures: &mut Figures) {
    let mut floor = Floor::new(nursery.directory(), 0, nodes, Care::Full);
    let began = now();
    floor.start_all();
    figures.floor.add((last_birth(nursery, nodes) - began) as f64 / 1e6);
}

fn measure_watchpost(nursery: &mut Nursery, nodes: usize, figures: &mut Figures) {
    let mut host = Host::start(nursery, AGENTS);
    // So that there is something to go back to, and it takes the whole way.
    host.deploy(nursery, 0);
    host.heard(is_end);
    // News has the time of day, stamps have the clock that nobody sets.
    let (day, clock) = (Timestamp::now().0, now());
    let (began, answered) = host.deploy(nursery, nodes);
    let last_birth = last_birth(nursery, nodes);
    let heard = host.heard(is_end);
    let on_clock = |time: Timestamp| clock as f64 + (time.0 as f64 - day as f64) * 1e3;
    let launches = heard.iter().filter_map(|entry| match &entry.news {
        News::Change(change) if change.new == NodeState::Pending => Some(on_clock(change.time)),
        _ => None,
    });
    let first_launch = launches.fold(f64::INFINITY, f64::min);
    figures.launched.add((last_birth as f64 - first_launch) / 1e6);
    figures.whole.add((answered - began) as f64 / 1e6);

    let begins = |words: &str| {
        let entry = heard.iter().find(|entry| of_deployment(entry).is_some_and(|msg| msg.contains(words)));
        on_clock(entry.unwrap_or_else(|| panic!("it says `{words}`")).time)
    };
    let mut times: Vec<f64> = PHASES.iter().map(|(words, _)| begins(words)).collect();
    times.push(on_clock(heard.last().expect("its end").time));
    for (sample, pair) in figures.phases.iter_mut().zip(times.windows(2)) {
        sample.add((pair[1] - pair[0]) / 1e6);
    }
    figures.answered.add((answered as f64 - times[PHASES.len()]) / 1e6);
}

/// What a deployment says of itself there, without its number and its id.
fn of_deployment(entry: &Entry) -> Option<&str> {
    match &entry.news {
        News::Log(NotifyLog { msg, node: None, .. }) if msg.starts_with("deployment ") => Some(&msg[msg.find(": ")?..]),
        _ => None,
    }
}

fn is_end(entry: &Entry) -> bool {
    of_deployment(entry).is_some_and(|msg| msg == ": deployed")
}

fn last_birth(nursery: &mut Nursery, nodes: usize) -> u64 {
    nursery.births(nodes).iter().map(|stamp| stamp.at).max().unwrap_or_default()
}
