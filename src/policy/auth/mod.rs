//! `auth`: who asks. A request without a good credential is answered with a 401.
//!
//! ```toml
//! [auth.idp]
//! jwt      = { issuer = "https://id.example.com/", jwks = "discover", audience = "api" }
//! consumer = "claims.sub"                # who it is: "claims.sub", unless said otherwise
//! headers  = { X-User = "{consumer}" }   # what upstreams are told; clients cannot send such fields on any route
//!
//! [consumer.alice]
//! groups = ["staff"]
//!
//! [defaults]
//! auth = "idp"                           # ["idp", "partners"]: one of them must know the caller
//!
//! [[route]]
//! match   = "GET /public/**"
//! auth    = false
//! respond = {}
//! ```
//!
//! Of several providers the first that knows the caller decides. Two `Authorization` fields are a 400: which of them
//! counts would depend on who reads them. A provider that cannot be asked now makes a 503, never a way in.

mod api_key;
mod basic;
mod claims;
mod client_certificate;
mod forward;
mod identity;
mod introspection;
mod jwt;
mod remembered;
mod remote;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue};
use pingora_http::RequestHeader;
use serde::Deserialize;

use super::{Policy, Scope, Verdict};
use crate::build::{Build, Node};
use crate::facts::{Consumer, Facts};
use crate::keep;
use crate::reply::Reply;
use crate::telemetry::metrics::policies::{AuthSeries, Reason};
use crate::telemetry::metrics::traffic::Meter;
use crate::types::OneOrMore;
use crate::types::template::Template;
use api_key::{ApiKey, ApiKeyConfig, Place};
use basic::BasicConfig;
use client_certificate::{CertificateConfig, ClientCertificate};
use forward::{Forward, ForwardConfig};
use identity::{Claim, Consumers, Headers, Identities, NotYet};
use introspection::{Introspection, IntrospectionConfig};
use jwt::{Jwt, JwtConfig};

pub use identity::KeyHash;
#[cfg(fuzzing)]
pub use jwt::fuzz as fuzz_token;

/// The compiled policy.
pub struct Auth {
    providers: Vec<Arc<Provider>>,
    /// Whether they look for credentials in different places, so that a request can have more than one.
    apart: bool,
}

/// Every `[auth.NAME]`, compiled.
#[derive(Default)]
pub struct Providers {
    /// `None` stands for one with mistakes, so that what names it is not reported as well.
    by_name: BTreeMap<String, Option<Arc<Provider>>>,
    /// The fields by which upstreams are told of callers: nobody else may send them.
    headers: Arc<[HeaderName]>,
    /// What the configuration says of providers and of consumers, files included.
    made_of: [BTreeMap<String, u64>; 2],
    /// Whether a limit counts by consumers that may have rates of their own.
    own_rates_are_used: AtomicBool,
}

/// A way to find out who asks.
struct Provider {
    kind: Kind,
    /// The fields by which upstreams are told of callers.
    headers: Vec<HeaderName>,
    /// What a client is told to bring (RFC 9110, section 11.6.1).
    challenge: HeaderValue,
    /// What it is told when what it brought is not good (RFC 6750, section 3).
    rejection: HeaderValue,
    counts: AuthSeries,
}

/// The files that a provider names, by key.
const FILES: &[&str] = &["key", "file", "ca"];

/// What callers are known by, and who they are.
const TABLES: [&str; 2] = ["auth", "consumer"];

enum Kind {
    Jwt(Box<Jwt>),
    ApiKey(ApiKey),
    Basic(Identities),
    ClientCertificate(Box<ClientCertificate>),
    Introspection(Arc<Introspection>),
    Forward(Box<Forward>),
}

/// What a provider says of a request.
enum Judgement {
    /// It has no credential for this provider.
    Absent,
    /// It is from this caller.
    Known(Arc<Consumer>),
    /// Its credential is not good, for this reason.
    Wrong(Reason, &'static str),
    /// Whether its credential is good cannot be found out now.
    Unknowable(Cow<'static, str>),
    /// It is not let in, and this is the client's answer.
    Answered(Box<Reply>),
    /// Its credentials can be understood in two ways.
    Ambiguous(&'static str),
}

/// `[auth.NAME]` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderConfig {
    jwt: Option<JwtConfig>,
    api_key: Option<ApiKeyConfig>,
    basic: Option<BasicConfig>,
    client_certificate: Option<CertificateConfig>,
    introspection: Option<IntrospectionConfig>,
    forward: Option<ForwardConfig>,
    consumer: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default, rename = "hmac")]
    _hmac: NotYet,
    #[serde(default, rename = "oidc")]
    _oidc: NotYet,
}

