//! One configuration, compiled: routes, policies and pools as one immutable value that is swapped whole.
//!
//! ```toml
//! [[route]]
//! name     = "user"                     # for logs; without it the match is the name
//! match    = "GET /users/{id}"          # short form of { methods = ["GET"], path = "/users/{id}" }
//! use      = ["partners"]               # bundles of policies, [policy.partners]
//! upstream = "users"                    # or split, respond or redirect
//!
//! [[route]]
//! match   = { path = "/old/{id}", host = ["api.example.com", "*.example.org"] }
//! redirect = { to = "https://{host}/users/{path.id}", status = 308 }
//!
//! [[route]]
//! match   = "GET /hello"
//! respond = { status = 200, headers = { Content-Type = "text/plain" }, body = "Hello, {client.ip}\n" }
//! ```
//!
//! The order of routes in the file means nothing: see [`matcher`] for which of several matching routes wins.

mod aggregate;
pub mod api;
mod config;
pub mod log;
pub mod matcher;
mod mirror;
pub mod origin;
mod reply;
mod split;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::iter::once;
use std::sync::Arc;

use http::HeaderName;
use http::header::{CONTENT_LOCATION, LOCATION};
use pingora_http::{RequestHeader, ResponseHeader};
use prometheus::IntCounter;

use crate::build::{Build, Entry, Node, Place, Table, Value};
use crate::cache::{Resource, Zone, Zones};
use crate::facts::{Facts, lower_host};
use crate::keep::{self, Fingerprint};
use crate::policy::{self, Chain, Providers, Scope};
use crate::reply::Reply;
use crate::store::Stores;
use crate::telemetry::access_log::{AccessLogConfig, Logs, Rotation};
use crate::telemetry::metrics::Words;
use crate::telemetry::metrics::traffic::{Meter, RouteSeries};
use crate::telemetry::trace::Tracer;
use crate::upstream::{Pool, Seen, UpstreamConfig};
use api::Apis;
use config::{MatchConfig, ROUTE_KEYS, RouteConfig};
use matcher::{Condition, Found, HostPattern, Matcher, MethodSet, PathPattern, RequestView, RouteSpec, ValueTest};
use origin::Served;

pub use aggregate::{Aggregate, Compose, Part, PartBody};
pub use api::Api;
pub use config::ValueMatch;
pub use mirror::Mirror;
pub use reply::Canned;
pub use split::{Choice, Split};

/// A compiled configuration.
pub struct Gateway {
    matcher: Matcher,
    routes: Vec<Arc<Route>>,
    pools: BTreeMap<String, Arc<Pool>>,
    providers: Providers,
    zones: Zones,
    stores: Stores,
    apis: Vec<Arc<Api>>,
    /// The logs that APIs have for themselves.
    api_logs: Vec<AccessLogConfig>,
    /// The open logs: that of the process, then those of APIs.
    pub logs: Logs,
    /// What traces are made with, if they are.
    pub tracer: Option<Arc<Tracer>>,
    /// What is counted of requests that find no route.
    pub no_route: RouteSeries,
    /// Counts what answered instead of an upstream.
    pub stopped: Arc<Words>,
}

/// A compiled route.
pub struct Route {
    /// Its name in logs.
    pub name: Arc<str>,
    /// What it matches, in short: methods, the first host and the path.
    pub matches: Arc<str>,
    /// The pattern of its paths.
    pub pattern: Arc<str>,
    /// The API that it belongs to.
    pub api: Option<Arc<Api>>,
    /// Its policies.
    pub chain: Chain,
    /// Where its requests go.
    pub destination: Destination,
    /// Who gets copies of them.
    pub mirror: Option<Mirror>,
    /// What is counted of it.
    pub counts: RouteSeries,
    /// What the configuration says of it, bundles and defaults included.
    made_of: Box<[u64]>,
}

