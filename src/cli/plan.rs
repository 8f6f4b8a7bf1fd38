//! `watchpost plan`: what a deployment would do, without doing it; and the plan that is carried out later.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::Connection;
use super::check::has_no_nodes;
use super::client::{Client, Method};
use super::deploy::{How, Pace, deploy_text};
use super::error::{CliError, Exit};
use super::files::{Files, base_of};
use super::import::cluster_text;
use super::orders::{self, body, failure};
use super::screen::{Screen, plain, state_style, tame};
use super::table::{self, Cell, Column, words};
use crate::message::pending::OVERTAKEN;
use crate::web::json::{ConfigurationText, FoundFiles, Plan, Upon, Verdict};
use crate::web::plan::{Instance, Node, Step};

/// The format of a saved plan; another number is of another release.
const FORMAT: u32 = 1;
/// The longest saved plan that is read, in bytes.
const LONGEST: u64 = 256 << 20;

/// The most steps that are shown, and the most nodes of one: JSON has them all.
const MOST_STEPS: usize = 20;
const MOST_OF_STEP: usize = 8;

const STEPS: [Column; 3] = [words("STEP"), words("PHASE"), words("NODES")];
const COLUMNS: [Column; 4] = [words("ACTION"), words("NODE"), words("INSTANCE"), words("WHY")];

/// The arguments of `watchpost plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The cluster file, or a zeek.conf or node.cfg as `import` reads it
    pub file: PathBuf,
    /// Save the plan there, for `deploy --plan`
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Exit with 0 if nothing would change, with 2 if something would, and with 1 if something is wrong
    #[arg(long)]
    pub detailed_exitcode: bool,
    #[command(flatten)]
    pub pace: Pace,
    #[command(flatten)]
    pub connection: Connection,
}

/// A plan as it is kept, for whoever carries it out later.
#[derive(Serialize, Deserialize)]
struct Saved {
    format: u32,
    /// What complaints call the file.
    file: String,
    /// From where its relative paths are taken.
    #[serde(default)]
    base: PathBuf,
    /// The cluster file as it was.
    text: String,
    /// What was found of the files that it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bundles: Vec<FoundFiles>,
    /// How it is to be deployed.
    #[serde(flatten)]
    pace: Pace,
    plan: Plan,
}

/// Asks what a deployment of this file would do, and prints it.
pub fn run(args: PlanArgs, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let detailed = args.detailed_exitcode;
    let made = make(args, json, screen);
    match detailed {
        // 2 would say that all is well, and something changes.
        true => made.map_err(|error| match error {
            CliError::Closed => error,
            error => CliError::Detailed(Box::new(error)),
        }),
        false => made,
    }
}

fn make(args: PlanArgs, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let PlanArgs { file, out, detailed_exitcode, pace, connection } = args;
    let path = format!("/api/v1/plan{}", pace.query([])?);
    let client = connection.open()?;
    let name = file.display().to_string();
    let text = cluster_text(&file)?;
    let files = Files::of(&file, &text)?;
    let text = orders::text_of(&file, text)?;
    if let Some(out) = &out {
        may_write(out)?;
    }
    if screen.is_terminal() && !json {
        writeln!(io::stderr(), "planning {name} …")?;
    }
    files.send(&client, json, screen)?;
    let bundles = files.told();
    let (answer, plan) = ask(&client, &path, &name, &text, &bundles)?;
    {
        let mut stdout = io::stdout().lock();
        match json {
            true => writeln!(stdout, "{}", answer.trim_end())?,
            false => lines(&plan, screen).iter().try_for_each(|line| writeln!(stdout, "{line}"))?,
        }
    }
    let exit = if detailed_exitcode { detailed(&plan) } else { usual(&plan) };
    if let Some(out) = out {
        match plan.ok {
            true => {
                let base = base_of(&file)?;
                save(&out, &Saved { format: FORMAT, file: name, base, text, bundles, pace, plan })?;
                writeln!(io::stderr(), "saved: carry it out with `watchpost deploy --plan {}`", out.display())?;
            }
            false => writeln!(io::stderr(), "not saved: it cannot be carried out as it is")?,
        }
    }
    Ok(exit)
}

fn ask(
    client: &Client,
    path: &str,
    file: &str,
    text: &str,
    bundles: &[FoundFiles],
) -> Result<(String, Plan), CliError> {
    let text =
        ConfigurationText { file: file.to_owned(), text: text.to_owned(), upon: None, bundles: bundles.to_vec() };
    client.order(Method::Post, path, &body(&text))
}