impl Policy for Auth {
    type Config = OneOrMore;

    fn compile(config: OneOrMore, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let mut providers = Vec::new();
        let list = build.node().array().is_some();
        for (i, name) in config.0.iter().enumerate() {
            let key = if list { format!("[{i}]") } else { String::new() };
            match scope.providers.by_name.get(name) {
                Some(provider) => providers.push(provider.clone()),
                None => {
                    build.unknown(&key, "auth provider", name, scope.providers.by_name.keys().map(String::as_str));
                    return None;
                }
            }
        }
        if providers.is_empty() {
            build.error("", "nobody could be known").help("name a provider, or write auth = false");
            return None;
        }
        // One with mistakes was reported; the configuration is refused.
        let providers: Vec<Arc<Provider>> = providers.into_iter().collect::<Option<_>>()?;
        let mut places = providers.iter().filter_map(|provider| provider.place());
        let first = places.next();
        let apart = places.any(|place| Some(place) != first);
        Some(Self { providers, apart })
    }

    async fn request(&self, request: &mut RequestHeader, facts: &mut Facts) -> Verdict {
        if let Some(claims) = facts.assumed.take() {
            facts.consumer = Some(self.assume(*claims)?);
            return Ok(());
        }
        let now = seconds_since_1970();
        if self.apart && self.credentials(request) > 1 {
            let how = "the request has more than one credential";
            self.count(0, Reason::Ambiguous, facts);
            return Err(Reply::bad_request(how).because(how));
        }
        let (mut refusal, mut unknowable) = (None, None);
        for (i, provider) in self.providers.iter().enumerate() {
            match provider.judge(request, facts, now).await {
                Judgement::Known(consumer) => {
                    facts.consumer = Some(consumer);
                    provider.withhold(request);
                    return Ok(());
                }
                Judgement::Absent => {}
                Judgement::Wrong(reason, why) => {
                    refusal.get_or_insert_with(|| (i, reason, provider.refuse(why)));
                }
                Judgement::Answered(reply) => {
                    refusal.get_or_insert((i, Reason::Refused, *reply));
                }
                Judgement::Unknowable(why) => unknowable = unknowable.or(Some((i, why))),
                Judgement::Ambiguous(how) => {
                    self.count(i, Reason::Ambiguous, facts);
                    return Err(Reply::bad_request(how).because(how));
                }
            }
        }
        if let Some((i, why)) = unknowable {
            self.count(i, Reason::ProviderDown, facts);
            let detail = "it cannot be found out now who asks: try again";
            return Err(Reply::auth_unavailable(detail).retry_after(1).because(why));
        }
        let (i, reason, reply) = refusal.unwrap_or_else(|| {
            let reply = Reply::unauthorized("the request has no credential").because("the request has no credential");
            let challenges = self.providers.iter().map(|provider| provider.challenge.clone());
            (0, Reason::Missing, challenges.fold(reply, |reply, challenge| reply.with(WWW_AUTHENTICATE, challenge)))
        });
        self.count(i, reason, facts);
        Err(reply)
    }

    fn upstream(&self, head: &mut RequestHeader, _request: &RequestHeader, facts: &Facts) -> Verdict {
        for (name, value) in facts.consumer.iter().flat_map(|consumer| &consumer.headers) {
            let _ = head.insert_header(name.clone(), value.clone());
        }
        Ok(())
    }
}

impl Auth {
    /// A request is not let in, and one of the providers says why. What is true of all is said by the first.
    fn count(&self, provider: usize, why: Reason, facts: &Facts) {
        if !facts.rehearsal {
            self.providers[provider].counts.failed(why);
        }
    }

    /// How many credentials a request has, in different places.
    fn credentials(&self, request: &RequestHeader) -> usize {
        let mut places: Vec<&Place> = Vec::new();
        for provider in &self.providers {
            let Some(place) = provider.place().filter(|place| !places.contains(place)) else { continue };
            if provider.has_credential(request) {
                places.push(place);
            }
        }
        places.len()
    }

    /// Who somebody with these claims would be, for the first provider that can tell.
    fn assume(&self, claims: serde_json::Map<String, serde_json::Value>) -> Result<Arc<Consumer>, Reply> {
        let mut why = "nobody can be assumed";
        for provider in &self.providers {
            match provider.assume(claims.clone()) {
                Ok(consumer) => return Ok(consumer),
                Err(error) => why = error,
            }
        }
        Err(Reply::unauthorized("the assumed claims do not say who asks").because(why))
    }
}

