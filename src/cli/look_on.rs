//! Whoever looks on at a deployment: while it goes on, later by `--attach`, and once more where its controller was lost.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use super::client::{Client, Events};
use super::error::{CliError, Exit};
use super::history;
use super::interrupt;
use super::orders::body;
use super::screen::{Screen, tame};
use super::seen::{self, Seen};
use crate::web::history::{Deployed, Deployment, History, Past};
use crate::web::json::Status;

/// How long a controller is looked for that was lost in the middle of a deployment: one that is started again is back by then.
const LOOKED_FOR: Duration = Duration::from_secs(30);
/// Between two attempts, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// Says that it goes on without whoever pressed Ctrl-C. That is the last that is said: who looked on says no more.
pub fn detach(doing: &str) -> Result<Exit, CliError> {
    let told = format!(
        "detached: {doing} goes on without you; `watchpost deploy --attach` shows it, `watchpost history` what came of it"
    );
    let lines = Screen::of_stderr().sentence(&told, Default::default());
    let mut out = io::stderr().lock();
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    // Another thread may be about to show what happens. The process ends, and this with it.
    std::mem::forget(out);
    Ok(Exit::Interrupted)
}

/// Says that a deployment has begun whose end nobody waits for.
pub fn has_begun(out: &mut impl Write, number: u64) -> Result<(), CliError> {
    Ok(writeln!(out, "deployment {number} has begun: see it with `watchpost deploy --attach`")?)
}

/// Looks on at the deployment that is under way.
pub fn attach(client: &Client, json: bool, screen: Screen) -> Result<Exit, CliError> {
    // What happens from here on is seen, whatever the status says next.
    let events = seen::from_now_on(client)?;
    let (_, status) = client.get::<Status>("/api/v1/status")?;
    let (is_over, present) = (status.deploying.is_none(), status.deployment);
    let Some(present) = present.as_ref().filter(|_| !is_over) else {
        writeln!(io::stderr(), "{}", nothing(present.as_ref()))?;
        if json {
            writeln!(io::stdout(), "null")?;
        }
        return Ok(Exit::Done);
    };
    let (number, shows) = (present.number, screen.is_terminal() && !json);
    let seen = Seen::of(present);
    let looked = interrupt::unless(interrupt::interrupted(), move || {
        // Whoever has read this can detach.
        if !json {
            seen.introduce()?;
        }
        seen.look_on(events, shows)
    })?;
    let doing = format!("deployment {number}");
    let Some(looked) = looked else { return detach(&doing) };
    match looked.and_then(|()| what_came_of(client, number)) {
        Ok((text, past)) => tell(&past, json.then_some(text), screen),
        Err(error) if error.is_away() => {
            let (reqid, without) = (present.reqid.clone(), Vec::new());
            look_for(
                client,
                Lost { reqid, doing, detached: false, without, shape: |past| body(past), error },
                json,
                screen,
            )
        }
        Err(error) => Err(error),
    }
}

/// What the history has of one that is over. A controller that is about to end may still show it as it was.
fn what_came_of(client: &Client, number: u64) -> Result<(String, Past), CliError> {
    let (text, past) = client.get::<Past>(&format!("/api/v1/history/{number}"))?;
    match past.ended {
        Some(_) => Ok((text, past)),
        None => Err(client.lost("it has not written what came of it")),
    }
}

/// What is said where no deployment is under way; those that have yet to follow the last one are named.
fn nothing(last: Option<&Deployment>) -> String {
    let shown = "`watchpost history` shows those before";
    match last {
        None => format!("no deployment is under way: {shown}"),
        Some(Deployment { number, verdict, owing, .. }) => tame(&format!(
            "no deployment is under way; {number} is decided ({verdict}), and {} yet to follow it: {shown}",
            match &owing[..] {
                [one] => format!("{one} has"),
                all => format!("{} have", all.join(", ")),
            }
        )),
    }
}

/// Says what came of one that is over.
fn tell(past: &Past, text: Option<String>, screen: Screen) -> Result<Exit, CliError> {
    let mut out = io::stdout().lock();
    match text {
        Some(text) => writeln!(out, "{}", text.trim_end())?,
        None => history::lines(past, true, screen).iter().try_for_each(|line| writeln!(out, "{line}"))?,
    }
    Ok(if past.verdict == "deployed" && past.failed == 0 { Exit::Done } else { Exit::Failed })
}

