//! What the file says of a request: which routes come near it, and where a route's settings come from.
//!
//! Requests have no use for it, so nothing is kept: it is worked out from the tree when somebody asks.

use std::cmp::Reverse;

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
    /// `route`, `policy.NAME` or `defaults`.
    pub name: String,
    /// The table.
    pub node: &'t Node,
}

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
    let nodes = routes(build.node());
    let taken = winner.and_then(|winner| spec(nodes.get(winner)?, build));
    let mut found = Vec::new();
    for (index, node) in nodes.iter().enumerate().filter(|(index, _)| Some(*index) != winner) {
        let Some(spec) = spec(node, build) else { continue };
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
    let spec = routes(build.node()).get(index).and_then(|node| spec(node, build));
    spec.iter().flat_map(|spec| spec.path.names()).map(Box::from).collect()
}

/// The tables that a route's policies are merged from, the nearest first. A bundle that is not there is left out.
pub fn layers<'t>(root: &'t Node, route: &'t Node) -> Vec<Layer<'t>> {
    let bundle = |name: &'t str| {
        let node = root.get("policy")?.get(name)?;
        Some(Layer { name: format!("policy.{name}"), node })
    };
    let used = route.get("use").and_then(Node::array).unwrap_or(&[]);
    let mut layers = vec![Layer { name: "route".to_owned(), node: route }];
    layers.extend(used.iter().filter_map(Node::str).filter_map(bundle));
    layers.extend(root.get("defaults").map(|node| Layer { name: "defaults".to_owned(), node }));
    layers
}

/// A policy of a route.
pub struct Merged<'t> {
    /// Its key.
    pub key: &'static str,
    /// What the nearest layer that has the key says.
    pub nearest: &'t Node,
    /// Its settings over all layers; `None` where it is switched off.
    pub settings: Option<Node>,
}

/// The policies of a route of `gateway`, in the order in which they run. What is secret of them is known to `build`
/// from here on.
pub fn policies<'t>(
    layers: &[Layer<'t>],
    captures: &[Box<str>],
    gateway: &Gateway,
    build: &mut Build<'_>,
) -> Vec<Merged<'t>> {
    let nodes: Vec<&Node> = layers.iter().map(|layer| layer.node).collect();
    // What is secret is found out where it is used.
    let names: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
    let scope = Scope {
        captures,
        parts: &[],
        route: "",
        layers: &names,
        owner: "",
        providers: gateway.providers(),
        zones: gateway.zones(),
        stores: gateway.stores(),
        authenticated: false,
    };
    let _ = Chain::compile(&nodes, &scope, &Meter::default(), build);
    let merged = |key: &&'static str| {
        let nearest = layers.iter().find_map(|layer| layer.node.get(key))?;
        Some(Merged { key, nearest, settings: policy::effective(key, &nodes) })
    };
    policy::KEYS.iter().filter_map(merged).collect()
}

/// The routes of a configuration, by position.
pub fn routes(root: &Node) -> &[Node] {
    root.get("route").and_then(Node::array).unwrap_or(&[])
}

fn spec(node: &Node, build: &mut Build<'_>) -> Option<RouteSpec> {
    let matches = node.get("match")?;
    build.within_detached(matches, |build| {
        let config: MatchConfig = build.deserialize()?;
        route_spec(&config, build)
    })
}
