//! `watchpost history` and `diff`: what was deployed before, by whom, and what came of it.

use std::io::{self, Write};

use clap::Subcommand;

use super::Connection;
use super::client::Client;
use super::error::{CliError, Exit};
use super::orders::ROLLED_BACK;
use super::screen::{Screen, plain, state_style, tame};
use super::table::{self, Cell, Column, numbers, words};
use crate::web::history::{Difference, History, Past, Told};

const COLUMNS: [Column; 7] = [
    numbers("N"),
    words("WHEN"),
    words("OUTCOME"),
    words("CONFIGURATION").spare(),
    numbers("FAILED").spare(),
    numbers("TOOK"),
    words("WHO"),
];

const NOTHING_YET: &str = "nothing was deployed yet: `watchpost deploy FILE` does it";

#[derive(Debug, Subcommand)]
pub enum HistoryVerb {
    /// Show all that is known of one, without a number of the last
    Show {
        number: Option<u64>,
        #[command(flatten)]
        connection: Connection,
    },
}

/// Lists the deployments that are remembered, the first one first.
pub fn list(client: &Client, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let (text, history) = client.get::<History>("/api/v1/history")?;
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", text.trim_end())?;
    } else if !history.deployments.is_empty() {
        let rows: Vec<_> = history.deployments.iter().map(row).collect();
        table::lines(&COLUMNS, &rows, screen).iter().try_for_each(|line| writeln!(out, "{line}"))?;
    } else {
        writeln!(io::stderr(), "{NOTHING_YET}")?;
    }
    Ok(Exit::Done)
}

/// Shows one, the last if no number is given.
pub fn show(client: &Client, number: Option<u64>, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let (_, history) = client.get::<History>("/api/v1/history")?;
    let last = history.deployments.last().map(|past| past.number);
    let Some(number) = number.or(last) else {
        writeln!(io::stderr(), "{NOTHING_YET}")?;
        return Ok(Exit::Done);
    };
    // One that was refused has touched nothing: whoever has yet to follow what came before it still has.
    let mut standing = history.deployments.iter().rev().filter(|past| past.verdict != "refused");
    let is_last = standing.next().is_none_or(|past| past.number <= number);
    let (text, past) = client.get::<Past>(&format!("/api/v1/history/{number}"))?;
    let mut out = io::stdout().lock();
    match json {
        true => writeln!(out, "{}", text.trim_end())?,
        false => lines(&past, is_last, screen).iter().try_for_each(|line| writeln!(out, "{line}"))?,
    }
    Ok(Exit::Done)
}

/// Shows what changes from what one deployment deployed to what another did.
pub fn diff(client: &Client, from: u64, to: u64, json: bool) -> Result<Exit, CliError> {
    let (text, difference) = client.get::<Difference>(&format!("/api/v1/history/{from}/diff/{to}"))?;
    let mut out = io::stdout().lock();
    match json {
        true => writeln!(out, "{}", text.trim_end())?,
        false => differing(&difference).iter().try_for_each(|line| writeln!(out, "{line}"))?,
    }
    Ok(Exit::Done)
}

/// Who deployed, and from where.
pub fn who(who: &str, from: Option<&str>) -> String {
    from.map_or_else(|| who.to_owned(), |from| format!("{who} from {from}"))
}

fn row(past: &Past) -> Vec<Cell> {
    let number = past.number.to_string();
    let when = past.began.split('.').next().unwrap_or_default().to_owned() + "Z";
    let failed = if past.failed > 0 { past.failed.to_string() } else { String::new() };
    vec![
        Cell::from(&*number),
        Cell::from(&*when),
        Cell::styled(&past.verdict, style(&past.verdict)),
        Cell::from(&*past.configuration),
        Cell::from(&*failed),
        Cell::from(&*took(past).unwrap_or_default()),
        Cell::remark(&who(&past.who, past.from.as_deref())),
    ]
}

fn took(past: &Past) -> Option<String> {
    past.seconds.map(|seconds| format!("{seconds:.1} s"))
}

