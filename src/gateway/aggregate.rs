//! `aggregate`: one answer that is put together of those of several upstreams.
//!
//! ```toml
//! [[route]]
//! match = "GET /dashboard/{id}"
//! [route.aggregate]
//! deadline = "800ms"
//! part.user    = { upstream = "users", path = "/users/{id}" }
//! part.billing = { upstream = "billing", path = "/accounts/{user.account}", optional = true, fallback = { state = "unknown" } }
//! part.prices  = { upstream = "catalog", path = "/prices/{each.sku}", each = "billing.items", at_once = 4 }
//! compose      = "{ name: .user.name, balance: .billing.balance }"
//! ```
//!
//! Parts are asked at once, save that one which names another's answer (`{user.account}`) waits for it. A part is a request
//! like any other: its `path`, `host`, `query` and `headers` are those of the policy `request`, and `response`, `timeout`
//! and `retry` are policies too. It goes with the header fields of the client's request, without a body unless it has
//! one of its own.
//!
//! Here is what the file says; the proxy asks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Destination, Route, Routes};
use crate::body::jq::Program;
use crate::build::{Build, Entry, Node, Table, Value, suggestion};
use crate::policy::{Chain, JsonTemplate, Scope, effective, json};
use crate::types::template::{Names, Template, Variable};
use crate::types::{Size, Timespan};

/// One answer out of several.
pub struct Aggregate {
    /// The parts, in the order of the file.
    pub parts: Box<[Part]>,
    /// How long all of them may take.
    pub deadline: Duration,
    /// How they are put together.
    pub compose: Compose,
}

/// How parts are put together.
pub enum Compose {
    /// As the members of an object, by name.
    Names,
    /// Objects into one, in the order of the file: what is said later takes the place of what was said before.
    Merge,
    /// By a program, which gets the object of [`Compose::Names`].
    Jq(Box<Program>),
}

/// One of the answers.
pub struct Part {
    /// Its name.
    pub name: Box<str>,
    /// Where its requests go and how they are shaped: a route that no request finds by itself.
    pub route: Arc<Route>,
    /// The method of its requests.
    pub method: Method,
    /// Their body.
    pub body: PartBody,
    /// The parts that must be there before.
    pub after: Box<[usize]>,
    /// What of other parts must be there.
    pub needs: Box<[(usize, Box<str>)]>,
    /// Whether the answer may go without it.
    pub optional: bool,
    /// What stands in its place then: a JSON text.
    pub fallback: Option<Bytes>,
    /// It is asked once for each element of another's array.
    pub each: Option<Each>,
    /// Bytes that an answer may have.
    pub most: u64,
}

/// The body of a part's requests.
pub enum PartBody {
    /// None.
    None,
    /// That of the client's request.
    Clients,
    /// This.
    Json(JsonTemplate),
}

/// The array that a part is asked for each element of.
pub struct Each {
    /// Whose answer has it.
    pub part: usize,
    /// Where, as a dotted path.
    pub path: Box<str>,
    /// How many are asked for at once.
    pub at_once: usize,
    /// Elements of the array at most.
    pub most: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default = "long")]
    deadline: Timespan,
    #[serde(rename = "part")]
    _part: IgnoredAny,
    compose: Option<String>,
}