/// Carries out a saved plan, unless something else is deployed by now: then it says what would be otherwise.
pub fn deploy(
    client: &Client,
    path: &Path,
    empty: bool,
    mut how: How,
    json: bool,
    screen: Screen,
) -> Result<Exit, CliError> {
    let Saved { file, base, text, bundles, plan, pace, .. } = read(path)?;
    let anew = format!("/api/v1/plan{}", pace.query([])?);
    how.pace = pace;
    if !empty && has_no_nodes(text.as_bytes(), &file)? {
        return Err(CliError::Empty(path.into()));
    }
    if !bundles.is_empty() {
        // Who plans late may find that the controller has let go of them. Whatever is otherwise by now is not what was planned.
        Files::from(&base, &file, text.as_bytes())?.unchanged_since(&bundles).send(client, json, screen)?;
    }
    let upon = Some(Upon { deployed: plan.deployed.clone() });
    let order = ConfigurationText { file: file.clone(), text: text.clone(), upon, bundles: bundles.clone() };
    let (exit, verdict) = deploy_text(client, &order, &how, None, json, screen)?;
    if verdict.is_some_and(|verdict| is_overtaken(&verdict)) && !json {
        let (_, now) = ask(client, &anew, &file, &text, &bundles)?;
        otherwise(&plan, &now).iter().try_for_each(|line| writeln!(io::stdout(), "{line}"))?;
        writeln!(io::stderr(), "  plan it anew: `watchpost plan FILE --out {}`", path.display())?;
    }
    Ok(exit)
}

/// Whether something else is deployed by now than what it was made upon.
fn is_overtaken(verdict: &Verdict) -> bool {
    verdict.outcomes.iter().any(|outcome| outcome.error.as_deref().is_some_and(|error| error.starts_with(OVERTAKEN)))
}

/// What a plan would do that was made now, where it is not what the former one would have done.
fn otherwise(then: &Plan, now: &Plan) -> Vec<String> {
    let by_name = |plan: &Plan| -> BTreeMap<(String, String), String> {
        let key = |node: &Node| (node.name.clone(), node.instance.clone());
        plan.nodes.iter().map(|node| (key(node), in_words(node))).collect()
    };
    let (before, after) = (by_name(then), by_name(now));
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let changed = names.into_iter().filter_map(|key| {
        let [then, now] = [&before, &after].map(|all| all.get(key).map_or("nothing", String::as_str));
        let (node, instance) = (tame(&key.0), tame(&key.1));
        (then != now).then(|| format!("  {node} on {instance}: {} now, {} then", tame(now), tame(then)))
    });
    let changed: Vec<String> = changed.collect();
    match changed.is_empty() {
        true => vec!["  what it would do is the same still".into()],
        false => std::iter::once("  what it would do is not the same any more:".into()).chain(changed).collect(),
    }
}

fn in_words(node: &Node) -> String {
    match why(node) {
        why if why.is_empty() => node.action.clone(),
        why => format!("{} ({why})", node.action),
    }
}

// --- what is printed ---

/// The table, then what else there is to say, then the sum.
fn lines(plan: &Plan, screen: Screen) -> Vec<String> {
    let mut lines = Vec::new();
    if !plan.nodes.is_empty() {
        // What changes comes last, where it is seen.
        let (kept, changed): (Vec<&Node>, Vec<&Node>) = plan.nodes.iter().partition(|node| node.action == "keep");
        let room = room_for_why(&plan.nodes, screen);
        let rows: Vec<Vec<Cell>> = kept.into_iter().chain(changed).flat_map(|node| rows(node, room)).collect();
        lines.extend(table::lines(&COLUMNS, &rows, screen));
        lines.push(String::new());
    }
    lines.extend(in_steps(plan, screen));
    let whole = Screen { width: None, ..screen };
    // That one cannot take part is a complaint, and what else it would do nobody needs to know then.
    let cannot = |instance: &Instance| {
        let mut whole = plan.outcomes.iter().filter(|outcome| outcome.node.is_none());
        whole.any(|outcome| outcome.instance.as_ref() == Some(&instance.name))
    };
    // Whoever was not understood would seem to leave.
    let understood = if plan.complaints.is_empty() { &plan.instances[..] } else { &[] };
    let able = understood.iter().filter(|instance| !cannot(instance));
    lines.extend(able.filter_map(|instance| instance_line(instance, plan.ok)));
    let wrong =
        |text: &String| whole.line([("wrong".into(), state_style("FAILED")), plain(format!(" {}", tame(text)))]);
    lines.extend(plan.complaints.iter().map(wrong));
    lines.extend(plan.outcomes.iter().flat_map(|outcome| failure("cannot", outcome, screen)));
    lines.push(sum(plan));
    lines
}

