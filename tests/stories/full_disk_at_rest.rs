//! A disk without room: what runs is minded all the same.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::common::{
    Answer, Daemon, Scene, apart, changes, check_log, eventually, node, path, pids, processes, sleeper,
};

/// Takes all the room that is left there.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
}

#[test]
fn an_agent_whose_disk_is_full_says_so_and_minds_what_runs_all_the_same() {
    let test = "full_disk_at_rest::an_agent_whose_disk_is_full_says_so_and_minds_what_runs_all_the_same";
    // In there a file system of its own can be mounted.
    apart::as_init(test, || {
        let scene = Scene::new();
        let any = scene.any_port();
        let disk = scene.path("a");
        fs::create_dir(&disk).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m,mode=700", "none"]).arg(&disk).status();
        assert!(mounted.unwrap().success());
        let controller = Daemon::start(&scene, "controller", &["controller", "--listen", &any, "--http", &any]);
        let connect = controller.addresses()["agents"].to_string();
        let mut agent = Daemon::start(&scene, "a", &["agent", "--name", "a", "--connect", &connect]);
        let client = controller.client();
        let of =
            |name| sleeper(name, "instance = a\nrestart_delay = 20ms\nrestart_max_delay = 100ms\nrestart_limit = 0");
        let file = scene.write("disk.cfg", &format!("[instances]\na\n\n{}{}{}", of("lives"), of("dies"), of("lost")));
        let before = pids(&client.deployed(&file));

        agent.kill();
        let record = agent.state_dir().join("nodes/lost/record");
        fs::write(&record, "garbage").unwrap();
        fill(&disk.join("filler"));
        processes::signal(before["dies"], Signal::KILL);
        eventually("it is dead", || (!processes::is_alive(before["dies"])).then_some(()));
        client.wait_for("lives", "UNKNOWN");
        agent.start_again();
        let lives = client.wait_for("lives", "RUNNING");
        assert_eq!((lives.pid, lives.restarts), (Some(before["lives"]), 0));
        let said = "No space left on device (os error 28). What runs is minded all the same";
        assert!(agent.log().contains(said), "{}", agent.log());
        // Nobody could write down that it was found.
        assert_eq!(client.wait_for("lost", "RUNNING").pid, Some(before["lost"]));
        assert_eq!(fs::read_to_string(record.with_file_name("record.damaged")).unwrap(), "garbage");
        assert!(!record.exists());
        // It is minded: its end is noticed, and told.
        processes::signal(before["lives"], Signal::KILL);
        client.wait("both deaths are told", |status| {
            ["lives", "dies"]
                .iter()
                .all(|name| node(status, name).restarts > 0 || node(status, name).state == "CRASHED")
        });

        // Who begins there is told so, and does not begin.
        let fresh = scene.watchpost(&["agent", "--connect", &connect, "--state-dir"]).arg(disk.join("fresh")).output();
        let fresh = Answer::of(fresh.unwrap());
        assert_eq!((fresh.code, &*fresh.stdout), (1, ""), "{fresh:?}");
        assert!(fresh.stderr.contains("No space left on device"), "{fresh:?}");

        fs::remove_file(disk.join("filler")).unwrap();
        let after = pids(&client.wait_for_all("RUNNING"));
        assert!(after["lives"] != before["lives"] && after["dies"] != before["dies"]);
        assert_eq!(after["lost"], before["lost"]);
        for name in ["lives", "dies", "lost"] {
            assert_eq!(scene.processes_of(name), [after[name]]);
        }
        let events = client.events();
        check_log(&events);
        assert!(path(&changes(&events, "dies")).contains("CRASHED"), "{events:#?}");
        assert!(client.order("stop", &[]).ok);
        scene.check_that_nothing_runs();
    });
}
