//! Starts a process: checks and prepares all that can be, then lets [`sys::child`](super::sys::child) do the rest.

use std::collections::BTreeMap;
use std::ffi::{CString, NulError, OsStr};
use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::berth::{Berth, Place};
use super::error::SpawnError;
use super::handle::{self, Process};
use super::leaders::Cradle;
use super::pidfs;
use super::rights::{self, Chosen};
use super::sys::child::{self, Failure, Plan, Step, Strings};
use crate::model::{Cpus, Life, Resource, RunAs};

/// Where a program without a `/` is looked for if its environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What to run, and in what surroundings.
#[derive(Clone, PartialEq, Eq)]
pub struct Program {
    /// The program and its arguments. A program without a `/` is looked up in the `PATH` of `env`, else in
    /// `/usr/local/bin:/usr/bin:/bin`.
    pub argv: Vec<String>,
    /// The complete environment: nothing of ours is inherited. One that runs as another user has `HOME`, `USER` and
    /// `LOGNAME` of that user beside it, where it does not name them.
    pub env: BTreeMap<String, String>,
    /// Made if it is missing, for the user that it runs as.
    pub directory: PathBuf,
    /// Appended to; made with mode 0640 if it is missing. Neither may be a symbolic link.
    pub stdout: PathBuf,
    pub stderr: PathBuf,
    /// Whom to run as, with all groups of that user; `None` is whoever we are.
    pub user: Option<String>,
    /// The only CPUs to run on.
    pub cpus: Option<Cpus>,
    /// The limit on open files, soft and hard; `None` is ours.
    pub nofile: Option<(u64, u64)>,
    /// What else it is given and denied; the file of its environment was read into `env`.
    pub run_as: RunAs,
    /// The control group that it is born into, a directory of a cgroup2 tree; `None` is ours.
    pub group: Option<PathBuf>,
}

/// Where a process is to say that it is there, and of which life it is.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub file: BorrowedFd<'a>,
    pub life: Life,
}

