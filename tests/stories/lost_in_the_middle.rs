//! Whoever is lost in the middle of a deployment, phase by phase: its controller, an agent, or the network between them. In
//! the end all three instances are in one configuration, and nothing was touched that does not change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Signal;
use watchpost::web::history::Deployed;
use watchpost::web::json::Status;

use crate::cable::Cable;
use crate::checker::{Checker, Seen};
use crate::common::{Answer, Daemon, Fleet, Reserved, Scene, check_log, eventually, processes, script, sleeper};
use crate::phases::{colours, last};

/// The first of them is reached by a cable.
const ALL: [&str; 3] = ["far", "b", "c"];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Loss {
    Controller,
    Agent,
    /// The link is back in a moment.
    Link,
}

const LOSSES: [Loss; 3] = [Loss::Controller, Loss::Agent, Loss::Link];

/// Three agents on which everything has one colour.
struct Middle {
    checker: Checker,
    cable: Cable,
    fleet: Fleet,
    colour: &'static str,
    /// Every file has a name of its own: somebody may still read the one before.
    files: usize,
}

impl Middle {
    /// A controller that waits three seconds for whoever it misses.
    fn new() -> Self {
        let scene = Scene::new();
        let any = scene.any_port();
        let args = ["controller", "--listen", &any, "--http", &any];
        let settings = "[controller]\nrequest_timeout = '3s'\n";
        let controller = Daemon::start_with(&scene, "controller", &args, settings);
        let checker = Checker::start_at(scene.cluster(), Duration::from_millis(30));
        let cable = Cable::lay(&any, controller.addresses()["agents"]);
        let mut fleet = Fleet { client: controller.client(), controller, agents: BTreeMap::new(), scene };
        let far = Daemon::start(&fleet.scene, "far", &["agent", "--name", "far", "--connect", &cable.end]);
        fleet.agents.insert("far", far);
        fleet.add("b");
        let c = Daemon::start(&fleet.scene, "c", &["agent", "--name", "c", "--listen", &any]);
        fleet.agents.insert("c", c);
        let mut middle = Self { checker, cable, fleet, colour: "red", files: 0 };
        let file = middle.file("red", "");
        middle.fleet.client.deployed(&file);
        middle.is_in(&["red"]);
        middle
    }

    /// Of each instance a node that stays, and one that is of this colour.
    fn file(&mut self, colour: &str, more: &str) -> PathBuf {
        let nodes = ALL.map(|name| {
            sleeper(&format!("stays-{name}"), &format!("instance = {name}"))
                + &sleeper(&format!("moves-on-{name}"), &format!("instance = {name}\nenv = COLOUR={colour}"))
        });
        let file = self.fleet.file(&ALL, &[nodes.concat(), more.to_owned()]);
        self.files += 1;
        let own = self.fleet.scene.path(&format!("file-{}.cfg", self.files));
        std::fs::rename(file, &own).unwrap();
        own
    }

    /// The colour that it does not have.
    fn other(&self) -> &'static str {
        if self.colour == "red" { "blue" } else { "red" }
    }

    fn deploying(&self, file: &std::path::Path) -> JoinHandle<Answer> {
        let (client, file) = (self.fleet.client.clone(), file.to_str().unwrap().to_owned());
        thread::spawn(move || client.run(&["deploy", "--json", &file]))
    }

    /// A node that does not end before it is let go.
    fn stubborn(&self, name: &str, on: &str) -> String {
        let ends = format!("while [ ! -e {} ]; do sleep 0.05; done; exit", self.fleet.scene.path("let-go").display());
        let text = format!("trap \"{ends}\" TERM\necho ready\nwhile :; do sleep 0.1; done");
        script(name, &format!("instance = {on}\nstop_grace = 50s"), &text)
    }

    fn let_go(&self, is_let_go: bool) {
        match is_let_go {
            true => drop(self.fleet.scene.write("let-go", "")),
            false => std::fs::remove_file(self.fleet.scene.path("let-go")).unwrap_or_default(),
        }
    }

    /// Waits until the deployment in progress is in that phase.
    fn comes_to(&self, phase: &str) -> Status {
        self.fleet.client.wait(&format!("it is {phase}"), |status| {
            status.deployment.as_ref().is_some_and(|present| present.phase == phase)
        })
    }

    fn lose(&mut self, loss: Loss) {
        match loss {
            Loss::Controller => {
                self.fleet.controller.kill();
                self.fleet.controller.start_again();
            }
            Loss::Agent => {
                self.fleet.agent_mut("far").kill();
                self.fleet.agent_mut("far").start_again();
            }
            Loss::Link => self.cable.cut(),
        }
    }

    /// Waits until everybody is in the configuration of one of these colours, and has followed: so says the journal, and
    /// nobody was touched who does not change.
    fn is_in(&mut self, colours_to_be: &[&'static str]) {
        let after = self.fleet.client.wait(&format!("everything is of one of {colours_to_be:?}"), |status| {
            let shown: BTreeSet<_> = colours(status).into_values().collect();
            status.deployment.is_none()
                && status.deploying.is_none()
                && status.nodes.iter().all(|node| node.state == "RUNNING")
                && colours(status).len() == ALL.len()
                && shown.len() == 1
                && colours_to_be.iter().any(|colour| shown.contains(*colour))
        });
        let colour = colours(&after).into_values().next().unwrap();
        self.colour = colours_to_be.iter().find(|other| **other == colour).unwrap();
        let journal = self.fleet.client.http("GET", "/api/v1/configuration", "").1;
        assert!(journal.contains(&format!("COLOUR={colour}")), "{journal}");
        for name in ALL {
            assert_eq!(self.lives_of(&format!("stays-{name}")).len(), 1, "stays-{name} was not touched");
        }
        check_log(&self.fleet.client.events());
    }

    fn lives_of(&self, node: &str) -> BTreeSet<Seen> {
        self.checker.seen().into_iter().filter(|seen| seen.node == node).collect()
    }
}

