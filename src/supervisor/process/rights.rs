//! Whom a process runs as, what it may do and where, before [`spawn`](super::spawn) lets it.

use std::collections::BTreeSet;

use rustix::io::Errno;

use super::error::SpawnError;
use super::spawn::c_string;
use super::sys::child::CpuMask;
use super::sys::user::{self, User};
use crate::model::{Cpus, Resource, RunAs};

/// The user that a program runs as.
pub(super) struct Chosen {
    pub user: User,
    /// We are somebody else, or may at least become what we are anew.
    pub is_another: bool,
}

/// Looks up a user, and the groups that it is to have beside its own.
pub(super) fn find_user(name: &str, run_as: &RunAs) -> Result<Chosen, SpawnError> {
    let database = |errno: Errno| SpawnError::UserDatabase { user: name.to_owned(), cause: errno.into() };
    let user = c_string(name.as_bytes(), || "the user's name".into())?;
    let user = user::look_up(&user).map_err(database)?;
    let mut user = user.ok_or_else(|| SpawnError::UnknownUser { user: name.to_owned() })?;
    for group in &run_as.groups {
        let number = user::look_up_group(&c_string(group.as_bytes(), || "a group's name".into())?).map_err(database)?;
        user.groups.push(number.ok_or_else(|| SpawnError::UnknownGroup { group: group.clone() })?);
    }
    let ours = rustix::process::geteuid();
    let asks_for_more = !run_as.groups.is_empty() || !run_as.capabilities.is_empty();
    Ok(Chosen { is_another: ours.is_root() || ours.as_raw() != user.uid || asks_for_more, user })
}

/// The limits of its own, and on open files those that we were started with.
pub(super) fn limits(run_as: &RunAs, nofile: Option<(u64, u64)>) -> Vec<(u32, [u64; 2])> {
    let own = run_as.limits.iter().map(|(resource, limit)| {
        let [soft, hard] = [limit.soft, limit.hard].map(|limit| limit.unwrap_or(libc::RLIM_INFINITY));
        (number(*resource), [soft, hard])
    });
    let usual = nofile.filter(|_| !run_as.limits.contains_key(&Resource::Nofile));
    let usual = usual.map(|(soft, hard)| (number(Resource::Nofile), [soft, hard]));
    own.chain(usual).collect()
}

/// A bit for each. One that came over a link may be of a later release, and stand for no bit at all.
pub(super) fn capabilities(run_as: &RunAs) -> Result<u64, SpawnError> {
    run_as.capabilities.iter().try_fold(0, |mask, capability| match (capability.is_known(), capability.number()) {
        (true, number) => Ok(mask | 1 << number),
        (false, number) => Err(SpawnError::UnknownCapability { number }),
    })
}

/// As the kernel counts resources.
pub(super) fn number(resource: Resource) -> u32 {
    match resource {
        Resource::As => libc::RLIMIT_AS,
        Resource::Core => libc::RLIMIT_CORE,
        Resource::Cpu => libc::RLIMIT_CPU,
        Resource::Data => libc::RLIMIT_DATA,
        Resource::Fsize => libc::RLIMIT_FSIZE,
        Resource::Locks => libc::RLIMIT_LOCKS,
        Resource::Memlock => libc::RLIMIT_MEMLOCK,
        Resource::Msgqueue => libc::RLIMIT_MSGQUEUE,
        Resource::Nice => libc::RLIMIT_NICE,
        Resource::Nofile => libc::RLIMIT_NOFILE,
        Resource::Nproc => libc::RLIMIT_NPROC,
        Resource::Rss => libc::RLIMIT_RSS,
        Resource::Rtprio => libc::RLIMIT_RTPRIO,
        Resource::Rttime => libc::RLIMIT_RTTIME,
        Resource::Sigpending => libc::RLIMIT_SIGPENDING,
        Resource::Stack => libc::RLIMIT_STACK,
    }
}

/// A bit for each CPU.
pub(super) fn cpu_mask(cpus: &Cpus) -> Result<CpuMask, SpawnError> {
    let mut mask: CpuMask = [0; _];
    for cpu in &cpus.0 {
        let word = mask.get_mut(*cpu as usize / 64).ok_or_else(|| beyond(cpus))?;
        *word |= 1 << (cpu % 64);
    }
    Ok(mask)
}

