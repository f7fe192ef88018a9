//! Why a route takes a request, or does not: every part of a match by itself, in words.
//!
//! For people who ask. Requests are routed by the tree, which looks at nothing but what can match.

use super::pattern::Segment;
use super::{HostPattern, PathPattern, RequestView, RouteSpec};

/// A part of a match that a request does not meet.
#[derive(Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// Which part.
    pub part: Part,
    /// Why, for people.
    pub why: String,
}

/// The parts of a match; the first are the nearest to a match when nothing else is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A header, a query parameter or an expression.
    Condition,
    /// The method.
    Method,
    /// The host.
    Host,
    /// The path.
    Path,
}

impl RouteSpec {
    /// What keeps a request from the route; nothing when the route matches.
    pub fn obstacles(&self, request: &RequestView<'_>) -> Vec<Obstacle> {
        let mut obstacles = Vec::new();
        let mut add = |part, why| obstacles.push(Obstacle { part, why });
        if let Err(why) = self.path.fits(request.path) {
            add(Part::Path, why);
        }
        if self.nearest_host(request.host).is_none() {
            add(Part::Host, format!("it is for {}", either(self.hosts.iter().map(|host| format!("`{host}`")))));
        }
        if let Some(methods) = self.methods.filter(|methods| !methods.contains(request.method)) {
            add(Part::Method, format!("it takes {methods}, not {}", request.method));
        }
        for condition in self.conditions.iter().filter(|condition| !condition.matches(request)) {
            add(Part::Condition, format!("it asks for {}", condition.example()));
        }
        obstacles
    }

    /// Whether a path begins as the route's, or nearly so.
    pub fn resembles(&self, path: &str) -> bool {
        match (self.path.segments.first(), segments(path).next()) {
            (Some(Segment::Literal(literal)), Some(text)) => {
                strsim::damerau_levenshtein(literal, text) <= literal.len().min(text.len()) / 3
            }
            (Some(segment), Some(text)) => segment.is_met(text),
            _ => false,
        }
    }

    /// How many segments of a path are as the route has them.
    pub fn shared_segments(&self, path: &str) -> usize {
        self.path.segments.iter().zip(segments(path)).take_while(|(segment, text)| segment.is_met(text)).count()
    }

    /// Why the `winner` is more specific, where both match a request.
    pub fn yields_to(&self, winner: &Self, request: &RequestView<'_>) -> String {
        let (mine, theirs) = (self.nearest_host(request.host), winner.nearest_host(request.host));
        if let (Some(mine), Some(theirs)) = (mine, theirs)
            && rank(mine) != rank(theirs)
        {
            let show = |host: Option<&HostPattern>| host.map_or("any host".to_owned(), |host| format!("`{host}`"));
            return format!("less specific: {}, and the winner is for {}", show(mine), show(theirs));
        }
        let shown = |path: &PathPattern, i: usize| path.segments.get(i).map_or("**".to_owned(), Segment::to_string);
        let count = segments(request.path).count();
        for i in 0..count {
            let kind = |path: &PathPattern| path.segments.get(i).map_or(3, Segment::kind);
            if kind(&self.path) != kind(&winner.path) {
                let (mine, theirs) = (shown(&self.path, i), shown(&winner.path, i));
                return format!("less specific: `{mine}` where the winner has `{theirs}`");
            }
        }
        if self.path.rest && !winner.path.rest {
            return "less specific: `**` where the winner ends".to_owned();
        }
        match self.methods == winner.methods {
            false => "less specific: it takes more methods".to_owned(),
            true => "less specific: it has fewer conditions".to_owned(),
        }
    }

    /// The most specific of the route's hosts that is this one; `Some(None)` when it takes any host.
    fn nearest_host(&self, host: &str) -> Option<Option<&HostPattern>> {
        if self.hosts.is_empty() {
            return Some(None);
        }
        self.hosts.iter().filter(|pattern| pattern.matches(host)).max_by_key(|pattern| rank(Some(pattern))).map(Some)
    }
}

/// An exact host before a wildcard, a longer one before a shorter, any host last.
fn rank(host: Option<&HostPattern>) -> (u8, usize) {
    match host {
        Some(HostPattern::Exact(_)) => (2, 0),
        Some(HostPattern::Wildcard(name)) => (1, name.len()),
        None => (0, 0),
    }
}

impl PathPattern {
    fn fits(&self, path: &str) -> Result<(), String> {
        let mut texts = segments(path);
        for segment in &self.segments {
            match texts.next() {
                Some(text) if segment.is_met(text) => {}
                Some(text) => return Err(format!("it has `{segment}` where the path has `{text}`")),
                None => return Err(format!("it goes on with `/{segment}` where the path ends")),
            }
        }
        match texts.next() {
            Some(text) if !self.rest => Err(format!("it ends where the path goes on with `/{text}`")),
            _ if self.rest || path.starts_with('/') => Ok(()),
            _ => Err("it is a path, and the target is none".to_owned()),
        }
    }
}

/// The target `*` has none.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').into_iter().flat_map(|path| path.split('/'))
}

impl Segment {
    fn is_met(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => **literal == *text,
            Self::Regex { regex, .. } => !text.is_empty() && regex.is_match(text),
            Self::Param(_) => !text.is_empty(),
        }
    }

    /// The smaller, the more specific.
    fn kind(&self) -> u8 {
        match self {
            Self::Literal(_) => 0,
            Self::Regex { .. } => 1,
            Self::Param(_) => 2,
        }
    }
}

impl HostPattern {
    pub(in crate::gateway) fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *host,
            Self::Wildcard(name) => host.strip_suffix(&**name).is_some_and(|rest| rest.ends_with('.')),
        }
    }
}

/// `a`, `a or b`, `a, b or c`.
fn either(texts: impl Iterator<Item = String>) -> String {
    let mut texts: Vec<String> = texts.collect();
    let last = texts.pop().unwrap_or_default();
    if texts.is_empty() { last } else { format!("{} or {last}", texts.join(", ")) }
}
