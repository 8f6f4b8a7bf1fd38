//! What an agent lacks of the files of its nodes: asked for part by part, much of it at a time, until all of it is there.
//!
//! What has come stays when the link is lost, and when the agent ends. Nothing is believed before its digest was seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Said, Tell};
use crate::bundle::tree::{self, Place, TreeError};
use crate::bundle::{BundleId, Digest, Incoming, LONGEST_MANIFEST, Store, StoreError};
use crate::message::agent::{BlobPart, BlobPiece, ReadBlobsRequest, ReadBlobsResponse};
use crate::model::RequestId;

/// How many requests are under way at a time: enough to have the link busy while what came is written.
pub const WINDOW: usize = 8;
/// How many bytes are asked for at once: a part of a long file, or many short ones.
pub const PIECE: u32 = 256 << 10;
/// How many parts are asked for at once.
const MOST_PARTS: usize = 256;
/// How often it is said that something is being laid out.
const NOW_AND_THEN: Duration = Duration::from_secs(5);
/// How much stays free for what nodes and the agent write, in bytes.
const SPARED: u64 = 1 << 20;
/// How many different things may be waited for at a time.
const MOST_ORDERS: usize = 16;
/// How often a tree is begun anew because what it is made of was damaged.
const MOST_DAMAGE: u8 = 3;

/// Who is to hear that everything is there, or why it is not.
pub type Then = Box<dyn FnOnce(Result<(), String>) + Send>;

/// What somebody waits for.
struct Order {
    /// What is to be laid out once everything is there.
    places: Vec<Place>,
    bundles: BTreeSet<BundleId>,
    /// Bundles of which it is not known yet what is in them.
    unread: BTreeSet<BundleId>,
    /// Contents that have yet to come.
    lacking: BTreeSet<Digest>,
    /// How many bytes all that needs on the disk, as far as it is known.
    needs: u64,
    damage: u8,
    /// All who wait for just that.
    then: Vec<Then>,
}

/// A blob of which something was asked for.
struct Coming {
    /// Since its size is known.
    incoming: Option<Incoming>,
    /// How long it is; of a manifest that is known once something of it has come.
    size: Option<u64>,
    /// Where the next part begins that was not asked for.
    next: u64,
    /// Whether something of it was here.
    resumed: bool,
    /// What came before something else that belongs before it.
    early: BTreeMap<u64, Vec<u8>>,
}

/// See the module.
pub struct Fetcher {
    store: Store,
    orders: Vec<Order>,
    /// Blobs that nothing was asked of yet, with their sizes, unless these are not known.
    waiting: VecDeque<(Digest, Option<u64>)>,
    coming: BTreeMap<Digest, Coming>,
    /// Those of them of which there is more to ask for.
    unfinished: BTreeSet<Digest>,
    /// What was asked for, and has not come.
    asked: BTreeMap<RequestId, Vec<BlobPart>>,
    /// What was asked for, and was more than an answer held.
    left_out: VecDeque<BlobPart>,
    next_request: u64,
    linked: bool,
    /// Hears now and then that something is being laid out.
    tell: Tell,
    /// What is needed from here on; all else goes once nobody waits any more.
    needed: Option<BTreeSet<BundleId>>,
}

impl Fetcher {
    pub fn new(store: Store) -> Self {
        Self {
            store,
            orders: Vec::new(),
            waiting: VecDeque::new(),
            coming: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            asked: BTreeMap::new(),
            left_out: VecDeque::new(),
            next_request: 0,
            linked: false,
            tell: Arc::new(|_| {}),
            needed: None,
        }
    }

    /// Has what there is to say said so, from now on.
    pub fn tell(&mut self, tell: Tell) {
        self.tell = tell;
    }