/// What went well looks like a node that runs, and what did not like one that failed.
fn style(verdict: &str) -> anstyle::Style {
    state_style(match verdict {
        "deployed" => "RUNNING",
        "open" => "PENDING",
        _ => "FAILED",
    })
}

/// All that is known of one deployment. Nobody follows it any more if it is not the last that was not refused.
pub fn lines(past: &Past, is_last: bool, screen: Screen) -> Vec<String> {
    let whole = Screen { width: None, ..screen };
    let mut lines = Vec::new();
    let mut say = |what: &str, text: &str, style: anstyle::Style| {
        if !text.is_empty() {
            lines.push(whole.line([plain(format!("{what:<14}")), (tame(text), style)]));
        }
    };
    let none = anstyle::Style::new();
    say("deployment", &past.number.to_string(), none);
    say("outcome", &past.verdict, style(&past.verdict));
    say("configuration", &past.configuration, none);
    say("before", past.former.as_deref().unwrap_or_default(), none);
    say("brings back", &past.back_to.map(|to| format!("deployment {to}")).unwrap_or_default(), none);
    say("who", &who(&past.who, past.from.as_deref()), none);
    say("began", &past.began, none);
    say("took", &took(past).unwrap_or_default(), none);
    say(if is_last { "yet to follow" } else { "not followed" }, &past.owing.join(", "), none);
    let results = format!("{} of {} failed", past.failed, past.results_in_all);
    say("results", if past.results_in_all > 0 { &results } else { "" }, none);
    lines.extend(past.results.iter().flat_map(|told| result(told, done(told, past), screen)));
    lines
}

/// What a success comes to in the end: of what went back nothing is left, once its instance has followed.
fn done(told: &Told, past: &Past) -> &'static str {
    let is_owing = told.instance.as_ref().is_some_and(|instance| past.owing.contains(instance));
    match &*past.verdict {
        "rolled-back" if is_owing => "yet to go back:",
        "rolled-back" => "as before:",
        _ => "done",
    }
}

/// What became of a node, or was objected. `done` says what became of it where nothing failed.
fn result(told: &Told, done: &str, screen: Screen) -> Vec<String> {
    let failed = |word: &str, text: &str| screen.paragraph(2, (word.to_owned(), state_style("FAILED")), text);
    let who = match (&told.node, &told.instance) {
        (Some(node), Some(instance)) => format!("{node} on {instance}"),
        (Some(name), None) | (None, Some(name)) => name.clone(),
        // It says what came of the whole.
        (None, None) => {
            let said = told.error.as_deref().unwrap_or("done");
            return match said.strip_prefix(ROLLED_BACK) {
                Some(rest) => failed(ROLLED_BACK, &tame(rest.trim_start())),
                None => vec![format!("  controller: {}", tame(said))],
            };
        }
    };
    match &told.error {
        Some(error) => failed("failed", &format!("{}: {}", tame(&who), tame(error))),
        None => vec![format!("  {done} {}", tame(&who))],
    }
}

