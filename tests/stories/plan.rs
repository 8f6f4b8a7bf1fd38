//! What a deployment would do, said before it is done; and nothing is done by saying so.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use watchpost::bridge::LinkRole;
use watchpost::bridge::greeting::{Control, NotUnderstood};
use watchpost::message::agent::*;
use watchpost::message::frame::Body;
use watchpost::model::{InstanceName, Outcome};
use watchpost::web::json::{Plan, Status};
use watchpost::web::plan::Node;

use crate::common::zeek::Zeek;
use crate::common::{Client, Daemon, Fleet, Lab, Scene, node, pids, sleeper};
use crate::peer::{Peer, Said, framed, greeting};

/// Asks for a plan of that file, and expects this exit code.
fn planned(client: &Client, args: &[&str], code: i32) -> Plan {
    let answer = client.run(&[&["plan"], args, &["--json"]].concat());
    assert_eq!(answer.code, code, "{answer:?}");
    serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// What would become of each node, and why.
fn actions(plan: &Plan) -> Vec<String> {
    let words = |node: &Node| {
        let more = [node.was.clone(), node.from.clone(), Some(node.keys.join(" ")), node.cluster.clone()];
        let more: Vec<String> = more.into_iter().flatten().filter(|text| !text.is_empty()).collect();
        [&[node.name.clone(), node.instance.clone(), node.action.clone()], &more[..]].concat().join(" ")
    };
    plan.nodes.iter().map(words).collect()
}

/// Everything that anybody has said so far, and every process with when it was born.
fn as_it_is(client: &Client) -> (Status, usize) {
    (client.status(), client.events().len())
}

#[test]
fn a_plan_says_what_the_deployment_then_does_and_touches_nothing() {
    let fleet = Fleet::with_nodes();
    assert!(fleet.client.order("stop", &["also-b"]).ok);
    let sections = [
        sleeper("on-a", "instance = a\nenv = A=b\nstop_grace = 1s"),
        sleeper("on-b", "instance = b"),
        sleeper("also-b", "instance = b"),
        sleeper("on-c", "instance = a"),
        sleeper("new", "instance = b"),
    ];
    let file = fleet.file(&["a", "b"], &sections);
    let path = file.to_str().unwrap();
    let before = as_it_is(&fleet.client);
    let plan = planned(&fleet.client, &[path], 0);
    assert_eq!(
        actions(&plan),
        ["on-a a restart env stop_grace", "on-c a move c", "also-b b start STOPPED", "new b start", "on-b b keep",]
    );
    assert_eq!((&*plan.steps[0].phase, &*plan.steps[0].nodes), ("moving", &["on-c".to_owned()][..]));
    assert_eq!(plan.deployed, before.0.configuration);
    let changes: Vec<_> =
        plan.instances.iter().map(|instance| format!("{} {}", instance.name, instance.change)).collect();
    assert_eq!(changes, ["a kept", "b kept", "c removed"]);
    let at_once = planned(&fleet.client, &[path, "--all-at-once"], 0);
    let [moving, switching, committing] = &at_once.steps[..] else { panic!("{:?}", at_once.steps) };
    assert_eq!([&moving.phase, &switching.phase, &committing.phase], ["moving", "switching", "committing"]);
    assert_eq!((switching.nodes.join(" "), committing.nodes.join(" ")), ("new on-a on-c".into(), "also-b".into()));
    let shown = fleet.client.run(&["deploy", "--dry-run", path]);
    let lines: Vec<&str> = shown.stdout.lines().collect();
    assert_eq!((shown.code, lines[0]), (0, "ACTION   NODE    INSTANCE  WHY"), "{shown:?}");
    assert!(lines.contains(&"restart  on-a    a         env, stop_grace"), "{shown:?}");
    assert!(lines.iter().any(|line| line.split_whitespace().eq(["1", "moving", "on-c"])), "{shown:?}");
    assert_eq!(lines.last(), Some(&"plan: 1 kept, 2 to start, 1 to restart, 1 to move"));
    assert_eq!(as_it_is(&fleet.client), before, "neither has touched anything");

    let after = fleet.client.deployed(&file);
    let [then, now] = [pids(&before.0), pids(&after)];
    assert_eq!(then["on-b"], now["on-b"]);
    assert!(then["on-a"] != now["on-a"] && now.contains_key("also-b") && now.contains_key("new"));
    assert_eq!(node(&after, "on-c").instance, "a");
    let again = planned(&fleet.client, &[path], 0);
    assert!(again.nodes.iter().all(|node| node.action == "keep") && again.nodes.len() == 5, "{again:?}");
}

#[test]
fn exit_codes_tell_a_script_whether_anything_would_change() {
    let lab = Lab::start(Some(&sleeper("same", "")));
    let before = pids(&lab.client.wait_for_all("RUNNING"));
    let file = |text: &str| lab.scene.write("next.cfg", text).display().to_string();
    let code = |text: &str, args: &[&str]| lab.client.run(&[&["plan", &file(text)], args].concat()).code;
    let (same, other) = (sleeper("same", ""), sleeper("same", "") + &sleeper("other", ""));
    let bad = sleeper("same", "") + "[bad]\ncommand = /nowhere/program\n";
    let detailed = ["--detailed-exitcode"];
    assert_eq!((code(&same, &[]), code(&same, &detailed)), (0, 0));
    assert_eq!((code(&other, &[]), code(&other, &detailed)), (0, 2));
    assert_eq!((code(&bad, &[]), code(&bad, &detailed)), (1, 1));
    assert_eq!((code("[x", &[]), code("[x", &detailed)), (2, 1));
    assert_eq!(lab.client.run(&["plan", "/nowhere/file", "--detailed-exitcode"]).code, 1);
    assert_eq!(lab.client.run(&["deploy", "--dry-run", "--detailed-exitcode", &file(&other)]).code, 2);
    assert_eq!(pids(&lab.client.status()), before);
}

#[test]
fn a_configuration_that_is_wrong_in_ten_places_is_told_all_ten_at_once() {
    let fleet = Fleet::with_nodes();
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port();
    let plain = fleet.scene.write("plain", "#!/bin/sh\n");
    std::fs::set_permissions(&plain, PermissionsExt::from_mode(0o644)).unwrap();
    let foreign = fleet.scene.write("foreign", "#!/nowhere/interpreter\n");
    std::fs::set_permissions(&foreign, PermissionsExt::from_mode(0o755)).unwrap();
    let (plain, foreign) = (plain.display(), foreign.display());
    let sections = [
        sleeper("on-a", "instance = a"),
        sleeper("user", "instance = a\nuser = no-such-user"),
        "[program]\ninstance = a\ncommand = /nowhere/program\n".into(),
        format!("[plain]\ninstance = b\ncommand = {plain}\n"),
        format!("[foreign]\ninstance = b\ncommand = {foreign}\n"),
        sleeper("port", &format!("instance = b\nport = {port}")),
        sleeper("directory", "instance = a\ndirectory = /dev/null"),
        sleeper("file", "instance = a\nenv_file = /nowhere/env"),
        sleeper("cpu", "instance = a\ncpu_affinity = 1000"),
        "[nothing]\ninstance = b\ncommand = no-such-program-anywhere\n".into(),
        sleeper("lost", "instance = nobody"),
    ];
    let file = fleet.file(&["a", "b", "nobody"], &sections);
    let before = as_it_is(&fleet.client);
    let plan = planned(&fleet.client, &[file.to_str().unwrap()], 1);
    let said: Vec<String> = plan
        .outcomes
        .iter()
        .map(|outcome| {
            let who = outcome.node.as_ref().or(outcome.instance.as_ref()).unwrap();
            format!("{who}: {}", outcome.error.as_ref().unwrap())
        })
        .collect();
    let taken = format!("port: port {port}/tcp is taken by another program: choose another, or stop that one");
    let wanted = [
        "cpu: cannot run on CPUs 1000: 1000 is not among those",
        "directory: cannot change to directory /dev/null: Not a directory",
        "file: cannot read the variables in /nowhere/env: No such file",
        &format!("foreign: cannot run `{foreign}`: its interpreter `/nowhere/interpreter` does not exist"),
        "nothing: cannot run `no-such-program-anywhere`: No such file",
        &format!("plain: cannot run `{plain}`: Permission denied"),
        &taken,
        "program: cannot run `/nowhere/program`: No such file",
        "user: user `no-such-user` does not exist",
        "nobody: no agent of that name is connected: start one, or mend the name",
    ];
    assert_eq!(said.len(), wanted.len(), "{said:#?}");
    said.iter().zip(wanted).for_each(|(said, wanted)| assert!(said.starts_with(wanted), "{said} is not {wanted}"));
    let shown = fleet.client.run(&["plan", file.to_str().unwrap()]);
    assert!(shown.stdout.contains("cannot user on a: user `no-such-user` does not exist"), "{shown:?}");
    assert!(shown.stdout.ends_with("plan: it cannot be deployed as it is: 10 complaints\n"), "{shown:?}");
    assert_eq!(as_it_is(&fleet.client), before);
}

#[test]
fn what_is_wrong_with_the_file_and_on_the_machines_is_said_together() {
    let lab = Lab::start(Some(&sleeper("same", "")));
    lab.client.wait_for_all("RUNNING");
    let text = sleeper("same", "")
        + "[typo]\ncommand = sleep 9\nreday = settle 1s\n[twice]\ncommand = sleep 9\nport = 0\n[bad]\ncommand = /nowhere/x\n";
    let file = lab.scene.write("next.cfg", &text);
    let plan = planned(&lab.client, &[file.to_str().unwrap()], 2);
    assert_eq!(plan.complaints.len(), 2, "{plan:?}");
    assert!(plan.complaints[0].contains("next.cfg:7: [typo] reday: "), "{plan:?}");
    assert!(plan.complaints[1].contains("next.cfg:10: [twice] port: "), "{plan:?}");
    let errors: Vec<_> = plan.outcomes.iter().map(|outcome| outcome.error.as_deref().unwrap()).collect();
    assert_eq!(errors, ["cannot run `/nowhere/x`: No such file or directory (os error 2)"]);
    assert_eq!(plan.nodes, [], "what was not understood would seem to be stopped");
    let shown = lab.client.run(&["plan", file.to_str().unwrap()]);
    assert!(shown.stdout.starts_with("wrong ") && shown.stdout.ends_with("3 complaints\n"), "{shown:?}");
}

#[test]
fn a_port_that_the_nodes_own_process_has_is_not_taken() {
    let python = "import socket, time; s = socket.create_server((\"127.0.0.1\", PORT)); print(\"set\", flush=True); time.sleep(1000)";
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = |keys: &str| {
        let program = python.replace("PORT", &port.to_string());
        format!("[server]\ncommand = python3 -c '{program}'\nport = {port}\nready = tcp {port}\n{keys}\n")
    };
    let lab = Lab::start(Some(&text("")));
    let before = pids(&lab.client.wait_for_all("RUNNING"));
    let file = lab.scene.write("next.cfg", &text("env = A=b"));
    let plan = planned(&lab.client, &[file.to_str().unwrap()], 0);
    assert_eq!((plan.nodes[0].action.as_str(), plan.nodes[0].keys.as_slice()), ("restart", &["env".to_owned()][..]));
    assert_eq!(pids(&lab.client.status()), before);
    // Once it is stopped, whoever listens there is a stranger.
    assert!(lab.client.order("stop", &[]).ok);
    let _stranger = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let plan = planned(&lab.client, &[file.to_str().unwrap()], 1);
    assert!(plan.outcomes[0].error.as_deref().unwrap().starts_with(&format!("port {port}/tcp is taken")), "{plan:?}");
}

#[test]
fn a_plan_that_was_saved_is_carried_out_unless_the_cluster_has_changed_since() {
    let lab = Lab::start(Some(&sleeper("same", "")));
    lab.client.wait_for_all("RUNNING");
    let file = lab.scene.write("next.cfg", &(sleeper("same", "") + &sleeper("planned", "")));
    let path = lab.scene.path("p.json").display().to_string();
    let answer = lab.client.run(&["plan", file.to_str().unwrap(), "--out", &path]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(
        answer.stderr.contains(&format!("saved: carry it out with `watchpost deploy --plan {path}`")),
        "{answer:?}"
    );
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    // The file is not read again.
    std::fs::write(&file, "").unwrap();
    let done = lab.client.run(&["deploy", "--plan", &path]);
    assert_eq!((done.code, done.stdout.contains(": 2 nodes")), (0, true), "{done:?}");
    let first = lab.client.wait_for_all("RUNNING");
    assert_eq!(pids(&first).len(), 2);

    let late = lab.client.run(&["deploy", "--plan", &path]);
    let was = serde_json::from_str::<serde_json::Value>(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let (was, now) = (was["plan"]["deployed"].as_str().unwrap().to_owned(), first.configuration.clone().unwrap());
    assert_eq!(late.code, 1, "{late:?}");
    for line in [
        format!(
            "failed controller: the cluster has changed since this was planned: configuration {now} is deployed now, \
             configuration {was} was then"
        ),
        "not deployed".into(),
        "  what it would do is not the same any more:".into(),
        format!("  planned on {}: keep now, start (new) then", node(&first, "planned").instance),
    ] {
        assert!(late.stdout.lines().any(|said| said == line), "{line}: {late:?}");
    }
    assert_eq!((pids(&lab.client.status()), lab.client.status().configuration), (pids(&first), first.configuration));

    let other = lab.scene.write("other.json", "{}").display().to_string();
    let refused = lab.client.run(&["deploy", "--plan", &other]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("it is not what `watchpost plan --out` writes"), "{refused:?}");
}

#[test]
fn a_plan_is_saved_in_a_file_and_waits_for_nobody_to_read_it_elsewhere() {
    let lab = Lab::start(Some(&sleeper("same", "")));
    lab.client.wait_for_all("RUNNING");
    let file = lab.scene.write("next.cfg", &sleeper("same", ""));
    let fifo = lab.scene.path("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    // The output of a command is a pipe, too.
    for out in ["/dev/stdout", "/dev/null", fifo.to_str().unwrap(), lab.scene.path("").to_str().unwrap()] {
        let answer = lab.client.run(&["plan", file.to_str().unwrap(), "--out", out]);
        assert_eq!((answer.code, &*answer.stdout), (2, ""), "{out}: {answer:?}");
        assert!(answer.stderr.contains("it is no file: a plan is kept in one"), "{out}: {answer:?}");
    }
}

#[test]
fn a_plan_is_carried_out_in_the_way_that_it_was_made_for() {
    let mut fleet = Fleet::with_nodes();
    fleet.agent_mut("b").kill();
    fleet.client.wait("b is gone", |status| status.nodes.iter().any(|node| node.state == "UNKNOWN"));
    let nodes = [("on-a", "a"), ("on-b", "b"), ("also-b", "b"), ("on-c", "c"), ("new", "b")];
    let nodes = nodes.map(|(name, instance)| sleeper(name, &format!("instance = {instance}")));
    let file = fleet.file(&["a", "b", "c"], &nodes);
    let path = file.to_str().unwrap();
    assert_eq!(planned(&fleet.client, &[path], 4).outcomes.len(), 1, "it would be waited for in vain");
    let saved = fleet.scene.path("p.json").display().to_string();
    let plan = planned(&fleet.client, &[path, "--without", "b", "--all-at-once", "--out", &saved], 0);
    assert_eq!(plan.steps.iter().map(|step| &*step.phase).collect::<Vec<_>>(), ["committing"], "{plan:?}");
    let dry = fleet.client.run(&["deploy", "--dry-run", path, "--without", "b", "--detailed-exitcode"]);
    assert_eq!(dry.code, 2, "{dry:?}");
    // It says so itself.
    for other in [&["--without", "c"][..], &["--all-at-once"], &["--dry-run"], &["--attach"], &[path]] {
        let refused = fleet.client.run(&[&["deploy", "--plan", &saved], other].concat());
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains("cannot be used with"), "{refused:?}");
    }
    let done = fleet.client.run(&["deploy", "--plan", &saved]);
    assert_eq!(done.code, 0, "nobody waits for b: {done:?}");
    fleet.agent_mut("b").start_again();
    fleet.client.wait_for("new", "RUNNING");
}

#[test]
fn whoever_carries_out_a_plan_beside_a_deployment_hears_of_that_alone() {
    let (fleet, _) = crate::phases::red();
    let saved = fleet.scene.path("p.json").display().to_string();
    let next = crate::phases::cluster(&fleet, "green", "");
    assert_eq!(fleet.client.run(&["plan", next.to_str().unwrap(), "--out", &saved]).code, 0);
    let reserved = crate::common::Reserved::new();
    let file = crate::phases::cluster(&fleet, "blue", &crate::phases::slow(&reserved));
    let keep = ["deploy", "--detach", "--on-failure", "keep", file.to_str().unwrap()];
    assert_eq!(fleet.client.run(&keep).code, 0);
    // It is decided before anything is switched, so something else is deployed by now.
    fleet.client.wait("it is decided", |status| {
        status.deployment.as_ref().is_some_and(|present| present.verdict == "deployed")
    });
    let refused = fleet.client.run(&["deploy", "--plan", &saved]);
    let lines: Vec<_> = refused.stdout.lines().collect();
    assert!(refused.code == 1 && lines.len() == 2 && lines[1] == "not deployed", "{refused:?}");
    assert!(lines[0].starts_with("failed controller: deployment 2 is under way, by "), "{refused:?}");
    assert_eq!(refused.stderr, "");
    let _listener = reserved.listen();
    fleet.client.wait_for_all("RUNNING");
}

#[test]
fn whoever_asks_wrongly_is_shown_what_is_missing_and_not_what_the_environment_gave() {
    let scene = Scene::new();
    let mut command = scene.watchpost(&["deploy"]);
    command.env("WATCHPOST_CONTROLLER", "http://127.0.0.1:1").env("WATCHPOST_TOKEN_FILE", "/nowhere");
    let answer = crate::common::Answer::of(command.output().unwrap());
    assert_eq!(answer.code, 2, "{answer:?}");
    assert!(answer.stderr.contains("Usage: watchpost deploy <FILE>"), "{answer:?}");
    assert!(!answer.stderr.contains("--controller") && !answer.stderr.contains("--token-file"), "{answer:?}");
}

#[test]
fn whoever_asks_before_anything_was_deployed_is_told_so() {
    let scene = Scene::new();
    let any = scene.any_port();
    let controller = Daemon::start(&scene, "controller", &["controller", "--listen", &any, "--http", &any]);
    let client = controller.client();
    for (args, said, json) in [
        (&["history"][..], "nothing was deployed yet: `watchpost deploy FILE` does it\n", "{\"deployments\":[]}\n"),
        (&["deploy", "--attach"], "no deployment is under way: `watchpost history` shows those before\n", "null\n"),
    ] {
        let told = client.run(args);
        assert_eq!((told.code, &*told.stdout, &*told.stderr), (0, "", said), "{args:?}");
        let told = client.run(&[args, &["--json"]].concat());
        assert_eq!((told.code, &*told.stdout), (0, json), "{args:?}");
    }
}

#[test]
fn an_agent_of_a_release_that_knows_no_plans_is_answered_for() {
    let scene = Scene::new();
    let any = scene.any_port();
    let controller = Daemon::start(&scene, "controller", &["controller", "--listen", &any, "--http", &any]);
    let client = controller.client();
    let mut agent = Peer::connect(controller.addresses()["agents"]);
    agent.greet(greeting(LinkRole::Agent, "old", scene.cluster()));
    agent.hello("old");
    let playing = std::thread::spawn(move || {
        loop {
            match agent.next() {
                Said::ToAgent(ToAgent::AgentWelcomeRequest(AgentWelcomeRequest { reqid })) => {
                    let outcome = Outcome::instance_done(&InstanceName::new("old").unwrap());
                    agent.say(AgentWelcomeResponse { reqid, outcome });
                }
                Said::ToAgent(ToAgent::CheckConfigurationRequest(CheckConfigurationRequest { reqid, .. })) => {
                    agent.say(CheckConfigurationResponse { reqid, outcomes: Vec::new(), changes: Vec::new() });
                }
                Said::ToAgent(ToAgent::CommitConfigurationRequest(CommitConfigurationRequest { reqid, .. })) => {
                    agent.say(SetConfigurationResponse { reqid, outcomes: Vec::new() });
                }
                Said::ToAgent(ToAgent::InspectConfigurationRequest(_)) => {
                    agent.send(&framed(&Control::from(NotUnderstood { kind: InspectConfigurationRequest::KIND })));
                    return agent;
                }
                _ => {}
            }
        }
    });
    let instances = "[instances]\nold\n";
    let file = scene.write("next.cfg", &(instances.to_owned() + &sleeper("here", "instance = old")));
    client.wait("the agent is there", |status| !status.instances.is_empty());
    assert!(client.deploy(&file).ok);
    let text = instances.to_owned() + &sleeper("here", "instance = old") + &sleeper("more", "instance = old");
    std::fs::write(&file, text).unwrap();
    let plan = planned(&client, &[file.to_str().unwrap()], 0);
    assert_eq!(actions(&plan), ["here old keep", "more old start"]);
    let why = plan.instances[0].unchecked.as_deref().unwrap();
    assert!(why.starts_with("its agent does not know `inspect_configuration_request`: it runs watchpost "), "{why}");
    drop(playing.join().unwrap());
}

#[test]
fn a_zeek_cluster_is_looked_at_by_zeek_itself_and_nothing_of_it_is_touched() {
    let scene = Scene::new();
    let zeek = Zeek::stand_in(&scene, "8.0.10");
    let any = scene.any_port();
    let start = scene.write("lab.cfg", "[instances]\na\n");
    let lab = Daemon::start_with(&scene, "lab", &["lab", start.to_str().unwrap(), "--http", &any], &zeek.settings());
    let client = lab.client();
    client.wait("nothing to be deployed", |status| status.deploying.is_none() && status.configuration.is_some());
    let first = crate::common::zeek::ports();
    let cluster = |more: &str, nodes: &[&str]| crate::zeek::cluster(first, more, nodes).replace("\nb\n", "\n");
    let write = |text: &str| scene.write("next.cfg", text).display().to_string();
    let three = ["manager a", "logger a", "worker-1 a"];
    client.deployed(&scene.write("next.cfg", &cluster("", &three)));
    let before = client.wait_for_all("RUNNING");
    let in_force = || {
        let nodes = lab.state_dir().join("nodes").join("a");
        std::fs::read_link(nodes.join(".zeek-a/current")).unwrap()
    };
    let (events, current) = (client.events().len(), in_force());

    let plan = planned(&client, &[&write(&cluster("", &["manager a", "logger a", "worker-1 a", "worker-2 a"]))], 0);
    let why = "worker-2 joined the cluster";
    assert_eq!(
        actions(&plan),
        [
            &*format!("logger a restart {why}"),
            &*format!("manager a restart {why}"),
            "worker-1 a keep",
            "worker-2 a start",
        ]
    );

    let script = scene.write("broken.zeek", "event zeek_init()\n\t{\n\tSYNTAX ERROR\n\t}\n");
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port();
    let broken = cluster("", &[&three[..], &["proxy a"]].concat())
        .replace("[worker-1]\n", "[worker-1]\nuser = no-such-user\n")
        .replace("interface = lo", "interface = nowhere0")
        .replace("[proxy]\n", &format!("[proxy]\nport = {port}\nscripts = {}\n", script.display()));
    let plan = planned(&client, &[&write(&broken)], 1);
    let mut errors: Vec<_> = plan.outcomes.iter().map(|outcome| outcome.error.as_deref().unwrap()).collect();
    errors.sort_unstable();
    let wanted = [
        format!("Zeek does not accept it: error in {}, line 3: ", script.display()),
        "interface `nowhere0` is not there: this machine has ".into(),
        format!("port {port}/tcp is taken by another program: "),
        "user `no-such-user` does not exist".into(),
    ];
    assert_eq!(errors.len(), wanted.len(), "{errors:#?}");
    errors.iter().zip(&wanted).for_each(|(error, wanted)| assert!(error.starts_with(wanted), "{errors:#?}"));

    assert_eq!(client.status(), Status { seq: client.status().seq, ..before });
    assert_eq!((client.events().len(), in_force()), (events, current), "what is in force is as it was");
    let nodes = lab.state_dir().join("nodes").join("a");
    assert!(!nodes.join("proxy").exists() && !nodes.join("worker-2").exists(), "and nothing was made for what is new");
}

#[test]
fn files_of_zeeks_other_tools_are_planned_as_they_are() {
    let scene = Scene::new();
    let zeek = Zeek::stand_in(&scene, "8.0.10");
    let any = scene.any_port();
    let start = scene.write("lab.cfg", "[instances]\na\n");
    let lab = Daemon::start_with(&scene, "lab", &["lab", start.to_str().unwrap(), "--http", &any], &zeek.settings());
    let file = scene.write("node.cfg", "[zeek]\ntype = standalone\nhost = localhost\ninterface = nowhere0\n");
    let answer = lab.client().run(&["plan", file.to_str().unwrap(), "--json"]);
    let plan: Plan = serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
    assert_eq!(plan.nodes.iter().filter(|node| node.action == "start").count(), 1, "{plan:?}");
}
