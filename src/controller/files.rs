//! Files that a request names are looked at before anything comes of it: whether somebody has read them, and whether what was
//! read is here. That waits for the disk, so no turn of the controller's is spent on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use actix::fut::wrap_future;
use actix::{ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseFuture};

use super::actor::Controller;
use super::blobs::{BlobError, Blobs};
use super::kept::Kept;
use super::state::Ticket;
use super::store::{Slot, Store, StoreError};
use crate::bundle::BundleId;
use crate::message::client::*;
use crate::model::{Configuration, Node, Outcome};

/// How often blobs that nobody names are looked for at most: whoever sends more has it done.
const AT_MOST_EVERY: Duration = Duration::from_secs(60 * 60);
/// How many nodes a complaint names.
const NAMED: usize = 3;

/// Edge → controller: whoever sends or reads files does so by this, without a turn of the controller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetBlobs;

/// `None` where no files are kept.
pub type KeptBlobs = Option<Blobs>;

impl Message for GetBlobs {
    type Result = Result<KeptBlobs, Unanswered>;
}

impl Handler<GetBlobs> for Controller {
    type Result = Result<KeptBlobs, Unanswered>;

    fn handle(&mut self, _: GetBlobs, ctx: &mut Context<Self>) -> Self::Result {
        self.collect_blobs(ctx);
        Ok(self.blobs.clone())
    }
}

/// What nodes are to have, by what was found of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    bundles: BTreeMap<BundleId, Vec<String>>,
    /// Nobody has read these paths.
    unread: BTreeMap<Vec<String>, Vec<String>>,
}

impl Named {
    fn of<'a>(nodes: impl IntoIterator<Item = &'a Arc<Node>>) -> Self {
        let mut named = Self::default();
        for node in nodes {
            let Some(files) = &node.files else { continue };
            let name = node.name.to_string();
            match files.bundle {
                Some(bundle) => named.bundles.entry(bundle).or_default().push(name),
                None => named.unread.entry(files.paths.clone()).or_default().push(name),
            }
        }
        named
    }

    /// The configuration that a request is about, looked through for files.
    fn asked_by(request: &ClientRequest) -> Option<Self> {
        let configuration = match request {
            ClientRequest::StageConfigurationRequest(request) => &request.configuration,
            ClientRequest::SetConfigurationRequest(request) => &request.configuration,
            ClientRequest::PlanRequest(request) => &request.configuration,
            _ => return None,
        };
        let named = Self::of(&configuration.nodes);
        (named != Self::default()).then_some(named)
    }

    /// Everything that stands in the way, sorted. Waits for the disk.
    fn complaints(&self, blobs: Option<&Blobs>) -> Vec<String> {
        let unread = self.unread.iter().map(|(paths, nodes)| {
            let (paths, nodes) = (paths.join(" "), several(nodes));
            format!(
                "{nodes} to have files ({paths}), and nobody has read them: `watchpost deploy` reads them where it runs, and \
                 sends them"
            )
        });
        let ids: BTreeSet<BundleId> = self.bundles.keys().copied().collect();
        let looked: BTreeMap<BundleId, String> = match blobs {
            _ if ids.is_empty() => BTreeMap::new(),
            Some(blobs) => blobs.vouch(&ids).into_iter().map(|(id, error)| (id, in_words(error))).collect(),
            None => ids.into_iter().map(|id| (id, "this controller keeps no files".to_owned())).collect(),
        };
        let wrong = looked.into_iter().map(|(id, why)| {
            let nodes = self.bundles.get(&id).map(|nodes| several(nodes)).unwrap_or_default();
            format!("{nodes} to have the files of {id}: {why}")
        });
        let mut complaints: Vec<_> = unread.chain(wrong).collect();
        complaints.sort();
        complaints
    }
}

/// `node 'a' is`, `nodes 'a' and 'b' are`, and so on.
fn several(nodes: &[String]) -> String {
    let quoted: Vec<_> = nodes.iter().take(NAMED).map(|name| format!("'{name}'")).collect();
    match (quoted.as_slice(), nodes.len().saturating_sub(NAMED)) {
        ([one], _) => format!("node {one} is"),
        ([most @ .., last], 0) => format!("nodes {} and {last} are", most.join(", ")),
        (all, more) => format!("nodes {} and {more} more are", all.join(", ")),
    }
}

