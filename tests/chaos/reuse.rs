//! A number that was a node's and is somebody else's when the agent returns.

use rustix::process::Signal;

use crate::common::{Lab, apart, changes, check_log, eventually, node, pids, processes, sleeper};
use crate::numbers::{self, Bystander};

#[test]
fn a_stranger_that_got_a_dead_nodes_number_is_not_signalled_by_the_agent_that_returns() {
    apart::as_init("reuse::a_stranger_that_got_a_dead_nodes_number_is_not_signalled_by_the_agent_that_returns", || {
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
        bystander.is_unhurt();
    });
}