impl Route {
    /// Whether the body of a request to the route is held whole before anybody is asked. What no part of an aggregate takes
    /// is as well: only then it is seen when the client leaves.
    pub fn holds_body(&self, facts: &Facts) -> bool {
        self.chain.terms().holds_body(facts) || matches!(self.destination, Destination::Aggregate(_))
    }

    /// Whether bodies of a request to the route are looked at, or made by the gateway.
    pub fn reads_bodies(&self, facts: &Facts) -> bool {
        self.chain.reads_bodies(facts) || matches!(self.destination, Destination::Aggregate(_))
    }

    /// Whether they are looked at, made or compressed.
    pub fn shapes_bodies(&self, facts: &Facts) -> bool {
        self.chain.shapes_bodies(facts) || self.reads_bodies(facts)
    }
}

/// Where requests go.
pub enum Destination {
    /// To a server of a pool.
    Upstream(Arc<Pool>),
    /// To a server of one of several pools.
    Split(Split),
    /// To servers of several pools, whose answers are put together.
    Aggregate(Arc<Aggregate>),
    /// Nowhere: the gateway answers.
    Reply(Canned),
}

impl Gateway {
    /// Compiles the routes, policies and pools of a configuration. `None` after every mistake was reported.
    pub fn compile(meter: &Meter, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        let root = build.node();
        let pools = compile_pools(root, meter, build);
        let providers = Providers::compile(root, meter, build);
        let mut zones = Zones::compile(root, meter, build);
        let stores = Stores::compile(root, meter, build);
        let apis = Apis::compile(root, meter, build);
        check_bundles(root, build);
        let mut compiler = Routes {
            root,
            meter,
            pools: &pools,
            providers: &providers,
            zones: &zones,
            stores: &stores,
            apis: &apis,
            used: HashSet::new(),
            names: HashMap::new(),
        };
        let mut routes = Vec::new();
        let mut specs = Vec::new();
        let (mut places, mut whens) = (Vec::new(), Vec::new());
        for node in origin::routes(root) {
            build.within_node(node, |build| api::check_route(root, node, build));
        }
        let served = origin::served(root);
        for served in &served {
            let node = served.0;
            if let Some((route, spec)) = build.within_node(node, |build| compiler.route(served, build)) {
                routes.push(Arc::new(route));
                whens.push(spec.conditions.iter().any(|condition| matches!(condition, Condition::When { .. })));
                specs.push(spec);
                places.push(node.get("match").map_or(node.place, |node| node.place));
            }
        }
        if served.is_empty() {
            build.error("", "there is no route, so nothing would be answered but 404").help("add a [[route]]");
        }
        let used = compiler.used;
        for (name, pool) in &pools {
            if pool.is_some() && !used.contains(name) {
                build.warning(&format!("upstream.{name}"), format!("no route uses the upstream `{name}`"));
            }
        }
        let caches = |zone: &Zone| {
            routes.iter().filter_map(|route| route.chain.cache()).any(|cache| cache.zone.name == zone.name)
        };
        zones.retain(root, caches, build);
        stores.report_unused(build);
        providers.report_unused(root, build);
        Apis::report_unused(root, build);
        let matcher = match Matcher::build(specs) {
            Ok(matcher) => Some(matcher),
            Err(conflicts) => {
                for conflict in conflicts {
                    let (first, second) = (places[conflict.first], places[conflict.second]);
                    let both = whens[conflict.first] && whens[conflict.second];
                    report_conflict(build, first, second, &conflict.example, both);
                }
                None
            }
        };
        if build.errors() > before {
            return None;
        }
        let pools = pools.into_iter().filter_map(|(name, pool)| Some((name, pool?))).collect();
        Some(Self {
            matcher: matcher?,
            routes,
            pools,
            providers,
            zones,
            stores,
            apis: apis.all().cloned().collect(),
            api_logs: apis.logs,
            logs: Logs::default(),
            tracer: None,
            no_route: meter.no_route(),
            stopped: meter.stopped(),
        })
    }

    /// The route that takes a request.
    pub fn find(&self, request: &RequestView<'_>) -> Found {
        self.matcher.find(request)
    }

