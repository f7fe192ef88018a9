//! `[api.NAME]`: a gateway of its own inside the process, for one kind of client (Backend for Frontend) or one version of
//! an API.
//!
//! ```toml
//! [api.mobile]
//! hosts      = "m.example.com"          # none means any
//! listen     = ["public"]               # names of listeners; all, unless said otherwise
//! base_path  = "/mobile"                # upstreams are sent the path below it
//! routes     = "file"                   # those of this file that name no api themselves
//! log        = { access = { to = { file = "mobile.log" } } }     # where its requests are logged; with all others
//! rate_limit = { rate = "20/s" }        # any policy: for its routes, before [defaults]
//!
//! [[route]]
//! api      = ["mobile", "web"]          # one route for each: mobile/GET /users/{id}, web/GET /users/{id}
//! match    = "GET /users/{id}"          # below the base path
//! upstream = "users"
//! view.mobile = { pick = ["id", "name"] }    # over `response.body`, key by key, where it is served for `mobile`
//! ```
//!
//! A route is compiled once for each API that serves it, under a name of its own: so its limits, its answers in caches and
//! its numbers are its API's. Of the default version of an API that is told apart by paths there is one more, without the
//! version in its path, under the same name.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::config::MatchConfig;
use super::log::{self, LogConfig};
use super::matcher::{Condition, HostPattern, PathPattern, RequestView, RouteSpec};
use super::{check_key, origin};
use crate::build::{Build, Node, Table, Value};
use crate::keep::Fingerprint;
use crate::policy::Base;
use crate::policy::version::{self, By, Naming, Version};
use crate::reply::Reply;
use crate::telemetry::access_log::AccessLogConfig;
use crate::telemetry::metrics::apis::ApiSeries;
use crate::telemetry::metrics::traffic::Meter;

/// A compiled API.
pub struct Api {
    /// Its name.
    pub name: Arc<str>,
    /// Who uses it.
    pub uses: Arc<ApiSeries>,
    hosts: Vec<HostPattern>,
    listen: Option<Arc<[Box<str>]>>,
    base: Box<str>,
    member: Option<Member>,
    /// Which log its requests are in: that of the process is 0.
    pub log: usize,
    /// What the configuration says of it.
    pub(super) made_of: u64,
}

/// Which version of an API it is.
struct Member {
    naming: Arc<Naming>,
    index: usize,
    config: version::Config,
}

/// The APIs of a configuration; `None` stands for one with mistakes.
#[derive(Default)]
pub(super) struct Apis {
    named: BTreeMap<String, Option<Arc<Api>>>,
    /// The logs that are theirs.
    pub logs: Vec<AccessLogConfig>,
}

/// The API that serves a route, as the file has it.
#[derive(Clone, Copy)]
pub struct Server<'t> {
    /// Its name.
    pub name: &'t str,
    /// Its table.
    pub node: &'t Node,
    /// Whether its version is left out of the path.
    pub unversioned: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    hosts: crate::types::OneOrMore,
    listen: Option<crate::types::OneOrMore>,
    base_path: Option<String>,
    #[serde(rename = "routes")]
    _routes: Option<Routes>,
    log: Option<LogConfig>,
    #[serde(rename = "view")]
    _view: Option<IgnoredAny>,
}

/// Which routes belong to it without saying so.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Routes {
    /// Those of its file.
    File,
}

/// The keys of an API that are not policies.
const KEYS: &[&str] = &["hosts", "listen", "base_path", "routes", "log", "version", "view"];

