//! JSON that is written in the file, with variables in its texts.
//!
//! ```toml
//! body = { user = "{path.id}", tags = ["a", "b"], account = "{user.account}" }
//! ```
//!
//! A text that is nothing but a part of an aggregate (`"{user.account}"`) becomes what the part says, of whatever type,
//! and `null` where it says nothing; any other text stays a text, and what its variables say cannot get out of it.

use std::sync::Arc;

use bytes::Bytes;

use crate::body::Parts;
use crate::build::{Build, Node, Value};
use crate::facts::{Facts, Values};
use crate::types::template::{Names, Template, Variable, Variables};

/// A JSON text with variables.
pub struct JsonTemplate(Vec<Piece>);

enum Piece {
    Text(String),
    Quoted(Template),
    Part(usize, Box<str>),
}

impl JsonTemplate {
    /// Compiles what stands at a node; `None` after a mistake in it was reported.
    pub fn compile(node: &Node, names: Names<'_>, build: &mut Build<'_>) -> Option<Self> {
        let mut template = Self(Vec::new());
        template.add(node, names, build).then_some(template)
    }

    /// The variables in it.
    pub fn variables(&self) -> impl Iterator<Item = Variable> {
        self.0.iter().flat_map(|piece| match piece {
            Piece::Text(_) => Vec::new(),
            Piece::Quoted(template) => template.variables().cloned().collect(),
            Piece::Part(position, path) => vec![Variable::Part(*position, path.clone())],
        })
    }

    /// The text with its values.
    pub fn render(&self, values: &Values<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Quoted(template) => {
                    let text = template.render(&Decoded(values));
                    out.extend(serde_json::to_vec(&String::from_utf8_lossy(&text)).unwrap_or_default());
                }
                Piece::Part(position, path) => {
                    let parts = values.facts.parts.as_ref();
                    let json = parts.and_then(|parts| parts.json(*position, path));
                    out.extend_from_slice(json.unwrap_or("null").as_bytes());
                }
            }
        }
        out
    }

    fn add(&mut self, node: &Node, names: Names<'_>, build: &mut Build<'_>) -> bool {
        match &node.value {
            Value::String(text) => match Template::parse_with(text, names) {
                Ok(template) => {
                    self.0.push(match template.only_variable() {
                        Some(Variable::Part(position, path)) => Piece::Part(*position, path.clone()),
                        _ => Piece::Quoted(template),
                    });
                    true
                }
                Err(error) => {
                    build.within_detached(node, |build| {
                        build.error("", error);
                    });
                    false
                }
            },
            Value::Array(elements) => {
                self.text("[");
                let mut fine = true;
                for (i, element) in elements.iter().enumerate() {
                    self.text(if i > 0 { "," } else { "" });
                    fine &= self.add(element, names, build);
                }
                self.text("]");
                fine
            }
            Value::Table(_) => {
                self.text("{");
                let mut fine = true;
                for (i, (name, entry)) in node.in_order().into_iter().enumerate() {
                    self.text(if i > 0 { "," } else { "" });
                    self.text(&serde_json::Value::from(name).to_string());
                    self.text(":");
                    fine &= self.add(&entry.node, names, build);
                }
                self.text("}");
                fine
            }
            _ => {
                self.text(&json(node).to_string());
                true
            }
        }
    }

    fn text(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Text(before)) => before.push_str(text),
            _ => self.0.push(Piece::Text(text.to_owned())),
        }
    }
}

/// Renders templates in which the client's JSON is the only part.
pub fn with_body<T>(json: Bytes, facts: &mut Facts, render: impl FnOnce(&Facts) -> T) -> T {
    let before = facts.parts.replace(Arc::new(Parts(vec![Some(json)])));
    let rendered = render(facts);
    facts.parts = before;
    rendered
}

/// What stands at a node, as JSON. Dates are texts.
pub fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::String(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(value) => (*value).into(),
        Value::Array(elements) => elements.iter().map(json).collect(),
        Value::Table(_) => {
            node.in_order().into_iter().map(|(name, entry)| (name.to_owned(), json(&entry.node))).collect()
        }
        Value::Datetime(text) => text.as_str().into(),
    }
}

/// Values outside of a URI, where captures have no percent-encoding.
pub(super) struct Decoded<'v, 'r>(pub &'v Values<'r>);

impl Variables for Decoded<'_, '_> {
    fn write(&self, variable: &Variable, out: &mut Vec<u8>) {
        let start = out.len();
        self.0.write(variable, out);
        if matches!(variable, Variable::Capture(_) | Variable::Path) && out[start..].contains(&b'%') {
            let encoded = out.split_off(start);
            out.extend(percent_encoding::percent_decode(&encoded));
        }
    }
}
