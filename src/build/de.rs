//! A serde deserializer over the tree that goes on after a mistake.
//!
//! serde stops at the first error. Here an error carries its place; the entry at fault is left out, and the
//! same node is deserialized again, until nothing more is wrong. The cost is one pass a mistake.

use std::collections::HashSet;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::diagnostic::{Diagnostic, Severity};
use super::suggestion;
use super::tree::{Entry, Node, Place, Value};

/// A node cannot hold more mistakes than this before the rest is not looked for.
const MOST: usize = 100;

/// Deserializes a node; the value is there only when nothing was wrong.
pub(super) fn deserialize<T: DeserializeOwned>(node: &Node) -> (Option<T>, Vec<Diagnostic>) {
    let mut left_out = HashSet::new();
    let mut found = Vec::new();
    while found.len() < MOST {
        match T::deserialize(NodeDeserializer { node, left_out: &left_out }) {
            Ok(value) if found.is_empty() => return (Some(value), found),
            Ok(_) => break,
            Err(error) => {
                let place = error.place.unwrap_or(node.place);
                let fault = error.fault.unwrap_or(node.place);
                // A key that is missing only because its value was wrong has been reported already.
                let follows = match &error.kind {
                    Kind::Missing(field) => left_out.contains(&(place, Some((*field).to_owned()))),
                    _ => false,
                };
                if !follows {
                    found.push(error.diagnostic(place));
                }
                let progress = left_out.insert((fault, None));
                if let Some((table, key)) = error.key {
                    left_out.insert((table, Some(key)));
                }
                if fault == node.place || !progress {
                    break;
                }
            }
        }
    }
    (None, found)
}

/// What is left out: a value by its place, and the names of a table's keys that were.
type LeftOut = HashSet<(Place, Option<String>)>;

#[derive(Debug)]
struct Error {
    kind: Kind,
    /// Where to point.
    place: Option<Place>,
    /// What to leave out.
    fault: Option<Place>,
    /// The table and the key that is left out.
    key: Option<(Place, String)>,
}

