//! The guard in front of every route: who may speak to this API, and from where.
//!
//! A listener on loopback is still within reach of every web page that the operator opens. So the name that the
//! browser believes to talk to must be ours (DNS rebinding), a page of another origin is refused, a change cannot be
//! sent by a plain form, and a secret is asked for that no page knows: a certificate, or a token. Either stands for one
//! of two roles, [`Access`].

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderName};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, web};
use tracing::info;

use super::WebSettings;
use super::pass::{Pass, Who};
use super::problem::Problem;
use super::visitor::Visitor;
use crate::model::Timestamp;
use crate::trust::Access;
use crate::trust::tokens::{Tokens, same};

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
    #[error(
        "a certificate or a token is needed: show one by `watchpost pki issue client`, or send `authorization: Bearer \
         TOKEN` with one by `watchpost token create`; on the controller's machine the content of `token` in its state \
         directory will do"
    )]
    Token,
    #[error(
        "this token counts on the controller's own machine only: make one for others by `watchpost token create NAME`"
    )]
    LocalToken,
    #[error(
        "a token in an address ends up in logs and histories: revoke it, and send another by `authorization: Bearer TOKEN`"
    )]
    TokenInQuery,
    #[error("{0} may observe and not operate: ask with one that was made with --role operate")]
    Role(Who),
    #[error("a change needs `content-type: {0}`")]
    ContentType(&'static str),
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
    /// Whether whoever is on this machine, or anybody at all, needs no token.
    open: bool,
    open_to_all: bool,
    /// For the users of this machine.
    token: String,
    tokens: Arc<Tokens>,
}

/// What of a request the guard looks at.
pub struct Asked<'a> {
    pub path: &'a str,
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    pub visitor: Option<&'a Visitor>,
}

impl Guard {
    pub fn new(settings: &WebSettings) -> Self {
        Self {
            names: Names::new(&settings.own_hostname, &settings.hosts),
            open: settings.open,
            open_to_all: settings.open && settings.insecure,
            token: settings.token.clone(),
            tokens: Arc::clone(&settings.tokens),
        }
    }

    /// Lets a request pass, or says why not; a health check gets no pass and needs none. The checks that need no secret
    /// come first.
    pub fn check(&self, asked: &Asked<'_>) -> Result<Option<Pass>, Refusal> {
        let headers = asked.headers;
        let host = only(headers, header::HOST).ok_or(Refusal::NoHost)?;
        let is_encrypted = asked.visitor.is_some_and(|visitor| visitor.is_encrypted);
        // A browser that encrypts has found that name in our certificate.
        if !is_encrypted && !self.names.is_own(host) {
            return Err(Refusal::Host(shorten(host)));
        }
        if headers.contains_key(header::ORIGIN) {
            let origin = only(headers, header::ORIGIN).unwrap_or("several origins");
            let scheme = if is_encrypted { "https" } else { "http" };
            if !origin.eq_ignore_ascii_case(&format!("{scheme}://{host}")) {
                return Err(Refusal::Origin(shorten(origin)));
            }
        }
        if asked.path == HEALTH {
            return Ok(None);
        }
        if asked.query.split('&').any(|pair| matches!(pair.split('=').next(), Some("token" | "access_token"))) {
            return Err(Refusal::TokenInQuery);
        }
        self.pass(headers, asked.visitor).map(Some)
    }

    /// Who asks. A certificate counts before a token, since nobody shows one by mistake.
    fn pass(&self, headers: &HeaderMap, visitor: Option<&Visitor>) -> Result<Pass, Refusal> {
        let certificate = visitor.and_then(|visitor| visitor.certificate.as_ref());
        if let Some(identity) = certificate.map(|certificate| &certificate.identity)
            && let Some(access) = Access::of(identity.part)
        {
            return Ok(Pass::new(Who::Certificate(identity.name.clone()), access));
        }
        let is_local = visitor.is_some_and(|visitor| visitor.is_local);
        if self.open_to_all || self.open && is_local {
            return Ok(Pass::new(Who::Anybody, Access::Operate));
        }
        let given = only(headers, header::AUTHORIZATION).and_then(|value| {
            let (scheme, given) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| given.trim())
        });
        let given = given.ok_or(Refusal::Token)?;
        // An empty secret is none: it would let in whoever sends nothing.
        if !self.token.is_empty() && same(given.as_bytes(), self.token.as_bytes()) {
            return if is_local { Ok(Pass::new(Who::Local, Access::Operate)) } else { Err(Refusal::LocalToken) };
        }
        let token = self.tokens.find(given, Timestamp::now()).ok_or(Refusal::Token)?;
        Ok(Pass::by_token(Arc::clone(&self.tokens), token))
    }
}

/// Runs [`Guard::check`] before anything else sees the request, so that a refused body is never read.
pub async fn stand(
    guard: web::Data<Guard>,
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let asked = Asked {
        path: request.path(),
        query: request.query_string(),
        headers: request.headers(),
        visitor: request.conn_data(),
    };
    if let Some(pass) = guard.check(&asked).map_err(Problem::from)? {
        request.extensions_mut().insert(pass);
    }
    next.call(request).await
}

/// Stands before every change: it takes an operator, a plain form cannot say that it is JSON, and who asks is logged. Not
/// part of [`stand`], since whether something is a change at all is known only once its route is found.
pub async fn before_a_change(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let who = operator(&request, JSON)?;
    info!("{who} asks for {} {}", request.method(), shorten(request.path()));
    next.call(request).await
}

