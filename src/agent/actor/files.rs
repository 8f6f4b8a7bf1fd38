//! What nodes are to find on the disk: looked at, fetched, laid out and kept, before a configuration needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use actix::fut::wrap_future;
use actix::{ActorFutureExt, AsyncContext, Context, Handler, Message};
use tokio::sync::oneshot;

use super::Agent;
use crate::agent::porter::Said;
use crate::agent::state::Event;
use crate::bundle::BundleId;
use crate::bundle::tree::Place;
use crate::launch::Survey;
use crate::launch::zeek::{Objection, Preparation};
use crate::message::agent::StageBundlesRequest;
use crate::model::{Node, NodeName};

/// What the porter says.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Carried(pub Said);

impl Handler<Carried> for Agent {
    type Result = ();

    fn handle(&mut self, Carried(said): Carried, ctx: &mut Context<Self>) {
        match said {
            Said::Lacks(request) => self.state.ask(request),
            Said::LaysOut => self.state.lays_out(),
        }
        self.flush_soon(ctx);
    }
}

impl Agent {
    /// Zeek takes seconds to look at its scripts, so that is done elsewhere.
    pub(super) fn prepare(&mut self, number: u64, preparation: Preparation, ctx: &mut Context<Self>) {
        let places = self.places_of(&preparation.with_files);
        self.having(BTreeSet::new(), places, ctx, move |had, me, ctx| {
            if !me.state.looks_at(number) {
                return; // something newer came meanwhile
            }
            if let Err(why) = had {
                return me.drive(Event::Prepared(number, vec![Objection::of_all(why)]), ctx);
            }
            let (done, prepared) = oneshot::channel();
            me.workshop.prepare(preparation, move |objections| {
                let _ = done.send(objections); // the agent may have ended
            });
            hear_objections(prepared, ctx, move |objections| Event::Prepared(number, objections));
        });
    }

    /// The same for whoever only asks.
    pub(super) fn inspect(&mut self, number: u64, survey: Survey, ctx: &mut Context<Self>) {
        let places = self.places_of(&survey.nodes);
        self.having(BTreeSet::new(), places, ctx, move |had, me, ctx| {
            if let Err(why) = had {
                return me.drive(Event::Inspected(number, vec![Objection::of_all(why)]), ctx);
            }
            let (done, inspected) = oneshot::channel();
            me.workshop.inspect(survey, move |objections| {
                let _ = done.send(objections); // the agent may have ended
            });
            hear_objections(inspected, ctx, move |objections| Event::Inspected(number, objections));
        });
    }

    pub(super) fn stage(
        &mut self,
        StageBundlesRequest { reqid, bundles }: StageBundlesRequest,
        ctx: &mut Context<Self>,
    ) {
        self.having(bundles, Vec::new(), ctx, move |had, me, ctx| {
            me.state.answer_staged(reqid, had);
            me.flush_soon(ctx);
        });
    }

    /// Goes on once these bundles are there, and laid out where they are wanted: at once, if there are none.
    fn having(
        &mut self,
        bundles: BTreeSet<BundleId>,
        places: Vec<Place>,
        ctx: &mut Context<Self>,
        then: impl FnOnce(Result<(), String>, &mut Self, &mut Context<Self>) + 'static,
    ) {
        if bundles.is_empty() && places.is_empty() {
            return then(Ok(()), self, ctx);
        }
        let (done, had) = oneshot::channel();
        self.porter.have(bundles, places, move |had| {
            let _ = done.send(had); // the agent may have ended
        });
        ctx.spawn(wrap_future::<_, Self>(had).map(move |had, me, ctx| {
            let panicked = || Err("its files could not be fetched: see the agent's log".into());
            then(had.unwrap_or_else(|_| panicked()), me, ctx);
        }));
    }

    /// Where nodes are to find their files, of those that have some.
    fn places_of(&self, nodes: &[Arc<Node>]) -> Vec<Place> {
        nodes.iter().filter_map(|node| self.site.files_of(node)).collect()
    }

    pub(super) fn keep_files(&self, nodes: &[Arc<Node>], gone: &BTreeSet<NodeName>) {
        let gone = gone.iter().map(|name| (self.site.nodes.join(name.as_str()), Vec::new()));
        let mut trees: BTreeMap<PathBuf, Vec<String>> = gone.collect();
        let mut bundles = BTreeSet::new();
        for place in self.places_of(nodes) {
            bundles.insert(place.bundle);
            trees.entry(place.home.clone()).or_default().push(place.name());
        }
        self.porter.keep(trees, bundles);
    }
}

/// Has the agent hear what is objected, also if whoever looked panicked.
fn hear_objections(
    objected: oneshot::Receiver<Vec<Objection>>,
    ctx: &mut Context<Agent>,
    event: impl FnOnce(Vec<Objection>) -> Event + 'static,
) {
    ctx.spawn(wrap_future::<_, Agent>(objected).map(move |objections, me, ctx| {
        let panicked = || vec![Objection::of_all("it could not be looked at: see the agent's log")];
        me.drive(event(objections.unwrap_or_else(|_| panicked())), ctx);
    }));
}