// --- where the controller was lost ---

/// A deployment that was ordered from a controller which was lost before it answered.
pub struct Lost {
    pub reqid: String,
    /// Such as `deploying cluster.cfg`.
    pub doing: String,
    /// Whether nobody waits for its end.
    pub detached: bool,
    /// Instances that it does not wait for.
    pub without: Vec<String>,
    /// What came of it as JSON, in the shape of the answer that was lost.
    pub shape: fn(&Past) -> String,
    pub error: CliError,
}

/// What is known of it once the controller was found again.
enum Found {
    Begun(u64),
    Over(Box<Past>),
    /// It was begun and not written down, and so nothing was touched; or it never came there.
    Unknown,
}

/// Looks for the controller for a while, and for what came of the deployment there. It is known by its id, so that it is not
/// taken for another one.
pub fn look_for(client: &Client, lost: Lost, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let Lost { reqid, doing, detached, without, shape, error } = lost;
    let url = client.url().to_owned();
    if !json {
        let told = format!(
            "{doing}: the controller at {url} was lost ({}); looking for it for {} …",
            error.reason(),
            humantime::format_duration(LOOKED_FOR)
        );
        let lines = Screen::of_stderr().sentence(&tame(&told), Default::default());
        lines.iter().try_for_each(|line| writeln!(io::stderr(), "{line}"))?;
    }
    let given_up = without.clone();
    let search = Search {
        client: client.clone(),
        reqid,
        detached,
        without,
        says: !json,
        shows: screen.is_terminal() && !json,
        patience: LOOKED_FOR,
    };
    let look = move || search.run();
    let Some(found) = interrupt::unless(interrupt::interrupted(), look)? else { return detach(&doing) };
    let found = found.map_err(|error| match error.is_away() {
        true => CliError::Fate { url: url.clone(), doing: doing.clone(), looked_for: LOOKED_FOR },
        false => error,
    })?;
    match found {
        Found::Unknown => Err(CliError::NotBegun { url, doing }),
        Found::Begun(number) => {
            let mut out = io::stdout().lock();
            match json {
                true => writeln!(out, "{}", body(&Deployed::begun(number)))?,
                false => has_begun(&mut out, number)?,
            }
            Ok(Exit::Done)
        }
        Found::Over(past) => {
            let text = json.then(|| shape(&past));
            let is_waited_for = past.owing.iter().any(|name| !given_up.contains(name));
            match tell(&past, text, screen)? {
                Exit::Done if is_waited_for => Ok(Exit::Unreachable),
                exit => Ok(exit),
            }
        }
    }
}

/// Who looks for a deployment, and how.
struct Search {
    client: Client,
    reqid: String,
    detached: bool,
    without: Vec<String>,
    /// Whether it is said what is found to be under way, and shown how it goes on.
    says: bool,
    shows: bool,
    /// For how long after the controller was seen last.
    patience: Duration,
}

