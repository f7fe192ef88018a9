//! `cors`: tells browsers which pages of other origins may use the route (Fetch standard, "HTTP CORS protocol").
//!
//! ```toml
//! cors = { origins = ["https://app.example.com", "https://*.example.com"], headers = ["Authorization"], expose = ["X-Total"], credentials = true, max_age = "10m" }
//! ```
//!
//! Preflight requests are answered here, before anybody is asked who they are: they carry no credentials. A preflight
//! goes to the route of the request that it announces, see `admit`. Every answer of the route says whom it is for, the
//! gateway's own errors too; what the upstream says of it is replaced.
//!
//! CORS protects users of browsers, not the upstream: requests of other origins are not refused, their pages just
//! cannot read the answer.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use pingora_http::{RequestHeader, ResponseHeader};
use serde::Deserialize;

use self::origins::Origins;
use super::{Policy, Scope, Verdict};
use crate::build::Build;
use crate::facts::Facts;
use crate::reply::Reply;
use crate::types::Timespan;

mod origins;

/// `cors` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    origins: origins::Config,
    methods: Option<Vec<String>>,
    headers: Option<Vec<String>>,
    #[serde(default)]
    expose: Vec<String>,
    #[serde(default)]
    credentials: bool,
    max_age: Option<Timespan>,
}

/// The compiled policy.
pub struct Cors {
    origins: Origins,
    /// `None` allows what is asked for.
    methods: Option<HeaderValue>,
    /// `None` allows what is asked for.
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: Option<HeaderValue>,
}

/// What an answer depends on: caches keep it apart by this.
const VARY_ACTUAL: HeaderValue = HeaderValue::from_static("Origin");
const VARY_PREFLIGHT: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// The method of the request that a preflight announces; `None` if it is not one.
pub fn preflight(request: &RequestHeader) -> Option<Method> {
    if request.method != Method::OPTIONS || !request.headers.contains_key(ORIGIN) {
        return None;
    }
    Method::from_bytes(request.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()
}

impl Policy for Cors {
    type Config = Config;

    const ANSWERS_PREFLIGHTS: bool = true;

    fn compile(config: Config, _scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        let origins = Origins::compile(&config.origins, build);
        if config.credentials && matches!(origins, Some(Origins::Any)) {
            build
                .error("credentials", "with `origins = \"*\"` every page could use its visitors' credentials")
                .help("name the origins; browsers refuse the two together as well");
        }
        let methods = config.methods.map(|methods| list("methods", &methods, is_method, "a method", build));
        let headers = config.headers.map(|headers| list("headers", &headers, is_name, "a header field", build));
        let expose = match config.expose.is_empty() {
            true => None,
            false => Some(list("expose", &config.expose, is_name, "a header field", build)),
        };
        let max_age = config.max_age.map(|age| HeaderValue::from(age.0.as_secs()));
        let credentials = config.credentials;
        (build.errors() == before).then_some(Self { origins: origins?, methods, headers, expose, credentials, max_age })
    }

    async fn request(&self, request: &mut RequestHeader, _facts: &mut Facts) -> Verdict {
        let Some(method) = preflight(request) else { return Ok(()) };
        if self.allowed(request).is_none() {
            return Err(Reply::forbidden("pages of this origin may not use this").because("the origin is not allowed"));
        }
        let mut reply = Reply::new(StatusCode::NO_CONTENT);
        let methods = self.methods.clone().or_else(|| HeaderValue::from_str(method.as_str()).ok());
        let asked = request.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        let headers = self.headers.clone().or_else(|| asked.filter(|asked| is_list(asked)).cloned());
        for (name, value) in [
            (ACCESS_CONTROL_ALLOW_METHODS, methods),
            (ACCESS_CONTROL_ALLOW_HEADERS, headers.filter(|headers| !headers.is_empty())),
            (ACCESS_CONTROL_MAX_AGE, self.max_age.clone()),
        ] {
            if let Some(value) = value {
                reply = reply.with(name, value);
            }
        }
        Err(reply)
    }

    fn response(&self, head: &mut ResponseHeader, request: &RequestHeader, _facts: &Facts) {
        for name in [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_EXPOSE_HEADERS] {
            head.remove_header(&name);
        }
        let preflight = preflight(request).is_some();
        match (preflight, &self.origins) {
            (true, _) => drop(head.append_header(VARY, VARY_PREFLIGHT)),
            (false, Origins::Any) => {}
            (false, Origins::These { .. }) => vary_by_origin(head),
        }
        let Some(origin) = self.allowed(request) else { return };
        let _ = head.insert_header(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            let _ = head.insert_header(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        if let (false, Some(expose)) = (preflight, &self.expose) {
            let _ = head.insert_header(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}

impl Cors {
    /// What `Access-Control-Allow-Origin` says to this request. Who sends two origins has none.
    fn allowed(&self, request: &RequestHeader) -> Option<HeaderValue> {
        let mut sent = request.headers.get_all(ORIGIN).iter();
        let (origin, None) = (sent.next()?, sent.next()) else { return None };
        match &self.origins {
            Origins::Any => Some(ANY),
            these => these.contains(origin.as_bytes()).then(|| origin.clone()),
        }
    }
}

fn vary_by_origin(head: &mut ResponseHeader) {
    let names = |value: &HeaderValue| {
        let names = value.to_str().unwrap_or("").split(',').map(str::trim);
        names.into_iter().any(|name| name == "*" || name.eq_ignore_ascii_case("origin"))
    };
    if !head.headers.get_all(VARY).iter().any(names) {
        let _ = head.append_header(VARY, VARY_ACTUAL);
    }
}

/// A list of names as the value of a field. Of one with mistakes, which are reported, nobody gets to see it.
fn list(key: &str, names: &[String], fine: fn(&str) -> bool, what: &str, build: &mut Build<'_>) -> HeaderValue {
    for (i, name) in names.iter().enumerate().filter(|(_, name)| !fine(name)) {
        let at = format!("{key}[{i}]");
        match name == "*" {
            true => build
                .error(&at, format!("`{key}` is a list of names, without `*`"))
                .help("leave it out to allow whatever a page asks for"),
            false => build.error(&at, format!("`{name}` is not the name of {what}")),
        };
    }
    HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static(""))
}

fn is_method(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase())
}

fn is_name(name: &str) -> bool {
    name != "*" && name.parse::<HeaderName>().is_ok()
}

/// What a browser asks for: names of fields, with commas.
fn is_list(value: &HeaderValue) -> bool {
    value.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~, ".contains(b))
}
