//! `watchpost deploy` and `rollback`: a deployment is ordered, shown as it goes on, and left to itself on Ctrl-C.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clap::{Args, ValueEnum};

use super::check::{has_no_nodes, usable};
use super::client::{Client, Events, Method};
use super::error::{CliError, Exit};
use super::events::encode;
use super::files::Files;
use super::import::cluster_text;
use super::orders::{self, body};
use super::plan::{self, PlanArgs};
use super::screen::{Screen, plain, state_style, tame};
use super::{Connection, history, interrupt};
use crate::model::InstanceName;
use crate::plan::PortRules;
use crate::web::history::{Deployed, Past};
use crate::web::json::{ConfigurationText, Event, Status};

/// The arguments of `watchpost deploy`.
#[derive(Debug, Args)]
pub struct DeployArgs {
    /// The cluster file, or a zeek.conf or node.cfg as `import` reads it
    #[arg(required_unless_present_any = ["attach", "plan"])]
    pub file: Option<PathBuf>,
    /// Carry out a plan that `plan --out` saved, unless something else is deployed by now
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "dry_run", "attach"])]
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
    /// Change everything at once, in place of so many nodes at a time
    #[arg(long)]
    pub all_at_once: bool,
    /// Do not wait for this instance: it follows when it can be reached. May be given more than once
    #[arg(long, value_name = "INSTANCE")]
    pub without: Vec<String>,
    /// Return once it has begun
    #[arg(long)]
    pub detach: bool,
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
    fn query(&self, more: Option<String>) -> Result<String, CliError> {
        self.without.iter().try_for_each(|name| InstanceName::new(name).map(drop))?;
        let on_failure = self.on_failure.map(|what| match what {
            OnFailure::Back => "on_failure=back".to_owned(),
            OnFailure::Keep => "on_failure=keep".to_owned(),
        });
        let without: Vec<_> = self.without.iter().map(|name| encode(name)).collect();
        let parts = [
            on_failure,
            self.all_at_once.then(|| "all_at_once=true".to_owned()),
            (!without.is_empty()).then(|| format!("without={}", without.join(","))),
            self.detach.then(|| "detach=true".to_owned()),
            more,
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        Ok(if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) })
    }
}

