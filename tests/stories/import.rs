//! `watchpost import`: files of Zeek's other tools become cluster files that `check` finds nothing wrong with.

use serde_json::Value;

use crate::common::{Answer, Scene};

const NODE_CFG: &str = "[manager]\ntype=manager\nhost=localhost\n[proxy-1]\ntype=proxy\nhost=localhost\n\
                        [worker-1]\ntype=worker\nhost=localhost\ninterface=eth0\nlb_method=af_packet\nlb_procs=2\n";

#[test]
fn the_files_of_zeekctl_are_found_beside_one_another_and_become_a_cluster_file() {
    let scene = Scene::new();
    let nodes = scene.write("node.cfg", NODE_CFG);
    scene.write("zeekctl.cfg", "MailTo = soc@example.com\nSpoolDir = /spool\n");
    scene.write("networks.cfg", "10.0.0.0/8 The office\n");
    let cluster = scene.path("cluster.cfg");
    let import = ["import", nodes.to_str().unwrap(), "--output", cluster.to_str().unwrap()];
    let done = scene.watchpost(&import).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert!(said.contains("zeekctl.cfg:2: SpoolDir: is left out: "), "{said}");
    let text = scene.read("cluster.cfg");
    assert!(text.contains("networks = 10.0.0.0/8") && text.contains("[worker-1-2]"), "{text}");
    let check = scene.watchpost(&["check", cluster.to_str().unwrap()]).output().unwrap();
    let found = String::from_utf8(check.stdout).unwrap();
    assert!(check.status.success() && found.contains("is fine: 4 nodes on 1 instance\n"), "{found}");

    let again = scene.watchpost(&import).output().unwrap();
    assert_eq!(again.status.code(), Some(2), "what is there is not written over");
    assert_eq!(scene.read("cluster.cfg"), text);
}

#[test]
fn a_directory_with_a_file_for_each_machine_becomes_one_cluster() {
    let scene = Scene::new();
    std::fs::create_dir(scene.path("cluster")).unwrap();
    scene.write("cluster/main.zeek.conf", "manager=1\nloggers=1\naddress=10.0.0.1\n");
    scene.write("cluster/sensor.zeek.conf", "interface=eth0\nworkers=2\naddress=10.0.0.2\n");
    scene.write("cluster/notes.txt", "nothing");
    let directory = scene.path("cluster");
    let done = scene.watchpost(&["import", directory.to_str().unwrap(), "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(0), "{report}");
    let cluster = report["cluster"].as_str().unwrap();
    assert!(cluster.contains("[sensor-worker-2]\ninstance = agent-sensor\n"), "{cluster}");
    assert_eq!((&report["remarks"], &report["complaints"]), (&Value::Array(vec![]), &Value::Array(vec![])));
}

#[test]
fn what_cannot_be_imported_is_said_all_at_once_and_nothing_is_written() {
    let scene = Scene::new();
    let nodes = scene.write("node.cfg", "[m]\ntype=manger\nhost=h\n[w]\ntype=worker\n");
    let cluster = scene.path("cluster.cfg");
    let done = scene.watchpost(&["import", nodes.to_str().unwrap(), "-o", cluster.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{said}");
    for place in ["node.cfg` cannot be imported", "node.cfg:2: [m] type: ", "node.cfg:4: [w]: has no `host`"] {
        assert!(said.contains(place), "{place}: {said}");
    }
    assert!(!cluster.exists());
    let deploy = scene.watchpost(&["deploy", nodes.to_str().unwrap(), "--controller", "http://127.0.0.1:9"]).output();
    assert_eq!(deploy.unwrap().status.code(), Some(2), "deploy reads it in the same way");
}

#[test]
fn a_file_without_nodes_is_refused_and_what_is_exported_is_not_written_over() {
    let scene = Scene::new();
    for name in ["zeek.conf", "cluster.cfg", "node.cfg"] {
        let file = scene.write(name, "");
        let answer = Answer::of(scene.watchpost(&["import", file.to_str().unwrap()]).output().unwrap());
        assert_eq!(answer.code, 2, "{name}: {answer:?}");
        assert!(answer.stdout.is_empty() && answer.stderr.contains(":1: there is no node"), "{answer:?}");
    }
    let nodes = scene.write("node.cfg", NODE_CFG);
    let export = |args: &[&str]| {
        let mut command = scene.watchpost(&["export", nodes.to_str().unwrap()]);
        Answer::of(command.args(args).current_dir(scene.path("")).output().unwrap())
    };
    let one = export(&["--format", "zeek.conf"]);
    assert!(one.code == 0 && one.stdout.starts_with("[zeek]\nmanager=1\n"), "{one:?}");
    assert!(one.stderr.contains("[manager] stop_grace: is left out: zeek.conf has no word for it"), "{one:?}");
    let several = export(&["--format", "node.cfg"]);
    assert!(several.code == 2 && several.stderr.contains("name a directory for them by --output DIR"), "{several:?}");
    assert_eq!(export(&["--format", "node.cfg", "-o", "there"]).code, 0);
    let back = scene.read("there/node.cfg");
    assert!(back.contains("lb_method = af_packet\nlb_procs = 2\n"), "{back}");
    assert_eq!(export(&["--format", "node.cfg", "-o", "there"]).code, 2);
    assert_eq!(scene.read("there/node.cfg"), back);
    let json: Value = serde_json::from_str(&export(&["--format", "cluster.cfg", "--json"]).stdout).unwrap();
    assert!(json["files"]["cluster.cfg"].as_str().unwrap().contains("[worker-1-2]"), "{json}");
}
