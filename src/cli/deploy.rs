//! `watchpost deploy` and `rollback`: a deployment is ordered, shown as it goes on, and left to itself on Ctrl-C.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::check::{has_no_nodes, usable};
use super::client::{Client, Method};
use super::error::{CliError, Exit};
use super::events::encode;
use super::files::Files;
use super::import::cluster_text;
use super::look_on::{self, Lost};
use super::orders::{self, body};
use super::plan::{self, PlanArgs};
use super::screen::Screen;
use super::seen::Progress;
use super::{Connection, interrupt};
use crate::model::InstanceName;
use crate::plan::PortRules;
use crate::web::desk::new_reqid;
use crate::web::history::Deployed;
use crate::web::json::{ConfigurationText, Outcome, Status, Verdict};

/// The arguments of `watchpost deploy`.
#[derive(Debug, Args)]
pub struct DeployArgs {
    /// The cluster file, or a zeek.conf or node.cfg as `import` reads it
    #[arg(required_unless_present_any = ["attach", "plan"])]
    pub file: Option<PathBuf>,
    /// Carry out a plan that `plan --out` saved, in the way that it says, unless something else is deployed by now
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "dry_run", "attach", "all_at_once", "without"])]
    pub plan: Option<PathBuf>,
    /// Only show what it would do, as `plan` does
    #[arg(long, conflicts_with = "attach")]
    pub dry_run: bool,
    /// With --dry-run: exit with 0 if nothing would change, with 2 if something would, and with 1 if something is wrong
    #[arg(long, requires = "dry_run")]
    pub detailed_exitcode: bool,
    /// Also if the file has no nodes, which removes every node there is
    #[arg(long)]
    pub empty: bool,
    /// Look on at the deployment that is under way, and say what came of it
    #[arg(long, conflicts_with_all = ["file", "empty", "on_failure", "all_at_once", "without", "detach"])]
    pub attach: bool,
    #[command(flatten)]
    pub how: How,
    #[command(flatten)]
    pub(super) connection: Connection,
}

/// How something is to be deployed.
#[derive(Debug, Default, Args)]
pub struct How {
    /// What becomes of it if a node does not become ready: all instances go back, or it stands [default: as the controller's
    /// settings say]
    #[arg(long, value_name = "WHAT")]
    pub on_failure: Option<OnFailure>,
    #[command(flatten)]
    pub pace: Pace,
    /// Return once it has begun
    #[arg(long)]
    pub detach: bool,
}

/// In which way it is carried out: a plan is made for one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct Pace {
    /// Change everything at once, in place of so many nodes at a time
    #[arg(long)]
    #[serde(default)]
    pub all_at_once: bool,
    /// Do not wait for this instance: it follows when it can be reached. May be given more than once
    #[arg(long, value_name = "INSTANCE")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
}

/// What becomes of a deployment that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnFailure {
    Back,
    Keep,
}

/// The arguments of `watchpost rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// To what this deployment put in force, by its number in `watchpost history` [default: what was in force before]
    pub number: Option<u64>,
    #[command(flatten)]
    pub how: How,
    #[command(flatten)]
    pub(super) connection: Connection,
}

impl How {
    fn query(&self, more: impl IntoIterator<Item = String>) -> Result<String, CliError> {
        let on_failure = self.on_failure.map(|what| match what {
            OnFailure::Back => "on_failure=back".to_owned(),
            OnFailure::Keep => "on_failure=keep".to_owned(),
        });
        self.pace.query(on_failure.into_iter().chain(self.detach.then(|| "detach=true".to_owned())).chain(more))
    }
}

impl Pace {
    /// What stands behind the path of an order, with more of that kind.
    pub fn query(&self, more: impl IntoIterator<Item = String>) -> Result<String, CliError> {
        self.without.iter().try_for_each(|name| InstanceName::new(name).map(drop))?;
        let without: Vec<_> = self.without.iter().map(|name| encode(name)).collect();
        let own = [
            self.all_at_once.then(|| "all_at_once=true".to_owned()),
            (!without.is_empty()).then(|| format!("without={}", without.join(","))),
        ];
        let parts: Vec<_> = own.into_iter().flatten().chain(more).collect();
        Ok(if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) })
    }
}