/// Somebody is lost while `c` stands still, so that all wait for it: nothing has been touched by then.
fn lost_before_anything_is_touched(phase: &str, more: &str) {
    let mut middle = Middle::new();
    for (round, loss) in LOSSES.into_iter().enumerate() {
        middle.fleet.scene.write("list", &format!("{round}\n"));
        let colour = middle.other();
        let file = middle.file(colour, more);
        middle.fleet.agents["c"].signal(Signal::STOP);
        let deploying = middle.deploying(&file);
        let before = middle.comes_to(phase);
        assert_eq!(before.deployment.unwrap().verdict, "open");
        middle.lose(loss);
        if loss == Loss::Agent {
            middle.fleet.client.wait("far is back", |status| {
                status.instances.iter().any(|instance| instance.name == "far" && instance.link == "UP")
            });
        }
        middle.fleet.agents["c"].signal(Signal::CONT);
        let answer = deploying.join().unwrap();
        match loss {
            // Nobody has been told anything, so nobody has to go back.
            Loss::Controller => {
                middle.is_in(&[middle.colour]);
                assert_ne!(answer.code, 0, "{answer:?}");
            }
            Loss::Agent | Loss::Link => {
                assert_eq!(answer.code, 0, "{loss:?} while {phase}: {answer:?}");
                middle.is_in(&[colour]);
            }
        }
    }
}

#[test]
fn whoever_is_lost_while_files_are_fetched_touches_nothing() {
    lost_before_anything_is_touched("staging", &sleeper("reads", "instance = c\nfiles = list"));
}

#[test]
fn whoever_is_lost_while_all_look_touches_nothing() {
    lost_before_anything_is_touched("checking", "");
}

#[test]
fn whoever_is_lost_while_a_node_moves_leaves_all_in_one_configuration_and_it_never_runs_twice() {
    let mut middle = Middle::new();
    let (mut at, mut to) = ("far", "b");
    let mover = middle.stubborn("mover", at);
    let file = middle.file("red", &mover);
    middle.fleet.client.deployed(&file);
    for loss in LOSSES {
        middle.fleet.agents[at].wait_until_says("mover", "ready");
        middle.let_go(false);
        let (former, colour, mover) = (middle.colour, middle.other(), middle.stubborn("mover", to));
        let file = middle.file(colour, &mover);
        let deploying = middle.deploying(&file);
        middle.comes_to("moving");
        middle.lose(loss);
        middle.let_go(true);
        let answer = deploying.join().unwrap();
        middle.is_in(&[former, colour]);
        // The checker has seen no two lives at once.
        let is_new = middle.colour == colour;
        match loss {
            Loss::Controller => assert!(!is_new, "it was not decided: {answer:?}"),
            Loss::Link => assert!(is_new && answer.code == 0, "{answer:?}"),
            Loss::Agent => assert_eq!(is_new, answer.code == 0, "{answer:?}"),
        }
        if is_new {
            (at, to) = (to, at);
        }
        assert_eq!(middle.fleet.client.wait_for("mover", "RUNNING").instance, at);
    }
}

