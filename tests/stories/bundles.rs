//! Files that travel with a configuration, from the disk of whoever deploys to the controller.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use watchpost::bundle::Digest;
use watchpost::web::blobs::{Came, Lack};
use watchpost::web::history::Difference;
use watchpost::web::json::{self, ConfigurationText, Verdict};

use crate::common::{Answer, Client, Daemon, Fleet, Lab, Scene, eventually, pids, sleeper};

/// A fleet whose file of three nodes names files beside it.
struct Place {
    fleet: Fleet,
    file: PathBuf,
}

impl Place {
    fn new() -> Self {
        let fleet = Fleet::with_nodes();
        fleet.scene.write("site/local.zeek", "@load x\n");
        fleet.scene.write("intel.dat", "192.0.2.1\n");
        let more = "files = site intel.dat";
        let sections = [
            sleeper("on-a", &format!("instance = a\n{more}")),
            sleeper("on-b", &format!("instance = b\n{more}")),
            sleeper("on-c", "instance = c"),
        ];
        let file = fleet.file(&["a", "b", "c"], &sections);
        Self { fleet, file }
    }

    fn run(&self, args: &[&str]) -> Answer {
        self.fleet.client.run(&[args, &[self.file.to_str().unwrap()]].concat())
    }

    fn blobs(&self) -> PathBuf {
        self.fleet.controller.state_dir().join("blobs")
    }
}

