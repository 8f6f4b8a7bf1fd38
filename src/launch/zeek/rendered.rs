//! What was rendered, on disk: a generation for each configuration, and in it the files for each version of Zeek.
//!
//! `cluster.json` in a generation is what its files are made of, so that a Zeek which is replaced while its nodes run gets
//! files of its own at their next launch. The link `current` names the generation in force. A generation is complete
//! before anything names it; whoever launches follows the link once, and so never sees half of one and half of another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::script;
use super::version::Version;
use crate::model::{Backend, CurveKeys, LayoutEntry, Network, NodeName, Zeek};

/// The link to the generation in force.
const CURRENT: &str = "current";
/// What the files of a generation are made of.
const CLUSTER: &str = "cluster.json";
/// The keys of its nodes, for the agent alone: they are handed to each node's process, and lie nowhere else.
const KEYS: &str = "keys.json";
/// The longest of those that is read, in bytes.
const LONGEST: u64 = 64 << 20;
/// The format of that; another number is of another release.
const FORMAT: u32 = 1;

/// What files are made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    format: u32,
    pub zeek: Zeek,
    /// All that count as local.
    pub networks: Vec<Network>,
    /// All members, sorted by name.
    pub layout: Vec<LayoutEntry>,
}

impl Cluster {
    /// Of `zeek` as much as is rendered: what may hold a secret is for command lines and environments alone.
    pub fn new(zeek: &Zeek, networks: Vec<Network>, layout: Vec<LayoutEntry>) -> Self {
        let zeek = Zeek {
            backend: zeek.backend,
            rotation_interval: zeek.rotation_interval,
            metrics_address: zeek.metrics_address,
            zeromq_ports: zeek.zeromq_ports,
            encrypt: zeek.encrypt,
            hash_seed: zeek.hash_seed,
            pcap_snaplen: zeek.pcap_snaplen,
            pcap_bufsize: zeek.pcap_bufsize,
            ..Zeek::default()
        };
        Self { format: FORMAT, zeek, networks, layout }
    }
}

/// Why there are no files for a node.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("nothing was rendered for Zeek nodes yet: deploy the configuration")]
    Nothing,
    #[error("{} is not of this release: deploy the configuration again", .0.display())]
    Foreign(PathBuf),
    #[error("{} holds a `:`, which parts the directories of ZEEKPATH: choose another state directory", .0.display())]
    Colon(PathBuf),
}

/// The files for one version of Zeek.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered(PathBuf);

impl Rendered {
    /// Files that are nowhere, for a test of what is made of their names.
    #[cfg(test)]
    pub fn at(path: &str) -> Self {
        Self(path.into())
    }

    /// What comes first in ZEEKPATH.
    pub fn directory(&self) -> String {
        self.0.display().to_string()
    }

    /// The script that comes before those of the site.
    pub fn settings(&self) -> String {
        self.0.join("watchpost-settings.zeek").display().to_string()
    }

    /// The script that comes behind them.
    pub fn last(&self) -> String {
        self.0.join("watchpost-last.zeek").display().to_string()
    }
}

impl Rendered {
    /// The keys of the cluster's nodes, if they have any.
    pub fn keys(&self) -> Result<Option<CurveKeys>, StoreError> {
        let path = self.0.with_file_name(KEYS);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => {
                let keys = serde_json::from_slice(&read.map_err(failed("read", &path))?);
                // What the decoder says might quote a key.
                keys.map(Some).map_err(|_| StoreError::Foreign(path))
            }
        }
    }

    /// The script by which a node talks to its agent, behind all others.
    pub fn channel(&self) -> String {
        self.0.join("watchpost-channel.zeek").display().to_string()
    }
}

/// Everything rendered by one agent.
#[derive(Debug)]
pub struct Store {
    home: PathBuf,
    /// What this run of the agent rendered and may use.
    kept: Mutex<Rendering>,
}

#[derive(Debug, Default)]
struct Rendering {
    /// The generation that was made under each number.
    made: BTreeMap<u64, u64>,
    /// The generation that nodes are launched by; without one that is what the link names.
    in_use: Option<u64>,
    /// The generation of a configuration that is on its way, and the nodes that are launched by it already.
    on_trial: Option<(u64, BTreeSet<NodeName>)>,
}