    /// The answer to a request that no route takes, if that is for the version of an API that it names.
    pub fn no_version(&self, request: &RequestView<'_>) -> Option<Reply> {
        self.apis.iter().find_map(|api| api.no_version(request))
    }

    /// A route by its position.
    pub fn route(&self, index: usize) -> &Arc<Route> {
        &self.routes[index]
    }

    /// Opens the log of the process and those of APIs, but for what is open in the logs `before`.
    ///
    /// # Errors
    /// As [`Logs::open`].
    pub fn open_logs(
        &mut self,
        own: &AccessLogConfig,
        before: &Logs,
        rotation: &Rotation,
        dropped: &IntCounter,
    ) -> Result<(), String> {
        self.logs = Logs::open(once(own).chain(&self.api_logs), before, rotation, dropped)?;
        Ok(())
    }

    /// What is not as it was in the `previous` gateway, in words.
    pub fn changes(&self, previous: &Self) -> Vec<String> {
        fn pools(of: &Gateway) -> BTreeMap<&str, *const Pool> {
            of.pools.iter().map(|(name, pool)| (name.as_str(), Arc::as_ptr(pool))).collect()
        }
        fn routes(of: &Gateway) -> BTreeMap<&str, &[u64]> {
            of.routes.iter().map(|route| (&*route.name, &*route.made_of)).collect()
        }
        // An API is what its table says, and its routes.
        type Whole<'g> = (u64, Vec<(&'g str, &'g [u64])>);
        fn apis(of: &Gateway) -> BTreeMap<&str, Whole<'_>> {
            let routes = |api: &Arc<Api>| {
                let its = of.routes.iter().filter(|route| route.api.as_ref().is_some_and(|own| own.name == api.name));
                its.map(|route| (&*route.name, &*route.made_of)).collect()
            };
            of.apis.iter().map(|api| (&*api.name, (api.made_of, routes(api)))).collect()
        }
        let mut changes = keep::changes("upstream", &pools(previous), &pools(self));
        changes.extend(self.providers.changes(&previous.providers));
        changes.extend(self.stores.changes(&previous.stores));
        changes.extend(self.zones.changes(&previous.zones));
        changes.extend(keep::changes("api", &apis(previous), &apis(self)));
        changes.extend(keep::changes("route", &routes(previous), &routes(self)));
        changes
    }

    /// How many routes there are.
    pub fn routes(&self) -> usize {
        self.routes.len()
    }

    /// The ways to find out who asks.
    pub fn providers(&self) -> &Providers {
        &self.providers
    }

    /// The caches.
    pub fn zones(&self) -> &Zones {
        &self.zones
    }

    /// Something was changed by a request with this answer: what is stored of it, and of what the answer names as changed,
    /// is outdated (RFC 9111, section 4.4).
    pub fn changed(&self, request: &RequestHeader, answer: &ResponseHeader) {
        if self.zones.is_empty() {
            return;
        }
        let target = Resource::at(&lower_host(request), request.uri.path());
        let named = [LOCATION, CONTENT_LOCATION].into_iter().filter_map(|name| {
            let named = Resource::parse(answer.headers.get(name)?.to_str().ok()?, Some(&target))?;
            // Of others it may not say anything.
            (named.host == target.host).then_some(named)
        });
        for resource in named.chain([target.clone()]) {
            self.zones.iter().for_each(|zone| zone.store.invalidate(&resource));
        }
    }

    /// What is known together with other gateways.
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// The pools by name.
    pub fn pools(&self) -> impl Iterator<Item = (&str, &Arc<Pool>)> {
        self.pools.iter().map(|(name, pool)| (name.as_str(), pool))
    }
}

type Pools = BTreeMap<String, Option<Arc<Pool>>>;