/// Which nodes would be touched together, and in which order.
fn in_steps(plan: &Plan, screen: Screen) -> Vec<String> {
    if plan.steps.is_empty() {
        return Vec::new();
    }
    let row = |(at, step): (usize, &Step)| {
        let named: Vec<String> = step.nodes.iter().take(MOST_OF_STEP).map(|name| tame(name)).collect();
        let more = step.nodes.len() - named.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        vec![
            Cell::from(&*(at + 1).to_string()),
            Cell::from(&*step.phase),
            Cell::remark(&format!("{}{more}", named.join(", "))),
        ]
    };
    let rows: Vec<Vec<Cell>> = plan.steps.iter().enumerate().take(MOST_STEPS).map(row).collect();
    let mut lines = table::lines(&STEPS, &rows, screen);
    let more = plan.steps.len() - rows.len();
    lines.extend((more > 0).then(|| format!("and {more} more steps")));
    lines.push(String::new());
    lines
}

/// The line of a node, and more for a reason that is too long for one: none of its keys is to be missed.
fn rows(node: &Node, room: usize) -> Vec<Vec<Cell>> {
    let mut lines = wrapped(&tame(&why(node)), room).into_iter();
    let first = vec![
        Cell::styled(&node.action, style(&node.action)),
        node.name.as_str().into(),
        node.instance.as_str().into(),
        Cell::remark(&lines.next().unwrap_or_default()),
    ];
    let below = |line: String| vec![Cell::remark(""), Cell::remark(""), Cell::remark(""), Cell::remark(&line)];
    std::iter::once(first).chain(lines.map(below)).collect()
}

/// How many characters of a reason a line of the table has room for.
fn room_for_why(nodes: &[Node], screen: Screen) -> usize {
    let Some(width) = screen.width else { return usize::MAX };
    let longest = |text: fn(&Node) -> &str, title: &str| {
        nodes.iter().map(|node| text(node).chars().count()).max().unwrap_or_default().max(title.len())
    };
    let names = [longest(|node| &node.name, "INSTANCE"), longest(|node| &node.instance, "INSTANCE")];
    let left = |names: [usize; 2]| width.saturating_sub(names.iter().sum::<usize>() + "restart".len() + 6);
    match left(names) {
        enough if enough >= table::READABLE => enough,
        _ => left(names.map(|name| name.min(table::NAME))).max(10),
    }
}

/// The words of a text in lines of at most so many characters. A word that is longer is parted.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= room => *line += &format!(" {word}"),
            _ => {
                let letters: Vec<char> = word.chars().collect();
                lines.extend(letters.chunks(room.max(1)).map(|part| part.iter().collect::<String>()));
            }
        }
    }
    lines
}

/// The colour of an action. The word stands there too.
fn style(action: &str) -> Style {
    match action {
        "start" => AnsiColor::Green.on_default(),
        "restart" => AnsiColor::Yellow.on_default(),
        "move" => AnsiColor::Cyan.on_default(),
        "stop" => AnsiColor::Red.on_default(),
        _ => Style::new().dimmed(),
    }
}

fn why(node: &Node) -> String {
    match (&*node.action, &node.was, &node.from) {
        ("start", Some(was), _) => format!("it is {was}"),
        ("start", None, _) => "new".into(),
        ("move", _, Some(from)) => format!("from {from}"),
        ("stop", ..) => "not wanted any more".into(),
        ("restart", ..) => {
            let own = (!node.keys.is_empty()).then(|| keys(node).join(", "));
            own.into_iter().chain(node.cluster.clone()).collect::<Vec<_>>().join("; ")
        }
        _ => String::new(),
    }
}

/// The keys in which it differs; behind `files` which of these are others.
fn keys(node: &Node) -> Vec<String> {
    let more = (node.more_files > 0).then(|| format!("{} more", node.more_files));
    let files: Vec<String> = node.files.iter().cloned().chain(more).collect();
    let shown = |key: &String| match key == "files" && !files.is_empty() {
        true => format!("{key} ({})", files.join(", ")),
        false => key.clone(),
    };
    node.keys.iter().map(shown).collect()
}

