//! Fields that come from the path or the query: where they are in the request's message, and their text as protobuf.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use percent_encoding::percent_decode_str;

use super::DEPTH;
use super::parse::{from_token, scalar, short};
use super::schema::{Field, Kind, Label, Schema, Special};
use super::wire::{enclose, put_tag};
use crate::body::json_text::{Token, is_number};

/// A field that a text can give, however deep it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    /// The numbers of the messages around it, from the outside.
    pub around: Vec<u32>,
    pub number: u32,
    pub kind: Kind,
    pub repeated: bool,
    /// The oneofs on the way, each as how deep it is, and which.
    oneofs: Vec<(usize, usize)>,
}

impl Place {
    /// Finds a field by its path, as `book.author.name`.
    ///
    /// # Errors
    /// There is none, or no text can give it.
    pub fn find<'n>(schema: &Schema, message: usize, path: impl IntoIterator<Item = &'n str>) -> Result<Self, String> {
        let mut at = message;
        let mut place = Self { around: Vec::new(), number: 0, kind: Kind::Bool, repeated: false, oneofs: Vec::new() };
        let mut names = path.into_iter().peekable();
        while let Some(name) = names.next() {
            if place.around.len() == DEPTH {
                return Err("messages lie too deep in each other".to_owned());
            }
            let message = &schema.messages[at];
            let field = message.named(name).map(|index| &message.fields[index]);
            let field = field.ok_or_else(|| format!("{} has no field `{}`", message.name, short(name)))?;
            place.oneofs.extend(field.oneof.map(|oneof| (place.around.len(), oneof)));
            if names.peek().is_none() {
                return place.end(schema, field);
            }
            match field.kind {
                Kind::Message(inner)
                    if field.label == Label::Singular && schema.messages[inner].special == Special::No =>
                {
                    place.around.push(field.number);
                    at = inner;
                }
                _ => return Err(format!("`{}` has no fields that could be given one by one", short(name))),
            }
        }
        Err("a name was expected".to_owned())
    }

    fn end(mut self, schema: &Schema, field: &Field) -> Result<Self, String> {
        let is_text = match field.kind {
            Kind::Group(_) => false,
            Kind::Message(id) => {
                let special = schema.messages[id].special;
                matches!(special, Special::Wrapper(_) | Special::Timestamp | Special::Duration | Special::FieldMask)
            }
            _ => true,
        };
        if !is_text || matches!(field.label, Label::Map { .. }) {
            return Err(format!("`{}` is a message or map, which a text cannot give", field.name));
        }
        (self.number, self.kind, self.repeated) = (field.number, field.kind, field.label != Label::Singular);
        Ok(self)
    }

    /// Appends the field, with the messages around it.
    ///
    /// # Errors
    /// What was expected of the text.
    pub fn put(&self, schema: &Schema, text: &str, out: &mut Vec<u8>) -> Result<(), &'static str> {
        let begin = out.len();
        put_tag(self.number, self.kind.wire(), out);
        match self.kind {
            Kind::Message(id) => {
                out.truncate(begin);
                let special = schema.messages[id].special;
                let kind = if let Special::Wrapper(kind) = special { kind } else { self.kind };
                from_token(schema, special, &token(schema, kind, text), out)?;
                enclose(self.number, begin, out);
            }
            kind => scalar(schema, kind, &token(schema, kind, text), out)?,
        }
        self.around.iter().rev().for_each(|number| enclose(*number, begin, out));
        Ok(())
    }

    /// Whether it is the same field.
    pub fn is(&self, other: &Self) -> bool {
        self.number == other.number && self.around == other.around
    }

    /// Whether it lies in a field of the request's message, or is it.
    pub fn is_in(&self, number: u32) -> bool {
        *self.around.first().unwrap_or(&self.number) == number
    }
}

/// How a query is read.
#[derive(Debug, Clone, Default)]
pub(super) struct QueryRules {
    /// Whether parameters are passed over that are no fields.
    pub ignore_unknown: bool,
    /// Parameters that are somebody else's.
    pub ignored: HashSet<String>,
}

/// Which fields a query cannot give, as others do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Taken<'a> {
    /// All: the body is the whole message.
    All,
    /// These of the path, and the one that the body is.
    Some { path: &'a [(Place, super::template::Variable)], body: Option<u32> },
}

/// Appends the fields that a query gives.
///
/// # Errors
/// What is wrong with it.
pub(super) fn query(
    schema: &Schema,
    message: usize,
    query: &str,
    rules: &QueryRules,
    taken: Taken<'_>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let mut given: HashSet<(Vec<u32>, u32)> = HashSet::new();
    let mut oneofs: HashMap<(Vec<u32>, usize), u32> = HashMap::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        if rules.ignored.contains(&name) {
            continue;
        }
        let place = match (taken, Place::find(schema, message, name.split('.'))) {
            (Taken::All, _) | (_, Err(_)) if rules.ignore_unknown => continue,
            (Taken::All, _) => return Err(format!("`{}` is not known: all fields are in the body", short(&name))),
            (_, Err(wrong)) => return Err(format!("`{}`: {wrong}", short(&name))),
            (Taken::Some { path, body }, Ok(place)) => {
                if path.iter().any(|(other, _)| other.is(&place)) {
                    return Err(format!("`{}` is in the path already", short(&name)));
                }
                if body.is_some_and(|body| place.is_in(body)) {
                    return Err(format!("`{}` is in the body", short(&name)));
                }
                place
            }
        };
        if !given.insert((place.around.clone(), place.number)) && !place.repeated {
            return Err(format!("`{}` is given twice", short(&name)));
        }
        for (depth, oneof) in &place.oneofs {
            let member = *place.around.get(*depth).unwrap_or(&place.number);
            let before = oneofs.insert((place.around[..*depth].to_vec(), *oneof), member);
            if before.is_some_and(|before| before != member) {
                return Err(format!("`{}`: another field of its oneof is given", short(&name)));
            }
        }
        place.put(schema, &value, out).map_err(|expected| format!("`{}`: {expected} was expected", short(&name)))?;
    }
    Ok(())
}

/// A text as JSON would have it: in a path and a query nothing has quotes.
fn token<'t>(schema: &Schema, kind: Kind, text: &'t str) -> Token<'t> {
    match kind {
        Kind::Bool if text == "true" => Token::Bool(true),
        Kind::Bool if text == "false" => Token::Bool(false),
        Kind::Enum(id) if is_number(text) && !schema.enums[id].numbers.contains_key(text) => Token::Number(text),
        _ => Token::String(Cow::Borrowed(text)),
    }
}

fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(&text.replace('+', " ")).decode_utf8().map(Cow::into_owned);
    decoded.map_err(|_| format!("`{}` is not UTF-8", short(text)))
}
