//! Limits of control groups: which of them a tree can have, found out by trying, and how they are written.
//!
//! A group can be limited where each group above it hands the controller on (`cgroup.subtree_control`). Those that are ours
//! are made to; of those that are not, the one in which ours are is asked to.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::model::{Bytes, Quota, Quotas};

/// Why a limit cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoQuota {
    #[error("the cgroup2 tree at {} has no {controller} controller there", tree.display())]
    NoController { controller: &'static str, tree: PathBuf },
    #[error("the {controller} controller cannot be enabled in {}: {cause}", group.display())]
    NotEnabled { controller: &'static str, group: PathBuf, cause: String },
    #[error("{} cannot be written: {cause}", file.display())]
    NotWritten { file: PathBuf, cause: String },
}

/// Which limits cannot be had, each with why.
pub type Lacking = BTreeMap<Quota, NoQuota>;

/// Has the groups of `chain`, from the top down, hand all controllers on, and finds out in `probe`, a group below the last
/// of them, which limits that makes possible.
pub(super) fn try_out(chain: &[PathBuf], probe: &Path) -> Lacking {
    let lacks = |quota: Quota| {
        enable(chain, quota).and_then(|()| write(&probe.join(quota.file()), "max")).err().map(|why| (quota, why))
    };
    Quota::ALL.into_iter().filter_map(lacks).collect()
}

/// Has each of these groups hand the controller on, from the top down.
pub(super) fn enable(chain: &[PathBuf], quota: Quota) -> Result<(), NoQuota> {
    let controller = quota.controller();
    for group in chain {
        if lists(&group.join("cgroup.subtree_control"), controller) {
            continue;
        }
        if !lists(&group.join("cgroup.controllers"), controller) {
            return Err(NoQuota::NoController { controller, tree: group.clone() });
        }
        fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"))
            .map_err(|error| NoQuota::NotEnabled { controller, group: group.clone(), cause: error.to_string() })?;
    }
    Ok(())
}

fn lists(file: &Path, controller: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.split_whitespace().any(|word| word == controller))
}

fn write(file: &Path, text: &str) -> Result<(), NoQuota> {
    // Not made: where the file is missing the kernel knows no such limit.
    let written = fs::OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|mut open| io::Write::write_all(&mut open, text.as_bytes()));
    written.map_err(|error| NoQuota::NotWritten { file: file.to_owned(), cause: error.to_string() })
}