/// What is to be said of an instance, if anything is. Where the plan cannot be carried out, it is what would be.
fn instance_line(instance: &Instance, is_possible: bool) -> Option<String> {
    let change = match (&*instance.change, is_possible) {
        ("added", true) => "joins the cluster",
        ("added", false) => "would join the cluster",
        ("removed", true) => "leaves the cluster, and stands by",
        ("removed", false) => "would leave the cluster, and stand by",
        ("reconnected", true) => "is reached in another way",
        ("reconnected", false) => "would be reached in another way",
        _ => "",
    };
    let unchecked = instance.unchecked.as_ref().map(|why| format!("not checked: {}", tame(why)));
    let parts: Vec<String> =
        Some(change.to_owned()).filter(|change| !change.is_empty()).into_iter().chain(unchecked).collect();
    (!parts.is_empty()).then(|| format!("instance {}: {}", tame(&instance.name), parts.join("; ")))
}

fn sum(plan: &Plan) -> String {
    let of = |action: &str| plan.nodes.iter().filter(|node| node.action == action).count();
    let kept = of("keep");
    let parts = [("start", "to start"), ("restart", "to restart"), ("move", "to move"), ("stop", "to stop")];
    let changes = parts.map(|(action, words)| (of(action), words)).into_iter().filter(|(count, _)| *count > 0);
    let changes: Vec<String> = changes.map(|(count, words)| format!("{count} {words}")).collect();
    let wrong = plan.complaints.len() + plan.outcomes.len();
    match (wrong, changes.is_empty()) {
        (1, _) => "plan: it cannot be deployed as it is: 1 complaint".into(),
        (2.., _) => format!("plan: it cannot be deployed as it is: {wrong} complaints"),
        (0, true) if plan.changes_nothing() => format!("plan: nothing to do, {kept} kept"),
        (0, true) => format!("plan: {kept} kept"),
        (0, false) => format!("plan: {kept} kept, {}", changes.join(", ")),
    }
}

// --- what a script learns ---

fn detailed(plan: &Plan) -> Exit {
    match (plan.ok, plan.changes_nothing()) {
        (false, _) => Exit::Failed,
        (true, true) => Exit::Done,
        (true, false) => Exit::CHANGES,
    }
}

fn usual(plan: &Plan) -> Exit {
    match plan.ok {
        true => Exit::Done,
        false if !plan.complaints.is_empty() => Exit::Usage,
        false if plan.outcomes.iter().all(|outcome| outcome.unreachable) => Exit::Unreachable,
        false => Exit::Failed,
    }
}

// --- the file of a plan ---

/// Whether it can be written there: a file that is not there yet, or that is a plan. What is no file is not looked into, since
/// that may wait for ever.
fn may_write(path: &Path) -> Result<(), CliError> {
    let no_plan = |why: &str| CliError::NoPlan { path: path.into(), why: why.into() };
    match fs::metadata(path) {
        // A link that leads nowhere is not there either, and is replaced.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
            let looked = directory.map_or(Ok(()), |directory| fs::metadata(directory).map(drop));
            looked.map_err(|source| CliError::Make { path: path.into(), source })
        }
        Err(source) => Err(CliError::File { path: path.into(), source }),
        Ok(what) if what.is_file() => read(path).map(drop).map_err(|_| {
            no_plan("it is there already, and is no plan that could be written over: choose another name")
        }),
        Ok(_) => Err(no_plan(NO_FILE)),
    }
}

/// A plan is kept for later, as a whole: what it is to be read from again must be a file.
const NO_FILE: &str =
    "it is no file: a plan is kept in one; name a file, or have it printed by `--json` without `--out`";