impl Apis {
    /// Compiles every `[api.NAME]`.
    pub(super) fn compile(root: &Node, meter: &Meter, build: &mut Build<'_>) -> Self {
        let mut drafts = Vec::new();
        for (name, node) in tables(root) {
            let draft = build.within_detached(node, |build| Draft::compile(name, node, root, build));
            drafts.push((name, node, draft));
        }
        let namings = namings(&drafts, build);
        let mut apis = Self::default();
        for ((name, node, draft), naming) in drafts.into_iter().zip(namings) {
            let api = draft.zip(naming).and_then(|(draft, naming)| {
                let member =
                    naming.zip(draft.version).map(|((naming, index), config)| Member { naming, index, config });
                let version = member.as_ref().map_or("", |member| member.config.name.as_str());
                let mut made_of = Fingerprint::default();
                made_of.add(b'v', version.as_bytes());
                let uses = build.keep(&format!("api.{name}"), made_of, |_| Some(meter.api(name, version)))?;
                let made_of = build.fingerprint(node, &[]).short();
                let Draft { hosts, listen, base, log, .. } = draft;
                let log = log.map_or(0, |log| {
                    apis.logs.push(log);
                    apis.logs.len()
                });
                Some(Arc::new(Api { name: name.into(), uses, hosts, listen, base, member, log, made_of }))
            });
            apis.named.insert(name.to_owned(), api);
        }
        apis
    }

    /// The API of a name, unless it has mistakes.
    pub(super) fn get(&self, name: &str) -> Option<&Arc<Api>> {
        self.named.get(name)?.as_ref()
    }

    /// Those without mistakes.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Api>> {
        self.named.values().flatten()
    }

    /// Warns of what no route belongs to.
    pub(super) fn report_unused(root: &Node, build: &mut Build<'_>) {
        let served = origin::served(root);
        for (name, _) in tables(root) {
            if !served.iter().any(|(_, server)| server.is_some_and(|server| server.name == name)) {
                build
                    .warning(&format!("api.{name}"), format!("no route belongs to the api `{name}`"))
                    .help("write `api` in its routes, or routes = \"file\" here for those of this file");
            }
        }
    }
}

impl Api {
    /// What the paths of its routes begin with.
    fn prefix(&self, unversioned: bool) -> String {
        match &self.member {
            Some(member) if member.naming.is_by_path() && !unversioned => {
                format!("{}/{}", self.base, member.config.name)
            }
            _ => self.base.to_string(),
        }
    }

    /// What is taken off the paths of its requests, if anything is.
    pub(super) fn base(&self, unversioned: bool) -> Option<Base> {
        Base::new(&self.prefix(unversioned))
    }

    /// Its version, as a policy of its routes.
    pub(super) fn version(&self, unversioned: bool) -> Option<Version> {
        let Member { naming, index, config } = self.member.as_ref()?;
        Some(Version::new(naming, *index, &self.prefix(unversioned), config))
    }

    /// What a route matches where it is served for this: on its hosts, below its path, by its listeners, in its version.
    pub(super) fn place(&self, config: &MatchConfig, unversioned: bool) -> MatchConfig {
        let below = config.path.as_deref().unwrap_or("/**");
        MatchConfig {
            path: Some(format!("{}{below}", self.prefix(unversioned))),
            host: match config.host.is_empty() {
                true => self.hosts.iter().map(ToString::to_string).collect(),
                false => config.host.clone(),
            },
            ..config.clone()
        }
    }

    /// Adds what only it asks of a request, and reports hosts that are not its own. At the `match` of a route.
    pub(super) fn restrict(&self, spec: &mut RouteSpec, build: &mut Build<'_>) {
        for (i, host) in spec.hosts.iter().enumerate() {
            if !self.hosts.is_empty() && !self.hosts.iter().any(|own| own.covers(host)) {
                let own: Vec<String> = self.hosts.iter().map(|host| format!("`{host}`")).collect();
                build
                    .error(&format!("host[{i}]"), format!("`{host}` is no host of the api `{}`", self.name))
                    .help(format!("its hosts are {}", own.join(", ")));
            }
        }
        spec.conditions.extend(self.listen.clone().map(Condition::Listener));
        let version = self.member.as_ref().filter(|member| !member.naming.is_by_path());
        spec.conditions.extend(version.map(|member| Condition::Version(member.naming.clone(), member.index)));
    }

    /// The answer to a request that no route takes, if that is for the version that it names.
    pub(super) fn no_version(&self, request: &RequestView<'_>) -> Option<Reply> {
        let Member { naming, .. } = self.member.as_ref()?;
        let below = request.path.strip_prefix(&*self.base)?;
        let its = (below.is_empty() || below.starts_with('/'))
            && (self.hosts.is_empty() || self.hosts.iter().any(|host| host.matches(request.host)))
            && self.listen.as_ref().is_none_or(|names| names.iter().any(|name| **name == *request.listener));
        its.then(|| naming.refusal(request)).flatten()
    }
}

