//! `portcullis explain`: what the gateway would do with a request, and why.
//!
//! ```text
//! portcullis explain 'GET https://api.example.com/users/7' --config portcullis.toml -H 'Accept: text/html'
//! ```
//!
//! The file is asked, or with `--live` the running gateway, by `POST /explain` of its admin interface. Both go through
//! the same functions and give the same answer: the route and where it stands, the routes that came near, the policies
//! with the place that each of their settings comes from, and the answer or what an upstream would be sent.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::rehearse::{Question, Rehearsed, wait};
use super::{plan, reload};
use crate::build::{Build, Node, Value};
use crate::config::{self, Loaded};
use crate::gateway::origin::{self, Layer, Merged, Served};
use crate::gateway::{Gateway, Route};
use crate::http1::write_field;
use crate::proxy::{End, Outcome};
use crate::server::listener::ListenerSpec;
use crate::upstream::{Health, Pool};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The request, such as 'GET /users/7' or 'GET https://api.example.com/users/7'
    request: String,
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = "/etc/portcullis/portcullis.toml")]
    config: PathBuf,
    /// A header field of the request; may be given more than once
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The body of the request
    #[arg(short = 'd', long = "data", value_name = "TEXT")]
    body: Option<String>,
    /// The address of who connects; loopback, unless said otherwise
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// The listener that the request comes by; the first in the file, unless said otherwise
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// A claim of the caller, such as sub=alice, taken for true as if its credential said it; may be given more than once
    #[arg(long = "as", value_name = "CLAIM=VALUE")]
    caller: Vec<String>,
    /// Ask the running gateway, by the admin interface that the file names
    #[arg(long)]
    live: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A request to explain, as the admin interface is asked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    request: String,
    /// `Name: value`.
    #[serde(default)]
    headers: Vec<String>,
    body: Option<String>,
    client: Option<IpAddr>,
    listener: Option<String>,
    r#as: Option<serde_json::Map<String, serde_json::Value>>,
}

/// What the gateway would do with a request, and why.
#[derive(Serialize, Deserialize)]
pub(super) struct Explanation {
    request: String,
    listener: String,
    client: Option<IpAddr>,
    notes: Vec<String>,
    route: Option<ShownRoute>,
    near_misses: Vec<NearMiss>,
    /// Near misses that are not shown.
    more: usize,
    policies: Vec<ShownPolicy>,
    upstream: Option<String>,
    stopped_by: Option<String>,
    /// What an empty cache would have to do with the answer.
    cache: Option<String>,
    answer: Option<Answer>,
    sent: Option<Sent>,
    mirror: Option<Mirrored>,
}