impl Providers {
    /// Compiles every `[auth.NAME]` and `[consumer.NAME]`.
    pub fn compile(root: &Node, meter: &Meter, build: &mut Build<'_>) -> Self {
        let consumers = Consumers::compile(root, build);
        let mut providers = BTreeMap::new();
        for (name, entry) in root.get("auth").and_then(Node::table).into_iter().flatten() {
            let provider = build
                .within_detached(&entry.node, |build| Provider::compile(name, root, consumers.clone(), meter, build));
            providers.insert(name.clone(), provider.map(Arc::new));
        }
        let all = providers.values().flatten().flat_map(|provider: &Arc<Provider>| provider.headers.iter());
        let mut headers: Vec<HeaderName> = all.cloned().collect();
        headers.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        headers.dedup();
        let made_of = TABLES.map(|table| {
            let named = root.get(table).and_then(Node::table).into_iter().flatten();
            named.map(|(name, entry)| (name.clone(), build.fingerprint(&entry.node, FILES).short())).collect()
        });
        Self { by_name: providers, headers: headers.into(), made_of, own_rates_are_used: AtomicBool::new(false) }
    }

    /// Notes that a limit counts by consumers' own rates.
    pub(super) fn use_own_rates(&self) {
        self.own_rates_are_used.store(true, Ordering::Relaxed);
    }

    /// Warns of consumers' own rates that no limit uses.
    pub fn report_unused(&self, root: &Node, build: &mut Build<'_>) {
        if self.own_rates_are_used.load(Ordering::Relaxed) {
            return;
        }
        for (_, consumer) in root.get("consumer").and_then(Node::table).into_iter().flatten() {
            let Some(rate) = consumer.node.get("rate_limit") else { continue };
            build.within_detached(rate, |build| {
                build
                    .warning("", "no limit of a route with `auth` counts by \"consumer\", so nothing uses this rate")
                    .help("it takes the place of a limit's: rate_limit = { rate = \"10/s\", by = \"consumer\" }");
            });
        }
    }

    /// The fields that nobody else may send.
    pub(super) fn headers(&self) -> Arc<[HeaderName]> {
        self.headers.clone()
    }

    /// What is not as it was in the `previous` configuration, in words.
    pub fn changes(&self, previous: &Self) -> Vec<String> {
        let both = TABLES.iter().zip(previous.made_of.iter().zip(&self.made_of));
        both.flat_map(|(table, (before, now))| keep::changes(table, before, now)).collect()
    }

    /// Starts what runs in the background, on a runtime that outlives this. To start it again changes nothing.
    pub fn start(&self, runtime: &tokio::runtime::Handle) {
        for provider in self.by_name.values().flatten() {
            match &provider.kind {
                Kind::Jwt(jwt) => jwt.start(runtime),
                Kind::Introspection(introspection) => introspection.start(runtime),
                _ => {}
            }
        }
    }
}

impl ProviderConfig {
    /// The one kind that it is of, with its challenge; `None` after every mistake was reported.
    fn kind(
        &self,
        name: &str,
        root: &Node,
        identities: Option<Identities>,
        build: &mut Build<'_>,
    ) -> Option<(Kind, String)> {
        let kinds = [
            self.jwt.is_some(),
            self.api_key.is_some(),
            self.basic.is_some(),
            self.client_certificate.is_some(),
            self.introspection.is_some(),
            self.forward.is_some(),
        ];
        if kinds.iter().filter(|is| **is).count() > 1 {
            build
                .error("", "the provider knows callers in more than one way")
                .help("make two of it: a route can name several, auth = [\"a\", \"b\"]");
            return None;
        }
        let bearer = format!("Bearer realm=\"{name}\"");
        Some(if let Some(jwt) = &self.jwt {
            (Kind::Jwt(Box::new(Jwt::compile(name, jwt, identities?, build)?)), bearer)
        } else if let Some(key) = &self.api_key {
            (Kind::ApiKey(ApiKey::compile(key, identities?, build)?), format!("ApiKey realm=\"{name}\""))
        } else if self.basic.is_some() {
            (Kind::Basic(identities?), format!("Basic realm=\"{name}\", charset=\"UTF-8\""))
        } else if let Some(certificate) = &self.client_certificate {
            if !verifies_clients(root) {
                build
                    .error("client_certificate", "no listener asks clients for certificates")
                    .help("give one tls.client_ca");
            }
            let kind = ClientCertificate::new(certificate, identities?);
            (Kind::ClientCertificate(Box::new(kind)), format!("ClientCertificate realm=\"{name}\""))
        } else if let Some(introspection) = &self.introspection {
            // What it remembers is made of all that makes a consumer.
            let mut made_of = build.fingerprint(build.node(), FILES);
            if let Some(consumers) = root.get("consumer") {
                made_of.add(b'c', &build.fingerprint(consumers, &[]).short().to_le_bytes());
            }
            let identities = identities?;
            let kept = build.keep(&format!("auth.{name}"), made_of, |build| {
                Introspection::compile(name, introspection, identities, build)
            });
            (Kind::Introspection(kept?), bearer)
        } else if let Some(forward) = &self.forward {
            let challenge = format!("Forward realm=\"{name}\"");
            let named = self.consumer.is_some();
            let kind = Forward::compile(name, forward, named, value(&challenge), identities?, build)?;
            (Kind::Forward(Box::new(kind)), challenge)
        } else {
            build
                .error("", "the provider says not how it knows callers")
                .help("give it `jwt`, `introspection`, `api_key`, `basic`, `client_certificate` or `forward`");
            return None;
        })
    }
}

