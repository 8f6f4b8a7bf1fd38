//! The guard in front of every route: who may speak to this API, and from where.
//!
//! A listener on loopback is still within reach of every web page that the operator opens. So the name that the
//! browser believes to talk to must be ours (DNS rebinding), a page of another origin is refused, a change cannot be
//! sent by a plain form, and a secret is asked for that no page knows.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderName};
use actix_web::middleware::Next;
use actix_web::{Error, web};

use super::WebSettings;
use super::problem::Problem;

/// The one address that needs no token: a health check holds no secrets and gets none.
pub const HEALTH: &str = "/healthz";

/// Why a request was turned away. No text repeats the token, right or wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("`{0}` is not a name of this controller: use its address, or add the name to `hosts` in its settings")]
    Host(String),
    #[error("exactly one `host` header is needed")]
    NoHost,
    #[error("pages of `{0}` may not use this API")]
    Origin(String),
    #[error("a token is needed: send `authorization: Bearer <the content of the file token in the state directory>`")]
    Token,
    #[error("a change needs `content-type: application/json`")]
    ContentType,
}

/// What this machine is called besides its addresses, in lower case.
pub struct Names(BTreeSet<String>);

impl Names {
    pub fn new(own_hostname: &str, hosts: &[String]) -> Self {
        let names = [own_hostname, "localhost"].into_iter().chain(hosts.iter().map(String::as_str));
        Self(names.filter(|name| !name.is_empty()).map(str::to_ascii_lowercase).collect())
    }

    /// Whether `host`, with or without a port, is an address or a name of this machine.
    pub fn is_own(&self, host: &str) -> bool {
        if let Some(rest) = host.strip_prefix('[') {
            let Some((address, port)) = rest.split_once(']') else { return false };
            return address.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || is_port(port.strip_prefix(':')));
        }
        let name = match host.split_once(':') {
            Some((name, port)) if is_port(Some(port)) => name,
            Some(_) => return false,
            None => host,
        };
        name.parse::<Ipv4Addr>().is_ok() || self.0.contains(&name.to_ascii_lowercase())
    }
}

/// What the guard knows.
pub struct Guard {
    names: Names,
    /// `None` asks for no token.
    token: Option<String>,
}

impl Guard {
    pub fn new(settings: &WebSettings) -> Self {
        Self {
            names: Names::new(&settings.own_hostname, &settings.hosts),
            token: (!settings.open).then(|| settings.token.clone()),
        }
    }

    /// Lets a request pass, or says why not. The checks that need no secret come first.
    pub fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = only(headers, header::HOST).ok_or(Refusal::NoHost)?;
        if !self.names.is_own(host) {
            return Err(Refusal::Host(shorten(host)));
        }
        if headers.contains_key(header::ORIGIN) {
            let origin = only(headers, header::ORIGIN).unwrap_or("several origins");
            if !origin.eq_ignore_ascii_case(&format!("http://{host}")) {
                return Err(Refusal::Origin(shorten(origin)));
            }
        }
        if path == HEALTH { Ok(()) } else { self.check_token(headers) }
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.token else { return Ok(()) };
        let given = only(headers, header::AUTHORIZATION).and_then(|value| {
            let (scheme, given) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| given.trim())
        });
        match given {
            // An empty secret is none: it would let in whoever sends nothing.
            Some(given) if !token.is_empty() && same(given.as_bytes(), token.as_bytes()) => Ok(()),
            _ => Err(Refusal::Token),
        }
    }
}

/// Runs [`Guard::check`] before anything else sees the request, so that a refused body is never read.
pub async fn stand(
    guard: web::Data<Guard>,
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    guard.check(request.path(), request.headers()).map_err(Problem::from)?;
    next.call(request).await
}

/// Stands before every change: a plain form cannot say that it is JSON. Not part of [`stand`], since whether something
/// is a change at all is known only once its route is found.
pub async fn says_json(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    if !is_json(request.headers()) {
        return Err(Problem::from(Refusal::ContentType).into());
    }
    next.call(request).await
}