/// Why a node cannot be limited as its definition says. Trying again is futile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    #[error("cannot limit it by {key} = {value}: {why}")]
    Lacking { key: &'static str, value: String, why: NoQuota },
    #[error("cannot limit it by {key} = {value}: it has no control group, since {why}")]
    NoGroup { key: &'static str, value: String, why: String },
    #[error("cannot limit it by {key} = {value}: what runs in {} uses {used} already", group.display())]
    Below { key: &'static str, value: String, used: String, group: PathBuf },
}

/// Limits what is in a group, or will be.
pub(super) fn apply(quotas: &Quotas, lacking: &Lacking, group: &Path) -> Result<(), QuotaError> {
    let refused = |key, value: &str, why: &NoQuota| QuotaError::Lacking { key, value: value.into(), why: why.clone() };
    for (quota, _, value) in quotas.wanted() {
        if let Some(why) = lacking.get(&quota) {
            return Err(refused(quota.key(), &value, why));
        }
        if let Some(used) = used_beyond(quotas, quota, group) {
            return Err(QuotaError::Below { key: quota.key(), value, used, group: group.to_owned() });
        }
    }
    for (quota, text, value) in quotas.wanted() {
        write(&group.join(quota.file()), &text).map_err(|why| refused(quota.key(), &value, &why))?;
    }
    Ok(())
}

/// How much is used, where that is more than the limit: the kernel would end what runs to make it true.
fn used_beyond(quotas: &Quotas, quota: Quota, group: &Path) -> Option<String> {
    let number = |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    match quota {
        Quota::Memory => {
            let (used, most) = (number("memory.current")?, quotas.memory_max?);
            (used > most.0).then(|| Bytes(used).to_string())
        }
        Quota::Pids => {
            let (used, most) = (number("pids.current")?, quotas.pids_max?);
            (used > most).then(|| used.to_string())
        }
        Quota::Cpu => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CpuShare;

    /// Directories that look like a tree with these controllers, and the groups of ours in it.
    fn made_up(controllers: &str) -> (tempfile::TempDir, Vec<PathBuf>, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let top = home.path().to_owned();
        let chain = vec![top.clone(), top.join("watchpost"), top.join("watchpost/x")];
        let probe = top.join("watchpost/x/probe");
        fs::create_dir_all(&probe).unwrap();
        for group in &chain {
            fs::write(group.join("cgroup.controllers"), controllers).unwrap();
            fs::write(group.join("cgroup.subtree_control"), "").unwrap();
        }
        for controller in controllers.split_whitespace() {
            fs::write(probe.join(format!("{controller}.max")), "").unwrap();
        }
        (home, chain, probe)
    }

    #[test]
    fn every_group_above_hands_the_controllers_on() {
        let (_home, chain, probe) = made_up("cpuset cpu memory pids\n");
        assert_eq!(try_out(&chain, &probe), Lacking::new());
        for group in &chain {
            // Each write is for the kernel, which adds it to what it has; a file has the last one.
            assert_eq!(fs::read_to_string(group.join("cgroup.subtree_control")).unwrap(), "+pids");
        }
        assert_eq!(fs::read_to_string(probe.join("memory.max")).unwrap(), "max");
    }

    #[test]
    fn what_is_handed_on_already_is_not_touched() {
        let (_home, chain, probe) = made_up("memory");
        for group in &chain {
            fs::write(group.join("cgroup.subtree_control"), "cpu memory\n").unwrap();
        }
        enable(&chain, Quota::Memory).unwrap();
        assert_eq!(fs::read_to_string(chain[0].join("cgroup.subtree_control")).unwrap(), "cpu memory\n");
        assert!(!try_out(&chain, &probe).contains_key(&Quota::Memory));
    }

    #[test]
    fn a_controller_that_is_not_there_or_not_ours_to_enable_is_named_with_its_place() {
        let (home, chain, probe) = made_up("memory");
        let lacking = try_out(&chain, &probe);
        let top = home.path().display();
        let said = |quota| lacking[&quota].to_string();
        assert_eq!(said(Quota::Cpu), format!("the cgroup2 tree at {top} has no cpu controller there"));
        assert_eq!(said(Quota::Pids), format!("the cgroup2 tree at {top} has no pids controller there"));
        assert_eq!(lacking.len(), 2);

        fs::remove_file(chain[1].join("cgroup.subtree_control")).unwrap();
        fs::create_dir(chain[1].join("cgroup.subtree_control")).unwrap();
        let error = enable(&chain, Quota::Memory).unwrap_err().to_string();
        assert!(error.starts_with(&format!("the memory controller cannot be enabled in {top}/watchpost: ")), "{error}");
        let (_home, chain, probe) = made_up("memory");
        fs::remove_file(probe.join("memory.max")).unwrap();
        assert!(matches!(try_out(&chain, &probe)[&Quota::Memory], NoQuota::NotWritten { .. }));
    }

    #[test]
    fn a_limit_that_cannot_be_had_is_refused_by_name_and_nothing_is_written() {
        let (_home, chain, probe) = made_up("memory");
        let lacking = try_out(&chain, &probe);
        let quotas = Quotas { memory_max: Some(Bytes(2 << 30)), cpu_max: Some(CpuShare(150)), pids_max: None };
        let error = apply(&quotas, &lacking, &probe).unwrap_err();
        let tree = chain[0].display();
        let want = format!("cannot limit it by cpu_max = 150%: the cgroup2 tree at {tree} has no cpu controller there");
        assert_eq!(error.to_string(), want);
        assert_eq!(fs::read_to_string(probe.join("memory.max")).unwrap(), "max", "as it was");
        assert_eq!(apply(&Quotas::default(), &lacking, &probe), Ok(()), "who wants no limit lacks nothing");
    }

    #[test]
    fn limits_are_written_in_the_kernels_words() {
        let (_home, _, probe) = made_up("memory cpu pids");
        let quotas = Quotas { memory_max: Some(Bytes(2 << 30)), cpu_max: Some(CpuShare(50)), pids_max: Some(64) };
        apply(&quotas, &Lacking::new(), &probe).unwrap();
        let read = |file: &str| fs::read_to_string(probe.join(file)).unwrap();
        assert_eq!([read("memory.max"), read("cpu.max"), read("pids.max")], ["2147483648", "50000 100000", "64"]);
    }

    #[test]
    fn a_limit_below_what_runs_is_refused_and_what_runs_is_left_alone() {
        let (_home, _, group) = made_up("memory pids");
        fs::write(group.join("memory.current"), "209715200\n").unwrap();
        fs::write(group.join("pids.current"), "3\n").unwrap();
        let quotas =
            |memory: u64, pids| Quotas { memory_max: Some(Bytes(memory)), cpu_max: None, pids_max: Some(pids) };
        let error = |quotas: Quotas| apply(&quotas, &Lacking::new(), &group).unwrap_err().to_string();
        let place = group.display();
        let below = error(quotas(100 << 20, 9));
        assert_eq!(below, format!("cannot limit it by memory_max = 100M: what runs in {place} uses 200M already"));
        let below = error(quotas(1 << 30, 2));
        assert_eq!(below, format!("cannot limit it by pids_max = 2: what runs in {place} uses 3 already"));
        assert_eq!(fs::read_to_string(group.join("memory.max")).unwrap(), "", "as it was");
        apply(&quotas(200 << 20, 3), &Lacking::new(), &group).unwrap();
    }
}
