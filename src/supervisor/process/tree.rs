//! What a node leaves behind: processes that outlive their leader, and zombies that nobody waits for.
//!
//! Whoever loses its parent below us is given to us, once we are a [subreaper](become_subreaper). It belongs to the node
//! whose marker its environment holds, whose session it is in, or whose descendant it is; a process that took off its
//! marker, its session and its parent (or hides its environment from us and did the latter two) is out of reach. A
//! process that carries another node's marker is never touched.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::family::{Family, Mark, children_by_parent, given_to_us, mark, session_that_tells};
use super::handle::{self, Process};
use super::identity::Identity;
use super::leaders::Census;
use super::looks::Waiting;
use super::stat::is_gone;

/// More than any honest tree needs: each pass kills all that it sees.
const PASSES: usize = 100;

/// How long those that were sent SIGKILL may take to go, all together.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why something of a node may be left.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error("cannot look through /proc for what the node left behind: {0}")]
    Look(io::Error),
    #[error("cannot kill process {pid}, which the node left behind: {cause}")]
    Kill { pid: u32, cause: io::Error },
    #[error(
        "process {pid}, which the node left behind, does not go though it was sent SIGKILL: see its state in /proc"
    )]
    Stuck { pid: u32 },
    #[error("cannot end the control group {}: {cause}", path.display())]
    Group { path: PathBuf, cause: io::Error },
    #[error("the node left processes behind that multiply: {killed} were killed, and there are more")]
    Endless { killed: usize },
}

/// Has every process below us given to us when it loses its parent, instead of to init.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Whether processes below us that lose their parent are given to us.
pub fn is_subreaper() -> io::Result<bool> {
    Ok(rustix::process::child_subreaper()?.is_some())
}

/// Kills what a node whose leader has ended left behind among those that were given to us and below; returns how many.
///
/// `marker` is the value of its `WATCHPOST_NODE`, `session` the pid of its leader, which had ended before it began to be
/// `waiting`. Blocks until they are gone, so it wants a thread where that does no harm.
pub fn sweep(marker: &str, session: u32, waiting: &Waiting) -> Result<usize, SweepError> {
    let mut is_first = true;
    sweep_until_clean(marker, || {
        // Later ones are to be looks of our own: somebody was killed meanwhile.
        let is_first = std::mem::replace(&mut is_first, false);
        let given = || if is_first { waiting.given_to_us() } else { given_to_us() };
        let family = Family::below_us(marker, session, given)?;
        Ok((!family.is_nobody()).then(|| family.of_the_node().collect()))
    })
}

/// Does the same, and looks at every process of the machine: for a node that was adopted, whose strays were given to
/// another process. It makes do with looks that others made since it began to be `waiting`.
pub fn sweep_all(marker: &str, session: u32, waiting: &Waiting) -> Result<usize, SweepError> {
    let mut since = Some(waiting.since());
    sweep_until_clean(marker, || {
        let look = waiting.look(since.unwrap_or_else(Instant::now))?;
        // After most lives nobody is left in it.
        let session = if look.asks_whose_is(session) { session_that_tells(marker, session)? } else { None };
        let found = look.of_the_node(marker, session);
        // After a kill it begins anew.
        since = found.is_empty().then(|| look.ended());
        Ok(Some(found))
    })
}

/// Whether any process was given to us, dead or alive.
pub fn has_strays() -> io::Result<bool> {
    Ok(!given_to_us_or_all()?.is_empty())
}

/// Reaps the zombies that were given to us and returns how many, sparing nodes' leaders and those for which `spare` says
/// so: children that an embedding program started and waits for itself.
///
/// While processes are started without a pause it reaps none and returns `None`: they wait for the next call. Blocks for
/// up to a tenth of a second.
pub fn reap_strays(spare: impl Fn(u32) -> bool) -> io::Result<Option<usize>> {
    let strays: Vec<u32> = given_to_us_or_all()?.into_iter().filter(|pid| !spare(*pid)).collect();
    if strays.is_empty() {
        return Ok(Some(0));
    }
    let Some(mut leaders) = Census::open() else {
        return Ok(None);
    };
    let mut reaped = 0;
    for (number, stray) in strays.into_iter().filter_map(|number| Some((number, handle::number(number)?))) {
        // Held before anybody asks whose it is: another may have reaped it since, and its number be somebody else's.
        let Ok(pidfd) = pidfd_open(stray, PidfdFlags::empty()) else { continue };
        if !spare(number) && !leaders.is_leader(stray) {
            let ended = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
            reaped += usize::from(matches!(ended, Ok(Some(_))));
        }
    }
    Ok(Some(reaped))
}

/// All our children where the kernel does not list those that were given to us.
fn given_to_us_or_all() -> io::Result<Vec<u32>> {
    match given_to_us() {
        Err(error) if is_gone(&error) => children_by_parent(),
        children => children,
    }
}

