//! What is seen of a deployment while it goes on: its phases and its nodes, line by line.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::client::{Client, Events};
use super::error::CliError;
use super::history;
use super::screen::{Screen, plain, state_style, tame};
use crate::web::history::Deployment;
use crate::web::json::Event;

/// Opens what happens from now on, without a word of what was.
pub fn from_now_on(client: &Client) -> Result<Events, CliError> {
    client.events("last=0&follow=true&snapshot=false")
}

/// A deployment that somebody looks on at.
pub struct Seen {
    number: u64,
    /// What its lines in the log begin with.
    called: String,
    /// Who deploys, since when, and how far it is.
    whole: String,
}

impl Seen {
    pub fn of(present: &Deployment) -> Self {
        let Deployment { number, configuration, since, phase, .. } = present;
        let who = history::who(&present.who, present.from.as_deref());
        let called = format!("deployment {number} of {configuration}");
        let whole = tame(&format!("{called}, by {who} since {since}: {phase}"));
        Self { number: *number, called, whole }
    }

    pub fn introduce(&self) -> Result<(), CliError> {
        Ok(writeln!(io::stderr(), "{}", self.whole)?)
    }

    /// Shows what happens until it is over. A controller that is asked to end ends what it tells before that.
    pub fn look_on(self, mut events: Events, shows: bool) -> Result<(), CliError> {
        let mut called = Some(self.called);
        for event in events.by_ref() {
            let (_, event) = event?;
            if let Some(line) = line(&event, &mut called).filter(|_| shows) {
                writeln!(io::stderr(), "{line}")?;
            }
            if is_over(&event, self.number) {
                return Ok(());
            }
        }
        Err(events.lost("it tells no more events"))
    }
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

/// What happens from when it was begun.
pub struct Progress(Events);

/// Nothing is shown any more once it is dropped.
pub struct Over(Arc<AtomicBool>);

impl Progress {
    /// It is seen from here on, whatever is ordered next.
    pub fn begin(client: &Client) -> Result<Self, CliError> {
        from_now_on(client).map(Self)
    }

    /// Shows it on standard error, if at all, until that is over; `silent` hears why nothing comes any more.
    pub fn show(self, shows: bool, silent: impl FnOnce(CliError) + Send + 'static) -> Over {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        // It ends with the process, or with the first event behind the verdict.
        thread::spawn(move || {
            let mut called = None;
            for event in self.0 {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                match event {
                    Ok((_, event)) => {
                        if let Some(line) = line(&event, &mut called).filter(|_| shows) {
                            let _ = writeln!(io::stderr(), "{line}"); // a terminal that is gone needs no progress
                        }
                    }
                    Err(error) => return silent(error),
                }
            }
        });
        Over(over)
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