impl Rendering {
    /// By which that node is launched, if it is not that which the link names.
    fn generation_of(&self, node: &NodeName) -> Option<u64> {
        let on_trial = self.on_trial.as_ref().filter(|(_, nodes)| nodes.contains(node));
        on_trial.map(|(generation, _)| *generation).or(self.in_use)
    }
}

/// How many generations of one run are known by their number: the one in use, the one before, and what was only looked at.
const MOST_KNOWN: usize = 8;

/// A generation that may come to be in force.
#[derive(Debug)]
pub struct Generation {
    path: PathBuf,
    number: u64,
}

impl Store {
    /// Keeps its files below `home`.
    pub fn new(home: PathBuf) -> Self {
        Self { home, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Rendering> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files by which that node is launched, for that version.
    pub fn current(&self, node: &NodeName, version: Version) -> Result<Rendered, StoreError> {
        let in_use = self.kept().generation_of(node);
        match in_use.map_or_else(|| self.named(), |in_use| Ok(Some(in_use)))? {
            Some(generation) => files(&self.home.join(generation.to_string()), version),
            None => Err(StoreError::Nothing),
        }
    }

    /// The generation that the link names, if there is a link.
    fn named(&self) -> Result<Option<u64>, StoreError> {
        let link = self.home.join(CURRENT);
        match fs::read_link(&link) {
            Ok(name) => Ok(name.to_str().and_then(|name| name.parse().ok())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io { what: "read", path: link, source }),
        }
    }

    /// A place for an errand, one for each number.
    pub fn scratch(&self, number: usize) -> PathBuf {
        self.home.join(format!("looked-at-{number}"))
    }

    /// Lays down what the next generation is made of. It is not in force yet.
    pub fn begin(&self, cluster: &Cluster, keys: Option<&CurveKeys>) -> Result<Generation, StoreError> {
        if self.home.display().to_string().contains(':') {
            return Err(StoreError::Colon(self.home.clone()));
        }
        let number = self.numbers()?.last().map_or(1, |last| last + 1);
        let path = self.home.join(number.to_string());
        make_directory(&path)?;
        let text = serde_json::to_vec(cluster).map_err(|error| failed("write", &path)(error.into()))?;
        write(&path.join(CLUSTER), &text, OURS)?;
        if let Some(keys) = keys {
            let text = serde_json::to_vec(keys).map_err(|error| failed("write", &path)(error.into()))?;
            write(&path.join(KEYS), &text, OURS)?;
        }
        Ok(Generation { path, number })
    }

    /// A generation may come to be used: it is known by this number.
    pub fn keep(&self, number: u64, generation: &Generation) {
        let mut kept = self.kept();
        kept.made.insert(number, generation.number);
        while kept.made.len() > MOST_KNOWN {
            kept.made.pop_first();
        }
    }

    /// These nodes are launched by what was made under this number, and all others by what is in use, until it is chosen what
    /// is.
    pub fn try_out(&self, number: u64, nodes: BTreeSet<NodeName>) {
        let mut kept = self.kept();
        let generation = kept.made.get(&number).copied();
        kept.on_trial = generation.map(|generation| (generation, nodes));
    }

    /// All nodes are launched by what was made under this number from now on; without one by what is in use, also those for
    /// which something else was tried out.
    pub fn choose(&self, number: Option<u64>) {
        let mut kept = self.kept();
        let generation = number.and_then(|number| kept.made.get(&number).copied());
        kept.in_use = generation.or(kept.in_use);
        kept.on_trial = None;
    }

    /// Has the link name the generation in use, and lets go of those that nobody uses any more.
    pub fn put_in_force(&self) -> Result<(), StoreError> {
        let Some(in_use) = self.kept().in_use else { return Ok(()) };
        let former = self.named()?;
        let (link, fresh) = (self.home.join(CURRENT), self.home.join("current.new"));
        let _ = fs::remove_file(&fresh); // of a run that was killed
        std::os::unix::fs::symlink(in_use.to_string(), &fresh).map_err(failed("write", &fresh))?;
        fs::rename(&fresh, &link).map_err(failed("write", &link))?;
        // Whoever was launched a moment ago may still read the one before; and a later one may be on its way.
        let is_over = |number: &u64| *number < in_use && Some(*number) != former;
        for old in self.numbers()?.into_iter().filter(is_over) {
            let path = self.home.join(old.to_string());
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
            self.kept().made.retain(|_, made| *made != old);
        }
        Ok(())
    }

    /// The generations there are.
    fn numbers(&self) -> Result<BTreeSet<u64>, StoreError> {
        let read = match fs::read_dir(&self.home) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            read => read.map_err(failed("read", &self.home))?,
        };
        let number = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
        Ok(read.filter_map(number).collect())
    }
}

impl Generation {
    /// Its files for that version.
    pub fn files(&self, version: Version) -> Result<Rendered, StoreError> {
        files(&self.path, version)
    }

