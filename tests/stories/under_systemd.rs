//! The units that are shipped, under a systemd that is init of a container made for it, by the commands of docs/survival.md.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use watchpost::web::json::Status;

use crate::common::{Scene, eventually, pids, processes, sleeper};

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/systemd");

/// What systemd wants to find beside our units.
const STUBS: [&str; 6] = [
    "sysinit.target",
    "basic.target",
    "shutdown.target",
    "network-online.target",
    "multi-user.target",
    "umount.target",
];

/// Makes a place in which nothing of the machine is written to, and becomes its init. Its arguments are the program, the
/// units, and the settings.
const BOOT: &str = r#"set -e
mount --make-rprivate /
mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys
umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup
mkdir "$4/etc" && for name in passwd group nsswitch.conf ld.so.cache os-release; do
    if [ -e "/etc/$name" ]; then cp -L "/etc/$name" "$4/etc"; fi
done
mkdir "$4/etc/systemd" && cp -r "$2" "$4/etc/systemd/system" && cp -r "$3" "$4/etc/watchpost"
echo 0123456789abcdef0123456789abcdef > "$4/etc/machine-id"
mkdir "$4/bin" && touch "$4/bin/watchpost" && mount --bind "$1" "$4/bin/watchpost"
mount --rbind "$4/bin" /usr/local/bin
mount --rbind "$4/etc" /etc
mount -t tmpfs -o mode=755 none /var/lib
mount -t tmpfs -o mode=755 none /run
ip link set lo up
export container=test SYSTEMD_UNIT_PATH=/etc/systemd/system
exec /lib/systemd/systemd --system --show-status=no --log-target=null
"#;

/// A container whose init is systemd. It ends with this, and with it all that runs in it.
struct Container {
    child: Child,
    init: u32,
    group: PathBuf,
    log: PathBuf,
}

impl Container {
    /// `None` where nobody may make one: that takes root, and a cgroup2 tree that can be written.
    fn start(scene: &Scene, units: &Path, settings: &Path) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let top = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?.split(' ').nth(1)?;
        let group = Path::new(top).join(scene.cluster());
        if !rustix::process::geteuid().is_root() || fs::create_dir(&group).is_err() {
            return None;
        }
        let root = scene.path("root");
        fs::create_dir(&root).unwrap();
        let boot = scene.write("boot.sh", BOOT);
        let log = scene.path("systemd.log");
        let enter = format!("echo 0 > {}/cgroup.procs && exec \"$@\"", group.display());
        let mut command = Command::new("sh");
        command.args(["-c", &enter, "sh", "unshare", "--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup"]);
        command.args(["--mount-proc", "--kill-child", "--fork", "--", "sh"]).arg(boot);
        command.args([Path::new(env!("CARGO_BIN_EXE_watchpost")), units, settings, &root]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let output = fs::File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
        let mut container = Self { child, init: 0, group, log };
        container.init = eventually("systemd is there", || {
            assert!(container.child.try_wait().unwrap().is_none(), "{}", container.said());
            processes::children_of(container.child.id()).first().copied()
        });
        eventually("systemd listens", || {
            assert!(container.child.try_wait().unwrap().is_none(), "{}", container.said());
            container.run(&["systemctl", "is-system-running"]).stdout.starts_with(b"running").then_some(())
        });
        Some(container)
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs a command in there.
    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--all", "--"]).args(args);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", "/root");
        command.stdin(Stdio::null()).output().expect("nsenter, of util-linux")
    }

    /// The same, which has to do it.
    fn done(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{args:?}: {stdout}{stderr}\n{}", self.read("/run/agent.log"));
        stdout.into_owned()
    }

    fn read(&self, path: &str) -> String {
        String::from_utf8_lossy(&self.run(&["cat", path]).stdout).into_owned()
    }

    /// What the controller says; `None` while it does not answer.
    fn status(&self) -> Option<Status> {
        serde_json::from_slice(&self.run(&["watchpost", "status", "--json"]).stdout).ok()
    }

    /// The processes of the nodes, once all of them run and are said to.
    fn runs(&self, what: &str) -> BTreeMap<String, u32> {
        eventually(what, || {
            let status = self.status().filter(|status| {
                status.deploying.is_none()
                    && status.instances.iter().all(|it| it.link == "UP")
                    && status.nodes.iter().all(|node| node.state == "RUNNING")
            })?;
            let all = pids(&status);
            all.values().all(|pid| self.run(&["test", "-d", &format!("/proc/{pid}")]).status.success()).then_some(all)
        })
    }

    fn main_pid(&self, unit: &str) -> String {
        self.done(&["systemctl", "show", "--property=MainPID", "--value", unit]).trim().to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its init is killed with it, and with that all others.
        eventually("nobody is left in there", || {
            let events = fs::read_to_string(self.group.join("cgroup.events")).unwrap_or_default();
            (!events.contains("populated 1")).then_some(())
        });
        remove(&self.group);
    }
}