/// An API before it is known which versions there are beside it.
struct Draft {
    hosts: Vec<HostPattern>,
    listen: Option<Arc<[Box<str>]>>,
    base: Box<str>,
    log: Option<AccessLogConfig>,
    version: Option<version::Config>,
    by: Option<By>,
}

impl Draft {
    /// `None` after every mistake was reported.
    fn compile(name: &str, node: &Node, root: &Node, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        build.check_name("an api", name);
        let Some(table) = node.table() else {
            build.error("", format!("an api is a table, found {}", node.value)).help(format!("write [api.{name}]"));
            return None;
        };
        let mut own = Table::new();
        for (key, entry) in table {
            check_key(key, entry, KEYS, build);
            if KEYS.contains(&key.as_str()) && key != "version" {
                own.insert(key.clone(), entry.clone());
            }
        }
        let own = Node { place: node.place, value: Value::Table(own) };
        let config: Option<Config> = build.within_detached(&own, |build| build.deserialize());
        let version: Option<version::Config> = node.get("version").and_then(|version| {
            let long = <Version as crate::policy::Policy>::long(version).unwrap_or_else(|| version.clone());
            build.within_detached(&long, |build| build.deserialize())
        });
        let config = config?;
        let mut hosts = Vec::new();
        for (i, host) in config.hosts.0.iter().enumerate() {
            match HostPattern::parse(host) {
                Ok(host) => hosts.push(host),
                Err(error) => drop(build.error(&format!("hosts[{i}]"), error)),
            }
        }
        let listen = config.listen.map(|names| listeners(&names.0, root, build));
        let log = config.log.map(|LogConfig { mut access }| {
            log::settle(&mut access, "log.access", build);
            access
        });
        let base = base_path(config.base_path.as_deref().unwrap_or("/"), build);
        let by = version.as_ref().and_then(|config| {
            check_version(config, build);
            By::compile(&config.by, &config.name, build)
        });
        (build.errors() == before).then(|| Self { hosts, listen, base: base.into(), log, version, by })
    }

    /// What the versions of one API have in common.
    fn family(&self) -> (Vec<String>, Option<Vec<Box<str>>>, &str) {
        let mut hosts: Vec<String> = self.hosts.iter().map(ToString::to_string).collect();
        hosts.sort();
        let listen = self.listen.as_ref().map(|names| {
            let mut names = names.to_vec();
            names.sort();
            names
        });
        (hosts, listen, &self.base)
    }
}

fn listeners(names: &[String], root: &Node, build: &mut Build<'_>) -> Arc<[Box<str>]> {
    let known = || root.get("listen").and_then(Node::table).into_iter().flat_map(Table::keys);
    for (i, name) in names.iter().enumerate() {
        if !known().any(|other| other == name) {
            build.unknown(&format!("listen[{i}]"), "listener", name, known().map(String::as_str));
        }
    }
    if names.is_empty() {
        build.error("listen", "nobody comes by no listener").help("leave it out for all of them");
    }
    names.iter().map(|name| name.as_str().into()).collect()
}

/// Without the slash at its end.
fn base_path<'c>(text: &'c str, build: &mut Build<'_>) -> &'c str {
    match PathPattern::parse(text) {
        Ok(path) if path.names().next().is_none() => {}
        Ok(_) => {
            build
                .error("base_path", "a base path has literal segments only")
                .help("captures are for the routes below it");
        }
        Err(error) => drop(build.error("base_path", error)),
    }
    text.trim_end_matches('/')
}