    /// Lets go of one that does not come to be in force.
    pub fn discard(self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// The files of a generation for a version, which are rendered if they are not there.
fn files(generation: &Path, version: Version) -> Result<Rendered, StoreError> {
    let path = generation.join(version.to_string());
    if path.is_dir() {
        return Ok(Rendered(path));
    }
    let cluster = read(&generation.join(CLUSTER))?;
    // What is half made has a name of its own, also where two threads make the same.
    let fresh = generation.join(format!("{version}.{:?}", std::thread::current().id()));
    let _ = fs::remove_dir_all(&fresh); // of a run that was killed
    make_directory(&fresh)?;
    render(&cluster, version, &Rendered(fresh.clone()))?;
    match fs::rename(&fresh, &path) {
        Err(_) if path.is_dir() => fs::remove_dir_all(&fresh).map_err(failed("remove", &fresh))?,
        renamed => renamed.map_err(failed("write", &path))?,
    }
    Ok(Rendered(path))
}

fn render(cluster: &Cluster, version: Version, files: &Rendered) -> Result<(), StoreError> {
    let Cluster { zeek, networks, layout, .. } = cluster;
    // Where there can be no such backend no node starts, which is said there.
    let backend = version.backend(zeek.backend).unwrap_or(Backend::Broker);
    let write = |path: &Path, script: String| write(path, script.as_bytes(), EVERYBODYS);
    write(&files.0.join("cluster-layout.zeek"), script::layout(layout, version))?;
    write(Path::new(&files.settings()), script::settings(zeek, networks, layout, backend, version))?;
    write(Path::new(&files.last()), script::last(zeek, version))?;
    write(Path::new(&files.channel()), script::CHANNEL.to_owned())
}

fn read(path: &Path) -> Result<Cluster, StoreError> {
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(failed("read", path))?;
    file.take(LONGEST).read_to_end(&mut text).map_err(failed("read", path))?;
    let cluster: Option<Cluster> = serde_json::from_slice(&text).ok();
    cluster.filter(|cluster| cluster.format == FORMAT).ok_or_else(|| StoreError::Foreign(path.into()))
}

/// A directory that nodes may look into which run as another user: nothing in it is a secret.
fn make_directory(path: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(failed("make", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(failed("make", path))
}

/// Whose a file is to read: the agent's alone, or any node's, whomever it runs as.
const OURS: u32 = 0o600;
const EVERYBODYS: u32 = 0o644;

fn write(path: &Path, text: &[u8], mode: u32) -> Result<(), StoreError> {
    let open = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(OURS).open(path);
    open.and_then(|mut file| {
        file.write_all(text)?;
        file.set_permissions(fs::Permissions::from_mode(mode))
    })
    .map_err(failed("write", path))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::CurveRoot;

    const EIGHT: Version = Version { major: 8, minor: 0 };

    fn cluster(seed: u32) -> Cluster {
        Cluster::new(&Zeek { hash_seed: Some(seed), ..Zeek::default() }, vec![], vec![])
    }

    fn use_next(store: &Store, number: u64) {
        let next = store.begin(&cluster(number as u32), None).unwrap();
        store.keep(number, &next);
        store.choose(Some(number));
        store.put_in_force().unwrap();
    }

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    /// The seed in the files by which that node is launched.
    fn seed_of(store: &Store, name: &str) -> String {
        seed(&store.current(&node(name), EIGHT).unwrap())
    }

    fn seed(files: &Rendered) -> String {
        let text = fs::read_to_string(files.settings()).unwrap();
        text.split('"').nth(1).unwrap().to_owned()
    }

    #[test]
    fn a_generation_is_in_force_only_once_it_was_put_there() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path().join("zeek"));
        assert!(matches!(store.current(&node("n"), EIGHT), Err(StoreError::Nothing)));
        use_next(&store, 1);
        let second = store.begin(&cluster(2), None).unwrap();
        store.keep(2, &second);
        assert_eq!(
            (seed(&store.current(&node("n"), EIGHT).unwrap()), seed(&second.files(EIGHT).unwrap())),
            ("00000001".into(), "00000002".into())
        );
        second.discard();
        store.choose(Some(77));
        assert_eq!(seed(&store.current(&node("n"), EIGHT).unwrap()), "00000001", "nothing was made under that number");
        (3..6).for_each(|number| use_next(&store, number));
        assert_eq!(seed(&store.current(&node("n"), EIGHT).unwrap()), "00000005");
        assert_eq!(store.numbers().unwrap().len(), 2, "the one in force, and the one before");
        // The one before is not the one with the number before where others came to nothing.
        (6..9).for_each(|number| store.begin(&cluster(number), None).unwrap().discard());
        drop(store.begin(&cluster(9), None).unwrap());
        use_next(&store, 10);
        store.choose(Some(5));
        assert_eq!(seed(&store.current(&node("n"), EIGHT).unwrap()), "00000005", "it can be gone back to");
        store.put_in_force().unwrap();
        let next_run = Store::new(home.path().join("zeek"));
        assert_eq!(seed(&next_run.current(&node("n"), EIGHT).unwrap()), "00000005");
    }

    #[test]
    fn what_may_be_a_secret_is_not_kept_and_the_rest_is_the_agents_alone() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path().into());
        let secret = || [("A".to_owned(), "s3cret".to_owned())].into();
        let zeek = Zeek { env: secret(), options: secret(), args: vec!["s3cret".into()], ..Zeek::default() };
        let keys = CurveRoot::from([7; 32]).keys(1);
        let files = store.begin(&Cluster::new(&zeek, vec![], vec![]), Some(&keys)).unwrap().files(EIGHT).unwrap();
        let kept = home.path().join("1/cluster.json");
        assert!(!fs::read_to_string(&kept).unwrap().contains("s3cret"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&kept), mode(Path::new(&files.settings()))), (0o600, 0o644));
        assert_eq!(mode(Path::new(&files.directory())), 0o755);
        // Keys are kept, since nodes are to be launched while nobody tells them anew; and for nobody else.
        assert_eq!((files.keys().unwrap(), mode(&home.path().join("1/keys.json"))), (Some(keys), 0o600));
    }