/// A process was to run on CPUs that it cannot all have.
pub(super) fn beyond(cpus: &Cpus) -> SpawnError {
    // What the machine has; which of them we may not use, only the kernel knows.
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").ok();
    let online = online.and_then(|online| online.trim().parse::<Cpus>().ok());
    let missing = online.as_ref().map(|online| cpus.0.difference(&online.0).copied().collect::<BTreeSet<_>>());
    let missing = missing.filter(|missing| !missing.is_empty()).map_or_else(|| cpus.clone(), Cpus);
    SpawnError::Cpus { cpus: cpus.clone(), missing, online }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::super::Program;
    use super::super::spawn::spawn;
    use super::super::testing::{output, script};
    use super::*;
    use crate::model::{Capability, Limit};

    #[test]
    fn the_limit_on_open_files_is_set_back() {
        let home = tempfile::tempdir().unwrap();
        let ours: Vec<_> = (0..150).map(|_| File::open("/dev/null").unwrap()).collect();
        let program = Program { nofile: Some((99, 100)), ..script(home.path(), "ulimit -Sn; ulimit -Hn") };
        assert_eq!(output(&program), "99\n100\n", "though we have {} files open", ours.len());
    }

    #[test]
    fn a_process_stays_on_its_cpu() {
        let home = tempfile::tempdir().unwrap();
        let cpus = rustix::thread::sched_getaffinity(None).unwrap();
        let cpu = (0..1024).rfind(|cpu| cpus.is_set(*cpu)).unwrap();
        let show = "grep Cpus_allowed_list /proc/self/status";
        let program = Program { cpus: Some(Cpus::one(cpu as u32)), ..script(home.path(), show) };
        assert_eq!(output(&program), format!("Cpus_allowed_list:\t{cpu}\n"));
    }

    #[test]
    fn a_user_is_become_with_all_its_groups_or_not_at_all() {
        let home = tempfile::tempdir().unwrap();
        let program = Program { user: Some("nobody".into()), ..script(home.path(), "id -un; id -G; id nobody -G") };
        if rustix::process::geteuid().is_root() {
            let said = output(&program);
            let [name, mine, database] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
            assert_eq!((name, mine), ("nobody", database));
        } else {
            let program = Program { user: Some("root".into()), ..program };
            let error = refusal(&program);
            assert!(error.starts_with("cannot become user `root`: Operation not permitted"), "{error}");
        }
    }

    #[test]
    fn a_process_has_what_it_is_given_and_not_what_it_is_denied() {
        let home = tempfile::tempdir().unwrap();
        let show = "umask; nice; ulimit -Sc; ulimit -Hc; grep NoNewPrivs /proc/self/status | cut -f2";
        let run_as = RunAs {
            umask: Some(0o27),
            nice: Some(7),
            limits: [(Resource::Core, Limit { soft: Some(0), hard: Some(512) })].into(),
            no_new_privs: true,
            ..RunAs::default()
        };
        assert_eq!(output(&Program { run_as, ..script(home.path(), show) }), "0027\n7\n0\n1\n1\n");
    }

    #[test]
    fn a_user_keeps_the_capabilities_and_has_the_groups_that_it_is_given() {
        let home = tempfile::tempdir().unwrap();
        let net_raw = Capability::named("net_raw").unwrap();
        let run_as = RunAs { groups: vec!["daemon".into()], capabilities: [net_raw].into(), ..RunAs::default() };
        let show = "id -un; id -Gn; grep -E '^Cap(Eff|Amb)' /proc/self/status | cut -f2; pwd; echo $HOME $USER";
        let directory = home.path().join("deep/work");
        let program =
            Program { user: Some("nobody".into()), run_as, directory: directory.clone(), ..script(home.path(), show) };
        if !rustix::process::geteuid().is_root() {
            return assert!(refusal(&program).contains("Operation not permitted"), "{}", refusal(&program));
        }
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let said = output(&program);
        let mask = format!("{:016x}", 1u64 << net_raw.number());
        let want = format!("nobody\nnogroup daemon\n{mask}\n{mask}\n{}\n/nonexistent nobody\n", directory.display());
        assert_eq!(said, want);
        let made = fs::metadata(&directory).unwrap();
        let nobody = user::look_up(c"nobody").unwrap().unwrap();
        assert_eq!((made.uid(), made.gid(), made.permissions().mode() & 0o777), (nobody.uid, nobody.gid, 0o750));
        let unknown = RunAs { groups: vec!["no such group".into()], ..RunAs::default() };
        assert_eq!(refusal(&Program { run_as: unknown, ..program }), "group `no such group` does not exist");
    }

    #[test]
    fn a_process_stays_on_its_cpus() {
        let home = tempfile::tempdir().unwrap();
        let ours = rustix::thread::sched_getaffinity(None).unwrap();
        let ours = Cpus((0..1024).filter(|cpu| ours.is_set(*cpu as usize)).collect());
        let show = "grep Cpus_allowed_list /proc/self/status";
        let program = Program { cpus: Some(ours.clone()), ..script(home.path(), show) };
        assert_eq!(output(&program), format!("Cpus_allowed_list:\t{ours}\n"));
    }

    #[test]
    fn a_list_that_goes_beyond_the_machine_is_refused_though_part_of_it_is_there() {
        let home = tempfile::tempdir().unwrap();
        let online: Cpus = fs::read_to_string("/sys/devices/system/cpu/online").unwrap().trim().parse().unwrap();
        let mut beyond = online.clone();
        beyond.0.insert(1000);
        let program = Program { cpus: Some(beyond.clone()), ..script(home.path(), "touch ran") };
        assert_eq!(
            refusal(&program),
            format!("cannot run on CPUs {beyond}: 1000 is not among those that this machine lets us use, {online}")
        );
        assert!(!home.path().join("ran").exists());
    }

    fn refusal(program: &Program) -> String {
        spawn(program, None).expect_err("this cannot be started").to_string()
    }
}
