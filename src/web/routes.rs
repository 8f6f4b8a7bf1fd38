//! The HTTP API: one handler per message of [`crate::message::client`], and no decisions.

use std::collections::BTreeSet;

use actix_web::middleware::from_fn;
use actix_web::web::{self, Data, Json, JsonConfig, Path, PathConfig, Query, QueryConfig, ServiceConfig};
use actix_web::{HttpRequest, Resource, Route};
use serde::Deserialize;

use super::desk::{Desk, new_reqid};
use super::json::{self, ConfigurationText, NodesOrder, Verdict};
use super::output::stream as stream_output;
use super::problem::Problem;
use super::reach::Reach;
use super::{Facts, Reader, blobs, configuration, deployments, events, guard, metrics, plan};
use crate::message::client::*;
use crate::model::{NodeName, Outcome};

/// The longest body that stages a configuration, in bytes.
const LONGEST_CONFIGURATION: usize = 16 << 20;
/// The longest other body, in bytes: the names of some thousand nodes.
const LONGEST_BODY: usize = 256 << 10;
/// How many lines of each stream an output has, unless told otherwise.
const LINES: u32 = 100;

pub(super) type Answer<T> = Result<Json<T>, Problem>;

/// Every address of the API.
pub fn configure(app: &mut ServiceConfig) {
    app.app_data(json_up_to(LONGEST_BODY))
        .app_data(QueryConfig::default().error_handler(|error, _| Problem::from(error).into()))
        .app_data(PathConfig::default().error_handler(|error, _| Problem::Malformed(error.to_string()).into()))
        .service(at(guard::HEALTH).route(web::get().to(health)))
        .service(at("/metrics").route(web::get().to(metrics::metrics)))
        .service(at("/api/v1/version").route(web::get().to(version)))
        .service(at("/api/v1/status").route(web::get().to(status)))
        .service(at("/api/v1/instances").route(web::get().to(instances)))
        .service(
            at("/api/v1/configuration")
                .app_data(json_up_to(LONGEST_CONFIGURATION))
                .route(web::get().to(get_configuration))
                .route(change(web::post().to(stage)))
                .route(change(web::put().to(deployments::set_configuration))),
        )
        .service(
            at("/api/v1/blobs/missing")
                .app_data(json_up_to(LONGEST_CONFIGURATION))
                .route(change(web::post().to(blobs::missing))),
        )
        .service(at("/api/v1/blobs/{digest}").route(web::put().to(blobs::put).wrap(from_fn(guard::before_bytes))))
        .service(at("/api/v1/deploy").route(change(web::post().to(deployments::deploy))))
        .service(at("/api/v1/rollback").route(change(web::post().to(deployments::rollback))))
        .service(at("/api/v1/history").route(web::get().to(deployments::history)))
        .service(at("/api/v1/history/{number}").route(web::get().to(deployments::past)))
        .service(at("/api/v1/history/{number}/diff/{other}").route(web::get().to(deployments::diff)))
        // It changes nothing, but has agents run Zeek as the file says.
        .service(
            at("/api/v1/plan").app_data(json_up_to(LONGEST_CONFIGURATION)).route(change(web::post().to(plan::plan))),
        )
        .service(at("/api/v1/nodes").route(web::get().to(nodes)))
        .service(at("/api/v1/nodes/start").route(change(web::post().to(start))))
        .service(at("/api/v1/nodes/stop").route(change(web::post().to(stop))))
        .service(at("/api/v1/nodes/restart").route(change(web::post().to(restart))))
        .service(at("/api/v1/nodes/print").route(change(web::post().to(print))))
        .service(at("/api/v1/nodes/{name}/output").route(web::get().to(output)))
        .service(at("/api/v1/nodes/{name}/output/stream").route(web::get().to(stream_output)))
        .service(at("/api/v1/crashes").route(web::get().to(crashes)))
        .service(at("/api/v1/crashes/{id}").route(web::get().to(crash)))
        .service(at("/api/v1/events").route(web::get().to(events::events)))
        .default_service(web::to(nowhere));
}

