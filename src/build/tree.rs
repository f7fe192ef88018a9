use std::collections::BTreeMap;
use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Diagnostic;
use super::diagnostic::Severity;

/// The texts that a configuration was read from.
#[derive(Default, Debug, PartialEq)]
pub struct Sources {
    files: Vec<(String, String)>,
}

/// A stretch of a file's text, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// Which file of the [`Sources`].
    pub file: u16,
    /// Where it begins.
    pub start: u32,
    /// The first byte behind it.
    pub end: u32,
}

/// A value of the configuration and its place.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// Where the value is written.
    pub place: Place,
    /// What is written there.
    pub value: Value,
}

/// What a TOML value can be.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Text.
    String(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// A date or time, as written.
    Datetime(String),
    /// `[a, b]` or `[[array.of.tables]]`.
    Array(Vec<Node>),
    /// `{ key = value }` or `[header]`.
    Table(Table),
}

/// A table, sorted by key.
pub type Table = BTreeMap<String, Entry>;

/// One `key = value` of a table.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// Where the key is written.
    pub key: Place,
    /// The value.
    pub node: Node,
}

impl Sources {
    /// Parses a file's text and keeps it for the diagnostics. What can be read despite mistakes is in the tree.
    pub fn parse(&mut self, name: impl Into<String>, text: impl Into<String>) -> (Node, Vec<Diagnostic>) {
        let file = u16::try_from(self.files.len()).expect("the loader refuses that many files");
        self.files.push((name.into(), text.into()));
        let text = &self.files[usize::from(file)].1;
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut found = Vec::new();
        for error in errors {
            let place = error.span().map(|span| place(file, span));
            found.push(Diagnostic::new(Severity::Error, place, format!("not valid TOML: {}", error.message())));
        }
        (table(file, &root, &mut found), found)
    }

    /// The names of all files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(name, _)| name.as_str())
    }

    /// The texts of all files.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(_, text)| text.as_str())
    }

    /// The name of a file.
    pub fn name(&self, file: u16) -> &str {
        self.files.get(usize::from(file)).map_or("", |(name, _)| name)
    }

    /// The text of the file with a name.
    pub fn named(&self, name: &str) -> Option<&str> {
        self.files.iter().find(|(other, _)| other == name).map(|(_, text)| text.as_str())
    }

    /// The text of a file.
    pub fn text(&self, file: u16) -> &str {
        self.files.get(usize::from(file)).map_or("", |(_, text)| text)
    }

    /// Line and column of a place, both counted from one, the column in characters.
    pub fn line_column(&self, place: Place) -> (usize, usize) {
        let before = self.text(place.file).get(..place.start as usize).unwrap_or("");
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

impl Node {
    /// The table, if it is one.
    pub fn table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The entries of a table, in the order of the file.
    pub fn in_order(&self) -> Vec<(&str, &Entry)> {
        let mut entries: Vec<_> =
            self.table().into_iter().flatten().map(|(key, entry)| (key.as_str(), entry)).collect();
        entries.sort_by_key(|(_, entry)| (entry.key.file, entry.key.start));
        entries
    }

    /// The elements, if it is an array.
    pub fn array(&self) -> Option<&[Node]> {
        match &self.value {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The value under a key, if it is a table that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.table()?.get(key).map(|entry| &entry.node)
    }

    /// The text, if it is a string.
    pub fn str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The table that has this under a key and nothing else.
    pub fn under(self, key: &str) -> Node {
        let place = self.place;
        Node { place, value: Value::Table(Table::from([(key.to_owned(), Entry { key: place, node: self })])) }
    }

    /// This table over a farther one: the nearer wins, key by key, through all tables.
    pub fn over(&self, farther: &Node) -> Node {
        let (Value::Table(near), Value::Table(far)) = (&self.value, &farther.value) else { return self.clone() };
        let mut table = far.clone();
        for (key, entry) in near {
            let node = match far.get(key) {
                Some(other) => entry.node.over(&other.node),
                None => entry.node.clone(),
            };
            table.insert(key.clone(), Entry { key: entry.key, node });
        }
        Node { place: self.place, value: Value::Table(table) }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) => write!(f, "the text {text:?}"),
            Self::Integer(number) => write!(f, "the number {number}"),
            Self::Float(number) => write!(f, "the number {number}"),
            Self::Boolean(value) => write!(f, "`{value}`"),
            Self::Datetime(text) => write!(f, "the date {text}"),
            Self::Array(_) => f.write_str("a list"),
            Self::Table(_) => f.write_str("a table"),
        }
    }
}

fn place(file: u16, span: std::ops::Range<usize>) -> Place {
    // A file is refused by the loader long before it has 4 GiB.
    let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place { file, start: clamp(span.start), end: clamp(span.end) }
}

fn table(file: u16, source: &Spanned<DeTable<'_>>, found: &mut Vec<Diagnostic>) -> Node {
    Node { place: place(file, source.span()), value: Value::Table(entries(file, source.get_ref(), found)) }
}

fn entries(file: u16, source: &DeTable<'_>, found: &mut Vec<Diagnostic>) -> Table {
    let mut table = Table::new();
    for (key, value) in source {
        let node = node(file, value, found);
        table.insert(key.get_ref().to_string(), Entry { key: place(file, key.span()), node });
    }
    table
}

fn node(file: u16, source: &Spanned<DeValue<'_>>, found: &mut Vec<Diagnostic>) -> Node {
    let here = place(file, source.span());
    let value = match source.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => {
            let digits: String = number.as_str().chars().filter(|c| *c != '_').collect();
            match i64::from_str_radix(&digits, number.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => {
                    found.push(Diagnostic::new(Severity::Error, Some(here), "the number is too large".to_owned()));
                    Value::Integer(0)
                }
            }
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(value) => Value::Datetime(value.to_string()),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| node(file, item, found)).collect()),
        DeValue::Table(source) => Value::Table(entries(file, source, found)),
    };
    Node { place: here, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearer_table_wins_key_by_key() {
        let mut sources = Sources::default();
        let (root, found) = sources
            .parse("x.toml", "[far]\na = 1\nb = { c = 1, d = 1 }\ne = [1]\n[near]\na = 2\nb = { c = 2 }\ne = [2]\n");
        assert!(found.is_empty());
        let merged = root.get("near").unwrap().over(root.get("far").unwrap());
        assert_eq!(merged.get("a").unwrap().value, Value::Integer(2));
        assert_eq!(merged.get("b").unwrap().get("c").unwrap().value, Value::Integer(2));
        assert_eq!(merged.get("b").unwrap().get("d").unwrap().value, Value::Integer(1));
        assert_eq!(merged.get("e").unwrap().array().unwrap().len(), 1);
    }

    #[test]
    fn places_point_into_the_text() {
        let mut sources = Sources::default();
        let (root, _) = sources.parse("x.toml", "[a]\nb = \"é\"\nc = 'x'\n");
        let place = root.get("a").unwrap().get("c").unwrap().place;
        assert_eq!(sources.line_column(place), (3, 5));
    }
}