/// How many files are in a directory.
fn count(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn files_are_sent_once_and_the_deployed_text_names_what_they_were() {
    let place = Place::new();
    let first = place.run(&["deploy"]);
    assert_eq!(first.code, 0, "{first:?}");
    assert!(first.stderr.starts_with("sending 3 of 3 files, "), "two files and the list of them: {first:?}");
    assert_eq!(count(&place.blobs()), 3);
    let before = place.fleet.client.status();
    let again = place.run(&["deploy"]);
    assert_eq!((again.code, &*again.stderr), (0, ""), "nothing is sent");
    assert_eq!(pids(&place.fleet.client.status()), pids(&before), "and nothing restarted");

    let (_, text) = place.fleet.client.http("GET", "/api/v1/configuration", "");
    let deployed: json::Configuration = serde_json::from_str(&text).unwrap();
    let bundles: Vec<_> = deployed.configuration.lines().filter(|line| line.starts_with("bundle = sha256:")).collect();
    assert!(bundles.len() == 2 && bundles[0] == bundles[1], "{deployed:?}");
    // Wherever that text is deployed, nothing is read.
    let elsewhere = place.fleet.scene.write("elsewhere/deployed.cfg", &deployed.configuration);
    let verdict = place.fleet.client.deploy(&elsewhere);
    assert!(verdict.ok, "{verdict:?}");
    assert_eq!(pids(&place.fleet.client.status()), pids(&before));
}

#[test]
fn only_what_the_controller_lacks_is_sent_and_a_difference_names_it() {
    let place = Place::new();
    assert_eq!(place.run(&["deploy"]).code, 0);
    let before = pids(&place.fleet.client.status());
    place.fleet.scene.write("intel.dat", "192.0.2.1\n192.0.2.2\n");
    place.fleet.scene.write("site/more.zeek", "@load y\n");
    let second = place.run(&["deploy"]);
    assert_eq!(second.code, 0, "{second:?}");
    assert!(second.stderr.starts_with("sending 3 of 4 files, "), "{second:?}");
    let after = pids(&place.fleet.client.status());
    assert!(before["on-a"] != after["on-a"] && before["on-b"] != after["on-b"] && before["on-c"] == after["on-c"]);

    let client = &place.fleet.client;
    let difference: Difference = client.ask(&["diff", "2", "3"]);
    let files: Vec<_> = difference.nodes.iter().map(|node| (&*node.node, node.files.join(" "))).collect();
    let want = "~ intel.dat + site/more.zeek".to_owned();
    assert_eq!(files, [("on-a", want.clone()), ("on-b", want)]);
    let shown = client.run(&["diff", "2", "3"]);
    assert!(shown.stdout.contains("~ on-a: files\n    ~ intel.dat\n    + site/more.zeek\n"), "{shown:?}");
    let verdict: Verdict = client.ask(&["rollback"]);
    assert!(verdict.ok, "{verdict:?}");
}

#[test]
fn whatever_cannot_travel_is_refused_by_every_verb_all_at_once_and_nothing_is_touched() {
    let place = Place::new();
    let scene = &place.fleet.scene;
    symlink("/etc/passwd", scene.path("site/link")).unwrap();
    symlink("/etc", scene.path("ways")).unwrap();
    File::create(scene.path("site/gigabyte")).unwrap().set_len(1 << 30).unwrap();
    let sections = [
        sleeper("on-a", "instance = a\nfiles = site /dev/null ../.. nowhere . site/../../../etc/passwd ways/out"),
        sleeper("on-b", "instance = b\nfiles = intel.dat site/../intel.dat\nuser = no-such-user"),
        "[on-c]\ninstance = c\nfiles = /dev/zero\ncomand = x\nrole = none\n".into(),
    ];
    let file = place.fleet.file(&["a", "b", "c"], &sections);
    let path = file.to_str().unwrap();
    let before = place.fleet.client.status();
    let want = [
        "site/gigabyte: it has 1073741824 bytes, and a file of a bundle has at most 268435456",
        "site/link: it is a link",
        "/dev/null: it is a device",
        "/dev/zero: it is a device",
        "../..: it leads out of the directory of the cluster file",
        "it is the directory of the cluster file, which would travel along",
        "site/../../../etc/passwd: it leads out of the directory of the cluster file",
        "ways/out: `ways` on the way to it is a link",
        "nowhere: it cannot be read: No such file or directory",
        "it would be found as `intel.dat`, and so would intel.dat: rename one of them",
        "[on-c] comand: is not a key of a node",
    ];
    for verb in ["deploy", "plan", "check", "lab"] {
        let args = [verb, path];
        let answer = match verb {
            "check" | "lab" => Answer::of(scene.watchpost(&args).output().unwrap()),
            _ => place.fleet.client.run(&args),
        };
        let said = format!("{}{}", answer.stdout, answer.stderr);
        assert_ne!(answer.code, 0, "{args:?}: {said}");
        for want in want {
            assert_eq!(said.matches(want).count(), 1, "{args:?}: {want} in {said}");
        }
        assert!(said.contains("[on-a] files: "), "{said}");
        assert!(!said.contains("nobody has read them"), "{said}");
    }
    assert_eq!(pids(&place.fleet.client.status()), pids(&before));
    assert_eq!(count(&place.blobs()), 0, "what is refused is not sent");
}

#[test]
fn a_file_that_is_written_to_all_the_time_is_refused() {
    let place = Place::new();
    let path = place.fleet.scene.path("site/local.zeek");
    File::create(&path).unwrap().set_len(64 << 20).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let seen = is_over.clone();
    let writer = std::thread::spawn(move || {
        while !seen.load(Ordering::Relaxed) {
            File::options().append(true).open(&path).unwrap().write_all(b"x").unwrap();
        }
    });
    let answer = place.run(&["deploy"]);
    is_over.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert_eq!(answer.code, 2, "{answer:?}");
    assert!(answer.stderr.contains("site/local.zeek: it was changed while it was read"), "{answer:?}");
}

#[test]
fn a_configuration_whose_files_nobody_has_read_is_refused_in_words() {
    let place = Place::new();
    let text = fs::read_to_string(&place.file).unwrap();
    let unknown = format!("bundle = sha256:{}", "0".repeat(64));
    let named = text.replace("files = site intel.dat", &format!("files = site intel.dat\n{unknown}"));
    for (text, want) in [
        (text, "nodes 'on-a' and 'on-b' are to have files (site intel.dat), and nobody has read them"),
        (named, "they are not all here, or not any more"),
    ] {
        let body = ConfigurationText { file: "c.cfg".into(), text, upon: None, bundles: Vec::new() };
        let body = serde_json::to_string(&body).unwrap();
        for (method, path) in
            [("POST", "/api/v1/configuration"), ("PUT", "/api/v1/configuration"), ("POST", "/api/v1/plan")]
        {
            let (status, answer) = place.fleet.client.http(method, path, &body);
            assert_eq!(status, 200, "{answer}");
            assert!(answer.contains(r#""ok":false"#) && answer.contains(want), "{method} {path}: {answer}");
        }
    }
    assert!(
        !place
            .fleet
            .client
            .events()
            .iter()
            .any(|event| { event.msg.as_deref().is_some_and(|msg| msg.starts_with("deployment 2")) })
    );
}

#[test]
fn a_transfer_that_is_cut_goes_on_where_it_ended() {
    let place = Place::new();
    let content: Vec<u8> = (0..3_u32 << 20).map(|at| (at ^ (at >> 8)) as u8).collect();
    fs::write(place.fleet.scene.path("intel.dat"), &content).unwrap();
    let through = Proxy::start(place.fleet.controller.addresses()["http"].to_string(), 1 << 20);
    let client =
        Client::new(&place.fleet.scene.path(""), through.address.parse().unwrap(), &place.fleet.controller.state_dir());
    let answer = client.run(&["deploy", place.file.to_str().unwrap()]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(fs::read(place.blobs().join(Digest::of(&content).to_string())).unwrap(), content);
    assert!(through.cuts.load(Ordering::Relaxed) >= 2, "it was cut off several times");
    // No connection carries all of it, so it came only because each went on; what is in a socket that is cut off is lost.
    let went = through.went.load(Ordering::Relaxed);
    assert!(went < 6 * content.len() as u64, "{went} bytes went for {}", content.len());
}

/// Cuts every connection off that has carried so many bytes to the controller.
struct Proxy {
    address: String,
    cuts: Arc<AtomicU64>,
    went: Arc<AtomicU64>,
}

impl Proxy {
    fn start(to: String, most: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (cuts, went) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (counts, carried) = (cuts.clone(), went.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&to)) else { return };
                let (cuts, went) = (counts.clone(), carried.clone());
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || carry(back.0, back.1, usize::MAX, &AtomicU64::new(0)));
                std::thread::spawn(move || {
                    if carry(client, server, most, &went) {
                        cuts.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self { address, cuts, went }
    }
}

/// Carries bytes until there are no more, or too many: then both ends are closed.
fn carry(mut from: TcpStream, mut to: TcpStream, most: usize, went: &AtomicU64) -> bool {
    let (mut carried, mut piece) = (0, vec![0; 16 << 10]);
    while let Ok(length @ 1..) = from.read(&mut piece) {
        carried += length;
        went.fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&piece[..length]).is_err() || carried > most {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
    carried > most
}

#[test]
fn without_room_on_the_controllers_disk_nothing_is_sent_and_nothing_is_touched() {
    let scene = Scene::new();
    let blobs = scene.path("controller/blobs");
    fs::create_dir_all(&blobs).unwrap();
    for directory in [blobs.parent().unwrap(), &blobs] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
    }
    let mount = format!("mount -t tmpfs -o size=20m none {} && exec \"$0\" \"$@\"", blobs.display());
    let (any, mut through) = (scene.any_port(), vec!["unshare"]);
    if !rustix::process::geteuid().is_root() {
        through.extend(["--user", "--map-root-user"]);
    }
    through.extend(["--mount", "sh", "-c", &mount]);
    let controller = Daemon::start_through(&through, &scene, "controller", &["controller", "--http", &any]);
    let file = scene.write("c.cfg", "[instances]\na\n[a-1]\ninstance = a\ncommand = sleep 9\nfiles = list\n");
    for (size, has_room) in [(5 << 20, false), (1 << 20, true)] {
        fs::write(scene.path("list"), vec![b'x'; size]).unwrap();
        let answer = controller.client().run(&["plan", file.to_str().unwrap()]);
        // The list of files goes along.
        let is_refused = answer.stderr.contains("answers 507: there is no room for 52");
        assert_eq!(is_refused, !has_room, "{answer:?}");
    }
}

#[test]
fn a_lab_takes_the_files_of_its_cluster_file() {
    let scene = Scene::new();
    scene.write("intel.dat", "192.0.2.1\n");
    let lab = Lab::start_in(scene, Some(&sleeper("reads", "files = intel.dat")));
    lab.client.wait_for_all("RUNNING");
    let blobs = lab.daemon.state_dir().join("blobs");
    assert_eq!(fs::read_to_string(blobs.join(Digest::of(b"192.0.2.1\n").to_string())).unwrap(), "192.0.2.1\n");
    assert_eq!(count(&blobs), 2);
}

#[test]
fn a_saved_plan_is_carried_out_with_the_files_that_were_there_then() {
    let place = Place::new();
    let out = place.fleet.scene.path("plan.json");
    let planned = place.run(&["plan", "--out", out.to_str().unwrap()]);
    assert_eq!(planned.code, 0, "{planned:?}");
    place.fleet.scene.write("intel.dat", "something else\n");
    let carried = place.fleet.client.run(&["deploy", "--plan", out.to_str().unwrap()]);
    assert_eq!(carried.code, 0, "{carried:?}");
    let (_, text) = place.fleet.client.http("GET", "/api/v1/configuration", "");
    assert_eq!(text.matches("bundle = sha256:").count(), 2);
    assert!(!place.blobs().join(Digest::of(b"something else\n").to_string()).exists());
}

#[test]
fn a_saved_plan_brings_along_what_the_controller_has_let_go_of_if_it_is_the_same_still() {
    let place = Place::new();
    let out = place.fleet.scene.path("next.plan");
    let planned = place.run(&["plan", "--out", out.to_str().unwrap()]);
    assert_eq!(planned.code, 0, "{planned:?}");
    for blob in fs::read_dir(place.blobs()).unwrap() {
        fs::remove_file(blob.unwrap().path()).unwrap();
    }
    let carried_out = || place.fleet.client.run(&["deploy", "--plan", out.to_str().unwrap()]);
    let list = place.fleet.scene.path("intel.dat");
    let written = list.metadata().unwrap().modified().unwrap();
    place.fleet.scene.write("intel.dat", "something else\n");
    let refused = carried_out();
    assert_eq!((refused.code, count(&place.blobs())), (1, 0), "it is not what was planned: {refused:?}");
    assert!(refused.stdout.contains("they are not all here, or not any more"), "{refused:?}");
    place.fleet.scene.write("intel.dat", "192.0.2.1\n");
    // When it was written is a part of what it is.
    File::options().write(true).open(list).unwrap().set_modified(written).unwrap();
    let carried = carried_out();
    assert!(carried.code == 0 && carried.stderr.starts_with("sending 3 of 3 files, "), "{carried:?}");
}

#[test]
fn what_is_damaged_on_the_controllers_disk_is_sent_again() {
    let place = Place::new();
    assert_eq!(place.run(&["deploy"]).code, 0);
    let blob = place.blobs().join(Digest::of(b"192.0.2.1\n").to_string());
    fs::write(&blob, "192.0.2.9\n").unwrap();
    let again = place.run(&["deploy"]);
    assert!(again.code == 0 && again.stderr.starts_with("sending 1 of 3 files, 10 B"), "{again:?}");
    assert_eq!(fs::read_to_string(&blob).unwrap(), "192.0.2.1\n");
}

#[test]
fn bytes_are_taken_from_operators_alone_and_no_more_than_were_announced() {
    let fleet = Fleet::start();
    let (digest, other) = (Digest::of(b"some bytes"), Digest::of(b"other"));
    let put = |digest: &str, query: &str, body: &str| {
        fleet.client.http_with("PUT", &format!("/api/v1/blobs/{digest}?{query}"), body, "application/octet-stream")
    };
    let digest = digest.to_string();
    assert_eq!(put(&digest, "size=10", "some bytes").0, 200);
    let have = format!(r#"{{"blobs":[{{"digest":"{digest}","size":10}},{{"digest":"{other}","size":5}}]}}"#);
    let (_, lack) = fleet.client.http("POST", "/api/v1/blobs/missing", &have);
    let lack: Lack = serde_json::from_str(&lack).unwrap();
    assert!(lack.missing.len() == 1 && lack.missing[0].digest == other.to_string() && lack.missing[0].offset == 0);
    let other = other.to_string();
    let (status, came) = put(&other, "size=5", "oth");
    let came: Came = serde_json::from_str(&came).unwrap();
    assert_eq!((status, came), (200, Came { whole: false, bytes: 3 }));
    let (status, said) = put(&other, "size=5&offset=1", "ther");
    assert!(status == 409 && said.contains("it goes on at byte 3, and not at 1"), "{said}");
    let (status, said) = put(&other, "size=5&offset=3", "xx");
    assert!(status == 422 && said.contains("it was thrown away"), "{said}");
    let (status, said) = put(&other, "size=5", "other and more");
    assert!(status == 422 && said.contains("more bytes came than its 5"), "{said}");
    assert_eq!(put(&other, "size=999999999999", "x").0, 413);
    assert_eq!(put("../../etc/passwd", "size=1", "x").0, 404);
    assert_eq!(put(&"0".repeat(63), "size=1", "x").0, 400);
    assert_eq!(fleet.client.http("PUT", &format!("/api/v1/blobs/{other}?size=5"), "other").0, 415);
    let (home, token) = (fleet.controller.state_dir(), fleet.scene.write("eve/here", "").with_file_name("token"));
    let make = ["token", "create", "eve", "--state-dir", home.to_str().unwrap(), "--out", token.to_str().unwrap()];
    assert!(fleet.scene.watchpost(&make).status().unwrap().success());
    let eve = Client::new(&fleet.scene.path(""), fleet.controller.addresses()["http"], token.parent().unwrap());
    eventually("eve may look on", || (eve.http("GET", "/api/v1/status", "").0 == 200).then_some(()));
    let bytes = "application/octet-stream";
    assert_eq!(eve.http_with("PUT", &format!("/api/v1/blobs/{other}?size=5"), "other", bytes).0, 403);
    assert_eq!(eve.http("POST", "/api/v1/blobs/missing", &have).0, 403);
    let much = format!(r#"{{"blobs":[{{"digest":"{other}","size":268435456}}]}}"#);
    assert_eq!(fleet.client.http("POST", "/api/v1/blobs/missing", &much).0, 200);
}
