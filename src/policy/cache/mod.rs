//! `cache`: answers of the upstream are stored, and given again to requests like the one that they were given to, by the
//! rules of RFC 9111 for a cache that many share.
//!
//! ```toml
//! cache = {}                                                        # what the origin says
//! cache = { ttl = "60s", by = ["url", "consumer"] }
//! cache = { by = ["path", "query:page"], stale_while_revalidate = "30s", stale_if_error = "10m", tags = "Cache-Tag" }
//! ```
//!
//! What makes the key, beside the route and the upstream, is `by`:
//! - `url`, which is the default: scheme, host, path and query as they were sent.
//! - `path` and `query:NAME`: of the query only what is named, all its values in their order. The rest of the query is
//!   not sent to the upstream, so that nobody can store an answer to one query under the key of another.
//! - `header:NAME`: all lines of a field.
//! - `consumer`: who the caller is known to be.
//!
//! A route that knows its callers is not cached without `consumer` in the key, unless it says `across_callers = true`: then
//! what one caller is answered is given to every other who may use the route.
//!
//! Only GET and HEAD without a body are looked for. What is never stored: what the origin forbids, answers with
//! `Set-Cookie`, answers to requests with `Authorization` or cookies that are not in the key and that the origin does
//! not call public. `ttl` is in place of how long the origin says that an answer is fresh, not of whether it may be
//! stored.

use std::sync::Arc;
use std::time::Duration;

use http::header::{
    AUTHORIZATION, COOKIE, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderName, Method};
use pingora_http::RequestHeader;
use serde::Deserialize;

use super::{Policy, Scope};
use crate::build::Build;
use crate::cache::{Caller, Key, KeyBuilder, Resource, Rules, Zone};
use crate::facts::{Facts, authority, lower_host};
use crate::types::Timespan;

/// `cache` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    zone: Option<String>,
    ttl: Option<Timespan>,
    #[serde(default)]
    by: Vec<String>,
    stale_while_revalidate: Option<Timespan>,
    stale_if_error: Option<Timespan>,
    tags: Option<String>,
    #[serde(default)]
    heuristic: bool,
    #[serde(default = "yes")]
    request_directives: bool,
    #[serde(default)]
    across_callers: bool,
}

fn yes() -> bool {
    true
}

/// The compiled policy.
pub struct Cache {
    /// Where answers are stored.
    pub zone: Arc<Zone>,
    /// For how long they are used.
    pub rules: Rules,
    /// The field of an answer that has its tags.
    pub tags: Option<HeaderName>,
    by: Vec<Part>,
    /// What tells the keys of this policy from those of others: its route and what its keys are made of.
    prefix: Vec<u8>,
    across_callers: bool,
}

/// A part of the key.
#[derive(Debug, PartialEq, Eq, Clone)]
enum Part {
    Url,
    Path,
    Query(Box<str>),
    Header(HeaderName),
    Consumer,
}

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Under this key.
    pub key: Key,
    /// What it is.
    pub resource: Resource,
    /// For whom it would be stored.
    pub caller: Caller,
}

/// Fields that make some servers answer for another URL or in another way, and that no key has: they are not sent along
/// when an answer is fetched for all.
const MISLEADING: [&str; 13] = [
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-url",
    "x-rewrite-url",
];

impl Policy for Cache {
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        let mut by = Vec::new();
        for (i, text) in config.by.iter().enumerate() {
            match Part::parse(text) {
                Ok(part) if by.contains(&part) => {
                    build.error(&format!("by[{i}]"), format!("`{text}` is given twice"));
                }
                Ok(part) => by.push(part),
                Err(error) => drop(build.error(&format!("by[{i}]"), error)),
            }
        }
        let names = |part: &Part| matches!(part, Part::Path | Part::Query(_));
        if by.is_empty() {
            by.push(Part::Url);
        } else if by.contains(&Part::Url) && by.iter().any(names) {
            build
                .error("by", "`url` has the path and the whole query already")
                .help("leave out `url`, or the parts of it");
        } else if !by.contains(&Part::Url) && !by.contains(&Part::Path) {
            build
                .error("by", "the answers of all URLs would be stored under one key")
                .help("add \"url\", or \"path\" to leave out the query or parts of it");
        }
        if scope.authenticated && !by.contains(&Part::Consumer) && !config.across_callers {
            build.error("", "the route knows its callers, and what one is answered would be given to the others").help(
                "add \"consumer\" to `by`; or, if all who may use the route may see the same, `across_callers = true`",
            );
        }
        if config.across_callers && by.contains(&Part::Consumer) {
            build.error("across_callers", "with \"consumer\" in `by` no answer goes from one caller to another");
        }
        let tags = config.tags.as_deref().and_then(|name| match name.parse::<HeaderName>() {
            Ok(name) => Some(name),
            Err(_) => {
                build.error("tags", format!("`{name}` is not the name of a header field"));
                None
            }
        });
        let zone = scope.zones.find(config.zone.as_deref(), build);
        if build.errors() > before {
            return None;
        }
        let mut prefix = KeyBuilder::default();
        prefix.add(b'R', scope.route.as_bytes());
        prefix.add(b'B', format!("{by:?}").as_bytes());
        let rules = Rules {
            ttl: config.ttl.map(|ttl| ttl.0),
            stale_while_revalidate: config.stale_while_revalidate.map_or(Duration::ZERO, |time| time.0),
            stale_if_error: config.stale_if_error.map_or(Duration::ZERO, |time| time.0),
            heuristic: config.heuristic,
            request_directives: config.request_directives,
        };
        let across_callers = config.across_callers;
        Some(Self { zone: zone?, rules, tags, by, prefix: prefix.into_bytes(), across_callers })
    }
}

