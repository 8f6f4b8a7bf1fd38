//! Machines of their own, as network namespaces: what the network between them may do without anything being lost.
//!
//! The controller lives in the test's own namespace, each agent in another one at the end of a cable. Everything is secured
//! by certificates, as it would be between machines.

use rustix::process::Signal;
use watchpost::web::json::Status;

use crate::common::{changes, check_log, epochs, eventually, node, path, pids, processes, sleeper};
use crate::network::{Site, alone};

#[test]
fn a_cable_that_is_cut_for_long_loses_and_doubles_nothing() {
    alone("hosts::a_cable_that_is_cut_for_long_loses_and_doubles_nothing", || {
        let site = Site::start(&["s1", "s2"]);
        let before = pids(&deployed(&site));
        let shown = site.client.events().len();
        site.cut("s1");
        let lost = site.client.wait_for("on-s1", "UNKNOWN");
        assert!(lost.reason.contains("nothing was heard from the peer"), "{}", lost.reason);
        let second = killed(&site, "on-s1", before["on-s1"]);
        let third = killed(&site, "on-s1", second);
        assert_eq!(node(&site.client.status(), "on-s1").state, "UNKNOWN", "nobody can know");

        site.mend("s1");
        let after = site.client.wait_for_all("RUNNING");
        assert_eq!(pids(&after)["on-s1"], third);
        assert_eq!(pids(&after)["beside-s1"], before["beside-s1"], "no other node is touched");
        assert_eq!(pids(&after)["on-s2"], before["on-s2"]);
        let events = site.client.events();
        check_log(&events);
        let told = changes(&events[shown..], "on-s1");
        let way = path(&told);
        assert_eq!(way.matches("CRASHED").count(), 2, "each death is told, once: {way}");
        let dead: Vec<_> = told.iter().filter(|change| change.new.as_deref() == Some("CRASHED")).collect();
        assert_eq!(dead.iter().map(|change| change.pid).collect::<Vec<_>>(), [Some(before["on-s1"]), Some(second)]);
        assert_eq!(path(&changes(&events[shown..], "on-s2")), "", "the other machine notices nothing");
    });
}

#[test]
fn a_network_that_loses_one_direction_is_found_out() {
    alone("hosts::a_network_that_loses_one_direction_is_found_out", || {
        let site = Site::start(&["s1"]);
        let before = pids(&deployed(&site));
        // What the agent sends is lost; what the controller sends would still arrive.
        site.deafen("s1");
        site.client.wait_for("on-s1", "UNKNOWN");
        assert!(processes::is_alive(before["on-s1"]));
        site.hear_again("s1");
        let after = site.client.wait_for_all("RUNNING");
        assert_eq!(pids(&after), before);
        check_log(&site.client.events());
    });
}

#[test]
fn an_agent_whose_address_changes_comes_back_under_the_new_one() {
    alone("hosts::an_agent_whose_address_changes_comes_back_under_the_new_one", || {
        let site = Site::start(&["s1"]);
        let before = pids(&deployed(&site));
        let old = host(&site.client.status());
        // The connection hangs: nobody can say that it is over.
        let new = site.readdress("s1");
        let after = site.client.wait("it is known under its new address", |status| {
            host(status) == new && status.nodes.iter().all(|node| node.state == "RUNNING")
        });
        assert_ne!(old, new);
        assert_eq!(pids(&after), before);
        check_log(&site.client.events());
    });
}

#[test]
fn a_controller_that_is_killed_while_nodes_die_hears_of_all_of_it() {
    alone("hosts::a_controller_that_is_killed_while_nodes_die_hears_of_all_of_it", || {
        let mut site = Site::start(&["s1", "s2"]);
        let before = pids(&deployed(&site));
        site.controller.kill();
        let second = killed(&site, "on-s1", before["on-s1"]);
        site.controller.start_again();
        let after = site.client.wait_for_all("RUNNING");
        assert_eq!(pids(&after)["on-s1"], second);
        assert_eq!(pids(&after)["on-s2"], before["on-s2"]);
        let events = site.client.events();
        check_log(&events);
        let told = changes(&events, "on-s1");
        assert!(path(&told).contains("RUNNING UNKNOWN CRASHED PENDING"), "{}", path(&told));
        assert_eq!(epochs(&events).len(), 2, "a controller that was killed begins an epoch");
        assert_eq!(told.iter().filter(|change| change.new.as_deref() == Some("CRASHED")).count(), 1);
    });
}

/// Two nodes on the first machine and one on each other.
fn deployed(site: &Site) -> Status {
    let on = |name: &&str| sleeper(&format!("on-{name}"), &format!("instance = {name}"));
    let mut nodes: String = site.agents.keys().map(on).collect();
    let first = site.agents.keys().next().unwrap();
    nodes += &sleeper(&format!("beside-{first}"), &format!("instance = {first}"));
    let instances: String = site.agents.keys().map(|name| format!("{name}\n")).collect();
    site.client.deployed(&site.scene.write("site.cfg", &format!("[instances]\n{instances}\n{nodes}")));
    site.client.wait_for_all("RUNNING")
}

/// Kills the process of a node, and returns the one that its agent put in its place.
fn killed(site: &Site, name: &str, pid: u32) -> u32 {
    processes::signal(pid, Signal::KILL);
    eventually(&format!("{name} is back"), || match site.scene.processes_of(name)[..] {
        [now] if now != pid => Some(now),
        _ => None,
    })
}

fn host(status: &Status) -> String {
    status.instances[0].host.clone().unwrap_or_default()
}