/// `None` stands for a pool with mistakes, so that routes to it are not reported as well.
fn compile_pools(root: &Node, meter: &Meter, build: &mut Build<'_>) -> Pools {
    let mut pools = Pools::new();
    for (name, entry) in root.get("upstream").and_then(Node::table).into_iter().flatten() {
        let pool = build.within_detached(&entry.node, |build| {
            let _ = build.check_name("an upstream", name);
            let made_of = build.fingerprint(&entry.node, &["ca", "cert", "key"]);
            let seen = build.keep(name, Fingerprint::default(), |_| Some(Seen::default()))?;
            build.keep(name, made_of, |build| {
                let config = build.deserialize::<UpstreamConfig>()?;
                Pool::compile(name, &config, &seen, meter, build)
            })
        });
        pools.insert(name.clone(), pool);
    }
    pools
}

/// `[defaults]` and `[policy.NAME]` hold nothing but policies and views.
fn check_bundles(root: &Node, build: &mut Build<'_>) {
    let mut bundles: Vec<&Node> = root.get("defaults").into_iter().collect();
    for entry in root.get("policy").and_then(Node::table).into_iter().flat_map(Table::values) {
        match entry.node.table() {
            Some(_) => bundles.push(&entry.node),
            None => {
                build.within_detached(&entry.node, |build| {
                    build.error("", format!("a bundle of policies is a table, found {}", entry.node.value));
                });
            }
        }
    }
    api::check_own_views(root, build);
    for bundle in bundles {
        for (key, entry) in bundle.table().into_iter().flatten() {
            check_key(key, entry, &["view"], build);
        }
        build.within_detached(bundle, |build| api::check_views(root, bundle, build, |_| None));
    }
}

/// A key that is neither a policy nor one of `others` is an error; gives whether it is fine.
fn check_key(key: &str, entry: &Entry, others: &[&str], build: &mut Build<'_>) -> bool {
    let is_of_api = policy::OF_API.contains(&key);
    if (policy::KEYS.contains(&key) && !is_of_api) || others.contains(&key) {
        return true;
    }
    let at = Node { place: entry.key, value: Value::Boolean(true) };
    build.within_detached(&at, |build| {
        if is_of_api {
            build.error("", format!("`{key}` is for a whole API")).help("write it in [api.NAME]");
        } else if policy::RESERVED.contains(&key) {
            build.error("", format!("`{key}` is not available in this version"));
        } else {
            let known: Vec<&str> =
                policy::KEYS.iter().filter(|key| !policy::OF_API.contains(key)).chain(others).copied().collect();
            build.error("", format!("`{key}` is not known here")).help(crate::build::suggestion("policy", key, &known));
        }
    });
    false
}

fn report_conflict(build: &mut Build<'_>, first: Place, second: Place, example: &str, both_when: bool) {
    let help = match both_when {
        true => {
            "make one of them more specific: by its path, its methods, or a header or query condition; two `when` are \
             never told apart, but of two routes that are alike else, one with no `when` takes the rest"
        }
        false => "make one of them more specific: by its path, its methods, or a header, query or `when` condition",
    };
    let node = Node { place: second, value: Value::Boolean(true) };
    build.within_detached(&node, |build| {
        build
            .error("", format!("two routes take {example}, and neither is more specific"))
            .also(first, "the other route")
            .help(help);
    });
}

/// What policies look at bodies, all of them or by one of their keys.
const OF_BODIES: [(&str, Option<&str>); 6] = [
    ("validate", Some("body")),
    ("request", Some("body")),
    ("response", Some("body")),
    ("soap", None),
    ("graphql", None),
    ("graphql_guard", None),
];

struct Routes<'t> {
    root: &'t Node,
    meter: &'t Meter,
    pools: &'t Pools,
    providers: &'t Providers,
    zones: &'t Zones,
    stores: &'t Stores,
    apis: &'t Apis,
    used: HashSet<String>,
    names: HashMap<String, Place>,
}

