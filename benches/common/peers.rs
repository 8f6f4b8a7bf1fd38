//! Supervisors that others use, each with the children of a nursery, started at once and restarted as soon as it can.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::daemons::Daemons;
use super::keeper::{Keeper, Told};
use super::nursery::Nursery;

/// The program that Erlang runs.
const KEEPER: &str = include_str!("../peers/keeper.erl");
/// runsvdir takes no more services.
const MOST_OF_RUNIT: usize = 999;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// The real daemons: a controller, and an agent that stops its nodes at its own end.
    Watchpost,
    Runit,
    Supervisord,
    S6,
    Erlang,
    /// A bare loop in a process of its own, which tells of each end: nobody can be much faster.
    Floor,
}

impl Peer {
    pub const OTHERS: [Self; 5] = [Self::Runit, Self::Supervisord, Self::S6, Self::Erlang, Self::Floor];

    pub fn name(self) -> &'static str {
        match self {
            Self::Watchpost => "watchpost",
            Self::Runit => "runit",
            Self::Supervisord => "supervisord",
            Self::S6 => "s6",
            Self::Erlang => "erlang",
            Self::Floor => "floor",
        }
    }

    /// So many, or the most that it can have.
    pub fn at_most(self, count: usize) -> usize {
        if self == Self::Runit { count.min(MOST_OF_RUNIT) } else { count }
    }

    /// Erlang's ports close a pipe to them, and that is all; the floor kills them.
    pub fn stops_its_children(self) -> bool {
        !matches!(self, Self::Erlang | Self::Floor)
    }
}

/// A supervisor with its children. Dropping it asks it to end, and waits.
pub enum Running {
    Watchpost(Box<Daemons>),
    Floor(Keeper),
    Other { process: Child, stop: Signal },
}

impl Running {
    /// Starts it; children are born from then on.
    pub fn start(peer: Peer, nursery: &Nursery, count: usize) -> Self {
        let home = tempfile::Builder::new().prefix("peer").tempdir_in(nursery.directory()).expect("a directory").keep();
        let (mut command, stop) = match peer {
            Peer::Watchpost => {
                let daemons = Daemons::start(nursery);
                daemons.deploy(nursery, count);
                return Self::Watchpost(Box::new(daemons));
            }
            Peer::Floor => return Self::Floor(Keeper::start(nursery, 0, count, Told::Process)),
            Peer::Runit => {
                services(nursery, &home, count);
                (of_services(nursery, "runsvdir", ["-P", "."]), Signal::HUP)
            }
            Peer::S6 => {
                services(nursery, &home, count);
                (of_services(nursery, "s6-svscan", ["-c", &(count + 10).to_string(), "."]), Signal::TERM)
            }
            Peer::Supervisord => {
                fs::write(home.join("conf"), of_supervisord(nursery, &home, count)).expect("its configuration");
                (command("supervisord", ["-c", "conf"]), Signal::TERM)
            }
            Peer::Erlang => {
                fs::write(home.join("keeper.erl"), KEEPER).expect("its program");
                let built = command("erlc", ["keeper.erl"]).current_dir(&home).status().expect("erlc can be run");
                assert!(built.success(), "erlc cannot build the keeper");
                let [program, pipe, _] = nursery.command(0).try_into().expect("a program and two arguments");
                let keep = format!("keeper:keep({count}, \"{program}\", \"{pipe}\").");
                let quiet = ["-noinput", "-kernel", "logger_level", "none", "+Q", "65536", "-eval", &keep];
                (command("erl", quiet), Signal::TERM)
            }
        };
        command.current_dir(&home).env("HOME", &home);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self::Other { process: command.spawn().expect("it is installed: see benches/peers/run"), stop }
    }

    /// The processes whose memory counts, with that of those below them.
    pub fn roots(&self) -> Vec<u32> {
        match self {
            Self::Watchpost(daemons) => vec![daemons.agent.id(), daemons.controller.daemon.id()],
            Self::Floor(keeper) => vec![keeper.id()],
            Self::Other { process, .. } => vec![process.id()],
        }
    }

    /// Asks it to stop its children and to end.
    pub fn ask_to_stop(&mut self) {
        match self {
            Self::Watchpost(daemons) => daemons.end_agent(),
            Self::Floor(_) => {} // it ends when it is dropped
            Self::Other { process, stop } => {
                kill_process(Pid::from_child(process), *stop).expect("it lives, or we have not waited for it");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ask_to_stop();
        if let Self::Other { process, .. } = self {
            let _ = process.wait();
        }
    }
}

fn command<const N: usize>(program: &str, arguments: [&str; N]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// One that gives children no arguments of ours.
fn of_services<const N: usize>(nursery: &Nursery, program: &str, arguments: [&str; N]) -> Command {
    let mut command = command(program, arguments);
    command.env("CHILD_PIPE", nursery.pipe());
    command
}

/// A directory for each, in which the child itself is what is run.
fn services(nursery: &Nursery, home: &Path, count: usize) {
    let program = &nursery.command(0)[0];
    for number in 0..count {
        let service = home.join(number.to_string());
        fs::create_dir(&service).expect("a service");
        fs::hard_link(program, service.join("run")).expect("its program");
    }
}

fn of_supervisord(nursery: &Nursery, home: &Path, count: usize) -> String {
    let mut command = nursery.command(0);
    command.pop();
    let (command, home) = (command.join(" "), home.display());
    format!(
        "[supervisord]\nnodaemon = true\nlogfile = /dev/null\nlogfile_maxbytes = 0\npidfile = {home}/pid\nminfds = 10000\n\
         [program:child]\ncommand = {command} %(process_num)d\nprocess_name = %(process_num)d\nnumprocs = {count}\n\
         startsecs = 0\nstartretries = 1000000\nautorestart = true\nstdout_logfile = NONE\nstderr_logfile = NONE\n"
    )
}