impl fmt::Debug for Program {
    /// Without what its variables hold, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.env.keys().collect();
        let mut shown = f.debug_struct("Program");
        shown.field("argv", &self.argv).field("env", &names).field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// Starts `program` as the leader of a session and a process group of its own, and returns once it has begun to run.
///
/// All its signals have their default action and none is blocked; it reads from `/dev/null` and inherits no other
/// descriptor. Before it runs, it writes `pid <life> <pid> <start time> [<number of its pidfd>] #<CRC-32>\n` to
/// `record`, in one piece; if it cannot, it does not run. That holds even if we are killed meanwhile: a process whose
/// record is missing never ran.
///
/// Blocks for a fraction of a millisecond, longer if the user database or the disk is slow.
pub fn spawn(program: &Program, record: Option<Record<'_>>) -> Result<Process, SpawnError> {
    let argv = arguments(program)?;
    let candidates = candidates(program)?;
    let directory = c_string(program.directory.as_os_str().as_bytes(), || "the directory".into())?;
    let user = program.user.as_deref().map(|name| rights::find_user(name, &program.run_as)).transpose()?;
    let env = environment(program, user.as_ref())?;
    let limits = rights::limits(&program.run_as, program.nofile);
    let capabilities = rights::capabilities(&program.run_as)?;
    make_directory(&program.directory, user.as_ref())?;
    let cpus = program.cpus.as_ref().map(rights::cpu_mask).transpose()?;
    let mut berth = Berth::take().map_err(|errno| SpawnError::Step { step: "open /dev/null", cause: errno.into() })?;
    put_output(&mut berth, Place::Stdout, &program.stdout)?;
    put_output(&mut berth, Place::Stderr, &program.stderr)?;
    let group = program.group.as_deref().map(open_group).transpose()?;
    let put = record.map(|record| berth.put(Place::Record, record.file)).transpose();
    put.map_err(|errno| SpawnError::Step { step: "keep the record open", cause: errno.into() })?;

    let plan = Plan {
        candidates: &candidates,
        argv: &argv,
        env: &env,
        stdio: [berth.null(), berth.at(Place::Stdout), berth.at(Place::Stderr)],
        record: record.map(|Record { life, .. }| (berth.at(Place::Record), life.0)),
        has_number: record.is_some() && pidfs::is_there(),
        beyond: berth.beyond(),
        directory: &directory,
        limits: &limits,
        nice: program.run_as.nice,
        umask: program.run_as.umask,
        cpus: cpus.as_ref(),
        user: user.as_ref().filter(|user| user.is_another).map(|user| &user.user),
        capabilities,
        no_new_privs: program.run_as.no_new_privs,
        group: group.as_ref().map(OwnedFd::as_fd),
    };
    let cradle = Cradle::open();
    match child::start(&plan) {
        Ok(born) => {
            let leader = cradle.enter(born.pid);
            Ok(Process::born(born.pid, born.start_time, born.pidfd, leader))
        }
        Err((failure, child)) => {
            if let Some(child) = child {
                handle::bury(child.as_fd());
            }
            Err(explain(failure, program))
        }
    }
}

fn explain(Failure { step, errno }: Failure, program: &Program) -> SpawnError {
    let cause = io::Error::from(errno);
    let step = match step {
        Step::Exec => {
            let interpreter = missing_interpreter(program, errno);
            let program = program.argv.first().cloned().unwrap_or_default();
            return match interpreter {
                Some(interpreter) => SpawnError::Interpreter { program, interpreter },
                None => SpawnError::Exec { program, cause },
            };
        }
        Step::Directory => return SpawnError::Directory { path: program.directory.clone(), cause },
        Step::User => return SpawnError::User { user: program.user.clone().unwrap_or_default(), cause },
        Step::Cpu => return rights::beyond(&program.cpus.clone().unwrap_or_default()),
        Step::Group => return SpawnError::Group { path: program.group.clone().unwrap_or_default(), cause },
        Step::Stack => "make a stack for the new process",
        Step::Clone => "start another process",
        Step::Session => "open a session for the process",
        Step::Output => "connect the output of the process",
        Step::Limit(number) => {
            let resource = Resource::ALL.iter().find(|resource| rights::number(**resource) == number);
            let resource = resource.map_or("?", |resource| resource.as_str());
            return SpawnError::Limit { resource, cause };
        }
        Step::Capabilities => return SpawnError::Capabilities { cause },
        Step::Nice => "set the niceness of the process",
        Step::Umask => "set the umask of the process",
        Step::NoNewPrivs => "keep the process from gaining rights",
        Step::StartTime => "read the start time of the process in /proc",
        Step::Descriptors => "close inherited descriptors (Linux 5.9 or later is needed)",
        Step::Signals => "unblock the signals of the process",
        Step::Record => "write the record of the process",
    };
    SpawnError::Step { step, cause }
}

/// The interpreter that the program's first line names, where its absence is why the program, which is there, is "not
/// found".
pub(super) fn missing_interpreter(program: &Program, errno: Errno) -> Option<String> {
    /// The kernel reads no more of a first line, in bytes.
    const LONGEST_LINE: u64 = 256;
    if errno != Errno::NOENT {
        return None;
    }
    let candidates = candidates(program).ok()?;
    let paths = candidates.iter().map(|path| program.directory.join(OsStr::from_bytes(path.to_bytes())));
    let file = paths.filter(|path| path.is_file()).find_map(|path| File::open(path).ok())?;
    let mut line = Vec::new();
    file.take(LONGEST_LINE).read_to_end(&mut line).ok()?;
    let line = line.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let name = line.trim_ascii_start().split(|byte| matches!(byte, b' ' | b'\t' | b'\r' | 0)).next()?;
    let name = Path::new(OsStr::from_bytes(name));
    (!program.directory.join(name).exists()).then(|| name.display().to_string())
}

pub(super) fn arguments(program: &Program) -> Result<Strings, SpawnError> {
    let argv = program.argv.iter().enumerate();
    let argv = argv.map(|(at, argument)| {
        c_string(argument.as_bytes(), || if at == 0 { "the command".into() } else { format!("argument {at}") })
    });
    argv.collect::<Result<_, _>>().map(Strings::new)
}

pub(super) fn environment(program: &Program, user: Option<&Chosen>) -> Result<Strings, SpawnError> {
    let who = program.user.as_ref().zip(user).map(|(name, Chosen { user, .. })| {
        let home = user.home.to_string_lossy().into_owned();
        [("HOME", home), ("USER", name.clone()), ("LOGNAME", name.clone())]
    });
    let who = who.iter().flatten().filter(|(name, _)| !program.env.contains_key(*name));
    let all = program.env.iter().map(|(name, value)| (name.as_str(), value));
    let all = all.chain(who.map(|(name, value)| (*name, value)));
    let env = all.map(|(name, value)| {
        if name.is_empty() || name.contains('=') {
            return Err(SpawnError::VariableName { name: name.to_owned() });
        }
        c_string(format!("{name}={value}").as_bytes(), || format!("environment variable `{name}`"))
    });
    env.collect::<Result<_, _>>().map(Strings::new)
}

/// The files that the command may mean, first choice first.
pub(super) fn candidates(program: &Program) -> Result<Vec<CString>, SpawnError> {
    let command = program.argv.first().filter(|command| !command.is_empty()).ok_or(SpawnError::NoCommand)?;
    if command.contains('/') {
        return Ok(vec![c_string(command.as_bytes(), || "the command".into())?]);
    }
    let path = program.env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    // An empty element means the working directory to exec, and to an attacker. Here it means nothing.
    let directories = path.split(':').filter(|directory| !directory.is_empty());
    directories.map(|directory| c_string(format!("{directory}/{command}").as_bytes(), || "`PATH`".into())).collect()
}

pub(super) fn c_string(bytes: &[u8], what: impl FnOnce() -> String) -> Result<CString, SpawnError> {
    CString::new(bytes).map_err(|_: NulError| SpawnError::Nul { what: what() })
}

/// Makes the directory if it is missing; then it is the user's, and nobody else's to look into.
fn make_directory(path: &Path, user: Option<&Chosen>) -> Result<(), SpawnError> {
    let failed = |cause| SpawnError::MakeDirectory { path: path.to_owned(), cause };
    if let Some(above) = path.parent().filter(|_| !path.exists()) {
        std::fs::create_dir_all(above).map_err(failed)?;
        match DirBuilder::new().mode(0o750).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            made => made.map_err(failed)?,
        }
        if let Some(Chosen { user, is_another: true }) = user {
            // Not through a link that somebody may have put there meanwhile.
            std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid)).map_err(failed)?;
        }
    }
    Ok(())
}