impl Provider {
    fn compile(name: &str, root: &Node, consumers: Consumers, meter: &Meter, build: &mut Build<'_>) -> Option<Self> {
        build.check_name("an auth provider", name)?;
        let config: ProviderConfig = build.deserialize()?;
        let has_claims = config.jwt.is_some() || config.introspection.is_some() || config.forward.is_some();
        if !has_claims && config.consumer.is_some() {
            build.error("consumer", "only `jwt`, `introspection` and `forward` have claims that can name the caller");
        }
        if (config.api_key.is_some() || config.basic.is_some()) && !consumers.have_keys() {
            build
                .error("", "nobody has a key, so nobody could be known")
                .help("portcullis key new makes one; write its hash as [consumer.NAME] keys = [{ sha256 = \"…\" }]");
            return None;
        }
        let headers = headers(&config, build)?;
        let consumers = if headers.is_empty() { consumers } else { consumers.with_headers(&headers) };
        let claim = Claim::parse(config.consumer.as_deref().unwrap_or("claims.sub"));
        let groups = Claim::parse("claims.groups").ok();
        let identities = build.or_report("consumer", claim);
        let identities = identities.map(|name| Identities { consumers, name, groups, headers: headers.clone() });
        let (kind, challenge) = config.kind(name, root, identities, build)?;
        let rejection = match &kind {
            Kind::Jwt(_) | Kind::Introspection(_) => format!("{challenge}, error=\"invalid_token\""),
            _ => challenge.clone(),
        };
        let given = |name: &HeaderName| matches!(&kind, Kind::Forward(forward) if forward.takes(name));
        let headers = headers.iter().map(|(name, _)| name.clone()).filter(|name| !given(name)).collect();
        let (challenge, rejection) = (value(&challenge), value(&rejection));
        Some(Self { kind, headers, challenge, rejection, counts: meter.auth(name) })
    }

    async fn judge(&self, request: &RequestHeader, facts: &Facts, now: u64) -> Judgement {
        let scheme = match &self.kind {
            Kind::Jwt(_) | Kind::Introspection(_) => "Bearer",
            Kind::Basic(_) => "Basic",
            Kind::ApiKey(key) => return key.judge(request),
            Kind::ClientCertificate(certificate) => {
                let shown = facts.connection.tls.as_ref().and_then(|tls| tls.client_certificate.as_deref());
                return shown.map_or(Judgement::Absent, |shown| certificate.judge(shown, now));
            }
            Kind::Forward(forward) => return forward.judge(request, facts).await,
        };
        match (authorization(request, scheme), &self.kind) {
            (Ok(Some(token)), Kind::Jwt(jwt)) => jwt.judge(token, facts.rehearsal, now).await,
            (Ok(Some(token)), Kind::Introspection(introspection)) => {
                introspection.judge(token, facts.rehearsal, now).await
            }
            (Ok(Some(credentials)), Kind::Basic(identities)) => basic::judge(credentials, &identities.consumers),
            (Err(how), _) => Judgement::Ambiguous(how),
            _ => Judgement::Absent,
        }
    }

    /// The answer to a credential that is not good.
    fn refuse(&self, why: &'static str) -> Reply {
        let reply = Reply::unauthorized("the credential is not valid").because(why);
        reply.with(WWW_AUTHENTICATE, self.rejection.clone())
    }