/// Removes a control group with all below it.
fn remove(group: &Path) {
    let below = fs::read_dir(group).into_iter().flatten().flatten();
    below.filter(|entry| entry.path().is_dir()).for_each(|entry| remove(&entry.path()));
    let _ = fs::remove_dir(group);
}

#[test]
fn systemctl_restarts_the_agent_and_the_controller_and_touches_no_node_until_their_own_unit_is_stopped() {
    let scene = Scene::new();
    let units = scene.path("units");
    fs::create_dir(&units).unwrap();
    for unit in fs::read_dir(UNITS).unwrap() {
        let unit = unit.unwrap();
        fs::copy(unit.path(), units.join(unit.file_name())).unwrap();
    }
    for stub in STUBS {
        scene.write(&format!("units/{stub}"), "[Unit]\nDefaultDependencies=no\n");
    }
    scene.write("units/default.target", "[Unit]\nDefaultDependencies=no\n");
    // There is no journal in there.
    let log = "[Service]\nStandardError=append:/run/agent.log\n";
    scene.write("units/watchpost-agent.service.d/log.conf", log);
    let settings = scene.path("etc");
    let cluster = scene.cluster();
    // Both on one machine, so each has a state directory of its own.
    let common = format!("cluster = '{cluster}'\nlog = 'info'\n");
    scene.write("etc/agent.toml", &format!("{common}state_dir = '/var/lib/watchpost/agent'\n[agent]\nname = 'box'\n"));
    scene.write("etc/controller.toml", &format!("{common}state_dir = '/var/lib/watchpost'\n"));
    fs::set_permissions(&settings, PermissionsExt::from_mode(0o755)).unwrap();
    let nodes = [("one", "instance = box"), ("two", "instance = box")].map(|(name, keys)| sleeper(name, keys));
    scene.write("etc/cluster.cfg", &format!("[instances]\nbox\n\n{}", nodes.concat()));
    let Some(container) = Container::start(&scene, &units, &settings) else { return };

    container.done(&["systemctl", "enable", "--now", "watchpost-controller", "watchpost-agent"]);
    container.done(&["watchpost", "deploy", "/etc/watchpost/cluster.cfg"]);
    let before = container.runs("the nodes run");
    assert_eq!(before.len(), 2);
    for pid in before.values() {
        let group = container.read(&format!("/proc/{pid}/cgroup"));
        assert!(group.contains("/watchpost.slice/watchpost-nodes.service/"), "{group}");
    }

    container.done(&["systemctl", "restart", "watchpost-agent"]);
    assert_eq!(container.runs("they run on after a restart of the agent"), before);
    container.done(&["systemctl", "restart", "watchpost-controller"]);
    assert_eq!(container.runs("and of the controller"), before);
    container.done(&["systemctl", "daemon-reload"]);
    // Killed, it is started again by its unit.
    let killed = container.main_pid("watchpost-agent");
    container.done(&["kill", "-9", &killed]);
    eventually("another agent is there", || {
        let now = container.main_pid("watchpost-agent");
        (now != killed && now != "0").then_some(())
    });
    assert_eq!(container.runs("and after its agent was killed"), before);
    let log = container.read("/run/agent.log");
    assert!(!log.contains("KillMode"), "nothing is wrong with its unit: {log}");

    // A unit that would end them is told of, by whoever is in it and by whoever looks.
    let wrong = "[Service]\nKillMode=control-group\nEnvironment=WATCHPOST_AGENT_CGROUP=none\n";
    let drop_in = "/etc/systemd/system/watchpost-agent.service.d/wrong.conf";
    container.done(&["sh", "-c", &format!("printf '{}' > {drop_in}", wrong.replace('\n', "\\n"))]);
    container.done(&["systemctl", "daemon-reload"]);
    let doctor = container.run(&["env", "WATCHPOST_AGENT_CGROUP=none", "watchpost", "doctor"]);
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let sentence = "watchpost-agent.service has KillMode=control-group and nodes are in its control group";
    assert!(doctor.contains(sentence), "{doctor}");
    container.done(&["systemctl", "restart", "watchpost-agent"]);
    eventually("the agent says so as well", || container.read("/run/agent.log").contains(sentence).then_some(()));
    container.done(&["rm", drop_in]);
    container.done(&["systemctl", "daemon-reload"]);
    container.done(&["systemctl", "restart", "watchpost-agent"]);
    container.runs("and all is as it was");

    container.done(&["systemctl", "stop", "watchpost-agent"]);
    let last: Vec<String> = before.values().map(|pid| format!("/proc/{pid}")).collect();
    let is_there = |path: &String| container.run(&["test", "-d", path]).status.success();
    assert!(last.iter().all(is_there), "a stop of the agent is none of its nodes'");
    container.done(&["systemctl", "stop", "watchpost-nodes"]);
    assert!(!last.iter().any(is_there), "and their own unit ends them all");
}
