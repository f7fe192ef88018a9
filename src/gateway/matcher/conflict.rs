//! Finds routes that one request can match with neither more specific.
//!
//! Every pattern that is not all literal is walked through the tree beside the patterns that overlap it. A branch
//! is left as soon as nothing in it can be both more and less specific.

use std::collections::{HashSet, VecDeque};

use regex_automata::Anchored;
use regex_automata::dfa::Automaton;
use regex_automata::dfa::dense::{Config, DFA};
use regex_automata::util::start;

use super::pattern::{Condition, Segment};
use super::{Conflict, Leaf, Node, RouteSpec, Tree};

const MOST: usize = 100;

/// Adds the conflicts within one tree.
pub(super) fn find(tree: &Tree, routes: &[RouteSpec], conflicts: &mut Vec<Conflict>) {
    for node in &tree.nodes {
        for leaves in [&node.ends, &node.rests] {
            same_path(leaves, routes, conflicts);
        }
    }
    let mut members = HashSet::new();
    for node in &tree.nodes {
        members.extend(node.ends.iter().chain(&node.rests).map(|leaf| leaf.index));
    }
    let mut members: Vec<usize> = members.into_iter().collect();
    members.sort_unstable();
    for index in members {
        let route = &routes[index];
        let wild = route.path.rest || route.path.segments.iter().any(|s| !matches!(s, Segment::Literal(_)));
        if wild && conflicts.len() < MOST {
            let mut walk = Overlap { tree, routes, index, conflicts, path: String::new() };
            walk.node(0, 0, Relation::default());
        }
    }
}

/// Which of two patterns was more specific in some segment so far.
#[derive(Clone, Copy, Default)]
struct Relation {
    mine: bool,
    other: bool,
}

struct Overlap<'w> {
    tree: &'w Tree,
    routes: &'w [RouteSpec],
    index: usize,
    conflicts: &'w mut Vec<Conflict>,
    /// A path that both match so far.
    path: String,
}

impl Overlap<'_> {
    fn node(&mut self, at: u32, position: usize, relation: Relation) {
        if self.conflicts.len() >= MOST {
            return;
        }
        let tree = self.tree;
        let node = &tree.nodes[at as usize];
        let pattern = &self.routes[self.index].path;
        // Only where the other is wild can this one still become the more specific.
        if relation.other && !relation.mine && !node.wild {
            return;
        }
        match pattern.segments.get(position) {
            // A `**` that stands for nothing counts for nothing: the segments before it decide.
            None if pattern.rest => {
                self.meet(&node.ends, relation);
                self.meet(&node.rests, relation);
                // All that is below is more specific than the rest of this one.
                if relation.mine {
                    self.below(node, Relation { other: true, ..relation });
                }
            }
            None => {
                self.meet(&node.ends, relation);
                self.meet(&node.rests, relation);
            }
            Some(segment) => {
                self.children(node, segment, position, relation);
                let others = Relation { mine: true, ..relation };
                if others.other && !node.rests.is_empty() {
                    let kept = self.path.len();
                    for segment in &pattern.segments[position..] {
                        self.path.push('/');
                        self.path.push_str(&sample(segment));
                    }
                    self.meet(&node.rests, others);
                    self.path.truncate(kept);
                }
            }
        }
    }

    fn children(&mut self, node: &Node, segment: &Segment, position: usize, relation: Relation) {
        let mine = Relation { mine: true, ..relation };
        let other = Relation { other: true, ..relation };
        match segment {
            Segment::Literal(text) => {
                if let Some(child) = node.literals.get(text) {
                    self.step(text, *child, position, relation);
                }
                for (_, regex, child) in &node.regexes {
                    if regex.is_match(text) {
                        self.step(text, *child, position, mine);
                    }
                }
                if let Some(child) = node.param.filter(|_| !text.is_empty()) {
                    self.step(text, child, position, mine);
                }
            }
            Segment::Regex { text, regex, .. } => {
                for (literal, child) in &node.literals {
                    if !literal.is_empty() && regex.is_match(literal) {
                        self.step(literal, *child, position, other);
                    }
                }
                for (known, _, child) in &node.regexes {
                    if known == text {
                        self.step(&sample(segment), *child, position, relation);
                    } else if let Some(both) = witness(text, known) {
                        self.step(&both, *child, position, Relation { mine: true, other: true });
                    }
                }
                if let Some(child) = node.param {
                    self.step(&sample(segment), child, position, mine);
                }
            }
            Segment::Param(_) => {
                for (literal, child) in &node.literals {
                    if !literal.is_empty() {
                        self.step(literal, *child, position, other);
                    }
                }
                for (known, _, child) in &node.regexes {
                    let text = witness(known, known).unwrap_or_else(|| "x".to_owned());
                    self.step(&text, *child, position, other);
                }
                if let Some(child) = node.param {
                    self.step("x", child, position, relation);
                }
            }
        }
    }

    fn step(&mut self, segment: &str, child: u32, position: usize, relation: Relation) {
        let kept = self.path.len();
        self.path.push('/');
        self.path.push_str(segment);
        self.node(child, position + 1, relation);
        self.path.truncate(kept);
    }

    /// Everything below a node, where this pattern goes on with `**`.
    fn below(&mut self, node: &Node, relation: Relation) {
        let literals = node.literals.iter().map(|(text, child)| (text.to_string(), *child));
        let regexes =
            node.regexes.iter().map(|(text, _, child)| (witness(text, text).unwrap_or_else(|| "x".to_owned()), *child));
        let param = node.param.map(|child| ("x".to_owned(), child));
        for (segment, child) in literals.chain(regexes).chain(param) {
            if self.conflicts.len() >= MOST {
                return;
            }
            let kept = self.path.len();
            self.path.push('/');
            self.path.push_str(&segment);
            let child = &self.tree.nodes[child as usize];
            self.meet(&child.ends, relation);
            self.meet(&child.rests, relation);
            self.below(child, relation);
            self.path.truncate(kept);
        }
    }

    fn meet(&mut self, leaves: &[Leaf], relation: Relation) {
        if !(relation.mine && relation.other) {
            return;
        }
        for leaf in leaves {
            if leaf.index > self.index && self.conflicts.len() < MOST {
                let path = if self.path.is_empty() { "/" } else { &self.path };
                self.conflicts.extend(both(self.routes, self.index, leaf.index, path));
            }
        }
    }
}

