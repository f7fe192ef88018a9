//! `graphql_guard`: what clients may ask of a GraphQL server.
//!
//! ```toml
//! graphql_guard = { max_depth = 10, max_cost = 1000, costs = { search = 20 } }
//! graphql_guard = { allow = ["operations"] }
//! ```
//!
//! The upstream gets the body as it came, but for a persisted query that the gateway knows and the request only names. What
//! two readers could understand in two ways is refused. The schema is not known here: that fields exist and that arguments fit
//! is the server's to say. Subscriptions over WebSockets do not pass a route that looks at bodies.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use pingora_http::RequestHeader;
use serde::Deserialize;
use serde_json::json;

use super::{Policy, Scope, Terms, Verdict};
use crate::body::graphql::{Ask, Batch, Document, Kind, Limits, Wrong};
use crate::body::media::{essence, parameters};
use crate::body::{Held, Sends, charset};
use crate::build::Build;
use crate::facts::Facts;
use crate::reply::Reply;
use crate::types::{file, unhex};

/// `graphql_guard` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    max_depth: Option<u32>,
    max_cost: Option<u64>,
    costs: BTreeMap<String, u64>,
    multipliers: Vec<String>,
    max_aliases: usize,
    max_directives: usize,
    max_batch: usize,
    introspection: bool,
    allow: Option<Vec<String>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_depth: None,
            max_cost: None,
            costs: BTreeMap::new(),
            multipliers: ["first", "last", "limit"].map(str::to_owned).into(),
            max_aliases: 50,
            max_directives: 50,
            max_batch: 1,
            introspection: false,
            allow: None,
        }
    }
}

/// The compiled policy.
pub struct GraphqlGuard {
    limits: Limits,
    max_batch: usize,
    /// The documents that are allowed by their hash, if only some are, with their text where that is known.
    allowed: Option<HashMap<[u8; 32], Option<Arc<str>>>>,
}

impl Policy for GraphqlGuard {
    type Config = Config;

    fn compile(config: Config, _: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        if config.max_depth.is_some_and(|depth| !(1..=100).contains(&depth)) {
            build.error("max_depth", "a depth is from 1 to 100");
        }
        for (key, none) in [("max_cost", config.max_cost == Some(0)), ("max_batch", config.max_batch == 0)] {
            if none {
                build.error(key, "with 0 nothing would be let through");
            }
        }
        let allowed = config.allow.as_ref().map(|entries| {
            let mut allowed = HashMap::new();
            if entries.is_empty() {
                build.error("allow", "nothing would be let through");
            }
            for (i, entry) in entries.iter().enumerate() {
                if let Err(what) = allow(entry, &mut allowed, build) {
                    build.error(&format!("allow[{i}]"), what);
                }
            }
            allowed
        });
        let limits = Limits {
            max_depth: config.max_depth,
            max_cost: config.max_cost,
            costs: config.costs.iter().map(|(name, cost)| (name.as_str().into(), *cost)).collect(),
            multipliers: config.multipliers.iter().map(|name| name.as_str().into()).collect(),
            max_aliases: config.max_aliases,
            max_directives: config.max_directives,
            introspection: config.introspection,
        };
        (build.errors() == before).then_some(Self { limits, max_batch: config.max_batch, allowed })
    }

    fn settle(&self, terms: &mut Terms) {
        terms.holds_body = true;
    }

    fn body(&self, held: &mut Held, request: &RequestHeader, _: &mut Facts) -> Verdict {
        let in_query = Ask::of_query(request.uri.query().unwrap_or_default()).map_err(refused)?;
        match request.method {
            Method::OPTIONS => Ok(()),
            Method::GET => {
                if !held.is_empty() {
                    return Err(refused("a GET has no body"));
                }
                let ask = in_query.ok_or_else(|| refused("there is no `query`"))?;
                if let Checked::Named(text) = self.check(&ask, true)?.0 {
                    send(&text, &ask, held, request);
                }
                Ok(())
            }
            Method::POST => {
                if in_query.is_some() {
                    return Err(refused("a POST has its request in the body, and no part of it in the target"));
                }
                self.posted(held, request)
            }
            _ => Err(Reply::method_not_allowed("GraphQL is asked by GET and POST").allow("GET, POST")),
        }
    }
}

/// What became of one request.
enum Checked {
    /// It has its document.
    Whole,
    /// It names one of these.
    Named(Arc<str>),
}

impl GraphqlGuard {
    fn posted(&self, held: &mut Held, request: &RequestHeader) -> Verdict {
        let media = held.content_type().and_then(|media| media.to_str().ok()).unwrap_or_default();
        let utf8 =
            parameters(media).is_some() && charset(media).is_none_or(|charset| charset.eq_ignore_ascii_case("utf-8"));
        if !essence(media.as_bytes()).eq_ignore_ascii_case(b"application/json") || !utf8 {
            return Err(Reply::unsupported_media_type("the body is to be application/json, in UTF-8"));
        }
        let content = held.content()?;
        let batch = Batch::read(&content).map_err(|malformed| refused(format!("the body: {malformed}")))?;
        let (asks, batched) = batch.asks().map_err(refused)?;
        if asks.is_empty() || asks.len() > self.max_batch {
            return Err(refused(format!("a batch has from 1 to {} requests", self.max_batch)));
        }
        let mut cost = 0_u64;
        let mut named = None;
        for ask in &asks {
            let (checked, costs) = self.check(ask, false)?;
            cost = cost.saturating_add(costs);
            match checked {
                Checked::Whole => {}
                Checked::Named(_) if batched => return Err(refused("a batch has documents, not only their hashes")),
                Checked::Named(text) => named = Some((text, ask)),
            }
        }
        if let Some(most) = self.limits.max_cost.filter(|most| cost > *most) {
            return Err(refused(format!("the batch costs {cost}, {most} is allowed")));
        }
        if let Some((text, ask)) = named {
            send(&text, ask, held, request);
        }
        Ok(())
    }