/// A cluster file may hold secrets, so the plan is for its owner alone. It is whole or not there.
fn save(path: &Path, saved: &Saved) -> Result<(), CliError> {
    let failed = |source| CliError::Make { path: path.into(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    let _ = fs::remove_file(&fresh); // of a run that was killed
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(failed)?;
    serde_json::to_writer(&mut file, saved).map_err(|error| failed(error.into()))?;
    writeln!(file).map_err(failed)?;
    fs::rename(&fresh, path).map_err(failed)
}

fn read(path: &Path) -> Result<Saved, CliError> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut text));
    read.map_err(|source| CliError::File { path: path.into(), source })?;
    let wrong = |why: &str| CliError::NoPlan { path: path.into(), why: why.into() };
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    match serde_json::from_slice::<Format>(&text) {
        Ok(Format { format: FORMAT }) => serde_json::from_slice(&text).map_err(|error| wrong(&error.to_string())),
        Ok(_) => Err(wrong("it is of another release of watchpost: plan anew")),
        Err(_) => Err(wrong("it is not what `watchpost plan --out` writes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::json::Outcome;

    fn node(name: &str, action: &str) -> Node {
        Node {
            name: name.into(),
            instance: "a".into(),
            action: action.into(),
            was: None,
            from: None,
            keys: Vec::new(),
            cluster: None,
            files: Vec::new(),
            more_files: 0,
        }
    }

    #[test]
    fn a_node_that_is_restarted_for_its_files_names_some_of_them() {
        let files = vec!["~ intel.dat".into(), "+ site/more.zeek".into()];
        let keys = vec!["files".into(), "env".into()];
        let restarted = Node { keys, files, more_files: 12, ..node("w", "restart") };
        assert_eq!(why(&restarted), "files (~ intel.dat, + site/more.zeek, 12 more), env");
    }

    fn plan() -> Plan {
        let restart = Node {
            keys: vec!["port".into(), "scripts".into()],
            cluster: Some("w-8 joined the cluster".into()),
            ..node("manager", "restart")
        };
        let nodes = vec![
            Node { from: Some("b".into()), ..node("mover", "move") },
            node("fine", "keep"),
            Node { was: Some("FAILED".into()), ..node("given-up", "start") },
            restart,
            node("w-8", "start"),
            node("old", "stop"),
        ];
        let instance =
            |name: &str, change: &str| Instance { name: name.into(), change: change.into(), unchecked: None };
        let dialled = Some("the controller dials it once it is deployed".into());
        let instances = vec![
            instance("a", "kept"),
            instance("b", "removed"),
            Instance { unchecked: dialled, ..instance("c", "added") },
        ];
        Plan { ok: true, deployed: Some("c1".into()), instances, nodes, ..Plan::default() }
    }

    #[test]
    fn a_plan_is_a_table_with_what_changes_at_its_end() {
        let want = [
            "ACTION   NODE      INSTANCE  WHY",
            "keep     fine      a",
            "move     mover     a         from b",
            "start    given-up  a         it is FAILED",
            "restart  manager   a         port, scripts; w-8 joined the cluster",
            "start    w-8       a         new",
            "stop     old       a         not wanted any more",
            "",
            "instance b: leaves the cluster, and stands by",
            "instance c: joins the cluster; not checked: the controller dials it once it is deployed",
            "plan: 1 kept, 2 to start, 1 to restart, 1 to move, 1 to stop",
        ];
        assert_eq!(lines(&plan(), Screen::pipe()), want);
        let narrow = Screen { width: Some(80), height: None, colour: false };
        assert!(lines(&plan(), narrow)[..7].iter().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn the_order_is_a_table_of_its_own_and_long_ones_are_cut() {
        let step = |phase: &str, nodes: usize| Step {
            phase: phase.into(),
            nodes: (0..nodes).map(|at| format!("w{at}")).collect(),
        };
        let mut plan = Plan { steps: vec![step("moving", 1), step("switching", 10)], ..plan() };
        let want = [
            "STEP  PHASE      NODES",
            "1     moving     w0",
            "2     switching  w0, w1, w2, w3, w4, w5, w6, w7 and 2 more",
            "",
        ];
        assert_eq!(in_steps(&plan, Screen::pipe()), want);
        assert!(lines(&plan, Screen::pipe()).join("\n").contains(&want.join("\n")));
        plan.steps.resize(23, step("committing", 2));
        let long = in_steps(&plan, Screen::pipe());
        assert_eq!((long.len(), &*long[21]), (23, "and 3 more steps"));
    }

    #[test]
    fn an_instance_that_cannot_take_part_is_not_said_to_join_and_others_are_said_to_be_about_to() {
        let why = || Some("never connected".to_owned());
        let instance = |name: &str, change: &str, why: Option<&str>| Instance {
            name: name.into(),
            change: change.into(),
            unchecked: why.map(String::from),
        };
        let instances = vec![
            instance("b", "removed", None),
            instance("x", "added", Some("never connected")),
            instance("y", "added", Some("it is slow")),
        ];
        let outcomes =
            vec![Outcome { instance: Some("x".into()), node: None, error: why(), unreachable: true, output: None }];
        let plan = Plan { ok: false, instances, outcomes, ..Plan::default() };
        let want = [
            "instance b: would leave the cluster, and stand by",
            "instance y: would join the cluster; not checked: it is slow",
            "cannot x: never connected",
            "plan: it cannot be deployed as it is: 1 complaint",
        ];
        assert_eq!(lines(&plan, Screen::pipe()), want);
    }

    #[test]
    fn no_key_is_missed_on_a_narrow_terminal() {
        let keys = ["env", "command", "nice", "limits", "restart_limit", "stop_grace", "output_max_bytes"];
        let long = Node { keys: keys.map(String::from).into(), ..node("a-node-with-a-rather-long-name", "restart") };
        let plan = Plan { nodes: vec![node("fine", "keep"), long], instances: vec![], ..plan() };
        for width in [60, 76, 80, 100, 200] {
            let table = lines(&plan, Screen { width: Some(width), height: None, colour: false });
            assert!(table.iter().all(|line| line.chars().count() <= width), "{table:#?}");
            // Also where a word had to be parted.
            let text: String = table.iter().flat_map(|line| line.chars()).filter(|c| *c != ' ').collect();
            assert!(keys.iter().all(|key| text.contains(key)), "{width}: {table:#?}");
        }
        let want = [
            "ACTION   NODE                      INSTANCE  WHY",
            "keep     fine                      a",
            "restart  a-node-with-a-rather-lo…  a         env, command, nice, limits,",
            "                                             restart_limit, stop_grace,",
            "                                             output_max_bytes",
        ];
        let narrow = Screen { width: Some(76), height: None, colour: false };
        assert_eq!(lines(&plan, narrow)[..5], want);
    }

    #[test]
    fn exit_codes_tell_changes_from_errors() {
        let nothing = Plan { nodes: vec![node("fine", "keep")], instances: vec![], ..plan() };
        let outcome = |unreachable| Outcome {
            instance: Some("a".into()),
            node: None,
            error: Some("no".into()),
            unreachable,
            output: None,
        };
        let failed = Plan { ok: false, outcomes: vec![outcome(false), outcome(true)], ..plan() };
        let lost = Plan { ok: false, outcomes: vec![outcome(true)], ..plan() };
        let wrong = Plan { ok: false, complaints: vec!["c.cfg:1: no".into()], ..plan() };
        for (plan, codes) in [
            (plan(), (Exit::Done, Exit::CHANGES)),
            (nothing, (Exit::Done, Exit::Done)),
            (failed, (Exit::Failed, Exit::Failed)),
            (lost, (Exit::Unreachable, Exit::Failed)),
            (wrong, (Exit::Usage, Exit::Failed)),
        ] {
            assert_eq!((usual(&plan), detailed(&plan)), codes, "{plan:?}");
        }
        assert_eq!(Exit::CHANGES as u8, 2);
    }

    #[test]
    fn what_is_otherwise_by_now_is_said_node_by_node() {
        let mut now = plan();
        now.nodes.retain(|node| node.name != "old");
        now.nodes[1] = Node { keys: vec!["port".into()], ..node("fine", "restart") };
        let want = [
            "  what it would do is not the same any more:",
            "  fine on a: restart (port) now, keep then",
            "  old on a: nothing now, stop (not wanted any more) then",
        ];
        assert_eq!(otherwise(&plan(), &now), want);
        assert_eq!(otherwise(&plan(), &plan()), ["  what it would do is the same still"]);
    }

    #[test]
    fn a_plan_is_written_over_a_plan_and_over_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let (path, other) = (home.path().join("p.json"), home.path().join("cluster.cfg"));
        fs::write(&other, "[a]\n").unwrap();
        for _ in 0..2 {
            may_write(&path).unwrap();
            save(
                &path,
                &Saved {
                    format: FORMAT,
                    file: "c".into(),
                    base: PathBuf::new(),
                    text: "t".into(),
                    bundles: Vec::new(),
                    pace: Pace::default(),
                    plan: plan(),
                },
            )
            .unwrap();
        }
        assert_eq!(read(&path).ok().unwrap().plan, plan());
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        // Before anything is asked.
        assert!(may_write(&home.path().join("nowhere/p.json")).is_err());
        let error = may_write(&other).unwrap_err().to_string();
        assert!(error.contains("is there already, and is no plan"), "{error}");
        fs::write(&path, r#"{"format":99}"#).unwrap();
        assert!(read(&path).err().unwrap().to_string().contains("another release"));
        assert!(read(&other).err().unwrap().to_string().contains("is not what `watchpost plan --out` writes"));
    }
}