fn long() -> Timespan {
    Timespan(Duration::from_secs(10))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartConfig {
    upstream: String,
    method: Option<String>,
    #[serde(default, rename = "body")]
    _body: Option<IgnoredAny>,
    #[serde(default)]
    optional: bool,
    #[serde(default, rename = "fallback")]
    _fallback: Option<IgnoredAny>,
    each: Option<String>,
    #[serde(default = "several")]
    at_once: usize,
    #[serde(default = "many")]
    most: usize,
    #[serde(default = "much")]
    max_answer: Size,
}

fn several() -> usize {
    8
}

fn many() -> usize {
    100
}

fn much() -> Size {
    Size::kib(1 << 10)
}

/// Keys of a part that are its own.
const OWN: [&str; 9] = ["upstream", "method", "body", "optional", "fallback", "each", "at_once", "most", "max_answer"];
/// Keys of a part that are those of the policy `request`.
const REQUEST: [&str; 4] = ["path", "host", "query", "headers"];
/// Keys of a part that are policies.
const POLICIES: [&str; 3] = ["response", "timeout", "retry"];
/// Parts at most.
const MOST_PARTS: usize = 32;
/// Elements that a part may be asked for at most.
const MOST_EACH: usize = 10_000;
/// The element of an array that a part is asked for.
const EACH: &str = "each";

impl Routes<'_> {
    /// Compiles the `aggregate` of a route; `None` after every mistake in it was reported.
    pub(super) fn aggregate(
        &mut self,
        node: &Node,
        layers: &[&Node],
        scope: &Scope<'_>,
        build: &mut Build<'_>,
    ) -> Option<Aggregate> {
        build.within_detached(node, |build| {
            let before = build.errors();
            let config: Config = build.deserialize()?;
            let table = node.get("part").map(Node::in_order).unwrap_or_default();
            if table.is_empty() || table.len() > MOST_PARTS {
                build.error("part", format!("an aggregate has 1 to {MOST_PARTS} parts"));
            }
            if config.deadline.0.is_zero() {
                build.error("deadline", "in no time there is no answer");
            }
            // The element that a part is asked for comes after all parts.
            let names: Vec<Box<str>> =
                table.iter().map(|(name, _)| Box::from(*name)).chain([Box::from(EACH)]).collect();
            let auth = effective("auth", layers);
            let mut parts = Vec::new();
            for (name, entry) in &table {
                let names = Names { parts: &names, ..scope.names() };
                let part = build.within_detached(&entry.node, |build| {
                    self.part(name, &entry.node, auth.as_ref(), names, scope, build)
                });
                parts.extend(part);
            }
            if build.errors() > before {
                return None;
            }
            if let Some(part) = circle(&parts) {
                build.within_detached(&table[part].1.node, |build| {
                    build.error("", "the part waits for itself, by way of the parts that it names");
                });
            }
            let compose = match config.compose.as_deref() {
                None => Compose::Names,
                Some("merge") => Compose::Merge,
                Some(program) => match Program::compile(program, &[]) {
                    Ok(program) => Compose::Jq(Box::new(program)),
                    Err(error) => {
                        build.error("compose", error);
                        return None;
                    }
                },
            };
            let whole = build.errors() == before;
            whole.then(|| Aggregate { parts: parts.into(), deadline: config.deadline.0, compose })
        })
    }

    fn part(
        &mut self,
        name: &str,
        node: &Node,
        auth: Option<&Node>,
        names: Names<'_>,
        scope: &Scope<'_>,
        build: &mut Build<'_>,
    ) -> Option<Part> {
        let before = build.errors();
        let Some(table) = node.table() else {
            build.error("", format!("a part is a table, found {}", node.value));
            return None;
        };
        let taken = name == EACH || Template::parse_with(&format!("{{{name}}}"), Names { parts: &[], ..names }).is_ok();
        if taken || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
            build
                .error("", format!("a part cannot have the name `{name}`"))
                .help("names have letters, digits, `_` and `-`, and are not those of variables");
        }
        let (mut own, mut request, mut policies) = (Table::new(), Table::new(), Table::new());
        for (key, entry) in table {
            let into = match key.as_str() {
                key if OWN.contains(&key) => &mut own,
                key if REQUEST.contains(&key) => &mut request,
                key if POLICIES.contains(&key) => &mut policies,
                _ => {
                    let known: Vec<&str> = OWN.iter().chain(&REQUEST).chain(&POLICIES).copied().collect();
                    let at = Node { place: entry.key, value: Value::Boolean(true) };
                    build.within_detached(&at, |build| {
                        build.error("", format!("`{key}` is not known here")).help(suggestion("key", key, &known));
                    });
                    continue;
                }
            };
            into.insert(key.clone(), entry.clone());
        }
        let table_at = |value| Node { place: node.place, value: Value::Table(value) };
        policies.insert("request".to_owned(), Entry { key: node.place, node: table_at(request) });
        // It tells the upstream who asks.
        if let Some(auth) = auth {
            policies.insert("auth".to_owned(), Entry { key: auth.place, node: auth.clone() });
        }
        let config: PartConfig = build.within_detached(&table_at(own), |build| build.deserialize())?;
        let layer = table_at(policies);
        let scope = Scope { parts: names.parts, layers: &["route"], ..*scope };
        let chain = Chain::compile(&[&layer], &scope, self.meter, build);
        let pool = self.pool("upstream", &config.upstream, build);
        let method = match config.method.as_deref().unwrap_or("GET").parse::<Method>() {
            Ok(method @ (Method::GET | Method::POST | Method::PUT | Method::PATCH | Method::DELETE)) => method,
            _ => {
                build.error("method", "a part is asked by GET, POST, PUT, PATCH or DELETE");
                Method::GET
            }
        };
        let body = match node.get("body") {
            None => PartBody::None,
            Some(body) if body.str() == Some("client") => PartBody::Clients,
            Some(body) if body.table().is_some() || matches!(body.value, Value::Array(_)) => {
                PartBody::Json(JsonTemplate::compile(body, names, build)?)
            }
            Some(_) => {
                build.error("body", "a body is a table, an array, or \"client\" for that of the client's request");
                PartBody::None
            }
        };
        let each = config.each.as_deref().and_then(|each| {
            let (part, path) = each.split_once('.').unwrap_or((each, ""));
            let Some(part) = names.parts.iter().position(|known| **known == *part && part != EACH) else {
                build.unknown(
                    "each",
                    "part",
                    part,
                    names.parts.iter().map(|name| &**name).filter(|name| *name != EACH),
                );
                return None;
            };
            if config.at_once == 0 || !(1..=MOST_EACH).contains(&config.most) {
                build.error("each", format!("at least one is asked for at once, and at most {MOST_EACH} in all"));
            }
            Some(Each { part, path: path.into(), at_once: config.at_once, most: config.most })
        });
        if config.fallback_without_need(node) {
            build
                .error("fallback", "the part is required, so nothing ever stands in its place")
                .help("add `optional = true`");
        }
        let mut needs = Vec::new();
        mentioned(node, names, &mut needs);
        let own_position = names.parts.iter().position(|known| **known == *name);
        let element = names.parts.len() - 1;
        if each.is_none() && needs.iter().any(|(part, _)| *part == element) {
            build.error("", "`{each}` is the element that a part with `each` is asked for").help("add `each`");
        }
        needs.sort();
        needs.dedup();
        let mut after: Vec<usize> = needs.iter().map(|(part, _)| *part).filter(|part| *part != element).collect();
        after.extend(each.as_ref().map(|each| each.part));
        after.sort_unstable();
        after.dedup();
        if own_position.is_some_and(|own| after.contains(&own)) {
            build.error("", "the part waits for itself");
        }
        let (chain, pool) = (chain?, pool?);
        if build.errors() > before {
            return None;
        }
        let label: Arc<str> = format!("{} part {name}", scope.route).into();
        let route = Route {
            matches: label.clone(),
            pattern: "".into(),
            api: None,
            chain,
            destination: Destination::Upstream(pool),
            mirror: None,
            counts: self.meter.route(scope.route),
            made_of: Box::default(),
            name: label,
        };
        Some(Part {
            name: name.into(),
            route: Arc::new(route),
            method,
            body,
            after: after.into(),
            needs: needs.into(),
            optional: config.optional,
            fallback: node.get("fallback").map(|node| json(node).to_string().into()),
            each,
            most: config.max_answer.0,
        })
    }
}

