//! The thread that gets an agent the files of its nodes, and lays them out: it waits for disks, and nobody waits for it.

pub mod fetch;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use self::fetch::{Fetcher, Then};
use crate::bundle::tree::Place;
use crate::bundle::{BundleId, Store, tree};
use crate::message::agent::{ReadBlobsRequest, ReadBlobsResponse};

/// What it has to say to the controller.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    Lacks(ReadBlobsRequest),
    /// It has all that it needs, and is still at work.
    LaysOut,
}

/// By this it says that.
pub type Tell = Arc<dyn Fn(Said) + Send + Sync>;

/// The handle of the thread, which ends with it.
pub struct Porter {
    wants: Sender<Want>,
}

enum Want {
    Telling(Tell),
    Have { bundles: BTreeSet<BundleId>, places: Vec<Place>, then: Then },
    Pieces(ReadBlobsResponse),
    LinkUp,
    LinkDown,
    Keep { trees: BTreeMap<PathBuf, Vec<String>>, bundles: BTreeSet<BundleId> },
}

impl Porter {
    /// Starts the thread. It makes `directory` for what it fetches once there is something to fetch.
    pub fn hire(directory: PathBuf) -> io::Result<Self> {
        let (wants, told) = mpsc::channel();
        thread::Builder::new().name("porter".into()).spawn(move || work(directory, &told))?;
        Ok(Self { wants })
    }

    /// Has what there is to say said so, from now on.
    pub fn tell(&self, tell: impl Fn(Said) + Send + Sync + 'static) {
        self.want(Want::Telling(Arc::new(tell)));
    }

    /// Gets these bundles, lays those out that are wanted somewhere, and tells `then`.
    pub fn have(
        &self,
        bundles: BTreeSet<BundleId>,
        places: Vec<Place>,
        then: impl FnOnce(Result<(), String>) + Send + 'static,
    ) {
        self.want(Want::Have { bundles, places, then: Box::new(then) });
    }

    /// What came of something that was asked for.
    pub fn pieces(&self, pieces: ReadBlobsResponse) {
        self.want(Want::Pieces(pieces));
    }

    /// There is a link, on which nothing was asked for yet.
    pub fn link_up(&self) {
        self.want(Want::LinkUp);
    }

    /// There is none.
    pub fn link_down(&self) {
        self.want(Want::LinkDown);
    }

    /// Lets go of all but these trees in those directories, and of what is in none of these bundles.
    pub fn keep(&self, trees: BTreeMap<PathBuf, Vec<String>>, bundles: BTreeSet<BundleId>) {
        self.want(Want::Keep { trees, bundles });
    }

    fn want(&self, want: Want) {
        // A thread that panicked has dropped who waits for it: they hear that.
        let _ = self.wants.send(want);
    }
}

fn work(directory: PathBuf, told: &Receiver<Want>) {
    let mut fetcher: Option<Fetcher> = None;
    let (mut tell, mut linked): (Tell, bool) = (Arc::new(|_| {}), false);
    while let Ok(want) = told.recv() {
        let asks = match want {
            Want::Telling(by) => {
                fetcher.iter_mut().for_each(|fetcher| fetcher.tell(Arc::clone(&by)));
                tell = by;
                continue;
            }
            Want::LinkUp => {
                linked = true;
                fetcher.as_mut().map(Fetcher::link_up).unwrap_or_default()
            }
            Want::LinkDown => {
                linked = false;
                fetcher.iter_mut().for_each(Fetcher::link_down);
                Vec::new()
            }
            Want::Pieces(pieces) => fetcher.as_mut().map(|fetcher| fetcher.pieces(pieces)).unwrap_or_default(),
            Want::Have { bundles, places, then } => match at_hand(&mut fetcher, &directory, &tell, linked) {
                Ok(fetcher) => fetcher.have(bundles, places, then),
                Err(why) => {
                    then(Err(why));
                    continue;
                }
            },
            Want::Keep { trees, bundles } => {
                keep_trees(trees);
                // What an earlier run has fetched goes, too.
                if fetcher.is_some() || directory.is_dir() {
                    match at_hand(&mut fetcher, &directory, &tell, linked) {
                        Ok(fetcher) => fetcher.retain(bundles),
                        Err(error) => tracing::warn!("{error}"),
                    }
                }
                continue;
            }
        };
        asks.into_iter().for_each(|request| tell(Said::Lacks(request)));
    }
}

/// Where nothing was ever fetched there is no directory.
fn at_hand<'a>(
    fetcher: &'a mut Option<Fetcher>,
    directory: &Path,
    tell: &Tell,
    linked: bool,
) -> Result<&'a mut Fetcher, String> {
    let there = match fetcher.take() {
        Some(there) => there,
        None => {
            let mut new = Fetcher::new(Store::open(directory.into()).map_err(|error| error.to_string())?);
            new.tell(Arc::clone(tell));
            if linked {
                new.link_up();
            }
            new
        }
    };
    Ok(fetcher.insert(there))
}

fn keep_trees(trees: BTreeMap<PathBuf, Vec<String>>) {
    for (home, names) in trees {
        if let Err(error) = tree::retain(&home, &names) {
            tracing::warn!("cannot remove what was left of files in {}: {error}", home.display());
        }
    }
}