/// Twice clean: a process that was given to us between being passed by and its parent's end is seen the second time.
/// Where there was nobody at all (`None`), nobody's child can be given to us: once is enough.
fn sweep_until_clean(
    marker: &str,
    mut look: impl FnMut() -> io::Result<Option<Vec<(u32, u64)>>>,
) -> Result<usize, SweepError> {
    let mut killed = 0;
    let mut clean = 0;
    for _ in 0..PASSES {
        let Some(found) = look().map_err(SweepError::Look)? else { return Ok(killed) };
        // Whoever has ended since may have left somebody whom nobody has seen yet.
        clean = if found.is_empty() { clean + 1 } else { 0 };
        if clean == 2 {
            return Ok(killed);
        }
        killed += kill_all(marker, &found)?;
    }
    Err(SweepError::Endless { killed })
}

/// Kills all of these, waits until they are gone, and reaps those that are our children by then.
fn kill_all(marker: &str, found: &[(u32, u64)]) -> Result<usize, SweepError> {
    let mut failure = None;
    let mut killed = Vec::new();
    for &(pid, start_time) in found {
        // The number may be another's by now: adoption looks again, through the pidfd.
        match Process::adopt(Identity::new(pid, start_time)) {
            Ok(None) => {}
            Ok(Some(_)) if mark(pid, marker) == Mark::Foreign => {} // since it was seen
            Ok(Some(process)) => match process.signal(Signal::KILL) {
                Ok(()) => killed.push(process),
                Err(cause) => failure = failure.or(Some(SweepError::Kill { pid, cause })),
            },
            Err(cause) => failure = failure.or(Some(SweepError::Kill { pid, cause })),
        }
    }
    if killed.is_empty() {
        return failure.map_or(Ok(0), Err); // most nodes leave nothing, and a census would wait for births
    }
    let deadline = Instant::now() + PATIENCE;
    for process in &killed {
        if !goes_before(deadline, process) {
            failure = failure.or(Some(SweepError::Stuck { pid: process.pid() }));
        }
    }
    // Only now, since those whose parent was killed as well have become ours in the meantime. Without a census they stay
    // zombies until the next reaping of strays.
    let mut leaders = Census::open();
    for process in &killed {
        let Some(leaders) = &mut leaders else { break };
        if handle::number(process.pid()).is_some_and(|pid| !leaders.is_leader(pid)) {
            handle::reap(process.as_fd(), WaitIdOptions::NOHANG);
        }
    }
    failure.map_or(Ok(killed.len()), Err)
}