impl PartConfig {
    fn fallback_without_need(&self, node: &Node) -> bool {
        node.get("fallback").is_some() && !self.optional
    }
}

/// What of other parts the texts at a node and below it mention.
fn mentioned(node: &Node, names: Names<'_>, found: &mut Vec<(usize, Box<str>)>) {
    match &node.value {
        Value::String(text) => {
            let template = Template::parse_with(text, names).ok();
            found.extend(template.iter().flat_map(Template::variables).filter_map(|variable| match variable {
                Variable::Part(part, path) => Some((*part, path.clone())),
                _ => None,
            }));
        }
        Value::Array(elements) => elements.iter().for_each(|element| mentioned(element, names, found)),
        Value::Table(table) => {
            // A program in `response` is no text with variables.
            let texts = table.iter().filter(|(key, _)| !matches!(key.as_str(), "response" | "fallback"));
            texts.for_each(|(_, entry)| mentioned(&entry.node, names, found));
        }
        _ => {}
    }
}

/// A part that waits for itself by way of others.
fn circle(parts: &[Part]) -> Option<usize> {
    let mut done = vec![false; parts.len()];
    loop {
        let ready = |part: &Part, done: &[bool]| part.after.iter().all(|before| done[*before]);
        let next = (0..parts.len()).find(|i| !done[*i] && ready(&parts[*i], &done));
        match next {
            Some(next) => done[next] = true,
            None => return done.iter().position(|done| !done),
        }
    }
}
