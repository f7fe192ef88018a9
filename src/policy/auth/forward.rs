//! `forward`: a service of one's own is asked of every request who it is from, as with nginx's `auth_request`.
//!
//! ```toml
//! [auth.sso]
//! forward  = { url = "http://127.0.0.1:4180/check", response_headers = ["X-User", "X-Groups"], groups = "claims.x-groups" }
//! consumer = "claims.x-user"
//! ```
//!
//! It gets a GET with the fields of the request that `request_headers` names, and the rest as `X-Forwarded-Method`,
//! `-Host`, `-Uri`, `-For` and `-Proto`. A 2xx lets the request in: the fields that `response_headers` names are then the
//! caller's claims, in lower case, and are sent to the upstream. A 401, a 403 or a redirect is the client's answer.
//! Anything else, or nothing in time, is a 503.
//!
//! Answers are not remembered, for they may depend on everything that the service is told. Connections to it are kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use pingora_http::RequestHeader;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::identity::{Claim, Identities};
use super::remote::Health;
use super::{Judgement, remote};
use crate::build::Build;
use crate::client::Client;
use crate::facts::{Consumer, Facts, authority};
use crate::policy::edits;
use crate::reply::Reply;
use crate::types::Timespan;

/// `forward` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ForwardConfig {
    url: String,
    #[serde(default = "request_headers")]
    request_headers: Vec<String>,
    #[serde(default)]
    response_headers: Vec<String>,
    groups: Option<String>,
    #[serde(default = "timeout")]
    timeout: Timespan,
    ca: Option<PathBuf>,
}

/// A compiled `forward`.
pub(super) struct Forward {
    /// Of the provider, for the log.
    name: Box<str>,
    url: Uri,
    sent: Vec<HeaderName>,
    told: Vec<HeaderName>,
    service: Arc<Service>,
    challenge: HeaderValue,
    identities: Identities,
}

struct Service {
    client: Client,
    health: Health,
}

/// Bytes of the body of an answer, which nobody reads.
const LARGEST: usize = 64 << 10;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What the gateway itself tells the service.
const OURS: [HeaderName; 6] =
    [X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_METHOD, X_FORWARDED_PROTO, X_FORWARDED_URI, X_REQUEST_ID];

fn request_headers() -> Vec<String> {
    ["Authorization", "Cookie"].map(str::to_owned).to_vec()
}

fn timeout() -> Timespan {
    Timespan::from_secs(1)
}

impl ForwardConfig {
    /// What upstreams are told of what the service says.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&str, String)> {
        self.response_headers.iter().map(|name| (name.as_str(), format!("{{claims.{}}}", name.to_ascii_lowercase())))
    }
}

impl Forward {
    /// Compiles `forward` of the provider `name`; `build` is at the provider. `None` after every mistake was reported.
    pub(super) fn compile(
        name: &str,
        config: &ForwardConfig,
        named: bool,
        challenge: HeaderValue,
        mut identities: Identities,
        build: &mut Build<'_>,
    ) -> Option<Self> {
        let before = build.errors();
        let url = remote::check_url("forward.url", &config.url, None, build);
        remote::check_timeout("forward.timeout", config.timeout, build);
        let mut sent = Vec::new();
        for (i, name) in config.request_headers.iter().enumerate() {
            let key = format!("forward.request_headers[{i}]");
            let Some(name) = edits::field(name, &key, build) else { continue };
            if OURS.contains(&name) {
                build.error(&key, format!("the gateway itself says what `{name}` is"));
            }
            sent.push(name);
        }
        // Mistakes in them were reported with what upstreams are told.
        let told: Vec<HeaderName> = config.response_headers.iter().filter_map(|name| name.parse().ok()).collect();
        for (i, name) in told.iter().enumerate() {
            if matches!(name.as_str(), "authorization" | "cookie") && !sent.contains(name) {
                build
                    .error(&format!("forward.response_headers[{i}]"), format!("no client could send `{name}` any more"))
                    .help("name it in request_headers as well");
            }
        }
        if let Some(groups) = &config.groups {
            identities.groups = build.or_report("forward.groups", Claim::parse(groups));
        }
        if !named {
            build
                .error("", "it is not said which field of the service's answer names the caller")
                .help("name it, in lower case: consumer = \"claims.x-user\"");
        }
        let name_of_caller = named.then_some(&identities.name);
        let groups = config.groups.as_ref().and(identities.groups.as_ref());
        for (key, claim) in [("consumer", name_of_caller), ("forward.groups", groups)] {
            let Some(claim) = claim.map(Claim::name) else { continue };
            if !told.iter().any(|name| name.as_str() == claim) {
                let known: Vec<&str> = told.iter().map(HeaderName::as_str).collect();
                build
                    .error(key, format!("`{claim}` is none of the response_headers, in lower case"))
                    .help(crate::build::suggestion("field", claim, &known));
            }
        }
        let longest: Duration = config.timeout.into();
        let made_of = build.node().get("forward").map(|node| build.fingerprint(node, &["ca"])).unwrap_or_default();
        let service = build.keep(&format!("auth.{name}"), made_of, |build| {
            let client = remote::client("forward.ca", config.ca.as_deref(), longest, LARGEST, build)?;
            Some(Service { client: client.keeping_connections(), health: Health::default() })
        });
        if build.errors() > before {
            return None;
        }
        Some(Self { name: name.into(), url: url?, sent, told, service: service?, challenge, identities })
    }

