//! A controller that is lost in the middle of a deployment, or the way to it: whoever deploys finds out what came of it.

use std::thread::{self, JoinHandle};

use rustix::process::Signal;
use watchpost::web::history::Deployed;

use crate::cable::Cable;
use crate::common::{Answer, Client, Fleet, Reserved};
use crate::phases::{all, cluster, colours, is_red_again, last, red, slow};
use crate::terminal::Terminal;

/// A deployment that waits for a node of `c` to become ready, given by that client.
fn deploying(fleet: &Fleet, client: &Client, reserved: &Reserved, args: &[&str]) -> JoinHandle<Answer> {
    let file = cluster(fleet, "blue", &slow(reserved));
    let mut command = client.command(&[&["deploy", file.to_str().unwrap()], args].concat());
    let answer = thread::spawn(move || Answer::of(command.output().unwrap()));
    is_under_way(fleet);
    answer
}

fn is_under_way(fleet: &Fleet) {
    fleet.client.wait("the slow one is being switched", |status| {
        status.deployment.as_ref().is_some_and(|present| present.under_way.contains(&"slow".to_owned()))
    });
}

#[test]
fn whoever_deploys_finds_a_controller_that_was_killed_again_and_hears_what_it_decided_and_why() {
    let (mut fleet, before) = red();
    let reserved = Reserved::new();
    let client = fleet.client.clone();
    let why = format!(
        "rolled back: configuration {} is in force again: the controller ended in the middle of it, before it was decided",
        before.configuration.clone().unwrap()
    );
    for args in [&[][..], &["--json"]] {
        let answer = deploying(&fleet, &client, &reserved, args);
        fleet.controller.kill();
        fleet.controller.start_again();
        let answer = answer.join().unwrap();
        assert_eq!(answer.code, 1, "{answer:?}");
        is_red_again(&fleet, &before);
        // The journal has it, with what became of every node, and nobody is owing any more.
        let past = last(&fleet);
        assert_eq!((&*past.verdict, &past.owing[..], past.ended.is_some()), ("rolled-back", &[][..], true), "{past:?}");
        let shown = client.run(&["history", "show", &past.number.to_string()]).stdout;
        let line = |line: &str| shown.lines().any(|shown| shown == line);
        for name in ["moves-on-a on a", "moves-on-b on b", "moves-on-c on c"] {
            assert!(line(&format!("  as before: {name}")), "{name}: {shown}");
        }
        assert!(line(&format!("  {why}")) && !shown.contains("stays-"), "{shown}");
        if args.is_empty() {
            assert!(answer.stderr.contains("looking for it for 30s") && answer.stdout == shown, "{answer:?}");
        } else {
            let Deployed { verdict, deployment } = serde_json::from_str(&answer.stdout).unwrap();
            assert_eq!((verdict.ok, verdict.configuration, deployment), (false, None, Some(past.number)));
            assert!(verdict.outcomes.iter().any(|outcome| outcome.error.as_ref() == Some(&why)), "{answer:?}");
        }
    }
}

#[test]
fn whoever_waits_for_a_deployment_looks_for_a_controller_that_was_asked_to_end() {
    let (mut fleet, before) = red();
    let reserved = Reserved::new();
    let client = fleet.client.clone();
    let ordered = deploying(&fleet, &client, &reserved, &[]);
    let number = client.status().deployment.unwrap().number;
    let mut looks_on = Terminal::run(&client.command(&["deploy", "--attach"]), 200);
    looks_on.wait_for(&format!("deployment {number} of "));
    fleet.controller.signal(Signal::TERM);
    assert!(fleet.controller.ended().success());
    looks_on.wait_for("looking for it for 30s");
    fleet.controller.start_again();
    let ordered = ordered.join().unwrap();
    assert_eq!(ordered.code, 1, "{ordered:?}");
    for told in ["outcome       rolled-back", "the controller ended in the middle of it, before it was decided"] {
        assert!(ordered.stdout.contains(told), "{ordered:?}");
    }
    assert!(ordered.stderr.contains("looking for it for 30s"), "{ordered:?}");
    assert_eq!(looks_on.ended(), 1, "{}", looks_on.text());
    assert!(looks_on.text().contains("rolled back: configuration"), "{}", looks_on.text());
    is_red_again(&fleet, &before);
}

#[test]
fn whoever_deploys_finds_the_way_to_the_controller_again_and_sees_the_end() {
    let (fleet, _) = red();
    let reserved = Reserved::new();
    let cable = Cable::lay(&fleet.scene.any_port(), fleet.controller.addresses()["http"]);
    let far = Client::new(&fleet.scene.path(""), cable.end.parse().unwrap(), &fleet.controller.state_dir());
    let answer = deploying(&fleet, &far, &reserved, &[]);
    let number = fleet.client.status().deployment.unwrap().number;
    cable.cut();
    let mut looks_on = Terminal::run(&far.command(&["deploy", "--attach"]), 80);
    looks_on.wait_for(&format!("deployment {number} of "));
    cable.cut();
    looks_on.wait_for("looking for it for 30s");
    looks_on.wait_for(": switching");
    let _listener = reserved.listen();
    assert_eq!(looks_on.ended(), 0, "{}", looks_on.text());
    let answer = answer.join().unwrap();
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(answer.stderr.contains(&format!("deployment {number} of ")), "it has found it again: {answer:?}");
    assert!(answer.stdout.lines().any(|line| line == "outcome       deployed"), "{answer:?}");
    assert_eq!(colours(&fleet.client.wait_for_all("RUNNING")), all("blue"));
}

#[test]
fn a_deployment_of_which_a_controller_knows_nothing_any_more_is_said_not_to_have_begun() {
    let (mut fleet, before) = red();
    // One that never comes: it has touched nothing, and is written nowhere.
    let file = cluster(&fleet, "blue", "").with_file_name("more.cfg");
    let text = std::fs::read_to_string(file.with_file_name("fleet.cfg")).unwrap();
    std::fs::write(&file, text.replace("[instances]\n", "[instances]\nnobody\n")).unwrap();
    let mut command = fleet.client.command(&["deploy", file.to_str().unwrap()]);
    let answer = thread::spawn(move || Answer::of(command.output().unwrap()));
    fleet.client.wait("it is gathering", |status| {
        status.deployment.as_ref().is_some_and(|present| present.phase == "gathering")
    });
    fleet.controller.kill();
    fleet.controller.start_again();
    let answer = answer.join().unwrap();
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stderr.contains("knows of no such deployment now"), "{answer:?}");
    assert_eq!(fleet.client.status().configuration, before.configuration);
}
