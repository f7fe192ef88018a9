//! What routes are made of: patterns of paths and hosts, sets of methods, conditions.

use std::fmt;
use std::sync::Arc;

use http::{HeaderName, Method};
use regex::Regex;

use super::RequestView;
use crate::policy::version::Naming;
use crate::types::path;

/// A path as a route writes it: literal segments, `{name}`, `{name:regex}`, a last `**`.
#[derive(Clone, Debug)]
pub struct PathPattern {
    pub(super) segments: Vec<Segment>,
    /// A last `**`: any number of further segments.
    pub(super) rest: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Segment {
    Literal(Box<str>),
    Regex { name: Box<str>, text: Box<str>, regex: Regex },
    Param(Box<str>),
}

/// `api.example.com`, or `*.example.com` for one or more labels in front.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host.
    Exact(Box<str>),
    /// Any host that ends in a dot and this.
    Wildcard(Box<str>),
}

/// A set of request methods. A set with GET has HEAD.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MethodSet(u8);

/// A condition beside path, host and method.
#[derive(Clone)]
pub enum Condition {
    /// On a header field; several fields of one name: any of them.
    Header(HeaderName, ValueTest),
    /// On a query parameter; several of one name: any of them.
    Query(Box<str>, ValueTest),
    /// On the listener: any of these, by name.
    Listener(Arc<[Box<str>]>),
    /// On the version of an API that a request names: this one of them.
    Version(Arc<Naming>, usize),
    /// An expression.
    When {
        /// As written.
        text: Box<str>,
        /// Compiled.
        test: Arc<dyn Fn(&RequestView<'_>) -> bool + Send + Sync>,
    },
}

/// A test of a value.
#[derive(Clone, Debug)]
pub enum ValueTest {
    /// It is this.
    Exact(Box<str>),
    /// It matches this as a whole.
    Regex(Regex),
    /// It is there.
    Present,
    /// It is not there.
    Absent,
}

const METHODS: [(&str, Method); 7] = [
    ("GET", Method::GET),
    ("HEAD", Method::HEAD),
    ("POST", Method::POST),
    ("PUT", Method::PUT),
    ("PATCH", Method::PATCH),
    ("DELETE", Method::DELETE),
    ("OPTIONS", Method::OPTIONS),
];

impl PathPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(rest_of) = text.strip_prefix('/') else {
            return Err(format!("`{text}` does not begin with `/`"));
        };
        let parts = split(rest_of)?;
        let mut pattern = Self { segments: Vec::with_capacity(parts.len()), rest: false };
        for (i, part) in parts.iter().enumerate() {
            let last = i + 1 == parts.len();
            if *part == "**" {
                if !last {
                    return Err("`**` stands for the rest of a path, so it is the last segment".to_owned());
                }
                pattern.rest = true;
            } else if let Some(inner) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                pattern.segments.push(pattern.capture(inner)?);
            } else if part.contains(['{', '}', '*']) {
                return Err(format!("`{part}`: a capture is a whole segment, such as `{{id}}`, and `**` a last one"));
            } else if part.is_empty() && !last {
                return Err(format!("`{text}` has an empty segment: requests with `//` are normalised to `/`"));
            } else {
                pattern.segments.push(Segment::Literal((*part).into()));
            }
        }
        let literal: String = pattern
            .segments
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => format!("/{text}"),
                _ => "/x".to_owned(),
            })
            .collect();
        match path::normalize(if literal.is_empty() { "/" } else { &literal }) {
            Ok(normal) if normal == literal || literal.is_empty() => Ok(pattern),
            Ok(normal) => Err(format!("no request has this path, for paths are normalised: write it as in `{normal}`")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The names of the captures by position; the rest is `**`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names = self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Regex { name, .. } | Segment::Param(name) => Some(&**name),
        });
        names.chain(self.rest.then_some("**"))
    }

    fn capture(&self, inner: &str) -> Result<Segment, String> {
        let (name, regex) = match inner.split_once(':') {
            Some((name, regex)) => (name, Some(regex)),
            None => (inner, None),
        };
        let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if name.is_empty() || !name.bytes().all(fine) {
            return Err(format!("`{{{inner}}}`: a capture has a name of letters, digits, `_` and `-`"));
        }
        if self.names().any(|other| other == name) {
            return Err(format!("the name `{name}` is given to two captures"));
        }
        let Some(text) = regex else { return Ok(Segment::Param(name.into())) };
        let regex = Regex::new(&format!("^(?:{text})$")).map_err(|error| {
            format!("`{text}` is not a regular expression: {}", error.to_string().replace('\n', " "))
        })?;
        Ok(Segment::Regex { name: name.into(), text: text.into(), regex })
    }
}

/// Segments between slashes; a slash within braces belongs to a regular expression.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'{' => depth += 1,
            b'}' => depth = depth.checked_sub(1).ok_or("a `}` without a `{`")?,
            b'/' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err("a `{` without a `}`".to_owned());
    }
    parts.push(&text[start..]);
    Ok(parts)
}

impl HostPattern {
    /// Whether every host of the other is one of this.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(all), Self::Exact(one)) => all == one,
            (Self::Wildcard(all), Self::Exact(one) | Self::Wildcard(one)) => {
                let within = one.strip_suffix(&**all);
                within
                    .is_some_and(|rest| rest.ends_with('.') || (rest.is_empty() && matches!(other, Self::Wildcard(_))))
            }
            (Self::Exact(_), Self::Wildcard(_)) => false,
        }
    }

    /// Parses a host.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let (wildcard, name) = match lower.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, lower.as_str()),
        };
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b);
        if name.is_empty() || !name.bytes().all(fine) {
            return Err(format!("`{text}` is not a host: write `api.example.com` or `*.example.com`"));
        }
        if name.contains(':') && !name.starts_with('[') {
            return Err(format!("`{text}`: a host is matched without its port"));
        }
        Ok(if wildcard { Self::Wildcard(name.into()) } else { Self::Exact(name.into()) })
    }
}

