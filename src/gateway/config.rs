//! `[[route]]` as it is written.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer};

use super::split::Sticky;
use crate::types::OneOrMore;

/// The keys of a route that are not policies.
pub(super) const ROUTE_KEYS: &[&str] =
    &["name", "api", "match", "use", "view", "upstream", "split", "sticky", "aggregate", "respond", "redirect"];

/// One `[[route]]`, without its policies.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteConfig {
    pub name: Option<String>,
    /// Whether there are some: the tree says which.
    #[serde(rename = "api")]
    pub _api: Option<IgnoredAny>,
    #[serde(rename = "view")]
    pub _view: Option<IgnoredAny>,
    #[serde(rename = "match")]
    pub matches: MatchConfig,
    #[serde(default)]
    pub r#use: Vec<String>,
    pub upstream: Option<String>,
    pub split: Option<BTreeMap<String, u32>>,
    pub sticky: Option<Sticky>,
    /// Whether there is one: it is compiled from the tree.
    pub aggregate: Option<IgnoredAny>,
    pub respond: Option<RespondConfig>,
    pub redirect: Option<RedirectConfig>,
}

impl RouteConfig {
    /// Whether it has a destination beside `aggregate`.
    pub fn has_other_destination(&self) -> bool {
        self.upstream.is_some() || self.split.is_some() || self.respond.is_some() || self.redirect.is_some()
    }
}

/// What a route matches; short form: `"GET /users/{id}"`.
#[derive(Default, Clone)]
pub(super) struct MatchConfig {
    pub path: Option<String>,
    pub methods: Vec<String>,
    pub host: Vec<String>,
    pub headers: BTreeMap<String, ValueMatch>,
    pub query: BTreeMap<String, ValueMatch>,
    pub when: Option<String>,
}

/// What a header or a query parameter must be.
#[derive(Clone, Debug)]
pub enum ValueMatch {
    /// This.
    Exact(String),
    /// What this matches as a whole.
    Regex(String),
    /// There, or not there.
    Present(bool),
}

/// An answer that the gateway gives itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RespondConfig {
    #[serde(default = "ok")]
    pub status: u16,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub body: String,
}

/// Where to send the client instead.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RedirectConfig {
    pub to: String,
    #[serde(default = "permanent_redirect")]
    pub status: u16,
}

fn ok() -> u16 {
    200
}

fn permanent_redirect() -> u16 {
    308
}

impl<'de> Deserialize<'de> for MatchConfig {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MatchVisitor;
        impl<'de> Visitor<'de> for MatchVisitor {
            type Value = MatchConfig;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a match, such as \"GET /users/{id}\" or { path = \"/users/{id}\", methods = [\"GET\"] }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<MatchConfig, E> {
                let text = text.trim();
                let (methods, path) = match text.split_once(char::is_whitespace) {
                    Some((methods, path)) => (methods.split(',').map(str::to_owned).collect(), path.trim_start()),
                    None => (Vec::new(), text),
                };
                Ok(MatchConfig { path: Some(path.to_owned()), methods, ..MatchConfig::default() })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MatchConfig, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Long {
                    path: Option<String>,
                    #[serde(default)]
                    methods: OneOrMore,
                    #[serde(default)]
                    host: OneOrMore,
                    #[serde(default)]
                    headers: BTreeMap<String, ValueMatch>,
                    #[serde(default)]
                    query: BTreeMap<String, ValueMatch>,
                    when: Option<String>,
                }
                let long = Long::deserialize(MapAccessDeserializer::new(map))?;
                Ok(MatchConfig {
                    path: long.path,
                    methods: long.methods.0,
                    host: long.host.0,
                    headers: long.headers,
                    query: long.query,
                    when: long.when,
                })
            }
        }
        deserializer.deserialize_any(MatchVisitor)
    }
}

impl<'de> Deserialize<'de> for ValueMatch {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;
        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = ValueMatch;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the value in quotes, { regex = \"…\" } or { present = true }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ValueMatch, E> {
                Ok(ValueMatch::Exact(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ValueMatch, A::Error> {
                #[derive(Deserialize)]
                #[serde(rename_all = "lowercase")]
                enum Long {
                    Regex(String),
                    Present(bool),
                }
                Ok(match Long::deserialize(MapAccessDeserializer::new(map))? {
                    Long::Regex(text) => ValueMatch::Regex(text),
                    Long::Present(present) => ValueMatch::Present(present),
                })
            }
        }
        deserializer.deserialize_any(ValueVisitor)
    }
}

impl fmt::Display for MatchConfig {
    /// The match in short, as the name of a route that has none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.methods.is_empty() {
            write!(f, "{} ", self.methods.join(","))?;
        }
        if let [host, ..] = self.host.as_slice() {
            f.write_str(host)?;
        }
        f.write_str(self.path.as_deref().unwrap_or("/**"))
    }
}