    #[test]
    fn who_is_launched_while_others_are_switched_is_launched_by_what_was_before() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path().into());
        let seeds = |store: &Store| ["switched", "waits"].map(|name| seed_of(store, name));
        use_next(&store, 1);
        store.keep(2, &store.begin(&cluster(2), None).unwrap());
        store.try_out(2, [node("switched")].into());
        assert_eq!(seeds(&store), ["00000002", "00000001"]);
        assert_eq!(seeds(&Store::new(home.path().into())), ["00000001", "00000001"], "nothing is in force by that");
        store.choose(None);
        assert_eq!(seeds(&store), ["00000001", "00000001"], "nothing came of it");
        store.try_out(2, [node("switched")].into());
        store.choose(Some(2));
        assert_eq!(seeds(&store), ["00000002", "00000002"]);
        store.try_out(77, [node("switched")].into());
        assert_eq!(seeds(&store), ["00000002", "00000002"], "nothing was made under that number");
    }

    #[test]
    fn a_zeek_that_was_replaced_gets_files_of_its_own() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path().into());
        use_next(&store, 1);
        let [old, new] =
            [EIGHT, Version { major: 9, minor: 0 }].map(|version| store.current(&node("n"), version).unwrap());
        assert_ne!(old, new);
        assert!(fs::read_to_string(new.last()).unwrap().starts_with("# Written by watchpost for Zeek 9.0"));
        fs::write(home.path().join("1/cluster.json"), "{}").unwrap();
        assert!(matches!(store.current(&node("n"), Version { major: 9, minor: 1 }), Err(StoreError::Foreign(_))));
        let apart = Store::new(home.path().join("a:b"));
        assert!(matches!(apart.begin(&cluster(1), None), Err(StoreError::Colon(_))));
    }
}