/// Routes with the same path: methods and conditions have to tell them apart.
fn same_path(leaves: &[Leaf], routes: &[RouteSpec], conflicts: &mut Vec<Conflict>) {
    for (i, a) in leaves.iter().enumerate() {
        for b in &leaves[i + 1..] {
            if conflicts.len() >= MOST {
                return;
            }
            let shared = a.methods.intersection(b.methods);
            let nested = a.methods != b.methods && (shared == a.methods || shared == b.methods);
            let more = a.methods == b.methods
                && (strictly_more(&a.conditions, &b.conditions) || strictly_more(&b.conditions, &a.conditions));
            if !nested && !more {
                let path: String = routes[a.index].path.segments.iter().map(|s| format!("/{}", sample(s))).collect();
                let path = if path.is_empty() { "/" } else { &path };
                conflicts.extend(both(routes, a.index.min(b.index), a.index.max(b.index), path));
            }
        }
    }
}

/// `a` has every condition of `b`, and another.
fn strictly_more(a: &[Condition], b: &[Condition]) -> bool {
    a.len() > b.len() && b.iter().all(|condition| a.iter().any(|other| condition.same(other)))
}

/// The conflict, unless methods or conditions keep the two apart.
fn both(routes: &[RouteSpec], first: usize, second: usize, path: &str) -> Option<Conflict> {
    let (a, b) = (&routes[first], &routes[second]);
    let methods = a.methods.unwrap_or(super::MethodSet::ALL).intersection(b.methods.unwrap_or(super::MethodSet::ALL));
    let apart = a.conditions.iter().any(|x| b.conditions.iter().any(|y| x.disjoint(y)));
    if methods.is_empty() || apart {
        return None;
    }
    let mut example = format!("{} {path}", methods.first());
    let mut conditions: Vec<String> = a.conditions.iter().chain(&b.conditions).map(Condition::example).collect();
    conditions.sort();
    conditions.dedup();
    if !conditions.is_empty() {
        example.push_str(" with ");
        example.push_str(&conditions.join(" and "));
    }
    Some(Conflict { first, second, example })
}

/// A text that a segment matches.
fn sample(segment: &Segment) -> String {
    match segment {
        Segment::Literal(text) => text.to_string(),
        Segment::Param(_) => "x".to_owned(),
        Segment::Regex { text, .. } => witness(text, text).unwrap_or_else(|| "x".to_owned()),
    }
}

/// A shortest text of path characters that both expressions match as a whole; `None` when there is none, or when
/// the expressions are too large to say.
fn witness(a: &str, b: &str) -> Option<String> {
    const LARGEST: usize = 1 << 20;
    const MOST_STATES: usize = 20_000;
    let build = |text: &str| {
        let config = Config::new().dfa_size_limit(Some(LARGEST)).determinize_size_limit(Some(LARGEST));
        DFA::builder().configure(config).build(&format!("^(?:{text})$")).ok()
    };
    let (a, b) = (build(a)?, build(b)?);
    let config = start::Config::new().anchored(Anchored::Yes);
    let begin = (a.start_state(&config).ok()?, b.start_state(&config).ok()?);
    let mut seen = HashSet::from([begin]);
    let mut queue = VecDeque::from([(begin, String::new())]);
    while let Some(((x, y), text)) = queue.pop_front() {
        if !text.is_empty() && a.is_match_state(a.next_eoi_state(x)) && b.is_match_state(b.next_eoi_state(y)) {
            return Some(text);
        }
        if seen.len() > MOST_STATES {
            return None;
        }
        for byte in (b'a'..=b'z').chain(b'0'..=b'9').chain(b'A'..=b'Z').chain(*b"-._~!$&'()*+,;=:@%") {
            let next = (a.next_state(x, byte), b.next_state(y, byte));
            if !a.is_dead_state(next.0) && !b.is_dead_state(next.1) && seen.insert(next) {
                queue.push_back((next, format!("{text}{}", byte as char)));
            }
        }
    }
    None
}