fn at(path: &str) -> Resource {
    web::resource(path).default_service(web::to(wrong_method))
}

/// A route by which something changes, or by which any script's variable can be read: for operators. All others are for
/// observers as well.
fn change(route: Route) -> Route {
    route.wrap(from_fn(guard::before_a_change))
}

fn json_up_to(limit: usize) -> JsonConfig {
    JsonConfig::default().limit(limit).error_handler(|error, _| Problem::from(error).into())
}

async fn nowhere(request: HttpRequest) -> Result<&'static str, Problem> {
    Err(Problem::NoRoute(request.path().chars().take(100).collect()))
}

async fn wrong_method(request: HttpRequest) -> Result<&'static str, Problem> {
    Err(Problem::WrongMethod(request.method().as_str().chars().take(20).collect()))
}

/// Whether there is a controller behind this API. Says nothing else, so it needs no token.
async fn health(desk: Data<Desk>) -> Result<&'static str, Problem> {
    if desk.is_open() { Ok("ok\n") } else { Err(Problem::NoController) }
}

async fn version() -> Json<json::Version> {
    Json(json::Version::ours())
}

async fn status(desk: Data<Desk>, facts: Data<Facts>) -> Answer<json::Status> {
    Ok(Json(facts.status(desk.ask(GetStatusRequest).await?)))
}

async fn instances(desk: Data<Desk>) -> Answer<json::Instances> {
    let answer = desk.ask(GetInstancesRequest { reqid: new_reqid()? }).await?;
    Ok(Json(json::Instances { instances: answer.instances.into_iter().map(json::Instance::from).collect() }))
}

