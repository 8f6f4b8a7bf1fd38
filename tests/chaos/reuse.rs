//! A number that was a node's and is somebody else's when the agent returns.

use rustix::process::Signal;

use crate::common::{Lab, apart, changes, check_log, eventually, node, pids, processes, sleeper};
use crate::numbers::{self, Bystander};

#[test]
fn systemd_32115_a_stranger_with_a_stored_number_is_not_signalled_by_the_next_agent() {
    apart::as_init("reuse::systemd_32115_a_stranger_with_a_stored_number_is_not_signalled_by_the_next_agent", || {
        let mut lab = Lab::start(Some(&sleeper("one", "")));
        let before = pids(&lab.client.wait_for_all("RUNNING"))["one"];
        lab.daemon.kill();
        processes::signal(before, Signal::KILL);
        eventually("it is dead", || (!processes::is_alive(before)).then_some(()));
        // While its zombie is there nobody else can have its number.
        numbers::reap_orphans(&[]);
        let bystander = Bystander::take(before, &lab.scene.path("")).expect("its number is free");

        lab.daemon.start_again();
        let after = lab.client.wait("it runs again", |status| {
            status.nodes.iter().all(|node| node.state == "RUNNING" && node.pid != Some(before))
        });
        assert_eq!(node(&after, "one").restarts, 1, "its death was noticed, and its policy heeded");
        for verb in ["restart", "stop"] {
            assert!(lab.client.order(verb, &["one"]).ok);
        }
        bystander.is_unhurt();
        lab.scene.check_that_nothing_runs();
        let events = lab.client.events();
        check_log(&events);
        let told = changes(&events, "one");
        let dead = told.iter().find(|it| it.new.as_deref() == Some("CRASHED")).expect("it was told");
        assert_eq!((dead.pid, dead.exit.as_ref().map(|exit| exit.status)), (Some(before), Some(None)));
        let said = format!("process {before} ended while its agent was away; another process has its number now");
        assert!(events.iter().any(|it| it.msg.as_deref().is_some_and(|msg| msg.starts_with(&said))), "{events:#?}");
        bystander.is_unhurt();
    });
}

#[test]
fn nomad_17960_a_stranger_with_a_dead_nodes_pid_survives_that_its_job_is_dropped() {
    apart::as_init("reuse::nomad_17960_a_stranger_with_a_dead_nodes_pid_survives_that_its_job_is_dropped", || {
        let mut lab = Lab::start(Some(&(sleeper("gone", "") + &sleeper("stays", ""))));
        let before = pids(&lab.client.wait_for_all("RUNNING"));
        let bystander = give_away(&mut lab, before["gone"]);
        lab.daemon.start_again();
        let again = lab.client.wait_for_all("RUNNING");
        assert_eq!(pids(&again)["stays"], before["stays"]);
        let second = pids(&again)["gone"];
        let other = give_away(&mut lab, second);
        lab.daemon.start_again();
        lab.client.wait_for_all("RUNNING");
        // What is dropped is ended; whoever has its number now is not.
        let status = lab.deploy(&sleeper("stays", ""));
        assert_eq!(status.nodes.len(), 1);
        assert!(lab.scene.processes_of("gone").is_empty());
        assert_eq!(lab.scene.processes_of("stays"), [before["stays"]]);
        assert!(lab.client.order("stop", &[]).ok);
        [&bystander, &other].iter().for_each(|stranger| stranger.is_unhurt());
        check_log(&lab.client.events());
    });
}

#[test]
fn a_node_whose_zombie_nobody_ever_reaps_is_dead_all_the_same() {
    apart::as_init("reuse::a_node_whose_zombie_nobody_ever_reaps_is_dead_all_the_same", || {
        let mut lab = Lab::start(Some(&(sleeper("dies", "") + &sleeper("stopped", "") + &sleeper("restarted", ""))));
        let before = pids(&lab.client.wait_for_all("RUNNING"));
        let born: Vec<_> = before.values().map(|pid| processes::born(*pid)).collect();
        lab.daemon.kill();
        processes::signal(before["dies"], Signal::KILL);
        eventually("it is dead", || (!processes::is_alive(before["dies"])).then_some(()));

        lab.daemon.start_again();
        let after = lab.client.wait("it runs again", |status| {
            status.nodes.iter().all(|node| node.state == "RUNNING") && node(status, "dies").restarts == 1
        });
        assert_ne!(pids(&after)["dies"], before["dies"]);
        let events = lab.client.events();
        let told = changes(&events, "dies");
        let dead = told.iter().find(|it| it.new.as_deref() == Some("CRASHED")).expect("it was told");
        assert_eq!((dead.pid, dead.exit.as_ref().and_then(|exit| exit.signal)), (Some(before["dies"]), Some(9)));

        // These were taken up, and are nobody's children but ours as well.
        assert!(lab.client.order("stop", &["stopped"]).ok && lab.client.order("restart", &["restarted"]).ok);
        assert_eq!(lab.client.wait_for("stopped", "STOPPED").pid, None);
        assert_ne!(lab.client.wait_for("restarted", "RUNNING").pid, Some(before["restarted"]));
        lab.daemon.kill();
        lab.daemon.start_again();
        let again = pids(&lab.client.wait_for_all("RUNNING"));
        assert!(before.iter().all(|(name, pid)| again[name] != *pid), "it knows who is dead: {again:?}");
        check_log(&lab.client.events());
        let still: Vec<_> = before.values().map(|pid| processes::born(*pid)).collect();
        assert_eq!(still, born, "nobody reaped them");
        assert!(before.values().all(|pid| !processes::is_alive(*pid)), "and nobody took them for alive");
        assert!(lab.client.order("stop", &[]).ok);
        lab.scene.check_that_nothing_runs();
    });
}

/// Kills the lab, and then a node of it whose number somebody else gets.
fn give_away(lab: &mut Lab, number: u32) -> Bystander {
    lab.daemon.kill();
    processes::signal(number, Signal::KILL);
    eventually("it is dead", || (!processes::is_alive(number)).then_some(()));
    numbers::reap_orphans(&[]);
    Bystander::take(number, &lab.scene.path("")).expect("its number is free")
}