impl MethodSet {
    /// Every method.
    pub const ALL: Self = Self(0x7f);

    /// Parses names of methods.
    ///
    /// # Errors
    /// A name that is no method that the gateway knows.
    pub fn parse<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, String> {
        let mut set = Self::default();
        for name in names {
            let name = name.trim();
            let Some(i) = METHODS.iter().position(|(known, _)| *known == name) else {
                let known: Vec<&str> = METHODS.iter().map(|(known, _)| *known).collect();
                let upper = name.to_ascii_uppercase();
                return Err(match known.contains(&upper.as_str()) {
                    true => format!("methods are written in upper case: {upper}"),
                    false => format!("`{name}` is not a method: the methods are {}", known.join(", ")),
                });
            };
            set.0 |= 1 << i;
        }
        if set.0 & 1 != 0 {
            set.0 |= 2;
        }
        Ok(set)
    }

    /// Whether a method is in the set.
    pub fn contains(self, method: &Method) -> bool {
        METHODS.iter().position(|(_, known)| known == method).is_some_and(|i| self.0 & (1 << i) != 0)
    }

    /// What is in either.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many are in it.
    pub(super) fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The first, for an example.
    pub(super) fn first(self) -> &'static str {
        METHODS.get(self.0.trailing_zeros() as usize).map_or("GET", |(name, _)| name)
    }
}

impl fmt::Display for Segment {
    /// As it is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Regex { name, text, .. } => write!(f, "{{{name}:{text}}}"),
            Self::Param(name) => write!(f, "{{{name}}}"),
        }
    }
}

impl fmt::Display for HostPattern {
    /// As it is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(name) => write!(f, "*.{name}"),
        }
    }
}

impl fmt::Display for MethodSet {
    /// As in `Allow`: `GET, HEAD`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            METHODS.iter().enumerate().filter(|(i, _)| self.0 & (1 << i) != 0).map(|(_, (name, _))| *name).collect();
        f.write_str(&names.join(", "))
    }
}

impl Condition {
    /// Whether a request meets it.
    pub(super) fn matches(&self, request: &RequestView<'_>) -> bool {
        match self {
            Self::Header(name, test) => test
                .matches(request.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()))),
            Self::Query(name, test) => {
                let query = form_urlencoded::parse(request.query.unwrap_or("").as_bytes());
                test.matches(query.filter(|(key, _)| **key == **name).map(|(_, value)| value))
            }
            Self::Listener(names) => names.iter().any(|name| **name == *request.listener),
            Self::Version(naming, version) => naming.takes(*version, request),
            Self::When { test, .. } => test(request),
        }
    }

    /// The same condition.
    pub(super) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Header(a, x), Self::Header(b, y)) => a == b && x.same(y),
            (Self::Query(a, x), Self::Query(b, y)) => a == b && x.same(y),
            (Self::Listener(a), Self::Listener(b)) => a == b,
            (Self::Version(a, x), Self::Version(b, y)) => Arc::ptr_eq(a, b) && x == y,
            (Self::When { text: a, .. }, Self::When { text: b, .. }) => a == b,
            _ => false,
        }
    }

    /// No request meets both.
    pub(super) fn disjoint(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Header(a, x), Self::Header(b, y)) => a == b && x.disjoint(y),
            (Self::Query(a, x), Self::Query(b, y)) => a == b && x.disjoint(y),
            (Self::Listener(a), Self::Listener(b)) => !a.iter().any(|name| b.contains(name)),
            (Self::Version(a, x), Self::Version(b, y)) => Arc::ptr_eq(a, b) && x != y,
            _ => false,
        }
    }

    /// In words, for an example of a request.
    pub(super) fn example(&self) -> String {
        match self {
            Self::Header(name, test) => format!("the header {name} {}", test.example()),
            Self::Query(name, test) => format!("the parameter {name} {}", test.example()),
            Self::Listener(names) => {
                let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                format!("the listener {}", names.join(" or "))
            }
            Self::Version(naming, version) => naming.example(*version),
            Self::When { text, .. } => format!("`{text}`"),
        }
    }
}

impl ValueTest {
    /// Whether one of the values of a name passes.
    pub fn matches<'v>(&self, mut values: impl Iterator<Item = std::borrow::Cow<'v, str>>) -> bool {
        match self {
            Self::Exact(text) => values.any(|value| value == **text),
            Self::Regex(regex) => values.any(|value| regex.is_match(&value)),
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
        }
    }

    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            (Self::Present, Self::Present) | (Self::Absent, Self::Absent) => true,
            _ => false,
        }
    }

    /// Exact values count as one value a name: a request that repeats the name is the first route's.
    fn disjoint(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => a != b,
            (Self::Exact(a), Self::Regex(r)) | (Self::Regex(r), Self::Exact(a)) => !r.is_match(a),
            (Self::Absent, Self::Absent) => false,
            (Self::Absent, _) | (_, Self::Absent) => true,
            _ => false,
        }
    }

    /// In words: what a value must be.
    pub fn example(&self) -> String {
        match self {
            Self::Exact(text) => format!("= {text:?}"),
            Self::Regex(regex) => format!("matching `{}`", regex.as_str()),
            Self::Present => "present".to_owned(),
            Self::Absent => "absent".to_owned(),
        }
    }
}