impl Search {
    /// Asks again and again, with pauses, until the controller has answered, or was away for too long. Those who have yet to
    /// follow what it decided are given as long.
    fn run(&self) -> Result<Found, CliError> {
        let [mut pause, longest] = PAUSES;
        let mut until = Instant::now() + self.patience;
        loop {
            let (found, was_seen) = self.attempt();
            let is_late = Instant::now() >= until && !was_seen;
            match found {
                Err(error) if error.is_away() && !is_late => {}
                Ok(Found::Over(past)) if self.waits_for_some(&past) && !is_late => {}
                found => return found,
            }
            if was_seen {
                // It was there, and is lost once more.
                (pause, until) = (PAUSES[0], Instant::now() + self.patience);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(longest);
        }
    }

    fn waits_for_some(&self, past: &Past) -> bool {
        past.owing.iter().any(|name| !self.without.contains(name))
    }

    /// Looks once; where the deployment is under way, to its end. Also whether it was.
    fn attempt(&self) -> (Result<Found, CliError>, bool) {
        let present = match self.under_way() {
            Ok(present) => present,
            Err(error) => return (Err(error), false),
        };
        let Some((events, present)) = present else { return (self.look_up(), false) };
        if self.detached {
            return (Ok(Found::Begun(present.number)), true);
        }
        let seen = Seen::of(&present);
        let looked = if self.says { seen.introduce() } else { Ok(()) };
        let looked = looked.and_then(|()| seen.look_on(events, self.shows));
        (looked.and_then(|()| self.look_up()), true)
    }

    fn under_way(&self) -> Result<Option<(Events, Deployment)>, CliError> {
        let events = seen::from_now_on(&self.client)?;
        let (_, status) = self.client.get::<Status>("/api/v1/status")?;
        let present = status.deployment.filter(|present| present.reqid == self.reqid && status.deploying.is_some());
        Ok(present.map(|present| (events, present)))
    }

    /// What the history has of it.
    fn look_up(&self) -> Result<Found, CliError> {
        let (_, history) = self.client.get::<History>("/api/v1/history")?;
        let Some(past) = newest(&history, &self.reqid) else { return Ok(Found::Unknown) };
        let (_, past) = what_came_of(&self.client, past.number)?;
        Ok(Found::Over(Box::new(past)))
    }
}

/// The last deployment that was known by this id: nobody refuses one that was used before.
fn newest<'a>(history: &'a History, reqid: &str) -> Option<&'a Past> {
    history.deployments.iter().rev().find(|past| past.reqid == reqid)
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;

    use super::*;

    #[test]
    fn a_controller_that_stays_away_leaves_open_what_came_of_a_deployment() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = Client::with_token(&format!("http://{closed}"), None).unwrap();
        let patience = Duration::from_millis(150);
        let (reqid, without) = ("http-1".to_owned(), Vec::new());
        let search = Search { client, reqid, detached: false, without, says: false, shows: false, patience };
        let began = Instant::now();
        let found = search.run();
        assert!(found.is_err_and(|error| error.is_away()) && began.elapsed() >= patience);
        let url = format!("http://{closed}");
        let fate = CliError::Fate { url, doing: "deploying c.cfg".into(), looked_for: LOOKED_FOR };
        let said = fate.to_string();
        assert_eq!(fate.exit(), Exit::Unreachable);
        for words in ["lost while deploying c.cfg", "within 30s", "`watchpost deploy --attach`", "`watchpost history`"]
        {
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn what_the_history_shows_as_open_is_not_over() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::with_token(&format!("http://{}", listener.local_addr().unwrap()), None).unwrap();
        let ended = |ended: Option<&str>| Past { number: 7, ended: ended.map(String::from), ..Past::default() };
        let answers = [ended(None), ended(Some("2026-01-02T03:04:05.000006Z"))].map(|past| body(&past));
        let server = thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = io::BufReader::new(&stream).lines();
                while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
                let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}", answer.len());
                write!(stream, "{head}\r\n\r\n{answer}").unwrap();
            }
        });
        assert!(what_came_of(&client, 7).is_err_and(|error| error.is_away()));
        assert_eq!(what_came_of(&client, 7).unwrap().1.number, 7);
        server.join().unwrap();
    }

    #[test]
    fn of_two_deployments_of_one_id_the_last_is_meant() {
        let past = |(number, reqid): (u64, &str)| Past { number, reqid: reqid.into(), ..Past::default() };
        let history = History { deployments: [(1, "mine"), (2, "mine"), (3, "other")].map(past).into() };
        assert_eq!(newest(&history, "mine").map(|past| past.number), Some(2));
        assert_eq!(newest(&history, "nobody's"), None);
    }

    #[test]
    fn whoever_looks_on_at_nothing_is_told_so_and_who_has_yet_to_follow() {
        assert_eq!(nothing(None), "no deployment is under way: `watchpost history` shows those before");
        let last = Deployment {
            number: 7,
            verdict: "rolled-back".into(),
            owing: vec!["a".into(), "b".into()],
            ..Deployment::default()
        };
        assert_eq!(
            nothing(Some(&last)),
            "no deployment is under way; 7 is decided (rolled-back), and a, b have yet to follow it: `watchpost history` \
             shows those before"
        );
    }
}