#[test]
fn whoever_is_lost_while_nodes_are_switched_leaves_all_in_one_configuration() {
    let mut middle = Middle::new();
    for loss in LOSSES {
        let (former, colour, reserved) = (middle.colour, middle.other(), Reserved::new());
        let slow = sleeper("slow", "instance = c\nready_within = 50s")
            .replace("settle 50ms", &format!("port {}", reserved.port()));
        let file = middle.file(colour, &slow);
        let deploying = middle.deploying(&file);
        middle.fleet.client.wait("all but the slow one are switched", |status| {
            let present = status.deployment.as_ref();
            present.is_some_and(|present| present.under_way == ["slow".to_owned()] && present.switched == 3)
        });
        middle.lose(loss);
        if loss == Loss::Controller {
            middle.is_in(&[former]);
            assert_ne!(deploying.join().unwrap().code, 0);
            continue;
        }
        let _listener = reserved.listen();
        let answer = deploying.join().unwrap();
        assert_eq!(answer.code, 0, "far has done its part: {answer:?}");
        middle.is_in(&[colour]);
        let file = middle.file(colour, "");
        middle.fleet.client.deployed(&file);
    }
}

#[test]
fn etcd_13766_whoever_is_lost_once_it_is_decided_comes_to_the_new_one() {
    let mut middle = Middle::new();
    for loss in LOSSES {
        middle.let_go(false);
        let leaves = middle.stubborn("leaves", "far");
        let file = middle.file(middle.colour, &leaves);
        middle.fleet.client.deployed(&file);
        middle.fleet.agents["far"].wait_until_says("leaves", "ready");
        let colour = middle.other();
        let file = middle.file(colour, "");
        let deploying = middle.deploying(&file);
        let present = middle.comes_to("committing").deployment.unwrap();
        assert_eq!((&*present.verdict, present.owing.contains(&"far".to_owned())), ("deployed", true));
        middle.lose(loss);
        middle.let_go(true);
        let answer = deploying.join().unwrap();
        assert!(loss == Loss::Controller || answer.code == 0, "{answer:?}");
        middle.is_in(&[colour]);
        let gone = middle
            .fleet
            .client
            .wait("the node that leaves is gone", |status| status.nodes.iter().all(|node| node.name != "leaves"));
        assert_eq!(gone.nodes.len(), 6);
        assert!(middle.lives_of("leaves").iter().all(|seen| !processes::is_alive(seen.pid)));
    }
}

#[test]
fn an_agent_that_is_cut_off_starts_nothing_and_follows_when_its_link_is_back() {
    let mut middle = Middle::new();
    let reserved = Reserved::new();
    let slow = sleeper("slow", "instance = far\nready_within = 50s")
        .replace("settle 50ms", &format!("port {}", reserved.port()));
    // One that would be started behind it.
    let later = sleeper("zz-later", "instance = far\nrole = none");
    let slow = slow + "role = worker\n";
    let file = middle.file("blue", &(slow + &later));
    let deploying = middle.deploying(&file);
    middle.fleet.client.wait("the slow one is launched", |status| {
        status.nodes.iter().any(|node| node.name == "slow" && node.state == "PENDING" && node.pid.is_some())
    });
    eventually("the checker has seen it", || (middle.lives_of("slow").len() == 1).then_some(()));
    middle.cable.sever();
    let lives = || -> BTreeSet<Seen> { middle.checker.seen() };
    let before = lives();
    let deployed: Deployed = serde_json::from_str(&deploying.join().unwrap().stdout).unwrap();
    let said = deployed.verdict.outcomes.last().unwrap().error.clone().unwrap();
    assert!(said.starts_with("rolled back: ") && said.ends_with("`far` will follow when it can be reached"), "{said}");
    let lost: Vec<_> = deployed.verdict.outcomes.iter().filter(|outcome| outcome.unreachable).collect();
    assert!(lost.iter().any(|outcome| outcome.node.as_deref() == Some("slow")), "{deployed:?}");
    // Until the link is back it is named, with the decision.
    let status = middle.fleet.client.status();
    let present = status.deployment.clone().unwrap();
    assert_eq!(
        (&*present.phase, &*present.verdict, &present.owing[..]),
        ("following", "rolled-back", &["far".to_owned()][..])
    );
    let text = middle.fleet.client.run(&["status"]).stdout;
    assert!(text.contains("is decided (rolled-back), and has yet to be followed by far"), "{text}");
    // What it was told it goes on with, and nothing else.
    assert_eq!(middle.lives_of("zz-later"), [].into());
    let far = |seen: &&Seen| seen.node.ends_with("far") || seen.node == "slow";
    assert_eq!(lives().iter().filter(far).count(), before.iter().filter(far).count());
    assert!(middle.lives_of("slow").iter().all(|seen| processes::is_alive(seen.pid)), "it keeps what it runs");
    assert_eq!(last(&middle.fleet).owing, ["far"]);

    middle.cable.mend();
    middle.is_in(&["red"]);
    assert!(middle.lives_of("slow").iter().all(|seen| !processes::is_alive(seen.pid)));
    assert_eq!((middle.lives_of("zz-later"), last(&middle.fleet).owing), ([].into(), Vec::<String>::new()));
}