fn in_words(error: BlobError) -> String {
    match error {
        BlobError::Absent(_) => {
            "they are not all here, or not any more: deploy it where they are, by a cluster file without `bundle`"
                .into()
        }
        other => other.to_string(),
    }
}

impl Controller {
    /// Puts a request to the state, once the files that it names are known to be here.
    pub(super) fn put(
        &mut self,
        ticket: Ticket,
        request: ClientRequest,
        within: Option<Duration>,
        ctx: &mut Context<Self>,
    ) {
        let named = Named::asked_by(&request);
        // What was staged is named since then, and may have been damaged.
        let staged = match (&request, self.state().ready()) {
            (ClientRequest::DeployRequest(_), Some(ready)) if ready.has_files() => Some(ready.clone()),
            _ => None,
        };
        if named.is_none() && staged.is_none() {
            return self.put_now(ticket, request, within, ctx);
        }
        let looked = self.look(move || named.unwrap_or_else(|| staged.as_ref().map(Kept::files).unwrap_or_default()));
        ctx.spawn(wrap_future::<_, Self>(looked).map(move |complaints, me, ctx| {
            match complaints.is_empty() {
                true => me.put_now(ticket, request, within, ctx),
                false => me.refuse(ticket, request, complaints, within, ctx),
            };
        }));
    }

    /// Everything that is in the way of what is named.
    fn look(&self, named: impl FnOnce() -> Named + Send + 'static) -> ResponseFuture<Vec<String>> {
        let blobs = self.blobs.clone();
        let looked = actix_rt::task::spawn_blocking(move || named().complaints(blobs.as_ref()));
        let panicked = |error: actix_rt::task::JoinError| vec![BlobError::Panicked(error.to_string()).to_string()];
        Box::pin(async move { looked.await.unwrap_or_else(panicked) })
    }

    /// The same for what is to be deployed again.
    pub(super) fn look_again(&self, kept: Kept) -> ResponseFuture<Vec<String>> {
        self.look(move || kept.files())
    }

    fn refuse(
        &mut self,
        ticket: Ticket,
        request: ClientRequest,
        mut complaints: Vec<String>,
        within: Option<Duration>,
        ctx: &mut Context<Self>,
    ) {
        use ClientRequest as R;
        let response = match request {
            R::PlanRequest(mut request) => {
                if request.complaints.is_empty() {
                    request.complaints = self.state().complaints(&request.configuration);
                }
                request.complaints.extend(complaints);
                return self.put_now(ticket, request.into(), within, ctx);
            }
            R::StageConfigurationRequest(StageConfigurationRequest { reqid, configuration }) => {
                let outcomes = self.all_that_is_wrong(&configuration, complaints);
                StageConfigurationResponse { reqid, configuration: None, outcomes }.into()
            }
            R::SetConfigurationRequest(SetConfigurationRequest { reqid, configuration, .. }) => {
                let outcomes = self.all_that_is_wrong(&configuration, complaints);
                SetConfigurationResponse { reqid, configuration: None, outcomes, deployment: None }.into()
            }
            R::DeployRequest(DeployRequest { reqid, .. }) => {
                let outcomes = complaints.drain(..).map(Outcome::failed).collect();
                DeployResponse { reqid, configuration: None, outcomes, deployment: None }.into()
            }
            other => return self.put_now(ticket, other, within, ctx),
        };
        self.answer(ticket, response, ctx);
    }

    fn all_that_is_wrong(&self, configuration: &Configuration, complaints: Vec<String>) -> Vec<Outcome> {
        let all: BTreeSet<String> = self.state().complaints(configuration).into_iter().chain(complaints).collect();
        all.into_iter().map(Outcome::failed).collect()
    }