#[derive(Serialize, Deserialize)]
struct ShownRoute {
    name: String,
    api: Option<String>,
    r#match: String,
    place: String,
    /// Names and texts, by position.
    captures: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
struct NearMiss {
    route: String,
    place: String,
    why: String,
}

#[derive(Serialize, Deserialize)]
struct ShownPolicy {
    policy: String,
    /// Where it is switched off.
    off: Option<String>,
    settings: Vec<Setting>,
}

#[derive(Serialize, Deserialize)]
struct Setting {
    key: String,
    /// As TOML.
    value: String,
    /// `view.NAME`, `route`, `policy.NAME`, `api.NAME` or `defaults`.
    from: String,
    place: String,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    status: u16,
    reason: String,
    headers: Vec<String>,
    body: String,
}

#[derive(Serialize, Deserialize)]
struct Sent {
    servers: Vec<String>,
    /// The request line and the header fields.
    head: Vec<String>,
    /// What is known of the body, or its beginning.
    body: String,
}

/// Who may get a copy.
#[derive(Serialize, Deserialize)]
struct Mirrored {
    upstream: String,
    share: f64,
    servers: Vec<String>,
}

const MOST_MISSES: usize = 8;
/// Characters of a body that are shown.
const MOST_BODY: usize = 1000;

/// Explains a request by the file, or has the running gateway do it.
pub(super) fn command(arguments: Arguments) -> Result<(), String> {
    let Arguments { request, config, headers, body, client, listener, caller, live, json } = arguments;
    let asked = Asked { request, headers, body, client, listener, r#as: claims(&caller)? };
    asked.check()?;
    let loaded = config::load(&config).map_err(|diagnostics| diagnostics.to_string())?;
    let mut build = loaded.build();
    // The tests are not run: a test that fails is what there may be to explain.
    let Some((plan, _)) = plan(&mut build) else {
        return Err(build.diagnostics().to_string());
    };
    let explanation = match live {
        true => {
            let admin = plan.admin.ok_or("error: without [admin] the running gateway cannot be asked")?;
            let question = serde_json::to_string(&asked).map_err(|error| format!("error: {error}"))?;
            let answer =
                reload::post(&admin, "/explain", &question).map_err(|said| match said.starts_with("error: ") {
                    true => said,
                    false => format!("error: {said}"),
                })?;
            serde_json::from_str(&answer).map_err(|error| format!("error: the answer is not understood: {error}"))?
        }
        false => explain(&asked, &Arc::new(plan.gateway), &plan.listeners, &loaded)
            .map_err(|wrong| format!("error: {wrong}"))?,
    };
    match json {
        true => println!("{}", serde_json::to_string_pretty(&explanation).map_err(|error| error.to_string())?),
        false => print!("{explanation}"),
    }
    Ok(())
}

/// Explains a request to a gateway that was compiled from `loaded`. On a thread that may wait.
pub(super) fn explain(
    asked: &Asked,
    gateway: &Arc<Gateway>,
    listeners: &[Arc<ListenerSpec>],
    loaded: &Loaded,
) -> Result<Explanation, String> {
    let question = asked.question()?;
    let rehearsed = wait(question.rehearse(gateway, listeners, &loaded.root)).map_err(|wrong| wrong.to_string())?;
    let Rehearsed { outcome, listener, peer, url, notes } = rehearsed;
    let mut build = loaded.build();
    let served = origin::served(&loaded.root);
    // A route stands where its table does.
    let index = outcome.route.as_ref().and_then(|route| position(gateway, route));
    let place = |index: usize, build: &Build<'_>| {
        served.get(index).map(|(node, _)| build.shown(node.get("match").unwrap_or(node).place)).unwrap_or_default()
    };
    let misses = outcome.view(|view| origin::near_misses(index, view, &mut build)).unwrap_or_default();
    let more = misses.len().saturating_sub(MOST_MISSES);
    let near_misses = misses.into_iter().take(MOST_MISSES).map(|miss| NearMiss {
        route: gateway.route(miss.index).name.to_string(),
        place: place(miss.index, &build),
        why: miss.why,
    });
    let near_misses = near_misses.collect();
    let names = index.map(|index| origin::captures(index, &mut build)).unwrap_or_default();
    let route = outcome.route.as_ref().zip(index).map(|(route, index)| ShownRoute {
        name: route.name.to_string(),
        api: route.api.as_ref().map(|api| api.name.to_string()),
        r#match: route.matches.to_string(),
        place: place(index, &build),
        captures: names
            .iter()
            .map(ToString::to_string)
            .zip(outcome.captures().into_iter().map(str::to_owned))
            .collect(),
    });
    let policies = index.and_then(|index| served.get(index));
    let policies =
        policies.map(|served| policies_of(served, &names, gateway, &loaded.root, &mut build)).unwrap_or_default();
    let (answer, sent) = ends(&outcome);
    let mirror = outcome.mirror().map(|mirror| Mirrored {
        upstream: mirror.pool.name().to_owned(),
        share: mirror.share,
        servers: servers(&mirror.pool),
    });
    Ok(Explanation {
        request: url,
        listener,
        client: outcome.client().or(peer),
        notes,
        route,
        near_misses,
        more,
        policies,
        upstream: outcome.upstream().map(str::to_owned),
        stopped_by: outcome.stopped_by().map(str::to_owned),
        cache: outcome.cache().map(|cached| cached.word().to_owned()),
        answer,
        sent,
        mirror,
    })
}

impl Asked {
    /// Refuses what nothing here can tell.
    fn check(&self) -> Result<(), String> {
        self.question().map(drop).map_err(|wrong| format!("error: {wrong}"))
    }

    fn question(&self) -> Result<Question, String> {
        let question = Question::new(&self.request, self.client, self.listener.clone());
        let mut question = question.map_err(|wrong| wrong.to_string())?;
        for field in &self.headers {
            let (name, value) = field
                .split_once(':')
                .ok_or_else(|| format!("`{field}` is not a header field\nhelp: write 'Name: value'"))?;
            question.field(name.trim(), value.trim()).map_err(|wrong| wrong.to_string())?;
        }
        if let Some(body) = &self.body {
            question.carry(body.clone()).map_err(|wrong| wrong.to_string())?;
        }
        if let Some(claims) = &self.r#as {
            question.assume(claims.clone());
        }
        Ok(question)
    }
}