/// Makes a cluster file true, and tells what became of each node. One without nodes needs a word that it is meant: a file
/// that lost its content looks the same.
pub fn deploy(args: DeployArgs, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let DeployArgs { file, plan, dry_run, detailed_exitcode, empty, attach: _, how, connection } = args;
    match (file, plan) {
        (Some(file), _) if dry_run => {
            plan::run(PlanArgs { file, out: None, detailed_exitcode, pace: how.pace, connection }, json, screen)
        }
        (Some(file), _) => deploy_file(&connection.open()?, &file, empty, &how, json, screen),
        (None, Some(plan)) => plan::deploy(&connection.open()?, &plan, empty, how, json, screen),
        (None, None) => look_on::attach(&connection.open()?, json, screen),
    }
}

fn deploy_file(
    client: &Client,
    file: &Path,
    empty: bool,
    how: &How,
    json: bool,
    screen: Screen,
) -> Result<Exit, CliError> {
    let name = file.display().to_string();
    let text = cluster_text(file)?;
    let removes = match (has_no_nodes(&text, &name)?, empty) {
        (true, false) => return Err(CliError::Empty(file.into())),
        (true, true) => Some(client.get::<Status>("/api/v1/status")?.1.nodes.len()),
        (false, _) => None,
    };
    let files = Files::of(file, &text)?;
    if files.are_wrong() {
        // With whatever else can be seen from here; where the controller listens is its own to know.
        let rules = PortRules { controller: None, ..PortRules::default() };
        usable(&text, &name, &files, &rules)?;
    }
    files.send(client, json, screen)?;
    let text = ConfigurationText { file: name, text: orders::text_of(file, text)?, upon: None, bundles: files.told() };
    Ok(deploy_text(client, &text, how, removes, json, screen)?.0)
}

/// The same for the text of one, and what the controller answered, unless nobody waited for that. `removes` says how many
/// nodes there are, where it removes all of them.
pub(super) fn deploy_text(
    client: &Client,
    text: &ConfigurationText,
    how: &How,
    removes: Option<usize>,
    json: bool,
    screen: Screen,
) -> Result<(Exit, Option<Verdict>), CliError> {
    let reqid = fresh_id()?;
    let order = Order {
        method: Method::Put,
        path: format!("/api/v1/configuration{}", how.query([format!("reqid={reqid}")])?),
        reqid,
        doing: format!("deploying {}", text.file),
        body: body(text),
        detached: how.detach,
        without: how.pace.without.clone(),
        removes,
    };
    give(client, order, json, screen)
}

/// Deploys again what an earlier deployment put in force.
pub fn rollback(args: RollbackArgs, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let RollbackArgs { number, how, connection } = args;
    let reqid = fresh_id()?;
    let more = number.map(|number| format!("to={number}")).into_iter().chain([format!("reqid={reqid}")]);
    let order = Order {
        method: Method::Post,
        path: format!("/api/v1/rollback{}", how.query(more)?),
        reqid,
        doing: number.map_or("rolling back".into(), |number| format!("rolling back to deployment {number}")),
        body: "{}".into(),
        detached: how.detach,
        without: how.pace.without,
        removes: None,
    };
    Ok(give(&connection.open()?, order, json, screen)?.0)
}

/// By what a deployment is found again whose controller was lost before it answered.
fn fresh_id() -> Result<String, CliError> {
    new_reqid().map(|reqid| reqid.to_string()).map_err(|problem| CliError::Internal(problem.to_string()))
}

struct Order {
    method: Method,
    path: String,
    reqid: String,
    body: String,
    /// What is going on meanwhile, such as `deploying cluster.cfg`.
    doing: String,
    detached: bool,
    /// Instances that it does not wait for.
    without: Vec<String>,
    /// How many nodes there are that the order removes, where it removes all of them.
    removes: Option<usize>,
}

fn give(client: &Client, order: Order, json: bool, screen: Screen) -> Result<(Exit, Option<Verdict>), CliError> {
    let Order { method, path, reqid, body, doing, detached, without, removes } = order;
    let shows = screen.is_terminal() && !json;
    // Whoever waits for no end need not know whether the controller is still there.
    let progress = (!detached).then(|| Progress::begin(client)).transpose()?;
    if shows {
        writeln!(io::stderr(), "{doing} …")?;
    }
    let sender = client.clone();
    let ordered = move || ordered(sender, method, path, body, progress, shows);
    let Some(answer) = interrupt::unless(interrupt::interrupted(), ordered)? else {
        return Ok((look_on::detach(&doing)?, None));
    };
    let (text, Deployed { verdict, deployment }) = match answer {
        Err(error @ CliError::Lost { .. }) => {
            let lost =
                Lost { reqid, doing, detached, without, shape: |past| orders::body(&Deployed::from(past)), error };
            return Ok((look_on::look_for(client, lost, json, screen)?, None));
        }
        answer => answer?,
    };
    let later = follows_later(&verdict, &without);
    let mut out = io::stdout().lock();
    match (json, detached && verdict.ok, deployment) {
        (true, _, _) => writeln!(out, "{}", text.trim_end())?,
        (false, true, Some(number)) => look_on::has_begun(&mut out, number)?,
        _ => {
            let lines = orders::lines(&verdict, "deployed", removes, screen).into_iter().chain(later);
            lines.into_iter().try_for_each(|line| writeln!(out, "{line}"))?
        }
    }
    Ok((orders::exit(&verdict), Some(verdict)))
}