#[derive(Debug)]
enum Kind {
    Unknown(String, Vec<&'static str>),
    Missing(&'static str),
    Duplicate(&'static str),
    Message(String),
}

impl Error {
    fn diagnostic(&self, place: Place) -> Diagnostic {
        let say = |message: String| Diagnostic::new(Severity::Error, Some(place), message);
        match &self.kind {
            Kind::Unknown(name, known) => {
                let mut diagnostic = say(format!("`{name}` is not known here"));
                diagnostic.help(suggestion("key", name, known));
                diagnostic
            }
            Kind::Missing(field) => say(format!("`{field}` is missing here")),
            Kind::Duplicate(field) => say(format!("`{field}` is given twice")),
            Kind::Message(message) => say(message.clone()),
        }
    }

    fn at(mut self, entry: &Entry, table: Place, key: &str) -> Self {
        self.place.get_or_insert(entry.node.place);
        if self.fault.is_none() {
            self.fault = Some(entry.node.place);
            self.key = Some((table, key.to_owned()));
        }
        self
    }
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Self { kind, place: None, fault: None, key: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Unknown(name, _) => write!(f, "`{name}` is not known here"),
            Kind::Missing(field) => write!(f, "`{field}` is missing here"),
            Kind::Duplicate(field) => write!(f, "`{field}` is given twice"),
            Kind::Message(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Kind::Message(message.to_string()).into()
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Kind::Message(format!("expected {}, found {}", wanted(expected), had(unexpected))).into()
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Kind::Unknown(field.to_owned(), expected.to_vec()).into()
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Kind::Unknown(variant.to_owned(), expected.to_vec()).into()
    }

    fn missing_field(field: &'static str) -> Self {
        Kind::Missing(field).into()
    }

    fn duplicate_field(field: &'static str) -> Self {
        Kind::Duplicate(field).into()
    }
}

/// serde's words for a type in words for an operator.
fn wanted(expected: &dyn de::Expected) -> String {
    let text = expected.to_string();
    let limits = |min: &dyn fmt::Display, max: &dyn fmt::Display| format!("a whole number from {min} to {max}");
    match text.as_str() {
        "u8" => limits(&0, &u8::MAX),
        "u16" => limits(&0, &u16::MAX),
        "u32" => limits(&0, &u32::MAX),
        "u64" | "usize" => "a whole number, zero or more".to_owned(),
        "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        "a string" | "path string" => "text in quotes".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        text if text.starts_with("struct ") => "a table".to_owned(),
        text if text.starts_with("enum ") => "one of the known words".to_owned(),
        _ => text,
    }
}

fn had(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Str(text) => format!("the text {text:?}"),
        Unexpected::Signed(n) => format!("the number {n}"),
        Unexpected::Unsigned(n) => format!("the number {n}"),
        Unexpected::Float(n) => format!("the number {n}"),
        Unexpected::Bool(b) => format!("`{b}`"),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

#[derive(Clone, Copy)]
struct NodeDeserializer<'n> {
    node: &'n Node,
    left_out: &'n LeftOut,
}

impl NodeDeserializer<'_> {
    /// An error that arises in this node's own visitor is about this node.
    fn here<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|mut error| {
            error.place.get_or_insert(self.node.place);
            if matches!(error.kind, Kind::Missing(_)) && error.fault.is_none() {
                error.fault = Some(self.node.place);
            }
            error
        })
    }
}

impl<'de> de::Deserializer<'de> for NodeDeserializer<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let result = match &self.node.value {
            Value::String(text) | Value::Datetime(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::Array(items) => visitor.visit_seq(Items { items: items.iter(), left_out: self.left_out }),
            Value::Table(table) => visitor.visit_map(Entries {
                table: self.node.place,
                entries: table.iter(),
                value: None,
                left_out: self.left_out,
            }),
        };
        self.here(result)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let result = match &self.node.value {
            Value::String(text) => visitor.visit_enum(StrDeserializer::<Error>::new(text)),
            Value::Table(table) => {
                let mut entries = table.iter().filter(|(_, e)| !self.left_out.contains(&(e.node.place, None)));
                match (entries.next(), entries.next()) {
                    (Some((key, entry)), None) => {
                        visitor.visit_enum(Variant { table: self.node.place, key, entry, left_out: self.left_out })
                    }
                    _ => Err(de::Error::custom(format_args!("expected exactly one of {}", super::list(variants)))),
                }
            }
            other => Err(de::Error::custom(format_args!("expected one of {}, found {other}", super::list(variants)))),
        };
        self.here(result)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier
    }
}

impl IntoDeserializer<'_, Error> for NodeDeserializer<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

struct Items<'n> {
    items: std::slice::Iter<'n, Node>,
    left_out: &'n LeftOut,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let left_out = self.left_out;
        let Some(node) = self.items.find(|node| !left_out.contains(&(node.place, None))) else { return Ok(None) };
        seed.deserialize(NodeDeserializer { node, left_out }).map(Some).map_err(|mut error| {
            error.place.get_or_insert(node.place);
            error.fault.get_or_insert(node.place);
            error
        })
    }
}

struct Entries<'n> {
    table: Place,
    entries: std::collections::btree_map::Iter<'n, String, Entry>,
    value: Option<(&'n String, &'n Entry)>,
    left_out: &'n LeftOut,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let left_out = self.left_out;
        let Some((key, entry)) = self.entries.find(|(_, e)| !left_out.contains(&(e.node.place, None))) else {
            return Ok(None);
        };
        self.value = Some((key, entry));
        seed.deserialize(StrDeserializer::<Error>::new(key)).map(Some).map_err(|mut error| {
            error.place.get_or_insert(entry.key);
            error.at(entry, self.table, key)
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (key, entry) = self.value.take().expect("serde asks for a value after its key");
        seed.deserialize(NodeDeserializer { node: &entry.node, left_out: self.left_out })
            .map_err(|error| error.at(entry, self.table, key))
    }
}