    /// Checks a request; gives what it costs.
    fn check(&self, ask: &Ask<'_>, by_get: bool) -> Result<(Checked, u64), Reply> {
        let given = ask.hash().map(|hash| unhex::<32>(&hash).ok_or_else(|| refused("the hash is no SHA-256")));
        let given = given.transpose()?;
        let (text, checked): (Cow<'_, str>, _) = match (&ask.query, given) {
            (Some(query), hash) => {
                let own = sha256(query);
                if hash.is_some_and(|hash| hash != own) {
                    return Err(refused("the hash is not that of the document"));
                }
                if self.allowed.as_ref().is_some_and(|allowed| !allowed.contains_key(&own)) {
                    return Err(refused("the document is not one of those that are allowed"));
                }
                (query.as_ref().into(), Checked::Whole)
            }
            (None, Some(hash)) => match self.allowed.as_ref().map(|allowed| allowed.get(&hash)) {
                Some(Some(Some(text))) => (text.to_string().into(), Checked::Named(text.clone())),
                // Its hash is all that is known: the server knows it, or does not.
                Some(Some(None)) => return Ok((Checked::Whole, 0)),
                Some(None) | None => return Err(not_found()),
            },
            (None, None) => return Err(refused("there is no `query`")),
        };
        let told = |wrong: Wrong| refused_at(&wrong, &text);
        let document = Document::read(&text).map_err(told)?;
        let operation = document.operation(ask.operation.as_deref()).map_err(told)?;
        if by_get && operation.kind != Kind::Query {
            return Err(refused("what a GET asks for is a query"));
        }
        let weight = document.weigh(operation, &self.limits, &ask.amounts()).map_err(told)?;
        Ok((checked, weight.cost))
    }
}

/// Puts the document into a request that only names it.
fn send(text: &str, ask: &Ask<'_>, held: &mut Held, request: &RequestHeader) {
    let mut body = format!("{{\"query\":{}", serde_json::Value::from(text));
    if let Some(name) = &ask.operation {
        body.push_str(&format!(",\"operationName\":{}", serde_json::Value::from(&**name)));
    }
    for (name, json) in [("variables", &ask.variables), ("extensions", &ask.extensions)] {
        if let Some(json) = json {
            body.push_str(&format!(",\"{name}\":{json}"));
        }
    }
    body.push('}');
    held.becomes(
        body.into(),
        Sends {
            content_type: Some(HeaderValue::from_static("application/json")),
            method: (request.method != Method::POST).then_some(Method::POST),
            target: request.uri.path().parse().ok(),
        },
    );
}

/// Takes documents by a file, a folder of files, or a hash.
fn allow(entry: &str, allowed: &mut HashMap<[u8; 32], Option<Arc<str>>>, build: &mut Build<'_>) -> Result<(), String> {
    if let Some(hash) = entry.strip_prefix("sha256:") {
        let hash = unhex::<32>(hash).ok_or("a hash has 64 hexadecimal digits")?;
        allowed.entry(hash).or_default();
        return Ok(());
    }
    let path = build.path(Path::new(entry));
    let mut files = vec![path.clone()];
    if path.is_dir() {
        let entries = std::fs::read_dir(&path).map_err(|error| file::unreadable(&path, &error))?;
        files = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|file| file.extension().is_some_and(|end| end == "graphql" || end == "gql"));
        files.sort();
        if files.is_empty() {
            return Err(format!("{} has no files that end in `.graphql` or `.gql`", path.display()));
        }
    }
    for path in files {
        let text = file::read_text(&path)?;
        if let Err(wrong) = Document::read(&text) {
            let (line, column) = wrong.location(&text).unwrap_or((1, 1));
            return Err(format!("{}:{line}:{column}: {wrong}", path.display()));
        }
        // What an editor puts at the end is not sent.
        for text in [text.as_str(), text.trim()] {
            allowed.insert(sha256(text), Some(text.into()));
        }
    }
    Ok(())
}

fn sha256(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    hash
}

fn refused(wrong: impl Into<Refused>) -> Reply {
    let Refused(detail) = wrong.into();
    let errors = json!([{ "message": &detail }]);
    Reply::graphql_refused(detail).and("errors", errors)
}

fn refused_at(wrong: &Wrong, document: &str) -> Reply {
    let Some((line, column)) = wrong.location(document) else { return refused(wrong.what.to_string()) };
    let errors = json!([{ "message": wrong.what, "locations": [{ "line": line, "column": column }] }]);
    Reply::graphql_refused(format!("{}, at line {line}, column {column}", wrong.what)).and("errors", errors)
}

/// Why a request is refused.
struct Refused(Cow<'static, str>);

impl From<&'static str> for Refused {
    fn from(text: &'static str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Refused {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<Wrong> for Refused {
    fn from(wrong: Wrong) -> Self {
        Self(wrong.what)
    }
}

/// What clients of automatic persisted queries take as the word to send the document.
fn not_found() -> Reply {
    let mut reply =
        Reply::new(StatusCode::OK).with(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    reply.body = Bytes::from_static(
        br#"{"errors":[{"message":"PersistedQueryNotFound","extensions":{"code":"PERSISTED_QUERY_NOT_FOUND"}}]}"#,
    );
    reply
}