impl Cache {
    /// Whether a request is one that answers are looked for.
    pub fn takes(request: &RequestHeader, facts: &Facts, has_body: bool) -> bool {
        matches!(request.method, Method::GET | Method::HEAD) && !has_body && !facts.streaming
    }

    /// What is looked for to answer a request, which goes to this upstream.
    pub fn wanted(&self, request: &RequestHeader, facts: &Facts, upstream: &str) -> Wanted {
        let (host, path) = (lower_host(request), request.uri.path());
        // With its port, for upstreams are told that too.
        let authority = authority(request).to_ascii_lowercase();
        let query = self.query(request);
        let mut key = KeyBuilder::from(self.prefix.clone());
        key.add(b'U', upstream.as_bytes());
        key.add(b's', facts.scheme(request).as_bytes());
        key.add(b'h', authority.as_bytes());
        key.add(b'p', path.as_bytes());
        key.add(b'q', query.as_bytes());
        let mut mine = false;
        for part in &self.by {
            match part {
                Part::Url | Part::Path | Part::Query(_) => {}
                Part::Header(name) => key.add_field(b'f', &request.headers, name),
                Part::Consumer => {
                    mine = facts.consumer.is_some();
                    if let Some(consumer) = &facts.consumer {
                        key.add(b'c', consumer.name.as_bytes());
                    }
                }
            }
        }
        let has = |name: HeaderName| request.headers.contains_key(&name) && !self.by.contains(&Part::Header(name));
        let caller = match () {
            () if mine || self.across_callers => Caller::Anyone,
            () if has(AUTHORIZATION) => Caller::Authorized,
            () if has(COOKIE) => Caller::Cookies,
            () => Caller::Anyone,
        };
        let resource = Resource { host: (*host).into(), path: path.into(), query: query.into() };
        Wanted { key: key.finish(), resource, caller }
    }

    /// The request that fetches an answer for all who want it: the whole of it, whatever the client has already, and
    /// without what the key does not have and may mislead the upstream.
    pub fn fetch(&self, request: &RequestHeader) -> RequestHeader {
        let mut fetch = request.clone();
        fetch.set_method(Method::GET);
        for name in [RANGE, IF_RANGE, IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE] {
            fetch.remove_header(&name);
        }
        for name in MISLEADING {
            let keyed = |part: &Part| matches!(part, Part::Header(header) if header == name);
            if !self.by.iter().any(keyed) {
                fetch.remove_header(name);
            }
        }
        if !self.by.contains(&Part::Url) {
            let query = self.query(request);
            let path = request.uri.path();
            let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
            let mut parts = fetch.uri.clone().into_parts();
            parts.path_and_query = target.parse().ok();
            if let Ok(uri) = http::Uri::from_parts(parts) {
                fetch.set_uri(uri);
            }
        }
        fetch
    }

    /// What of the query is in the key, as the upstream gets it.
    fn query(&self, request: &RequestHeader) -> String {
        let query = request.uri.query().unwrap_or("");
        if self.by.contains(&Part::Url) {
            return query.to_owned();
        }
        let mut kept = String::new();
        for part in &self.by {
            let Part::Query(name) = part else { continue };
            for pair in query.split('&') {
                let own = pair.split_once('=').map_or(pair, |(name, _)| name);
                let own = form_urlencoded::parse(own.as_bytes()).next().map(|(name, _)| name).unwrap_or_default();
                if own == **name {
                    if !kept.is_empty() {
                        kept.push('&');
                    }
                    kept.push_str(pair);
                }
            }
        }
        kept
    }
}

impl Part {
    fn parse(text: &str) -> Result<Self, String> {
        const KNOWN: [&str; 5] = ["url", "path", "query:NAME", "header:NAME", "consumer"];
        match (text, text.split_once(':')) {
            ("url", _) => Ok(Self::Url),
            ("path", _) => Ok(Self::Path),
            ("consumer", _) => Ok(Self::Consumer),
            (_, Some(("query", name))) if !name.is_empty() => Ok(Self::Query(name.into())),
            (_, Some(("header", name))) => {
                name.parse().map(Self::Header).map_err(|_| format!("`{name}` is not the name of a header field"))
            }
            _ => Err(format!("a key cannot have `{text}`: {}", crate::build::suggestion("part", text, &KNOWN))),
        }
    }
}