/// What of a version can be wrong by itself.
fn check_version(config: &version::Config, build: &mut Build<'_>) {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if config.name.is_empty() || !config.name.bytes().all(fine) || config.name.bytes().all(|b| b == b'.') {
        build
            .error("version.name", format!("`{}` cannot be the name of a version", config.name))
            .help("a name has letters, digits, `-`, `_` and `.`");
    }
    let dates = [("from", config.from), ("deprecated", config.deprecated), ("sunset", config.sunset)];
    for (i, (key, date)) in dates.iter().enumerate() {
        let earlier =
            dates[..i].iter().find(|(_, other)| matches!((other, date), (Some(other), Some(date)) if date < other));
        if let Some((earlier, _)) = earlier {
            build.error(&format!("version.{key}"), format!("`{key}` is before `{earlier}`"));
        }
    }
    let after = config.after;
    if after != version::After::Serve && config.sunset.is_none() {
        build
            .error("version.after", "without a `sunset` the version has no end")
            .help("add `sunset`, or remove `after`");
    }
    if after == version::After::Redirect {
        if config.successor.is_none() {
            build.error("version.after", "without a `successor` there is nowhere to lead to").help("add `successor`");
        }
        if !matches!(config.by, version::ByConfig::Path | version::ByConfig::Query(_)) {
            build
                .error("version.after", "the successor has the same URL, so a redirect would lead in a circle")
                .help("write after = \"gone\"");
        }
    }
}

/// Which of which versions an API is, if it is one.
type Versioned = Option<(Arc<Naming>, usize)>;

/// Finds out which tables are versions of one API. `None` stands for mistakes, reported here or before.
fn namings(drafts: &[(&str, &Node, Option<Draft>)], build: &mut Build<'_>) -> Vec<Option<Versioned>> {
    let mut families: Vec<Vec<usize>> = Vec::new();
    let draft = |i: usize| drafts[i].2.as_ref();
    for i in 0..drafts.len() {
        let Some(own) = draft(i).filter(|draft| draft.version.is_some()) else { continue };
        let mut others = families.iter_mut();
        match others.find(|members| draft(members[0]).is_some_and(|first| first.family() == own.family())) {
            Some(members) => members.push(i),
            None => families.push(vec![i]),
        }
    }
    let plain = |draft: &Option<Draft>| draft.as_ref().filter(|draft| draft.version.is_none()).map(|_| None);
    let mut found: Vec<_> = drafts.iter().map(|(_, _, draft)| plain(draft)).collect();
    for members in families {
        let before = build.errors();
        let configs: Vec<&version::Config> = members.iter().filter_map(|i| draft(*i)?.version.as_ref()).collect();
        let by = draft(members[0]).and_then(|draft| draft.by.clone());
        for (position, i) in members.iter().enumerate() {
            let (_, node, own) = &drafts[*i];
            let (first, config) = (drafts[members[0]].1, configs[position]);
            build.within_detached(node, |build| {
                if own.as_ref().is_some_and(|own| own.by != by) {
                    build
                        .error("version.by", "the versions of one API are told apart in one way")
                        .also(first.get("version").map_or(first.place, |node| node.place), "another version of it")
                        .help("tables with the same `hosts`, `listen` and `base_path` are versions of one API");
                }
                for (other, earlier) in configs[..position].iter().zip(&members) {
                    let place = drafts[*earlier].1.place;
                    if version::is_same(&other.name, &config.name) {
                        let message = format!("the versions `{}` and `{}` have one name", other.name, config.name);
                        build.error("version.name", message).also(place, "the other version");
                    }
                    if other.default && config.default {
                        build.error("version.default", "two versions are the default").also(place, "the other version");
                    }
                }
                if let Some(name) = &config.successor {
                    let others = configs.iter().map(|other| other.name.as_str()).filter(|other| *other != config.name);
                    if !others.clone().any(|other| other == name) {
                        build.unknown("version.successor", "other version", name, others);
                    }
                }
            });
        }
        if let Some(by) = by.filter(|_| build.errors() == before) {
            let base = draft(members[0]).map_or("", |draft| &draft.base);
            let naming = Arc::new(Naming::new(by, base, &configs));
            for (position, i) in members.into_iter().enumerate() {
                found[i] = Some(Some((naming.clone(), position)));
            }
        }
    }
    found
}

