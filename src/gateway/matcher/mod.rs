//! Which route takes a request.
//!
//! The most specific route that matches wins, wherever it stands in the file. What is more specific is decided in
//! this order:
//!
//! 1. **Host**: an exact host before a wildcard, a longer wildcard before a shorter, any host last.
//! 2. **Path**: a pattern whose paths are all paths of the other wins: a literal segment before `{name:regex}`,
//!    that before `{name}`, that before `**`. A `**` that stands for nothing counts for nothing.
//! 3. **Methods**: fewer before more. A route for GET takes HEAD as well.
//! 4. **Conditions** (header, query, `when`; the listeners and the version of an API): a route with more than all conditions of the other.
//!
//! A route that lacks the request's method or whose conditions fail is passed over for the next. Two routes that
//! one request can match with neither more specific are an error when the file is loaded.
//!
//! The paths are kept in a tree by segments, so the cost of a look-up grows with the length of the path and not
//! with the number of routes.

mod conflict;
mod pattern;
mod weigh;

use std::collections::HashMap;

use regex::Regex;

use crate::types::Captures;
use pattern::Segment;

pub use crate::facts::RequestView;
pub use pattern::{Condition, HostPattern, MethodSet, PathPattern, ValueTest};
pub use weigh::{Obstacle, Part};

/// What a route matches.
#[derive(Clone)]
pub struct RouteSpec {
    /// Any of these hosts; none means any host.
    pub hosts: Vec<HostPattern>,
    /// The path.
    pub path: PathPattern,
    /// These methods; `None` means any.
    pub methods: Option<MethodSet>,
    /// All of these conditions.
    pub conditions: Vec<Condition>,
}

/// What a look-up found.
#[derive(Debug, PartialEq)]
pub enum Found {
    /// The route that takes the request, by its position.
    Route {
        /// The position in the list that the matcher was built from.
        index: usize,
        /// Where the captures are in the path.
        captures: Captures,
    },
    /// The path is there, and not with this method.
    MethodNotAllowed {
        /// The methods that are.
        allow: MethodSet,
    },
    /// Nothing takes the request.
    NotFound,
}

/// Two routes that can take the same request, and neither is more specific.
#[derive(Debug)]
pub struct Conflict {
    /// The position of the route that stands earlier.
    pub first: usize,
    /// The position of the other.
    pub second: usize,
    /// A request that both match.
    pub example: String,
}

/// Finds the route of a request.
pub struct Matcher {
    exact: HashMap<Box<str>, Tree, foldhash::fast::RandomState>,
    wildcard: HashMap<Box<str>, Tree, foldhash::fast::RandomState>,
    any: Tree,
}

struct Tree {
    nodes: Vec<Node>,
}

#[derive(Default)]
struct Node {
    literals: HashMap<Box<str>, u32, foldhash::fast::RandomState>,
    regexes: Vec<(Box<str>, Regex, u32)>,
    param: Option<u32>,
    /// Routes whose path ends here.
    ends: Vec<Leaf>,
    /// Routes whose path goes on with `**`.
    rests: Vec<Leaf>,
    /// Whether a capture or `**` stands somewhere below.
    wild: bool,
}

struct Leaf {
    index: usize,
    methods: MethodSet,
    conditions: Vec<Condition>,
}

impl Matcher {
    /// Builds the trees.
    ///
    /// # Errors
    /// Pairs of routes that are ambiguous; at most a hundred.
    pub fn build(routes: Vec<RouteSpec>) -> Result<Self, Vec<Conflict>> {
        let mut matcher = Self { exact: HashMap::default(), wildcard: HashMap::default(), any: Tree::default() };
        for (index, route) in routes.iter().enumerate() {
            for host in &route.hosts {
                let tree = match host {
                    HostPattern::Exact(name) => matcher.exact.entry(name.clone()).or_default(),
                    HostPattern::Wildcard(name) => matcher.wildcard.entry(name.clone()).or_default(),
                };
                tree.insert(index, route);
            }
            if route.hosts.is_empty() {
                matcher.any.insert(index, route);
            }
        }
        let mut conflicts = Vec::new();
        for tree in matcher.exact.values_mut().chain(matcher.wildcard.values_mut()).chain([&mut matcher.any]) {
            tree.finish();
            conflict::find(tree, &routes, &mut conflicts);
        }
        if conflicts.is_empty() { Ok(matcher) } else { Err(conflicts) }
    }