    /// Removes blobs that nobody names, unless that was done a while ago.
    pub(super) fn collect_blobs(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let is_due = self.collected.is_none_or(|last| now.saturating_duration_since(last) >= AT_MOST_EVERY);
        let Some(blobs) = self.blobs.clone().filter(|_| is_due) else { return };
        self.collected = Some(now);
        let named = self.store().read(|store| named_in(store));
        let collected = async move {
            let named = named.await.unwrap_or(Err(StoreError::Stopped)).map_err(|error| error.to_string())?;
            let removed = blobs.apart(move |blobs| blobs.collect(&named, SystemTime::now())).await;
            removed.map_err(|error| error.to_string())
        };
        ctx.spawn(wrap_future::<_, Self>(collected).map(|removed: Result<usize, String>, _, _| match removed {
            Ok(0) => {}
            Ok(removed) => tracing::info!("removed {removed} files that nobody deploys any more"),
            Err(error) => tracing::warn!("files that nobody deploys any more cannot be removed: {error}"),
        }));
    }
}

impl Kept {
    fn files(&self) -> Named {
        if !self.has_files() {
            return Named::default();
        }
        Named::of(&self.nodes().collect::<Vec<_>>())
    }
}

/// The bundles of all configurations that can be deployed without being sent again.
fn named_in(store: &dyn Store) -> Result<BTreeSet<BundleId>, StoreError> {
    let mut named = BTreeSet::new();
    let mut note = |kept: &Kept| named.extend(kept.files().bundles.into_keys());
    let mut stored = store.load()?;
    Slot::ALL.into_iter().filter_map(|slot| stored.slot_mut(slot).take()).for_each(|kept| note(&kept));
    for record in store.history()? {
        store.tried(record.number)?.iter().for_each(&mut note);
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Digest;
    use crate::controller::store::{MemoryStore, Save};
    use crate::model::{ConfigurationId, InstanceName, NodeFiles, NodeName, Role};

    fn node(name: &str, paths: &[&str], bundle: Option<&[u8]>) -> Arc<Node> {
        let mut node = Node::new(NodeName::new(name).unwrap(), InstanceName::new("a").unwrap(), Role::None);
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let bundle = bundle.map(|content| BundleId::new(Digest::of(content)));
        node.files = Some(Box::new(NodeFiles { paths, bundle }));
        Arc::new(node)
    }

    #[test]
    fn what_nobody_has_read_or_is_not_here_is_told_once_with_the_nodes_that_want_it() {
        let nodes = [
            node("a", &["site", "list"], None),
            node("b", &["site", "list"], None),
            node("c", &["site"], Some(b"1")),
            node("d", &["site"], Some(b"1")),
            node("e", &["site"], Some(b"1")),
            node("f", &["site"], Some(b"1")),
        ];
        let got = Named::of(&nodes).complaints(None);
        assert_eq!(
            got,
            [
                "nodes 'a' and 'b' are to have files (site list), and nobody has read them: `watchpost deploy` reads them \
                 where it runs, and sends them"
                    .to_owned(),
                format!(
                    "nodes 'c', 'd', 'e' and 1 more are to have the files of {}: this controller keeps no files",
                    BundleId::new(Digest::of(b"1"))
                ),
            ]
        );
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(directory.path()).unwrap();
        let got = Named::of(&nodes[5..]).complaints(Some(&blobs));
        assert!(got[0].contains("they are not all here, or not any more"), "{got:?}");
    }

    #[test]
    fn whatever_can_be_deployed_again_keeps_its_files() {
        let kept = |id: &str, content: &[u8]| {
            let nodes = vec![node("a", &["site"], Some(content))];
            Kept::new(&Configuration { nodes, ..Configuration::empty(ConfigurationId::new(id).unwrap()) })
        };
        let mut store = MemoryStore::default();
        let saves = [
            Save::Configuration(Slot::Staged, kept("1", b"staged")),
            Save::Configuration(Slot::Ready, kept("1", b"ready")),
            Save::Configuration(Slot::Deployed, kept("2", b"deployed")),
        ];
        store.save(&saves).unwrap();
        let named = named_in(&store).unwrap();
        let want = [b"staged".as_slice(), b"ready", b"deployed"];
        assert_eq!(named, want.map(|content| BundleId::new(Digest::of(content))).into());
    }
}
