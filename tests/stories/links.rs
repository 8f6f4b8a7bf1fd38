//! Links that are cut while something is asked on them, and agents that are not the only one of their name.

use std::fs;
use std::path::Path;

use crate::cable::Cable;
use crate::common::{Daemon, Fleet, changes, check_log, eventually, node, path, pids, script};

#[test]
fn a_restart_whose_link_is_cut_restarts_once_and_its_client_hears_of_it() {
    let mut fleet = Fleet::start();
    let cable = Cable::lay(&fleet.scene.any_port(), fleet.controller.addresses()["agents"]);
    let agent = Daemon::start(&fleet.scene, "far", &["agent", "--name", "far", "--connect", &cable.end]);
    fleet.agents.insert("far", agent);
    // It takes its time to end, in which the cable is cut.
    let slow = "trap \"echo ending; sleep 1; exit\" TERM\necho up\nwhile :; do sleep 0.1; done";
    let nodes = [script("slow", "instance = far", slow)];
    fleet.client.deployed(&fleet.file(&["far"], &nodes));
    fleet.client.wait_for_all("RUNNING");
    for cuts in 1..=3 {
        let before = pids(&fleet.client.status())["slow"];
        let output = fleet.agents["far"].state_dir().join("nodes/slow/stdout");
        let ordering = std::thread::spawn({
            let client = fleet.client.clone();
            move || client.order("restart", &["slow"])
        });
        eventually("the node is on its way down", || {
            fs::read_to_string(&output).is_ok_and(|text| text.contains("ending")).then_some(())
        });
        (0..cuts).for_each(|_| cable.cut());
        let verdict = ordering.join().unwrap();
        assert!(verdict.ok, "{verdict:?}");
        let status = fleet.client.wait_for_all("RUNNING");
        assert_ne!(pids(&status)["slow"], before);
        let events = fleet.client.events();
        check_log(&events);
        let launches = path(&changes(&events, "slow")).matches("PENDING").count();
        assert_eq!(launches, 1 + cuts, "once by the deployment, and once by each restart");
    }
    assert!(fleet.controller.log().matches("link up").count() > 5, "it was cut, and made again");
}

#[test]
fn an_agent_with_a_copy_of_another_s_state_is_refused_and_the_other_undisturbed() {
    let fleet = Fleet::with_nodes();
    let before = fleet.client.status();
    copy(&fleet.agents["a"].state_dir(), &fleet.scene.path("copy"));
    let second = fleet.agent("copy", "a");
    let host = node_host(&before);
    let words = format!("the controller refused this agent: instance `a` is taken by an agent at {host} since");
    // It tries on, in case the first one goes, and says once why it has no link.
    eventually("the copy is refused, and again", || {
        let log = second.log();
        (log.contains(&words) && log.matches("link up").count() >= 2).then_some(())
    });
    assert_eq!(second.log().matches(&words).count(), 1);
    let after = fleet.client.status();
    assert_eq!(after.instances, before.instances, "the first one has its link");
    assert_eq!(node(&after, "on-a"), node(&before, "on-a"));
    check_log(&fleet.client.events());
    assert!(!fleet.agents["a"].log().contains("link down"), "it has not heard of the other");
}

fn node_host(status: &watchpost::web::json::Status) -> String {
    status.instances.iter().find(|instance| instance.name == "a").and_then(|instance| instance.host.clone()).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &to),
            false => drop(fs::copy(&path, &to).unwrap()),
        }
    }
}