fn goes_before(deadline: Instant, process: &Process) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&process.as_fd(), PollFlags::IN)], Some(&left)) {
            Err(Errno::INTR) => {}
            Ok(ready) => return ready == 1,
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::looks::Looks;
    use super::super::stat::Stat;
    use super::super::testing::{finish, number_in, script, wait_until};
    use super::super::{Program, spawn};
    use super::*;
    use crate::model::Exit;

    fn sweep(marker: &str, session: u32) -> Result<usize, SweepError> {
        super::sweep(marker, session, &Looks::default().wait())
    }

    #[test]
    fn a_stray_that_left_its_session_and_ignores_sigterm_is_gone_after_a_sweep() {
        let home = tempfile::tempdir().unwrap();
        let marker = &mine("stray");
        let deaf = "trap \"\" TERM; echo $$ > stray; while :; do sleep 0.05; done";
        let session = leave_behind(home.path(), marker, &format!("setsid sh -c '{deaf}' &"));
        let stray = number_in(&home.path().join("stray"));
        rustix::process::kill_process(handle::number(stray).unwrap(), Signal::TERM).unwrap();
        assert!(lives(stray));
        let killed = sweep(marker, session).unwrap();
        assert!(killed >= 1, "{killed}");
        assert!(!lives(stray));
        assert_eq!(sweep(marker, session).unwrap(), 0);
    }

    #[test]
    fn a_stray_without_marker_is_known_by_its_session() {
        let home = tempfile::tempdir().unwrap();
        let session =
            leave_behind(home.path(), &mine("session"), "env -i /bin/sh -c 'echo $$ > stray; exec sleep 1000' &");
        let stray = number_in(&home.path().join("stray"));
        assert_eq!(sweep(&mine("session"), session).unwrap(), 1);
        assert!(!lives(stray));
    }

    #[test]
    fn what_a_stray_started_goes_with_it() {
        let home = tempfile::tempdir().unwrap();
        let below = "env -i setsid /bin/sh -c \"echo \\$\\$ > below; exec /bin/sleep 1000\"";
        let session = leave_behind(home.path(), &mine("below"), &format!("setsid sh -c '{below} & sleep 1000' &"));
        let below = number_in(&home.path().join("below"));
        let killed = sweep(&mine("below"), session).unwrap();
        assert!(killed >= 2, "{killed}");
        assert!(!lives(below));
    }

    #[test]
    fn strays_of_another_node_and_of_nobody_are_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let foreign = &format!("env WATCHPOST_NODE={} sh -c 'echo $$ > foreign; exec sleep 1000' &", mine("other"));
        let nobodys = "env -i setsid /bin/sh -c 'echo $$ > nobodys; exec /bin/sleep 1000' &";
        let session = leave_behind(home.path(), &mine("one"), &format!("{foreign}\n{nobodys}"));
        let [foreign, nobodys] = ["foreign", "nobodys"].map(|name| number_in(&home.path().join(name)));
        assert_eq!(sweep(&mine("one"), session).unwrap(), 0);
        assert_eq!(sweep_all(&mine("one"), session, &Looks::default().wait()).unwrap(), 0);
        assert!(lives(foreign) && lives(nobodys));
        // They end with the test, by the means at hand.
        assert_eq!(sweep(&mine("other"), 0).unwrap(), 1);
        assert_eq!(sweep(&mine("none"), nobodys).unwrap(), 0, "a living stranger's session");
        let nobodys =
            Process::adopt(Identity::new(nobodys, Stat::of(nobodys).unwrap().unwrap().start_time)).unwrap().unwrap();
        nobodys.kill().unwrap();
    }

    #[test]
    fn strays_that_were_given_to_another_process_are_found_by_the_wider_sweep() {
        let home = tempfile::tempdir().unwrap();
        let text = &format!("WATCHPOST_NODE={} setsid sh -c 'echo $$ > far; exec sleep 1000' & wait", mine("far"));
        let other = spawn(&script(home.path(), text), None).unwrap();
        let far = number_in(&home.path().join("far"));
        assert_eq!(sweep(&mine("far"), 0).unwrap(), 0, "its parent lives, and is no stray");
        assert!(lives(far));
        let killed = sweep_all(&mine("far"), 0, &Looks::default().wait()).unwrap();
        assert!(killed >= 1, "{killed}");
        assert!(!lives(far));
        finish(&other);
    }

    #[test]
    fn sweeps_that_wait_together_share_their_looks_and_each_ends_its_own() {
        let home = tempfile::tempdir().unwrap();
        let names = ["first", "second"];
        let text = |name| format!("WATCHPOST_NODE={} setsid sh -c 'echo $$ > {name}; exec sleep 1000' &", mine(name));
        let text = format!("{}\n{}\nwait", text(names[0]), text(names[1]));
        let other = spawn(&script(home.path(), &text), None).unwrap();
        let strays = names.map(|name| number_in(&home.path().join(name)));
        let looks = Looks::default();
        let waiting = names.map(|_| looks.wait());
        for number in 0..2 {
            let killed = sweep_all(&mine(names[number]), 0, &waiting[number]).unwrap();
            assert!(killed >= 1, "{killed}");
            assert!(!lives(strays[number]));
            assert!(number == 1 || lives(strays[1]), "the first leaves the second's alone");
        }
        finish(&other);
    }

    #[test]
    fn zombies_of_strays_are_reaped_and_leaders_are_not() {
        become_subreaper().unwrap();
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().to_owned();
        // With the end of the thread that started it, a leader is given to the main thread, as strays are.
        let leader = std::thread::spawn(move || spawn(&script(&directory, "exit 7"), None).unwrap()).join().unwrap();
        wait_until("the leader is a zombie", || Stat::of(leader.pid()).unwrap().unwrap().is_dead());
        leave_behind(home.path(), &mine("zombie"), "sh -c 'echo $$ > stray' &");
        let stray = number_in(&home.path().join("stray"));
        wait_until("the stray is reaped", || {
            reap_strays(|_| false).unwrap();
            Stat::of(stray).unwrap().is_none()
        });
        assert_eq!(finish(&leader), Exit::Status(7));
    }

    /// A marker that no other run of these tests has at the same time.
    fn mine(node: &str) -> String {
        format!("lab/{node}-{}/1", std::process::id())
    }

    /// Runs a node that starts something in the background and ends; returns its session.
    fn leave_behind(home: &Path, marker: &str, background: &str) -> u32 {
        become_subreaper().unwrap();
        let mut program: Program = script(home, &format!("{background}\nexit 0"));
        program.env.insert("WATCHPOST_NODE".into(), marker.into());
        let leader = spawn(&program, None).unwrap();
        assert_eq!(finish(&leader), Exit::Status(0));
        leader.pid()
    }

    fn lives(pid: u32) -> bool {
        Stat::of(pid).unwrap().is_some_and(|stat| !stat.is_dead())
    }
}