    /// Gets these bundles, has them laid out where they are wanted, and tells `then`. What is laid out is not fetched again.
    pub fn have(&mut self, bundles: BTreeSet<BundleId>, places: Vec<Place>, then: Then) -> Vec<ReadBlobsRequest> {
        let places: Vec<Place> = places.into_iter().filter(|place| !place.tree().is_dir()).collect();
        let bundles: BTreeSet<BundleId> = places.iter().map(|place| place.bundle).chain(bundles).collect();
        let is_same = |order: &&mut Order| (&order.places, &order.bundles) == (&places, &bundles);
        // Whoever asks again over a new link waits with the first.
        if let Some(same) = self.orders.iter_mut().find(is_same) {
            same.then.push(then);
            return Vec::new();
        }
        if self.orders.len() >= MOST_ORDERS {
            then(Err(format!("{MOST_ORDERS} others wait for files already: try again in a while")));
            return Vec::new();
        }
        let unread = bundles.clone();
        let lacking = BTreeSet::new();
        self.orders.push(Order { places, bundles, unread, lacking, needs: 0, damage: 0, then: vec![then] });
        self.go_on()
    }

    /// There is a new link: what was under way on a former one is asked for again.
    pub fn link_up(&mut self) -> Vec<ReadBlobsRequest> {
        self.link_down();
        self.linked = true;
        self.go_on()
    }

    pub fn link_down(&mut self) {
        self.linked = false;
        self.asked.clear();
        self.left_out.clear();
        self.unfinished.clear();
        let coming = std::mem::take(&mut self.coming);
        coming.into_iter().for_each(|(digest, Coming { size, .. })| self.waiting.push_front((digest, size)));
    }

    /// What was asked for has come, as much of it as an answer holds, or will not.
    pub fn pieces(&mut self, ReadBlobsResponse { reqid, pieces }: ReadBlobsResponse) -> Vec<ReadBlobsRequest> {
        let Some(parts) = self.asked.remove(&reqid) else { return Vec::new() };
        if let (Some(first), true) = (parts.first(), pieces.is_empty()) {
            self.give_up(first.digest, "the controller sent nothing of what it was asked for");
        }
        self.left_out.extend(parts.get(pieces.len()..).unwrap_or_default());
        for (part, piece) in parts.into_iter().zip(pieces) {
            if let Err(why) = piece.and_then(|piece| self.take(part, piece)) {
                self.give_up(part.digest, &why);
            }
        }
        self.go_on()
    }

    /// Lets go of what is in none of these bundles, as soon as nobody waits for files.
    pub fn retain(&mut self, bundles: BTreeSet<BundleId>) {
        self.needed = Some(bundles);
        self.let_go();
    }

    fn let_go(&mut self) {
        let Some(bundles) = self.needed.take_if(|_| self.orders.is_empty()) else { return };
        let mut keep: BTreeSet<Digest> = bundles.iter().map(|id| id.digest()).collect();
        for id in bundles {
            // One that is not here has nothing here to keep.
            if let Ok(manifest) = self.store.manifest(id) {
                keep.extend(manifest.files().map(|(_, _, digest)| digest));
            }
        }
        if let Err(error) = self.store.retain(&keep, Duration::ZERO) {
            tracing::warn!("{error}");
        }
    }