/// `sub=alice`, `scopes=["a","b"]`: a value is JSON, and else text.
fn claims(written: &[String]) -> Result<Option<serde_json::Map<String, serde_json::Value>>, String> {
    let mut claims = serde_json::Map::new();
    for text in written {
        let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(format!("error: `{text}` is not a claim\nhelp: write --as sub=alice"));
        };
        claims.insert(name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into()));
    }
    Ok((!claims.is_empty()).then_some(claims))
}

fn position(gateway: &Gateway, route: &Arc<Route>) -> Option<usize> {
    (0..gateway.routes()).find(|index| Arc::ptr_eq(gateway.route(*index), route))
}

/// Every policy of a route, with its settings and where each comes from.
fn policies_of(
    served: &Served<'_>,
    captures: &[Box<str>],
    gateway: &Gateway,
    root: &Node,
    build: &mut Build<'_>,
) -> Vec<ShownPolicy> {
    let layers = origin::layers(root, served);
    let policies = origin::policies(&layers, captures, gateway, build);
    let shown = |Merged { key, nearest, settings }: Merged<'_>| {
        let off = (nearest.value == Value::Boolean(false)).then(|| build.shown(nearest.place));
        let mut shown = Vec::new();
        let mut path = vec![key.to_owned()];
        if let Some(node) = &settings {
            leaves(node, &mut path, &mut |path, leaf| {
                let from = layers.iter().find(|layer| stands_in(layer, path, leaf));
                let from = from.map(|layer| layer.name.clone()).unwrap_or_default();
                let below = if path.len() > 1 { &path[1..] } else { path };
                let key = below.iter().map(|key| bare(key)).collect::<Vec<_>>().join(".");
                shown.push(Setting { key, value: toml(leaf, build), from, place: build.shown(leaf.place) });
            });
        }
        ShownPolicy { policy: key.to_owned(), off, settings: shown }
    };
    policies.into_iter().map(shown).collect()
}

/// Visits every value that is no table, and every empty table.
fn leaves(node: &Node, path: &mut Vec<String>, visit: &mut impl FnMut(&[String], &Node)) {
    match node.table().filter(|table| !table.is_empty()) {
        None => visit(path, node),
        Some(table) => {
            for (key, entry) in table {
                path.push(key.clone());
                leaves(&entry.node, path, visit);
                path.pop();
            }
        }
    }
}

/// A short value stands where the table would that it is short for.
fn stands_in(layer: &Layer<'_>, path: &[String], leaf: &Node) -> bool {
    let mut nodes = path.iter().scan(&*layer.node, |node, key| {
        *node = node.get(key)?;
        Some(*node)
    });
    nodes.any(|node| node.place == leaf.place)
}