    /// Where its credential is, if it is in the request.
    fn place(&self) -> Option<&Place> {
        const AUTHORIZATION_FIELD: &Place = &Place::Header(AUTHORIZATION);
        match &self.kind {
            Kind::Jwt(_) | Kind::Introspection(_) | Kind::Basic(_) => Some(AUTHORIZATION_FIELD),
            Kind::ApiKey(key) => Some(key.place()),
            Kind::ClientCertificate(_) | Kind::Forward(_) => None,
        }
    }

    fn has_credential(&self, request: &RequestHeader) -> bool {
        match &self.kind {
            Kind::Jwt(_) | Kind::Introspection(_) => !matches!(authorization(request, "Bearer"), Ok(None)),
            Kind::Basic(_) => !matches!(authorization(request, "Basic"), Ok(None)),
            Kind::ApiKey(key) => !matches!(key.place().value(request), Ok(None)),
            Kind::ClientCertificate(_) | Kind::Forward(_) => false,
        }
    }

    /// Takes a credential out of the request that is as good as a password, or that was exchanged for another.
    fn withhold(&self, request: &mut RequestHeader) {
        match (&self.kind, self.place()) {
            (Kind::ApiKey(_) | Kind::Basic(_), Some(place)) => place.take(request),
            (Kind::Forward(forward), _) => forward.withhold(request),
            _ => {}
        }
    }

    fn assume(&self, claims: serde_json::Map<String, serde_json::Value>) -> Result<Arc<Consumer>, &'static str> {
        match &self.kind {
            Kind::Jwt(jwt) => jwt.assume(claims),
            Kind::ApiKey(key) => key.assume(claims),
            Kind::Basic(identities) => identities.of(claims),
            Kind::ClientCertificate(certificate) => certificate.assume(claims),
            Kind::Introspection(introspection) => introspection.assume(claims),
            Kind::Forward(forward) => forward.assume(claims),
        }
    }
}

/// What upstreams are told of callers; `None` after every mistake was reported.
fn headers(config: &ProviderConfig, build: &mut Build<'_>) -> Option<Headers> {
    let before = build.errors();
    let mut headers: Vec<(HeaderName, Template)> = Vec::new();
    let written = config.headers.iter().map(|(name, text)| (format!("headers.{name}"), name.as_str(), text.clone()));
    let answered = config.forward.iter().flat_map(ForwardConfig::headers).enumerate();
    let answered = answered.map(|(i, (name, text))| (format!("forward.response_headers[{i}]"), name, text));
    for (key, name, text) in written.chain(answered) {
        let field = super::edits::field(name, &key, build);
        if field.as_ref().is_some_and(|field| headers.iter().any(|(other, _)| other == field)) {
            build.error(&key, format!("`{name}` is given twice"));
        }
        match build.or_report(&key, Template::parse(&text, &[])) {
            Some(template) if template.is_about_caller() => headers.extend(field.zip(Some(template))),
            Some(_) => {
                let message = "what is told of a caller is made of {consumer}, {consumer.groups} and {claims.NAME}";
                build.error(&key, message).help("a route's `request` can send the others");
            }
            None => {}
        }
    }
    (build.errors() == before).then(|| headers.into())
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("the name of a provider was checked")
}

fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs())
}

/// Whether any listener verifies certificates of clients.
fn verifies_clients(root: &Node) -> bool {
    let listeners = root.get("listen").and_then(Node::table).into_iter().flat_map(|table| table.values());
    listeners.into_iter().any(|entry| entry.node.get("tls").is_some_and(|tls| tls.get("client_ca").is_some()))
}

/// The credentials of a scheme in `Authorization` (RFC 9110, section 11.6.2).
fn authorization<'r>(request: &'r RequestHeader, scheme: &str) -> Result<Option<&'r [u8]>, &'static str> {
    let mut fields = request.headers.get_all(AUTHORIZATION).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err("the request has more than one `Authorization`");
    }
    let field = field.as_bytes();
    let (name, rest) = match memchr::memchr(b' ', field) {
        Some(at) => (&field[..at], field[at..].trim_ascii()),
        None => (field, &b""[..]),
    };
    Ok(name.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_in_any_case_and_the_field_stands_once() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        assert_eq!(authorization(&request, "Bearer"), Ok(None));
        request.insert_header("Authorization", "bEARER  a.b.c").unwrap();
        assert_eq!(authorization(&request, "Bearer"), Ok(Some(&b"a.b.c"[..])));
        assert_eq!(authorization(&request, "Basic"), Ok(None));
        request.append_header("Authorization", "Bearer a.b.c").unwrap();
        assert!(authorization(&request, "Bearer").is_err());
    }
}
