//! Editing header fields, for requests and responses alike: `remove`, then `rename`, then `set`, then `add`.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::Scope;
use crate::build::Build;
use crate::facts::Values;
use crate::types::template::Template;

/// `headers = { remove, rename, set, add }`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct EditsConfig {
    remove: Vec<String>,
    rename: BTreeMap<String, String>,
    set: BTreeMap<String, String>,
    add: BTreeMap<String, String>,
}

/// Compiled edits.
#[derive(Default)]
pub struct Edits {
    remove: Vec<HeaderName>,
    remove_prefix: Vec<Box<str>>,
    rename: Vec<(HeaderName, HeaderName)>,
    set: Vec<(HeaderName, Value)>,
    add: Vec<(HeaderName, Value)>,
}

/// What is edited: Pingora keeps the case of names beside the map, so its own methods must be used.
pub trait Head {
    /// The fields.
    fn fields(&self) -> &HeaderMap;
    /// Removes every field of a name.
    fn remove(&mut self, name: &HeaderName);
    /// Puts one field in the place of all of its name.
    fn set(&mut self, name: &HeaderName, value: HeaderValue);
    /// Adds a field.
    fn add(&mut self, name: &HeaderName, value: HeaderValue);
}

enum Value {
    Ready(HeaderValue),
    Template(Template),
}

/// Fields that belong to one connection or to the framing of a message.
const FORBIDDEN: [&str; 11] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Edits {
    /// Compiles; `None` after every mistake was reported. Places are below `headers`.
    pub fn compile(config: &EditsConfig, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        let mut edits = Self::default();
        for (i, name) in config.remove.iter().enumerate() {
            let key = format!("headers.remove[{i}]");
            match name.strip_suffix('*') {
                Some("") => {
                    build
                        .error(&key, "`*` would remove every field")
                        .help("write what the names begin with: \"X-Internal-*\"");
                }
                Some(prefix) => edits.remove_prefix.push(prefix.to_ascii_lowercase().into()),
                None => edits.remove.extend(field(name, &key, build)),
            }
        }
        for (from, to) in &config.rename {
            let key = format!("headers.rename.{from}");
            if let (Some(from), Some(to)) = (field(from, &key, build), field(to, &key, build)) {
                edits.rename.push((from, to));
            }
        }
        for (part, written, compiled) in [("set", &config.set, &mut edits.set), ("add", &config.add, &mut edits.add)] {
            for (name, text) in written {
                let key = format!("headers.{part}.{name}");
                let name = field(name, &key, build);
                let value = value(text, &key, scope, build);
                compiled.extend(name.zip(value));
            }
        }
        (build.errors() == before).then_some(edits)
    }

    /// Edits a head. A value that cannot stand in a header field (from what a client sent) leaves its field out.
    pub fn apply(&self, head: &mut impl Head, values: &Values<'_>) {
        for name in &self.remove {
            head.remove(name);
        }
        if !self.remove_prefix.is_empty() {
            let matching = |name: &&HeaderName| {
                let name = name.as_str();
                self.remove_prefix.iter().any(|prefix| name.starts_with(&**prefix)) && !FORBIDDEN.contains(&name)
            };
            let names: Vec<HeaderName> = head.fields().keys().filter(matching).cloned().collect();
            names.iter().for_each(|name| head.remove(name));
        }
        for (from, to) in &self.rename {
            let moved: Vec<HeaderValue> = head.fields().get_all(from).iter().cloned().collect();
            if !moved.is_empty() {
                head.remove(from);
                head.remove(to);
                moved.into_iter().for_each(|value| head.add(to, value));
            }
        }
        for (name, value) in &self.set {
            match value.get(values) {
                Some(value) => head.set(name, value),
                None => head.remove(name),
            }
        }
        for (name, value) in &self.add {
            if let Some(value) = value.get(values) {
                head.add(name, value);
            }
        }
    }
}

impl Value {
    fn get(&self, values: &Values<'_>) -> Option<HeaderValue> {
        match self {
            Self::Ready(value) => Some(value.clone()),
            Self::Template(template) => {
                HeaderValue::from_maybe_shared(bytes::Bytes::from(template.render(values))).ok()
            }
        }
    }
}

/// The name of a field that may be edited.
pub(super) fn field(name: &str, key: &str, build: &mut Build<'_>) -> Option<HeaderName> {
    let Ok(name) = name.parse::<HeaderName>() else {
        build.error(key, format!("`{name}` is not the name of a header field"));
        return None;
    };
    if FORBIDDEN.contains(&name.as_str()) {
        let help = match name.as_str() {
            "host" => "the request policy has `host` for it",
            _ => "it belongs to the connection or to the framing of the message, and the gateway writes it",
        };
        build.error(key, format!("`{name}` cannot be edited")).help(help);
        return None;
    }
    Some(name)
}

fn value(text: &str, key: &str, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Value> {
    let template = match Template::parse_with(text, scope.names()) {
        Ok(template) => template,
        Err(error) => {
            build.error(key, error);
            return None;
        }
    };
    let Some(constant) = template.constant() else { return Some(Value::Template(template)) };
    match HeaderValue::from_str(constant) {
        Ok(value) => Some(Value::Ready(value)),
        Err(_) => {
            build.error(key, "a header field cannot hold control characters");
            None
        }
    }
}

macro_rules! head {
    ($type:ty) => {
        impl Head for $type {
            fn fields(&self) -> &HeaderMap {
                &self.headers
            }
            fn remove(&mut self, name: &HeaderName) {
                self.remove_header(name);
            }
            fn set(&mut self, name: &HeaderName, value: HeaderValue) {
                let _ = self.insert_header(name.clone(), value);
            }
            fn add(&mut self, name: &HeaderName, value: HeaderValue) {
                let _ = self.append_header(name.clone(), value);
            }
        }
    };
}
head!(pingora_http::RequestHeader);
head!(pingora_http::ResponseHeader);
