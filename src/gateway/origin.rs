//! What the file says of a request: which routes come near it, and where a route's settings come from.
//!
//! Requests have no use for it, so nothing is kept: it is worked out from the tree when somebody asks.

use std::borrow::Cow;
use std::cmp::Reverse;

use super::api::{self, Apis, Server};
use super::config::MatchConfig;
use super::matcher::{Part, RequestView, RouteSpec};
use super::{Gateway, route_spec};
use crate::build::{Build, Node};
use crate::policy::{self, Chain, Scope};
use crate::telemetry::metrics::traffic::Meter;

/// A route that does not take a request.
pub struct Miss {
    /// Its position.
    pub index: usize,
    /// Why not.
    pub why: String,
}

/// One of the tables that a route's policies are merged from.
pub struct Layer<'t> {
    /// `route`, `policy.NAME`, `api.NAME` or `defaults`; and `view.NAME`, which is put together of all of them.
    pub name: String,
    /// The table.
    pub node: Cow<'t, Node>,
}

/// A route, and the API that serves it if one does.
pub type Served<'t> = (&'t Node, Option<Server<'t>>);

/// How far a route is from a request: the less, the nearer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Distance {
    /// Whether the path differs.
    path: bool,
    obstacles: usize,
    /// The worst of them.
    part: Option<Part>,
    /// Segments of the path that are the same.
    shared: Reverse<usize>,
}

/// The routes that come near a request, the nearest first: those that match and are less specific, and those that
/// one part of the match keeps from it. Where no route takes the request, also those with a path like its.
pub fn near_misses(winner: Option<usize>, request: &RequestView<'_>, build: &mut Build<'_>) -> Vec<Miss> {
    let root = build.node();
    let served = served(root);
    let apis = Apis::compile(root, &Meter::default(), build);
    let taken = winner.and_then(|winner| spec(served.get(winner)?, &apis, build));
    let mut found = Vec::new();
    for (index, served) in served.iter().enumerate().filter(|(index, _)| Some(*index) != winner) {
        let Some(spec) = spec(served, &apis, build) else { continue };
        let obstacles = spec.obstacles(request);
        let path = obstacles.iter().any(|obstacle| obstacle.part == Part::Path);
        let shared = spec.shared_segments(request.path);
        if path && (taken.is_some() || !spec.resembles(request.path)) {
            continue;
        }
        let why = match (obstacles.is_empty(), &taken) {
            (true, Some(taken)) => spec.yields_to(taken, request),
            _ => obstacles.iter().map(|obstacle| obstacle.why.as_str()).collect::<Vec<_>>().join("; "),
        };
        let part = obstacles.iter().map(|obstacle| obstacle.part).max();
        found.push((Distance { path, obstacles: obstacles.len(), part, shared: Reverse(shared) }, Miss { index, why }));
    }
    found.sort_by_key(|(distance, _)| *distance);
    // Of paths that differ, those that differ last.
    let likest = found.iter().filter(|(distance, _)| distance.path).map(|(distance, _)| distance.shared).min();
    found.retain(|(distance, _)| !distance.path || Some(distance.shared) == likest);
    found.into_iter().map(|(_, miss)| miss).collect()
}

/// The names of a route's captures, by position.
pub fn captures(index: usize, build: &mut Build<'_>) -> Vec<Box<str>> {
    // An API adds none.
    let spec = served(build.node()).get(index).and_then(|(node, _)| spec(&(node, None), &Apis::default(), build));
    spec.iter().flat_map(|spec| spec.path.names()).map(Box::from).collect()
}

/// The tables that a route's policies are merged from, the nearest first. A bundle that is not there is left out.
pub fn layers<'t>(root: &'t Node, (route, server): &Served<'t>) -> Vec<Layer<'t>> {
    let layer = |name: String, node: &'t Node| Layer { name, node: Cow::Borrowed(node) };
    let bundle = |name: &'t str| Some(layer(format!("policy.{name}"), root.get("policy")?.get(name)?));
    let used = route.get("use").and_then(Node::array).unwrap_or(&[]);
    let mut layers = vec![layer("route".to_owned(), route)];
    layers.extend(used.iter().filter_map(Node::str).filter_map(bundle));
    layers.extend(server.map(|server| layer(format!("api.{}", server.name), server.node)));
    layers.extend(root.get("defaults").map(|node| layer("defaults".to_owned(), node)));
    let view = server.and_then(|server| {
        let node = api::view(server.name, layers.iter().map(|layer| &*layer.node))?;
        Some(Layer { name: format!("view.{}", server.name), node: Cow::Owned(node) })
    });
    layers.splice(0..0, view);
    layers
}

/// A policy of a route.
pub struct Merged<'l> {
    /// Its key.
    pub key: &'static str,
    /// What the nearest layer that has the key says.
    pub nearest: &'l Node,
    /// Its settings over all layers; `None` where it is switched off.
    pub settings: Option<Node>,
}

/// The policies of a route of `gateway`, in the order in which they run. What is secret of them is known to `build`
/// from here on.
pub fn policies<'l>(
    layers: &'l [Layer<'_>],
    captures: &[Box<str>],
    gateway: &Gateway,
    build: &mut Build<'_>,
) -> Vec<Merged<'l>> {
    let nodes: Vec<&Node> = layers.iter().map(|layer| &*layer.node).collect();
    // What is secret is found out where it is used.
    let names: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
    let known = Scope::new(gateway.providers(), gateway.zones(), gateway.stores());
    let scope = Scope { captures, layers: &names, ..known };
    let _ = Chain::compile(&nodes, &scope, &Meter::default(), build);
    let merged = |key: &&'static str| {
        let nearest = layers.iter().find_map(|layer| layer.node.get(key))?;
        Some(Merged { key, nearest, settings: policy::effective(key, &nodes) })
    };
    policy::KEYS.iter().filter_map(merged).collect()
}

/// The routes of a configuration with what serves them, by position.
pub fn served(root: &Node) -> Vec<Served<'_>> {
    let served = |route| {
        let servers = api::servers(root, route);
        let alone = servers.is_empty().then_some((route, None));
        servers.into_iter().map(move |server| (route, Some(server))).chain(alone)
    };
    routes(root).iter().flat_map(served).collect()
}

/// The routes of a configuration, as they are written.
pub(super) fn routes(root: &Node) -> &[Node] {
    root.get("route").and_then(Node::array).unwrap_or(&[])
}

fn spec((node, server): &Served<'_>, apis: &Apis, build: &mut Build<'_>) -> Option<RouteSpec> {
    let matches = node.get("match")?;
    build.within_detached(matches, |build| {
        let config: MatchConfig = build.deserialize()?;
        let api = server.and_then(|server| Some((&**apis.get(server.name)?, server.unversioned)));
        route_spec(&config, api, build)
    })
}