/// Opens a file for appending, and refuses what its node's user may have put in its place: a symbolic link would make us
/// write to any file, and a pipe would make us wait.
fn put_output(berth: &mut Berth, place: Place, path: &Path) -> Result<(), SpawnError> {
    let failed = |errno: Errno| SpawnError::Output { path: path.to_owned(), cause: errno.into() };
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
    let mode = Mode::from_raw_mode(0o640);
    let file = rustix::fs::open(path, flags | OFlags::NONBLOCK, mode).map_err(failed)?;
    let stat = rustix::fs::fstat(&file).map_err(failed)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::CharacterDevice => {}
        _ => return Err(SpawnError::OutputKind { path: path.to_owned() }),
    }
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND).map_err(failed)?; // no longer NONBLOCK: the node shares the flags
    berth.put(place, file).map_err(failed)
}

fn open_group(path: &Path) -> Result<OwnedFd, SpawnError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| SpawnError::Group { path: path.to_owned(), cause: errno.into() })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::testing::{finish, output, script};
    use super::*;
    use crate::model::{Exit, Limit};

    #[test]
    fn a_process_leads_a_session_and_a_group_of_its_own() {
        let home = tempfile::tempdir().unwrap();
        // $$, then pid, group and session as the kernel says
        let said = output(&script(home.path(), "echo $$; cut -d' ' -f1,5,6 /proc/$$/stat"));
        let pid = said.lines().next().unwrap();
        assert_eq!(said, format!("{pid}\n{pid} {pid} {pid}\n"));
    }

    #[test]
    fn no_signal_is_ignored_or_blocked() {
        let home = tempfile::tempdir().unwrap();
        let said = output(&script(home.path(), "exec grep -E '^Sig(Ign|Blk)' /proc/self/status"));
        assert_eq!(said, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    }

    #[test]
    fn our_own_signal_mask_is_as_before() {
        let home = tempfile::tempdir().unwrap();
        let mask = || {
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            status.lines().find(|line| line.starts_with("SigBlk")).unwrap().to_owned()
        };
        let before = mask();
        output(&script(home.path(), ":"));
        assert_eq!(mask(), before);
    }

    #[test]
    fn no_descriptor_beyond_the_first_three_is_inherited() {
        let home = tempfile::tempdir().unwrap();
        let leaky = File::open("/dev/null").unwrap();
        rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
        let record = File::create(home.path().join("record")).unwrap();
        let program = script(home.path(), "for fd in /proc/$$/fd/*; do readlink $fd; done");
        // The shell may hold one of its own above 9, so `ls` looks instead of it in a second run.
        let direct = Program { argv: ["ls", "-l", "/proc/self/fd"].map(String::from).to_vec(), ..program };
        let process = spawn(&direct, of_life(&record)).unwrap();
        assert_eq!(finish(&process), Exit::Status(0));
        let said = fs::read_to_string(&direct.stdout).unwrap();
        let targets: Vec<&str> = said.lines().filter_map(|line| line.split_once(" -> ")).map(|(_, to)| to).collect();
        let own = format!("/proc/{}/fd", process.pid()); // the directory that it reads
        let [stdout, stderr] = [&direct.stdout, &direct.stderr].map(|path| path.to_str().unwrap());
        assert_eq!(targets, ["/dev/null", stdout, stderr, &own], "{said}");
        drop(leaky);
    }

    #[test]
    fn output_is_appended_and_the_file_is_not_for_everybody() {
        let home = tempfile::tempdir().unwrap();
        let program = script(home.path(), "echo said; echo complained >&2");
        output(&program);
        assert_eq!(output(&program), "said\nsaid\n");
        assert_eq!(fs::read_to_string(&program.stderr).unwrap(), "complained\ncomplained\n");
        assert_eq!(fs::metadata(&program.stdout).unwrap().permissions().mode() & 0o037, 0);
    }

    #[test]
    fn a_link_or_a_pipe_in_the_place_of_the_output_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let program = script(home.path(), ":");
        let victim = home.path().join("victim");
        fs::write(&victim, "").unwrap();
        std::os::unix::fs::symlink(&victim, &program.stdout).unwrap();
        let error = spawn(&program, None).unwrap_err();
        assert!(matches!(error, SpawnError::Output { .. }), "{error}");

        fs::remove_file(&program.stdout).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &program.stdout, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let reader = rustix::fs::open(&program.stdout, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
        let error = spawn(&program, None).unwrap_err();
        assert!(matches!(error, SpawnError::OutputKind { .. }), "{error}");
        drop(reader);
    }

    #[test]
    fn the_environment_and_the_directory_are_the_given_ones() {
        let home = tempfile::tempdir().unwrap();
        let mut program = script(home.path(), "");
        program.env = BTreeMap::from([("ONE".into(), "1=1".into()), ("TWO".into(), String::new())]);
        program.argv = vec!["env".into()];
        assert_eq!(output(&program), "ONE=1=1\nTWO=\n");
        fs::remove_file(&program.stdout).unwrap();
        program.argv = vec!["pwd".into(), "-P".into()];
        assert_eq!(output(&program).trim(), home.path().canonicalize().unwrap().to_str().unwrap());
    }

    #[test]
    fn the_record_is_written_whatever_the_size_of_files_may_be() {
        let home = tempfile::tempdir().unwrap();
        let run_as =
            RunAs { limits: [(Resource::Fsize, Limit { soft: Some(0), hard: Some(0) })].into(), ..RunAs::default() };
        let record = File::create(home.path().join("record")).unwrap();
        let program = Program { run_as, ..script(home.path(), "ulimit -f > /dev/null") };
        let process = spawn(&program, of_life(&record)).unwrap();
        assert_eq!(finish(&process), Exit::Status(0));
        assert!(fs::read_to_string(home.path().join("record")).unwrap().starts_with("pid "));
    }

    #[test]
    fn the_path_of_the_environment_finds_the_program() {
        let home = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| {
            let directory = home.path().join(name);
            fs::create_dir(&directory).unwrap();
            std::os::unix::fs::symlink("/bin/echo", directory.join("tell")).unwrap();
            directory
        });
        let mut program = script(home.path(), "");
        program.argv = ["tell", "found"].map(String::from).to_vec();
        // A forbidden candidate is passed over if a later one will do.
        fs::remove_file(first.join("tell")).unwrap();
        fs::write(first.join("tell"), "").unwrap();
        let path =
            |directories: &[&Path]| directories.iter().map(|d| d.to_str().unwrap()).collect::<Vec<_>>().join(":");
        program.env = BTreeMap::from([("PATH".into(), path(&[Path::new("/nowhere"), &first, &second]))]);
        assert_eq!(output(&program), "found\n");
        // If none will, it is what gets reported.
        program.env = BTreeMap::from([("PATH".into(), path(&[&first, Path::new("/nowhere")]))]);
        assert_eq!(refusal(&program), "cannot run `tell`: Permission denied (os error 13)");
        program.argv = vec!["echo".into()];
        program.env.clear();
        fs::remove_file(&program.stdout).unwrap();
        assert_eq!(output(&program), "\n", "the default path");
    }

    #[test]
    fn every_refusal_says_what_is_wrong_with_what() {
        let home = tempfile::tempdir().unwrap();
        let good = script(home.path(), ":");
        let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
        let online = online.trim();
        let argv = |argv: &[&str]| Program { argv: argv.iter().map(|s| s.to_string()).collect(), ..good.clone() };
        let env = |name: &str, value: &str| Program { env: [(name.into(), value.into())].into(), ..good.clone() };
        let from_a_link = serde_json::from_str("200").unwrap();
        let text = home.path().join("text");
        fs::write(&text, "no program").unwrap();
        fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
        let orphan = home.path().join("orphan");
        fs::write(&orphan, "#! /no/such -x\necho hello\n").unwrap();
        fs::set_permissions(&orphan, fs::Permissions::from_mode(0o755)).unwrap();
        for (program, want) in [
            (argv(&["foo"]), "cannot run `foo`: No such file or directory (os error 2)"),
            (argv(&["./foo"]), "cannot run `./foo`: No such file or directory (os error 2)"),
            (argv(&["./orphan"]), "cannot run `./orphan`: its interpreter `/no/such` does not exist"),
            (argv(&["/etc/passwd"]), "cannot run `/etc/passwd`: Permission denied (os error 13)"),
            (argv(&["./text"]), "cannot run `./text`: Exec format error (os error 8)"),
            (argv(&[]), "there is no command to run"),
            (argv(&[""]), "there is no command to run"),
            (argv(&["echo", "a\0b"]), "argument 1 contains a NUL byte"),
            (argv(&["ec\0ho"]), "the command contains a NUL byte"),
            (env("A", "\0"), "environment variable `A` contains a NUL byte"),
            (env("A=B", ""), "`A=B` cannot name an environment variable: it is empty or contains `=`"),
            (
                Program { directory: "/proc/nowhere".into(), ..good.clone() },
                "cannot make directory /proc/nowhere: No such file or directory (os error 2)",
            ),
            (
                Program { stderr: "/nowhere/stderr".into(), ..good.clone() },
                "cannot write the output to /nowhere/stderr: No such file or directory (os error 2)",
            ),
            (
                Program { cpus: Some(Cpus::one(8191)), ..good.clone() },
                &*format!("cannot run on CPUs 8191: 8191 is not among those that this machine lets us use, {online}"),
            ),
            (
                Program { cpus: Some(Cpus::one(u32::MAX)), ..good.clone() },
                &*format!(
                    "cannot run on CPUs 4294967295: 4294967295 is not among those that this machine lets us use, {online}"
                ),
            ),
            (Program { user: Some("no such user".into()), ..good.clone() }, "user `no such user` does not exist"),
            (
                Program { run_as: RunAs { capabilities: [from_a_link].into(), ..RunAs::default() }, ..good.clone() },
                "cannot keep capability 200 for it: this release does not know that one, so upgrade this agent",
            ),
            (
                Program { nofile: Some((2, 1)), ..good.clone() },
                "cannot set its limit on nofile: Invalid argument (os error 22)",
            ),
        ] {
            assert_eq!(refusal(&program), want);
            assert!(spawn(&program, None).unwrap_err().is_permanent(), "{want}");
        }
    }

    #[test]
    fn the_record_names_the_process_before_it_runs() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("record");
        let record = File::create(&path).unwrap();
        let process = spawn(&script(home.path(), "cat record; exec cat /proc/$$/stat"), of_life(&record)).unwrap();
        assert_eq!(finish(&process), Exit::Status(0));
        let number = process.identity().number.map_or_else(String::new, |number| format!(" {number}"));
        assert_ne!(number.is_empty(), pidfs::is_there());
        let line = format!("pid 7 {} {}{number}", process.pid(), process.start_time());
        let line = format!("{line} #{:08x}\n", crc32fast::hash(line.as_bytes()));
        assert_eq!(fs::read_to_string(&path).unwrap(), line);
        let said = fs::read_to_string(home.path().join("stdout")).unwrap();
        let stat = said.strip_prefix(&line).expect("the line was there when the program began");
        assert_eq!(stat.rsplit(')').next().unwrap().split(' ').nth(20).unwrap(), process.start_time().to_string());
    }

    #[test]
    fn the_start_time_is_the_one_that_proc_shows_whenever_in_a_tick_it_is_born() {
        let home = tempfile::tempdir().unwrap();
        for _ in 0..300 {
            let process = spawn(&script(home.path(), "exec sleep 1000"), None).unwrap();
            let shown = super::super::identity::start_time(process.pid()).unwrap();
            assert_eq!(Some(process.start_time()), shown);
            process.kill().unwrap();
            finish(&process);
        }
    }

    #[test]
    fn without_its_record_a_process_does_not_run() {
        let home = tempfile::tempdir().unwrap();
        let program = script(home.path(), "touch ran");
        let full = File::options().write(true).open("/dev/full").unwrap();
        let read_only = File::open("/dev/null").unwrap();
        for (record, why) in
            [(full, "No space left on device (os error 28)"), (read_only, "Bad file descriptor (os error 9)")]
        {
            let error = spawn(&program, of_life(&record)).unwrap_err();
            assert_eq!(error.to_string(), format!("cannot write the record of the process: {why}"));
        }
        assert!(!home.path().join("ran").exists());
    }

    #[test]
    fn a_process_whose_record_was_replaced_does_not_run() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("record");
        let record = File::create(&path).unwrap();
        fs::write(home.path().join("record.new"), "another's").unwrap();
        fs::rename(home.path().join("record.new"), &path).unwrap();
        let error = spawn(&script(home.path(), "touch ran"), of_life(&record)).unwrap_err().to_string();
        assert!(error.starts_with("cannot write the record of the process: Stale"), "{error}");
        assert!(!home.path().join("ran").exists());
        assert_eq!(fs::read_to_string(&path).unwrap(), "another's");
    }

    #[test]
    fn a_failed_start_leaves_no_zombie() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("record");
        let record = File::create(&path).unwrap();
        let program = Program { argv: vec!["/nowhere".into()], ..script(home.path(), "") };
        spawn(&program, of_life(&record)).unwrap_err();
        let line = fs::read_to_string(&path).unwrap();
        let [_, _, pid, start_time, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
        let now = super::super::identity::start_time(pid.parse().unwrap()).unwrap();
        assert_ne!(now, Some(start_time.parse().unwrap()));
    }

    #[test]
    fn several_threads_start_processes_at_once() {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                std::thread::spawn(move || {
                    for turn in 0..10 {
                        let home = tempfile::tempdir().unwrap();
                        let said = output(&script(home.path(), &format!("echo {thread} {turn}")));
                        assert_eq!(said, format!("{thread} {turn}\n"));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    fn of_life(file: &File) -> Option<Record<'_>> {
        Some(Record { file: file.as_fd(), life: Life(7) })
    }

    fn refusal(program: &Program) -> String {
        spawn(program, None).expect_err("this cannot be started").to_string()
    }
}