/// The same before bytes that are sent: they are many pieces, and what comes of them is logged.
pub async fn before_bytes(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    operator(&request, BYTES)?;
    next.call(request).await
}

/// What a plain form cannot say of itself.
const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// Who asks, if that is an operator who sends what is expected.
fn operator(request: &ServiceRequest, expected: &'static str) -> Result<Who, Problem> {
    let pass = request.extensions().get::<Pass>().cloned();
    // Whoever has no pass was let in to be told that all is well, and to nothing else.
    let pass = pass.ok_or(Refusal::Token)?;
    if pass.access < Access::Operate {
        return Err(Refusal::Role(pass.who).into());
    }
    match is(request.headers(), expected) {
        true => Ok(pass.who),
        false => Err(Refusal::ContentType(expected).into()),
    }
}

fn is(headers: &HeaderMap, expected: &str) -> bool {
    let kind = only(headers, header::CONTENT_TYPE).and_then(|value| value.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case(expected))
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

pub(super) fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn guard(open: bool, token: &str) -> Guard {
        Guard::new(&WebSettings { open, hosts: vec!["Watch.Example".into()], ..settings(token) })
    }

    fn settings(token: &str) -> WebSettings {
        WebSettings {
            open: false,
            insecure: false,
            hosts: Vec::new(),
            token: token.into(),
            tokens: Arc::new(Tokens::open(std::path::Path::new("/nonexistent"))),
            own_hostname: "sensor-1".into(),
            ports: Default::default(),
            facts: Default::default(),
            tls: None,
        }
    }

    fn visitor(is_local: bool) -> Visitor {
        let peer = std::net::SocketAddr::from(([192, 0, 2, 1], 1));
        Visitor { peer, is_local, is_encrypted: false, certificate: None }
    }

    fn asked<'a>(path: &'a str, headers: &'a HeaderMap, visitor: &'a Visitor) -> Asked<'a> {
        Asked { path, query: "", headers, visitor: Some(visitor) }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        headers
    }

    fn get(guard: &Guard, pairs: &[(&'static str, &str)]) -> Result<(), Refusal> {
        guard.check(&asked("/api/v1/status", &headers(pairs), &visitor(true))).map(drop)
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
        let says = |kind| is(&headers(&[("content-type", kind)]), JSON);
        for kind in ["application/json", "Application/JSON; charset=utf-8"] {
            assert!(says(kind), "{kind}");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""] {
            assert!(!says(kind), "{kind}");
        }
        assert!(!is(&headers(&[]), JSON));
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
        let health = closed.check(&asked(HEALTH, &headers(&[("host", "localhost")]), &visitor(false)));
        assert!(health.is_ok_and(|pass| pass.is_none()));
        assert_eq!(get(&guard(true, TOKEN), &[("host", "localhost")]), Ok(()));
    }

    #[test]
    fn an_empty_token_lets_nobody_in() {
        let guard = guard(false, "");
        for value in ["Bearer ", "Bearer"] {
            assert_eq!(get(&guard, &[("host", "localhost"), ("authorization", value)]), Err(Refusal::Token));
        }
    }
    #[test]
    fn what_is_for_this_machine_counts_nowhere_else() {
        let headers = headers(&[("host", "localhost"), ("authorization", &format!("Bearer {TOKEN}"))]);
        let from = |guard: &Guard, is_local| {
            let visitor = visitor(is_local);
            guard.check(&asked("/api/v1/status", &headers, &visitor)).map(|pass| pass.unwrap().who)
        };
        let closed = guard(false, TOKEN);
        assert_eq!((from(&closed, true), from(&closed, false)), (Ok(Who::Local), Err(Refusal::LocalToken)));
        let open = Guard::new(&WebSettings { open: true, ..settings(TOKEN) });
        assert_eq!((from(&open, true), from(&open, false)), (Ok(Who::Anybody), Err(Refusal::LocalToken)));
        let to_all = Guard::new(&WebSettings { open: true, insecure: true, ..settings(TOKEN) });
        assert_eq!((from(&to_all, true), from(&to_all, false)), (Ok(Who::Anybody), Ok(Who::Anybody)));
        let unknown = Asked { path: "/api/v1/status", query: "", headers: &headers, visitor: None };
        assert_eq!(closed.check(&unknown).map(drop), Err(Refusal::LocalToken));
    }

    #[test]
    fn a_token_in_an_address_is_refused_also_if_it_is_right() {
        let headers = headers(&[("host", "localhost"), ("authorization", &format!("Bearer {TOKEN}"))]);
        for (query, is_refused) in [
            ("token=x", true),
            ("last=1&access_token=x", true),
            ("token", true),
            ("last=1", false),
            ("nottoken=1", false),
        ] {
            let visitor = visitor(true);
            let asked = Asked { query, ..asked("/api/v1/events", &headers, &visitor) };
            let refused = guard(false, TOKEN).check(&asked).map(drop);
            assert_eq!(refused == Err(Refusal::TokenInQuery), is_refused, "{query}");
        }
    }

    #[test]
    fn over_tls_any_name_will_do_and_pages_must_be_of_the_same() {
        let visitor = Visitor { is_encrypted: true, ..visitor(true) };
        let with = |origin: &str| {
            let headers = headers(&[("host", "any.example"), ("origin", origin)]);
            guard(true, "").check(&asked("/api/v1/status", &headers, &visitor)).map(drop)
        };
        assert_eq!(with("https://any.example"), Ok(()));
        for origin in ["http://any.example", "https://evil.example"] {
            assert_eq!(with(origin), Err(Refusal::Origin(origin.into())));
        }
    }
}