    /// The route that takes a request.
    pub fn find(&self, request: &RequestView<'_>) -> Found {
        let mut walk = Walk { request, captures: Captures::default(), allow: MethodSet::default() };
        let mut found = None;
        if !self.exact.is_empty() {
            found = self.exact.get(request.host).and_then(|tree| walk.tree(tree));
        }
        if found.is_none() && !self.wildcard.is_empty() {
            let mut suffix = request.host;
            while let (None, Some((_, rest))) = (found, suffix.split_once('.')) {
                suffix = rest;
                found = self.wildcard.get(suffix).and_then(|tree| walk.tree(tree));
            }
        }
        match found.or_else(|| walk.tree(&self.any)) {
            Some(index) => Found::Route { index, captures: walk.captures },
            None if !walk.allow.is_empty() => Found::MethodNotAllowed { allow: walk.allow },
            None => Found::NotFound,
        }
    }
}

/// One look-up under way.
struct Walk<'w, 'r> {
    request: &'w RequestView<'r>,
    captures: Captures,
    allow: MethodSet,
}

impl Walk<'_, '_> {
    fn tree(&mut self, tree: &Tree) -> Option<usize> {
        let start = self.request.path.starts_with('/').then_some(1);
        self.node(tree, 0, start)
    }

    /// `at` is where the next segment begins; `None` when the path has ended. Each way through the tree is taken
    /// once, the more specific first, so the work is bounded by the nodes whose patterns the path can meet.
    fn node(&mut self, tree: &Tree, node: u32, at: Option<usize>) -> Option<usize> {
        let path = self.request.path;
        let node = &tree.nodes[node as usize];
        let Some(start) = at else {
            return self.leaf(&node.ends).or_else(|| self.rest(node, path.len()));
        };
        let end = memchr::memchr(b'/', &path.as_bytes()[start..]).map_or(path.len(), |i| start + i);
        let segment = &path[start..end];
        let next = (end < path.len()).then_some(end + 1);
        if let Some(child) = node.literals.get(segment)
            && let Some(found) = self.node(tree, *child, next)
        {
            return Some(found);
        }
        if !segment.is_empty() && (node.param.is_some() || !node.regexes.is_empty()) {
            self.captures.push(start..end);
            for (_, regex, child) in &node.regexes {
                if regex.is_match(segment)
                    && let Some(found) = self.node(tree, *child, next)
                {
                    return Some(found);
                }
            }
            if let Some(child) = node.param
                && let Some(found) = self.node(tree, child, next)
            {
                return Some(found);
            }
            self.captures.pop();
        }
        self.rest(node, start)
    }

    fn rest(&mut self, node: &Node, start: usize) -> Option<usize> {
        if node.rests.is_empty() {
            return None;
        }
        self.captures.push(start..self.request.path.len());
        let found = self.leaf(&node.rests);
        if found.is_none() {
            self.captures.pop();
        }
        found
    }

    fn leaf(&mut self, leaves: &[Leaf]) -> Option<usize> {
        for leaf in leaves {
            if !leaf.methods.contains(self.request.method) {
                self.allow = self.allow.union(leaf.methods);
            } else if leaf.conditions.iter().all(|condition| condition.matches(self.request)) {
                return Some(leaf.index);
            }
        }
        None
    }
}

impl Default for Tree {
    /// The root alone.
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl Tree {
    fn insert(&mut self, index: usize, route: &RouteSpec) {
        let mut at = 0u32;
        for segment in &route.path.segments {
            let fresh = u32::try_from(self.nodes.len()).expect("a tree has fewer nodes than the file has bytes");
            let node = &mut self.nodes[at as usize];
            at = match segment {
                Segment::Literal(text) => *node.literals.entry(text.clone()).or_insert(fresh),
                Segment::Param(_) => *node.param.get_or_insert(fresh),
                Segment::Regex { text, regex, .. } => match node.regexes.iter().find(|(known, ..)| known == text) {
                    Some((_, _, child)) => *child,
                    None => {
                        node.regexes.push((text.clone(), regex.clone(), fresh));
                        fresh
                    }
                },
            };
            if at == fresh {
                self.nodes.push(Node::default());
            }
        }
        let node = &mut self.nodes[at as usize];
        let leaf =
            Leaf { index, methods: route.methods.unwrap_or(MethodSet::ALL), conditions: route.conditions.clone() };
        if route.path.rest { node.rests.push(leaf) } else { node.ends.push(leaf) }
    }

    /// Sorts what ends at one node, and notes below which nodes something is not literal.
    fn finish(&mut self) {
        // Children were made after their parents, so backwards every child comes before its parent.
        for i in (0..self.nodes.len()).rev() {
            let node = &self.nodes[i];
            let wild = node.param.is_some()
                || !node.regexes.is_empty()
                || !node.rests.is_empty()
                || node.literals.values().any(|child| self.nodes[*child as usize].wild);
            let node = &mut self.nodes[i];
            node.wild = wild;
            for leaves in [&mut node.ends, &mut node.rests] {
                leaves.sort_by_key(|leaf| (leaf.methods.len(), std::cmp::Reverse(leaf.conditions.len()), leaf.index));
            }
        }
    }
}

#[cfg(test)]
mod tests;