    fn take(&mut self, part: BlobPart, BlobPiece { total, bytes }: BlobPiece) -> Result<(), String> {
        let BlobPart { digest, at, most } = part;
        let Some(coming) = self.coming.get_mut(&digest) else { return Ok(()) };
        match coming.size {
            Some(size) if size != total => {
                return Err(format!("the controller has {total} bytes of {digest}, and it has {size}"));
            }
            Some(_) => {}
            None if total > LONGEST_MANIFEST as u64 => {
                return Err(format!("{digest} has {total} bytes, and no list of files has as many"));
            }
            None => {
                coming.size = Some(total);
                if coming.next < total {
                    self.unfinished.insert(digest);
                }
            }
        }
        if bytes.len() as u64 != total.saturating_sub(at).min(most.into()) {
            return Err(format!("of the {total} bytes of {digest} the controller sent {} from {at} on", bytes.len()));
        }
        if bytes.len() as u64 == total && coming.incoming.is_none() {
            self.store.take(digest, &bytes).map_err(|error| error.to_string())?;
            self.has_come(digest);
            return Ok(());
        }
        if coming.incoming.is_none() {
            let begun = self.store.begin(digest, total).map_err(|error| error.to_string())?;
            if begun.at() < at {
                coming.next = begun.at(); // what was here is no beginning of it, and is gone
                self.unfinished.insert(digest);
            }
            coming.incoming = Some(begun);
        }
        let Some(incoming) = &mut coming.incoming else { return Ok(()) };
        coming.early.insert(at, bytes);
        while let Some(bytes) = coming.early.remove(&incoming.at()) {
            incoming.write(&bytes).map_err(|error| error.to_string())?;
            if bytes.is_empty() {
                break;
            }
        }
        if incoming.is_whole()
            && let Some(Coming { incoming: Some(incoming), size, resumed, .. }) = self.let_go_of(digest)
        {
            match incoming.finish() {
                Ok(()) => self.has_come(digest),
                // What was here of it was damaged, and is gone.
                Err(StoreError::Wrong { .. }) if resumed => self.waiting.push_front((digest, size)),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// Nothing more of it is asked for.
    fn let_go_of(&mut self, digest: Digest) -> Option<Coming> {
        self.unfinished.remove(&digest);
        self.coming.remove(&digest)
    }

    fn has_come(&mut self, digest: Digest) {
        self.let_go_of(digest);
        for order in &mut self.orders {
            order.lacking.remove(&digest);
        }
    }

    /// Whoever waits for it waits in vain.
    fn give_up(&mut self, digest: Digest, why: &str) {
        self.let_go_of(digest);
        self.waiting.retain(|(waiting, _)| *waiting != digest);
        self.end(why, |order| {
            order.lacking.contains(&digest) || order.unread.iter().any(|bundle| bundle.digest() == digest)
        });
    }

    fn end(&mut self, why: &str, which: impl FnMut(&mut Order) -> bool) {
        for Order { then, bundles, .. } in self.orders.extract_if(.., which) {
            let bundles: Vec<String> = bundles.iter().map(BundleId::to_string).collect();
            let why = format!("cannot get the files of {}: {why}", bundles.join(", "));
            then.into_iter().for_each(|then| then(Err(why.clone())));
        }
    }

    /// Sees what is there and what is lacking, and asks for as much as may be under way.
    fn go_on(&mut self) -> Vec<ReadBlobsRequest> {
        loop {
            self.read_manifests();
            if !self.lay_out() {
                break;
            }
        }
        self.let_go();
        self.ask()
    }

    /// What is in bundles whose manifests are there is wanted, as far as it is not there.
    fn read_manifests(&mut self) {
        if self.orders.iter().all(|order| order.unread.is_empty()) {
            return;
        }
        let mut known: BTreeSet<Digest> = self.waiting.iter().map(|(digest, _)| *digest).collect();
        known.extend(self.coming.keys());
        let (mut failed, mut most_needed) = (Vec::new(), 0);
        for order in self.orders.iter_mut().filter(|order| !order.unread.is_empty()) {
            let mut want = |digest, size| {
                if known.insert(digest) {
                    self.waiting.push_back((digest, size));
                }
            };
            for id in std::mem::take(&mut order.unread) {
                match self.store.manifest(id) {
                    Ok(manifest) => {
                        for (_, size, digest) in manifest.files().filter(|(_, size, of)| !self.store.has(*of, *size)) {
                            if order.lacking.insert(digest) {
                                order.needs += size - size.min(come(&self.store, digest, Some(size)));
                            }
                            want(digest, Some(size));
                        }
                        let trees = order.places.iter().filter(|place| place.bundle == id && !place.tree().is_dir());
                        order.needs += trees.count() as u64 * manifest.size();
                    }
                    // What was damaged is not there any more.
                    Err(StoreError::Absent(_) | StoreError::Wrong { .. }) => {
                        order.unread.insert(id);
                        want(id.digest(), None);
                    }
                    Err(error) => {
                        order.unread.insert(id);
                        failed.push((id.digest(), error.to_string()));
                    }
                }
            }
            most_needed = most_needed.max(order.needs);
        }
        failed.iter().for_each(|(digest, why)| self.give_up(*digest, why));
        if most_needed > 0 {
            self.spare();
        }
    }

    /// Nothing is begun for which there is no room.
    fn spare(&mut self) {
        match self.store.free() {
            Ok(free) => {
                let has_none = |order: &Order| order.needs > 0 && order.needs.saturating_add(SPARED) > free;
                while let Some(order) = self.orders.iter().find(|order| has_none(order)) {
                    let why = format!(
                        "there is no room for the {} bytes that they need in {}: {free} bytes are free, and {SPARED} stay \
                         free for what else is written",
                        order.needs,
                        self.store.directory().display()
                    );
                    let needs = order.needs;
                    self.end(&why, |order| order.needs == needs);
                }
                self.orders.iter_mut().filter(|order| order.unread.is_empty()).for_each(|order| order.needs = 0);
            }
            Err(error) => self.end(&error.to_string(), |order| order.needs > 0),
        }
    }

    /// Lays out what is complete. True if something of it was damaged, and is lacking again.
    fn lay_out(&mut self) -> bool {
        let is_complete = |order: &mut Order| order.unread.is_empty() && order.lacking.is_empty();
        let mut lacks_again = false;
        for mut order in self.orders.extract_if(.., is_complete).collect::<Vec<_>>() {
            let mut said = Instant::now();
            let mut at_work = || {
                if said.elapsed() >= NOW_AND_THEN {
                    said = Instant::now();
                    (self.tell)(Said::LaysOut);
                }
            };
            let mut make = |place| tree::make(&self.store, place, &mut at_work);
            let made = order.places.iter().try_for_each(|place| make(place).map_err(|error| (place.bundle, error)));
            match made {
                Ok(()) => order.then.into_iter().for_each(|then| then(Ok(()))),
                Err((_, TreeError::Store(StoreError::Wrong { .. } | StoreError::Absent(_))))
                    if order.damage < MOST_DAMAGE =>
                {
                    order.damage += 1;
                    self.throw_away_what_is_damaged(&order.bundles);
                    order.unread.clone_from(&order.bundles);
                    order.needs = 0;
                    self.orders.push(order);
                    lacks_again = true;
                }
                Err((bundle, error)) => {
                    let why = format!("cannot lay out the files of {bundle}: {error}");
                    order.then.into_iter().for_each(|then| then(Err(why.clone())));
                }
            }
        }
        lacks_again
    }

    /// Where one content was damaged others may be, as after a power cut: all of them come again at once.
    fn throw_away_what_is_damaged(&self, bundles: &BTreeSet<BundleId>) {
        let manifests = bundles.iter().filter_map(|bundle| self.store.manifest(*bundle).ok());
        for manifest in manifests {
            // Looking through it is what throws it away.
            manifest.files().for_each(|(_, _, digest)| drop(self.store.copy(digest, std::io::sink())));
        }
    }

    fn ask(&mut self) -> Vec<ReadBlobsRequest> {
        let mut asks = Vec::new();
        while self.linked && self.asked.len() < WINDOW {
            let parts = self.next_parts();
            if parts.is_empty() {
                break;
            }
            self.next_request += 1;
            // Six letters and twenty digits at most.
            let reqid = RequestId::new(&format!("blob-{}", self.next_request)).expect("a short printable id");
            self.asked.insert(reqid.clone(), parts.clone());
            asks.push(ReadBlobsRequest { reqid, parts });
        }
        asks
    }

    /// What is asked for next, as much as comes at once.
    fn next_parts(&mut self) -> Vec<BlobPart> {
        let (mut parts, mut room) = (Vec::new(), PIECE);
        while parts.len() < MOST_PARTS
            && let Some(part) = self.next_part(room)
        {
            room -= part.most;
            parts.push(part);
        }
        parts
    }

    /// What was left out, more of what is coming, or the beginning of something else; none if that is longer.
    fn next_part(&mut self, room: u32) -> Option<BlobPart> {
        while let Some(part) = self.left_out.front().copied() {
            if part.most > room {
                return None;
            }
            self.left_out.pop_front();
            if self.coming.contains_key(&part.digest) {
                return Some(part);
            }
        }
        if let Some(digest) = self.unfinished.first().copied() {
            let coming = self.coming.get_mut(&digest)?;
            let most = part_of(coming.size, coming.next);
            if most > room {
                return None;
            }
            let at = coming.next;
            coming.next += u64::from(most);
            if coming.size.is_some_and(|size| coming.next >= size) {
                self.unfinished.remove(&digest);
            }
            return Some(BlobPart { digest, at, most });
        }
        while let Some((digest, size)) = self.waiting.front().copied() {
            let is_wanted = self.orders.iter().any(|order| {
                order.lacking.contains(&digest) || order.unread.iter().any(|bundle| bundle.digest() == digest)
            });
            if is_wanted {
                let at = come(&self.store, digest, size);
                let most = part_of(size, at);
                if most > room {
                    return None;
                }
                self.waiting.pop_front();
                let next = at + u64::from(most);
                if size.is_some_and(|size| next < size) {
                    self.unfinished.insert(digest);
                }
                let coming = Coming { incoming: None, size, next, resumed: at > 0, early: BTreeMap::new() };
                self.coming.insert(digest, coming);
                return Some(BlobPart { digest, at, most });
            }
            self.waiting.pop_front();
        }
        None
    }
}

/// How much of it is here already that can be gone on with.
fn come(store: &Store, digest: Digest, size: Option<u64>) -> u64 {
    match size {
        // It comes in one piece, or not at all.
        Some(size) if size <= PIECE.into() => 0,
        // More than it can be is not the beginning of it.
        size => Some(store.come(digest)).filter(|at| size.is_none_or(|size| *at <= size)).unwrap_or_default(),
    }
}

/// How much is asked for at once of something of this size, from there on.
fn part_of(size: Option<u64>, at: u64) -> u32 {
    // No more than the constant, which fits.
    size.map_or(PIECE, |size| size.saturating_sub(at).min(PIECE.into()) as u32)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::{self, Receiver};

    use proptest::prelude::*;

    use super::*;
    use crate::bundle::{Entry, Kind, Manifest};

    /// A controller that has everything, an agent that has nothing, and what is under way between them.
    struct Scene {
        home: tempfile::TempDir,
        theirs: Store,
        fetcher: Fetcher,
        asked: Vec<ReadBlobsRequest>,
        /// How many parts are in an answer at most.
        most: usize,
    }

    impl Scene {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let theirs = Store::open(home.path().join("theirs")).unwrap();
            let fetcher = Fetcher::new(Store::open(home.path().join("ours")).unwrap());
            let mut scene = Self { home, theirs, fetcher, asked: Vec::new(), most: MOST_PARTS };
            scene.asked = scene.fetcher.link_up();
            scene
        }

        fn bundle(&self, files: &[(&str, &[u8])]) -> BundleId {
            let entry = |(path, content): &(&str, &[u8])| {
                let digest = self.theirs.put(content).unwrap();
                let kind = Kind::File { size: content.len() as u64, digest };
                Entry { path: path.parse().unwrap(), mode: 0o644, modified: 0, kind }
            };
            let manifest = Manifest::new(files.iter().map(entry).collect()).unwrap();
            self.theirs.put(&manifest.encode()).unwrap();
            manifest.id()
        }

        fn place(&self, node: &str, bundle: BundleId) -> Place {
            Place { home: self.home.path().join(node), bundle, reader: None }
        }

        fn have(&mut self, places: &[Place]) -> Receiver<Result<(), String>> {
            let (told, hears) = mpsc::channel();
            let then = Box::new(move |had| told.send(had).unwrap());
            let asks = self.fetcher.have(BTreeSet::new(), places.to_vec(), then);
            self.asked.extend(asks);
            hears
        }

        fn answer(&mut self, at: usize) {
            let ReadBlobsRequest { reqid, parts } = self.asked.remove(at);
            let read = |BlobPart { digest, at, most }: BlobPart| {
                let read = self.theirs.read(digest, at, most as usize);
                read.map(|(total, bytes)| BlobPiece { total, bytes }).map_err(|error| error.to_string())
            };
            // Some controllers put less into an answer.
            let pieces = parts.into_iter().take(self.most).map(read).collect();
            let asks = self.fetcher.pieces(ReadBlobsResponse { reqid, pieces });
            self.asked.extend(asks);
            assert!(self.asked.len() <= WINDOW);
        }

        /// Answers all that is asked, and counts it.
        fn answer_all(&mut self) -> usize {
            let mut count = 0;
            while !self.asked.is_empty() {
                self.answer(0);
                count += 1;
            }
            count
        }
    }

    #[test]
    fn what_is_lacking_is_fetched_and_laid_out_and_nothing_is_fetched_twice() {
        let mut scene = Scene::new();
        let long: Vec<u8> = (0..3 * PIECE + 5).map(|byte| byte as u8).collect();
        let id = scene.bundle(&[("long", &long), ("short", b"x"), ("again", b"x"), ("empty", b"")]);
        let places = [scene.place("a", id), scene.place("b", id)];
        let had = scene.have(&places);
        assert_eq!(scene.answer_all(), 1 + 1 + 3 + 1, "the manifest, and each content once, the short ones together");
        assert_eq!(had.try_recv().unwrap(), Ok(()));
        for place in &places {
            assert!(fs::read(place.tree().join("long")).unwrap() == long);
            assert_eq!(fs::read(place.tree().join("again")).unwrap(), b"x");
            assert_eq!(fs::read(place.tree().join("empty")).unwrap(), b"");
        }
        let other = scene.bundle(&[("long", &long), ("short", b"y")]);
        let place = scene.place("a", other);
        let had = scene.have(&[place]);
        assert_eq!(scene.answer_all(), 2, "the manifest, and what differs");
        assert_eq!(had.try_recv().unwrap(), Ok(()));
        let had = scene.have(&places);
        assert_eq!((had.try_recv().unwrap(), scene.asked.len()), (Ok(()), 0));
    }

    #[test]
    fn what_was_under_way_on_a_link_that_is_lost_is_gone_on_with_on_the_next() {
        let mut scene = Scene::new();
        let long: Vec<u8> = (0..20 * PIECE).map(|byte| (byte / 7) as u8).collect();
        let id = scene.bundle(&[("long", &long)]);
        let place = scene.place("a", id);
        let had = scene.have(std::slice::from_ref(&place));
        (0..9).for_each(|_| scene.answer(0));
        assert_eq!(scene.asked.len(), WINDOW);
        scene.fetcher.link_down();
        let late = std::mem::take(&mut scene.asked);
        scene.asked = scene.fetcher.link_up();
        for ReadBlobsRequest { reqid, .. } in late {
            let pieces = vec![Err("nobody waits for it any more".into())];
            assert!(scene.fetcher.pieces(ReadBlobsResponse { reqid, pieces }).is_empty());
        }
        assert_eq!(scene.answer_all(), 20 - 8, "what had come is not asked for again");
        assert_eq!(had.try_recv().unwrap(), Ok(()));
        assert!(fs::read(place.tree().join("long")).unwrap() == long);
    }

    #[test]
    fn another_run_of_the_agent_goes_on_where_the_first_was_killed() {
        let mut scene = Scene::new();
        let long: Vec<u8> = (0..6 * PIECE).map(|byte| (byte / 3) as u8).collect();
        let id = scene.bundle(&[("long", &long)]);
        let place = scene.place("a", id);
        let _had = scene.have(std::slice::from_ref(&place));
        (0..4).for_each(|_| scene.answer(0));
        scene.fetcher = Fetcher::new(Store::open(scene.home.path().join("ours")).unwrap());
        scene.asked = scene.fetcher.link_up();
        let had = scene.have(std::slice::from_ref(&place));
        assert_eq!(scene.answer_all(), 3);
        assert_eq!(had.try_recv().unwrap(), Ok(()));
    }

    #[test]
    fn what_is_damaged_here_is_fetched_again_and_what_is_damaged_there_is_refused() {
        let mut scene = Scene::new();
        let id = scene.bundle(&[("f", b"content")]);
        let blob = |whose: &str| scene.home.path().join(whose).join(Digest::of(b"content").to_string());
        let (ours, theirs) = (blob("ours"), blob("theirs"));
        let place = |scene: &Scene, node: &str| vec![scene.place(node, id)];
        let had = scene.have(&place(&scene, "a"));
        scene.answer_all();
        assert_eq!(had.try_recv().unwrap(), Ok(()));
        fs::remove_file(&ours).unwrap();
        fs::write(&ours, "contemn").unwrap();
        let had = scene.have(&place(&scene, "b"));
        assert_eq!((scene.answer_all(), had.try_recv().unwrap()), (1, Ok(())));
        for path in [&ours, &theirs] {
            fs::remove_file(path).unwrap();
        }
        fs::write(&theirs, "contemn").unwrap();
        let had = scene.have(&place(&scene, "c"));
        scene.answer_all();
        let error = had.try_recv().unwrap().unwrap_err();
        assert!(error.contains("is something else: its digest is"), "{error}");
        fs::remove_file(&theirs).unwrap();
        let had = scene.have(&place(&scene, "c"));
        scene.answer_all();
        let error = had.try_recv().unwrap().unwrap_err();
        assert!(error.ends_with("is not here") && error.contains(&id.to_string()), "{error}");
    }

    #[test]
    fn many_short_files_are_asked_for_at_once_and_what_is_left_out_is_asked_for_again() {
        for most in [1, 7, MOST_PARTS] {
            let mut scene = Scene::new();
            scene.most = most;
            let contents: Vec<Vec<u8>> = (0..40_u8).map(|number| vec![number; usize::from(number) << 10]).collect();
            let names: Vec<String> = (0..40).map(|number| format!("f{number}")).collect();
            let files: Vec<_> = names.iter().map(String::as_str).zip(contents.iter().map(|it| &it[..])).collect();
            let id = scene.bundle(&files);
            let place = scene.place("a", id);
            let had = scene.have(std::slice::from_ref(&place));
            scene.answer(0);
            let bytes = |asked: &ReadBlobsRequest| asked.parts.iter().map(|part| part.most).sum::<u32>();
            assert!(scene.asked.iter().all(|asked| bytes(asked) <= PIECE), "{:?}", scene.asked);
            let count = scene.answer_all();
            if most == MOST_PARTS {
                assert!((4..=5).contains(&count), "{count} for 780 KiB");
            }
            assert_eq!(had.try_recv().unwrap(), Ok(()));
            for (name, content) in files {
                assert!(fs::read(place.tree().join(name)).unwrap() == content);
            }
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_not_begun() {
        let mut scene = Scene::new();
        let entry = |number: u8| {
            let kind = Kind::File { size: crate::bundle::LONGEST_FILE, digest: Digest::of(&[number]) };
            Entry { path: format!("f{number}").parse().unwrap(), mode: 0o644, modified: 0, kind }
        };
        let manifest = Manifest::new(vec![entry(1), entry(2)]).unwrap();
        scene.theirs.put(&manifest.encode()).unwrap();
        // However large this disk is.
        let trees = scene.fetcher.store.free().unwrap() / manifest.size();
        let places: Vec<_> = (0..trees).map(|number| scene.place(&format!("n{number}"), manifest.id())).collect();
        let had = scene.have(&places);
        assert_eq!(scene.answer_all(), 1, "the manifest alone");
        let error = had.try_recv().unwrap().unwrap_err();
        assert!(error.contains(&format!("no room for the {} bytes", (trees + 1) * manifest.size())), "{error}");
        assert!(scene.fetcher.orders.is_empty());
    }

    #[test]
    fn however_much_is_damaged_all_of_it_is_fetched_again() {
        let mut scene = Scene::new();
        let contents: Vec<[u8; 1]> = (0..20).map(|number| [number]).collect();
        let names: Vec<String> = (0..20).map(|number| format!("f{number}")).collect();
        let files: Vec<(&str, &[u8])> =
            names.iter().map(String::as_str).zip(contents.iter().map(|it| &it[..])).collect();
        let id = scene.bundle(&files);
        let place = scene.place("a", id);
        let _had = scene.have(&[place]);
        scene.answer_all();
        for content in &contents {
            let path = scene.home.path().join("ours").join(Digest::of(content).to_string());
            fs::remove_file(&path).unwrap();
            fs::write(path, "").unwrap();
        }
        let place = scene.place("b", id);
        let had = scene.have(&[place]);
        assert_eq!((scene.answer_all(), had.try_recv().unwrap()), (1, Ok(())));
    }

    #[test]
    fn what_was_left_of_a_transfer_and_is_no_beginning_of_it_is_begun_anew() {
        let mut scene = Scene::new();
        let id = scene.bundle(&[("f", b"content")]);
        let ours = |digest: Digest| scene.home.path().join("ours").join(format!("{digest}.part"));
        fs::write(ours(id.digest()), vec![0; 9_000]).unwrap();
        fs::write(ours(Digest::of(b"content")), b"cont!").unwrap();
        let place = scene.place("a", id);
        let had = scene.have(&[place]);
        scene.answer_all();
        assert_eq!(had.try_recv().unwrap(), Ok(()));
    }

    #[test]
    fn a_controller_that_sends_what_it_was_not_asked_for_is_not_believed() {
        let content = vec![7; PIECE as usize + 9];
        let digest = Digest::of(&content);
        for (total, length) in [(PIECE as u64 + 8, PIECE as usize), (PIECE as u64 + 9, 5), (PIECE as u64 + 9, 0)] {
            let mut scene = Scene::new();
            let id = scene.bundle(&[("f", &content)]);
            let place = scene.place("a", id);
            let had = scene.have(&[place]);
            scene.answer(0);
            let ReadBlobsRequest { reqid, .. } = scene.asked.remove(0);
            let pieces = vec![Ok(BlobPiece { total, bytes: vec![7; length] })];
            scene.fetcher.pieces(ReadBlobsResponse { reqid, pieces });
            let error = had.try_recv().unwrap().unwrap_err();
            assert!(error.contains(&digest.to_string()), "{error}");
            assert!(scene.fetcher.orders.is_empty() && scene.fetcher.coming.is_empty());
        }
    }

    #[test]
    fn who_comes_behind_too_many_is_told_and_who_asks_for_the_same_waits_with_the_first() {
        let mut scene = Scene::new();
        let ids: Vec<_> = (0..=MOST_ORDERS).map(|number| scene.bundle(&[("f", &[number as u8])])).collect();
        let places: Vec<_> = ids.into_iter().map(|id| scene.place("a", id)).collect();
        let first = [places[0].clone()];
        let waits: Vec<_> = places.into_iter().map(|place| scene.have(&[place])).collect();
        assert!(waits[MOST_ORDERS].try_recv().unwrap().is_err());
        let again = scene.have(&first);
        scene.answer_all();
        assert!(waits[..MOST_ORDERS].iter().chain([&again]).all(|wait| wait.try_recv() == Ok(Ok(()))));
    }

    #[test]
    fn what_no_bundle_has_goes_unless_somebody_waits() {
        let mut scene = Scene::new();
        let [old, new] = [b"old", b"new"].map(|content| scene.bundle(&[("f", content)]));
        for id in [old, new] {
            let place = scene.place("a", id);
            let _had = scene.have(&[place]);
            scene.answer_all();
        }
        let waits = scene.bundle(&[("f", b"more")]);
        let place = scene.place("a", waits);
        let _had = scene.have(&[place]);
        scene.fetcher.retain([new, waits].into());
        let has = |scene: &Scene, content: &[u8]| scene.fetcher.store.has(Digest::of(content), content.len() as u64);
        assert!(has(&scene, b"old"), "somebody waits");
        scene.answer_all();
        assert_eq!([b"old".as_slice(), b"new", b"more"].map(|content| has(&scene, content)), [false, true, true]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// In whatever order pieces come, and however often the link is lost.
        #[test]
        fn all_of_it_comes_whatever_becomes_of_links(choices in prop::collection::vec(0_u8..20, 0..80)) {
            let mut scene = Scene::new();
            let content = |number: u8, size: u32| (0..size).map(|byte| byte as u8 ^ number).collect::<Vec<u8>>();
            let contents = [content(1, 3 * PIECE), content(2, PIECE + 1), content(3, 0), content(4, 100)];
            let files: Vec<(String, &[u8])> =
                contents.iter().enumerate().map(|(at, content)| (format!("f{at}"), &content[..])).collect();
            let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (&name[..], *content)).collect();
            let place = scene.place("a", scene.bundle(&files));
            let had = scene.have(std::slice::from_ref(&place));
            for choice in choices {
                match choice {
                    0 => {
                        scene.fetcher.link_down();
                        scene.asked = scene.fetcher.link_up();
                    }
                    at if !scene.asked.is_empty() => scene.answer(usize::from(at) % scene.asked.len()),
                    _ => {}
                }
            }
            scene.answer_all();
            prop_assert_eq!(had.try_recv(), Ok(Ok(())));
            for (name, content) in files {
                prop_assert!(fs::read(place.tree().join(name)).unwrap() == content);
            }
        }
    }
}
