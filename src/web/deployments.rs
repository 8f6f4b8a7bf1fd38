//! Handlers for deployments: how they are ordered, and their history.

use std::collections::BTreeSet;

use actix_web::web::{Data, Json, Path, Query, ReqData};
use actix_web::{FromRequest, HttpRequest, dev::Payload};
use serde::Deserialize;

use super::changed::{Bundles, ChangedFiles};
use super::desk::{Desk, new_reqid};
use super::history::{Deployed, Difference, History, Past};
use super::json::{ConfigurationText, Upon, Verdict};
use super::pass::Pass;
use super::problem::Problem;
use super::reach::Reach;
use super::routes::Answer;
use super::visitor::Visitor;
use super::{Reader, configuration};
use crate::message::client::*;
use crate::message::pending;
use crate::model::{Author, Configuration, InstanceName, OnFailure, RequestId};

/// What whoever deploys may say about how.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// `back` or `keep`, in place of what the settings say.
    on_failure: Option<String>,
    /// Every agent is told everything at once.
    all_at_once: Option<bool>,
    /// Instances that nobody waits for, with commas between them.
    without: Option<String>,
    /// Answer once it has begun.
    detach: Option<bool>,
    /// Of a rollback: to what this deployment deployed.
    to: Option<u64>,
    /// By what it is known, to whoever may lose the answer; no other deployment had it. Absent: it gets one.
    reqid: Option<String>,
}

impl Wish {
    fn reqid(&self) -> Result<RequestId, Problem> {
        match &self.reqid {
            Some(reqid) => Ok(RequestId::new(reqid)?),
            None => new_reqid(),
        }
    }

    fn terms(&self, author: Author) -> Result<Terms, Problem> {
        let on_failure = match self.on_failure.as_deref() {
            None => None,
            Some("back") => Some(OnFailure::Back),
            Some("keep") => Some(OnFailure::Keep),
            Some(_) => return Err(Problem::Malformed("on_failure is `back` or `keep`".into())),
        };
        let without = named(self.without.as_deref())?;
        let (all_at_once, detach) = (self.all_at_once.unwrap_or_default(), self.detach.unwrap_or_default());
        Ok(Terms { author, on_failure, all_at_once, without, detach })
    }
}

/// Instances, as they stand in an address, with commas between them.
pub(super) fn named(instances: Option<&str>) -> Result<BTreeSet<InstanceName>, Problem> {
    let names = instances.into_iter().flat_map(|names| names.split(',')).filter(|name| !name.is_empty());
    Ok(names.map(InstanceName::new).collect::<Result<_, _>>()?)
}

/// Who deploys, as the guard let them in.
pub struct By(Author);

impl FromRequest for By {
    type Error = actix_web::Error;
    type Future = std::future::Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let pass = ReqData::<Pass>::from_request(request, payload).into_inner();
        let who = pass.map_or_else(|_| Author::default().who, |pass| pass.who.to_string());
        let from = request.conn_data::<Visitor>().map(|visitor| visitor.peer.ip().to_canonical());
        std::future::ready(Ok(Self(Author { who, from })))
    }
}

/// PUT: stages and deploys in one step, so that afterwards the configuration is what was put here.
pub async fn set_configuration(
    desk: Data<Desk>,
    reader: Data<Reader>,
    (wish, by): (Query<Wish>, By),
    body: Json<ConfigurationText>,
) -> Answer<Deployed> {
    let configuration = configuration::parse(&body, &reader.hostname, &reader.ports)?;
    let terms = wish.terms(by.0)?;
    let detached = terms.detach;
    let upon = body.upon.as_ref().map(Upon::read).transpose()?;
    let answer = desk.ask(SetConfigurationRequest { reqid: wish.reqid()?, configuration, upon, terms }).await?;
    let SetConfigurationResponse { configuration, outcomes, deployment, .. } = answer;
    Ok(told(&desk, DeployResponse { reqid: answer.reqid, configuration, outcomes, deployment }, detached).await)
}

pub async fn deploy(desk: Data<Desk>, wish: Query<Wish>, by: By) -> Answer<Deployed> {
    let terms = wish.terms(by.0)?;
    let detached = terms.detach;
    let answer = desk.ask(DeployRequest { reqid: wish.reqid()?, terms }).await?;
    Ok(told(&desk, answer, detached).await)
}

pub async fn rollback(desk: Data<Desk>, wish: Query<Wish>, by: By) -> Answer<Deployed> {
    let terms = wish.terms(by.0)?;
    let detached = terms.detach;
    let answer = desk.ask(RollbackRequest { reqid: wish.reqid()?, to: wish.to, terms }).await?;
    Ok(told(&desk, answer, detached).await)
}

async fn told(desk: &Desk, answer: DeployResponse, detached: bool) -> Json<Deployed> {
    let DeployResponse { configuration, mut outcomes, deployment, .. } = answer;
    // It is for those who know it: who deploys since when is said beside it.
    if outcomes.len() > 1 {
        outcomes.retain(|outcome| !pending::is_meant_by(outcome));
    }
    let reach = Reach::after(&outcomes, desk).await;
    let has_begun = detached && deployment.is_some() && outcomes.is_empty();
    let verdict = Verdict::of_configuration(configuration, outcomes, &reach);
    Json(Deployed { verdict: Verdict { ok: verdict.ok || has_begun, ..verdict }, deployment })
}

pub async fn history(desk: Data<Desk>) -> Answer<History> {
    let all = desk.ask(GetHistoryRequest).await?.deployments.map_err(Problem::Internal)?;
    let bare = |record| Past { results: Vec::new(), ..Past::from(record) };
    Ok(Json(History { deployments: all.into_iter().map(bare).collect() }))
}

pub async fn past(desk: Data<Desk>, number: Path<u64>) -> Answer<Past> {
    let number = number.into_inner();
    let all = desk.ask(GetHistoryRequest).await?.deployments.map_err(Problem::Internal)?;
    let found = all.into_iter().find(|record| record.number == number);
    found
        .map(|record| Json(Past::from(record)))
        .ok_or_else(|| Problem::Absent(format!("{}: see `watchpost history`", no_such(number))))
}

pub async fn diff(desk: Data<Desk>, numbers: Path<(u64, u64)>) -> Answer<Difference> {
    let (from, to) = numbers.into_inner();
    let (have, want) = (tried(&desk, from).await?, tried(&desk, to).await?);
    let mut difference = Difference::between((from, &have), (to, &want));
    let mut files = ChangedFiles::between(&desk, Bundles::of(&have), Bundles::of(&want));
    for node in difference.nodes.iter_mut().filter(|node| node.keys.iter().any(|key| key == "files")) {
        node.files = files.of(&node.node).await?.to_vec();
    }
    Ok(Json(difference))
}

async fn tried(desk: &Desk, number: u64) -> Result<Configuration, Problem> {
    let found = desk.ask(GetTriedRequest { number }).await?.configuration.map_err(Problem::Internal)?;
    found.ok_or_else(|| Problem::Absent(format!("{}, or what it deployed is not kept any more", no_such(number))))
}

fn no_such(number: u64) -> String {
    format!("there is no deployment {number}")
}