/// Makes a cluster file true, and tells what became of each node. One without nodes needs a word that it is meant: a file
/// that lost its content looks the same.
pub fn deploy(args: DeployArgs, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let DeployArgs { file, plan, dry_run, detailed_exitcode, empty, attach: _, how, connection } = args;
    match (file, plan) {
        (Some(file), _) if dry_run => {
            let all_at_once = how.all_at_once;
            plan::run(PlanArgs { file, out: None, detailed_exitcode, all_at_once, connection }, json, screen)
        }
        (Some(file), _) => deploy_file(&connection.open()?, &file, empty, &how, json, screen),
        (None, Some(plan)) => plan::deploy(&connection.open()?, &plan, empty, how, json, screen),
        (None, None) => attach(&connection.open()?, json, screen),
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
    deploy_text(client, &text, how, removes, json, screen)
}

/// The same for the text of one. `removes` says how many nodes there are, where it removes all of them.
pub(super) fn deploy_text(
    client: &Client,
    text: &ConfigurationText,
    how: &How,
    removes: Option<usize>,
    json: bool,
    screen: Screen,
) -> Result<Exit, CliError> {
    let order = Order {
        method: Method::Put,
        path: format!("/api/v1/configuration{}", how.query(None)?),
        doing: format!("deploying {}", text.file),
        body: body(text),
        detached: how.detach,
        removes,
    };
    give(client, order, json, screen)
}

/// Deploys again what an earlier deployment put in force.
pub fn rollback(args: RollbackArgs, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let RollbackArgs { number, how, connection } = args;
    let order = Order {
        method: Method::Post,
        path: format!("/api/v1/rollback{}", how.query(number.map(|number| format!("to={number}")))?),
        doing: number.map_or("rolling back".into(), |number| format!("rolling back to deployment {number}")),
        body: "{}".into(),
        detached: how.detach,
        removes: None,
    };
    give(&connection.open()?, order, json, screen)
}

struct Order {
    method: Method,
    path: String,
    body: String,
    /// What is going on meanwhile, such as `deploying cluster.cfg`.
    doing: String,
    detached: bool,
    /// How many nodes there are that the order removes, where it removes all of them.
    removes: Option<usize>,
}

fn give(client: &Client, order: Order, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let Order { method, path, body, doing, detached, removes } = order;
    let progress = (screen.is_terminal() && !json && !detached).then(|| Progress::begin(client)).transpose()?;
    if screen.is_terminal() && !json {
        writeln!(io::stderr(), "{doing} …")?;
    }
    let sender = client.clone();
    let answer = interrupt::unless(interrupt::interrupted(), move || sender.order::<Deployed>(method, &path, &body))?;
    drop(progress);
    let Some(answer) = answer else {
        return detach(&doing);
    };
    let (text, Deployed { verdict, deployment }) = answer?;
    let mut out = io::stdout().lock();
    match (json, detached && verdict.ok, deployment) {
        (true, _, _) => writeln!(out, "{}", text.trim_end())?,
        (false, true, Some(number)) => {
            writeln!(out, "deployment {number} has begun: see it with `watchpost deploy --attach`")?;
        }
        _ => {
            orders::lines(&verdict, "deployed", removes, screen).iter().try_for_each(|line| writeln!(out, "{line}"))?
        }
    }
    Ok(orders::exit(&verdict))
}

fn detach(doing: &str) -> Result<Exit, CliError> {
    let told = format!(
        "detached: {doing} goes on without you; `watchpost deploy --attach` shows it, `watchpost history` what came of it"
    );
    let lines = Screen::of_stderr().sentence(&told, Default::default());
    lines.iter().try_for_each(|line| writeln!(io::stderr(), "{line}"))?;
    Ok(Exit::Interrupted)
}

/// Looks on at the deployment that is under way.
fn attach(client: &Client, json: bool, screen: Screen) -> Result<Exit, CliError> {
    // What happens from here on is seen, whatever the status says next.
    let events = client.events("last=0&follow=true&snapshot=false")?;
    let (_, status) = client.get::<Status>("/api/v1/status")?;
    let Some(present) = status.deployment.filter(|_| status.deploying.is_some()) else {
        writeln!(io::stderr(), "no deployment is under way: `watchpost history` shows those before")?;
        return Ok(Exit::Done);
    };
    let who = history::who(&present.who, present.from.as_deref());
    let what = format!("deployment {} of {}, by {who} since {}", present.number, present.configuration, present.since);
    let (number, called) = (present.number, format!("deployment {} of {}", present.number, present.configuration));
    let shows = screen.is_terminal() && !json;
    let looked = interrupt::unless(interrupt::interrupted(), move || {
        // Whoever has read this can detach.
        if !json {
            writeln!(io::stderr(), "{}: {}", tame(&what), tame(&present.phase))?;
        }
        look_on(events, number, called, shows)
    })?;
    let Some(looked) = looked else { return detach(&format!("deployment {number}")) };
    looked?;
    let (text, past) = client.get::<Past>(&format!("/api/v1/history/{number}"))?;
    let mut out = io::stdout().lock();
    match json {
        true => writeln!(out, "{}", text.trim_end())?,
        false => history::lines(&past, screen).iter().try_for_each(|line| writeln!(out, "{line}"))?,
    }
    Ok(if past.verdict == "deployed" && past.failed == 0 { Exit::Done } else { Exit::Failed })
}

/// Shows what happens until that deployment is over, which was called so.
fn look_on(events: Events, number: u64, called: String, shows: bool) -> Result<(), CliError> {
    let mut called = Some(called);
    for event in events {
        let (_, event) = event?;
        if let Some(line) = line(&event, &mut called).filter(|_| shows) {
            writeln!(io::stderr(), "{line}")?;
        }
        if is_over(&event, number) {
            break;
        }
    }
    Ok(())
}

/// Whether this says how that deployment ended.
fn is_over(event: &Event, number: u64) -> bool {
    let said = event.msg.as_deref().and_then(|msg| msg.strip_prefix(&format!("deployment {number} of ")));
    let how = said.and_then(|said| said.rsplit_once(": ")).map(|(_, how)| how);
    event.kind == "log" && matches!(how, Some("deployed" | "rolled-back" | "refused"))
}

/// What an event says to somebody who waits for a deployment. What that is called is said once.
fn line(event: &Event, called: &mut Option<String>) -> Option<String> {
    let screen = Screen::of_stderr();
    match (event.kind.as_str(), &event.node, &event.msg) {
        ("log", None, Some(msg)) if msg.starts_with("deployment ") => {
            let (of, what) = msg.rsplit_once(": ").unwrap_or((msg, msg));
            let is_known = called.as_deref() == Some(of);
            *called = Some(of.to_owned());
            Some(screen.line([plain(tame(if is_known { what } else { msg }))]))
        }
        ("change", Some(node), _) => {
            let new = event.new.as_deref().unwrap_or_default();
            let on = event.instance.as_deref().unwrap_or_default();
            let reason = event.reason.as_deref().filter(|reason| !reason.is_empty());
            let why = reason.map_or_else(String::new, |reason| format!(": {}", tame(reason)));
            let what = [(tame(new), state_style(new)), plain(format!("  {} on {}{why}", tame(node), tame(on)))];
            Some(screen.line([plain("  ")].into_iter().chain(what)))
        }
        _ => None,
    }
}

/// Shows on standard error what happens, until it is dropped.
struct Progress(Arc<AtomicBool>);

impl Progress {
    fn begin(client: &Client) -> Result<Self, CliError> {
        let events = client.events("last=0&follow=true&snapshot=false")?;
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        // It ends with the process, or with the first event behind the verdict.
        thread::spawn(move || {
            let mut called = None;
            for (_, event) in events.map_while(Result::ok) {
                if seen.load(Ordering::Relaxed) {
                    break;
                }
                if let Some(line) = line(&event, &mut called) {
                    let _ = writeln!(io::stderr(), "{line}"); // a terminal that is gone needs no progress
                }
            }
        });
        Ok(Self(is_over))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wished_stands_in_the_address() {
        let how = How {
            on_failure: Some(OnFailure::Keep),
            all_at_once: true,
            without: vec!["a".into(), "b-1".into()],
            detach: true,
        };
        let want = "?on_failure=keep&all_at_once=true&without=a,b-1&detach=true&to=7";
        assert_eq!(how.query(Some("to=7".into())).unwrap(), want);
        assert_eq!(How::default().query(None).unwrap(), "");
        assert!(How { without: vec!["a&b=c".into(), String::new()], ..How::default() }.query(None).is_err());
    }

    #[test]
    fn the_end_of_a_deployment_is_known_by_its_number() {
        let said = |msg: &str| Event { kind: "log".into(), msg: Some(msg.into()), ..Event::default() };
        assert!(is_over(&said("deployment 7 of c1: rolled-back"), 7));
        assert!(is_over(&said("deployment 7 of a: b: deployed"), 7), "whatever a configuration is called");
        for other in ["deployment 71 of c1: deployed", "deployment 7 of c1: going back", "deployed"] {
            assert!(!is_over(&said(other), 7), "{other}");
        }
    }

    #[test]
    fn what_a_deployment_is_called_is_said_once() {
        let said = |msg: &str| Event { kind: "log".into(), msg: Some(msg.into()), ..Event::default() };
        let mut called = None;
        assert_eq!(line(&said("something else"), &mut called), None);
        let mut shown = |msg: &str| line(&said(msg), &mut called).unwrap();
        let text = shown("deployment 7 of c1: gathering\x1b");
        assert!(text.starts_with("deployment 7 of c1: gathering") && !text.contains('\x1b'), "{text}");
        assert_eq!(shown("deployment 7 of c1: deciding"), "deciding");
        assert_eq!(shown("deployment 8 of c2: gathering"), "deployment 8 of c2: gathering");
    }
}
