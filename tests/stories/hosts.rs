//! Machines of their own, as network namespaces: what the network between them may do without anything being lost.
//!
//! The controller lives in the test's own namespace, each agent in another one at the end of a cable. Everything is secured
//! by certificates, as it would be between machines.

use rustix::process::Signal;
use watchpost::web::history::History;
use watchpost::web::json::Status;

use crate::common::{Answer, changes, check_log, epochs, eventually, node, path, pids, processes, sleeper};
use crate::network::{Site, alone, pki};

#[test]
fn nomad_10953_a_cable_that_is_cut_for_long_loses_and_doubles_nothing() {
    alone("hosts::nomad_10953_a_cable_that_is_cut_for_long_loses_and_doubles_nothing", || {
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
fn nomad_12680_a_network_that_loses_one_direction_is_found_out_and_replaces_nobody() {
    alone("hosts::nomad_12680_a_network_that_loses_one_direction_is_found_out_and_replaces_nobody", || {
        let site = Site::start(&["s1"]);
        let before = pids(&deployed(&site));
        // What the agent sends is lost; what the controller sends would still arrive.
        site.deafen("s1");
        site.client.wait_for("on-s1", "UNKNOWN");
        assert!(processes::is_alive(before["on-s1"]));
        site.hear_again("s1");
        let after = site.client.wait_for_all("RUNNING");
        assert_eq!(pids(&after), before);
        let events = site.client.events();
        check_log(&events);
        assert!(path(&changes(&events, "on-s1")).ends_with("RUNNING UNKNOWN RUNNING"), "{events:#?}");
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

#[test]
fn from_another_machine_a_certificate_or_a_token_opens_the_api_over_tls_and_nothing_else_does() {
    alone("hosts::from_another_machine_a_certificate_or_a_token_opens_the_api_over_tls_and_nothing_else_does", || {
        let mut site = Site::start(&["s1"]);
        deployed(&site);
        let path = |name: &str| site.scene.path(name).to_str().unwrap().to_owned();
        let (home, ca) = (path("controller"), path("controller/trust/ca.pem"));
        let (papers, token, url) = (path("olga"), path("eve.token"), site.api("s1", "https"));
        pki(&site.scene, &["issue", "client", "olga", "--out", &papers]);
        let make = ["token", "create", "eve", "--state-dir", &home, "--out", &token];
        assert_eq!(here(&site, &make).code, 0);
        let by_certificate = ["--controller", &url, "--certificate", &papers];
        let by_token = ["--controller", &url, "--token-file", &token, "--ca", &ca];
        let elsewhere = |site: &Site, args: &[&str], how: &[&str]| site.run_on("s1", &[args, how].concat());

        let answer = elsewhere(&site, &["status"], &by_certificate);
        assert!(answer.code == 0 && answer.stdout.contains("on-s1"), "{answer:?}");
        assert_eq!(elsewhere(&site, &["stop", "on-s1"], &by_certificate).code, 0);
        assert_eq!(elsewhere(&site, &["status"], &by_token).code, 0);
        let answer = elsewhere(&site, &["start", "on-s1"], &by_token);
        assert!(answer.code == 5 && answer.stderr.contains("token `eve` may observe and not operate"), "{answer:?}");

        let local = path("controller/token");
        let answer = elsewhere(&site, &["status"], &["--controller", &url, "--token-file", &local, "--ca", &ca]);
        assert!(answer.code == 5 && answer.stderr.contains("on the controller's own machine only"), "{answer:?}");
        let answer = elsewhere(&site, &["status"], &["--controller", &site.api("s1", "http"), "--token-file", &token]);
        assert!(answer.code == 2 && answer.stderr.contains("begin the address with https://"), "{answer:?}");
        let answer = elsewhere(&site, &["status"], &["--controller", &url, "--ca", &ca]);
        assert!(answer.code == 5 && answer.stderr.contains("a certificate or a token is needed"), "{answer:?}");

        // Once over, for the name that has both; from then on, also behind a restart.
        let make = ["token", "create", "olga", "--role", "operate", "--state-dir", &home];
        let printed = here(&site, &make).stdout;
        pki(&site.scene, &["revoke", "client", "olga", "--state-dir", &home]);
        assert!(!here(&site, &["token", "list", "--state-dir", &home]).stdout.contains("olga"));
        for _ in 0..2 {
            let answer = elsewhere(&site, &["status"], &by_certificate);
            assert!(answer.code == 5 && answer.stderr.contains("CertificateRevoked"), "{answer:?}");
            let spared = elsewhere(&site, &["status"], &by_token);
            assert!([0, 4].contains(&spared.code), "others are spared, whether the agent is back or not: {spared:?}");
            site.controller.kill();
            site.controller.start_again();
        }
        assert_eq!(here(&site, &["token", "revoke", "eve", "--state-dir", &home]).code, 0);
        assert_eq!(elsewhere(&site, &["status"], &by_token).code, 5);

        let log = site.controller.log();
        for line in [
            "certificate `olga` asks for POST /api/v1/nodes/stop",
            "this machine's token asks for PUT /api/v1/configuration",
            "it does not speak TLS",
            "its certificate was revoked",
        ] {
            assert!(log.contains(line), "{line} is not in {log}");
        }
        let secrets = [token, local].map(|file| std::fs::read_to_string(file).unwrap());
        for secret in secrets.iter().chain([&printed]).map(|secret| secret.trim()) {
            assert!(secret.len() >= 64 && !log.contains(secret), "the log has a secret");
        }
        assert!(!log.contains("PRIVATE KEY"));
    });
}

#[test]
fn the_history_names_the_certificate_or_token_that_deployed_and_where_from() {
    alone("hosts::the_history_names_the_certificate_or_token_that_deployed_and_where_from", || {
        let site = Site::start(&["s1"]);
        let from = host(&deployed(&site));
        let path = |name: &str| site.scene.path(name).to_str().unwrap().to_owned();
        let (home, ca, file) = (path("controller"), path("controller/trust/ca.pem"), path("site.cfg"));
        let (papers, token, url) = (path("olga"), path("otto.token"), site.api("s1", "https"));
        pki(&site.scene, &["issue", "client", "olga", "--out", &papers]);
        let make = ["token", "create", "otto", "--role", "operate", "--state-dir", &home, "--out", &token];
        assert_eq!(here(&site, &make).code, 0);
        let by_certificate = ["--controller", &url, "--certificate", &papers];
        let by_token = ["--controller", &url, "--token-file", &token, "--ca", &ca];
        for how in [&by_certificate[..], &by_token[..]] {
            let answer = site.run_on("s1", &[&["deploy", &file], how].concat());
            assert_eq!(answer.code, 0, "{answer:?}");
        }
        let history: History = site.client.ask(&["history"]);
        let who: Vec<_> = history.deployments.iter().map(|past| &*past.who).collect();
        assert_eq!(who, ["this machine's token", "certificate `olga`", "token `otto`"]);
        let places: Vec<_> = history.deployments.iter().map(|past| past.from.as_deref().unwrap()).collect();
        assert!(places[0].starts_with("127.") && places[1..] == [&*from, &*from], "{places:?}");
        let shown = site.client.run(&["history", "show", "3"]).stdout;
        assert!(shown.contains(&format!("who           token `otto` from {from}\n")), "{shown}");
    });
}

fn here(site: &Site, args: &[&str]) -> Answer {
    Answer::of(site.scene.watchpost(args).output().unwrap())
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