/// The value of a header that must be there exactly once.
pub(super) fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name);
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

fn is_port(text: Option<&str>) -> bool {
    text.is_some_and(|text| text.parse::<u16>().is_ok())
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = only(headers, header::CONTENT_TYPE).and_then(|value| value.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// Compares in a time that depends on the lengths alone, so that a guess learns nothing from how long it took.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0, |differ, (a, b)| std::hint::black_box(differ | (a ^ b)));
    a.len() == b.len() && differ == 0
}

pub(super) fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn guard(open: bool, token: &str) -> Guard {
        Guard::new(&WebSettings {
            open,
            hosts: vec!["Watch.Example".into()],
            token: token.into(),
            own_hostname: "sensor-1".into(),
            ports: Default::default(),
        })
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        headers
    }

    fn get(guard: &Guard, pairs: &[(&'static str, &str)]) -> Result<(), Refusal> {
        guard.check("/api/v1/status", &headers(pairs))
    }

    #[test]
    fn only_names_of_this_controller_are_answered() {
        let guard = guard(true, "");
        for host in [
            "127.0.0.1:2148",
            "10.1.2.3",
            "[::1]:2148",
            "[fe80::1]",
            "localhost",
            "LOCALHOST:1",
            "sensor-1:2148",
            "watch.example",
        ] {
            assert_eq!(get(&guard, &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:2148",
            "",
            "[::1",
            "[::1]evil",
            "[::1]:",
            "::1",
            "localhost:x",
            "localhost:99999",
            "localhost@evil",
        ] {
            assert_eq!(get(&guard, &[("host", host)]), Err(Refusal::Host(host.into())), "{host}");
        }
        assert_eq!(get(&guard, &[]), Err(Refusal::NoHost));
        assert_eq!(get(&guard, &[("host", "localhost"), ("host", "evil.example")]), Err(Refusal::NoHost));
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let guard = guard(true, "");
        let with = |origin| get(&guard, &[("host", "localhost:2148"), ("origin", origin)]);
        assert_eq!(with("http://localhost:2148"), Ok(()));
        for origin in ["http://localhost", "https://localhost:2148", "http://127.0.0.1:2148", "http://evil", "null"] {
            assert_eq!(with(origin), Err(Refusal::Origin(origin.into())), "{origin}");
        }
    }

    #[test]
    fn only_json_is_json() {
        let says = |kind| is_json(&headers(&[("content-type", kind)]));
        for kind in ["application/json", "Application/JSON; charset=utf-8"] {
            assert!(says(kind), "{kind}");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""] {
            assert!(!says(kind), "{kind}");
        }
        assert!(!is_json(&headers(&[])));
    }

    #[test]
    fn the_token_is_asked_for_unless_the_api_is_open() {
        let closed = guard(false, TOKEN);
        let with = |value: &str| get(&closed, &[("host", "localhost"), ("authorization", value)]);
        assert_eq!(with(&format!("Bearer {TOKEN}")), Ok(()));
        assert_eq!(with(&format!("bearer {TOKEN}")), Ok(()));
        for value in ["", "Bearer", "Bearer ", "Bearer 0123456789abcdeg", "Bearer 0123456789abcde", TOKEN] {
            assert_eq!(with(value), Err(Refusal::Token), "{value}");
        }
        assert_eq!(get(&closed, &[("host", "localhost")]), Err(Refusal::Token));
        assert_eq!(closed.check(HEALTH, &headers(&[("host", "localhost")])), Ok(()));
        assert_eq!(get(&guard(true, TOKEN), &[("host", "localhost")]), Ok(()));
    }

    #[test]
    fn an_empty_token_lets_nobody_in() {
        let guard = guard(false, "");
        for value in ["Bearer ", "Bearer"] {
            assert_eq!(get(&guard, &[("host", "localhost"), ("authorization", value)]), Err(Refusal::Token));
        }
    }
}
