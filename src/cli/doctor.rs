//! `watchpost doctor`: what of this machine is in the way, and the way out.

use std::io::{self, Write};

use anstyle::Style;
use serde::Serialize;

use super::daemon::agent_settings;
use super::error::{CliError, Exit};
use super::screen::{Screen, plain, state_style};
use super::{DaemonArgs, DoctorArgs};
use crate::doctor::{self, Finding, Verdict, Where};

/// What is printed with `--json`.
#[derive(Serialize)]
struct Report<'a> {
    /// Whether nothing failed.
    ok: bool,
    checks: Vec<Check<'a>>,
}

#[derive(Serialize)]
struct Check<'a> {
    check: &'a str,
    verdict: &'a str,
    text: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    advice: &'a str,
}

impl<'a> From<&'a Finding> for Check<'a> {
    fn from(Finding { check, verdict, text, advice }: &'a Finding) -> Self {
        Self { check, verdict: verdict.as_str(), text, advice }
    }
}

/// Looks at this machine as an agent with these settings would find it, and prints what it found.
pub fn run(DoctorArgs { unit, daemon }: &DoctorArgs, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let findings = doctor::examine(&doctor::gather(&place(unit, daemon)?));
    let ok = findings.iter().all(|finding| finding.verdict != Verdict::Fail);
    let mut out = io::stdout().lock();
    if json {
        let checks = findings.iter().map(Check::from).collect();
        // Text and a truth value.
        writeln!(out, "{}", serde_json::to_string(&Report { ok, checks }).expect("a report is always JSON"))?;
    } else {
        findings.iter().flat_map(|finding| lines(finding, screen)).try_for_each(|line| writeln!(out, "{line}"))?;
    }
    Ok(if ok { Exit::Done } else { Exit::Failed })
}

fn place(unit: &str, args: &DaemonArgs) -> Result<Where, CliError> {
    let settings = agent_settings(args)?;
    let unit = unit.to_owned();
    Ok(Where { state_dir: settings.state_dir, cluster: settings.cluster, cgroup: settings.agent.cgroup, unit })
}

fn lines(Finding { check, verdict, text, advice }: &Finding, screen: Screen) -> Vec<String> {
    let style = match verdict {
        Verdict::Ok => state_style("RUNNING"),
        Verdict::Warn => state_style("PENDING"),
        Verdict::Fail => state_style("FAILED"),
    };
    // A sentence that is cut off helps nobody: lines are as long as they have to be.
    let screen = Screen { width: None, ..screen };
    let name = (format!("{check:<14}"), Style::new().bold());
    let mut lines = vec![screen.line([(format!("{:<6}", verdict.as_str()), style), name, plain(format!("  {text}"))])];
    lines.extend((!advice.is_empty()).then(|| format!("{:22}{advice}", "")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_its_way_out_another() {
        let mut finding = Finding { check: "disk", verdict: Verdict::Ok, text: "room".into(), advice: String::new() };
        assert_eq!(lines(&finding, Screen::pipe()), ["ok    disk            room"]);
        (finding.verdict, finding.advice) = (Verdict::Fail, "make room".into());
        let want = ["fail  disk            room", "                      make room"];
        assert_eq!(lines(&finding, Screen::pipe()), want);
    }
}