/// The tables of the APIs, by name.
pub(super) fn tables(root: &Node) -> impl Iterator<Item = (&str, &Node)> {
    let tables = root.get("api").and_then(Node::table).into_iter().flatten();
    tables.map(|(name, entry)| (name.as_str(), &entry.node))
}

/// The APIs that serve a route, in the order in which it names them. Those that are not there are left out.
pub(super) fn servers<'t>(root: &'t Node, route: &'t Node) -> Vec<Server<'t>> {
    let named = |name: &'t str| tables(root).find(|(other, _)| *other == name);
    let found: Vec<(&str, &Node)> = match route.get("api").map(|node| (node.str(), node.array())) {
        Some((Some(name), _)) => named(name).into_iter().collect(),
        Some((_, Some(names))) => names.iter().filter_map(|name| named(name.str()?)).collect(),
        Some(_) => Vec::new(),
        None => {
            let of_file = |node: &Node| node.get("routes").and_then(Node::str) == Some("file");
            tables(root).filter(|(_, node)| of_file(node) && node.place.file == route.place.file).collect()
        }
    };
    let server = |(name, node)| {
        let server = Server { name, node, unversioned: false };
        let also = is_also_unversioned(node).then_some(Server { unversioned: true, ..server });
        [Some(server), also].into_iter().flatten()
    };
    found.into_iter().flat_map(server).collect()
}

/// Whether it is the default of versions that are told apart by their paths.
fn is_also_unversioned(api: &Node) -> bool {
    let version = api.get("version");
    let by_path = |version: &Node| version.get("by").is_none_or(|by| by.str() == Some("path"));
    version.is_some_and(|version| {
        by_path(version) && version.get("default").is_some_and(|default| default.value == Value::Boolean(true))
    })
}

/// Reports what is wrong with the `api` and the `view` of a route, at the route.
pub(super) fn check_route(root: &Node, route: &Node, build: &mut Build<'_>) {
    let known: Vec<&str> = tables(root).map(|(name, _)| name).collect();
    let mut seen = Vec::new();
    let mut check = |key: &str, node: &Node, build: &mut Build<'_>| match node.str() {
        Some(name) if !known.contains(&name) => build.unknown(key, "api", name, known.iter().copied()),
        Some(name) if seen.contains(&name.to_owned()) => drop(build.error(key, format!("`{name}` is given twice"))),
        Some(name) => seen.push(name.to_owned()),
        None => drop(build.error(key, format!("expected the name of an api in quotes, found {}", node.value))),
    };
    match route.get("api") {
        None | Some(Node { value: Value::Boolean(false), .. }) => {}
        Some(Node { value: Value::Array(names), .. }) if !names.is_empty() => {
            names.iter().enumerate().for_each(|(i, name)| check(&format!("api[{i}]"), name, build));
        }
        Some(Node { value: Value::Array(_), .. }) => {
            build.error("api", "the route belongs to no api").help("write `api = false` to say so");
        }
        Some(node) => check("api", node, build),
    }
    let servers = servers(root, route);
    check_views(root, route, build, |name| {
        let serves = servers.iter().any(|server| server.name == name);
        (!serves).then(|| format!("the route is not served for the api `{name}`"))
    });
}

/// Reports what is wrong with the `view`s of a table at hand; `refuse` says what a known api may not have there.
pub(super) fn check_views(root: &Node, node: &Node, build: &mut Build<'_>, refuse: impl Fn(&str) -> Option<String>) {
    let Some(views) = node.get("view") else { return };
    if views.table().is_none() {
        build
            .error("view", format!("a view belongs to an api, found {}", views.value))
            .help("write view.NAME = { pick = [\"id\"] }");
    }
    for (name, entry) in views.table().into_iter().flatten() {
        build.within_detached(&Node { place: entry.key, value: Value::Boolean(true) }, |build| {
            if !tables(root).any(|(known, _)| known == name) {
                build.unknown("", "api", name, tables(root).map(|(known, _)| known));
            } else if let Some(why) = refuse(name) {
                build.error("", why);
            }
        });
        if entry.node.table().is_none() {
            let at = &entry.node;
            build.within_detached(at, |build| {
                build.error("", format!("a view is a table like `response.body`, found {}", at.value));
            });
        }
    }
}