impl Routes<'_> {
    fn route(&mut self, served: &Served<'_>, build: &mut Build<'_>) -> Option<(Route, RouteSpec)> {
        let (node, server) = served;
        let Some(table) = node.table() else {
            build.error("", format!("a route is a table, found {}", node.value));
            return None;
        };
        let mut whole = true;
        let mut own = Table::new();
        for (key, entry) in table {
            whole &= check_key(key, entry, ROUTE_KEYS, build);
            if ROUTE_KEYS.contains(&key.as_str()) {
                own.insert(key.clone(), entry.clone());
            }
        }
        let own = Node { place: node.place, value: Value::Table(own) };
        let config: RouteConfig = build.within_detached(&own, |build| build.deserialize())?;
        let unversioned = server.is_some_and(|server| server.unversioned);
        let api = server.and_then(|server| self.apis.get(server.name));
        // What is wrong with the route itself is reported as well.
        whole &= api.is_some() == server.is_some();
        let placed = api.map(|api| (&**api, unversioned));
        let spec = build.within("match", |build| route_spec(&config.matches, placed, build));
        let name = self.name(&config, served, build);
        let base = api.and_then(|api| api.base(unversioned));
        let version = api.and_then(|api| api.version(unversioned));
        let captures: Vec<Box<str>> =
            spec.as_ref().map(|spec| spec.path.names().map(Box::from).collect()).unwrap_or_default();
        let layers = origin::layers(self.root, served);
        let names: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
        let known = Scope::new(self.providers, self.zones, self.stores);
        let scope = Scope {
            captures: &captures,
            pattern: config.matches.path.as_deref().unwrap_or("/**"),
            methods: &config.matches.methods,
            route: &name,
            layers: &names,
            base: base.as_ref(),
            version: version.as_ref(),
            ..known
        };

        for (i, bundle) in config.r#use.iter().enumerate() {
            if self.root.get("policy").and_then(|policies| policies.get(bundle)).is_none() {
                let known = self.root.get("policy").and_then(Node::table).into_iter().flat_map(Table::keys);
                build.unknown(&format!("use[{i}]"), "policy", bundle, known.map(String::as_str));
                whole = false;
            }
        }
        let layers: Vec<&Node> = layers.iter().map(|layer| &*layer.node).collect();
        // Without its path a route's captures are not known: its policies would be reported for nothing.
        let chain = spec.as_ref().and_then(|_| Chain::compile(&layers, &scope, self.meter, build));
        let destination = match node.get("aggregate") {
            Some(aggregate) if !config.has_other_destination() => spec
                .as_ref()
                .and_then(|_| self.aggregate(aggregate, &layers, &scope, build))
                .map(Arc::new)
                .map(Destination::Aggregate),
            _ => self.destination(&config, &scope, build),
        };
        let own_cache = node.get("cache").is_some_and(|cache| cache.value != Value::Boolean(false));
        if own_cache && matches!(destination, Some(Destination::Reply(_))) {
            build.error("cache", "the route answers by itself, so there is nothing to cache");
            whole = false;
        }
        if matches!(destination, Some(Destination::Reply(_))) {
            for (key, below) in OF_BODIES {
                let Some(policy) = node.get(key).filter(|policy| policy.value != Value::Boolean(false)) else {
                    continue;
                };
                if below.is_none_or(|below| policy.get(below).is_some()) {
                    let key = below.map_or(key.to_owned(), |below| format!("{key}.{below}"));
                    build.error(&key, "the route answers by itself, so no body is looked at");
                    whole = false;
                }
            }
        }
        if let (Some(chain), Some(destination)) = (&chain, &destination) {
            whole &= check_grpc(chain, destination, &layers, build);
        }
        let mirror = chain.as_ref().and_then(|chain| self.mirror(chain, &layers, build));
        let (spec, chain, destination) = (spec?, chain?, destination?);
        let matching = api.map_or_else(|| config.matches.clone(), |api| api.place(&config.matches, unversioned));
        let matches: Arc<str> = matching.to_string().into();
        let made_of = layers.iter().map(|layer| build.fingerprint(layer, &["descriptors"]).short()).collect();
        let pattern = matching.path.as_deref().unwrap_or("/**").into();
        let counts = self.meter.route(&name);
        whole.then_some((
            Route { name, matches, pattern, api: api.cloned(), chain, destination, mirror, counts, made_of },
            spec,
        ))
    }

    /// Begins with the API that the route belongs to.
    fn name(&mut self, config: &RouteConfig, (node, server): &Served<'_>, build: &mut Build<'_>) -> Arc<str> {
        let of_api = |name: &str| match server {
            Some(server) => format!("{}/{name}", server.name),
            None => name.to_owned(),
        };
        let Some(name) = &config.name else { return of_api(&config.matches.to_string()).into() };
        if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
            build.error("name", "the name of a route has 1 to 128 characters and no control characters");
        }
        let place = node.get("name").map_or(node.place, |name| name.place);
        let name = of_api(name);
        let again = server.is_some_and(|server| server.unversioned);
        if let Some(first) = self.names.insert(name.clone(), place).filter(|_| !again) {
            build.error("name", format!("two routes have the name `{name}`")).also(first, "the other route");
        }
        name.as_str().into()
    }

    fn destination(&mut self, config: &RouteConfig, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Destination> {
        if config.sticky.is_some() && config.split.is_none() {
            build.error("sticky", "`sticky` says nothing without a `split`");
        }
        match (&config.upstream, &config.split, &config.respond, &config.redirect) {
            _ if config.aggregate.is_some() => {
                build
                    .error("", "the route has more than one destination")
                    .help("keep one of `upstream`, `split`, `aggregate`, `respond`, `redirect`");
                None
            }
            (Some(name), None, None, None) => self.pool("upstream", name, build).map(Destination::Upstream),
            (None, Some(weights), None, None) => {
                Split::compile(weights, config.sticky.as_ref(), |key, name, build| self.pool(key, name, build), build)
                    .map(Destination::Split)
            }
            (None, None, Some(respond), None) => {
                build.within("respond", |build| Canned::respond(respond, scope, build)).map(Destination::Reply)
            }
            (None, None, None, Some(redirect)) => {
                build.within("redirect", |build| Canned::redirect(redirect, scope, build)).map(Destination::Reply)
            }
            (None, None, None, None) => {
                build
                    .error("", "the route leads nowhere")
                    .help("give it `upstream`, `split`, `aggregate`, `respond` or `redirect`");
                None
            }
            _ => {
                build
                    .error("", "the route has more than one destination")
                    .help("keep one of `upstream`, `split`, `aggregate`, `respond`, `redirect`");
                None
            }
        }
    }

    /// Who gets copies of a route's requests; `None` where nobody does, or after a report of what is wrong.
    fn mirror(&mut self, chain: &Chain, layers: &[&Node], build: &mut Build<'_>) -> Option<Mirror> {
        let terms = chain.terms().mirror.as_ref()?;
        build.within_detached(&policy::effective("mirror", layers)?, |build| {
            let pool = self.pool("upstream", &terms.upstream, build)?;
            Mirror::compile(terms, pool, self.meter, build)
        })
    }

    /// The upstream that a key names; `None` where it has mistakes, or after a report that there is none.
    fn pool(&mut self, key: &str, name: &str, build: &mut Build<'_>) -> Option<Arc<Pool>> {
        match self.pools.get(name) {
            Some(pool) => {
                self.used.insert(name.to_owned());
                pool.clone()
            }
            None => {
                build.unknown(key, "upstream", name, self.pools.keys().map(String::as_str));
                None
            }
        }
    }
}