/// A value as the file has it, with stars for secrets.
fn toml(node: &Node, build: &Build<'_>) -> String {
    if build.hides(node.place) {
        return "\"***\"".to_owned();
    }
    match &node.value {
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => toml::Value::Float(*number).to_string(),
        Value::Boolean(value) => value.to_string(),
        Value::Datetime(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(|item| toml(item, build)).collect::<Vec<_>>().join(", "))
        }
        Value::Table(table) if table.is_empty() => "{}".to_owned(),
        Value::Table(table) => {
            let pairs = table.iter().map(|(key, entry)| format!("{} = {}", bare(key), toml(&entry.node, build)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A key, in quotes where it needs them.
fn bare(key: &str) -> String {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    match !key.is_empty() && key.bytes().all(fine) {
        true => key.to_owned(),
        false => format!("{key:?}"),
    }
}

fn ends(outcome: &Outcome) -> (Option<Answer>, Option<Sent>) {
    match &outcome.end {
        End::Answer { head, body } => {
            let mut fields = Vec::new();
            head.headers.iter().for_each(|(name, value)| write_field(name, value.as_bytes(), &mut fields));
            let answer = Answer {
                status: head.status.as_u16(),
                reason: head.status.canonical_reason().unwrap_or("").to_owned(),
                headers: lines(&fields),
                body: beginning(body),
            };
            (Some(answer), None)
        }
        End::Parts(_) => (None, None),
        End::Upstream { pool, head, body } => {
            let sent = Sent { servers: servers(pool), head: lines(head), body: beginning(body) };
            (None, Some(sent))
        }
    }
}

fn beginning(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(MOST_BODY).collect()
}

fn lines(head: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(head).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The servers of a pool as the file has them, with what keeps one from being asked.
fn servers(pool: &Pool) -> Vec<String> {
    let status = pool.status();
    let state = |written: String| {
        let mut of_it = status.iter().filter(|status| *status.written == *written).peekable();
        let there = of_it.peek().is_some();
        match (
            there,
            of_it.clone().all(|status| status.draining),
            of_it.all(|status| status.health == Health::Unhealthy),
        ) {
            (true, true, _) => format!("{written} (drained)"),
            (true, _, true) => format!("{written} (unhealthy)"),
            _ => written,
        }
    };
    pool.written().map(state).collect()
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.request)?;
        write!(f, "  by the listener {}", self.listener)?;
        match self.client {
            Some(client) => writeln!(f, ", from {client}")?,
            None => writeln!(f)?,
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  note: {note}"))?;
        match &self.route {
            Some(route) => {
                writeln!(f, "\nRoute\n  {}  {}", route.name, route.place)?;
                if route.name != route.r#match {
                    writeln!(f, "  matches {}", route.r#match)?;
                }
                route.api.iter().try_for_each(|api| writeln!(f, "  of the api {api}"))?;
                route.captures.iter().try_for_each(|(name, text)| writeln!(f, "  {{{name}}} = {text}"))?;
            }
            None => writeln!(f, "\nRoute\n  none")?,
        }
        if !self.near_misses.is_empty() {
            writeln!(f, "\nNear misses")?;
            for miss in &self.near_misses {
                writeln!(f, "  {}  {}\n    {}", miss.route, miss.place, miss.why)?;
            }
            if self.more > 0 {
                writeln!(f, "  and {} more", self.more)?;
            }
        }
        if !self.policies.is_empty() {
            writeln!(f, "\nPolicies")?;
            self.policies.iter().try_for_each(|policy| write!(f, "{policy}"))?;
        }
        if let Some(answer) = &self.answer {
            match &self.stopped_by {
                Some(by) => writeln!(f, "\nAnswered by {by}")?,
                None => writeln!(f, "\nRefused when its head is read")?,
            }
            writeln!(f, "  {} {}", answer.status, answer.reason)?;
            answer.headers.iter().try_for_each(|field| writeln!(f, "  {field}"))?;
            if !answer.body.is_empty() {
                writeln!(f)?;
                answer.body.lines().try_for_each(|line| writeln!(f, "  {line}"))?;
            }
        }
        if let Some(cached) = &self.cache {
            writeln!(f, "\nCache\n  {cached}")?;
        }
        if let Some(sent) = &self.sent {
            let upstream = self.upstream.as_deref().unwrap_or("");
            writeln!(f, "\nSent to the upstream {upstream} ({})", sent.servers.join(", "))?;
            sent.head
                .iter()
                .chain((!sent.body.is_empty()).then_some(&sent.body))
                .try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        if let Some(Mirrored { upstream, share, servers }) = &self.mirror {
            writeln!(f, "\nA share of {share} is copied to the upstream {upstream} ({})", servers.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for ShownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.off {
            Some(place) => return writeln!(f, "  {} is switched off  {place}", self.policy),
            None => writeln!(f, "  {}", self.policy)?,
        }
        for Setting { key, value, from, place } in &self.settings {
            writeln!(f, "    {key} = {value}  {place} ({from})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_toml_and_secrets_as_stars() {
        let text = "a = { b = ['x', \"it's\", 1], 'c d' = true }\ns = 'secret'\nl = [{ k = 'secret' }]\n";
        let loaded = Loaded::from_text("x.toml", text);
        let mut build = loaded.build();
        build.hide("s");
        build.hide("l[0].k");
        let shown = |key: &str| toml(loaded.root.get(key).unwrap(), &build);
        assert_eq!(shown("a"), r#"{ b = ["x", "it's", 1], "c d" = true }"#);
        assert!(!shown("s").contains("secret") && !shown("l").contains("secret"), "{} {}", shown("s"), shown("l"));
    }
}