/// Reports what is wrong with the `view`s of APIs, which are their own.
pub(super) fn check_own_views(root: &Node, build: &mut Build<'_>) {
    for (name, node) in tables(root) {
        build.within_detached(node, |build| {
            check_views(root, node, build, |other| {
                (other != name).then(|| format!("the view of `{other}` belongs into [api.{other}]"))
            });
        });
    }
}

/// The view of an API over these layers, the nearest first, as the layer that is nearer than all of them.
pub(super) fn view<'t>(name: &str, layers: impl Iterator<Item = &'t Node>) -> Option<Node> {
    let views = layers.filter_map(|layer| layer.get("view")?.get(name)).filter(|view| view.table().is_some());
    let merged = views.fold(None, |nearer: Option<Node>, view| {
        Some(nearer.map_or_else(|| view.clone(), |nearer| nearer.over(view)))
    })?;
    Some(merged.under("body").under("response"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::build::Sources;

    /// The settings of a policy of the first route where it is served for an API.
    fn effective(text: &str, api: &str, key: &str) -> serde_json::Value {
        let mut sources = Sources::default();
        let (root, found) = sources.parse("x.toml", text);
        assert!(found.is_empty());
        let served = origin::served(&root);
        let served = served.iter().find(|(_, server)| server.is_some_and(|server| server.name == api)).unwrap();
        let layers = origin::layers(&root, served);
        let nodes: Vec<&Node> = layers.iter().map(|layer| &*layer.node).collect();
        crate::policy::json(&crate::policy::effective(key, &nodes).unwrap())
    }

    #[test]
    fn a_view_is_merged_over_the_body_of_its_api() {
        let text = r#"
            [api.mobile]
            view.mobile = { remove = ["api"], set = { by = "api" } }
            [api.web]
            [defaults]
            response = { body = { remove = ["all"] }, headers = { remove = ["X-A"] } }
            view.mobile = { rename = { a = "b" } }
            [[route]]
            api = ["mobile", "web"]
            match = "/"
            response = { body = { jq = "." } }
            view.mobile = { pick = ["id"], set = { of = "route" } }
        "#;
        let headers = json!({ "remove": ["X-A"] });
        let set = json!({ "by": "api", "of": "route" });
        let mobile = json!({ "jq": ".", "pick": ["id"], "remove": ["api"], "rename": { "a": "b" }, "set": set });
        assert_eq!(effective(text, "mobile", "response"), json!({ "body": mobile, "headers": headers }));
        let web = json!({ "jq": ".", "remove": ["all"] });
        assert_eq!(effective(text, "web", "response"), json!({ "body": web, "headers": headers }));
    }

    #[test]
    fn the_nearer_layer_wins() {
        let text = r#"
            [defaults]
            timeout = { total = "1s", connect = "1s", idle = "1s", first_byte = "1s" }
            [api.a]
            timeout = { total = "2s", connect = "2s", idle = "2s" }
            [policy.b]
            timeout = { total = "3s", connect = "3s" }
            [[route]]
            api = "a"
            use = ["b"]
            match = "/"
            timeout = "4s"
        "#;
        let expected = json!({ "connect": "3s", "first_byte": "1s", "idle": "2s", "total": "4s" });
        assert_eq!(effective(text, "a", "timeout"), expected);
    }

    #[test]
    fn hosts_cover_what_is_below_them() {
        let host = |text: &str| HostPattern::parse(text).unwrap();
        for (all, one, covers) in [
            ("a.test", "a.test", true),
            ("a.test", "b.test", false),
            ("a.test", "*.a.test", false),
            ("*.a.test", "b.a.test", true),
            ("*.a.test", "c.b.a.test", true),
            ("*.a.test", "a.test", false),
            ("*.a.test", "ba.test", false),
            ("*.a.test", "*.a.test", true),
            ("*.a.test", "*.b.a.test", true),
            ("*.b.a.test", "*.a.test", false),
        ] {
            assert_eq!(host(all).covers(&host(one)), covers, "{all} {one}");
        }
    }
}