/// Who makes gRPC of requests needs an upstream that speaks HTTP/2; gives whether it has one.
fn check_grpc(chain: &Chain, destination: &Destination, layers: &[&Node], build: &mut Build<'_>) -> bool {
    let http2 = match destination {
        Destination::Upstream(pool) => pool.is_http2(),
        Destination::Split(split) => split.pools().all(|pool| pool.is_http2()),
        Destination::Aggregate(_) | Destination::Reply(_) => false,
    };
    let terms = chain.terms();
    let wants = [("grpc_json", terms.grpc_json), ("grpc_web", terms.grpc_web)];
    let missing = wants.into_iter().filter(|(_, wants)| *wants && !http2);
    let nodes = missing.filter_map(|(key, _)| Some((key, policy::effective(key, layers)?)));
    let mistakes = nodes.map(|(key, node)| {
        build.within_detached(&node, |build| {
            build.error("", format!("`{key}` needs a route to an upstream that speaks HTTP/2")).help(format!(
                "give the upstream protocol = \"h2c\" (without TLS) or \"h2\", or the route {key} = false"
            ));
        });
    });
    mistakes.count() == 0
}

/// What a route matches: where it is served for an API, with what that says; and for its default version also without the
/// version in the path.
fn route_spec(written: &MatchConfig, api: Option<(&Api, bool)>, build: &mut Build<'_>) -> Option<RouteSpec> {
    let before = build.errors();
    let config = &api.map_or_else(|| written.clone(), |(api, unversioned)| api.place(written, unversioned));
    let path = match PathPattern::parse(written.path.as_deref().unwrap_or("/**")) {
        Ok(_) => PathPattern::parse(config.path.as_deref().unwrap_or("/**")).ok(),
        Err(error) => {
            build.error("path", error.to_string());
            None
        }
    };
    let mut hosts = Vec::new();
    for (i, host) in config.host.iter().enumerate() {
        match HostPattern::parse(host) {
            Ok(host) => hosts.push(host),
            Err(error) => drop(build.error(&format!("host[{i}]"), error.to_string())),
        }
    }
    let methods = match config.methods.is_empty() {
        true => None,
        false => match MethodSet::parse(config.methods.iter().map(String::as_str)) {
            Ok(methods) => Some(methods),
            Err(error) => {
                build.error("methods", error.to_string());
                None
            }
        },
    };
    let mut conditions = Vec::new();
    for (name, test) in &config.headers {
        let key = format!("headers.{name}");
        let header: Option<HeaderName> = match name.parse() {
            Ok(header) => Some(header),
            Err(_) => {
                build.error(&key, format!("`{name}` is not the name of a header field"));
                None
            }
        };
        if let (Some(header), Some(test)) = (header, value_test(test, &key, build)) {
            conditions.push(Condition::Header(header, test));
        }
    }
    for (name, test) in &config.query {
        if let Some(test) = value_test(test, &format!("query.{name}"), build) {
            conditions.push(Condition::Query(name.as_str().into(), test));
        }
    }
    if let Some(text) = &config.when {
        match policy::When::compile(text) {
            Ok(when) => conditions.push(Condition::When {
                text: text.as_str().into(),
                test: Arc::new(move |request: &RequestView<'_>| when.matches(request)),
            }),
            Err(error) => drop(build.error("when", error)),
        }
    }
    if build.errors() > before {
        return None;
    }
    let mut spec = RouteSpec { hosts, path: path?, methods, conditions };
    if let Some((api, _)) = api {
        api.restrict(&mut spec, build);
    }
    (build.errors() == before).then_some(spec)
}

/// Compiles what a value must be; `None` after a mistake in it was reported.
pub fn value_test(config: &ValueMatch, key: &str, build: &mut Build<'_>) -> Option<ValueTest> {
    match config {
        ValueMatch::Exact(text) => Some(ValueTest::Exact(text.as_str().into())),
        ValueMatch::Present(true) => Some(ValueTest::Present),
        ValueMatch::Present(false) => Some(ValueTest::Absent),
        ValueMatch::Regex(text) => match regex::Regex::new(&format!("^(?:{text})$")) {
            Ok(regex) => Some(ValueTest::Regex(regex)),
            Err(error) => {
                build.error(key, format!("not a regular expression: {}", error.to_string().replace('\n', " ")));
                None
            }
        },
    }
}
