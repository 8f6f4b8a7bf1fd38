//! circus-tent/circus.

use std::thread;

use crate::common::{Lab, deaf, eventually, node, pids, processes, script, sleeper};

use super::moments;

#[test]
fn circus_965_a_stop_is_not_undone_by_whatever_restarts_what_flaps() {
    let keys = "restart_limit = 0\nrestart_delay = 40ms\nrestart_max_delay = 40ms";
    let flaps = |name: &str| script(name, keys, "sleep 0.06\nexit 1");
    let lab = Lab::start(Some(&(flaps("stopped") + &flaps("clock"))));
    let launches = |name: &str| moments(&lab.client.events(), name, "PENDING").len();
    // In whatever state the stop finds it.
    for _ in 0..4 {
        assert!(lab.client.order("start", &["stopped"]).outcomes.len() == 1);
        let now = launches("clock");
        eventually("it flaps", || (launches("clock") > now + 2).then_some(()));
        assert!(lab.client.order("stop", &["stopped"]).ok);
        assert!(lab.scene.processes_of("stopped").is_empty());
        let (then, now) = (launches("stopped"), launches("clock"));
        eventually("time passes", || (launches("clock") > now + 3).then_some(()));
        assert_eq!(launches("stopped"), then);
        assert_eq!(node(&lab.client.status(), "stopped").state, "STOPPED");
    }
}

#[test]
fn circus_1154_one_stop_that_takes_its_time_blocks_no_other() {
    let lab = Lab::start(Some(&(deaf("deaf", "stop_grace = 10m") + &sleeper("one", "") + &sleeper("two", ""))));
    let before = pids(&lab.client.wait_for_all("RUNNING"));
    lab.daemon.wait_until_says("deaf", "deaf");
    thread::scope(|scope| {
        let stopping = scope.spawn(|| lab.client.order("stop", &["deaf"]));
        for name in ["one", "two"] {
            assert!(lab.client.order("stop", &[name]).ok);
            assert!(!processes::is_alive(before[name]));
        }
        assert!(!stopping.is_finished() && processes::is_alive(before["deaf"]));
        processes::signal(before["deaf"], rustix::process::Signal::KILL);
        assert!(stopping.join().unwrap().ok);
    });
    lab.scene.check_that_nothing_runs();
}