struct Variant<'n> {
    table: Place,
    key: &'n str,
    entry: &'n Entry,
    left_out: &'n LeftOut,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        match seed.deserialize(StrDeserializer::<Error>::new(self.key)) {
            Ok(value) => Ok((value, self)),
            Err(mut error) => {
                error.place.get_or_insert(self.entry.key);
                Err(error)
            }
        }
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Err(de::Error::custom(format_args!("`{}` stands alone: write \"{}\"", self.key, self.key)))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(NodeDeserializer { node: &self.entry.node, left_out: self.left_out }).map_err(|mut error| {
            // Without its one key the table would mean nothing: the whole of it is left out.
            error.place.get_or_insert(self.entry.node.place);
            error.fault = error.fault.filter(|fault| *fault != self.entry.node.place && *fault != self.table);
            error
        })
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_any(NodeDeserializer { node: &self.entry.node, left_out: self.left_out }, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.tuple_variant(0, visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::super::{Build, Sources};
    use crate::types::{Size, Timespan};

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields, rename_all = "snake_case")]
    #[allow(dead_code)]
    enum Kind {
        RoundRobin,
        Hash(String),
        Deep(Inner),
    }

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        size: Size,
        required: u16,
    }

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Config {
        #[serde(default)]
        timeout: Option<Timespan>,
        #[serde(default)]
        kind: Option<Kind>,
        #[serde(default)]
        list: Vec<Inner>,
        #[serde(default)]
        map: BTreeMap<String, Inner>,
        #[serde(default)]
        flag: bool,
    }

    fn mistakes(text: &str) -> String {
        let mut sources = Sources::default();
        let (tree, found) = sources.parse("x.toml", text);
        let mut build = Build::new(&sources, &tree);
        build.extend(found);
        let value: Option<Config> = build.deserialize();
        let diagnostics = build.diagnostics();
        assert_eq!(value.is_some(), diagnostics.errors() == 0, "{diagnostics}");
        diagnostics.to_string()
    }

    #[test]
    fn what_is_right_is_deserialized() {
        assert_eq!(
            mistakes("timeout = '5s'\nkind = 'round_robin'\nflag = true\nlist = [{ size = '1KiB', required = 1 }]"),
            ""
        );
        assert_eq!(mistakes("kind = { hash = 'x' }"), "");
        assert_eq!(mistakes("kind = { deep = { size = '1B', required = 1 } }"), "");
    }

    #[test]
    fn every_mistake_is_found_once() {
        let text = mistakes(
            "timeut = '5s'\nflag = 1\nkind = 'rund_robin'\nlist = [{ size = 1, required = 70000 }, { size = '1KiB' }]\n\
             [map.a]\nsize = '1KiB'\nrequired = 'x'\nextra = 1\n[map.b]\n",
        );
        assert!(text.contains("did you mean `timeout`?"), "{text}");
        assert!(text.contains("did you mean `round_robin`?"), "{text}");
        assert!(text.contains("expected `true` or `false`, found the number 1"), "{text}");
        assert!(text.contains("from 0 to 65535, found the number 70000"), "{text}");
        assert!(text.contains("expected a size with its unit"), "{text}");
        assert!(text.contains("`extra` is not known here"), "{text}");
        assert!(text.contains("`size` is missing here"), "{text}");
        assert!(text.ends_with("9 errors\n") || text.ends_with("8 errors\n"), "{text}");
    }

    #[test]
    fn a_wrong_value_is_not_also_a_missing_one() {
        let text = mistakes("kind = { deep = { size = 1, required = 1 } }");
        assert!(text.ends_with("1 error\n"), "{text}");
        let text = mistakes("kind = { deep = 3 }");
        assert!(text.ends_with("1 error\n"), "{text}");
        let text = mistakes("kind = { hash = 'x', deep = 1 }");
        assert!(text.contains("exactly one of"), "{text}");
    }
}