/// Says who of those that were not waited for was not there.
fn follows_later(verdict: &Verdict, without: &[String]) -> Option<String> {
    let speaks = |outcome: &Outcome, name: &str| outcome.instance.as_deref() == Some(name) && !outcome.unreachable;
    let was_there = |name: &&String| verdict.outcomes.iter().any(|outcome| speaks(outcome, name));
    let away: Vec<_> = without.iter().filter(|name| !was_there(name)).map(|name| format!("`{name}`")).collect();
    match &away[..] {
        _ if verdict.configuration.is_none() => None,
        [] => None,
        [one] => Some(format!("{one} will follow when it can be reached")),
        all => Some(format!("{} will follow when they can be reached", all.join(", "))),
    }
}

/// How long an answer may take to arrive once nothing else does.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Gives the order, and waits for its answer, but not for a controller from which nothing is heard any more: its events say
/// that it is there, also where nothing happens.
fn ordered(
    client: Client,
    method: Method,
    path: String,
    body: String,
    progress: Option<Progress>,
    shows: bool,
) -> Result<(String, Deployed), CliError> {
    let (answers, answered) = mpsc::channel();
    let silence = answers.clone();
    thread::spawn(move || answers.send(Ok(client.order::<Deployed>(method, &path, &body))));
    let over = progress.map(|progress| progress.show(shows, move |error| drop(silence.send(Err(error)))));
    // It ends with its answer, or with a panic that was shown.
    let gone = || CliError::Internal("nobody is left to answer".into());
    let answer = match answered.recv().map_err(|_| gone())? {
        Ok(answer) => answer,
        Err(silent) => match answered.recv_timeout(LAST_WORDS) {
            Ok(Ok(answer)) => answer,
            _ => Err(silent),
        },
    };
    drop(over);
    answer.map_err(CliError::of_order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wished_stands_in_the_address() {
        let how = How {
            on_failure: Some(OnFailure::Keep),
            pace: Pace { all_at_once: true, without: vec!["a".into(), "b-1".into()] },
            detach: true,
        };
        let want = "?all_at_once=true&without=a,b-1&on_failure=keep&detach=true&to=7";
        assert_eq!(how.query(["to=7".into()]).unwrap(), want);
        assert_eq!(How::default().query([]).unwrap(), "");
        let strange = Pace { without: vec!["a&b=c".into(), String::new()], ..Pace::default() };
        assert!(strange.query([]).is_err());
    }

    #[test]
    fn who_was_not_waited_for_and_was_not_there_is_named() {
        let done = |instance: &str| Outcome {
            instance: Some(instance.into()),
            node: Some("w1".into()),
            error: None,
            unreachable: false,
            output: None,
        };
        let mut verdict = Verdict { ok: true, configuration: Some("c1".into()), outcomes: vec![done("a")] };
        let without = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let told = |verdict: &Verdict, names: &[&str]| follows_later(verdict, &without(names));
        assert_eq!(told(&verdict, &["a"]), None, "it was there");
        assert_eq!(told(&verdict, &["a", "b"]).unwrap(), "`b` will follow when it can be reached");
        assert_eq!(told(&verdict, &["b", "c"]).unwrap(), "`b`, `c` will follow when they can be reached");
        verdict.outcomes.push(Outcome {
            node: None,
            unreachable: true,
            error: Some("not connected".into()),
            ..done("b")
        });
        assert_eq!(told(&verdict, &["b"]).unwrap(), "`b` will follow when it can be reached", "others speak of it");
        verdict.configuration = None;
        assert_eq!(told(&verdict, &["b"]), None, "there is nothing to follow");
    }
}