fn differing(difference: &Difference) -> Vec<String> {
    let instances = |sign: &str, names: &[String]| -> Vec<String> {
        names.iter().map(|name| format!("{sign} instance {}", tame(name))).collect()
    };
    let mut lines = instances("-", &difference.instances_removed);
    lines.extend(instances("+", &difference.instances_added));
    lines.extend(difference.nodes.iter().flat_map(|node| {
        let sign = match node.how.as_str() {
            "added" => "+",
            "removed" => "-",
            _ => "~",
        };
        let keys = if node.keys.is_empty() { String::new() } else { format!(": {}", node.keys.join(", ")) };
        let files = node.files.iter().map(|file| format!("    {}", tame(file)));
        std::iter::once(format!("{sign} {}{}", tame(&node.node), tame(&keys))).chain(files)
    }));
    if lines.is_empty() {
        lines.push(format!("deployments {} and {} deployed the same", difference.from, difference.to));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::history::Differing;

    fn past() -> Past {
        let failed = Told { node: Some("w".into()), instance: Some("a".into()), error: Some("not ready\x1b".into()) };
        let rolled_back =
            Told { error: Some("rolled back: configuration c1 is in force again".into()), ..Told::default() };
        Past {
            number: 7,
            who: "token `ops`".into(),
            from: Some("10.0.0.9".into()),
            began: "2026-01-02T03:04:05.000006Z".into(),
            seconds: Some(1.26),
            configuration: "c2".into(),
            former: Some("c1".into()),
            verdict: "rolled-back".into(),
            failed: 1,
            results_in_all: 2,
            results: vec![failed, rolled_back, Told { node: Some("v".into()), ..Told::default() }],
            ..Past::default()
        }
    }

    #[test]
    fn a_line_of_the_list_says_who_when_and_what_came_of_it() {
        let lines = table::lines(&COLUMNS, &[row(&past())], Screen::pipe());
        let fields: Vec<_> = lines[1].split_whitespace().collect();
        let want = "7 2026-01-02T03:04:05Z rolled-back c2 1 1.3 s token `ops` from 10.0.0.9";
        assert_eq!(fields.join(" "), want);
        // Whoever has little room misses what `history show` has before who it was.
        let narrow = Screen { width: Some(80), height: None, colour: false };
        let who = "this machine's token".to_owned();
        let past = Past { who, from: Some("127.0.0.1".into()), configuration: "c99b842f07fe3956".into(), ..past() };
        let lines = table::lines(&COLUMNS, &[row(&past)], narrow);
        assert!(lines[1].ends_with("1.3 s  this machine's token from 127.0.0.1"), "{lines:?}");
    }

    #[test]
    fn one_in_full_names_what_failed_first() {
        let lines = lines(&past(), true, Screen::pipe());
        assert_eq!(lines[0], "deployment    7");
        assert!(lines.contains(&"results       1 of 2 failed".to_owned()), "{lines:?}");
        let last =
            ["  failed w on a: not ready ", "  rolled back: configuration c1 is in force again", "  as before: v"];
        let end: Vec<_> = lines[lines.len() - 3..].iter().map(|line| line.trim_end().to_owned()).collect();
        assert_eq!(end, last.map(|line| line.trim_end().to_owned()));
        let (node, instance) = (Some("v".to_owned()), Some("b".to_owned()));
        let results = vec![Told { node, instance: instance.clone(), error: None }];
        let owing = Past { owing: instance.into_iter().collect(), results, ..past() };
        assert_eq!(super::lines(&owing, true, Screen::pipe()).last().unwrap(), "  yet to go back: v on b");
        let says = |is_last, what: &str| {
            super::lines(&owing, is_last, Screen::pipe()).iter().any(|line| line.starts_with(what))
        };
        assert!(says(true, "yet to follow b") && says(false, "not followed  b") && !says(false, "yet to follow"));
        let deployed = Past { verdict: "deployed".into(), ..past() };
        assert_eq!(super::lines(&deployed, true, Screen::pipe()).last().unwrap(), "  done v");
    }

    #[test]
    fn a_difference_is_told_line_by_line() {
        let node = |node: &str, how: &str, keys: &[&str]| Differing {
            node: node.into(),
            how: how.into(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            files: if keys == ["files"] { vec!["+ site/new".into(), "~ list\x1b".into()] } else { Vec::new() },
        };
        let nodes = vec![
            node("a", "added", &[]),
            node("b", "removed", &[]),
            node("c", "changed", &["env", "port"]),
            node("d", "changed", &["files"]),
        ];
        let difference =
            Difference { from: 1, to: 2, instances_added: vec!["x".into()], nodes, ..Difference::default() };
        assert_eq!(
            differing(&difference),
            ["+ instance x", "+ a", "- b", "~ c: env, port", "~ d: files", "    + site/new", "    ~ list "]
        );
        let none = Difference { from: 1, to: 2, ..Difference::default() };
        assert_eq!(differing(&none), ["deployments 1 and 2 deployed the same"]);
    }
}