    /// Whether clients may send a field, because the service judges it.
    pub(super) fn takes(&self, name: &HeaderName) -> bool {
        self.sent.contains(name)
    }

    /// Asks the service. In a rehearsal nobody is asked.
    pub(super) async fn judge(&self, request: &RequestHeader, facts: &Facts) -> Judgement {
        if facts.rehearsal {
            return Judgement::Unknowable("nobody is asked in a rehearsal".into());
        }
        if self.sent.contains(&AUTHORIZATION) && request.headers.get_all(AUTHORIZATION).iter().nth(1).is_some() {
            return Judgement::Ambiguous("the request has more than one `Authorization`");
        }
        // Boxed, for it would be large in every request's future.
        let answer = Box::pin(self.service.client.exchange(self.question(request, facts))).await;
        let judged = answer.and_then(|answer| self.understand(&answer));
        self.service.health.note(&self.name, &judged);
        judged.unwrap_or_else(|error| {
            Judgement::Unknowable(format!("the service of the provider {} gives no answer: {error}", self.name).into())
        })
    }

    /// Takes out of the request what the service judged and may have exchanged for its own.
    pub(super) fn withhold(&self, request: &mut RequestHeader) {
        for name in self.told.iter().filter(|name| self.takes(name)) {
            request.remove_header(name);
        }
    }

    /// Who somebody with these claims would be.
    pub(super) fn assume(&self, claims: Map<String, Value>) -> Result<Arc<Consumer>, &'static str> {
        self.identities.of(claims)
    }

    fn question(&self, request: &RequestHeader, facts: &Facts) -> Request<Bytes> {
        let mut question = Request::new(Bytes::new());
        *question.uri_mut() = self.url.clone();
        let fields = question.headers_mut();
        for name in &self.sent {
            for value in request.headers.get_all(name) {
                fields.append(name.clone(), value.clone());
            }
        }
        let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
        let client = facts.client.to_string();
        for (name, value) in [
            (X_FORWARDED_METHOD, request.method.as_str()),
            (X_FORWARDED_PROTO, facts.scheme(request)),
            (X_FORWARDED_HOST, authority(request)),
            (X_FORWARDED_URI, target),
            (X_FORWARDED_FOR, &client),
        ] {
            if let Ok(value) = HeaderValue::from_str(value) {
                fields.insert(name, value);
            }
        }
        fields.insert(X_REQUEST_ID, facts.id.clone());
        question
    }

    /// What an answer means.
    fn understand(&self, answer: &Response<Bytes>) -> Result<Judgement, String> {
        let status = answer.status();
        let mut reply = match status.as_u16() {
            200..=299 => {
                let claims = self.claims(answer)?;
                return match self.identities.of(claims) {
                    Ok(consumer) => Ok(Judgement::Known(consumer)),
                    Err(_) => Err(format!("the status {status}, and nobody is named")),
                };
            }
            401 => Reply::unauthorized("the request was not let in"),
            403 => Reply::forbidden("the request was not let in"),
            301 | 302 | 303 | 307 | 308 if answer.headers().contains_key(LOCATION) => {
                Reply::new(status).with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
            }
            _ => return Err(format!("the status {status}")),
        };
        for name in [WWW_AUTHENTICATE, LOCATION, SET_COOKIE] {
            if name == LOCATION && !status.is_redirection() {
                continue;
            }
            for value in answer.headers().get_all(&name) {
                reply = reply.with(name.clone(), value.clone());
            }
        }
        if status == StatusCode::UNAUTHORIZED && !answer.headers().contains_key(WWW_AUTHENTICATE) {
            reply = reply.with(WWW_AUTHENTICATE, self.challenge.clone());
        }
        Ok(Judgement::Answered(Box::new(reply.because("the service does not let the request in"))))
    }

    /// What an answer says of the caller.
    fn claims(&self, answer: &Response<Bytes>) -> Result<Map<String, Value>, String> {
        let mut claims = Map::new();
        for name in &self.told {
            let values: Vec<&[u8]> = answer.headers().get_all(name).iter().map(HeaderValue::as_bytes).collect();
            if values.is_empty() {
                continue;
            }
            let text = String::from_utf8(values.join(&b", "[..])).map_err(|_| format!("its `{name}` is no text"))?;
            let groups = self.identities.groups.as_ref().is_some_and(|groups| groups.name() == name.as_str());
            let value = match groups {
                true => text.split(',').map(str::trim).filter(|group| !group.is_empty()).map(Value::from).collect(),
                false => Value::from(text),
            };
            claims.insert(name.as_str().to_owned(), value);
        }
        Ok(claims)
    }
}
