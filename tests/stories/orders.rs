//! What people order: start, stop, restart, and a look at what a node wrote.

use crate::common::{Fleet, Lab, changes, check_log, eventually, path, pids, script, sleeper, states};

#[test]
fn nodes_are_started_stopped_and_restarted_by_name_or_all_together() {
    let fleet = Fleet::with_nodes();
    let first = pids(&fleet.client.status());
    assert!(fleet.client.order("stop", &["on-a", "also-b"]).ok);
    let status = fleet.client.status();
    let want = [("on-a", "STOPPED"), ("also-b", "STOPPED"), ("on-b", "RUNNING"), ("on-c", "RUNNING")];
    assert_eq!(states(&status), want.into());
    assert_eq!(fleet.scene.processes_of("on-a").len() + fleet.scene.processes_of("also-b").len(), 0);
    assert_eq!(fleet.client.run(&["status", "--check"]).code, 0, "what is stopped on purpose is as it should be");

    assert!(fleet.client.order("start", &[]).ok);
    let second = pids(&fleet.client.wait_for_all("RUNNING"));
    assert_eq!([second["on-b"], second["on-c"]], [first["on-b"], first["on-c"]], "what runs is left alone");
    assert!(second["on-a"] != first["on-a"] && second["also-b"] != first["also-b"]);

    assert!(fleet.client.order("restart", &["on-c"]).ok);
    let third = pids(&fleet.client.status());
    assert!(third["on-c"] != second["on-c"] && third["on-a"] == second["on-a"]);
    assert!(fleet.client.order("restart", &[]).ok);
    let fourth = pids(&fleet.client.status());
    assert!(fourth.iter().all(|(name, pid)| third[name] != *pid), "{third:?} {fourth:?}");

    assert!(fleet.client.order("stop", &[]).ok);
    fleet.client.wait_for_all("STOPPED");
    fleet.scene.check_that_nothing_runs();
    check_log(&fleet.client.events());
}

#[test]
fn who_is_out_of_reach_is_told_from_what_failed() {
    let mut fleet = Fleet::with_nodes();
    fleet.agent_mut("b").kill();
    fleet.client.wait_for("on-b", "UNKNOWN");
    let answer = fleet.client.run(&["restart"]);
    assert_eq!(answer.code, 4, "{answer:?}");
    assert!(answer.stdout.contains("failed on-b on b: its instance is not connected"), "{answer:?}");
    assert_eq!(fleet.client.run(&["restart", "on-a"]).code, 0);
    assert_eq!(fleet.client.run(&["restart", "on-b", "nobody"]).code, 1);
}

#[test]
fn a_stop_beats_the_restart_that_is_pending() {
    // Both die again and again in the same rhythm; one is stopped, the other tells the time.
    let dying =
        |name: &str| script(name, "restart_limit = 0\nrestart_delay = 300ms\nrestart_max_delay = 300ms", "exit 1");
    let lab = Lab::start(Some(&(dying("stopped") + &dying("clock"))));
    let launches = |name: &str| path(&changes(&lab.client.events(), name)).matches("PENDING").count();
    eventually("it is waiting to be started again", || (launches("stopped") > 3).then_some(()));
    lab.client.wait_for("stopped", "CRASHED");
    assert!(lab.client.order("stop", &["stopped"]).ok);
    let (then, now) = (launches("stopped"), launches("clock"));
    eventually("the other one was started some times more", || (launches("clock") > now + 3).then_some(()));
    assert_eq!(launches("stopped"), then);
    assert_eq!(lab.client.wait_for("stopped", "STOPPED").pid, None);
    check_log(&lab.client.events());
}

#[test]
fn what_was_given_up_is_revived_on_request() {
    let text = "test -e ../../../../mended && exec sleep 1000\necho broken >&2\nexit 1";
    let lab = Lab::start(Some(&script("patient", "restart = never", text).replace("settle 50ms", "settle 2s")));
    for verb in ["start", "restart"] {
        lab.client.wait_for("patient", "FAILED");
        let verdict = lab.client.order(verb, &["patient"]);
        let error = verdict.outcomes[0].error.clone().unwrap_or_default();
        assert!(error.starts_with("exited with status 1: broken; its dossier: "), "{verb}: {verdict:?}");
    }
    lab.scene.write("mended", "");
    assert!(lab.client.order("start", &["patient"]).ok);
    lab.client.wait_for("patient", "RUNNING");
}

#[test]
fn an_order_for_nobody_is_refused_and_the_rest_of_it_obeyed() {
    let lab = Lab::start(Some(&(sleeper("one", "") + &sleeper("two", ""))));
    lab.client.wait_for_all("RUNNING");
    let answer = lab.client.run(&["stop", "nobody", "one"]);
    assert_eq!(answer.code, 1);
    assert!(answer.stdout.contains("failed nobody: unknown cluster node"), "{answer:?}");
    assert_eq!(states(&lab.client.status()), [("one", "STOPPED"), ("two", "RUNNING")].into());
    assert_eq!(lab.client.run(&["restart", "../two"]).code, 2);
    let answer = lab.client.run(&["logs", "nobody"]);
    assert_eq!(answer.code, 1);
    assert!(answer.stderr.contains("unknown cluster node"), "{answer:?}");
}

#[test]
fn the_last_lines_of_a_node_can_be_read_while_it_runs_and_after() {
    let text = "echo one\necho two\necho oops >&2\nexec sleep 1000";
    let lab = Lab::start(Some(&script("talker", "", text)));
    lab.client.wait_for("talker", "RUNNING");
    let logs = |args: &[&str]| lab.client.run(&[&["logs", "talker"], args].concat()).stdout;
    eventually("everything is written", || (logs(&["--stderr"]) == "oops\n").then_some(()));
    assert_eq!(logs(&[]), "==> stdout <==\none\ntwo\n==> stderr <==\noops\n");
    assert_eq!(logs(&["--stdout", "-n", "1"]), "two\n");
    assert!(lab.client.order("stop", &["talker"]).ok);
    assert_eq!(logs(&["--stdout"]), "one\ntwo\n");
}