async fn nodes(desk: Data<Desk>) -> Answer<json::Nodes> {
    let answer = desk.ask(GetNodesRequest { reqid: new_reqid()? }).await?;
    let reach = Reach::after(&answer.outcomes, &desk).await;
    Ok(Json(json::Nodes {
        ok: answer.outcomes.iter().all(Outcome::is_success),
        nodes: answer.nodes.into_iter().map(json::Node::from).collect(),
        outcomes: json::Outcome::all(answer.outcomes, &reach),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhichConfiguration {
    /// The deployed one (the default), or the one that was staged.
    deployed: Option<bool>,
}

async fn get_configuration(desk: Data<Desk>, which: Query<WhichConfiguration>) -> Answer<json::Configuration> {
    let request = GetConfigurationRequest { reqid: new_reqid()?, deployed: which.deployed.unwrap_or(true) };
    let configuration = desk.ask(request).await?.configuration.map_err(Problem::Absent)?;
    Ok(Json(json::Configuration {
        id: configuration.id.to_string(),
        configuration: configuration::write(&configuration),
    }))
}

/// POST: checks a configuration and makes it the next to deploy.
async fn stage(desk: Data<Desk>, reader: Data<Reader>, body: Json<ConfigurationText>) -> Answer<Verdict> {
    if body.upon.is_some() {
        return Err(Problem::Malformed("`upon` is for what is deployed at once: give it to PUT".into()));
    }
    let configuration = configuration::parse(&body, &reader.hostname, &reader.ports)?;
    let answer = desk.ask(StageConfigurationRequest { reqid: new_reqid()?, configuration }).await?;
    let reach = Reach::after(&answer.outcomes, &desk).await;
    Ok(Json(Verdict::of_configuration(answer.configuration, answer.outcomes, &reach)))
}

async fn start(desk: Data<Desk>, order: Json<NodesOrder>) -> Answer<Verdict> {
    let answer = desk.ask(StartRequest { reqid: new_reqid()?, nodes: named(&order)? }).await?;
    let reach = Reach::after(&answer.outcomes, &desk).await;
    Ok(Json(Verdict::over(answer.outcomes, &reach)))
}

async fn stop(desk: Data<Desk>, order: Json<NodesOrder>) -> Answer<Verdict> {
    let answer = desk.ask(StopRequest { reqid: new_reqid()?, nodes: named(&order)? }).await?;
    let reach = Reach::after(&answer.outcomes, &desk).await;
    Ok(Json(Verdict::over(answer.outcomes, &reach)))
}

async fn restart(desk: Data<Desk>, order: Json<NodesOrder>) -> Answer<Verdict> {
    let answer = desk.ask(RestartRequest { reqid: new_reqid()?, nodes: named(&order)? }).await?;
    let reach = Reach::after(&answer.outcomes, &desk).await;
    Ok(Json(Verdict::over(answer.outcomes, &reach)))
}

/// Asks Zeek nodes for the value of an identifier.
async fn print(desk: Data<Desk>, order: Json<json::PrintOrder>) -> Answer<json::Values> {
    let Json(json::PrintOrder { id, nodes }) = order;
    let request = GetIdValueRequest { reqid: new_reqid()?, id, nodes: names(&nodes)? };
    let mut answer = desk.ask(request).await?;
    let mut values = Vec::new();
    for IdValue { node, instance, value } in answer.values {
        match serde_json::from_str(&value) {
            Ok(value) => values.push(json::IdValue { node: node.to_string(), instance: instance.to_string(), value }),
            // Nested too deep, or a number too large: one node's matter, and not that of the others.
            Err(error) => {
                let error = format!("its value is JSON that cannot be read here: {error}");
                answer.outcomes.push(Outcome::node_failed(&instance, &node, error, None));
            }
        }
    }
    let reach = Reach::after(&answer.outcomes, &desk).await;
    Ok(Json(json::Values {
        ok: answer.outcomes.iter().all(Outcome::is_success),
        values,
        outcomes: json::Outcome::all(answer.outcomes, &reach),
    }))
}

fn named(order: &NodesOrder) -> Result<BTreeSet<NodeName>, Problem> {
    names(&order.nodes)
}

fn names(nodes: &[String]) -> Result<BTreeSet<NodeName>, Problem> {
    nodes.iter().map(|name| NodeName::new(name).map_err(Problem::from)).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhichCrashes {
    /// Those of this node alone.
    node: Option<String>,
}

async fn crashes(desk: Data<Desk>, which: Query<WhichCrashes>) -> Answer<json::Crashes> {
    let node = which.node.as_deref().map(NodeName::new).transpose()?;
    let answer = desk.ask(GetCrashesRequest { reqid: new_reqid()?, node, id: None }).await?;
    let reach = Reach::after(&answer.outcomes, &desk).await;
    Ok(Json(json::Crashes {
        ok: answer.outcomes.iter().all(Outcome::is_success),
        crashes: answer.crashes.into_iter().map(json::Crash::from).collect(),
        outcomes: json::Outcome::all(answer.outcomes, &reach),
    }))
}

async fn crash(desk: Data<Desk>, id: Path<String>) -> Answer<json::CrashDossier> {
    let request = GetCrashesRequest { reqid: new_reqid()?, node: None, id: Some(id.into_inner()) };
    let answer = desk.ask(request).await?;
    let reach = Reach::after(&answer.outcomes, &desk).await;
    let dossier = answer.dossier.map(|text| serde_json::from_str(&text)).transpose();
    Ok(Json(json::CrashDossier {
        dossier: dossier.map_err(|error| Problem::Absent(format!("the dossier is no JSON: {error}")))?,
        outcomes: json::Outcome::all(answer.outcomes, &reach),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HowMuch {
    /// How many lines of each stream at most.
    lines: Option<u32>,
}

async fn output(desk: Data<Desk>, name: Path<String>, how_much: Query<HowMuch>) -> Answer<json::Output> {
    let node = NodeName::new(&name)?;
    let request = GetOutputRequest { reqid: new_reqid()?, node, lines: how_much.lines.unwrap_or(LINES) };
    let outcome = desk.ask(request).await?.outcome;
    match outcome.error {
        Some(error) => Err(Problem::Absent(format!("cannot show the output of `{name}`: {error}"))),
        None => Ok(Json(outcome.output.map(json::Output::from).unwrap_or_default())),
    }
}
